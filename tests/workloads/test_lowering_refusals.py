"""What no program can be made of: operands, machines and tilings that lowering refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, machine, pe
from bitwright.arch.errors import ConfigError, FormatError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa.limits import Limits, limits
from bitwright.workloads import linear
from bitwright.workloads.linear import Operand
from bitwright.workloads.lowering import lower
from bitwright.workloads.tiling import Tiling


def encoded_int8(n: int, k: int) -> Encoded:
    return formats.get("int8").encode(np.random.default_rng(1).normal(size=(n, k)).astype(np.float32), group=None)


def int8_acts(m: int, k: int) -> Operand:
    return linear.encode_int8_acts(np.random.default_rng(2).normal(size=(m, k)).astype(np.float32), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"wgt_beats": 15},
            "buffers.wgt_kib: a slot of the wgt channel gives a block 15 beats of 16 bytes, one of 1 x 16 x 16 (int8) "
            "needs 16; make the buffer larger",
        ),
        (
            {"vec_beats": 4},
            "buffers.out_kib: a slot of the vec channel gives a block 4 beats of 16 bytes, one of 1 x 16 x 16 (int8) "
            "needs 5; make the buffer larger",
        ),
        (
            {"acc_rows": 0},
            "buffers.out_kib: a slot of the acc channel gives a block 0 rows, one of 1 x 16 x 16 (int8) needs 1; "
            "make the buffer larger",
        ),
        (
            {"out_beats": 3},
            "buffers.out_kib: a slot of the out channel gives a block 3 beats of 16 bytes, one of 1 x 16 x 16 (int8) "
            "needs 4; make the buffer larger",
        ),
    ],
)
def test_buffer_that_cannot_hold_one_tile(change: dict[str, int], message: str) -> None:
    lim = dataclasses.replace(limits(machine.load("int8-16x16")), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        lower(encoded_int8(20, 40), int8_acts(3, 40), lim, bias=np.zeros(20, np.float32))
    assert str(caught.value) == message


LIMITS = limits(machine.load("int8-16x16"), formats=["int8", "int4"])
WEIGHTS, ACTS = encoded_int8(20, 40), int8_acts(3, 40)


@pytest.mark.parametrize(
    ("weights", "acts", "bias", "message"),
    [
        (
            formats.get("int3").encode(np.ones((20, 40), np.float32), group=8),
            ACTS,
            None,
            "weights.format = int3: the machine has int8, int4 (ask limits() for the format)",
        ),
        (WEIGHTS, int8_acts(3, 41), None, "acts = [3, 41], weights = [20, 40]: must have the same reduction"),
        (
            WEIGHTS,
            Operand(np.zeros((0, 40), np.float32), None, 40, 127),
            None,
            "acts = [0, 40], weights = [20, 40]: must not be empty",
        ),
        (WEIGHTS, ACTS, np.zeros(3, np.float32), "bias.shape = (3,): must be (20,), one an output"),
    ],
)
def test_operands_that_do_not_meet(weights: Encoded, acts: Operand, bias: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lower(weights, acts, LIMITS, bias=bias)
    assert str(caught.value) == message


def test_scales_that_are_no_fp16() -> None:
    weights = formats.get("int8").encode(np.ones((20, 40), np.float32), group=None, scale_format="fp32")
    with pytest.raises(FormatError) as caught:
        lower(weights, ACTS, LIMITS)
    assert str(caught.value) == (
        "weights.scales = float32: the accelerator takes float16 (encode with scale_format='fp16')"
    )


def test_activations_that_are_no_codes() -> None:
    values = ACTS.values.copy()
    values[1, 7] = 0.5
    with pytest.raises(FormatError) as caught:
        lower(WEIGHTS, dataclasses.replace(ACTS, values=values), LIMITS)
    assert str(caught.value) == (
        "acts[1, 7] = 0.5: is no int8 value, which int8-mac takes (encode the activations first)"
    )


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (Tiling(4, 40, 20, True), "tiling = 4 x 40 x 20: must be within 1 x 1 x 1 .. 3 x 40 x 20"),
        (Tiling(3, 40, 8, True), "tiling = 3 x 40 x 8: n must be 20 or a multiple of the array's 16 columns"),
        (
            Tiling(3, 24, 16, True),
            "tiling = 3 x 24 x 16: k must be 40 or a multiple of 16, to begin where a slice does",
        ),
    ],
)
def test_tiling_that_cuts_where_nothing_may(tiling: Tiling, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lower(WEIGHTS, ACTS, LIMITS, tiling=tiling)
    assert str(caught.value) == message


def test_tiling_that_does_not_fit() -> None:
    lim = dataclasses.replace(LIMITS, wgt_beats=40)
    with pytest.raises(ConfigError) as caught:
        lower(WEIGHTS, ACTS, lim, tiling=Tiling(3, 40, 20, True))
    assert str(caught.value) == (
        "buffers.wgt_kib: a slot of the wgt channel gives a block 40 beats of 16 bytes, one of 3 x 40 x 20 (int8) "
        "needs 80; make the blocks smaller"
    )


def test_one_load_brings_a_block() -> None:
    """A slot may be one beat longer than a Load's row."""
    lim = Limits(16, 256, "ws", pe.get("int8-mac"), 8, LIMITS.formats, 4096, 65536, 4096, 512, 64, 512)
    with pytest.raises(ConfigError) as caught:
        lower(encoded_int8(256, 2048), int8_acts(1, 2048), lim, tiling=Tiling(1, 2048, 256, True))
    assert str(caught.value) == (
        "buffers.wgt_kib: a slot of the wgt channel gives a block 65535 beats of 8 bytes, one of 1 x 2048 x 256 (int8) "
        "needs 65536; make the blocks smaller"
    )
