"""fp16-mac cells against numpy's float32: corners, cancellation, ties, subnormals, every weight, and sequences."""

from __future__ import annotations

import numpy as np
from bitwright.arch import pe as specs
from bitwright.rtl.bench.cell_bench import compile_cell, golden_os, golden_ws, require_equal, sums_os, sums_ws
from bitwright.rtl.bench.operands import FP16_CORNERS, all_weights, cross, fp16_mac_operands

SPEC = specs.get("fp16-mac")
REPLAY = "pytest tests/rtl/pe/test_fp16_mac.py"


def test_weight_stationary_sum_is_the_fused_sum_of_a_million_operands() -> None:
    acc, act, wgt = fp16_mac_operands(1_000_000, seed=1)
    expected = golden_ws(SPEC, acc, act, wgt)
    got = sums_ws(compile_cell(SPEC, "ws"), SPEC, acc, act, wgt)
    assert len(got) > 1_000_000
    require_equal("psum_out", SPEC.psum, expected, got, replay=REPLAY, acc=acc, act=act, wgt=wgt)


def test_weight_stationary_sum_is_right_for_every_weight() -> None:
    acts = (0x3C00, 0xBC01, 0x3555, 0x0001, 0x03FF, 0x7BFF, 0x0000, 0xC248)
    acc, act, wgt = all_weights(acts, seed=2)
    got = sums_ws(compile_cell(SPEC, "ws"), SPEC, acc, act, wgt)
    require_equal("psum_out", SPEC.psum, golden_ws(SPEC, acc, act, wgt), got, replay=REPLAY, acc=acc, act=act, wgt=wgt)


def test_output_stationary_sums_are_right_along_whole_accumulations() -> None:
    rng = np.random.default_rng(3)
    # Normal operands of like size, and full-range ones with subnormals, infinities and NaNs.
    alike = rng.standard_normal((2, 2000, 64)).astype(np.float16).view(np.uint16).astype(np.uint64)
    wild = rng.integers(0, 1 << 16, (2, 2000, 16)).astype(np.uint64)
    cell = compile_cell(SPEC, "os")
    for act, wgt in (alike, wild):
        got = sums_os(cell, SPEC, act, wgt)
        require_equal("sum", SPEC.psum, golden_os(SPEC, act, wgt), got, replay=REPLAY, act=act, wgt=wgt)


def test_output_stationary_first_product_starts_from_plus_zero() -> None:
    act, wgt = (bits.reshape(-1, 1) for bits in cross(FP16_CORNERS, FP16_CORNERS))
    got = sums_os(compile_cell(SPEC, "os"), SPEC, act, wgt)
    require_equal("sum", SPEC.psum, golden_os(SPEC, act, wgt), got, replay=REPLAY, act=act, wgt=wgt)
    assert got[act == 0x8000].min() == 0  # -0 times anything finite, added to +0, is +0
