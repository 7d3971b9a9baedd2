"""The golden of `MemoryEngines` before a memory with fixed times: who does what in which cycle, one cycle at a time.

Written from the timing rules of MemoryPort, LoadEngine and StoreEngine; the memory itself is `arch.fixed_memory`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bitwright.arch.fixed_memory import Burst, FixedMemory, FixedMemoryTiming, bursts
from bitwright.arch.isa.instructions import Load, Store
from bitwright.arch.isa.timing import IN_FLIGHT, STORE_FILL

SHOWN = 1
"""From the pins to the requester."""


@dataclass(frozen=True)
class FetchBurst:
    """A burst that the fetcher asks for."""

    address: int
    beats: int


Piece = tuple[int, int]  # address, beats
Work = TypeVar("Work", Load, Store, FetchBurst)


@dataclass
class Job(Generic[Work]):
    """Something queued in cycle `pushed`, and what became of it.

    Members
        slot : the slot that it uses
        start : the cycle; of a fetch, from which the port is asked
        done : the cycle; of a fetch, in which its last beat is shown
        pieces, taken, bursts : what it asks for, when the port takes each, how the memory serves each
    """

    work: Work
    pushed: int
    slot: int = 0
    start: int = -1
    done: int = -1
    pieces: list[Piece] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)


class _Requester(Generic[Work]):
    """The address side of a user of the port."""

    def __init__(self, jobs: Sequence[Job[Work]]) -> None:
        self.waiting: deque[Job[Work]] = deque(jobs)
        self.started: list[Job[Work]] = []
        self.offers: deque[tuple[int, Job[Work], Piece]] = deque()  # from which cycle, ...

    def offered(self, cycle: int) -> bool:
        return bool(self.offers) and self.offers[0][0] <= cycle

    def take(self, cycle: int) -> tuple[Job[Work], Piece]:
        _, job, piece = self.offers.popleft()
        job.taken.append(cycle)
        return job, piece

    def ask(self, job: Job[Work], first: int) -> None:
        """All bursts of a job, the first offered in cycle `first`; each follows the one before at once."""
        self.offers.extend((first, job, piece) for piece in job.pieces)

    def finished(self) -> bool:
        return not self.waiting and not self.offers and all(job.done >= 0 for job in self.started)


def _pieces(work: Load | Store, bases: Sequence[int], port_bytes: int) -> Iterator[Piece]:
    for row in range(work.rows):
        address = bases[work.region] + (work.offset + row * work.stride) * port_bytes
        yield from bursts(address, work.beats, port_bytes)


def play(
    memory: FixedMemory, bases: Sequence[int], port_bytes: int, outstanding_reads: int, outstanding_writes: int,
    loads: Sequence[Job[Load]], stores: Sequence[Job[Store]], fetches: Sequence[Job[FetchBurst]],
) -> None:  # fmt: skip
    """Fill in the cycles of all jobs, each kind in the order of its queue."""
    timing = FixedMemoryTiming(memory)
    load, store, fetch = _Requester(loads), _Requester(stores), _Requester(fetches)
    reads, writes = _Channel(outstanding_reads), _Channel(outstanding_writes)
    cycle = 0
    while not (load.finished() and store.finished() and fetch.finished()):
        _start_load(load, cycle, bases, port_bytes)
        _start_store(store, cycle, bases, port_bytes)
        while fetch.waiting and fetch.waiting[0].pushed < cycle:
            job = fetch.waiting.popleft()
            job.start, job.pieces = cycle, [(job.work.address, job.work.beats)]
            fetch.ask(job, cycle)
            fetch.started.append(job)
        if reads.held is not None and cycle >= timing.read_ready_from:
            reads.accepted(timing.read(cycle, reads.held[1][1]), memory)
        if writes.held is not None and cycle >= timing.write_ready_from:
            writes.accepted(timing.write(cycle, writes.held[1][1]), memory)
        if reads.can_take(cycle):
            if fetch.offered(cycle):
                reads.take(*fetch.take(cycle))
            elif load.offered(cycle):
                reads.take(*load.take(cycle))
        if writes.can_take(cycle) and store.offered(cycle):
            writes.take(*store.take(cycle))
        cycle += 1


class _Channel:
    """An address register, and the bursts that are open behind it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held: tuple[Job[Load] | Job[Store] | Job[FetchBurst], Piece] | None = None
        self._taken = 0
        self._ends: deque[int] = deque()  # on the pins, of those that count as open

    def can_take(self, cycle: int) -> bool:
        while self._ends and self._ends[0] < cycle:
            self._ends.popleft()
            self._taken -= 1
        return self.held is None and self._taken < self.most

    def take(self, job: Job[Load] | Job[Store] | Job[FetchBurst], piece: Piece) -> None:
        self.held = job, piece
        self._taken += 1

    def accepted(self, burst: Burst, memory: FixedMemory) -> None:
        assert self.held is not None, "only a held burst is accepted"
        job, _ = self.held
        self.held = None
        job.bursts.append(burst)
        end = burst.last_beat if burst.response is None else burst.response
        self._ends.append(end)
        if len(job.bursts) == len(job.pieces):
            job.done = end + SHOWN


def _start_load(unit: _Requester[Load], cycle: int, bases: Sequence[int], port_bytes: int) -> None:
    """Ready from the cycle after the last request was taken; at most IN_FLIGHT."""
    if not unit.waiting or unit.waiting[0].pushed >= cycle or unit.offers:
        return
    if sum(job.done < 0 or job.done >= cycle for job in unit.started[-IN_FLIGHT:]) == IN_FLIGHT:
        return
    job = unit.waiting.popleft()
    job.start, job.pieces = cycle, list(_pieces(job.work, bases, port_bytes))
    unit.started.append(job)
    unit.ask(job, cycle + 1)


def _start_store(unit: _Requester[Store], cycle: int, bases: Sequence[int], port_bytes: int) -> None:
    """Ready from the cycle after the one before was done."""
    if not unit.waiting or unit.waiting[0].pushed >= cycle:
        return
    if unit.started and not -1 < unit.started[-1].done < cycle:
        return
    job = unit.waiting.popleft()
    job.start, job.pieces = cycle, list(_pieces(job.work, bases, port_bytes))
    unit.started.append(job)
    unit.ask(job, cycle + STORE_FILL)
