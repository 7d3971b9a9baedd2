"""Energy of one small operator, every part by hand with invented unit costs."""

from __future__ import annotations

import math

import pytest
from bitwright.arch import costs as tables
from bitwright.arch import machine as machines
from bitwright.arch.dram_port import DramPort
from bitwright.sim import activity, engine
from bitwright.sim.costs import MachineCosts, Sram, WireCosts, Worker, machine_costs, skew_register_bits
from bitwright.sim.counters import Counters
from bitwright.sim.energy import Energy, operator_energy, vector_energy
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.tiling import Tiling

UNIT = MachineCosts(
    cell=Worker(op_pj=2.0, idle_pj=3.0),
    pass_pj=5.0,
    weight_load_pj=7.0,
    group=Worker(11.0, 13.0),
    partial=Worker(17.0, 19.0),
    border=Worker(23.0, 29.0),
    bypassed_pj=31.0,
    act=Sram(width_bits=32, read_pj=37.0, write_pj=41.0, leakage_uw=43.0, area_um2=1.0),
    wgt=Sram(width_bits=32, read_pj=47.0, write_pj=53.0, leakage_uw=59.0, area_um2=1.0),
    out=Sram(width_bits=128, read_pj=61.0, write_pj=67.0, leakage_uw=71.0, area_um2=1.0),
    dram_read_pj_per_bit=73.0,
    dram_write_pj_per_bit=79.0,
    dram_background_mw=83.0,
    skew_bits=89,
    skew_clock_pj=97.0,
    skew_toggle_pj=101.0,
    vector=Worker(103.0, 107.0),
    wires=WireCosts(
        cell_pj=127.0, pass_pj=131.0, weight_load_pj=137.0, act_pj=139.0, wgt_pj_per_bit=149.0, out_pj=151.0
    ),
    clock_tree_pj=157.0,
    array_um2=1.0,
    edge_um2=1.0,
    vector_um2=1.0,
    clock_tree_um2=1.0,
    logic_leakage_uw=109.0,
)
LEAKAGE_UW = 109.0 + 43.0 + 59.0 + 71.0


def run(dataflow: str) -> tuple[Energy, Counters]:
    """M 10, K 3, N 2 in int8 with one scale a row on a 4 x 4 array at 250 MHz; 8 bytes a cycle."""
    machine = machines.load(f"int8-4x4-{dataflow}")
    gemm = Gemm("g", "ffn", 10, 3, 2, 1, "int8", None)
    port = DramPort(mbytes_per_s=2000, clock_khz=250_000, latency_cycles=5)
    program = mapping.emit(machine, gemm, Tiling(10, 3, 2, weights_outer=True))
    counters = engine.run(program, mapping.array_shape(machine, "int8"), port, 3)
    counts = activity.count(program, dataflow == "ws", 4, 4, None)
    return operator_energy(machine, gemm, program, counts, UNIT, counters, port), counters


def test_weight_stationary_by_hand() -> None:
    energy, counters = run("ws")
    cycles = counters.cycles
    # One pass: 10 activations through 3 rows x 4 columns; the fourth row passes partial sums; 3 weight rows.
    assert counters.cycles_stream == 10
    assert energy.array == 10 * 3 * 4 * 2.0 + 3 * 4 * 7.0
    assert energy.array_idle == 10 * 4 * 5.0 + (cycles - 10) * 16 * 3.0
    # 10 activation words, 3 weight words of 4 columns, and 10 output words of 4 columns written, none read back.
    between = 10 * 139.0 + 3 * 4 * (137.0 + 80 / 6 * 149.0) + 10 * 4 * 151.0
    assert energy.array_wires == pytest.approx(10 * 3 * 4 * 127.0 + 10 * 4 * 131.0 + between)
    assert energy.clock_tree == 157.0 * cycles
    assert energy.skew == 89 * (97.0 * cycles + 101.0 * 0.5 * 10)
    # 20 outputs leave through the group unit, none is partial, 6 weights pass the border, over 4 columns.
    columns = 4 * cycles
    by_hand = 20 * 11.0 + (columns - 20) * 13.0 + columns * 19.0 + 6 * 23.0 + (columns - 6) * 29.0 + columns * 31.0
    assert energy.edge == by_hand
    # Weights: 2 rows of 3 codes and a 16-bit scale: 80 bits; activations 240 bits; outputs 20 x 8 bits.
    assert energy.sram_act == 10 * 37.0 + 240 / 32 * 41.0
    assert energy.sram_wgt == pytest.approx(3 * 4 * (80 / 6) / 32 * 47.0 + 80 / 32 * 53.0)
    assert energy.sram_out == 20 / 4 * 61.0 + 10 * 67.0
    assert energy.dram == 8 * (40 * 73.0 + 20 * 79.0)
    busy = 2 + 4 + 3  # 10, 30 and 20 bytes at 8 a cycle
    assert energy.dram_idle == pytest.approx(83.0 * (cycles - busy) * 4.0)  # 4 ns a cycle
    assert energy.vector == 16 * cycles * 107.0
    assert energy.leakage == pytest.approx(LEAKAGE_UW * cycles * 4e-3)
    assert energy.total_pj == pytest.approx(sum(vars(energy).values()))


def test_output_stationary_by_hand() -> None:
    energy, counters = run("os")
    cycles = counters.cycles
    # Row tiles of 4, 4 and 2 rows, 3 elements each; in the last one two rows have no operand.
    assert counters.cycles_stream == 9
    assert energy.array == (4 + 4 + 2) * 3 * 4 * 2.0 + 9 * 4 * 7.0
    assert energy.array_idle == 2 * 3 * 4 * 5.0 + (cycles - 9) * 16 * 3.0
    between = 9 * 139.0 + 9 * 4 * (137.0 + 80 / 6 * 149.0) + 10 * 4 * 151.0
    assert energy.array_wires == pytest.approx(10 * 3 * 4 * 127.0 + 2 * 3 * 4 * 131.0 + between)
    columns = 4 * cycles
    by_hand = 20 * 11.0 + (columns - 20) * 13.0 + columns * 19.0 + 18 * 23.0 + (columns - 18) * 29.0 + columns * 31.0
    assert energy.edge == by_hand
    assert energy.sram_act == 9 * 37.0 + 240 / 32 * 41.0
    assert energy.sram_wgt == pytest.approx(9 * 4 * (80 / 6) / 32 * 47.0 + 80 / 32 * 53.0)
    assert energy.sram_out == 20 / 4 * 61.0 + 10 * 67.0


def test_element_wise_work_by_hand() -> None:
    energy = vector_energy(machines.load("int8-4x4"), UNIT, lane_ops=30, cycles=2)
    assert energy.vector == 30 * 103.0 + (2 * 16 - 30) * 107.0
    assert energy.array_idle == 2 * 16 * 3.0
    assert energy.skew == 89 * 97.0 * 2
    assert energy.clock_tree == 157.0 * 2
    assert energy.edge == 8 * (13.0 + 19.0 + 29.0 + 31.0)
    assert energy.dram_idle == pytest.approx(83.0 * 2 * 4.0)
    assert energy.leakage == pytest.approx(LEAKAGE_UW * 2 * 4e-3)
    assert (energy.array, energy.array_wires) == (0, 0)
    assert (energy.sram_act, energy.sram_wgt, energy.sram_out, energy.dram) == (0, 0, 0, 0)


def test_every_installed_decoder_is_charged() -> None:
    """A KV cache in another format than the PE's needs a decoder too, in area and in energy."""
    from bitwright.sim.inference import installed

    machine = machines.load("fp16-16x16")
    plain = machine_costs(machine, installed(FormatPolicy()), "fp16")
    cached = machine_costs(machine, installed(FormatPolicy(kv="int4")), "int4")
    assert cached.edge_um2 > plain.edge_um2
    assert cached.border.op_pj > 0


def test_one_weight_port_serves_the_widest_installed_format() -> None:
    machine = machines.load("int8-16x16")
    wide = machine_costs(machine, ("int4", "int8"), "int4")
    narrow = machine_costs(machine, ("int4",), "int4")
    assert (wide.wgt.width_bits, narrow.wgt.width_bits) == (128, 64)


def test_wires_and_clock_tree_of_a_machine_by_hand() -> None:
    """int8-4x4: from the cost table's entries to what a hop, a word and a cycle of the clock cost."""
    machine = machines.load("int8-4x4")
    unit, cost = machine_costs(machine, ("int8",), "int8"), tables.load("nangate45")
    cell, register, lane = cost.pe("int8-mac", "ws", "int8"), cost.register(), cost.pe("fp16-mac", "os")
    hop_fj = 0.5 * 0.1774 * math.sqrt((cell.area_um2 + cell.clock_tree.area_um2) / 0.7) * 1.1**2
    assert unit.wires.cell_pj == pytest.approx(cell.hops * hop_fj / 1e3)
    assert unit.wires.pass_pj == pytest.approx(cell.pass_hops * hop_fj / 1e3)
    assert unit.wires.weight_load_pj == pytest.approx((cell.weight_load_hops + 3 * cell.bus_beat_hops) * hop_fj / 1e3)
    # One cell's side away on average: to four rows of 8 bits, from four columns; half of the bits change.
    assert unit.wires.act_pj == pytest.approx(4 * 8 / 2 * hop_fj / 1e3)
    assert unit.wires.wgt_pj_per_bit == pytest.approx(1 / 2 * hop_fj / 1e3)
    assert unit.wires.out_pj == pytest.approx(32 / 2 * hop_fj / 1e3)
    units = [cost.unit("group-dequantiser", "int8-mac", "int8"), cost.unit("int-accumulator")]
    bits = skew_register_bits(machine)
    blocks = [(16, cell), *((4, one) for one in units), (bits, register), (16, lane)]
    assert unit.clock_tree_um2 > sum(count * one.clock_tree.area_um2 for count, one in blocks)
    inside = sum(count * one.clock_tree.energy_pj for count, one in blocks)
    area_um2 = sum(count * (one.area_um2 + one.clock_tree.area_um2) for count, one in blocks)
    above = cost.wires().tree(16 + 2 * 4 + math.ceil(bits / 128) + 16, area_um2)
    assert unit.clock_tree_pj == pytest.approx(inside + above.energy_pj)


def test_the_zero_point_column_has_its_own_hops() -> None:
    """shift-add-4x4 has a fifth column whose weight is constantly 1."""
    unit, cost = machine_costs(machines.load("shift-add-4x4"), ("int4",), "int4"), tables.load("nangate45")
    cell, ones = (cost.pe("shift-add", "ws", name) for name in ("int4", "constant-one"))
    assert cell.hops != ones.hops
    assert unit.wires.cell_pj / unit.wires.pass_pj == pytest.approx((4 * cell.hops + ones.hops) / 5 / cell.pass_hops)
    assert unit.cell.op_pj == pytest.approx((4 * cell.energy_pj_per_mac + ones.energy_pj_per_mac) / 5)
