"""Static timing of a mapped netlist with the library's NLDM tables.

Model: worst slew and worst arrival propagate separately for rising and falling edges (the slower of all arcs, as in
OpenSTA); a net's load is its pins' capacitance, the library's default wire load for its fan-out, and a stated load
on output ports. The clock is ideal with a stated slew, behind clock gates too, whose enables are end points. Every
input is driven by a stated flip-flop of the library, clocked by the same clock: a systolic cell's inputs are its
neighbour's registers, so an in-to-register path is a register-to-register path of the array and counts in full.
Outputs of the module are not endpoints (they are the neighbour's in-to-register paths).
Not modelled: placement, wire resistance, clock skew, process variation, glitches, false paths.
Fidelity: within 5 % of OpenSTA 2.0.17 on the tests' designs (tests/rtl/asic/test_timing.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.liberty import Cell, Library, TimingArc
from bitwright.rtl.asic.netlist import CONSTANT_NETS, Netlist

RISE, FALL = 0, 1
_DELAY = ("cell_rise", "cell_fall")
_SLEW = ("rise_transition", "fall_transition")
_CONSTRAINT = ("rise_constraint", "fall_constraint")
_NEVER = float("-inf")


@dataclass(frozen=True)
class Conditions:
    """What surrounds a design in timing and power.

    clock_slew_ns    Slew of the ideal clock at every flip-flop.
    input_cell       Flip-flop that drives each input net ("" = inputs switch at time 0 with input_slew_ns).
    input_slew_ns    Slew of the inputs when there is no input_cell.
    output_load_ff   Capacitance beyond each output port.
    """

    clock_slew_ns: float = 0.04
    input_cell: str = "DFF_X1"
    input_slew_ns: float = 0.04
    output_load_ff: float = 3.9


@dataclass(frozen=True)
class Timing:
    """The result. Path delays are in ns; `slew_ns[net]` is the worse of the two edges, `load_ff[net]` the load.

    min_period_ns    Smallest clock period with no negative setup slack.
    critical_path    Net-driving cells of the worst path, launch to capture.
    path_instances   Their instances; "" for the register at an input.
    """

    min_period_ns: float
    critical_path: tuple[str, ...]
    path_instances: tuple[str, ...]
    slew_ns: tuple[float, ...]
    load_ff: tuple[float, ...]

    @property
    def fmax_mhz(self) -> float:
        """1000 / min_period_ns."""
        return 1e3 / self.min_period_ns


def clock_pin(cell: Cell) -> str:
    """The pin of a flip-flop or a clock gate that takes the clock; "" of other cells."""
    if cell.ff is not None:
        return cell.ff.clocked_on
    return cell.gate.clock if cell.gate is not None else ""


def net_loads(netlist: Netlist, library: Library, output_load_ff: float) -> tuple[list[float], list[float]]:
    """For each net (own, total) capacitance in fF.

    own counts the sink pins inside the design and the wire to them; total is what the driver sees: on output nets also
    output_load_ff and the wire to the port, which counts as one sink more.
    """
    own, total = [0.0] * netlist.nets, [0.0] * netlist.nets
    sinks = netlist.sinks(library)
    wire = library.wire_load.capacitance_ff
    for net in sinks.keys() | netlist.output_nets:
        pins = sinks.get(net, [])
        pins_ff = sum(library.cell(netlist.instances[i].cell).pins[pin].capacitance_ff for i, pin in pins)
        is_output = net in netlist.output_nets
        own[net] = pins_ff + wire(len(pins))
        total[net] = pins_ff + wire(len(pins) + is_output) + output_load_ff * is_output
    return own, total


def levelise(netlist: Netlist, library: Library) -> list[tuple[int, ...]]:
    """Combinational instances by logic level, each level in instance order; flip-flops are left out.

    Raises ConfigError for a combinational loop.
    """
    drivers: dict[int, int] = {}
    waiting: dict[int, int] = {}
    for index, instance in enumerate(netlist.instances):
        cell = library.cell(instance.cell)
        if cell.ff is None:
            for pin in cell.outputs:
                if pin.name in instance.pins:
                    drivers[instance.pins[pin.name]] = index
    users: dict[int, list[int]] = {}
    for index, instance in enumerate(netlist.instances):
        cell = library.cell(instance.cell)
        if cell.ff is None:
            nets = [instance.pins[pin.name] for pin in cell.inputs if pin.name in instance.pins]
            waiting[index] = sum(net in drivers for net in nets)
            for net in nets:
                if net in drivers:
                    users.setdefault(drivers[net], []).append(index)
    levels: list[tuple[int, ...]] = []
    ready = sorted(index for index, count in waiting.items() if count == 0)
    done = 0
    while ready:
        levels.append(tuple(ready))
        done += len(ready)
        following: set[int] = set()
        for index in ready:
            for user in users.get(index, ()):
                waiting[user] -= 1
                if waiting[user] == 0:
                    following.add(user)
        ready = sorted(following)
    if done != len(waiting):
        raise ConfigError(f"module {netlist.name}: {len(waiting) - done} cells are in a combinational loop")
    return levels


class _Graph:
    """Arrival time and slew of both edges of every net, and where each came from."""

    def __init__(self, nets: int) -> None:
        self.arrival = [[_NEVER, _NEVER] for _ in range(nets)]
        self.slew = [[0.0, 0.0] for _ in range(nets)]
        self.origin: list[list[tuple[int, int, int] | None]] = [[None, None] for _ in range(nets)]

    def update(self, net: int, edge: int, arrival: float, slew: float, origin: tuple[int, int, int] | None) -> None:
        """Keep the later arrival (with its origin) and, separately, the slower slew."""
        if arrival > self.arrival[net][edge]:
            self.arrival[net][edge] = arrival
            self.origin[net][edge] = origin
        self.slew[net][edge] = max(self.slew[net][edge], slew)


def analyse(
    netlist: Netlist, library: Library, conditions: Conditions | None = None, *, ideal: Collection[str] = ()
) -> Timing:
    """Time every register-to-register and input-to-register path.

    ideal   Input ports that no path begins at: those of nets that are built as trees like the clock's (a reset).
    Raises ConfigError for a combinational loop, a cell without timing, or a design without a flip-flop.
    """
    conditions = conditions or Conditions()
    _, loads = net_loads(netlist, library, conditions.output_load_ff)
    graph = _Graph(netlist.nets)
    _launch_inputs(graph, netlist, library, loads, conditions, ideal)
    for index, instance in enumerate(netlist.instances):
        cell = library.cell(instance.cell)
        if cell.ff is not None:
            for pin in cell.outputs:
                if pin.name in instance.pins:
                    net = instance.pins[pin.name]
                    _launch(graph, net, cell, pin.name, loads[net], conditions.clock_slew_ns, index)
    for level in levelise(netlist, library):
        for index in level:
            _propagate(graph, netlist, library, loads, index)
    worst, end = _capture(graph, netlist, library, conditions.clock_slew_ns)
    slews = tuple(max(pair) for pair in graph.slew)
    cells, instances = _trace(graph, netlist, end)
    return Timing(worst, cells, instances, slews, tuple(loads))


def _launch_inputs(
    graph: _Graph,
    netlist: Netlist,
    library: Library,
    loads: list[float],
    conditions: Conditions,
    ideal: Collection[str],
) -> None:
    clocks = {instance.pins[pin] for instance in netlist.instances if (pin := clock_pin(library.cell(instance.cell)))}
    quiet = {net for name in ideal for net in netlist.ports[name].nets}
    for net in sorted(netlist.input_nets - clocks - quiet):
        if net < CONSTANT_NETS:
            continue
        if conditions.input_cell:
            driver = library.cell(conditions.input_cell)
            true_output = next(
                pin.name
                for pin in driver.outputs
                if pin.function is not None and driver.ff is not None and pin.function.text == driver.ff.state
            )
            _launch(graph, net, driver, true_output, loads[net], conditions.clock_slew_ns, -1)
        else:
            for edge in (RISE, FALL):
                graph.update(net, edge, 0.0, conditions.input_slew_ns, None)


def _launch(graph: _Graph, net: int, cell: Cell, pin: str, load: float, clock_slew: float, index: int) -> None:
    """Clock edge to flip-flop output. `index` -1 marks the register outside an input port."""
    for arc in cell.pins[pin].timing:
        if arc.kind in ("rising_edge", "falling_edge"):
            for edge in (RISE, FALL):
                if _DELAY[edge] in arc.tables:
                    delay = arc.tables[_DELAY[edge]].at(clock_slew, load)
                    slew = arc.tables[_SLEW[edge]].at(clock_slew, load)
                    graph.update(net, edge, delay, slew, (index, -1, edge))


def _edges(arc: TimingArc) -> tuple[tuple[int, int], ...]:
    """(input edge, output edge) pairs of an arc."""
    if arc.sense == "positive_unate":
        return ((RISE, RISE), (FALL, FALL))
    if arc.sense == "negative_unate":
        return ((RISE, FALL), (FALL, RISE))
    return ((RISE, RISE), (RISE, FALL), (FALL, RISE), (FALL, FALL))


def _propagate(graph: _Graph, netlist: Netlist, library: Library, loads: list[float], index: int) -> None:
    instance = netlist.instances[index]
    for pin in library.cell(instance.cell).outputs:
        net = instance.pins.get(pin.name)
        if net is None:
            continue
        load = loads[net]
        for arc in pin.timing:
            source = instance.pins.get(arc.related, 0)
            if source < CONSTANT_NETS or _DELAY[RISE] not in arc.tables:
                continue
            for before, after in _edges(arc):
                start = graph.arrival[source][before]
                if start == _NEVER:
                    continue
                slew_in = graph.slew[source][before]
                delay = arc.tables[_DELAY[after]].at(slew_in, load)
                slew = arc.tables[_SLEW[after]].at(slew_in, load)
                graph.update(net, after, start + delay, slew, (index, source, before))


def _capture(graph: _Graph, netlist: Netlist, library: Library, clock_slew: float) -> tuple[float, tuple[int, int]]:
    """The smallest period, and the (net, edge) that sets it."""
    worst, end = _NEVER, (0, RISE)
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        if not clock_pin(cell):
            continue
        for pin in cell.inputs:
            net = instance.pins.get(pin.name, 0)
            for arc in pin.timing:
                if not arc.kind.startswith("setup"):
                    continue
                for edge in (RISE, FALL):
                    arrival = graph.arrival[net][edge]
                    if arrival == _NEVER or _CONSTRAINT[edge] not in arc.tables:
                        continue
                    need = arrival + arc.tables[_CONSTRAINT[edge]].at(graph.slew[net][edge], clock_slew)
                    if need > worst:
                        worst, end = need, (net, edge)
    if worst == _NEVER:
        raise ConfigError(f"module {netlist.name}: no path ends at a flip-flop")
    return worst, end


def _trace(graph: _Graph, netlist: Netlist, end: tuple[int, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    instances: list[str] = []
    net, edge = end
    while (origin := graph.origin[net][edge]) is not None:
        index, source, before = origin
        cell = netlist.instances[index].cell if index >= 0 else "input register"
        names.append(f"{cell} {'rise' if edge == RISE else 'fall'} {graph.arrival[net][edge]:.4f} ns")
        instances.append(netlist.instances[index].name if index >= 0 else "")
        if source < 0:
            break
        net, edge = source, before
    return tuple(reversed(names)), tuple(reversed(instances))
