"""Proofs case by case: harmless mutants are proved, mutants that matter and false facts are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from bitwright.arch.errors import ToolError
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant
from bitwright.rtl.bench.stream.cases import Cases, by_known, known
from bitwright.rtl.bench.stream.equivalence import Mutation
from bitwright.rtl.bench.stream.windows import OF_CASES, Fact, by_window, first_step, prove_facts
from bitwright.rtl.pe import streaming

FP16, W4A16 = Fp16Stream(), W4A16Dequant()
SECONDS = 12.0


@pytest.fixture(scope="module")
def tidy(tidied: Callable[[str, str], str]) -> dict[str, str]:
    """The tidied netlist of both PEs, RTLIL."""
    return {spec.name: tidied(streaming.verilog(spec), spec.module_stem) for spec in (FP16, W4A16)}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_smallest_subnormal_whose_zeros_are_miscounted_gives_the_same_sum(tidy: dict[str, str], number: int) -> None:
    wrong_count = Mutation("inv", "n99$not", "Y", 0, None)  # only seen where the weight is 2**-24
    partition = replace(known(FP16).partitions[0], rules=("x[30:16] == 1", "x[30:16] == 0"))
    case, _ = partition.each()[number]
    given = (*known(FP16).facts, case)
    assert by_window(tidy["fp16-mac"], FP16.module_stem, wrong_count, 2 * SECONDS, given, (*OF_CASES[:2], OF_CASES[-1]))


@pytest.mark.parametrize(
    ("least", "in_case", "follows"), [(1024, True, True), (1025, True, False), (1024, False, False)]
)
def test_a_fact_of_a_case_follows_from_it(tidy: dict[str, str], least: int, in_case: bool, follows: bool) -> None:
    rest, _ = known(W4A16).partitions[0].each()[-1]
    fact = Fact("scaled", 15, f"x >= {least}")
    assumed = (rest,) if in_case else ()
    assert prove_facts(tidy["w4a16-dequant"], W4A16.module_stem, (fact,), SECONDS, assumed=assumed) is follows


@pytest.mark.parametrize("rules", [("x[14:0] == 0",), ("x[30:16] == 1",)])
def test_a_mutant_that_matters_is_not_proved(tidy: dict[str, str], rules: tuple[str, ...]) -> None:
    sign = Mutation("inv", "subtract$xor", "Y", 0, None)
    partition = replace(known(FP16).partitions[0], rules=rules)
    assert by_known(tidy["fp16-mac"], FP16.module_stem, sign, 1, replace(known(FP16), partitions=(partition,))) == ""


TOY = """
module toy(input clk, rst, step__valid, input [3:0] step__payload, output step__ready, output [1:0] sum__payload);
  reg [1:0] s;
  assign step__ready = 1;
  always @(posedge clk) s <= step__valid & step__payload[2] & {clears} ? 2'd0 : {{s[0], s[1]}};
  assign sum__payload = s;
endmodule
"""


@pytest.fixture(scope="module")
def toys(tidied: Callable[[str, str], str]) -> dict[int, str]:
    """A register that rotates; in the second, a first step clears it."""
    return {clears: tidied(TOY.format(clears=clears), "toy") for clears in (0, 1)}


@pytest.mark.parametrize("clears", [0, 1])
def test_what_a_register_keeps_must_be_what_a_first_step_loads(toys: dict[int, str], clears: int) -> None:
    never = Fact("sum__payload", 2, "x == 0", register=True)  # from one cycle to the next it holds in both
    assert prove_facts(toys[clears], "toy", (never,), 5, begins=first_step(4)) is bool(clears)


@pytest.mark.parametrize(
    ("fact", "assumed", "text"),
    [
        (
            Fact("sum__payload", 2, "x == 0", register=True),
            (Fact("step__valid", 1, "x"),),
            "fact of sum__payload: must be of a register, with what begins it, and of no case",
        ),
        (
            Fact("step__valid", 1, "x", register=True),
            (),
            "fact of step__valid: must be of a register, with what begins it, and of no case",
        ),
        (Fact("sum__payload", 3, "x == 0"), (), "fact of sum__payload: width = 3: must be 2"),
    ],
)
def test_what_cannot_be_a_fact(toys: dict[int, str], fact: Fact, assumed: tuple[Fact, ...], text: str) -> None:
    with pytest.raises(ToolError) as caught:
        prove_facts(toys[1], "toy", (fact,), 5, assumed=assumed, begins=first_step(4))
    assert str(caught.value) == text


def test_the_last_case_is_all_the_rest() -> None:
    cases = Cases("wire", 4, ("x == 0", "x == 3"), (Fact("other", 2, "x != 0"),))
    assert [case.rule for case, _ in cases.each()] == ["x == 0", "x == 3", "!(x == 0) && !(x == 3)"]
    assert [facts for _, facts in cases.each()] == [(), (), cases.facts]
