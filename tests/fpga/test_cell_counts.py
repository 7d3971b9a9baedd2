"""Synthesis alone: what is counted, the caps, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bitwright.arch.errors import ToolError
from bitwright.fpga import boards, building
from bitwright.fpga.cell_counts import (
    FAMILIES,
    REGISTERS_SCRIPT,
    Arithmetic,
    at_least,
    board_script,
    cells_of,
    in_parts_names,
    registers_of,
    resources,
    run_capped,
    script,
    synthesize,
)
from bitwright.fpga.sizing import KINDS, Search

DESIGN = """
module design(input clk, input [31:0] next, output reg [31:0] held,
              input signed [15:0] a, b, output signed [31:0] product);
  always @(posedge clk) held <= next;
  assign product = a * b;
endmodule
"""
"""32 flip-flops without logic, and one multiplier that is not registered."""


SMALL = DESIGN.replace("15:0", "7:0").replace("signed [31:0]", "signed [15:0]")


def counts(folder: Path, text: str, family: str, arithmetic: Arithmetic) -> dict[str, float]:
    ran = synthesize(folder, text, script(family, arithmetic, "design", pads=False), cap_s=300)
    assert ran.status == 0
    return resources(family, cells_of(folder / "design.json", "design"))


def test_a_search_maps_to_the_boards_own_series() -> None:
    """The Tang Nano 9K's part is a GW1N, the 20K's a GW2A: builds and searches tell Yosys so alike."""
    for name, series in (("tang-nano-9k", "gw1n"), ("tang-nano-20k", "gw2a")):
        board = boards.get(name)
        assert f"synth_gowin -family {series} " in board_script(board, "board")
        assert f"-family {series} " in Search(board, KINDS["shift-add"], {}, 1.0, lambda: None)._script


@pytest.mark.parametrize("family", FAMILIES)
def test_a_register_and_a_product_are_32_flip_flops_and_one_multiplier(family: str, tmp_path: Path) -> None:
    found = counts(tmp_path, DESIGN, family, Arithmetic.DSP)
    assert found == {"lut": 0, "ff": 32, "dsp": 1, "bram": 0}


@pytest.mark.parametrize("family", ["ecp5", "ice40", "gowin"])  # 7-series: a quarter of a minute
def test_without_dsps_the_product_is_luts(family: str, tmp_path: Path) -> None:
    found = counts(tmp_path, SMALL, family, Arithmetic.LUT)
    assert found["dsp"] == 0
    assert found["ff"] == 32
    assert found["lut"] > 8 * 8 / 2  # a LUT takes at most two bits of one partial product and a sum


def test_cells_take_what_the_family_says() -> None:
    ecp5 = resources("ecp5", {"LUT4": 3, "CCU2C": 2, "TRELLIS_DPR16X4": 1, "PFUMX": 9, "DP16KD": 2, "$scopeinfo": 5})
    assert ecp5 == {"lut": 3 + 2 * 2 + 6, "ff": 0, "dsp": 0, "bram": 2}
    assert resources("gowin", {"MULT9X9": 3, "DFFRE": 2, "ALU": 1})["dsp"] == 1.5
    assert resources("xc7", {"LUT6": 1, "INV": 1, "FDRE": 1, "RAMB18E1": 1})["bram"] == 0.5
    assert resources("xcup", {"RAM64M8": 1, "FDSE": 1, "RAMB18E2": 3, "CARRY8": 2, "IBUFDS": 1}) == {
        "lut": 8, "ff": 1, "dsp": 0, "bram": 1.5,
    }  # fmt: skip
    assert resources("ice40", {"SB_DFFESR": 2, "SB_CARRY": 1, "SB_LUT4": 1, "SB_SPRAM256KA": 1})["ff"] == 2


def test_a_cell_that_is_not_known_is_refused() -> None:
    with pytest.raises(ToolError) as raised:
        resources("ecp5", {"LUT4": 1, "ALU54B": 2})
    assert str(raised.value) == (
        "yosys: 2 cells ALU54B of family ecp5: not known what they take (fpga/cell_counts.py)"
    )  # fmt: skip
    assert at_least("ecp5", {"LUT4": 1, "ALU54B": 2}) == {"lut": 1, "ff": 0, "dsp": 0, "bram": 0}


def test_a_design_is_told_in_the_parts_own_cells() -> None:
    needed = {"lut": 10.0, "ff": 30.0, "dsp": 1, "bram": 2, "spram": 3}
    assert in_parts_names(boards.get("icebreaker"), needed) == {
        "ICESTORM_LC": 30, "ICESTORM_DSP": 1, "ICESTORM_RAM": 2, "ICESTORM_SPRAM": 3,
    }  # fmt: skip
    assert in_parts_names(boards.get("zcu104"), {"lut": 1, "bram": 0.5}) == {"LUT": 1, "RAMB36": 0.5}


def test_a_run_is_stopped_at_its_cap_with_its_children(tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    ran = run_capped([sys.executable, "-c", child], tmp_path, "log", 1.0)
    assert ran.status is None
    assert 1 <= ran.seconds < 30
    assert ran.memory_mib > 0


def test_a_run_that_ends_tells_its_status_memory_and_words(tmp_path: Path) -> None:
    code = "import sys; held = bytearray(200 << 20); print('said'); sys.exit(3)"
    ran = run_capped([sys.executable, "-c", code], tmp_path, "log", 60)
    assert ran.status == 3
    assert ran.memory_mib >= 200
    assert (tmp_path / "log").read_text() == "said\n"


def test_a_run_gets_no_more_memory_than_its_cap(tmp_path: Path) -> None:
    code = "held = bytearray(3 << 30)"
    assert run_capped([sys.executable, "-c", code], tmp_path, "log", 60, memory_gib=1).status == 1
    assert "MemoryError" in (tmp_path / "log").read_text()


def test_registers_as_written_are_counted_through_instances(tmp_path: Path) -> None:
    """Two modules with 3 and 5 bits under a top with 1, one of them twice; a latch and a memory are no registers."""
    (tmp_path / "design.v").write_text("""
module three(input clk, input rst, input [2:0] d, output reg [2:0] q);
  always @(posedge clk) if (rst) q <= 0; else q <= d;
endmodule
module five(input clk, input en, input [4:0] d, output reg [4:0] q);
  always @(posedge clk) if (en) q <= d;
endmodule
module top(input clk, input a, input [4:0] d, output reg q, output [10:0] r, output reg l);
  always @(posedge clk) q <= a;
  always @* if (a) l = d[0];
  three one (.clk(clk), .rst(a), .d(d[2:0]), .q(r[2:0]));
  three two (.clk(clk), .rst(a), .d(d[4:2]), .q(r[5:3]));
  five three (.clk(clk), .en(a), .d(d), .q(r[10:6]));
endmodule
""")
    (tmp_path / "synthesis.ys").write_text(REGISTERS_SCRIPT.format(top="top"))
    driver = Path(building.__file__).parents[1] / "rtl" / "asic" / "yosys_driver.py"
    subprocess.run([sys.executable, "-P", str(driver), "synthesis.ys"], cwd=tmp_path, check=True, capture_output=True)
    assert registers_of(tmp_path / "registers.json") == 1 + 3 + 3 + 5
