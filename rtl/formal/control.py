"""Proofs of the handshake, the order and the timing of a streaming PE; its arithmetic plays no part in them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator

import numpy as np
from bitwright.arch.pe.stream import FIRST, LAST, StreamSpec
from bitwright.rtl.formal.harness import Harness, Ports, shown
from bitwright.rtl.formal.holds import write_holds
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Design

PHASE, FINAL = "phase", "final_phase"  # where a step takes several cycles: their counter, and its end
_RANDOM_STEPS = 20_000


def structure(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """What the cones show: no path from `step.valid` to `step.ready`, none from any input to the sum's stream."""
    ports = Ports.of(spec)
    ready, valid, payload = (ports.wire(name) for name in ("step_ready", "sum_valid", "sum_payload"))
    held = {bit for register in design.registers for bit in register.bits}
    clock = design.bits("clk")[0]
    checks = {
        "one-clock": lambda: all(item.cell == "$dff" and item.clock == clock for item in design.registers),
        "ready-ignores-valid": lambda: ports.wire("step_valid") not in design.inputs_of(design.bits(ready)),
        "valid-is-register": lambda: set(design.bits(valid)) <= held,
        "payload-from-registers": lambda: not design.inputs_of(design.bits(payload)),
    }
    for name, check in checks.items():
        begun = time.monotonic()
        result = "proved" if check() else "refuted"
        yield setting.result(name, "structure", 0, result, time.monotonic() - begun)


def stalls(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """A sum on offer that is not taken stops every register; a reset clears what has to be clear."""
    ports = Ports.of(spec)
    sources = design.sources(design.bits(ports.wire("sum_payload")))
    shown_by = [number for number, register in enumerate(design.registers) if sources & set(register.bits)]
    states = [item.bits for item in design.registers]
    offered = design.bits(ports.wire("sum_valid"))
    if offered not in states:  # then there is nothing to hold; `valid-is-register` has failed
        yield setting.result("valid-holds", "structure", 0, "refuted", 0)
        return
    valid = states.index(offered)
    deep = spec.timing.latency_cycles + cycles_of_step(spec)[0] + 3
    results: list[Result] = []
    for exact in (False, True):
        held = write_holds(design, setting.work / "holds.json", exact=exact)
        harness = Harness(ports, {**held, **phase_of(design)})
        _state_stalls(harness, len(held), shown_by, valid)
        path = write(setting, "stalls", harness, source="holds.json")
        results = list(decide(setting, "stalls", harness, path, depth=1, bounded=deep if exact else 3))
        if all(result.proved for result in results):
            break
    yield from results


def _state_stalls(harness: Harness, registers: int, shown_by: Container[int], valid: int) -> None:
    """`shown_by`: the registers that the sum's payload hangs on, which hangs on no input (`payload-from-registers`)."""
    harness.past("stalled", "stall && !rst", 1)
    harness.past("was_reset", "rst", 1)
    harness.claim("valid-holds", "!stalled || sum_valid")
    harness.claim("valid-holds", f"!stall || rst || {shown(f'held_{valid}')}")
    for number in range(registers):
        name = shown(f"held_{number}")
        if number in shown_by:
            harness.claim("payload-holds", f"!stall || rst || {name}")
        harness.claim("registers-hold", f"!stall || rst || {name}")
    harness.claim("reset-clears", "!was_reset || !sum_valid")
    if PHASE in harness.exposed:
        harness.claim("reset-clears", f"!was_reset || {shown(PHASE)} == 0")


def phase_of(design: Design) -> dict[str, int]:
    """The register that counts the cycles of a step, and its bits, where a PE has one."""
    return {PHASE: len(design.bits(PHASE))} if design.has(PHASE) else {}


def order(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """Sums come in order, each once, `latency_cycles` after its last step; every step ends within its cycles.

    From reset with any stalls; by induction without them: a stall changes no register (`registers-hold`).
    """
    longest, steady = cycles_of_step(spec)
    latency = spec.timing.latency_cycles
    for with_stalls in (True, False):
        harness = Harness(Ports.of(spec), phase_of(design))
        harness.stalls = with_stalls
        _state_order(harness, latency, longest, steady)
        name = "order_stalls" if with_stalls else "order"
        path = write(setting, name, harness)
        depth = 0 if with_stalls else latency + longest + 2
        bounded = latency + longest + 8
        results = list(decide(setting, name, harness, path, depth=depth, bounded=bounded))
        if with_stalls and all(result.proved for result in results):
            continue
        yield from results
        if with_stalls:
            return


def _state_order(harness: Harness, latency: int, longest: int, steady: bool) -> None:
    width = max(1, longest.bit_length())
    harness.ghost("lasts", latency, "{lasts, taken && last}", enable="!stall")
    harness.ghost("begun", 8, "begun + 1", enable="taken && last")
    harness.ghost("ended", 8, "ended + 1", enable="sum_valid && sum_ready")
    harness.ghost("cycles", width, "taken ? 0 : cycles + 1", enable="step_valid && !stall")
    flying = " + ".join(f"{{7'd0, lasts[{index}]}}" for index in range(latency))
    harness.wire("flying", 8, flying)
    harness.wire("difference", 8, "begun - ended")
    harness.claim("latency", f"!started || sum_valid == lasts[{latency - 1}]")
    harness.claim("none-lost-none-twice", "!started || difference == flying")
    harness.claim("ready-not-in-stall", "!stall || !step_ready")
    harness.claim("step-ends-in-time", f"!started || cycles < {longest}")
    if steady:
        harness.claim("step-cycles", f"!started || !taken || cycles == {longest - 1}")
    if PHASE in harness.exposed:
        harness.claim("phase-counts", f"!started || {shown(PHASE)} == cycles")
        harness.claim("phase-counts", "!started || rst || cycles == 0 || waiting")


def cycles_of_step(spec: StreamSpec) -> tuple[int, bool]:
    """The most cycles that a step was seen to occupy, and whether all steps occupy as many."""
    rng = np.random.default_rng(1)
    corners = spec.corners()
    steps = {FIRST: np.ones(_RANDOM_STEPS, dtype=np.int64), LAST: np.ones(_RANDOM_STEPS, dtype=np.int64)}
    for field in spec.step_fields:
        shape = (_RANDOM_STEPS,) if field.lanes == 1 else (_RANDOM_STEPS, field.lanes)
        codes = rng.integers(field.low, field.high, shape, endpoint=True)
        often = rng.choice(np.array(corners[field.name]), shape)
        mixed = np.where(np.arange(_RANDOM_STEPS) % 2, 1, 0).reshape((-1,) + (1,) * (len(shape) - 1))
        steps[field.name] = np.where(mixed, often, codes)
    cycles = spec.step_cycles(steps)  # of any codes, legal or not
    return int(cycles.max()), bool(cycles.min() == cycles.max())
