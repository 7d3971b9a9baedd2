"""What a cost table describes: every PE cell, edge unit and the plain register, each with its Verilog and stimuli."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from bitwright.arch import formats
from bitwright.arch import pe as pe_specs
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import PESpec, units
from bitwright.rtl import pe as rtl_pe
from bitwright.rtl.asic import operands, unit_stimulus
from bitwright.rtl.asic.stimulus import CONSTANT_ONE, Loading, Stimulus, cell_stimulus

REGISTER_BITS, REGISTER_STAGES = 16, 8
REAL, RANDOM = "real", "random"
EQUAL_WIDTHS = {"int8-mac": (19, 23)}
"""Accumulator widths beyond a PE's own, for comparing PEs at equal width: shift-add's own, and what int8-mac needs for
128 products of any value. A sum that does not fit 19 bits wraps, as in the hardware."""
EQUAL_WIDTH_FORMATS = ("int8", "int4")
Measure = Callable[..., Stimulus]
"""Called with the keyword `random`: False for a real model's operands, True for uniform random codes."""


@dataclass(frozen=True)
class Entry:
    """One thing to characterise.

    key            `pe/<pe>/<dataflow>[/p<psum_bits>]`, `unit/<unit>[/<variant>]`, `register`.
    top            The module's name.
    make_verilog   Makes its text; `verilog` keeps it.
    measures       Weight format (or other) name -> maker of the stimulus.
    default        The name whose energy stands for the entry when none is asked for.
    extra          Further constant fields of the entry.
    loads          Whether it is a weight-stationary cell, whose weight loads are measured too.
    """

    key: str
    top: str
    make_verilog: Callable[[], str]
    measures: Mapping[str, Measure]
    default: str
    extra: Mapping[str, Any]
    loads: bool = False

    def stimuli(self, name: str) -> dict[str, Stimulus]:
        """Every run that one name needs: `real`, `random` and, of a cell with weight loads, `beats` and `own`."""
        measure = self.measures[name]
        found = {REAL: measure(random=False), RANDOM: measure(random=True)}
        if self.loads:
            found |= {kind.value: measure(random=False, loading=kind) for kind in (Loading.BEATS, Loading.OWN)}
        return found

    @cached_property
    def verilog(self) -> str:
        """The module's text, made when first asked for."""
        return self.make_verilog()


def entries(only: str | None = None, more_formats: Sequence[str] = ()) -> list[Entry]:
    """All entries whose key starts with `only`. `more_formats` adds formats registered from outside.

    Raises ConfigError when nothing matches.
    """
    names = [*formats.names(), *(name for name in more_formats if name not in formats.names())]
    found: list[Entry] = []
    for pe_name in pe_specs.names():
        spec = pe_specs.get(pe_name)
        accepted = [name for name in names if spec.accepts(name, operands.group_of(name))]
        found += [cell_entry(spec, dataflow, accepted) for dataflow in spec.dataflows]
        for bits in EQUAL_WIDTHS.get(pe_name, ()):
            other = pe_specs.get(pe_name, psum_bits=bits)
            found += [cell_entry(other, dataflow, EQUAL_WIDTH_FORMATS) for dataflow in spec.dataflows]
        found += _edge_entries(spec, accepted)
        found += _border_entries(spec, accepted)
    found.append(_int_accumulator_entry())
    found.append(_register_entry())
    chosen = [entry for entry in found if only is None or entry.key.startswith(only)]
    if not chosen:
        known = ", ".join(sorted(entry.key for entry in found))
        raise ConfigError(f"only = {only}: no such entry (known: {known})")
    return chosen


def cell_entry(spec: PESpec, dataflow: str, accepted: Sequence[str], *, operand_isolation: bool = False) -> Entry:
    """A PE cell with weights of the given formats. The default is the PE's own weight format."""
    names = [*accepted, *([CONSTANT_ONE] if spec.zero_point_column else [])]
    own_bits = pe_specs.get(spec.name).psum.bits
    width = "" if spec.psum.bits == own_bits else f"/p{spec.psum.bits}"
    return Entry(
        f"pe/{spec.name}/{dataflow}{width}",
        rtl_pe.module_name(spec.name, dataflow, **spec.params),
        partial(rtl_pe.verilog, spec.name, dataflow, operand_isolation=operand_isolation, **spec.params),
        {name: partial(cell_stimulus, spec, dataflow, name) for name in names},
        spec.wgt.name,
        {"psum_bits": spec.psum.bits},
        loads=dataflow == "ws",
    )


def _unit_entry(key: str, spec: units.UnitSpec, measures: Mapping[str, Measure], default: str) -> Entry:
    params = dict(spec.params)
    top = rtl_pe.unit_module_name(spec.name, **params)
    return Entry(key, top, partial(rtl_pe.unit_verilog, spec.name, **params), measures, default, {"params": params})


def _edge_entries(spec: PESpec, accepted: Sequence[str]) -> list[Entry]:
    """The unit below the columns of a PE; a second one with two-level scales where the PE takes such formats."""
    plain = units.edge_unit(spec)
    if isinstance(plain, units.Fp32Accumulator):
        measures = {spec.wgt.name: partial(unit_stimulus.fp32_accumulator, plain, spec, spec.wgt.name)}
        return [_unit_entry(f"unit/{plain.name}", plain, measures, spec.wgt.name)]
    two_level = [name for name in accepted if operands.scale_code_bits(name)]
    one_level = [name for name in accepted if not operands.scale_code_bits(name)]
    chosen = [(f"unit/{plain.name}/{spec.name}", plain, one_level)]
    if two_level:
        wide = units.edge_unit(spec, scale_code_bits=8, halves=True)
        assert isinstance(wide, units.GroupDequantiser), "an integer PE has a group dequantiser"
        chosen.append((f"unit/{plain.name}/{spec.name}/two-level", wide, two_level))
    found = []
    for key, unit, names in chosen:
        default = spec.wgt.name if spec.wgt.name in names else names[0]
        measures = {name: partial(unit_stimulus.group_dequantiser, unit, spec, name) for name in names}
        found.append(_unit_entry(key, unit, measures, default))
    return found


def _border_entries(spec: PESpec, accepted: Sequence[str]) -> list[Entry]:
    """The units above the columns of a PE, one for each format that needs one."""
    found = []
    for name in accepted:
        needed = spec.accepts(name, operands.group_of(name)).unit
        if needed is None:
            continue
        bits = operands.scale_code_bits(name) if needed == units.WeightDequantiser.name else 0
        unit = units.get(needed, format=name, **({"scale_code_bits": bits} if bits else {}))
        assert isinstance(unit, units.WeightDequantiser | units.WeightDecoder), f"{needed} is no border unit"
        measures = {name: partial(unit_stimulus.weight_unit, unit)}
        found.append(_unit_entry(f"unit/{unit.name}/{name}", unit, measures, name))
    return found


def _int_accumulator_entry() -> Entry:
    unit, spec = units.IntAccumulator(), pe_specs.get("int8-mac")
    name = spec.wgt.name
    measures = {name: partial(unit_stimulus.int_accumulator, spec, name)}
    return _unit_entry(f"unit/{unit.name}", unit, measures, name)


def _register_entry() -> Entry:
    """A delay line without reset, as the skew registers of the arrays are."""
    top = "delay_line"
    high, stages = REGISTER_BITS - 1, REGISTER_STAGES
    lines = [f"module {top}(input clk, input rst, input valid, input [{high}:0] word, output [{high}:0] out);"]
    lines += [f"  reg [{high}:0] stage_{i};" for i in range(stages)]
    moves = [f"stage_{i} <= {f'stage_{i - 1}' if i else 'word'};" for i in range(stages)]
    lines += [f"  always @(posedge clk) begin {' '.join(moves)} end", f"  assign out = stage_{stages - 1};"]
    measures = {"words": partial(unit_stimulus.delay_line, REGISTER_BITS)}
    text = "\n".join([*lines, "endmodule"]) + "\n"
    return Entry("register", top, lambda: text, measures, "words", {})
