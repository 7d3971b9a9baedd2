"""The memory of one run of a program, for both engines: when a transfer ends, and what the array waits for meanwhile.

Two choices (`arch.machine.DramTiming`). `DramPort`: a fixed bandwidth and latency. `Banks`: a device with rows, banks,
refresh and turnaround, by `sim.dram.DramChannels`, its rows closed and its first refresh a whole interval away in
cycle 0 of each program.

A transfer is granted to one queue at a time; from `accepts_next` on the memory takes the next one. Data of one queue
arrive in order: a transfer ends no earlier than the queue's one before (channels of a memory run apart).

Causes: the memory's time is cut at the ends of its transfers. What lies between the later of the last end and the
transfer's grant, and its own end, is charged in this order, each at most what is left: `bandwidth` (bytes over peak
bandwidth), `latency` (to the first data, when nothing was under way), `turnaround` (when the transfer before went the
other way), `refresh` (each refresh of a channel at rfc), the rest `rows` (misses, and bursts that no whole transfer
fills). In time the bytes come last. A cycle in which the array waits has the cause that the memory has then;
`dependencies` when the memory had nothing to do. Fidelity: finish is exact by the controller's rules; how
one transfer's cycles are divided among causes is the convention above, but their sum is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from bitwright.arch.dram import Dram
from bitwright.arch.dram_port import DramPort
from bitwright.sim.dram import DramChannels, Served

CAUSES = ("latency", "turnaround", "refresh", "rows", "bandwidth", "dependencies")  # in the order of time
_CHARGED = ("bandwidth", "latency", "turnaround", "refresh")  # in the order of charging
_Most = tuple[int, int, int, int]


@dataclass(frozen=True)
class Banks:
    """The device `dram` behind an accelerator of `clock_khz`."""

    dram: Dram
    clock_khz: int

    def cycles(self, clocks: int) -> int:
        """Cycles of the accelerator in which so many clocks of the device end."""
        return -(-clocks * self.dram.clock_ps * self.clock_khz // 10**9)


class Waits(NamedTuple):
    """Cycles that an idle array waited, by cause; see the module. They sum to `Counters.cycles_dram_wait`."""

    latency: int = 0
    turnaround: int = 0
    refresh: int = 0
    rows: int = 0
    bandwidth: int = 0
    dependencies: int = 0


class _Transfer(NamedTuple):
    """The memory's time from the end of the transfers before, or this one's grant, to this one's end.

    `most`: what each of `_CHARGED` takes of it at most.
    """

    start: int
    finish: int
    most: _Most

    def parts(self, rest: str) -> Iterator[tuple[str, int]]:
        """(cause, cycles) in the order of time, without empty ones; what is left goes to `rest`."""
        left = self.finish - self.start
        cycles = {rest: 0}
        for cause, most in zip(_CHARGED, self.most, strict=True):
            cycles[cause] = min(left, most)
            left -= cycles[cause]
        cycles[rest] += left
        return ((cause, cycles[cause]) for cause in CAUSES if cycles.get(cause))


class Memory:
    """One run's memory; remembers what it did when."""

    def __init__(self, spec: DramPort | Banks) -> None:
        self._memory = _Port(spec) if isinstance(spec, DramPort) else _Channels(spec)
        self._busy_until = 0
        self._transfers: list[_Transfer] = []

    def transfer(self, address: int, size_bytes: int, write: bool, now: int) -> Served:
        """Grant it in cycle `now`, no earlier than any before."""
        served, most = self._memory.transfer(address, size_bytes, write, now, now >= self._busy_until)
        start, finish = max(self._busy_until, now), served.finish
        if finish > start:
            self._busy_until = finish
            self._transfers.append(_Transfer(start, finish, most))
        return served

    def waits(self, intervals: list[tuple[int, int]]) -> Waits:
        """What the array waited for in `intervals` (first cycle, cycle after the last), in order and apart."""
        found = dict.fromkeys(CAUSES, 0)
        at = 0
        for start, end in intervals:
            left = end - start
            while at < len(self._transfers) and self._transfers[at].finish <= start:
                at += 1
            here = at
            while here < len(self._transfers) and self._transfers[here].start < end:
                first = self._transfers[here].start
                for cause, cycles in self._transfers[here].parts(self._memory.rest):
                    shared = max(0, min(end, first + cycles) - max(start, first))
                    found[cause] += shared
                    left -= shared
                    first += cycles
                here += 1
            found["dependencies"] += left
        return Waits(**found)


class _Port:
    """A fixed bandwidth; what a transfer does not move bytes in is latency."""

    rest = "latency"

    def __init__(self, port: DramPort) -> None:
        self._port = port
        self._busy_cycles = cache(port.busy_cycles)  # programs have few sizes

    def transfer(self, address: int, size_bytes: int, write: bool, now: int, idle: bool) -> tuple[Served, _Most]:
        busy = self._busy_cycles(size_bytes)
        done = now + busy
        return Served(done, done if write else done + self._port.latency_cycles), (busy, 0, 0, 0)


class _Channels:
    """A device with banks."""

    rest = "rows"

    def __init__(self, spec: Banks) -> None:
        self._channels = DramChannels(spec.dram, spec.clock_khz)
        self._count = spec.dram.channels
        self._ends = {False: 0, True: 0}  # of the last load, of the last store
        self._last_write: bool | None = None
        timing = spec.dram.device.timing
        line_bytes = spec.dram.channels * spec.dram.device.burst_bytes
        self._bandwidth = cache(lambda size_bytes: -(-spec.cycles(size_bytes * timing.burst) // line_bytes))
        self._latency = {False: spec.cycles(timing.read_latency), True: spec.cycles(timing.write_latency)}
        to_read = timing.write_latency + timing.burst + timing.wtr_l
        self._turnaround = {False: spec.cycles(to_read), True: spec.cycles(timing.rtw)}
        self._refresh = spec.cycles(timing.rfc)

    def transfer(self, address: int, size_bytes: int, write: bool, now: int, idle: bool) -> tuple[Served, _Most]:
        if size_bytes == 0:
            return Served(now, max(now, self._ends[write])), (0, 0, 0, 0)
        before = self._channels.refreshes
        accepts_next, finish = self._channels.transfer(address, size_bytes, write, now)
        self._ends[write] = finish = max(finish, self._ends[write])
        turned = self._last_write is not None and self._last_write != write
        self._last_write = write
        refreshes = -(-(self._channels.refreshes - before) // self._count)
        most = (
            self._bandwidth(size_bytes),
            self._latency[write] if idle else 0,
            self._turnaround[write] if turned else 0,
            refreshes * self._refresh,
        )
        return Served(accepts_next, finish), most
