"""The controller: its traces are legal, each timing is reached exactly, and runs equal bursts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bitwright.arch import dram
from bitwright.arch.dram import Command, Device, Kind, Timing
from bitwright.sim.dram import Channel, ReferenceChannel, Run
from channel_cases import RUNS, devices, in_time
from hypothesis import given, settings


@settings(max_examples=400, deadline=None)
@given(device=devices(), runs=RUNS)
def test_a_run_equals_its_bursts_in_every_clock_and_count(device: Device, runs: list[Run]) -> None:
    bursts, whole = ReferenceChannel(device), Channel(device)
    for run in in_time(runs):
        assert whole.serve(run) == bursts.serve(run)
        assert whole.counts == bursts.counts


@settings(max_examples=60, deadline=None)
@given(device=devices(), runs=RUNS)
def test_every_trace_is_legal_and_no_refresh_is_late_by_an_interval(device: Device, runs: list[Run]) -> None:
    channel = ReferenceChannel(device)
    for run in in_time(runs):
        channel.serve(run._replace(bursts=min(run.bursts, 60)))
    assert dram.violations(channel.trace, device) == []
    refreshes = [command.clock for command in channel.trace if command.kind is Kind.REFRESH]
    for number, clock in enumerate(refreshes, start=1):
        assert number * device.timing.refi <= clock < (number + 1) * device.timing.refi


def test_a_long_run_over_many_refreshes_equals_its_bursts() -> None:
    for name in dram.names():
        device = dram.load(name).device
        bursts, whole = ReferenceChannel(device), Channel(device)
        for run in (Run(12345, 11_000, False, 7), Run(3, 4_000, True, 50_000), Run(23_345, 5, False, 50_001)):
            assert whole.serve(run) == bursts.serve(run), name
        assert whole.counts == bursts.counts


SMALL = Timing(
    read_latency=4,
    write_latency=3,
    burst=2,
    rcd_read=3,
    rcd_write=3,
    rp=3,
    ras=5,
    rc=8,
    rtp=2,
    wr=2,
    ccd_s=2,
    ccd_l=3,
    rrd_s=2,
    rrd_l=2,
    faw=4,
    wtr_s=1,
    wtr_l=1,
    rtw=3,
    ppd=1,
    refi=6000,
    rfc=200,
)
_DATA_END = SMALL.write_latency + SMALL.burst
REACHED: list[tuple[str, int, str, str, str, int]] = [
    # timing, its value, earlier, later, what both have in common, clocks from the one to the other
    ("rcd_read", 30, "ACT", "RD", "bank", 30),
    ("rcd_write", 30, "ACT", "WR", "bank", 30),
    ("rp", 30, "PRE", "ACT", "bank", 30),
    ("ras", 40, "ACT", "PRE", "bank", 40),
    ("rc", 50, "ACT", "ACT", "bank", 50),
    ("rtp", 30, "RD", "PRE", "bank", 30),
    ("wr", 30, "WR", "PRE", "bank", _DATA_END + 30),
    ("ccd_s", 6, "RD", "RD", "any", 6),
    ("ccd_l", 4, "RD", "RD", "group", 4),
    ("rrd_s", 20, "ACT", "ACT", "any", 20),
    ("rrd_l", 20, "ACT", "ACT", "group", 20),
    ("wtr_s", 20, "WR", "RD", "any", _DATA_END + 20),
    ("wtr_l", 20, "WR", "RD", "group", _DATA_END + 20),
    ("rtw", 20, "RD", "WR", "any", 20),
    ("ppd", 9, "PRE", "PRE", "any", 9),
    ("rfc", 300, "REF", "ACT", "any", 300),
]


def _least(trace: list[Command], earlier: str, later: str, scope: str) -> int:
    def common(one: Command, two: Command) -> bool:
        return scope == "any" or (one.group == two.group and (scope == "group" or one.bank == two.bank))

    return min(
        two.clock - one.clock
        for i, one in enumerate(trace)
        for two in trace[i + 1 :]
        if (one.kind, two.kind) == (earlier, later) and common(one, two)
    )


def _busy_trace(timing: Timing) -> list[Command]:
    device = Device(2, 4, 1 << 16, 64 * 4, 64, timing)
    channel = ReferenceChannel(device)
    for step in range(60):
        burst = (step * step * 7 + step // 3) % 160 * (1 + step % 2)
        channel.serve(Run(burst, 1 + step % 5 * (step % 3), step % 4 == 1, 0 if step < 50 else timing.refi - 40 + step))
    assert dram.violations(channel.trace, device) == []
    return channel.trace


@pytest.mark.parametrize(("name", "value", "earlier", "later", "scope", "clocks"), REACHED, ids=[r[0] for r in REACHED])
def test_the_controller_waits_for_each_timing_and_no_longer(
    name: str, value: int, earlier: str, later: str, scope: str, clocks: int
) -> None:
    others = {"rrd_l": max(SMALL.rrd_l, value)} if name == "rrd_s" else {}
    others |= {"ccd_l": 6} if name == "ccd_s" else {}
    trace = _busy_trace(replace(SMALL, **{name: value}, **others))
    assert _least(trace, earlier, later, scope) == clocks


def test_the_controller_waits_for_four_activates_and_no_longer() -> None:
    trace = _busy_trace(replace(SMALL, faw=60))
    activates = [command.clock for command in trace if command.kind is Kind.ACTIVATE]
    assert min(fifth - first for first, fifth in zip(activates, activates[4:], strict=False)) == 60


def test_worked_example_of_one_row() -> None:
    """By hand: ACT at 5 and 7, RD at 8 and 10; data of the last until 10 + 4 + 2."""
    channel = ReferenceChannel(Device(2, 4, 16, 256, 64, SMALL))
    assert channel.serve(Run(0, 2, False, 5)) == (5, 16)
    assert channel.trace == [
        Command(5, Kind.ACTIVATE, 0, 0, 0),
        Command(7, Kind.ACTIVATE, 1, 0, 0),
        Command(8, Kind.READ, 0, 0, 0),
        Command(10, Kind.READ, 1, 0, 0),
    ]
