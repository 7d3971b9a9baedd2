"""Where each operator of a run stands: its critical resource, its place on the roofline, what holds it up.

Fidelity and what is not modelled: as `sim.inference`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bitwright.sim.inference import Phase, Result, dram_port, installed, operator
from bitwright.workloads.operators import work_of
from bitwright.workloads.steps import static


def layer_rows(result: Result, engine: str = "fast") -> list[dict[str, Any]]:
    """A row an operator of prefill and of the first decode step; figures are of one of its `count` repetitions.

    Keys
        macs_per_byte, roof_macs_per_cycle : place on the roofline; the roof is the lesser of the array's peak and what
            the memory's peak bandwidth feeds at that intensity; roof: which of them, "array" or "dram"
        of_roof : macs a cycle over roof_macs_per_cycle, at most 1
        critical : where most cycles go: "array" (it streams), "array_stall", "fill_drain", or "dram <cause>"
        cycles_*, wait_*_cycles : as in the result's row
    """
    rows = []
    machine = result.machine
    rate = dram_port(machine).bytes_per_cycle
    for step in static(result.prompt_tokens, min(1, result.output_tokens), result.batch):
        for gemm in work_of(result.shape, result.policy, step).gemms:
            one = operator(machine, replace(gemm, count=1), installed(result.policy), engine)
            peak = float(machine.macs_a_cycle(gemm.weight_format))
            intensity = one.macs / one.dram_bytes
            roof = min(peak, intensity * rate)
            rows.append(
                {
                    "phase": step.sequences[0].phase,
                    "layer": gemm.name,
                    "count": gemm.count,
                    "m": gemm.m,
                    "k": gemm.k,
                    "n": gemm.n,
                    "cycles": one.cycles,
                    "critical": _critical(one),
                    "macs_per_byte": intensity,
                    "roof": "array" if intensity * rate >= peak else "dram",
                    "roof_macs_per_cycle": roof,
                    "of_roof": one.macs / one.cycles / roof,
                    "cycles_stream": one.cycles_stream,
                    "cycles_array_stall": one.cycles_array_stall,
                    "cycles_fill_drain": one.cycles_fill_drain,
                    **{f"wait_{cause}_cycles": cycles for cause, cycles in one.waits._asdict().items()},
                }
            )
    return rows


def _critical(one: Phase) -> str:
    """The cause with most cycles, of equal ones the first."""
    causes = {
        "array": one.cycles_stream,
        "array_stall": one.cycles_array_stall,
        "fill_drain": one.cycles_fill_drain,
        **{f"dram {cause}": cycles for cause, cycles in one.waits._asdict().items()},
    }
    return max(causes, key=lambda cause: causes[cause])
