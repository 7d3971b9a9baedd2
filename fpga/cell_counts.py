"""What a design takes of an FPGA family by synthesis alone: Yosys' cells as LUTs, flip-flops, DSPs and block RAMs.

No placement, no pads, no clock: a part that has as many may still not hold it, and how fast it would be is not said.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ToolError
from bitwright.fpga.boards import Board

MEMORY_GIB = 4


class Arithmetic(StrEnum):
    """Where multiplications go: DSP where the family's tool puts them there, LUT for none in DSPs."""

    DSP = "dsp"
    LUT = "lut"


_SCRIPTS = {  # family -> script, option of each arithmetic
    "ecp5": ("synth_ecp5 {options} -top {top} -json design.json", {Arithmetic.LUT: "-nodsp"}),
    "ice40": ("synth_ice40 -device u -spram {options} -top {top} -json design.json", {Arithmetic.DSP: "-dsp"}),
    "gowin": ("synth_gowin -family {gowin} {options} -top {top} -json design.json", {Arithmetic.LUT: "-nodsp"}),
    "xc7": ("synth_xilinx -family xc7 -flatten {options} -top {top} -json design.json", {Arithmetic.LUT: "-nodsp"}),
    "xcup": ("synth_xilinx -family xcup -flatten {options} -top {top} -json design.json", {Arithmetic.LUT: "-nodsp"}),
}
FAMILIES = tuple(_SCRIPTS)
UNTOLD = {family: next(one for one in Arithmetic if one not in options) for family, (_, options) in _SCRIPTS.items()}
"""Where a family's tool puts multiplications when it is not told: what builds do."""
_NO_PADS = {
    "ecp5": "", "ice40": "", "gowin": "-noiopads", "xc7": "-noiopad -noclkbuf", "xcup": "-noiopad -noclkbuf",
}  # fmt: skip

LUT, FF, DSP, BRAM = "lut", "ff", "dsp", "bram"
_FREE: tuple[tuple[str, float], ...] = ()
# Block RAM counted in RAMB36; inverters go into what they drive. LUTs of each distributed RAM: UG474 and UG574.
_AMD: dict[str, tuple[tuple[str, float], ...]] = {
    **{f"LUT{n}": ((LUT, 1.0),) for n in range(1, 7)}, "SRL16E": ((LUT, 1),), "SRLC32E": ((LUT, 1),),
    "RAM32M": ((LUT, 4),), "RAM64M": ((LUT, 4),), "RAM32X1D": ((LUT, 2),), "RAM64X1D": ((LUT, 2),),
    "RAM128X1D": ((LUT, 4),), "RAM256X1D": ((LUT, 8),),
    **dict.fromkeys(("CARRY4", "MUXF7", "MUXF8", "INV", "BUFG", "IBUF", "OBUF", "IBUFDS"), _FREE),
}  # fmt: skip
_CELLS: dict[str, dict[str, tuple[tuple[str, float], ...]]] = {
    # A distributed RAM of 16 x 4 takes six of an ECP5's LUTs: four of memory, two of its write port.
    "ecp5": {
        "LUT4": ((LUT, 1),), "CCU2C": ((LUT, 2),), "TRELLIS_DPR16X4": ((LUT, 6),), "TRELLIS_FF": ((FF, 1),),
        "MULT18X18D": ((DSP, 1),), "DP16KD": ((BRAM, 1),), "PDPW16KD": ((BRAM, 1),), "PFUMX": _FREE, "L6MUX21": _FREE,
        "EHXPLLL": _FREE,
    },
    # A carry sits in the cell of the LUT that adds with it.
    "ice40": {
        "SB_LUT4": ((LUT, 1),), "SB_CARRY": _FREE, "SB_MAC16": ((DSP, 1),), "SB_RAM40_4K": ((BRAM, 1),),
        "SB_SPRAM256KA": (("spram", 1),),
    },
    # Multipliers counted as 18 x 18 ones, of which two 9 x 9 take the place.
    "gowin": {
        **{f"LUT{n}": ((LUT, 1.0),) for n in (1, 2, 3, 4)}, **{f"MUX2_LUT{n}": _FREE for n in (5, 6, 7, 8)},
        "ALU": ((LUT, 1),), "RAM16SDP1": ((LUT, 1),), "RAM16SDP2": ((LUT, 2),), "RAM16SDP4": ((LUT, 4),),
        "MULT9X9": ((DSP, 0.5),), "MULT18X18": ((DSP, 1),), "MULT36X36": ((DSP, 4),), "VCC": _FREE, "GND": _FREE,
        **dict.fromkeys(("SDPB", "SDPX9B", "DPB", "DPX9B", "SP", "SPX9", "pROM", "pROMX9"), ((BRAM, 1.0),)),
        "IBUF": _FREE, "OBUF": _FREE,
    },
    "xc7": {
        **_AMD, "DSP48E1": ((DSP, 1),), "RAMB18E1": ((BRAM, 0.5),), "RAMB36E1": ((BRAM, 1),),
        "MMCME2_BASE": _FREE,
    },
    "xcup": {
        **_AMD, "RAM32M16": ((LUT, 8),), "RAM64M8": ((LUT, 8),), "RAM32X16DR8": ((LUT, 8),),
        "RAM64X8SW": ((LUT, 8),), "CARRY8": _FREE, "MUXF9": _FREE,
        "DSP48E2": ((DSP, 1),), "RAMB18E2": ((BRAM, 0.5),), "RAMB36E2": ((BRAM, 1),), "URAM288": (("uram", 1),),
        "MMCME4_BASE": _FREE,
    },
}  # fmt: skip
_FLIP_FLOPS = {"ice40": "SB_DFF", "gowin": "DFF", "xc7": "FD", "xcup": "FD"}
_NOTES = ("$scopeinfo",)
_IN_PARTS = {  # what a board's capacity calls each
    LUT: ("TRELLIS_COMB", "ICESTORM_LC", "LUT4", "LUT"),
    FF: ("TRELLIS_FF", "ICESTORM_LC", "DFF", "FF"),
    DSP: ("MULT18X18D", "ICESTORM_DSP", "MULT18X18", "DSP"),
    BRAM: ("DP16KD", "ICESTORM_RAM", "BSRAM", "RAMB36"),
    "spram": ("ICESTORM_SPRAM",),
}


@dataclass(frozen=True)
class Ran:
    """How a tool ended: its status (None: stopped at the cap), wall seconds, largest resident memory."""

    status: int | None
    seconds: float
    memory_mib: int


def run_capped(command: Sequence[str], folder: Path, log: str, cap_s: float, memory_gib: int | None = None) -> Ran:
    """Run a tool in `folder`, all that it says into its file `log`; its whole process group is killed at the cap.

    memory_gib : of address space; None for the tools of pip that are 32-bit WebAssembly, which have 4 GiB at most.
    """
    limit: Callable[[], None] | None = None
    if memory_gib is not None:
        most = memory_gib << 30

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

    began = time.monotonic()
    capped = threading.Event()
    with (folder / log).open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=limit,
            start_new_session=True,
        )  # fmt: skip

        def stop() -> None:
            capped.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(cap_s, stop)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = round(time.monotonic() - began, 1)
    return Ran(None if capped.is_set() else process.returncode, seconds, round(usage.ru_maxrss / 1024))


def script(family: str, arithmetic: Arithmetic, top: str, *, pads: bool, gowin: str = "gw1n") -> str:
    """The Yosys script that maps `design.v` to a family's cells; `gowin` is its series of that family's parts."""
    line, options = _SCRIPTS[family]
    chosen = f"{options.get(arithmetic, '')} {'' if pads else _NO_PADS[family]}".strip()
    return f"read_verilog design.v\n{' '.join(line.format(options=chosen, top=top, gowin=gowin).split())}\n"


def board_script(board: Board, top: str) -> str:
    """The script of builds for a board."""
    return script(board.family, UNTOLD[board.family], top, pads=True, gowin=gowin_series(board))


def gowin_series(board: Board) -> str:
    """What Yosys calls the series of a Gowin board's part; of no meaning for another board."""
    return "gw2a" if "18C" in board.part[-1] else "gw1n"


def synthesize(folder: Path, verilog: str, commands: str, cap_s: float) -> Ran:
    """Map Verilog in `folder` by a `script`; its `design.json` is there where the status is 0."""
    (folder / "design.v").write_text(verilog)
    (folder / "synthesis.ys").write_text(commands)
    driver = Path(__file__).parents[1] / "rtl" / "asic" / "yosys_driver.py"
    command = [sys.executable, "-P", str(driver), "synthesis.ys"]
    return run_capped(command, folder, "yosys.log", cap_s, MEMORY_GIB)


REGISTERS_SCRIPT = "read_verilog design.v\nhierarchy -top {top}\nproc\ntee -q -o registers.json stat -width -json\n"
_REGISTER = re.compile(r"\$\w*dff\w*_(\d+)")


def registers_of(file: Path) -> int:
    """Flip-flops of a design as it is written, before anything is left out or added, from REGISTERS_SCRIPT's file."""
    text = file.read_text()
    kinds: dict[str, int] = json.loads(text[text.index("{") :])["design"]["num_cells_by_type"]
    return sum(int(found[1]) * count for kind, count in kinds.items() if (found := _REGISTER.fullmatch(kind)))


def resources(family: str, cells: Mapping[str, int]) -> dict[str, float]:
    """LUTs, flip-flops, DSPs and block RAMs (of some families SPRAMs or URAMs) that so many cells of each type take.

    ToolError for a type that it does not know: none is passed over.
    """
    for kind, count in cells.items():
        if _taken(family, kind) is None:
            raise ToolError(
                f"yosys: {count} cells {kind} of family {family}: not known what they take (fpga/cell_counts.py)"
            )
    return at_least(family, cells)


def at_least(family: str, cells: Mapping[str, int]) -> dict[str, float]:
    """As `resources`, of the types that are known alone: no more than the design takes."""
    found: Counter[str] = Counter({LUT: 0, FF: 0, DSP: 0, BRAM: 0})
    for kind, count in cells.items():
        for what, amount in _taken(family, kind) or ():
            found[what] += amount * count  # type: ignore[assignment]
    return dict(found)


def _taken(family: str, kind: str) -> tuple[tuple[str, float], ...] | None:
    flip_flop = _FLIP_FLOPS.get(family)
    if kind in _NOTES:
        return _FREE
    return ((FF, 1.0),) if flip_flop and kind.startswith(flip_flop) else _CELLS[family].get(kind)


def rules(family: str) -> dict[str, tuple[tuple[str, float], ...]]:
    """What each cell of a family is counted as; flip-flops by the beginning of their names."""
    return _CELLS[family] | {_FLIP_FLOPS.get(family, "TRELLIS_FF"): ((FF, 1.0),)}


def in_parts_names(board: Board, found: Mapping[str, float]) -> dict[str, float]:
    """What resources are of the part's capacity: a cell that holds a LUT and a flip-flop is counted once."""
    named: dict[str, float] = {}
    for what, amount in found.items():
        name = next((name for name in _IN_PARTS.get(what, ()) if name in board.capacity), None)
        if name is not None:
            named[name] = max(named.get(name, 0), amount)
    return named


def capacity(board: Board) -> dict[str, float]:
    """LUTs, flip-flops, DSPs and block RAMs of a board's part."""
    return {
        what: next(board.capacity[name] for name in _IN_PARTS[what] if name in board.capacity)
        for what in (LUT, FF, DSP, BRAM)
    }


def cells_of(netlist: Path, top: str) -> dict[str, int]:
    """How many cells of each type a flat netlist of Yosys has."""
    document: dict[str, Any] = json.loads(netlist.read_text())
    return dict(Counter(cell["type"] for cell in document["modules"][top]["cells"].values()))
