"""Encoders of int8 operands into signed radix-4 digits, and of digits into cycles: the next one that is not zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Signal, Value
from bitwright.arch.pe.digits import PLACES


@dataclass(frozen=True)
class Digit:
    """A digit as selects of a multiple: magnitude 1, magnitude 2 (never both), negative (only of a nonzero digit)."""

    one: Value
    two: Value
    negative: Value

    @property
    def nonzero(self) -> Value:
        return self.one | self.two


def encode(m: Module, code: Value, encoding: str, name: str) -> list[Digit]:
    """The digits of `code`, 8 bits signed, lowest place first, as arch.pe.digits.digits has them; combinational."""
    found = _booth(code) if encoding == "mbe" else _ent(m, code, name)
    digits = []
    for place, digit in enumerate(found):
        bits = [Signal(name=f"{name}_{place}_{part}") for part in ("one", "two", "negative")]
        m.d.comb += [bits[0].eq(digit.one), bits[1].eq(digit.two), bits[2].eq(digit.negative)]
        digits.append(Digit(*bits))
    return digits


def _booth(code: Value) -> list[Digit]:
    padded, found = Cat(Const(0, 1), code), []
    for place in range(PLACES):
        low, middle, high = (padded[2 * place + bit] for bit in range(3))
        two = (high & ~middle & ~low) | (~high & middle & low)
        found.append(Digit(low ^ middle, two, high & ~(middle & low)))
    return found


def _ent(m: Module, code: Value, name: str) -> list[Digit]:
    """Magnitude, then bit pairs with a carry from one to the next."""
    sign, magnitude = code[7], Signal(8, name=f"{name}_magnitude")  # 128 for -128
    m.d.comb += magnitude.eq((code ^ sign.replicate(8)).as_unsigned() + sign)
    carry: Value = Const(0, 1)
    found = []
    for place in range(PLACES):
        low, high = magnitude[2 * place], magnitude[2 * place + 1]
        odd = low ^ carry  # 1, or 3, which stands for -1
        two = (high & ~low & ~carry) | (~high & low & carry)
        found.append(Digit(odd, two, (odd | two) & (sign ^ (odd & high))))
        carry = high & (low | carry)
    return found


def select(m: Module, digits: Sequence[Digit], number: Value, name: str) -> tuple[Digit, Value, Value]:
    """(nonzero digit `number` of a code counted from the lowest, its place, whether none comes after it).

    Of a code without nonzero digits: a zero, and none comes after it. `number` must not pass the last.
    """
    chosen = [digits[0].nonzero & ~number.any()]
    more, before = [], digits[0].nonzero
    for place, digit in enumerate(digits[1:], 1):
        count = Signal(2, name=f"{name}_before_{place}")  # nonzero digits in lower places
        m.d.comb += count.eq(before)
        chosen.append(digit.nonzero & (count == number))
        more.append(digit.nonzero & (count > number))
        before = count + digit.nonzero

    found, at, final = [], Signal(2, name=f"{name}_place"), Signal(name=f"{name}_final")
    for part in ("one", "two", "negative"):
        bit = Signal(name=f"{name}_{part}")
        taken = [getattr(digit, part) & here for digit, here in zip(digits, chosen, strict=True)]
        m.d.comb += bit.eq(Cat(taken).any())
        found.append(bit)
    m.d.comb += [at.eq(Cat(chosen[1] | chosen[3], chosen[2] | chosen[3])), final.eq(~Cat(more).any())]
    return Digit(*found), at, final


def multiple(m: Module, act: Value, digit: Digit, name: str) -> Signal:
    """A digit's multiple of `act`, 8 bits signed: 9 bits, inverted if it is negative (one less than its value)."""
    bits = Signal(9, name=name)
    once, twice = Cat(act, act[7]), Cat(Const(0, 1), act)
    magnitude = (once & digit.one.replicate(9)) | (twice & digit.two.replicate(9))
    m.d.comb += bits.eq(magnitude ^ digit.negative.replicate(9))
    return bits
