"""What each unit of a machine does when: the raw material of a picture of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """One unit is busy with one thing.

    Fields
        unit                     "dram" (its channel moves bytes), "array" (from the first activation that it takes to
                                 its last output in the buffer), "vector"; of waits "array waits"
        name                     what it is busy with, or waits for
        start_cycle, end_cycle   busy in start .. end - 1
        size_bytes               moved, of a transfer
    """

    unit: str
    name: str
    start_cycle: int
    end_cycle: int
    size_bytes: int = 0

    def moved(self, cycles: int) -> Interval:
        """The same, `cycles` later."""
        start, end = self.start_cycle + cycles, self.end_cycle + cycles
        return Interval(self.unit, self.name, start, end, self.size_bytes)
