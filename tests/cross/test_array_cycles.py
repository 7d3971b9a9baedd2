"""Array RTL on Verilator against the simulator: the same programs, every value, and a cycle difference of 0.

Independent sources: values from numpy integer or sequential float32 arithmetic written here; cycles from the compiled
Verilog. 84 programs: 14 shapes on 6 arrays (3 PEs, both dataflows, square and not).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bitwright.arch import machine as machines
from bitwright.arch import pe
from bitwright.arch.array_timing import cycles
from bitwright.arch.dram_port import DramPort
from bitwright.arch.program import Load, Program, Store
from bitwright.rtl.bench.program_runner import run_program
from bitwright.sim import engine
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm

ARRAYS = ["int8-4x4-ws", "int8-4x4-os", "shift-add-8x5-ws", "shift-add-8x5-os", "fp16-3x4-ws", "fp16-3x4-os"]

# M, K, N: one-row decode shapes, edges that no array divides, single elements, several groups with a short last one.
SHAPES = [
    (1, 1, 1), (1, 64, 16), (1, 37, 9), (1, 100, 33), (4, 4, 4), (8, 8, 8), (5, 7, 3), (16, 16, 16), (13, 29, 11),
    (2, 72, 6), (31, 5, 17), (9, 90, 2), (33, 24, 10), (7, 150, 7),
]  # fmt: skip
GROUP = 24
FREE = DramPort(mbytes_per_s=6400, clock_khz=250_000, latency_cycles=0)

differences: list[int] = []


def without_traffic(program: Program) -> Program:
    """The same program with transfers of no bytes: operands are always there."""
    loads = tuple(Load(item.tensor, 0, item.waits, item.signals) for item in program.loads)
    stores = tuple(Store(0, item.waits, item.signals) for item in program.stores)
    return Program(program.m, program.k, program.n, loads, program.executes, stores)


def operands(name: str, m: int, k: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    random = np.random.default_rng(seed)
    if name.startswith("fp16"):
        act = random.normal(size=(m, k)).astype(np.float16)
        return act, random.normal(size=(n, k)).astype(np.float16), "fp16"
    act = random.integers(-128, 128, size=(m, k))
    if name.startswith("int8"):
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


@pytest.mark.parametrize("sizes", SHAPES, ids=lambda sizes: "x".join(map(str, sizes)))
@pytest.mark.parametrize("name", ARRAYS)
def test_array_cycles_and_values_equal_the_simulator(name: str, sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    machine = machines.with_changes(machines.load(name), buffers_kib="256,256,256")
    act, wgt, weight_format = operands(name, m, k, n, seed=m * 10_000 + k * 100 + n)
    group = GROUP if weight_format == "int4" else None
    program = mapping.compile_gemm(machine, Gemm("g", "ffn", m, k, n, 1, weight_format, group, "int8"), FREE)
    array, spec = machine.array, pe.get(machine.pe)
    measured = run_program(spec, array.rows, array.cols, array.dataflow.value, program, act, wgt)

    shape = mapping.array_shape(machine)
    closed_form = cycles(shape, (item for execute in program.executes for item in execute.passes()))
    simulated = engine.run(without_traffic(program), shape, FREE, edge_latency_cycles=0).cycles
    differences.append(measured.cycles - simulated)
    assert (measured.cycles, simulated) == (closed_form, closed_form)

    if weight_format == "fp16":
        assert np.array_equal(
            measured.sums(m, n, [k])[0].view(np.uint32), expected_float(measured.tiles, act, wgt, m, n).view(np.uint32)
        )
        return
    cuts = [min(k, (index + 1) * GROUP) for index in range(-(-k // GROUP))] if group else [k]
    sums = measured.sums(m, n, cuts)
    for index, cut in enumerate(cuts):
        start = cuts[index - 1] if index else 0
        assert np.array_equal(sums[index], act[:, start:cut] @ wgt[:, start:cut].T)


def test_largest_difference_is_printed(record_property: Callable[[str, object], None]) -> None:
    if not differences:
        pytest.skip("runs after the shapes above, in one process")
    largest = max(map(abs, differences))
    record_property(
        "figure", f"array cycles, RTL against simulator: {len(differences)} programs, largest difference {largest}"
    )
    assert largest == 0
