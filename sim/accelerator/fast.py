"""The accelerator without an event loop: the cycles of `engine`, many times as fast.

Nearly everything follows from what came before by `max` and `+`: an instruction's start from when it was put into its
queue, when its engine was ready, when its slots were given, when the fourth before it was done. Such cycles are worked
out as soon as what they follow from is known, in whatever order. Only two things depend on who comes first: whose burst
the read address register takes, and in which order the memory accepts reads and writes. So these are the only events,
made in order of time (`merging`):

    a read taken      in the first cycle in which the register is free and a burst is offered: the fetcher's or Load's
    a read accepted, a write accepted      of one cycle the read first

Before each event all that follows from the events before is worked out. What is not known then follows from an event
still to come, and lies at least a cycle after it; so whoever is not known to offer a burst by then does not.
Fidelity: equal to `engine` in every counter and every cycle of every instruction (tests/sim/accelerator).
Not modelled: as `engine`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from bitwright.arch.array_timing import ArrayShape, BroadcastShape
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa import timing
from bitwright.arch.isa.counters import Counters, InstructionTimes
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import End, Instruction, Load, Op, Store
from bitwright.arch.isa.interpreter import Bytes
from bitwright.arch.isa.limits import REGIONS, Limits
from bitwright.arch.isa.network import QUEUE_DEPTH, Program
from bitwright.arch.isa.placement import Placement
from bitwright.arch.isa.tile_cycles import Cycles, tile_cycles
from bitwright.sim.accelerator.merging import NEVER, Event, Merging
from bitwright.sim.accelerator.runs import (
    SHOWN,
    Port,
    Run,
    busy_cycles,
    fetch_beats,
    instructions,
    refuse,
)
from bitwright.sim.accelerator.shapes import EXECUTE, LOAD, STORE, VECTOR, Refused, Shape, Shapes

_WORDS = timing.FETCH_BYTES // WORD_BYTES
_CHUNKS = 2
_READY, _ENDS = "ready", "ends"


class _Unit:
    """The instructions of a unit, in order, and those of their cycles that are known.

    Members
        number : LOAD, EXECUTE, VECTOR or STORE
        queue : (index, shape, bursts) of those that were put into it
        seen : the cycles from which each can start
        starts, ends : first and last cycles of those that have started and are done
        ready : the cycle from which the engine can take the next; NEVER while that is not known
        waits : that of which the next cycle is not known: a side, _READY or _ENDS; None: nothing
    """

    __slots__ = ("ends", "number", "queue", "ready", "seen", "starts", "waits")

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: list[tuple[int, Shape, list[int]]] = []
        self.seen: list[int] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.ready = 0
        self.waits: object = None

    def start(self, number: int) -> int:
        """The cycle in which the next instruction of the queue starts; -1 while that is not known."""
        cycle = self.ready
        if cycle == NEVER:
            self.waits = _READY
            return -1
        if self.seen[number] > cycle:
            cycle = self.seen[number]
        before = number - timing.IN_FLIGHT
        if before >= 0:
            if len(self.ends) <= before:
                self.waits = _ENDS
                return -1
            if self.ends[before] >= cycle:
                cycle = self.ends[before] + 1
        uses = self.queue[number][1].uses
        for side, _, _, _ in uses:
            if not side.holds:
                if side.used == len(side.given):
                    self.waits = side
                    return -1
                if side.given[side.used] > cycle:
                    cycle = side.given[side.used]
        for side, last, needed, end in uses:
            side.take(last, needed, end)
        self.starts.append(cycle)
        return cycle


class _Machine:
    """One run of one program."""

    def __init__(
        self,
        program: list[Instruction],
        limits: Limits,
        region_beats: Sequence[int],
        memory: FixedMemory,
        port: Port,
        cycles: Cycles | None,
    ) -> None:
        self.program, self.words = program, len(program)
        self.shapes = Shapes(limits, region_beats, port.placement)
        self.merging = Merging(memory, port.outstanding_reads, port.outstanding_writes)
        self.units = [_Unit(number) for number in (LOAD, EXECUTE, VECTOR, STORE)]
        self.stirred: list[_Unit] = []  # those whose next instruction may now start
        self.taken, self.pushed, self.started, self.done = ([-1] * len(program) for _ in range(4))
        self.end = -1
        self.array = Array(limits)
        self.cycles = cycles
        self.loading: deque[tuple[int, Shape]] = deque()  # Loads of which beats are to come
        self.storing: tuple[int, Shape] | None = None

        self.index = 0  # of the instruction that the fetcher takes or holds
        self.fetcher_free = 0
        self.held: tuple[Shape, list[int]] | None = None
        self.waits_for: _Unit | None = None  # whose queue is full
        self.port_bytes = limits.port_bytes
        beats = [fetch_beats(place + 1, self.port_bytes) - 1 for place in range(_WORDS)]
        self.there = [beat * memory.beat_cycles + SHOWN + 1 for beat in beats]  # after a chunk's first beat
        self.chunks: list[int] = []  # cycles of the first beats of those that are known
        self.freed: list[int] = []  # cycles in which their last instructions were taken
        self.requested = 0
        self.request_from = 0  # the next one, as far as the one before is concerned
        self.offered = False

    def run(self) -> Run:
        """Refused for a program that is not legal."""
        self._offer_chunk()
        while True:
            while self.stirred:
                self._start(self.stirred.pop())
            event = self.merging.next()
            if event is None:
                break
            self._learn(*event)
        if self.end < 0 or any(len(unit.starts) < len(unit.queue) for unit in self.units):
            raise Refused  # a deadlock
        spans = (zip(unit.starts, unit.ends, strict=True) for unit in self.units)
        counters = Counters(
            max(self.end, max(self.done[:-1], default=-1) + 1) + 1,
            len(self.program) - 1,
            self.merging.beats_read,
            self.merging.beats_written,
            *(busy_cycles(each) for each in spans),
        )
        cycles = zip(self.taken[:-1], self.pushed, self.started, self.done, strict=False)
        return Run(counters, (*map(InstructionTimes._make, cycles), InstructionTimes(self.taken[-1])))

    def _learn(self, event: Event, cycle: int) -> None:
        """What an event of the memory port says."""
        if event is Event.FETCH_TAKEN:
            self.requested += 1
            self.request_from = cycle + 1
            self.offered = False
            self._offer_chunk()
        elif event is Event.FETCHED:
            self.chunks.append(cycle)
            self._fetch()
        elif event is Event.LOAD_TAKEN:
            self._ready(self.units[LOAD], cycle + 1)
        elif event is Event.LOADED:
            self._finish(*self.loading.popleft(), cycle + SHOWN)
        else:
            assert self.storing is not None, "a response is to a Store"
            self._finish(*self.storing, cycle + SHOWN)
            self._ready(self.units[STORE], cycle + SHOWN + 1)

    # --- The fetcher ---

    def _fetch(self) -> None:
        """Instructions into their queues, as far as it is known when."""
        while (index := self.index) < self.words:
            if self.held is None:
                chunk, place = divmod(index, _WORDS)
                if chunk == len(self.chunks):
                    return
                self._take(index, max(self.chunks[chunk] + self.there[place], self.fetcher_free), place)
                if self.held is None:
                    return
            shape = self.held[0]
            unit = self.units[shape.unit]
            pushed = self.taken[index] + shape.check_cycles
            before, started = len(unit.queue), len(unit.starts)
            if before >= QUEUE_DEPTH:
                if started <= before - QUEUE_DEPTH:
                    self.waits_for = unit
                    return
                pushed = max(pushed, unit.starts[before - QUEUE_DEPTH] + 1)
            self.pushed[index] = pushed
            if started == before:
                self.stirred.append(unit)
            unit.queue.append((index, *self.held))
            unit.seen.append(pushed + 1)
            self.fetcher_free = pushed + 1
            self.held = None
            self.index += 1

    def _take(self, index: int, cycle: int, place: int) -> None:
        """The fetcher takes an instruction; it holds it then, unless it is the End."""
        self.taken[index] = cycle
        if place == _WORDS - 1:
            self.freed.append(cycle)
            self._offer_chunk()
        instruction = self.program[index]
        if isinstance(instruction, End):
            self.end = cycle + timing.check_cycles(Op.END)
            self.index += 1
            return
        shape = self.shapes.of(instruction)
        self.held = shape, self.shapes.bursts(shape, instruction) if isinstance(instruction, Load | Store) else []

    def _offer_chunk(self) -> None:
        """Two chunks ahead of the instructions, one request after the other."""
        number = self.requested
        words = min(_WORDS, len(self.program) - number * _WORDS)
        if words <= 0 or self.offered or number - _CHUNKS >= len(self.freed):
            return
        since = max(self.request_from, self.freed[number - _CHUNKS] + 1 if number >= _CHUNKS else 0)
        self.merging.fetch(since, fetch_beats(words, self.port_bytes))
        self.offered = True

    # --- The units ---

    def _start(self, unit: _Unit) -> None:
        """What it is known of when it starts."""
        number = len(unit.starts)
        while number < len(unit.queue) and unit.waits is None:
            cycle = unit.start(number)
            if cycle < 0:
                return
            index, shape, bursts = unit.queue[number]
            number += 1
            self.started[index] = cycle
            if unit.number == LOAD:
                self.merging.load(cycle + 1, bursts)
                self.loading.append((index, shape))
                unit.ready = NEVER
            elif unit.number == EXECUTE:
                if self.cycles is not None:
                    shape = replace(shape, slices=self.cycles[number - 1], memo={})
                unit.ready, done = self.array.execute(shape, cycle + timing.EXECUTE_FILL)
                self._finish(index, shape, done)
            elif unit.number == VECTOR:
                unit.ready = cycle + shape.work + 1
                self._finish(index, shape, unit.ready - 1)
            else:
                self.merging.store(cycle + timing.STORE_FILL, bursts)
                self.storing = index, shape
                unit.ready = NEVER
            if self.waits_for is unit:
                self.waits_for = None
                self._fetch()

    def _finish(self, index: int, shape: Shape, cycle: int) -> None:
        """The instruction's last cycle is known."""
        self.done[index] = cycle
        unit = self.units[shape.unit]
        unit.ends.append(cycle)
        if unit.waits is _ENDS:
            self._stir(unit)
        for side in shape.gives:
            side.given.append(cycle + 1)
            other = self.units[side.unit]
            if other.waits is side:
                self._stir(other)

    def _ready(self, unit: _Unit, cycle: int) -> None:
        """The engine can take the next instruction from that cycle on."""
        unit.ready = cycle
        if unit.waits is _READY:
            self._stir(unit)

    def _stir(self, unit: _Unit) -> None:
        unit.waits = None
        self.stirred.append(unit)


class Array:
    """The array's clocks, in cycles: the earliest next weight row and vector (ws); the earliest next element, and the
    earliest end of the next slice (os, broadcast).

    What an Execute does depends on how far the clocks are ahead of its own first cycle, and most often that repeats: it
    is worked out once for each such distance.
    """

    def __init__(self, limits: Limits) -> None:
        shape = limits.array_shape(limits.formats[0])
        self._walk = _weights_stay if shape.weight_stationary else _sums_stay
        if isinstance(shape, ArrayShape) and shape.weight_stationary and not shape.load.double_buffered:
            self._walk = _one_weight_stays
        if isinstance(shape, BroadcastShape):
            self._latency = shape.latency
        else:
            self._latency = shape.physical_cols - 1 + (shape.rows if shape.weight_stationary else 0)
        self._latency += timing.execute_drain(limits)
        self._first = self._second = 0

    def execute(self, shape: Shape, ready: int) -> tuple[int, int]:
        """Operands there from `ready`: the cycle in which the engine is ready again, and the last one."""
        ahead = max(self._first - ready, 0), max(self._second - ready, 0)
        found = shape.memo.get(ahead)
        if found is None:
            found = shape.memo[ahead] = self._walk(shape, *ahead)
        self._first, self._second = ready + found[0], ready + found[1]
        return ready + found[2], ready + found[3] + self._latency


def _weights_stay(shape: Shape, weights: int, stream: int) -> tuple[int, int, int, int]:
    """A slice's rows of weights come in while the slice before streams; gives both clocks, ready again, last vector."""
    again = 0
    for rows in shape.slices:
        first_vector = max(weights + 1, stream)
        again = weights + rows
        weights, stream = max(again, first_vector), first_vector + shape.work
    return weights, stream, again, stream - 1


def _one_weight_stays(shape: Shape, weights: int, stream: int) -> tuple[int, int, int, int]:
    """As `_weights_stay`, but the rows come in behind the last vector of the slice before."""
    again = 0
    for beats in shape.slices:
        first_vector = max(weights + 1, stream)
        again, stream = weights + beats, first_vector + shape.work
        weights = max(again, stream - 1)
    return weights, stream, again, stream - 1


def _sums_stay(shape: Shape, element: int, last: int) -> tuple[int, int, int, int]:
    """A slice ends when the results of the slice before have made room; gives both clocks, ready again, last result."""
    end = 0
    for cycles in shape.slices:
        end = max(element + cycles - 1, last)
        element, last = end + 1, end + shape.apart
    return element, last, element, end + shape.work


def run(
    program: Program,
    limits: Limits,
    region_beats: Sequence[int],
    memory: FixedMemory,
    *,
    outstanding_reads: int = 16,
    outstanding_writes: int = 16,
    placement: Placement | None = None,
    contents: Sequence[Bytes] | None = None,
) -> Run:
    """As `engine.run`."""
    found = instructions(program)
    if found is None or len(region_beats) != REGIONS or min(region_beats) < 0:
        refuse(program, limits, region_beats)
    port = Port.of(len(found), limits, region_beats, outstanding_reads, outstanding_writes, placement)
    cycles = tile_cycles(found, limits, region_beats, contents) if limits.skips else None
    try:
        return _Machine(found, limits, region_beats, memory, port, cycles).run()
    except Refused:
        refuse(program, limits, region_beats)
