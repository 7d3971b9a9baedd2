"""Table precompute: signed sums of a row of activations, exact or quantised; inside the PE or as a unit of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe import lut_tables as spec
from bitwright.rtl.pe.floats import effective_exponent, unpack
from bitwright.rtl.pe.stream import layout

_EXPONENT_BITS = 5  # fp16


@dataclass(frozen=True)
class Table:
    """One row's table: entries, the exponent of their scale, whether an activation was not finite."""

    entries: list[Value]
    exponent: Value
    special: Value


def make_table(m: Module, unit: spec.TableUnit, acts: Sequence[Value], name: str) -> Table:
    """Add to `m` the combinational table of one row of activations; new signals are called `<name>_...`."""
    if not unit.scaled:
        return Table(_sums(m, acts, unit.whole, name), Const(0, 1), Const(0, 1))
    top, special, magnitudes, values = _aligned(m, acts, name)
    total = Signal(spec.ALIGNED_BITS + (unit.k - 1).bit_length(), name=f"{name}_magnitude")
    m.d.comb += total.eq(sum(magnitudes[1:], magnitudes[0]))
    steps = []
    for step in range(unit.quanta - 1):
        steps.append(Signal(name=f"{name}_above_{step}"))
        m.d.comb += steps[-1].eq(total >= -(-unit.limit(step) // 2))
    exponent = Signal(unit.top_exponent.bit_length(), name=f"{name}_exponent")
    m.d.comb += exponent.eq(top - 1 + sum(steps[1:], steps[0]))
    sums = _sums(m, values, unit.whole, f"{name}_exact")
    rounded = [_rounded(m, unit, value, steps, f"{name}_entry_{at}") for at, value in enumerate(sums)]
    return Table(rounded, exponent, special)


def _sums(m: Module, lanes: Sequence[Value], whole: bool, name: str) -> list[Value]:
    """Entries by address: halves of the lanes are summed first, then one adder an entry."""
    if len(lanes) == 1:
        return [Const(0, lanes[0].shape()), lanes[0]] if whole else [lanes[0]]
    split = len(lanes) // 2
    lower, upper = _sums(m, lanes[:split], whole, f"{name}_low"), _sums(m, lanes[split:], whole, f"{name}_high")
    bits = max(len(lane) for lane in lanes) + (len(lanes) - 1).bit_length()
    entries: list[Value] = []
    for address in range(len(upper) << split):
        high, low = upper[address >> split], address & ((1 << split) - 1)
        if whole:
            value = high if low == 0 else lower[low] if address >> split == 0 else high + lower[low]
        elif low >> (split - 1):
            value = high + lower[low - (1 << (split - 1))]
        else:
            value = high - lower[(1 << (split - 1)) - 1 - low]
        entries.append(Signal(signed(bits), name=f"{name}_{address}"))
        m.d.comb += entries[-1].eq(value)
    return entries


def _aligned(m: Module, acts: Sequence[Value], name: str) -> tuple[Value, Value, list[Value], list[Value]]:
    """(largest exponent, any not finite, magnitudes aligned to it, the same with their signs) of fp16 codes."""
    numbers = [unpack(m, act, _EXPONENT_BITS, f"{name}_act_{lane}") for lane, act in enumerate(acts)]
    exponents: list[Value] = []
    for lane, number in enumerate(numbers):
        exponents.append(Signal(_EXPONENT_BITS, name=f"{name}_exponent_{lane}"))
        m.d.comb += exponents[-1].eq(Mux(number.special, 1, effective_exponent(number)))
    top = exponents[0]
    for lane, exponent in enumerate(exponents[1:], 1):
        larger = Signal(_EXPONENT_BITS, name=f"{name}_top_{lane}")
        m.d.comb += larger.eq(Mux(exponent > top, exponent, top))
        top = larger
    magnitudes: list[Value] = []
    values: list[Value] = []
    for lane, number in enumerate(numbers):
        distance = Signal(_EXPONENT_BITS, name=f"{name}_distance_{lane}")
        magnitudes.append(Signal(spec.ALIGNED_BITS, name=f"{name}_magnitude_{lane}"))
        values.append(Signal(signed(spec.ALIGNED_BITS + 1), name=f"{name}_value_{lane}"))
        finite = number.significand & (~number.special).replicate(spec.SIGNIFICAND_BITS)
        m.d.comb += [
            distance.eq(top - exponents[lane]),
            magnitudes[-1].eq(Cat(Const(0, spec.GUARD_BITS), finite) >> distance),
            values[-1].eq(Mux(number.sign, -magnitudes[-1], magnitudes[-1])),
        ]
    return top, Cat(number.special for number in numbers).any(), magnitudes, values


def _rounded(m: Module, unit: spec.TableUnit, value: Value, steps: Sequence[Value], name: str) -> Value:
    """`value` in quanta, to nearest, ties to even; steps are a thermometer of how many the quantum is doubled."""
    least = unit.least_quantum_bits
    kept: Value = value[least:].as_signed()
    guard, sticky = value[least - 1], value[: least - 1].any()
    for step, above in enumerate(steps, 1):
        places = least + step
        kept = Mux(above, value[places:].as_signed(), kept)
        guard = Mux(above, value[places - 1], guard)
        sticky = Mux(above, value[: places - 1].any(), sticky)
    floor, up = Signal(signed(unit.entry_bits), name=f"{name}_floor"), Signal(name=f"{name}_up")
    entry = Signal(signed(unit.entry_bits), name=name)
    m.d.comb += [floor.eq(kept), up.eq(guard & (floor[0] | sticky)), entry.eq(floor + up)]
    return entry


class TableUnit(wiring.Component):
    """The table precompute unit behind streams: the operator that is fused with the one before the tensor core.

    Parameters
        spec : arch.pe.lut_tables.TableUnit
    Members
        act : In(stream)         Payload: `spec.act_field`.
        table : Out(stream)      Payload: `spec.table_fields`, as a step of the PE has them.
    Timing       latency 1 cycle, one set of rows a cycle; act.ready depends on table.ready in the same cycle.
    Arithmetic   bit-exact with the spec's `make`.
    Reset        synchronous, active high: clears table.valid; rows in flight are lost.
    """

    def __init__(self, unit: spec.TableUnit) -> None:
        self.unit = unit
        act, table = layout([unit.act_field]), layout(unit.table_fields)
        super().__init__({"act": In(stream.Signature(act)), "table": Out(stream.Signature(table))})

    def elaborate(self, platform: object) -> Module:
        m, unit = Module(), self.unit
        out = self.table.payload
        m.d.comb += self.act.ready.eq(~self.table.valid | self.table.ready)
        made = []
        for row in range(unit.rows):
            acts = [self.act.payload.act[row * unit.k + lane] for lane in range(unit.k)]
            made.append(make_table(m, unit, acts, f"row_{row}"))
        entries = [entry for table in made for entry in table.entries]
        columns = [Cat(entry.as_unsigned()[: unit.entry_bits] for entry in entries)]
        if unit.scaled:
            columns += [Cat(table.exponent for table in made), Cat(table.special for table in made)]
        held = Signal(sum(len(column) for column in columns), name="held", reset_less=True)
        m.d.comb += out.as_value().eq(held)
        with m.If(self.act.ready):
            m.d.sync += self.table.valid.eq(self.act.valid)
            with m.If(self.act.valid):
                m.d.sync += held.eq(Cat(columns))
        return m
