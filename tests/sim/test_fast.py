"""The fast engine against the SimPy machine: every counter of random programs on random machines."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from bitwright.arch import dram
from bitwright.arch import machine as machines
from bitwright.arch.array_timing import ArrayShape, BroadcastShape, PassRun, Shape
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.program import Execute, Load, Program, Store, Token
from bitwright.sim import engine, fast
from bitwright.sim.counters import Counters
from bitwright.sim.inference import simulate
from bitwright.sim.memory import Banks
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from hypothesis import given, settings
from mapped_products import gemms_on_machines

OPERANDS = (("wgt", Token.WGT_FREE, Token.WGT_READY), ("act", Token.ACT_FREE, Token.ACT_READY))


@st.composite
def ports(draw: st.DrawFn) -> DramPort:
    return DramPort(draw(st.sampled_from([100, 700, 6400, 25_600, 1_000_000])), 250_000, draw(st.integers(0, 40)))


@st.composite
def devices(draw: st.DrawFn) -> Banks:
    """A preset's channels, or one to three channels of a device whose refresh and rows come often."""
    clock_khz = draw(st.sampled_from([100_000, 250_000, 777_777, 3_000_000]))
    if draw(st.booleans()):
        return Banks(dram.load(draw(st.sampled_from(dram.names()))), clock_khz)
    base = dram.load(draw(st.sampled_from(["ddr4-3200-x64", "hbm2e"])))
    timing = replace(base.device.timing, refi=base.device.timing.rfc + draw(st.integers(150, 900)))
    device = replace(base.device, timing=timing, page_bytes=base.device.burst_bytes * 4, rows=1 << 14)
    channels = draw(st.integers(1, 3))
    return Banks(dram.Dram("tight", device, channels, base.device.burst_bytes, base.clock_ps), clock_khz)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    if draw(st.integers(0, 3)) == 0:
        small = st.integers(1, 9)
        return BroadcastShape(draw(small), draw(small), draw(small), draw(st.integers(0, 5)), draw(small))
    return ArrayShape(draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.booleans()))


@st.composite
def programs(draw: st.DrawFn, shape: Shape) -> Program:
    """Blocks of random passes; an operand stays in its slot or is loaded again, sums stay or are stored, at random."""
    loads: list[Load] = []
    executes: list[Execute] = []
    stores: list[Store] = []
    sizes, least = st.one_of(st.integers(0, 400), st.integers(0, 30_000)), st.integers(1, shape.rows)
    places = st.one_of(st.integers(0, 4096), st.integers(0, (1 << 20)))
    free = st.integers(1, 12)
    fresh = {"wgt": True, "act": True, "out": True}
    count = draw(st.integers(1, 12))
    for index in range(count):
        waits, signals = [], []
        for tensor, released, ready in OPERANDS:
            if fresh[tensor]:
                loads.append(Load(tensor, draw(sizes), (released,), (ready,), draw(places)))
                waits.append(ready)
            fresh[tensor] = index == count - 1 or draw(st.booleans())
            signals += [released] if fresh[tensor] else []
        waits += [Token.OUT_FREE] if fresh["out"] else []
        fresh["out"] = index == count - 1 or draw(st.booleans())
        if fresh["out"]:
            signals.append(Token.OUT_READY)
            stores.append(Store(draw(sizes), (Token.OUT_READY,), (Token.OUT_FREE,), draw(places)))
        k, m = (least, free) if shape.weight_stationary else (free, least)
        patterns = []
        for _ in range(1 + (not shape.weight_stationary and draw(st.booleans()))):
            rows = draw(m)
            runs = st.tuples(k, st.integers(1, 4)).map(lambda run, rows=rows: PassRun(rows, *run))  # type: ignore[misc]
            patterns.append((tuple(draw(st.lists(runs, min_size=1, max_size=3))), draw(st.integers(1, 5))))
        if len(patterns) == 1:
            patterns.append(((), 0))
        (pattern, times), (tail, tail_times) = patterns
        executes.append(Execute(0, 0, 0, 1, 1, 1, pattern, times, tail, tail_times, tuple(waits), tuple(signals)))
    return Program(1, 1, 1, tuple(loads), tuple(executes), tuple(stores))


def counted_alike(program: Program, shape: Shape, memory: DramPort | Banks, edge: int) -> Counters:
    """Of both engines; the causes sum to the cycles."""
    counted = fast.run(program, shape, memory, edge)
    assert counted == engine.run(program, shape, memory, edge)
    parts = (counted.cycles_stream, counted.cycles_array_stall, counted.cycles_dram_wait, counted.cycles_fill_drain)
    assert min(*parts, *counted.waits) >= 0
    assert sum(parts) == counted.cycles
    assert sum(counted.waits) == counted.cycles_dram_wait
    return counted


@settings(max_examples=1000, deadline=None)
@given(st.data(), shapes(), ports(), st.integers(0, 5))
def test_random_programs_are_counted_alike(data: st.DataObject, shape: Shape, port: DramPort, edge: int) -> None:
    counted_alike(data.draw(programs(shape)), shape, port, edge)


@settings(max_examples=700, deadline=None)
@given(st.data(), shapes(), devices(), st.integers(0, 5))
def test_random_programs_are_counted_alike_on_banks(
    data: st.DataObject, shape: Shape, memory: Banks, edge: int
) -> None:
    program = data.draw(programs(shape))
    counted = counted_alike(program, shape, memory, edge)
    peak = program.dram_bytes / memory.dram.peak_bytes_per_s * memory.clock_khz * 1000
    assert counted.cycles >= int(peak)


@settings(max_examples=600, deadline=None)
@given(gemms_on_machines(90), ports(), st.one_of(st.none(), devices()))
def test_mapped_products_are_counted_alike(
    case: tuple[machines.Machine, Gemm], port: DramPort, banks: Banks | None
) -> None:
    machine, gemm = case
    program = mapping.compile_gemm(machine, gemm, port)
    counted_alike(program, mapping.array_shape(machine, gemm.weight_format), banks or port, 3)


def test_a_load_goes_before_a_store_of_the_same_cycle() -> None:
    """By hand, 10 bytes a cycle, no latency, a 1 x 1 array; the third weights wait for the first block.

    Loads end at 1 (w0), 2 (w1), 3 (act); block 0 runs 3..4: weights taken at 4, activation at 5, output at 6. Weights 2
    are asked for at 4 and move 4..6; then, both asked for at 6, weights 3 move 6..8 and only then the store, 8..12.
    """
    shape = ArrayShape(1, 1, weight_stationary=True)
    port = DramPort(2500, 250_000, 0)
    run = ((PassRun(1, 1, 1),), 1, (), 0)
    loads = [Load("wgt", size, (Token.WGT_FREE,), (Token.WGT_READY,)) for size in (10, 10)]
    loads += [Load("act", 10, (Token.ACT_FREE,), (Token.ACT_READY,))]
    loads += [Load("wgt", size, (Token.WGT_FREE,), (Token.WGT_READY,)) for size in (20, 20)]
    executes = [
        Execute(0, 0, 0, 1, 1, 1, *run, (Token.WGT_READY, Token.ACT_READY, Token.OUT_FREE),
                (Token.WGT_FREE, Token.OUT_READY)),
        *(Execute(0, 0, 0, 1, 1, 1, *run, (Token.WGT_READY,), (Token.WGT_FREE,)) for _ in range(3)),
    ]  # fmt: skip
    store = Store(40, (Token.OUT_READY,), (Token.OUT_FREE,))
    program = Program(1, 1, 1, tuple(loads), tuple(executes), (store,))
    counted = engine.run(program, shape, port, 0)
    assert counted == fast.run(program, shape, port, 0)
    assert counted.cycles == 12


@pytest.mark.parametrize("run", [engine.run, fast.run])
def test_deadlock_is_named(run: object) -> None:
    load = Load("wgt", 16, (Token.WGT_FREE,), ())
    execute = Execute(0, 0, 0, 1, 1, 1, (PassRun(1, 1, 1),), 1, (), 0, (Token.WGT_READY,), ())
    with pytest.raises(ConfigError) as caught:
        run(Program(1, 1, 1, (load,), (execute,), ()), ArrayShape(1, 1, True), DramPort(100, 250, 1), 0)  # type: ignore[operator]
    assert str(caught.value) == ("program deadlocks: execute 0 waits for wgt_ready; every wait needs an earlier signal")


def test_a_token_of_another_queue_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Program(1, 1, 1, (Load("wgt", 16, (Token.WGT_FREE,), (Token.WGT_FREE,)),), (), ())
    assert str(caught.value) == (
        "load 0  waits wgt_free  signals wgt_free: a load waits only for act_free, wgt_free and signals only "
        "act_ready, wgt_ready; the program"
    )


def test_a_model_is_counted_alike_and_another_engine_refused() -> None:
    sizes = {"prompt_tokens": 5, "output_tokens": 2}
    assert simulate("int8-8x8", "smollm2-135m", **sizes) == simulate(
        "int8-8x8", "smollm2-135m", engine="simpy", **sizes
    )
    with pytest.raises(ConfigError) as caught:
        simulate("int8-8x8", "smollm2-135m", engine="quick")
    assert str(caught.value) == "engine = 'quick': must be fast or simpy; of a model"
