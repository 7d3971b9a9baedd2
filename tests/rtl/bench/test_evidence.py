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
