"""Bit-weight engines opt3 and opt4c: a sparse encoder before rows of shifted multiples and 3-2 compressors."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.rtl.pe import compressors
from bitwright.rtl.pe.digits import Digit, encode, multiple, select
from bitwright.rtl.pe.stream import Flow, StreamPE

_SHIFTED_BITS = 15  # a multiple, 9 bits, at place 3


class _SerialPE(StreamPE):
    spec: Opt3 | Opt4c

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow, digit, place = _digit(m, self)
        payload, rows = self.step.payload, range(spec.sum_lanes)
        acts = {f"act_{row}": payload.act if spec.sum_lanes == 1 else payload.act[row] for row in rows}
        one, two, negative, place, *held = flow.cut(
            spec.pipeline >= 1, one=digit.one, two=digit.two, negative=digit.negative, place=place, **acts
        )
        shifted = {f"shifted_{row}": _shifted(m, act, Digit(one, two, negative), place, row)
                   for row, act in enumerate(held)}  # fmt: skip
        negative, *held = flow.cut(spec.pipeline >= 2, negative=negative, **shifted)
        pairs = []
        for row, part in enumerate(held):
            acc = compressors.accumulator(flow, spec.psum_bits, f"_{row}")
            held_sum, held_carry = compressors.kept(m, flow, acc, f"_{row}")
            extended = Signal(signed(spec.psum_bits), name=f"extended_{row}")
            m.d.comb += extended.eq(part.as_signed())
            total, carry = compressors.compress_3_2(
                m, (held_sum, held_carry, extended.as_unsigned()), spec.psum_bits, f"loop_{row}", negative
            )
            with m.If(flow.advance & flow.valid):
                m.d.sync += [acc[0].eq(total), acc[1].eq(carry)]
            pairs.append(acc)
        self._offer(m, flow, pairs)
        return m

    def _offer(self, m: Module, flow: Flow, pairs: list[Any]) -> None:
        payload, many = self.sum.payload, self.spec.sum_lanes > 1
        if self.spec.resolve_cycles:
            for acc in pairs:
                flow.holds(*acc)
            names = [f"_{row}" for row in range(len(pairs))]
            for row, total in enumerate(compressors.resolve_all(m, flow, pairs, self.spec.resolve_cycles, names)):
                m.d.comb += (payload.psum[row] if many else payload.psum).eq(total)
        else:
            for row, (total, carry) in enumerate(pairs):
                m.d.comb += (payload.psum_sum[row] if many else payload.psum_sum).eq(total)
                m.d.comb += (payload.psum_carry[row] if many else payload.psum_carry).eq(carry)
        flow.offer()


def _digit(m: Module, pe: _SerialPE) -> tuple[Flow, Digit, Value]:
    """(flow control, the digit of this cycle, its place)."""
    wgt = pe.step.payload.wgt
    if pe.spec.encodes:
        flow = Flow(m, pe, phase_bits=2)
        found, place, final = select(m, encode(m, wgt, pe.spec.encoding, "digit"), flow.phase, "digit")
        flow.finish(final)
        flow.first = Signal(name="first_digit")  # a signal, since every row's registers look at it
        m.d.comb += flow.first.eq(pe.step.payload.first & ~flow.phase.any())
        return flow, found, place
    one, two, negative = (Signal(name=f"digit_{part}") for part in ("one", "two", "negative"))
    m.d.comb += [
        one.eq(wgt[0] & ~wgt[2]),
        two.eq(~wgt[0] & ~wgt[2]),
        negative.eq((wgt[0] == wgt[1]) & ~wgt[2]),
    ]
    return Flow(m, pe), Digit(one, two, negative), wgt[3:5]


def _shifted(m: Module, act: Value, digit: Digit, place: Value, row: int) -> Signal:
    """digit * act * 4**place without the one of a negative digit: inverted in all bits, those below it too."""
    bits, name = multiple(m, act, digit, f"multiple_{row}"), f"shifted_{row}"
    near, far = Signal(11, name=f"{name}_near"), Signal(_SHIFTED_BITS, name=name)
    filled = digit.negative.replicate(4)
    m.d.comb += [
        near.eq(Mux(place[0], Cat(filled[:2], bits), Cat(bits, bits[-1].replicate(2)))),
        far.eq(Mux(place[1], Cat(filled, near), Cat(near, near[-1].replicate(4)))),
    ]
    return far


class Opt3PE(_SerialPE):
    """The hardware of arch.pe.opt_sparse.Opt3; members, timing and arithmetic as its docstring says."""

    spec: Opt3


class Opt4cPE(_SerialPE):
    """The hardware of arch.pe.opt_sparse.Opt4c; members, timing and arithmetic as its docstring says."""

    spec: Opt4c
