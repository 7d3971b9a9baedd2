"""shift-add datapath: four AND-gated, shifted activations and the running sum in one addition; no multiplier."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from bitwright.arch.pe.shift_add import ShiftAdd


def mac(m: Module, spec: ShiftAdd, acc: Value, act: Value, wgt: Value, *, wgt_unsigned: Value) -> Value:
    """Add to `m` the combinational acc + act * code modulo 2**psum.bits; returns the sum.

    Bit 3 of a signed code weighs -8: its term is inverted, and the missing +8 comes in as the carry of that term.
    """
    width = spec.act.bits
    terms = []
    for position in range(spec.wgt.bits):
        term = Signal(signed(width + position), name=f"term_{position}")
        gated = act & wgt[position].replicate(width)
        m.d.comb += term.eq(Cat(Const(0, position), gated))
        terms.append(term)
    top = spec.wgt.bits - 1
    negate = Signal(name="negate")
    weighted_top = Signal(signed(width + top), name="weighted_top")
    total = Signal(signed(spec.psum.bits), name="total")
    m.d.comb += [
        negate.eq(~wgt_unsigned),
        weighted_top.eq(terms[top] ^ negate.replicate(width + top)),
        total.eq(acc.as_signed() + terms[0] + terms[1] + terms[2] + weighted_top + negate),
    ]
    return total
