"""The sparse encoder at the border of a column as hardware: weights in, one digit that is not zero a cycle out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe.base import Timing
from bitwright.arch.pe.digits import DIGIT_BITS
from bitwright.arch.pe.sparse_encoder import FINAL, SparseEncoder
from bitwright.arch.pe.stream import FIRST, LAST
from bitwright.rtl.pe.digits import encode, select
from bitwright.rtl.pe.emit import emit, plain

_FLAGS = (FINAL, FIRST, LAST)


class SparseEncoderUnit(wiring.Component):
    """int8 weights to digit codes.

    Parameters
        spec : arch.pe.sparse_encoder.SparseEncoder
    Members
        wgt : In(stream)         Payload: wgt signed(8), first, last.
        digit : Out(stream)      Payload: digit 5 bits, final, first, last; a register.
    Timing       a digit a cycle, on offer in the cycle after; a weight is taken with its last digit; stands still while
                 a digit on offer is not taken.
    Arithmetic   equals the spec's `encode`.
    Reset        synchronous; clears the phase and digit.valid.
    """

    def __init__(self, spec: SparseEncoder) -> None:
        self.spec = spec
        weight = data.StructLayout({"wgt": signed(8), FIRST: 1, LAST: 1})
        digit = data.StructLayout({"digit": DIGIT_BITS, **dict.fromkeys(_FLAGS, 1)})
        super().__init__({"wgt": In(stream.Signature(weight)), "digit": Out(stream.Signature(digit))})

    @property
    def timing(self) -> Timing:
        return self.spec.timing

    def elaborate(self, platform: object) -> Module:
        m, weight, digit = Module(), self.wgt.payload, self.digit.payload
        advance, phase = Signal(name="advance"), Signal(2, name="phase")
        chosen, place, final = select(m, encode(m, weight.wgt, self.spec.encoding, "digit"), phase, "chosen")
        m.d.comb += [advance.eq(~self.digit.valid | self.digit.ready), self.wgt.ready.eq(advance & final)]

        kept = {"digit": Signal(DIGIT_BITS, name="kept_digit", reset_less=True)}
        kept |= {name: Signal(name=f"kept_{name}", reset_less=True) for name in _FLAGS}
        m.d.comb += [digit[name].eq(register) for name, register in kept.items()]
        with m.If(advance):
            m.d.sync += self.digit.valid.eq(self.wgt.valid)
            with m.If(self.wgt.valid):
                m.d.sync += phase.eq((phase + 1)[:2])
                with m.If(final):
                    m.d.sync += phase.eq(0)
                # select 0: -2, 1: 1, 2: 2, 3: -1; 0 of a zero
                high = (chosen.one & chosen.negative) | (chosen.two & ~chosen.negative)
                m.d.sync += [
                    kept["digit"].eq(Cat(chosen.one, high, ~chosen.nonzero, place)),
                    kept[FINAL].eq(final),
                    kept[FIRST].eq(weight.first & ~phase.any()),
                    kept[LAST].eq(weight.last & final),
                ]
        return m


def verilog(spec: SparseEncoder) -> str:
    """Verilog-2001 of the unit: one module called `spec.module_name`, plain names, the same text in every run."""
    return plain(emit(SparseEncoderUnit(spec), spec.module_name))
