"""What an engine counts of one program."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.arch.program import Program
from bitwright.sim.memory import Memory, Waits


@dataclass(frozen=True)
class Counters:
    """What one program did. The four `cycles_*` sum to `cycles`.

    cycles_stream        the array takes activations
    cycles_array_stall   the array is held up by its own registers: weight rows still loading (weight-stationary), drain
                         chain still occupied (output-stationary)
    cycles_dram_wait     the array has nothing to do because a transfer has not arrived or left
    cycles_fill_drain    from the last operand taken to the last output written to the buffer

    `waits` says what the memory did in the cycles of `cycles_dram_wait`, and sums to it.
    """

    cycles: int
    cycles_stream: int
    cycles_array_stall: int
    cycles_dram_wait: int
    cycles_fill_drain: int
    dram_read_bytes: int
    dram_write_bytes: int
    waits: Waits

    @classmethod
    def of(
        cls, program: Program, memory: Memory, *, end: int, last_output: int, stream_end: int, streamed: int,
        waited: list[tuple[int, int]],
    ) -> Counters:  # fmt: skip
        """From the cycles in which the last store has left, the last output is in its buffer and the last operand was
        taken; the cycles of operands taken; and when the array, otherwise free to go on, waited for tokens."""
        cycles = max(end, last_output)
        waits = memory.waits([*waited, (max(last_output, stream_end), cycles)])
        return cls(
            cycles=cycles,
            cycles_stream=streamed,
            cycles_array_stall=stream_end - streamed - sum(after - first for first, after in waited),
            cycles_dram_wait=sum(waits),
            cycles_fill_drain=max(0, last_output - stream_end),
            dram_read_bytes=sum(load.size_bytes for load in program.loads),
            dram_write_bytes=sum(store.size_bytes for store in program.stores),
            waits=waits,
        )
