"""A model's linear layers as programs of the accelerator: projections, FFN matrices and head of prefill and decode.

One event is what it is for `gemm`: each distinct product runs once, as a program of its own, and counts as often as the
model has it. Fidelity: the cycles of each program are the RTL's (tests/cross/accelerator). Not modelled: products of
attention with the KV cache and element-wise work, which the host does, and overlap between programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bitwright.arch.isa.counters import Counters
from bitwright.arch.machine import Machine
from bitwright.sim.accelerator.gemm import Gemm
from bitwright.workloads import models
from bitwright.workloads.operators import work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.steps import static

SCHEMA_VERSION = 1

_ON_HOST = "attention"


@dataclass(frozen=True)
class Layer:
    """A product of a model on the accelerator.

    Members
        phase : "prefill" or "decode"
        name : of `workloads.operators`
        count : how often the phase has it; decode: all of its steps together
    """

    phase: str
    name: str
    count: int
    gemm: Gemm


def layers(
    machine: Machine,
    model: str | ModelShape,
    *,
    fmt: str,
    group: int | None = None,
    prompt_tokens: int = 128,
    output_tokens: int = 32,
    batch: int = 1,
) -> Iterator[Layer]:
    """The products of a model, in the order of a forward pass. ConfigError for an unknown model, and as of `Gemm`."""
    shape = models.shape_of(model) if isinstance(model, str) else model
    first, *later = static(prompt_tokens, output_tokens, batch)
    phases = [("prefill", first, 1), *(("decode", one, output_tokens) for one in later[:1])]
    for phase, step, times in phases:
        for item in work_of(shape, FormatPolicy(), step).gemms:
            if item.kind != _ON_HOST:
                yield Layer(phase, item.name, item.count * times, Gemm(machine, item.m, item.k, item.n, fmt, group))


def model_row(
    machine: Machine, model: str | ModelShape, work: list[Layer], engine: str, run: Callable[[Gemm], Counters]
) -> dict[str, Any]:
    """The row of a model: cycles in all and of each product, whose counters `run` says, once for each distinct one."""
    known: dict[Gemm, Counters] = {}
    rows: list[dict[str, Any]] = []
    for layer in work:
        gemm = layer.gemm
        if gemm not in known:
            known[gemm] = run(gemm)
        sizes = {"m": gemm.m, "k": gemm.k, "n": gemm.n}
        rows.append({"phase": layer.phase, "layer": layer.name, "count": layer.count, **sizes, **asdict(known[gemm])})
    cycles = {
        phase: sum(row["count"] * row["cycles"] for row in rows if row["phase"] == phase)
        for phase in ("prefill", "decode")
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine.name,
        "model": model if isinstance(model, str) else model.name,
        "engine": engine,
        "weights": work[0].gemm.fmt,
        "group": work[0].gemm.group,
        "port_bytes": machine.port.bytes,
        **{f"memory_{name}": value for name, value in machine.memory.model_dump().items()},
        "cycles": sum(cycles.values()),
        "prefill_cycles": cycles["prefill"],
        "decode_cycles": cycles["decode"],
        "layers": rows,
        "notes": [
            "linear layers, each a program of the accelerator; attention with the KV cache and element-wise work are "
            "the host's and count no cycles"
        ],
    }
