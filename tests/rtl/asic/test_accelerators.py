"""Blocks of a design with sub-modules and memories: areas, the flat netlist's function, and the clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.costs import sram_1r1w
from bitwright.arch.errors import ConfigError
from bitwright.rtl.accelerator.memories import _TEXT as MEMORY
from bitwright.rtl.asic import accelerators
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.memory_cells import macros, with_memories
from bitwright.rtl.asic.synthesis import synthesize_hierarchy, synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, analyse

MAC = """
module mac(clk, rst, a, b, sum);
  input clk; input rst; input [7:0] a; input [7:0] b; output [19:0] sum;
  reg [19:0] sum;
  always @(posedge clk) sum <= rst ? 20'd0 : sum + a * b;
endmodule
module pass(in, out, one);
  input [7:0] in; output [7:0] out; output one;
  assign out = in; assign one = 1'b1;
endmodule
module pair(clk, rst, a, b, low, high);
  input clk; input rst; input [7:0] a; input [7:0] b; output [19:0] low; output [19:0] high;
  wire [7:0] same; wire one;
  pass through (.in(b), .out(same), .one(one));
  mac left (.clk(clk), .rst(rst), .a(a), .b(same), .sum(low));
  mac right (.clk(clk), .rst(rst), .a({a[6:0], one}), .b(b), .sum(high));
endmodule
"""
# One register behind the memory, one in front of its address.
STORE = """
module store(clk, rst, at, word, read);
  input clk; input rst; input [5:0] at; input [127:0] word; output [127:0] read;
  reg [127:0] read; reg [5:0] place; wire [127:0] data;
  always @(posedge clk) begin read <= data; place <= at; end
  memory_64x128 ram (.clk(clk), .r_en(1'b1), .r_addr(place), .r_data(data), .w_en(rst), .w_addr(at), .w_data(word));
endmodule
""" + MEMORY.format(name="memory_64x128", place=5, top=127, last=63)


def test_modules_are_mapped_once_and_counted_as_often_as_they_stand(liberty: Path, nangate45: Library) -> None:
    made, _ = synthesize_hierarchy(
        MAC, "pair", liberty, period_ps=4000, kept={"mac", "pass"}, black_boxes=(), timeout_s=120
    )
    places = {place.path: place for place in made.places()}
    assert {path: (place.module, place.count) for path, place in places.items()} == {
        "": ("pair", 1), "through": ("pass", 1), "mac": ("mac", 2),
    }  # fmt: skip
    flat = made.flat(nangate45)
    alone = synthesize_verilog(MAC.split("module pass")[0], "mac", liberty, period_ps=4000)
    assert flat.area(nangate45).total_um2 == pytest.approx(2 * alone.area.total_um2)
    assert analyse(flat, nangate45).min_period_ns >= analyse(alone.netlist, nangate45).min_period_ns


def test_the_flat_netlist_computes_what_the_modules_do(liberty: Path, nangate45: Library) -> None:
    """Through a module that only passes wires on, and one whose output is constant."""
    made, _ = synthesize_hierarchy(
        MAC, "pair", liberty, period_ps=4000, kept={"mac", "pass"}, black_boxes=(), timeout_s=120
    )
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 50, 64))
    rst = np.zeros((50, 1), np.int64)
    rst[0] = 1
    run = NetlistSimulator(made.flat(nangate45), nangate45).run(
        {"a": a, "b": b, "rst": rst}, bins=[0] * 50, record=["low", "high"]
    )
    low = np.cumsum(a[1:] * b[1:], axis=0) % (1 << 20)
    high = np.cumsum((2 * (a[1:] & 127) + 1) * b[1:], axis=0) % (1 << 20)
    assert (run.outputs["low"][2:] == low[:-1]).all()
    assert (run.outputs["high"][2:] == high[:-1]).all()


def test_blocks_add_up_and_a_memory_has_cactis_figures(liberty: Path) -> None:
    assert liberty.is_file()
    found = accelerators.blocks(STORE, "store", "nangate45", 250)
    cost = sram_1r1w(64, 128)
    memory = next(row for row in found["blocks"] if row["kind"] == "memory")
    assert memory["block"] == "memory_64x128"
    assert memory["area_um2"] == found["memories_um2"] == pytest.approx(cost.area_mm2 * 1e6, rel=1e-5)
    assert (memory["read_pj"], memory["write_pj"]) == pytest.approx((cost.read_pj, cost.write_pj), rel=1e-5)
    assert sum(row["area_um2"] for row in found["blocks"]) == pytest.approx(found["area_um2"], rel=1e-5)
    assert 134 * 4 < found["logic_um2"] < 134 * 10  # 134 flip-flops of 4.5 um2 and what is around them


def test_the_access_time_bounds_the_clock(liberty: Path, nangate45: Library) -> None:
    """Access, the driving cell and a set-up: more than the access alone, by less than a few gates."""
    found = accelerators.blocks(STORE, "store", "nangate45", 250)
    access_ns = sram_1r1w(64, 128).access_ns
    assert access_ns + 0.02 < found["min_period_ns"] < access_ns + 0.25
    assert found["critical_path"]["from"] == "ram"
    boxes = macros(STORE)
    made, _ = synthesize_hierarchy(
        STORE, "store", liberty, period_ps=4000, kept=(), black_boxes={"memory_64x128"}, timeout_s=120
    )
    whole = with_memories(nangate45, boxes, driver="BUF_X2", register="DFF_X1")
    assert analyse(made.flat(whole), whole, Conditions()).min_period_ns == pytest.approx(
        found["min_period_ns"], rel=1e-5
    )


def test_small_memories_are_no_macros() -> None:
    text = MEMORY.format(name="memory_32x128", place=4, top=127, last=31)
    assert not macros(text)
    assert [macro.module for macro in macros(STORE)] == ["memory_64x128"]


def test_wide_memories_are_banks_side_by_side() -> None:
    one, two = sram_1r1w(1024, 128), sram_1r1w(1024, 256)
    assert (two.area_mm2, two.read_pj, two.access_ns) == pytest.approx(
        (2 * one.area_mm2, 2 * one.read_pj, one.access_ns)
    )
    assert sram_1r1w(32, 129).area_mm2 > sram_1r1w(32, 128).area_mm2
    with pytest.raises(ConfigError, match=r"^sram capacity_bytes = .*: the table covers 512 to 1048576$"):
        sram_1r1w(1 << 20, 128)


def test_what_stands_more_than_once_and_what_the_top_holds_are_blocks() -> None:
    """A name that goes on from another's says nothing of who holds it."""
    holds = {"t": ["t_load", "t_load_control", "t_execute"], "t_load": ["t_load_q"], "t_execute": ["t_execute_array"]}
    holds |= {"t_execute_array": ["pe", "pe", "t_execute_array_z"], "pe": ["pe_x"]}
    names = sorted({*holds, *(kind for kinds in holds.values() for kind in kinds)})
    text = ""
    for name in names:
        inside = "".join(f"  {kind}  part{i} (\n    .a(a)\n  );\n" for i, kind in enumerate(holds.get(name, [])))
        text += f"module {name} (a);\n  input a;\n{inside}endmodule\n"
    assert accelerators.kept_modules(text, "t") == {"t_load", "t_load_control", "t_execute", "t_execute_array", "pe"}


def test_a_clock_must_be_positive() -> None:
    with pytest.raises(ConfigError) as caught:
        accelerators.blocks(STORE, "store", "nangate45", 0)
    assert str(caught.value) == "clock_mhz = 0: must be positive"


def test_with_a_liberty_file_memories_have_no_figures_and_all_else_is_the_logics(liberty: Path) -> None:
    named, given = (accelerators.blocks(STORE, "store", node, 250) for node in ("nangate45", liberty))
    memory = next(row for row in given["blocks"] if row["kind"] == "memory")
    assert (memory["area_um2"], memory["each_um2"], given["memories_um2"]) == (None, None, None)
    assert given["area_um2"] == given["logic_um2"] == named["logic_um2"]
    assert given["node"] == "NangateOpenCellLibrary"
    assert given["leakage_uw"] < named["leakage_uw"]
    assert given["min_period_ns"] < named["min_period_ns"] - 0.9 * sram_1r1w(64, 128).access_ns
