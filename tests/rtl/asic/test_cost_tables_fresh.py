"""The committed cost table describes the hardware as it is now: every entry's Verilog hash, recomputed."""

from __future__ import annotations

import json
from importlib import resources

import pytest
from bitwright.arch import costs
from bitwright.rtl.asic import operands
from bitwright.rtl.asic.characterise import METHOD_VERSION
from bitwright.rtl.asic.costs import CLOCK_MHZ
from bitwright.rtl.asic.entries import entries
from bitwright.rtl.asic.sram_table import CAPACITIES_KIB, CELL_TYPES, WIDTHS_BITS
from bitwright.rtl.asic.synthesis import MAPPING, SCRIPT, sha256_text

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


def test_the_method_and_the_operands_are_todays() -> None:
    provenance = costs.load("nangate45").provenance
    assert provenance["method"] == METHOD_VERSION, REGENERATE
    assert provenance["script"] == [*SCRIPT, *MAPPING], REGENERATE
    assert provenance["operands_sha256"] == operands.sample().sha256, REGENERATE
    assert costs.load("nangate45").clock_mhz == CLOCK_MHZ


@pytest.mark.parametrize("key", ["pe/int8-mac/ws", "pe/shift-add/os", "unit/group-dequantiser/shift-add"])
def test_stimuli_are_todays(key: str) -> None:
    entry = entries(key)[0]
    stored = costs.load("nangate45").entry(key)["energies"][entry.default]
    measure = entry.measures[entry.default]
    assert stored["stimulus_sha256"] == measure(random=False).sha256, REGENERATE
    assert stored["random_stimulus_sha256"] == measure(random=True).sha256, REGENERATE


def test_every_cell_meets_the_tables_clock() -> None:
    table = costs.load("nangate45")
    for key in table.entries():
        if key != "register":
            assert table.entry(key)["fmax_mhz"] >= table.clock_mhz, key


def test_the_sram_table_is_whole() -> None:
    text = resources.files("bitwright.arch.costs").joinpath("sram.json").read_text()
    rows = json.loads(text)["rows"]
    found = {(row["cell_type"], row["capacity_bytes"], row["width_bits"]) for row in rows}
    assert len(rows) == len(found) == len(CELL_TYPES) * len(CAPACITIES_KIB) * len(WIDTHS_BITS)
