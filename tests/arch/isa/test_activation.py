"""SiLU and GELU: the table place by place, errors against the exact functions, edges."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from bitwright.arch.isa.activation import (
    ERRORS,
    GATE_BITS,
    OFFSET_BITS,
    ONE,
    PLACE_BITS,
    RANGE_BITS,
    SEGMENT_BITS,
    activate,
    gates,
    segments,
    tails,
)
from bitwright.arch.isa.arithmetic import Extras, vector
from bitwright.arch.isa.instructions import Function, Vector
from numpy.typing import NDArray

FUNCTIONS = (Function.SILU, Function.GELU)
PLACES = np.arange(1 << PLACE_BITS, dtype=np.int64)
SIGN, TINY = np.uint32(1 << 31), np.uint32(1)
_erfc = np.frompyfunc(math.erfc, 1, 1)


def exact_tail(function: Function, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - gate of x of any sign, in float64: good to 1e-15 of itself."""
    if function is Function.SILU:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(x))
    return np.asarray(_erfc(x / math.sqrt(2)), np.float64) / 2


def exact(function: Function, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * exact_tail(function, -x)


def dense(function: Function) -> NDArray[np.float32]:
    """Both signs of: first and last fp32 number of every place of the table; 4096 numbers of every exponent."""
    start = np.ldexp(PLACES.astype(np.float32), RANGE_BITS[function] - PLACE_BITS)
    last = (start[1:].view(np.uint32) - TINY).view(np.float32)
    exponent, fraction = np.meshgrid(np.arange(255, dtype=np.uint32) << 23, np.arange(4096, dtype=np.uint32) << 11)
    sweep = (exponent | fraction).ravel().view(np.float32)
    upward = np.concatenate([start, last, sweep])
    return np.concatenate([upward, -upward])


def worst(function: Function) -> tuple[float, float]:
    """Largest absolute error, and relative error from -1 up, over the dense numbers."""
    values = dense(function)
    x = values.astype(np.float64)
    near = np.abs(x) < 40
    right = np.where(x > 0, x, 0.0)  # exact to a float64's last bit beyond
    right[near] = exact(function, x[near])
    wrong = np.abs(activate(function, values).astype(np.float64) - right)
    normal = (x >= -1) & (np.abs(x) > 2.0**-125)  # a subnormal result is rounded to its own last place
    return float(wrong.max()), float((wrong[normal] / np.abs(right[normal])).max())


# Interface


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_are_those_that_are_stated(function: Function) -> None:
    absolute, relative = worst(function)
    stated = ERRORS[function]
    assert 0.9 * stated.absolute < absolute <= stated.absolute
    assert 0.9 * stated.relative < relative <= stated.relative
    assert stated.absolute <= 1e-4


@pytest.mark.parametrize(
    ("function", "table"),
    [  # 1 / (1 + e**x); the normal distribution's upper tail (Abramowitz and Stegun, table 26.2)
        (Function.SILU, {0: 0.5, 1: 0.26894142137, 2: 0.11920292202, 4: 0.01798620996, 8: 0.00033535013}),
        (Function.GELU, {0: 0.5, 1: 0.15865525393, 2: 0.02275013195, 3: 0.00134989803, 4: 0.00003167124}),
    ],
)
def test_tails_of_whole_numbers_are_those_of_printed_tables(function: Function, table: dict[int, float]) -> None:
    places = np.array([x << PLACE_BITS - RANGE_BITS[function] for x in table])
    assert tails(function, places).tolist() == [round(value * 2**22) for value in table.values()]


# Exhaustive


def slow_tail(function: Function, place: int) -> int:
    """The docstring's steps, in integers of any size."""
    table, index, offset = segments(function), place // 2**14, place % 2**14
    slope = table.c1[index] - table.c2[index] * offset // 2**12
    return table.c0[index] - slope * offset // 2**14


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tails_at_every_place(function: Function) -> None:
    """Bounded, falling but for rounding, near the exact curve, and without a carry beyond the hardware's widths."""
    found = tails(function, PLACES)
    middle = np.ldexp(PLACES + 0.5, RANGE_BITS[function] - PLACE_BITS)
    assert found[0] == ONE // 2
    assert found.min() >= 0
    assert np.diff(found).max() <= 3
    assert np.abs(found / ONE - exact_tail(function, middle)).max() < 1.8e-5
    table, offset = segments(function), PLACES & ((1 << OFFSET_BITS) - 1)
    c1, c2 = (np.repeat(np.array(column), 1 << OFFSET_BITS) for column in (table.c1, table.c2))
    assert (c1 - (c2 * offset >> 12)).min() >= 0
    some = np.random.default_rng(1).integers(0, 1 << PLACE_BITS, 2000)
    assert tails(function, some).tolist() == [slow_tail(function, int(place)) for place in some]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_coefficients_are_the_parabola_through_ends_and_middle(function: Function) -> None:
    """Within half a unit of the float64 ones, and a little for float64's own error."""
    table, count = segments(function), 1 << SEGMENT_BITS
    width = 2.0 ** RANGE_BITS[function] / count
    start, middle, end = (exact_tail(function, width * (np.arange(count) + part)) * ONE for part in (0, 0.5, 1))
    wanted = start, 3 * start - 4 * middle + end, (start - 2 * middle + end) / 2
    for column, right in zip((table.c0, table.c1, table.c2), wanted, strict=True):
        assert len(column) == count
        assert np.abs(np.array(column) - right).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gates_of_both_signs_add_to_one_at_every_place(function: Function) -> None:
    x = np.ldexp(PLACES.astype(np.float32), RANGE_BITS[function] - PLACE_BITS)
    assert np.array_equal(gates(function, x), ONE - tails(function, PLACES))
    assert np.array_equal(gates(function, -x)[1:], tails(function, PLACES)[1:])


# Property


def rounded_once(value: Fraction) -> float:
    """To fp32, to nearest, ties to even, by whole numbers; |value| below fp32's largest."""
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    return math.copysign(float(round(magnitude / unit) * unit), value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_are_x_times_gate_rounded_once(function: Function) -> None:
    rng = np.random.default_rng(2)
    exponents = np.concatenate([rng.integers(0, 255, 3000), rng.integers(110, 132, 3000)])
    bits = (exponents << 23 | rng.integers(0, 1 << 23, 6000) | rng.integers(0, 2, 6000) << 31).astype(np.uint32)
    values = bits.view(np.float32)
    got = activate(function, values)
    for x, gate, found in zip(values.tolist(), gates(function, values).tolist(), got.tolist(), strict=True):
        assert found == rounded_once(Fraction(x) * Fraction(gate, 1 << GATE_BITS)), x.hex()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_vector_applies_it_between_bias_and_residual(function: Function) -> None:
    acc, bias, residual = (np.full(1, value, np.float32) for value in (1.5, -3.25, 0.5))
    found = vector(Vector(m=1, function=function), acc[np.newaxis], Extras(None, bias, residual[np.newaxis]))
    assert found[0].tolist() == (activate(function, acc + bias) + residual).tolist()


# Edges


@pytest.mark.parametrize("function", FUNCTIONS)
def test_beyond_the_range_the_number_itself_or_minus_zero(function: Function) -> None:
    most = np.float32(2.0 ** RANGE_BITS[function])
    far = np.array([most, 100, 3.4e38, np.inf], np.float32)
    assert activate(function, far).view(np.uint32).tolist() == far.view(np.uint32).tolist()
    assert activate(function, -far).view(np.uint32).tolist() == [1 << 31] * len(far)
    inside = np.nextafter(most, np.float32(0))
    assert gates(function, np.array([inside, -inside])).tolist() == [
        ONE - tails(function, PLACES)[-1],
        tails(function, PLACES)[-1],
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tiny_numbers_are_halved(function: Function) -> None:
    """Below the table's resolution exactly, rounded to even where a subnormal ends."""
    resolution = 2.0 ** (RANGE_BITS[function] - PLACE_BITS)
    below = np.nextafter(np.float32(resolution), np.float32(0))
    small = np.array([below, 1e-20, 2.0**-126, 2.0**-127], np.float32)
    for values in (small, -small):
        assert activate(function, values).tolist() == (values / 2).tolist()
    units = np.array([0, 1, 2, 3, 5, 7], np.uint32)
    assert activate(function, units.view(np.float32)).view(np.uint32).tolist() == [0, 0, 1, 2, 2, 4]
    assert activate(function, (units | SIGN).view(np.float32)).view(np.uint32).tolist() == [
        int(SIGN) + halved for halved in (0, 0, 1, 2, 2, 4)
    ]


@pytest.mark.parametrize("function", list(Function))
def test_every_nan_is_the_canonical_one(function: Function) -> None:
    odd = np.array([0x7F800001, 0x7FC00000, 0xFFC00001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert activate(function, odd).view(np.uint32).tolist() == [0x7FC00000] * 4


def test_none_and_relu_keep_every_other_number() -> None:
    values = np.array([-0.0, 0.0, 1.5, 1e-45, np.inf], np.float32)
    assert activate(Function.NONE, values).view(np.uint32).tolist() == values.view(np.uint32).tolist()
    assert activate(Function.RELU, values).view(np.uint32).tolist() == [0, *values[1:].view(np.uint32).tolist()]
    assert activate(Function.RELU, -values[2:]).view(np.uint32).tolist() == [0, 0, 0]
