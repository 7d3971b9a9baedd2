"""The control of the accelerator, register by register, in Python: fetcher, queues, slots and outcome of one run.

One step is one cycle: first what follows from the registers and the inputs, then the registers. Engines and memory are
those of `control_bench`: engines take and end instructions, and the memory takes requests and gives beats, in cycles
that the inputs choose. What is wrong with an instruction and what it touches is said by `arch.isa.extents`; everything
else is written again here, from the contract in the components' docstrings. Not modelled: numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bitwright.arch.isa.encoding import IllegalInstruction, decode
from bitwright.arch.isa.extents import Use, fault_of, uses
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import BY_OP, WORD_BYTES
from bitwright.arch.isa.instructions import Execute, Instruction, Load, Op, Store, Vector
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.network import QUEUE_DEPTH, SLOTS
from bitwright.arch.isa.timing import FETCH_BYTES, IN_FLIGHT, check_cycles

OPS = {Load: Op.LOAD, Execute: Op.EXECUTE, Vector: Op.VECTOR, Store: Op.STORE}
REQUESTS = 4
_CHUNK_WORDS = FETCH_BYTES // WORD_BYTES


@dataclass(frozen=True)
class Choices:
    """The inputs of a cycle.

    Members
        request, beat : the memory takes a request if it has room; gives a beat if one is due
        ready, done : a bit a unit: its engine is ready also with instructions in flight; ends one if there is one
        load_error, store_error : the engine is shown an error if it has an instruction in flight
    """

    request: bool = True
    beat: bool = True
    ready: int = 15
    done: int = 15
    load_error: bool = False
    store_error: bool = False


@dataclass(frozen=True)
class Setup:
    """A program and what it runs on; `broken` are the beats of the program that memory answers with an error."""

    words: tuple[int, ...]
    limits: Limits
    region_beats: tuple[int, ...]
    base: int = 0
    watchdog: int = 0
    broken: frozenset[int] = frozenset()


@dataclass
class Seen:
    """The outputs of a cycle; `slots` and `words` of units that start."""

    state: str
    request: tuple[int, int] | None = None
    taken: bool = False
    pushed: int = 0
    started: int = 0
    done: int = 0
    slots: dict[Op, dict[Channel, int]] = field(default_factory=dict)
    words: dict[Op, int] = field(default_factory=dict)
    status: tuple[bool, bool, int, int] = (False, False, 0, 0)
    counters: tuple[int, ...] = ()


@dataclass
class _Side:
    tokens: int
    slot: int = 0
    holds: bool = False

    def there(self) -> bool:
        return self.holds or self.tokens > 0


@dataclass(frozen=True)
class _Entry:
    index: int
    word: int
    uses: tuple[Use, ...]


@dataclass
class _Unit:
    queue: deque[_Entry] = field(default_factory=deque)
    flying: deque[_Entry] = field(default_factory=deque)
    faulted: bool = False

    @property
    def pending(self) -> list[int]:
        """The indices that are not done, the lowest first."""
        return [entry.index for entry in (*self.flying, *self.queue)]


class ControlModel:
    """One run after reset: `step` a cycle at a time from the one in which the start is given."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.state = "IDLE"
        self.done = self.error = False
        self.code = self.index = self.stopping = 0
        self.counters = [0] * 8
        self.units = {op: _Unit() for op in OPS.values()}
        self.producers = {channel: _Side(SLOTS) for channel in Channel}
        self.consumers = {channel: _Side(0) for channel in Channel}
        self.fill = {channel: [0] * SLOTS for channel in Channel}
        self.requests: deque[int] = deque()  # beats that are left of each
        self.shown = False
        self.asked = 0  # chunks
        self.used = 0
        self.beats = 0  # beats that were shown, in earlier cycles
        self.at = 0
        self.cycle = 0
        self.holds: tuple[int, Op | None, int, Instruction | None] | None = None  # ready from, op, fault
        self.loaded: set[int] = set()
        self.stored: set[int] = set()
        self.stopped = ""
        self.fault = 0

    # --- Fetching ---

    def _check(self, index: int) -> tuple[int, Op | None, int, Instruction | None]:
        """(cycle in which it is checked, op, fault or 0, instruction) of one that is taken in this cycle."""
        setup, word = self.setup, self.setup.words[index]
        op = Op(word & 7) if word & 7 in BY_OP else None
        there = self.cycle + check_cycles(op)
        first = index * WORD_BYTES // setup.limits.port_bytes
        last = (index * WORD_BYTES + WORD_BYTES - 1) // setup.limits.port_bytes
        if setup.broken & {first, last}:
            return there, op, Fault.BUS_ERROR, None
        try:
            instruction = decode(word)
        except IllegalInstruction:
            return there, op, Fault.ILLEGAL_INSTRUCTION, None
        found = fault_of(instruction, setup.limits, setup.region_beats)
        code = int(found[0]) if found else self._conflict(instruction)
        return there, op, code, instruction

    def _conflict(self, instruction: Instruction) -> int:
        """A region is loaded from or stored to; remembers the region."""
        if not isinstance(instruction, Load | Store):
            return 0
        mine, others = (self.loaded, self.stored)[:: 1 if isinstance(instruction, Load) else -1]
        if instruction.region in others:
            return int(Fault.REGION_CONFLICT)
        mine.add(instruction.region)
        return 0

    def _request(self) -> tuple[int, int] | None:
        """The chunk on offer: its first byte and its beats."""
        left = len(self.setup.words) - self.asked * _CHUNK_WORDS
        if self.state != "RUN" or self.stopped or self.asked - self.used >= 2 or left <= 0:
            return None
        size = min(left * WORD_BYTES, FETCH_BYTES)
        return self.setup.base + FETCH_BYTES * self.asked, -(-size // self.setup.limits.port_bytes)

    # --- Units ---

    def _side(self, use: Use) -> _Side:
        return (self.producers if use.produces else self.consumers)[use.channel]

    def _written(self, use: Use) -> int:
        side = self._side(use)
        return 0 if use.produces and not side.holds else self.fill[use.channel][side.slot]

    def _fits(self, entry: _Entry) -> bool:
        """All that it reads is written, and its write leaves no gap."""
        for use in entry.uses:
            written = self._written(use)
            if use.reads and max(extent.end for extent in use.extents) > written:
                return False
            if not use.reads and min(extent.at for extent in use.extents) > written:
                return False
        return True

    def _start(self, entry: _Entry) -> None:
        for use in entry.uses:
            side = self._side(use)
            if use.produces:
                end = max(extent.end for extent in use.extents)
                self.fill[use.channel][side.slot] = max(self._written(use), end)
            if not side.holds:
                side.tokens -= 1
            side.holds = not use.last
            side.slot ^= use.last

    # --- A cycle ---

    def step(self, choices: Choices, start: bool = False) -> Seen:
        running = self.state == "RUN"
        status = (self.done, self.error, self.code, self.index)
        seen = Seen(self.state, status=status, counters=tuple(self.counters))
        flying = {op: bool(unit.flying) for op, unit in self.units.items()}
        lengths = {op: len(unit.queue) for op, unit in self.units.items()}
        given: list[Use] = []
        starts: list[tuple[_Unit, _Entry]] = []
        faulted: list[_Unit] = []
        for place, (op, unit) in enumerate(self.units.items()):
            if unit.flying and choices.done >> place & 1:
                seen.done |= 1 << place
                given += [use for use in unit.flying[0].uses if use.last]
            if not (running and unit.queue and not unit.faulted and len(unit.flying) < IN_FLIGHT):
                continue
            entry = unit.queue[0]
            engine_ready = not unit.flying or choices.ready >> place & 1
            if not (engine_ready and all(self._side(use).there() for use in entry.uses)):
                continue
            if self._fits(entry):
                seen.started |= 1 << place
                seen.slots[op] = {use.channel: self._side(use).slot for use in entry.uses}
                seen.words[op] = entry.word
                starts.append((unit, entry))
            else:
                faulted.append(unit)
        stands = self._fetch(seen, choices, lengths)
        port_idle = not self.requests and not self.shown
        quiet = stands and not seen.started and not any(flying.values())
        bus = [
            self.units[op].flying[0].index
            for op, wrong in ((Op.LOAD, choices.load_error), (Op.STORE, choices.store_error))
            if wrong and flying[op]
        ]
        beat = choices.beat and bool(self.requests)
        self._control(start, quiet, bus, port_idle, flying, seen.pushed, beat)

        self._memory(seen, choices, beat)
        for unit, entry in starts:
            self._start(entry)
            unit.queue.popleft()
        for unit in faulted:
            unit.faulted = True
        for place, unit in enumerate(self.units.values()):
            if seen.done >> place & 1:
                unit.flying.popleft()
        for unit, entry in starts:
            unit.flying.append(entry)
        for use in given:
            (self.consumers if use.produces else self.producers)[use.channel].tokens += 1
        self.cycle += 1
        return seen

    def _fetch(self, seen: Seen, choices: Choices, lengths: dict[Op, int]) -> bool:
        """Takes, pushes, stops; whether the fetcher stands in this cycle."""
        seen.request = self._request()
        if self.state != "RUN" or self.stopped:
            return bool(self.stopped)
        if self.holds is None:
            if self.at == len(self.setup.words):
                self.stopped, self.fault = "fault", int(Fault.TRUNCATED)
                return True
            words = self.beats * self.setup.limits.port_bytes // WORD_BYTES
            if words > self.at:
                seen.taken = True
                self.holds = self._check(self.at)
                self.used += self.at % _CHUNK_WORDS == _CHUNK_WORDS - 1
            return False
        there, op, fault, instruction = self.holds
        if self.cycle < there:
            return False
        if fault or op is Op.END:
            self.stopped, self.fault = ("fault" if fault else "end"), fault
            return True
        assert op is not None, "a legal word has an op"
        assert instruction is not None, "a legal word has an instruction"
        if lengths[op] >= QUEUE_DEPTH:
            return True
        seen.pushed = 1 << list(self.units).index(op)
        found = uses(instruction, self.setup.limits)
        self.units[op].queue.append(_Entry(self.at, self.setup.words[self.at], found))
        self.at, self.holds = self.at + 1, None
        return False

    def _memory(self, seen: Seen, choices: Choices, beat: bool) -> None:
        self.beats += self.shown
        self.shown = beat
        room = len(self.requests) < REQUESTS
        if beat:
            self.requests[0] -= 1
            if not self.requests[0]:
                self.requests.popleft()
        if seen.request and choices.request and room:
            self.requests.append(seen.request[1])
            self.asked += 1

    def _control(
        self, start: bool, quiet: bool, bus: Sequence[int], port_idle: bool, flying: dict[Op, bool], pushed: int,
        beat: bool,
    ) -> None:  # fmt: skip
        if self.state != "IDLE":
            self.counters[2] += beat
        if self.state == "RUN":
            counted = [True, bool(pushed), False, False, *flying.values()]
            self.counters = [count + more for count, more in zip(self.counters, counted, strict=True)]
        following = self.state
        if self.state == "IDLE" and start:
            following, self.done, self.error, self.code, self.index = "CLEAR", False, False, 0, 0
        elif self.state == "CLEAR":
            following, self.counters = "RUN", [0] * 8
        elif self.state == "RUN" and bus:
            following, self.error, self.code, self.index = "STOPPING", True, int(Fault.BUS_ERROR), min(bus)
        elif self.state == "RUN" and quiet:
            following = "JUDGING"
        elif self.state == "RUN" and self.counters[0] == self.setup.watchdog:
            pending = [unit.pending[0] for unit in self.units.values() if unit.pending]
            following, self.error, self.code = "STOPPING", True, int(Fault.WATCHDOG)
            self.index = min([*pending, self.at])
        elif self.state == "JUDGING":
            following, (self.code, self.index) = "STOPPING", self._outcome()
        elif self.state == "STOPPING" and port_idle and not flying[Op.LOAD] and not flying[Op.STORE]:
            following, self.error, self.done = "IDLE", bool(self.code), not self.code
        elif self.state == "STOPPING" and self.stopping + 1 == self.setup.watchdog and not self.error:
            self.error, self.code = True, self.code or int(Fault.WATCHDOG)
        self.stopping = self.stopping + 1 if self.state == "STOPPING" else 0
        self.state = following

    def _outcome(self) -> tuple[int, int]:
        faults = [(self.at, self.fault)] if self.stopped == "fault" else []
        faults += [(unit.queue[0].index, int(Fault.UNWRITTEN)) for unit in self.units.values() if unit.faulted]
        if faults:
            index, code = min(faults)
            return code, index
        heads = [unit.queue[0].index for unit in self.units.values() if unit.queue]
        return (int(Fault.DEADLOCK), min(heads)) if heads else (0, self.at)
