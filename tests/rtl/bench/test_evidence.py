"""docs/evidence is of today's Verilog, and says what the docs say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bitwright.arch import pe
from bitwright.rtl.bench.stream import evidence

ROOT = Path(__file__).resolve().parents[3]
ROWS = evidence.load()


def test_no_row_is_stale() -> None:
    assert evidence.stale(ROWS) == []


@pytest.mark.parametrize("name", pe.stream_names())
def test_every_pe_has_its_campaign(name: str) -> None:
    """By default 10^8 lane-steps and 10^6 groups at least, and no difference in any variant."""
    rows = [row for row in ROWS if row["pe"] == name and row["kind"] == "campaign"]
    default = [row["figures"] for row in rows if not row["params"]]
    assert [(found["complete"], found["mismatches"]) for found in default] == [(True, 0)]
    assert default[0]["lane_steps"] >= 10**8
    assert default[0]["groups"] >= 10**6
    assert all(row["figures"]["mismatches"] == 0 for row in rows)


@pytest.mark.parametrize("name", pe.all_names())
def test_every_pe_has_mutants_and_proofs(name: str) -> None:
    rows = [row for row in ROWS if row["pe"] == name]
    assert any(row["kind"] == "mutants" and row["figures"]["mutants"] >= 200 for row in rows)
    assert any(row["kind"] == "proof" for row in rows)


def test_the_page_is_that_of_the_evidence() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "pe_library.py")], capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "pe-library.md").read_text() == done.stdout, "docs/pe-library.md: run `make docs`"


def test_a_run_of_proofs_leaves_no_row_of_an_older_one(tmp_path: Path) -> None:
    spec, params = pe.stream("int8-mac"), {"lanes": 2}
    for found in (params, {}):
        row = evidence.row(spec, found, "proof", {}, "")
        for item in ("exact-acc", "exact-acc_0_1"):
            evidence.store({**row, "figures": {"property": item}}, tmp_path)
    evidence.store(evidence.row(spec, params, "campaign", {}, ""), tmp_path)
    evidence.keep(spec, params, ["exact-acc"], tmp_path)
    rows = [(row["params"], row["kind"], row["figures"].get("property")) for row in evidence.load(tmp_path)]
    assert sorted(rows, key=str) == [
        ({"lanes": 2}, "campaign", None), ({"lanes": 2}, "proof", "exact-acc"),
        ({}, "proof", "exact-acc"), ({}, "proof", "exact-acc_0_1"),
    ]  # fmt: skip
