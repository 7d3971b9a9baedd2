"""One fp32 addition a cycle into one register: what the loop of an fp32 accumulator holds, and as little as it can.

A two-path adder. Operands that add, or whose exponents differ, need a long shift before the addition and at most one
place after it; operands that nearly cancel need no shift before, a long one after, and no rounding. Both paths make a
result and its successor, or its negative, by adders side by side, and choose late.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.rtl.pe.floats import leading_zeros, shift_right_sticky
from bitwright.rtl.pe.stream import Flow

_FRACTION = 23
_GUARD = 3  # guard, round and sticky bits below an aligned significand
_APART = 9  # bits of a signed difference of exponents


@dataclass(frozen=True)
class Addend:
    """A number for the loop: 0 (only +0), normal or special, NaN only canonical.

    upper : its 32 bits, the lowest `32 - len(upper)` of which are 0. special : of that number.
    """

    upper: Value
    special: Value

    @property
    def bits(self) -> Value:
        return Cat(Const(0, 32 - len(self.upper)), self.upper)


@dataclass(frozen=True)
class _Place:
    """An exponent, and how far the next step's addend is above it (no bits where that is not asked for)."""

    exponent: Value
    ahead: Value

    def lowered(self, m: Module, step: int | Value, name: str) -> Value:
        """Both for an exponent smaller by `step`, in one value."""
        exponent = Signal(8, name=f"{name}_exponent")
        m.d.comb += exponent.eq(self.exponent - step)
        if not len(self.ahead):
            return exponent
        ahead = Signal(_APART, name=f"{name}_ahead")
        m.d.comb += ahead.eq(self.ahead + step)
        return Cat(exponent, ahead)

    def chosen(self, other: _Place, condition: Value) -> _Place:
        """`self` where the condition holds, else `other`."""
        ahead = Mux(condition, self.ahead, other.ahead) if len(self.ahead) else self.ahead
        return _Place(Mux(condition, self.exponent, other.exponent), ahead)


def add_fp32(m: Module, flow: Flow, acc: Value, addend: Addend, next_exponent: Value | None = None) -> Value:
    """The fp32 sum acc + addend, or the addend alone if it is the sum's first; rounded once, ties to even.

    A zero accumulator or a special operand does not enter the adder: the sum is then the other one, or the canonical
    NaN. The accumulator must be 0, special, or normal with an exponent of 32 or more and never -0, and the sum must not
    overflow: so it is with products of fp16 (arch.pe.fp16_mac: 2**-48 and more). A zero addend is then like 2**-127,
    too far below the accumulator to change it.
    next_exponent : the exponent that the next step's addend will have. With it the difference of exponents with which
        each addition begins is a register, made beside the addition before.
    """
    bits, apart = Signal(32, name="addend"), Signal(signed(_APART), name="apart", reset_less=True)
    m.d.comb += bits.eq(addend.bits)
    exponents = [number[_FRACTION:-1] for number in (bits, acc)]
    if next_exponent is None:
        m.d.comb += apart.eq(exponents[0] - exponents[1])
        places = [_Place(exponent, Const(0, 0)) for exponent in exponents]
    else:
        above = [Signal(_APART, name=f"above_{name}") for name in ("addend", "acc")]
        m.d.comb += [above[0].eq(next_exponent - exponents[0]), above[1].eq(above[0] + apart)]
        places = [_Place(exponent, ahead) for exponent, ahead in zip(exponents, above, strict=True)]
    near, near_fits = _near(m, acc, bits, apart, places)
    far = _far(m, acc, bits, apart, places)
    result = Signal(len(far), name="result")
    zero, special, nan = (Signal(name=name) for name in ("acc_zero", "acc_special", "both_nan"))
    m.d.comb += [
        zero.eq(~exponents[1].any()),
        special.eq(exponents[1].all()),
        nan.eq(~flow.first & addend.special & special & (acc[_FRACTION - 1] | (acc[-1] ^ bits[-1]))),
        result.eq(Mux(near_fits, near, far)),
    ]
    with m.If(flow.first | zero | addend.special):
        quiet = Cat(bits[: _FRACTION - 1], bits[_FRACTION - 1] | nan, bits[_FRACTION:-1])
        m.d.comb += result.eq(Cat(quiet, places[0].ahead, bits[-1] & ~nan))
    with m.Elif(special):
        m.d.comb += result.eq(Cat(acc[:-1], places[1].ahead, acc[-1]))
    if next_exponent is not None:
        with m.If(flow.advance):
            m.d.sync += apart.eq(Mux(flow.valid, result[31:-1], places[1].ahead))
    return Cat(result[:31], result[-1])


def plus_one(first: Value, second: Value) -> Value:
    """first + second + 1 by an adder of its own with a carry into it, not by a second one after first + second."""
    return (Cat(Const(1, 1), first) + Cat(Const(1, 1), second))[1:]


def _significands(*numbers: Value) -> list[Value]:
    return [Cat(number[:_FRACTION], Const(1, 1)) for number in numbers]


def _far(m: Module, acc: Value, addend: Value, apart: Value, places: list[_Place]) -> Value:
    """Fraction, place and sign of the rounded sum if it is no less than half the operand of larger exponent.

    apart : the addend's exponent less the accumulator's. Where it is negative, its complement is the distance less 1
    and the other place is a wire: no second subtraction.
    """
    addend_big, distance, subtract = (Signal(bits, name=name) for name, bits in
                                      (("addend_big", 1), ("distance", 8), ("far_subtract", 1)))  # fmt: skip
    significand = _significands(addend, acc)
    big, small = Signal(24, name="far_big"), Signal(24 + _GUARD, name="far_small")
    m.d.comb += [
        addend_big.eq(~apart[-1]),
        distance.eq(apart[:-1] ^ apart[-1].replicate(8)),
        subtract.eq(acc[-1] ^ addend[-1]),
        big.eq(Mux(addend_big, significand[0], significand[1])),
        small.eq(Mux(addend_big, Cat(Const(0, _GUARD), significand[1]), Cat(Const(0, _GUARD - 1), significand[0]))),
    ]
    aligned = shift_right_sticky(m, small, distance, "far_small")
    # `low` is the sum's part below the last place; a subtraction borrows for it, unless it is 0.
    low, addition = Signal(_GUARD, name="far_low"), Signal(24, name="far_addition")
    total, next_total = Signal(25, name="far_total"), Signal(25, name="far_next_total")
    m.d.comb += [
        low.eq(Mux(subtract, -aligned[:_GUARD], aligned[:_GUARD])),
        addition.eq(aligned[_GUARD:] ^ subtract.replicate(24)),
        total.eq((big + addition) ^ Cat(Const(0, 24), subtract)),
        next_total.eq(plus_one(big, addition) ^ Cat(Const(0, 24), subtract)),
    ]
    sign = Mux(addend_big, addend[-1], acc[-1])
    return Cat(_choose(m, total, next_total, low, subtract, places[0].chosen(places[1], addend_big)), sign)


def _choose(m: Module, total: Value, next_total: Value, low: Value, subtract: Value, place: _Place) -> Value:
    """Fraction and place of total.low rounded to nearest, ties to even; total in 1/2 .. 4, its bit 23 the units.

    The rounded value is `total` or `next_total` cut to 24 bits, or in 1/2 .. 1 one of them and one bit of `low`.
    """
    guard, rest = low[2], low[:2].any()
    up = {name: Signal(name=f"far_up_{name}") for name in ("two", "one", "half")}
    rise, last, chosen = Signal(name="far_rise"), Signal(name="far_last"), Signal(25, name="far_chosen")
    m.d.comb += [
        up["two"].eq(total[0] & (total[1] | low.any())),
        up["one"].eq(guard & (total[0] | rest)),
        up["half"].eq(guard & low[1]),  # the guard bit is the last place; a carry out of it
        last.eq(guard ^ (low[1] & (guard | low[0]))),
        rise.eq(
            Mux(
                subtract,
                ~low.any() | Mux(total[23], up["one"], up["half"]),
                Mux(total[24], up["two"], up["one"]),
            )
        ),
        chosen.eq(Mux(rise, next_total, total)),
    ]
    two, one, half = (place.lowered(m, step, f"far_{name}") for step, name in ((-1, "two"), (0, "one"), (1, "half")))
    result = Signal(_FRACTION + len(one), name="far_result")
    m.d.comb += result.eq(
        Mux(
            chosen[24],
            Cat(chosen[1:24], two),
            Mux(chosen[23], Cat(chosen[:23], one), Cat(last, chosen[:22], half)),
        )
    )
    return result


def _near(m: Module, acc: Value, addend: Value, apart: Value, places: list[_Place]) -> tuple[Value, Value]:
    """(the exact difference, whether it is the sum): exponents at most 1 apart and a difference below the larger 1.0.

    Two bits of the exponents tell which is the larger, if they are that close. Where the next exponent is known, that
    is where speed is asked for, the leading zeros are foretold beside the subtraction instead of counted after it.
    """
    low, fits, close = apart[:2], Signal(name="near_fits"), Signal(name="near_close")
    wide = {name: Signal(25, name=f"near_{name}") for name in ("addend", "acc", "magnitude", "shifted")}
    less, exact = Signal(26, name="near_less"), Signal(26, name="near_exact")
    significand = _significands(addend, acc)
    m.d.comb += [
        wide["addend"].eq(Mux(low.all(), significand[0], Cat(Const(0, 1), significand[0]))),
        wide["acc"].eq(Mux(low == 1, significand[1], Cat(Const(0, 1), significand[1]))),
        less.eq(wide["addend"] + ~wide["acc"]),
        exact.eq(plus_one(wide["addend"], ~wide["acc"])),
        wide["magnitude"].eq(Mux(exact[-1], exact[:-1], ~less[:-1])),
        close.eq(~apart[1:].any() | apart.all()),
        fits.eq(close & (acc[-1] ^ addend[-1]) & ~wide["magnitude"][-1]),
    ]
    place, shifted = places[1].chosen(places[0], low.all()), wide["shifted"]
    foretell = len(place.ahead) > 0
    zeros = _foretold_zeros(m, wide["addend"], wide["acc"]) if foretell else (
        leading_zeros(m, wide["magnitude"], "near_zeros"))  # fmt: skip
    m.d.comb += shifted.eq((wide["magnitude"] << zeros)[:25])
    alive, fraction, found = shifted[-1], shifted[1:-1], place.lowered(m, zeros, "near")
    if foretell:
        one_more = place.lowered(m, zeros + 1, "near_one_more")
        alive, fraction = shifted[-2:].any(), Mux(shifted[-1], shifted[1:-1], shifted[:-2])
        found = Mux(shifted[-1], found, one_more)
    sign = Mux(exact[-1], addend[-1], acc[-1]) & alive
    return Cat(fraction, found[:8] & alive.replicate(8), found[8:], sign), fits


def _foretold_zeros(m: Module, first: Value, second: Value) -> Signal:
    """Leading zeros of |first - second|, or one too few; of 0 more than there are bits.

    The digits of the difference before any borrow are 1, 0 and -1. Its leading 1 is where a run 1, -1, -1 ... after
    zeros ends, or one place below: where a 1 not followed by -1, or a last -1, stands (and with all signs changed).
    """
    width = len(first)
    plus, minus = Signal(width, name="digit_plus"), Signal(width, name="digit_minus")
    after_zero, ends = Signal(width, name="digit_after_zero"), Signal(width, name="digit_ends")
    next_plus, next_minus = Cat(Const(0, 1), plus[:-1]), Cat(Const(0, 1), minus[:-1])
    m.d.comb += [
        plus.eq(first & ~second),
        minus.eq(~first & second),
        after_zero.eq(Cat(~(plus | minus)[1:], Const(1, 1))),
        ends.eq(
            (after_zero & ((plus & ~next_minus) | (minus & ~next_plus)))
            | (~after_zero & ((minus & ~next_minus) | (plus & ~next_plus)))
        ),
    ]
    return leading_zeros(m, ends, "near_zeros")
