"""Vector's activation functions, bit for bit: ReLU, SiLU and GELU of fp32 numbers.

SiLU is x / (1 + exp(-x)), GELU x (1 + erf(x / sqrt(2))) / 2: both are x times a gate that rises from 0 to 1, with
gate(-x) = 1 - gate(x). So the tail below 1/2, as a function of |x|, is all that a table must hold:

    a      = floor(|x| 2**16) for SiLU, floor(|x| 2**17) for GELU; 20 bits, so |x| is below 16 and 8
    i, t   = a div 2**14, a mod 2**14                       the segment, out of 64, and the place in it
    slope  = c1[i] - floor(c2[i] t / 2**12)
    tail   = c0[i] - floor(slope t / 2**14)                 in units of 2**-22; 2**21 for x = 0
    gate   = tail where the sign of x is set, else 2**22 - tail
    result = fp32(x gate / 2**22)                           rounded once, to nearest, ties to even; subnormals too

Beyond the range the tail is 0: the result is x itself, or -0. A segment is the parabola through its ends and its
middle (c0, c1 in units of 2**-22, c2 in units of 2**-20, each rounded to nearest), so the curve has no jumps but
those of rounding. The gate of a small x is 1/2, and its result x / 2: exactly below 2**-16 and 2**-17.

The coefficients come from decimal arithmetic of 50 digits, whose results are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache

import numpy as np
from bitwright.arch.isa.instructions import Function
from bitwright.arch.pe.fp16_mac import canonical
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

SEGMENT_BITS = 6
OFFSET_BITS = 14
PLACE_BITS = SEGMENT_BITS + OFFSET_BITS
GATE_BITS = 22
ONE = 1 << GATE_BITS
"""A gate of 1."""
SQUARE_SHIFT = 12
"""Of c2 t, before it is taken off c1."""

RANGE_BITS = {Function.SILU: 4, Function.GELU: 3}
"""The table of a function ends at |x| = 2**range_bits."""


@dataclass(frozen=True)
class Error:
    """The largest distances from the exact function, over all fp32 numbers.

    Members
        absolute : for any x
        relative : of the result, for x of -1 and more; below, the tail's own unit of 2**-22 counts more and more
    """

    absolute: float
    relative: float


ERRORS = {Function.SILU: Error(1.6e-5, 4.4e-5), Function.GELU: Error(6.7e-6, 2.4e-5)}


@dataclass(frozen=True)
class Segments:
    """The table of a function: c0, c1, c2 of each segment, all 0 or more."""

    c0: tuple[int, ...]
    c1: tuple[int, ...]
    c2: tuple[int, ...]


def activate(function: Function, values: F32) -> F32:
    """The function of each value. ReLU is +0 where the sign is set; every NaN is canonical."""
    if function is Function.NONE:
        return canonical(values)
    if function is Function.RELU:
        return canonical(np.where(np.signbit(values) & ~np.isnan(values), np.float32(0), values))
    gate = gates(function, values)
    finite = np.where((gate == 0) & ~np.isnan(values), np.float32(0), values)  # minus infinity, too, has the gate 0
    with np.errstate(all="ignore"):
        exact = finite.astype(np.float64) * (gate / ONE)  # 24 by 23 bits: exact
        return canonical(np.copysign(exact, values).astype(np.float32))


def gates(function: Function, values: F32) -> I64:
    """The gate of each value, in units of 2**-22; a NaN counts as an infinity."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    significand = fraction | (exponent > 0).astype(np.int64) << 23
    # |x| = significand 2**(exponent - 150), the exponent field of a subnormal read as 1.
    right = 150 - PLACE_BITS + RANGE_BITS[function] - np.maximum(exponent, 1)
    outside = right < 24 - PLACE_BITS
    place = significand >> np.clip(right, 24 - PLACE_BITS, 24)
    tail = np.where(outside, 0, tails(function, place))
    return np.where(bits >> 31 == 1, tail, ONE - tail)


def tails(function: Function, place: I64) -> I64:
    """The tail at places of the table, 0 to 2**20 - 1, in units of 2**-22."""
    table = segments(function)
    c0, c1, c2 = (np.array(column, np.int64) for column in (table.c0, table.c1, table.c2))
    index, offset = place >> OFFSET_BITS, place & ((1 << OFFSET_BITS) - 1)
    slope = c1[index] - (c2[index] * offset >> SQUARE_SHIFT)
    return np.asarray(c0[index] - (slope * offset >> OFFSET_BITS))


_DIGITS = 50
_PI = Decimal("3.14159265358979323846264338327950288419716939937511")


@cache
def segments(function: Function) -> Segments:
    """The table of SiLU or GELU."""
    exact = {Function.SILU: _silu_tail, Function.GELU: _gelu_tail}[function]
    count = 1 << SEGMENT_BITS
    with localcontext(prec=_DIGITS, rounding=ROUND_HALF_EVEN):
        half = Decimal(1 << RANGE_BITS[function]) / (2 * count)
        points = [exact(half * index) * ONE for index in range(2 * count + 1)]
        rows: list[tuple[int, int, int]] = []
        for start, middle, end in zip(points[:-2:2], points[1::2], points[2::2], strict=True):
            slope = 3 * start - 4 * middle + end
            square = 2 * (start - 2 * middle + end) / (1 << (OFFSET_BITS - SQUARE_SHIFT))
            rows.append((round(start), round(slope), round(square)))
    c0, c1, c2 = zip(*rows, strict=True)
    return Segments(c0, c1, c2)


def _silu_tail(x: Decimal) -> Decimal:
    return 1 / (1 + x.exp())


def _gelu_tail(x: Decimal) -> Decimal:
    """1/2 - the normal distribution's integral from 0 to x: density times the sum of x**(2n+1) / (1 3 5 ... (2n+1))."""
    term, total, odd = x, x, 1
    while total + term != total:
        odd += 2
        term = term * x * x / odd
        total += term
    return Decimal("0.5") - total * (-x * x / 2).exp() / (2 * _PI).sqrt()
