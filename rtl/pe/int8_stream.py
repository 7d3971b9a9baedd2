"""int8-mac behind a stream: signed multipliers, an adder tree and one accumulator."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.rtl.pe.stream import Flow, StreamPE


class Int8StreamPE(StreamPE):
    """The hardware of arch.pe.int8_stream.Int8Stream; members, timing and arithmetic as its docstring says."""

    spec: Int8Stream

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        products = []
        for lane in range(spec.lanes):
            act, wgt = (payload[name] if spec.lanes == 1 else payload[name][lane] for name in ("act", "wgt"))
            product = Signal(signed(16), name=f"product_{lane}")
            m.d.comb += product.eq(act * wgt)
            products.append(product)
        products = flow.cut(spec.pipeline >= 1, **{f"product_{lane}": product for lane, product in enumerate(products)})
        acc = flow.register(signed(spec.psum_bits), "acc")
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(Mux(flow.first, 0, acc) + sum(products[1:], products[0]))
        m.d.comb += self.sum.payload.psum.eq(acc)
        flow.offer()
        return m
