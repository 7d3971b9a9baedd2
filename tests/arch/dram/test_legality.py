"""Every timing rule at n - 1 clocks (illegal, by that rule alone) and at n (legal); states; the refresh's due clock."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from bitwright.arch import dram
from bitwright.arch.dram import Command, Device, Kind, Timing, Violation, violations

ACT, PRE, PREA, RD, WR, REF = Kind
FREE = Timing(
    read_latency=1,
    write_latency=1,
    burst=1,
    rcd_read=1,
    rcd_write=1,
    rp=1,
    ras=1,
    rc=1,
    rtp=1,
    wr=1,
    ccd_s=1,
    ccd_l=1,
    rrd_s=1,
    rrd_l=1,
    faw=1,
    wtr_s=1,
    wtr_l=1,
    rtw=1,
    ppd=1,
    refi=1000,
    rfc=100,
)
"""Timings that hardly bind, so that in each case one rule alone decides."""
N = 20
OPEN = [Command(group * 2 + bank, ACT, group, bank, 7) for group in range(2) for bank in range(2)]
WRITTEN = FREE.write_latency + FREE.burst  # WR to the end of its data

CASES: list[tuple[str, dict[str, int], list[Command], Kind, tuple[int, int, int], int]] = [
    # rule, timings, commands before, the command judged and its place, clocks from the last command before it
    ("rcd_read", {"rcd_read": N}, [Command(0, ACT, 0, 0, 7)], RD, (0, 0, 7), N),
    ("rcd_write", {"rcd_write": N}, [Command(0, ACT, 0, 0, 7)], WR, (0, 0, 7), N),
    ("rp", {"rp": N}, [Command(0, ACT, 0, 0, 7), Command(9, PRE, 0, 0)], ACT, (0, 0, 8), N),
    ("rp", {"rp": N}, [Command(0, ACT, 0, 0, 7), Command(9, PREA)], ACT, (1, 1, 8), N),
    ("rp", {"rp": N}, [Command(0, ACT, 0, 0, 7), Command(9, PRE, 0, 0)], REF, (-1, -1, -1), N),
    ("ras", {"ras": N}, [Command(0, ACT, 0, 0, 7)], PRE, (0, 0, -1), N),
    ("ras", {"ras": N}, [Command(0, ACT, 0, 0, 7)], PREA, (-1, -1, -1), N),
    ("rc", {"rc": N}, [Command(0, ACT, 0, 0, 7), Command(4, PRE, 0, 0)], ACT, (0, 0, 8), N - 4),
    ("rc", {"rc": N}, [Command(0, ACT, 0, 0, 7), Command(4, PREA)], REF, (-1, -1, -1), N - 4),
    ("rtp", {"rtp": N}, [*OPEN, Command(9, RD, 0, 0, 7)], PRE, (0, 0, -1), N),
    ("rtp", {"rtp": N}, [*OPEN, Command(9, RD, 0, 0, 7)], PREA, (-1, -1, -1), N),
    ("wr", {"wr": N}, [*OPEN, Command(9, WR, 0, 0, 7)], PRE, (0, 0, -1), WRITTEN + N),
    ("wr", {"wr": N}, [*OPEN, Command(9, WR, 0, 0, 7)], PREA, (-1, -1, -1), WRITTEN + N),
    ("ccd_s", {"ccd_s": N, "ccd_l": N}, [*OPEN, Command(9, RD, 0, 0, 7)], RD, (1, 0, 7), N),
    ("ccd_s", {"ccd_s": N, "ccd_l": N}, [*OPEN, Command(9, WR, 0, 0, 7)], WR, (1, 0, 7), N),
    ("ccd_l", {"ccd_l": N}, [*OPEN, Command(9, RD, 0, 0, 7)], RD, (0, 1, 7), N),
    ("ccd_l", {"ccd_l": N}, [*OPEN, Command(9, WR, 0, 0, 7)], WR, (0, 0, 7), N),
    ("burst", {"burst": N}, [*OPEN, Command(9, RD, 0, 0, 7)], RD, (1, 0, 7), N),
    ("burst", {"burst": N}, [*OPEN, Command(9, WR, 0, 0, 7)], WR, (1, 0, 7), N),
    ("burst", {"burst": N, "read_latency": 9}, [*OPEN, Command(9, RD, 0, 0, 7)], WR, (1, 0, 7), 9 + N - 1),
    ("rrd_s", {"rrd_s": N, "rrd_l": N}, [Command(0, ACT, 0, 0, 7)], ACT, (1, 0, 7), N),
    ("rrd_l", {"rrd_l": N}, [Command(0, ACT, 0, 0, 7)], ACT, (0, 1, 7), N),
    ("faw", {"faw": N}, OPEN, ACT, (0, 2, 7), N - 3),
    ("wtr_s", {"wtr_s": N, "wtr_l": 1}, [*OPEN, Command(9, WR, 0, 0, 7)], RD, (1, 0, 7), WRITTEN + N),
    ("wtr_l", {"wtr_l": N}, [*OPEN, Command(9, WR, 0, 0, 7)], RD, (0, 1, 7), WRITTEN + N),
    ("rtw", {"rtw": N}, [*OPEN, Command(9, RD, 0, 0, 7)], WR, (1, 1, 7), N),
    ("ppd", {"ppd": N}, [*OPEN, Command(9, PRE, 0, 0)], PRE, (1, 0, -1), N),
    ("ppd", {"ppd": N}, [*OPEN, Command(9, PRE, 0, 0)], PREA, (-1, -1, -1), N),
    ("rfc", {"rfc": 120}, [Command(0, REF)], ACT, (0, 0, 7), 120),
    ("rfc", {"rfc": 120}, [Command(0, REF)], REF, (-1, -1, -1), 120),
    ("rfc", {"rfc": 120}, [Command(0, REF)], PREA, (-1, -1, -1), 120),
]


def _device(timings: dict[str, int]) -> Device:
    """Past Device's own rules, which would forbid a timing that stands out alone."""
    device = object.__new__(Device)
    for member in fields(Device):
        value = {"timing": replace(FREE, **timings)}.get(member.name, 4)
        object.__setattr__(device, member.name, value)
    return device


@pytest.mark.parametrize(("rule", "timings", "before", "kind", "place", "apart"), CASES)
def test_one_clock_less_is_illegal_and_the_timing_itself_legal(
    rule: str, timings: dict[str, int], before: list[Command], kind: Kind, place: tuple[int, int, int], apart: int
) -> None:
    device, last = _device(timings), before[-1].clock
    assert violations(before, device) == []
    assert violations([*before, Command(last + apart, kind, *place)], device) == []
    illegal = violations([*before, Command(last + apart - 1, kind, *place)], device)
    wanted = {"ccd_s": {"ccd_s"}, "rrd_s": {"rrd_s"}}.get(rule, {rule})
    assert {violation.rule for violation in illegal} == wanted
    assert all(violation.clocks == violation.needed - 1 and violation.number == len(before) for violation in illegal)


def test_every_timing_has_a_case() -> None:
    tested = {rule for rule, *_ in CASES} | {"refi", "read_latency", "write_latency"}
    assert tested >= {member.name for member in fields(Timing)}


def test_a_refresh_may_be_owed_for_eight_intervals_and_no_clock_more() -> None:
    device = _device({})
    assert violations([Command(9000, REF)], device) == []
    assert violations([Command(9001, REF)], device) == [Violation("refi", 0, -1, 9000, 9001)]
    assert violations([Command(1000, REF), Command(10000, ACT, 0, 0, 1)], device) == []
    late = [Command(1000, REF), Command(10001, ACT, 0, 0, 1)]
    assert violations(late, device) == [Violation("refi", 1, -1, 10000, 10001)]


@pytest.mark.parametrize("data", [RD, WR])
def test_data_needs_its_own_row_open(data: Kind) -> None:
    device = _device({})
    for before in ([], [Command(0, ACT, 0, 0, 7)], [Command(0, ACT, 0, 0, 8), Command(3, PRE, 0, 0)]):
        trace = [*before, Command(9, data, 0, 0, 8)]
        assert violations(trace, device) == [Violation("open", len(before), -1, 0, 0)]
    assert violations([Command(0, ACT, 0, 0, 8), Command(9, data, 0, 0, 8)], device) == []


def test_activate_and_refresh_need_closed_banks() -> None:
    device = _device({})
    opened = [Command(0, ACT, 1, 0, 7)]
    assert violations([*opened, Command(9, ACT, 1, 0, 8)], device) == [Violation("closed", 1, -1, 0, 0)]
    assert violations([*opened, Command(9, REF)], device) == [Violation("closed", 1, -1, 0, 0)]
    assert violations([*opened, Command(9, PREA), Command(12, REF)], device) == []


def test_clocks_must_not_fall() -> None:
    found = violations([Command(5, ACT, 0, 0, 1), Command(3, ACT, 1, 0, 1)], _device({}))
    assert [violation.rule for violation in found] == ["order", "rrd_s"]


@pytest.mark.parametrize("name", dram.names())
@pytest.mark.parametrize("field", ["rcd_read", "rcd_write", "ras"])
def test_presets_decide_by_their_own_clocks(name: str, field: str) -> None:
    device = dram.load(name).device
    kind = {"rcd_read": RD, "rcd_write": WR, "ras": PRE}[field]
    clocks = getattr(device.timing, field)
    trace = [Command(0, ACT, 0, 0, 7), Command(clocks - 1, kind, 0, 0, 7)]
    assert violations(trace, device) == [Violation(field, 1, 0, clocks, clocks - 1)]
    assert violations([trace[0], trace[1]._replace(clock=clocks)], device) == []
