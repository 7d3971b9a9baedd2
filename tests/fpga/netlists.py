"""What synthesis makes of a design for a family of FPGAs, with models of the family's cells: Verilog to simulate.

Source of the models: Yosys' own cells_sim.v, and for the two of the ECP5 that it has none of, cells/ecp5.v.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bitwright.fpga import boards
from bitwright.fpga.cell_counts import UNTOLD, Arithmetic, script
from bitwright.rtl.asic import yosys_driver

OWN_ECP5 = Path(__file__).with_name("cells") / "ecp5.v"


def share() -> Path:
    """Yosys' data; the test is skipped where it is not installed."""
    pyosys = pytest.importorskip("pyosys")
    return Path(pyosys.__file__).parent / "share"


def ecp5_cells() -> str:
    """All of the ECP5, Yosys' black box of DP16KD replaced by our model."""
    folder = share() / "ecp5"
    texts = [(folder / name).read_text() for name in ("common_sim.vh", "ccu2c_sim.vh", "cells_sim.v")]
    text, count = re.subn(r"\(\* blackbox \*\)\s*module DP16KD\(.*?\nendmodule", "", texts[-1], flags=re.DOTALL)
    assert count == 1
    kept = [line for part in (*texts[:-1], text) for line in part.splitlines() if '`include "' not in line]
    return "\n".join([*kept, OWN_ECP5.read_text()])


def ice40_cells() -> str:
    """All of the iCE40."""
    return "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" + (share() / "ice40" / "cells_sim.v").read_text()


def mapped(folder: Path, module: str, text: str, board: str, *, arithmetic: Arithmetic | None = None) -> str:
    """The netlist of `module` as `bitwright fpga build` synthesises it for a board, or with its multiplications where
    `arithmetic` says; cells only, and their models."""
    share()
    (folder / "design.v").write_text(text)
    facts = boards.get(board)
    command = script(facts.family, arithmetic or UNTOLD[facts.family], module, pads=True)
    (folder / "run.ys").write_text(f"{command}write_verilog -noattr -noexpr netlist.v\n")
    driver = [sys.executable, "-P", yosys_driver.__file__, "run.ys"]
    subprocess.run(driver, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    netlist = (folder / "netlist.v").read_text()
    assert "always" not in netlist
    assert not re.search(r"assign .* = .*[?&|^~+*]", netlist)
    return netlist + "\n" + {"ecp5": ecp5_cells, "ice40": ice40_cells}[facts.family]()


def count(netlist: str, cell: str) -> int:
    """Instances of a cell."""
    return len(re.findall(rf"^  {cell} ", netlist, re.MULTILINE))
