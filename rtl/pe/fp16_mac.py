"""fp16-mac datapath: exact 11 x 11 bit product, one alignment, one addition, one normaliser, one rounding.

Everything that depends on exponents alone (which operand is the big one, how far the other is shifted, how many
places a subnormal operand costs) is computed beside the multiplier, not after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from bitwright.arch.pe.fp16_mac import Fp16Mac
from bitwright.rtl.pe.floats import (
    Unpacked,
    add_or_subtract,
    effective_exponent,
    leading_zeros,
    normalise,
    shift_right_sticky,
    unpack,
)

_FRACTION = 23
_GUARD = 3  # guard, round and sticky bits below the fp32 significand
_ALIGNED = _FRACTION + 2  # a product lies in 1..4: two places before the point, fp32's 23 after it
# The product of two significands 1.f has the exponent e_a - 15 + e_w - 15, which bias 127 makes e_a + e_w + 97.
_PRODUCT_BIAS = 97


@dataclass(frozen=True)
class _Exponents:
    """What the exponents say before the product is known."""

    places: Value  # left shift that gives a product of subnormals its 20th or 21st bit
    product_big: Value  # the product's exponent is at least the accumulator's, and it is not 0
    big: Value  # exponent of the units place of the sum, in fp32's bias
    distance: Value  # right shift of the other operand


def _exponents(m: Module, a: Unpacked, w: Unpacked, c: Unpacked) -> _Exponents:
    """Compare exponents. A subnormal accumulator counts with exponent 0: any product but 0 is far above it."""
    places, product = Signal(5, name="product_places"), Signal(8, name="product_exponent")
    above, below = Signal(9, name="product_above_acc"), Signal(8, name="acc_above_product")
    product_big, product_zero = Signal(name="product_big"), Signal(name="product_zero")
    big, distance = Signal(8, name="big_exponent"), Signal(8, name="distance")
    m.d.comb += [
        places.eq(leading_zeros(m, a.significand, "act_zeros") + leading_zeros(m, w.significand, "wgt_zeros")),
        product.eq(effective_exponent(a) + effective_exponent(w) + _PRODUCT_BIAS - places),
        product_zero.eq(a.zero | w.zero),
        above.eq(product - c.exponent),
        below.eq(c.exponent - product),
        product_big.eq(~above[-1] & ~product_zero),
        big.eq(Mux(product_big, product, c.exponent)),
        distance.eq(Mux(above[-1], below, above[:-1])),
    ]
    return _Exponents(places, product_big, big, distance)


def mac(m: Module, spec: Fp16Mac, acc: Value, act: Value, wgt: Value) -> Value:
    """Add to `m` the combinational fp32 sum acc + act * wgt; returns its 32 bits.

    The operand of larger exponent is the big one. Since a product lies in 1..4 and an accumulator in 1..2, the other
    can still be larger if it is shifted by one place at most; then the subtraction is reversed. An overflow is
    impossible (arch.pe.fp16_mac) and no logic is spent on one. A subnormal accumulator meets only a zero product;
    then exponent 0 turns the normaliser off and the sum is the accumulator itself.
    """
    a, w, c = unpack(m, act, 5, "act"), unpack(m, wgt, 5, "wgt"), unpack(m, acc, 8, "acc")
    exponents = _exponents(m, a, w, c)
    raw, product = Signal(22, name="product_raw"), Signal(22, name="product")
    product_sign, subtract = Signal(name="product_sign"), Signal(name="subtract")
    big, small = Signal(_ALIGNED, name="big"), Signal(_ALIGNED, name="small")
    wide_product, wide_acc = Cat(Const(0, _ALIGNED - 22), product), Cat(c.significand, Const(0, 1))
    m.d.comb += [
        raw.eq(a.significand * w.significand),
        product.eq((raw << exponents.places)[:22]),
        product_sign.eq(a.sign ^ w.sign),
        subtract.eq(product_sign ^ c.sign),
        big.eq(Mux(exponents.product_big, wide_product, wide_acc)),
        small.eq(Mux(exponents.product_big, wide_acc, wide_product)),
    ]
    reverse = Signal(name="reverse")
    near = Mux(exponents.distance[0], small[1:], small)
    m.d.comb += reverse.eq(subtract & ~exponents.distance[1:].any() & (near > big))
    aligned = shift_right_sticky(m, Cat(Const(0, _GUARD), small), exponents.distance, "small")
    total = add_or_subtract(m, Cat(Const(0, _GUARD), big), aligned, subtract, "total", reverse)
    ranked = Signal(name="ranked")
    m.d.comb += ranked.eq(c.normal | exponents.product_big)
    # The top bit of the sum stands two places above the units place.
    shifted, count = normalise(m, total, "sum", enable=ranked, otherwise=2)
    exact_zero = Signal(name="exact_zero")
    m.d.comb += exact_zero.eq(Mux(ranked, ~shifted[-1], c.zero))
    sign = Mux(exponents.product_big ^ reverse, product_sign, c.sign) & ~(subtract & exact_zero)
    rounded = _round(m, exponents.big, shifted, count)
    return _with_specials(m, (a, w, c), product_sign, subtract, Cat(rounded, sign))


def _round(m: Module, big_exponent: Value, shifted: Value, count: Value) -> Value:
    """Exponent and fraction of the sum, rounded to nearest, ties to even; a carry runs on into the exponent."""
    exponent, up = Signal(8, name="sum_exponent"), Signal(name="round_up")
    fraction, rest = shifted[-1 - _FRACTION : -1], shifted[: -1 - _FRACTION]
    rounded = Signal(31, name="rounded")
    m.d.comb += [
        exponent.eq((big_exponent + 2 - count)[:8] & shifted[-1].replicate(8)),
        up.eq(rest[-1] & (fraction[0] | rest[:-1].any())),
        rounded.eq(Cat(fraction, exponent) + up),
    ]
    return rounded


def _with_specials(
    m: Module, operands: tuple[Unpacked, Unpacked, Unpacked], product_sign: Value, subtract: Value, finite: Value
) -> Value:
    """`finite`, or the infinity or the canonical NaN that the operands ask for."""
    a, w, c = operands
    product_special, special, nan = Signal(name="product_special"), Signal(name="special"), Signal(name="nan")
    result = Signal(32, name="result")
    m.d.comb += [
        product_special.eq(a.special | w.special),
        special.eq(product_special | c.special),
        nan.eq(a.nan | w.nan | c.nan | (a.inf & w.zero) | (w.inf & a.zero) | (product_special & c.inf & subtract)),
        result.eq(finite),
    ]
    with m.If(special):
        sign = Mux(product_special, product_sign, c.sign) & ~nan
        m.d.comb += result.eq(Cat(Const(0, 22), nan, Const(0xFF, 8), sign))
    return result
