"""opt3 and opt4c against their goldens, with the cycles of every weight; encoders and the choice of a digit alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from bitwright.arch.pe.digits import digits, serial_cycles
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.stream import FIRST, LAST, StreamSpec
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.digits import encode, select

SPECS: list[Any] = [cls(**params) for cls in (Opt3, Opt4c) for params in cls.variants]
REPLAY = "pytest tests/rtl/pe/test_opt_sparse.py"
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.module_stem)


@pytest.mark.parametrize("encoding", ["en-t", "mbe"])
def test_digits_of_every_code_and_the_choice_of_each_that_is_not_zero(encoding: str) -> None:
    m, code, number = Module(), Signal(8), Signal(2)
    found = encode(m, code, encoding, "digit")
    chosen, place, final = select(m, found, number, "chosen")

    def value(ctx: Any, digit: Any) -> int:
        one, two, negative = (ctx.get(part) for part in (digit.one, digit.two, digit.negative))
        assert not (one and two)
        assert not negative or one or two
        return int(one + 2 * two) * (-1 if negative else 1)

    async def testbench(ctx: Any) -> None:
        for wanted in range(-128, 128):
            ctx.set(code, wanted & 255)
            await ctx.delay(1e-9)
            row = digits(encoding, wanted).tolist()
            assert [value(ctx, digit) for digit in found] == row
            terms = [(digit, at) for at, digit in enumerate(row) if digit] or [(0, 0)]
            for index, term in enumerate(terms):
                ctx.set(number, index)
                await ctx.delay(1e-9)
                assert value(ctx, chosen) == term[0]
                assert not term[0] or ctx.get(place) == term[1]
                assert ctx.get(final) == (index == len(terms) - 1)
            ctx.set(number, 0)

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


@each
def test_every_pair_of_operands_in_every_row(spec: Any) -> None:
    counts = bulk.NONE
    for steps in stimulus.every_pair(spec, 1):
        counts += bulk.check(spec, steps, replay=REPLAY)
    assert counts.sums == 1 << (16 if spec.encodes else 13)
    if spec.encodes:  # 256 activations against each weight
        taken = 256 * int(serial_cycles(spec.encoding, np.arange(-128, 128)).sum())
        assert counts.cycles == taken + spec.timing.latency_cycles


@each
def test_random_and_corner_sums_in_their_cycles(spec: StreamSpec) -> None:
    rng = np.random.default_rng(2)
    steps = stimulus.random_steps(spec, bulk.lengths_for(40_000, rng), 3, corner_share=0.3)
    counts = bulk.check(spec, steps, replay=REPLAY)
    assert counts.cycles == spec.step_cycles(steps).sum() + spec.timing.latency_cycles


@each
def test_long_sums_of_extreme_operands_wrap(spec: StreamSpec) -> None:
    sums = len(spec.corners()["act"]) * len(spec.corners()["wgt"])
    assert bulk.check(spec, stimulus.extreme_steps(spec, 513), replay=REPLAY).sums == sums


@each
def test_dropped_and_continued_sums(spec: StreamSpec) -> None:
    rng = np.random.default_rng(4)
    steps = dict(stimulus.random_steps(spec, np.full(500, 20), 5, corner_share=0.1))
    steps[FIRST] = (rng.random(10_000) < 0.05).astype(np.int64)
    steps[LAST] = (rng.random(10_000) < 0.05).astype(np.int64)
    steps[FIRST][0] = steps[LAST][-1] = 1
    assert bulk.check(spec, steps, replay=REPLAY).sums == steps[LAST].sum()


@each
def test_a_models_operands(spec: Any) -> None:
    rows = spec.sum_lanes
    assert bulk.check(spec, stimulus.real_steps(spec, 48, 6), replay=REPLAY).sums == 48 // rows


@each
def test_verilog_is_lint_clean(spec: StreamSpec) -> None:
    assert lint(streaming.verilog(spec), spec.module_stem) == []


def test_a_column_without_encoder_is_logic_and_registers_alone() -> None:
    """No carry-propagate adder: multiples, places and 3-2 compressors."""
    text = streaming.verilog(Opt4c(rows=4, encoder=False, resolve_cycles=0, pipeline=2))
    assert re.findall(r" [-+<>*] ", text) == []
