# amaranth: UnusedElaboratable=no
"""BitMoD's tile as compiled Verilog: every scaled sum bit for bit, and every cycle number, with and without stalls."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bitwright.arch.array_timing import IDLE, step
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.fp16_mac import canonical
from bitwright.arch.pe.terms import Encoding
from bitwright.rtl.array.bit_serial_tile import BitSerialTile, specials_value
from bitwright.rtl.array.broadcast import tile_verilog
from bitwright.rtl.bench.broadcast_runner import TileRun, TileWork, run_tiles
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.verilator import lint

TERMS = {Encoding.INT8: 4, Encoding.INT6: 3, Encoding.INT5: 3, Encoding.FP4: 2, Encoding.FP3: 2}
SPECIALS = ((5.0, -5.0, 8.0, -8.0), (3.0, -3.0, 6.0, -6.0), (7.0, 0.0, -3.5, 12.0))
# acc_bits, pipeline, rows, columns: fewer and more rows than a scale has bits.
TILES = [(16, 0, 3, 5), (24, 1, 2, 2), (18, 0, 11, 1)]
Program = list[tuple[int, int, Encoding]]
"""(m, k, encoding) of each tile."""


def edge_program(rows: int) -> Program:
    """One step, short last steps, dot products of fewer cycles than the scale and of as many."""
    depths = (1, 3, 4, 5, 8, 12, 13, 16, 17, 33)
    return [(m, k, encoding) for encoding in Encoding for k in depths for m in sorted({1, rows})]


def random_program(rows: int, seed: int, count: int) -> Program:
    draw = np.random.default_rng(seed)
    tokens, depths = [1, rows, int(draw.integers(1, rows + 1))], [1, 4, *draw.integers(1, 60, 3).tolist()]
    return [
        (int(draw.choice(tokens)), int(draw.choice(depths)), Encoding(int(draw.integers(0, 5)))) for _ in range(count)
    ]


def programs(rows: int) -> dict[int, Program]:
    return {0: edge_program(rows), **{seed: random_program(rows, seed, 40) for seed in (1, 2)}}


def stalled(rows: int) -> dict[int, Program]:
    return {seed: random_program(rows, seed, 20) for seed in range(10, 14)}


def acts_of(draw: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """fp16 bits of any kind, often of like sizes, now and then infinite or NaN."""
    bits = draw.integers(0, 1 << 16, shape)
    bits = np.where(bits & 0x7C00 == 0x7C00, bits & 0x83FF, bits)  # finite
    close = bits & 0x83FF | draw.integers(12, 18, shape) << 10
    found = np.where(draw.random() < 0.6, close, bits)
    return np.where(draw.random(shape) < 0.002, draw.choice([0x7C00, 0xFC00, 0x7E01], shape), found)


def works_of(cols: int, program: Program, seed: int) -> tuple[list[TileWork], list[tuple[float, ...]]]:
    draw = np.random.default_rng(seed)
    works, specials = [], []
    for m, k, encoding in program:
        specials.append(SPECIALS[draw.integers(0, len(SPECIALS))])
        scale = np.where(draw.random(cols) < 0.3, draw.choice([0, 1, 128, 255], cols), draw.integers(0, 256, cols))
        par = scale | draw.integers(0, 4, cols) << 8
        codes = draw.integers(0, 256, (k, cols))
        works.append(TileWork(acts_of(draw, (k, m)), codes, int(encoding), specials_value(specials[-1]), par))
    return works, specials


def golden(spec: BitSerial, work: TileWork, specials: tuple[float, ...]) -> np.ndarray:
    """fp32 bits [m, cols]; zero is +0."""
    assert work.par is not None
    shape = work.m, work.wgt.shape[1], work.k
    act = np.broadcast_to(work.act.T.astype(np.uint16).view(np.float16)[:, np.newaxis], shape)
    options: dict[str, Any] = {"encoding": Encoding(work.mode), "selector": work.par >> 8, "specials": specials}
    sums = spec.group_sum(act, np.broadcast_to(work.wgt.T, shape), **options)
    return (canonical(spec.scaled(sums, work.par & 255)) + np.float32(0)).view(np.uint32)


def run_and_check(spec: BitSerial, rows: int, cols: int, program: Program, seed: int, **options: int) -> list[TileRun]:
    works, specials = works_of(cols, program, seed)
    runs = run_tiles(spec, rows, cols, works, power_up_seed=seed + 1, **options)
    for index, (work, special, found) in enumerate(zip(works, specials, runs, strict=True)):
        where = f"{spec.module_stem} {rows}x{cols}, seed {seed}, {options}, tile {index} of {program}"
        want = golden(spec, work, special)
        np.testing.assert_array_equal(found.psum & 0xFFFFFFFF, want, err_msg=where)
    return runs


def schedule(spec: BitSerial, program: Program) -> list[tuple[list[int], list[int]]]:
    """The timing contract by brute force: of each tile the accepted beats and the vectors shown.

    A group's scale takes its cells 8 cycles from the one after its last term; drain registers take a row a cycle.
    """
    latency = 13 + spec.pipeline
    found: list[tuple[list[int], list[int]]] = []
    cycle, scaled, drained = 0, -1, -1
    for m, k, encoding in program:
        accepted: list[int] = []
        left = k
        while left > 0:
            taken = cycle + TERMS[encoding] - 1
            if left <= 4 and (taken < scaled or taken + latency < drained):
                cycle += 1
                continue
            accepted.append(taken)
            left, cycle = left - 4, taken + 1
        offer = accepted[-1] + latency
        found.append((accepted, [offer + 1 + row for row in range(m)]))
        scaled, drained = accepted[-1] + 8, offer + m
    return found


@pytest.mark.parametrize(("acc_bits", "pipeline", "rows", "cols"), TILES)
def test_values_are_exact_in_the_contract_cycles(acc_bits: int, pipeline: int, rows: int, cols: int) -> None:
    spec = BitSerial(acc_bits, pipeline)
    tile = BitSerialTile(spec, rows, cols)
    for seed, program in programs(rows).items():
        runs = run_and_check(spec, rows, cols, program, seed)
        assert [(run.accepted, run.shown) for run in runs] == schedule(spec, program), seed
        state = IDLE
        for (m, k, encoding), run in zip(program, runs, strict=True):
            state, _, finish = step(tile.shape(int(encoding)), state, 0, m, k)
            assert (run.accepted[-1], run.shown[-1]) == (state.stream_free - 1, finish), seed


@pytest.mark.parametrize(("acc_bits", "pipeline", "rows", "cols"), TILES)
def test_random_stalls_change_no_value_and_break_no_timing_rule(
    acc_bits: int, pipeline: int, rows: int, cols: int
) -> None:
    spec = BitSerial(acc_bits, pipeline)
    for seed, program in stalled(rows).items():
        runs = run_and_check(spec, rows, cols, program, seed, stall_seed=seed)
        for index, ((m, _, encoding), run) in enumerate(zip(program, runs, strict=True)):
            last = run.accepted[-1]
            before = runs[index - 1].accepted[-1] if index else -1
            assert (np.diff([before, *run.accepted]) >= TERMS[encoding]).all(), (seed, index)
            assert run.shown == [last + 13 + pipeline + 1 + row for row in range(m)], (seed, index)
            assert not index or last >= before + max(program[index - 1][0], 8), (seed, index)


def test_noise_before_the_reset_reaches_no_output() -> None:
    """A reset in mid step, in mid scale, in mid drain: what follows is as after power-up."""
    spec = BitSerial()
    for seed in range(1, 13):
        program = random_program(3, seed, 4)
        runs = run_and_check(spec, 3, 5, program, seed, noise_cycles=40 + seed)
        assert [(run.accepted, run.shown) for run in runs] == schedule(spec, program), seed


def test_ports_modules_and_names() -> None:
    tile = BitSerialTile(BitSerial(), 3, 5)
    text = tile_verilog(tile)
    assert text == tile_verilog(BitSerialTile(BitSerial(), 3, 5))
    names = ["bit_serial_l4_fp16_a16_tile_3x5", "bit_serial_l4_fp16_a16_cell", "bit_serial_column_encoder"]
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == names
    counts = [len(re.findall(rf"^  {name} ", text, re.MULTILINE)) for name in names]
    assert counts == [0, 15, 5], "a cell a place, an encoder a column"
    assert {port.name: port.bits for port in ports_of(text, tile.module_name)} == {
        "tile_valid": 1, "tile_ready": 1, "tile_m": 16, "tile_k": 16, "encoding": 3, "specials": 28, "wgt_valid": 1,
        "wgt_ready": 1, "wgt_data": 4 * 5 * 8, "par_data": 50, "act_valid": 1, "act_ready": 1, "act_data": 4 * 3 * 16,
        "psum_valid": 1, "psum_data": 5 * 32, "psum_last": 1, "rst": 1,
    }  # fmt: skip
    assert lint(text, tile.module_name) == []


def test_evidence_states_what_the_tests_above_compare() -> None:
    sums = sum(
        m * cols
        for _, _, rows, cols in TILES
        for program in (*programs(rows).values(), *stalled(rows).values())
        for m, _, _ in program
    )
    assert BitSerialTile.evidence[0].cases == sums
