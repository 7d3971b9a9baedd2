"""Prefill and decode of a model on a machine: cycles, where they go, energy, area, and the roofline above them.

Fidelity: array cycles exact against our RTL; transfers by the engine's rules; element-wise work an estimate (lane
operations over lanes, not overlapped with the array); energies sum over counted events with unit costs of
`arch.costs`. Not modelled is listed in `NOT_MODELLED`, which every result carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from bitwright.arch import dram, formats, pe
from bitwright.arch import machine as machines
from bitwright.arch.array_timing import Shape
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import DramTiming, Machine
from bitwright.arch.pe import units
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser
from bitwright.arch.program import Program
from bitwright.sim import activity, fast
from bitwright.sim.costs import check_clock, machine_costs, table
from bitwright.sim.counters import Counters
from bitwright.sim.energy import UNKNOWN, Energy, operator_energy, vector_energy
from bitwright.sim.memory import Banks, Waits
from bitwright.workloads import mapping, models
from bitwright.workloads.attended import kept_tokens
from bitwright.workloads.operators import Gemm, VectorWork, Work, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.steps import static
from bitwright.workloads.traffic import cache_bits

Progress = Callable[[str, int, int], None]

_PEAK_BANDWIDTH = "DRAM runs at peak bandwidth: rows, banks and refresh are not modelled"
_BANKS = (
    "DRAM serves bursts in order, by rows, banks, refresh and turnaround, its rows closed when an operator begins; "
    "each block of a tensor is one run of addresses, what rearranges activations between operators is not modelled"
)
_DRAM_ENERGY = (
    "the DRAM while it moves no bytes is charged standby with rows open where its source separates that, and never "
    "powers down; row misses and refreshes add no energy"
)

_NO_COSTS = (
    "no energy and no area: cost tables do not have this PE in an array, or this way to load weights; of a broadcast "
    "tile the clock is checked against the PE alone, where the table of PEs behind streams has it"
)
_NO_DRAM_ENERGY = (
    "no energy of the DRAM, and so no sum: no source that can be cited was found for this preset (bitwright list drams)"
)

_TIMES = (
    "operators do not overlap: each starts on an idle machine and ends when its last output has left",
    "attention multiplies the whole square: products that the mask throws away take their cycles and count as macs",
    "element-wise work (softmax, norms, rotary embedding, activation functions, quantisation) is an estimate: "
    "lane operations over vector lanes, charged as fp16 multiply-adds, not overlapped with the array; it "
    "happens as operands enter or results leave the chip, in the activation format, and moves no DRAM bytes of "
    "its own",
)
_COSTS = (
    "no area or energy for control logic and instruction fetch; areas are of cells and macros alone, as if packed "
    "without gaps",
    "wires and the clock tree are of a geometry before layout: square cells at 70 % utilisation, buffers at the middle "
    "of the sides they feed, words that change half of their bits, and the library's own capacitance a length, more "
    "than routed layouts have (arch/costs/wires.py); wires of the vector unit, the DRAM port and the control are left "
    "out",
    "nothing is clock-gated: idle cells, edge units and skew registers are charged their clock, and the whole tree its "
    "buffers and wires, every cycle",
    "SRAM figures are CACTI estimates with low-standby-power cells (itrs-lstp), one port a slot; reading and "
    "writing an output word in one cycle is charged but not timed",
    "clocks are checked against cells, edge units, decoders and SRAM; the weight bus across rows and the tile "
    "sequencer are not timed; cell energies leave out glitches",
    "int8-mac keeps a 32-bit sum in every cell and shift-add only the bits that its group needs: part of what "
    "separates them is that width (docs/pes.md shows both at equal width)",
)
NOT_MODELLED = (_PEAK_BANDWIDTH, *_TIMES, _DRAM_ENERGY, *_COSTS)


_SUMMED_APART = ("energy", "by_kind", "waits")


@dataclass(frozen=True)
class Phase:
    """Everything counted over some steps.

    The five `cycles_*` sum to `cycles`, and so do the values of `by_kind`; `waits` sum to `cycles_dram_wait`.
    """

    cycles: int = 0
    cycles_stream: int = 0
    cycles_array_stall: int = 0
    cycles_dram_wait: int = 0
    cycles_fill_drain: int = 0
    cycles_vector: int = 0
    waits: Waits = field(default_factory=Waits)
    macs: int = 0
    dram_bytes: int = 0
    bound_cycles: int = 0
    energy: Energy = field(default_factory=Energy)
    by_kind: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Phase) -> Phase:
        values: dict[str, Any] = {
            item.name: getattr(self, item.name) + getattr(other, item.name)
            for item in fields(self)
            if item.name not in ("by_kind", "waits")
        }
        values["waits"] = Waits(*map(sum, zip(self.waits, other.waits, strict=True)))
        kinds = sorted({*self.by_kind, *other.by_kind})
        values["by_kind"] = {kind: self.by_kind.get(kind, 0) + other.by_kind.get(kind, 0) for kind in kinds}
        return Phase(**values)


@dataclass(frozen=True)
class Result:
    """What `simulate` answers; `row()` is the flat form with units in the keys."""

    machine: Machine
    policy: FormatPolicy
    model: str
    shape: ModelShape
    prompt_tokens: int
    output_tokens: int
    batch: int
    prefill: Phase
    decode: Phase
    area_um2: dict[str, float]
    peak_memory_bytes: int

    @property
    def cycles(self) -> int:
        """Cycles of prefill and all decode steps."""
        return self.prefill.cycles + self.decode.cycles


def default_policy(pe_name: str) -> FormatPolicy:
    """The formats a PE is made for: what `simulate` uses when none are given.

    ConfigError for a PE that whole models are not simulated on.
    """
    name, params = pe.parse_name(pe_name)
    bits = min(4, params.get("weight_bits", 4))  # of a lut's weights
    found = {
        "fp16-mac": FormatPolicy(),
        "int8-mac": FormatPolicy(pe="int8-mac", weights="int8", acts="int8", kv="int8"),
        "shift-add": FormatPolicy(pe="shift-add", weights="int4_asym", group=64, acts="int8", kv="int4"),
        "bit-serial": FormatPolicy(pe="bit-serial", weights="bitmod_fp4", group=128, kv="int8", head="int8"),
        "lut": FormatPolicy(pe="lut", weights=f"int{bits}", group=128, acts="int8", kv=f"int{bits}"),
        "outlier-victim": FormatPolicy(pe="outlier-victim", weights="ovp4", acts="ovp4", kv="ovp4"),
    }
    if name not in found:
        raise ConfigError(
            f"pe = '{pe_name}': its cycles depend on the codes of the weights (use --trace DIR, or --engine); whole "
            f"models without: {', '.join(found)}"
        )
    return found[name]


def policy_for(pe_name: str, **choices: Any) -> FormatPolicy:
    """The PE's default policy with the given choices (None: left as it is) in its place.

    Naming `weights` without `group` means one scale a row. Raises ConfigError for a combination that the PE refuses.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    default = default_policy(pe_name).model_dump()
    if "weights" in given:
        default["group"] = None
    return FormatPolicy(**(default | given))


def simulate(
    machine: Machine | str,
    model: str | ModelShape,
    *,
    policy: FormatPolicy | Mapping[str, Any] | None = None,
    prompt_tokens: int = 128,
    output_tokens: int = 32,
    batch: int = 1,
    engine: str = "fast",
    progress: Progress | None = None,
) -> Result:
    """Simulate `prompt_tokens` of prefill and `output_tokens` decode steps (the first at context `prompt_tokens`).

    `policy` (or a mapping of its fields) defaults to the PE's own formats. `engine` is "fast" or "simpy"; their figures
    are the same. `progress("operators", done, all)` is called before the first operator and after each. Raises
    ConfigError for sizes below 1 (output_tokens below 0), another engine, a PE without costs, a format that it refuses,
    a clock that a block does not reach, and a buffer that cannot hold one tile.
    """
    machine = machines.load(machine) if isinstance(machine, str) else machine
    shape = models.shape_of(model) if isinstance(model, str) else model
    if policy is None:
        policy = default_policy(machine.pe)
    elif not isinstance(policy, FormatPolicy):
        policy = FormatPolicy(**{"pe": _pe_name(machine), **policy})
    check_policy(machine, policy)
    for name, value in (("prompt_tokens", prompt_tokens), ("batch", batch)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} = {value}: must be a whole number of at least 1; the workload")
    if type(output_tokens) is not int or output_tokens < 0:
        raise ConfigError(f"output_tokens = {output_tokens}: must be a whole number of at least 0; the workload")
    check_clock(machine, installed(policy))
    _engine(engine)
    context = prompt_tokens + output_tokens
    steps = static(prompt_tokens, output_tokens, batch)
    peak_bytes = peak_memory_bytes(shape, policy, work_of(shape, policy, steps[0]), context, batch)
    check_capacity(machine, peak_bytes, context, batch)
    first, *later = works = [work_of(shape, policy, step) for step in steps]
    told = counted(works, progress)
    prefill = phase_of(machine, first, policy, engine, told)
    decode = Phase()
    for work in later:
        decode += phase_of(machine, work, policy, engine, told)
    return Result(
        machine,
        policy,
        model if isinstance(model, str) else model.name,
        shape,
        prompt_tokens,
        output_tokens,
        batch,
        prefill,
        decode,
        areas_um2(machine, policy),
        peak_bytes,
    )


AREAS = ("array", "edge", "sram", "vector", "clock_tree")


def areas_um2(machine: Machine, policy: FormatPolicy) -> dict[str, float]:
    """Cells and macros of a machine for these formats, by part; nan each for a machine without cost tables."""
    if not machines.has_costs(machine):
        return dict.fromkeys(AREAS, math.nan)
    unit = machine_costs(machine, installed(policy), policy.weights)
    found = (unit.array_um2, unit.edge_um2, unit.sram_um2, unit.vector_um2, unit.clock_tree_um2)
    return dict(zip(AREAS, found, strict=True))


def _engine(name: str) -> Callable[[Program, Shape, DramPort | Banks, int], Counters]:
    if name == "fast":
        return fast.run
    if name == "simpy":
        from bitwright.sim import engine

        return engine.run
    raise ConfigError(f"engine = '{name}': must be fast or simpy; of a model")


def installed(policy: FormatPolicy) -> tuple[str, ...]:
    """The formats of stationary operands (weights, head, KV cache) whose decoders a machine has for `policy`."""
    return tuple(sorted({policy.weights, policy.head_format, policy.kv}))


def check_capacity(machine: Machine, needed_bytes: int, context: int, batch: int) -> None:
    """ConfigError for a run that a machine's DRAM, of known size, does not hold."""
    if machine.dram_timing is DramTiming.BANKS:
        holds = dram.load(machine.dram).capacity_bytes
        if needed_bytes > holds:
            raise ConfigError(
                f"context = {context} tokens, batch = {batch}: weights, KV cache and activations need {needed_bytes} "
                f"bytes and dram {machine.dram} holds {holds}; shorten the context, make the batch smaller, or name "
                f"a larger memory; machine {machine.name}"
            )


def beyond_capacity(machine: Machine, needed_bytes: int) -> tuple[str, ...]:
    """A note where a run at peak bandwidth, which is not refused for it, needs more than its DRAM is known to hold."""
    if machine.dram_timing is DramTiming.BANKS or machine.dram not in dram.names():
        return ()
    holds = dram.load(machine.dram).capacity_bytes
    if needed_bytes <= holds:
        return ()
    return (f"needs {needed_bytes} bytes and dram {machine.dram} holds {holds}: as if it were larger, equally fast",)


def edge_latency_cycles(machine: Machine) -> int:
    """Pipeline stages of the column-edge unit."""
    spec = machine.spec
    unit = FixedPointDequantiser if spec.edge_unit == FixedPointDequantiser.name else units.edge_unit(spec)
    return unit.timing.latency_cycles


def check_policy(machine: Machine, policy: FormatPolicy) -> None:
    """ConfigError for formats of another PE than the machine's, and those that its tile cannot take."""
    if policy.pe != _pe_name(machine):
        raise ConfigError(
            f"formats are for PE {policy.pe} and machine {machine.name} has {machine.pe}; name the machine's own PE"
        )
    if machine.tile is not None:
        mapping.check_formats(machine, {"weights": policy.weights, "head": policy.head_format, "kv": policy.kv})


def _pe_name(machine: Machine) -> str:
    return machine.pe.partition(":")[0]


def dram_port(machine: Machine) -> DramPort:
    """The machine's DRAM as one channel in cycles of its clock: what the mapper predicts by.

    With banks its bandwidth is the device's peak, rounded up to MB/s.
    """
    cost = table(machine).dram(machine.dram)
    latency_cycles = math.ceil(cost.latency_ns * machine.clock_mhz / 1000)
    rate = round(cost.bandwidth_gbytes_per_s * 1000)
    if machine.dram_timing is DramTiming.BANKS:
        rate = math.ceil(dram.load(machine.dram).peak_bytes_per_s / 1e6)
    return DramPort(rate, round(machine.clock_mhz * 1000), latency_cycles)


def memory_of(machine: Machine) -> DramPort | Banks:
    """The machine's DRAM as the engines take it.

    Raises ConfigError for `dram_timing: banks` of a DRAM without known timings.
    """
    if machine.dram_timing is DramTiming.BANDWIDTH:
        return dram_port(machine)
    return Banks(dram.load(machine.dram), round(machine.clock_mhz * 1000))


def not_modelled(machine: Machine) -> tuple[str, ...]:
    """What a result of `machine` leaves out."""
    memory = _PEAK_BANDWIDTH if machine.dram_timing is DramTiming.BANDWIDTH else _BANKS
    if not machines.has_costs(machine):
        return (memory, *_TIMES, _NO_COSTS)
    energy = _DRAM_ENERGY if table(machine).dram(machine.dram).has_energy else _NO_DRAM_ENERGY
    return (memory, *_TIMES, energy, *_COSTS)


@lru_cache(maxsize=65536)
def operator(machine: Machine, gemm: Gemm, formats_installed: tuple[str, ...], engine: str) -> Phase:
    """One repetition of one matrix product."""
    run = _engine(engine)
    port, memory = dram_port(machine), memory_of(machine)
    program = mapping.compile_gemm(machine, gemm, port)
    shape = mapping.array_shape(machine, gemm.weight_format)
    counters = run(program, shape, memory, edge_latency_cycles(machine))
    smallest = _bytes(gemm.weight_bits(gemm.n, gemm.k)) + _bytes(
        (gemm.m * gemm.k + gemm.m * gemm.n) * mapping.act_bits(machine, gemm.weight_format)
    )
    compute = math.ceil(program.macs / machine.macs_a_cycle(gemm.weight_format))
    energy = UNKNOWN
    if machines.has_costs(machine):
        counts = activity.count(program, shape.weight_stationary, machine.array.cols, machine.physical_cols, gemm.group)
        unit = machine_costs(machine, formats_installed, gemm.weight_format)
        energy = operator_energy(machine, gemm, program, counts, unit, counters, port)
    return Phase(
        cycles=counters.cycles,
        cycles_stream=counters.cycles_stream,
        cycles_array_stall=counters.cycles_array_stall,
        cycles_dram_wait=counters.cycles_dram_wait,
        cycles_fill_drain=counters.cycles_fill_drain,
        waits=counters.waits,
        macs=program.macs,
        dram_bytes=program.dram_bytes,
        bound_cycles=max(compute, port.busy_cycles(smallest)),
        energy=energy,
        by_kind={gemm.kind: counters.cycles},
    )


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def counted(works: Sequence[Work], progress: Progress | None) -> Callable[[], None] | None:
    """What `phase_of` calls after each matrix product of these works, for `progress` to tell how many are done."""
    if progress is None:
        return None
    done, total = 0, sum(len(work.gemms) for work in works)
    progress("operators", done, total)

    def told() -> None:
        nonlocal done
        done += 1
        progress("operators", done, total)

    return told


def phase_of(
    machine: Machine, work: Work, policy: FormatPolicy, engine: str, told: Callable[[], None] | None = None
) -> Phase:
    """One forward pass of a machine that `check_policy` lets pass: every operator, then the element-wise work.

    `told` is called after each operator.
    """
    total = Phase()
    for gemm in work.gemms:
        total += _repeat(operator(machine, replace(gemm, count=1), installed(policy), engine), gemm.count)
        if told is not None:
            told()
    cycles = sum(vector_cycles(machine, item) * item.count for item in work.vector)
    lane_ops = sum(item.lane_ops for item in work.vector)
    energy = UNKNOWN
    if machines.has_costs(machine):
        unit = machine_costs(machine, installed(policy), policy.weights)
        energy = vector_energy(machine, unit, lane_ops, cycles)
    return total + Phase(
        cycles=cycles,
        cycles_vector=cycles,
        energy=energy,
        by_kind={"vector": cycles},
    )


def vector_cycles(machine: Machine, work: VectorWork) -> int:
    """Cycles of one repetition of element-wise work."""
    return -(-work.elements * work.ops // machine.vector.lanes)


def _repeat(phase: Phase, count: int) -> Phase:
    values: dict[str, Any] = {
        item.name: getattr(phase, item.name) * count for item in fields(phase) if item.name not in _SUMMED_APART
    }
    values["waits"] = Waits(*(count * cycles for cycles in phase.waits))
    by_kind = {kind: value * count for kind, value in phase.by_kind.items()}
    return Phase(**values, energy=phase.energy.times(count), by_kind=by_kind)


def peak_memory_bytes(shape: ModelShape, policy: FormatPolicy, first: Work, context: int, batch: int) -> int:
    """DRAM that the run needs: weights, fp16 tables of tokens (once where the head is that table) and positions, KV
    cache at its longest, the widest activations of the first step twice."""
    weights = 0
    for item in shape.matmuls():
        head = item.name == "head"
        stored = formats.get(policy.head_format if head else policy.weights)
        weights += item.count * stored.storage_bits((item.n, item.k), policy.group_size).total
    shared = shape.tied_embeddings and policy.head_format == "fp16"
    tables = 16 * shape.hidden * ((0 if shared else shape.vocab) + shape.positions)
    kept = {window: kept_tokens(context, window, shape.sink_tokens) for window in shape.windows()}
    cache = sum(count * cache_bits(shape, policy, batch * kept[window]) for window, count in shape.windows().items())
    widest = max(max(gemm.m * gemm.k, gemm.m * gemm.n) for gemm in first.gemms)
    return _bytes(weights + cache + tables + 2 * widest * policy.act_bits)
