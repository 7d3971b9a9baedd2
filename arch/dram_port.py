"""The DRAM channel of a machine as its timing contract: bandwidth and latency in whole cycles."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DramPort:
    """One channel. Bandwidth is kept as integers, megabytes a second and kilohertz, so that cycles are exact.

    A transfer occupies the channel for `busy_cycles`; its last byte is there `latency_cycles` after that, while the
    channel already moves the next transfer.
    """

    mbytes_per_s: int
    clock_khz: int
    latency_cycles: int

    def busy_cycles(self, size_bytes: int) -> int:
        """Cycles that `size_bytes` occupy the channel: ceil(bytes / bytes a cycle)."""
        return -(-size_bytes * self.clock_khz // (self.mbytes_per_s * 1000))

    @property
    def bytes_per_cycle(self) -> float:
        """Peak bandwidth."""
        return self.mbytes_per_s * 1000 / self.clock_khz
