"""What a run of a program counts: the same for the RTL's counter registers and for every simulator.

Cycle 0 is the first one in which the controller runs. A unit is busy in a cycle in which it has instructions that were
started in an earlier cycle and were not done in an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Counters:
    """The counter registers after a run; each member has the name of its register.

    Members
        cycles : from the start to the cycle in which everything is quiet, both included
        instructions : put into the units' queues; End is in none
        beats_read, beats_written : on the pins of the memory port, the program's own included
        load_busy, execute_busy, vector_busy, store_busy : cycles in which the unit has instructions in flight
    """

    cycles: int
    instructions: int
    beats_read: int
    beats_written: int
    load_busy: int
    execute_busy: int
    vector_busy: int
    store_busy: int


class InstructionTimes(NamedTuple):
    """What happened to one instruction, in cycles; None for what does not happen to an End.

    Members
        taken : the fetcher took it out of its buffer
        pushed : into its unit's queue
        started : by its unit
        done : its last cycle
    """

    taken: int
    pushed: int | None = None
    started: int | None = None
    done: int | None = None


def first_difference(found: Sequence[InstructionTimes], wanted: Sequence[InstructionTimes]) -> str:
    """Where two traces part, as a sentence: the earliest cycle in `wanted` that is another one in `found`.

    Empty for equal traces.
    """
    if len(found) != len(wanted):
        return f"{len(found)} instructions, must be {len(wanted)}"
    differences = [
        (cycle is None, cycle or 0, index, name)
        for index, times in enumerate(wanted)
        for name, cycle, other in zip(times._fields, times, found[index], strict=True)
        if cycle != other
    ]
    if not differences:
        return ""
    _, _, index, name = min(differences)
    was, must = getattr(found[index], name), getattr(wanted[index], name)
    return f"instruction {index}: {name} in cycle {was}, must be {must} ({len(differences)} cycles differ in all)"
