"""flint: ANT's decoders, integer multipliers, shifters and one accumulator."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.flint_mac import FlintMac, Reading, signed_bits
from bitwright.rtl.pe.pair_decoder import flint_magnitude
from bitwright.rtl.pe.stream import Flow, StreamPE

_OPERANDS = ("act", "wgt")


class FlintMacPE(StreamPE):
    """The hardware of arch.pe.flint_mac.FlintMac; members, timing and arithmetic as its docstring says.

    Stages       decode | multiply, add exponents | shift | add up and accumulate.
    """

    spec: FlintMac

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow = Flow(m, self)
        decoded: dict[str, Value] = {}
        for lane in range(spec.lanes):
            for name, read in zip(_OPERANDS, spec.readings, strict=True):
                exponent, integer = self._decode(m, read, name, lane)
                decoded.update({f"{name}_exp_{lane}": exponent, f"{name}_int_{lane}": integer})
        words = flow.cut(spec.pipeline >= 3, **decoded)
        products: dict[str, Value] = {}
        for lane in range(spec.lanes):
            act_exponent, act, wgt_exponent, wgt = words[4 * lane : 4 * lane + 4]
            product = Signal(signed(sum(read.integer_bits for read in spec.readings)), name=f"product_{lane}")
            exponent = Signal(range(self._greatest_exponent + 1), name=f"exponent_{lane}")
            m.d.comb += [product.eq(act.as_signed() * wgt.as_signed()), exponent.eq(act_exponent + wgt_exponent)]
            products.update({f"prod_{lane}": product, f"exp_{lane}": exponent})
        parts = flow.cut(spec.pipeline >= 2, **products)
        shifted: dict[str, Value] = {}
        for lane in range(spec.lanes):
            aligned = Signal(signed(self._aligned_bits), name=f"aligned_{lane}")
            m.d.comb += aligned.eq(parts[2 * lane].as_signed() << parts[2 * lane + 1])
            shifted[f"aligned_{lane}"] = aligned
        terms = flow.cut(spec.pipeline >= 1, **shifted)
        total = Signal(signed(self._aligned_bits + (spec.lanes - 1).bit_length()), name="total")
        acc = flow.register(signed(spec.psum_bits), "acc")
        m.d.comb += [total.eq(sum(terms[1:], terms[0])), self.sum.payload.psum.eq(acc)]
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(Mux(flow.first, 0, acc) + total)
        flow.offer()
        return m

    @property
    def _greatest_exponent(self) -> int:
        return sum(max(int(found.exponent.max()) for found in read.types) for read in self.spec.readings)

    @property
    def _aligned_bits(self) -> int:
        """Two's complement width of every product."""
        return signed_bits(*self.spec.product_range)

    def _decode(self, m: Module, read: Reading, operand: str, lane: int) -> tuple[Value, Value]:
        """(exponent, integer) of one code."""
        payload, name = self.step.payload, f"{operand}_{lane}"
        code = payload[operand] if self.spec.lanes == 1 else payload[operand][lane]
        if read.is_integer:
            return Const(0, 1), code.as_signed()
        exponent = Signal(read.exponent_bits, name=f"{name}_exponent")
        integer = Signal(signed(read.integer_bits), name=f"{name}_integer")
        if not read.has_type:
            power, magnitude = flint_magnitude(m, code, read.bits, name)
            m.d.comb += [exponent.eq(power), integer.eq(Mux(code[-1], -magnitude, magnitude))]
            return exponent, integer
        kind = payload[f"{operand}_type"]
        power, magnitude = flint_magnitude(m, code, read.bits, name)
        rest, one = code[:-1], code[:-1].any()
        chosen = Mux(kind[1], one, magnitude)
        m.d.comb += [
            integer.eq(Mux(kind.any(), Mux(code[-1], -chosen, chosen), code.as_signed())),
            exponent.eq(Array([Const(0, 1), power, Mux(one, rest - 1, 0), Mux(one, rest - 1, 0)])[kind]),
        ]
        return exponent, integer
