"""Cycle model of the bit-serial PE for protocol tests: stages as places for tokens, sums by the golden arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import SPECIALS, Encoding

SCALE_CYCLES = BitSerial.scale_bits


@dataclass(frozen=True)
class Slice:
    """One beat of the slice stream; `act` and `code` are bit patterns, lane 0 first.

    channel_end : bool           Counts only together with `group_end`.
    """

    act: tuple[int, ...]
    code: tuple[int, ...]
    encoding: int
    selector: int
    scale: int
    group_end: bool
    channel_end: bool


@dataclass(frozen=True)
class Token:
    """What a stage holds: a term, or a group or part on its way; `total` is the channel's sum at its end."""

    group_end: bool
    channel_end: bool
    total: int


class ChannelSum:
    """The channel whose slices are being taken, summed up by the golden arithmetic.

    Members
        specials : list of float   The special values as they are programmed.
        fresh : bool             The next slice begins a channel.
    """

    def __init__(self, spec: BitSerial) -> None:
        self.spec = spec
        self.specials = [0.0] * SPECIALS
        self.drop()

    def drop(self) -> None:
        """A clear or a reset: the next slice begins a channel."""
        self.fresh = True
        self.acc: npt.NDArray[np.float64] = np.zeros(())
        self.column: npt.NDArray[np.float32] = np.zeros((), np.float32)

    def add(self, item: Slice) -> int:
        """A slice was taken; the fp32 bits of the channel's sum so far."""
        self.fresh = False
        self.acc = self.spec.accumulate(
            self.acc, np.asarray(item.act, np.uint16).view(np.float16), item.code, encoding=Encoding(item.encoding),
            selector=item.selector, specials=tuple(self.specials),
        )  # fmt: skip
        if item.group_end:
            self.column = self.spec.dequantise(self.column, self.acc, item.scale)
            self.acc = np.zeros(())
        bits = int(self.column.view(np.uint32))
        if item.group_end and item.channel_end:
            self.drop()
        return bits


class BitSerialModel:
    """The rules of rtl.pe.bit_serial.BitSerial, stepped a cycle at a time.

    offered : int or None        The fp32 bits of the sum on offer in this cycle.
    """

    def __init__(self, spec: BitSerial) -> None:
        self.spec, self.channel = spec, ChannelSum(spec)
        self.offered: int | None = None
        self._drop()

    def _drop(self) -> None:
        self.term = 0
        self.pipe: list[Token | None] = [None] * (4 + self.spec.pipeline)  # encoded .. step
        self.scaling: tuple[Token, int] | None = None
        self.scaled: Token | None = None
        self.part: Token | None = None
        self.channel.drop()

    def _flows(self, column_ready: bool) -> tuple[bool, bool, bool, bool]:
        """(a part leaves, a scaled group may leave, the scale stage may load, the stages before it move)."""
        blocked = self.part is not None and self.part.channel_end and self.offered is not None and not column_ready
        part_go = self.part is not None and not blocked
        scaled_go = self.part is None or part_go
        ended = self.scaling is None or self.scaling[1] == SCALE_CYCLES - 1
        free = self.scaling is None or (ended and (self.scaled is None or scaled_go))
        waits = self.pipe[-1] is not None and self.pipe[-1].group_end and not free
        return part_go, scaled_go, free, not waits

    def ready(self, encoding: int, column_ready: bool, clear: bool) -> bool:
        """slice.ready in this cycle."""
        last = Encoding(encoding).terms - 1 if encoding < len(Encoding) else 0
        return self._flows(column_ready)[3] and self.term == last and not clear

    def step(self, offer: Slice | None, *, column_ready: bool, clear: bool, rst: bool) -> None:
        """The rising edge after a cycle with these inputs."""
        part_go, scaled_go, free, moves = self._flows(column_ready)
        taken = offer is not None and self.ready(offer.encoding, column_ready, clear)
        if column_ready:
            self.offered = None
        if part_go and self.part is not None and self.part.channel_end and not clear:
            self.offered = self.part.total
        if clear or rst:
            self._drop()
            self.offered = None if rst else self.offered
            return
        leaving = self.scaling[0] if self.scaling is not None and free else None
        if scaled_go:
            self.part = self.scaled
        if self.scaled is None or scaled_go:
            self.scaled = leaving
        if free:
            loads = self.pipe[-1] if self.pipe[-1] is not None and self.pipe[-1].group_end else None
            self.scaling = None if loads is None else (loads, 0)
        elif self.scaling is not None:
            self.scaling = (self.scaling[0], min(self.scaling[1] + 1, SCALE_CYCLES - 1))
        if moves:
            self.pipe = [self._encode(offer, taken), *self.pipe[:-1]]

    def _encode(self, offer: Slice | None, taken: bool) -> Token | None:
        if offer is None:
            return None
        if not taken:
            self.term += 1
            return Token(False, False, 0)
        self.term = 0
        total = self._add(offer)
        return Token(offer.group_end, offer.channel_end, total)

    def _add(self, item: Slice) -> int:
        """The fp32 bits of the channel's sum after a slice that was taken."""
        return self.channel.add(item)
