"""Activity and energy: single cells against the Liberty tables by hand, conservation, zero activity, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.activity import Activity, NetlistSimulator
from bitwright.rtl.asic.clock_tree import clock_tree
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Instance, Netlist, Port
from bitwright.rtl.asic.power import Energy, PowerModel
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, Timing, analyse

VOLT2 = 1.1**2
SLEW, LOAD = 0.02, 5.0
CONDITIONS = Conditions(clock_slew_ns=0.03)


def one_cell(cell: str, pins: dict[str, int], inputs: dict[str, int], output: int) -> Netlist:
    """A cell alone; nets from 2."""
    ports = {name: Port(name, False, (net,)) for name, net in inputs.items()}
    ports["out"] = Port("out", True, (output,))
    return Netlist(cell, ports, (Instance("cell", cell, pins),), 2 + len(set(pins.values()) | set(inputs.values())))


def fixed_timing(netlist: Netlist) -> Timing:
    """Every net with the same slew and load, so that the tables can be read by hand."""
    return Timing(1.0, (), (), (SLEW,) * netlist.nets, (LOAD,) * netlist.nets)


def run(netlist: Netlist, library: Library, stimulus: dict[str, list[int]]) -> Energy:
    """Energy a lane and cycle; the first cycle only sets the state."""
    simulator = NetlistSimulator(netlist, library)
    ports = {name: np.array(values)[:, None] for name, values in stimulus.items()}
    cycles = len(next(iter(ports.values())))
    activity = simulator.run(ports, bins=[0] * cycles)
    assert activity.lane_cycles[0] == 64 * (cycles - 1)
    return PowerModel(netlist, library, fixed_timing(netlist), CONDITIONS).energy(activity)


def test_inverter_equals_its_tables(nangate45: Library) -> None:
    netlist = one_cell("INV_X1", {"A": 3, "ZN": 4}, {"clk": 2, "a": 3}, 4)
    energy = run(netlist, nangate45, {"a": [0, 1, 0, 1, 1]})
    pin, arc = nangate45.cell("INV_X1").pins["A"], nangate45.cell("INV_X1").pins["ZN"].power[0]
    wire = nangate45.wire_load.capacitance_ff(1)
    toggles_fj = 3 * 0.5 * VOLT2 * (pin.capacitance_ff + wire)
    logic_fj = 2 * arc.fall.at(SLEW, LOAD) + arc.rise.at(SLEW, LOAD)
    assert energy.wire_pj == pytest.approx(toggles_fj / 4 / 1e3)
    assert energy.logic_pj == pytest.approx(logic_fj / 4 / 1e3)
    assert (energy.register_pj, energy.clock_pj) == (0.0, 0.0)
    assert energy.total_pj == pytest.approx((toggles_fj + logic_fj) / 4 / 1e3)


def test_cells_side_by_side_charge_every_wire_once(nangate45: Library) -> None:
    """Two inverters of two modules, one driving the other, against both in one module."""
    ports = {"clk": Port("clk", False, (2,)), "a": Port("a", False, (3,)), "out": Port("out", True, (5,))}
    stages = tuple(Instance(f"i{net}", "INV_X1", {"A": net, "ZN": net + 1}) for net in (3, 4))
    together = run(Netlist("two", ports, stages, 6), nangate45, {"a": [0, 1, 0, 1, 1]})
    alone = one_cell("INV_X1", {"A": 3, "ZN": 4}, {"clk": 2, "a": 3}, 4)
    apart = [run(alone, nangate45, {"a": values}) for values in ([0, 1, 0, 1, 1], [1, 0, 1, 0, 0])]
    assert together.wire_pj == pytest.approx(sum(part.wire_pj for part in apart), rel=1e-12)
    assert together.total_pj == pytest.approx(sum(part.total_pj for part in apart), rel=1e-12)


def test_nand_charges_the_input_that_moved(nangate45: Library) -> None:
    netlist = one_cell("NAND2_X1", {"A1": 3, "A2": 4, "ZN": 5}, {"clk": 2, "a": 3, "b": 4}, 5)
    arcs = {arc.related: arc for arc in nangate45.cell("NAND2_X1").pins["ZN"].power}
    for moving, held, related in (("a", "b", "A1"), ("b", "a", "A2")):
        energy = run(netlist, nangate45, {moving: [0, 1, 0], held: [1, 1, 1]})
        expected = arcs[related].fall.at(SLEW, LOAD) + arcs[related].rise.at(SLEW, LOAD)
        assert energy.logic_pj == pytest.approx(expected / 2 / 1e3)
    still = run(netlist, nangate45, {"a": [0, 1, 0], "b": [0, 0, 0]})
    assert still.logic_pj == 0.0
    assert still.wire_pj > 0.0


def test_flip_flop_equals_its_tables(nangate45: Library) -> None:
    """d = 0 1 1 0 0: q rises in the third cycle and falls in the fifth."""
    netlist = one_cell("DFF_X1", {"CK": 2, "D": 3, "Q": 4, "QN": 5}, {"clk": 2, "d": 3}, 4)
    energy = run(netlist, nangate45, {"d": [0, 1, 1, 0, 0]})
    pins = nangate45.cell("DFF_X1").pins

    def hidden(pin: str, edge: str, **state: bool) -> float:
        arc = next(arc for arc in pins[pin].power if arc.when is not None and arc.when.at(**state))
        return (arc.rise if edge == "rise" else arc.fall).at(0.03 if pin == "CK" else SLEW)

    low, high = {"Q": False, "QN": True}, {"Q": True, "QN": False}
    rising = hidden("CK", "rise", D=False, **low) + hidden("CK", "rise", D=True, **low)
    rising += hidden("CK", "rise", D=True, **high) + hidden("CK", "rise", D=False, **high)
    falling = hidden("CK", "fall", D=True, **low) + hidden("CK", "fall", D=True, **high)
    falling += hidden("CK", "fall", D=False, **high) + hidden("CK", "fall", D=False, **low)
    data = hidden("D", "rise", CK=True, **low) + hidden("D", "fall", CK=True, **high)
    for name, first in (("Q", "rise"), ("QN", "fall")):
        arc = pins[name].power[0]
        data += arc.rise.at(0.03, LOAD) + arc.fall.at(0.03, LOAD)
        assert first in ("rise", "fall")
    clock = rising + falling + 4 * VOLT2 * pins["CK"].capacitance_ff
    assert energy.clock_pj == pytest.approx(clock / 4 / 1e3)
    assert energy.register_pj == pytest.approx(data / 4 / 1e3)
    assert energy.logic_pj == 0.0


def test_no_activity_leaves_the_clock_and_leakage(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    made = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    timing = analyse(made.netlist, nangate45)
    stimulus = {name: np.zeros((6, 1), np.int64) for name in ("rst", "en", "a", "w", "p")}
    activity = NetlistSimulator(made.netlist, nangate45).run(stimulus, bins=[-1, -1, 0, 0, 0, 0])
    energy = PowerModel(made.netlist, nangate45, timing).energy(activity)
    assert (energy.wire_pj, energy.logic_pj, energy.register_pj) == (0.0, 0.0, 0.0)
    pin = nangate45.cell("DFF_X1").pins["CK"]
    quiet = next(arc for arc in pin.power if arc.when is not None and arc.when.at(D=False, Q=False, QN=True))
    a_flip_flop = VOLT2 * pin.capacitance_ff + quiet.rise.at(0.04) + quiet.fall.at(0.04)
    assert energy.clock_pj == pytest.approx(made.area.sequential_cells * a_flip_flop / 1e3)
    leakage = sum(nangate45.cell(instance.cell).leakage_nw for instance in made.netlist.instances)
    assert made.netlist.leakage_uw(nangate45) == pytest.approx(leakage / 1e3)


def test_twice_the_toggles_are_twice_the_energy(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    """Of data nets alone, the clock as it was; and of all, the same cycles in half the time."""
    made = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    model = PowerModel(made.netlist, nangate45, analyse(made.netlist, nangate45))
    rng = np.random.default_rng(4)
    stimulus = {"rst": np.zeros((9, 1), np.int64), "en": np.ones((9, 1), np.int64)}
    stimulus |= {name: rng.integers(-128, 128, (9, 64)) for name in ("a", "w", "p")}
    once = NetlistSimulator(made.netlist, nangate45).run(stimulus, bins=[-1] + [0] * 8)
    clock = [[pin == "CK" for pin, _ in bank.arcs] for bank in once.flip_flops]

    def counted(data: int, clocks: int) -> Activity:
        banks = tuple(
            replace(bank, hidden_rise=bank.hidden_rise * times, hidden_fall=bank.hidden_fall * times)
            for bank, on_clock in zip(once.flip_flops, clock, strict=True)
            for times in [np.where(on_clock, clocks, data)[None, :, None]]
        )
        return replace(
            once,
            rises=data * once.rises,
            falls=data * once.falls,
            enabled=clocks * once.enabled,
            lane_cycles=clocks * once.lane_cycles,
            flip_flops=banks,
        )

    first, data, every = (model.energy(counted(*times)) for times in ((1, 1), (2, 1), (2, 2)))
    assert first.switching_pj > 0
    assert first.internal_pj > 0
    assert data.switching_pj == pytest.approx(2 * first.switching_pj, rel=1e-12)
    assert data.internal_pj == pytest.approx(2 * first.internal_pj, rel=1e-12)
    assert data.clock_pj == pytest.approx(first.clock_pj, rel=1e-12)
    assert every.total_pj == pytest.approx(first.total_pj, rel=1e-12)  # a cycle; there are twice as many
    assert first.total_pj == pytest.approx(first.switching_pj + first.internal_pj + first.clock_pj, rel=1e-12)


def test_a_clock_tree_by_hand(nangate45: Library) -> None:
    """33 flip-flops: 3 buffers of 11 and one above them."""
    conditions, pin_ff = Conditions(), 0.949653
    tree = clock_tree(33, pin_ff, nangate45, conditions)
    buffer = nangate45.cell("BUF_X2")
    assert (tree.buffer, tree.buffers, tree.area_um2) == ("BUF_X2", 4, 4 * buffer.area_um2)
    arc, wire = buffer.pins["Z"].power[0], nangate45.wire_load.capacitance_ff
    own = buffer.pins["A"].capacitance_ff
    charge = VOLT2 * (4 * own + 3 * wire(11) + wire(3))
    inside = [arc.rise.at(0.04, load) + arc.fall.at(0.04, load) for load in (11 * pin_ff + wire(11), 3 * own + wire(3))]
    assert tree.energy_pj == pytest.approx((charge + 3 * inside[0] + inside[1]) / 1e3, rel=1e-12)
    assert clock_tree(0, 1.0, nangate45, conditions).buffers == 0
    assert [clock_tree(n, pin_ff, nangate45, conditions).buffers for n in (1, 16, 17, 256, 257)] == [1, 1, 3, 17, 20]


def test_netlist_values_and_toggles_equal_a_plain_model(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    made = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    rng = np.random.default_rng(1)
    cycles, lanes = 40, 128
    a, w = rng.integers(-128, 128, (2, cycles, lanes))
    p = rng.integers(-(2**31), 2**31, (cycles, lanes))
    en = rng.integers(0, 2, (cycles, lanes))
    rst = (rng.random((cycles, lanes)) < 0.1).astype(np.int64)
    stimulus = {"rst": rst, "en": en, "a": a, "w": w, "p": p}
    bins = [0] * 20 + [1] * 20
    activity = NetlistSimulator(made.netlist, nangate45).run(stimulus, bins=bins, record=["q", "a_out"])
    x = y = q = a_out = np.zeros(lanes, np.int64)
    toggles = np.zeros(2, np.int64)
    for cycle in range(cycles):
        if cycle:
            was = q
            q = np.where(rst[cycle - 1], 0, np.where(en[cycle - 1], p[cycle - 1] + x * y, q)) % 2**32
            a_out, x, y = x, a[cycle - 1], w[cycle - 1]
            toggles[bins[cycle]] += np.bitwise_count((was ^ q).astype(np.uint64)).sum()
        assert (activity.outputs["q"][cycle] == q.astype(np.uint64)).all(), cycle
        assert (activity.outputs["a_out"][cycle] == (a_out % 256).astype(np.uint64)).all(), cycle
    nets = list(made.netlist.ports["q"].nets)
    found = (activity.rises[:, nets] + activity.falls[:, nets]).sum(axis=1)
    assert found[:2].tolist() == toggles.tolist()
    assert activity.lane_cycles.tolist() == [19 * lanes, 20 * lanes, 0]


def test_the_parts_sum_and_bins_conserve_energy(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    made = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    model = PowerModel(made.netlist, nangate45, analyse(made.netlist, nangate45))
    simulator = NetlistSimulator(made.netlist, nangate45)
    rng = np.random.default_rng(2)
    cycles, lanes = 33, 64
    stimulus = {"rst": np.zeros((cycles, 1), np.int64), "en": np.ones((cycles, 1), np.int64)}
    stimulus |= {name: rng.integers(-128, 128, (cycles, lanes)) for name in ("a", "w", "p")}
    split = simulator.run(stimulus, bins=[-1] + [0] * 16 + [1] * 16)
    whole = simulator.run(stimulus, bins=[-1] + [0] * 32)
    assert (split.rises[0] + split.rises[1] == whole.rises[0]).all()
    parts = [model.energy(split, chosen) for chosen in (0, 1)]
    together = model.energy(whole)
    assert sum(part.wire_pj for part in parts) / 2 == pytest.approx(together.wire_pj, rel=1e-12)
    assert sum(part.clock_pj for part in parts) / 2 == pytest.approx(together.clock_pj, rel=1e-12)
    assert sum(part.register_pj for part in parts) / 2 == pytest.approx(together.register_pj, rel=1e-12)
    assert sum(part.logic_pj for part in parts) / 2 == pytest.approx(together.logic_pj, rel=0.01)
    names = ("wire_pj", "logic_pj", "register_pj", "clock_pj")
    assert together.total_pj == pytest.approx(sum(getattr(together, name) for name in names))


def test_stimuli_side_by_side_count_as_alone(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    made = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    simulator = NetlistSimulator(made.netlist, nangate45)
    rng = np.random.default_rng(3)
    still = {"rst": np.zeros((12, 1), np.int64), "en": np.ones((12, 1), np.int64)}
    stimuli = [still | {name: rng.integers(-128, 128, (12, 128)) for name in ("a", "w", "p")} for _ in range(3)]
    bins = [-1] + [0] * 6 + [1] * 5
    together = simulator.run_many(stimuli, bins=bins, record=["q"])
    for stimulus, found in zip(stimuli, together, strict=True):
        alone = simulator.run(stimulus, bins=bins, record=["q"])
        assert (found.rises == alone.rises).all()
        assert (found.falls == alone.falls).all()
        assert (found.outputs["q"] == alone.outputs["q"]).all()
        for one, other in zip(found.flip_flops, alone.flip_flops, strict=True):
            assert (one.hidden_rise == other.hidden_rise).all()
            assert (one.hidden_fall == other.hidden_fall).all()


def test_stimuli_that_do_not_fit_are_refused(nangate45: Library) -> None:
    netlist = one_cell("INV_X1", {"A": 3, "ZN": 4}, {"clk": 2, "a": 3}, 4)
    simulator = NetlistSimulator(netlist, nangate45)
    cases = (
        ({}, "stimulus of INV_X1: missing ['a'], unknown []"),
        ({"a": np.zeros((2, 1), int), "b": np.zeros((2, 1), int)}, "stimulus of INV_X1: missing [], unknown ['b']"),
        ({"a": np.zeros((2, 65), int)}, "stimulus of INV_X1: 65 lanes: must be a multiple of 64"),
        ({"a": np.zeros((3, 64), int)}, "stimulus of INV_X1, port a: shape (3, 64), must be (2, 64) or (2, 1)"),
    )
    for stimulus, message in cases:
        with pytest.raises(ConfigError) as caught:
            simulator.run(stimulus, bins=[0, 0])
        assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        NetlistSimulator(netlist, nangate45, clock="clock")
    assert str(caught.value) == "clock = clock: module INV_X1 has no such port"
