"""The rules of arch.pe.stream.StreamSpec a cycle at a time: what a streaming PE's ports must show."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.arch.pe.stream import StreamSpec


@dataclass(frozen=True)
class Offer:
    """A step on the stream: its number, its cycles, `first` and `last`."""

    number: int
    cycles: int
    first: bool
    last: bool


class StreamModel:
    """A streaming PE without its arithmetic: it tells which steps a sum on offer holds, and when.

    `shown` is the list of step numbers of the sum on offer, or None; a sum that began before the last reset is not
    comparable and shown as an empty list.
    """

    def __init__(self, spec: StreamSpec, latency_cycles: int | None = None) -> None:
        latency = spec.timing.latency_cycles if latency_cycles is None else latency_cycles
        self.pipe: list[Offer | None] = [None] * (latency - 1)
        self.phase = 0
        self.acc: list[int] | None = None
        self.offered = False

    @property
    def shown(self) -> list[int] | None:
        return (self.acc or []) if self.offered else None

    def ready(self, cycles: int, sum_ready: bool) -> bool:
        """`step.ready` with a step of `cycles` cycles on offer."""
        return (not self.offered or sum_ready) and self.phase == cycles - 1

    def step(self, offer: Offer | None, sum_ready: bool, rst: bool) -> bool:
        """The rising edge after a cycle with these inputs; returns whether the step was taken."""
        taken = False
        if not self.offered or sum_ready:
            entering: Offer | None = None
            if offer is not None:
                taken = self.phase == offer.cycles - 1
                self.phase = 0 if taken else self.phase + 1
                entering = offer if taken else None
            *self.pipe, leaving = [entering, *self.pipe]
            self.offered = leaving is not None and leaving.last
            if leaving is not None:
                if leaving.first:
                    self.acc = [leaving.number]
                elif self.acc is not None:
                    self.acc = [*self.acc, leaving.number]
        if rst:
            self.pipe, self.phase, self.offered, self.acc = [None] * len(self.pipe), 0, False, None
            return False
        return taken
