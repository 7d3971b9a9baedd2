# amaranth: UnusedElaboratable=no
"""Asynchronous columns as compiled Verilog: every sum bit for bit, and every cycle number, with and without stalls.

Independent sources: sums by numpy's integer product; cycles by columns stepped one by one, digits counted here.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bitwright.arch.array_timing import IDLE, run_counted
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import broadcast
from bitwright.arch.pe.asynchronous import AsynchronousFamily
from bitwright.arch.pe.base import PESpec
from bitwright.rtl.array.asynchronous import AsynchronousTile
from bitwright.rtl.array.broadcast import tile_verilog
from bitwright.rtl.bench.broadcast_runner import TileRun, TileWork, run_tiles
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.verilator import lint

LANES = 8
NO_ADDERS = "resolve_cycles = 0: a tile has no adders outside its PEs (must be in 1..4)"
TILES: list[tuple[str, dict[str, Any], int, int]] = [
    ("opt3", {}, 3, 5),
    ("opt3", {"encoding": "mbe", "pipeline": 2, "resolve_cycles": 1, "psum_bits": 24}, 1, 2),
    ("opt4c", {}, 4, 3),
    ("opt4c", {"encoding": "mbe", "pipeline": 1, "resolve_cycles": 4, "psum_bits": 30}, 13, 1),
]
Shapes = list[tuple[int, int]]
"""(m, k) of each tile."""


def digits_of(code: int, encoding: str) -> int:
    """Nonzero digits, from the definition in the text of the paper's encodings; at least 1."""
    count = 0
    if encoding == "mbe":
        bits = (code & 255) << 1
        count = sum((bits >> 2 * place) & 7 not in (0, 7) for place in range(4))
    else:
        left = abs(code)
        while left:
            digit = left & 3
            left = (left >> 2) + (digit == 3)
            count += digit != 0
    return max(count, 1)


def works_of(rows: int, cols: int, shapes: Shapes, seed: int) -> list[TileWork]:
    """Weights of all kinds: dense, sparse, zero; columns that finish early and late."""
    draw, works = np.random.default_rng(seed), []
    for m, k in shapes:
        wgt = draw.integers(-128, 128, (k, cols))
        wgt = np.where(draw.random(cols) < 0.3, draw.choice([0, 1, -128, 64], (k, cols)), wgt)
        wgt = wgt * (draw.random((k, cols)) >= draw.choice([0, 0.2, 0.9]))
        act = draw.choice([-128, 127, 0, 1], (k, m)) if draw.random() < 0.2 else draw.integers(-128, 128, (k, m))
        works.append(TileWork(act, wgt, 0))
    return works


def random_shapes(rows: int, seed: int, count: int = 40) -> Shapes:
    draw = np.random.default_rng(seed)
    depths = [1, 1, 2, LANES - 1, LANES, LANES + 1, *draw.integers(1, 5 * LANES, 4).tolist()]
    return [(int(draw.choice([1, rows, draw.integers(1, rows + 1)])), int(draw.choice(depths))) for _ in range(count)]


def schedule(spec: PESpec, works: list[TileWork]) -> list[tuple[list[int], list[int]]]:
    """Columns cycle by cycle: of each tile the cycles of accepted beats and of vectors shown."""
    latency = 1 + spec.params["pipeline"] + spec.params["resolve_cycles"]
    found: list[tuple[list[int], list[int]]] = []
    cycle, free = 0, -1  # drain registers take the next sums from cycle `free` on
    for work in works:
        accepted = []
        for start in range(0, work.k, LANES):
            elements = work.wgt[start : start + LANES]
            left = [[digits_of(int(code), spec.params["encoding"]) for code in column] for column in elements.T]
            while True:
                for column in left:
                    if column:
                        column[0] -= 1
                        if not column[0]:
                            column.pop(0)
                cycle += 1
                ends = start + LANES >= work.k
                if not any(left) and not (ends and cycle - 1 + latency < free):
                    accepted.append(cycle - 1)
                    break
        offer = accepted[-1] + latency
        found.append((accepted, [offer + 1 + row for row in range(work.m)]))
        free = offer + work.m
    return found


def run_and_check(spec: PESpec, rows: int, cols: int, works: list[TileWork], **options: int) -> list[TileRun]:
    runs = run_tiles(spec, rows, cols, works, **options)
    for index, (work, found) in enumerate(zip(works, runs, strict=True)):
        want = work.act.T @ work.wgt
        np.testing.assert_array_equal(found.psum, want, err_msg=f"{spec.name}, {options}, tile {index}")
    return runs


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_values_are_exact_in_the_cycles_of_the_codes(name: str, params: dict[str, Any], rows: int, cols: int) -> None:
    spec = broadcast.tile_spec(name, rows, cols, params)
    family = broadcast.family(spec)
    assert isinstance(family, AsynchronousFamily)
    shape = AsynchronousTile(spec, rows, cols).shape(0)
    for seed in range(6):
        works = works_of(rows, cols, random_shapes(rows, seed), seed)
        runs = run_and_check(spec, rows, cols, works, power_up_seed=seed + 1)
        assert [(run.accepted, run.shown) for run in runs] == schedule(spec, works), seed
        state = IDLE
        for work, run in zip(works, runs, strict=True):
            cycles = family.code_cycles(work.wgt & 255, "int8").sum()
            state, finish = run_counted(shape, state, 0, work.m, [int(cycles)])
            assert (run.accepted[-1], run.shown[-1]) == (state.stream_free - 1, finish), seed


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_every_weight_takes_its_digits(name: str, params: dict[str, Any], rows: int, cols: int) -> None:
    """Columns of one weight each, every weight in turn."""
    spec = broadcast.tile_spec(name, rows, cols, params)
    codes = np.resize(np.arange(-128, 128), (-(-256 // cols), cols))
    works = [TileWork(np.full((1, rows), -128), row[np.newaxis], 0) for row in codes]
    runs = run_and_check(spec, rows, cols, works)
    assert [(run.accepted, run.shown) for run in runs] == schedule(spec, works)


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_random_stalls_change_no_value(name: str, params: dict[str, Any], rows: int, cols: int) -> None:
    spec = broadcast.tile_spec(name, rows, cols, params)
    for seed in range(20, 23):
        works = works_of(rows, cols, random_shapes(rows, seed, 20), seed)
        runs = run_and_check(spec, rows, cols, works, stall_seed=seed)
        before = -1
        for work, run, (accepted, shown) in zip(works, runs, schedule(spec, works), strict=True):
            assert [cycle - run.accepted[-1] for cycle in run.shown] == [cycle - accepted[-1] for cycle in shown]
            cycles = broadcast.family(spec).code_cycles(work.wgt & 255, "int8")
            assert (np.diff([before, *run.accepted]) >= cycles).all(), seed
            before = run.accepted[-1]


def test_noise_before_the_reset_reaches_no_output() -> None:
    for name, params, rows, cols in TILES[::2]:
        spec = broadcast.tile_spec(name, rows, cols, params)
        for seed in range(1, 7):
            works = works_of(rows, cols, random_shapes(rows, seed, 4), seed)
            runs = run_and_check(spec, rows, cols, works, power_up_seed=seed, noise_cycles=40 + seed)
            assert [(run.accepted, run.shown) for run in runs] == schedule(spec, works), seed


def test_ports_modules_and_names() -> None:
    for name, module, places in (("opt3", "opt3_ent_p32_r2_s0", 12), ("opt4c", "opt4c_r4_ent_p32_r2_s0", 3)):
        spec = broadcast.tile_spec(name, 4, 3, {})
        tile = AsynchronousTile(spec, 4, 3)
        text = tile_verilog(tile)
        assert text == tile_verilog(AsynchronousTile(spec, 4, 3))
        assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [f"{module}_tile_4x3", module]
        assert len(re.findall(rf"^  {module} ", text, re.MULTILINE)) == places
        assert {port.name: port.bits for port in ports_of(text, tile.module_name)} == {
            "tile_valid": 1, "tile_ready": 1, "tile_m": 16, "tile_k": 16, "wgt_valid": 1, "wgt_ready": 1,
            "wgt_data": 8 * 3 * 8, "act_valid": 1, "act_ready": 1, "act_data": 8 * 4 * 8, "psum_valid": 1,
            "psum_data": 3 * 32, "psum_last": 1, "rst": 1,
        }  # fmt: skip
        assert lint(text, tile.module_name) == []


def test_evidence_states_what_the_tests_above_compare() -> None:
    tiles = [
        (m, cols)
        for _, _, rows, cols in TILES
        for shapes in (
            *(random_shapes(rows, seed) for seed in range(6)),
            *(random_shapes(rows, seed, 20) for seed in range(20, 23)),
            [(rows, 1)] * -(-256 // cols),
        )
        for m, _ in shapes
    ]
    evidence = AsynchronousTile.evidence[0]
    assert (f" {len(tiles):,} tiles " in evidence.claim, evidence.cases) == (True, sum(m * cols for m, cols in tiles))


@pytest.mark.parametrize(
    ("name", "rows", "params", "message"),
    [
        ("opt3", 4, {"resolve_cycles": 0}, f"opt3.{NO_ADDERS}"),
        ("opt4c", 4, {"resolve_cycles": 0}, f"opt4c.{NO_ADDERS}"),
        ("opt4c", 4, {"encoder": False}, "opt4c.encoder = false: a tile has an encoder in each column (leave it out)"),
        ("opt4c", 4, {"rows": 4}, "opt4c.rows: is the tile's rows (leave it out)"),
        ("opt4c", 33, {}, "array.rows = 33: must be at most 32, the rows of a column of opt4c"),
    ],
)  # fmt: skip
def test_refused(name: str, rows: int, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        broadcast.tile_spec(name, rows, 4, params)
    assert str(caught.value) == message
