"""The timing contract: hand-worked pipelines, and the periodic shortcut against one pass at a time."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from bitwright.arch.array_timing import IDLE, ArrayShape, Pass, PassRun, cycles, run_passes, step
from hypothesis import given, settings

WS = ArrayShape(rows=4, physical_cols=3, weight_stationary=True)
OS = ArrayShape(rows=4, physical_cols=3, weight_stationary=False)


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
    ("m", "k", "period"),
    [(4, 9, 9), (4, 7, 7), (4, 6, 7), (1, 1, 1), (3, 2, 5)],
)
def test_output_stationary_passes_repeat_every_longer_of_reduction_and_drain(m: int, k: int, period: int) -> None:
    assert cycles(OS, [Pass(m, k)] * 41) - cycles(OS, [Pass(m, k)] * 40) == period


def test_no_pass_takes_no_cycle() -> None:
    assert cycles(WS, []) == 0


@st.composite
def pass_patterns(draw: st.DrawFn) -> tuple[ArrayShape, list[PassRun], int, int]:
    shape = ArrayShape(draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.booleans()))
    m_limit, k_limit = (40, shape.rows) if shape.weight_stationary else (shape.rows, 40)
    run = st.builds(PassRun, st.integers(1, m_limit), st.integers(1, k_limit), st.integers(1, 30))
    pattern = draw(st.lists(run, min_size=1, max_size=4))
    return shape, pattern, draw(st.integers(1, 30)), draw(st.integers(0, 50))


@settings(max_examples=400, deadline=None)
@given(pass_patterns())
def test_periodic_shortcut_equals_one_pass_at_a_time(
    case: tuple[ArrayShape, list[PassRun], int, int],
) -> None:
    shape, pattern, times, ready = case
    state, first, finish, weights_done = IDLE, None, 0, 0
    for _ in range(times):
        for run in pattern:
            for _ in range(run.count):
                state, start, finish = step(shape, state, ready, run.m, run.k)
                first = start if first is None else first
                weights_done = start + run.k
    timing = run_passes(shape, IDLE, ready, pattern, times)
    assert (timing.state, timing.first, timing.finish) == (state, first, finish)
    assert timing.weights_done == (weights_done if shape.weight_stationary else state.stream_free)
