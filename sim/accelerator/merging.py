"""Who comes first at the memory, for the fast engine: bursts of the fetcher, of Load and of Store in order of time."""

from __future__ import annotations

from enum import Enum

from bitwright.arch.fixed_memory import FixedMemory

NEVER = 1 << 62
_FETCH, _LOAD = range(2)


class Event(Enum):
    """What others may wait for, each with a cycle.

    FETCH_TAKEN, LOAD_TAKEN : the port took the request of a chunk, the last one of a Load
    FETCHED, LOADED, STORED : when the first beat of a chunk, the last beat of a Load, the last response of a Store will
        be on the pins
    """

    FETCH_TAKEN = 1
    LOAD_TAKEN = 2
    FETCHED = 3
    LOADED = 4
    STORED = 5


class Merging:
    """The port's address registers and the memory behind them.

    `fetch`, `load` and `store` offer bursts, `next` makes what comes next; both directions go on by themselves from
    burst to burst of one Load or Store. Cycles are those of the closed forms in `arch.fixed_memory`.
    """

    def __init__(self, memory: FixedMemory, most_reads: int, most_writes: int) -> None:
        self._latency, self._beat_cycles = memory.latency_cycles, memory.beat_cycles
        self._response = memory.response_cycles
        self._reads, self._writes = memory.reads, memory.writes
        self._most_reads, self._most_writes = most_reads, most_writes
        self._fetch_offer = self._load_offer = NEVER  # cycles from which a burst is offered
        self._fetch_beats = 0
        self._load: list[int] = []
        self._loads = 0  # bursts of it that are taken
        self._read = NEVER  # acceptance of the read in the address register
        self._read_beats = self._read_of = 0
        self._read_last = False
        self._read_free = 0  # the first cycle in which the register can take one
        self._read_ready = 0  # the first cycle in which the memory can accept one
        self._read_ends: list[int] = []
        self._store: list[int] = []
        self._stores = 0  # bursts of it that are accepted
        self._write = NEVER  # acceptance of the next write
        self._write_free = self._write_ready = 0
        self._write_ends: list[int] = []
        self._bus_free = 0
        self.beats_read = self.beats_written = 0

    def fetch(self, cycle: int, beats: int) -> None:
        """A chunk is asked for from `cycle` on."""
        self._fetch_offer, self._fetch_beats = cycle, beats

    def load(self, cycle: int, bursts: list[int]) -> None:
        """A Load asks for its bursts, the first from `cycle` on."""
        self._load_offer, self._load, self._loads = cycle, bursts, 0

    def store(self, cycle: int, bursts: list[int]) -> None:
        """A Store likewise."""
        self._store, self._stores = bursts, 0
        self._write = max(cycle + 1, self._write_free + 1, self._write_ready)

    def next(self) -> tuple[Event, int] | None:
        """Events in order of time up to one that others may wait for; None when nothing is on offer."""
        while True:
            if self._read < NEVER:
                event = self._accept_read() if self._read <= self._write else self._accept_writes(self._read)
            else:
                first = self._fetch_offer if self._fetch_offer < self._load_offer else self._load_offer
                if first < self._read_free:
                    first = self._read_free
                if first < NEVER and first <= self._write:
                    event = self._take_read(first)
                elif self._write < NEVER:
                    event = self._accept_writes(first)
                else:
                    return None
            if event is not None:
                return event

    def _take_read(self, cycle: int) -> tuple[Event, int] | None:
        self._read = cycle + 1 if cycle >= self._read_ready else self._read_ready
        if self._fetch_offer <= cycle:
            self._read_of, self._read_beats = _FETCH, self._fetch_beats
            self._fetch_offer = NEVER
            return Event.FETCH_TAKEN, cycle
        self._read_of, self._read_beats = _LOAD, self._load[self._loads]
        self._loads += 1
        self._load_offer = cycle + 1
        self._read_last = self._loads == len(self._load)
        if self._read_last:
            self._load_offer = NEVER
            return Event.LOAD_TAKEN, cycle
        return None

    def _accept_read(self) -> tuple[Event, int] | None:
        cycle, self._read = self._read, NEVER
        first = cycle + self._latency
        if first < self._bus_free:
            first = self._bus_free
        self._bus_free = first + self._read_beats * self._beat_cycles
        last = self._bus_free - self._beat_cycles
        ends = self._read_ends
        ends.append(last)
        self._read_free = max(cycle, ends[-self._most_reads] + 1) if len(ends) >= self._most_reads else cycle
        self._read_ready = ends[-self._reads] + 1 if len(ends) >= self._reads else 0
        self.beats_read += self._read_beats
        if self._read_of == _FETCH:
            return Event.FETCHED, first
        return (Event.LOADED, last) if self._read_last else None

    def _accept_writes(self, until: int) -> tuple[Event, int] | None:
        """Bursts of a Store that are accepted before `until`."""
        ends, latency, beat_cycles, tail = self._write_ends, self._latency, self._beat_cycles, self._response
        cycle, free = self._write, self._bus_free
        for beats in self._store[self._stores :]:
            if cycle >= until:
                break
            self._stores += 1
            free = max(cycle + latency, free) + beats * beat_cycles
            ends.append(free - beat_cycles + tail)
            self.beats_written += beats
            self._write_free = max(cycle, ends[-self._most_writes] + 1) if len(ends) >= self._most_writes else cycle
            self._write_ready = ends[-self._writes] + 1 if len(ends) >= self._writes else 0
            cycle = max(self._write_free + 1, self._write_ready)
        self._write, self._bus_free = cycle, free
        if self._stores < len(self._store):
            return None
        self._write = NEVER
        return Event.STORED, ends[-1]
