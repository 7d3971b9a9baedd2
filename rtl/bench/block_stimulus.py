"""Stimulus of the block-scaled dot products that random codes would hardly reach: cancelling, subnormal, infinite."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.block_dot import BlockDot
from bitwright.arch.pe.stream import FIRST, LAST, Steps

_E4M3_CORNERS = (0, 1, 2, 3, 7, 8, 9, 0x77, 0x7E)  # subnormals, the least normals, significand 15, the greatest


def _steps(act: IntArray, wgt: IntArray, act_scale: IntArray, wgt_scale: IntArray, first: IntArray) -> Steps:
    """Steps that are all marked `last`, so that every partial sum is seen."""
    codes = {"act": act, "wgt": wgt, "act_scale": act_scale, "wgt_scale": wgt_scale}
    return {**codes, FIRST: first, LAST: np.ones_like(first)}


def single(act: npt.ArrayLike, wgt: npt.ArrayLike, act_scale: npt.ArrayLike, wgt_scale: npt.ArrayLike) -> Steps:
    """Sums of one block each."""
    codes = np.asarray(act, dtype=np.int64)
    scales = [np.broadcast_to(np.asarray(scale, dtype=np.int64), len(codes)) for scale in (act_scale, wgt_scale)]
    return _steps(codes, np.asarray(wgt, dtype=np.int64), scales[0], scales[1], np.ones(len(codes), dtype=np.int64))


def sequences(spec: BlockDot, count: int, depth: int, seed: int) -> Steps:
    """`count` sums of `depth` blocks, each marked `last` so that every partial sum is seen.

    A third of the blocks repeat the one before with all activations negated and one lane or scale changed: sums that
    cancel. Elements are of any exponent, with zeros; a quarter of the blocks have products of one sign; infinities and
    NaN come in one block of a hundred. E8M0 scales stay near those of the sequence, from fp32's subnormals to its
    infinity; E4M3 scales are any, or corners.
    """
    rng = np.random.default_rng(seed)
    many = 1 << spec.element.bits
    shape = (count, depth, spec.lanes)
    codes = np.arange(many)
    good = codes[~(spec.element.is_nan(codes) | spec.element.is_inf(codes))]
    act, wgt = good[rng.integers(0, len(good), (2, *shape))]
    kept = np.where(rng.random(shape[:2]) < 0.7, 1.0, rng.choice([0.2, 1 / spec.lanes], shape[:2]))
    act = np.where(rng.random(shape) < kept[..., None], act, 0)
    alike = (rng.random(shape[:2]) < 0.25)[..., None] & ((act ^ wgt) >> (spec.element.bits - 1) & 1 == 1)
    wgt = np.where(alike, _negated(spec, wgt), wgt)
    wild = (rng.random(shape[:2]) < 0.01)[..., None] & (rng.random(shape) < 0.1)
    act, wgt = (np.where(wild, rng.integers(0, many, shape), operand) for operand in (act, wgt))
    if spec.scale_format == "e8m0":
        base = np.where(rng.random((2, count, 1)) < 0.5, rng.integers(44, 66, (2, count, 1)), 127)
        base = np.where(rng.random((1, count, 1)) < 0.2, rng.integers(0, 256, (2, count, 1)), base)
        base = np.where(rng.random((1, count, 1)) < 0.1, rng.integers(170, 200, (2, count, 1)), base)
        scales = np.clip(base + rng.integers(-3, 4, (2, count, depth)), 0, 255)
    else:
        scales = rng.integers(0, 256, (2, count, depth))
        corner = rng.choice(_E4M3_CORNERS, scales.shape) | rng.integers(0, 2, scales.shape) << 7
        scales = np.where(rng.random(scales.shape) < 0.3, corner, scales)
    for step in range(1, depth):
        repeat = rng.random(count) < 1 / 3
        negated = _negated(spec, act[:, step - 1])
        lane = rng.integers(0, spec.lanes, count)
        negated[np.arange(count), lane] = good[rng.integers(0, len(good), count)]
        act[:, step] = np.where(repeat[:, None], negated, act[:, step])
        wgt[:, step] = np.where(repeat[:, None], wgt[:, step - 1], wgt[:, step])
        scales[:, :, step] = np.where(repeat, scales[:, :, step - 1], scales[:, :, step])
    first = np.zeros((count, depth), dtype=np.int64)
    first[:, 0] = 1
    flat = [operand.reshape(-1, spec.lanes) for operand in (act, wgt)]
    codes_of = scales.reshape(2, -1)
    return _steps(flat[0], flat[1], codes_of[0], codes_of[1], first.ravel())


def _negated(spec: BlockDot, codes: IntArray) -> IntArray:
    if spec.element.integer:  # -128 has no opposite: it stays
        return np.asarray(-codes & ((1 << spec.element.bits) - 1))
    return np.asarray(codes ^ (1 << (spec.element.bits - 1)))
