"""The accelerator's registers as its host sees them: the one description.

From it come the AXI4-Lite slave (`rtl/accelerator/register_file.py`), `docs/registers.md`, the C header and the map of
offsets for Python. A register is 32 bits; a longer number is a pair `<NAME>_LO`, `<NAME>_HI`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import ADDRESS_BITS, INDEX_BITS

OFFSET_BITS = 12
"""Of a byte in the register space, a page of 4 KiB."""

IDENTITY = 0xB17E
MAJOR, MINOR = 1, 1
"""Version of this description: MAJOR moves when a program for the old registers would go wrong."""


class Access(StrEnum):
    """What a host may do with a register."""

    RO = "ro"  # a write answers SLVERR
    RW = "rw"  # reads what was written; a write while STATUS.busy changes nothing and answers SLVERR
    ALWAYS = "rw, always"  # the same, and may be written at any time
    START = "wo"  # reads 0; a write while STATUS.busy changes nothing and answers SLVERR
    RESET = "wo, always"  # reads 0; may be written at any time
    CLEAR = "w1c"  # a 1 that is written clears its bit, at any time


@dataclass(frozen=True)
class Bits:
    """A field of a register: bits `lowest` .. `lowest + count - 1`."""

    name: str
    lowest: int
    count: int
    meaning: str

    @property
    def mask(self) -> int:
        """Its ones in the register."""
        return ((1 << self.count) - 1) << self.lowest


@dataclass(frozen=True)
class Register:
    """One register of 32 bits. Bits of no field read 0, and what is written to them is dropped."""

    name: str
    offset: int
    access: Access
    meaning: str
    fields: tuple[Bits, ...]

    @property
    def mask(self) -> int:
        """The bits that fields have."""
        return sum(field.mask for field in self.fields)

    def field(self, name: str) -> Bits:
        """The field of that name; KeyError without."""
        return {field.name: field for field in self.fields}[name]


COUNTERS: dict[str, str] = {
    "cycles": "cycles of the run",
    "instructions": "instructions that were put into a queue; End is not",
    "beats_read": "beats that the memory delivered, of programs too",
    "beats_written": "beats that the memory took",
    "load_busy": "cycles in which Load had an instruction started and not done",
    "execute_busy": "cycles in which Execute had an instruction started and not done",
    "vector_busy": "cycles in which Vector had an instruction started and not done",
    "store_busy": "cycles in which Store had an instruction started and not done",
}
"""The counters of a run, in the order of their registers: 64 bits each, 0 at its start, still after its end."""


def _flag(name: str, bit: int, meaning: str) -> Bits:
    return Bits(name, bit, 1, meaning)


def _whole(name: str, bits: int = 32, lowest: int = 0, meaning: str = "") -> tuple[Bits, ...]:
    return (Bits(name, lowest, bits, meaning),)


def _pair(name: str, offset: int, access: Access, meaning: str, bits: int, lowest: int = 0) -> list[Register]:
    """A number of 33 to 64 bits, of which the `lowest` are 0."""
    return [
        Register(f"{name}_LO", offset, access, f"{meaning}; bits 31..0", _whole("low", 32 - lowest, lowest)),
        Register(f"{name}_HI", offset + 4, access, f"{meaning}; bits {bits - 1}..32", _whole("high", bits - 32)),
    ]


def _registers() -> tuple[Register, ...]:
    ends = (
        _flag("done", 0, "a program ran to its end"),
        _flag("error", 1, "a program was stopped"),
    )
    found = [
        Register("ID", 0x000, Access.RO, "what this is", (
            Bits("minor", 0, 8, f"version of the registers: {MINOR}"),
            Bits("major", 8, 8, f"version of the registers: {MAJOR}"),
            Bits("identity", 16, 16, f"{IDENTITY:#06x}"),
        )),
        Register("CONTROL", 0x004, Access.START, "starts a run", (
            _flag("start", 0, "1: run the program, counters from 0"),
        )),
        Register("STATUS", 0x008, Access.RO, "how it stands with the run", (
            _flag("busy", 0, "a run goes on, or transactions of a stopped one are still open"),
            _flag("done", 1, "the last run came to its End"),
            _flag("error", 2, "the last run was stopped; ERROR says why"),
        )),
        Register("INTERRUPT_ENABLE", 0x00C, Access.ALWAYS, "what raises the interrupt line", ends),
        Register("INTERRUPT", 0x010, Access.CLEAR, "what has happened; stays until it is cleared", ends),
        Register("ERROR", 0x014, Access.RO, "why the last run was stopped", (
            Bits("code", 0, 4, "0: it was not; else a code of the table of faults"),
        )),
        Register("ERROR_INDEX", 0x018, Access.RO, "the instruction that the error is about; of a whole run its End", (
            Bits("index", 0, INDEX_BITS, "counted from 0"),
        )),
        Register("RESET", 0x01C, Access.RESET, "ends a run that the memory never lets end", (
            _flag("reset", 0, "1: no run, nothing open, STATUS, ERROR, counters 0; the memory must be reset with it"),
        )),
        *_pair("PROGRAM_BASE", 0x020, Access.RW, "where the program starts, a multiple of 256 bytes", ADDRESS_BITS, 8),
        Register("PROGRAM_WORDS", 0x028, Access.RW, "instructions of the program, of 16 bytes",
                 _whole("words", INDEX_BITS)),
        *_pair("WATCHDOG", 0x030, Access.RW, "most cycles of a run; 0: any number", 64),
    ]  # fmt: skip
    for region in range(REGIONS):
        base = f"where region {region} starts, a multiple of a beat"
        found += _pair(f"REGION{region}_BASE", 0x040 + 8 * region, Access.RW, base, ADDRESS_BITS, 3)
    for region in range(REGIONS):
        beats = _whole("beats")
        found.append(
            Register(f"REGION{region}_BEATS", 0x060 + 4 * region, Access.RW, f"size of region {region}", beats)
        )
    for number, (name, meaning) in enumerate(COUNTERS.items()):
        found += _pair(name.upper(), 0x080 + 8 * number, Access.RO, meaning, 64)
    return tuple(found)


REGISTERS: tuple[Register, ...] = _registers()
BY_NAME: dict[str, Register] = {register.name: register for register in REGISTERS}
OFFSETS: dict[str, int] = {register.name: register.offset for register in REGISTERS}
"""Byte offset of each register: the map for Python."""

PAIRS: tuple[str, ...] = tuple(name.removesuffix("_LO") for name in OFFSETS if name.endswith("_LO"))
"""Numbers that two registers make up."""


def halves(name: str, value: int) -> dict[str, int]:
    """What a host writes to both registers of a pair, by name."""
    return {f"{name}_LO": value & 0xFFFF_FFFF, f"{name}_HI": value >> 32}


def c_header() -> str:
    """The registers, their fields and the error codes as macros of C."""
    lines = [
        "/* Registers of a bitwright accelerator. Written from bitwright.arch.registers; do not edit. */",
        "#ifndef BITWRIGHT_REGISTERS_H",
        "#define BITWRIGHT_REGISTERS_H",
        "",
        f"#define BITWRIGHT_IDENTITY 0x{IDENTITY:04x}u",
        f"#define BITWRIGHT_MAJOR {MAJOR}u",
        f"#define BITWRIGHT_MINOR {MINOR}u",
    ]
    for register in REGISTERS:
        lines += ["", f"/* {register.meaning} ({register.access}) */"]
        lines.append(f"#define BITWRIGHT_{register.name} 0x{register.offset:03x}u")
        for field in register.fields:
            name = f"BITWRIGHT_{register.name}_{field.name.upper()}"
            lines += [f"#define {name}_SHIFT {field.lowest}u", f"#define {name}_MASK 0x{field.mask:08x}u"]
    lines += ["", "/* Codes of ERROR. */", "#define BITWRIGHT_FAULT_NONE 0u"]
    lines += [f"#define BITWRIGHT_FAULT_{fault.name} {int(fault)}u" for fault in Fault]
    return "\n".join([*lines, "", "#endif", ""])
