"""shift-add behind a stream: gated shifted activations of all lanes in one carry-save tree; no multiplier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.shift_add_stream import ShiftAddStream
from bitwright.rtl.pe.stream import Flow, StreamPE


class ShiftAddStreamPE(StreamPE):
    """The hardware of arch.pe.shift_add_stream.ShiftAddStream; members, timing and arithmetic as its docstring says."""

    spec: ShiftAddStream

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        acts, codes = (lanes(payload[name], spec.lanes) for name in ("act", "wgt"))
        negate = Signal(name="negate")
        m.d.comb += negate.eq(~payload.wgt_unsigned)
        terms = [
            gated(m, act, code, position, negate, f"term_{lane}_{position}")
            for position in range(spec.weight_bits)
            for lane, (act, code) in enumerate(zip(acts, codes, strict=True))
        ]
        # An inverted term lacks one unit of its last place.
        ones = spec.lanes << (spec.weight_bits - 1)
        totals = {"acc": Total(spec.psum.bits, (-spec.dot_low).bit_length() + 1, terms, extra=(negate, ones))}
        if spec.zero_points:
            dot_bits = spec.act.bits + (spec.lanes - 1).bit_length()
            totals["act_acc"] = Total(spec.act_sum_bits, dot_bits, acts)
        registers = accumulate(m, flow, totals, cut=spec.pipeline == 1)
        m.d.comb += self.sum.payload.psum.eq(registers["acc"])
        if spec.zero_points:
            m.d.comb += self.sum.payload.act_sum.eq(registers["act_acc"])
        flow.offer()
        return m


@dataclass(frozen=True)
class Total:
    """What one step adds to an accumulator of `bits` bits: terms, rows, and `extra[1]` while `extra[0]` is 1.

    Fields
        dot_bits : int           Two's complement width that holds every total.
        terms, rows : signed and unsigned values.
    """

    bits: int
    dot_bits: int
    terms: Sequence[Value]
    rows: Sequence[Value] = ()
    extra: tuple[Value, int] = (Const(0, 1), 0)

    def add(self, m: Module, bits: int, name: str, *addends: Value) -> Value:
        """The total and `addends`, which have `bits` bits, modulo 2**bits; one carry-propagating adder.

        A sign bit s of weight -2**k counts as (1 - s) * 2**k - 2**k: it goes in inverted instead of being extended,
        and all the -2**k are one constant, in one row with `extra`.
        """
        condition, extra = self.extra
        constant = -sum(1 << (len(term) - 1) for term in self.terms)
        plain, more = (value & ((1 << bits) - 1) for value in (constant, constant + extra))
        choice = {(0, 0): Const(0, 1), (1, 1): Const(1, 1), (0, 1): condition, (1, 0): ~condition}
        row = Cat(choice[plain >> place & 1, more >> place & 1] for place in range(bits))
        unsigned = [Cat(term[:-1], ~term[-1])[:bits] for term in self.terms]
        first, second = carry_save(m, [*unsigned, *self.rows, row, *addends], bits, name)
        return (first + second)[:bits]


def accumulate(m: Module, flow: Flow, totals: dict[str, Total], *, cut: bool, **beside: Value) -> dict[str, Value]:
    """Accumulators by name: each loads (first ? 0 : itself) + its step's total, modulo its width.

    cut : a pipeline register for each total, in front of the addition; otherwise accumulator and terms meet in one
    carry-save tree. `beside` are values that pass the same pipeline register; they are returned by name as well.
    """
    dots: dict[str, Value] = {}
    for name, total in totals.items() if cut else ():
        dot = Signal(signed(total.dot_bits), name=name.replace("acc", "dot"))
        m.d.comb += dot.eq(total.add(m, total.dot_bits, dot.name))
        dots[dot.name] = dot
    held = flow.cut(cut, **dots, **beside)
    found = dict(zip(beside, held[len(dots) :], strict=True))
    for place, (name, total) in enumerate(totals.items()):
        acc = flow.register(signed(total.bits), name)
        start = Signal(signed(total.bits), name=f"{name}_start")
        m.d.comb += start.eq(Mux(flow.first, 0, acc))
        following = start + held[place] if cut else total.add(m, total.bits, name, start)
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(following)
        found[name] = acc
    return found


def lanes(field: Value, count: int) -> list[Value]:
    """The lanes of a payload's field."""
    return [Value.cast(field)] if count == 1 else [Value.cast(field[lane]) for lane in range(count)]


def gated(m: Module, value: Value, code: Value, position: int, negate: Value, name: str) -> Signal:
    """The signed term (value << position) * code[position], its value part inverted for a negated highest bit."""
    width = len(value)
    term = Signal(signed(width + position), name=name)
    part = value & code[position].replicate(width)
    if position == len(code) - 1:
        part = part ^ negate.replicate(width)
    m.d.comb += term.eq(Cat(Const(0, position), part))
    return term


def carry_save(m: Module, rows: Sequence[Value], bits: int, name: str) -> tuple[Value, Value]:
    """Two rows with the same sum modulo 2**bits as unsigned `rows`, by full adders, the earliest rows first."""
    waiting = list(rows)
    for index in range(len(rows) - 2):
        first, second, third = waiting[:3]
        # A carry needs two ones: the place above the second longest row is the highest.
        longest, middle = sorted((len(first), len(second), len(third)), reverse=True)[:2]
        total = Signal(longest, name=f"{name}_sum_{index}")
        carry = Signal(min(middle + 1, bits), name=f"{name}_carry_{index}")
        m.d.comb += [
            total.eq(first ^ second ^ third),
            carry.eq(Cat(Const(0, 1), (first & second) | (third & (first | second)))),
        ]
        waiting = [*waiting[3:], total, carry]
    return waiting[0], waiting[1]
