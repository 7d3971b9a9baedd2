"""One matrix product on the accelerator: its program, its cycles, and how near they are to what bounds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.instructions import Instruction, NumberType
from bitwright.arch.isa.limits import Limits, limits
from bitwright.arch.machine import Machine
from bitwright.sim.accelerator import engine as simpy_engine
from bitwright.sim.accelerator import fast as fast_engine
from bitwright.workloads.layout import Job, Layout
from bitwright.workloads.lowering import Lowered, choose_tiling, lower
from bitwright.workloads.lowering import program as program_of
from bitwright.workloads.operands import operand

SCHEMA_VERSION = 1

_ENGINES = {"simpy": simpy_engine.run, "fast": fast_engine.run}


@dataclass(frozen=True)
class Gemm:
    """act[m, k] . wgt[n, k] on a machine.

    Members
        fmt : weight format, which the machine's PE takes
        group : weights along k that share a scale; None: a whole row, and for a format without scales
        to : number type of the results

    ConfigError for sizes below 1 and a group for a format without scales; from the first look at the program for a
    format that the PE does not take, groups that a broadcast tile cannot cut, a buffer that cannot hold one tile.
    """

    machine: Machine
    m: int
    k: int
    n: int
    fmt: str
    group: int | None = None
    to: NumberType = NumberType.FP32

    def __post_init__(self) -> None:
        if min(self.m, self.k, self.n) < 1:
            raise ConfigError(f"gemm = {self.m},{self.k},{self.n}: must be M,K,N of 1 or more")
        if self.group is not None and self.group < 1:
            raise ConfigError(f"group = {self.group}: must be 1 or more")
        if self.group is not None and formats.get(self.fmt).default_scale_format is None:
            raise ConfigError(f"group = {self.group}: {self.fmt} has no scales (leave the group out)")

    @cached_property
    def limits(self) -> Limits:
        """The machine as its program sees it; one that names no formats has this one."""
        return limits(self.machine, formats=self.machine.formats or [self.fmt])

    @cached_property
    def number(self) -> int:
        """The format's in `limits.formats`."""
        names = [form.name for form in self.limits.formats]
        if self.fmt not in names:
            raise ConfigError(
                f"weights = {self.fmt}: machine '{self.machine.name}' is generated with {', '.join(names)} "
                "(add it to the machine's formats)"
            )
        return names.index(self.fmt)

    @cached_property
    def layout(self) -> Layout:
        """Where everything stands; the tiling is the lowering's choice."""
        values = self._values
        group = self.k if self.group is None else min(self.group, self.k)
        unit = values * self.limits.weight_rows
        if group < self.k and group % unit:
            raise ConfigError(
                f"group = {group}: must be a multiple of {unit}, which the {self.limits.array_word} takes at once, or "
                f"at least the reduction of {self.k}"
            )
        sizes = self.m, -(-self.k // values), self.n
        scaled = self.limits.pe.act.kind != "float"
        job = Job(self.limits, *sizes, self.number, -(-group // values), scaled, False, self.to)
        return Layout(job, choose_tiling(job))

    @cached_property
    def program(self) -> tuple[Instruction, ...]:
        """The instructions, End included; they do not depend on the operands."""
        return tuple(program_of(self.layout))

    def lowered(self, seed: int = 0) -> Lowered:
        """The same program with memory: random weights and activations, in the machine's formats."""
        draw = np.random.default_rng(seed)
        weights = draw.normal(size=(self.n, self.k)).astype(np.float32)
        acts = draw.normal(size=(self.m, self.k)).astype(np.float32)
        encoded = formats.get(self.fmt).encode(weights, group=self.group, scale_format=self.limits.scale_format)
        return lower(encoded, operand(self.limits, self.fmt, acts), self.limits, to=self.to)

    @property
    def step(self) -> tuple[int, int]:
        """Products that the array makes at once, and the cycles that this takes."""
        places, tile = self.limits.rows * self.limits.cols, self.limits.tile
        if tile is None:
            return places, 1
        return places * tile.lanes * self._values, tile.step_cycles(self.fmt)

    @property
    def _values(self) -> int:
        """Values of the reduction that an element of it stands for."""
        return 1 if self.limits.tile is None else self.limits.tile.values(self.fmt)


def usual_weights(machine: Machine) -> tuple[str, int | None]:
    """Weight format and group of a product that is not told any: the machine's first, in groups as that has them.

    ConfigError: as of `isa.limits.limits`.
    """
    form = formats.get(limits(machine).formats[0].name)
    return form.name, form.default_group if isinstance(form.default_group, int) else None


@dataclass(frozen=True)
class GemmResult:
    """What a run of a product did, and what bounds it.

    Members
        gemm, memory, counters : what ran, before which memory, and what was counted
        engine : who counted: "simpy", "fast" or "rtl"
    """

    gemm: Gemm
    engine: str
    memory: FixedMemory
    counters: Counters

    @property
    def macs(self) -> int:
        """Products of the matrix product, fill-up not counted."""
        return self.gemm.m * self.gemm.k * self.gemm.n

    @property
    def array_bound_cycles(self) -> int:
        """With every lane of every PE at work in every cycle."""
        products, cycles = self.gemm.step
        return -(-self.macs * cycles // products)

    @property
    def memory_bound_cycles(self) -> int:
        """With the memory's bus at work in every cycle."""
        return (self.counters.beats_read + self.counters.beats_written) * self.memory.beat_cycles

    @property
    def bound_cycles(self) -> int:
        """No run takes fewer cycles than the larger of both."""
        return max(self.array_bound_cycles, self.memory_bound_cycles)

    @property
    def utilisation(self) -> float:
        """Part of the array's products that were the matrix product's."""
        products, cycles = self.gemm.step
        return self.macs * cycles / (self.counters.cycles * products)

    def row(self) -> dict[str, Any]:
        """Flat, as JSON."""
        gemm = self.gemm
        return {
            "schema_version": SCHEMA_VERSION,
            "machine": gemm.machine.name,
            "engine": self.engine,
            "m": gemm.m,
            "k": gemm.k,
            "n": gemm.n,
            "weights": gemm.fmt,
            "group": gemm.group,
            "port_bytes": gemm.machine.port.bytes,
            **{f"memory_{name}": value for name, value in self.memory.model_dump().items()},
            **asdict(self.counters),
            "macs": self.macs,
            "array_bound_cycles": self.array_bound_cycles,
            "memory_bound_cycles": self.memory_bound_cycles,
            "bound_cycles": self.bound_cycles,
            "utilisation": self.utilisation,
        }


def simulate_gemm(
    machine: Machine,
    m: int,
    k: int,
    n: int,
    *,
    fmt: str,
    group: int | None = None,
    engine: str = "simpy",
    memory: FixedMemory | None = None,
) -> GemmResult:
    """The cycles of one product on `machine`, its operands in memory before and its results after.

    Parameters
        fmt, group : as of `Gemm`
        engine : "simpy" or "fast", which are equal to the cycle
        memory : None: the machine's

    ConfigError: as of `Gemm`, and for another engine.
    """
    if engine not in _ENGINES:
        raise ConfigError(f"engine = {engine}: {suggest(engine, _ENGINES)}")
    gemm = Gemm(machine, m, k, n, fmt, group)
    memory = memory or machine.memory
    return GemmResult(gemm, engine, memory, counters(gemm, engine, memory))


def counters(gemm: Gemm, engine: str, memory: FixedMemory, seed: int = 0) -> Counters:
    """Of a product's program, by the engine of that name; of the weights of `Gemm.lowered(seed)` where cycles depend on
    them."""
    port = gemm.machine.port
    opened: dict[str, Any] = {
        "outstanding_reads": port.outstanding_reads,
        "outstanding_writes": port.outstanding_writes,
    }
    if gemm.limits.skips:
        opened["contents"] = gemm.lowered(seed).memory
    return _ENGINES[engine](gemm.program, gemm.limits, gemm.layout.region_beats, memory, **opened).counters
