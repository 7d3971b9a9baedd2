"""Why a program stops before its End, and how a run says so.

The codes are those of the RTL's error register, in which 0 means that nothing is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Fault(IntEnum):
    """One cause. Found at fetch, in program order: ILLEGAL_INSTRUCTION, OUT_OF_REGION, OUT_OF_BUFFER, REGION_CONFLICT,
    TRUNCATED; an instruction with several of them has the first. Found by a unit when it starts an instruction:
    UNWRITTEN. When nothing moves any more: DEADLOCK. By hardware only: BUS_ERROR, WATCHDOG.
    """

    ILLEGAL_INSTRUCTION = 1
    OUT_OF_REGION = 2
    OUT_OF_BUFFER = 3
    UNWRITTEN = 4
    DEADLOCK = 5
    TRUNCATED = 6
    BUS_ERROR = 7
    WATCHDOG = 8
    REGION_CONFLICT = 9

    @property
    def meaning(self) -> str:
        """One sentence for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Fault.ILLEGAL_INSTRUCTION: "The word is no instruction of this machine: its op, its reserved bits or a field.",
    Fault.OUT_OF_REGION: "A Load or a Store goes past the end of its memory region.",
    Fault.OUT_OF_BUFFER: "An instruction goes past the end of a slot.",
    Fault.UNWRITTEN: "An instruction reads what was not written into its slot, or its write leaves a gap.",
    Fault.DEADLOCK: "A unit waits for a slot that nothing gives any more.",
    Fault.TRUNCATED: "The program's last instruction was fetched and was no End.",
    Fault.BUS_ERROR: "The memory answered with an error.",
    Fault.WATCHDOG: "The program took more cycles than the watchdog limit.",
    Fault.REGION_CONFLICT: "A region is both loaded from and stored to, so that what is loaded would depend on timing.",
}


@dataclass(frozen=True)
class Outcome:
    """How a program ends.

    Members
        fault : what stopped it; None: it ran to its End
        index : the instruction, counted from 0; of a whole run the End's
        sentence : what was wrong, the value and the rule; of a whole run, that it ended
    """

    fault: Fault | None
    index: int
    sentence: str

    @property
    def legal(self) -> bool:
        """Whether the program runs to its End."""
        return self.fault is None

    def __str__(self) -> str:
        name = "" if self.fault is None else f"{self.fault.name.lower().replace('_', ' ')}: "
        return f"instruction {self.index}: {name}{self.sentence}"
