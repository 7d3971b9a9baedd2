"""The shell of every streaming PE: its streams, its handshake, its phases and its pipeline registers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe.base import Timing
from bitwright.arch.pe.stream import FIRST, LAST, Field, StreamSpec


def layout(fields: Iterable[Field], *flags: str) -> data.StructLayout:
    """A payload: the fields, lowest first, then one-bit flags. One lane is a plain number, more an array."""
    members: dict[str, Any] = {}
    for field in fields:
        shape = signed(field.bits) if field.signed else unsigned(field.bits)
        members[field.name] = shape if field.lanes == 1 else data.ArrayLayout(shape, field.lanes)
    return data.StructLayout({**members, **dict.fromkeys(flags, 1)})


@dataclass(frozen=True)
class HeldSum:
    """Registers of which only the sum counts, modulo 2**(width of the first).

    Fields
        terms : tuple            Names of the registers, one or more; the first is the widest.
        when : tuple             Names of one-bit registers; if any of them is low, not even the sum counts.
    What an `elaborate` says of its own registers. rtl.bench.stream.equivalence proves it before it relies on it.
    """

    terms: tuple[str, ...]
    when: tuple[str, ...] = ()


class StreamPE(wiring.Component):
    """A streaming PE; a subclass adds the datapath in `elaborate`, by way of `Flow`.

    Members
        step : In(stream)        Payload: the spec's `step_fields`, then `first` and `last`.
        sum : Out(stream)        Payload: the spec's `sum_fields`.
        held_sums : list         What is known of the registers once the PE is elaborated.
    Rules, timing, reset        As arch.pe.stream.StreamSpec says.
    """

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.held_sums: list[HeldSum] = []
        step = layout(spec.step_fields, FIRST, LAST)
        super().__init__({"step": In(stream.Signature(step)), "sum": Out(stream.Signature(layout(spec.sum_fields)))})

    @property
    def timing(self) -> Timing:
        return self.spec.timing

    @property
    def module_name(self) -> str:
        return self.spec.module_stem


class Flow:
    """Handshake, phases and pipeline control of a streaming PE, to be used from the input to the accumulator.

    Parameters
        m, pe : the module and the component being elaborated.
        final : Value            Whether this phase is the last of the step on offer; it may depend on the payload and
            on `phase`, of `phase_bits` bits, which counts from 0. Without it a step takes one cycle.
    Members
        advance : Value          Registers of the datapath load in this cycle; low while a sum on offer is not taken.
        valid, first, last : Value   A (micro-)step is at the current stage: the first of a sum, the last of it.
        phase : Value
    """

    def __init__(self, m: Module, pe: StreamPE, *, phase_bits: int = 0) -> None:
        self.m, self.pe = m, pe
        self.advance = Signal(name="advance")
        self.phase: Value = Const(0, 1)
        payload = pe.step.payload
        m.d.comb += self.advance.eq(~pe.sum.valid | pe.sum.ready)
        self.valid, self.first, self.last = pe.step.valid, payload.first, payload.last
        self._stage = 0
        if phase_bits:
            self.phase = Signal(phase_bits, name="phase")
        else:
            m.d.comb += pe.step.ready.eq(self.advance)

    def finish(self, final: Value) -> None:
        """Say when the phase is the last one of the step on offer (multi-cycle PEs only, once)."""
        m, last_phase = self.m, Signal(name="final_phase")
        m.d.comb += [last_phase.eq(final), self.pe.step.ready.eq(self.advance & last_phase)]
        with m.If(self.advance & self.pe.step.valid):
            m.d.sync += self.phase.eq((self.phase + 1)[: len(self.phase)])
            with m.If(last_phase):
                m.d.sync += self.phase.eq(0)
        first = Signal(name="first_phase")
        m.d.comb += first.eq(self.first & ~self.phase.any())
        self.first = first
        self.last = self.last & last_phase

    def cut(self, wanted: bool = True, **values: Value) -> list[Value]:
        """Pipeline registers for the values and the control bits, or, if not wanted, the values as they are."""
        if not wanted:
            return list(values.values())
        self._stage += 1
        valid = Signal(name=f"valid_{self._stage}")
        flags = [Signal(name=f"{name}_{self._stage}", reset_less=True) for name in (FIRST, LAST)]
        with self.m.If(self.advance):
            self.m.d.sync += [valid.eq(self.valid), flags[0].eq(self.first), flags[1].eq(self.last)]
        registers = [self.hold(value, name) for name, value in values.items()]
        self.valid, (self.first, self.last) = valid, flags
        return registers

    def hold(self, value: Value, name: str) -> Value:
        """One pipeline register; constants pass."""
        if isinstance(value, Const):
            return value
        register = Signal(value.shape(), name=f"{name}_{self._stage}", reset_less=True)
        with self.m.If(self.advance):
            self.m.d.sync += register.eq(value)
        return register

    def holds(self, *registers: Signal, ended: bool = False) -> None:
        """Say that only the sum of these registers, which load at the current stage, counts (`HeldSum`).

        `ended`: they load for the last step of a sum and are of use to the next stage only.
        """
        behind = self._stage + 1
        when = (f"valid_{behind}", f"{LAST}_{behind}") if ended else ()
        self.pe.held_sums.append(HeldSum(tuple(register.name for register in registers), when))

    def register(self, shape: Any, name: str) -> Signal:
        """A state register of the datapath, without reset."""
        return Signal(shape, name=name, reset_less=True)

    def offer(self) -> None:
        """The last thing: the sum of the current stage's step is on offer in the next cycle if that step is the last.

        The accumulator is to be loaded under `advance & valid` and is the sum's payload itself.
        """
        with self.m.If(self.advance):
            self.m.d.sync += self.pe.sum.valid.eq(self.valid & self.last)
