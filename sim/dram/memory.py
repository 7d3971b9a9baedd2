"""A whole memory: equal channels behind one port, in the accelerator's cycles."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from bitwright.arch.dram import Dram
from bitwright.arch.errors import ConfigError
from bitwright.sim.dram.reference import Counts, Run
from bitwright.sim.dram.remembered import RememberedChannel, known


class Served(NamedTuple):
    """A transfer in cycles of the accelerator.

    accepts_next : from this cycle on the memory takes another transfer: all bursts of this one are in the windows of
                   their channels. Who waits for a free memory is asked then: an arbiter chooses then.
    finish : the cycle after the last data.
    """

    accepts_next: int
    finish: int


_Part = tuple[int, int, int, int]


class _Group(NamedTuple):
    first: int
    end: int
    channel: RememberedChannel


class DramChannels:
    """The memory `dram` for an accelerator of `clock_khz`, from power-up at cycle 0 with all rows closed.

    Addresses go over the channels every `interleave_bytes`. Transfers are served in the order of the calls: of two that
    wait, the caller says who is first (house rule, as in sim.engine: first come, first served). A burst that a transfer
    covers in part moves whole. Channels whose state and work are equal are worked out once.

    Cost of a call: docs/dram.md.
    Not modelled: see sim.dram.reference; and time between the accelerator and the memory.
    """

    def __init__(self, dram: Dram, clock_khz: int) -> None:
        if not isinstance(clock_khz, int) or clock_khz < 1:
            raise ConfigError(f"clock_khz = {clock_khz!r}: must be a whole number of 1 or more")
        self.dram = dram
        self._up, self._down = 10**9, clock_khz * dram.clock_ps  # clocks = cycles * up / down
        self._groups = [_Group(0, dram.channels, RememberedChannel(known(dram.device)))]
        self._line_bytes = dram.channels * dram.interleave_bytes
        self._known_parts: dict[tuple[int, int, int], list[_Part]] = {}
        self._reads = self._writes = self._closed = self._conflicts = self._refreshes = 0
        self._now = 0

    def transfer(self, address: int, size_bytes: int, write: bool, now: int) -> Served:
        """Move `size_bytes` from byte `address` on, asked for in cycle `now`, not before an earlier call's.

        ConfigError for bytes outside the memory and for a size below 1.
        """
        accepts_next, finishes = self._move(address, size_bytes, size_bytes, write, now)
        return Served(accepts_next, finishes[-1])

    def stream(self, address: int, size_bytes: int, piece_bytes: int, write: bool, now: int) -> tuple[int, list[int]]:
        """One transfer in pieces of `piece_bytes`, the last one shorter: (accepts_next, the finish of every piece).

        The same as a transfer a piece, all asked for in cycle `now`: right for loads that are asked for before the
        memory has time for them. Far faster than a call a piece.
        ConfigError for pieces that are no multiple of channels * interleave_bytes, and as for `transfer`.
        """
        whole = self.dram.channels * self.dram.interleave_bytes
        if piece_bytes < 1 or piece_bytes % whole:
            raise ConfigError(f"piece_bytes = {piece_bytes}: must be a multiple of {whole} for {self.dram.name}")
        return self._move(address, size_bytes, piece_bytes, write, now)

    def _move(self, address: int, size_bytes: int, piece_bytes: int, write: bool, now: int) -> tuple[int, list[int]]:
        if size_bytes < 1 or address < 0 or address + size_bytes > self.dram.capacity_bytes:
            raise ConfigError(
                f"transfer of {size_bytes} bytes at {address}: must be 1 or more bytes in "
                f"0..{self.dram.capacity_bytes} of {self.dram.name}"
            )
        assert now >= self._now, f"a transfer at cycle {now} after one at {self._now}"
        self._now = now
        clock = -(-now * self._up // self._down)
        pieces = -(-size_bytes // piece_bytes)
        entered, finishes = 0, [0] * pieces
        groups: list[_Group] = []
        lines, offset = divmod(address, self._line_bytes)
        base = lines * (self.dram.interleave_bytes // self.dram.device.burst_bytes)
        key = offset, size_bytes, min(piece_bytes, size_bytes)
        parts = self._known_parts.get(key)
        if parts is None:
            parts = self._known_parts[key] = self._parts(*key)
        for group in self._groups:
            first, channel = group.first, group.channel
            for end, burst, count, in_first in parts:
                cut = min(end, group.end)
                if cut <= first:
                    continue
                mine = channel if cut == group.end else channel.copy()
                if count:
                    before = mine.closed, mine.conflicts, mine.refreshes
                    run = Run(base + burst, count, write, clock)
                    if pieces == 1:
                        took, done = mine.serve(run)
                        finishes[0] = max(finishes[0], done)
                    else:
                        took = self._pieces(mine, run, in_first, piece_bytes, finishes)
                    entered = max(entered, took)
                    self._count(cut - first, count, write, mine, before)
                if groups and groups[-1].channel.same_state(mine):
                    groups[-1] = _Group(groups[-1].first, cut, groups[-1].channel)
                else:
                    groups.append(_Group(first, cut, mine))
                first = cut
        self._groups = groups
        return self._cycles(entered), [self._cycles(finish) for finish in finishes]

    def _count(
        self, channels: int, bursts: int, write: bool, channel: RememberedChannel, before: tuple[int, int, int]
    ) -> None:
        """Add a run of `channels` that are alike; (closed, conflicts, refreshes) of one of them were `before`."""
        closed, conflicts, refreshes = before
        if write:
            self._writes += channels * bursts
        else:
            self._reads += channels * bursts
        self._closed += channels * (channel.closed - closed)
        self._conflicts += channels * (channel.conflicts - conflicts)
        self._refreshes += channels * (channel.refreshes - refreshes)

    def _pieces(
        self, channel: RememberedChannel, run: Run, in_first: int, piece_bytes: int, finishes: list[int]
    ) -> int:
        """Serve a run of one channel, of which `in_first` bursts are in the first piece; raises `finishes`."""
        step = piece_bytes // (self.dram.channels * self.dram.device.burst_bytes)
        ends = [min(in_first + piece * step, run.bursts) for piece in range(len(finishes))]
        marks = sorted(set(ends) - {0})
        took, _, clocks = channel.serve_marked(run, marks)
        at = dict(zip(marks, clocks, strict=True))
        for piece, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
            if end > begin:  # a short last piece has no burst in some channels
                finishes[piece] = max(finishes[piece], at[end])
        return took

    @property
    def counts(self) -> Counts:
        """Of all channels."""
        hits = self._reads + self._writes - self._closed - self._conflicts
        return Counts(self._reads, self._writes, hits, self._closed, self._conflicts, self._refreshes)

    @property
    def refreshes(self) -> int:
        """Of all channels."""
        return self._refreshes

    @property
    def read_bits(self) -> int:
        """Bits that reads moved, whole bursts: what `arch.costs.DramCost.pj_per_bit` is for."""
        return self._reads * self.dram.device.burst_bytes * 8

    @property
    def write_bits(self) -> int:
        """The same of writes."""
        return self._writes * self.dram.device.burst_bytes * 8

    def _cycles(self, clock: int) -> int:
        return -(-clock * self._down // self._up)

    def _parts(self, address: int, size_bytes: int, piece_bytes: int) -> list[_Part]:
        """Ranges of channels with an equal part: (end of range, first burst, bursts, of these in the first piece)."""
        channels, block = self.dram.channels, self.dram.interleave_bytes
        edges = {at // block % channels for at in (address, address + piece_bytes - 1, address + size_bytes - 1)}
        parts: list[_Part] = []
        first = 0
        for end in sorted((edges | {edge + 1 for edge in edges} | {channels}) - {0}):
            burst, count = self._part(first, address, size_bytes)
            in_first = count if piece_bytes == size_bytes else self._part(first, address, piece_bytes)[1]
            part = (end, burst, count, in_first)
            if parts and parts[-1][1:] == part[1:]:
                parts.pop()
            parts.append(part)
            first = end
        return parts

    def _part(self, channel: int, address: int, size_bytes: int) -> tuple[int, int]:
        """(first burst, bursts) of a transfer in one channel."""
        block, channels, last = self.dram.interleave_bytes, self.dram.channels, address + size_bytes - 1
        first_block, last_block = address // block, last // block
        mine = first_block + (channel - first_block) % channels
        if mine > last_block:
            return 0, 0
        end = last_block - (last_block - channel) % channels
        low = mine // channels * block + (address % block if mine == first_block else 0)
        high = end // channels * block + (last % block if end == last_block else block - 1)
        burst_bytes = self.dram.device.burst_bytes
        return low // burst_bytes, high // burst_bytes - low // burst_bytes + 1
