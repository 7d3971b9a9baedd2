"""What the slots hold, as bytes: dense bit fields, lowest bit first.

    pack      code i is bits i*bits .. (i+1)*bits-1; bit j is bit j%8 of byte j//8 (as `arch.formats.packing`)
    pack_par  entry i is a field of 16 + zero_bits bits: an fp16 scale in its 16 lowest, above it a zero point code;
              entry after entry without padding; zero_bits is 0 for a format without zero points
    to_beats  zero bytes up to a whole number of beats

Unpacking takes the first `count` and does not look at what follows, for a slot is longer than what is in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bitwright.arch.errors import FormatError
from bitwright.arch.formats import packing
from bitwright.arch.formats.packing import packed_bytes
from numpy.typing import NDArray

SCALE_BITS = 16
MAX_ZERO_BITS = 16


def pack(codes: NDArray[Any], bits: int) -> bytes:
    """Unsigned codes of 1 to 16 bits, of any shape in C order, as ceil(size * bits / 8) bytes.

    FormatError: bits not in 1..16, codes that are no unsigned integers or need more bits.
    """
    return packing.pack(codes, bits).tobytes()


def unpack(data: bytes, bits: int, count: int) -> NDArray[np.uint16]:
    """The first `count` codes of bytes that start with a `pack`: uint16 [count].

    FormatError: bits not in 1..16, count negative, fewer bytes than the codes take.
    """
    first = _first(data, bits, count, "isa.packing.unpack")
    return packing.unpack(first, bits, count).astype(np.uint16)


def pack_par(scales: NDArray[np.float16], zeros: NDArray[Any] | None = None, zero_bits: int = 0) -> bytes:
    """Scales and zero point codes of one shape, in C order: ceil(size * (16 + zero_bits) / 8) bytes.

    FormatError: scales not fp16; zeros (0 .. 2**zero_bits - 1) of another shape, no unsigned integers or too wide.
    """
    where = "isa.packing.pack_par"
    _check_zero_bits(zero_bits, where)
    if scales.dtype != np.float16:
        raise FormatError(f"scales.dtype = {scales.dtype}: must be float16; {where}")
    codes = np.zeros(scales.shape, np.uint16) if zeros is None else zeros
    if codes.shape != scales.shape or codes.dtype.kind != "u":
        raise FormatError(
            f"zeros = {codes.dtype} of shape {codes.shape}: must be unsigned integers of the scales' shape "
            f"{scales.shape}; {where}"
        )
    if codes.size and int(codes.max()) >> zero_bits:
        raise FormatError(
            f"zeros: largest is {int(codes.max())}, must be below {1 << zero_bits} ({zero_bits} bits); {where}"
        )
    halves = scales.astype("<f2").reshape(-1).view(np.uint8).reshape(-1, 2)
    words = codes.astype("<u2").reshape(-1).view(np.uint8).reshape(-1, 2)
    entries = np.unpackbits(np.hstack([halves, words]), axis=1, count=SCALE_BITS + zero_bits, bitorder="little")
    return np.packbits(entries.reshape(-1), bitorder="little").tobytes()


def unpack_par(data: bytes, zero_bits: int, count: int) -> tuple[NDArray[np.float16], NDArray[np.uint16]]:
    """Scales [count] and zero point codes [count] (0 without zero_bits) of bytes that start with a `pack_par`.

    FormatError: zero_bits not in 0..16, count negative, fewer bytes than the entries take.
    """
    where = "isa.packing.unpack_par"
    _check_zero_bits(zero_bits, where)
    width = SCALE_BITS + zero_bits
    first = _first(data, width, count, where)
    entries = np.unpackbits(first, count=count * width, bitorder="little").reshape(count, width)
    wide = np.zeros((count, SCALE_BITS + MAX_ZERO_BITS), np.uint8)
    wide[:, :width] = entries
    words = np.packbits(wide, axis=1, bitorder="little").view("<u2")
    return words[:, 0].copy().view("<f2").astype(np.float16), words[:, 1].astype(np.uint16)


def to_beats(data: bytes, beat_bytes: int) -> bytes:
    """The bytes with zeros up to a whole number of beats."""
    return data + bytes(-len(data) % beat_bytes)


def _first(data: bytes, bits: int, count: int, where: str) -> NDArray[np.uint8]:
    """The bytes that hold `count` fields."""
    if count < 0:
        raise FormatError(f"count = {count}: must be 0 or more; {where}")
    needed = packed_bytes(count, bits)
    if needed > len(data):
        raise FormatError(
            f"data = {len(data)} bytes: must be at least {needed} for {count} fields of {bits} bits; {where}"
        )
    return np.frombuffer(data[:needed], np.uint8)


def _check_zero_bits(zero_bits: int, where: str) -> None:
    if not 0 <= zero_bits <= MAX_ZERO_BITS:
        raise FormatError(f"zero_bits = {zero_bits}: must be 0..{MAX_ZERO_BITS}; {where}")
