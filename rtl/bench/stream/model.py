"""The rules of arch.pe.stream.StreamSpec a cycle at a time: what a streaming PE's handshake must show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """A step on the stream: the cycles that it occupies, and whether it is marked `last`."""

    cycles: int
    last: bool


class StreamModel:
    """A streaming PE without its arithmetic: when it takes a step, and when a sum is on offer.

    Members
        phase : int              Cycles that the step on offer has had.
        offered : bool           `sum.valid` in this cycle.
    """

    def __init__(self, latency_cycles: int) -> None:
        self.pipe = [False] * (latency_cycles - 1)  # whether a step marked `last` is at each stage
        self.phase = 0
        self.offered = False

    def ready(self, cycles: int, sum_ready: bool) -> bool:
        """`step.ready` with a step of `cycles` cycles on the payload, valid or not."""
        return (not self.offered or sum_ready) and self.phase == cycles - 1

    def step(self, offer: Offer | None, sum_ready: bool, rst: bool) -> bool:
        """The rising edge after a cycle with these inputs; returns whether the step was taken."""
        taken = False
        if not self.offered or sum_ready:
            if offer is not None:
                taken = self.phase == offer.cycles - 1
                self.phase = 0 if taken else self.phase + 1
            *self.pipe, self.offered = [taken and offer is not None and offer.last, *self.pipe]
        if rst:
            self.pipe, self.phase, self.offered = [False] * len(self.pipe), 0, False
            return False
        return taken
