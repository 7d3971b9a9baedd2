"""Requantisation with a static factor: results as int8 by a power of two or an fp16 value, without new hardware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, machine
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.instructions import NumberType
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import limits
from bitwright.workloads import linear
from bitwright.workloads.lowering import lower

M, N, K = 5, 11, 40


def operands(name: str, seed: int) -> tuple[Any, linear.Operand, Any, np.ndarray]:
    draw = np.random.default_rng(seed)
    lim = limits(machine.load(name))
    form = "int4_asym" if "fp16" not in name else "int4"
    encoded = formats.get(form).encode(draw.normal(size=(N, K)).astype(np.float32), group=8)
    values = draw.normal(size=(M, K)).astype(np.float32)
    floats = "fp16" in name
    acts = linear.Fp16Rule("fp16", None).encode_acts(values, 1, "") if floats else linear.encode_int8_acts(values, None)
    return encoded, acts, lim, draw.normal(size=N).astype(np.float32)


def results(encoded: Any, acts: linear.Operand, lim: Any, **options: Any) -> np.ndarray:
    lowered = lower(encoded, acts, lim, **options)
    assert run(lowered.program, lim, lowered.memory).legal
    return lowered.read()


def int8(values: np.ndarray) -> np.ndarray:
    """By an oracle of its own: to nearest even in float64, saturated at +-127."""
    return np.clip(np.rint(values.astype(np.float64)), -127, 127).astype(np.int8)


@pytest.mark.parametrize("name", ["int8-4x4", "shift-add-4x4-os", "fp16-4x4"])
@pytest.mark.parametrize("power", [-6, -3, 0, 2, 5])
def test_a_power_of_two_only_moves_the_point(name: str, power: int) -> None:
    """The fp32 results, times the power (exact), rounded once: as if the vector unit had shifted them."""
    encoded, acts, lim, bias = operands(name, 100 + power)
    factor = 2.0**power
    for extra in (None, bias):
        whole = results(encoded, acts, lim, bias=extra)
        found = results(encoded, acts, lim, bias=extra, to=NumberType.INT8, rescale=factor)
        np.testing.assert_array_equal(found, int8(whole.astype(np.float64) * factor))
    assert power < 0 or len(np.unique(found)) > 5


@pytest.mark.parametrize("name", ["int8-4x4", "shift-add-4x4-os", "fp16-4x4"])
@pytest.mark.parametrize("factor", [0.0123, 0.37, 1.7, 21.3])
def test_an_fp16_value_is_the_scale_of_every_token(name: str, factor: float) -> None:
    """Activations with one static scale: codes alone, the factor in the vector unit; one fp32 product, one rounding."""
    encoded, acts, lim, _ = operands(name, int(1000 * factor))
    acts = linear.Operand(acts.values, None, acts.group, acts.largest)
    sums = results(encoded, acts, lim)
    scale = float(np.float16(factor))
    wanted = int8((sums.astype(np.float64) * scale).astype(np.float32))
    found = results(encoded, acts, lim, to=NumberType.INT8, rescale=scale)
    np.testing.assert_array_equal(found, wanted)


def test_the_factor_takes_no_instruction() -> None:
    encoded, acts, lim, bias = operands("int8-4x4", 3)
    plain, scaled = (lower(encoded, acts, lim, bias=bias, to=NumberType.INT8, rescale=r) for r in (None, 0.125))
    assert plain.program == scaled.program


@pytest.mark.parametrize(
    ("factor", "nearest"),
    [(0.1, 0.0999755859375), (0.0, 2.0**-24), (-2.0, 2.0**-24), (float("inf"), 65504.0), (float("nan"), 1.0)],
)
def test_other_factors_are_refused(factor: float, nearest: float) -> None:
    encoded, acts, lim, _ = operands("int8-4x4", 3)
    with pytest.raises(ConfigError) as caught:
        lower(encoded, acts, lim, to=NumberType.INT8, rescale=factor)
    message = f"rescale = {factor!r}: must be a power of two or an fp16 value above 0 (nearest {nearest!r})"
    assert str(caught.value) == message


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100, 65504.0, 2.0**-24])
def test_the_ends_of_the_range_are_taken(factor: float) -> None:
    encoded, acts, lim, _ = operands("int8-4x4", 3)
    assert lower(encoded, acts, lim, to=NumberType.INT8, rescale=factor).layout.job.scaled
