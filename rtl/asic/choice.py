"""Which cells of a library a design is surrounded by, and the electrical conditions that go with them.

Nangate45's are stated: inputs driven by BUF_X2 (synthesis) and DFF_X1 (timing), 3.9 fF on outputs, clock and input
slews of 40 ps. In another library the cells are found by the same rules (tests: the rules give Nangate45's own), and
the figures are Nangate45's times what the library's smallest inverter is to INV_X1: slews by its delay at a fan-out of
four, loads by its input capacitance. A library without a wire load gets Nangate45's, its lengths times the ratio of the
square roots of the smallest two-input NAND's (or NOR's) areas: wires grow with the cells' pitch, while their
capacitance a micrometre hardly changes between nodes (Ho, Mai, Horowitz, "The Future of Wires", Proc. IEEE 2001).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.liberty import Cell, Library, Outline, TimingArc, WireLoad, read_library
from bitwright.rtl.asic.timing import Conditions

INV_X1_FF, INV_X1_FO4_NS, NAND2_X1_UM2 = 1.700230, 0.0221051, 0.798
"""Nangate45: input capacitance, mean delay at a fan-out of four (`fanout_of_four_ns`), area."""
NANGATE45_WIRE = WireLoad(
    "scaled from Nangate45's 5K_hvratio_1_1", 0.1774, 5.0,
    ((1, 1.7460), (2, 3.9394), (3, 6.4626), (4, 9.2201), (5, 11.9123), (6, 14.8358), (7, 18.6155), (8, 22.6727),
     (9, 25.4842), (11, 27.0320)),
)  # fmt: skip
FANOUT = 4
MOST_RATIO = 1000
"""No two nodes differ so much in an inverter's capacitance or delay; a wrong prefix does."""


@dataclass(frozen=True)
class Boundary:
    """What surrounds a design in synthesis: the cell driving each input, and the load on each output in fF."""

    driving_cell: str = "BUF_X2"
    load_ff: float = 3.9


@dataclass(frozen=True)
class Choice:
    """Cells of one library by what they are for; the smallest that does it (by area, then by name).

    buffer      Of the second smallest area: the one that drives inputs in synthesis.
    tie_high, tie_low   Cell and pin that give a constant; None where the library has none.
    clock_gate  The smallest cell that gates a clock while it is low ("" without one).
    """

    inverter: str
    nand: str
    buffer: str
    flip_flop: str
    tie_high: tuple[str, str] | None
    tie_low: tuple[str, str] | None
    clock_gate: str
    ties_flip_flops: bool
    """The flip-flop has an asynchronous input that must be tied off."""


def _table(outline: Outline) -> tuple[bool, ...] | None:
    """Truth table of a cell with one output, first input slowest; None for other cells."""
    functions = [function for function in outline.outputs.values() if function is not None]
    if outline.ff is not None or outline.is_latch or len(functions) != 1 or len(outline.outputs) != 1:
        return None
    if len(outline.inputs) > 2 or not set(functions[0].inputs) <= set(outline.inputs):
        return None
    values = itertools.product((False, True), repeat=len(outline.inputs))
    return tuple(functions[0].at(**dict(zip(outline.inputs, bits, strict=True))) for bits in values)


def is_buffer(outline: Outline) -> bool:
    """Whether a cell that mapping may use repeats its one input."""
    return not outline.dont_use and outline.area_um2 > 0 and _table(outline) == (False, True)


def _by_area(found: Iterator[Outline]) -> list[Outline]:
    return sorted(found, key=lambda outline: (outline.area_um2, outline.name))


@lru_cache(maxsize=4)
def chosen(library: Library) -> Choice:
    """The cells. Raises ConfigError that names every kind which synthesis needs and the library lacks."""
    usable = [outline for outline in library.outlines() if not outline.dont_use and outline.area_um2 > 0]
    tables = {outline.name: _table(outline) for outline in usable}

    def of_table(*wanted: tuple[bool, ...]) -> list[Outline]:
        return _by_area(outline for outline in usable if tables[outline.name] in wanted)

    inverters, buffers = of_table((True, False)), of_table((False, True))
    nands = of_table((True, True, True, False), (True, False, False, False))
    flip_flops = _by_area(outline for outline in usable if _is_register(outline))
    wider = [outline for outline in buffers if outline.area_um2 > buffers[0].area_um2] or buffers
    missing = [
        what
        for what, found in (
            ("inverter", inverters),
            ("buffer", buffers),
            ("two-input NAND or NOR", nands),
            ("flip-flop with a rising clock and one data input", flip_flops),
        )
        if not found
    ]
    if missing:
        raise ConfigError(f"{library.where}: no {', no '.join(missing)}: synthesis needs them (give a whole library)")
    sources = _by_area(outline for outline in library.outlines() if not outline.inputs)  # often marked dont_use
    ties = [next((o for o in sources if _table(o) == (bit,)), None) for bit in (False, True)]
    low, high = ((tie.name, next(iter(tie.outputs))) if tie else None for tie in ties)
    plain = [outline for outline in flip_flops if outline.ff is not None and not outline.ff.asynchronous]
    if not plain and (low is None or high is None):
        raise ConfigError(
            f"{library.where}: no tie cells, and every flip-flop has an asynchronous input to tie off: "
            "synthesis needs them (give a whole library)"
        )
    gates = [
        gate
        for kind in ("latch_posedge", "latch_posedge_precontrol")  # the second has a test pin, tied low
        for gate in _by_area(outline for outline in library.outlines() if outline.clock_gate == kind)
    ]
    return Choice(
        inverters[0].name,
        nands[0].name,
        wider[0].name,
        (plain or flip_flops)[0].name,
        high,
        low,
        gates[0].name if gates else "",
        not plain,
    )


def _is_register(outline: Outline) -> bool:
    """One data input, a rising clock and nothing else but asynchronous inputs."""
    ff = outline.ff
    if ff is None or outline.is_latch:
        return False
    forced = {name for expression in ff.forced for name in expression.inputs}
    data = set(ff.next_state.inputs)
    return len(data) == 1 and ff.clocked_on in outline.inputs and {*outline.inputs} == data | forced | {ff.clocked_on}


def fanout_of_four_ns(library: Library, inverter: str) -> float:
    """Mean delay of an inverter that drives four like it and is driven by one with the same slew; without wires."""
    cell = library.cell(inverter)
    arc = cell.outputs[0].timing[0]
    load = FANOUT * cell.inputs[0].capacitance_ff
    slew = 0.0
    for _ in range(20):
        slew = _mean(arc, ("rise_transition", "fall_transition"), slew, load)
    return _mean(arc, ("cell_rise", "cell_fall"), slew, load)


def _mean(arc: TimingArc, names: tuple[str, str], slew: float, load: float) -> float:
    return sum(arc.tables[name].at(slew, load) for name in names) / 2


@lru_cache(maxsize=4)
def surroundings(library: Library) -> tuple[Boundary, Conditions]:
    """What a design meets at its edges in synthesis, and in timing and power. Raises as `chosen`."""
    picked = chosen(library)
    inverter: Cell = library.cell(picked.inverter)
    ratios = {
        "capacitive_load_unit": inverter.inputs[0].capacitance_ff / INV_X1_FF,
        "time_unit": fanout_of_four_ns(library, picked.inverter) / INV_X1_FO4_NS,
    }
    for unit, ratio in ratios.items():
        if not 1 / MOST_RATIO < ratio < MOST_RATIO:
            raise ConfigError(
                f"{library.where}: {unit}: input capacitance or delay of {picked.inverter} is {ratio:.3g} times that "
                f"of Nangate45's INV_X1: must be within a factor of {MOST_RATIO} (the file's unit is wrong)"
            )
    load_ff = Boundary().load_ff * ratios["capacitive_load_unit"]
    slew_ns = Conditions().clock_slew_ns * ratios["time_unit"]
    load_ff, slew_ns = (_three_digits(value) for value in (load_ff, slew_ns))
    return Boundary(picked.buffer, load_ff), Conditions(slew_ns, picked.flip_flop, slew_ns, load_ff)


@lru_cache(maxsize=4)
def wired_library(path: Path) -> Library:
    """`read_library`, with Nangate45's wire load scaled to the cells of a library that has none. Raises as `chosen`."""
    library = read_library(path)
    area_um2 = library.cell(chosen(library).nand).area_um2
    if library.wire_load.lengths:
        return library
    scale = (area_um2 / NAND2_X1_UM2) ** 0.5
    lengths = tuple((fanout, length * scale) for fanout, length in NANGATE45_WIRE.lengths)
    return library.with_wire_load(replace(NANGATE45_WIRE, slope=NANGATE45_WIRE.slope * scale, lengths=lengths))


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
