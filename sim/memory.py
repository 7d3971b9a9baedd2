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

from dataclasses import dataclass
from typing import NamedTuple

from bitwright.arch.dram import Dram
from bitwright.arch.dram_port import DramPort
from bitwright.sim.dram import DramChannels, Served

CAUSES = ("latency", "turnaround", "refresh", "rows", "bandwidth", "dependencies")  # in the order of time


@dataclass(frozen=True)
class Banks:
    """The device `dram` behind an accelerator of `clock_khz`."""

    dram: Dram
    clock_khz: int


class Waits(NamedTuple):
    """Cycles that an idle array waited, by cause; see the module. They sum to `Counters.cycles_dram_wait`."""

    latency: int = 0
    turnaround: int = 0
    refresh: int = 0
    rows: int = 0
    bandwidth: int = 0
    dependencies: int = 0


class Memory:
    """One run's memory; remembers what it did when."""

    def __init__(self, spec: DramPort | Banks) -> None:
        self._spec = spec
        self._channels = DramChannels(spec.dram, spec.clock_khz) if isinstance(spec, Banks) else None
        self._ends = {False: 0, True: 0}  # of the last load, of the last store
        self._busy_until = 0
        self._last_write: bool | None = None
        self._segments: list[tuple[int, int, str]] = []

    def transfer(self, address: int, size_bytes: int, write: bool, now: int) -> Served:
        """Grant it in cycle `now`, no earlier than any before."""
        if self._channels is None:
            served = self._by_port(size_bytes, write, now)
        else:
            served = self._by_banks(self._channels, address, size_bytes, write, now)
        return served

    def _by_port(self, size_bytes: int, write: bool, now: int) -> Served:
        assert isinstance(self._spec, DramPort), "a memory without channels has a port"
        done = now + self._spec.busy_cycles(size_bytes)
        finish = done if write else done + self._spec.latency_cycles
        start = max(self._busy_until, now)
        self._charge(start, finish, {"bandwidth": done - now})
        return Served(done, finish)

    def _by_banks(self, channels: DramChannels, address: int, size_bytes: int, write: bool, now: int) -> Served:
        if size_bytes == 0:
            return Served(now, max(now, self._ends[write]))
        before = channels.counts.refreshes
        served = channels.transfer(address, size_bytes, write, now)
        finish = max(served.finish, self._ends[write])
        self._ends[write] = finish
        dram, timing = channels.dram, channels.dram.device.timing
        start, idle = max(self._busy_until, now), now >= self._busy_until
        most = {"bandwidth": -(-self._cycles(size_bytes * timing.burst) // (dram.channels * dram.device.burst_bytes))}
        if idle:
            most["latency"] = self._cycles(timing.write_latency if write else timing.read_latency)
        if self._last_write is not None and self._last_write != write:
            to_read = timing.write_latency + timing.burst + timing.wtr_l
            most["turnaround"] = self._cycles(timing.rtw if write else to_read)
        refreshes = -(-(channels.counts.refreshes - before) // dram.channels)
        most["refresh"] = refreshes * self._cycles(timing.rfc)
        self._last_write = write
        self._charge(start, finish, most)
        return Served(served.accepts_next, finish)

    def _cycles(self, clocks: int) -> int:
        assert isinstance(self._spec, Banks), "clocks are those of a device"
        return -(-clocks * self._spec.dram.clock_ps * self._spec.clock_khz // 10**9)

    def _charge(self, start: int, finish: int, most: dict[str, int]) -> None:
        """The memory's time from `start` to `finish`."""
        left = finish - start
        if left <= 0:
            return
        self._busy_until = finish
        parts = dict.fromkeys(CAUSES, 0)
        for cause in ("bandwidth", "latency", "turnaround", "refresh"):
            parts[cause] = min(left, most.get(cause, 0))
            left -= parts[cause]
        parts["latency" if self._channels is None else "rows"] += left
        for cause in CAUSES:
            if parts[cause]:
                self._segments.append((start, start + parts[cause], cause))
                start += parts[cause]

    def waits(self, intervals: list[tuple[int, int]]) -> Waits:
        """What the array waited for in `intervals` (first cycle, cycle after the last), in order and apart."""
        found = dict.fromkeys(CAUSES, 0)
        at = 0
        for start, end in intervals:
            left = end - start
            while at < len(self._segments) and self._segments[at][1] <= start:
                at += 1
            here = at
            while here < len(self._segments) and self._segments[here][0] < end:
                first, after, cause = self._segments[here]
                shared = min(end, after) - max(start, first)
                found[cause] += shared
                left -= shared
                here += 1
            found["dependencies"] += left
        return Waits(**found)
