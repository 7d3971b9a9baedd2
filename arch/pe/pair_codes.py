"""What the decoders of OliVe and ANT make of codes: numbers <exponent, integer>, of value integer * 2**exponent.

One number is 9 bits: the integer in two's complement in the low 5, the exponent in the 4 above.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Evidence, IntArray, Timing
from bitwright.arch.pe.units import UnitSpec

INTEGER_BITS, EXPONENT_BITS = 5, 4
NUMBER_BITS = INTEGER_BITS + EXPONENT_BITS
NORMALS = ("int4", "flint4")
READS = ("ovp4", "ovp8", "both")
# Bias of the 4-bit outliers (E2M1), so that the least lies just above the normal values.
OUTLIER_BIAS = {"int4": 2, "flint4": 3}
WIDE_BIAS = 4  # of the 8-bit outliers (E4M3)
CLIP_BITS = 15  # an 8-bit outlier is at most 2**15, so that a product of two fits int32


@dataclass(frozen=True)
class Numbers:
    """Numbers <exponent, integer>; two arrays of one shape."""

    exponent: IntArray
    integer: IntArray

    @property
    def value(self) -> IntArray:
        return np.asarray(self.integer << self.exponent)

    @property
    def packed(self) -> IntArray:
        """The 9-bit words."""
        return np.asarray((self.integer & ((1 << INTEGER_BITS) - 1)) | (self.exponent << INTEGER_BITS))


def unpacked(words: npt.ArrayLike) -> Numbers:
    """The numbers of 9-bit words."""
    word, half = np.asarray(words, dtype=np.int64), 1 << (INTEGER_BITS - 1)
    return Numbers(word >> INTEGER_BITS, ((word & (2 * half - 1)) ^ half) - half)


# Codes of one value.


def integers(bits: int) -> Numbers:
    """Of each two's complement code: <0, integer>."""
    half = 1 << (bits - 1)
    codes = np.arange(2 * half)
    return Numbers(np.zeros_like(codes), (codes ^ half) - half)


def flint(bits: int) -> Numbers:
    """Of each flint code, sign included (first-one coding; see arch.formats.flint).

    With the top bit below the sign 0, <0, rest>; with it 1, the rest goes left until its first one is at the top, one
    more than the zeros that led it is the exponent. A rest of 0 counts as a one one place below.
    """
    below = bits - 2
    codes = np.arange(1 << bits)
    rest = codes & ((1 << below) - 1)
    zeros = below - np.asarray([int(value).bit_length() for value in rest])
    long = codes >> below & 1 == 1
    magnitude = np.where(long, np.where(rest == 0, 1 << (below - 1), rest << np.minimum(zeros, below - 1)), rest)
    return Numbers(np.where(long, zeros + 1, 0), np.where(codes >> (bits - 1) == 1, -magnitude, magnitude))


def powers_of_two(bits: int) -> Numbers:
    """Of each code of a sign and an exponent plus one: <exponent, +-1>; magnitude code 0 is <0, 0>."""
    codes = np.arange(1 << bits)
    magnitude = codes & ((1 << (bits - 1)) - 1)
    one = np.minimum(magnitude, 1)
    return Numbers(np.maximum(magnitude - 1, 0), np.where(codes >> (bits - 1) == 1, -one, one))


# Pairs.


@cache
def narrow_pairs(normal: str) -> Numbers:
    """Of each byte of two 4-bit values, [256, 2]; the first value is in the low bits.

    A partner of the identifier is <E2M1's exponent + bias, +-(2 + mantissa)>, of magnitude code 0 <bias, 0>; else the
    identifier is <0, 0>, and any other code what `normal` says.
    """
    byte = np.arange(256)
    own, partner = np.stack([byte & 15, byte >> 4], 1), np.stack([byte >> 4, byte & 15], 1)
    plain = integers(4) if normal == "int4" else flint(4)
    magnitude = own & 7
    outlier = np.where(magnitude == 0, 0, 2 + (magnitude & 1))
    outlier = np.where(own >> 3 == 1, -outlier, outlier)
    marked, victim = partner == 8, own == 8
    exponent = np.where(marked, (magnitude >> 1) + OUTLIER_BIAS[normal], np.where(victim, 0, plain.exponent[own]))
    return Numbers(exponent, np.where(marked, outlier, np.where(victim, 0, plain.integer[own])))


@cache
def wide_pairs() -> Numbers:
    """Of each 16-bit pair of 8-bit values, [65536, 4]: of each value x = <exponent + 4, h> + <exponent, l>, h and l.

    integer = 16 * h + l, with l of 0..15. A normal code is <0, code>; a partner of the identifier <E4M3's exponent + 4,
    +-(8 + mantissa)>, of magnitude code 0 <4, 0>, and of 2**15 or more <11, +-16>: the clip.
    """
    word = np.arange(1 << 16)
    own, partner = np.stack([word & 255, word >> 8], 1), np.stack([word >> 8, word & 255], 1)
    magnitude = own & 127
    field = magnitude >> 3
    clipped = field >= CLIP_BITS - 3 - WIDE_BIAS
    outlier = np.where(magnitude == 0, 0, np.where(clipped, 16, 8 + (magnitude & 7)))
    outlier = np.where(own >> 7 == 1, -outlier, outlier)
    marked = partner == 128
    integer = np.where(marked, outlier, np.where(own == 128, 0, (own ^ 128) - 128))
    exponent = np.where(marked, np.where(clipped, CLIP_BITS - 4, field + WIDE_BIAS), 0)
    both = Numbers(np.stack([exponent + 4, exponent], -1), np.stack([integer >> 4, integer & 15], -1))
    return Numbers(both.exponent.reshape(-1, 4), both.integer.reshape(-1, 4))


@cache
def wide_values() -> IntArray:
    """Of each 16-bit pair its two values, [65536, 2]."""
    return np.asarray(wide_pairs().value.reshape(-1, 2, 2).sum(axis=-1))


@dataclass(frozen=True)
class PairDecoder(UnitSpec):
    """At the border of an array of outlier-victim cells: outlier-victim pairs to numbers <exponent, integer>.

    Parameters
        reads : str              "ovp4": one byte, two numbers; "ovp8": two bytes, four numbers (h and l of each
            value); "both": two bytes, four numbers, and a mode input `wide` for ovp8.
        normal : str             Type of the 4-bit normal values: int4 or flint4.
    Arithmetic   exact, but an 8-bit outlier beyond 2**15 is clipped to it; see `narrow_pairs` and `wide_pairs`.
    Timing       1 cycle, one pair (both: two 4-bit pairs) a cycle.
    Source       OliVe (ISCA 2023, arXiv 2304.07493), section 4; the split of an 8-bit outlier as of 8-bit integers and
                 the clip inside the decoder are ours.
    """

    reads: str = "both"
    normal: str = "int4"

    name: ClassVar[str] = "pair-decoder"
    timing: ClassVar[Timing] = Timing(latency_cycles=1)
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "unit equals decode: every byte of both normal types, every 16-bit pair, alone and in the unit of both",
            # ovp4: 256 bytes a normal type; ovp8: 2**16; both, a normal type: 2**16 pairs in each mode
            2 * 256 + (1 << 16) + 2 * 2 * (1 << 16),
            "tests/rtl/pe/test_outlier_victim.py",
        ),
    )

    def __post_init__(self) -> None:
        for name, known in (("reads", READS), ("normal", NORMALS)):
            require_choice(f"{self.name} {name}", getattr(self, name), known)

    @property
    def module_name(self) -> str:
        return f"pair_decoder_{self.reads}" + ("" if self.reads == "ovp8" else f"_{self.normal}")

    @property
    def pair_bits(self) -> int:
        return 8 if self.reads == "ovp4" else 16

    @property
    def count(self) -> int:
        """Numbers a cycle."""
        return self.pair_bits // 4

    def decode(self, pairs: npt.ArrayLike, *, wide: npt.ArrayLike = False) -> IntArray:
        """9-bit words [..., count] of pairs [...] of pair_bits bits; `wide`, one or [...], for "both" only."""
        pair = np.asarray(pairs, dtype=np.int64)
        if self.reads == "ovp4":
            return narrow_pairs(self.normal).packed[pair]
        if self.reads == "ovp8":
            return wide_pairs().packed[pair]
        narrow = narrow_pairs(self.normal).packed
        both = np.concatenate([narrow[pair & 255], narrow[pair >> 8]], axis=-1)
        return np.where(np.asarray(wide, dtype=np.bool_)[..., None], wide_pairs().packed[pair], both)


def require_choice(what: str, value: object, known: tuple[str, ...]) -> None:
    """ConfigError unless `value` is one of `known`."""
    if value not in known:
        raise ConfigError(f"{what} = {value!r}: must be {', '.join(known[:-1])} or {known[-1]}")
