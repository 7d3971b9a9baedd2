"""Prefill and decode of a model on a machine: cycles, where they go, energy, area, and the roofline above them.

Fidelity: array cycles exact against our RTL; transfers by the engine's rules; element-wise work an estimate (lane
operations over lanes, not overlapped with the array); energies sum over counted events with unit costs of
`arch.costs`. Not modelled is listed in `NOT_MODELLED`, which every result carries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from bitwright.arch import formats
from bitwright.arch import machine as machines
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Dataflow, Machine
from bitwright.arch.program import Program
from bitwright.sim import activity, engine
from bitwright.sim.activity import Activity
from bitwright.sim.costs import MachineCosts, check_clock, machine_costs, table
from bitwright.sim.engine import Counters
from bitwright.workloads import mapping, models
from bitwright.workloads.operators import Gemm, Step, step
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape

NOT_MODELLED = (
    "DRAM runs at peak bandwidth: rows, banks and refresh are not modelled",
    "operators do not overlap: each starts on an idle machine and ends when its last output has left",
    "element-wise work (softmax, norms, rotary embedding, activation functions, quantisation) is an estimate: lane "
    "operations over vector lanes, charged as fp16 multiply-adds, not overlapped with the array",
    "no area or energy for control logic, instruction fetch, wires between blocks or the clock tree outside cells",
    "nothing is clock-gated: idle cells, edge units and skew registers are charged their clock every cycle",
    "SRAM figures are CACTI estimates; cell energies leave out glitches",
)

EDGE_LATENCY_CYCLES = 3  # pipeline stages of the column-edge unit
SKEW_TOGGLES = 0.5  # changes a bit and streaming cycle in the skew registers: uniform random data


@dataclass(frozen=True)
class Energy:
    """Energy by part, in pJ; `total_pj` is their sum."""

    array: float = 0.0
    array_idle: float = 0.0
    skew: float = 0.0
    edge: float = 0.0
    sram_act: float = 0.0
    sram_wgt: float = 0.0
    sram_out: float = 0.0
    dram: float = 0.0
    vector: float = 0.0
    leakage: float = 0.0

    @property
    def total_pj(self) -> float:
        """Sum of all parts."""
        return float(sum(getattr(self, item.name) for item in fields(self)))

    def __add__(self, other: Energy) -> Energy:
        return Energy(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def times(self, count: int) -> Energy:
        """`count` repetitions."""
        return Energy(*(getattr(self, item.name) * count for item in fields(self)))


@dataclass(frozen=True)
class Phase:
    """Everything counted over some steps; the five `cycles_*` sum to `cycles`, and so do the values of `by_kind`."""

    cycles: int = 0
    cycles_stream: int = 0
    cycles_array_stall: int = 0
    cycles_dram_wait: int = 0
    cycles_fill_drain: int = 0
    cycles_vector: int = 0
    macs: int = 0
    dram_bytes: int = 0
    bound_cycles: int = 0
    energy: Energy = Energy()
    by_kind: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Phase) -> Phase:
        values: dict[str, Any] = {
            item.name: getattr(self, item.name) + getattr(other, item.name)
            for item in fields(self)
            if item.name != "by_kind"
        }
        kinds = sorted({*self.by_kind, *other.by_kind})
        values["by_kind"] = {kind: self.by_kind.get(kind, 0) + other.by_kind.get(kind, 0) for kind in kinds}
        return Phase(**values)


@dataclass(frozen=True)
class Result:
    """What `simulate` answers; `row()` is the flat form with units in the keys."""

    machine: Machine
    policy: FormatPolicy
    shape: ModelShape
    prompt_tokens: int
    output_tokens: int
    batch: int
    prefill: Phase
    decode: Phase
    area_um2: dict[str, float]
    peak_memory_bytes: int
    dram_scope: str

    @property
    def cycles(self) -> int:
        """Cycles of prefill and all decode steps."""
        return self.prefill.cycles + self.decode.cycles


def default_policy(pe_name: str) -> FormatPolicy:
    """The formats a PE is made for: what `simulate` uses when none are given."""
    return {
        "fp16-mac": FormatPolicy(),
        "int8-mac": FormatPolicy(pe="int8-mac", weights="int8", acts="int8", kv="int8"),
        "shift-add": FormatPolicy(pe="shift-add", weights="int4_asym", group=64, acts="int8", kv="int4"),
    }[pe_name]


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
    policy: FormatPolicy | None = None,
    prompt_tokens: int = 128,
    output_tokens: int = 32,
    batch: int = 1,
) -> Result:
    """Simulate `prompt_tokens` of prefill and `output_tokens` decode steps (the first at context `prompt_tokens`).

    `policy` defaults to the PE's own formats. Raises ConfigError for sizes below 1 (output_tokens below 0), a format
    that the PE refuses, a clock above the PE's fmax, and a buffer that cannot hold one tile.
    """
    machine = machines.load(machine) if isinstance(machine, str) else machine
    shape = models.shape_of(model) if isinstance(model, str) else model
    policy = policy or default_policy(machine.pe)
    _check_policy(machine, policy)
    if output_tokens < 0:
        raise ConfigError(f"output_tokens = {output_tokens}: must be at least 0; the workload")
    check_clock(machine, installed(policy))
    prefill = _phase(machine, step(shape, policy, prompt_tokens, 0, batch), policy)
    decode = Phase()
    for index in range(output_tokens):
        decode += _phase(machine, step(shape, policy, 1, prompt_tokens + index, batch), policy)
    unit_costs = machine_costs(machine, installed(policy), policy.weights)
    areas = {
        "array": unit_costs.array_um2,
        "edge": unit_costs.edge_um2,
        "sram": unit_costs.sram_um2,
        "vector": unit_costs.vector_um2,
    }
    last_context = prompt_tokens + output_tokens
    return Result(
        machine,
        policy,
        shape,
        prompt_tokens,
        output_tokens,
        batch,
        prefill,
        decode,
        areas,
        _peak_memory_bytes(shape, policy, prompt_tokens, last_context, batch),
        table(machine).dram(machine.dram).scope,
    )


def installed(policy: FormatPolicy) -> tuple[str, ...]:
    """The weight formats whose decoders a machine has for `policy`."""
    return tuple(sorted({policy.weights, policy.head_format}))


def _check_policy(machine: Machine, policy: FormatPolicy) -> None:
    if policy.pe != machine.pe:
        raise ConfigError(
            f"formats are for PE {policy.pe} and machine {machine.name} has {machine.pe}; name the machine's own PE"
        )


def dram_port(machine: Machine) -> DramPort:
    """The machine's DRAM channel in cycles of its clock."""
    dram = table(machine).dram(machine.dram)
    latency_cycles = math.ceil(dram.latency_ns * machine.clock_mhz / 1000)
    return DramPort(round(dram.bandwidth_gbytes_per_s * 1000), round(machine.clock_mhz * 1000), latency_cycles)


@lru_cache(maxsize=65536)
def _operator(machine: Machine, gemm: Gemm, formats_installed: tuple[str, ...]) -> Phase:
    """One repetition of one matrix product."""
    port = dram_port(machine)
    program = mapping.compile_gemm(machine, gemm, port)
    stationary = machine.array.dataflow is Dataflow.WEIGHT_STATIONARY
    counters = engine.run(program, mapping.array_shape(machine), port, EDGE_LATENCY_CYCLES)
    counts = activity.count(program, stationary, machine.array.cols, machine.physical_cols, gemm.group)
    unit = machine_costs(machine, formats_installed, gemm.weight_format)
    smallest = _bytes(gemm.weight_bits(gemm.n, gemm.k)) + _bytes(
        (gemm.m * gemm.k + gemm.m * gemm.n) * mapping.act_bits(machine)
    )
    compute = -(-program.macs // (machine.array.rows * machine.array.cols))
    return Phase(
        cycles=counters.cycles,
        cycles_stream=counters.cycles_stream,
        cycles_array_stall=counters.cycles_array_stall,
        cycles_dram_wait=counters.cycles_dram_wait,
        cycles_fill_drain=counters.cycles_fill_drain,
        macs=program.macs,
        dram_bytes=program.dram_bytes,
        bound_cycles=max(compute, port.busy_cycles(smallest)),
        energy=energy_of(machine, gemm, program, counts, unit, counters),
        by_kind={gemm.kind: counters.cycles},
    )


def energy_of(
    machine: Machine, gemm: Gemm, program: Program, counts: Activity, unit: MachineCosts, counters: Counters
) -> Energy:
    """Events times unit costs. A weight word carries its share of scales, zero points and selectors."""
    cycles, streamed = counters.cycles, counters.cycles_stream
    weight_bits = gemm.weight_bits(gemm.n, gemm.k) / (gemm.n * gemm.k)
    code_bits = formats.get(gemm.weight_format).bits
    filled = {"act": 0, "wgt": 0}
    for load in program.loads:
        filled[load.tensor] += load.size_bytes * 8
    stored = sum(store.size_bytes * 8 for store in program.stores) / mapping.act_bits(machine)
    act_word = machine.array.rows * mapping.act_bits(machine)
    wgt_word = machine.array.cols * code_bits
    columns, array = machine.array.cols * cycles, machine.array
    return Energy(
        array=counts.active_cell_cycles * unit.cell.op_pj + counts.wgt_words * array.cols * unit.weight_load_pj,
        array_idle=(machine.cells * cycles - counts.active_cell_cycles) * unit.cell.idle_pj,
        skew=unit.skew_bits * (unit.skew_clock_pj * cycles + unit.skew_toggle_pj * SKEW_TOGGLES * streamed),
        edge=unit.edge_pj(counts.group_results, counts.partial_sums, counts.border_weights, columns),
        sram_act=counts.act_words * unit.act.read_pj + filled["act"] / act_word * unit.act.write_pj,
        sram_wgt=counts.wgt_words * (weight_bits / code_bits) * unit.wgt.read_pj
        + filled["wgt"] / wgt_word * unit.wgt.write_pj,
        sram_out=(counts.out_reads + stored / array.cols) * unit.out.read_pj + counts.out_writes * unit.out.write_pj,
        dram=8 * sum(load.size_bytes for load in program.loads) * unit.dram_read_pj_per_bit
        + 8 * sum(store.size_bytes for store in program.stores) * unit.dram_write_pj_per_bit,
        vector=unit.vector.energy_pj(0, machine.vector.lanes * cycles),
        leakage=_leakage_pj(machine, unit, cycles),
    )


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _leakage_pj(machine: Machine, unit: MachineCosts, cycles: int) -> float:
    """Leakage of the whole chip over `cycles`: uW x us = pJ."""
    return unit.leakage_uw * cycles / machine.clock_mhz


def _phase(machine: Machine, work: Step, policy: FormatPolicy) -> Phase:
    """One forward pass: every operator, then the element-wise work."""
    total = Phase()
    for gemm in work.gemms:
        total += _repeat(_operator(machine, gemm, installed(policy)), gemm.count)
    unit = machine_costs(machine, installed(policy), policy.weights)
    vector_cycles = sum(-(-item.elements * item.ops // machine.vector.lanes) * item.count for item in work.vector)
    lane_ops = sum(item.lane_ops for item in work.vector)
    return total + Phase(
        cycles=vector_cycles,
        cycles_vector=vector_cycles,
        energy=Energy(
            vector=unit.vector.energy_pj(lane_ops, machine.vector.lanes * vector_cycles),
            array_idle=machine.cells * vector_cycles * unit.cell.idle_pj,
            skew=unit.skew_bits * unit.skew_clock_pj * vector_cycles,
            edge=unit.edge_pj(0, 0, 0, machine.array.cols * vector_cycles),
            leakage=_leakage_pj(machine, unit, vector_cycles),
        ),
        by_kind={"vector": vector_cycles},
    )


def _repeat(phase: Phase, count: int) -> Phase:
    values: dict[str, Any] = {
        item.name: getattr(phase, item.name) * count for item in fields(phase) if item.name not in ("energy", "by_kind")
    }
    by_kind = {kind: value * count for kind, value in phase.by_kind.items()}
    return Phase(**values, energy=phase.energy.times(count), by_kind=by_kind)


def _peak_memory_bytes(shape: ModelShape, policy: FormatPolicy, prompt_tokens: int, context: int, batch: int) -> int:
    """DRAM that the run needs: weights, embedding table, KV cache at its longest, the widest activations twice."""
    work = step(shape, policy, prompt_tokens, 0, batch)
    weights = sum(gemm.count * gemm.weight_bits(gemm.n, gemm.k) for gemm in work.gemms if gemm.kind != "attention")
    cache = formats.get(policy.kv).storage_bits((batch * context * shape.kv_heads, shape.head_dim), None).total
    embedding = 16 * shape.vocab * shape.hidden
    act_bits = 16 if policy.acts == "fp16" else 8
    widest = max(max(gemm.m * gemm.k, gemm.m * gemm.n) for gemm in work.gemms)
    return _bytes(weights + 2 * shape.layers * cache + embedding + 2 * widest * act_bits)
