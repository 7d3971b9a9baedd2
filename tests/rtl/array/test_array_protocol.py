"""The cocotb bench of arrays on Verilator: stalls, bubbles, resets, idle lanes; and a mutant that it must catch."""

from __future__ import annotations

import pytest
from bitwright.arch.errors import MismatchError
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


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_lane_without_an_operand_that_is_not_zero_is_noticed(dataflow: str) -> None:
    top = f"int8_mac_{dataflow}_2x2"
    text = array.verilog("int8-mac", 2, 2, dataflow)
    mask = "assign act_lane_r1 = act_valid_r1 ?"
    assert text.count(mask) == 1
    unmasked = text.replace(mask, "assign act_lane_r1 = act_valid_r0 ?")  # every lane of an accepted beat gets in
    plusargs: dict[str, str | int] = {"pe": "int8-mac", "rows": 2, "cols": 2, "dataflow": dataflow, "seed": 20261122}
    with pytest.raises(MismatchError, match=rf"^{top}: 3 of 3 tests .* pe_r1_c0\.act = 0x[0-9a-f]+: must be 0x0"):
        run_cocotb(unmasked, top, "bitwright.rtl.bench.cocotb_array", plusargs=plusargs)
