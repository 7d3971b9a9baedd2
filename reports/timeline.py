"""A timeline as trace events of Chrome's format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

One thread a unit, with operators above them; the DRAM channel's bandwidth, and what part of the time the array has
work, as counters. A microsecond of the picture is one of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bitwright.reports.page import json_text, write_whole
from bitwright.sim.timeline import Operator

Event = dict[str, Any]

_THREADS = ("operators", "dram", "array", "array waits", "vector")
_PROCESS = 1


def write_timeline(operators: Iterable[Operator], clock_mhz: float, out: Path) -> Path:
    """Write the trace to `out`, whole or not at all. Raises ConfigError for a path that cannot be written."""
    return write_whole(out, json_text({"traceEvents": list(trace_events(operators, clock_mhz))}), "timeline")


def trace_events(operators: Iterable[Operator], clock_mhz: float) -> Iterator[Event]:
    """Events in the order of the operators; `ts` and `dur` in microseconds."""
    yield {"ph": "M", "name": "process_name", "pid": _PROCESS, "tid": 0, "args": {"name": "machine"}}
    for thread, name in enumerate(_THREADS):
        yield {"ph": "M", "name": "thread_name", "pid": _PROCESS, "tid": thread, "args": {"name": name}}
    for operator in operators:
        cycles = operator.end_cycle - operator.start_cycle
        times = {"count": operator.count, "cycles": cycles, "cycles of all": cycles * operator.count}
        yield _complete(f"{operator.phase} {operator.name}", "operators", operator, clock_mhz, times)
        for item in operator.intervals:
            cycles = item.end_cycle - item.start_cycle
            told = {"cycles": cycles} | ({"bytes": item.size_bytes} if item.unit == "dram" else {})
            yield _complete(item.name, item.unit, item, clock_mhz, told)
        yield from _counter("DRAM bytes a cycle", operator, "dram", clock_mhz)
        yield from _counter("array busy", operator, "array", clock_mhz)


def _complete(name: str, thread: str, item: Any, clock_mhz: float, told: dict[str, int]) -> Event:
    return {
        "ph": "X", "name": name, "pid": _PROCESS, "tid": _THREADS.index(thread), "ts": item.start_cycle / clock_mhz,
        "dur": (item.end_cycle - item.start_cycle) / clock_mhz, "args": told,
    }  # fmt: skip


def _counter(name: str, operator: Operator, unit: str, clock_mhz: float) -> Iterator[Event]:
    """A unit's rate while it is busy, 0 between: bytes a cycle of the channel, 1 of the array.

    A block of the array may begin before the one before it has left; what is drawn is whether there is any.
    """
    until = operator.start_cycle
    for item in operator.intervals:
        if item.unit != unit or item.end_cycle <= until:
            continue
        if item.start_cycle > until:
            yield _level(name, until, 0, clock_mhz)
        cycles = item.end_cycle - item.start_cycle
        yield _level(name, max(until, item.start_cycle), item.size_bytes / cycles if item.size_bytes else 1, clock_mhz)
        until = item.end_cycle
    yield _level(name, until, 0, clock_mhz)


def _level(name: str, cycle: int, value: float, clock_mhz: float) -> Event:
    return {"ph": "C", "name": name, "pid": _PROCESS, "ts": cycle / clock_mhz, "args": {"value": value}}
