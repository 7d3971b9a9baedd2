"""Proofs of an integer accumulator's range, with the multipliers or aligners before it cut out.

Of accumulators that are the same circuit on cuts of their own (`alike`) one is proved, for all.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bitwright.arch.pe.stream import Cut, StreamSpec
from bitwright.rtl.formal import alike
from bitwright.rtl.formal.alike import Item
from bitwright.rtl.formal.control import PHASE, cycles_of_step, phase_of
from bitwright.rtl.formal.harness import Harness, Ports, shown
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Bit, Design, Register

OVERFLOW = "overflow"  # the register that remembers that a sum left its range, where a PE has one


@dataclass(frozen=True)
class Accumulator:
    """A register that adds up cut wires: its own place and theirs, in registers from the step's payload."""

    register: Register
    cuts: tuple[Cut, ...]
    cut_stage: int
    stages_after: int

    @property
    def low(self) -> int:
        return sum(cut.low * cut.weight for cut in self.cuts)

    @property
    def high(self) -> int:
        return sum(cut.high * cut.weight for cut in self.cuts)


def accumulators(spec: StreamSpec, design: Design) -> list[Accumulator]:
    """The registers of the sum's payload that cut wires lead to and that load something made of themselves."""
    whole, design = design, design.without(cut.wire for cut in spec.cuts)
    shown_by = whole.sources(whole.bits(Ports.of(spec).wire("sum_payload")))
    registers = dict(enumerate(design.registers))
    adding = {at for at, item in registers.items() if shown_by & set(item.bits) and _adds(design, item)}
    fed: dict[int, list[tuple[Cut, int]]] = {}
    for cut in spec.cuts:
        ways = {at: way for at, way in design.levels(design.bits(cut.wire)).items() if at in adding}
        nearest = min(ways.values(), default=None)
        for at in (at for at, way in ways.items() if way == nearest):
            fed.setdefault(at, []).append((cut, ways[at]))
    found = []
    for at, cuts in fed.items():
        first, after = cuts[0]
        stage = whole.distance(Ports.of(spec).wire("step_payload"), design.bits(first.wire))
        assert stage is not None, f"{first.wire} hangs on the step"
        found.append(Accumulator(registers[at], tuple(cut for cut, _ in cuts), stage, after))
    return found


def _adds(design: Design, register: Register) -> bool:
    """Whether it loads something made of itself, not only itself."""
    bits: Sequence[Bit] = register.loads
    while True:
        name = design.driver.get(bits[0])
        cell = design.module["cells"][name] if name is not None else None
        if cell is None or cell["type"] != "$mux":
            return len(bits) > 1 and bool(set(register.bits) & design.cone(bits))
        sides = [side for side in (cell["connections"]["A"], cell["connections"]["B"]) if set(side) - {"0"}]
        others = [side for side in sides if tuple(side) != register.bits]
        if len(others) != 1:
            return bool(set(register.bits) & design.cone(bit for side in others for bit in side))
        bits = others[0]


def exact(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """While its totals fit, an accumulator holds the exact total of what was cut; for `longest_sum` steps they fit."""
    longest, _ = cycles_of_step(spec)
    depth = spec.timing.latency_cycles + longest + 1
    begun = time.monotonic()
    groups = classes(spec, design, accumulators(spec, design))
    seconds = time.monotonic() - begun
    if spec.cuts and not groups:  # the spec names wires that no accumulator of the sum adds
        yield setting.result(f"exact-{spec.accumulator}", "structure", 0, "refuted", 0)
    for item, *others in groups:
        total = f"exact-{item.register.name}"
        results: list[Result] = []
        # What a step of several cycles adds comes all in the last of them, or in each: whichever is not refuted.
        for each_cycle in (False, True) if longest > 1 else (False,):
            harness = _exact_harness(spec, design, item, each_cycle=each_cycle)
            name = f"range_{item.register.name}"
            path = write(setting, name, harness, free=[cut.wire for cut in item.cuts])
            found = list(decide(setting, name, harness, path, depth=depth, bounded=depth + 2))
            fits = all(result.result != "refuted" for result in found if result.property == total)
            results = found if fits or not results else results
            if all(result.proved for result in results):
                break
        kept = (result for result in results if result.property != "phase-counts")
        yield from settled(kept, len(item.register.bits), spec.longest_sum, item.low, item.high)
        if others:
            yield setting.result(f"alike-{item.register.name}", alike.told(len(others)), 0, "proved", seconds)


def settled(results: Iterable[Result], bits: int, longest: int | None, low: int, high: int) -> Iterator[Result]:
    """The results; "refuted", no longer "not inductive", where `longest` steps of `low` or `high` do leave `bits` bits.

    That run is longer than any bounded check.
    """
    outside = longest is not None and (longest * low < -1 << bits - 1 or longest * high >= 1 << bits - 1)
    for result in results:
        if outside and result.property.startswith("no-wrap-") and result.result == "not inductive":
            result = dataclasses.replace(result, method="arithmetic", depth=0, result="refuted", trace="")
        yield result


def classes(spec: StreamSpec, design: Design, items: Sequence[Accumulator]) -> list[list[Accumulator]]:
    """Accumulators that are the same circuit of the same cuts, together: see `alike`."""
    cut = design.without(item.wire for item in spec.cuts)
    forms, ports = alike.Forms(cut), Ports.of(spec)
    watched = [ports.wire("step_ready"), ports.wire("sum_valid"), *phase_of(design)]

    def form(item: Accumulator) -> alike.Form:
        return forms.of(item.register.bits, [cut.bits(each.wire) for each in item.cuts])

    def facts(item: Accumulator) -> Hashable:
        flagged = design.has(OVERFLOW) and item.register.name == spec.accumulator
        cuts = tuple(dataclasses.replace(each, wire="", proof="") for each in item.cuts)
        return cuts, item.cut_stage, item.stages_after, flagged and item.register.name

    return alike.classes(items, form, facts, design, (bit for wire in watched for bit in design.bits(wire)))


def _exact_harness(spec: StreamSpec, design: Design, item: Accumulator, *, each_cycle: bool) -> Harness:
    name, bits = item.register.name, len(item.register.bits)
    wires = {cut.wire: len(design.bits(cut.wire)) for cut in item.cuts}
    exposed = {**wires, name: bits, **phase_of(design)}
    flags = {OVERFLOW: 1} if design.has(OVERFLOW) and name == spec.accumulator else {}
    harness = Harness(Ports.of(spec), {**exposed, **flags}, stalls=False)
    width = max(bits, (max(-item.low, item.high) * (spec.longest_sum or 1)).bit_length() + 1) + 2
    for cut in item.cuts:
        harness.wire(f"free_{cut.wire}", width, extended(cut.wire, wires[cut.wire], width, cut.signed), is_signed=True)
        harness.assume(f"free_{cut.wire} >= {number(width, cut.low)} && free_{cut.wire} <= {number(width, cut.high)}")
    terms = [f"free_{cut.wire} * {number(width, cut.weight)}" for cut in item.cuts]
    harness.wire("added", width, " + ".join(terms), is_signed=True)
    harness.ghost("cycles", 8, "taken ? 0 : cycles + 1", enable="step_valid && !stall")
    if PHASE in exposed:
        harness.claim("phase-counts", f"!started || {shown(PHASE)} == cycles && (rst || cycles == 0 || waiting)")
    came, begins = ("step_valid && !rst", "first && cycles == 0") if each_cycle else ("taken", "first")
    follow(harness, came, item.cut_stage)
    for stage in range(item.cut_stage):
        harness.ghost(f"begins_{stage + 1}", 1, begins, enable="!stall")
        begins = f"begins_{stage + 1}"
    _total(harness, spec, item, width, f"!stall && came_{item.cut_stage}", begins, counts=not each_cycle)
    found = ("total", "fits", "summing")
    for stage in range(item.stages_after):
        later = [f"{ghost}_{stage + 1}" for ghost in ("total", "fits", "summing")]
        for ghost, before, size in zip(later, found, (width, 1, 1), strict=True):
            harness.ghost(ghost, size, before, enable="!stall")
        found = (later[0], later[1], later[2])
    total, fits, summing = found
    held = shown(name)
    harness.claim(f"exact-{name}", f"!started || !{summing} || !{fits} || {held} == {total}[{bits - 1}:0]")
    if flags:
        harness.claim("overflow-is-told", f"!started || !{summing} || {shown(OVERFLOW)} == !{fits}")
    return harness


def _total(
    harness: Harness, spec: StreamSpec, item: Accumulator, width: int, enable: str, begins: str, *, counts: bool
) -> None:  # fmt: skip
    """Ghosts: the exact total of what was cut since a first step, and whether it always fitted the accumulator."""
    bits = len(item.register.bits)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    harness.wire("following", width, f"(({begins}) ? {number(width, 0)} : total) + added", is_signed=True)
    harness.wire("inside", 1, f"following >= {number(width, low)} && following <= {number(width, high)}")
    harness.ghost("total", width, "following", enable=enable, is_signed=True)
    harness.ghost("fits", 1, f"inside && (({begins}) || fits)", enable=enable)
    harness.ghost("summing", 1, f"({begins}) || summing", enable=enable)
    known = f"total >= {number(width, low)} && total <= {number(width, high)}"
    harness.claim(f"exact-{item.register.name}", f"!started || !summing || !fits || ({known})")
    longest = spec.longest_sum
    if not counts or longest is None:
        return
    # n steps leave least = n * low and most = n * high, without a multiplier in the proof.
    ends = {"least": item.low, "most": item.high}
    inside = f"least >= {number(width, longest * item.low)} && most <= {number(width, longest * item.high)}"
    for name, step in ends.items():
        more = f"({inside}) ? {name} + {number(width, step)} : {name}"
        harness.ghost(name, width, f"({begins}) ? {number(width, step)} : {more}", enable=enable, is_signed=True)
    bounds = "total >= least && total <= most && fits"
    harness.claim(f"no-wrap-{item.register.name}", f"!started || !summing || !({inside}) || ({bounds})")


def cut_ranges(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """The cut wires' ranges themselves, of the whole PE with nothing cut, whatever tests show of them.

    One of each of the cuts that are the same circuit of a step's operands (`alike`).
    """
    if not spec.cuts:
        return
    begun = time.monotonic()
    ports = Ports.of(spec)
    stages = {cut.wire: design.distance(ports.wire("step_payload"), design.bits(cut.wire)) or 0 for cut in spec.cuts}

    def facts(cut: Cut) -> Hashable:
        return cut.low, cut.high, cut.signed, stages[cut.wire]

    every = of_operands(spec, design, spec.cuts, lambda cut: design.bits(cut.wire), facts)
    cuts = {first.wire: first for first, *_ in every}
    if len(cuts) < len(spec.cuts):
        same = alike.told(len(spec.cuts) - len(cuts))
        yield setting.result("alike-cuts", same, 0, "proved", time.monotonic() - begun)
    harness = Harness(ports, {wire: len(design.bits(wire)) for wire in cuts}, stalls=False)
    follow(harness, "step_valid && !rst", max(stages[wire] for wire in cuts))
    for wire, cut in cuts.items():
        bits = harness.exposed[wire]
        harness.wire(f"real_{wire}", bits + 2, extended(wire, bits, bits + 2, cut.signed), is_signed=True)
        inside = f"real_{wire} >= {number(bits + 2, cut.low)} && real_{wire} <= {number(bits + 2, cut.high)}"
        harness.claim("cut-range", f"!started || !came_{stages[wire]} || {inside}")
    path = write(setting, "cuts", harness)
    depth = spec.timing.latency_cycles
    yield from decide(setting, "cuts", harness, path, depth=depth, bounded=depth + 2)


def of_operands(
    spec: StreamSpec, design: Design, items: Iterable[Item], roots: Callable[[Item], Iterable[Bit]],
    facts: Callable[[Item], Hashable],
) -> list[list[Item]]:  # fmt: skip
    """Items whose roots are the same circuit of operands of a step, each of its own, together."""
    ports = Ports.of(spec)
    watched = [ports.wire("step_ready"), ports.wire("sum_valid"), *phase_of(design)]
    control = design.history(bit for wire in watched for bit in design.bits(wire))
    operands = frozenset(design.bits(ports.wire("step_payload"))[: ports.first]) - control
    forms = alike.Forms(design)
    return alike.classes(items, lambda item: forms.of(roots(item), operands=operands), facts, design, control)


def follow(harness: Harness, came: str, stages: int) -> None:
    """Ghosts `came_<stage>`: a step's cycle is at this stage, 0 that of the payload."""
    harness.wire("came_0", 1, came)
    for stage in range(stages):
        harness.ghost(f"came_{stage + 1}", 1, f"came_{stage}", enable="!stall")


def extended(wire: str, bits: int, width: int, is_signed: bool) -> str:
    """A wire of the PE at a wider width."""
    top = f"{{{width - bits}{{{shown(wire)}[{bits - 1}]}}}}" if is_signed else f"{width - bits}'d0"
    return f"{{{top}, {shown(wire)}}}"


def number(width: int, value: int) -> str:
    return f"{'-' if value < 0 else ''}{width}'sd{abs(value)}"
