"""outlier-victim and its pair decoder against their goldens: every pair, saturation, mixed modes, real tensors."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.pe.outlier_victim import OutlierVictim
from bitwright.arch.pe.pair_codes import NUMBER_BITS, PairDecoder
from bitwright.arch.pe.stream import Steps
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.verilator import Compiled, lint
from bitwright.rtl.bench.words import Words, to_integers
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.emit import emit
from bitwright.rtl.pe.pair_decoder import PairDecoderUnit

SPECS = [OutlierVictim(**params) for params in OutlierVictim.variants]
UNITS = [PairDecoder(reads, normal) for reads in ("ovp4", "both") for normal in ("int4", "flint4")] + [
    PairDecoder("ovp8")
]
OUTLIERS = np.array([[0x7F, 0x80], [0x80, 0x7F], [0xFF, 0x80], [0x80, 0xFF], [0x3F, 0x80], [0x80, 0xBF]])


def stem(spec: OutlierVictim) -> str:
    return spec.module_stem


def greatest_outliers(spec: OutlierVictim, count: int, seed: int) -> Steps:
    """Sums of up to 40 steps whose modes change within the sum, half of all pairs with an outlier at or near 2**15."""
    rng = np.random.default_rng(seed)
    lengths = bulk.lengths_for(count, rng)
    total = int(lengths.sum())
    wide = rng.integers(0, 2, total)
    found = {"wide": wide, **stimulus.flags(lengths)}
    for name in ("act", "wgt"):
        pairs = rng.integers(0, 256, (total, spec.lanes // 2, 2))
        chosen = rng.random(pairs.shape[:-1]) < 0.5
        pairs[chosen] = OUTLIERS[rng.integers(0, len(OUTLIERS), int(chosen.sum()))]
        codes = pairs.reshape(total, spec.lanes)
        if not spec.decoders:
            words = codes[:, 0::2] | codes[:, 1::2] << 8
            codes = spec.decoder.decode(words, wide=wide[:, None]).reshape(total, -1)
        found[name] = codes
    return found


def decoded(spec: PairDecoder, pairs: np.ndarray, **mode: np.ndarray) -> np.ndarray:
    """The unit's numbers of each pair, [n, count]; checks valid_out."""
    text = emit(PairDecoderUnit(spec), spec.module_name)
    assert lint(text, spec.module_name) == []
    inputs = {"valid": np.ones(len(pairs), np.int64), "pair": pairs, **mode}
    with Compiled(text, spec.module_name).open(random_state=True) as running:
        running.reset()
        out = running.run({name: np.pad(values, (0, 1)) for name, values in inputs.items()})
    assert out["valid_out"].tolist() == [0] + [1] * len(pairs)
    words: Words | np.ndarray = out["numbers"][1:]
    wide = to_integers(words, 64) if words.ndim == 2 else words.astype(np.uint64)
    places = np.arange(spec.count, dtype=np.uint64) * np.uint64(NUMBER_BITS)
    return (wide[:, None] >> places & np.uint64((1 << NUMBER_BITS) - 1)).astype(np.int64)


# Exhaustive


@pytest.mark.parametrize("spec", UNITS, ids=lambda spec: spec.module_name)
def test_every_pair_decodes(spec: PairDecoder) -> None:
    pairs = np.arange(1 << spec.pair_bits)
    for wide in (0, 1) if spec.reads == "both" else (0,):
        mode = {"wide": np.full(len(pairs), wide)} if spec.reads == "both" else {}
        assert (decoded(spec, pairs, **mode) == spec.decode(pairs, wide=wide)).all()


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_every_byte_times_every_byte_in_both_modes(spec: OutlierVictim) -> None:
    sums = sum((bulk.check(spec, part) for part in stimulus.every_pair(spec, seed=1)), bulk.NONE).sums
    assert sums == 2 << (16 if spec.decoders else 2 * NUMBER_BITS)


# Property


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_random_and_corner_codes(spec: OutlierVictim) -> None:
    lengths = bulk.lengths_for(100_000, np.random.default_rng(2))
    bulk.check(spec, stimulus.random_steps(spec, lengths, seed=3, corner_share=0.3))
    bulk.check(spec, stimulus.extreme_steps(spec, length=20))


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_saturation_with_modes_changing_within_a_sum(spec: OutlierVictim) -> None:
    steps = greatest_outliers(spec, 60_000, seed=4)
    golden = spec.sums(steps)
    for end in (-(1 << 31), (1 << 31) - 1):
        assert (golden["psum"] == end).sum() > 10
    late = (golden["overflow"] == 1) & (np.abs(golden["psum"]) < 1 << 30)
    assert late.sum() > 10  # the flag outlives the saturation
    assert (golden["overflow"] == 0).sum() > 100
    bulk.check(spec, steps)


def test_int32_itself_is_not_an_overflow() -> None:
    """-2**31 exactly, then beyond; 2**31 is beyond: one wide step of two bytes is one product of 2**30."""
    spec, falling, rising = SPECS[0], OUTLIERS[2], OUTLIERS[0]
    lengths = np.array([2, 3, 2])
    act = np.array([falling] * 5 + [rising] * 2)
    steps = {"act": act, "wgt": np.array([rising] * 7), "wide": np.ones(7, np.int64), **stimulus.flags(lengths)}
    golden = spec.sums(steps)
    assert golden["psum"].tolist() == [-(1 << 31), -(1 << 31), (1 << 31) - 1]
    assert golden["overflow"].tolist() == [0, 1, 1]
    bulk.check(spec, steps)


@pytest.mark.parametrize("spec", SPECS[:2], ids=stem)
def test_sums_of_narrow_pairs_saturate(spec: OutlierVictim) -> None:
    """Long sums of the greatest product, both signs: to the bound, one step beyond it, and back from there."""
    steps = spec.exact_steps(wide=False)
    for code, opposite in ((0x87, 0x8F), (0x8F, 0x87)):
        lengths = np.array([steps, steps + 1, steps + 2])
        act = np.full((int(lengths.sum()), spec.lanes), code)
        act[-1] = opposite
        found = {"act": act, "wgt": np.full(act.shape, 0x87), "wide": np.zeros(len(act), np.int64)}
        found.update(stimulus.flags(lengths))
        assert spec.sums(found)["overflow"].tolist() == [0, 1, 1]
        bulk.check(spec, found)


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_real_tensors(spec: OutlierVictim) -> None:
    steps = stimulus.real_steps(spec, 100, seed=5)
    assert bulk.check(spec, steps).sums == 100
    assert set(np.unique(steps["wide"])) == {0, 1}


# Timing: bulk.check compares every cycle; here that wide steps do cost two.


def test_cycles_of_both_modes() -> None:
    spec = SPECS[1]
    for wide in (0, 1):
        steps = dict(stimulus.random_steps(spec, np.full(10, 7), seed=6))
        steps["wide"] = np.full(70, wide)
        assert bulk.check(spec, steps).cycles == 70 * (1 + wide) + 1 + spec.pipeline


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_verilog_is_lint_clean(spec: OutlierVictim) -> None:
    assert lint(streaming.verilog(spec), spec.module_stem) == []
