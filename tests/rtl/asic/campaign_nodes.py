"""`make campaign-nodes LIBERTY="FILE ..."`: static timing on other libraries, against OpenSTA.

LIBERTY names Liberty files (plain, .gz, .xz), separated by blanks. Rows of cost are written by stream_costs --liberty.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bitwright.rtl.asic import cells
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, analyse
from bitwright.rtl.pe import streaming

FILES = [Path(name) for name in os.environ.get("LIBERTY", "").split()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("pe", ["shift-add", "int8-mac", "opt1", "fp16-mac"])
def test_period_is_within_5_percent_of_opensta(
    pe: str, path: Path, opensta_period_ns: Callable[[Netlist, Library, Conditions], float]
) -> None:
    if shutil.which("sta") is None:
        pytest.skip("OpenSTA is not installed (apt-get install opensta)")
    library = wired_library(path)
    conditions = replace(surroundings(library)[1], input_cell="")
    spec = cells.stream_spec(pe)
    made = synthesize_verilog(streaming.verilog(spec), spec.module_stem, path, period_ps=4000)
    ours = analyse(made.netlist, library, conditions).min_period_ns
    theirs = opensta_period_ns(made.netlist, library, conditions)
    print(f"{path.name} {pe}: {ours:.4f} ns, OpenSTA {theirs:.4f} ns, {100 * (ours / theirs - 1):+.2f} %")
    assert ours == pytest.approx(theirs, rel=0.05)
