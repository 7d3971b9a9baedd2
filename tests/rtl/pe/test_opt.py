"""opt1 and opt2 against their goldens: every pair, random and extreme sums, real operands, cycles, and no adder."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bitwright.arch.pe.opt import CarrySave, Opt1, Opt2
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.arch.pe.stream import FIRST, LAST, StreamSpec
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.pe import streaming

SPECS: list[Any] = [cls(**params) for cls in (Opt1, Opt2) for params in cls.variants]
REPLAY = "pytest tests/rtl/pe/test_opt.py"
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.module_stem)


@each
def test_every_pair_of_operands_in_every_lane(spec: StreamSpec) -> None:
    counts = bulk.NONE
    for steps in stimulus.every_pair(spec, 1):
        counts += bulk.check(spec, steps, replay=REPLAY)
    assert counts.sums == counts.steps == 1 << 16


@each
def test_random_and_corner_sums_in_their_cycles(spec: StreamSpec) -> None:
    rng = np.random.default_rng(2)
    steps = stimulus.random_steps(spec, bulk.lengths_for(60_000, rng), 3, corner_share=0.3)
    counts = bulk.check(spec, steps, replay=REPLAY)
    assert counts.cycles == counts.steps + spec.timing.latency_cycles


@each
def test_long_sums_of_extreme_operands_wrap(spec: StreamSpec) -> None:
    assert spec.longest_sum is not None
    length = min(1000, spec.longest_sum + 1)  # beyond the range where it is near enough
    assert bulk.check(spec, stimulus.extreme_steps(spec, length), replay=REPLAY).sums == 36


@each
def test_dropped_and_continued_sums(spec: StreamSpec) -> None:
    rng = np.random.default_rng(4)
    steps = dict(stimulus.random_steps(spec, np.full(500, 20), 5, corner_share=0.1))
    steps[FIRST] = (rng.random(10_000) < 0.05).astype(np.int64)
    steps[LAST] = (rng.random(10_000) < 0.05).astype(np.int64)
    steps[FIRST][0] = steps[LAST][-1] = 1
    assert bulk.check(spec, steps, replay=REPLAY).sums == steps[LAST].sum()


@each
def test_a_models_operands(spec: StreamSpec) -> None:
    assert bulk.check(spec, stimulus.real_steps(spec, 100, 6), replay=REPLAY).sums == 100


@pytest.mark.parametrize("spec", [
    Opt1(lanes=5, resolve_cycles=0), Opt2(lanes=1, resolve_cycles=4, psum_bits=29),
    Opt2(lanes=1, resolve_cycles=0, pipeline=1), Opt2(lanes=2, resolve_cycles=0, pipeline=2, encoding="en-t"),
    Opt2(lanes=3, resolve_cycles=0, psum_bits=24), Opt2(lanes=7, resolve_cycles=0, psum_bits=48),
], ids=lambda spec: spec.module_stem)  # fmt: skip
def test_other_shapes(spec: StreamSpec) -> None:
    """Lanes that need a constant of several bits or a row of its own, with and without compressors that take ones;
    segments of the last adder that are not all of one width."""
    steps = stimulus.random_steps(spec, bulk.lengths_for(20_000, np.random.default_rng(7)), 8, corner_share=0.5)
    bulk.check(spec, steps, replay=REPLAY)


@each
def test_verilog_is_lint_clean(spec: StreamSpec) -> None:
    assert lint(streaming.verilog(spec), spec.module_stem) == []


def additions(spec: StreamSpec) -> int:
    return len(re.findall(r" [-+<>*] ", streaming.verilog(spec)))


def test_no_carry_is_propagated_before_the_end_of_a_sum() -> None:
    """Booth digits, compressors and accumulators are made of logic alone; only the adder after the last step adds."""
    assert additions(Opt1(resolve_cycles=0)) == 0
    assert additions(Opt1(lanes=2, resolve_cycles=0, pipeline=2)) == 0
    assert additions(Opt2(resolve_cycles=0)) == 0
    # A segment adds two vectors, and the carry of the segment before if there is one.
    for cycles in (1, 3):
        assert additions(Opt1(resolve_cycles=cycles)) == 2 * cycles - 1
        assert additions(Opt2(lanes=2, resolve_cycles=cycles)) == 2 * cycles - 1


@pytest.mark.parametrize(
    "spec", [Opt1(), Opt2(resolve_cycles=1), Opt2(resolve_cycles=3, psum_bits=29), Opt4c(rows=2, resolve_cycles=4)],
    ids=lambda spec: spec.module_stem,
)  # fmt: skip
def test_the_adders_registers_are_as_many_as_the_spec_says(spec: CarrySave) -> None:
    """What the Verilog has more than without the adder, but three bits of control a cycle: valid, first, last."""

    def register_bits(found: CarrySave) -> int:
        names = set(re.findall(r"^ +(\w+) <= ", streaming.verilog(found), re.MULTILINE))
        widths = re.findall(r"^ +(?:output )?reg (?:\[(\d+):0\] )?(\w+) ", streaming.verilog(found), re.MULTILINE)
        return sum(int(high or 0) + 1 for high, name in widths if name in names)

    added = register_bits(spec) - register_bits(replace(spec, resolve_cycles=0))
    assert added == spec.resolve_register_bits + 3 * spec.resolve_cycles
