"""The memory side of `stepped`: the memory, the memory port, and the engines of Load and Store, as registers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.instructions import Load, Store
from bitwright.arch.isa.limits import Limits


class Slave:
    """The memory: one data bus, bursts in order of acceptance."""

    def __init__(self, memory: FixedMemory) -> None:
        self.memory = memory
        self.order: deque[list[Any]] = deque()  # [is a write, first cycle, beats, beats done]
        self.responses: deque[int] = deque()
        self.reads_open = self.writes_open = self.bus_free = 0

    def show(self, cycle: int) -> None:
        self.arready = self.reads_open < self.memory.reads
        self.awready = self.writes_open < self.memory.writes
        self.rvalid = self.wready = self.last = False
        if self.order:
            write, first, beats, done = self.order[0]
            if cycle == first + done * self.memory.beat_cycles:
                self.rvalid, self.wready, self.last = not write, write, done + 1 == beats
        self.bvalid = bool(self.responses) and self.responses[0] == cycle

    def clock(self, cycle: int, read: int, write: int) -> None:
        """`read` and `write`: beats of a burst whose address is accepted in this cycle, 0 for none."""
        if self.rvalid or self.wready:
            self.order[0][3] += 1
            if self.last:
                self.order.popleft()
                self.reads_open -= self.rvalid
                if self.wready:
                    self.responses.append(cycle + self.memory.response_cycles)
        if self.bvalid:
            self.responses.popleft()
            self.writes_open -= 1
        for beats, is_write in ((read, False), (write, True)):
            if beats:
                first = max(cycle + self.memory.latency_cycles, self.bus_free)
                self.bus_free = first + beats * self.memory.beat_cycles
                self.order.append([is_write, first, beats, 0])
        self.reads_open += read > 0
        self.writes_open += write > 0


class Splitter:
    """Bursts of a Load or a Store, one after the other."""

    def __init__(self, limits: Limits, bases: Sequence[int]) -> None:
        self.port_bytes, self.bases = limits.port_bytes, bases
        self.rows_left = 0

    @property
    def valid(self) -> bool:
        return self.rows_left > 0

    @property
    def beats(self) -> int:
        return min(self.beats_left, 256, (4096 - self.address % 4096) // self.port_bytes)

    @property
    def final(self) -> bool:
        return self.rows_left == 1 and self.beats == self.beats_left

    def clock(self, start: Load | Store | None, taken: bool) -> None:
        if taken:
            length = self.beats
            self.address += length * self.port_bytes
            self.beats_left -= length
            if not self.beats_left:
                self.rows_left -= 1
                self.row += self.of.stride * self.port_bytes
                self.address, self.beats_left = self.row, self.of.beats
        if start is not None:
            self.of = start
            self.row = self.address = self.bases[start.region] + start.offset * self.port_bytes
            self.rows_left, self.beats_left = start.rows, start.beats


class LoadEngine:
    def __init__(self, limits: Limits, bases: Sequence[int]) -> None:
        self.splitter = Splitter(limits, bases)
        self.awaited: deque[int] = deque()  # beats that are still to come, of each Load
        self.newest = 0

    def show(self, port: Port) -> None:
        self.ready = not self.splitter.valid
        self.done = port.load_beat and self.awaited[0] == 1

    def clock(self, start: Load | None, taken: bool, port: Port) -> None:
        if port.load_beat:
            self.awaited[0] -= 1
            if not self.awaited[0]:
                self.awaited.popleft()
        if start is not None:
            assert self.ready
            self.awaited.append(start.rows * start.beats)
        self.splitter.clock(start, taken)


class StoreEngine:
    def __init__(self, limits: Limits, bases: Sequence[int]) -> None:
        self.splitter = Splitter(limits, bases)
        self.busy = self.filled = self.arriving = False
        self.to_read = self.fifo = self.unanswered = 0
        self.room = 4

    def show(self, port: Port) -> None:
        self.ready = not self.busy
        self.offers = self.splitter.valid and self.filled
        self.done = port.response and self.unanswered == 1 and not self.splitter.valid

    def clock(self, start: Store | None, taken: bool, leaves: bool, port: Port) -> None:
        reads = self.to_read > 0 and self.room > 0
        self.room += leaves - reads
        self.fifo += self.arriving - leaves
        assert self.fifo >= 0
        self.filled |= self.arriving
        self.arriving = reads
        self.to_read -= reads
        self.unanswered += taken - port.response
        self.busy &= not self.done
        if start is not None:
            assert self.ready
            assert not self.to_read
            assert not self.fifo
            self.busy, self.filled, self.to_read = True, False, start.rows * start.beats
        self.splitter.clock(start, taken)


class Port:
    """MemoryPort: address registers, and what comes back a cycle later."""

    def __init__(self, most_reads: int, most_writes: int) -> None:
        self.most_reads, self.most_writes = most_reads, most_writes
        self.ar = self.aw = 0  # beats of the burst on the pins; 0: VALID is low
        self.owners: deque[str] = deque()
        self.reads_open = self.writes_open = self.owed = 0
        self.fetch_beat = self.load_beat = self.response = False

    def show(self, slave: Slave) -> None:
        self.can_read = (not self.ar or slave.arready) and self.reads_open < self.most_reads
        self.can_write = (not self.aw or slave.awready) and self.writes_open < self.most_writes

    def clock(self, slave: Slave, read: tuple[str, int] | None, write: int) -> None:
        self.fetch_beat = slave.rvalid and self.owners[0] == "fetch"
        self.load_beat = slave.rvalid and self.owners[0] == "load"
        self.response = slave.bvalid
        if slave.rvalid and slave.last:
            self.owners.popleft()
        self.reads_open += (read is not None) - (slave.rvalid and slave.last)
        self.writes_open += (write > 0) - slave.bvalid
        self.owed += (write > 0) - (slave.wready and slave.last)
        if read is not None:
            self.owners.append(read[0])
            self.ar = read[1]
        elif slave.arready:
            self.ar = 0
        if write:
            self.aw = write
        elif slave.awready:
            self.aw = 0
