"""Proof that a sum does not depend on anything before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.formal.control import FINAL, PHASE, cycles_of_step, phase_of
from bitwright.rtl.formal.harness import Harness, Ports, label, shown
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Design
from bitwright.rtl.formal.taint import TAINT_IN, Tainted

GOAL = "first-forgets"
_HELP = "help-"
_MOST_ROUNDS = 40


def clear(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """Any step marked first makes the PE forget operands before it and what registers held at power-up.

    Given the same control (valid, first, last, the ends of steps), no sum offered `latency_cycles` or more after that
    step was taken may depend on them. `pick` chooses the step, freely. The induction is helped by the same claim for
    single registers; those of which it does not hold (a register that only a last step loads) are dropped.
    """
    latency = spec.timing.latency_cycles
    depth = 2 * latency + cycles_of_step(spec)[0]
    ports = Ports.of(spec)
    operands = design.bits(ports.wire("step_payload"))[: ports.first]
    control = [bit for wire in (PHASE, FINAL, ports.wire("sum_valid")) if design.has(wire) for bit in design.bits(wire)]
    tainted = Tainted(design, operands, control, design.bits(ports.wire("sum_payload")))
    tainted.write(setting.work / "taint.json")
    helpers, seconds = list(tainted.registers), 0.0
    for _ in range(_MOST_ROUNDS):
        harness = _harness(ports, latency, tainted, helpers, phase_of(design))
        path = write(setting, "clear", harness, source="taint.json")
        results = list(decide(setting, "clear", harness, path, depth=depth, bounded=depth + 2))
        seconds += results[0].seconds
        broken = {result.property for result in results if result.trace and result.property.startswith(_HELP)}
        if not broken or any(result.property == GOAL and result.result == "refuted" for result in results):
            break
        helpers = [name for name in helpers if label(_HELP + name) not in {label(item) for item in broken}]
    yield from (replace(result, seconds=seconds) for result in results if result.property == GOAL)


def _harness(ports: Ports, latency: int, tainted: Tainted, helpers: list[str], phase: dict[str, int]) -> Harness:
    exposed = {**dict.fromkeys(tainted.outputs, 1), **phase}
    harness = Harness(ports, exposed, {TAINT_IN: "!(chosen || choose)"}, stalls=False)
    harness.lines.append("(* anyseq *) reg pick;")
    harness.wire("choose", 1, "pick && step_valid && first && !waiting && !rst")
    harness.ghost("chosen", 1, "chosen || choose")
    harness.ghost("clearing", latency, "{clearing, taken && (chosen || choose)}", enable="!stall")
    harness.ghost("cleared", 1, f"cleared || clearing[{latency - 1}]", enable="!stall")
    harness.wire("forgotten", 1, f"started && (cleared || clearing[{latency - 1}])")
    harness.claim(GOAL, "!forgotten || !sum_valid || !pe_taint_sum")
    # The ghosts of the induction's first cycle are free too: what follows from how they are made.
    harness.claim(GOAL, "!started || chosen || (clearing == 0 && !cleared)")
    harness.claim(GOAL, f"!started || !chosen || clearing != 0 || cleared || (waiting && offered[{ports.first}])")
    if phase:
        harness.claim(GOAL, f"!started || {shown(PHASE)} == 0 || waiting")
    for name in helpers:
        harness.claim(_HELP + name, f"!forgotten || !pe_{name}")
    return harness
