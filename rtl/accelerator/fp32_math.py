"""fp32 arithmetic in stages of half an operation each: one result a cycle, every register without a reset.

Each function adds its stages to a module and returns what shows a fixed number of cycles after its operands.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.rtl.pe.floats import (
    Unpacked,
    add_or_subtract,
    effective_exponent,
    leading_zeros,
    round_fields,
    shift_right_sticky,
    shift_to_exponent,
    unpack,
)

ADD_CYCLES = MULTIPLY_CYCLES = GATED_CYCLES = 2
_BIAS = 127
_KEPT = 25  # leading bits of a product that a right shift by 1 and more can bring to the guard bit or above, and one


def held(m: Module, value: Value, name: str) -> Signal:
    """`value` a cycle later, in a register without a reset."""
    register = Signal(len(value), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register


def special(nan: Value, sign: Value) -> Value:
    """The canonical NaN, or an infinity."""
    return Cat(Const(0, 22), nan, Const(0xFF, 8), sign & ~nan)


def add(m: Module, first: Value, second: Value, name: str) -> Signal:
    """The fp32 sum of two fp32 numbers, 2 cycles later; all of IEEE 754, NaN canonical. Stages: add | round."""
    a, b = unpack(m, first, 8, f"{name}_a"), unpack(m, second, 8, f"{name}_b")
    subtract, a_larger, nan = (Signal(name=f"{name}_{part}") for part in ("subtract", "a_larger", "nan"))
    exponents = [Signal(8, name=f"{name}_{which}_exponent") for which in ("big", "small")]
    big, small = Signal(24, name=f"{name}_big"), Signal(24, name=f"{name}_small")
    distance = Signal(8, name=f"{name}_distance")
    m.d.comb += [
        subtract.eq(a.sign ^ b.sign),
        a_larger.eq(first[:31] >= second[:31]),
        exponents[0].eq(Mux(a_larger, effective_exponent(a), effective_exponent(b))),
        exponents[1].eq(Mux(a_larger, effective_exponent(b), effective_exponent(a))),
        distance.eq(exponents[0] - exponents[1]),
        big.eq(Mux(a_larger, a.significand, b.significand)),
        small.eq(Mux(a_larger, b.significand, a.significand)),
        nan.eq(a.nan | b.nan | (a.inf & b.inf & subtract)),
    ]
    aligned = shift_right_sticky(m, Cat(Const(0, 3), small), distance, f"{name}_small")
    total = add_or_subtract(m, Cat(Const(0, 3), big), aligned, subtract, f"{name}_total")
    total_1 = held(m, total, f"{name}_total_1")
    exponent_1 = held(m, exponents[0] + 1, f"{name}_exponent_1")  # of the sum's top bit
    nan_1 = held(m, nan, f"{name}_nan_1")
    special_1 = held(m, a.special | b.special, f"{name}_special_1")
    larger_sign_1 = held(m, Mux(a_larger, a.sign, b.sign), f"{name}_sign_1")
    subtract_1 = held(m, subtract, f"{name}_subtract_1")

    sign = Signal(name=f"{name}_sign")
    m.d.comb += sign.eq(larger_sign_1 & ~(subtract_1 & ~total_1.any()))
    shifted, exponent = shift_to_exponent(m, total_1, exponent_1, f"{name}_sum")
    rounded = round_fields(m, shifted, exponent, 8, 23, name)
    # The larger magnitude is the infinity, if there is one, so its sign is already the result's.
    return held(m, Mux(special_1, special(nan_1, larger_sign_1), Cat(rounded, sign)), f"{name}_2")


def multiply(m: Module, first: Value, second: Value, name: str) -> Signal:
    """The fp32 product of two fp32 numbers, 2 cycles later; all of IEEE 754, NaN canonical. Stages: multiply | round.

    How far the product must be shifted follows from exponents and leading zeros, beside the multiplier; but for one
    place to the left, since a product of two numbers in 1..2 is in 1..4.
    """
    a, b = unpack(m, first, 8, f"{name}_a"), unpack(m, second, 8, f"{name}_b")
    nan = Signal(name=f"{name}_nan")
    m.d.comb += nan.eq(a.nan | b.nan | (a.inf & b.zero) | (a.zero & b.inf))
    exponent, left, right, more = _places(m, a, b, name)
    product_1 = held(m, a.significand * b.significand, f"{name}_product_1")
    exponent_1, left_1 = held(m, exponent, f"{name}_exponent_1"), held(m, left, f"{name}_left_1")
    right_1, more_1 = held(m, right, f"{name}_right_1"), held(m, more, f"{name}_more_1")
    nan_1, sign_1 = held(m, nan, f"{name}_nan_1"), held(m, a.sign ^ b.sign, f"{name}_sign_1")
    special_1 = held(m, a.special | b.special, f"{name}_special_1")

    near, normal = Signal(48, name=f"{name}_near"), Signal(48, name=f"{name}_normal")
    one_more, lowered = Signal(name=f"{name}_one_more"), Signal(9, name=f"{name}_lowered")
    leading = Cat(product_1[:-_KEPT].any(), product_1[-_KEPT:])
    small = shift_right_sticky(m, leading, right_1, f"{name}_small")
    m.d.comb += [
        near.eq((product_1 << left_1)[:48]),
        one_more.eq(more_1 & ~near[-1]),
        normal.eq(Mux(right_1.any(), Cat(Const(0, 48 - len(small)), small), Mux(one_more, near << 1, near)[:48])),
        lowered.eq(exponent_1 - one_more),
    ]
    rounded = round_fields(m, normal, lowered, 8, 23, name)
    return held(m, Mux(special_1, special(nan_1, sign_1), Cat(rounded, sign_1)), f"{name}_2")


def _places(m: Module, a: Unpacked, b: Unpacked, name: str) -> tuple[Value, Value, Value, Value]:
    """(exponent of the top bit after the shift, places to the left, places to the right, a place more would be legal).

    The top bit of the 48-bit product has the exponent e_a + e_b - 126; where that is below 1 the product is shifted to
    the right, as a subnormal number. A product of 0 may have anything.
    """
    zeros, top = Signal(6, name=f"{name}_zeros"), Signal(signed(11), name=f"{name}_top")
    room, below = Signal(signed(11), name=f"{name}_room"), Signal(name=f"{name}_below")
    exponent, right = Signal(9, name=f"{name}_exponent"), Signal(8, name=f"{name}_right")
    left, more = Signal(5, name=f"{name}_left"), Signal(name=f"{name}_more")
    m.d.comb += [
        zeros.eq(
            leading_zeros(m, a.significand, f"{name}_a_zeros") + leading_zeros(m, b.significand, f"{name}_b_zeros")
        ),
        top.eq(effective_exponent(a) + effective_exponent(b) - (_BIAS - 1)),
        room.eq(top - 1),
        below.eq(room[-1]),
        more.eq(~below & (room > zeros)),
        left.eq(Mux(below, 0, Mux(more, zeros, room))),
        right.eq(Mux(below, 1 - top, 0)),
        exponent.eq(Mux(below, 1, top - left)),
    ]
    return exponent, left, right, more


def gated(m: Module, number: Unpacked, gate: Value, name: str) -> Signal:
    """Exponent and fraction fields of number x gate / 2**(len(gate) - 1), 2 cycles later, for a gate of at most 1.

    Rounded once, to nearest, ties to even; what a special number gives means nothing. Stages: multiply | round.
    """
    product_1 = held(m, number.significand * gate, f"{name}_product_1")
    exponent_1 = held(m, effective_exponent(number) + 1, f"{name}_exponent_1")  # of the product's top bit
    # A gate of one unit leaves a normal number's leading bit in place 23; a subnormal one moves by one place at most.
    zeros = leading_zeros(m, product_1[23:], f"{name}_zeros")
    places, shifted = Signal(len(zeros), name=f"{name}_places"), Signal(len(product_1), name=f"{name}_shifted")
    exponent = Signal(len(exponent_1), name=f"{name}_exponent")
    m.d.comb += [
        places.eq(Mux(exponent_1 > zeros, zeros, exponent_1 - 1)),
        shifted.eq((product_1 << places)[: len(product_1)]),
        exponent.eq(exponent_1 - places),
    ]
    return held(m, round_fields(m, shifted, exponent, 8, 23, name), f"{name}_2")
