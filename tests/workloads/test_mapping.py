"""The mapper: every multiply-add once, within the buffers, groups never straddled by a pass."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from bitwright.arch import machine as machines
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Machine
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from bitwright.workloads.tiling import Tiling, reduction_slices
from hypothesis import given, settings

PORT = DramPort(6400, 250_000, 0)


def gemm(m: int, k: int, n: int, weights: str = "int4", group: int | None = 64) -> Gemm:
    return Gemm("g", "ffn", m, k, n, 1, weights, group)


@pytest.mark.parametrize(
    ("k0", "k", "group", "longest", "expected"),
    [
        (0, 10, None, None, [10]),
        (0, 10, None, 4, [4, 4, 2]),
        (0, 10, 4, None, [4, 4, 2]),
        (0, 10, 4, 3, [3, 1, 3, 1, 2]),
        (6, 10, 4, None, [2, 4, 4]),
        (0, 576, 128, None, [128, 128, 128, 128, 64]),
    ],
)
def test_reduction_is_cut_at_groups_and_at_the_longest_pass(
    k0: int, k: int, group: int | None, longest: int | None, expected: list[int]
) -> None:
    assert reduction_slices(k0, k, group, longest) == expected


def covered(machine: Machine, work: Gemm) -> np.ndarray:
    """How often each (m, k, n) is multiplied by the program's tiles; every tile must keep the array's limits."""
    program = mapping.compile_gemm(machine, work, PORT)
    program.check()
    count = np.zeros((work.m, work.k, work.n), dtype=int)
    rows, cols = machine.array.rows, machine.array.cols
    for execute in program.executes:
        tiles = list(execute.tiles(cols))
        assert [(tile.m, tile.k) for tile in tiles] == [(item.m, item.k) for item in execute.passes()]
        for tile in tiles:
            assert tile.n <= cols
            assert (tile.k if machine.array.dataflow.value == "ws" else tile.m) <= rows
            if work.group:
                last = tile.k0 + tile.k - 1
                assert tile.k0 // work.group == last // work.group, "a pass straddles a group"
            region = np.s_[tile.m0 : tile.m0 + tile.m, tile.k0 : tile.k0 + tile.k, tile.n0 : tile.n0 + tile.n]
            count[region] += 1
    return count


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["int8-4x4-ws", "int8-4x4-os", "shift-add-3x5-ws", "shift-add-8x2-os", "fp16-4x8-ws"]),
    st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 24)),
    st.sampled_from([8, 16, None]),
    st.sampled_from(["1,1,1", "2,1,2", "64,64,64"]),
)
def test_every_product_is_made_exactly_once(
    name: str, sizes: tuple[int, int, int], group: int | None, buffers: str
) -> None:
    machine = machines.with_changes(machines.load(name), buffers_kib=buffers)
    weights = {"int8": "int8", "shif": "int4", "fp16": "fp16"}[name[:4]]
    group = (group or 16) if weights == "int4" else None if weights == "fp16" else group
    assert (covered(machine, gemm(*sizes, weights, group)) == 1).all()


def test_blocks_fit_their_slots() -> None:
    machine = machines.with_changes(machines.load("int8-16x16-ws"), buffers_kib="16,16,16")
    work = gemm(128, 576, 1536, "int8", None)
    program = mapping.compile_gemm(machine, work, PORT)
    for load in program.loads:
        assert load.size_bytes <= machine.buffers.slot_bytes(load.tensor)
    for execute in program.executes:
        assert execute.m * execute.n * mapping.OUTPUT_BYTES <= machine.buffers.slot_bytes("out")


def test_operand_in_its_slot_is_not_loaded_again() -> None:
    machine = machines.load("int8-16x16-ws")
    program = mapping.emit(machine, gemm(32, 64, 64, "int8", None), Tiling(16, 64, 16, weights_outer=True))
    assert [load.tensor for load in program.loads].count("wgt") == 4
    assert [load.tensor for load in program.loads].count("act") == 8


def test_buffer_too_small_for_one_tile_says_how_large_it_must_be() -> None:
    machine = machines.with_changes(machines.load("int8-16x16-ws"), buffers_kib="16,0.25,16")
    with pytest.raises(ConfigError) as caught:
        mapping.compile_gemm(machine, gemm(1, 576, 576, "int8", None), PORT)
    assert str(caught.value) == (
        "buffers.wgt_kib = 0.25: one tile of 'g' (1 x 16 x 16) needs 288 bytes and a slot (half the buffer) holds 128; "
        "make it at least 1 KiB; machine int8-16x16-ws"
    )


def test_refused_format_names_the_reason() -> None:
    with pytest.raises(ConfigError) as caught:
        mapping.compile_gemm(machines.load("shift-add-8x8"), gemm(1, 64, 64, "int8", None), PORT)
    assert str(caught.value) == (
        "weights = int8: PE shift-add cannot take it (int8 codes are not integers of at most 4 bits); "
        "machine shift-add-8x8, operator g"
    )
