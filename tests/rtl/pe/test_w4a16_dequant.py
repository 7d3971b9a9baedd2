"""w4a16-dequant: every code with every activation, every integer with every scale, random and real sums, every cut."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.pe.stream import FIRST, LAST, Steps
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.stream import bulk, campaign, stimulus, traces
from bitwright.rtl.pe import streaming

VARIANTS = [W4A16Dequant(**params) for params in W4A16Dequant.variants]
REPLAY = "pytest tests/rtl/pe/test_w4a16_dequant.py"
SEED = 30


def check(spec: W4A16Dequant, steps: Steps, seed: int = SEED) -> bulk.Counts:
    print(f"{spec.module_stem}, seed {seed}")
    return bulk.check(spec, steps, seed=seed, replay=REPLAY)


def single(**fields: np.ndarray) -> Steps:
    """Sums of one step."""
    ones = np.ones(len(fields["act"]), dtype=np.int64)
    return {**fields, FIRST: ones, LAST: ones}


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.module_stem)
class TestEveryCut:
    def test_verilog_has_no_lint(self, spec: W4A16Dequant) -> None:
        assert verilator.lint(streaming.verilog(spec), spec.module_stem) == []

    def test_random_and_corner_sums(self, spec: W4A16Dequant) -> None:
        rng, total = np.random.default_rng(SEED), bulk.NONE
        for share in (0.0, 0.3, 1.0):
            lengths = bulk.lengths_for(60_000, rng)
            total += check(spec, stimulus.random_steps(spec, lengths, SEED, corner_share=share))
        total += check(spec, stimulus.extreme_steps(spec, 8))
        assert total.steps > 140_000

    def test_idle_sources_back_pressure_and_resets(self, spec: W4A16Dequant) -> None:
        trace = traces.stalled(spec, 6000, SEED)
        assert trace.sums > 400
        traces.Player(spec, bulk.compiled(spec), trace).require(seed=SEED)

    def test_sums_of_a_real_model(self, spec: W4A16Dequant) -> None:
        assert check(spec, stimulus.real_steps(spec, 200, SEED)).sums == 200


@pytest.mark.parametrize("spec", [VARIANTS[1], VARIANTS[3]], ids=lambda spec: spec.module_stem)
def test_every_code_with_every_activation_in_both_modes(spec: W4A16Dequant) -> None:
    total = bulk.NONE
    for steps in stimulus.every_pair(spec, SEED):
        total += check(spec, steps)
    assert total.sums == 2 << 16 + spec.weight_bits


def test_every_code_of_8_bits_with_one_activation_in_eight_in_both_modes() -> None:
    """One of every eight neighbours: all exponents, both zeros and infinities. The campaign does all 2**24 pairs."""
    spec, total = VARIANTS[4], bulk.NONE
    assert spec.weight_bits == 8
    assert campaign.exhaustive(spec)
    index = np.arange(1 << 13)
    acts = index << 3 | 5 * index % 8
    for part, codes in enumerate(np.arange(256).reshape(-1, 8)):
        act, wgt = np.tile(acts, 8), np.repeat(codes, 1 << 13)
        for asym in (0, 1):
            others = stimulus.random_steps(spec, np.ones(1 << 16, dtype=np.int64), SEED + 2 * part + asym)
            total += check(spec, {**others, "act": act, "wgt": wgt, "asym": np.full(1 << 16, asym)})
    assert total.sums == 2 << 13 + 8


def test_every_integer_with_every_scale() -> None:
    """Each integer -15..15 and -8..7 once with each fp16 scale, infinities and NaNs among them, times 1."""
    spec = VARIANTS[0]
    pairs = [(0, -least, 1) for least in range(-15, 0)] + [(code, 0, 1) for code in range(16)]
    pairs += [(code, 5, 0) for code in range(16)]
    code, zero, asym = (np.repeat(part, 1 << 16) for part in np.array(pairs).T)
    scale = np.tile(np.arange(1 << 16), len(pairs))
    found = check(spec, single(act=np.full(len(code), 0x3C00), wgt=code, scale=scale, zero=zero, asym=asym))
    assert found.sums == 47 << 16


def test_every_code_with_every_zero_point() -> None:
    """With 64 scales of all exponents, both signs."""
    spec = VARIANTS[2]
    scales = np.arange(64) << 10 | 0x155
    code, zero, scale = (axis.ravel() for axis in np.meshgrid(np.arange(16), np.arange(16), scales, indexing="ij"))
    ones = np.ones(len(code), dtype=np.int64)
    assert check(spec, single(act=0x3C00 * ones, wgt=code, scale=scale, zero=zero, asym=ones)).sums == 1 << 14
