"""Proofs that a mutant is the PE itself, case by case: what no solver finds at once it may find for each operand.

A mutant that miscounts the zeros of one subnormal operand only moves a product to the next exponent; that the sum is
the same is arithmetic of the whole adder, and easy once that operand is a constant and its multiplier gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from bitwright.arch.pe import PESpec
from bitwright.arch.pe.block_dot import BlockDot
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.arch.pe.stream import StreamSpec
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant
from bitwright.rtl.bench import block_facts
from bitwright.rtl.bench.stream.equivalence import Mutation
from bitwright.rtl.bench.stream.packing import step_fields
from bitwright.rtl.bench.stream.windows import EDGE, OF_CASES, Fact, by_window, first_step, prove_facts


@dataclass(frozen=True)
class Cases:
    """Some cases of what a wire holds; the last case is all the rest.

    facts : what holds besides in the rest, each proved from it.
    """

    wire: str
    width: int
    rules: tuple[str, ...]
    facts: tuple[Fact, ...] = ()

    def each(self) -> list[tuple[Fact, tuple[Fact, ...]]]:
        """(the case, what follows from it)."""
        rest = " && ".join(f"!({rule})" for rule in self.rules)
        named = [(Fact(self.wire, self.width, rule), ()) for rule in self.rules]
        return [*named, (Fact(self.wire, self.width, rest), self.facts)]


@dataclass(frozen=True)
class Known:
    """What helps proofs about a PE: facts that hold always, and partitions by cases, of which one will do.

    begins : what holds while the first step of a sum is taken.
    """

    facts: tuple[Fact, ...] = ()
    partitions: tuple[Cases, ...] = ()
    begins: tuple[Fact, ...] = ()


# A sum of fp16 products: +0, infinite, the canonical NaN, or a multiple of 2**-48 up to 2**57, where it stays.
_FP32_SUM = (
    "x[30:0] == 0 ? !x[31] : x[30:23] == 8'hff ? x[22:0] == 0 || x == 32'h7fc00000 : "
    "x[30:23] >= 79 && (x[30:23] < 184 || x[30:23] == 184 && x[22:0] == 0) && "
    "(x[30:23] >= 102 || (x[22:0] & ~(23'h7fffff << (102 - x[30:23]))) == 0)"
)
_FP32_LOOP = (Fact("sum__payload", 32, _FP32_SUM, register=True), Fact("started", 32, _FP32_SUM))


def known(spec: PESpec) -> Known:
    """What is known of a PE; nothing of most."""
    for kind, make in _KNOWN.items():
        if isinstance(spec, kind):
            return replace(make(spec), begins=first_step(_payload_bits(spec)))
    return Known()


def _payload_bits(spec: Any) -> int:
    return sum(field.bits * field.lanes for field in step_fields(spec))


def _fp16(spec: Fp16Stream) -> Known:
    """Of the single-cycle fp32 accumulator: operands of 0 and of 2**-24."""
    if spec.pipeline or spec.acc_format != "fp32":
        return Known()
    return Known(_FP32_LOOP, (_of_step(spec, _small(spec, "act", "wgt")),))


def _w4a16(spec: W4A16Dequant) -> Known:
    """As fp16-mac with its activation and its rounded weight; and an integer or a scale's exponent of 0, beside which
    the scaled integer has 11 bits or more."""
    if spec.pipeline:
        return Known()
    zero = "{asym} ? {wgt} == {zero} : {wgt} == 0".format(
        **{name: _bits(spec, name) for name in ("asym", "wgt", "zero")}
    )
    subnormal = f"{_bits(spec, 'scale', 10, 14)} == 0"
    scaled = max(spec.weight_bits + 11, 13)
    return Known(
        (*_FP32_LOOP, Fact("weight", 16, EDGE)),
        (
            _of_step(spec, (zero, subnormal), (Fact("scaled", scaled, "x >= 1024"),)),
            _of_step(spec, _small(spec, "act")),
            Cases("weight", 16, ("x[14:0] == 0", "x[14:0] == 1")),
        ),
    )


def _of_step(spec: StreamSpec, rules: tuple[str, ...], facts: tuple[Fact, ...] = ()) -> Cases:
    return Cases("step__payload", _payload_bits(spec), rules, facts)


def _small(spec: StreamSpec, *names: str) -> tuple[str, ...]:
    """Magnitudes of 0 and 1 of fp16 fields."""
    return tuple(f"{_bits(spec, name, 0, 14)} == {value}" for name in names for value in (0, 1))


def _bits(spec: StreamSpec, name: str, low: int = 0, high: int | None = None) -> str:
    """Bits low .. high (all: None) of a field of one lane in the step's payload."""
    at = 0
    for field in spec.step_fields:
        if field.name == name:
            return f"x[{at + (field.bits - 1 if high is None else high)}:{at + low}]"
        at += field.bits * field.lanes
    raise KeyError(name)


_KNOWN: dict[type[PESpec], Callable[[Any], Known]] = {
    BlockDot: lambda spec: Known(block_facts.facts(spec)),
    Fp16Stream: _fp16,
    W4A16Dequant: _w4a16,
}


_FACT_SECONDS = 60.0  # at least, for each: without them none of the proofs that need them can be had


@cache
def _hold(
    tidy: str, top: str, facts: tuple[Fact, ...], assumed: tuple[Fact, ...], begins: tuple[Fact, ...], seconds: float
) -> bool:
    return prove_facts(tidy, top, facts, max(seconds, _FACT_SECONDS), assumed=assumed, begins=begins)


def by_known(tidy: str, top: str, mutation: Mutation, seconds: float, known: Known) -> str:
    """What was proved of the mutant of `top` in the RTLIL text `tidy`; "" if nothing was, in `seconds` a proof.

    A window of the PE first, with the facts; then, partition by partition, a window for each case.
    """
    if not known.facts or not _hold(tidy, top, known.facts, (), known.begins, seconds):
        return ""
    found = by_window(tidy, top, mutation, seconds, known.facts)
    if found:
        return found
    told = ", ".join(fact.wire for fact in known.facts if fact.rule != EDGE)
    for partition in known.partitions:
        if all(_case(tidy, top, mutation, seconds, known.facts, *case) for case in partition.each()):
            cases = "; ".join((*partition.rules, "all else"))
            return f"equal in each case of {partition.wire}: {cases}; and what is proved of {told} from a first step on"
    return ""


def _case(
    tidy: str, top: str, mutation: Mutation, seconds: float, facts: tuple[Fact, ...], case: Fact,
    follows: tuple[Fact, ...],
) -> bool:  # fmt: skip
    given = (*facts, case)
    if follows and not _hold(tidy, top, follows, given, (), seconds):
        return False
    return bool(by_window(tidy, top, mutation, seconds, (*given, *follows), OF_CASES))
