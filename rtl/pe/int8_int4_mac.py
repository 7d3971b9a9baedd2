"""int8-int4-mac behind a stream: Booth multipliers whose upper digits can serve another activation, one accumulator."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.int8_int4_mac import Int8Int4Mac
from bitwright.rtl.pe.int8_stream import add_to_sum
from bitwright.rtl.pe.stream import Flow, StreamPE

_DIGITS = 2  # radix-4 digits of a nibble


class Int8Int4MacPE(StreamPE):
    """The hardware of arch.pe.int8_int4_mac.Int8Int4Mac; members, timing and arithmetic as its docstring says."""

    spec: Int8Int4Mac

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow = Flow(m, self)
        halves: dict[str, Value] = {}
        for name, lanes in spec.dots_of.items():
            lane_bits = (len(lanes) - 1).bit_length()
            for half, terms in zip(("low", "high"), self._terms(m, lanes), strict=True):
                total = Signal(signed(13 + lane_bits), name=name.replace("dot", half))
                m.d.comb += total.eq(sum(terms[1:], terms[0]))
                halves[total.name] = total
        *parts, int4 = flow.cut(spec.pipeline >= 2, **halves, int4=self.step.payload.int4)
        dots: list[Value] = []
        for name, low, high in zip(spec.dots_of, parts[::2], parts[1::2], strict=True):
            dots.append(Signal(signed(3 + len(low)), name=name))
            m.d.comb += dots[-1].eq(low + Mux(int4, high, Cat(Const(0, 4), high).as_signed()))
        dot = dots[0]
        if len(dots) > 1:
            dot = Signal(signed(16 + (spec.lanes - 1).bit_length()), name="dot")
            m.d.comb += dot.eq(sum(dots[1:], dots[0]))
        (dot,) = flow.cut(spec.pipeline >= 1, dot=dot)
        acc = flow.register(signed(spec.psum_bits), "acc")
        total = add_to_sum(m, acc, dot, flow.first)
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(total)
        m.d.comb += self.sum.payload.psum.eq(acc)
        flow.offer()
        return m

    def _terms(self, m: Module, lanes: Iterable[int]) -> tuple[list[Value], list[Value]]:
        """Partial products of the lanes' low nibbles, and of their high nibbles, to be added up.

        The low nibble is signed in both modes: an int8 weight is its signed low nibble plus 16 times the high one and
        what the low one's sign took, which is the bit that Booth's next digit looks at anyway.
        """
        spec, payload = self.spec, self.step.payload
        low: list[Value] = []
        high: list[Value] = []
        for lane in lanes:
            first, second = payload.act[2 * lane].as_signed(), payload.act[2 * lane + 1].as_signed()
            byte = (payload.wgt if spec.lanes == 1 else payload.wgt[lane]).as_unsigned()
            chosen = Signal(signed(8), name=f"high_act_{lane}")
            m.d.comb += chosen.eq(Mux(payload.int4, second, first))
            low += booth_terms(m, first, byte[:4], Const(0, 1), f"low_{lane}")
            high += booth_terms(m, chosen, byte[4:], byte[3] & ~payload.int4, f"high_{lane}")
        return low, high


def booth_terms(m: Module, act: Value, nibble: Value, below: Value, name: str) -> list[Value]:
    """Terms that add up to act * (nibble, signed, + below), `act` int8: each digit's multiple and its negation's 1."""
    terms: list[Value] = []
    for digit in range(_DIGITS):
        least = nibble[2 * digit - 1] if digit else below
        middle, negative = nibble[2 * digit], nibble[2 * digit + 1]
        once, twice = (Signal(name=f"{name}_{times}_{digit}") for times in ("once", "twice"))
        multiple = Signal(signed(9), name=f"{name}_multiple_{digit}")
        m.d.comb += [
            once.eq(middle ^ least),
            twice.eq(Mux(negative, ~middle & ~least, middle & least)),
            multiple.eq(
                ((Cat(act, act[-1]) & once.replicate(9)) | (Cat(Const(0, 1), act) & twice.replicate(9)))
                ^ negative.replicate(9)
            ),
        ]
        shift = Const(0, 2 * digit)
        terms += [Cat(shift, multiple).as_signed(), Cat(shift, negative)]
    return terms
