"""Writes docs/registers.md: the accelerator's registers, from their one description.

python docs/registers.py > docs/registers.md
"""

from __future__ import annotations

from bitwright.arch.isa.faults import Fault
from bitwright.arch.registers import ADDRESS_BITS, COUNTERS, OFFSET_BITS, REGISTERS, Access, Bits, Register

HEAD = f"""\
# The registers

<!-- written by docs/registers.py; do not edit -->
A host drives the accelerator through an AXI4-Lite slave: 32-bit registers in a space of {1 << (OFFSET_BITS - 10)} KiB, little-endian. `arch/registers.py` holds the table behind this
page; the slave, the map of offsets for Python (`OFFSETS`) and the C header that `bitwright generate` writes beside a machine's Verilog come from the same one.

To run a program: write PROGRAM_BASE, PROGRAM_WORDS and base and size of the regions it uses; enable an interrupt or not; write 1 to CONTROL. Wait for
the interrupt, or until STATUS.busy is 0; STATUS says how the run ended. Addresses have {ADDRESS_BITS} bits.

- The slave answers one access at a time. It answers SLVERR, and changes nothing, for an offset without register, for a write to a register that is only
  read, and for a write while STATUS.busy to one that a run needs. Bits 1..0 of an address are ignored. Write strobes choose bytes.
- Bits that no field has read 0; what is written to them is dropped. So the lowest bits of a base address are always 0: those within a beat too, where
  a beat is wider than 8 bytes.
- A counter's LO and HI are one number when LO is read first: reading LO keeps the HI of that moment until it, or another LO, is read.
- When a Load or a Store meets an error of the bus, or the watchdog stops a run, STATUS.error and the interrupt come at once; STATUS.busy stays until the
  transactions that were begun are over, and only then another run can start. Where the memory never ends them, write 1 to RESET, and reset the memory
  with it (what it still owes must not come): nothing runs and nothing is open then, and the host's own registers stand as they were. An error of the bus in the program is a fault of its instruction, as the
  others that the fetcher finds. Words fetched beyond the End that the memory never gives end in WATCHDOG too, after as many cycles again.
- Program and regions must not overlap, and none may end beyond 2**{ADDRESS_BITS} bytes: which region an instruction names is checked, not where the host has put it.
  (`arch.isa.placement.check` checks both.) Without a watchdog (0) a memory that never answers is waited for without end.
"""

MEANINGS = {
    Access.RO: "read only",
    Access.RW: "read; written while STATUS.busy is 0",
    Access.ALWAYS: "read and written at any time",
    Access.START: "reads 0; written while STATUS.busy is 0",
    Access.RESET: "reads 0; written at any time",
    Access.CLEAR: "read; a 1 that is written clears its bit, at any time",
}


def table(columns: list[str], rows: list[list[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def bits(field: Bits) -> str:
    high = field.lowest + field.count - 1
    return str(high) if field.count == 1 else f"{high}..{field.lowest}"


def what(register: Register) -> str:
    if len(register.fields) == 1 and register.fields[0].name in ("low", "high", "words", "beats"):
        return register.meaning
    fields = "; ".join(f"**{bits(field)} `{field.name}`** {field.meaning}" for field in register.fields)
    return f"{register.meaning}. {fields}"


def registers() -> str:
    rows: list[list[object]] = []
    for register in REGISTERS:
        used = ", ".join(bits(field) for field in reversed(register.fields))
        rows.append([f"`{register.offset:#05x}`", f"`{register.name}`", register.access, used, what(register)])
    return table(["offset", "register", "access", "bits", "meaning"], rows)


def access() -> str:
    return table(["access", "meaning"], [[item, meaning] for item, meaning in MEANINGS.items()])


def faults() -> str:
    return table(["ERROR", "fault", "meaning"], [[int(item), f"`{item.name}`", item.meaning] for item in Fault])


def counters() -> str:
    return f"""\
The {len(COUNTERS)} counters are 0 when a run starts and stand still when STATUS.busy is 0. Beats count until then; all others to the run's last cycle, the first
one in which nothing moves any more, or in which it was stopped. The simulator has the same counters, and its numbers are equal."""


if __name__ == "__main__":
    print(
        "\n".join([HEAD, "## Map", "", registers(), "", access(), "", "## Counters", "", counters(), ""]),
        "\n".join(["## Error codes", "", faults()]),
        sep="\n",
    )
