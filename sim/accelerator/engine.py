"""The accelerator on SimPy: the reference that predicts every cycle of the RTL.

One event is a burst's address taken, accepted, its end; an instruction taken, put into a queue, started, done; a slot
handed over. Beats, slots of vector work and PE cycles are no events: they follow in closed form.
State: the fetcher with two chunks of 256 bytes and the instruction that it checks; four queues of QUEUE_DEPTH; four
    units with up to IN_FLIGHT instructions each (Vector and Store: one); six channels of two slots; the array's clocks
    (arch.array_timing.ArrayState); an address register a direction; the memory's clock (arch.fixed_memory).
Latency rules, s the start of an instruction, d its last cycle:
    fetch     an instruction can be taken 2 cycles after the beat with its last byte is on the pins; it can be put into
              its queue `timing.check_cycles` later, and the next one is taken in a later cycle
    start     when it was put into the queue in an earlier cycle, its engine is ready, and slots and the place among
              those in flight were given in an earlier cycle
    load      bursts offered from s + 1, one after the other; ready in the cycle after the last one is taken;
              d = 1 after the last beat is on the pins
    execute   array_timing from s + EXECUTE_FILL, with the cycles of isa.tile_cycles where digits are skipped; ready in
              the cycle after its last row of weights is taken (not weight-stationary: its last element); d =
              execute_drain after the last result leaves the array
    vector    d = s + timing.vector_slots + VECTOR_DRAIN, ready after d
    store     bursts offered from s + STORE_FILL; d = 1 after the last response is on the pins, ready after d
    burst     taken from the cycle in which the one before is accepted, while fewer than `outstanding_...` are open;
              offered to the memory from the cycle after that
    the end   the cycle after the last d, or that in which End is checked
Who waits: each count of slots, places and instructions has one giver and one taker, who sleeps while there is none. At
    the memory port the fetcher goes before Load; at the memory a read before a write of the same cycle. What happens
    in a cycle is seen by others from the next one on, so the order of events within a cycle decides nothing else.
Not modelled: numbers, but for weight codes where cycles depend on them; faults, bus errors and the watchdog (legal
    programs only).
Fidelity: every cycle of every instruction equals a model stepped register by register (tests/sim/accelerator) and the
    RTL (tests/cross): difference 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy
from bitwright.arch.array_timing import IDLE, BroadcastShape, PassRun, run_counted, run_passes
from bitwright.arch.fixed_memory import Burst, FixedMemory, FixedMemoryTiming, bursts
from bitwright.arch.isa import timing
from bitwright.arch.isa.counters import Counters, InstructionTimes
from bitwright.arch.isa.extents import uses
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import UNITS, End, Execute, Instruction, Load, Op, Store, Vector
from bitwright.arch.isa.interpreter import Bytes
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.network import QUEUE_DEPTH, SLOTS, Program
from bitwright.arch.isa.placement import Placement
from bitwright.arch.isa.tile_cycles import Cycles, tile_cycles
from bitwright.sim.accelerator.runs import (
    SHOWN,
    Port,
    Run,
    busy_cycles,
    fetch_beats,
    require_legal,
)

Process = Generator[simpy.Event, Any, None]
Work = Callable[[int, Any], Process]

_OPS: dict[type[Instruction], Op] = {Load: Op.LOAD, Execute: Op.EXECUTE, Vector: Op.VECTOR, Store: Op.STORE}
_CHUNK_WORDS = timing.FETCH_BYTES // WORD_BYTES
_CHUNKS = 2


class _Count:
    """Things that one gives and another takes, who sleeps while there are none."""

    def __init__(self, env: simpy.Environment, count: int = 0) -> None:
        self._env, self._count = env, count
        self._sleeper: simpy.Event | None = None

    def take(self) -> Process:
        while self._count == 0:
            self._sleeper = self._env.event()
            yield self._sleeper
        self._count -= 1

    def give(self) -> None:
        """From this cycle on."""
        self._count += 1
        if self._sleeper is not None:
            self._sleeper.succeed()
            self._sleeper = None

    def give_next(self) -> None:
        """From the next cycle on."""
        _when(self._env.timeout(1), lambda _: self.give())


def _when(event: simpy.Event, function: Callable[[Any], object]) -> None:
    """Calls with the event's value in the event's cycle."""
    assert event.callbacks is not None, "the event is still to come"

    def call(fired: simpy.Event) -> None:
        function(fired.value)

    event.callbacks.append(call)


class _Offer:
    """A burst that is asked for from cycle `since` on; `taken` and `accepted` fire in their cycles."""

    def __init__(self, env: simpy.Environment, since: int, beats: int) -> None:
        self.since, self.beats = since, beats
        self.taken: simpy.Event = env.event()
        self.accepted: simpy.Event = env.event()


class _Addresses:
    """The address register of a direction, and the bursts that are open behind it.

    `serve` and `ready_from` are the memory's; `after_reads`: of bursts accepted in one cycle this direction's is last.
    """

    def __init__(
        self,
        env: simpy.Environment,
        most_open: int,
        serve: Callable[[int, int], Burst],
        ready_from: Callable[[], int],
        *,
        after_reads: bool,
    ) -> None:
        self._env, self._serve, self._ready_from, self._after_reads = env, serve, ready_from, after_reads
        self._offers: dict[int, _Offer] = {}  # by rank, the lowest first
        self._ends: deque[int] = deque(maxlen=most_open)
        self._wake: simpy.Event = env.event()
        self.beats = 0
        env.process(self._run())

    def offer(self, rank: int, since: int, beats: int) -> _Offer:
        """A burst, offered from the next cycle on (in cycle 0 from that one)."""
        offer = self._offers[rank] = _Offer(self._env, since, beats)
        if not self._wake.triggered:
            self._wake.succeed()
        return offer

    def _run(self) -> Process:
        env = self._env
        can_take = 0
        while True:
            if not self._offers:
                self._wake = env.event()
                yield self._wake
            first = max(can_take, min(offer.since for offer in self._offers.values()))
            if first > env.now:
                yield env.timeout(first - env.now)
            rank = min(rank for rank, offer in self._offers.items() if offer.since <= env.now)
            offer = self._offers.pop(rank)
            offer.taken.succeed()
            yield env.timeout(max(env.now + 1, self._ready_from()) - env.now)
            if self._after_reads:
                yield env.timeout(0)  # the reads accepted in this cycle were known in an earlier one
            burst = self._serve(int(env.now), offer.beats)
            self.beats += offer.beats
            self._ends.append(burst.last_beat if burst.response is None else burst.response)
            can_take = self._ends[0] + 1 if len(self._ends) == self._ends.maxlen else 0
            can_take = max(can_take, int(env.now))
            offer.accepted.succeed(burst)


class _Side:
    """What one unit has of a channel."""

    def __init__(self, env: simpy.Environment, slots: int) -> None:
        self.slots = _Count(env, slots)
        self.holds = False


class _Unit:
    """A queue, and which of its instructions are in flight."""

    def __init__(self, env: simpy.Environment) -> None:
        self.queue: deque[int] = deque()
        self.waiting = _Count(env)
        self.room = _Count(env, QUEUE_DEPTH)
        self.in_flight = _Count(env, timing.IN_FLIGHT)
        self.spans: list[tuple[int, int]] = []


class _Machine:
    """One run of one program."""

    def __init__(
        self,
        program: list[Instruction],
        limits: Limits,
        memory: FixedMemory,
        port: Port,
        cycles: Cycles | None,
    ) -> None:
        self.program, self.limits, self.placement = program, limits, port.placement
        self.uses = [uses(instruction, limits) for instruction in program]
        self.env = env = simpy.Environment()
        self.arrays = [limits.array_shape(form) for form in limits.formats]
        self.array = IDLE
        self.cycles = None if cycles is None else iter(cycles)
        clock = FixedMemoryTiming(memory)
        self.beat_cycles = memory.beat_cycles
        self.reads = _Addresses(
            env, port.outstanding_reads, clock.read, lambda: clock.read_ready_from, after_reads=False
        )
        self.writes = _Addresses(
            env, port.outstanding_writes, clock.write, lambda: clock.write_ready_from, after_reads=True
        )
        self.producers = {channel: _Side(env, SLOTS) for channel in Channel}
        self.consumers = {channel: _Side(env, 0) for channel in Channel}
        self.units = {op: _Unit(env) for op in _OPS.values()}
        self.chunk_room = _Count(env, _CHUNKS)
        self.chunks: list[simpy.Event] = [env.event() for _ in range(-(-len(program) // _CHUNK_WORDS))]
        self.taken, self.pushed, self.started, self.done = ([-1] * len(program) for _ in range(4))
        self.end = -1
        works: dict[Op, Work] = {
            Op.LOAD: self._load,
            Op.EXECUTE: self._execute,
            Op.VECTOR: self._vector,
            Op.STORE: self._store,
        }
        env.process(self._request())
        env.process(self._fetch())
        for op, work in works.items():
            env.process(self._run_unit(self.units[op], work))

    @property
    def now(self) -> int:
        """The cycle."""
        return int(self.env.now)

    # --- The fetcher ---

    def _request(self) -> Process:
        """Chunk after chunk, two ahead of the instructions."""
        for number, chunk in enumerate(self.chunks):
            yield from self.chunk_room.take()
            since = self.now + 1 if number else 0
            words = min(_CHUNK_WORDS, len(self.program) - number * _CHUNK_WORDS)
            offer = self.reads.offer(0, since, fetch_beats(words, self.limits.port_bytes))
            _when(offer.accepted, chunk.succeed)
            yield offer.taken

    def _fetch(self) -> Process:
        env = self.env
        burst = Burst(0, 0)
        for index, instruction in enumerate(self.program):
            chunk, place = divmod(index, _CHUNK_WORDS)
            if place == 0:
                burst = yield self.chunks[chunk]
            beat = fetch_beats(place + 1, self.limits.port_bytes) - 1
            there = burst.first_beat + beat * self.beat_cycles + SHOWN + 1
            if there > self.now:
                yield env.timeout(there - self.now)
            self.taken[index] = self.now
            if place == _CHUNK_WORDS - 1:
                self.chunk_room.give()
            if isinstance(instruction, End):
                yield env.timeout(timing.check_cycles(Op.END))
                self.end = self.now
                return
            op = _OPS[type(instruction)]
            yield env.timeout(timing.check_cycles(op))
            unit = self.units[op]
            yield from unit.room.take()
            self.pushed[index] = self.now
            unit.queue.append(index)
            unit.waiting.give_next()
            yield env.timeout(1)

    # --- The units ---

    def _run_unit(self, unit: _Unit, work: Work) -> Process:
        """The queue in order; `work` returns in the first cycle in which the engine is ready again."""
        while True:
            yield from unit.waiting.take()
            index = unit.queue.popleft()
            for use in self.uses[index]:
                side = self._side(use.channel, use.produces)
                if not side.holds:
                    yield from side.slots.take()
                side.holds = not use.last
            yield from unit.in_flight.take()
            self.started[index] = self.now
            unit.room.give_next()
            yield from work(index, self.program[index])

    def _side(self, channel: Channel, produces: bool) -> _Side:
        return (self.producers if produces else self.consumers)[channel]

    def _finish(self, index: int, cycle: int) -> None:
        """The instruction's last cycle is known: what it gives is there from the next one on."""
        self.done[index] = cycle
        unit = self.units[_OPS[type(self.program[index])]]
        unit.spans.append((self.started[index], cycle))

        def give(_: object) -> None:
            unit.in_flight.give()
            for use in self.uses[index]:
                if use.last:
                    self._side(use.channel, not use.produces).slots.give()

        _when(self.env.timeout(cycle + 1 - self.now), give)

    def _load(self, index: int, load: Load) -> Process:
        last = None
        for beats in self._bursts(load):
            last = self.reads.offer(1, self.now + 1, beats)
            yield last.taken
        assert last is not None, "a Load has a beat"
        _when(last.accepted, lambda burst: self._finish(index, burst.last_beat + SHOWN))
        yield self.env.timeout(1)

    def _execute(self, index: int, execute: Execute) -> Process:
        ready = self.now + timing.EXECUTE_FILL
        shape = self.arrays[execute.format]
        if self.cycles is None:
            pattern = _slices(execute.k, execute.group, self.limits.slice_steps)
            passes = [PassRun(execute.m, length, count) for length, count in pattern]
            found = run_passes(shape, self.array, ready, passes)
            self.array, finish, again = found.state, found.finish, found.weights_done
        else:
            assert isinstance(shape, BroadcastShape), "only tiles skip"
            self.array, finish = run_counted(shape, self.array, ready, execute.m, next(self.cycles))
            again = self.array.stream_free
        self._finish(index, finish + timing.execute_drain(self.limits))
        yield self.env.timeout(again - self.now)

    def _vector(self, index: int, vector: Vector) -> Process:
        cycles = timing.vector_slots(vector, self.limits) + timing.VECTOR_DRAIN
        self._finish(index, self.now + cycles)
        yield self.env.timeout(cycles + 1)

    def _store(self, index: int, store: Store) -> Process:
        yield self.env.timeout(timing.STORE_FILL - 1)
        last = None
        for beats in self._bursts(store):
            last = self.writes.offer(0, self.now + 1, beats)
            yield last.taken
        assert last is not None, "a Store has a beat"
        burst = yield last.accepted
        done = burst.response + SHOWN
        self._finish(index, done)
        yield self.env.timeout(done + 1 - self.now)

    def _bursts(self, rows: Load | Store) -> Generator[int, None, None]:
        port_bytes = self.limits.port_bytes
        for row in range(rows.rows):
            address = self.placement.regions[rows.region] + (rows.offset + row * rows.stride) * port_bytes
            for _, beats in bursts(address, rows.beats, port_bytes):
                yield beats

    def run(self) -> Run:
        self.env.run()
        assert self.end >= 0, "a legal program reaches its End"
        assert -1 not in self.done[:-1], "a legal program's instructions are all done"
        spans = [self.units[op].spans for op in UNITS]
        last = max(self.done[:-1], default=-1)
        counters = Counters(
            max(last + 1, self.end) + 1,
            len(self.program) - 1,
            self.reads.beats,
            self.writes.beats,
            *(busy_cycles(each) for each in spans),
        )
        cycles = zip(self.taken, self.pushed, self.started, self.done, strict=True)
        times = [InstructionTimes(*each) for each in cycles]
        return Run(counters, (*times[:-1], InstructionTimes(self.taken[-1])))


def _slices(k: int, group: int, steps: int | None) -> list[tuple[int, int]]:
    """Runs of equal slices of a reduction: (length, how many)."""
    found: list[tuple[int, int]] = []
    for start in range(0, k, group):
        size = min(group, k - start)
        for at in range(0, size, steps or size):
            length = min(steps or size, size - at)
            if found and found[-1][0] == length:
                found[-1] = length, found[-1][1] + 1
            else:
                found.append((length, 1))
    return found


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
    """Run a program of instructions or 128-bit words from the first cycle to the last.

    Parameters
        region_beats : size of each of the 4 regions of memory, in beats
        outstanding_reads, outstanding_writes : bursts that the memory port keeps open, 1..64
        placement : where program and regions stand; None: `arch.isa.placement.place`
        contents : the 4 regions' bytes before the run; a machine that skips digits needs them (`isa.tile_cycles`)

    ProgramError, with the validator's verdict, for a program that does not run to its End; ConfigError for words after
    the first End, and for region sizes, a port or a placement that cannot be.
    """
    found = require_legal(program, limits, region_beats)
    port = Port.of(len(found), limits, region_beats, outstanding_reads, outstanding_writes, placement)
    cycles = tile_cycles(found, limits, region_beats, contents) if limits.skips else None
    return _Machine(found, limits, memory, port, cycles).run()
