"""shift-add cells against the golden arithmetic: every code, activation and mode, and no multiplier."""

from __future__ import annotations

import re

import numpy as np
import pytest
from bitwright.arch import pe as specs
from bitwright.rtl import pe
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

REPLAY = "pytest tests/rtl/pe/test_shift_add.py"


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_there_is_no_multiplier(dataflow: str) -> None:
    body = pe.verilog("shift-add", dataflow).replace("always @*", "").replace("(* ", "").replace(" *)", "")
    assert not re.findall(r"[^/]\*[^/]", body)


@pytest.mark.parametrize("group", [128, 32, 1])
def test_weight_stationary_sum_is_exact_for_every_code_activation_and_mode(group: int) -> None:
    spec = specs.get("shift-add", group=group)
    rng = np.random.default_rng(1)
    starts = [*integer_extremes(spec.psum.bits), int(rng.integers(-1000, 1000))]
    acc, act, wgt, mode = cross(to_bits(spec.psum, starts), np.arange(256), np.arange(16), (0, 1))
    got = sums_ws(compile_cell(spec, "ws"), spec, acc, act, wgt, wgt_unsigned=mode)
    assert len(got) == 16 * 256 * 2 * len(starts)
    expected = golden_ws(spec, acc, act, wgt, wgt_unsigned=mode)
    operands = {"acc": acc, "act": act, "wgt": wgt, "wgt_unsigned": mode}
    require_equal("psum_out", spec.psum, expected, got, replay=REPLAY, **operands)


@pytest.mark.parametrize("unsigned", [0, 1])
def test_output_stationary_sums_are_exact_for_every_code_and_activation(unsigned: int) -> None:
    spec = specs.get("shift-add")
    rng = np.random.default_rng(2)
    act, wgt = cross(np.arange(256), np.arange(16))
    order = np.concatenate([rng.permutation(4096) for _ in range(8)])
    act, wgt = act[order].reshape(-1, 128), wgt[order].reshape(-1, 128)
    got = sums_os(compile_cell(spec, "os"), spec, act, wgt, wgt_unsigned=unsigned)
    expected = golden_os(spec, act, wgt, wgt_unsigned=np.asarray(unsigned))
    require_equal("sum", spec.psum, expected, got, replay=REPLAY, act=act, wgt=wgt)


@pytest.mark.parametrize(("act", "code", "unsigned", "total"), [
    (-128, 15, 1, -128 * 15 * 128), (127, 15, 1, 127 * 15 * 128), (-128, 8, 0, 1024 * 128), (127, 8, 0, -1016 * 128),
])  # fmt: skip
def test_a_full_group_of_extreme_products_does_not_wrap(act: int, code: int, unsigned: int, total: int) -> None:
    spec = specs.get("shift-add")
    acts, codes = np.full((1, 128), act & 0xFF, np.uint64), np.full((1, 128), code, np.uint64)
    got = sums_os(compile_cell(spec, "os"), spec, acts, codes, wgt_unsigned=unsigned)
    assert got[0, -1] == total & ((1 << 19) - 1)
    assert -(1 << 18) <= total < 1 << 18
