"""Proofs case by case: harmless mutants are proved, mutants that matter and false facts are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.arch.pe.stream import StreamSpec
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant
from bitwright.rtl.bench.stream import mutants
from bitwright.rtl.bench.stream.cases import Cases, Known, by_known, known
from bitwright.rtl.bench.stream.equivalence import Mutation, run_yosys
from bitwright.rtl.bench.stream.windows import Fact, prove_facts
from bitwright.rtl.pe import streaming

FP16, W4A16 = Fp16Stream(), W4A16Dequant()
SECONDS = 12.0


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tidied netlist of both PEs, RTLIL."""
    return {spec.name: _tidied(spec, tmp_path_factory.mktemp(spec.module_stem)) for spec in (FP16, W4A16)}


def _tidied(spec: StreamSpec, folder: Path) -> str:
    (folder / "rtl.v").write_text(streaming.verilog(spec))
    run_yosys(folder, [*(line.format(top=spec.module_stem) for line in mutants.TIDY), "write_rtlil tidy.il"])
    return (folder / "tidy.il").read_text()


def test_a_smallest_subnormal_whose_zeros_are_miscounted_gives_the_same_sum(tidy: dict[str, str]) -> None:
    wrong_count = Mutation("inv", "n99$not", "Y", 0, None)  # only seen where the weight is 2**-24
    only = replace(known(FP16).partitions[0], rules=("x[30:16] == 1", "x[30:16] == 0"))
    found = by_known(tidy["fp16-mac"], FP16.module_stem, wrong_count, SECONDS, Known(known(FP16).facts, (only,)))
    assert found == "equal in each case: 2 values of step__payload and the rest"


@pytest.mark.parametrize(
    ("least", "in_case", "follows"), [(1024, True, True), (1025, True, False), (1024, False, False)]
)
def test_a_fact_of_a_case_follows_from_it(tidy: dict[str, str], least: int, in_case: bool, follows: bool) -> None:
    rest, _ = known(W4A16).partitions[0].each()[-1]
    fact = Fact("scaled", 15, f"x >= {least}")
    assumed = (rest,) if in_case else ()
    assert prove_facts(tidy["w4a16-dequant"], W4A16.module_stem, (fact,), SECONDS, assumed) is follows


@pytest.mark.parametrize("rules", [("x[14:0] == 0",), ("x[30:16] == 1",)])
def test_a_mutant_that_matters_is_not_proved(tidy: dict[str, str], rules: tuple[str, ...]) -> None:
    sign = Mutation("inv", "subtract$xor", "Y", 0, None)
    partition = replace(known(FP16).partitions[0], rules=rules)
    assert by_known(tidy["fp16-mac"], FP16.module_stem, sign, 2, Known(known(FP16).facts, (partition,))) == ""


def test_a_fact_that_is_false_at_the_start_is_refused(tidy: dict[str, str]) -> None:
    never_zero = Fact("sum__payload", 32, "x[31] || 1'd0", register=True)
    mutation = Mutation("inv", "n99$not", "Y", 0, None)
    assert by_known(tidy["fp16-mac"], FP16.module_stem, mutation, 5, Known((never_zero,))) == ""


def test_the_last_case_is_all_the_rest() -> None:
    cases = Cases("wire", 4, ("x == 0", "x == 3"), (Fact("other", 2, "x != 0"),))
    assert [case.rule for case, _ in cases.each()] == ["x == 0", "x == 3", "!(x == 0) && !(x == 3)"]
    assert [facts for _, facts in cases.each()] == [(), (), cases.facts]
