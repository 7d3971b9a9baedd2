"""The int-accumulator below a column: corners crossed and random operands, wrap-around included."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import units
from bitwright.rtl import pe
from bitwright.rtl.bench.operands import cross, integer_extremes
from bitwright.rtl.bench.verilator import Compiled, lint


def expected(acc: np.ndarray, psum: np.ndarray) -> np.ndarray:
    """Two's complement int32 sums, by numpy's own int32 arithmetic."""
    with np.errstate(over="ignore"):
        return acc.astype(np.int32) + psum.astype(np.int32)


@pytest.mark.parametrize("psum_bits", [19, 32])
def test_unit_equals_int32_addition_and_its_spec(psum_bits: int) -> None:
    rng = np.random.default_rng(5)
    acc, psum = cross(np.asarray(integer_extremes(32)), np.asarray(integer_extremes(psum_bits)))
    half = 1 << (psum_bits - 1)
    acc = np.concatenate([acc.astype(np.uint32).view(np.int32), rng.integers(-(1 << 31), 1 << 31, 100_000)])
    psum = psum.astype(np.int64) & ((1 << psum_bits) - 1)
    psum = np.concatenate([np.where(psum < half, psum, psum - 2 * half), rng.integers(-half, half, 100_000)])
    text, top = pe.unit_verilog("int-accumulator", psum_bits=psum_bits), f"int_accumulator_p{psum_bits}"
    with Compiled(text, top).open(random_state=True) as running:
        running.reset()
        ones = np.pad(np.ones(len(acc), np.uint64), (0, 1))
        inputs = {
            "acc": np.pad(acc & 0xFFFFFFFF, (0, 1)).astype(np.uint64),
            "psum": np.pad(psum & ((1 << psum_bits) - 1), (0, 1)).astype(np.uint64),
        }
        seen = running.run({"valid": ones, **inputs}, len(ones))
    assert seen["valid_out"].tolist() == [0] + [1] * len(acc)
    got = seen["out"][1:].astype(np.uint32).view(np.int32)
    assert np.array_equal(got, expected(acc, psum))
    assert np.array_equal(units.IntAccumulator(psum_bits).accumulate(acc, psum), got.astype(np.int64))
    assert lint(text, top) == []


def test_width_out_of_range() -> None:
    with pytest.raises(ConfigError) as caught:
        units.IntAccumulator(33)
    assert str(caught.value) == "int-accumulator psum_bits = 33: must be in 8..32"
