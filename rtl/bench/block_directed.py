"""Blocks made for one event each: ties, lone sticky bits, cancellations of every depth, both ends of fp32's range.

A block here is an integer times a power of two, so its fp32 is known before any codes are: `fixed_codes` finds codes
with just that fixed-point sum, scales that are powers of two place it. Three blocks of 8 bits build any accumulator,
the next ones do to it what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.block_dot import BlockDot
from bitwright.arch.pe.elements import E4M3_SCALE
from bitwright.arch.pe.stream import FIRST, LAST, Steps

DEPTH = 8
_GREATEST_SHIFT = 48  # of the products used: their sums stay far inside 63 bits
_LEAST_FP32, _GREATEST_FP32 = -149, 104  # exponent of the last place: of subnormals, of the greatest numbers


def directed(spec: BlockDot, count: int, seed: int) -> Steps:
    """About `count` sums of up to DEPTH blocks, each marked `last`: the parts below, and a NaN scale in one of 50."""
    rng = np.random.default_rng(seed)
    kinds = [_accumulators(spec, max(1, count // 2), rng)]
    if spec.scale_format == "e8m0":  # E4M3 scales reach neither end of fp32's range, nor do such blocks need rounding
        kinds += [_overflows(spec, max(1, count // 4), rng), _rounded_blocks(spec, max(1, count // 4), rng)]
    parts = [_steps(spec, kind, rng) for kind in kinds]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class _Blocks:
    """Blocks total * 2**unit, times the least product of two elements; [sums, DEPTH] each."""

    total: IntArray
    unit: IntArray
    first: IntArray


def _least_exponent(spec: BlockDot) -> int:
    return 2 * spec.element.least_exponent


def fixed_codes(spec: BlockDot, totals: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """act and wgt codes [n, lanes] whose fixed-point sums are `totals` [n].

    Greedy: lane by lane the product nearest to what is left, from zero's side, as any of its pairs of codes. Enough
    for totals of half the widest sum and of 49 bits.
    """
    element, codes = spec.element, np.arange(1 << spec.element.bits)
    finite = codes[~(element.is_nan(codes) | element.is_inf(codes))]
    act, wgt = (grid.ravel() for grid in np.meshgrid(finite, finite))
    shift = element.shift(act) + element.shift(wgt)
    near = shift <= _GREATEST_SHIFT
    act, wgt, shift = act[near], wgt[near], shift[near]
    product = (element.significand(act) * element.significand(wgt)) << shift
    order = np.argsort(product, kind="stable")
    act, wgt, product = act[order], wgt[order], product[order]
    left, chosen = np.asarray(totals, dtype=np.int64).copy(), np.zeros((len(totals), spec.lanes), dtype=np.int64)
    for lane in range(spec.lanes):
        below = product[np.searchsorted(product, left, side="right") - 1]
        above = product[np.minimum(np.searchsorted(product, left, side="left"), len(product) - 1)]
        value = np.where(left >= 0, below, above)
        low, high = np.searchsorted(product, value, side="left"), np.searchsorted(product, value, side="right")
        chosen[:, lane] = rng.integers(low, high)
        left -= value
    assert not left.any(), f"{spec.name}: no codes found for sums {totals[left != 0][:4].tolist()}"
    chosen = np.take_along_axis(chosen, rng.random(chosen.shape).argsort(axis=1), axis=1)
    return act[chosen], wgt[chosen]


def _steps(spec: BlockDot, blocks: _Blocks, rng: np.random.Generator) -> Steps:
    """The blocks as codes, in scales that are split at random, and with E4M3 of random signs."""
    total, unit = blocks.total.ravel(), blocks.unit.ravel()
    negative = np.zeros((2, len(total)), dtype=np.int64)
    if spec.scale_format == "e8m0":
        unit = np.clip(unit, -254, 254)
        first = rng.integers(np.maximum(unit, 0), np.minimum(unit, 0) + 255)
        scales, nan = np.stack([first, unit + 254 - first]), 255
    else:
        unit = np.clip(unit, -18, 16)
        first = rng.integers(np.maximum(-9, unit - 8), np.minimum(8, unit + 9) + 1)
        negative = rng.integers(0, 2, negative.shape)
        scales, nan = _e4m3_power(np.stack([first, unit - first])) | negative << 7, 0x7F
    act, wgt = fixed_codes(spec, np.where(negative[0] ^ negative[1], -total, total), rng)
    scales = np.where(rng.random(scales.shape) < 0.01, nan, scales)
    flags = {FIRST: blocks.first.ravel(), LAST: np.ones_like(total)}
    return {"act": act, "wgt": wgt, "act_scale": scales[0], "wgt_scale": scales[1], **flags}


def _e4m3_power(exponent: IntArray) -> IntArray:
    """E4M3 codes of 2**exponent, -9..8."""
    mantissa, least = E4M3_SCALE.mantissa_bits, E4M3_SCALE.least_exponent
    field = exponent - least - mantissa + 1
    return np.where(field > 0, field << mantissa, 1 << np.clip(exponent - least, 0, mantissa))


def _signs(rng: np.random.Generator, *shape: int) -> IntArray:
    return rng.integers(0, 2, shape) * 2 - 1


def _significands(count: int, rng: np.random.Generator) -> IntArray:
    """24-bit significands: any; the top 8 bits and a few far below; all ones; a power of two; 8 bits; short ones."""
    top = rng.integers(0x80, 0x100, count) << 16
    low = rng.integers(0, 1 << 16, count) >> rng.integers(0, 17, count)
    lone = np.int64(1) << rng.integers(0, 16, count)
    ones = np.full(count, (1 << 24) - 1)
    kinds = [top + rng.integers(0, 1 << 16, count), top + low, top + lone, ones, np.full(count, 1 << 23), top,
             ones >> rng.integers(0, 24, count)]  # fmt: skip
    return np.asarray(np.choose(rng.integers(0, len(kinds), count), kinds), dtype=np.int64)


def _probes(unit: IntArray, reach: int, depth: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """(total, unit) of blocks beside sums whose last place is 2**unit: half or a quarter of it, those and one more or
    less far below, and anything up to `reach` places below."""
    shape = (len(unit), depth)
    below, power = rng.integers(0, 7, shape), rng.integers(1, 3, shape)
    total = (np.int64(1) << below) + rng.integers(-1, 2, shape) * (rng.random(shape) < 0.6)
    total, at = np.where(total == 0, 1, total), unit[:, None] - power - below
    far = rng.random(shape) < 0.25
    total = np.where(far, rng.integers(1, 0x100, shape) >> rng.integers(0, 8, shape), total)
    return total * _signs(rng, *shape), np.where(far, unit[:, None] - rng.integers(0, reach, shape), at)


def _built(spec: BlockDot, significand: IntArray, unit: IntArray, reach: int, rng: np.random.Generator) -> _Blocks:
    """Sums that begin with significand * 2**unit, in three blocks, and go on with probes."""
    total, at = _probes(unit, reach, DEPTH, rng)
    for place, shift in enumerate((16, 8, 0)):
        total[:, place], at[:, place] = significand >> shift & 0xFF, unit + shift
    total[:, :3] *= _signs(rng, len(unit), 1)
    first = np.zeros_like(total)
    first[:, 0] = 1
    return _Blocks(total, at, first)


def _accumulators(spec: BlockDot, count: int, rng: np.random.Generator) -> _Blocks:
    """Probes to any accumulator, and accumulators taken down again from the top: by one or several blocks, to +0, or
    past it."""
    if spec.scale_format == "e8m0":
        least, most = (end - _least_exponent(spec) for end in (_LEAST_FP32, _GREATEST_FP32))
        unit = np.where(rng.random(count) < 0.3, least + rng.integers(0, 40, count), rng.integers(least, most, count))
        reach = 250
    else:
        unit, reach = rng.integers(-10, 1, count), 19
    significand = _significands(count, rng)
    blocks = _built(spec, significand, unit, reach, rng)
    total, at = blocks.total, blocks.unit
    begin = np.where(rng.random(count) < 0.6, 3, 5)  # where the sum is taken down; behind two probes in part
    down = rng.random(count) < 0.7
    past = (rng.random(count) < 0.3).astype(np.int64)
    for place in range(3):
        rows = np.flatnonzero(down)
        column = begin[rows] + place
        total[rows, column] = -total[rows, place] - np.sign(total[rows, 0]) * (past[rows] if place == 0 else 0)
        at[rows, column] = at[rows, place]
    return blocks


def _overflows(spec: BlockDot, count: int, rng: np.random.Generator) -> _Blocks:
    """Accumulators near fp32's greatest number with half its last place added, more or less; infinite blocks of either
    sign on them and on each other; blocks around 2**128."""
    unit = np.full(count, _GREATEST_FP32 - _least_exponent(spec))
    significand = np.where(rng.random(count) < 0.7, (1 << 24) - 1, _significands(count, rng))
    blocks = _built(spec, significand, unit, 30, rng)
    total, at = blocks.total, blocks.unit
    onward = np.sign(total[:, :1]) * np.where(rng.random((count, 2)) < 0.8, 1, -1)
    total[:, 3:5] = np.abs(total[:, 3:5]) * onward
    event = rng.integers(0, 3, (count, 3))
    size = rng.integers(0x80, 0x100, (count, 3))
    border = unit[:, None] + 16 + rng.integers(-1, 2, (count, 3))
    infinite = unit[:, None] + rng.integers(24, 60, (count, 3))
    total[:, 5:] = np.where(event == 2, total[:, 5:], size * _signs(rng, count, 3))
    at[:, 5:] = np.choose(event, [infinite, border, at[:, 5:]])
    return blocks


def _rounded_blocks(spec: BlockDot, count: int, rng: np.random.Generator) -> _Blocks:
    """Blocks that are rounded themselves: subnormal ones, those wider than 24 bits, and of these some at the top."""
    shape = (count, DEPTH)
    longest = min(spec.sum_bits - 3, _GREATEST_SHIFT)  # bits of a total whose codes are surely found
    dropped = np.minimum(rng.integers(1, longest + 3, shape), longest + rng.integers(-3, 3, shape))
    kept_bits = np.minimum(rng.integers(0, 25, shape), np.maximum(longest - dropped, 0))
    wide = rng.random(shape) < (0.5 if longest > 25 else 0)
    dropped = np.where(wide, rng.integers(1, max(2, longest - 23), shape), dropped)
    kept_bits = np.where(wide, 24, kept_bits)
    high = np.int64(1) << np.maximum(kept_bits - 1, 0)
    kept = np.where(kept_bits > 0, high | rng.integers(0, np.maximum(high, 1)), 0)
    kept = np.where(rng.random(shape) < 0.2, (np.int64(1) << kept_bits) - 1, kept)
    half = np.int64(1) << (dropped - 1)
    rests = [half, half, half + 1, half - 1, half + rng.integers(0, half), rng.integers(0, half), np.zeros_like(half)]
    rest = np.choose(rng.integers(0, len(rests), shape), rests) & (2 * half - 1)
    total = np.minimum((kept << dropped) + rest, (np.int64(1) << longest) - 1) * _signs(rng, *shape)
    least, most = (end - _least_exponent(spec) for end in (_LEAST_FP32, _GREATEST_FP32))
    placed = np.where(rng.random(shape) < 0.5, most, rng.integers(least, most, shape))
    first = (rng.random(shape) < 0.5).astype(np.int64)
    first[:, 0] = 1
    return _Blocks(total, np.where(wide, placed, least) - dropped, first)
