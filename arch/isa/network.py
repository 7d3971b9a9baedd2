"""The accelerator without time: a fetcher, four queues, four units, and six channels of two slots.

State. The fetcher holds the next instruction's index and at most one checked instruction that its queue has no room
for. A queue holds QUEUE_DEPTH instructions; one leaves it when it starts, so an instruction that waits for slots
counts. A unit works on one instruction at a time. A channel counts its free and its ready slots, knows which slot each
side holds, and the fill level of both.

Steps. (1) The fetcher takes the next instruction and checks it (`extents.fault_of`, and that no region is both loaded
from and stored to); a fault stops it, an End ends it. (2) It puts the instruction into its unit's queue when there is
room. (3) A unit starts the head of its queue when every slot that it needs is there: it takes all of them, and checks
that what it reads was written and that its writes leave no gap; a fault stops the unit, with the instruction still in
its queue. (4) A unit finishes: the numbers move, fill levels rise, slots change sides.

Any step that can be made may be made next. Each queue and each count of slots has one giver and one taker, who waits
for it and cannot ask whether it is there, so which steps are made, and what they see, does not depend on their order
(G. Kahn, The semantics of a simple language for parallel programming, IFIP Congress 1974). When no step is left, the
outcome is the fault of the lowest index; without a fault, a deadlock at the lowest index that did not finish, or the
whole program.

Not modelled: cycles, and what only hardware can find (bus errors, the watchdog).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.encoding import IllegalInstruction, decode
from bitwright.arch.isa.extents import Found, Use, fault_of, uses
from bitwright.arch.isa.faults import Fault, Outcome
from bitwright.arch.isa.instructions import UNITS, End, Execute, Instruction, Load, Op, Store, Vector
from bitwright.arch.isa.limits import REGIONS, Channel, Limits

QUEUE_DEPTH = 4
SLOTS = 2

Program = Sequence[Instruction | int]


class Numbers(Protocol):
    """What moves when an instruction is done; `slots` says which slot of each channel its unit holds."""

    def move(self, instruction: Instruction, slots: Mapping[Channel, int]) -> None:
        """Do the instruction's work."""
        ...


@dataclass
class _Side:
    """Producer or consumer of a channel."""

    tokens: int  # slots that it may take
    slot: int = 0
    holds: bool = False


@dataclass
class _Link:
    """One channel: two slots between two units."""

    producer: _Side = field(default_factory=lambda: _Side(SLOTS))
    consumer: _Side = field(default_factory=lambda: _Side(0))
    fill: list[int] = field(default_factory=lambda: [0] * SLOTS)

    def sides(self, use: Use) -> tuple[_Side, _Side]:
        """(the unit's own, the other)."""
        return (self.producer, self.consumer) if use.produces else (self.consumer, self.producer)

    def can_take(self, use: Use) -> bool:
        own, _ = self.sides(use)
        return own.holds or own.tokens > 0

    def take(self, use: Use) -> None:
        own, _ = self.sides(use)
        if not own.holds:
            own.holds = True
            own.tokens -= 1
            if use.produces:
                self.fill[own.slot] = 0

    def finish(self, use: Use) -> None:
        own, other = self.sides(use)
        if use.produces:
            ends = (extent.end for extent in use.extents)
            self.fill[own.slot] = max(self.fill[own.slot], *ends)
        if use.last:
            own.holds = False
            own.slot = (own.slot + 1) % SLOTS
            other.tokens += 1


@dataclass(frozen=True)
class _Entry:
    index: int
    instruction: Instruction
    uses: tuple[Use, ...]


class _Unit:
    """One in-order queue and what works on its head."""

    def __init__(self, name: str, links: dict[Channel, _Link], numbers: Numbers | None) -> None:
        self.name, self._links, self._numbers = name, links, numbers
        self.queue: deque[_Entry] = deque()
        self.fault: tuple[int, Found] | None = None
        self._works_on: _Entry | None = None

    def step(self) -> bool:
        """Start or finish an instruction; False when neither can be."""
        if self._works_on is not None:
            self._finish(self._works_on)
            self._works_on = None
            return True
        if self.fault is not None or not self.queue or self.missing():
            return False
        entry = self.queue[0]
        for use in entry.uses:
            self._links[use.channel].take(use)
        sentence = self._unwritten(entry)
        if sentence:
            self.fault = entry.index, (Fault.UNWRITTEN, sentence)
        else:
            self._works_on = self.queue.popleft()
        return True

    def missing(self) -> list[str]:
        """The slots that the head of the queue waits for."""
        return [
            f"a {'free' if use.produces else 'ready'} {use.channel} slot"
            for use in self.queue[0].uses
            if not self._links[use.channel].can_take(use)
        ]

    def _unwritten(self, entry: _Entry) -> str:
        for use in entry.uses:
            link = self._links[use.channel]
            own, _ = link.sides(use)
            fill = link.fill[own.slot]
            unit = "row" if use.channel is Channel.ACC else "beat"
            for extent in use.extents:
                if use.reads and extent.end > fill:
                    return (
                        f"{self.name} reads {unit} {max(extent.at, fill)} of the {use.channel} slot for its "
                        f"{extent.what}, where {fill} {unit}s are written"
                    )
                if not use.reads and extent.at > fill:
                    return (
                        f"{self.name} writes {unit} {extent.at} of the {use.channel} slot, where {fill} {unit}s are "
                        "written: a gap would stay"
                    )
        return ""

    def _finish(self, entry: _Entry) -> None:
        if self._numbers is not None:
            slots = {use.channel: self._links[use.channel].sides(use)[0].slot for use in entry.uses}
            self._numbers.move(entry.instruction, slots)
        for use in entry.uses:
            self._links[use.channel].finish(use)


class _Fetcher:
    """Instructions in program order, checked, to the units' queues."""

    def __init__(
        self, program: Program, limits: Limits, region_beats: Sequence[int], units: Mapping[Op, _Unit]
    ) -> None:
        self._program, self._limits, self._region_beats, self._units = program, limits, region_beats, units
        self.index = 0
        self.fault: tuple[int, Found] | None = None
        self._ended = False
        self._held: Instruction | None = None
        self._loaded: set[int] = set()
        self._stored: set[int] = set()

    def step(self) -> bool:
        """Check the next instruction, or dispatch the checked one; False when neither can be."""
        if self._ended or self.fault is not None:
            return False
        if self._held is None:
            self._fetch()
            return True
        unit = self._units[_op(self._held)]
        if len(unit.queue) >= QUEUE_DEPTH:
            return False
        unit.queue.append(_Entry(self.index, self._held, uses(self._held, self._limits)))
        self._held = None
        self.index += 1
        return True

    def _fetch(self) -> None:
        if self.index >= len(self._program):
            sentence = f"the program has {len(self._program)} instructions and no end among those that are reached"
            self.fault = self.index, (Fault.TRUNCATED, sentence)
            return
        word = self._program[self.index]
        try:
            instruction = decode(word) if isinstance(word, int) else word
        except IllegalInstruction as error:
            self.fault = self.index, (Fault.ILLEGAL_INSTRUCTION, str(error))
            return
        found = fault_of(instruction, self._limits, self._region_beats) or self._conflict(instruction)
        if found:
            self.fault = self.index, found
        elif isinstance(instruction, End):
            self._ended = True
        else:
            self._held = instruction

    def _conflict(self, instruction: Instruction) -> Found | None:
        """A region is loaded from or stored to, for there is no order between Load and Store."""
        if not isinstance(instruction, Load | Store):
            return None
        loads = isinstance(instruction, Load)
        mine, others = (self._loaded, self._stored) if loads else (self._stored, self._loaded)
        if instruction.region in others:
            now, before = ("load", "stored to") if loads else ("store", "loaded from")
            sentence = f"{now}.region = {instruction.region}: was {before} before; a program does one of both"
            return Fault.REGION_CONFLICT, sentence
        mine.add(instruction.region)
        return None


def _op(instruction: Instruction) -> Op:
    match instruction:
        case Load():
            return Op.LOAD
        case Execute():
            return Op.EXECUTE
        case Vector():
            return Op.VECTOR
        case Store():
            return Op.STORE
        case _:
            return Op.END


def walk(
    program: Program,
    limits: Limits,
    region_beats: Sequence[int],
    *,
    numbers: Numbers | None = None,
    schedule: Random | None = None,
) -> Outcome:
    """Run a program of instructions or 128-bit words to where nothing moves.

    Parameters
        region_beats : size of each of the 4 regions of memory, in beats
        numbers : what moves with each instruction; None: nothing does
        schedule : draws who makes the next step; None: each goes as far as it can, in turn. The outcome is the same.

    ConfigError for another number of regions.
    """
    if len(region_beats) != REGIONS or min(region_beats) < 0:
        raise ConfigError(f"region_beats = {tuple(region_beats)}: must be {REGIONS} sizes in beats, 0 or more")
    links = {channel: _Link() for channel in Channel}
    units = {op: _Unit(op.name.lower(), links, numbers) for op in UNITS}
    fetcher = _Fetcher(program, limits, region_beats, units)
    agents: list[_Fetcher | _Unit] = [fetcher, *units.values()]
    moved = True
    while moved:
        moved = False
        if schedule is not None:
            schedule.shuffle(agents)
        for agent in agents:
            while agent.step():
                moved = True
                if schedule is not None and schedule.random() < 0.5:
                    break
    return _outcome(fetcher, units)


def _outcome(fetcher: _Fetcher, units: Mapping[Op, _Unit]) -> Outcome:
    found = [fetcher.fault, *(unit.fault for unit in units.values())]
    faults = [fault for fault in found if fault is not None]
    if faults:
        index, (fault, sentence) = min(faults)
        return Outcome(fault, index, sentence)
    stuck = [unit for unit in units.values() if unit.queue]
    if stuck:  # heads of queues: what waits behind them, and in the fetcher, comes later in the program
        first = min(stuck, key=lambda unit: unit.queue[0].index)
        waits = " and ".join(first.missing())
        return Outcome(
            Fault.DEADLOCK, first.queue[0].index, f"{first.name} waits for {waits}, and nothing moves any more"
        )
    return Outcome(None, fetcher.index, "the program runs to its end")


def validate(
    program: Program, limits: Limits, region_beats: Sequence[int], *, schedule: Random | None = None
) -> Outcome:
    """The verdict on a program of instructions or 128-bit words, without numbers; see `walk`."""
    return walk(program, limits, region_beats, schedule=schedule)
