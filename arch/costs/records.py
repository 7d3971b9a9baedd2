"""What cost tables say of one thing: a PE cell, an edge unit, a register, an SRAM, a DRAM preset."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TreeCost:
    """A clock tree's buffers and wires: energy a cycle, area and leakage of the buffers. In no figure of the block that
    it is in."""

    energy_pj: float
    area_um2: float
    leakage_uw: float


@dataclass(frozen=True)
class NetlistCost:
    """What every synthesised netlist has.

    area_um2                 Cells only, without a clock tree's buffers; sequential_um2 of it are registers.
    min_period_ns, fmax_mhz  Of the netlist made for the table's clock.
    leakage_uw               At the library's corner.
    """

    area_um2: float
    sequential_um2: float
    min_period_ns: float
    leakage_uw: float

    @property
    def fmax_mhz(self) -> float:
        """1000 / min_period_ns."""
        return 1e3 / self.min_period_ns


@dataclass(frozen=True)
class BlockCost(NetlistCost):
    """A block of a machine; `clock_tree`, from its clock pin to its flip-flops, is in none of its other figures."""

    clock_tree: TreeCost


@dataclass(frozen=True)
class PECost(BlockCost):
    """One PE cell of one dataflow, with weights of one format.

    energy_pj_per_mac        Dynamic energy of one active cycle on operands of a real model, clock included; no weight
                             is loaded in it.
    random_pj_per_mac        The same on uniform random operand codes.
    pass_energy_pj           Of a cycle in which the array streams and this cell has no operand (valid = 0, act = 0):
                             weights march through it (output-stationary) or partial sums (weight-stationary).
    idle_energy_pj           Of a cycle in which all inputs stand still: the clock still runs.
    weight_load_pj           Weight-stationary: what loading and swapping in the cell's own weight adds, over all cycles
                             that it touches, on top of their active, pass or idle energy. 0 for output-stationary.
    bus_beat_pj              Weight-stationary: what one beat on the column's weight bus for another row adds. Every
                             cell of a column sees all its beats, so that a tile of R weight rows adds
                             weight_load_pj + (R - 1) * bus_beat_pj to a cell. 0 for output-stationary.
    hops, pass_hops, weight_load_hops, bus_beat_hops   Transitions of the cell's input ports where the energies of the
                             same names are: what comes from neighbours, on wires that are not in those energies.
    """

    pe: str
    dataflow: str
    weight_format: str
    energy_pj_per_mac: float
    random_pj_per_mac: float
    pass_energy_pj: float
    idle_energy_pj: float
    weight_load_pj: float
    bus_beat_pj: float
    hops: float
    pass_hops: float
    weight_load_hops: float
    bus_beat_hops: float


@dataclass(frozen=True)
class UnitCost(BlockCost):
    """One unit at the edge of an array. `energy_pj_per_op` is one result, clock pins of that cycle included."""

    name: str
    variant: str
    energy_pj_per_op: float
    idle_energy_pj: float


@dataclass(frozen=True)
class RegisterCost:
    """One bit of a plain register (skew registers, delay lines).

    clock_pj    A cycle in which the bit does not change.
    toggle_pj   What one change of the bit adds (the next register's data pin included).
    block_bits  Of the block that it is a share of, clock tree and all.
    """

    area_um2: float
    clock_pj: float
    toggle_pj: float
    leakage_uw: float
    block_bits: int
    clock_tree: TreeCost

    def energy_pj(self, toggles_per_cycle: float) -> float:
        """Energy of one bit and cycle at a given rate of change (0 to 1)."""
        return self.clock_pj + self.toggle_pj * toggles_per_cycle


@dataclass(frozen=True)
class SramCost:
    """One memory with one read-write port of `width_bits`; energies are of one whole word."""

    capacity_bytes: float
    width_bits: float
    cell_type: str
    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float
    access_ns: float
    cycle_ns: float


@dataclass(frozen=True)
class DramCost:
    """One DRAM preset. Never compare `pj_per_bit` across scopes.

    Energies are nan of a preset whose timings alone are known (scope "none"): `has_energy` is false.

    pj_per_bit           Reading whole rows at full rate: pj of a read bit, its share of the background power and of
                         the row's activation.
    write_pj_per_bit     The same for writing. gddr6, hbm2e: equal to pj_per_bit, since their source gives one figure.
    latency_ns           First data of a closed row: tRCD + CL.
    activate_pj          One activation and precharge of one row in every device of the bus (0: not separable).
    background_mw        Standby power with rows open (IDD3N, never in power-down), all devices and channels. At full
                         rate it is already in pj_per_bit and write_pj_per_bit, since IDD4 includes it: add it only
                         for the time in which no data moves (0: not separable).
    """

    name: str
    scope: str
    scope_text: str
    source: str
    bandwidth_gbytes_per_s: float
    pj_per_bit: float
    write_pj_per_bit: float
    latency_ns: float
    activate_pj: float
    background_mw: float

    @property
    def has_energy(self) -> bool:
        """Whether a source that can be cited gives its energy."""
        return not math.isnan(self.pj_per_bit)
