"""The accelerator as registers, one cycle at a time: slow, and written from the hardware's rules alone.

It shares nothing with the engines but the instruction set's own tables. In every cycle each part first shows what its
registers say (`show`), then all of them take their next values (`clock`); nothing in `show` changes a register. So when
RTL and simulator disagree, this says which of them keeps the rules. Legal programs only.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa import timing
from bitwright.arch.isa.counters import Counters, InstructionTimes
from bitwright.arch.isa.extents import Use, uses
from bitwright.arch.isa.instructions import UNITS, End, Execute, Instruction, Load, Op, Store, Vector
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.placement import Placement
from stepped_array import ExecuteEngine
from stepped_memory import LoadEngine, Port, Slave, StoreEngine

OPS = {Load: Op.LOAD, Execute: Op.EXECUTE, Vector: Op.VECTOR, Store: Op.STORE, End: Op.END}
QUEUE_DEPTH = 4


@dataclass(frozen=True)
class Entry:
    """What stands in a queue."""

    index: int
    instruction: Any
    uses: tuple[Use, ...]


class VectorEngine:
    def __init__(self, limits: Limits) -> None:
        self.chunks = -(-limits.cols // (limits.port_bytes // 4))
        self.work: deque[str] = deque()
        self.wait: int | None = None

    def show(self) -> None:
        self.ready = not self.work and self.wait is None
        self.done = self.wait == 0

    def clock(self, start: Vector | None) -> None:
        if self.wait is not None:
            self.wait = None if self.wait == 0 else self.wait - 1
        if self.work:
            self.work.popleft()
            if not self.work:
                self.wait = timing.VECTOR_DRAIN - 1
        if start is not None:
            assert self.ready
            for _ in range(start.m):
                self.work.extend(["scale"] * (start.scale and not start.by_column))
                for _ in range(self.chunks):
                    read = ["scales"] * start.by_column + ["bias"] * start.bias + ["residual"] * start.residual
                    self.work.extend(read or ["nothing"])


class Link:
    """A channel: slot tokens of the producer and the consumer, fill levels."""

    def __init__(self) -> None:
        self.tokens = {True: 2, False: 0}
        self.holds = {True: False, False: False}
        self.slot = {True: 0, False: 0}
        self.fill = [0, 0]

    def can_take(self, use: Use) -> bool:
        return self.holds[use.produces] or self.tokens[use.produces] > 0

    def written(self, use: Use) -> bool:
        """The rule of unwritten reads and gaps, by the registers."""
        fill = self.fill[self.slot[use.produces]]
        if use.produces and not self.holds[True]:
            fill = 0
        return all(extent.end <= fill if use.reads else extent.at <= fill for extent in use.extents)

    def start(self, use: Use) -> None:
        side = use.produces
        if not self.holds[side]:
            self.tokens[side] -= 1
            self.fill[self.slot[side]] *= not side
        if side:
            slot = self.slot[side]
            self.fill[slot] = max(self.fill[slot], *(extent.end for extent in use.extents))
        self.holds[side] = not use.last
        self.slot[side] ^= use.last

    def done(self, use: Use) -> None:
        self.tokens[not use.produces] += use.last


class UnitControl:
    def __init__(self, links: dict[Channel, Link]) -> None:
        self.links = links
        self.queue: deque[Entry] = deque()
        self.flying: deque[Entry] = deque()
        self.in_flight = self.busy_cycles = 0

    def show(self, engine: Any) -> None:
        self.room = len(self.queue) < QUEUE_DEPTH
        self.starts: Entry | None = None
        self.ends: Entry | None = self.flying[0] if engine.done else None
        if self.queue and engine.ready and self.in_flight < timing.IN_FLIGHT:
            head = self.queue[0]
            if all(self.links[use.channel].can_take(use) for use in head.uses):
                assert all(self.links[use.channel].written(use) for use in head.uses), f"unwritten: {head}"
                self.starts = head

    def clock(self, pushed: Entry | None) -> None:
        self.busy_cycles += self.in_flight > 0
        self.in_flight += (self.starts is not None) - (self.ends is not None)
        if self.ends is not None:
            self.flying.popleft()
            for use in self.ends.uses:
                self.links[use.channel].done(use)
        if self.starts is not None:
            self.flying.append(self.queue.popleft())
            for use in self.starts.uses:
                self.links[use.channel].start(use)
        if pushed is not None:
            assert self.room
            self.queue.append(pushed)


class Fetcher:
    def __init__(self, program: Sequence[Instruction], limits: Limits) -> None:
        self.program, self.limits = program, limits
        self.bytes = 16 * len(program)
        self.received = self.requested = self.freed = self.index = self.wait = 0
        self.held = self.ended = False

    def show(self) -> None:
        left = self.bytes - 256 * self.requested
        self.offers = left > 0 and self.requested < self.freed + 2
        self.beats = -(-min(256, left) // self.limits.port_bytes)
        checked = self.held and self.wait == 0
        is_end = self.held and isinstance(self.program[self.index], End)
        self.ends = self.ended or (checked and is_end)
        self.can_push = checked and not is_end
        there = self.received >= 16 * (self.index + 1)
        self.takes = not self.held and not self.ended and there

    def clock(self, taken: bool, pushed: bool, port: Port) -> None:
        self.requested += taken
        self.received += self.limits.port_bytes * port.fetch_beat
        self.ended = self.ends
        self.wait -= self.wait > 0
        if self.takes:
            self.held = True
            self.wait = timing.check_cycles(OPS[type(self.program[self.index])]) - 1
            self.freed += (self.index + 1) % 16 == 0
        if pushed:
            self.held = False
            self.index += 1


def step_through(
    program: Sequence[Instruction],
    limits: Limits,
    memory: FixedMemory,
    placement: Placement,
    outstanding_reads: int,
    outstanding_writes: int,
    met: Counter[str] | None = None,
) -> tuple[Counters, tuple[InstructionTimes, ...]]:
    """A legal program, cycle by cycle, to its end; `met` counts the cycles in which two want the same."""
    links = {channel: Link() for channel in Channel}
    units = {op: UnitControl(links) for op in UNITS}
    load, store = LoadEngine(limits, placement.regions), StoreEngine(limits, placement.regions)
    execute, vector = ExecuteEngine(limits), VectorEngine(limits)
    engines: dict[Op, Any] = {Op.LOAD: load, Op.EXECUTE: execute, Op.VECTOR: vector, Op.STORE: store}
    slave, port, fetcher = Slave(memory), Port(outstanding_reads, outstanding_writes), Fetcher(program, limits)
    times = [InstructionTimes(-1) for _ in program]
    instructions = beats_read = beats_written = cycle = 0

    def note(index: int, **what: int) -> None:
        times[index] = times[index]._replace(**what)

    while True:
        slave.show(cycle)
        port.show(slave)
        load.show(port)
        store.show(port)
        execute.show()
        vector.show()
        for op, unit in units.items():
            unit.show(engines[op])
        fetcher.show()

        fetch_taken = port.can_read and fetcher.offers
        load_taken = port.can_read and load.splitter.valid and not fetcher.offers
        store_taken = port.can_write and store.offers
        read = ("fetch", fetcher.beats) if fetch_taken else ("load", load.splitter.beats) if load_taken else None
        write = store.splitter.beats if store_taken else 0
        wvalid = store.fifo > 0 and port.owed > 0
        assert wvalid or not slave.wready, f"cycle {cycle}: no beat to write"
        pushes: Op | None = None
        if fetcher.can_push:
            op = OPS[type(program[fetcher.index])]
            pushes = op if units[op].room else None
        quiet = fetcher.ends and not any(unit.starts or unit.in_flight for unit in units.values())

        if met is not None:
            met["fetch and load ask at once"] += port.can_read and fetcher.offers and load.splitter.valid
            met["read and write accepted at once"] += bool(port.ar and slave.arready and port.aw and slave.awready)
            met["read waits for the memory"] += port.ar > 0 and not slave.arready
            met["write waits for the memory"] += port.aw > 0 and not slave.awready
            met["read waits for the port"] += load.splitter.valid and port.reads_open == port.most_reads
            met["write waits for the port"] += store.offers and port.writes_open == port.most_writes
            met["fetcher waits for a queue"] += fetcher.can_push and pushes is None
            met["fetcher waits for memory"] += not (fetcher.held or fetcher.ended or fetcher.takes)
            for op, unit in units.items():
                if unit.queue and unit.starts is None:
                    blocked = engines[op].ready and unit.in_flight < timing.IN_FLIGHT
                    met[f"{op.name.lower()} waits for a slot"] += blocked
                    met[f"{op.name.lower()} has all in flight"] += unit.in_flight == timing.IN_FLIGHT

        if fetcher.takes:
            note(fetcher.index, taken=cycle)
        if pushes is not None:
            note(fetcher.index, pushed=cycle)
        for unit in units.values():
            if unit.starts is not None:
                note(unit.starts.index, started=cycle)
            if unit.ends is not None:
                note(unit.ends.index, done=cycle)
        instructions += pushes is not None
        beats_read += slave.rvalid
        beats_written += slave.wready

        accepted = (port.ar if slave.arready else 0, port.aw if slave.awready else 0)
        starting = {op: None if unit.starts is None else unit.starts.instruction for op, unit in units.items()}
        for op, unit in units.items():
            head = program[fetcher.index] if op is pushes else None
            unit.clock(None if head is None else Entry(fetcher.index, head, uses(head, limits)))
        fetcher.clock(fetch_taken, pushes is not None, port)
        load.clock(starting[Op.LOAD], load_taken, port)
        store.clock(starting[Op.STORE], store_taken, slave.wready, port)
        execute.clock(starting[Op.EXECUTE])
        vector.clock(starting[Op.VECTOR])
        port.clock(slave, read, write)
        slave.clock(cycle, *accepted)
        cycle += 1
        if quiet:
            break
        assert cycle < 1_000_000, "the program does not end"
    busy = [units[op].busy_cycles for op in UNITS]
    return Counters(cycle, instructions, beats_read, beats_written, *busy), tuple(times)
