"""Static timing: one path by hand from the tables, and whole cells against OpenSTA."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.rtl import pe as rtl_pe
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Instance, Netlist, Port
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, Timing, analyse, levelise, net_loads

CLK, D, Q1, N1, Q2 = 2, 3, 4, 5, 6
BY_SLEW = Conditions(input_cell="")
OpenStaPeriod = Callable[[Netlist, Library, Conditions], float]


def inverter_between_registers(extra: tuple[Instance, ...] = ()) -> Netlist:
    """d -> DFF -> INV -> DFF -> q."""
    ports = {
        "clk": Port("clk", False, (CLK,)),
        "d": Port("d", False, (D,)),
        "q": Port("q", True, (Q2,)),
    }
    instances = (
        Instance("first", "DFF_X1", {"CK": CLK, "D": D, "Q": Q1}),
        Instance("inv", "INV_X1", {"A": Q1, "ZN": N1}),
        Instance("second", "DFF_X1", {"CK": CLK, "D": N1, "Q": Q2}),
    )
    return Netlist("chain", ports, (*instances, *extra), 7)


def test_one_path_equals_the_tables_by_hand(nangate45: Library) -> None:
    conditions = Conditions(clock_slew_ns=0.03, input_cell="", input_slew_ns=0.01, output_load_ff=0.0)
    flip_flop, inverter = nangate45.cell("DFF_X1"), nangate45.cell("INV_X1")
    wire = nangate45.wire_load.capacitance_ff(1)
    load_q = inverter.pins["A"].capacitance_ff + wire
    load_n = flip_flop.pins["D"].capacitance_ff + wire
    launch = next(arc for arc in flip_flop.pins["Q"].timing if arc.kind == "rising_edge").tables
    through = inverter.pins["ZN"].timing[0].tables
    setup = next(arc for arc in flip_flop.pins["D"].timing if arc.kind == "setup_rising").tables
    periods = []
    for first, then in (("rise", "fall"), ("fall", "rise")):
        slew_q = launch[f"{first}_transition"].at(0.03, load_q)
        slew_n = through[f"{then}_transition"].at(slew_q, load_n)
        delays = (launch[f"cell_{first}"].at(0.03, load_q), through[f"cell_{then}"].at(slew_q, load_n))
        periods.append(sum(delays) + setup[f"{then}_constraint"].at(slew_n, 0.03))
    found = analyse(inverter_between_registers(), nangate45, conditions)
    assert found.min_period_ns == pytest.approx(max(periods), rel=1e-12)
    assert found.fmax_mhz == pytest.approx(1e3 / max(periods))
    assert [step.split()[0] for step in found.critical_path] == ["DFF_X1", "INV_X1"]


def test_a_registered_neighbour_is_slower_than_an_input_at_time_zero(nangate45: Library) -> None:
    chain = inverter_between_registers()
    loads = net_loads(chain, nangate45, 0.0)[1]
    direct = Netlist("direct", chain.ports, chain.instances[:1], 7)
    launch = nangate45.cell("DFF_X1").pins["Q"].timing[0].tables
    slow = analyse(direct, nangate45, Conditions(output_load_ff=0.0)).min_period_ns
    assert slow > max(launch[f"cell_{edge}"].at(0.04, loads[D]) for edge in ("rise", "fall"))
    assert slow > analyse(direct, nangate45, Conditions(input_cell="", output_load_ff=0.0)).min_period_ns


def test_loads_count_pins_wire_and_port(nangate45: Library) -> None:
    own, total = net_loads(inverter_between_registers(), nangate45, 3.9)
    wire = nangate45.wire_load.capacitance_ff
    assert own[CLK] == pytest.approx(2 * 0.949653 + wire(2))
    assert own[N1] == total[N1] == pytest.approx(1.140290 + wire(1))
    assert (own[Q2], total[Q2]) == pytest.approx((0.0, wire(1) + 3.9))


def test_loops_and_designs_without_registers_are_refused(nangate45: Library) -> None:
    loop = Netlist(
        "loop",
        {},
        (Instance("a", "INV_X1", {"A": 2, "ZN": 3}), Instance("b", "INV_X1", {"A": 3, "ZN": 2})),
        4,
    )
    with pytest.raises(ConfigError) as caught:
        levelise(loop, nangate45)
    assert str(caught.value) == "module loop: 2 cells are in a combinational loop"
    bare = Netlist("bare", {"a": Port("a", False, (2,))}, (Instance("a", "INV_X1", {"A": 2, "ZN": 3}),), 4)
    with pytest.raises(ConfigError) as caught:
        analyse(bare, nangate45)
    assert str(caught.value) == "module bare: no path ends at a flip-flop"


@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed (apt-get install opensta)")
@pytest.mark.parametrize("design", ["mac", "int8-mac/os", "shift-add/ws", "fp16-mac/ws"])
def test_period_is_within_5_percent_of_opensta(
    design: str, liberty: Path, nangate45: Library, mac_verilog: str, opensta_period_ns: OpenStaPeriod
) -> None:
    if design == "mac":
        made = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    else:
        pe, dataflow = design.split("/")
        text, top = rtl_pe.verilog(pe, dataflow), rtl_pe.module_name(pe, dataflow)
        made = synthesize_verilog(text, top, liberty, period_ps=4000)
    ours: Timing = analyse(made.netlist, nangate45, BY_SLEW)
    theirs = opensta_period_ns(made.netlist, nangate45, BY_SLEW)
    print(f"{design}: {ours.min_period_ns:.4f} ns, OpenSTA {theirs:.4f} ns")
    assert ours.min_period_ns == pytest.approx(theirs, rel=0.05)
