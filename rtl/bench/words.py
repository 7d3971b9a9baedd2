"""Packing of bit vectors of any width into the 32-bit words that a compiled design takes, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]


def word_count(bits: int) -> int:
    """How many 32-bit words hold a vector of `bits`."""
    return (bits + 31) // 32


def from_integers(values: npt.ArrayLike, bits: int) -> Words:
    """Integers [n] (any sign; taken modulo 2**bits, bits <= 64) to words [n, word_count(bits)]."""
    raw = np.asarray(values)
    wide = raw.astype(np.int64).view(np.uint64) if raw.dtype != np.uint64 else raw
    if bits < 64:
        wide = wide & np.uint64((1 << bits) - 1)
    words = np.empty((*wide.shape, word_count(bits)), dtype=np.uint32)
    words[..., 0] = wide & np.uint64(0xFFFFFFFF)
    if bits > 32:
        words[..., 1] = wide >> np.uint64(32)
    return words


def to_integers(words: Words, bits: int, signed: bool = False) -> npt.NDArray[np.int64] | npt.NDArray[np.uint64]:
    """Words [n, word_count(bits)] (bits <= 64) to int64 if `signed`, else uint64, of shape [n]."""
    wide = words[..., 0].astype(np.uint64)
    if bits > 32:
        wide |= words[..., 1].astype(np.uint64) << np.uint64(32)
    if not signed:
        return wide
    shift = np.int64(64 - bits)
    return (wide.view(np.int64) << shift) >> shift


def pack_lanes(lanes: npt.ArrayLike, lane_bits: int) -> Words:
    """Integers [n, L] to words [n, word_count(L * lane_bits)]; lane 0 in the least significant bits.

    Each lane is taken modulo 2**lane_bits; lane_bits <= 64.
    """
    values = np.asarray(lanes)
    count, width = values.shape
    split = from_integers(values, lane_bits)  # [n, L, w]
    as_bytes = np.ascontiguousarray(split.astype("<u4")).view(np.uint8).reshape(count, width, -1)
    if lane_bits % 8 == 0:
        packed = as_bytes[:, :, : lane_bits // 8].reshape(count, -1)
    else:
        bits = np.unpackbits(as_bytes, axis=2, bitorder="little")[:, :, :lane_bits]
        packed = np.packbits(bits.reshape(count, -1), axis=1, bitorder="little")
    padded = np.zeros((count, 4 * word_count(width * lane_bits)), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view("<u4").astype(np.uint32, copy=False)


def unpack_lanes(words: Words, lane_bits: int, lanes: int, signed: bool = False) -> npt.NDArray[np.int64]:
    """Words [n, word_count(lanes * lane_bits)] to int64 [n, lanes], sign-extended if `signed`; lane_bits <= 63."""
    count = words.shape[0]
    as_bytes = np.ascontiguousarray(words.astype("<u4", copy=False)).view(np.uint8).reshape(count, -1)
    if lane_bits % 8 == 0:
        size = lane_bits // 8
        field = as_bytes[:, : lanes * size].reshape(count, lanes, size)
    else:
        bits = np.unpackbits(as_bytes, axis=1, bitorder="little")[:, : lanes * lane_bits]
        field = np.packbits(bits.reshape(count, lanes, lane_bits), axis=2, bitorder="little")
    wide = np.zeros((count, lanes, 8), dtype=np.uint8)
    wide[:, :, : field.shape[2]] = field
    values = wide.view("<i8").reshape(count, lanes).astype(np.int64, copy=False)
    if signed:
        shift = np.int64(64 - lane_bits)
        values = (values << shift) >> shift
    return values
