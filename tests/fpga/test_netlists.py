"""The board's memory after synthesis, cell by cell: every beat and every cycle as of the RTL's own test."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.fpga import boards
from bitwright.fpga.memory import BoardMemory
from bitwright.rtl.accelerator import memories
from bitwright.rtl.bench.verilator import Compiled
from netlists import count, mapped
from test_memory import Master


@pytest.mark.parametrize(
    ("board", "size", "cell"), [("ulx3s-85f", 8192, "DP16KD"), ("icebreaker", 131072, "SB_SPRAM256KA")]
)
def test_the_memory_in_block_ram(board: str, size: int, cell: str, tmp_path: Path) -> None:
    """As few blocks as the bytes need: four of the iCE40's, which are all that it has."""
    single_port = boards.get(board).single_port_memory
    made = BoardMemory(8, size, single_port=single_port)
    text = mapped(tmp_path, "board_memory", memories.verilog(made, "board_memory") + made.ram_verilog(), board)
    assert count(text, cell) == 4
    design = Compiled(text, "board_memory", optimise="-O1")
    master = Master(8, single_port, 3, slow=False, size=size, design=design)
    master.fill()
    master.run(400)
    master.check_all()
