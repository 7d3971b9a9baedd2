"""What both engines take and what they give: legal programs in, counters and the cycles of each instruction out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from bitwright.arch.errors import ConfigError, ProgramError
from bitwright.arch.isa.counters import Counters, InstructionTimes
from bitwright.arch.isa.encoding import IllegalInstruction, decode
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import End, Instruction
from bitwright.arch.isa.limits import Limits
from bitwright.arch.isa.network import Program, validate
from bitwright.arch.isa.placement import Placement, check, place
from bitwright.arch.machine import MOST_OPEN

SHOWN = 1
"""From a beat or a response on the pins to the unit that asked for it."""


@dataclass(frozen=True)
class Run:
    """What a run did: the counters, and what happened to each instruction, End included."""

    counters: Counters
    times: tuple[InstructionTimes, ...]


@dataclass(frozen=True)
class Port:
    """The memory port and what stands behind it.

    Members
        outstanding_reads, outstanding_writes : bursts that the port keeps open, 1..64
        placement : where program and regions stand
    """

    outstanding_reads: int
    outstanding_writes: int
    placement: Placement

    @classmethod
    def of(
        cls,
        words: int,
        limits: Limits,
        region_beats: Sequence[int],
        outstanding_reads: int,
        outstanding_writes: int,
        placement: Placement | None,
    ) -> Port:
        """The port of a run, checked. ConfigError for a number of bursts or a placement that cannot be."""
        for name, value in (("outstanding_reads", outstanding_reads), ("outstanding_writes", outstanding_writes)):
            if not 1 <= value <= MOST_OPEN:
                raise ConfigError(f"{name} = {value!r}: must be 1..{MOST_OPEN}")
        if placement is None:
            placement = place(words, region_beats, limits.port_bytes)
        else:
            check(placement, words, region_beats, limits.port_bytes)
        return cls(outstanding_reads, outstanding_writes, placement)


def instructions(program: Program) -> list[Instruction] | None:
    """The program, decoded. None without End, or where a word before it is no instruction.

    ConfigError for words after the first End: the hardware fetches some of them, and their beats count.
    """
    found: list[Instruction] = []
    for word in program:
        try:
            found.append(decode(word) if isinstance(word, int) else word)
        except IllegalInstruction:
            return None
        if isinstance(found[-1], End):
            if len(found) < len(program):
                raise ConfigError(
                    f"program = {len(program)} words: must end with its first End, instruction {len(found) - 1}; the "
                    "hardware would fetch words after it, which the simulators do not time"
                )
            return found
    return None


def require_legal(program: Program, limits: Limits, region_beats: Sequence[int]) -> list[Instruction]:
    """The program, decoded. ProgramError with the validator's verdict when it does not run to its End."""
    outcome = validate(program, limits, region_beats)
    found = instructions(program)
    if not outcome.legal or found is None:
        raise ProgramError(str(outcome))
    return found


def refuse(program: Program, limits: Limits, region_beats: Sequence[int]) -> NoReturn:
    """ProgramError with the validator's verdict, on a program of which an engine has found that it is not legal."""
    require_legal(program, limits, region_beats)
    raise AssertionError("the validator finds nothing wrong with a program that an engine cannot run")


def fetch_beats(words: int, port_bytes: int) -> int:
    """Beats of a program, or of a part of it that starts a beat."""
    return -(-words * WORD_BYTES // port_bytes)


def busy_cycles(spans: Iterable[tuple[int, int]]) -> int:
    """Cycles in which at least one instruction is in flight: after its start, up to its last. Spans in order."""
    total = 0
    covered = 0
    for started, done in spans:
        total += done - max(started, covered)
        covered = done
    return total
