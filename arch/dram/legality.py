"""Judges a trace of commands by the rules of a DRAM: independent of any controller, for tests and campaigns.

Each rule is stated between commands, looked up in the whole past of the trace; nothing is folded or remembered from
rule to rule. Slow on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bitwright.arch.dram.commands import Command, Kind
from bitwright.arch.dram.presets import Device

ROWS_CLOSING = (Kind.PRECHARGE, Kind.PRECHARGE_ALL)
DATA = (Kind.READ, Kind.WRITE)
POSTPONED = 8
"""Refreshes that may be owed (JESD79-4, 4.26; JESD209-5, 7.5; of HBM likewise)."""


class Violation(NamedTuple):
    """Command number `number` came `clocks` after command number `earlier` (-1: none); `rule` asks for `needed`.

    For `faw` `earlier` is the fourth ACT before. Of a rule about state (`open`, `closed`, `order`) needed is 0. For
    `refi` the two are clocks: that by which a refresh was due at the latest, and that of the command.
    """

    rule: str
    number: int
    earlier: int
    needed: int
    clocks: int


class _Rule(NamedTuple):
    name: str
    earlier: tuple[Kind, ...]
    later: tuple[Kind, ...]
    scope: str  # "any", "group", "bank": what both commands have in common; PREA and REF have every bank
    clocks: int


def _rules(device: Device) -> tuple[_Rule, ...]:
    t = device.timing
    act, pre, rd, wr, ref = (Kind.ACTIVATE,), ROWS_CLOSING, (Kind.READ,), (Kind.WRITE,), (Kind.REFRESH,)
    written = t.write_latency + t.burst
    return (
        _Rule("rcd_read", act, rd, "bank", t.rcd_read),
        _Rule("rcd_write", act, wr, "bank", t.rcd_write),
        _Rule("rp", pre, act, "bank", t.rp),
        _Rule("rp", pre, ref, "any", t.rp),
        _Rule("ras", act, pre, "bank", t.ras),
        _Rule("rc", act, act, "bank", t.rc),
        _Rule("rc", act, ref, "any", t.rc),
        _Rule("rtp", rd, pre, "bank", t.rtp),
        _Rule("wr", wr, pre, "bank", written + t.wr),
        _Rule("ccd_s", rd, rd, "any", t.ccd_s),
        _Rule("ccd_s", wr, wr, "any", t.ccd_s),
        _Rule("ccd_l", rd, rd, "group", t.ccd_l),
        _Rule("ccd_l", wr, wr, "group", t.ccd_l),
        _Rule("rrd_s", act, act, "any", t.rrd_s),
        _Rule("rrd_l", act, act, "group", t.rrd_l),
        _Rule("wtr_s", wr, rd, "any", written + t.wtr_s),
        _Rule("wtr_l", wr, rd, "group", written + t.wtr_l),
        _Rule("rtw", rd, wr, "any", t.rtw),
        _Rule("ppd", pre, pre, "any", t.ppd),
        _Rule("rfc", ref, (*act, *pre, *ref), "any", t.rfc),
    )


def violations(trace: Sequence[Command], device: Device) -> list[Violation]:
    """Every broken rule, in the order of the trace; empty for a legal one.

    The rules are those of `Timing`, by its names; `burst` (the data of two commands overlap); `open` and `closed`
    (RD or WR need their row open, ACT a closed bank, REF all of them closed); `order` (clocks fall). Refresh number k
    (from 1) is due at k * refi and may be late by POSTPONED * refi.
    """
    return list(_violations(trace, device))


def _violations(trace: Sequence[Command], device: Device) -> Iterator[Violation]:
    rules = _rules(device)
    reach = max(*(rule.clocks for rule in rules), device.timing.faw, device.timing.burst + device.timing.read_latency)
    for index, command in enumerate(trace):
        if index and command.clock < trace[index - 1].clock:
            yield Violation("order", index, index - 1, 0, command.clock - trace[index - 1].clock)
        for earlier in range(index - 1, -1, -1):
            apart = command.clock - trace[earlier].clock
            if apart >= reach:
                break
            for rule in rules:
                if apart < rule.clocks and _applies(rule, trace[earlier], command):
                    yield Violation(rule.name, index, earlier, rule.clocks, apart)
            if trace[earlier].kind in DATA and command.kind in DATA:
                yield from _data(trace, earlier, index, device)
        yield from _four_activates(trace, index, device)
        yield from _state(trace, index)
    yield from _refreshes(trace, device)


def _applies(rule: _Rule, earlier: Command, later: Command) -> bool:
    if earlier.kind not in rule.earlier or later.kind not in rule.later:
        return False
    if rule.scope == "any" or Kind.PRECHARGE_ALL in (earlier.kind, later.kind):
        return True
    return earlier.group == later.group and (rule.scope == "group" or earlier.bank == later.bank)


def _data(trace: Sequence[Command], earlier: int, later: int, device: Device) -> Iterator[Violation]:
    t = device.timing
    first, second = (
        trace[i].clock + (t.read_latency if trace[i].kind is Kind.READ else t.write_latency) for i in (earlier, later)
    )
    if abs(second - first) < t.burst:
        yield Violation("burst", later, earlier, t.burst, second - first)


def _four_activates(trace: Sequence[Command], index: int, device: Device) -> Iterator[Violation]:
    if trace[index].kind is not Kind.ACTIVATE:
        return
    before = [i for i in range(index) if trace[i].kind is Kind.ACTIVATE][-4:]
    if len(before) == 4 and trace[index].clock - trace[before[0]].clock < device.timing.faw:
        apart = trace[index].clock - trace[before[0]].clock
        yield Violation("faw", index, before[0], device.timing.faw, apart)


def _open_row(trace: Sequence[Command], index: int, group: int, bank: int) -> int | None:
    """The row of a bank that is open just before command number `index`."""
    for earlier in reversed(trace[:index]):
        if earlier.kind in (Kind.PRECHARGE_ALL, Kind.REFRESH):
            return None
        if (earlier.group, earlier.bank) == (group, bank):
            if earlier.kind is Kind.PRECHARGE:
                return None
            if earlier.kind is Kind.ACTIVATE:
                return earlier.row
    return None


def _state(trace: Sequence[Command], index: int) -> Iterator[Violation]:
    command = trace[index]
    if command.kind in DATA and _open_row(trace, index, command.group, command.bank) != command.row:
        yield Violation("open", index, -1, 0, 0)
    if command.kind is Kind.ACTIVATE and _open_row(trace, index, command.group, command.bank) is not None:
        yield Violation("closed", index, -1, 0, 0)
    if command.kind is Kind.REFRESH:
        banks = {(one.group, one.bank) for one in trace[:index] if one.kind is Kind.ACTIVATE}
        if any(_open_row(trace, index, group, bank) is not None for group, bank in banks):
            yield Violation("closed", index, -1, 0, 0)


def _refreshes(trace: Sequence[Command], device: Device) -> Iterator[Violation]:
    done = 0
    for index, command in enumerate(trace):
        latest = (done + 1 + POSTPONED) * device.timing.refi
        if command.clock > latest:
            yield Violation("refi", index, -1, latest, command.clock)
            return
        done += command.kind is Kind.REFRESH
