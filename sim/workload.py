"""A workload file, or a list of matrix products, on a machine: every step timed, and what the server's clock says.

A step is one forward pass (`bitwright.workloads.steps`); it starts when the one before it has ended, or, where nothing
runs, when the next request arrives. Fidelity and what is not modelled: as `sim.inference`, whose operators these are.
Also not modelled: the scheduler's own time, sampling, the drafting model of speculative decoding.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bitwright.arch import costs
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Machine
from bitwright.sim.costs import check_clock
from bitwright.sim.gpus import references
from bitwright.sim.inference import (
    Phase,
    areas_um2,
    beyond_capacity,
    check_capacity,
    check_policy,
    installed,
    not_modelled,
    phase_of,
)
from bitwright.sim.row import (
    area_figures,
    command_of,
    cycle_parts,
    energy_parts,
    known,
    machine_figures,
    peak_macs_per_cycle,
)
from bitwright.sim.store import content_hash
from bitwright.workloads import batching, models
from bitwright.workloads.batching import Served
from bitwright.workloads.description import Workload
from bitwright.workloads.operators import Choices, Gemm, Work, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.sparsity import Sparsity
from bitwright.workloads.steps import Step
from bitwright.workloads.traffic import cache_bits, traffic_of

Kind = Literal["prefill", "decode", "mixed"]
KINDS: tuple[Kind, ...] = ("prefill", "decode", "mixed")
_DENSE = ("router", "head")  # what N:M sparsity leaves alone


@dataclass(frozen=True)
class TimedStep:
    """One forward pass: when it starts, what it holds and costs.

    `least_bytes`, of them `index_bytes`: every operand of every operator once (`workloads.traffic`), and the places of
    weights that N:M sparsity kept. `masked_macs` and `skipped_macs` are part of `phase.macs`.
    """

    start_s: float
    step: Step
    kind: Kind
    phase: Phase
    masked_macs: int
    skipped_macs: int
    least_bytes: int
    index_bytes: int


@dataclass(frozen=True)
class WorkloadResult:
    """What `simulate_workload` answers; `row()` is the flat form with units in the keys."""

    machine: Machine
    policy: FormatPolicy
    model: str
    shape: ModelShape
    workload: Workload
    choices: Choices
    folder: Path
    steps: tuple[TimedStep, ...]
    served: tuple[Served, ...]
    peak_memory_bytes: int

    @property
    def total(self) -> Phase:
        """Of all steps."""
        return _sum([step.phase for step in self.steps])

    def row(self, file: str = "FILE") -> dict[str, Any]:
        """The figures: `cycles` is the sum of the `cycles_*`, of the `cycles_op_*`, and of the three kinds of step.

        `file` is the workload's as the row's command names it.
        """
        machine, total = self.machine, self.total
        ms = 1 / (machine.clock_mhz * 1e3)
        generated = self.workload.output_tokens(self.folder)
        new_tokens = sum(item.step.tokens for item in self.steps)
        last = self.steps[-1]
        busy_ms, span_ms = total.cycles * ms, last.start_s * 1e3 + last.phase.cycles * ms
        row = machine_figures(machine, self.policy) | _totals(machine, self.policy, total)
        row |= {
            "model": self.model,
            "workload": self.workload.model_dump(mode="json", exclude_none=True),
            "steps": len(self.steps),
            "latency_ms": span_ms,
            "busy_ms": busy_ms,
            "model_tokens": new_tokens,
            "generated_tokens": generated,
            "generated_tokens_per_s": generated / span_ms * 1e3,
            **known({"energy_uj_per_token": total.energy.total_pj * 1e-6 / (generated or new_tokens)}),
            "peak_memory_bytes": self.peak_memory_bytes,
            "notes": [
                *beyond_capacity(machine, self.peak_memory_bytes),
                *not_modelled(machine),
                "steps follow each other without a pause: scheduling and sampling take no time; energy "
                "is of busy_ms: while no request is there nothing is charged",
            ],
            "command": command_of(machine, self.policy, self.model, ["--workload", file]),
            "hashes": {
                "machine": content_hash(machine.model_dump(mode="json")),
                "policy": content_hash(self.policy.model_dump(mode="json")),
                "model_shape": content_hash(asdict(self.shape)),
                "cost_table": costs.load(machine.node).content_hash,
                "steps": content_hash([asdict(item.step) for item in self.steps]),
            },
        }
        for name in ("masked_macs", "skipped_macs", "least_bytes", "index_bytes"):
            row[name] = sum(getattr(item, name) for item in self.steps)
        for kind in KINDS:
            part = [item for item in self.steps if item.kind == kind]
            row |= {f"{kind}_steps": len(part), f"{kind}_cycles": sum(item.phase.cycles for item in part)}
        row["gpus"] = references(self.shape, self.policy, [item.step for item in self.steps], self.choices)
        return row | self._waits(ms)

    def _waits(self, ms: float) -> dict[str, Any]:
        """Time to the first token of every prompt; of requests also the median and worst of the whole answer."""
        if self.workload.requests is None:
            firsts = [
                item.start_s * 1e3 + item.phase.cycles * ms
                for item in self.steps
                for advance in item.step.sequences
                if advance.phase == "prefill" and advance.logits
                for _ in range(advance.count)
            ]
            return {"ttft_ms": statistics.fmean(firsts), "ttft_worst_ms": max(firsts)}
        firsts = [1e3 * (item.first_s - item.request.arrival_s) for item in self.served]
        answers = [1e3 * (item.done_s - item.request.arrival_s) for item in self.served]
        a_token = [
            1e3 * (item.done_s - item.first_s) / item.request.output_tokens
            for item in self.served
            if item.request.output_tokens
        ]
        return {
            "requests": len(self.served),
            "ttft_ms": statistics.fmean(firsts),
            "ttft_median_ms": statistics.median(firsts),
            "ttft_worst_ms": max(firsts),
            "tpot_ms": statistics.fmean(a_token) if a_token else None,
            "request_median_ms": statistics.median(answers),
            "request_worst_ms": max(answers),
        }


def simulate_workload(
    machine: Machine | str,
    model: str | ModelShape,
    workload: Workload,
    *,
    folder: Path = Path(),
    policy: FormatPolicy,
    engine: str = "fast",
) -> WorkloadResult:
    """Every step of `workload` of `model` on `machine`; `folder` is what the paths in it are relative to.

    Raises ConfigError as `inference.simulate`; for a routing or sparsity that does not fit the model; for
    `latent_attention` or `experts` of a model that has none, which would change nothing.
    """
    machine = _checked(machine, policy)
    shape = models.shape_of(model) if isinstance(model, str) else model
    _check_parts(shape, workload)
    choices = workload.choices(folder)
    requests = workload.read_requests(folder) if workload.requests is not None else ()
    timed = cache(lambda step: _timed(machine, shape, policy, step, choices, engine))

    def seconds_of(step: Step) -> float:
        return float(timed(step)[1].cycles / (machine.clock_mhz * 1e6))

    served: list[Served] = []
    starts: list[tuple[float, Step]] = []
    if workload.requests is not None:
        starts = list(batching.continuous(requests, workload.requests.limits, seconds_of, served))
    else:
        now = 0.0
        for step in workload.fixed_steps():
            starts.append((now, step))
            now += seconds_of(step)
    steps = tuple(TimedStep(start, step, *timed(step)) for start, step in starts)
    bits = resident_bits(shape, policy, choices.sparsity) + max(_held_bits(shape, policy, item.step) for item in steps)
    name = model if isinstance(model, str) else model.name
    peak_bytes = -(-bits // 8)
    longest = max(advance.keys for item in steps for advance in item.step.sequences)
    most = max(sum(advance.count for advance in item.step.sequences) for item in steps)
    check_capacity(machine, peak_bytes, longest, most)
    return WorkloadResult(machine, policy, name, shape, workload, choices, folder, steps, tuple(served), peak_bytes)


def products_row(
    machine: Machine, name: str, work: Work, *, policy: FormatPolicy, options: Sequence[str] = ()
) -> dict[str, Any]:
    """The row of a list of matrix products (a CSV file's, an ONNX graph's), one after another; each in `layers`, with
    the figures of one of its `count` repetitions, as in `sim.layers`. `options` belong to the list, in the row's
    command.

    Raises ConfigError for formats of another PE, and a buffer that cannot hold one tile.
    """
    machine = _checked(machine, policy)
    layers: list[tuple[Gemm, Phase]] = [
        (gemm, phase_of(machine, Work((replace(gemm, count=1),), ()), policy, "fast")) for gemm in work.gemms
    ]
    total = phase_of(machine, Work(work.gemms, ()), policy, "fast")
    row = machine_figures(machine, policy) | _totals(machine, policy, total)
    return row | {
        "model": name,
        "latency_ms": total.cycles / (machine.clock_mhz * 1e3),
        "notes": [
            *not_modelled(machine),
            "matrix products alone: whatever else the graph or list stands for is left out",
        ],
        "command": command_of(machine, policy, name, options, of_a_model=False),
        "layers": [
            {
                "layer": gemm.name, "count": gemm.count, "m": gemm.m, "k": gemm.k, "n": gemm.n,
                "cycles": phase.cycles, "bound_cycles": phase.bound_cycles, "dram_bytes": phase.dram_bytes,
                "cycles_dram_wait": phase.cycles_dram_wait, **known({"energy_uj": phase.energy.total_pj * 1e-6}),
            }
            for gemm, phase in layers
        ],
    }  # fmt: skip


def resident_bits(shape: ModelShape, policy: FormatPolicy, sparsity: Sparsity | None = None) -> int:
    """Bits that a model has in DRAM before any token: weights with scales and indices, fp16 tables of embeddings."""
    bits = 0
    for item in shape.matmuls():
        head = item.name == "head"
        chosen = policy.head_format if head else policy.weights
        kept = None if item.name in _DENSE else sparsity
        gemm = Gemm(
            item.name, "head" if head else "ffn", 1, item.k, item.n, 1, chosen, policy.group_size, sparsity=kept
        )
        bits += item.count * gemm.weight_bits(item.n, item.k)
    shared = shape.tied_embeddings and policy.head_format == "fp16"
    return bits + 16 * shape.hidden * ((0 if shared else shape.vocab) + shape.positions)


def _held_bits(shape: ModelShape, policy: FormatPolicy, step: Step) -> int:
    """KV cache of the sequences in a step, after it. One that waits meanwhile is not in it."""
    from bitwright.workloads.attended import kept_tokens

    return sum(
        layers * item.count * cache_bits(shape, policy, kept_tokens(item.keys, window, shape.sink_tokens))
        for window, layers in shape.windows().items()
        for item in step.sequences
    )


def _checked(machine: Machine | str, policy: FormatPolicy) -> Machine:
    machine = machines.load(machine) if isinstance(machine, str) else machine
    check_policy(machine, policy)
    check_clock(machine, installed(policy))
    return machine


def _check_parts(shape: ModelShape, workload: Workload) -> None:
    for key, there, what in (
        ("latent_attention", shape.latent is not None, "latent attention"),
        ("experts", shape.experts is not None, "experts"),
    ):
        if getattr(workload, key) is not None and not there:
            raise ConfigError(f"{key}: {shape.name} has no {what}; leave this key out; the workload")


def _timed(
    machine: Machine, shape: ModelShape, policy: FormatPolicy, step: Step, choices: Choices, engine: str
) -> tuple[Kind, Phase, int, int, int, int]:
    work = work_of(shape, policy, step, choices)
    phase = phase_of(machine, work, policy, engine)
    moved = traffic_of(shape, policy, step, work)
    phases: set[Kind] = {item.phase for item in step.sequences}
    kind: Kind = "mixed" if len(phases) > 1 else phases.pop()
    return kind, phase, work.masked_macs, work.skipped_macs, moved.total, moved.indices


def _sum(phases: Sequence[Phase]) -> Phase:
    total = Phase()
    for phase in phases:
        total += phase
    return total


def _totals(machine: Machine, policy: FormatPolicy, total: Phase) -> dict[str, Any]:
    """Figures that every kind of run has."""
    return {
        "cycles": total.cycles,
        "bound_cycles": total.bound_cycles,
        "macs": total.macs,
        "dram_bytes": total.dram_bytes,
        "utilisation": float(total.macs / (peak_macs_per_cycle(machine, policy) * total.cycles)),
        **known({"energy_uj": total.energy.total_pj * 1e-6}),
        **energy_parts(total),
        **cycle_parts(total),
        **area_figures(areas_um2(machine, policy)),
    }
