# amaranth: UnusedElaboratable=no
# (a top is made only to ask what its frames hold)
"""A machine's array alone behind the serial line, as RTL and as an iCE40 netlist in the tools' own cell models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import serial
from bitwright.arch import machine
from bitwright.fpga import boards
from bitwright.fpga.array_top import ArrayTop, verilog
from bitwright.fpga.simulated import SimulatedBoard
from bitwright.rtl.asic import yosys_driver
from bitwright.rtl.bench.array_golden import expected, random_operands

SEED = 20261123


def exchange(top: ArrayTop, port: serial.Serial, rng: np.random.Generator, m: int, k: int) -> None:
    """A weight-stationary tile: its weights row by row, then vector after vector, each compared."""
    spec, rows, cols = top.array.spec, top.array.rows, top.array.cols
    wgt, act = random_operands(spec, rng, m, k, cols)

    def frame(**values: int) -> bytes:
        word = at = 0
        for name in top.inputs:
            word |= values.get(name, 0) << at
            at += len(getattr(top.array, name))
        return word.to_bytes(top.frame_bytes, "little")

    def packed(values: np.ndarray, bits: int) -> int:
        return sum((int(value) & ((1 << bits) - 1)) << bits * lane for lane, value in enumerate(values))

    tile = {"tile_m": m, "tile_k": k}
    for row in wgt:
        port.write(frame(tile_valid=1, wgt_valid=1, wgt_data=packed(row, spec.wgt.bits), **tile))
    for index, vector in enumerate(act):
        lanes = packed(np.pad(vector, (0, rows - k)), spec.act.bits)
        port.write(frame(act_valid=1, act_data=lanes, **tile))
        got = int.from_bytes(port.read(top.result_bytes), "little")
        sums = [got >> spec.psum.bits * col & ((1 << spec.psum.bits) - 1) for col in range(cols)]
        want = expected(spec, wgt, act)[index]
        assert sums == [int(value) & ((1 << spec.psum.bits) - 1) for value in want], f"vector {index} of {m}, k = {k}"
        assert got >> spec.psum.bits * cols & 1 == (index == m - 1)


def compare(name: str, made: tuple[str, str] | None) -> None:
    loaded, board = machine.load(name), boards.get("icebreaker")
    top = ArrayTop(loaded, board)
    rng = np.random.default_rng(SEED)
    with (
        SimulatedBoard(loaded, board, made=made or verilog(loaded, board)) as simulated,
        serial.Serial(simulated.port, timeout=20) as port,
    ):
        for m, k in ((3, top.array.rows), (1, 1), (4, top.array.rows), (2, 1)):
            exchange(top, port, rng, m, k)


def test_tiles_over_the_line_equal_the_golden() -> None:
    compare("int8-2x2", None)


def test_the_ice40_netlist_in_its_own_cell_models_gives_the_same(tmp_path: Path) -> None:
    pyosys = pytest.importorskip("pyosys")
    module, text = verilog(machine.load("int8-2x2"), boards.get("icebreaker"))
    (tmp_path / "rtl.v").write_text(text)
    (tmp_path / "run.ys").write_text(
        f"read_verilog rtl.v\nsynth_ice40 -device u -spram -top {module}\nwrite_verilog -noattr -noexpr netlist.v\n"
    )
    driver = [sys.executable, "-P", yosys_driver.__file__, "run.ys"]
    subprocess.run(driver, cwd=tmp_path, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    netlist = (tmp_path / "netlist.v").read_text()
    assert "SB_LUT4" in netlist
    assert "always" not in netlist  # cells only
    models = (Path(pyosys.__file__).parent / "share" / "ice40" / "cells_sim.v").read_text()
    compare("int8-2x2", (module, f"{netlist}\n`define NO_ICE40_DEFAULT_ASSIGNMENTS\n{models}"))
