"""Energy of one operator and of element-wise work: counted events times unit costs, part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from bitwright.arch.dram_port import DramPort
from bitwright.arch.machine import Machine
from bitwright.arch.program import Program
from bitwright.sim.activity import Activity
from bitwright.sim.costs import RANDOM_TOGGLES, MachineCosts
from bitwright.sim.counters import Counters
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm


@dataclass(frozen=True)
class Energy:
    """Energy by part, in pJ; `total_pj` is their sum."""

    array: float = 0.0
    array_idle: float = 0.0
    array_wires: float = 0.0
    skew: float = 0.0
    edge: float = 0.0
    sram_act: float = 0.0
    sram_wgt: float = 0.0
    sram_out: float = 0.0
    dram: float = 0.0
    dram_idle: float = 0.0
    vector: float = 0.0
    clock_tree: float = 0.0
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


UNKNOWN = Energy(*(math.nan for _ in fields(Energy)))
"""Of a machine without cost tables."""


def operator_energy(
    machine: Machine,
    gemm: Gemm,
    program: Program,
    counts: Activity,
    unit: MachineCosts,
    counters: Counters,
    port: DramPort,
) -> Energy:
    """Events times unit costs. A weight word carries its share of scales, zero points and selectors."""
    cycles, streamed = counters.cycles, counters.cycles_stream
    weight_bits = gemm.weight_bits(gemm.n, gemm.k) / (gemm.n * gemm.k)
    filled = {"act": 0, "wgt": 0}
    for load in program.loads:
        filled[load.tensor] += load.size_bytes * 8
    stored = sum(store.size_bytes * 8 for store in program.stores) / mapping.act_bits(machine, gemm.weight_format)
    act_word = machine.array.rows * mapping.act_bits(machine, gemm.weight_format)
    wgt_word = unit.wgt.width_bits
    columns, array = machine.array.cols * cycles, machine.array
    passing = machine.cells * streamed - counts.active_cell_cycles
    reads = sum(load.size_bytes for load in program.loads)
    writes = sum(store.size_bytes for store in program.stores)
    sizes = [load.size_bytes for load in program.loads] + [store.size_bytes for store in program.stores]
    busy = sum(port.busy_cycles(size) for size in sizes)
    return Energy(
        array=counts.active_cell_cycles * unit.cell.op_pj + counts.wgt_words * array.cols * unit.weight_load_pj,
        array_idle=passing * unit.pass_pj + machine.cells * (cycles - streamed) * unit.cell.idle_pj,
        array_wires=_wires_pj(machine, unit, counts, passing, weight_bits),
        skew=unit.skew_bits * (unit.skew_clock_pj * cycles + unit.skew_toggle_pj * RANDOM_TOGGLES * streamed),
        edge=unit.edge_pj(counts.group_results, counts.partial_sums, counts.border_weights, columns),
        sram_act=counts.act_words * unit.act.read_pj + filled["act"] / act_word * unit.act.write_pj,
        sram_wgt=counts.wgt_words * machine.array.cols * weight_bits / wgt_word * unit.wgt.read_pj
        + filled["wgt"] / wgt_word * unit.wgt.write_pj,
        sram_out=(counts.out_reads + stored / array.cols) * unit.out.read_pj + counts.out_writes * unit.out.write_pj,
        dram=8 * (reads * unit.dram_read_pj_per_bit + writes * unit.dram_write_pj_per_bit),
        dram_idle=_dram_idle_pj(machine, unit, cycles - busy),
        vector=unit.vector.energy_pj(0, machine.vector.lanes * cycles),
        clock_tree=unit.clock_tree_pj * cycles,
        leakage=_leakage_pj(machine, unit, cycles),
    )


def vector_energy(machine: Machine, unit: MachineCosts, lane_ops: int, cycles: int) -> Energy:
    """Energy of `lane_ops` of element-wise work in `cycles`, while everything else stands still."""
    return Energy(
        vector=unit.vector.energy_pj(lane_ops, machine.vector.lanes * cycles),
        clock_tree=unit.clock_tree_pj * cycles,
        array_idle=machine.cells * cycles * unit.cell.idle_pj,
        skew=unit.skew_bits * unit.skew_clock_pj * cycles,
        edge=unit.edge_pj(0, 0, 0, machine.array.cols * cycles),
        dram_idle=_dram_idle_pj(machine, unit, cycles),
        leakage=_leakage_pj(machine, unit, cycles),
    )


def _wires_pj(machine: Machine, unit: MachineCosts, counts: Activity, passing: int, weight_bits: float) -> float:
    """Between cells, and between buffers and the array: a word's wires are charged where its buffer is read or written,
    but for what DRAM moves."""
    wires, columns = unit.wires, machine.array.cols
    cells = counts.active_cell_cycles * wires.cell_pj + passing * wires.pass_pj
    weights = counts.wgt_words * columns * (wires.weight_load_pj + weight_bits * wires.wgt_pj_per_bit)
    sums = (counts.out_reads + counts.out_writes) * columns * wires.out_pj
    return cells + weights + counts.act_words * wires.act_pj + sums


def _dram_idle_pj(machine: Machine, unit: MachineCosts, cycles: int) -> float:
    """Standby of the DRAM while its channel is idle: mW x ns = pJ (at full rate it is in the energy a bit)."""
    return unit.dram_background_mw * cycles * 1e3 / machine.clock_mhz


def _leakage_pj(machine: Machine, unit: MachineCosts, cycles: int) -> float:
    """Leakage of the whole chip over `cycles`: uW x us = pJ."""
    return unit.leakage_uw * cycles / machine.clock_mhz
