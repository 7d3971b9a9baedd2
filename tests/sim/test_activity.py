"""Counts of what works, against a walk over every tile."""

from __future__ import annotations

import hypothesis.strategies as st
from bitwright.arch import machine as machines
from bitwright.arch.dram_port import DramPort
from bitwright.sim import activity
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from hypothesis import given, settings


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["int8-4x4-ws", "int8-4x4-os", "shift-add-3x5-ws", "shift-add-8x2-os"]),
    st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 24)),
    st.sampled_from([8, 12]),
    st.sampled_from(["1,1,1", "64,64,64"]),
)
def test_counts_equal_a_walk_over_the_tiles(name: str, sizes: tuple[int, int, int], group: int, buffers: str) -> None:
    machine = machines.with_changes(machines.load(name), buffers_kib=buffers)
    work = Gemm("g", "ffn", *sizes, 1, "int4", group)
    program = mapping.compile_gemm(machine, work, DramPort(6400, 250_000, 0))
    stationary = machine.array.dataflow.value == "ws"
    counted = activity.count(program, stationary, machine.array.cols, machine.physical_cols, group)
    walked = activity.Activity()
    for execute in program.executes:
        for tile in execute.tiles(machine.array.cols):
            group_done = tile.k0 + tile.k == work.k or (tile.k0 + tile.k) % group == 0
            walked += activity.Activity(
                active_cell_cycles=tile.m * tile.k * machine.physical_cols,
                act_words=tile.m if stationary else tile.k,
                wgt_words=tile.k,
                out_reads=tile.m if tile.k0 else 0,
                out_writes=tile.m,
                group_results=tile.m * tile.n * group_done,
                partial_sums=tile.m * tile.n * (not group_done),
                border_weights=tile.k * tile.n,
            )
    assert counted == walked
    assert counted.group_results == work.m * work.n * -(-work.k // group)
