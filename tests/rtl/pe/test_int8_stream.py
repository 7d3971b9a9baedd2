"""int8-mac behind a stream: every pair of operands, random, extreme and real sums; values and cycles at every cut."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.arch.pe.stream import FIRST, LAST, Steps
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.stream import bulk, stimulus, traces
from bitwright.rtl.pe import streaming

# Beyond the variants: lane counts that are no power of two, totals as wide as the sum and wider than it, W7 and W2.
VARIANTS = [
    *(Int8Stream(**params) for params in Int8Stream.variants),
    Int8Stream(lanes=3, psum_bits=18, pipeline=2),
    Int8Stream(lanes=5, psum_bits=17),
    Int8Stream(weight_bits=7, lanes=3, psum_bits=16, pipeline=2),
    Int8Stream(weight_bits=2, psum_bits=16),
]
REPLAY = "pytest tests/rtl/pe/test_int8_stream.py"
SEED = 10


def check(spec: Int8Stream, steps: Steps, seed: int = SEED) -> bulk.Counts:
    print(f"{spec.module_stem}, seed {seed}")
    return bulk.check(spec, steps, seed=seed, replay=REPLAY)


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.module_stem)
class TestEveryCut:
    def test_verilog_has_no_lint(self, spec: Int8Stream) -> None:
        assert verilator.lint(streaming.verilog(spec), spec.module_stem) == []

    def test_every_pair_of_operands_in_every_lane(self, spec: Int8Stream) -> None:
        modes = 1 if spec.weight_bits == 8 else 2
        found = sum(check(spec, steps).sums for steps in stimulus.every_pair(spec, SEED))
        assert found == modes << 8 + spec.weight_bits

    def test_random_and_corner_sums(self, spec: Int8Stream) -> None:
        rng, total = np.random.default_rng(SEED), bulk.NONE
        for share in (0.0, 0.3, 1.0):
            lengths = bulk.lengths_for(60_000, rng)
            total += check(spec, stimulus.random_steps(spec, lengths, SEED, corner_share=share))
        assert total.steps > 140_000

    def test_extreme_sums_up_to_the_longest_and_beyond(self, spec: Int8Stream) -> None:
        """Sums that reach the accumulator's ends where it is narrow, and wrap."""
        assert spec.longest_sum is not None
        found = check(spec, stimulus.extreme_steps(spec, min(spec.longest_sum + 1, 600)))
        corners = spec.corners()
        assert found.sums == len(corners["act"]) * len(corners["wgt"]) >= 6 * 4

    def test_a_sum_goes_on_after_a_last_and_is_dropped_by_a_first(self, spec: Int8Stream) -> None:
        rng = np.random.default_rng(SEED + 1)
        steps = dict(stimulus.random_steps(spec, np.full(4000, 5), SEED))
        steps[FIRST], steps[LAST] = rng.integers(0, 2, 20_000), rng.integers(0, 2, 20_000)
        steps[FIRST][0] = steps[LAST][-1] = 1
        assert check(spec, steps).sums == steps[LAST].sum()

    def test_idle_sources_back_pressure_and_resets(self, spec: Int8Stream) -> None:
        trace = traces.stalled(spec, 6000, SEED)
        assert trace.sums > 400
        traces.Player(spec, bulk.compiled(spec), trace).require(seed=SEED)

    def test_sums_of_a_real_model(self, spec: Int8Stream) -> None:
        assert check(spec, stimulus.real_steps(spec, 200, SEED)).sums == 200
