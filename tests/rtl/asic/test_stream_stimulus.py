"""Streaming PEs under energy measurement: the netlist computes the golden sums while its toggles are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.pe.stream import FIRST, LAST
from bitwright.rtl.asic import cells, stream_stimulus
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.choice import surroundings
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import analyse
from bitwright.rtl.pe import streaming


@pytest.mark.parametrize(
    ("name", "random", "gating"),
    [("shift-add", False, False), ("opt3", True, False), ("opt3", False, False), ("opt3", False, True)],
)
def test_a_pe_works_without_a_pause_then_stands_still(
    name: str, random: bool, gating: bool, liberty: Path, nangate45: Library
) -> None:
    """Lane 0, from its first step on: sums in order, as many as fit; none more while it is stalled or idle."""
    spec = pe.stream(name)
    work = stream_stimulus.stream_work(spec, random=random)
    made = synthesize_verilog(streaming.verilog(spec), spec.module_stem, liberty, period_ps=4000, clock_gating=gating)
    assert gating == any(instance.cell == "CLKGATE_X1" for instance in made.netlist.instances)
    simulator = NetlistSimulator(made.netlist, nangate45)
    outputs = ["step__ready", "sum__valid", "sum__payload"]
    run = simulator.run(work.stimulus.ports, bins=work.stimulus.bins, record=outputs)
    ports, valid = work.stimulus.ports, run.outputs["sum__valid"][:, 0] == 1
    shown = valid & (ports["sum__ready"][:, 0] == 1)
    steps = stream_stimulus._steps(spec, stream_stimulus.LANES * 208, random=random)
    first_lane = {key: values[:208] for key, values in steps.items()}
    golden = next(iter(spec.sums(first_lane).values()))
    found = run.outputs["sum__payload"][shown, 0].astype(np.int64)
    bits = spec.sum_fields[0].bits
    whole = int(shown.sum()) - 1  # the last one shown is that of the step that waits, marked as the last
    assert (found[:whole] == golden[:whole] % (1 << bits)).all()
    taken = (run.outputs["step__ready"][:, 0] == 1) & (ports["step__valid"][:, 0] == 1)
    bins = np.array(work.stimulus.bins)
    assert taken[bins == ACTIVE].mean() == pytest.approx(1 / spec.step_cycles(first_lane).mean(), rel=0.1)
    assert not taken[bins == PASS].any()
    assert valid[bins == PASS].all()
    assert not valid[bins == IDLE].any()
    assert steps[FIRST][0] == 1
    assert steps[LAST].any()


def test_the_rate_counts_what_is_done_a_cycle() -> None:
    assert stream_stimulus.stream_work(pe.stream("int8-mac", lanes=4), random=True).macs_per_cycle == 4
    rate = stream_stimulus.stream_work(pe.stream("opt3"), random=False).macs_per_cycle
    assert rate == pytest.approx(1 / 2.53, rel=0.05)  # docs/pe-library.md: mean cycles of a step on SmolLM2


def test_figures_of_a_streaming_pe(liberty: Path) -> None:
    assert liberty.is_file()
    found = cells.synthesize_stream("shift-add:lanes=2", "nangate45", 250)
    assert found["area_um2"] == pytest.approx(found["combinational_um2"] + found["sequential_um2"], rel=1e-5)
    assert found["active_energy_pj"] == pytest.approx(2 * found["energy_pj_per_mac"], rel=1e-4)
    for kind in ("", "_random"):
        terms = found[f"terms_pj_per_mac{kind}"]
        assert set(terms) == {"switching", "internal", "clock_pins", "clock_tree", "leakage"}
        assert min(terms.values()) > 0
        assert sum(terms.values()) == pytest.approx(found[f"energy_pj_per_mac{kind}"], rel=1e-4)
    assert 2 * found["terms_pj_per_mac"]["leakage"] == pytest.approx(
        (found["leakage_uw"] + found["clock_tree_leakage_uw"]) / 250, rel=1e-4
    )
    still = [2 * found["terms_pj_per_mac"][term] for term in ("clock_tree", "leakage")]
    assert found["idle_energy_pj"] > sum(still)
    assert 0 < found["idle_energy_pj"] < found["active_energy_pj"]
    assert 0 < found["stalled_energy_pj"] < found["active_energy_pj"]
    assert found["meets_clock"]


def test_the_search_for_fmax_stops_when_nothing_is_gained() -> None:
    """A design that reaches 98 % of what it is sized for, up to 500 MHz."""
    asked: list[float] = []

    def once(clock_mhz: float) -> dict[str, float]:
        asked.append(clock_mhz)
        return {"clock_mhz": clock_mhz, "fmax_mhz": min(0.98 * clock_mhz, 500.0)}

    found = cells.fastest(once, 400.0)
    assert found == {"clock_mhz": 540.2, "fmax_mhz": 500.0}  # sized for what it reached it misses that too
    assert asked == [400.0, 431.2, 464.8, 501.1, 540.2, 550.0, 500.0]


def test_the_search_for_fmax_ends_with_a_clock_that_is_met() -> None:
    """A design that reaches all that it is sized for, up to 500.05 MHz."""
    found = cells.fastest(lambda clock_mhz: {"clock_mhz": clock_mhz, "fmax_mhz": min(clock_mhz, 500.05)}, 400.0)
    assert found == {"clock_mhz": 500.0, "fmax_mhz": 500.0}
    assert cells.fastest(lambda clock_mhz: {"clock_mhz": clock_mhz, "fmax_mhz": 500.0}, 400.0)["clock_mhz"] == 400.0


@pytest.mark.parametrize("name", ["int8-mac", "shift-add"])
def test_no_logic_moves_while_operands_are_held(name: str, liberty: Path, nangate45: Library) -> None:
    """So that operand isolation could save nothing of the stalled and idle cycles that are measured."""
    spec = pe.stream(name)
    made = synthesize_verilog(streaming.verilog(spec), spec.module_stem, liberty, period_ps=4000)
    stimulus = stream_stimulus.stream_work(spec, random=False).stimulus
    conditions = surroundings(nangate45)[1]
    run = NetlistSimulator(made.netlist, nangate45).run(stimulus.ports, bins=stimulus.bins)
    model = PowerModel(made.netlist, nangate45, analyse(made.netlist, nangate45, conditions), conditions)
    for kind in (PASS, IDLE):
        energy = model.energy(run, kind)
        assert (energy.switching_pj, energy.internal_pj) == (0, 0)
        assert energy.clock_pj > 0
    assert model.energy(run, ACTIVE).switching_pj > 0
