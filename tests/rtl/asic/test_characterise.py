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
from bitwright.rtl.asic.characterise import Bins, Builder
from bitwright.rtl.asic.choice import surroundings
from bitwright.rtl.asic.clock_tree import repeater
from bitwright.rtl.asic.entries import Entry, entries
from bitwright.rtl.asic.jsonout import rounded, write_json
from bitwright.rtl.asic.liberty import Cell, Library
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS, Loading, Stimulus
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import analyse

CELLS = [(name, dataflow) for name in pe_specs.names() for dataflow in pe_specs.get(name).dataflows]


@pytest.fixture(scope="module")
def small_entry() -> Entry:
    """The fastest entry to build."""
    return entries("unit/weight-decoder/int4_asym")[0]


@pytest.mark.parametrize(("name", "dataflow"), CELLS)
def test_mapped_cells_compute_the_golden_sums(name: str, dataflow: str, liberty: Path, nangate45: Library) -> None:
    """Every partial sum, passed sum and drained result of a stimulus, from the netlist, bit for bit."""
    spec = pe_specs.get(name)
    top = rtl_pe.module_name(name, dataflow)
    made = synthesize_verilog(rtl_pe.verilog(name, dataflow), top, liberty, period_ps=4000)
    given = stimulus.cell_stimulus(spec, dataflow, spec.wgt.name, random=True, loading=Loading.OWN)
    output = "psum_out" if dataflow == "ws" else "drain_out"
    run = NetlistSimulator(made.netlist, nangate45).run(given.ports, bins=given.bins, record=[output])
    shape = (-1, operands.sample().acts.shape[0], stimulus.COLUMNS, stimulus.ARRAY_ROWS)
    found = run.outputs[output].reshape(shape)
    mask = np.uint64((1 << spec.psum.bits) - 1)
    port = given.ports["psum_in" if dataflow == "ws" else "drain_in"]
    expected = (port.astype(np.uint64) & mask).reshape(shape)
    if dataflow == "ws":
        active, passed = (np.flatnonzero(np.array(given.bins) == kind) for kind in (ACTIVE, PASS))
        assert (len(active), len(passed)) == (stimulus.PERIODS * stimulus.PERIOD, stimulus.PERIOD)
        assert (found[active + 1, ..., :-1] == expected[active, ..., 1:]).all()
        assert (found[passed + 1] == expected[passed]).all()
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
    assert set(energy) == {"energy_pj", "random_energy_pj", "idle_energy_pj", "stimuli_sha256"}
    assert 0 < energy["idle_energy_pj"] < energy["energy_pj"] <= energy["random_energy_pj"]

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("synthesised again")

    monkeypatch.setattr(characterise, "synthesize_verilog", never)
    assert Builder("nangate45", costs.CLOCK_MHZ, tmp_path).build(small_entry) == first
    with pytest.raises(AssertionError, match=r"^synthesised again$"):
        Builder("nangate45", 100, tmp_path).build(small_entry)


def cell_energies(
    spec: pe_specs.PESpec, dataflow: str, liberty: Path, library: Library, runs: dict[str, Stimulus]
) -> Bins:
    """Energy of every counted bin of some runs of a cell, as the builder measures it."""
    top = rtl_pe.module_name(spec.name, dataflow)
    made = synthesize_verilog(rtl_pe.verilog(spec.name, dataflow), top, liberty, period_ps=4000)
    model = PowerModel(made.netlist, library, analyse(made.netlist, library))
    simulator = NetlistSimulator(made.netlist, library)
    found = {}
    for kind, given in runs.items():
        activity = simulator.run(given.ports, bins=given.bins)
        found |= {(kind, chosen): model.energy(activity, chosen).total_pj for chosen in (ACTIVE, PASS, IDLE)}
    return found


def test_no_load_costs_nothing(liberty: Path, nangate45: Library) -> None:
    """A weight that stays, a silent bus and no swap: the runs with and without loads are one."""
    spec = pe_specs.get("shift-add")

    def given(loading: Loading) -> Stimulus:
        return stimulus.cell_stimulus(spec, "ws", stimulus.CONSTANT_ONE, random=False, loading=loading)

    runs = {"real": given(Loading.NONE), "random": given(Loading.NONE), "beats": given(Loading.BEATS)}
    own = given(Loading.OWN)
    counted = np.array(own.bins)[:, None] == ACTIVE
    still = {name: np.where(counted, 0, own.ports[name]) for name in ("wgt_load", "act_swap")}
    quiet = Stimulus({**own.ports, **still}, own.bins)
    bins = cell_energies(spec, "ws", liberty, nangate45, {**runs, "own": quiet})
    found = characterise.summary(bins)
    assert found["weight_load_pj"] == pytest.approx(0.0, abs=1e-9)
    assert found["bus_beat_pj"] == pytest.approx(0.0, abs=1e-9)
    loaded = characterise.summary(bins | cell_energies(spec, "ws", liberty, nangate45, {"own": own}))
    assert loaded["weight_load_pj"] > 1e-3


def test_loads_change_no_operand() -> None:
    """All three runs see the same activations and partial sums, and NONE a silent bus, in every counted cycle."""
    spec = pe_specs.get("int8-mac")
    none, beats, own = (
        stimulus.cell_stimulus(spec, "ws", "int4", random=False, loading=loading)
        for loading in (Loading.NONE, Loading.BEATS, Loading.OWN)
    )
    active = np.flatnonzero(np.array(none.bins) == ACTIVE)
    assert none.bins == beats.bins == own.bins
    for name in ("act", "act_valid", "psum_in"):
        assert (none.ports[name] == beats.ports[name]).all()
        assert (none.ports[name] == own.ports[name]).all()
    loads = {kind: run.ports["wgt_load"][active].sum(axis=0) for kind, run in (("none", none), ("beats", beats))}
    assert not loads["none"].any()
    assert not loads["beats"].any()
    assert (own.ports["wgt_load"][active].sum(axis=0) == stimulus.PERIODS).all()
    assert own.ports["act_swap"][active].sum() == stimulus.PERIODS
    assert not none.ports["act_swap"][active].any()
    changes = [(np.diff(run.ports["wgt"], axis=0)[active - 1] != 0).any(axis=1).sum() for run in (none, beats, own)]
    assert changes == [0, stimulus.PERIODS * stimulus.ARRAY_ROWS, stimulus.PERIODS * stimulus.ARRAY_ROWS]


def test_the_load_of_a_tile_scales_with_its_rows() -> None:
    """16 beats in 64 cycles, one of them the cell's own."""
    bins = {("real", ACTIVE): 1.0, ("random", ACTIVE): 1.0, ("real", IDLE): 0.5}
    found = characterise.summary({**bins, ("beats", ACTIVE): 1.25, ("own", ACTIVE): 1.5})
    assert (found["bus_beat_pj"], found["weight_load_pj"]) == (1.0, 17.0)
    assert found["weight_load_pj"] + 15 * found["bus_beat_pj"] == 64 * (1.5 - 1.0)


def test_a_repeater_drives_its_load_at_the_clock_slew(nangate45: Library) -> None:
    """No buffer of the library drives more capacitance for its energy, nor this one more without a slower output."""
    conditions = surroundings(nangate45)[1]
    found, slew_ns = repeater(nangate45, conditions), conditions.clock_slew_ns

    def output_slew_ns(cell: Cell, load_ff: float) -> float:
        tables = cell.outputs[0].timing[0].tables
        return max(tables["rise_transition"].at(slew_ns, load_ff), tables["fall_transition"].at(slew_ns, load_ff))

    def pj_a_ff(cell: Cell, load_ff: float) -> float:
        inside = sum(arc.rise.at(slew_ns, load_ff) + arc.fall.at(slew_ns, load_ff) for arc in cell.outputs[0].power)
        return (inside + nangate45.voltage_v**2 * cell.inputs[0].capacitance_ff) / load_ff

    chosen = nangate45.cell(found.cell)
    assert output_slew_ns(chosen, found.load_ff) == pytest.approx(slew_ns, rel=1e-9)
    assert found.internal_fj == pytest.approx(
        found.load_ff * pj_a_ff(chosen, found.load_ff) - 1.21 * found.pin_ff, rel=1e-9
    )
    others = [nangate45.cell(name) for name in ("BUF_X1", "BUF_X2", "BUF_X4", "BUF_X8", "CLKBUF_X1", "CLKBUF_X2")]
    for cell in others:
        loads = [load for load in np.arange(1.0, 500.0) if output_slew_ns(cell, float(load)) <= slew_ns]
        assert pj_a_ff(cell, float(loads[-1])) > pj_a_ff(chosen, found.load_ff), cell.name


@pytest.mark.parametrize(("name", "dataflow"), CELLS)
def test_a_cell_without_operand_costs_more_than_idle(
    name: str, dataflow: str, liberty: Path, nangate45: Library
) -> None:
    spec = pe_specs.get(name)
    given = stimulus.cell_stimulus(spec, dataflow, spec.wgt.name, random=False)
    passed = np.flatnonzero(np.array(given.bins) == PASS)
    assert not given.ports["act"][passed].any()
    assert not given.ports["act_valid"][passed].any()
    streaming = given.ports["psum_in" if dataflow == "ws" else "wgt"][passed]
    assert (streaming[1:] != streaming[:-1]).any(axis=1).all()
    bins = cell_energies(spec, dataflow, liberty, nangate45, {"real": given})
    assert 1.02 * bins["real", IDLE] < bins["real", PASS] < bins["real", ACTIVE]


ONLY = "unit/weight-decoder/int4_asym"


def test_the_table_is_stable_text_and_merges(liberty: Path, tmp_path: Path) -> None:
    assert liberty.is_file()
    first = costs.build_costs("nangate45", only=ONLY, cache=tmp_path)
    before = {**first, "entries": {"kept": {"area_um2": 1.0}}}
    built = [
        costs.build_costs("nangate45", only=ONLY, cache=tmp_path / str(processes), before=before, processes=processes)
        for processes in (1, 2)
    ]
    assert sorted(built[0]["entries"]) == ["kept", ONLY]
    for number, table in enumerate(built):
        write_json(tmp_path / f"{number}.json", table)
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    stored = json.loads((tmp_path / "0.json").read_text())
    assert stored["provenance"]["random_seed"] == operands.SEED
    assert costs.build_costs("nangate45", only=ONLY, cache=tmp_path, before=stored) == built[0]
    with pytest.raises(ConfigError) as caught:
        costs.build_costs("nangate45", only=ONLY, cache=tmp_path, clock_mhz=5000)
    assert str(caught.value).startswith(f"clock_mhz = 5000: {ONLY} reaches ")
    assert str(caught.value).endswith(" MHz (choose a lower clock)")


@pytest.mark.parametrize(
    ("field", "value", "today"),
    [
        ("node", "sky130", "nangate45"),
        ("clock_mhz", 500, costs.CLOCK_MHZ),
        ("tool", "pyosys 0.1", "pyosys 0.70"),
        ("abc_share_of_period", 0.5, 0.75),
        ("library_sha256", "00", "0f936d453c0a26809975b1226cef893a02d26c6f4c3477b4acd6e9b09ec8a148"),
        ("synthesis_boundary", None, {"driving_cell": "BUF_X2", "load_ff": 3.9}),
    ],
)
def test_entries_made_in_different_ways_share_no_table(
    field: str, value: object, today: object, liberty: Path, tmp_path: Path
) -> None:
    assert liberty.is_file()
    before = costs.build_costs("nangate45", only=ONLY, cache=tmp_path)
    for part in (before, before["provenance"]):
        if field in part:
            part[field] = value
    with pytest.raises(ConfigError) as caught:
        costs.build_costs("nangate45", only=ONLY, cache=tmp_path, before=before)
    assert str(caught.value) == (
        f"only = {ONLY}: the table to add to has {field} = {value}, this run {today}: entries made in different ways "
        "do not share a table (build all of it, without --only)"
    )


def test_the_cache_key_holds_the_conditions(small_entry: Entry, liberty: Path, tmp_path: Path) -> None:
    assert liberty.is_file()
    builder = Builder("nangate45", costs.CLOCK_MHZ, tmp_path)
    paths = {builder._path(small_entry, "physical", {})}
    for name in builder.base:
        other = Builder("nangate45", costs.CLOCK_MHZ, tmp_path)
        other.base[name] = "changed"
        paths.add(other._path(small_entry, "physical", {}))
    assert len(paths) == 1 + len(builder.base)
    assert builder.base.keys() >= {"abc_share_of_period", "synthesis_boundary", "timing_and_power_conditions"}


def test_a_width_of_comparison_is_an_entry_of_its_own() -> None:
    found = {entry.key: entry for entry in entries("pe/int8-mac")}
    for dataflow in ("ws", "os"):
        for bits in (19, 23):
            entry = found[f"pe/int8-mac/{dataflow}/p{bits}"]
            assert entry.top == f"int8_mac_p{bits}_{dataflow}"
            assert (entry.extra["psum_bits"], sorted(entry.measures)) == (bits, ["int4", "int8"])
        assert found[f"pe/int8-mac/{dataflow}"].extra["psum_bits"] == 32


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


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}\n'
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(tmp_path / "folder.json", {})
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder.json", "table.json"]
