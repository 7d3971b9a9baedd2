"""The Execute engine of `stepped`: slices offered to one of three arrays, and results on their way to be written.

An array shows whether it takes operands in this cycle (`takes`); `clock` says (that the tile's last operand is taken,
that the last result of an instruction leaves the grid's registers and enters the line to the accumulators).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.arch.isa import timing
from bitwright.arch.isa.instructions import Execute
from bitwright.arch.isa.limits import Limits


@dataclass(frozen=True)
class Tile:
    """A slice: m tokens by k elements; the last one of its instruction."""

    m: int
    k: int
    step_cycles: int
    last: bool


class WeightStationary:
    """Weight rows into shadow registers, one tile ahead of the vectors that stream; or behind the last of them."""

    def __init__(self, limits: Limits) -> None:
        self.latency = limits.rows + limits.cols + limits.pe.zero_point_column - 1
        self.load, self.row = limits.load, 0
        self.queued: Tile | None = None  # loaded, or being so, and its vectors have not begun
        self.streams: Tile | None = None
        self.left = 0

    def show(self, tile: Tile | None) -> None:
        self.begins = self.left == 0 and self.queued is not None
        if self.load.double_buffered:
            free = self.queued is None or self.begins
        elif self.begins:
            assert self.queued is not None
            free = self.queued.m == 1
        else:
            free = self.queued is None and self.left <= 1
        self.takes = tile is not None and (self.row > 0 or free)

    def clock(self, tile: Tile | None) -> tuple[bool, bool]:
        if self.begins:
            assert self.queued is not None
            self.streams, self.left, self.queued = self.queued, self.queued.m, None
        leaves = self.streams is not None and self.left == 1 and self.streams.last
        self.left -= self.left > 0
        if not self.takes:
            return False, leaves
        assert tile is not None
        if self.row == 0:
            self.queued = tile
        self.row += self.load.rows
        if self.row >= tile.k:
            self.row = 0
        return self.row == 0, leaves


class OutputStationary:
    """Elements of both operands; after the last one results move up a column, and out of it at the top."""

    def __init__(self, limits: Limits) -> None:
        self.latency = limits.cols + limits.pe.zero_point_column - 1
        self.element = self.drain_left = 0
        self.drains: Tile | None = None

    def show(self, tile: Tile | None) -> None:
        self.takes = tile is not None and (self.element > 0 or self.drain_left <= tile.k)

    def clock(self, tile: Tile | None) -> tuple[bool, bool]:
        leaves = self.drains is not None and self.drain_left == 1 and self.drains.last
        self.drain_left -= self.drain_left > 0
        if not self.takes:
            return False, leaves
        assert tile is not None
        self.element = (self.element + 1) % tile.k
        if self.element == 0:
            self.drains, self.drain_left = tile, 2 * tile.m - 1
        return self.element == 0, leaves


class BroadcastTile:
    """Steps of some cycles each; a tile's last waits until the registers of the results are free when it ends."""

    def __init__(self, limits: Limits) -> None:
        assert limits.tile is not None
        self.latency, self.lanes = limits.tile.latency_cycles, limits.lanes
        self.busy = limits.tile.sum_cycles  # the places scale a sum
        self.step = self.cycle = self.rows_left = self.scaling = 0
        self.drains: Tile | None = None

    def show(self, tile: Tile | None) -> None:
        self.takes = tile is not None and (
            self.cycle > 0 or self.step < self.steps(tile) - 1 or max(self.rows_left, self.scaling) <= tile.step_cycles
        )

    def steps(self, tile: Tile) -> int:
        return len(range(0, tile.k, self.lanes))

    def clock(self, tile: Tile | None) -> tuple[bool, bool]:
        leaves = self.drains is not None and self.rows_left == 1 and self.drains.last
        self.rows_left -= self.rows_left > 0
        self.scaling -= self.scaling > 0
        if not self.takes:
            return False, leaves
        assert tile is not None
        self.cycle = (self.cycle + 1) % tile.step_cycles
        if self.cycle == 0:
            self.step = (self.step + 1) % self.steps(tile)
        ends = self.cycle == 0 and self.step == 0
        if ends:
            self.drains, self.rows_left, self.scaling = tile, tile.m, self.busy
        return ends, leaves


class ExecuteEngine:
    """Feeder and collector."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        kinds = {"ws": WeightStationary, "os": OutputStationary}
        kind = BroadcastTile if limits.template == "broadcast" else kinds[limits.stationary]
        self.array: WeightStationary | OutputStationary | BroadcastTile = kind(limits)
        self.line = deque([False] * (self.array.latency + timing.execute_drain(limits)))
        self.tiles: deque[Tile] = deque()  # of the instruction whose operands are on offer
        self.wait = 0

    def slices(self, execute: Execute) -> Iterator[int]:
        """Lengths, counted element by element."""
        steps, length = self.limits.slice_steps, 0
        for element in range(execute.k):
            place = element % execute.group
            if length and (place == 0 or (steps is not None and place % steps == 0)):
                yield length
                length = 0
            length += 1
        yield length

    @property
    def offered(self) -> Tile | None:
        return self.tiles[0] if self.tiles and self.wait == 0 else None

    def show(self) -> None:
        self.ready = not self.tiles
        self.done = self.line[0]
        self.array.show(self.offered)

    def clock(self, start: Execute | None) -> None:
        taken, leaves = self.array.clock(self.offered)
        self.line.popleft()
        self.line.append(leaves)
        self.wait -= self.wait > 0
        if taken:
            self.tiles.popleft()
        if start is not None:
            assert self.ready
            tile, name = self.limits.tile, self.limits.formats[start.format].name
            cycles = 1 if tile is None else tile.step_cycles(name)
            lengths = list(self.slices(start))
            last = len(lengths) - 1
            self.tiles.extend(Tile(start.m, k, cycles, number == last) for number, k in enumerate(lengths))
            self.wait = timing.EXECUTE_FILL - 1
