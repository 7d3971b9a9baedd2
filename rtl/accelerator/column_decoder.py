"""The border of one column of the array: stored codes to the PE's weights, and the PE's sums to accumulators."""

from __future__ import annotations

import re
from typing import Any

from amaranth.back import verilog as backend
from amaranth.hdl import EnableInserter, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.fields import BY_OP
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Limits, TileFormat, longest_sum
from bitwright.arch.pe import units
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser, below
from bitwright.arch.pe.weight_codes import decodable, weight_code
from bitwright.rtl.pe.emit import emit, plain
from bitwright.rtl.pe.units import build

FORMAT_BITS = BY_OP[Op.EXECUTE].field("format").bits


def decoder(limits: Limits, form: TileFormat) -> units.UnitSpec | None:
    """The unit above a column that makes a weight of a code; None: the array takes the code itself, extended."""
    unit = limits.pe.accepts(form.name, longest_sum(limits.pe)).unit
    return units.get(unit, format=form.name) if unit else None


def weight_scale(limits: Limits) -> bool:
    """Whether decoders of this machine take a scale; otherwise the column's result unit does."""
    return any(form.scale and _dequantises(limits, form) for form in limits.formats)


def weight_zero_bits(limits: Limits) -> int:
    """Bits of the zero point that decoders of this machine take; 0: none does."""
    return max(form.zero_bits if decoder(limits, form) else 0 for form in limits.formats)


def unsigned_codes(form: TileFormat) -> bool:
    """Whether an array that takes codes needs its pin `wgt_unsigned` high for this format."""
    return decodable(form.name) and weight_code(form.name).coding == "unsigned"


def counts_halves(form: TileFormat) -> bool:
    """Whether the format's integers count halves: the result unit's pin `halve` is then high."""
    return decodable(form.name) and weight_code(form.name).fraction_bits == 1


def column_unit(limits: Limits) -> units.GroupDequantiser | units.Fp32Accumulator | FixedPointDequantiser:
    """The unit below each column of this machine."""
    if limits.pe.edge_unit == FixedPointDequantiser.name:
        return below(limits.pe)
    return units.edge_unit(limits.pe, halves=any(map(counts_halves, limits.formats)))


def column_unit_verilog(limits: Limits) -> tuple[str, str]:
    """Its module's name and Verilog."""
    spec = column_unit(limits)
    return spec.module_name, emit(build(spec), spec.module_name)


def column_decoder_verilog(limits: Limits) -> tuple[str, str]:
    """Name and Verilog of the `ColumnDecoder`: its module, then the modules of the units in it, named after it."""
    made = ColumnDecoder(limits)
    text: str = backend.convert(made, name=made.module_name, emit_src=False)
    return made.module_name, plain(text)


def _dequantises(limits: Limits, form: TileFormat) -> bool:
    return isinstance(decoder(limits, form), units.WeightDequantiser)


class ColumnDecoder(wiring.Component):
    """A code of any of the machine's formats to a weight of its PE, in one cycle.

    int8-mac: the integer code - zero. fp16-mac: fp16((code - zero) * scale), or the code where a format has no scale.
    PEs that take codes: the code, extended to the PE's width by its sign where codes are signed.

    Parameters
        limits : arch.isa.limits.Limits
    Members
        en : In(1)               A code is taken; low: `wgt` stays.
        format : In(4)           Index in limits.formats.
        code : In                As wide as the widest format's; of a narrower one the bits above are not looked at.
        scale, zero : In(16), In   Of the code's group, with every code; only where some format needs them here. A
            format without is not affected.
        wgt : Out(limits.pe.wgt.bits)   Registered.
    Timing       latency 1 cycle; one weight a cycle.
    Arithmetic   bit-exact with arch.pe.units.WeightDecoder and WeightDequantiser.
    Reset        none: wgt is undefined until the first code.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        ports: dict[str, Any] = {
            "en": In(1),
            "format": In(FORMAT_BITS),
            "code": In(max(form.bits for form in limits.formats)),
            "wgt": Out(limits.pe.wgt.bits),
        }
        if weight_scale(limits):
            ports["scale"] = In(16)
        if weight_zero_bits(limits):
            ports["zero"] = In(weight_zero_bits(limits))
        super().__init__(ports)

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `column_decoder_int8_mac_0int8_1int4`."""
        names = "_".join(f"{index}{form.name}" for index, form in enumerate(self.limits.formats))
        return re.sub(r"\W", "_", f"column_decoder_{self.limits.pe.name}_{names}")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        specs = [decoder(self.limits, form) for form in self.limits.formats]
        enables = [Signal(name=f"takes_{index}") for index in range(len(specs))]
        for index, enable in enumerate(enables):
            m.d.comb += enable.eq(self.en & (self.format == index if index else ~self.format.any()))
        registers: dict[int, Value] = {
            index: self._decoded(m, index, spec, enables[index]) for index, spec in enumerate(specs) if spec
        }
        if len(registers) < len(specs):
            taken = Signal(len(self.wgt), name="code_taken", reset_less=True)
            for index in sorted(set(range(len(specs))) - set(registers)):
                registers[index] = taken
                with m.If(enables[index]):
                    m.d.sync += taken.eq(self._extended(self.limits.formats[index]))
        self._choose(m, registers)
        return m

    def _choose(self, m: Module, registers: dict[int, Value]) -> None:
        """Show the register of the format that was taken last."""
        m.d.comb += self.wgt.eq(registers[0])
        if all(register is registers[0] for register in registers.values()):
            return
        shown = Signal(range(len(registers)), name="format_taken", reset_less=True)
        with m.If(self.en):
            m.d.sync += shown.eq(self.format)
        for index, register in registers.items():
            if register is not registers[0]:
                with m.If(shown == index):
                    m.d.comb += self.wgt.eq(register)

    def _extended(self, form: TileFormat) -> Value:
        """A code that is itself the weight."""
        code = self.code[: form.bits]
        signed = decodable(form.name) and weight_code(form.name).coding == "signed"
        return code.as_signed() if signed else code

    def _decoded(self, m: Module, index: int, spec: units.UnitSpec, enable: Value) -> Value:
        """The output register of a format's unit, which loads when `enable` is high."""
        form, unit = self.limits.formats[index], build(spec)
        m.submodules[f"decoder_{index}"] = EnableInserter(enable)(unit)
        m.d.comb += [unit.valid.eq(1), unit.code.eq(self.code[: form.bits])]
        if form.scale and _dequantises(self.limits, form):
            m.d.comb += unit.scale.eq(self.scale)
        if form.zero:
            m.d.comb += unit.zero.eq(self.zero[: form.zero_bits])
        return unit.wgt
