"""Delay lines: what turns a straight vector into the diagonal that a systolic array eats, and back."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value


def delay_data(m: Module, name: str, value: Value, cycles: int) -> Value:
    """`value` after `cycles` registers without a reset.

    One register a stage, named `<name>_d1` (one cycle old), `<name>_d2`, ...; `cycles` = 0 returns `value` itself.
    """
    for stage in range(1, cycles + 1):
        register = Signal(len(value), name=f"{name}_d{stage}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


def delay_control(m: Module, name: str, value: Value, cycles: int) -> Value:
    """The one-bit `value` after `cycles` registers that reset to 0.

    One shift register `name`, bit s holds the value of s+1 cycles ago; `cycles` = 0 returns `value` itself.
    """
    return control_line(m, name, value, cycles)[cycles]


def control_line(m: Module, name: str, value: Value, cycles: int) -> Value:
    """Bits 0..cycles: the one-bit `value` now and 1, 2, ... `cycles` cycles ago; the registers reset to 0."""
    if cycles == 0:
        return value
    line = Signal(cycles, name=name)
    m.d.sync += line.eq(Cat(value, line)[:cycles])
    return Cat(value, line)
