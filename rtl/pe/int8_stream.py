"""int8-mac behind a stream: signed multipliers, an adder tree and one accumulator."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.rtl.pe.stream import Flow, StreamPE


class Int8StreamPE(StreamPE):
    """The hardware of arch.pe.int8_stream.Int8Stream; members, timing and arithmetic as its docstring says."""

    spec: Int8Stream

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        products = {}
        for lane in range(spec.lanes):
            act, wgt = (payload[name] if spec.lanes == 1 else payload[name][lane] for name in ("act", "wgt"))
            if spec.weight_bits < 8:  # a code: its highest bit is a sign unless the mode says otherwise
                wgt = Cat(wgt, wgt[-1] & ~payload.wgt_unsigned).as_signed()
            products[f"product_{lane}"] = Signal(signed(8 + spec.weight_bits), name=f"product_{lane}")
            m.d.comb += products[f"product_{lane}"].eq(act * wgt)
        terms = flow.cut(spec.pipeline >= 2, **products)
        dot = Signal(signed(8 + spec.weight_bits + (spec.lanes - 1).bit_length()), name="dot")
        m.d.comb += dot.eq(sum(terms[1:], terms[0]))
        (dot,) = flow.cut(spec.pipeline >= 1, dot=dot)
        acc = flow.register(signed(spec.psum_bits), "acc")
        total = add_to_sum(m, acc, dot, flow.first)
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(total)
        m.d.comb += self.sum.payload.psum.eq(acc)
        flow.offer()
        return m


def add_to_sum(m: Module, acc: Value, dot: Value, first: Value) -> Value:
    """acc + dot, or dot alone if `first`, modulo 2**len(acc); `dot` is signed and at most as wide.

    Only the bits of `dot` are added. Those above are one of three that depend on the sum so far alone: themselves,
    1 more or 1 less, chosen by the carry and by the sign of `dot`.
    """
    width, low_bits = len(acc), len(dot)
    started = Signal(width, name="started")
    m.d.comb += started.eq(acc & ~first.replicate(width))
    if low_bits >= width:
        return started + dot
    low, high = Signal(low_bits + 1, name="low_total"), started[low_bits:]
    more, less = (Signal(width - low_bits, name=f"high_{name}") for name in ("more", "less"))
    m.d.comb += [low.eq(started[:low_bits] + dot.as_unsigned()), more.eq(high + 1), less.eq(high - 1)]
    carry, negative = low[-1], dot[-1]
    return Cat(low[:-1], Mux(negative, Mux(carry, high, less), Mux(carry, more, high)))
