"""Proof of the range of what a step of `lut` adds, plane after plane, of the whole PE with nothing cut.

After each plane the total so far lies in `Lut.plane_ranges`: by induction over planes, whatever the entries and weights
of a legal step are. What enters the sums is that total, or a table's last entry, times the table's scale.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bitwright.arch.pe.lut import Lut
from bitwright.rtl.formal import alike
from bitwright.rtl.formal.control import cycles_of_step, phase_of
from bitwright.rtl.formal.harness import Harness, Ports
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Bit, Design
from bitwright.rtl.formal.ranges import extended, number, of_operands
from bitwright.rtl.formal.trees import timed


def provable(spec: Lut) -> bool:
    """Whether bounds of single entries are enough; not where a table's entries, or these and its scale, are related."""
    return not (spec.precompute and (spec.tables.scaled or spec.variant == "unpu"))


def cut_ranges(setting: Setting, spec: Lut, design: Design) -> Iterator[Result]:
    """`cut-range` of all that enters the sums; one of each of the circuits that are the same (`alike`)."""
    if not provable(spec):
        return
    begun = time.monotonic()
    pairs = [(f"addend_{row}_{column}", f"part_{row}_{column}") for row in range(spec.m) for column in range(spec.n)]
    totals = [(addend, part if spec.plane_bits else "") for addend, part in pairs]
    every = _classes(spec, design, [*totals, *((f"row_addend_{row}", "") for row in range(spec.m))])
    same = sum(len(others) for _, *others in every)
    if same:
        yield setting.result("alike-cuts", alike.told(same), 0, "proved", time.monotonic() - begun)
    harness = _harness(spec, design, [first for first, *_ in every])
    path = write(setting, "planes", harness)
    depth = spec.timing.latency_cycles + cycles_of_step(spec)[0] + 1
    results = decide(setting, "planes", harness, path, depth=depth, bounded=depth + 2)
    yield from (result for result in results if result.property != "phase-counts")


def _classes(spec: Lut, design: Design, items: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """What enters a sum, and its total so far, as circuits of operands of their own."""

    def roots(item: tuple[str, str]) -> list[Bit]:
        return [bit for wire in item if wire for bit in design.bits(wire)]

    return of_operands(spec, design, items, roots, lambda item: (item[0].startswith("row"), item[1] != ""))


def _harness(spec: Lut, design: Design, items: list[tuple[str, str]]) -> Harness:
    ports = Ports.of(spec)
    payload = ports.wire("step_payload")
    wires = {wire: len(design.bits(wire)) for item in items for wire in item if wire}
    harness = Harness(ports, {**wires, **phase_of(design)}, stalls=False)
    _legal(harness, spec)
    parts = [part for _, part in items if part]
    late = design.distance(payload, design.bits(items[0][0])) or 0
    loads = {item.name: item.loads for item in design.registers}
    stage = design.distance(payload, loads[parts[0]]) or 0 if parts else late
    came, _, ends = timed(harness, cycles_of_step(spec)[0], stage)
    if parts:
        _count(harness, came, ends, stage)
    for at in range(stage, late):
        harness.ghost(f"came_{at + 1}", 1, f"came_{at}", enable="!stall")
    for addend, part in items:
        limits = spec.row_range if addend.startswith("row") else spec.addend_range
        harness.claim("cut-range", f"!started || !came_{late} || {_within(harness, addend, limits)}")
        for planes, bounds in enumerate(spec.plane_ranges[:-1] if part else (), 1):
            harness.claim("cut-range", f"!started || planes != {planes} || {_within(harness, part, bounds)}")
    if parts:
        harness.claim("cut-range", f"!started || planes < {spec.weight_bits}")
    return harness


def _legal(harness: Harness, spec: Lut) -> None:
    """Steps have planes that there are and scales that there are: others are illegal."""
    at = 0
    for field in spec.step_fields:
        top = {"top_plane": spec.weight_bits - 1, "exponent": spec.tables.top_exponent}.get(field.name, field.high)
        for lane in range(field.lanes if top < field.high else 0):
            low = at + lane * field.bits
            harness.assume(f"!step_valid || step_payload[{low + field.bits - 1}:{low}] <= {field.bits}'d{top}")
        at += field.lanes * field.bits


def _count(harness: Harness, came: str, ends: str, stage: int) -> None:
    """The ghost `planes`: how many of the unfinished step's are in the total so far."""
    harness.ghost("planes", 8, f"({ends}) ? 0 : planes + 1", enable=f"!stall && {came}")
    cycles = "cycles"
    for at in range(stage):
        harness.ghost(f"cycles_{at + 1}", 8, cycles, enable="!stall")
        cycles = f"cycles_{at + 1}"
    harness.claim("phase-counts", f"!started || rst || !{came} || planes == {cycles}")
    harness.claim("phase-counts", "!started || inside_step == (planes != 0)")


def _within(harness: Harness, wire: str, limits: tuple[int, int]) -> str:
    bits = harness.exposed[wire]
    width = max(bits, *(abs(limit).bit_length() for limit in limits)) + 2
    value = f"$signed({extended(wire, bits, width, True)})"
    return f"({value} >= {number(width, limits[0])} && {value} <= {number(width, limits[1])})"
