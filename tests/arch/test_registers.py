"""The register map: no two overlap, the C header says what the table says, the page has not aged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bitwright.arch import registers
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.registers import BY_NAME, COUNTERS, OFFSETS, PAIRS, REGISTERS, Access, c_header, halves

ROOT = Path(__file__).resolve().parents[2]


def test_every_register_has_a_place_and_a_name_of_its_own() -> None:
    assert len({register.offset for register in REGISTERS}) == len(REGISTERS) == len(BY_NAME) == len(OFFSETS)
    for register in REGISTERS:
        assert register.offset % 4 == 0, register.name
        assert 0 <= register.offset < 1 << registers.OFFSET_BITS, register.name


def test_fields_fill_no_bit_twice() -> None:
    for register in REGISTERS:
        masks = [field.mask for field in register.fields]
        assert sum(masks) == register.mask < 1 << 32, register.name
        assert all(one & other == 0 for place, one in enumerate(masks) for other in masks[:place]), register.name
        assert len({field.name for field in register.fields}) == len(masks), register.name


def test_offsets_that_hosts_rely_on() -> None:
    """Moving one needs another MAJOR."""
    fixed = {
        "ID": 0x000, "CONTROL": 0x004, "STATUS": 0x008, "INTERRUPT_ENABLE": 0x00C, "INTERRUPT": 0x010, "ERROR": 0x014,
        "ERROR_INDEX": 0x018, "RESET": 0x01C, "PROGRAM_BASE_LO": 0x020, "PROGRAM_WORDS": 0x028, "WATCHDOG_LO": 0x030,
        "REGION0_BASE_LO": 0x040, "REGION3_BASE_LO": 0x058, "REGION0_BEATS": 0x060, "REGION3_BEATS": 0x06C,
        "CYCLES_LO": 0x080, "STORE_BUSY_HI": 0x0BC,
    }  # fmt: skip
    assert {name: OFFSETS[name] for name in fixed} == fixed


def test_pairs_are_neighbours() -> None:
    assert set(PAIRS) == {"PROGRAM_BASE", "WATCHDOG", *(f"REGION{region}_BASE" for region in range(REGIONS))} | {
        name.upper() for name in COUNTERS
    }
    for name in PAIRS:
        assert OFFSETS[f"{name}_HI"] == OFFSETS[f"{name}_LO"] + 4, name
    assert halves("WATCHDOG", 0x1_2345_6789) == {"WATCHDOG_LO": 0x2345_6789, "WATCHDOG_HI": 1}


def test_counters_are_those_of_a_run() -> None:
    assert list(COUNTERS) == list(Counters.__dataclass_fields__)
    assert all(BY_NAME[f"{name.upper()}_LO"].access is Access.RO for name in COUNTERS)


def test_fields_hold_every_value() -> None:
    assert max(Fault) <= BY_NAME["ERROR"].field("code").mask
    index = BY_NAME["ERROR_INDEX"].field("index")
    assert index.mask >= BY_NAME["PROGRAM_WORDS"].field("words").mask  # of a truncated program


PROGRAM = """
#include <stdio.h>
#include "registers.h"
#include "registers.h"
int main(void) {
%s
    return 0;
}
"""


@pytest.mark.parametrize("language", ["c", "c++"])
def test_header_says_what_the_table_says(language: str, tmp_path: Path) -> None:
    expected = {
        "IDENTITY": registers.IDENTITY,
        "MAJOR": registers.MAJOR,
        "MINOR": registers.MINOR,
        "FAULT_NONE": 0,
        **{f"FAULT_{fault.name}": int(fault) for fault in Fault},
    }
    for register in REGISTERS:
        expected[register.name] = register.offset
        for field in register.fields:
            expected[f"{register.name}_{field.name.upper()}_SHIFT"] = field.lowest
            expected[f"{register.name}_{field.name.upper()}_MASK"] = field.mask
    assert c_header().count("#define BITWRIGHT_") == len(expected) + 1  # and the guard
    prints = "\n".join(f'    printf("{name} %u\\n", BITWRIGHT_{name});' for name in expected)
    (tmp_path / "registers.h").write_text(c_header())
    (tmp_path / "main.c").write_text(PROGRAM % prints)
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-x", language]
    subprocess.run(["g++", *flags, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True)
    found = {name: int(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert found == expected


def test_page_has_not_aged() -> None:
    script = ROOT / "docs" / "registers.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / "registers.md").read_text() == done.stdout, "run `make docs`"
