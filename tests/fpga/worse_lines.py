"""Serial lines that drop, change, double and delay bytes, and boards that are reset; all from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from bitwright.fpga.simulated import Line
from board_model import BoardModel

_STOP = 1 << 9


@dataclass
class WorseLine(Line):
    """Every so many bytes on average something happens, to one of the ten bits of a character or all of it.

    Drawn anew for each direction. `to_board` also delays by up to `most_idle_bits`.
    """

    seed: int
    every: int
    most_idle_bits: int = 20_000

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.faults = 0

    def _happens(self) -> bool:
        happens = self.draw.randrange(self.every) == 0
        self.faults += happens
        return happens

    def to_board(self, byte: int) -> Iterable[tuple[int, int]]:
        bits = _STOP | byte << 1
        if not self._happens():
            return ((bits, 0),)
        kind = self.draw.choice(("drop", "flip", "flip", "double", "delay", "noise"))
        if kind == "drop":
            return ()
        if kind == "flip":  # the start and the stop bit, too
            return ((bits ^ 1 << self.draw.randrange(10), 0),)
        if kind == "double":
            return ((bits, 0), (bits, 0))
        if kind == "delay":
            return ((bits, self.draw.randrange(self.most_idle_bits)),)
        return ((self.draw.randrange(1 << 10), 0), (bits, 20))

    def to_host(self, byte: int) -> bytes:
        if not self._happens():
            return bytes([byte])
        kind = self.draw.choice(("drop", "flip", "flip", "double", "noise"))
        if kind == "drop":
            return b""
        if kind == "flip":
            return bytes([byte ^ 1 << self.draw.randrange(8)])
        return bytes([byte, byte if kind == "double" else self.draw.randrange(256)])


def trouble(model: BoardModel, seed: int, every: int, *, resets: bool) -> None:
    """Puts the same between a host and a board model, and delays in both directions; with `resets` of the board too."""
    line, draw = WorseLine(seed, every), random.Random(seed + 1)

    def may_delay(attribute: str) -> None:
        if draw.randrange(every) == 0:
            setattr(model, attribute, draw.randrange(1, 6))
        if resets and draw.randrange(every * 20) == 0:
            draw.choice((model.reset, model.lose_power))()

    def to_board(byte: int) -> Iterable[int]:
        may_delay("held_writes")
        return [bits >> 1 & 0xFF for bits, _ in line.to_board(byte)]

    def to_host(byte: int) -> Iterable[int]:
        may_delay("held_reads")
        return line.to_host(byte)

    model.to_board, model.to_host = to_board, to_host
