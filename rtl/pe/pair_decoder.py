"""Decoders of OliVe and ANT: codes to numbers <exponent, integer>, in logic; and the pair decoder as a unit."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe.pair_codes import (
    CLIP_BITS,
    EXPONENT_BITS,
    INTEGER_BITS,
    NUMBER_BITS,
    OUTLIER_BIAS,
    WIDE_BIAS,
    PairDecoder,
)


def flint_magnitude(m: Module, code: Value, bits: int, name: str) -> tuple[Value, Value]:
    """(exponent, magnitude) of a flint code: leading-one detector and shifter; the sign is the code's top bit."""
    below = bits - 2
    rest, long = code[:below], code[below]
    zeros = Signal(range(below + 1), name=f"{name}_zeros")
    exponent = Signal(range(below + 2), name=f"{name}_flint_exponent")
    magnitude = Signal(below, name=f"{name}_flint_magnitude")
    m.d.comb += zeros.eq(below)
    for place in range(below):
        with m.If(rest[place]):
            m.d.comb += zeros.eq(below - 1 - place)
    first_one = Mux(rest.any(), rest << zeros, 1 << (below - 1))
    m.d.comb += [exponent.eq(Mux(long, zeros + 1, 0)), magnitude.eq(Mux(long, first_one, rest))]
    return exponent, magnitude


def _word(m: Module, exponent: Value, integer: Value, name: str) -> Signal:
    """The 9-bit word of a number."""
    word = Signal(NUMBER_BITS, name=name)
    whole, power = Signal(signed(INTEGER_BITS), name=f"{name}_integer"), Signal(EXPONENT_BITS, name=f"{name}_exponent")
    m.d.comb += [whole.eq(integer), power.eq(exponent), word.eq(Cat(whole, power))]
    return word


def narrow_numbers(m: Module, byte: Value, normal: str, name: str) -> list[Value]:
    """The two numbers of an ovp4 pair, as arch.pe.pair_codes.narrow_pairs says."""
    nibbles = byte[:4], byte[4:]
    words: list[Value] = []
    for place, (own, partner) in enumerate((nibbles, nibbles[::-1])):
        slot = f"{name}_{place}"
        marked, victim = Signal(name=f"{slot}_marked"), Signal(name=f"{slot}_victim")
        m.d.comb += [marked.eq(partner == 0b1000), victim.eq(own == 0b1000)]
        live = own[:3].any()
        outlier = Cat(own[0], Const(1, 1)) & live.replicate(2)
        outlier_exponent = own[1:3] + OUTLIER_BIAS[normal]
        if normal == "int4":
            whole = Mux(marked, Mux(own[3], -outlier, outlier), Mux(victim, 0, own.as_signed()))
            words.append(_word(m, Mux(marked, outlier_exponent, 0), whole, slot))
        else:  # the identifier is the code of -0, which decodes to 0 by itself
            exponent, magnitude = flint_magnitude(m, Mux(victim, 0, own), 4, slot)
            chosen = Mux(marked, outlier, magnitude)
            whole = Mux(own[3], -chosen, chosen)
            words.append(_word(m, Mux(marked, outlier_exponent, exponent), whole, slot))
    return words


def wide_numbers(m: Module, pair: Value, name: str) -> list[Value]:
    """The four numbers of an ovp8 pair, h and l of each value, as arch.pe.pair_codes.wide_pairs says."""
    halves = pair[:8], pair[8:]
    words: list[Value] = []
    for place, (own, partner) in enumerate((halves, halves[::-1])):
        slot = f"{name}_{place}"
        marked, victim = Signal(name=f"{slot}_marked"), Signal(name=f"{slot}_victim")
        clipped = own[6]  # an exponent field of 8 or more: 2**15 or more
        assert CLIP_BITS - 3 - WIDE_BIAS == 1 << 3
        m.d.comb += [marked.eq(partner == 0x80), victim.eq(own == 0x80)]
        live = own[:7].any()
        outlier = Mux(clipped, 16, Mux(live, Cat(own[:3], Const(1, 1)), 0))
        whole, exponent = Signal(signed(8), name=f"{slot}_integer"), Signal(EXPONENT_BITS, name=f"{slot}_exponent")
        field = Mux(clipped, (1 << 3) - 1, own[3:6])
        m.d.comb += [
            whole.eq(Mux(marked, Mux(own[7], -outlier, outlier), Mux(victim, 0, own.as_signed()))),
            exponent.eq(Mux(marked, field + WIDE_BIAS, 0)),
        ]
        words.append(_word(m, exponent + 4, whole[4:].as_signed(), f"{slot}_h"))
        words.append(_word(m, exponent, whole[:4], f"{slot}_l"))
    return words


def both_numbers(m: Module, pair: Value, wide: Value, normal: str, name: str) -> list[Value]:
    """The four numbers of two bytes: of two ovp4 pairs, or with `wide` of one ovp8 pair."""
    narrow = [
        *narrow_numbers(m, pair[:8], normal, f"{name}_low"),
        *narrow_numbers(m, pair[8:], normal, f"{name}_high"),
    ]
    return [Mux(wide, *words) for words in zip(wide_numbers(m, pair, f"{name}_wide"), narrow, strict=True)]


class PairDecoderUnit(wiring.Component):
    """Outlier-victim pairs to numbers <exponent, integer>.

    Parameters
        spec : arch.pe.pair_codes.PairDecoder
    Members
        valid, pair : In(1), In(8 or 16)   One pair, or with reads = both two ovp4 pairs or one ovp8 pair.
        wide : In(1)             With reads = both only: the pair is one of ovp8.
        valid_out, numbers : Out(1), Out(9 * count)   Registered; the first number in the low bits.
    Timing       latency 1 cycle; one pair a cycle; never stalls.
    Arithmetic   equals the spec's `decode`.
    Reset        synchronous; clears valid_out.
    """

    data_output = "numbers"

    def __init__(self, spec: PairDecoder) -> None:
        self.spec = spec
        mode = {"wide": In(1)} if spec.reads == "both" else {}
        outputs = {"valid_out": Out(1), "numbers": Out(NUMBER_BITS * spec.count)}
        super().__init__({"valid": In(1), "pair": In(spec.pair_bits), **mode, **outputs})
        self.numbers = Signal(NUMBER_BITS * spec.count, name="numbers", reset_less=True)

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        if spec.reads == "ovp4":
            words = narrow_numbers(m, self.pair, spec.normal, "value")
        elif spec.reads == "ovp8":
            words = wide_numbers(m, self.pair, "value")
        else:
            words = both_numbers(m, self.pair, self.wide, spec.normal, "value")
        m.d.sync += [self.valid_out.eq(self.valid), self.numbers.eq(Cat(*words))]
        return m
