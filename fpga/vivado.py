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
import tempfile
import time
from pathlib import Path
from typing import Any

from bitwright.arch.machine import Machine
from bitwright.fpga import tools
from bitwright.fpga.boards import Board
from bitwright.fpga.building import Design, Progress, silent, yosys
from bitwright.fpga.cell_counts import board_script, cells_of, in_parts_names, resources, rules
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


def export(
    machine: Machine, board: Board, folder: Path, *, array: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Everything that Vivado needs for a machine on an AMD board, in `folder`, and what it takes by estimate.

    array : the machine's array alone behind the serial line (fpga.array_top), not its accelerator; no package_ip.tcl.
    ConfigError where synthesis shows that it does not fit, saying what exceeds; ToolError where Yosys fails.
    """
    files = _files(machine, board, array)
    made_by = tools.versioned("pyosys")
    key = hashlib.sha256(json.dumps([files, made_by, rules(board.family)]).encode()).hexdigest()
    name = f"{board.name}-{machine.name}{'-array' if array else ''}"
    kept = folder / f"{name}-{key[:12]}"
    if not (kept / "build.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            for file, text in files.items():
                (work / file).write_text(text)
            row = {"name": name, "machine": machine.name, "board": board.name, "array_only": array, "tools": [made_by]}
            row |= _estimated(work, Design(machine, board, array), progress or silent)
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
        "synthesis.ys": board_script(board, TOP),
    }
    if not array:
        name, files["accelerator.v"] = accelerator.verilog(limits(machine), **accelerator.opened(machine))
        files["package_ip.tcl"] = _PACKAGE.format(part=part, module=name)
    return files


def _estimated(work: Path, design: Design, progress: Progress) -> dict[str, Any]:
    began, board = time.monotonic(), design.board
    progress("yosys", 0, 1)
    yosys(work, design)
    netlist = work / "design.json"
    used = in_parts_names(board, resources(board.family, cells_of(netlist, TOP)))
    netlist.unlink()  # large, and Vivado reads the Verilog
    design.refuse_if_too_large(used)
    progress("yosys", 1, 1)
    return {
        "clock_mhz": board.clock_hz / 1e6,
        "fmax_mhz": None,
        "utilisation": {kind: {"used": used[kind], "available": most} for kind, most in board.capacity.items()},
        "utilisation_of": ESTIMATE,
        "build_s": round(time.monotonic() - began, 1),
    }
