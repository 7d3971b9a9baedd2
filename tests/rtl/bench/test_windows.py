"""Proofs by windows: harmless mutants are proved, others are not, and facts that are false are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from bitwright.arch.errors import ToolError
from bitwright.arch.pe.block_dot import BlockDot, MxFp4Dot, NvInt4Dot
from bitwright.rtl.bench.block_facts import facts
from bitwright.rtl.bench.stream import cases, windows
from bitwright.rtl.bench.stream.equivalence import Mutation
from bitwright.rtl.pe import streaming

SECONDS = 15.0


@pytest.fixture(scope="module")
def tidy(tidied: Callable[[str, str], str]) -> dict[str, str]:
    """The tidied netlist of both PEs, RTLIL."""
    return {spec.name: tidied(streaming.verilog(spec), spec.module_stem) for spec in (NvInt4Dot(), MxFp4Dot())}


def proof(spec: BlockDot, tidy: dict[str, str], mutation: Mutation, *, known: bool = False) -> str:
    given = facts(spec) if known else ()
    return windows.by_window(tidy[spec.name], spec.module_stem, mutation, SECONDS, given)


@pytest.mark.parametrize(
    "mutation",
    [
        Mutation("cnot0", "add_a_special$reduce_and", "A", 2, 4),  # what is inverted does not count beside a 0
        Mutation("const1", "add_b_inf$and", "B", 0, None),  # a NaN taken for an infinity is a NaN
        Mutation("const0", "add_a_larger$ge", "A", 0, None),  # equal magnitudes may be swapped
    ],
    ids=str,
)
def test_harmless_mutants_are_proved(tidy: dict[str, str], mutation: Mutation) -> None:
    assert proof(MxFp4Dot(), tidy, mutation).startswith("equal for any values at the edge of the ")


@pytest.mark.parametrize(
    "mutation",
    [
        Mutation("inv", "add_subtract$xor", "Y", 0, None),
        Mutation("const0", "add_small_sticky$or", "Y", 0, None),
        Mutation("const0", "add_a_larger$ge", "A", 7, None),
        Mutation("inv", "lane_3_product$mul", "A", 0, None),
    ],
    ids=str,
)
def test_mutants_that_matter_are_not_proved(tidy: dict[str, str], mutation: Mutation) -> None:
    assert proof(NvInt4Dot(), tidy, mutation, known=True) == ""


def test_infinities_that_no_block_can_reach_need_the_facts(tidy: dict[str, str]) -> None:
    mutation = Mutation("const1", "add_nan$or", "Y", 0, None)
    assert proof(NvInt4Dot(), tidy, mutation) == ""
    assert proof(NvInt4Dot(), tidy, mutation, known=True).endswith(
        ", and what is proved of block_fp32, sum__payload, start from a sum's first step on"
    )


@pytest.mark.parametrize("spec", [NvInt4Dot(), MxFp4Dot()], ids=lambda spec: spec.name)
def test_facts_are_proved(tidy: dict[str, str], spec: BlockDot) -> None:
    begins = cases.known(spec).begins
    assert windows.prove_facts(tidy[spec.name], spec.module_stem, facts(spec), SECONDS, begins=begins)


@pytest.mark.parametrize(
    ("number", "rule"),
    [(0, "x != 32'h7fc00000"), (1, "x[30:0] == 0 || x[30:23] >= 109"), (1, "x[30:0] != 0"), (2, "x[30:23] < 200")],
)
def test_false_facts_are_refused(tidy: dict[str, str], number: int, rule: str) -> None:
    """The second is true of a block, but sums of blocks cancel; `first` makes a sum 0."""
    spec = NvInt4Dot()
    given = [*facts(spec)[:number], replace(facts(spec)[number], rule=rule)]
    assert not windows.prove_facts(tidy[spec.name], spec.module_stem, given, SECONDS, begins=cases.known(spec).begins)


def test_a_fact_of_no_wire_is_an_error(tidy: dict[str, str]) -> None:
    spec = NvInt4Dot()
    with pytest.raises(ToolError) as caught:
        windows.prove_facts(tidy[spec.name], spec.module_stem, [windows.Fact("nowhere", 1, "x == 0")], SECONDS)
    assert str(caught.value) == "fact of nowhere: no such wire in the netlist"


def test_a_register_is_left_to_the_other_proofs(tidy: dict[str, str]) -> None:
    mutation = Mutation("inv", r"\sum__payload[21:0]$\sum__payload[30:23]$sdffce", "D", 0, None)
    assert proof(NvInt4Dot(), tidy, mutation) == ""
