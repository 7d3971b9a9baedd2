"""flint against its golden: every pair of codes of every type, random and extreme sums, real tensors, cycles, lint."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.pe.flint_mac import POT, FlintMac
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.pe import streaming

SPECS = [FlintMac(**params) for params in FlintMac.variants]
WIDE = FlintMac("flint6", "flint6", lanes=1)


def stem(spec: FlintMac) -> str:
    return spec.module_stem


# Exhaustive


@pytest.mark.parametrize("spec", [*SPECS, WIDE], ids=stem)
def test_every_pair_of_codes_of_every_type(spec: FlintMac) -> None:
    sums = sum((bulk.check(spec, part) for part in stimulus.every_pair(spec, seed=1)), bulk.NONE).sums
    types = 4 ** len(spec.modes)
    assert sums == types << (spec.act.bits + spec.wgt.bits)


# Property


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_random_and_corner_codes(spec: FlintMac) -> None:
    lengths = bulk.lengths_for(200_000, np.random.default_rng(2))
    steps = dict(stimulus.random_steps(spec, lengths, seed=3, corner_share=0.3))
    bulk.check(spec, steps)
    rng = np.random.default_rng(4)  # types may change within a sum
    steps |= {name: rng.integers(0, 4, len(steps["first"])) for name in spec.modes}
    bulk.check(spec, steps)


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_extreme_sums_to_their_bound_and_beyond(spec: FlintMac) -> None:
    """One corner against one corner, all along: sums of longest_sum steps and some that wrap."""
    for extra in (0, 2):
        steps = dict(stimulus.extreme_steps(spec, spec.longest_sum + extra))
        steps |= {name: np.full(len(steps["first"]), POT) for name in spec.modes}
        golden = spec.sums(steps)["psum"]
        assert golden.max() > 1 << (spec.psum_bits - 2)
        bulk.check(spec, steps)


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_real_tensors(spec: FlintMac) -> None:
    assert bulk.check(spec, stimulus.real_steps(spec, 200, seed=5)).sums == 200


# Timing


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_one_step_a_cycle_after_the_latency(spec: FlintMac) -> None:
    counts = bulk.check(spec, stimulus.random_steps(spec, np.full(10, 7), seed=6))
    assert counts.cycles == 70 + 1 + spec.pipeline


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_verilog_is_lint_clean(spec: FlintMac) -> None:
    assert lint(streaming.verilog(spec), spec.module_stem) == []
