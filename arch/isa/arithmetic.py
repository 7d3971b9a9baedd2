"""The numbers of one Execute and one Vector, vectorised, with the bits of `arch.pe`'s golden arithmetic.

Execute. The reduction is cut into slices: at multiples of `group`, and inside a group after `Limits.slice_steps`
elements. For each slice in order

    integer PEs   p = sum act * (code - zero), exact; acc <- fp32(acc + fp32(scale * p))
    fp16-mac      p = the PE's fp32 sum from +0 in ascending order; acc <- fp32(acc + p). With a scale the
                  weights are fp16((code - zero) * scale), made before the array.
    broadcast     p = the PE's sum, which of outlier-victim may saturate; acc <- fp32(acc + fp32(scale * p)), of lut
                  with the zero point taken off (`arch.pe.broadcast`); of bit-serial p is the PE's fp32 part, scaled.

Why no step of the PE is repeated here. An integer slice is never longer than the PE's longest exact sum, so its golden
sum does not wrap and its order does not matter: a float64 product finds it, below 2**53. A float slice is summed by
`np.add.accumulate`, one fp32 addition after the other; a short slice is filled with +0 products, which change no sum
that started from +0. Every NaN that comes out is the canonical one, whatever NaN went in, so it is enough to write it
at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bitwright.arch.isa.activation import activate
from bitwright.arch.isa.instructions import NumberType, Vector
from bitwright.arch.isa.limits import Limits, TileFormat
from bitwright.arch.pe.base import PESpec
from bitwright.arch.pe.fp16_mac import Fp16Mac, canonical
from bitwright.arch.pe.units import GroupDequantiser, WeightDequantiser, edge_unit
from bitwright.arch.pe.weight_codes import weight_code
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_BLOCK = 1 << 20  # numbers in flight
_CANONICAL_FP16 = np.uint16(0x7E00).view(np.float16)
_INT8_MOST = 127


@dataclass(frozen=True)
class Cut:
    """A reduction in slices: of each element its slice, its lane (place in the slice) and its group; of each slice its
    group."""

    of: NDArray[np.int64]
    lane: NDArray[np.int64]
    group: NDArray[np.int64]
    slice_group: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Slices."""
        return len(self.slice_group)

    @property
    def longest(self) -> int:
        """Elements of the longest slice."""
        return int(self.lane.max()) + 1


def cut(k: int, group: int, steps: int | None) -> Cut:
    """The slices of a reduction of k: cut at multiples of `group` and, inside a group, after `steps`."""
    element = np.arange(k)
    in_group = element % group
    lane = in_group if steps is None else in_group % steps
    starts = lane == 0
    return Cut(np.cumsum(starts) - 1, lane, element // group, (element // group)[starts])


@dataclass(frozen=True)
class Tile:
    """The operands of one Execute.

    Members
        acts : int8 (of outlier-victim the bits of a byte) or fp16 [k, m]
        codes : unsigned [k, cols]
        scales : fp16 [groups, cols], zeros : unsigned [groups, cols]; None, None for a format without scale. Where the
            PE scales (`Family.scales_inside`): unsigned 8-bit scales and selectors.
    """

    acts: NDArray[np.int8] | NDArray[np.float16]
    codes: NDArray[np.uint16]
    scales: NDArray[np.float16] | NDArray[np.uint16] | None
    zeros: NDArray[np.uint16] | None


def execute(limits: Limits, form: TileFormat, tile: Tile, slices: Cut, start: F32) -> F32:
    """`start` [m, cols] plus the tile's products."""
    total = np.array(start, dtype=np.float32)
    family = limits.tile
    parts = _parts(limits.pe, form, tile, slices) if family is None else family.parts(tile, slices, form.name)
    with np.errstate(all="ignore"):
        for part in parts:
            for addend in part:
                total += addend
    return canonical(total)


def _parts(spec: PESpec, form: TileFormat, tile: Tile, slices: Cut) -> Iterator[F32]:
    """What is added to the accumulators, slice after slice: fp32 [some slices, m, cols]."""
    floats = isinstance(spec, Fp16Mac)
    weights = _fp16_weights(form, tile, slices) if floats else _integer_weights(form, tile, slices)
    m, cols, longest = tile.acts.shape[1], weights.shape[1], slices.longest
    at_once = max(1, _BLOCK // (m * cols + longest * (m + cols)))
    for first in range(0, slices.count, at_once):
        last = min(first + at_once, slices.count)
        mine = (slices.of >= first) & (slices.of < last)
        place = slices.of[mine] - first, slices.lane[mine]
        acts = np.zeros((last - first, longest, m), np.float32 if floats else np.float64)
        wgts = np.zeros((last - first, longest, cols), acts.dtype)
        acts[place], wgts[place] = tile.acts[mine], weights[mine]
        if floats:
            yield _sequential(acts, wgts)
        else:
            yield _dequantised(spec, form, tile, acts.transpose(0, 2, 1) @ wgts, slices.slice_group[first:last])


def _integer_weights(form: TileFormat, tile: Tile, slices: Cut) -> NDArray[np.int64]:
    """code - zero as the border decoder or the zero point column makes it: [k, cols]."""
    rule = weight_code(form.name)
    return rule.integers(tile.codes) if tile.zeros is None else rule.integers(tile.codes, tile.zeros[slices.group])


def _fp16_weights(form: TileFormat, tile: Tile, slices: Cut) -> NDArray[np.float16]:
    """Weights as the multiplier sees them: fp16 [k, cols]."""
    if form.name == "fp16":
        return tile.codes.view(np.float16)
    unit = WeightDequantiser(form.name)
    if tile.scales is None:
        return unit.dequantise(tile.codes)
    zeros = 0 if tile.zeros is None else tile.zeros[slices.group]
    return unit.dequantise(tile.codes, tile.scales[slices.group], zero=zeros)


def _dequantised(
    spec: PESpec, form: TileFormat, tile: Tile, sums: NDArray[np.float64], groups: NDArray[np.int64]
) -> F32:
    """fp32(scale * sum) by the group-dequantiser's golden; from its +0, since accumulators are never -0."""
    assert tile.scales is not None, "an integer PE has formats with scales"
    halve = weight_code(form.name).fraction_bits == 1
    unit = edge_unit(spec, halves=halve)
    assert isinstance(unit, GroupDequantiser), f"{spec.name}: is no integer PE"
    scales = tile.scales[groups][:, np.newaxis, :]
    return unit.dequantise(np.float32(0), sums.astype(np.int64), scales, halve=halve)


def _sequential(acts: F32, wgts: F32) -> F32:
    """The PE's sums [slices, m, cols]: one fp32 addition after the other, from +0."""
    count, longest, m = acts.shape
    cols = wgts.shape[2]
    total = np.zeros((1, count, m, cols), np.float32)
    at_once = max(1, _BLOCK // (count * m * cols))
    for first in range(0, longest, at_once):
        lanes = slice(first, first + at_once)
        products = acts[:, lanes].swapaxes(0, 1)[..., np.newaxis] * wgts[:, lanes].swapaxes(0, 1)[:, :, np.newaxis, :]
        total = np.add.accumulate(np.concatenate([total, products]), axis=0)[-1:]
    return np.asarray(total[0])


@dataclass(frozen=True)
class Extras:
    """What Vector reads beside the accumulators: scales [m] or by column [cols], biases [cols], residuals [m, cols],
    fp32 or None."""

    scales: F32 | None = None
    biases: F32 | None = None
    residuals: F32 | None = None


def vector(instruction: Vector, accumulators: F32, extras: Extras) -> NDArray[np.float32 | np.float16 | np.int8]:
    """Results [m, cols] in the instruction's number type. Every NaN is canonical; as int8 it is 0.

    The function is `activation.activate`; ReLU is +0 where the sign is set, -0 included.
    """
    values = accumulators
    with np.errstate(all="ignore"):
        if extras.scales is not None:
            values = canonical(values * (extras.scales if instruction.by_column else extras.scales[:, np.newaxis]))
        if extras.biases is not None:
            values = canonical(values + extras.biases)
        values = activate(instruction.function, values)
        if extras.residuals is not None:
            values = canonical(values + extras.residuals)
        return rounded(values, instruction.to)


def rounded(values: F32, to: NumberType) -> NDArray[np.float32 | np.float16 | np.int8]:
    """Results in a number type: to nearest, ties to even; fp16 overflows to infinity, int8 saturates to +-127."""
    if to is NumberType.FP32:
        return values
    if to is NumberType.FP16:
        narrow = values.astype(np.float16)
        return np.where(np.isnan(narrow), _CANONICAL_FP16, narrow)
    whole = np.clip(np.rint(values), -_INT8_MOST, _INT8_MOST)
    return np.where(np.isnan(whole), 0, whole).astype(np.int8)
