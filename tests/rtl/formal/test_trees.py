"""Accumulators behind carry-save trees: their exact totals are proved, and every way of breaking them is found."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch import pe
from bitwright.arch.pe.opt import Opt1, Opt2
from bitwright.arch.pe.opt_sparse import Opt3
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16
from bitwright.arch.pe.shift_add_stream import ShiftAddStream
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.formal import identity, netlist, tree_wires, trees
from bitwright.rtl.formal.model import Result, Setting
from bitwright.rtl.formal.tree_wires import Group, Term, Tree
from bitwright.rtl.pe import streaming

LANES = ShiftAddStream(lanes=3)
OPT1 = Opt1(psum_bits=24)


def run(spec: StreamSpec, work: Path, verilog: str = "") -> dict[str, Result]:
    setting = Setting(spec.name, spec.module_stem, work, "yices", 60)
    design = netlist.read(verilog or streaming.verilog(spec), work)
    return {result.property: result for result in trees.totals(setting, spec, design)}


def refuted(results: dict[str, Result]) -> set[str]:
    """What is refuted; nothing else went wrong, so that no proof that timed out counts as one that failed."""
    assert {result.result for result in results.values()} <= {"proved", "refuted", "open"}
    return {name for name, result in results.items() if result.result == "refuted"}


def with_tree(monkeypatch: pytest.MonkeyPatch, spec: StreamSpec, **changes: Any) -> None:
    """The spec's tree with some fields changed; of `group`, the fields of its first group."""
    tree: Tree = tree_wires.trees(spec)[0]
    if "group" in changes:
        first: Group = dataclasses.replace(tree.groups[0], **changes.pop("group"))
        changes["groups"] = (first, *tree.groups[1:])
    monkeypatch.setattr(trees, "trees", lambda spec: (dataclasses.replace(tree, **changes),))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("shift-add", {"lanes": 4, "zero_points": True}),
        ("shift-add-a16", {}),
        ("shift-add-a16", {"lanes": 3, "weight_bits": 3, "group": 20, "pipeline": 1}),
        ("opt1", {}),
        ("opt1", {"lanes": 16, "encoding": "en-t"}),
        ("opt1", {"lanes": 4, "encoding": "en-t", "resolve_cycles": 0, "pipeline": 2, "psum_bits": 24}),
        ("opt2", {}),
        ("opt2", {"lanes": 3, "psum_bits": 24, "pipeline": 2, "resolve_cycles": 3}),
        ("opt2", {"lanes": 1, "pipeline": 1}),
        ("opt2", {"lanes": 5, "pipeline": 2}),
        ("opt2", {"lanes": 8, "encoding": "en-t"}),
        ("opt2", {"lanes": 16, "pipeline": 1}),
        ("opt3", {"psum_bits": 24, "resolve_cycles": 1}),
        ("opt3", {"encoding": "mbe", "pipeline": 2, "resolve_cycles": 1, "psum_bits": 24}),
        ("opt4c", {"rows": 2, "encoder": False, "psum_bits": 24, "pipeline": 1}),
    ],
)  # fmt: skip
def test_a_sound_pe_is_proved(name: str, params: dict[str, Any], tmp_path: Path) -> None:
    spec = pe.stream(name, **params)
    results = run(spec, tmp_path)
    names = [tree.name for tree in tree_wires.trees(spec)]
    shared = {f"alike-{names[0]}": f"structure, {len(names) - 1} more"} if name == "opt4c" else {}
    shown = names[:1] if shared else names
    methods = {
        **{f"tree-adds-{each}": "algebra" for each in names}, "group-range": "induction",
        **{f"{kind}-{each}": "induction" for each in shown for kind in ("exact", "no-wrap")}, **shared,
    }  # fmt: skip
    assert [result for result in results.values() if not result.proved] == []
    assert {each: result.method for each, result in results.items() if each != "alike-groups"} == methods
    assert ("alike-groups" in results) == (spec.macs_per_step > 1)


def test_lanes_up_to_the_most_are_proved_by_algebra(tmp_path: Path) -> None:
    """Only this of 64 lanes: the solver is asked nothing that more lanes make larger."""
    for kind in (Opt1, Opt2):
        spec = kind(lanes=64)
        design = netlist.read(streaming.verilog(spec), tmp_path)
        results = trees.totals(Setting(spec.name, "", tmp_path), spec, design)
        adds, alike = next(results), next(results)
        assert (adds.property, adds.result) == ("tree-adds-acc", "proved")
        assert (alike.property, alike.method) == ("alike-groups", "structure, 63 more")


@pytest.mark.parametrize(
    ("kind", "params", "broken"),
    [
        (ShiftAddStream, {"lanes": 3, "group": 20}, "no-wrap-acc"),
        (ShiftAddA16, {"pipeline": 1}, "no-wrap-acc"),
        (Opt1, {"psum_bits": 24}, "no-wrap-acc"),
        (Opt2, {"psum_bits": 24}, "no-wrap-acc"),
        (Opt3, {"psum_bits": 24}, "no-wrap-acc_0"),
    ],
)  # fmt: skip
def test_accumulator_that_is_too_narrow_for_the_promise_fails(
    kind: type[Any], params: dict[str, Any], broken: str, tmp_path: Path
) -> None:
    class Longer(kind):  # type: ignore[misc]
        @property
        def longest_sum(self) -> int:
            return super().longest_sum + 1  # type: ignore[no-any-return]

    assert refuted(run(Longer(**params), tmp_path)) == {broken}


def test_accumulator_that_lacks_a_bit_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tree(monkeypatch, LANES, bits=LANES.psum.bits - 1)
    assert refuted(run(LANES, tmp_path)) == {"no-wrap-acc"}


@pytest.mark.parametrize("spec", [LANES, ShiftAddA16(), OPT1, Opt3()], ids=lambda spec: spec.name)
@pytest.mark.parametrize("end", ["low", "high"])
def test_range_that_is_too_small_fails(
    spec: StreamSpec, end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = tree_wires.trees(spec)[0].groups[0]
    largest = 127 * 15 if spec is LANES else group.high  # shift-add states -low - 1
    with_tree(monkeypatch, spec, group={end: group.low + 1 if end == "low" else largest - 1})
    assert "group-range" in refuted(run(spec, tmp_path))


def test_vectors_that_may_be_larger_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for spec in (Opt1(lanes=4), Opt2(lanes=8)):
        first, *others = tree_wires.trees(spec)[0].vectors
        with_tree(monkeypatch, spec, vectors=(dataclasses.replace(first, place=first.place - 1), *others))
        assert refuted(run(spec, tmp_path)) == {"tree-adds-acc"}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (LANES, "acc_carry_2"), (ShiftAddA16(lanes=2), "acc_carry_2"), (OPT1, "loop_1_carry"), (OPT1, "step_1_carry"),
        (Opt2(), "loop_2_1_carry"), (Opt2(lanes=8), "plane_1_3_carry"), (Opt3(), "loop_0_carry"),
    ],
)  # fmt: skip
def test_gate_that_is_changed_fails(spec: StreamSpec, wanted: str, tmp_path: Path) -> None:
    """A carry of a tree or loop, made by another gate than `|`."""
    text = streaming.verilog(spec)
    carry = re.search(rf"assign {wanted} = {{ (n\d+) ", text)
    assert carry is not None
    results = {}
    for gate in "^&":
        broken, count = re.subn(rf"(assign {carry[1]}  = [^;]*) \| ([^;]*;)", rf"\1 {gate} \2", text)
        assert count == 1
        design = netlist.read(broken, tmp_path)
        results[gate] = next(trees.totals(Setting(spec.name, "", tmp_path), spec, design))
    assert results["&"].property.startswith("tree-adds")
    assert results["&"].result == "refuted"
    # Of opt* the operands are never both 1: `^` is the same there, and so is its polynomial.
    assert results["^"].result == ("refuted" if spec.name.startswith("shift") else "proved")


@pytest.mark.parametrize("spec", [LANES, OPT1], ids=lambda spec: spec.name)
def test_register_that_loads_without_a_step_fails(spec: StreamSpec, tmp_path: Path) -> None:
    text = streaming.verilog(spec)
    name = re.search(r"assign (n\d+)  = step__ready & step__valid;", text)
    assert name is not None
    broken = text.replace(name[0], f"assign {name[1]}  = step__ready;")
    assert refuted(run(spec, tmp_path, broken)) == {"exact-acc"}


def test_sum_that_does_not_begin_with_zero_fails(tmp_path: Path) -> None:
    bits = LANES.psum.bits
    broken, count = re.subn(rf"\? {bits}'h0+ : sum__payload", f"? {bits}'h1 : sum__payload", streaming.verilog(LANES))
    assert count == 1
    assert refuted(run(LANES, tmp_path, broken)) == {"tree-adds-acc"}


def test_a_polynomial_is_that_of_the_numbers(tmp_path: Path) -> None:
    """x + y for bits: xor and and of a half adder weigh 1 and 2; with never both 1, or is their sum."""
    text = (
        "module top(input clk, input a, input b, output [1:0] s, output c, output q);\n"
        "assign s = {a & b, a ^ b}; assign c = a | b; assign q = a;\nendmodule\n"
    )
    design = netlist.read(text, tmp_path)
    a, b, c = (design.bits(name)[0] for name in "abc")
    both = {frozenset([a]): 1, frozenset([b]): 1}
    total = identity.of_numbers([(design.bits("s"), 1, False)], 8)
    assert identity.opened(design, total, {a, b}, 8) == both
    assert identity.opened(design, {frozenset([c]): 1}, {a, b}, 8) == {**both, frozenset([a, b]): 255}
    assert identity.opened(design, {frozenset([c]): 1}, {a, b}, 8, [frozenset([a, b])]) == both
    assert identity.of_numbers([(design.bits("s"), 1, True)], 8)[frozenset([design.bits("s")[1]])] == 254


COMPRESSOR = """
module top(input clk, input [1:0] a, input [1:0] b, input [1:0] c, output [1:0] s, output [3:0] k, output [1:0] low);
  wire [1:0] x = a ^ b, m = (a & b) | (x & c);
  assign s = x ^ c, k = {1'b0, m, 1'b0}, low = {m[0], 1'b0};
endmodule
"""


@pytest.mark.parametrize(
    ("carry", "goal", "place", "same"),
    [
        ("k", {"a": 1, "b": 1, "c": 1}, 3, True),
        ("low", {"a": 1, "b": 1, "c": 1}, 1, True),  # it drops the highest carry, which is 0 if a + b + c < 4
        ("low", {"a": 1, "b": 1, "c": 1}, 3, False),  # as it may be up to 9 the dropped carry counts
        ("k", {"a": 1, "b": 1}, 3, False),  # more than the goal
        ("k", {"a": 1, "b": 1, "c": 2}, 3, False),
        ("low", {"a": 1, "b": 1, "c": 5}, 1, False),  # equal modulo 4
    ],
)
def test_a_pair_is_its_rows_exactly(
    carry: str, goal: dict[str, int], place: int, same: bool, tmp_path: Path
) -> None:  # fmt: skip
    design = netlist.read(COMPRESSOR, tmp_path)
    pair = identity.of_numbers([(design.bits(name), 1, False) for name in ("s", carry)], 40)
    rows = identity.of_numbers([(design.bits(name), weight, False) for name, weight in goal.items()], 40)
    stops = {bit for name in "abc" for bit in design.bits(name)}
    assert identity.exactly(design, pair, rows, stops, place) == same


def test_polynomial_that_grows_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(identity, "_MOST_TERMS", 20)
    adds = next(trees.totals(Setting("opt2", "", tmp_path), Opt2(), netlist.read(streaming.verilog(Opt2()), tmp_path)))
    assert (adds.property, adds.result) == ("tree-adds-acc", "unknown")


ADDER = """
module top(input clk, input en, input first, input [1:0] g, output [1:0] q);
  reg [1:0] pipe, acc;
  wire [1:0] k = first ? 2'd0 : acc, a = {left}, b = {right}, s;
  assign q = acc, s[0] = a[0] ^ b[0], s[1] = (a[1] ^ b[1]) ^ (a[0] & b[0]);
  always @(posedge clk) if (en) begin
    pipe <= {piped};
    acc <= {loaded};
  end
endmodule
"""


@pytest.mark.parametrize(
    ("parts", "bits", "same"),
    [
        ({"left": "k", "right": "pipe", "piped": "g", "loaded": "s"}, 2, True),  # terms behind the register
        ({"left": "k", "right": "g", "piped": "s", "loaded": "pipe"}, 2, False),  # the sum of a step before
        ({"left": "k", "right": "pipe", "piped": "g", "loaded": "k + pipe"}, 3, False),  # a carry out of it counts
    ],
    ids=["sum", "step_before", "narrow"],
)
def test_what_a_tree_says_of_its_accumulator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parts: dict[str, str], bits: int, same: bool
) -> None:
    tree = Tree("acc", bits, {"acc": 1}, "first", (Group((Term("g"),), 0, 3),), through=("pipe",))
    monkeypatch.setattr(trees, "trees", lambda spec: (tree,))
    design = netlist.read(ADDER.format(**parts), tmp_path)
    result = next(trees.totals(Setting("toy", "toy", tmp_path, "yices", 5), LANES, design))
    assert result.result == ("proved" if same else "refuted")
