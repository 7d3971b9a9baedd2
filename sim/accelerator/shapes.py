"""What the fast engine knows of an instruction before it runs it.

Programs repeat themselves: most instructions differ from an earlier one in their offset in memory only. What does not
depend on the offset is worked out once for each such shape, and so is the check that it is legal (`extents.fault_of`);
what does is here. Nothing is said here about what is wrong: a program that is refused goes to the validator for its
verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from bitwright.arch.array_timing import BroadcastShape
from bitwright.arch.fixed_memory import BURST_BYTES, MOST_BURST_BEATS
from bitwright.arch.isa import timing
from bitwright.arch.isa.extents import fault_of, uses
from bitwright.arch.isa.instructions import Execute, Instruction, Load, Op, Store, Vector
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.network import SLOTS
from bitwright.arch.isa.placement import Placement

LOAD, EXECUTE, VECTOR, STORE = range(4)
_UNITS: dict[type[Instruction], int] = {Load: LOAD, Execute: EXECUTE, Vector: VECTOR, Store: STORE}
_OPS: dict[type[Instruction], Op] = {Load: Op.LOAD, Execute: Op.EXECUTE, Vector: Op.VECTOR, Store: Op.STORE}
_MOST_OFFSET = (1 << 32) - 1

_ENDS = {
    Channel.ACT: (LOAD, EXECUTE),
    Channel.WGT: (LOAD, EXECUTE),
    Channel.PAR: (LOAD, EXECUTE),
    Channel.VEC: (LOAD, VECTOR),
    Channel.ACC: (EXECUTE, VECTOR),
    Channel.OUT: (VECTOR, STORE),
}
"""Who fills a channel, who empties it."""

_KEYS: dict[type[Instruction], Callable[[Any], Any]] = {
    kind: attrgetter(*(item.name for item in fields(kind) if item.name != "offset")) for kind in _UNITS
}


class Refused(Exception):
    """The program is not legal."""


class Side:
    """What one unit has of a channel.

    Members
        unit : whose it is
        given : the cycles from which each slot that it was given can be taken, in order
        used : how many of them it has taken
        holds, slot : whether it holds one now, and which of the two is or comes next
        fill : of both slots, shared with the other side
    """

    __slots__ = ("fill", "given", "holds", "produces", "slot", "unit", "used")

    def __init__(self, unit: int, fill: list[int], produces: bool) -> None:
        self.unit = unit
        self.given = [0] * SLOTS if produces else []
        self.used = self.slot = 0
        self.holds = False
        self.fill, self.produces = fill, produces

    def take(self, last: bool, needed: int, end: int) -> None:
        """An instruction starts, of which so much must have been written, and which writes up to `end`.

        Refused where that was not written.
        """
        slot, fill = self.slot, self.fill
        if not self.holds:
            self.used += 1
            if self.produces:
                fill[slot] = 0
        if needed > fill[slot]:
            raise Refused
        if self.produces:
            fill[slot] = max(fill[slot], end)
        if last:
            self.slot = 1 - slot
        self.holds = not last


@dataclass(slots=True)
class Shape:
    """What instructions that differ in their offset only have in common.

    Members
        unit : LOAD, EXECUTE, VECTOR or STORE
        check_cycles : in the fetcher
        uses : of each channel the unit's side, and what `Side.take` wants to know
        gives : who gets a slot when it is done
        region, span : of a Load or Store, and beats from its first to one past its last in the region
        lengths : bursts of a Load or Store, by the place of its first beat between two multiples of 4 KiB
        slices : of an Execute the cycles in which each takes its operands (ws: its beats of weights)
        work : of an Execute what a slice keeps from its end on: the stream (ws), the registers on the results' way out;
            cycles of a Vector
        apart : of an Execute that is not weight-stationary, from a slice's end to the earliest end of the next
        memo : of an Execute: `fast.Array`
    """

    unit: int
    check_cycles: int
    uses: list[tuple[Side, bool, int, int]] = field(default_factory=list)
    gives: list[Side] = field(default_factory=list)
    region: int = -1
    span: int = 0
    lengths: dict[int, list[int]] = field(default_factory=dict)
    slices: list[int] = field(default_factory=list)
    work: int = 0
    apart: int = 0
    memo: dict[tuple[int, int], tuple[int, int, int, int]] = field(default_factory=dict)


class Shapes:
    """All shapes of one program, on one machine, and the sides of its channels."""

    def __init__(self, limits: Limits, region_beats: Sequence[int], placement: Placement) -> None:
        self.limits, self.region_beats, self.placement = limits, region_beats, placement
        self.sides = {}
        for channel, units in _ENDS.items():
            fill = [0] * SLOTS
            for unit, produces in zip(units, (True, False), strict=True):
                self.sides[channel, produces] = Side(unit, fill, produces)
        self._found: dict[Any, Shape] = {}
        self._regions: dict[int, type[Instruction]] = {}  # who uses them, Load or Store

    def of(self, instruction: Load | Execute | Vector | Store) -> Shape:
        """Refused for an illegal one."""
        kind = type(instruction)
        key = kind, _KEYS[kind](instruction)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._make(instruction)
        return found

    def _make(self, instruction: Load | Execute | Vector | Store) -> Shape:
        if fault_of(instruction, self.limits, self.region_beats):
            raise Refused
        limits, kind = self.limits, type(instruction)
        shape = Shape(_UNITS[kind], timing.check_cycles(_OPS[kind]))
        for use in uses(instruction, limits):
            at, end = min(extent.at for extent in use.extents), max(extent.end for extent in use.extents)
            side = self.sides[use.channel, use.produces]
            shape.uses.append((side, use.last, end if use.reads else at, end))
            if use.last:
                shape.gives.append(self.sides[use.channel, not use.produces])
        match instruction:
            case Load() | Store():
                shape.region = instruction.region
                shape.span = (instruction.rows - 1) * instruction.stride + instruction.beats
                if self._regions.setdefault(shape.region, kind) is not kind:
                    raise Refused
            case Execute():
                array = limits.array_shape(limits.formats[instruction.format])
                shape.slices = slices(instruction.k, instruction.group, limits.slice_steps)
                shape.work = instruction.m
                if isinstance(array, BroadcastShape):
                    shape.slices = [-(-size // array.lanes) * array.step_cycles for size in shape.slices]
                    shape.apart = max(shape.work, array.sum_cycles)
                elif array.weight_stationary:
                    shape.slices = [array.load.beats(size) for size in shape.slices]
                else:
                    shape.apart = shape.work = 2 * instruction.m - 1
            case Vector():
                shape.work = timing.vector_slots(instruction, limits) + timing.VECTOR_DRAIN
        return shape

    def bursts(self, shape: Shape, instruction: Load | Store) -> list[int]:
        """Beats of each burst. Refused past the end of the region."""
        offset, port_bytes = instruction.offset, self.limits.port_bytes
        if not 0 <= offset <= _MOST_OFFSET or offset + shape.span > self.region_beats[shape.region]:
            raise Refused
        place = (self.placement.regions[shape.region] + offset * port_bytes) % BURST_BYTES
        found = shape.lengths.get(place)
        if found is None:
            found = shape.lengths[place] = burst_lengths(
                place // port_bytes, instruction.rows, instruction.beats, instruction.stride, port_bytes
            )
        return found


def slices(k: int, group: int, steps: int | None) -> list[int]:
    """Lengths of the slices of a reduction."""

    def cut(size: int) -> list[int]:
        if steps is None:
            return [size]
        return [steps] * (size // steps) + ([size % steps] if size % steps else [])

    return cut(min(group, k)) * (k // min(group, k)) + (cut(k % group) if k > group and k % group else [])


def burst_lengths(place: int, rows: int, beats: int, stride: int, port_bytes: int) -> list[int]:
    """Beats of each burst of rows that begin `place` beats after a multiple of 4 KiB."""
    window = BURST_BYTES // port_bytes
    found: list[int] = []
    for row in range(rows):
        at = (place + row * stride) % window
        if at + beats <= window and beats <= MOST_BURST_BEATS:
            found.append(beats)
            continue
        left = beats
        while left:
            length = min(left, window - at, MOST_BURST_BEATS)
            found.append(length)
            left -= length
            at = (at + length) % window
    return found
