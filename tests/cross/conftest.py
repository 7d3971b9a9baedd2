"""The comparison that the tests and the campaign share: one program on the compiled array and on the simulator.

Independent sources: values from numpy integer or sequential float32 arithmetic written here; cycles from the compiled
Verilog.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from bitwright.arch import machine as machines
from bitwright.arch import pe
from bitwright.arch.array_timing import cycles
from bitwright.arch.dram_port import DramPort
from bitwright.arch.program import Load, Program, Store, Token
from bitwright.rtl.bench.program_runner import ProgramRun, run_program
from bitwright.sim import engine
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm

FREE = DramPort(mbytes_per_s=6400, clock_khz=250_000, latency_cycles=0)


def unhindered(program: Program) -> Program:
    """The same program as the bench runs it: operands always there, and always room for results.

    Transfers have no bytes, and no block waits for a slot of the output buffer: the array has no such buffer. (In the
    machine, a third short block does wait until the first one's results have drained.)
    """
    loads = tuple(Load(item.tensor, 0, item.waits, item.signals) for item in program.loads)
    executes = tuple(
        replace(item, waits=tuple(token for token in item.waits if token is not Token.OUT_FREE))
        for item in program.executes
    )
    stores = tuple(Store(0, item.waits, ()) for item in program.stores)
    return Program(program.m, program.k, program.n, loads, executes, stores)


def operands(pe_name: str, m: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Activations [m, k], weights [n, k], and the weights' format."""
    random = np.random.default_rng(m * 10_000 + k * 100 + n)
    if pe_name == "fp16-mac":
        act = random.normal(size=(m, k)).astype(np.float16)
        return act, random.normal(size=(n, k)).astype(np.float16), "fp16"
    act = random.integers(-128, 128, size=(m, k))
    if pe_name == "int8-mac":
        return act, random.integers(-128, 128, size=(n, k)), "int8"
    return act, random.integers(-8, 8, size=(n, k)), "int4"


def expected_float(tiles: list, act: np.ndarray, wgt: np.ndarray, m: int, n: int) -> np.ndarray:
    """Sequential float32 inside a pass, passes added in order: written with scalar steps over k only."""
    total = np.zeros((m, n), dtype=np.float32)
    for tile in tiles:
        part = np.zeros((tile.m, tile.n), dtype=np.float32)
        for step in range(tile.k0, tile.k0 + tile.k):
            rows = act[tile.m0 : tile.m0 + tile.m, step].astype(np.float32)
            cols = wgt[tile.n0 : tile.n0 + tile.n, step].astype(np.float32)
            part = part + rows[:, None] * cols[None, :]
        total[tile.m0 : tile.m0 + tile.m, tile.n0 : tile.n0 + tile.n] += part
    return total


def require_values(run: ProgramRun, act: np.ndarray, wgt: np.ndarray, group: int | None) -> None:
    """Every sum of the run: exact integers for each group of the reduction, or the bits of float32."""
    (m, k), n = act.shape, len(wgt)
    if act.dtype == np.float16:
        want = expected_float(run.tiles, act, wgt, m, n)
        assert np.array_equal(run.sums(m, n, [k])[0].view(np.uint32), want.view(np.uint32))
        return
    ends = [min(k, start + group) for start in range(0, k, group)] if group else [k]
    starts = [0, *ends[:-1]]
    for sums, start, end in zip(run.sums(m, n, ends), starts, ends, strict=True):
        assert np.array_equal(sums, act[:, start:end] @ wgt[:, start:end].T)


class Comparison:
    """Runs programs on both sides, requires equal values and cycles, and remembers the cycles."""

    def __init__(self) -> None:
        self.started = perf_counter()
        self.cycles: list[tuple[int, int]] = []  # (RTL, simulator) of each program

    def require_equal(self, machine_name: str, sizes: tuple[int, int, int], group: int) -> None:
        """One matrix product M, K, N on a machine; `group` is the reduction group where weights are int4."""
        m, k, n = sizes
        name, _, load = machine_name.partition("+")
        machine = machines.with_changes(machines.load(name), buffers_kib="256,256,256")
        if load:  # int8-4x4-ws+2: two rows of weights a cycle; +2single: into single registers
            ways = {"load_rows": int(load.removesuffix("single")), "double_buffered": not load.endswith("single")}
            machine = machine.model_copy(update={"array": machine.array.model_copy(update=ways)})
        act, wgt, weight_format = operands(machine.pe, m, k, n)
        cut = group if weight_format == "int4" else None
        program = mapping.compile_gemm(machine, Gemm("g", "ffn", m, k, n, 1, weight_format, cut), FREE)
        array, shape = machine.array, mapping.array_shape(machine, weight_format)
        measured = run_program(
            pe.get(machine.pe), array.rows, array.cols, array.dataflow.value, program, act, wgt, load=array.load
        )
        closed_form = cycles(shape, (item for execute in program.executes for item in execute.passes()))
        simulated = engine.run(unhindered(program), shape, FREE, edge_latency_cycles=0).cycles
        self.cycles.append((measured.cycles, simulated))
        assert (measured.cycles, simulated) == (closed_form, closed_form)
        require_values(measured, act, wgt, cut)

    def record(self, what: str, record_property: Any) -> None:
        """Report the figures of all programs so far; the difference must be 0."""
        largest = max(abs(measured - simulated) for measured, simulated in self.cycles)
        record_property(
            "figure",
            f"{what}, RTL against simulator: {len(self.cycles)} programs, {sum(rtl for rtl, _ in self.cycles):,} "
            f"cycles, largest difference {largest}, {perf_counter() - self.started:.0f} s",
        )
        assert largest == 0


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison()
