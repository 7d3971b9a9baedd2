"""Directed blocks reach what they are made for, counted in the golden's own sums; codes have the sums asked for."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from bitwright.arch.pe.block_dot import BlockDot, MxFp4Dot, MxFp8Dot, MxInt8Dot, NvFp4Dot, NvInt4Dot
from bitwright.arch.pe.fp16_mac import FloatArray
from bitwright.arch.pe.stream import FIRST
from bitwright.rtl.bench.block_directed import directed, fixed_codes

SPECS = [
    MxFp8Dot(),
    MxFp8Dot(element_format="e5m2"),
    MxFp8Dot(aligner_bits=24),
    MxInt8Dot(),
    MxFp4Dot(),
    NvFp4Dot(),
    NvInt4Dot(),
]
WIDE_SCALES = [spec for spec in SPECS if spec.scale_format == "e8m0"]


def stem(spec: BlockDot) -> str:
    return spec.module_stem


def additions(spec: BlockDot, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(accumulator before, block, accumulator after) of every step."""
    steps = directed(spec, count, seed=1)
    after = spec.sums(steps)["fp32"].astype(np.uint32).view(np.float32)
    before = np.where(steps[FIRST] != 0, np.float32(0), np.roll(after, 1)).astype(np.float32)
    block = spec.block(*(steps[name] for name in ("act", "wgt", "act_scale", "wgt_scale")))
    return before, block, after


def rounding(exact: Fraction, result: np.float32) -> str:
    """How a finite sum was rounded: exact, tie away or to zero, a hair off the tie, or otherwise."""
    off = exact - Fraction(float(result))
    if off == 0:
        return "exact"
    fraction, exponent = np.frexp(np.float64(abs(result)))
    narrow = abs(exact) < abs(result) and fraction == 0.5  # below a power of two the gap is half as wide
    half = Fraction(2) ** (max(int(exponent) - 24 - int(narrow), -149) - 1)
    if abs(off) == half:
        return "tie to zero" if abs(exact) > abs(Fraction(float(result))) else "tie away"
    return "near tie" if abs(abs(off) - abs(half)) * 32 <= abs(half) else "other"


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_tie_in_both_directions_and_miss_ties_by_a_sticky_bit(spec: BlockDot) -> None:
    found = Counter[tuple[str, bool]]()
    for before, block, after in zip(*additions(spec, 600), strict=True):
        if np.isfinite(after) and np.isfinite(block):
            exact = Fraction(float(before)) + Fraction(float(block))
            found[rounding(exact, after), bool(np.sign(before) * np.sign(block) == -1)] += 1
    for kind in ("tie to zero", "tie away", "near tie"):
        for subtracted in (False, True):
            assert found[kind, subtracted] >= 3, (kind, subtracted, found)


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_cancel_to_every_depth_and_to_plus_zero_from_each_sign(spec: BlockDot) -> None:
    before, block, after = additions(spec, 3000)
    opposite = np.isfinite(before) & np.isfinite(block) & (np.sign(before) * np.sign(block) == -1)
    zero = opposite & (after == 0)
    assert (zero & (before > 0)).sum() >= 20
    assert (zero & (before < 0)).sum() >= 20
    assert not np.signbit(after[zero]).any()
    larger = np.maximum(np.abs(before), np.abs(block))[opposite & ~zero]
    depth = np.frexp(larger.astype(np.float64))[1] - np.frexp(after[opposite & ~zero].astype(np.float64))[1]
    assert set(range(24)) <= set(depth.tolist())


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_operands_stand_at_every_distance(spec: BlockDot) -> None:
    before, block, _ = additions(spec, 3000)
    both = np.isfinite(before) & np.isfinite(block) & (before != 0) & (block != 0)
    places = np.frexp(before[both].astype(np.float64))[1] - np.frexp(block[both].astype(np.float64))[1]
    assert set(range(-8, 33)) <= set(places.tolist())
    assert places.max() >= (200 if spec.scale_format == "e8m0" else 38)


@pytest.mark.parametrize("spec", WIDE_SCALES, ids=stem)
def test_sums_overflow_by_rounding_and_infinities_meet(spec: BlockDot) -> None:
    before, block, after = additions(spec, 1500)
    finite = np.isfinite(before) & np.isfinite(block)
    for sign in (1, -1):
        inf = np.float32(sign * np.inf)
        overflow = finite & (after == inf)
        assert overflow.sum() >= 20
        exact = np.abs(before[overflow].astype(np.float64) + block[overflow])
        assert (exact < 2.0**128).sum() >= 10  # only its rounding makes it infinite
        assert ((before == inf) & (block == inf) & (after == inf)).sum() >= 5
        assert ((before == inf) & (block == -inf) & np.isnan(after)).sum() >= 5
        assert (np.isfinite(before) & (block == inf) & (after == inf)).sum() >= 20
        assert ((before == inf) & np.isfinite(block) & (after == inf)).sum() >= 5
    assert (np.abs(after[finite & np.isfinite(after)]) == np.finfo(np.float32).max).sum() >= 20


@pytest.mark.parametrize("spec", WIDE_SCALES, ids=stem)
def test_blocks_are_subnormal_and_round(spec: BlockDot) -> None:
    steps = directed(spec, 3000, seed=1)
    total, exponent = spec.fixed_sum(steps["act"], steps["wgt"])
    places = exponent + steps["act_scale"] + steps["wgt_scale"] - 2 * 127
    block = spec.block(*(steps[name] for name in ("act", "wgt", "act_scale", "wgt_scale")))
    assert ((np.abs(block) < np.finfo(np.float32).tiny) & (block != 0)).sum() >= 100
    assert ((block == 0) & np.signbit(block)).sum() >= 10
    small = np.isfinite(block) & (np.abs(block) < 2.0**-125) & (np.abs(places) < 900)
    exact = [
        Fraction(int(whole)) * Fraction(2) ** int(at) for whole, at in zip(total[small], places[small], strict=True)
    ]
    found = Counter(rounding(value, result) for value, result in zip(exact, block[small], strict=True))
    assert all(found[kind] >= 20 for kind in ("exact", "tie to zero", "tie away", "near tie")), found


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_nan_scales_take_part(spec: BlockDot) -> None:
    before, block, after = additions(spec, 1500)
    assert (np.isnan(block) & np.isfinite(before) & np.isnan(after)).sum() >= 20
    assert (np.isnan(before) & np.isfinite(block) & np.isnan(after)).sum() >= 20


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.kept_bits], ids=stem)
def test_codes_have_the_fixed_sum_that_was_asked_for(spec: BlockDot) -> None:
    rng = np.random.default_rng(1)
    longest = min(spec.sum_bits - 3, 48)
    totals = rng.integers(0, 1 << longest, 500) >> rng.integers(0, longest, 500)
    totals = np.concatenate([totals, -totals, [0, (1 << longest) - 1, 1 - (1 << longest)]])
    act, wgt = fixed_codes(spec, totals, rng)
    if spec.sum_bits > 62:  # e5m2: the golden's own sum drops low bits of wide ones
        product = spec.element.significand(act) * spec.element.significand(wgt)
        found = (product << (spec.element.shift(act) + spec.element.shift(wgt))).sum(axis=1)
    else:
        found, _ = spec.fixed_sum(act, wgt)
    assert (found == totals).all()
