"""w4a16-dequant behind a stream: a dequantiser in front of the fp16-mac datapath."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.fp16_mac import Fp16Mac
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant
from bitwright.rtl.pe.floats import effective_exponent, leading_zeros, round_fields, unpack
from bitwright.rtl.pe.fp16_mac import mac
from bitwright.rtl.pe.fp16_stream import Parts, multiply_accumulate, staged
from bitwright.rtl.pe.stream import Flow, StreamPE


class W4A16DequantPE(StreamPE):
    """The hardware of arch.pe.w4a16_dequant.W4A16Dequant; members, timing and arithmetic as its docstring says."""

    spec: W4A16Dequant

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        scaled = {**_scaled(m, spec.weight_bits, payload), "act": payload.act}
        scaled = staged(flow, spec.pipeline >= 3, scaled)
        weight = {"wgt": _rounded(m, scaled), "act": scaled["act"]}
        weight = staged(flow, spec.pipeline >= 1, weight)
        acc = flow.register(32, "acc")
        if spec.pipeline >= 2:
            behind = 2 if spec.pipeline >= 4 else 1
            total = multiply_accumulate(m, flow, acc, weight["act"], weight["wgt"], "fp32", behind)
        else:
            started = Signal(32, name="started")
            m.d.comb += started.eq(Mux(flow.first, 0, acc))
            total = mac(m, Fp16Mac(), started, weight["act"], weight["wgt"])
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(total)
        m.d.comb += self.sum.payload.psum.eq(acc)
        flow.offer()
        return m


def _scaled(m: Module, bits: int, payload: Value) -> Parts:
    """Integer times the scale's significand, exact, and what its rounding to fp16 needs.

    product : its top bit weighs 2**(exponent - 15). limit : a mark that ends the product's leading zeros where the
    exponent would come below 1, so that a subnormal weight is shifted no further.
    """
    number = unpack(m, payload.scale, 5, "scale")
    integer, magnitude = Signal(signed(bits + 1), name="integer"), Signal(bits, name="magnitude")
    width = max(bits + 11, 13)
    product, limit = Signal(width, name="scaled"), Signal(width, name="scaled_limit")
    exponent, flags = Signal(6, name="scaled_exponent"), {}
    for name in ("sign", "special", "nan"):
        flags[name] = Signal(name=f"scaled_{name}")
    # In the units of the significand, 2**(e - 25), the top bit weighs 2**(width - 1); fp16's bias is 15.
    lift = width - 1 - 25 + 15
    m.d.comb += [
        integer.eq(Mux(payload.asym, payload.wgt - payload.zero, payload.wgt.as_signed())),
        magnitude.eq(abs(integer)),
        product.eq(magnitude * number.significand),
        exponent.eq(effective_exponent(number) + lift),
        limit.eq(Cat(*(exponent == width - place for place in range(width)))),
        flags["sign"].eq(integer[-1] ^ number.sign),
        flags["special"].eq(number.special),
        flags["nan"].eq(number.nan | ~integer.any()),
    ]
    return {"scaled": product, "limit": limit, "exponent": exponent, **flags}


def _rounded(m: Module, scaled: Parts) -> Value:
    """fp16 of a scaled integer, rounded once to nearest, ties to even; infinity or the canonical NaN if asked for."""
    product = scaled["scaled"]
    zeros = leading_zeros(m, product | scaled["limit"], "weight_zeros")
    shifted, exponent = Signal(len(product), name="weight_shifted"), Signal(6, name="weight_exponent")
    m.d.comb += [shifted.eq((product << zeros)[: len(product)]), exponent.eq(scaled["exponent"] - zeros)]
    rounded = round_fields(m, shifted, exponent, 5, 10, "weight")
    weight = Signal(16, name="weight")
    m.d.comb += weight.eq(Cat(rounded, scaled["sign"]))
    with m.If(scaled["special"]):
        m.d.comb += weight.eq(Cat(Const(0, 9), scaled["nan"], Const(0x1F, 5), scaled["sign"] & ~scaled["nan"]))
    return weight
