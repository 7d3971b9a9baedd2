"""Memories of the generated Verilog as library cells with CACTI's figures: to timing a memory is a flip-flop.

A `memory_<rows>x<bits>` (rtl.accelerator.memories) of more than LEAST_BITS is a black box: its read data leave
`access_ns` after the clock edge, through the cell that drives every input in synthesis, which gives them a delay by
load; its address, data and enables are captured like the data of the flip-flop that timing puts at inputs (set-up and
capacitance), since CACTI states neither. `cycle_ns` bounds the clock as well. Smaller ones are flip-flops and gates.
Source: arch/costs/sram_1r1w.json. Not modelled: how the pins lie, the wires to them, the macro's set-up time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bitwright.arch.costs import SramCost, sram_1r1w
from bitwright.rtl.asic.boolean import compile_expression
from bitwright.rtl.asic.liberty import Cell, FlipFlop, Library, Pin, Table, TimingArc

LEAST_BITS = 4096
"""4 Kib; a memory above that is a black box."""
_MODULE = re.compile(r"^module (memory_(\d+)x(\d+))\(", re.MULTILINE)
_CLOCK = "clk[0]"


@dataclass(frozen=True)
class MemoryMacro:
    """A memory of the design: rows words of bits, and what CACTI says of it."""

    module: str
    rows: int
    bits: int

    @property
    def cost(self) -> SramCost:
        """One read and one write port, cells of low standby power."""
        return sram_1r1w(self.rows, self.bits)


def macros(verilog: str) -> list[MemoryMacro]:
    """The memories of a design's Verilog that are black boxes, each size once."""
    found = [MemoryMacro(name, int(rows), int(bits)) for name, rows, bits in _MODULE.findall(verilog)]
    return [macro for macro in found if macro.rows * macro.bits > LEAST_BITS]


def with_memories(
    library: Library, made: Iterable[MemoryMacro], *, driver: str, register: str, ideal: bool = False
) -> Library:
    """The library and a cell for each memory.

    driver : name of the cell that drives every input in synthesis, here behind each bit read.
    register : name of a flip-flop, whose data pin stands for each bit of the memory's inputs.
    ideal : memories without area, leakage and access time, where CACTI's figures are not of the library's node.
    """
    return library.with_cells(_cell(library, macro, driver, register, ideal) for macro in made)


def _cell(library: Library, macro: MemoryMacro, driver: str, register: str, ideal: bool) -> Cell:
    flip_flop = library.cell(register)
    assert flip_flop.ff is not None, "the conditions name a flip-flop"
    clock = flip_flop.pins[flip_flop.ff.clocked_on]
    data = next(pin for pin in flip_flop.inputs if pin is not clock)
    address_bits = max(1, (macro.rows - 1).bit_length())
    widths = {"r_en": 1, "r_addr": address_bits, "w_en": 1, "w_addr": address_bits, "w_data": macro.bits}
    pins = [replace(clock, name=_CLOCK)]
    pins += [replace(data, name=f"{name}[{i}]") for name, width in widths.items() for i in range(width)]
    arcs = _read_arcs(library.cell(driver), 0.0 if ideal else macro.cost.access_ns)
    pins += [Pin(f"r_data[{i}]", True, False, 0.0, None, arcs, ()) for i in range(macro.bits)]
    behaviour = FlipFlop("", "", compile_expression("0"), _CLOCK, ())
    leakage_nw, area_um2 = (0.0, 0.0) if ideal else (macro.cost.leakage_mw * 1e6, macro.cost.area_mm2 * 1e6)
    return Cell(macro.module, area_um2, leakage_nw, {pin.name: pin for pin in pins}, behaviour, is_latch=False)


def _read_arcs(driver: Cell, access_ns: float) -> tuple[TimingArc, ...]:
    """The driver's delays, `access_ns` later, after the clock's edge."""
    arcs = []
    for arc in driver.outputs[0].timing:
        tables = dict(arc.tables)
        for name in ("cell_rise", "cell_fall"):
            table = tables[name]
            rows = tuple(tuple(value + access_ns for value in row) for row in table.rows)
            tables[name] = Table(table.slew, table.other, rows)
        arcs.append(TimingArc(_CLOCK, arc.sense, "rising_edge", "", tables))
    return tuple(arcs)
