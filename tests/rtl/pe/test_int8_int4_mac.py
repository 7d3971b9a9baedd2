"""int8-int4-mac: every operand of a lane in both modes, random, extreme and real sums, at every cut."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.pe.int8_int4_mac import Int8Int4Mac
from bitwright.arch.pe.stream import FIRST, LAST, Steps
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.stream import bulk, stimulus, traces
from bitwright.rtl.pe import streaming

# Beyond the variants: a lane count that is no power of two with a total wider than the sum.
VARIANTS = [*(Int8Int4Mac(**params) for params in Int8Int4Mac.variants), Int8Int4Mac(lanes=5, psum_bits=17)]
REPLAY = "pytest tests/rtl/pe/test_int8_int4_mac.py"
SEED = 40


def check(spec: Int8Int4Mac, steps: Steps, seed: int = SEED) -> bulk.Counts:
    print(f"{spec.module_stem}, seed {seed}")
    return bulk.check(spec, steps, seed=seed, replay=REPLAY)


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.module_stem)
class TestEveryCut:
    def test_verilog_has_no_lint(self, spec: Int8Int4Mac) -> None:
        assert verilator.lint(streaming.verilog(spec), spec.module_stem) == []

    def test_every_activation_with_every_byte_in_both_modes(self, spec: Int8Int4Mac) -> None:
        """In mode int4 this is every activation with every nibble, in either half, each with 16 of the other's."""
        assert sum(check(spec, steps).sums for steps in stimulus.every_pair(spec, SEED)) == 2 << 16

    def test_random_and_corner_sums(self, spec: Int8Int4Mac) -> None:
        rng, total = np.random.default_rng(SEED), bulk.NONE
        for share in (0.0, 0.3, 1.0):
            lengths = bulk.lengths_for(60_000, rng)
            total += check(spec, stimulus.random_steps(spec, lengths, SEED, corner_share=share))
        assert total.steps > 140_000

    def test_modes_mixed_within_a_sum(self, spec: Int8Int4Mac) -> None:
        steps = dict(stimulus.random_steps(spec, np.full(4000, 10), SEED))
        steps["int4"] = np.random.default_rng(SEED + 1).integers(0, 2, 40_000)
        assert check(spec, steps).sums == 4000

    def test_extreme_sums_up_to_the_longest_and_beyond(self, spec: Int8Int4Mac) -> None:
        assert spec.longest_sum is not None
        steps = stimulus.extreme_steps(spec, min(spec.longest_sum + 1, 600))
        for mode in (0, 1):
            found = check(spec, {**steps, "int4": np.full(len(steps["int4"]), mode)})
            assert found.sums == 36  # six corners of activations and of bytes

    def test_idle_sources_back_pressure_and_resets(self, spec: Int8Int4Mac) -> None:
        trace = traces.stalled(spec, 6000, SEED)
        assert trace.sums > 400
        traces.Player(spec, bulk.compiled(spec), trace).require(seed=SEED)

    def test_sums_of_a_real_model(self, spec: Int8Int4Mac) -> None:
        assert check(spec, stimulus.real_steps(spec, 200, SEED)).sums == 200


def test_every_operand_of_a_lane_in_mode_int4() -> None:
    """Both activations and the byte, 2**24 cases, each a sum of one step; what the accumulator's proof leaves free."""
    spec, count = VARIANTS[0], 1 << 20
    ones = np.ones(count, dtype=np.int64)
    (cut,) = spec.cuts
    for start in range(0, 1 << 24, count):
        number = np.arange(start, start + count)
        act = np.stack([(number & 255) - 128, (number >> 8 & 255) - 128], axis=1)
        steps = {"act": act, "wgt": (number >> 16) - 128, "int4": ones, FIRST: ones, LAST: ones}
        dots = spec.dots(steps)
        assert cut.low <= dots.min() <= dots.max() <= cut.high
        assert check(spec, steps).sums == count
