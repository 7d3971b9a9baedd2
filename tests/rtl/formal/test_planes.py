"""What a step of lut adds stays in its range: proved of every variant whose entries are bounds enough, else refuted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch.pe.lut import Lut
from bitwright.rtl.formal import netlist, planes
from bitwright.rtl.formal.model import Result, Setting
from bitwright.rtl.pe import streaming

SMALL = {"m": 1, "n": 2, "k": 2, "weight_bits": 3}


def prove(spec: Lut, work: Path, verilog: str = "") -> dict[str, Result]:
    setting = Setting(spec.name, spec.module_stem, work, "yices", 60)
    design = netlist.read(verilog or streaming.verilog(spec), work)
    return {result.property: result for result in planes.cut_ranges(setting, spec, design)}


@pytest.mark.parametrize("params", [params for params in Lut.variants if planes.provable(Lut(**params))], ids=str)
def test_every_range_is_proved(params: dict[str, Any], tmp_path: Path) -> None:
    spec = Lut(**params)
    results = prove(spec, tmp_path)
    assert results["cut-range"].result == "proved"
    kinds = 2  # totals and rows
    same = spec.m * spec.n + spec.m - kinds
    assert results["alike-cuts"].method == f"structure, {same} more" if same else "alike-cuts" not in results
    assert spec.plane_ranges[-1] == spec.total_range


def test_which_have_no_proof() -> None:
    """Tables of the PE's own: whole ones, whose entries are related, and quantised ones, whose scale is."""
    missing = [params for params in Lut.variants if not planes.provable(Lut(**params))]
    assert missing == [
        {"m": 1, "n": 2, "variant": "unpu", "precompute": True},
        {"m": 1, "n": 2, "activation": "fp16", "precompute": True, "pipeline": 2},
    ]


@dataclass(frozen=True)
class _Narrow(Lut):
    """Ranges that are smaller by one, at one end of what a step adds or of a row's entry."""

    end: str = ""

    @property
    def addend_range(self) -> tuple[int, int]:
        low, high = super().addend_range
        return low + (self.end == "low"), high - (self.end == "high")

    @property
    def row_range(self) -> tuple[int, int]:
        low, high = super().row_range
        return low + (self.end == "row low"), high - (self.end == "row high")


@pytest.mark.parametrize("end", ["low", "high", "row low", "row high"])
@pytest.mark.parametrize("pipeline", [0, 2])
def test_range_that_is_too_small_is_refuted(end: str, pipeline: int, tmp_path: Path) -> None:
    assert prove(_Narrow(**SMALL, pipeline=pipeline), tmp_path)["cut-range"].proved
    assert prove(_Narrow(**SMALL, pipeline=pipeline, end=end), tmp_path)["cut-range"].result == "refuted"


@pytest.mark.parametrize(
    ("condition", "low"),
    [
        ("(n4 | step__payload[0])", "1'h0"),  # a step may begin with the total of another
        ("n4", "1'h1"),
    ],
)
def test_one_column_that_adds_more_is_refuted(condition: str, low: str, tmp_path: Path) -> None:
    spec = Lut(**SMALL)
    pattern = r"= n4  \? \{ part_0_1, 1'h0 \}"
    text, count = re.subn(pattern, f"= {condition} ? {{ part_0_1, {low} }}", streaming.verilog(spec))
    assert count == 1
    results = prove(spec, tmp_path, text)
    assert "alike-cuts" not in results
    assert results["cut-range"].result == "refuted"
