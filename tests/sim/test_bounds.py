"""What always holds of whole programs on DRAM, and where more bandwidth makes a program slower."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import pytest
from bitwright.arch import dram, space
from bitwright.arch import machine as machines
from bitwright.arch.array_timing import ArrayShape, PassRun
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Machine
from bitwright.arch.program import Execute, Load, Program, Store, Token
from bitwright.sim import engine, fast
from bitwright.sim.inference import Result, memory_of, simulate
from bitwright.sim.intervals import Interval
from bitwright.sim.layers import layer_rows
from bitwright.sim.memory import Banks, Memory
from bitwright.sim.row import result_row
from bitwright.sim.sweeping import plan
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from hypothesis import given, settings

READY = {"wgt": Token.WGT_READY, "act": Token.ACT_READY}
FREE = {"wgt": Token.WGT_FREE, "act": Token.ACT_FREE}

# Found by a random search over 60,000 programs (at 11 and 10 bytes a cycle: slower by 14 of 77 cycles).
LOADS = "wgt 20, act 40, wgt 20, wgt 160, act 10, wgt 160, act 10"
TOKENS_AND_NEW_OPERANDS = ((16, "wgt act"), (4, "wgt"), (32, "wgt act"), (16, "wgt act"))
STORES = (10, 10, 10, 10)


def anomaly() -> Program:
    loads = []
    for item in LOADS.split(", "):
        tensor, size = item.split()
        loads.append(Load(tensor, int(size), (FREE[tensor],), (READY[tensor],)))
    executes = []
    for index, (m, new) in enumerate(TOKENS_AND_NEW_OPERANDS):
        last = index + 1 == len(TOKENS_AND_NEW_OPERANDS)
        after = "wgt act" if last else TOKENS_AND_NEW_OPERANDS[index + 1][1]
        waits = (*(READY[name] for name in new.split()), Token.OUT_FREE)
        signals = (*(FREE[name] for name in after.split()), Token.OUT_READY)
        executes.append(Execute(0, 0, 0, m, 1, 1, (PassRun(m, 1, 1),), 1, (), 0, waits, signals))
    stores = (Store(size, (Token.OUT_READY,), (Token.OUT_FREE,)) for size in STORES)
    return Program(1, 1, 1, tuple(loads), tuple(executes), tuple(stores))


def order(intervals: list[Interval]) -> list[str]:
    return [item.name for item in intervals if item.unit == "dram"]


def test_a_faster_memory_can_take_longer() -> None:
    """At 11 bytes a cycle the last block's weights are asked for in cycle 24, as the first store is, and go first; the
    longest block, which needs that store's slot, waits for them. At 10 they are asked for in 25, after the store."""
    slow: list[Interval] = []
    quick: list[Interval] = []
    shape = ArrayShape(1, 1, weight_stationary=True)
    ten, eleven = (DramPort(rate, 250_000, 0) for rate in (2500, 2750))
    program = anomaly()
    assert fast.run(program, shape, ten, 0, slow).cycles == engine.run(program, shape, ten, 0).cycles == 77
    assert fast.run(program, shape, eleven, 0, quick).cycles == engine.run(program, shape, eleven, 0).cycles == 91
    assert order(slow) != order(quick)
    first = next(at for at, pair in enumerate(zip(order(slow), order(quick), strict=True)) if pair[0] != pair[1])
    assert (order(slow)[first], order(quick)[first]) == ("store", "load wgt")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["fp16-mac", "int8-mac", "shift-add"]),
    st.sampled_from(["ws", "os"]),
    st.sampled_from(["ddr4-3200-x16", "ddr4-3200-x64", "hbm2", "hbm2e"]),
    st.tuples(*[st.integers(1, 90)] * 3),
)
def test_no_bound_is_broken_on_banks(pe: str, flow: str, name: str, sizes: tuple[int, int, int]) -> None:
    machine = machines.with_changes(
        machines.load(f"{pe}-8x8-{flow}"), buffers_kib="4,2,8", dram=name, dram_timing="banks"
    )
    m, k, n = sizes
    weights, group = {"fp16-mac": ("fp16", None), "int8-mac": ("int8", None), "shift-add": ("int4", 16)}[pe]
    gemm = Gemm("g", "ffn", m, k, n, 1, weights, group)
    memory = memory_of(machine)
    assert isinstance(memory, Banks)
    program = mapping.compile_gemm(machine, gemm, DramPort(6400, 250_000, 0))
    counted = fast.run(program, mapping.array_shape(machine, weights), memory, 3)
    assert counted.cycles * 64 >= program.macs
    seconds = counted.cycles / 250e6
    assert seconds * memory.dram.peak_bytes_per_s >= program.dram_bytes
    spans = sorted({(item.address, item.address + item.size_bytes) for item in (*program.loads, *program.stores)})
    assert all(one[1] <= two[0] for one, two in pairwise(spans))  # no block lies in another
    assert spans[-1][1] <= memory.dram.capacity_bytes


def test_data_of_one_queue_arrive_in_order() -> None:
    """The second load ends earlier in its own channel; its token must not be the first one's."""
    hbm = Banks(dram.load("hbm2e"), 250_000)
    alone = Memory(hbm).transfer(256, 32, False, 0).finish
    memory = Memory(hbm)
    long = memory.transfer(0, 1 << 14, False, 0)
    later = memory.transfer(1 << 14, 32, False, long.accepts_next)
    assert later.finish >= long.finish > alone


@pytest.fixture(scope="module")
def on_banks() -> Result:
    machine = machines.with_changes(machines.load("int8-8x8"), dram="hbm2e", dram_timing="banks")
    return simulate(machine, "smollm2-135m", prompt_tokens=5, output_tokens=1)


def test_lost_macs_sum_to_the_total_exactly(on_banks: Result) -> None:
    row = result_row(on_banks)
    lost = [value for name, value in row.items() if name.startswith("lost_macs_")]
    assert min(lost) >= 0
    assert row["macs"] + sum(lost) == row["peak_macs_per_cycle"] * row["cycles"]
    waits = [value for name, value in row.items() if name.startswith("wait_")]
    assert sum(waits) == row["cycles_dram_wait"] > 0
    assert "--dram-timing banks" in row["command"]


def test_layers_add_up_and_stay_under_their_roof(on_banks: Result) -> None:
    rows = layer_rows(on_banks)
    cycles = sum(row["count"] * row["cycles"] for row in rows)
    assert cycles == on_banks.cycles - on_banks.prefill.cycles_vector - on_banks.decode.cycles_vector
    assert all(0 < row["of_roof"] <= 1 for row in rows)


def test_both_engines_count_a_model_alike_on_banks(on_banks: Result) -> None:
    machine: Machine = on_banks.machine
    assert on_banks == simulate(machine, "smollm2-135m", prompt_tokens=5, output_tokens=1, engine="simpy")


def refusal(machine: str, model: str, **changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        simulate(machines.with_changes(machines.load(machine), **changes), model, prompt_tokens=2048)  # type: ignore[arg-type]
    return str(caught.value)


def test_memory_that_does_not_fit_is_refused() -> None:
    assert refusal("int8-16x16", "llama-2-7b", dram_timing="banks") == (
        "context = 2080 tokens, batch = 1: weights, KV cache and activations need 7470873088 bytes and dram "
        "ddr4-3200-x16 holds 1073741824; shorten the context, make the batch smaller, or name a larger memory; "
        "machine int8-16x16"
    )
    assert refusal("int8-16x16", "smollm2-135m", dram="gddr6", dram_timing="banks") == (
        "dram = gddr6: no rows and banks are known of it (dram_timing: banks): known: ddr4-3200-x16, ddr4-3200-x64, "
        "hbm2, hbm2e, hbm3, lpddr5-6400-x64"
    )


def test_what_a_memory_at_peak_bandwidth_does_not_hold_is_noted() -> None:
    sizes = {"prompt_tokens": 16, "output_tokens": 0}
    small, large = (simulate("int8-16x16", model, **sizes) for model in ("smollm2-135m", "llama-2-7b"))
    assert result_row(small)["notes"][0] == "DRAM runs at peak bandwidth: rows, banks and refresh are not modelled"
    assert result_row(large)["notes"][0] == (
        f"needs {large.peak_memory_bytes} bytes and dram ddr4-3200-x16 holds 1073741824: as if it were larger, equally "
        "fast"
    )


@pytest.mark.parametrize("name", ["hbm3", "lpddr5-6400-x64"])
def test_a_memory_without_energy_gives_cycles_and_what_energy_is_known(name: str) -> None:
    """Its cycles are those of any memory as fast; the energy of the array does not depend on the memory."""
    machine = machines.with_changes(machines.load("int8-16x16"), dram=name)
    sizes = {"prompt_tokens": 3, "output_tokens": 1}
    found = result_row(simulate(machine, "smollm2-135m", **sizes))
    known = result_row(simulate(machines.with_changes(machine, dram="hbm2"), "smollm2-135m", **sizes))
    assert found["cycles"] >= found["prefill_bound_cycles"] + found["decode_bound_cycles"]
    assert found["energy_array_uj"] == known["energy_array_uj"]
    assert [found[key] for key in ("energy_dram_uj", "energy_dram_idle_uj", "energy_uj")] == [None] * 3
    assert found["notes"][4] == (
        "no energy of the DRAM, and so no sum: no source that can be cited was found for this preset "
        "(bitwright list drams)"
    )


def test_a_sweep_of_a_memory_without_energy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "name: a\nmodel: smollm2-135m\nmachines: {array: [[8, 8]], dram: [hbm3]}\n"
        "designs: [{pe: int8-mac, formats: [{weights: int8, acts: int8, kv: int8}]}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        plan(space.load(tmp_path / "space.yaml"))
    assert str(caught.value) == (
        "dram = hbm3: its energy is not known, and a sweep compares energy; use ddr4-3200-x16, ddr4-3200-x64, gddr6, "
        "hbm2, hbm2e; in `designs`: pe int8-mac, formats {weights: int8, acts: int8, kv: int8}"
    )


def test_a_sweep_that_a_memory_does_not_hold_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "name: a\nmodel: llama-2-7b\nmachines: {array: [[8, 8]], dram_timing: [banks]}\n"
        "designs: [{pe: int8-mac, formats: [{weights: int8, acts: int8, kv: int8}]}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        plan(space.load(tmp_path / "space.yaml"))
    assert re.fullmatch(
        r"context = 160 tokens, batch = 1: weights, KV cache and activations need \d+ bytes and dram ddr4-3200-x16 "
        r"holds 1073741824; .*; machine int8-mac-8x8-.*; in `designs`: pe int8-mac, formats .*",
        str(caught.value),
    )


def test_a_cycle_of_tokens_is_named() -> None:
    """Three weight blocks into two slots before the activations that would free one."""
    weights = Load("wgt", 1, (Token.WGT_FREE,), (Token.WGT_READY,))
    loads = (weights, weights, weights, Load("act", 1, (Token.ACT_FREE,), (Token.ACT_READY,)))
    waits = (Token.WGT_READY, Token.ACT_READY)
    execute = Execute(0, 0, 0, 1, 1, 1, (PassRun(1, 1, 1),), 1, (), 0, waits, (Token.WGT_FREE,))
    for run in (fast.run, engine.run):
        with pytest.raises(ConfigError) as caught:
            run(Program(1, 1, 1, loads, (execute,), ()), ArrayShape(1, 1, True), DramPort(100, 250, 1), 0)
        assert str(caught.value) == (
            "program deadlocks: load 2 waits for wgt_free; execute 0 waits for wgt_ready, act_ready; "
            "cycle: load needs wgt_free of execute, execute needs act_ready of load; every wait needs an earlier signal"
        )


def test_a_token_taken_twice_at_once_is_refused() -> None:
    twice = Load("act", 1, (Token.ACT_FREE, Token.ACT_FREE), (Token.ACT_READY,))
    with pytest.raises(ConfigError) as caught:
        Program(1, 1, 1, (twice,), (), ())
    assert str(caught.value) == (
        "load 0  waits act_free, act_free: an instruction takes one of each token; the program"
    )
