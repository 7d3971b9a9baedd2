"""outlier-victim: pair decoders, multipliers of signed 5-bit integers, shifters, and a saturating accumulator."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.outlier_victim import PSUM_BITS, OutlierVictim
from bitwright.arch.pe.pair_codes import EXPONENT_BITS, INTEGER_BITS
from bitwright.rtl.pe.pair_decoder import both_numbers
from bitwright.rtl.pe.stream import Flow, StreamPE

_PRODUCT_BITS = 2 * INTEGER_BITS


class OutlierVictimPE(StreamPE):
    """The hardware of arch.pe.outlier_victim.OutlierVictim; members, timing and arithmetic as its docstring says.

    Stages       decode and choose operands | multiply, add exponents | shift | add up, accumulate, saturate.
    """

    spec: OutlierVictim

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow = Flow(m, self, phase_bits=1)
        flow.finish(~self.step.payload.wide | flow.phase)
        operands: dict[str, Value] = {}
        for quad in range(spec.lanes // 2):
            acts, wgts = (self._chosen(m, flow.phase, name, quad) for name in ("act", "wgt"))
            for place, (act, wgt) in enumerate(zip(acts, wgts, strict=True), 4 * quad):
                operands.update({f"act_{place}": act, f"wgt_{place}": wgt})
        words = flow.cut(spec.pipeline >= 3, **operands)
        products: dict[str, Value] = {}
        for place in range(2 * spec.lanes):
            product, exponent = self._product(m, words[2 * place], words[2 * place + 1], place)
            products.update({f"prod_{place}": product, f"exp_{place}": exponent})
        parts = flow.cut(spec.pipeline >= 2, **products)
        shifted: dict[str, Value] = {}
        for place in range(2 * spec.lanes):
            product, exponent = parts[2 * place : 2 * place + 2]
            aligned = Signal(signed(PSUM_BITS), name=f"aligned_{place}")
            m.d.comb += aligned.eq(product.as_signed() << exponent)
            shifted[f"aligned_{place}"] = aligned
        self._accumulate(m, flow, flow.cut(spec.pipeline >= 1, **shifted))
        flow.offer()
        return m

    def _chosen(self, m: Module, phase: Value, name: str, quad: int) -> list[Value]:
        """What the quad's four multipliers take of one operand: its four numbers, or wide h and l of a value, twice."""
        payload = self.step.payload
        if self.spec.decoders:
            pair = Cat(payload[name][2 * quad], payload[name][2 * quad + 1])
            numbers = both_numbers(m, pair, payload.wide, self.spec.normal, f"{name}{quad}")
        else:
            numbers = [payload[name][4 * quad + place] for place in range(4)]
        chosen: list[Value] = []
        for place in range(4):
            part = place // 2 if name == "act" else place % 2
            operand = Signal(len(numbers[0]), name=f"{name}_operand_{4 * quad + place}")
            value = Mux(phase, numbers[2 + part], numbers[part])
            m.d.comb += operand.eq(Mux(payload.wide, value, numbers[place]))
            chosen.append(operand)
        return chosen

    def _product(self, m: Module, act: Value, wgt: Value, place: int) -> tuple[Value, Value]:
        product = Signal(signed(_PRODUCT_BITS), name=f"product_{place}")
        exponent = Signal(EXPONENT_BITS + 1, name=f"exponent_{place}")
        m.d.comb += [
            product.eq(act[:INTEGER_BITS].as_signed() * wgt[:INTEGER_BITS].as_signed()),
            exponent.eq(act[INTEGER_BITS:] + wgt[INTEGER_BITS:]),
        ]
        return product, exponent

    def _accumulate(self, m: Module, flow: Flow, aligned: list[Value]) -> None:
        bits = PSUM_BITS + (len(aligned) - 1).bit_length()
        total = Signal(signed(bits), name="total")
        exact = Signal(signed(bits + 1), name="exact")
        outside = Signal(name="outside")
        acc, overflow = flow.register(signed(PSUM_BITS), "acc"), flow.register(1, "overflow")
        high = exact[PSUM_BITS - 1 :]
        nearest = Cat((~exact[-1]).replicate(PSUM_BITS - 1), exact[-1])
        m.d.comb += [
            total.eq(sum(aligned[1:], aligned[0])),
            exact.eq(Mux(flow.first, 0, acc) + total),
            outside.eq(high.any() & ~high.all()),
        ]
        with m.If(flow.advance & flow.valid):
            m.d.sync += [
                acc.eq(Mux(outside, nearest, exact[:PSUM_BITS])),
                overflow.eq(outside | (overflow & ~flow.first)),
            ]
        m.d.comb += [self.sum.payload.psum.eq(acc), self.sum.payload.overflow.eq(overflow)]
