"""Blocks of a netlist whose hierarchy is kept: counts by hand, sums, and what is expanded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch.errors import ToolError
from bitwright.fpga.blocks import _hierarchical, by_block


def netlist(folder: Path, modules: dict[str, list[tuple[str, str, int]]]) -> Path:
    """Modules of (name, type, how many of it); LUT4 is a primitive with a model, as Yosys writes them."""
    document: dict[str, Any] = {"LUT4": {"attributes": {"whitebox": "1"}, "cells": {"a": {"type": "$lut"}}}}
    for name, cells in modules.items():
        held = {f"{cell}{number or ''}": {"type": kind} for cell, kind, count in cells for number in range(count)}
        document[name] = {"attributes": {}, "cells": held}
    path = folder / "design.json"
    path.write_text(json.dumps({"modules": document}))
    return path


PE = [("l", "LUT4", 40), ("m", "MULT18X18D", 1)]
DESIGN = {
    "board": [("design", "top", 1), ("pad", "LUT4", 1)],
    "top": [("array", "array", 1), ("link", "link", 1), ("small", "small", 2), ("f", "TRELLIS_FF", 7)],
    "array": [("pe_", "pe", 2), ("edge", "LUT4", 3)],
    "pe": PE,
    "link": [("carry", "CCU2C", 4), ("ram", "DP16KD", 1)],
    "small": [("l", "LUT4", 2)],
}


def test_rows_are_counted_by_hand_and_sum_to_the_design(tmp_path: Path) -> None:
    """40 + 40 + 3 in the array, 8 in the link, 2 + 2, 1 in the top: 96 LUTs; a PE is more than a tenth of them."""
    rows = by_block(netlist(tmp_path, DESIGN), "ecp5")
    assert rows == [
        {"block": "design.array.pe_", "lut": 40, "ff": 0, "dsp": 1, "bram": 0},
        {"block": "design.array.pe_1", "lut": 40, "ff": 0, "dsp": 1, "bram": 0},
        {"block": "design.array, itself", "lut": 3, "ff": 0, "dsp": 0, "bram": 0},
        {"block": "design.link", "lut": 8, "ff": 0, "dsp": 0, "bram": 1},
        {"block": "design.small", "lut": 2, "ff": 0, "dsp": 0, "bram": 0},
        {"block": "design.small1", "lut": 2, "ff": 0, "dsp": 0, "bram": 0},
        {"block": "design, itself", "lut": 0, "ff": 7, "dsp": 0, "bram": 0},
        {"block": "the top, itself", "lut": 1, "ff": 0, "dsp": 0, "bram": 0},
    ]
    assert sum(row["lut"] for row in rows) == 96


def test_a_block_of_a_tenth_or_less_is_one_row(tmp_path: Path) -> None:
    many = DESIGN | {
        "top": [("array", "array", 1), ("link", "wide", 1)],
        "wide": [("deep", "link", 1), ("l", "LUT4", 2)],
    }
    rows = by_block(netlist(tmp_path, many), "ecp5")
    assert {"block": "design.link.deep", "lut": 8, "ff": 0, "dsp": 0, "bram": 1} in rows  # 10 of 94: more than a tenth
    many |= {"array": [("pe_", "pe", 3)]}
    rows = by_block(netlist(tmp_path, many), "ecp5")
    assert {"block": "design.link", "lut": 10, "ff": 0, "dsp": 0, "bram": 1} in rows  # 10 of 131


def test_an_unknown_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as raised:
        by_block(netlist(tmp_path, {"board": [("x", "ALU54B", 2)]}), "ecp5")
    assert str(raised.value) == (
        "yosys: 2 cells ALU54B of family ecp5: not known what they take (fpga/cell_counts.py)"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("synth_ecp5 -top board -json design.json", "synth_ecp5 -noflatten -top board -json blocks.json"),
        (
            "synth_xilinx -family xc7 -flatten -top board -json design.json",
            "synth_xilinx -family xc7 -top board -json blocks.json",
        ),
    ],
)
def test_the_script_is_the_builds_with_its_hierarchy(script: str, kept: str) -> None:
    assert _hierarchical(f"read_verilog design.v\n{script}\n") == f"read_verilog design.v\n{kept}\n"
