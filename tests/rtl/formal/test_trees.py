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


def failed(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.result in ("failed", "not inductive")}


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
        ("opt1", {"lanes": 4, "encoding": "en-t", "resolve_cycles": 0, "pipeline": 2, "psum_bits": 24}),
        ("opt2", {}),
        ("opt2", {"lanes": 3, "psum_bits": 24, "pipeline": 2, "resolve_cycles": 3}),
        ("opt2", {"lanes": 1, "pipeline": 1}),
        ("opt3", {"psum_bits": 24, "resolve_cycles": 1}),
        ("opt3", {"encoding": "mbe", "pipeline": 2, "resolve_cycles": 1, "psum_bits": 24}),
        ("opt4c", {"rows": 2, "encoder": False, "psum_bits": 24, "pipeline": 1}),
    ],
)  # fmt: skip
def test_a_sound_pe_is_proved(name: str, params: dict[str, Any], tmp_path: Path) -> None:
    spec = pe.stream(name, **params)
    results = run(spec, tmp_path)
    kinds = {f"{kind}-{tree.name}" for tree in tree_wires.trees(spec) for kind in ("tree-adds", "exact", "no-wrap")}
    assert set(results) == {*kinds, "group-range"}
    assert [result for result in results.values() if not result.proved] == []
    assert {result.method for name, result in results.items() if name.startswith("tree")} == {"algebra"}
    assert {result.method for name, result in results.items() if not name.startswith("tree")} == {"induction"}


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

    assert failed(run(Longer(**params), tmp_path)) == {broken}


def test_accumulator_that_lacks_a_bit_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tree(monkeypatch, LANES, bits=LANES.psum.bits - 1)
    assert failed(run(LANES, tmp_path)) == {"no-wrap-acc"}


@pytest.mark.parametrize("spec", [LANES, ShiftAddA16(), OPT1, Opt3()], ids=lambda spec: spec.name)
@pytest.mark.parametrize("end", ["low", "high"])
def test_range_that_is_too_small_fails(
    spec: StreamSpec, end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = tree_wires.trees(spec)[0].groups[0]
    largest = 127 * 15 if spec is LANES else group.high  # shift-add states -low - 1
    with_tree(monkeypatch, spec, group={end: group.low + 1 if end == "low" else largest - 1})
    assert "group-range" in failed(run(spec, tmp_path))


def test_vectors_that_may_be_larger_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = Opt1(lanes=4)
    first, second, place = tree_wires.trees(spec)[0].vectors or ("", "", 0)
    with_tree(monkeypatch, spec, vectors=(first, second, place - 1))
    assert {"tree-adds-acc", "group-range"} <= failed(run(spec, tmp_path))


@pytest.mark.parametrize("spec", [LANES, ShiftAddA16(lanes=2), OPT1, Opt2(), Opt3()], ids=lambda spec: spec.name)
def test_gate_that_is_changed_fails(spec: StreamSpec, tmp_path: Path) -> None:
    """A carry of a tree or loop, made by another gate than `|`."""
    text = streaming.verilog(spec)
    wanted = {"opt1": "loop_1_carry", "opt2": "loop_2_1_carry", "opt3": "loop_0_carry"}.get(spec.name, "acc_carry_2")
    carry = re.search(rf"assign {wanted} = {{ (n\d+) ", text)
    assert carry is not None
    results = {}
    for gate in "^&":
        broken, count = re.subn(rf"(assign {carry[1]}  = n\d+ ) \| (n\d+)", rf"\1 {gate} \2", text)
        assert count == 1
        design = netlist.read(broken, tmp_path)
        results[gate] = next(trees.totals(Setting(spec.name, "", tmp_path), spec, design))
    assert results["&"].property.startswith("tree-adds")
    assert results["&"].result == "failed"
    # Of opt* the operands are never both 1: `^` is the same there, and so is its polynomial.
    assert results["^"].result == ("failed" if spec.name.startswith("shift") else "proved")


@pytest.mark.parametrize("spec", [LANES, OPT1], ids=lambda spec: spec.name)
def test_register_that_loads_without_a_step_fails(spec: StreamSpec, tmp_path: Path) -> None:
    text = streaming.verilog(spec)
    name = re.search(r"assign (n\d+)  = step__ready & step__valid;", text)
    assert name is not None
    broken = text.replace(name[0], f"assign {name[1]}  = step__ready;")
    assert failed(run(spec, tmp_path, broken)) == {"exact-acc"}


def test_sum_that_does_not_begin_with_zero_fails(tmp_path: Path) -> None:
    bits = LANES.psum.bits
    broken, count = re.subn(rf"\? {bits}'h0+ : sum__payload", f"? {bits}'h1 : sum__payload", streaming.verilog(LANES))
    assert count == 1
    assert failed(run(LANES, tmp_path, broken)) == {"tree-adds-acc"}


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
    assert result.result == ("proved" if same else "failed")
