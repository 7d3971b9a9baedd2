"""A design space: which machines, formats and workload a sweep runs, as a YAML file and as a list of points.

    name: first-sweep
    model: smollm2-135m
    workload: {prompt_tokens: 128, output_tokens: 32, batch: 1}
    perplexity: {tokens: 1024, window: 512}
    machines: {array: [[8, 8], [16, 16]], dataflow: [ws, os], buffers_kib: [32], dram: [ddr4-3200-x16],
               clock_mhz: [250], vector_lanes: [16]}
    designs:
      - {pe: int8-mac, formats: [{weights: int8, acts: int8, kv: int8}]}

The points are the cross product of `machines` with every (PE, formats) pair of `designs`, in file order: at most
100,000.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from bitwright.arch import config
from bitwright.arch.config import Config
from bitwright.arch.machine import Array, Buffers, Dataflow, DramTiming, Machine, PositiveKib, Vector, costed_pe_by_name
from pydantic import Field, field_validator, model_validator

LARGEST_POINTS = 100_000
Count = Annotated[int, Field(ge=1)]
Dimension = Annotated[int, Field(ge=1, le=256)]


class Workload(Config):
    """What every point runs: a prompt, then decode steps, over a batch of equal sequences."""

    prompt_tokens: Count = 128
    output_tokens: Annotated[int, Field(ge=0)] = 32
    batch: Count = 1


class Accuracy(Config):
    """How much text perplexity is measured on: `tokens` in windows of `window`."""

    tokens: Annotated[int, Field(ge=2)] = 1024
    window: Annotated[int, Field(ge=2)] = 512


class MachineAxes(Config):
    """The axes of the machine; each is a list and the sweep takes every combination."""

    array: Annotated[tuple[tuple[Dimension, Dimension], ...], Field(min_length=1)]
    dataflow: Annotated[tuple[Dataflow, ...], Field(min_length=1)] = (Dataflow.WEIGHT_STATIONARY,)
    buffers_kib: Annotated[tuple[PositiveKib, ...], Field(min_length=1)] = (32,)
    dram: Annotated[tuple[str, ...], Field(min_length=1)] = ("ddr4-3200-x16",)
    dram_timing: Annotated[tuple[DramTiming, ...], Field(min_length=1)] = (DramTiming.BANDWIDTH,)
    clock_mhz: Annotated[tuple[Annotated[float, Field(ge=0.001)], ...], Field(min_length=1)] = (250,)
    vector_lanes: Annotated[tuple[Count, ...], Field(min_length=1)] = (16,)
    node: str = "nangate45"


class Design(Config):
    """One PE and the format policies it runs; a policy's keys are those of `workloads.policy.FormatPolicy`."""

    pe: str
    formats: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]

    @field_validator("pe")
    @classmethod
    def _known_pe(cls, value: str) -> str:
        return costed_pe_by_name(value)

    @field_validator("formats")
    @classmethod
    def _pe_stands_once(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        if any("pe" in policy for policy in value):
            raise ValueError("must not name a PE: `pe` stands beside `formats`, for all of them")
        return value


class Point(Config):
    """One design point before it is run: a machine, a policy (plain data), a model and a workload."""

    machine: Machine
    policy: dict[str, Any]
    model: str
    workload: Workload
    accuracy: Accuracy


class Space(Config):
    """A whole design space."""

    name: Annotated[str, Field(min_length=1)]
    model: str = "smollm2-135m"
    workload: Workload = Workload()
    perplexity: Accuracy = Accuracy()
    machines: MachineAxes
    designs: Annotated[tuple[Design, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _machines_are_valid(self) -> Space:
        """Every value of every axis once: a machine has no rule that ties two axes (dataflow and PE: every design)."""
        sizes = {name: len(values) for name, values in self.machines if isinstance(values, tuple)}
        points = math.prod(sizes.values()) * sum(len(design.formats) for design in self.designs)
        if points > LARGEST_POINTS:
            raise ValueError(
                f"machines x formats = {points} points: must be at most {LARGEST_POINTS} (split the space)"
            )
        for axis in sizes:
            first = {name: getattr(self.machines, name)[:1] for name in sizes if name != axis}
            for design in self.designs:
                for _ in self._machines(design.pe, self.machines.model_copy(update=first)):
                    pass
        return self

    def points(self) -> Iterator[Point]:
        """Every point, in file order: designs outermost, then formats, then the machine axes as listed."""
        for design in self.designs:
            for policy in design.formats:
                for machine in self._machines(design.pe, self.machines):
                    yield Point(
                        machine=machine,
                        policy={**policy, "pe": machine.pe},
                        model=self.model,
                        workload=self.workload,
                        accuracy=self.perplexity,
                    )

    def _machines(self, pe_name: str, axes: MachineAxes) -> Iterator[Machine]:
        memories = itertools.product(axes.dram, axes.dram_timing)
        axis = (axes.array, axes.dataflow, axes.buffers_kib, memories, axes.clock_mhz, axes.vector_lanes)
        for (rows, cols), dataflow, kib, (dram, dram_timing), clock, lanes in itertools.product(*axis):
            yield Machine(
                name=f"{pe_name}-{rows}x{cols}-{dataflow.value}",
                pe=pe_name,
                array=Array(rows=rows, cols=cols, dataflow=dataflow),
                buffers=Buffers(act_kib=kib, wgt_kib=kib, out_kib=kib),
                dram=dram,
                dram_timing=dram_timing,
                clock_mhz=clock,
                node=axes.node,
                vector=Vector(lanes=lanes),
            )


def load(path: Path) -> Space:
    """Read a space file. Raises ConfigError naming the key, the value, the rule and the line."""
    return config.load(Space, path)
