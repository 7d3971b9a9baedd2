"""From codes and integers to the elements that a broadcast tile takes (`arch.pe.broadcast`).

outlier-victim   4-bit codes two a byte, the first in the low bits, 8-bit codes a byte each; narrower integers are
                 sign-extended to 4 or 8 bits. A reduction of odd length ends with code 0.
lut              codes in the stored form of the PE's variant, step by step; a step that is not full is folded as if
                 ones followed, for the tile reads the elements that it misses as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import FormatError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.pe.broadcast import LutFamily, PairFamily
from bitwright.arch.pe.pair_codes import narrow_pairs, wide_values
from bitwright.arch.pe.tile_family import Family
from numpy.typing import NDArray

Codes = NDArray[np.uint8] | NDArray[np.uint16]


def weight_elements(tile: Family | None, weights: Encoded) -> Codes:
    """Weight codes [n, K] as elements [n, k]; as they are for a systolic array.

    FormatError: an integer that is the identifier of outlier-victim pairs.
    """
    if isinstance(tile, PairFamily):
        return _pairs(tile, weights)
    if isinstance(tile, LutFamily):
        return _stored(tile, weights)
    return weights.codes


def tile_scales(tile: Family | None, format_name: str, scales: NDArray[np.float16]) -> NDArray[np.float16]:
    """The scales as the par channel holds them. FormatError where fp16 cannot."""
    factor = tile.scale_factor(format_name) if isinstance(tile, LutFamily) else 1
    if factor == 1:
        return scales
    with np.errstate(over="ignore"):
        found: NDArray[np.float16] = scales * np.float16(factor)
    if np.isinf(found).any():
        raise FormatError(f"weights.scales = {scales.max():g}: the par channel holds {factor} times it, beyond float16")
    return found


def _stored(tile: LutFamily, weights: Encoded) -> Codes:
    bits, (rows, width) = formats.get(weights.format).bits, weights.shape
    plain = np.full((rows, -(-width // tile.lanes) * tile.lanes), (1 << bits) - 1, dtype=np.int64)
    plain[:, :width] = tile.plain_codes(weights.codes, weights.format)
    stored = tile.spec.stored(plain.reshape(rows, -1, tile.lanes), bits)
    return stored.reshape(rows, -1)[:, :width].astype(np.uint8)


def _pairs(tile: PairFamily, weights: Encoded) -> Codes:
    form = formats.get(weights.format)
    codes, width = weights.codes.astype(np.int64), 8 if tile.mode(weights.format) else 4
    if form.family == "integer":
        half, identifier = 1 << (form.bits - 1), 1 << (width - 1)
        codes = ((codes ^ half) - half) & ((1 << width) - 1)
        if (codes == identifier).any():
            row, place = (int(index) for index in np.argwhere(codes == identifier)[0])
            raise FormatError(
                f"weights[{row}, {place}] = {-identifier}: marks the victim of a pair in {tile.spec.name} "
                f"(integers must be symmetric, -{identifier - 1}..{identifier - 1})"
            )
    return _bytes(codes, width).astype(np.uint8)


def _bytes(codes: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    if width == 8:
        return codes
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return np.asarray(even[:, 0::2] | even[:, 1::2] << 4)


@dataclass(frozen=True)
class _Inverse:
    """The least code of each pair of values that has one."""

    keys: NDArray[np.int64]
    codes: NDArray[np.int64]
    largest: int

    def key(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number for two values of at most `largest`."""
        return (first + self.largest) * (2 * self.largest + 1) + second + self.largest


@cache
def _inverse(normal: str, wide: bool) -> _Inverse:
    values = wide_values() if wide else narrow_pairs(normal).value
    largest = int(np.abs(values).max())
    table = _Inverse(np.empty(0, np.int64), np.empty(0, np.int64), largest)
    keys, codes = np.unique(table.key(values[:, 0], values[:, 1]), return_index=True)
    return _Inverse(keys, codes.astype(np.int64), largest)


def pair_elements(tile: PairFamily, format_name: str, values: NDArray[np.float32]) -> NDArray[np.int8]:
    """Activations [m, K] in outlier-victim pairs of the width of a weight format: bytes [m, k].

    FormatError: values of which two neighbours are no pair.
    """
    wide = bool(tile.mode(format_name))
    table = _inverse(tile.spec.normal, wide)
    even = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    whole = np.clip(np.nan_to_num(np.rint(even)), -table.largest, table.largest).astype(np.int64)
    keys = table.key(whole[:, 0::2], whole[:, 1::2])
    places = np.minimum(np.searchsorted(table.keys, keys), len(table.keys) - 1)
    wrong = (table.keys[places] != keys) | (whole != even).reshape(len(values), -1, 2).any(axis=2)
    if wrong.any():
        token, pair = (int(index) for index in np.argwhere(wrong)[0])
        first, second = even[token, 2 * pair : 2 * pair + 2]
        raise FormatError(
            f"acts[{token}, {2 * pair}..{2 * pair + 1}] = {first:g}, {second:g}: are no pair of {8 if wide else 4}-bit "
            f"values, which {tile.spec.name} takes with {format_name} weights (encode the activations first)"
        )
    codes = table.codes[places]
    if not wide:
        return codes.astype(np.uint8).view(np.int8)
    split = np.stack([codes & 255, codes >> 8], axis=-1).reshape(len(codes), -1)
    return split[:, : values.shape[1]].astype(np.uint8).view(np.int8)
