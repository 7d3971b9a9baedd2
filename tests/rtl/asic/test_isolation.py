"""Operand isolation: the same values, and no logic that moves for the operands of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import FIRST, LAST, StreamSpec
from bitwright.rtl import pe as rtl_pe
from bitwright.rtl import synthesize
from bitwright.rtl.asic import cells, stream_stimulus
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.stimulus import IDLE, PASS
from bitwright.rtl.asic.synthesis import Synthesis, synthesize_verilog
from bitwright.rtl.bench.stream import bulk, netlists, traces
from bitwright.rtl.bench.verilator import Compiled, lint

NEIGHBOUR = stream_stimulus.MOVING_CYCLES


def mapped(name: str, liberty: Path, *, isolation: bool, gating: bool = False) -> Synthesis:
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec | BitSerial)
    text = cells.stream_verilog(spec, operand_isolation=isolation)
    return synthesize_verilog(text, spec.module_stem, liberty, period_ps=4000, clock_gating=gating)


@pytest.mark.parametrize("name", ["int8-mac", "opt3", "bit-serial"])
def test_the_wrapper_has_the_ports_of_the_pe(name: str) -> None:
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec | BitSerial)
    plain, wrapped = (cells.stream_verilog(spec, operand_isolation=on) for on in (False, True))

    def ports(text: str) -> set[str]:
        own = text[text.index(f"module {spec.module_stem}(") :]
        lines = (line.split() for line in own.splitlines() if line.strip().startswith(("input", "output")))
        return {" ".join(one).replace("[0:0] ", "") for one in lines}

    assert ports(wrapped) == ports(plain)
    assert lint(wrapped, spec.module_stem) == []


@pytest.mark.parametrize("name", ["shift-add", "int8-mac:pipeline=1", "opt3"])
def test_an_isolated_netlist_makes_the_golden_sums_with_and_without_stalls(
    name: str, liberty: Path, nangate45: Library
) -> None:
    """The bench that the PE's own netlist passes. With stalls only PEs whose steps take one cycle: of the others,
    step.ready depends on a payload that isolation hides while it is not on offer."""
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec)
    text = netlists.with_models(mapped(name, liberty, isolation=True), nangate45)
    design = Compiled(text, spec.module_stem)
    counts = bulk.NONE
    for part in traces.bulk_steps(spec, 2_000, 1, real=False):
        counts += bulk.check(spec, part, design=design, seed=1)
    assert counts.steps > 2_000
    assert counts.sums > 200
    if name != "opt3":
        traces.Player(spec, design, traces.stalled(spec, 3_000, 1)).require(seed=1)


@pytest.mark.parametrize("name", ["int8-mac", "opt3", "int8-mac:pipeline=1"])
def test_a_neighbours_operands_pass_by_rule(name: str, liberty: Path, nangate45: Library) -> None:
    """Every step that was on offer is taken, its sum stays until it is taken, then the PE has nothing; golden sums."""
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec)
    stimulus = stream_stimulus.moving_stimulus(spec)
    simulator = NetlistSimulator(mapped(name, liberty, isolation=True).netlist, nangate45)
    run = simulator.run(stimulus.ports, bins=stimulus.bins, record=["step__ready", "sum__valid", "sum__payload"])
    bins, offered = np.array(stimulus.bins), stimulus.ports["step__valid"] == 1
    taken, valid = offered & (run.outputs["step__ready"] == 1), run.outputs["sum__valid"] == 1
    lanes = np.arange(stream_stimulus.LANES)
    ends = offered.sum(axis=0)
    assert offered[1 : ends.min() + 1].all()
    assert not offered[ends.max() + 1 :].any()
    assert taken[ends, lanes].all()
    assert valid[bins == PASS].all()
    assert not valid[bins == IDLE].any()
    payload = stimulus.ports["step__payload"]
    held = offered[:-1] & ~taken[:-1] & offered[1:]
    assert (payload[1:][held] == payload[:-1][held]).all()
    for kind in (PASS, IDLE):
        at = np.flatnonzero(bins == kind)
        assert len(at) == NEIGHBOUR
        moved = (payload[at[0] + 1 : at[-1] + 1] != payload[at[0] : at[-1]]).mean()
        assert 0.05 < moved < 0.6, (kind, moved)
    shown = valid & (stimulus.ports["sum__ready"] == 1)
    steps = stream_stimulus._steps(spec, stream_stimulus.LANES * 208, random=False)
    for lane in (0, 17, 63):
        own = {key: np.array(values[208 * lane : 208 * lane + taken[:, lane].sum()]) for key, values in steps.items()}
        own[FIRST][0], own[LAST][-1] = 1, 1  # a lane may begin inside a sum, from registers that are all 0
        golden = next(iter(spec.sums(own).values()))
        found = run.outputs["sum__payload"][shown[:, lane], lane].astype(np.int64)
        assert len(golden) > 0
        assert found.tolist() == (golden % (1 << spec.sum_fields[0].bits)).tolist(), lane


@pytest.mark.parametrize(("name", "gating"), [("int8-mac", False), ("int8-mac", True), ("shift-add", False)])
def test_next_to_no_logic_moves_for_a_neighbour(name: str, gating: bool, liberty: Path, nangate45: Library) -> None:
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec)
    stimulus = stream_stimulus.moving_stimulus(spec)
    moving = []
    for isolation in (False, True):
        netlist = mapped(name, liberty, isolation=isolation, gating=gating).netlist
        run = NetlistSimulator(netlist, nangate45).run(stimulus.ports, bins=stimulus.bins)
        wires = set(netlist.ports["step__payload"].nets)
        for kind in (PASS, IDLE):
            moving.append(set(np.flatnonzero(run.rises[kind] + run.falls[kind]).tolist()) - wires)
    for plain, isolated in zip(moving[:2], moving[2:], strict=True):
        assert len(plain) > 50
        assert len(isolated) < 2 * len(wires)  # mapping may put an inverter before an AND gate
        assert len(isolated) < 0.1 * len(plain)


def test_an_isolated_cell_saves_what_passes_and_says_so(liberty: Path) -> None:
    """Output-stationary: a weight for another row in every cycle. Weight-stationary: the sums of the rows above."""
    assert liberty.is_file()
    for dataflow in ("ws", "os"):
        plain, isolated = (synthesize("int8-mac", dataflow=dataflow, operand_isolation=on) for on in (False, True))
        assert (plain["operand_isolation"], isolated["operand_isolation"]) == (False, True)
        assert isolated["pass_energy_pj"] < 0.9 * plain["pass_energy_pj"], dataflow
        assert isolated["energy_pj_per_mac"] < 1.2 * plain["energy_pj_per_mac"], dataflow
        assert isolated["rtl_sha256"] != plain["rtl_sha256"]


def test_a_machine_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        synthesize("int8-4x4", operand_isolation=True)
    assert str(caught.value) == "int8-4x4 operand isolation: is for PEs (leave the option out)"


@pytest.mark.parametrize(("name", "dataflow"), [("int8-mac", "ws"), ("int8-mac", "os"), ("shift-add", "ws")])
def test_an_isolated_cell_does_what_the_cell_does(name: str, dataflow: str) -> None:
    """Every output in 5,000 cycles of random operands and controls."""
    top = rtl_pe.module_name(name, dataflow)
    rng, cycles, seen = np.random.default_rng(1), 5_000, []
    inputs: dict[str, np.ndarray] = {}
    for on in (False, True):
        design = Compiled(rtl_pe.verilog(name, dataflow, operand_isolation=on), top)
        for port in design.inputs.values():
            if port.name not in inputs:
                inputs[port.name] = rng.integers(0, 1 << port.bits, cycles, dtype=np.uint64)
        inputs["rst"] = (np.arange(cycles) < 2).astype(np.uint64)
        with design.open() as running:
            seen.append(running.run(inputs, cycles))
    assert seen[0].keys() == seen[1].keys()
    for port, values in seen[0].items():
        assert (values[100:] == seen[1][port][100:]).all(), port
