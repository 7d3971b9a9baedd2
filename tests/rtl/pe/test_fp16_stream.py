"""fp16-mac behind a stream: random, corner, cancelling and real sums, every weight; values and cycles at every cut."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.arch.pe.stream import FIRST, LAST, Steps
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.stream import bulk, stimulus, traces
from bitwright.rtl.bench.stream.hard import cancelling_sums
from bitwright.rtl.pe import streaming

VARIANTS = [Fp16Stream(**params) for params in Fp16Stream.variants]
REPLAY = "pytest tests/rtl/pe/test_fp16_stream.py"
SEED = 20
Bits = npt.NDArray[np.int64]


def check(spec: Fp16Stream, steps: Steps, seed: int = SEED) -> bulk.Counts:
    print(f"{spec.module_stem}, seed {seed}")
    return bulk.check(spec, steps, seed=seed, replay=REPLAY)


def columns(act: Bits, wgt: Bits) -> Steps:
    """A sum a row."""
    rows, length = act.shape
    return {"act": act.ravel(), "wgt": wgt.ravel(), **stimulus.flags(np.full(rows, length))}


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.module_stem)
class TestEveryCut:
    def test_verilog_has_no_lint(self, spec: Fp16Stream) -> None:
        assert verilator.lint(streaming.verilog(spec), spec.module_stem) == []

    def test_random_and_corner_sums(self, spec: Fp16Stream) -> None:
        rng, total = np.random.default_rng(SEED), bulk.NONE
        for share in (0.0, 0.3, 1.0):
            lengths = bulk.lengths_for(100_000, rng)
            total += check(spec, stimulus.random_steps(spec, lengths, SEED, corner_share=share))
        total += check(spec, stimulus.extreme_steps(spec, 8))
        assert total.steps > 240_000

    def test_cancelling_and_tied_sums_after_every_step(self, spec: Fp16Stream) -> None:
        found = check(spec, cancelling_sums(spec, 40_000, SEED + 1))
        assert (found.sums, found.steps) == (240_000, 240_000)

    def test_every_weight_with_some_activations(self, spec: Fp16Stream) -> None:
        """Every fp16 weight times six activations, onto the sum of one product before it."""
        weight = np.tile(np.arange(1 << 16), 6)
        act = np.repeat([0x3C00, 0xBC01, 0x3555, 0x0001, 0x03FF, 0x7BFF], 1 << 16)
        before = np.random.default_rng(SEED + 2).integers(0, 1 << 16, (2, len(act)))
        near = np.where(np.arange(len(act)) % 2, (weight ^ 0x8000) + before[0] % 3 - 1, before[1]) & 0xFFFF
        steps = columns(np.stack([act, act], axis=1), np.stack([near, weight], axis=1))
        assert check(spec, steps).sums == 6 << 16

    def test_idle_sources_back_pressure_and_resets(self, spec: Fp16Stream) -> None:
        trace = traces.stalled(spec, 6000, SEED)
        assert trace.sums > 400
        traces.Player(spec, bulk.compiled(spec), trace).require(seed=SEED)

    def test_sums_of_a_real_model(self, spec: Fp16Stream) -> None:
        assert check(spec, stimulus.real_steps(spec, 300, SEED)).sums == 300


def test_every_pair_of_special_and_corner_operands_onto_every_corner() -> None:
    for spec in (VARIANTS[1], VARIANTS[2], VARIANTS[4]):
        corners = spec.corners()["act"]
        before, act, wgt = (axis.ravel() for axis in np.meshgrid(corners, corners, corners, indexing="ij"))
        ones = np.full(len(act), 0x3C00)
        found = check(spec, columns(np.stack([before, act], axis=1), np.stack([ones, wgt], axis=1)))
        assert found.sums == len(corners) ** 3


def test_a_sum_goes_on_after_a_last_and_is_dropped_by_a_first() -> None:
    for spec in VARIANTS:
        rng = np.random.default_rng(SEED + 3)
        steps = dict(stimulus.random_steps(spec, np.full(2000, 5), SEED))
        steps[FIRST], steps[LAST] = rng.integers(0, 2, 10_000), rng.integers(0, 2, 10_000)
        steps[FIRST][0] = steps[LAST][-1] = 1
        assert check(spec, steps).sums == steps[LAST].sum()
