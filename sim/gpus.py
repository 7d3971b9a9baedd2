"""GPUs as rooflines: no run of a step can be faster, so that they stand beside our figures as what they are, bounds.

A step takes at least

    max(2 * useful MACs / peak of the formats, (weights + KV cache - L2) / bandwidth)

Useful are the MACs that neither the mask nor N:M sparsity throws away. The formats multiply in the narrowest type of
the matrix units that holds both: fp16 activations fp16, int8 ones int8. Weights and cache are in their own formats (a
GPU must widen them as it reads), each byte moved once a step, and what L2 holds may stay from the step before.
Not modelled, all of it slower: element-wise work, activations' traffic, launches, anything short of the peaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from bitwright.arch.config import Config
from bitwright.workloads.operators import DEFAULT, Choices, Work, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.steps import Step
from bitwright.workloads.traffic import traffic_of
from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
MacFormat = Literal["fp16", "int8", "fp8"]


class Gpu(Config):
    """One GPU; see `arch/gpus.yaml` for the fields' meaning and each one's source."""

    name: str
    title: str
    tera_ops: dict[MacFormat, Positive]
    bandwidth_gbytes_per_s: Positive
    l2_bytes: Annotated[int, Field(ge=0)]
    power_w: Positive
    source: str
    read: str

    def bound_s(self, mac_format: MacFormat, useful_macs: int, read_bytes: int) -> float:
        """Seconds below which no step of so many MACs and bytes can be."""
        compute = 2 * useful_macs / (self.tera_ops[mac_format] * 1e12)
        return max(compute, max(0, read_bytes - self.l2_bytes) / (self.bandwidth_gbytes_per_s * 1e9))


@cache
def gpus() -> tuple[Gpu, ...]:
    """All of them, in the file's order."""
    text = resources.files("bitwright.arch").joinpath("gpus.yaml").read_text("utf-8")
    return tuple(Gpu(name=name, **fields) for name, fields in yaml.safe_load(text).items())


def mac_format(policy: FormatPolicy) -> MacFormat:
    """The type in which a GPU's matrix units multiply these formats."""
    return "fp16" if policy.acts == "fp16" else "int8"


def step_bytes(shape: ModelShape, policy: FormatPolicy, step: Step, work: Work) -> int:
    """Weights and KV cache that a step cannot do without, each byte once."""
    moved = traffic_of(shape, policy, step, work)
    return moved.weights + moved.cache_read + moved.cache_written


def references(
    shape: ModelShape, policy: FormatPolicy, steps: Iterable[Step], choices: Choices = DEFAULT
) -> list[dict[str, Any]]:
    """One row a GPU: the least milliseconds of prefill (steps with prompts) and decode, as `sim.gpus` bounds them."""
    kind = mac_format(policy)
    known: dict[Step, tuple[int, int]] = {}
    seconds = {gpu.name: {"prefill": 0.0, "decode": 0.0} for gpu in gpus()}
    for step in steps:
        if step not in known:
            work = work_of(shape, policy, step, choices)
            known[step] = work.macs - work.masked_macs - work.skipped_macs, step_bytes(shape, policy, step, work)
        phase = "prefill" if any(item.phase == "prefill" for item in step.sequences) else "decode"
        for gpu in gpus():
            seconds[gpu.name][phase] += gpu.bound_s(kind, *known[step])
    return [
        {
            "gpu": gpu.name,
            "mac_format": kind,
            "least_prefill_ms": seconds[gpu.name]["prefill"] * 1e3,
            "least_decode_ms": seconds[gpu.name]["decode"] * 1e3,
            "least_latency_ms": sum(seconds[gpu.name].values()) * 1e3,
            "power_w": gpu.power_w,
            "source": gpu.source,
        }
        for gpu in gpus()
    ]
