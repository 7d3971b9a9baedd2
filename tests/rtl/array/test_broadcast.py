# amaranth: UnusedElaboratable=no
"""The broadcast tile's compiled Verilog: every result bit and every cycle number, with and without stalls."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.array_timing import IDLE, step
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.pe import StreamSpec, broadcast
from bitwright.rtl.array.broadcast import BroadcastTile, tile_verilog
from bitwright.rtl.bench import broadcast_runner
from bitwright.rtl.bench.broadcast_runner import TileRun, TileWork, golden, run_tiles
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.verilator import Compiled, lint

# PE, parameters, rows, columns.
TILES: list[tuple[str, dict[str, Any], int, int]] = [
    ("outlier-victim", {}, 1, 1),
    ("outlier-victim", {}, 3, 5),
    ("outlier-victim", {"lanes": 4, "normal": "flint4", "pipeline": 1}, 4, 4),
    ("outlier-victim", {"lanes": 6, "pipeline": 3}, 5, 2),
    ("lut", {}, 2, 8),
    ("lut", {"weight_bits": 8, "variant": "unpu", "pipeline": 3}, 4, 4),
    ("lut", {"k": 3, "weight_bits": 3, "variant": "reinterpretation", "pipeline": 1}, 5, 3),
    ("lut", {"k": 2, "weight_bits": 1, "variant": "no-negation", "pipeline": 2}, 3, 2),
]
Program = list[tuple[int, int, int]]
"""(m, k, mode) of each tile."""


def spec_of(name: str, params: dict[str, Any], rows: int, cols: int) -> StreamSpec:
    return broadcast.tile_spec(name, rows, cols, params)


def modes(spec: StreamSpec) -> list[int]:
    """0: a PE of one mode."""
    tile = broadcast.family(spec)
    if tile.mode_field is None:
        return [0]
    return [0, 1] if tile.mode_field.name == "wide" else list(range(spec.params["weight_bits"]))


def edge_programs(spec: StreamSpec, rows: int) -> list[Program]:
    """Single tiles and sequences at the ends: one step, short last steps, as many steps as rows, more and fewer."""
    lanes = broadcast.family(spec).lanes
    depths = (1, lanes - 1, lanes, lanes + 1, rows * lanes, 3 * rows * lanes + 1)
    tokens = sorted({1, max(1, rows - 1), rows})
    few = [modes(spec)[0], modes(spec)[-1]]
    singles = [[(m, k, mode)] for m in tokens for k in depths for mode in few]
    sequences = [
        [(1, 1, mode)] * 6 + [(rows, 1, mode)] * 5 + [(1, lanes, mode)] * 4 + [(rows, lanes * rows, mode)] * 3
        for mode in few
    ]
    return [*singles, *sequences, [(m, k, mode) for k in depths for mode in few for m in tokens]]


def random_program(spec: StreamSpec, rows: int, seed: int, count: int) -> Program:
    draw = np.random.default_rng(seed)
    lanes = broadcast.family(spec).lanes
    depths = [1, lanes, *draw.integers(1, 4 * lanes, 3).tolist(), int(draw.integers(1, 3 * rows * lanes + 2))]
    tokens = [1, rows, *draw.integers(1, rows + 1, 2).tolist()]
    return [tuple(int(draw.choice(item)) for item in (tokens, depths, modes(spec))) for _ in range(count)]  # type: ignore[misc]


def random_programs(spec: StreamSpec, rows: int) -> dict[int, Program]:
    return {seed: random_program(spec, rows, seed, 25) for seed in (100, 101, 102)}


def stalled_programs(spec: StreamSpec, rows: int) -> dict[int, Program]:
    return {seed: random_program(spec, rows, seed, 12) for seed in range(200, 206)}


def works_of(spec: StreamSpec, cols: int, program: Program, seed: int) -> list[TileWork]:
    """Random operands, corners among them."""
    draw = np.random.default_rng(seed)
    tile = broadcast.family(spec)
    corners = {name: np.array(spec.corners()[name]) for name in ("act", "wgt")}
    low, high = (-128, 128) if tile.whole else (0, 256)

    def codes(name: str, shape: tuple[int, int], low: int, high: int) -> Any:
        own = draw.choice(corners[name], shape)
        return np.where(draw.random(shape) < 0.4, own, draw.integers(low, high, shape))

    return [
        TileWork(codes("act", (k, m), low, high), codes("wgt", (k, cols), 0, 1 << tile.code_bits), mode)
        for m, k, mode in program
    ]


def schedule(spec: StreamSpec, program: Program) -> list[tuple[list[int], list[int]]]:
    """The timing contract by brute force, cycle by cycle: of each tile the accepted beats and the vectors shown."""
    lanes, latency = broadcast.family(spec).lanes, spec.timing.latency_cycles
    found: list[tuple[list[int], list[int]]] = []
    cycle, busy = 0, -1  # the drain registers show their last vector in cycle `busy`
    for m, k, mode in program:
        accepted: list[int] = []
        left = k
        while left > 0:
            taken = cycle + mode
            if left > lanes or taken + latency >= busy:  # sums on offer while the last vector is shown move in after it
                accepted.append(taken)
                left -= lanes
                cycle = taken + 1
            else:
                cycle += 1
        offer = accepted[-1] + latency
        found.append((accepted, [offer + 1 + row for row in range(m)]))
        busy = offer + m
    return found


def run_and_check(spec: StreamSpec, rows: int, cols: int, program: Program, seed: int, **options: int) -> list[TileRun]:
    works = works_of(spec, cols, program, seed)
    runs = run_tiles(spec, rows, cols, works, power_up_seed=seed + 1, **options)
    for index, (work, found) in enumerate(zip(works, runs, strict=True)):
        psum, act_sum = golden(spec, work)
        where = f"{spec.module_stem} {rows}x{cols}, seed {seed}, {options}, tile {index} of {program}"
        np.testing.assert_array_equal(found.psum, psum, err_msg=where)
        assert (found.act_sum is None) == (act_sum is None)
        if act_sum is not None:
            np.testing.assert_array_equal(found.act_sum, act_sum, err_msg=where)
    return runs


def check_cycles(spec: StreamSpec, rows: int, program: Program, runs: list[TileRun], where: str) -> None:
    """The brute-force schedule, and `array_timing`'s step for every tile."""
    assert [(run.accepted, run.shown) for run in runs] == schedule(spec, program), where
    tile, state = BroadcastTile(spec, rows, spec.params.get("n", 1)), IDLE
    for (m, k, mode), run in zip(program, runs, strict=True):
        before = state
        state, start, finish = step(tile.shape(mode), state, 0, m, k)
        assert start == before.stream_free, where
        if len(run.accepted) > 1:
            assert run.accepted[0] == start + mode, where
        assert (run.accepted[-1], run.shown[-1]) == (state.stream_free - 1, finish), where


def test_evidence_states_what_the_tests_below_compare() -> None:
    tiles = [
        (m, cols)
        for name, params, rows, cols in TILES
        for spec in [spec_of(name, params, rows, cols)]
        for program in (
            *edge_programs(spec, rows),
            *random_programs(spec, rows).values(),
            *stalled_programs(spec, rows).values(),
        )
        for m, _, _ in program
    ]
    evidence = BroadcastTile.evidence[0]
    assert (f" {len(tiles):,} tiles " in evidence.claim, evidence.cases) == (True, sum(m * cols for m, cols in tiles))


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_edge_shapes_give_exact_values_in_the_contract_cycles(
    name: str, params: dict[str, Any], rows: int, cols: int
) -> None:
    spec = spec_of(name, params, rows, cols)
    for seed, program in enumerate(edge_programs(spec, rows)):
        runs = run_and_check(spec, rows, cols, program, seed)
        check_cycles(spec, rows, program, runs, f"seed {seed}, {program}")


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_random_tile_sequences_give_exact_values_in_the_contract_cycles(
    name: str, params: dict[str, Any], rows: int, cols: int
) -> None:
    spec = spec_of(name, params, rows, cols)
    for seed, program in random_programs(spec, rows).items():
        runs = run_and_check(spec, rows, cols, program, seed)
        check_cycles(spec, rows, program, runs, f"seed {seed}, {program}")


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_random_stalls_change_no_value_and_break_no_timing_rule(
    name: str, params: dict[str, Any], rows: int, cols: int
) -> None:
    spec = spec_of(name, params, rows, cols)
    for seed, program in stalled_programs(spec, rows).items():
        runs = run_and_check(spec, rows, cols, program, seed, stall_seed=seed)
        for index, ((m, _, mode), run) in enumerate(zip(program, runs, strict=True)):
            at = f"seed {seed}, tile {index} of {program}"
            last = run.accepted[-1]
            beats = np.diff([*(runs[index - 1].accepted[-1:] if index else [-1]), *run.accepted])
            assert (beats >= mode + 1).all(), at
            assert run.shown == [last + spec.timing.latency_cycles + 1 + row for row in range(m)], at
            assert not index or last >= runs[index - 1].accepted[-1] + program[index - 1][0], at


def test_noise_before_the_reset_reaches_no_output() -> None:
    """A reset in mid step, in mid drain, with tokens on their way: what follows is as after power-up."""
    for name, params, rows, cols in (TILES[3], TILES[5]):
        spec = spec_of(name, params, rows, cols)
        for seed in range(1, 26):
            program = random_program(spec, rows, seed, 4)
            runs = run_and_check(spec, rows, cols, program, seed, noise_cycles=40 + seed)
            check_cycles(spec, rows, program, runs, f"seed {seed}")


def with_outputs(text: str, top: str, wires: list[str]) -> str:
    """Verilog with some of the top module's wires as outputs."""
    head, body = text.split(f"module {top}(", 1)
    for wire in wires:
        body, count = re.subn(rf"^  wire (.*){wire} ?;$", rf"  output \1{wire};\n\g<0>", body, flags=re.MULTILINE)
        assert count == 1, wire
    return f"{head}module {top}({', '.join(wires)}, {body}"


@pytest.mark.parametrize(("m", "k"), [(1, 6), (2, 4), (3, 11), (2, 3)])
def test_lanes_without_an_operand_are_zero_in_every_cycle(m: int, k: int) -> None:
    """All data is ones. Whether beats are on offer or not, what is beyond k or m enters no PE."""
    tile, cycles = BroadcastTile(pe.stream("outlier-victim", lanes=4), 3, 2), 60
    wires = [f"act_{row}_{lane}" for row in range(3) for lane in range(4)]
    wires += [f"wgt_{col}_{lane}" for col in range(2) for lane in range(4)]
    design = Compiled(with_outputs(tile_verilog(tile), tile.module_name, wires), tile.module_name, optimise="-O0")
    draw = np.random.default_rng(m * k)
    inputs: dict[str, Any] = {name: draw.integers(0, 2, cycles) for name in ("tile_valid", "wgt_valid", "act_valid")}
    inputs |= {"tile_m": m, "tile_k": k, "wgt_data": -1, "act_data": np.full((1, 3), 0xFFFFFFFF, np.uint32)}
    with design.open(random_state=True) as simulation:
        simulation.reset()
        seen = simulation.run(inputs, cycles)
    element = 0
    for cycle in range(cycles):
        for wire in wires:
            name, place, lane = wire.split("_")
            here = element + int(lane) < k and (name == "wgt" or int(place) < m)
            assert seen[wire][cycle] == (255 if here else 0), (cycle, wire)
        if seen["wgt_ready"][cycle] and inputs["wgt_valid"][cycle]:
            element = 0 if seen["tile_ready"][cycle] else element + 4
    assert seen["tile_ready"].any()


def test_longest_tile() -> None:
    spec = pe.stream("outlier-victim")
    program = [(1, 1, 0), (2, 65535, 1), (1, 1, 0)]
    check_cycles(spec, 2, program, run_and_check(spec, 2, 2, program, 1), "longest")


@pytest.mark.parametrize(("name", "params", "rows", "cols"), TILES)
def test_ports_modules_and_names(name: str, params: dict[str, Any], rows: int, cols: int) -> None:
    spec = spec_of(name, params, rows, cols)
    tile, lanes = BroadcastTile(spec, rows, cols), broadcast.family(spec).lanes
    text = tile_verilog(tile)
    assert text == tile_verilog(BroadcastTile(spec, rows, cols))
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [tile.module_name, spec.module_stem]
    assert len(re.findall(rf"^  {spec.module_stem} ", text, re.MULTILINE)) == (1 if name == "lut" else rows * cols)
    wgt_bits = spec.params["weight_bits"] if name == "lut" else 8
    want = {
        "tile_valid": 1, "tile_ready": 1, "tile_m": 16, "tile_k": 16, "wgt_valid": 1, "wgt_ready": 1,
        "wgt_data": lanes * cols * wgt_bits, "act_valid": 1, "act_ready": 1, "act_data": lanes * rows * 8,
        "psum_valid": 1, "psum_data": cols * spec.psum.bits, "psum_last": 1, "rst": 1,
    }  # fmt: skip
    if name == "outlier-victim":
        want |= {"wide": 1}
    else:
        want |= {"act_sum": spec.psum.bits}
        want |= {"top_plane": (wgt_bits - 1).bit_length()} if wgt_bits > 1 else {}
    assert {port.name: port.bits for port in ports_of(text, tile.module_name)} == want
    assert lint(text, tile.module_name) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("assign psum_valid = ", "assign psum_valid = 1'h0 & "), r"outlier_victim_\w+: 0 result vectors, expected 3"),
        (("assign psum_last = ", "assign psum_last = ~"), r"outlier_victim_\w+: psum_last is wrong on result vector 0"),
    ],
)
def test_missing_and_unmarked_results_are_noticed(
    change: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pe.stream("outlier-victim")
    tile = BroadcastTile(spec, 2, 2)
    text = tile_verilog(tile)
    assert text.count(change[0]) == 1
    broken = Compiled(text.replace(*change), tile.module_name, optimise="-O0")
    monkeypatch.setattr(broadcast_runner, "compiled_tile", lambda *_: broken)
    with pytest.raises(MismatchError, match=f"^{message}$"):
        run_tiles(spec, 2, 2, works_of(spec, 2, [(2, 3, 0), (1, 2, 1)], 1))


@pytest.mark.parametrize(
    ("rows", "cols", "message"),
    [
        (0, 4, "array.rows = 0: must be in 1..256"),
        (4, 257, "array.cols = 257: must be in 1..256"),
        (3, 4, "lut m, n = 4, 4: must be the tile's 3, 4"),
    ],
)
def test_sizes_that_are_refused(rows: int, cols: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BroadcastTile(pe.stream("lut", m=4, n=4, precompute=True), rows, cols)
    assert str(caught.value) == message
