"""Wires by distance and the clock tree above the blocks of an array: geometry, before any layout.

A PE cell is a square of its area (its clock tree's buffers with it) over UTILISATION; cells stand side by side. A wire
from a neighbour is one side long, beyond the wiring inside the cell, which is in the cell's energy; a bus from a buffer
at the middle of a side of n cells is n/4 sides long on average. The clock comes to the cells by an H-tree: 16 sinks a
side p apart, 4 x 4, hang on 18 p of wire; their middles, 4 p apart, on the next level. Its load is shared by buffers,
none loaded beyond the clock slew that timing assumes. What is below a block's own clock pin is the block's tree
(rtl/asic/clock_tree.py).
Source of the capacitance a micrometre: the library's own wire load (Nangate45: 0.1774 fF/um, with the resistance of
metal 3). Routed layouts have less: OpenROAD-flow-scripts' calibration for this library has 0.083 to 0.120 fF/um on
metals 2 to 10, 0.105 on 3 (flow/platforms/nangate45/setRC.tcl, commit 257f85b): wires are charged 1.5 to 2.1 times
that.
UTILISATION is an assumption. Not modelled: repeaters on long data wires, crosstalk, detours, blocks that are not
square, skew groups, spines; the wires of the vector unit, the DRAM port and the control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.arch.costs.records import TreeCost

UTILISATION = 0.7
BRANCHES = 16
H_TREE_LENGTHS = 18
"""Sides of wire that join BRANCHES sinks to their middle: an H over 2 x 2 quadrants (6), and one in each (3)."""


@dataclass(frozen=True)
class Wires:
    """What wires and the clock tree above blocks are made of, at one node.

    ff_per_um, voltage_v   Capacitance of a routed wire, and the supply.
    buffer_pin_ff          Input capacitance of the tree's buffer.
    buffer_load_ff         Largest load at which its output is no slower than the clock slew that timing assumes.
    buffer_fj              Internal energy of a rise and a fall at that load.
    buffer_um2, buffer_leakage_uw   Of one buffer.
    """

    ff_per_um: float
    voltage_v: float
    buffer_pin_ff: float
    buffer_load_ff: float
    buffer_fj: float
    buffer_um2: float
    buffer_leakage_uw: float

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Wires:
        """From the provenance of a cost table."""
        buffer = provenance["clock_buffer"]
        return cls(
            provenance["wire_ff_per_um"],
            provenance["voltage_v"],
            buffer["pin_ff"],
            buffer["load_ff"],
            buffer["internal_fj"],
            buffer["area_um2"],
            buffer["leakage_uw"],
        )

    def toggle_pj(self, length_um: float) -> float:
        """One transition of a wire: 0.5 C V**2."""
        return 0.5 * self.ff_per_um * length_um * self.voltage_v**2 / 1e3

    def tree(self, sinks: int, area_um2: float) -> TreeCost:
        """The tree of one clock over `sinks` blocks that fill `area_um2` of cells evenly; nothing for one block."""
        wire_ff = self.ff_per_um * h_tree_um(sinks, side_um(area_um2 / sinks))
        if wire_ff == 0:
            return TreeCost(0.0, 0.0, 0.0)
        buffers = math.ceil((wire_ff + sinks * self.buffer_pin_ff) / (self.buffer_load_ff - self.buffer_pin_ff))
        energy_fj = self.voltage_v**2 * (wire_ff + buffers * self.buffer_pin_ff) + buffers * self.buffer_fj
        return TreeCost(energy_fj / 1e3, buffers * self.buffer_um2, buffers * self.buffer_leakage_uw)


def side_um(area_um2: float) -> float:
    """Side of the square that cells of `area_um2` take up."""
    return math.sqrt(area_um2 / UTILISATION)


def h_tree_um(sinks: int, pitch_um: float) -> float:
    """Wire of an H-tree over `sinks` in a square grid `pitch_um` apart: exact for powers of 16."""
    length_um, at_level = 0.0, float(sinks)
    while at_level > 1:
        length_um += H_TREE_LENGTHS / BRANCHES * at_level * pitch_um
        at_level, pitch_um = at_level / BRANCHES, pitch_um * math.isqrt(BRANCHES)
    return length_um
