"""The committed cost table describes the hardware as it is now: Verilog, stimuli and method, recomputed."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitwright.arch import costs
from bitwright.rtl.asic import cells, operands, stream_costs, stream_parts
from bitwright.rtl.asic.characterise import Builder, stimuli_sha256
from bitwright.rtl.asic.costs import CLOCK_MHZ
from bitwright.rtl.asic.entries import REAL, Entry, entries
from bitwright.rtl.asic.jsonout import rounded
from bitwright.rtl.asic.sram_table import CELL_TYPES, GRIDS, WHEEL_SHA256, Grid
from bitwright.rtl.asic.stimulus import ACTIVE, ARRAY_ROWS, PASS, PERIOD, Stimulus
from bitwright.rtl.asic.synthesis import FLOW_SHA256, sha256_text

REGENERATE = "run: python -m bitwright.rtl.asic.costs"


def test_every_entry_was_made_from_todays_verilog() -> None:
    table = costs.load("nangate45")
    today = {entry.key: sha256_text(entry.verilog) for entry in entries()}
    stored = {key: table.entry(key)["provenance"]["rtl_sha256"] for key in table.entries()}
    stale = sorted(key for key in today.keys() | stored.keys() if today.get(key) != stored.get(key))
    assert not stale, f"cost table nangate45: {len(stale)} entries are stale, {stale}; {REGENERATE}"


def test_every_format_that_a_pe_takes_has_an_energy() -> None:
    table = costs.load("nangate45")
    for entry in entries():
        if entry.key != "register":
            assert set(table.entry(entry.key)["energies"]) >= set(entry.measures), f"{entry.key}; {REGENERATE}"


def test_everything_that_entries_have_in_common_is_todays(liberty: Path) -> None:
    """Library, tool, script, conditions, clock: the whole of what the builder says it depends on."""
    assert liberty.is_file()
    provenance = costs.load("nangate45").provenance
    base = Builder("nangate45", CLOCK_MHZ, None).base
    assert {name: provenance.get(name) for name in base} == rounded(base), REGENERATE
    assert provenance["operands_sha256"] == operands.sample().sha256, REGENERATE
    assert costs.load("nangate45").clock_mhz == CLOCK_MHZ


def test_every_stimulus_is_todays() -> None:
    table = costs.load("nangate45")
    stale = []
    for entry in entries():
        if entry.key != "register":
            stored = table.entry(entry.key)["energies"]
            today = {name: stimuli_sha256(entry.stimuli(name)) for name in entry.measures}
            stale += [f"{entry.key} {name}" for name in today if today[name] != stored[name]["stimuli_sha256"]]
    assert not stale, f"cost table nangate45: {len(stale)} energies are stale, {stale[:5]}; {REGENERATE}"


def transitions(entry: Entry, given: Stimulus, chosen: int) -> float:
    """Mean changes of all input ports a cycle of one bin, from the port values and the widths in the Verilog."""
    cycles, total = np.flatnonzero(np.array(given.bins) == chosen), 0.0
    for name, values in given.ports.items():
        width = re.search(rf"^  input (?:\[(\d+):0\] )?{name};$", entry.verilog, re.MULTILINE)
        assert width, f"{entry.key}: no port {name}"
        changed = (values[cycles] ^ values[cycles - 1]).astype(np.uint64) & np.uint64((2 << int(width[1] or 0)) - 1)
        total += float(np.bitwise_count(changed).mean(axis=1).sum())
    return total / len(cycles)


def test_hops_are_the_transitions_of_the_stimuli() -> None:
    table = costs.load("nangate45")
    for entry in entries("pe/"):
        found, runs = table.entry(entry.key)["energies"][entry.default], entry.stimuli(entry.default)
        assert found["hops"] == pytest.approx(transitions(entry, runs[REAL], ACTIVE), rel=1e-5), entry.key
        assert found["pass_hops"] == pytest.approx(transitions(entry, runs[REAL], PASS), rel=1e-5), entry.key
        if entry.loads:
            quiet, beats, own = (transitions(entry, runs[kind], ACTIVE) for kind in (REAL, "beats", "own"))
            beat = (beats - quiet) * PERIOD / ARRAY_ROWS
            assert found["bus_beat_hops"] == pytest.approx(beat, rel=1e-4), entry.key
            assert found["weight_load_hops"] == pytest.approx((own - beats) * PERIOD + beat, rel=1e-4), entry.key


def test_every_cell_meets_the_tables_clock() -> None:
    table = costs.load("nangate45")
    for key in table.entries():
        if key != "register":
            assert table.entry(key)["fmax_mhz"] >= table.clock_mhz, key


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.file)
def test_the_sram_tables_are_whole(grid: Grid) -> None:
    text = resources.files("bitwright.arch.costs").joinpath(grid.file).read_text()
    data = json.loads(text)
    rows = data["rows"]
    assert data["provenance"]["wheel_sha256"] == WHEEL_SHA256
    found = {(row["cell_type"], row["capacity_bytes"], row["width_bits"]) for row in rows}
    assert len(rows) == len(found) == len(CELL_TYPES) * len(grid.capacities_bytes) * len(grid.widths_bits)


ISOLATED = ("isolated", "isolated_clock_gated")


def stream_table(node: str) -> dict[str, dict[str, dict[str, object]]]:
    """Sections of rows by PE: at the table's clock, clock-gated, isolated, at other clocks."""
    table = json.loads(resources.files("bitwright.arch.costs").joinpath(f"streams_{node}.json").read_text())
    clocks = {f"{clock} MHz": rows for clock, rows in table.get("clocks", {}).items()}
    isolated = {name: table[name] for name in ISOLATED if name in table}
    return {"rows": table["rows"], "clock_gated": table["clock_gated"], **isolated, **clocks}


def stored_streams() -> dict[str, dict[str, object]]:
    return stream_table("nangate45")["rows"]


@pytest.fixture(scope="module")
def todays_rtl() -> dict[tuple[str, bool], str]:
    """By PE and whether its operands are isolated."""
    pes, switches = stream_costs.PES, (False, True)
    return {(name, on): stream_costs.rtl_sha256(name, operand_isolation=on) for name in pes for on in switches}


@pytest.mark.parametrize("node", costs.stream_nodes())
def test_rows_of_streaming_pes_are_of_todays_rtl(node: str, todays_rtl: dict[tuple[str, bool], str]) -> None:
    rows = [(where, name, row) for where, rows in stream_table(node).items() for name, row in rows.items()]
    today = [todays_rtl.get((name, where in ISOLATED)) for where, name, _ in rows]
    stale = [
        f"{name} ({where})"
        for (where, name, row), rtl in zip(rows, today, strict=True)
        if (row["rtl_sha256"], row["flow_sha256"]) != (rtl, FLOW_SHA256)
    ]
    assert not stale, f"stale rows of {node}: {stale}: run python -m bitwright.rtl.asic.stream_costs"


def test_parts_and_glitches_are_of_todays_rtl() -> None:
    table = json.loads(resources.files("bitwright.arch.costs").joinpath("streams_nangate45.json").read_text())
    parts = {name: stream_parts.rtl_sha256(name) for name in stream_parts.PARTS}
    assert {name: part["rtl_sha256"] for name, part in table["parts"].items()} == parts
    assert {part["flow_sha256"] for part in table["parts"].values()} == {FLOW_SHA256}
    of_rows = ("rtl_sha256", "stimuli_sha256", "library_sha256", "flow_sha256", "clock_mhz", "tool")
    for name, found in table["glitches"].items():
        assert {key: found[key] for key in of_rows} == {key: table["rows"][name][key] for key in of_rows}, name


def test_a_clock_that_is_not_met_is_a_row_that_says_so() -> None:
    for node in costs.stream_nodes():
        for where, rows in stream_table(node).items():
            for name, row in rows.items():
                met = float(row["fmax_mhz"]) >= float(row["clock_mhz"])  # type: ignore[arg-type]
                assert row["meets_clock"] is met, (node, where, name)


@pytest.mark.parametrize("name", ["shift-add", "int8-mac", "opt3", "bit-serial"])
@pytest.mark.parametrize("section", ["rows", "clock_gated", *ISOLATED])
def test_energies_of_moving_operands_are_of_todays_stimulus(section: str, name: str) -> None:
    row = stream_table("nangate45")[section][name]
    assert row["moving_stimulus_sha256"] == stream_costs.moving_sha256(name), (
        "run: python -m bitwright.rtl.asic.stream_costs"
    )
    assert row["operand_isolation"] is (section in ISOLATED)


def test_isolated_rows_are_of_the_same_pes_and_save_what_moves() -> None:
    """Against the row with the same clock gates; where operands are held there is nothing to save."""
    table = stream_table("nangate45")
    assert table["isolated"].keys() == table["isolated_clock_gated"].keys() == table["clock_gated"].keys()
    for section, without in (("isolated", "rows"), ("isolated_clock_gated", "clock_gated")):
        for name, row in table[section].items():
            other: dict[str, Any] = table[without][name]
            for kind in ("stalled_moving_energy_pj", "idle_moving_energy_pj"):
                assert row[kind] < other[kind], (section, name, kind)


@pytest.mark.parametrize("name", ["shift-add", "int8-mac", "opt3"])
def test_energies_of_streaming_pes_are_of_todays_stimuli(name: str) -> None:
    row = stored_streams()[name]
    assert row["stimuli_sha256"] == stream_costs.stimuli_sha256(name), "run: python -m bitwright.rtl.asic.stream_costs"
    assert row["method"] == cells.STREAM_METHOD


def test_every_pe_has_a_row() -> None:
    assert stored_streams().keys() == set(stream_costs.PES)


@pytest.mark.parametrize("section", stream_costs.SECTIONS)
def test_rows_beside_the_papers_are_of_todays_rtl(section: str) -> None:
    text = resources.files("bitwright.arch.costs").joinpath("streams_nangate45.json").read_text()
    table = json.loads(text)
    assert table[section].keys() == set(stream_costs.SECTIONS[section])
    for name, row in table[section].items():
        assert row["rtl_sha256"] == stream_costs.rtl_sha256(name), "run: python -m bitwright.rtl.asic.stream_costs"
        assert row["stimuli_sha256"] == stream_costs.stimuli_sha256(name), name
        assert row["clock_mhz"] == table["clock_mhz"], name


def test_stages_of_the_ablation_meet_the_clock() -> None:
    text = resources.files("bitwright.arch.costs").joinpath("streams_nangate45.json").read_text()
    assert all(row["meets_clock"] for row in json.loads(text)["ablation"].values())
