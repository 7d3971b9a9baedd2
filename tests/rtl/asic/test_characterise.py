"""Entries of the cost table: netlists that compute what the PE specs say, stimuli, the cache, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import pe as pe_specs
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import units
from bitwright.rtl import pe as rtl_pe
from bitwright.rtl.asic import characterise, costs, operands, stimulus, unit_stimulus
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.characterise import Builder
from bitwright.rtl.asic.entries import Entry, entries
from bitwright.rtl.asic.jsonout import rounded, write_json
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.synthesis import synthesize_verilog

CELLS = [(name, dataflow) for name in pe_specs.names() for dataflow in pe_specs.get(name).dataflows]


@pytest.fixture(scope="module")
def small_entry() -> Entry:
    """The fastest entry to build."""
    return entries("unit/weight-decoder/int4_asym")[0]


@pytest.mark.parametrize(("name", "dataflow"), CELLS)
def test_mapped_cells_compute_the_golden_sums(name: str, dataflow: str, liberty: Path, nangate45: Library) -> None:
    """Every partial sum and every drained result of a stimulus, from the netlist, bit for bit."""
    spec = pe_specs.get(name)
    top = rtl_pe.module_name(name, dataflow)
    made = synthesize_verilog(rtl_pe.verilog(name, dataflow), top, liberty, period_ps=4000)
    given = stimulus.cell_stimulus(spec, dataflow, spec.wgt.name, random=True)
    output = "psum_out" if dataflow == "ws" else "drain_out"
    run = NetlistSimulator(made.netlist, nangate45).run(given.ports, bins=given.bins, record=[output])
    shape = (-1, operands.sample().acts.shape[0], stimulus.COLUMNS, stimulus.ARRAY_ROWS)
    found = run.outputs[output].reshape(shape)
    mask = np.uint64((1 << spec.psum.bits) - 1)
    port = given.ports["psum_in" if dataflow == "ws" else "drain_in"]
    expected = (port.astype(np.uint64) & mask).reshape(shape)
    if dataflow == "ws":
        active = slice(1 + stimulus.ARRAY_ROWS, 1 + stimulus.ARRAY_ROWS + stimulus.PERIODS * stimulus.PERIOD)
        following = slice(active.start + 1, active.stop + 1)
        assert (found[following, ..., :-1] == expected[active, ..., 1:]).all()
    else:
        for period in range(1, stimulus.PERIODS):
            cycle = 1 + period * stimulus.PERIOD
            assert (found[cycle, ..., 1:] == expected[cycle, ..., :-1]).all(), period


def test_mapped_dequantiser_computes_the_golden_outputs(liberty: Path, nangate45: Library) -> None:
    spec = pe_specs.get("shift-add")
    unit = units.edge_unit(spec)
    assert isinstance(unit, units.GroupDequantiser)
    params = dict(unit.params)
    top = rtl_pe.unit_module_name(unit.name, **params)
    made = synthesize_verilog(rtl_pe.unit_verilog(unit.name, **params), top, liberty, period_ps=4000)
    given = unit_stimulus.group_dequantiser(unit, spec, "int4_asym", random=False)
    run = NetlistSimulator(made.netlist, nangate45).run(given.ports, bins=given.bins, record=["out"])
    ports = given.ports
    tokens = operands.sample().acts.shape[1]
    latency, count = unit.timing.latency_cycles, unit_stimulus.GROUPS * tokens
    signed = ports["psum"][1 : 1 + count]
    act_sum, zero = ports["act_sum"][1 : 1 + count], ports["zero"][1 : 1 + count]
    scale = ports["scale"][1 : 1 + count].astype(np.uint16).view(np.float16)
    delay = unit_stimulus.DEQUANTISER_ACC_DELAY
    acc = ports["acc"][1 + delay : 1 + delay + count - delay].astype(np.uint32).view(np.float32)
    whole = count - delay
    golden = unit.dequantise(acc, signed[:whole], scale[:whole], zero=zero[:whole], act_sum=act_sum[:whole])
    found = run.outputs["out"][1 + latency : 1 + latency + whole - latency]
    assert (found.astype(np.uint32) == golden[: whole - latency].view(np.uint32)).all()


def test_an_entry_holds_everything_and_is_made_once(
    small_entry: Entry, liberty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert liberty.is_file()
    first = Builder("nangate45", costs.CLOCK_MHZ, tmp_path).build(small_entry)
    energy = first["energies"]["int4_asym"]
    assert first["area_um2"] == pytest.approx(first["combinational_um2"] + first["sequential_um2"], rel=1e-5)
    assert energy["energy_pj"] == pytest.approx(sum(energy["parts"].values()), rel=1e-4)
    assert 0 < energy["idle_energy_pj"] < energy["energy_pj"] <= energy["random_energy_pj"]

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("synthesised again")

    monkeypatch.setattr(characterise, "synthesize_verilog", never)
    assert Builder("nangate45", costs.CLOCK_MHZ, tmp_path).build(small_entry) == first
    with pytest.raises(AssertionError, match=r"^synthesised again$"):
        Builder("nangate45", 100, tmp_path).build(small_entry)


def test_the_table_is_stable_text_and_merges(liberty: Path, tmp_path: Path) -> None:
    assert liberty.is_file()
    before = {"entries": {"kept": {"area_um2": 1.0}}}
    built = [
        costs.build_costs("nangate45", only="unit/weight-decoder/int4_asym", cache=tmp_path, before=before)
        for _ in range(2)
    ]
    assert sorted(built[0]["entries"]) == ["kept", "unit/weight-decoder/int4_asym"]
    for number, table in enumerate(built):
        write_json(tmp_path / f"{number}.json", table)
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    assert json.loads((tmp_path / "0.json").read_text())["provenance"]["random_seed"] == operands.SEED
    with pytest.raises(ConfigError) as caught:
        costs.build_costs("nangate45", only="unit/weight-decoder/int4_asym", cache=tmp_path, clock_mhz=5000)
    assert str(caught.value).startswith("clock_mhz = 5000: unit/weight-decoder/int4_asym reaches ")
    assert str(caught.value).endswith(" MHz (choose a lower clock)")


def test_unknown_entries_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^only = pe/int9: no such entry \(known: pe/fp16-mac/os, "):
        entries("pe/int9")


def test_numbers_are_rounded_to_six_digits() -> None:
    assert rounded({"a": [1.23456789, 2], "b": (1e-9 / 3,)}) == {"a": [1.23457, 2], "b": [3.33333e-10]}


def test_real_operands_are_the_models(liberty: Path) -> None:
    """The int8 codes of the sample are those of whole rows: the largest value rides along."""
    assert liberty.is_file()
    found = operands.sample()
    assert found.acts.shape == (4, 64, 257)
    assert found.weights.shape == (4, 16, 257)
    assert (np.abs(found.acts[..., :-1]) <= np.abs(found.acts[..., -1:])).all()
    weights = operands.weights("int8", random=False)
    assert np.abs(weights.integers).max() <= 127  # type: ignore[arg-type]
    decoded = weights.integers * weights.per_value(weights.scales).astype(np.float64)  # type: ignore[operator]
    error = np.abs(decoded - found.weights[..., :-1])
    assert (error <= 0.51 * weights.per_value(weights.scales)).all()


def test_a_stimulus_is_the_same_every_time_and_differs_by_kind() -> None:
    spec = pe_specs.get("int8-mac")
    hashes = [stimulus.cell_stimulus(spec, "ws", "int4", random=random).sha256 for random in (False, False, True, True)]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
