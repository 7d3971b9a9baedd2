"""The cocotb bench of arrays on Verilator: stalls, bubbles, resets."""

from __future__ import annotations

import pytest
from bitwright.rtl import array
from bitwright.rtl.bench.cocotb_runner import run_cocotb

TESTS = ["every_cross_of_pauses", "reset_in_mid_tile", "tiles_back_to_back_leave_no_bubble"]
CASES = [("shift-add", 3, 4, "ws"), ("int8-mac", 3, 5, "os"), ("fp16-mac", 2, 2, "ws")]


@pytest.mark.parametrize(("name", "rows", "cols", "dataflow"), CASES)
def test_protocol(name: str, rows: int, cols: int, dataflow: str) -> None:
    plusargs = {"pe": name, "rows": rows, "cols": cols, "dataflow": dataflow, "seed": 20261122}
    passed = run_cocotb(
        array.verilog(name, rows, cols, dataflow),
        array.module_name(name, rows, cols, dataflow),
        "bitwright.rtl.bench.cocotb_array",
        plusargs=plusargs,
    )
    assert sorted(passed) == TESTS
