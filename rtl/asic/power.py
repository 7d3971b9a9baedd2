"""Energy of a mapped netlist from its toggles and the library's tables.

Per transition of a net: 0.5 C V**2, C = the input pins on it plus the library's default wire load to them. Each net is
charged where its sinks are: an input port's net counts in full (the neighbour's register drives it), and the wire and
load beyond an output port count in the neighbour. So the cells of an array sum to every wire once.
Per transition of a cell's output: its internal_power tables at the output's load and the related input's slew;
where several inputs could have caused it, their tables are averaged by how often each input moved.
Per flip-flop and cycle: the clock pin's capacitance twice, and the hidden power of the clock and data pins with each
`when` condition counted exactly.
Not modelled: glitches, the clock tree's buffers and wires (the flip-flops' own clock pins are counted; clock_tree.py
has the rest), short pulses, state-dependent leakage (each cell's mean is used), IR drop, other corners than the
library's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bitwright.rtl.asic.activity import Activity, FlipFlops
from bitwright.rtl.asic.boolean import Expression
from bitwright.rtl.asic.liberty import Cell, Library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.timing import Conditions, Timing, clock_pin, net_loads


@dataclass(frozen=True)
class Energy:
    """Mean energy of one copy of the design in one cycle, pJ.

    wire_pj        0.5 C V**2 of data nets (pins and wires).
    logic_pj       Internal energy of combinational cells.
    register_pj    Internal energy of flip-flops whose output or data input moves.
    clock_pj       Clock pins: capacitance and internal energy with nothing else moving.
    """

    wire_pj: float
    logic_pj: float
    register_pj: float
    clock_pj: float

    @property
    def switching_pj(self) -> float:
        """The charge of data nets."""
        return self.wire_pj

    @property
    def internal_pj(self) -> float:
        """Inside cells, for the movement of data."""
        return self.logic_pj + self.register_pj

    @property
    def total_pj(self) -> float:
        """Sum of the parts; leakage and the clock tree are not in it."""
        return self.wire_pj + self.logic_pj + self.register_pj + self.clock_pj


class PowerModel:
    """Turns activity into energy for one netlist. `timing` gives slews and loads (timing.analyse)."""

    def __init__(
        self, netlist: Netlist, library: Library, timing: Timing, conditions: Conditions | None = None
    ) -> None:
        self._netlist = netlist
        self._library = library
        self._timing = timing
        self._conditions = conditions or Conditions()
        own, _ = net_loads(netlist, library, self._conditions.output_load_ff)
        self._own_ff = np.array(own)
        clocks = [
            instance.pins[pin] for instance in netlist.instances if (pin := clock_pin(library.cell(instance.cell)))
        ]
        self._own_ff[clocks] = 0.0

    def energy(self, activity: Activity, chosen: int = 0) -> Energy:
        """Mean energy a lane and cycle over the cycles of one bin."""
        cycles = float(activity.lane_cycles[chosen])
        toggles = activity.rises[chosen] + activity.falls[chosen]
        volt2 = self._library.voltage_v**2
        wire_fj = float((0.5 * volt2 * self._own_ff * toggles).sum())
        logic_fj = register_fj = 0.0
        for instance in self._netlist.instances:
            cell = self._library.cell(instance.cell)
            fj = self._outputs_fj(cell, instance.pins, activity, chosen, toggles)
            if cell.ff is None:
                logic_fj += fj
            else:
                register_fj += fj
        clock_fj = self._gates_fj(activity, chosen, toggles)
        enabled = np.append(activity.enabled[chosen], cycles)  # the last for registers without a gate
        for bank in activity.flip_flops:
            assert bank.cell.ff is not None, "a bank holds flip-flops only"
            clock_fj += volt2 * bank.cell.pins[bank.cell.ff.clocked_on].capacitance_ff * float(enabled[bank.gate].sum())
            on_clock, on_data = self._hidden_fj(bank, chosen)
            clock_fj += on_clock
            register_fj += on_data
        scale = 1e-3 / cycles
        return Energy(wire_fj * scale, logic_fj * scale, register_fj * scale, clock_fj * scale)

    def _outputs_fj(
        self, cell: Cell, pins: dict[str, int], activity: Activity, chosen: int, toggles: np.ndarray
    ) -> float:
        """Internal energy of one instance's output transitions, fJ."""
        total = 0.0
        for pin in cell.outputs:
            net = pins.get(pin.name)
            if net is None or not pin.power or toggles[net] == 0:
                continue
            load = self._timing.load_ff[net]
            up, down, weights = 0.0, 0.0, 0.0
            moved = {
                arc.related: 1.0 if cell.ff is not None else float(toggles[pins.get(arc.related, 0)])
                for arc in pin.power
            }
            if not any(moved.values()):
                moved = dict.fromkeys(moved, 1.0)
            for arc in pin.power:
                weight = moved[arc.related]
                if weight == 0.0:
                    continue
                if cell.ff is not None:
                    slew = self._conditions.clock_slew_ns
                else:
                    slew = self._timing.slew_ns[pins.get(arc.related, 0)]
                up += weight * arc.rise.at(slew, load)
                down += weight * arc.fall.at(slew, load)
                weights += weight
            total += (up * activity.rises[chosen, net] + down * activity.falls[chosen, net]) / weights
        return total

    def _gates_fj(self, activity: Activity, chosen: int, toggles: np.ndarray) -> float:
        """Clock gates: their clock pins, and inside them the output's two edges where they let the clock through, the
        pin's own where not, and the enable's."""
        total, number = 0.0, 0
        slew = self._conditions.clock_slew_ns
        for instance in self._netlist.instances:
            cell = self._library.cell(instance.cell)
            if cell.gate is None:
                continue
            passed = float(activity.enabled[chosen, number])
            cycles, number = float(activity.lane_cycles[chosen]), number + 1
            clock, enable = cell.pins[cell.gate.clock], cell.pins[cell.gate.enable]
            total += self._library.voltage_v**2 * clock.capacitance_ff * cycles
            load = self._timing.load_ff[instance.pins[cell.gate.output]]
            arcs = [arc for arc in cell.pins[cell.gate.output].power if arc.related == cell.gate.clock]
            total += passed * sum(arc.rise.at(slew, load) + arc.fall.at(slew, load) for arc in arcs) / max(len(arcs), 1)
            closed = {pin.name: pin.name == cell.gate.clock for pin in cell.pins.values()}
            arcs = [arc for arc in clock.power if arc.when is None or _holds(arc.when, closed)]
            total += (cycles - passed) * sum(arc.rise.at(slew) + arc.fall.at(slew) for arc in arcs) / max(len(arcs), 1)
            net = instance.pins[cell.gate.enable]
            each = [
                arc.rise.at(self._timing.slew_ns[net]) + arc.fall.at(self._timing.slew_ns[net]) for arc in enable.power
            ]
            total += float(toggles[net]) * sum(each) / max(2 * len(each), 1)
        return total

    def _hidden_fj(self, bank: FlipFlops, chosen: int) -> tuple[float, float]:
        """Hidden energy of a bank on its clock pins and on its other inputs, fJ.

        The falling clock edge with data and output different also moves the master latch: that part above the
        quiet falling edge stays with the clock (it is small and the library does not separate it).
        """
        ff = bank.cell.ff
        assert ff is not None, "a bank holds flip-flops only"
        on_clock = on_data = 0.0
        for k, (pin, number) in enumerate(bank.arcs):
            arc = bank.cell.pins[pin].power[number]
            rise, fall = bank.hidden_rise[chosen, k], bank.hidden_fall[chosen, k]
            if pin == ff.clocked_on:
                slew = self._conditions.clock_slew_ns
                on_clock += float(rise.sum()) * arc.rise.at(slew) + float(fall.sum()) * arc.fall.at(slew)
                continue
            for net, up, down in zip(bank.pins[pin], rise, fall, strict=True):
                slew = self._timing.slew_ns[int(net)]
                on_data += float(up) * arc.rise.at(slew) + float(down) * arc.fall.at(slew)
        return on_clock, on_data


def _holds(when: Expression, pins: dict[str, bool]) -> bool:
    """Whether a condition holds; pins that are not given (a gate's inner state) are 0."""
    return when.at(**{name: pins.get(name, False) for name in when.inputs})
