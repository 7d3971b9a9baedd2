"""The clock tree of a block, by its number of flip-flops: an estimate, for no tree is built.

A balanced tree of one buffer: each drives SINKS flip-flops, or SINKS buffers of the level below, over the library's
wire load for that fan-out; the root is the block's clock pin. The buffer is the smallest of the library whose output,
with a full fan-out, is no slower than the clock slew that timing assumes (the fastest if none is). Two transitions a
cycle. A clock gate hangs on the tree like a flip-flop and is counted with the design; what it drives is a tree below
it that moves as often as the gate is open.
SINKS is an assumption; a library's own fan-out limits are of that order (SG13G2: default_max_fanout 8).
Not modelled: placement, spines, skew groups, useful skew. Above blocks: arch/costs/wires.py, with `repeater`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.choice import is_buffer
from bitwright.rtl.asic.liberty import Cell, Library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.timing import Conditions, clock_pin

SINKS = 16


@dataclass(frozen=True)
class Repeater:
    """A buffer of the tree above blocks, at the largest load that it drives without its output being slower than the
    clock slew that timing assumes: capacitances of its input and of that load, internal energy of a rise and a fall."""

    cell: str
    pin_ff: float
    load_ff: float
    internal_fj: float
    area_um2: float
    leakage_uw: float


@dataclass(frozen=True)
class ClockTree:
    """Buffers of one tree. energy_pj a cycle (wires below buffers, their pins, their cells), area and leakage."""

    buffer: str
    buffers: int
    energy_pj: float
    area_um2: float
    leakage_uw: float


def clock_tree(flip_flops: int, pin_ff: float, library: Library, conditions: Conditions) -> ClockTree:
    """The tree over `flip_flops` clock pins of `pin_ff` each on average.

    The pins' own charge is the flip-flops'; the tree's is wires, buffers' input pins and buffers' internal energy.
    Raises ConfigError when the library has no buffer.
    """
    wire_ff = library.wire_load.capacitance_ff
    slew_ns, volt2 = conditions.clock_slew_ns, library.voltage_v**2
    cell = tree_buffer(library, pin_ff, conditions)
    own_ff = cell.inputs[0].capacitance_ff
    sinks, sink_ff, buffers, energy_fj = flip_flops, pin_ff, 0, 0.0
    while sinks > 0:
        level = -(-sinks // SINKS)
        fanouts = [sinks // level + (i < sinks % level) for i in range(level)]
        for fanout in fanouts:
            load_ff = fanout * sink_ff + wire_ff(fanout)
            energy_fj += volt2 * (wire_ff(fanout) + own_ff) + _internal_fj(cell, slew_ns, load_ff)
        buffers += level
        sinks, sink_ff = (level, own_ff) if level > 1 else (0, own_ff)
    return ClockTree(cell.name, buffers, energy_fj / 1e3, buffers * cell.area_um2, buffers * cell.leakage_nw / 1e3)


def gated_trees(netlist: Netlist, library: Library, conditions: Conditions) -> tuple[ClockTree, list[ClockTree]]:
    """The tree of a netlist's clock, to ungated flip-flops and clock gates, and below each gate the tree it drives.

    Gates in the netlist's order. A gate with at most SINKS flip-flops drives them itself: its tree is their wire.
    """
    pins: dict[int, list[float]] = {}
    gates: list[int] = []
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        if pin := clock_pin(cell):
            pins.setdefault(instance.pins[pin], []).append(cell.pins[pin].capacitance_ff)
        if cell.gate is not None:
            gates.append(instance.pins[cell.gate.output])
    below = [pins.pop(output, []) for output in gates]
    above = [capacitance for found in pins.values() for capacitance in found]
    made: list[ClockTree] = []
    for found in [above, *below]:
        tree = clock_tree(len(found), sum(found) / max(len(found), 1), library, conditions)
        if made and len(found) <= SINKS:
            wire_pj = library.voltage_v**2 * library.wire_load.capacitance_ff(len(found)) / 1e3
            tree = ClockTree(tree.buffer, 0, wire_pj, 0.0, 0.0)
        made.append(tree)
    return made[0], made[1:]


def tree_buffer(library: Library, pin_ff: float, conditions: Conditions) -> Cell:
    """The buffer of a tree whose ends are pins of `pin_ff`, as at the top of this file."""
    slew_ns, load_ff = conditions.clock_slew_ns, SINKS * pin_ff + library.wire_load.capacitance_ff(SINKS)
    buffers = [library.cell(outline.name) for outline in library.outlines() if is_buffer(outline)]
    slews = {cell.name: _slew_ns(cell, slew_ns, load_ff) for cell in buffers}
    fit = [cell for cell in buffers if slews[cell.name] <= slew_ns]
    if not fit:
        return min(buffers, key=lambda cell: (slews[cell.name], cell.name))
    return min(fit, key=lambda cell: (cell.area_um2, cell.name))


def repeater(library: Library, conditions: Conditions) -> Repeater:
    """The library's buffer of least energy a driven fF (its pin's charge and its inside), then by name.

    Raises ConfigError when no buffer drives more than its own input at the clock slew.
    """
    slew_ns, found = conditions.clock_slew_ns, []
    for outline in library.outlines():
        if is_buffer(outline):
            cell = library.cell(outline.name)
            load_ff, pin_ff = _largest_load_ff(cell, slew_ns), cell.inputs[0].capacitance_ff
            if load_ff > pin_ff:
                internal_fj = _internal_fj(cell, slew_ns, load_ff)
                made = Repeater(cell.name, pin_ff, load_ff, internal_fj, cell.area_um2, cell.leakage_nw / 1e3)
                found.append(((library.voltage_v**2 * pin_ff + internal_fj) / load_ff, cell.name, made))
    if not found:
        raise ConfigError(f"{library.where}: no buffer drives another at a clock slew of {slew_ns * 1e3:g} ps")
    return min(found)[2]


def _largest_load_ff(cell: Cell, slew_ns: float) -> float:
    """Where the output's slew grows beyond `slew_ns`, within the tables; 0 where it always is."""
    tables = cell.outputs[0].timing[0].tables
    low, high = 0.0, max((tables[name].other or (0.0,))[-1] for name in ("rise_transition", "fall_transition"))
    if _slew_ns(cell, slew_ns, high) <= slew_ns:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _slew_ns(cell, slew_ns, middle) <= slew_ns else (low, middle)
    return low


def _slew_ns(cell: Cell, slew_ns: float, load_ff: float) -> float:
    tables = cell.outputs[0].timing[0].tables
    return max(tables[name].at(slew_ns, load_ff) for name in ("rise_transition", "fall_transition"))


def _internal_fj(cell: Cell, slew_ns: float, load_ff: float) -> float:
    """One rise and one fall."""
    return sum(arc.rise.at(slew_ns, load_ff) + arc.fall.at(slew_ns, load_ff) for arc in cell.outputs[0].power)
