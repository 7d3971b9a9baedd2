"""What always holds of programs on a DRAM with banks, and where a faster one takes longer."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from bitwright.arch import dram
from bitwright.arch.array_timing import ArrayShape, PassRun, cycles
from bitwright.arch.dram_port import DramPort
from bitwright.arch.machine import Machine
from bitwright.arch.program import Execute, Load, Program, Store, Token
from bitwright.sim import engine, fast
from bitwright.sim.intervals import Interval
from bitwright.sim.memory import Banks
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from hypothesis import given, settings
from mapped_products import gemms_on_machines

PRESETS = st.sampled_from(["ddr4-3200-x16", "ddr4-3200-x64", "hbm2", "hbm2e", "hbm3"])
CLOCKS_KHZ = st.sampled_from([100_000, 250_000, 1_000_000])


@settings(max_examples=100, deadline=None)
@given(gemms_on_machines(90), PRESETS, CLOCKS_KHZ)
def test_no_product_beats_its_macs_its_array_or_its_bytes(
    case: tuple[Machine, Gemm], name: str, clock_khz: int
) -> None:
    machine, gemm = case
    program = mapping.compile_gemm(machine, gemm, DramPort(6400, clock_khz, 0))
    shape = mapping.array_shape(machine, gemm.weight_format)
    memory = dram.load(name)
    counted = fast.run(program, shape, Banks(memory, clock_khz), 3)
    assert counted.cycles * machine.macs_a_cycle(gemm.weight_format) >= program.macs
    assert counted.cycles >= cycles(shape, (item for execute in program.executes for item in execute.passes()))
    clocks_of_data = program.dram_bytes * memory.device.timing.burst  # times channels and bytes of a burst
    at_peak_ps = clocks_of_data * memory.clock_ps / (memory.channels * memory.device.burst_bytes)
    assert counted.cycles * 1e9 / clock_khz >= at_peak_ps


def twice_as_slow(memory: dram.Dram) -> dram.Dram:
    return replace(memory, clock_ps=2 * memory.clock_ps)


def without_refresh(memory: dram.Dram) -> dram.Dram:
    return replace(memory, device=replace(memory.device, timing=replace(memory.device.timing, refi=1 << 40)))


@settings(max_examples=100, deadline=None)
@given(gemms_on_machines(90), PRESETS, CLOCKS_KHZ)
def test_twice_the_clock_never_adds_a_cycle_for_one_client_without_refresh(
    case: tuple[Machine, Gemm], name: str, clock_khz: int
) -> None:
    """The program is fixed, its stores move nothing: every clock of the DRAM is a sum and maximum of earlier ones."""
    machine, gemm = case
    program = mapping.compile_gemm(machine, gemm, DramPort(6400, clock_khz, 0))
    stores = tuple(Store(0, item.waits, item.signals) for item in program.stores)
    program = Program(program.m, program.k, program.n, program.loads, program.executes, stores)
    shape = mapping.array_shape(machine, gemm.weight_format)
    memory = without_refresh(dram.load(name))
    quick = fast.run(program, shape, Banks(memory, clock_khz), 3)
    slow = fast.run(program, shape, Banks(twice_as_slow(memory), clock_khz), 3)
    assert quick.cycles <= slow.cycles


def three_blocks(steps: int) -> Program:
    """On one PE: the third block's weights need the slot of the first, which multiplies for `steps` cycles."""
    loads = [Load("wgt", 64, (Token.WGT_FREE,), (Token.WGT_READY,), 64 * block) for block in range(3)]
    loads.insert(1, Load("act", 64, (Token.ACT_FREE,), (Token.ACT_READY,), 1 << 20))
    run = PassRun(1, steps, 1), PassRun(1, 1, 1)
    executes = [
        Execute(0, 0, 0, 1, 1, 1, (run[block > 0],), 1, (), 0,
                (Token.WGT_READY, *((Token.ACT_READY, Token.OUT_FREE) if block == 0 else ())),
                (Token.WGT_FREE, *((Token.ACT_FREE, Token.OUT_READY) if block == 2 else ())))
        for block in range(3)
    ]  # fmt: skip
    store = Store(0, (Token.OUT_READY,), (Token.OUT_FREE,))
    return Program(1, 1, 1, tuple(loads), tuple(executes), (store,))


def asked_and_taken(memory: dram.Dram) -> tuple[int, int]:
    """(cycle in which the third block's weights are granted the memory, cycles of the program)."""
    moved: list[Interval] = []
    shape, program = ArrayShape(1, 1, weight_stationary=False), three_blocks(3800)
    counted = fast.run(program, shape, Banks(memory, 1_000_000), 0, moved)
    assert counted == engine.run(program, shape, Banks(memory, 1_000_000), 0)
    return [item.start_cycle for item in moved if item.name == "load wgt"][2], counted.cycles


def test_refresh_can_make_a_memory_of_twice_the_clock_take_longer() -> None:
    """One client. HBM2E's first refresh is due in cycle 3,900 and takes 350; its row opens too late for the RD to come
    before. At half the clock everything is there later, but the refresh is due in 7,800."""
    own = dram.load("hbm2e")
    half = twice_as_slow(own)
    assert asked_and_taken(without_refresh(own)) == (3884, 3936)
    assert asked_and_taken(without_refresh(half)) == (3967, 4067)
    assert asked_and_taken(half) == (3967, 4067)
    assert asked_and_taken(own) == (3884, 4301)
