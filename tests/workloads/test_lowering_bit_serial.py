"""Lowered programs of bit-serial machines: results equal the PE's own channels, scaled, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import formats, machine
from bitwright.arch.errors import FormatError
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import Limits, limits
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import format_specials
from bitwright.workloads.linear import Operand
from bitwright.workloads.lowering import lower
from bitwright.workloads.tiling import Tiling

NAMES = ("bitmod_fp4", "bitmod_fp3", "bitmod_fp3_ea", "fp3_e2m0", "int8", "int6", "int5", "int4")


def small(kib: float = 4) -> Limits:
    changed = machine.with_changes(machine.load("bit-serial-3x4"), buffers_kib=f"{kib},{kib},{kib}")
    return limits(changed, formats=NAMES)


def operands(seed: int, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return tuple(draw.normal(size=size).astype(np.float32) for size in ((n, k), (m, k), (n,)))  # type: ignore[return-value]


def halves(values: np.ndarray) -> Operand:
    """As fp16."""
    return Operand(values.astype(np.float16).astype(np.float32), None, values.shape[1], 0)


@pytest.mark.parametrize("group", [8, 32, None])
@pytest.mark.parametrize("name", NAMES)
def test_results_are_the_channels_of_the_pe_times_their_scale(name: str, group: int | None) -> None:
    lim, spec, form = small(), BitSerial(), formats.get(name)
    weights, values, bias = operands(1, 7, 10, 70)
    encoded = form.encode(weights, group=group, scale_format="int8")
    acts = halves(values)
    assert encoded.scale_codes is not None
    assert encoded.channel_scales is not None
    codes = encoded.codes.astype(np.int64)
    if form.family == "integer":
        codes = (codes ^ 1 << form.bits - 1) - (1 << form.bits - 1)
    sums = spec.channel_sum(
        acts.values.astype(np.float16)[:, np.newaxis],
        codes[np.newaxis],
        np.broadcast_to(encoded.scale_codes, (7, *encoded.scale_codes.shape)),
        group=group or 70,
        encoding=spec.encoding(name),
        selector=0 if encoded.selectors is None else encoded.selectors[np.newaxis],
        specials=format_specials(name),
    )
    scaled = sums * encoded.channel_scales.astype(np.float32).reshape(-1)
    for tiling, biased in ((None, True), (None, False), (Tiling(2, 70, 4, weights_outer=False), True)):
        lowered = lower(encoded, acts, lim, bias=bias if biased else None, tiling=tiling)
        assert run(lowered.program, lim, lowered.memory).legal
        np.testing.assert_array_equal(lowered.read(), scaled + bias if biased else scaled)


def test_a_group_that_is_cut_keeps_its_scale() -> None:
    """Two parts of a group, each scaled and rounded: the same value up to the accumulator's rounding."""
    lim, form = small(), formats.get("int8")
    weights, values, _ = operands(2, 3, 4, 64)
    encoded, acts = form.encode(weights, group=None, scale_format="int8"), halves(values)
    lowered = lower(encoded, acts, lim, tiling=Tiling(3, 32, 4, weights_outer=True))
    assert run(lowered.program, lim, lowered.memory).legal
    exact = acts.values.astype(np.float64) @ form.decode(encoded).astype(np.float64).T
    np.testing.assert_allclose(lowered.read(), exact, atol=2e-3)


def test_scales_of_one_level_are_refused() -> None:
    weights, values, _ = operands(3, 2, 4, 8)
    encoded = formats.get("int8").encode(weights, group=4)
    acts = halves(values)
    with pytest.raises(FormatError) as caught:
        lower(encoded, acts, small())
    assert str(caught.value) == (
        "weights.scale_format = fp16: bit-serial takes 8-bit scales of groups (encode with scale_format='int8')"
    )
