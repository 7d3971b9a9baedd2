"""Clock gates: a register behind one by hand, in values, energy and timing; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.rtl import synthesize
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.choice import chosen
from bitwright.rtl.asic.clock_tree import SINKS, clock_tree, gated_trees
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Instance, Netlist, Port
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, Timing, analyse

CLK, E, D, GCK, Q, QN = range(2, 8)
HELD = """
module held(input clk, input en, input [19:0] d, output reg [19:0] q, output reg [2:0] r);
  always @(posedge clk) begin if (en) q <= d; r <= d[2:0]; end
endmodule
"""


def one_register() -> Netlist:
    ports = {"clk": Port("clk", False, (CLK,)), "e": Port("e", False, (E,)), "d": Port("d", False, (D,))}
    ports["q"] = Port("q", True, (Q,))
    instances = (
        Instance("gate", "CLKGATE_X1", {"CK": CLK, "E": E, "GCK": GCK}),
        Instance("register", "DFF_X1", {"CK": GCK, "D": D, "Q": Q, "QN": QN}),
    )
    return Netlist("one", ports, instances, 8)


def test_a_register_behind_a_gate_takes_its_input_when_enabled_and_costs_what_the_tables_say(
    nangate45: Library,
) -> None:
    netlist, slew, load = one_register(), 0.02, 5.0
    stimulus = {"e": np.array([0, 0, 1, 0, 0, 1, 0])[:, None], "d": np.array([1, 1, 1, 0, 0, 0, 0])[:, None]}
    activity = NetlistSimulator(netlist, nangate45).run(stimulus, bins=[-1] + [0] * 6, record=["q"])
    assert activity.outputs["q"][:, 0].tolist() == [0, 0, 0, 1, 1, 1, 0]
    assert activity.enabled[0].tolist() == [2 * 64]
    timing = Timing(1.0, (), (), (slew,) * 8, (load,) * 8)
    conditions = Conditions(clock_slew_ns=0.03)
    found = PowerModel(netlist, nangate45, timing, conditions).energy(activity)
    gate, register = nangate45.cell("CLKGATE_X1").pins, nangate45.cell("DFF_X1").pins
    volt2 = 1.1**2
    through = [arc for arc in gate["GCK"].power if arc.related == "CK"]
    expected = 6 * volt2 * gate["CK"].capacitance_ff + 2 * volt2 * register["CK"].capacitance_ff
    expected += 2 * sum(arc.rise.at(0.03, load) + arc.fall.at(0.03, load) for arc in through) / len(through)
    closed = next(arc for arc in gate["CK"].power if arc.when is not None and arc.when.at(E=False, GCK=False))
    expected += 4 * (closed.rise.at(0.03) + closed.fall.at(0.03))
    enable = [arc.rise.at(slew) + arc.fall.at(slew) for arc in gate["E"].power]
    expected += 4 * sum(enable) / len(enable) / 2
    for state, following, data in ((False, True, True), (True, False, False)):  # the two edges that pass
        for edge, q in (("rise", state), ("fall", following)):
            # the falling edge sees the data of its own cycle, which has moved on at neither
            pins = {"D": data, "Q": q, "QN": not q}
            if (edge, state) == ("fall", False):
                pins["D"] = False  # d fell in the cycle in which q rose
            arc = next(arc for arc in register["CK"].power if arc.when is not None and arc.when.at(**pins))
            expected += (arc.rise if edge == "rise" else arc.fall).at(0.03)
    assert found.clock_pj == pytest.approx(expected / 6 / 1e3)


def test_gating_holds_the_same_values_and_stops_the_clock(liberty: Path, nangate45: Library) -> None:
    rng = np.random.default_rng(1)
    stimulus = {"en": rng.integers(0, 2, (40, 64)), "d": rng.integers(0, 1 << 20, (40, 64))}
    runs, clocks = [], []
    for gating in (False, True):
        made = synthesize_verilog(HELD, "held", liberty, period_ps=4000, clock_gating=gating)
        activity = NetlistSimulator(made.netlist, nangate45).run(stimulus, bins=[0] * 40, record=["q", "r"])
        timing = analyse(made.netlist, nangate45)
        runs.append(activity)
        clocks.append(PowerModel(made.netlist, nangate45, timing).energy(activity).clock_pj)
    for name in ("q", "r"):
        assert (runs[0].outputs[name] == runs[1].outputs[name]).all()
    assert runs[1].enabled[0].tolist() == [int(stimulus["en"][:-1].sum())]
    assert clocks[1] < 0.7 * clocks[0]


def test_the_trees_of_a_gated_netlist(liberty: Path, nangate45: Library) -> None:
    made = synthesize_verilog(HELD, "held", liberty, period_ps=4000, clock_gating=True)
    above, below = gated_trees(made.netlist, nangate45, Conditions())
    pin_ff = nangate45.cell("DFF_X1").pins["CK"].capacitance_ff
    gate_ff = nangate45.cell("CLKGATE_X1").pins["CK"].capacitance_ff
    assert above == clock_tree(4, (3 * pin_ff + gate_ff) / 4, nangate45, Conditions())
    assert below == [clock_tree(20, pin_ff, nangate45, Conditions())]
    assert SINKS < 20


def test_the_enable_is_an_end_point(nangate45: Library) -> None:
    conditions = Conditions()
    found = analyse(one_register(), nangate45, conditions)
    launch = next(arc for arc in nangate45.cell("DFF_X1").pins["Q"].timing if arc.kind == "rising_edge").tables
    setup = next(arc for arc in nangate45.cell("CLKGATE_X1").pins["E"].timing if arc.kind == "setup_rising").tables
    load = found.load_ff[E]
    need = max(
        launch[f"cell_{edge}"].at(0.04, load)
        + setup[f"{edge}_constraint"].at(launch[f"{edge}_transition"].at(0.04, load), 0.04)
        for edge in ("rise", "fall")
    )
    assert found.min_period_ns >= need
    assert chosen(nangate45).clock_gate == "CLKGATE_X1"


def test_refusals(liberty: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        synthesize("int8-4x4", clock_gating=True)
    assert str(caught.value) == "int8-4x4 clock gating: is for PEs (leave the option out)"
    path = tmp_path / "gateless.lib"
    path.write_text(liberty.read_text().replace("clock_gating_integrated_cell", "user_attribute"))
    with pytest.raises(ConfigError) as caught:
        synthesize_verilog(HELD, "held", path, period_ps=4000, clock_gating=True)
    assert str(caught.value) == ("clock gating: gateless.lib has no clock gate for rising edges (leave the option out)")
