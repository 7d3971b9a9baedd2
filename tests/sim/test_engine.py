"""The SimPy machine: hand-worked programs, sums, bounds, and monotonicity."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from bitwright.arch import machine as machines
from bitwright.arch.array_timing import ArrayShape, PassRun, cycles
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.program import Execute, Load, Program, Store, Token
from bitwright.sim import engine
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from hypothesis import given, settings
from mapped_products import gemms_on_machines

SHAPE = ArrayShape(rows=4, physical_cols=4, weight_stationary=True)


def one_block(load_signals: tuple[Token, ...] = (Token.WGT_READY,)) -> Program:
    waits = (Token.WGT_READY, Token.ACT_READY, Token.OUT_FREE)
    signals = (Token.WGT_FREE, Token.ACT_FREE, Token.OUT_READY)
    loads = (
        Load("wgt", 16, (Token.WGT_FREE,), load_signals),
        Load("act", 40, (Token.ACT_FREE,), (Token.ACT_READY,)),
    )
    execute = Execute(0, 0, 0, 10, 4, 4, (PassRun(10, 4, 1),), 1, (), 0, waits, signals)
    return Program(10, 4, 4, loads, (execute,), (Store(40, (Token.OUT_READY,), (Token.OUT_FREE,)),))


def test_one_block_by_hand() -> None:
    # 8 bytes a cycle: weights busy 0..2, activations 2..7, arrive 5 later at 12. Weight row 0 in cycle 12, activations
    # 13..22, last output 22 + 4 + 4 - 1 = 29, there after 3 more stages at 33; 40 bytes out take 5: end at 38.
    memory = DramPort(mbytes_per_s=8000, clock_khz=1_000_000, latency_cycles=5)
    counters = engine.run(one_block(), SHAPE, memory, edge_latency_cycles=3)
    assert counters.cycles == 38
    assert counters.cycles_stream == 10
    assert counters.cycles_dram_wait == 12 + 5
    assert counters.cycles_array_stall == 1
    assert counters.cycles_fill_drain == 33 - 23
    assert (counters.dram_read_bytes, counters.dram_write_bytes) == (56, 40)


def test_deadlock_is_named() -> None:
    memory = DramPort(mbytes_per_s=8000, clock_khz=1_000_000, latency_cycles=5)
    with pytest.raises(ConfigError) as caught:
        engine.run(one_block(load_signals=()), SHAPE, memory, edge_latency_cycles=3)
    assert str(caught.value) == (
        "program deadlocks: execute 0 waits for wgt_ready, act_ready, out_free; store 0 waits for out_ready; "
        "every wait needs an earlier signal"
    )


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_transfer_takes_whole_cycles(size: int, expected: int) -> None:
    assert DramPort(mbytes_per_s=8000, clock_khz=250_000, latency_cycles=0).busy_cycles(size) == expected


def port_of(bandwidth: int) -> DramPort:
    return DramPort(bandwidth, 250_000, 12)


@settings(max_examples=150, deadline=None)
@given(gemms_on_machines(), st.sampled_from([100, 1000, 6400, 100_000]))
def test_causes_sum_to_cycles_and_no_bound_is_broken(case: tuple[machines.Machine, Gemm], bandwidth: int) -> None:
    machine, gemm = case
    port = port_of(bandwidth)
    program = mapping.compile_gemm(machine, gemm, port)
    shape = mapping.array_shape(machine, gemm.weight_format)
    counters = engine.run(program, shape, port, edge_latency_cycles=3)
    parts = (
        counters.cycles_stream,
        counters.cycles_array_stall,
        counters.cycles_dram_wait,
        counters.cycles_fill_drain,
    )
    assert min(parts) >= 0
    assert sum(parts) == counters.cycles
    assert counters.cycles * machine.macs_a_cycle(gemm.weight_format) >= program.macs
    assert counters.cycles >= port.busy_cycles(program.dram_bytes)
    array_alone = cycles(shape, (item for execute in program.executes for item in execute.passes()))
    assert counters.cycles >= array_alone


@settings(max_examples=150, deadline=None)
@given(gemms_on_machines(), st.sampled_from([100, 300, 1000, 6400]))
def test_doubling_bandwidth_never_adds_a_cycle_for_one_client(
    case: tuple[machines.Machine, Gemm], bandwidth: int
) -> None:
    """The program is fixed, and its stores move nothing, so that loads are the only DRAM client."""
    machine, gemm = case
    port = port_of(bandwidth)
    program = mapping.compile_gemm(machine, gemm, port)
    stores = tuple(Store(0, item.waits, item.signals) for item in program.stores)
    program = Program(program.m, program.k, program.n, program.loads, program.executes, stores)
    shape = mapping.array_shape(machine, gemm.weight_format)
    slow = engine.run(program, shape, port, 3)
    fast = engine.run(program, shape, port_of(2 * bandwidth), 3)
    assert fast.cycles <= slow.cycles


@settings(max_examples=60, deadline=None)
@given(gemms_on_machines())
def test_with_endless_memory_the_array_alone_is_left(case: tuple[machines.Machine, Gemm]) -> None:
    """Bytes that take no time: the engine's array cycles are those of the timing contract over the program's passes."""
    machine, gemm = case
    program = mapping.compile_gemm(machine, gemm, DramPort(6400, 250_000, 0))
    free_loads = tuple(Load(item.tensor, 0, item.waits, item.signals) for item in program.loads)
    free_stores = tuple(Store(0, item.waits, item.signals) for item in program.stores)
    program = Program(program.m, program.k, program.n, free_loads, program.executes, free_stores)
    shape = mapping.array_shape(machine, gemm.weight_format)
    counters = engine.run(program, shape, DramPort(6400, 250_000, 0), edge_latency_cycles=0)
    alone = cycles(shape, (item for execute in program.executes for item in execute.passes()))
    if len(program.stores) <= 2:  # more outputs than slots may make the array wait for a slot
        assert counters.cycles == alone
    assert counters.cycles >= alone
