"""The array's compiled Verilog: every output bit and every cycle number, with and without stalls."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.array_timing import ONE_ROW, ArrayShape, Pass, WeightLoad, cycles
from bitwright.rtl.array import SystolicArray
from bitwright.rtl.bench.array_golden import (
    bits_of,
    expected,
    expected_act_sum,
    random_operands,
    random_passes,
)
from bitwright.rtl.bench.array_runner import ArrayRun, PassEvents, run_passes
from bitwright.rtl.pe.cells import SingleWeightCell

ARRAYS = [
    *(("int8-mac", rows, cols) for rows, cols in ((1, 1), (2, 2), (3, 5), (4, 4), (8, 8))),
    *(("shift-add", rows, cols) for rows, cols in ((3, 5), (4, 4))),
    *(("fp16-mac", rows, cols) for rows, cols in ((2, 2), (3, 5))),
]
DATAFLOWS = ("ws", "os")
LOADS = [
    ("int8-mac", 4, 3, WeightLoad(2)),
    ("int8-mac", 6, 2, WeightLoad(3)),
    ("int8-mac", 4, 4, WeightLoad(4, double_buffered=False)),
    ("shift-add", 4, 3, WeightLoad(2, double_buffered=False)),
    ("fp16-mac", 3, 2, WeightLoad(1, double_buffered=False)),
    ("fp16-mac", 2, 3, WeightLoad(2)),
]


def physical_cols(name: str, cols: int) -> int:
    return cols + pe.get(name).zero_point_column


def schedule(
    rows: int, width: int, dataflow: str, passes: list[tuple[int, int]], load: WeightLoad = ONE_ROW
) -> list[PassEvents]:
    """The timing contract by brute force: walks through the cycles, and takes a beat as soon as no rule forbids it."""
    return _walk_ws(rows, width, passes, load) if dataflow == "ws" else _walk_os(width, passes)


def _walk_ws(rows: int, width: int, passes: list[tuple[int, int]], load: WeightLoad) -> list[PassEvents]:
    tiles = len(passes)
    wgt: list[list[int]] = [[] for _ in passes]
    act: list[list[int]] = [[] for _ in passes]
    loading = streaming = cycle = 0
    while streaming < tiles or loading < tiles:
        if streaming < tiles and wgt[streaming] and wgt[streaming][0] < cycle:
            act[streaming].append(cycle)
        used = (
            0 if loading == 0 else len(act[loading - 1]) - (0 if load.double_buffered else passes[loading - 1][0] - 1)
        )
        if loading < tiles and (wgt[loading] or loading == 0 or used > 0):
            wgt[loading].append(cycle)
            loading += len(wgt[loading]) * load.rows >= passes[loading][1]
        streaming += streaming < tiles and len(act[streaming]) == passes[streaming][0]
        cycle += 1
    delay = rows + width - 1
    return [PassEvents(w[0], w[-1], a[0], a[-1], a[0] + delay, a[-1] + delay) for w, a in zip(wgt, act, strict=True)]


def _walk_os(width: int, passes: list[tuple[int, int]]) -> list[PassEvents]:
    events: list[PassEvents] = []
    free, drained = 0, 0
    for m, k in passes:
        start = free
        while start + k - 1 < drained:  # row 0 still shows the tile before
            start += 1
        end = start + k - 1
        shown = [end + m + row for row in range(m)]
        events.append(PassEvents(start, end, start, end, shown[0] + width - 1, shown[-1] + width - 1))
        free, drained = end + 1, shown[-1]
    return events


def run_and_check(
    name: str,
    rows: int,
    cols: int,
    dataflow: str,
    passes: list[tuple[int, int]],
    seed: int,
    stall_seed: int | None = None,
    load: WeightLoad = ONE_ROW,
) -> ArrayRun:
    """Run random operands and compare all values; returns the run for its cycle numbers."""
    spec = pe.get(name)
    rng = np.random.default_rng(seed)
    operands = [random_operands(spec, rng, m, k, cols) for m, k in passes]
    mode = {"wgt_unsigned": bool(seed % 2)} if spec.wgt.kind == "code" else {}
    run = run_passes(
        name,
        rows,
        cols,
        dataflow,
        passes,
        [wgt for wgt, _ in operands],
        [act for _, act in operands],
        stall_seed=stall_seed,
        power_up_seed=seed + 1,
        load=load,
        **mode,
    )
    for tile, (wgt, act) in enumerate(operands):
        want = bits_of(expected(spec, wgt, act, **mode))
        where = f"{name} {rows}x{cols} {dataflow} {load} seed {seed} stall_seed {stall_seed} tile {tile} of {passes}"
        np.testing.assert_array_equal(bits_of(run.outputs[tile]), want, err_msg=where)
        if spec.zero_point_column:
            assert run.act_sums is not None
            np.testing.assert_array_equal(run.act_sums[tile], expected_act_sum(spec, act, **mode), err_msg=where)
    assert (run.act_sums is not None) == spec.zero_point_column
    return run


def edge_programs(rows: int, dataflow: str) -> list[list[tuple[int, int]]]:
    """Single tiles and sequences at the ends of the legal ranges; (bounded, free) is (k, m) for ws, (m, k) for os."""
    free = (1, 2, rows - 1, rows, rows + 1, 2 * rows - 1, 2 * rows, 3 * rows)
    bounded = sorted({1, max(1, rows - 1), rows})
    singles = [[(b, f)] for b in bounded for f in free if f]
    sequences = [
        [(1, 1)] * 6,
        [(rows, 1)] * 5,
        [(1, rows)] * 5,
        [(rows, rows)] * 5,
        [(rows, 2 * rows)] * 3 + [(rows - 1 or 1, 2 * rows)],  # k tail, or m tail
        [(rows, 1), (1, 1), (rows, 3 * rows), (1, 2), (rows, 2 * rows - 2 or 1), (rows, 1)],
        [(b, f) for f in free if f for b in bounded],
    ]
    pairs = singles + sequences
    return [[(f, b) if dataflow == "ws" else (b, f) for b, f in program] for program in pairs]


def random_programs(rows: int, dataflow: str) -> dict[int, list[tuple[int, int]]]:
    """seed -> a long sequence of random tiles."""
    return {seed: random_passes(np.random.default_rng(seed), rows, dataflow, 30) for seed in range(100, 106)}


def stalled_programs(rows: int, dataflow: str) -> dict[int, list[tuple[int, int]]]:
    """seed -> a sequence of random tiles to run with random stalls."""
    return {seed: random_passes(np.random.default_rng(seed), rows, dataflow, 15) for seed in range(200, 212)}


def test_evidence_states_what_the_tests_below_compare() -> None:
    tiles = [
        (m, cols)
        for _, rows, cols in ARRAYS
        for dataflow in DATAFLOWS
        for passes in (
            *edge_programs(rows, dataflow),
            *random_programs(rows, dataflow).values(),
            *stalled_programs(rows, dataflow).values(),
        )
        for m, _ in passes
    ]
    evidence = SystolicArray.evidence[0]
    assert f" {len(tiles):,} tiles " in evidence.claim
    assert evidence.cases == sum(m * cols for m, cols in tiles)
    single = [(cols, rows) for _, rows, cols, load in LOADS if not load.double_buffered]
    assert SingleWeightCell.evidence[0].cases == sum(
        m * cols
        for cols, rows in single
        for passes in (
            *edge_programs(rows, "ws"),
            *random_programs(rows, "ws").values(),
            *stalled_programs(rows, "ws").values(),
        )
        for m, _ in passes
    )


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("name", "rows", "cols"), ARRAYS)
def test_edge_shapes_give_exact_values_in_the_contract_cycles(name: str, rows: int, cols: int, dataflow: str) -> None:
    for seed, passes in enumerate(edge_programs(rows, dataflow)):
        run = run_and_check(name, rows, cols, dataflow, passes, seed)
        want = schedule(rows, physical_cols(name, cols), dataflow, passes)
        assert run.events == want, f"seed {seed}, passes {passes}"
        assert run.cycles == want[-1].last_out + 1


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("name", "rows", "cols"), ARRAYS)
def test_random_tile_sequences_give_exact_values_in_the_contract_cycles(
    name: str, rows: int, cols: int, dataflow: str
) -> None:
    for seed, passes in random_programs(rows, dataflow).items():
        run = run_and_check(name, rows, cols, dataflow, passes, seed)
        want = schedule(rows, physical_cols(name, cols), dataflow, passes)
        assert run.events == want, f"seed {seed}, passes {passes}"
        assert run.cycles == want[-1].last_out + 1


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("name", "rows", "cols"), ARRAYS)
def test_random_stalls_change_no_value_and_break_no_timing_rule(name: str, rows: int, cols: int, dataflow: str) -> None:
    width = physical_cols(name, cols)
    for seed, passes in stalled_programs(rows, dataflow).items():
        run = run_and_check(name, rows, cols, dataflow, passes, seed, stall_seed=seed)
        check_rules(run, rows, width, dataflow, passes, f"seed {seed}")


@pytest.mark.parametrize(("name", "rows", "cols", "load"), LOADS)
def test_ways_to_load_weights_give_exact_values_in_the_contract_cycles(
    name: str, rows: int, cols: int, load: WeightLoad
) -> None:
    width = physical_cols(name, cols)
    programs = dict(enumerate(edge_programs(rows, "ws"))) | random_programs(rows, "ws")
    for seed, passes in programs.items():
        run = run_and_check(name, rows, cols, "ws", passes, seed, load=load)
        assert run.events == schedule(rows, width, "ws", passes, load), f"seed {seed}, passes {passes}"
        contract = cycles(ArrayShape(rows, width, True, load), (Pass(m, k) for m, k in passes))
        assert run.cycles == run.events[-1].last_out + 1 == contract
    for seed, passes in stalled_programs(rows, "ws").items():
        run = run_and_check(name, rows, cols, "ws", passes, seed, stall_seed=seed, load=load)
        check_rules(run, rows, width, "ws", passes, f"seed {seed}")


def check_rules(run: ArrayRun, rows: int, width: int, dataflow: str, passes: list[tuple[int, int]], where: str) -> None:
    """The contract's inequalities between tiles, and its exact delays from the accepted beats to the results."""
    for tile, ((m, _), event) in enumerate(zip(passes, run.events, strict=True)):
        at = f"{where}, tile {tile}"
        before = run.events[tile - 1] if tile else None
        if dataflow == "ws":
            assert event.first_act >= event.first_wgt + 1, at
            assert event.first_out == event.first_act + rows + width - 1, at
            assert event.last_out == event.last_act + rows + width - 1, at
            assert before is None or event.first_wgt >= max(before.last_wgt + 1, before.first_act), at
            assert before is None or event.first_act > before.last_act, at
        else:
            assert event.first_wgt == event.first_act, at
            assert event.first_out == event.last_act + m + width - 1, at
            assert event.last_out == event.first_out + m - 1, at
            assert before is None or event.last_act >= before.last_act + 2 * passes[tile - 1][0] - 1, at


def test_unstalled_stalling_source_equals_the_fast_one() -> None:
    passes = random_passes(np.random.default_rng(7), 4, "ws", 10)
    plain = run_and_check("int8-mac", 4, 4, "ws", passes, 7)
    runs = [run_and_check("int8-mac", 4, 4, "ws", passes, 7, stall_seed=seed) for seed in range(60)]
    assert min(run.cycles for run in runs) >= plain.cycles
    assert any(run.events != plain.events for run in runs)


@pytest.mark.parametrize(("dataflow", "shape"), [("ws", (65535, 2)), ("os", (2, 65535))])
def test_longest_tile(dataflow: str, shape: tuple[int, int]) -> None:
    passes = [(1, 1), shape, (1, 1)]
    run = run_and_check("int8-mac", 2, 2, dataflow, passes, 3)
    assert run.events == schedule(2, 2, dataflow, passes)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("power_up_seed", [1, 2, 3])
def test_unknown_power_up_state_reaches_no_output(dataflow: str, power_up_seed: int) -> None:
    spec = pe.get("fp16-mac")  # a NaN left in a register would stay one
    rng = np.random.default_rng(power_up_seed)
    wgt, act = random_operands(spec, rng, 1, 1, 2)
    run = run_passes("fp16-mac", 2, 2, dataflow, [(1, 1)], [np.abs(wgt)], [np.abs(act)], power_up_seed=power_up_seed)
    np.testing.assert_array_equal(bits_of(run.outputs[0]), bits_of(expected(spec, np.abs(wgt), np.abs(act))))
