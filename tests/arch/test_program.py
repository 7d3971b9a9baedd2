"""A program is plain data that can be printed, and a deadlock is named."""

from __future__ import annotations

import pytest
from bitwright.arch.array_timing import Pass, PassRun
from bitwright.arch.errors import ConfigError
from bitwright.arch.program import Execute, Load, Program, Store, Token


def small(loads: tuple[Load, ...]) -> Program:
    waits = (Token.WGT_READY, Token.ACT_READY, Token.OUT_FREE)
    signals = (Token.WGT_FREE, Token.ACT_FREE, Token.OUT_READY)
    execute = Execute(0, 0, 0, 3, 8, 4, (PassRun(3, 4, 2),), 1, (), 0, waits, signals)
    store = Store(12, (Token.OUT_READY,), (Token.OUT_FREE,))
    return Program(3, 8, 4, loads, (execute,), (store,))


WGT = Load("wgt", 32, (Token.WGT_FREE,), (Token.WGT_READY,))
ACT = Load("act", 24, (Token.ACT_FREE,), (Token.ACT_READY,))


def test_whole_program_ends() -> None:
    small((WGT, ACT)).check()


def test_program_prints_line_by_line() -> None:
    assert str(small((WGT, ACT))).splitlines() == [
        "program 3 x 8 x 4 (M x K x N)",
        "  load    wgt 32 B at 0  waits wgt_free  signals wgt_ready",
        "  load    act 24 B at 0  waits act_free  signals act_ready",
        "  execute m 0+3 k 0+8 n 0+4: 1 x [2 of (m 3, k 4)]  waits wgt_ready, act_ready, out_free  "
        "signals wgt_free, act_free, out_ready",
        "  store   out 12 B at 0  waits out_ready  signals out_free",
    ]


def test_passes_are_the_tile_commands_one_by_one() -> None:
    assert list(small((WGT, ACT)).executes[0].passes()) == [Pass(3, 4), Pass(3, 4)]


def test_counts() -> None:
    program = small((WGT, ACT))
    assert (program.macs, program.dram_bytes) == (96, 68)


def test_deadlock_names_what_each_queue_waits_for() -> None:
    with pytest.raises(ConfigError) as caught:
        small((WGT,)).check()
    assert str(caught.value) == (
        "program deadlocks: execute 0 waits for wgt_ready, act_ready, out_free; store 0 waits for out_ready; "
        "every wait needs an earlier signal"
    )
