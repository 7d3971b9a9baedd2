"""Buffer trees: every sink is reached once, through buffers only, and no net stays too heavy."""

from __future__ import annotations

import pytest
from bitwright.rtl.asic.clock_tree import SINKS
from bitwright.rtl.asic.fanout import buffered
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Instance, Netlist, Port
from bitwright.rtl.asic.timing import Conditions, analyse

CLK, RST, D, Q = 2, 3, 4, 5
FIRST_SINK = 6


def one_register_and(sinks: int) -> Netlist:
    """d -> DFF -> `sinks` registers; `rst` goes to as many inverters, the clock to every register."""
    ports = {name: Port(name, False, (net,)) for name, net in (("clk", CLK), ("rst", RST), ("d", D))}
    made = [Instance("source", "DFF_X1", {"CK": CLK, "D": D, "Q": Q})]
    made += [Instance(f"sink{i}", "DFF_X1", {"CK": CLK, "D": Q, "Q": FIRST_SINK + 2 * i}) for i in range(sinks)]
    made += [Instance(f"inv{i}", "INV_X1", {"A": RST, "ZN": FIRST_SINK + 2 * i + 1}) for i in range(sinks)]
    return Netlist("wide", ports, tuple(made), FIRST_SINK + 2 * sinks)


@pytest.mark.parametrize("sinks", [100, SINKS * SINKS, SINKS * SINKS + 1, 1500])
def test_every_sink_hangs_on_the_driver_by_buffers_only(nangate45: Library, sinks: int) -> None:
    before = one_register_and(sinks)
    after, trees = buffered(before, nangate45, Conditions(), ideal=("rst",))
    assert after.instances[len(before.instances) :] == trees
    (cell,) = (nangate45.cell(name) for name in {buffer.cell for buffer in trees})
    out, into = cell.outputs[0].name, cell.inputs[0].name
    above = {buffer.pins[out]: buffer.pins[into] for buffer in trees}
    depths = set()
    for old, new in zip(before.instances, after.instances, strict=False):
        changed = {pin for pin in old.pins if old.pins[pin] != new.pins[pin]}
        assert (old.name, old.cell) == (new.name, new.cell)
        assert changed == ({"D"} if old.name.startswith("sink") else set()), "only heavy nets move, and only inputs"
        net, depth = new.pins.get("D", Q), 0
        while net in above:
            net, depth = above[net], depth + 1
        if old.name.startswith("sink"):
            assert net == Q
            depths.add(depth)
    assert depths == {1} if sinks <= SINKS * SINKS else depths == {2}
    assert max(len(users) for net, users in after.sinks(nangate45).items() if net not in (CLK, RST)) == SINKS
    slow, fast = (analyse(netlist, nangate45, ideal=("rst",)).min_period_ns for netlist in (before, after))
    assert fast < slow / 2
    assert buffered(after, nangate45, Conditions(), ideal=("rst",)) == (after, ())


def test_a_net_that_its_driver_carries_is_left_alone(nangate45: Library) -> None:
    netlist = one_register_and(SINKS + 4)
    assert buffered(netlist, nangate45, Conditions(), ideal=("rst",)) == (netlist, ())
