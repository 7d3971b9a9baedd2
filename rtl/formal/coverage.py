"""Says of which integer sums no range was even tried to be proved: what a spec does not name is not passed over."""

from __future__ import annotations

from collections.abc import Container, Iterator

from bitwright.arch.pe.stream import Field, StreamSpec
from bitwright.rtl.formal import ranges, trees
from bitwright.rtl.formal.harness import Ports
from bitwright.rtl.formal.model import MISSING, Result, Setting
from bitwright.rtl.formal.netlist import Bit, Design

UNNAMED = "neither the spec's cuts nor a tree say what adds up"
UNPROMISED = "the spec promises no longest_sum"
_OVERFLOW_TOLD = "overflow-is-told"


def integer_fields(spec: StreamSpec) -> list[Field]:
    """The fields of a sum that are integers adding up: signed ones, and an integer psum as two vectors."""
    whole = spec.psum.bits if spec.psum.kind == "int" else None
    return [field for field in spec.sum_fields if field.signed or field.bits == whole]


def missing(setting: Setting, spec: StreamSpec, design: Design, told: Container[str]) -> Iterator[Result]:
    """A "not proved" result, its reason in the place of the method, for each claim that no proof is about.

    told : the properties of which there are results.
    """
    known = _accumulators(spec, design, told)
    payload = design.bits(Ports.of(spec).wire("sum_payload"))
    stops = frozenset(bit for bits in known.values() for bit in bits)
    at = 0
    for field in spec.sum_fields:
        lanes = [payload[at + lane * field.bits :][: field.bits] for lane in range(field.lanes)]
        at += field.lanes * field.bits
        if field in integer_fields(spec):
            bare = sum(not design.history(lane, stops) & stops for lane in lanes)
            if bare:
                why = f"{bare} of {field.lanes}: {UNNAMED}" if field.lanes > 1 else UNNAMED
                yield setting.result(f"exact-{field.name}", why, 0, MISSING, 0)
    if spec.cuts and "cut-range" not in told:
        yield setting.result("cut-range", f"shown by {spec.cuts[0].proof} alone", 0, MISSING, 0)
    for name in known:
        if f"no-wrap-{name}" not in told and not (name == spec.accumulator and _OVERFLOW_TOLD in told):
            why = UNPROMISED if spec.longest_sum is None else "a step adds up over its cycles"
            yield setting.result(f"no-wrap-{name}", why, 0, MISSING, 0)


def _accumulators(spec: StreamSpec, design: Design, told: Container[str]) -> dict[str, tuple[Bit, ...]]:
    """Of each accumulator with a result of its total: the bits of its registers and of those that are alike."""
    found: dict[str, tuple[Bit, ...]] = {}
    for first, *others in ranges.classes(spec, design, ranges.accumulators(spec, design)):
        found[first.register.name] = tuple(bit for item in (first, *others) for bit in item.register.bits)
    for tree, *more in trees.classes(spec, design):
        found[tree.name] = tuple(bit for item in (tree, *more) for wire in item.held for bit in design.bits(wire))
    return {name: bits for name, bits in found.items() if f"exact-{name}" in told}
