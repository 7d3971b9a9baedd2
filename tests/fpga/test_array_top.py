# amaranth: UnusedElaboratable=no
# (a top is made only to ask what its frames hold)
"""A machine's array alone behind the serial line, as RTL and as netlists of iCE40 and ECP5 cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import serial
from bitwright.arch import machine
from bitwright.fpga import boards
from bitwright.fpga.array_top import ArrayTop, verilog
from bitwright.fpga.building import NETLIST_SIMULATED
from bitwright.fpga.cell_counts import Arithmetic
from bitwright.fpga.host.arrays import ArrayHost
from bitwright.fpga.simulated import SimulatedBoard
from bitwright.rtl.bench.array_tiles import random_tile
from netlists import count, mapped

SEED = 20261123


def compare(name: str, made: tuple[str, str] | None, board_name: str) -> None:
    loaded, board = machine.load(name), boards.get(board_name)
    top = ArrayTop(loaded, board)
    rng = np.random.default_rng(SEED)
    with (
        SimulatedBoard(loaded, board, made=made or verilog(loaded, board)) as simulated,
        serial.Serial(simulated.port, timeout=0.01) as port,
    ):
        host = ArrayHost(top, port, simulated.port, board.baud, timeout_s=20)
        for m, k in ((3, top.array.rows), (1, 1), (4, top.array.rows), (2, 1)):
            host.run(random_tile(top.array, rng, m, k), f"tile of {m} tokens, {k} elements")


def test_tiles_over_the_line_equal_the_golden() -> None:
    compare("int8-2x2", None, "icebreaker")


NETLISTS: list[tuple[str, Arithmetic, dict[str, int]]] = [
    ("icebreaker", Arithmetic.LUT, {"SB_LUT4": 1000, "SB_CARRY": 50}),
    ("icebreaker", Arithmetic.DSP, {"SB_MAC16": 4}),
    ("ulx3s-85f", Arithmetic.DSP, {"MULT18X18D": 4, "TRELLIS_DPR16X4": 18}),
]


def test_the_families_said_to_be_simulated_are_those_here() -> None:
    assert {boards.get(board).family for board, _, _ in NETLISTS} == NETLIST_SIMULATED


@pytest.mark.parametrize(("board", "arithmetic", "cells"), NETLISTS, ids=["iCE40", "iCE40 DSP", "ECP5"])
def test_the_netlist_gives_the_same(board: str, arithmetic: Arithmetic, cells: dict[str, int], tmp_path: Path) -> None:
    """Cell by cell: Yosys' models, and ours of the ECP5's multiplier. Registers start as the part's do."""
    module, text = verilog(machine.load("int8-2x2"), boards.get(board))
    made = mapped(tmp_path, module, text, board, arithmetic=arithmetic)
    for cell, least in cells.items():
        assert count(made, cell) >= least, cell
    compare("int8-2x2", (module, made), board)
