"""AMD boards: Verilog, pins and Vivado scripts in a folder, and what Yosys makes of the design's size.

Vivado makes the bitstream; it is not here, and no script was run in it. The figures are of Yosys' `synth_xilinx`:
resources alone, neither placed nor timed. The scripts:

    build.tcl         vivado -mode batch -source build.tcl: board.bit, utilization.rpt, timing.rpt; status 1 where the
                      clock is not met
    package_ip.tcl    vivado -mode batch -source package_ip.tcl: the accelerator (AXI4, AXI4-Lite) as an IP in ip/
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ToolError
from bitwright.arch.machine import Machine
from bitwright.fpga.boards import Board
from bitwright.fpga.fitting import too_large
from bitwright.fpga.wrapping import TOP, constraints, wrapper

SCHEMA_VERSION = 1
ESTIMATE = "Yosys synth_xilinx: resources of synthesis alone; not placed, no clock claimed"
_BUILD = """# Bitstream of {name}: vivado -mode batch -source build.tcl. Written by bitwright; not run in Vivado.
cd [file dirname [file normalize [info script]]]
read_verilog design.v
read_xdc board.xdc
synth_design -top {top} -part {part}
opt_design
place_design
phys_opt_design
route_design
report_utilization -hierarchical -file utilization.rpt
report_timing_summary -file timing.rpt
set slack [get_property SLACK [get_timing_paths -delay_type max]]
if {{$slack < 0}} {{
  puts stderr "the clock of {mhz:g} MHz is not met: slack $slack ns (timing.rpt)"
  exit 1
}}
write_bitstream -force {top}.bit
"""
_PACKAGE = """# The accelerator as an IP: vivado -mode batch -source package_ip.tcl. By bitwright; not run in Vivado.
cd [file dirname [file normalize [info script]]]
create_project -in_memory -part {part}
read_verilog accelerator.v
set_property top {module} [current_fileset]
ipx::package_project -root_dir ip -vendor bitwright -library accelerators -taxonomy /UserIP -import_files -force
set core [ipx::current_core]
set_property name {module} $core
ipx::infer_bus_interfaces xilinx.com:interface:aximm_rtl:1.0 $core
ipx::infer_bus_interface clk xilinx.com:signal:clock_rtl:1.0 $core
ipx::associate_bus_interfaces -busif m_axi -clock clk $core
ipx::associate_bus_interfaces -busif s_axil -clock clk $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::save_core $core
"""


def export(machine: Machine, board: Board, folder: Path, *, array: bool = False) -> dict[str, Any]:
    """Everything that Vivado needs for a machine on an AMD board, in `folder`, and what it takes by estimate.

    array : the machine's array alone behind the serial line (fpga.array_top), not its accelerator; no package_ip.tcl.
    ConfigError where synthesis shows that it does not fit, saying what exceeds; ToolError where Yosys fails.
    """
    files = _files(machine, board, array)
    key = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    name = f"{board.name}-{machine.name}{'-array' if array else ''}"
    kept = folder / f"{name}-{key[:12]}"
    if not (kept / "build.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            for file, text in files.items():
                (work / file).write_text(text)
            row = {"name": name, "machine": machine.name, "board": board.name, "array_only": array}
            row |= _estimated(work, machine, board)
            row |= {"design_sha256": key, "schema_version": SCHEMA_VERSION}
            (work / "build.json").write_text(json.dumps(row, indent=1, sort_keys=True) + "\n")
            shutil.rmtree(kept, ignore_errors=True)
            work.rename(kept)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    row = json.loads((kept / "build.json").read_text())
    script = kept / "build.tcl"
    return {**row, "bitstream": None, "script": str(script), "next": f"vivado -mode batch -source {script}"}


def _files(machine: Machine, board: Board, array: bool) -> dict[str, str]:
    from bitwright.arch.isa.limits import limits
    from bitwright.fpga import array_top, top
    from bitwright.rtl.accelerator import top as accelerator

    module, text = array_top.verilog(machine, board) if array else top.verilog(machine, board)
    (part,) = board.part
    named = {"name": f"{machine.name} on {board.name}", "top": TOP, "part": part, "mhz": board.clock_hz / 1e6}
    files = {
        "design.v": text + wrapper(board, module),
        "board.xdc": constraints(board),
        "build.tcl": _BUILD.format(**named),
        "synthesis.ys": f"read_verilog design.v\nsynth_xilinx -family {board.family} -top {TOP} -flatten\n"
        "write_json design.json\n",
    }
    if not array:
        name, files["accelerator.v"] = accelerator.verilog(limits(machine), **accelerator.opened(machine))
        files["package_ip.tcl"] = _PACKAGE.format(part=part, module=name)
    return files


def _estimated(work: Path, machine: Machine, board: Board) -> dict[str, Any]:
    began = time.monotonic()
    driver, log = Path(__file__).parents[1] / "rtl" / "asic" / "yosys_driver.py", work / "yosys.log"
    with log.open("w") as out:
        command = [sys.executable, "-P", str(driver), "synthesis.ys"]
        status = subprocess.run(command, cwd=work, stdout=out, stderr=out, stdin=subprocess.DEVNULL).returncode
    if status:
        lines = log.read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no message"]
        raise ToolError(f"yosys: failed on machine {machine.name}, board {board.name}: {told[0]}")
    netlist = work / "design.json"
    cells = json.loads(netlist.read_text())["modules"][TOP]["cells"].values()
    counts = taken(Counter(cell["type"] for cell in cells))
    netlist.unlink()  # large, and Vivado reads the Verilog
    refusal = too_large(machine, board, counts)
    if refusal is not None:
        raise refusal
    return {
        "clock_mhz": board.clock_hz / 1e6,
        "fmax_mhz": None,
        "utilisation": {kind: {"used": counts[kind], "available": most} for kind, most in board.capacity.items()},
        "utilisation_of": ESTIMATE,
        "build_s": round(time.monotonic() - began, 1),
    }


def taken(cells: Counter[str]) -> Counter[str]:
    """LUT, FF, DSP and RAMB18 of cells by type; a RAMB36 is two RAMB18, a LUT of RAM or a shift register one LUT."""
    found: Counter[str] = Counter()
    for kind, count in cells.items():
        if kind.startswith("LUT") or kind.startswith("SRL"):
            found["LUT"] += count
        elif kind in _LUT_RAM:
            found["LUT"] += _LUT_RAM[kind] * count
        elif kind in ("FDRE", "FDSE", "FDCE", "FDPE"):
            found["FF"] += count
        elif kind.startswith("DSP48"):
            found["DSP"] += count
        elif kind.startswith("RAMB"):
            found["RAMB18"] += (2 if kind.startswith("RAMB36") else 1) * count
    return found


_LUT_RAM = {
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8,
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
}  # fmt: skip
"""LUTs of each primitive: UG474 (7 series CLB) and UG574 (UltraScale CLB), distributed RAM."""
