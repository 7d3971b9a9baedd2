"""A run of a model as what its units do when: prefill and the first decode step, each operator once.

Operators run one after another, as `simulate` has them, so an operator's repetitions look alike but for their place;
each is shown once and says how often it runs. Fidelity and what is not modelled: as `sim.inference`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.arch.machine import Machine
from bitwright.sim import fast
from bitwright.sim.inference import dram_port, edge_latency_cycles, memory_of, vector_cycles
from bitwright.sim.intervals import Interval
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.steps import static


@dataclass(frozen=True)
class Operator:
    """One operator at its place: `count` times as long in the run itself."""

    phase: str
    name: str
    count: int
    start_cycle: int
    end_cycle: int
    intervals: tuple[Interval, ...]


def timeline(
    machine: Machine, shape: ModelShape, policy: FormatPolicy, *, prompt_tokens: int, output_tokens: int, batch: int
) -> list[Operator]:
    """Prefill, and the decode step that follows it if `output_tokens` is not 0."""
    operators: list[Operator] = []
    at = 0
    for step in static(prompt_tokens, min(output_tokens, 1), batch):
        phase, work = step.sequences[0].phase, work_of(shape, policy, step)
        for gemm in work.gemms:
            intervals = _gemm(machine, gemm)
            end = at + max(item.end_cycle for item in intervals)
            moved = tuple(item.moved(at) for item in intervals)
            operators.append(Operator(phase, gemm.name, gemm.count, at, end, moved))
            at = end
        for item in work.vector:
            end = at + vector_cycles(machine, item)
            busy = (Interval("vector", item.name, at, end),)
            operators.append(Operator(phase, item.name, item.count, at, end, busy))
            at = end
    return operators


def _gemm(machine: Machine, gemm: Gemm) -> list[Interval]:
    """From cycle 0."""
    port, found = dram_port(machine), list[Interval]()
    program = mapping.compile_gemm(machine, gemm, port)
    fast.run(
        program,
        mapping.array_shape(machine, gemm.weight_format),
        memory_of(machine),
        edge_latency_cycles(machine),
        found,
    )
    return found
