"""int8-mac cells against the golden arithmetic: every pair of operands, at extreme and random sums."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import pe as specs
from bitwright.rtl.bench.cell_bench import (
    compile_cell,
    golden_os,
    golden_ws,
    require_equal,
    sums_os,
    sums_ws,
    to_bits,
)
from bitwright.rtl.bench.operands import cross, integer_extremes

SPEC = specs.get("int8-mac")
REPLAY = "pytest tests/rtl/pe/test_int8_mac.py"


@pytest.mark.parametrize("psum_bits", [32, 18])
def test_weight_stationary_sum_is_exact_for_every_pair_of_operands(psum_bits: int) -> None:
    spec = specs.get("int8-mac", psum_bits=psum_bits)
    rng = np.random.default_rng(1)
    starts = [*integer_extremes(psum_bits), *rng.integers(-(1 << 17), 1 << 17, 2)]
    act, wgt = cross(np.arange(256), np.arange(256))
    acc = np.repeat(to_bits(spec.psum, starts), 1 << 16)
    act, wgt = np.tile(act, len(starts)), np.tile(wgt, len(starts))
    got = sums_ws(compile_cell(spec, "ws"), spec, acc, act, wgt)
    assert len(got) >= 65_536 * 9
    require_equal("psum_out", spec.psum, golden_ws(spec, acc, act, wgt), got, replay=REPLAY, acc=acc, act=act, wgt=wgt)


def test_output_stationary_sums_are_exact_for_every_pair_of_operands() -> None:
    rng = np.random.default_rng(2)
    act, wgt = cross(np.arange(256), np.arange(256))
    order = rng.permutation(1 << 16)
    act, wgt = act[order].reshape(1024, 64), wgt[order].reshape(1024, 64)
    got = sums_os(compile_cell(SPEC, "os"), SPEC, act, wgt)
    require_equal("sum", SPEC.psum, golden_os(SPEC, act, wgt), got, replay=REPLAY, act=act, wgt=wgt)


def test_output_stationary_sum_wraps_after_the_exact_products_and_not_before() -> None:
    depth = SPEC.exact_products + 2  # type: ignore[attr-defined]
    act = wgt = np.full((1, depth), 0x80, dtype=np.uint64)  # -128 * -128 = 2**14
    got = sums_os(compile_cell(SPEC, "os"), SPEC, act, wgt)[0]
    expected = (np.arange(1, depth + 1, dtype=np.uint64) << np.uint64(14)) & np.uint64(0xFFFFFFFF)
    np.testing.assert_array_equal(got, expected)
    assert expected[-3] < 1 << 31 <= expected[-2]
