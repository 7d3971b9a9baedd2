"""A memory with fixed times behind the accelerator's port: the timing contract of the simulator and the compiled slave.

Two directions share one data bus, in order of acceptance. Times are cycles; n is the length of a burst in beats:

    accepted   a read in a cycle in which fewer than `reads` are open, a write likewise with `writes`; at most one of
               each a cycle. A read is open from the cycle after its acceptance to the cycle of its last beat, a write
               to the cycle of its response, both included.
    order      as accepted; of a read and a write accepted in one cycle the read is first.
    beats      a burst accepted in cycle a has its first beat in b = max(a + latency_cycles, free) and beat i in
               b + i * beat_cycles; then free = b + n * beat_cycles. `free` starts at 0. A read's beats are there in
               exactly these cycles, and in exactly these cycles the memory takes a write's beats.
    response   of a write, in response_cycles after its last beat.

Exact against `rtl/bench/axi_memory.cpp` (tests/rtl/accelerator): difference 0 cycles. Not modelled: rows, banks and
refresh of a DRAM, a read that overtakes a write, a master that is late with a beat (it must not be).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from bitwright.arch.config import Config
from pydantic import Field

MOST_BURST_BEATS = 256
BURST_BYTES = 4096
"""No burst is longer than the one or crosses a multiple of the other (AXI4)."""

MOST = 1 << 20
"""Of every parameter: the compiled slave's counters hold it."""

_Cycles = Annotated[int, Field(strict=True, ge=1, le=MOST)]


class FixedMemory(Config):
    """The parameters; each is in 1..2**20.

    Members
        latency_cycles : from a burst accepted to its first beat, where the bus is free
        beat_cycles : from beat to beat
        reads, writes : bursts that may be open
        response_cycles : from the last beat of a write to its response
    """

    latency_cycles: _Cycles = 20
    beat_cycles: _Cycles = 1
    reads: _Cycles = 16
    writes: _Cycles = 16
    response_cycles: _Cycles = 4


@dataclass(frozen=True)
class Burst:
    """When an accepted burst is served; `response` is None for a read."""

    first_beat: int
    last_beat: int
    response: int | None = None


class FixedMemoryTiming:
    """The memory's clock: told of each burst when it is accepted, in order of time, it says when it is served.

    Of a read and a write accepted in one cycle the read is told first.
    """

    def __init__(self, memory: FixedMemory) -> None:
        self.memory = memory
        self.free = 0
        self._accepted = (-1, 0)  # the last burst's cycle, and 0 for a read, 1 for a write
        self._read_ends: deque[int] = deque(maxlen=memory.reads)
        self._write_ends: deque[int] = deque(maxlen=memory.writes)

    @property
    def read_ready_from(self) -> int:
        """The first cycle in which one more read can be accepted; a function of the bursts accepted so far."""
        return _ready_from(self._read_ends)

    @property
    def write_ready_from(self) -> int:
        """The same of a write."""
        return _ready_from(self._write_ends)

    def read(self, cycle: int, beats: int) -> Burst:
        """A read of so many beats, accepted in `cycle`."""
        assert cycle >= self.read_ready_from, f"a read in cycle {cycle}, not ready before {self.read_ready_from}"
        first, last = self._serve((cycle, 0), beats)
        self._read_ends.append(last)
        return Burst(first, last)

    def write(self, cycle: int, beats: int) -> Burst:
        """A write of so many beats, accepted in `cycle`."""
        assert cycle >= self.write_ready_from, f"a write in cycle {cycle}, not ready before {self.write_ready_from}"
        first, last = self._serve((cycle, 1), beats)
        response = last + self.memory.response_cycles
        self._write_ends.append(response)
        return Burst(first, last, response)

    def _serve(self, accepted: tuple[int, int], beats: int) -> tuple[int, int]:
        assert accepted > self._accepted, f"burst {accepted} after {self._accepted}: one of a kind a cycle, in order"
        assert beats >= 1, f"a burst of {beats} beats"
        self._accepted = accepted
        first = max(accepted[0] + self.memory.latency_cycles, self.free)
        self.free = first + beats * self.memory.beat_cycles
        return first, self.free - self.memory.beat_cycles


def _ready_from(ends: deque[int]) -> int:
    """One more can be open after the oldest of the last so many that may be."""
    return ends[0] + 1 if len(ends) == ends.maxlen else 0


def bursts(address: int, beats: int, port_bytes: int) -> Iterator[tuple[int, int]]:
    """A row of beats as the memory port asks for it: (first byte, beats) of each burst.

    No burst crosses a multiple of BURST_BYTES or is longer than MOST_BURST_BEATS; each is as long as it can be.
    """
    while beats:
        length = min(beats, MOST_BURST_BEATS, (BURST_BYTES - address % BURST_BYTES) // port_bytes)
        yield address, length
        address += length * port_bytes
        beats -= length
