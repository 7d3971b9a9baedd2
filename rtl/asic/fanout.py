"""Buffer trees on the nets of a netlist that its drivers cannot carry.

ABC buffers inside a module and does not see what a net meets beyond its border: one register may enable a thousand PEs.
Such a net, one whose load is beyond the delay table of its driver (the library's own limit), gets a balanced tree of
the buffer that the clock tree would take, SINKS of them or of its sinks on each.
Not modelled: placement, which would group the sinks by distance; a path whose sink might stand nearer to the root.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from bitwright.rtl.asic.clock_tree import SINKS, tree_buffer
from bitwright.rtl.asic.liberty import Library, Pin
from bitwright.rtl.asic.netlist import CONSTANT_NETS, Instance, Netlist
from bitwright.rtl.asic.timing import Conditions, net_loads


def buffered(
    netlist: Netlist, library: Library, conditions: Conditions, ideal: Collection[str] = ()
) -> tuple[Netlist, tuple[Instance, ...]]:
    """The netlist with the trees in it, and their buffers.

    ideal   Input ports whose nets are left alone, as `timing.analyse` does; nets of clocks are left alone too.
    """
    _, loads = net_loads(netlist, library, conditions.output_load_ff)
    quiet = {net for name in ideal for net in netlist.ports[name].nets}
    carried: dict[int, float] = {}
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        if cell.ff is not None:
            quiet.add(instance.pins[cell.ff.clocked_on])
        carried |= {instance.pins[pin.name]: _most_ff(pin) for pin in cell.outputs if pin.name in instance.pins}
    heavy = {net for net, most in carried.items() if net >= CONSTANT_NETS and net not in quiet and loads[net] > most}
    sinks = {net: pins for net, pins in netlist.sinks(library).items() if net in heavy and len(pins) > SINKS}
    if not sinks:
        return netlist, ()
    pins = [dict(instance.pins) for instance in netlist.instances]
    made: list[Instance] = []
    nets = netlist.nets
    pin_ff = sum(loads[net] for net in sinks) / sum(map(len, sinks.values()))
    buffer = tree_buffer(library, pin_ff, conditions)
    given, taken = buffer.outputs[0].name, buffer.inputs[0].name
    for net, users in sorted(sinks.items()):
        ends = [(pins[index], pin) for index, pin in users]
        while len(ends) > SINKS:
            level = []
            for first in range(0, len(ends), SINKS):
                for holder, pin in ends[first : first + SINKS]:
                    holder[pin] = nets
                own = {given: nets, taken: net}
                made.append(Instance(f"tree.{net}.{len(made)}", buffer.name, own))
                level.append((own, taken))
                nets += 1
            ends = level
    instances = (*(replace(one, pins=own) for one, own in zip(netlist.instances, pins, strict=True)), *made)
    return replace(netlist, instances=instances, nets=nets), tuple(made)


def _most_ff(pin: Pin) -> float:
    """The largest load in the pin's delay tables; of one without tables none is too large."""
    ends = [table.other[-1] for arc in pin.timing for table in arc.tables.values() if table.other]
    return max(ends, default=float("inf"))
