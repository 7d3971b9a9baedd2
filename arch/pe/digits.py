"""Signed radix-4 digits of int8 codes, as bit-weight engines multiply by them: Booth's and EN-T's.

    code = sum over places 0..3 of digit * 4**place, digits in -2..2

    mbe    modified Booth: digit i = b[2i-1] + b[2i] - 2 b[2i+1] of the two's complement bits b, b[-1] = 0. No carry.
    en-t   sign and magnitude; the magnitude's bit pairs plus a carry, lowest first: 0, 1, 2 stay, 3 becomes -1 and 4
           becomes 0, both with a carry into the next pair; the sign then negates every digit. The magnitude of -128 is
           kept as 128, whose top digit is 2; no carry leaves the top digit of any code. Fewer nonzero digits than mbe.

A digit that is zero needs no cycle: a serial engine takes one cycle a nonzero digit, and one for the code 0.

Source: OPT (HPCA 2025, arXiv 2503.06342) for EN-T and for skipping; written from a description of the encoding.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import IntArray

ENCODINGS = ("en-t", "mbe")
PLACES = 4  # digits of a code
LARGEST = 2  # magnitude of a digit
DIGIT_BITS = 5  # of a digit code


def require_encoding(encoding: str, where: str) -> None:
    """ConfigError unless there is an encoding of this name."""
    if encoding not in ENCODINGS:
        raise ConfigError(f"{where} = {encoding!r}: must be {' or '.join(ENCODINGS)}")


def digits(encoding: str, codes: npt.ArrayLike) -> IntArray:
    """Digits of int8 codes, lowest place first: int64 [..., 4]. The golden of the encoders."""
    return _table(encoding)[np.asarray(codes, dtype=np.int64) + 128]


def nonzero_digits(encoding: str, codes: npt.ArrayLike) -> IntArray:
    """How many digits of each code are not zero, 0..4."""
    return _counts(encoding)[np.asarray(codes, dtype=np.int64) + 128]


def serial_cycles(encoding: str, codes: npt.ArrayLike) -> IntArray:
    """Cycles of an engine that takes one nonzero digit a cycle: their number, at least 1."""
    return np.asarray(np.maximum(nonzero_digits(encoding, codes), 1), dtype=np.int64)


def digit_codes(encoding: str, codes: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """(digit codes of all cycles, cycles of each code): what an encoder sends of int8 codes, lowest digit first.

    A digit code's bits, lowest first: two bits of select (0: -2, 1: 1, 2: 2, 3: -1), whether it is a zero, two of the
    digit's place. The code 0 takes one cycle, of a zero.
    """
    flat = np.asarray(codes, dtype=np.int64).ravel()
    found = digits(encoding, flat)
    sent = found != 0
    sent[nonzero_digits(encoding, flat) == 0, 0] = True
    select = np.asarray([0, 3, 4, 1, 2], dtype=np.int64)[found + 2]
    return (select | np.arange(PLACES) << 3)[sent], sent.sum(axis=1)


def digit_value(codes: npt.ArrayLike) -> IntArray:
    """digit * 4**place of digit codes."""
    code = np.asarray(codes, dtype=np.int64)
    return np.asarray(_SELECTED[code & 7] << 2 * (code >> 3), dtype=np.int64)


_SELECTED = np.asarray([-2, 1, 2, -1, 0, 0, 0, 0], dtype=np.int64)  # by a digit code's lower three bits


@cache
def _table(encoding: str) -> IntArray:
    """Digits of -128..127: int64 [256, 4]."""
    require_encoding(encoding, "encoding")
    code = np.arange(-128, 128, dtype=np.int64)
    table = _booth(code) if encoding == "mbe" else _ent(code)
    table.setflags(write=False)
    return table


@cache
def _counts(encoding: str) -> IntArray:
    return np.asarray(np.count_nonzero(_table(encoding), axis=1), dtype=np.int64)


def _booth(code: IntArray) -> IntArray:
    window = np.stack([(code << 1) >> 2 * place & 7 for place in range(PLACES)], axis=-1)
    return np.asarray((window + 1 >> 1) - 4 * (window >> 2), dtype=np.int64)


def _ent(code: IntArray) -> IntArray:
    found, carry = [], np.zeros_like(code)
    for place in range(PLACES):
        pair = (np.abs(code) >> 2 * place & 3) + carry
        carry = (pair >= 3).astype(np.int64)
        found.append(np.where(code < 0, -1, 1) * (pair - 4 * carry))
    assert not carry.any(), "a magnitude of at most 128 leaves no carry"
    return np.stack(found, axis=-1)
