"""Accumulators that are the same circuit share one proof; one that differs in anything has its own, or is refuted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from bitwright.arch.pe.lut import Lut
from bitwright.arch.pe.opt import Opt2
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.arch.pe.stream import Cut
from bitwright.rtl.formal import alike, netlist, ranges, tree_wires, trees
from bitwright.rtl.formal.harness import Ports
from bitwright.rtl.formal.model import Result, Setting
from bitwright.rtl.pe import streaming

SPEC = Lut(m=1, n=3, k=2, weight_bits=2)
ACC = {f"acc_0_{column}" for column in range(3)}


def prove(verilog: str, work: Path, spec: Lut = SPEC) -> dict[str, Result]:
    setting = Setting(spec.name, spec.module_stem, work, "yices", 60)
    return {result.property: result for result in ranges.exact(setting, spec, netlist.read(verilog, work))}


def names(verilog: str, work: Path, spec: Lut = SPEC) -> list[list[str]]:
    design = netlist.read(verilog, work)
    found = ranges.classes(spec, design, ranges.accumulators(spec, design))
    return [[item.register.name for item in group] for group in found]


def changed(pattern: str, replacement: str, spec: Lut = SPEC) -> str:
    """The PE's Verilog with the one place that matches the pattern replaced."""
    text, count = re.subn(pattern, replacement, streaming.verilog(spec), flags=re.MULTILINE)
    assert count == 1, f"{pattern} matches {count} places"
    return text


def added(spec: Lut = SPEC) -> tuple[str, str]:
    """What acc_0_1 loads in a step: the wire of the adder's output, and its text."""
    text = streaming.verilog(spec)
    load = re.search(r"^    acc_0_1 <= (n\d+) ;", text, flags=re.MULTILINE)
    assert load is not None
    wire = re.search(rf"if \(load\) begin\s+{load[1]}  = (n\d+) \[", text)
    assert wire is not None
    adder = re.search(rf"^  assign {wire[1]}  = (.*);", text, flags=re.MULTILINE)
    assert adder is not None
    return wire[1], adder[1]


def test_default_tile_is_two_circuits(tmp_path: Path) -> None:
    """128 sums and the two sums of activations: each is in one group or the other."""
    spec = Lut()
    psums, act_sums = names(streaming.verilog(spec), tmp_path, spec)
    assert psums == [f"acc_{row}_{column}" for row in range(2) for column in range(64)]
    assert act_sums == ["act_sum_0", "act_sum_1"]


def test_all_are_proved_by_one(tmp_path: Path) -> None:
    results = prove(streaming.verilog(SPEC), tmp_path)
    assert {name: (result.method, result.result) for name, result in results.items()} == {
        "exact-acc_0_0": ("induction", "proved"), "no-wrap-acc_0_0": ("induction", "proved"),
        "alike-acc_0_0": ("structure, 2 more", "proved"),
        "exact-act_sum_0": ("induction", "proved"), "no-wrap-act_sum_0": ("induction", "proved"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "sound"), [("bit", False), ("minus", False), ("sign", False), ("width", False), ("place", False),
                        ("order", True), ("more", True)],
)  # fmt: skip
def test_a_difference_in_one_accumulator_is_no_likeness(kind: str, sound: bool, tmp_path: Path) -> None:
    """acc_0_1 gets an adder of its own: it has its own proof, which fails if the adder is wrong."""
    wire, adder = added()
    kept, addend = adder.split(" + ")
    adders = {
        "bit": f"({kept} ^ 24'sh8) + {addend}",
        "minus": f"{kept} - {addend}",
        "sign": f"{kept} + addend_0_1",
        "width": f"{kept} + $signed(addend_0_1[9:0])",
        "place": f"{kept} + $signed({{ addend_0_1[9:0], addend_0_1[10] }})",
        "order": f"{addend} + {kept}",
        "more": f"{kept} + {addend} + 2'sd0",
    }
    text = changed(rf"^  assign {wire}  = .*;", f"  assign {wire}  = {adders[kind]};")
    assert names(text, tmp_path) == [["acc_0_0", "acc_0_2"], ["acc_0_1"], ["act_sum_0"]]
    results = prove(text, tmp_path)
    assert results["alike-acc_0_0"].method == "structure, 1 more"
    assert results["exact-acc_0_1"].result == ("proved" if sound else "refuted")
    assert {name for name, result in results.items() if result.result == "refuted"} <= {"exact-acc_0_1"}
    assert all(result.proved for name, result in results.items() if not name.endswith("acc_0_1"))


def test_a_narrower_accumulator_is_no_likeness(tmp_path: Path) -> None:
    text = changed(r"reg \[22:0\] acc_0_1 = 23'h000000", "reg [20:0] acc_0_1 = 21'h000000")
    assert names(text, tmp_path)[:2] == [["acc_0_0", "acc_0_2"], ["acc_0_1"]]
    results = prove(text, tmp_path)
    assert (results["no-wrap-acc_0_1"].method, results["no-wrap-acc_0_1"].result) == ("arithmetic", "refuted")
    assert results["no-wrap-acc_0_0"].result == "proved"


@pytest.mark.parametrize(
    "condition", ["advance & step__valid", "load & ~acc_0_0[0]", "load & ~acc_0_1[0]", "load & ~addend_0_1[3]"]
)
def test_another_condition_to_load_is_no_likeness(condition: str, tmp_path: Path) -> None:
    load = re.search(r"^    acc_0_1 <= (n\d+) ;", streaming.verilog(SPEC), flags=re.MULTILINE)
    assert load is not None
    text = changed(rf"if \(load\) begin(\s+{load[1]} )", rf"if ({condition}) begin\1")
    assert names(text, tmp_path)[:2] == [["acc_0_0", "acc_0_2"], ["acc_0_1"]]
    assert prove(text, tmp_path)["exact-acc_0_1"].result == "refuted"


def test_control_that_hangs_on_a_cut_is_no_likeness(tmp_path: Path) -> None:
    """acc_0_0 freed, ready may be anything; acc_0_1 freed, it may not: so neither stands for the other."""
    text = changed(r"assign step__ready = (.*);", r"assign step__ready = (\1) & ~addend_0_0[0];")
    assert names(text, tmp_path) == [["acc_0_1", "acc_0_2"], ["acc_0_0"], ["act_sum_0"]]
    text = changed(
        r"assign step__ready = (.*);", r"assign step__ready = (\1) & ~acc_0_0[0] & ~acc_0_1[0] & ~acc_0_2[0];"
    )
    assert names(text, tmp_path) == [["acc_0_0"], ["acc_0_1"], ["acc_0_2"], ["act_sum_0"]]


@dataclass(frozen=True)
class _Wider(Lut):
    """One addend may be larger than the others, or is left free in fewer places."""

    column: int = 1

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return tuple(
            Cut(item.wire, item.low, item.high + (item.wire == f"addend_0_{self.column}")) for item in super().cuts
        )


def test_another_range_is_no_likeness(tmp_path: Path) -> None:
    spec = _Wider(m=1, n=3, k=2, weight_bits=2)
    assert names(streaming.verilog(SPEC), tmp_path, spec)[:2] == [["acc_0_0", "acc_0_2"], ["acc_0_1"]]


REGISTERS = """
module top(input clk, input en, input [1:0] x, input [1:0] y, output [3:0] p, output [3:0] q);
  reg [1:0] a, b, c, d;
  assign p = {{b, a}}, q = {{d, c}};
  always @(posedge clk) begin
    if (en) a <= x;
    b <= b + a;
    {third}
    {fourth}
  end
endmodule
"""


@pytest.mark.parametrize(
    ("third", "fourth", "same"),
    [
        ("if (en) c <= y;", "d <= d + c;", True),
        ("if (!en) c <= y;", "d <= d + c;", False),
        ("c <= y;", "d <= d + c;", False),
        ("if (en) c <= y;", "d <= d + a;", False),  # the other one's register
        ("if (en) c <= y;", "d <= b + c;", False),
        ("if (en) c <= y;", "d <= d + {c[0], c[1]};", False),
        ("if (en) c <= {y[0], y[1]};", "d <= d + c;", False),
        ("if (en) c <= y;", "d <= d + y;", False),  # a register less on the way
        ("if (en) c <= x;", "d <= d + c;", False),
    ],
)
def test_registers_on_the_way_are_part_of_a_circuit(third: str, fourth: str, same: bool, tmp_path: Path) -> None:
    design = netlist.read(REGISTERS.format(third=third, fourth=fourth), tmp_path)
    forms = alike.Forms(design)
    one, other = (forms.of(design.bits(out)[2:], [design.bits(cut)]) for out, cut in (("p", "x"), ("q", "y")))
    assert (one == other) == same
    if same:
        assert one.own == {bit for wire in "xab" for bit in design.bits(wire)}
        assert one.shared == set(design.bits("en")) | set(design.bits("clk"))


def test_a_latch_is_like_nothing(tmp_path: Path) -> None:
    text = "module top(input e, input x, input y, output reg p, output reg q);\nalways @* if (e) p = x;\n"
    design = netlist.read(text + "always @* if (e) q = y;\nendmodule\n", tmp_path)
    forms = alike.Forms(design)
    assert forms.of(design.bits("p"), [design.bits("x")]) != forms.of(design.bits("q"), [design.bits("y")])


def test_operands_are_told_apart_by_where_they_come_in(tmp_path: Path) -> None:
    """Three lanes of one product each: x * y, twice, and x * x, which hangs on fewer operands."""
    text = (
        "module top(input clk, input [15:0] in, output [7:0] p, output [7:0] q, output [7:0] r);\n"
        "assign p = in[3:0] * in[7:4], q = in[11:8] * in[15:12], r = in[3:0] * in[3:0];\nendmodule\n"
    )
    design = netlist.read(text, tmp_path)
    forms, operands = alike.Forms(design), frozenset(design.bits("in"))
    one, other, square = (forms.of(design.bits(name), operands=operands) for name in "pqr")
    assert one == other != square


def test_lanes_of_a_tree_are_alike_until_one_differs(tmp_path: Path) -> None:
    spec = Opt2(lanes=3)
    text = streaming.verilog(spec)
    (tree,) = tree_wires.trees(spec)
    broken, count = re.subn(r"(assign digit_1_2_negative = )(.*);", r"\1~(\2);", text)
    assert count == 1
    for verilog, sizes in ((text, [3]), (broken, [2, 1])):
        design = netlist.read(verilog, tmp_path)
        groups = trees._group_classes(design, Ports.of(spec), tree.groups)
        assert [len(group) for group in groups] == sizes


def test_rows_behind_one_encoder_are_alike(tmp_path: Path) -> None:
    """They share the weight, which says how long a step lasts; only their activations are their own."""
    spec = Opt4c(rows=3)
    design = netlist.read(streaming.verilog(spec), tmp_path)
    found = trees.classes(spec, design)
    assert [[tree.name for tree in group] for group in found] == [["acc_0", "acc_1", "acc_2"]]
    groups = [group for tree in tree_wires.trees(spec) for group in tree.groups]
    assert [len(group) for group in trees._group_classes(design, Ports.of(spec), groups)] == [3]
