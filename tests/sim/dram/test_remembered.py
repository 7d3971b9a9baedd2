"""Channels that look up what they did before, against the controller burst by burst."""

from __future__ import annotations

import pytest
from bitwright.arch import dram
from bitwright.arch.dram import Device
from bitwright.sim.dram import Counts, ReferenceChannel, Run
from bitwright.sim.dram import remembered as remembering
from bitwright.sim.dram.remembered import Known, RememberedChannel, known
from channel_cases import RUNS, devices, in_time
from hypothesis import event, given, settings
from hypothesis import strategies as st


@st.composite
def periods(draw: st.DrawFn) -> list[Run]:
    """A few runs over and over, each time some rows further and some clocks later, as programs make them."""
    offsets = st.one_of(st.integers(0, 8), st.integers(0, 300))
    runs = st.builds(
        Run, first=offsets, bursts=st.one_of(st.integers(1, 6), st.integers(1, 200)), write=st.booleans(),
        now=st.sampled_from([0, 0, 0, 1, 17, 80, 700, 25_000]),
    )  # fmt: skip
    period = draw(st.lists(runs, min_size=1, max_size=4))
    moves = draw(st.lists(st.sampled_from([0, 1 << 12]), min_size=len(period), max_size=len(period)))
    repeated = [
        run._replace(first=run.first + time * move)
        for time in range(draw(st.integers(2, 12)))
        for run, move in zip(period, moves, strict=True)
    ]
    return in_time(repeated)


def equals_its_bursts(device: Device, what_is_known: Known, runs: list[Run]) -> None:
    bursts, whole = ReferenceChannel(device), RememberedChannel(what_is_known)
    for run in runs:
        assert whole.serve(run) == bursts.serve(run)
        assert whole.counts == bursts.counts


@settings(max_examples=150, deadline=None)
@given(device=devices(), runs=RUNS)
def test_a_run_equals_its_bursts_the_first_time_and_again(device: Device, runs: list[Run]) -> None:
    shared = Known(device)
    for _ in range(2):
        equals_its_bursts(device, shared, in_time(runs))


@settings(max_examples=150, deadline=None)
@given(device=devices(), runs=periods())
def test_repeated_runs_equal_their_bursts(device: Device, runs: list[Run]) -> None:
    shared = Known(device)
    equals_its_bursts(device, shared, runs)
    event("some remembered" if shared.outcomes < len(runs) else "none")


@settings(max_examples=100, deadline=None)
@given(data=st.data(), device=devices(), first=RUNS, second=RUNS)
def test_what_is_known_from_one_history_holds_in_another(
    data: st.DataObject, device: Device, first: list[Run], second: list[Run]
) -> None:
    """Runs of two histories in turn, so that outcomes come from the other's situations."""
    shared, far = Known(device), data.draw(st.integers(0, 3)) * 100_003
    equals_its_bursts(device, shared, in_time(first))
    equals_its_bursts(device, shared, in_time([first[0]._replace(now=far), *first[1:], *second]))
    equals_its_bursts(device, shared, in_time([*second, *first]))


def test_a_steady_stream_is_looked_up() -> None:
    device = dram.load("hbm2e").device
    shared = Known(device)
    runs = [Run(512 * index, 512, False, 2048 * index) for index in range(300)]
    equals_its_bursts(device, shared, runs)
    assert 0 < shared.outcomes < len(runs) / 3


def test_a_copy_goes_its_own_way() -> None:
    first = RememberedChannel(known(dram.load("hbm3").device))
    first.serve(Run(0, 50, False, 0))
    second = first.copy()
    assert first.same_state(second)
    first.serve(Run(700, 3, True, 10))
    assert not first.same_state(second)
    assert second.counts == Counts(reads=50, hits=46, closed=4)
    second.serve(Run(700, 3, True, 10))
    assert first.same_state(second)


def test_when_too_much_is_known_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that grows, idle excepted; runs are as before, and states that are equal stay so."""
    monkeypatch.setattr(remembering, "_MOST", 20)
    device = dram.load("ddr4-3200-x64").device
    shared = Known(device)
    idle, runs = shared.idle, [Run(97 * index, 1 + index % 9, index % 3 == 0, 50 * index) for index in range(200)]
    for first in range(0, 200, 20):
        equals_its_bursts(device, shared, runs[first : first + 20])
        assert len(shared._situations) + len(shared._reaches) + shared.outcomes <= 21
        assert len(shared._rested) <= len(shared._situations)
        assert shared.outcomes >= sum(len(each.outcomes) for each in shared._situations.values())
        assert shared.idle is idle is shared.situation(idle.binding)
    one = RememberedChannel(shared)
    one.serve(runs[0])
    monkeypatch.setattr(remembering, "_MOST", 0)
    other = RememberedChannel(shared)
    other.serve(runs[0])
    assert one.same_state(other)
