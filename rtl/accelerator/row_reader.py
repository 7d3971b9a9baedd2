"""Rows of bits out of a slot, one a cycle: what turns beats into a vector of activations or a row of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2
from bitwright.arch.errors import ConfigError
from bitwright.rtl.accelerator.banks import ADDRESS_BITS, banks_needed

COUNT_BITS = 17
"""Of how many rows a job has: 1 to 2**16."""

QUEUE_JOBS = 4


@dataclass(frozen=True)
class ShiftStep:
    """One step of the shifter from the beats of a read to a row.

    Members
        amount : shifts down by so many bits, or not
        reach : of the result, bits that it can move; those above stay as they are
        kept : bits of the result that are still needed
    """

    amount: int
    reach: int
    kept: int


def shift_steps(row_bits: Sequence[int], port_bits: int) -> list[ShiftStep]:
    """The shifter for dense rows of these widths, from the largest amount, port_bits / 2, downwards.

    A row of R bits begins at a multiple of g = gcd(R, port_bits), so only amounts from g on move its bits, and after
    the step of an amount it begins below that amount, at amount - g at most.
    """
    steps: list[ShiftStep] = []
    amount = port_bits // 2
    while amount >= gcd(port_bits, *row_bits):
        reach, kept = 0, 0
        for bits in row_bits:
            grain = gcd(bits, port_bits)
            if grain <= amount:
                reach = max(reach, bits + amount - grain)
            kept = max(kept, bits, reach)
        steps.append(ShiftStep(amount, reach, kept))
        amount //= 2
    return steps


class RowReader(wiring.Component):
    """Reads the rows of one job after the other from a read port of `BeatBanks`, and offers them as a stream.

    Row i of a job is bits i*R .. i*R + R - 1 from the start of its first beat, R = row_bits[choice]; with
    `stride_beats` it is the R lowest bits from beat i * stride_beats on.

    Parameters
        port_bits, banks : of the BeatBanks; banks at least `banks_needed(row_bits, port_bits, padded=...)`
        row_bits : one or more       Widths of rows that a job can choose; 0: a choice that no job makes.
        stride_beats : int | None    None: dense rows. Else each row begins so many beats after the one before.
    Members
        job_valid, job_ready : In, Out(1)   Jobs; ready depends on registers only.
        job_slot, job_beat, job_choice, job_count : In(1), In(16), In, In(17)   Slot, first beat, index into row_bits,
            number of rows (1 or more).
        r_en, r_slot, r_beat : Out(1), Out(1), Out(16)   To the memory; r_data : In(banks * port_bits)   From it.
        row_valid, row_ready : Out, In(1)   Rows. r_en depends on row_ready in the same cycle.
        row_data, row_choice, row_last : Out(widest of row_bits), Out, Out(1)   A row; of a narrower one the bits above
            its R are undefined. Its job's choice; whether it is the last of its job.
    Rules        valid holds, and what it offers stays, until ready, on both streams.
    Timing       a job taken in cycle s by an idle reader: its first read in s + 1, its first row offered in s + 3, then
                 a row a cycle while rows are taken. A job taken no later than the last read of the one before follows
                 it without a cycle between. Beside the job that it reads, the reader holds QUEUE_JOBS.
    Reset        every job and row is lost.
    Model        tests/rtl/accelerator/test_row_reader.py: `predicted`, by cycle.
    Evidence     every output in every cycle of nine readers with nine combinations of pauses and stalls; places and
                 shifts of every width of 1..8 bits by 1..40 columns, ports of 64..512 bits (test_row_shifts.py).
    """

    def __init__(self, port_bits: int, banks: int, row_bits: Sequence[int], *, stride_beats: int | None = None) -> None:
        if port_bits < 8 or port_bits & (port_bits - 1):
            raise ConfigError(f"row reader port_bits = {port_bits}: must be a power of two, 8 or more")
        if not row_bits or not max(row_bits) or min(row_bits) < 0:
            raise ConfigError(f"row reader row_bits = {list(row_bits)}: must be one width or more, not all of them 0")
        if stride_beats is not None and stride_beats < 1:
            raise ConfigError(f"row reader stride_beats = {stride_beats}: must be 1 or more")
        needed = banks_needed(row_bits, port_bits, padded=stride_beats is not None)
        if banks < needed:
            raise ConfigError(
                f"row reader banks = {banks}: must be at least {needed} for rows of {list(row_bits)} bits "
                f"in beats of {port_bits}"
            )
        self.port_bits = port_bits
        self.banks = banks
        self.row_bits = tuple(row_bits)
        self.stride_beats = stride_beats
        choice_bits = bits_for(len(row_bits) - 1)
        ports: dict[str, Any] = {
            "job_valid": In(1),
            "job_ready": Out(1),
            "job_slot": In(1),
            "job_beat": In(ADDRESS_BITS),
            "job_choice": In(choice_bits),
            "job_count": In(COUNT_BITS),
            "r_en": Out(1),
            "r_slot": Out(1),
            "r_beat": Out(ADDRESS_BITS),
            "r_data": In(banks * port_bits),
            "row_valid": Out(1),
            "row_ready": In(1),
            "row_data": Out(max(row_bits)),
            "row_choice": Out(choice_bits),
            "row_last": Out(1),
        }
        super().__init__(ports)
        for name in ("row_data", "row_choice", "row_last"):
            setattr(self, name, Signal(len(getattr(self, name)), name=name, reset_less=True))

    @property
    def unit_bits(self) -> int:
        """Every row begins at a multiple of so many bits from the start of a beat; it divides port_bits."""
        if self.stride_beats is not None:
            return self.port_bits
        return gcd(self.port_bits, *self.row_bits)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offset_bits = ceil_log2(self.port_bits // self.unit_bits)
        busy = Signal()
        done = Signal()
        read = Signal()
        free = Signal()
        slot = Signal(reset_less=True)
        choice = Signal(len(self.job_choice), reset_less=True)
        place = Signal(ADDRESS_BITS + offset_bits, reset_less=True)  # of the row, in units
        left = Signal(COUNT_BITS, reset_less=True)

        m.d.comb += [done.eq(~busy | (read & (left == 1))), read.eq(busy & free)]
        with m.If(read):
            m.d.sync += [left.eq(left - 1), place.eq(place + self._step(choice))]
        has_next, (next_slot, next_beat, next_choice, next_count) = self._next_job(m, done)
        with m.If(done):
            m.d.sync += [
                busy.eq(has_next),
                slot.eq(next_slot),
                place.eq(next_beat << offset_bits),
                choice.eq(next_choice),
                left.eq(next_count),
            ]
        m.d.comb += [self.r_en.eq(read), self.r_slot.eq(slot), self.r_beat.eq(place[offset_bits:])]
        self._deliver(m, free, read, place[:offset_bits], choice, left == 1)
        return m

    def _next_job(self, m: Module, take: Value) -> tuple[Value, list[Value]]:
        """The queue: whether there is a job to take in this cycle, and its slot, beat, choice and count.

        A job that comes while the queue is empty can be taken at once.
        """
        offered = [self.job_slot, self.job_beat, self.job_choice, self.job_count]
        waiting = Signal(range(QUEUE_JOBS + 1))
        entries = [Signal(sum(map(len, offered)), name=f"job_{i}", reset_less=True) for i in range(QUEUE_JOBS)]
        any_waiting = waiting.any()
        accept = Signal()
        pop = Signal()
        push = Signal()
        end = Signal(range(QUEUE_JOBS + 1))  # where a job that is pushed goes
        m.d.comb += [
            self.job_ready.eq(waiting != QUEUE_JOBS),
            accept.eq(self.job_valid & self.job_ready),
            pop.eq(take & any_waiting),
            push.eq(accept & (any_waiting | ~take)),
            end.eq(waiting - pop),
        ]
        m.d.sync += waiting.eq(end + push)
        for index, entry in enumerate(entries):
            behind = entries[index + 1] if index + 1 < QUEUE_JOBS else entry
            with m.If(push & (end == index if index else ~end.any())):
                m.d.sync += entry.eq(Cat(*offered))
            with m.Elif(pop):
                m.d.sync += entry.eq(behind)
        first = Signal(len(entries[0]), name="first_job")
        m.d.comb += first.eq(Mux(any_waiting, entries[0], Cat(*offered)))
        parts: list[Value] = []
        lowest = 0
        for value in offered:
            parts.append(first[lowest : lowest + len(value)])
            lowest += len(value)
        return any_waiting | accept, parts

    def _step(self, choice: Value) -> Value:
        """From a row to the next, in units."""
        if self.stride_beats is not None:
            return Const(self.stride_beats)
        return Array([Const(bits // self.unit_bits) for bits in self.row_bits])[choice]

    def _deliver(self, m: Module, free: Signal, read: Value, offset: Value, choice: Value, last: Value) -> None:
        """From a read to the output register; drives `free`: a read in this cycle finds room for its row."""
        shown = Signal()
        room = Signal()
        shown_offset = Signal(len(offset), reset_less=True) if len(offset) else Const(0, 0)
        shown_choice = Signal(len(choice), reset_less=True)
        shown_last = Signal(reset_less=True)
        m.d.comb += [room.eq(~self.row_valid | self.row_ready), free.eq(~shown | room)]
        with m.If(free):
            m.d.sync += shown.eq(read)
        with m.If(read):
            m.d.sync += [shown_choice.eq(choice), shown_last.eq(last)]
            m.d.sync += [shown_offset.eq(offset)] if len(offset) else []
        with m.If(room):
            m.d.sync += self.row_valid.eq(shown)
        with m.If(room & shown):
            m.d.sync += [
                self.row_data.eq(self._row_at(m, shown_offset)),
                self.row_choice.eq(shown_choice),
                self.row_last.eq(shown_last),
            ]

    def _row_at(self, m: Module, offset: Value) -> Value:
        """r_data shifted down by `offset` units, as wide as the widest row."""
        value: Value = self.r_data
        for step in shift_steps(self.row_bits, self.port_bits) if self.stride_beats is None else ():
            moved, reach = Signal(step.kept, name=f"row_shift_{step.amount}"), step.reach
            taken = offset[ceil_log2(step.amount // self.unit_bits)]
            m.d.comb += moved.eq(
                Cat(Mux(taken, value[step.amount : step.amount + reach], value[:reach]), value[reach:])
            )
            value = moved
        return value[: len(self.row_data)]


def lanes(row: Value, choice: Value, lane_bits: Sequence[int], count: int) -> list[Value]:
    """A row cut into `count` fields of lane_bits[choice] bits, each as wide as the widest, with zeros above."""
    widest = max(lane_bits)
    found: list[Value] = []
    for lane in range(count):
        value: Value = Const(0, widest)
        for bits in sorted(set(lane_bits) - {0}):
            chosen = Cat(*(choice == index for index, width in enumerate(lane_bits) if width == bits)).any()
            part = Cat(row[lane * bits : (lane + 1) * bits], Const(0, widest - bits))
            value = part if len(set(lane_bits) - {0}) == 1 else Mux(chosen, part, value)
        found.append(value)
    return found
