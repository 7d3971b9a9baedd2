"""The timing contract: hand-worked pipelines, and the periodic shortcut against one pass at a time."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from bitwright.arch.array_timing import (
    IDLE,
    ArrayShape,
    ArrayState,
    BroadcastShape,
    Pass,
    PassRun,
    Shape,
    WeightLoad,
    cycles,
    run_passes,
    step,
)
from hypothesis import given, settings

WS = ArrayShape(rows=4, physical_cols=3, weight_stationary=True)
OS = ArrayShape(rows=4, physical_cols=3, weight_stationary=False)
TILE = BroadcastShape(rows=4, lanes=4, step_cycles=2, latency=3)


def test_one_weight_stationary_pass_costs_load_head_rows_and_skew() -> None:
    # Weight row 0 in cycle 0, activations in 1..5, the last leaves 4 + 3 - 1 cycles later in cycle 11: 12 cycles.
    assert cycles(WS, [Pass(m=5, k=4)]) == 12


def test_one_output_stationary_pass_costs_reduction_skew_and_drain() -> None:
    # Elements in 0..6, row 0 drains from 6 + 2 + 2 on, the second row one cycle later in cycle 11: 12 cycles.
    assert cycles(OS, [Pass(m=2, k=7)]) == 12


@pytest.mark.parametrize(
    ("m", "k", "period"),
    [(8, 4, 8), (1, 4, 4), (4, 4, 4), (2, 1, 2)],
)
def test_weight_stationary_passes_repeat_every_longer_of_stream_and_load(m: int, k: int, period: int) -> None:
    assert cycles(WS, [Pass(m, k)] * 41) - cycles(WS, [Pass(m, k)] * 40) == period


@pytest.mark.parametrize(
    ("load", "m", "k", "period"),
    [
        (WeightLoad(2), 1, 4, 2),
        (WeightLoad(2), 1, 3, 2),
        (WeightLoad(4), 1, 4, 1),
        (WeightLoad(4), 3, 4, 3),
        (WeightLoad(1, double_buffered=False), 1, 4, 4),
        (WeightLoad(1, double_buffered=False), 8, 4, 8),
        (WeightLoad(4, double_buffered=False), 1, 4, 1),
    ],
)
def test_weight_stationary_passes_repeat_as_weights_come(load: WeightLoad, m: int, k: int, period: int) -> None:
    shape = ArrayShape(4, 3, True, load)
    assert cycles(shape, [Pass(m, k)] * 41) - cycles(shape, [Pass(m, k)] * 40) == period


def test_single_weights_wait_for_the_stream() -> None:
    # Passes of 1 and 9 vectors with 4 rows of weights each: loads 0..3 and 4..7; the third pass loads from 4 + 1 on
    # beside the stream in 5..13, or in its last cycle, and streams after it at once.
    for double, third in ((True, 8), (False, 13)):
        shape, state = ArrayShape(4, 3, True, WeightLoad(1, double)), IDLE
        for m, load in ((1, 0), (9, 4), (1, third)):
            state, start, _ = step(shape, state, 0, m, 4)
            assert start == load


@pytest.mark.parametrize(
    ("m", "k", "period"),
    [(4, 9, 9), (4, 7, 7), (4, 6, 7), (1, 1, 1), (3, 2, 5)],
)
def test_output_stationary_passes_repeat_every_longer_of_reduction_and_drain(m: int, k: int, period: int) -> None:
    assert cycles(OS, [Pass(m, k)] * 41) - cycles(OS, [Pass(m, k)] * 40) == period


def test_one_broadcast_pass_costs_its_steps_the_pes_latency_and_the_drain() -> None:
    # 3 steps of 2 cycles in 0..5, the sums on offer in 5 + 3, rows out in 9 and 10: 11 cycles.
    assert cycles(TILE, [Pass(m=2, k=9)]) == 11


@pytest.mark.parametrize(
    ("m", "k", "period"),
    [(4, 13, 8), (4, 12, 6), (4, 5, 4), (4, 4, 4), (1, 4, 2), (3, 1, 3)],
)
def test_broadcast_passes_repeat_every_longer_of_steps_and_drain(m: int, k: int, period: int) -> None:
    assert cycles(TILE, [Pass(m, k)] * 41) - cycles(TILE, [Pass(m, k)] * 40) == period


def test_only_the_last_step_of_a_broadcast_pass_waits_for_the_drain() -> None:
    # The first pass ends in 1 and fills the drain registers until 1 + 4; the second has 2 of its 4 cycles before.
    state, start, _ = step(TILE, IDLE, 0, 4, 4)
    assert (start, state) == (0, ArrayState(2, 2, 5))
    assert step(TILE, state, 0, 1, 8)[1:] == (2, 5 + 3 + 1)
    assert step(TILE, state, 0, 1, 4)[1:] == (2, 5 + 3 + 1)
    assert step(TILE, state, 0, 1, 12)[1:] == (2, 7 + 3 + 1)


def test_no_pass_takes_no_cycle() -> None:
    assert cycles(WS, []) == 0


@st.composite
def pass_patterns(draw: st.DrawFn) -> tuple[Shape, list[PassRun], int, int]:
    small = st.integers(1, 12)
    loads = st.builds(WeightLoad, st.integers(1, 5), st.booleans())
    systolic = st.builds(ArrayShape, small, small, st.booleans(), loads)
    shape = draw(st.one_of(systolic, st.builds(BroadcastShape, small, small, st.integers(1, 8), st.integers(1, 4))))
    m_limit, k_limit = (40, shape.rows) if shape.weight_stationary else (shape.rows, 40)
    run = st.builds(PassRun, st.integers(1, m_limit), st.integers(1, k_limit), st.integers(1, 30))
    pattern = draw(st.lists(run, min_size=1, max_size=4))
    return shape, pattern, draw(st.integers(1, 30)), draw(st.integers(0, 50))


@settings(max_examples=400, deadline=None)
@given(pass_patterns())
def test_periodic_shortcut_equals_one_pass_at_a_time(
    case: tuple[Shape, list[PassRun], int, int],
) -> None:
    shape, pattern, times, ready = case
    state, first, finish, weights_done = IDLE, None, 0, 0
    for _ in range(times):
        for run in pattern:
            for _ in range(run.count):
                state, start, finish = step(shape, state, ready, run.m, run.k)
                first = start if first is None else first
                weights_done = start + -(-run.k // (shape.load.rows if isinstance(shape, ArrayShape) else 1))
    timing = run_passes(shape, IDLE, ready, pattern, times)
    assert (timing.state, timing.first, timing.finish) == (state, first, finish)
    assert timing.weights_done == (weights_done if shape.weight_stationary else state.stream_free)
