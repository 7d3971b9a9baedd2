"""int8-mac datapath: a signed 8 x 8 bit multiplier and an adder of the accumulator's width."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, signed
from bitwright.arch.pe.int8_mac import Int8Mac


def mac(m: Module, spec: Int8Mac, acc: Value, act: Value, wgt: Value) -> Value:
    """Add to `m` the combinational acc + act * wgt modulo 2**psum_bits; returns the sum, `psum_bits` wide."""
    product = Signal(signed(spec.act.bits + spec.wgt.bits), name="product")
    total = Signal(signed(spec.psum.bits), name="total")
    m.d.comb += [
        product.eq(act.as_signed() * wgt.as_signed()),
        total.eq(acc.as_signed() + product),
    ]
    return total
