"""Area of each block of a machine's whole accelerator, and the clock it reaches: what `bitwright synthesize MACHINE`
prints.

The Verilog that `generate` writes is mapped module by module (synthesis.synthesize_hierarchy): PEs, decoders, result
units and lanes once each, counted as often as they stand there. Memories above 4 Kib are black boxes with CACTI's area,
energy and access time. The clock is that of the whole netlist put together again, over all borders of modules, with
buffer trees on the nets that are too heavy for their drivers (fanout.buffered), a block of their own.
Not modelled: what flattening would save at the borders (docs/campaigns.md has its size), placement, clock and reset
trees (both are ideal), I/O pads.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.limits import limits
from bitwright.rtl.accelerator.top import verilog
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.fanout import buffered
from bitwright.rtl.asic.hierarchy import Place
from bitwright.rtl.asic.jsonout import rounded
from bitwright.rtl.asic.liberty import Library, library_path, node_name
from bitwright.rtl.asic.memory_cells import MemoryMacro, macros, with_memories
from bitwright.rtl.asic.synthesis import HIGH, sha256_text, synthesize_hierarchy
from bitwright.rtl.asic.timing import analyse

TIMEOUT_S = 7200.0
_INSTANCE = re.compile(r"^ +(\w+) +\w+ *\(", re.MULTILINE)
_MODULE = re.compile(r"^module (\w+) *\(", re.MULTILINE)


def synthesize(name: str, node: str | Path, clock_mhz: float, effort: str = HIGH) -> dict[str, Any]:
    """Area, leakage and fmax of the accelerator of machine `name`, sized for `clock_mhz`, and the same of each block.

    blocks     Disjoint: they add up to `area_um2`. A block is what one module holds itself, without the blocks inside.
    memories   The black boxes; `fmax_mhz` is also below what each of their `cycle_ns` allows. CACTI's figures go with
               nangate45: with a Liberty file for `node` memories are blocks without figures, all else is of the logic,
               and `memories_um2` is None.
    Raises ConfigError for an unknown machine or node, a machine that no accelerator is made of and a clock that is not
    positive; ToolError when Yosys or the cell library is missing.
    """
    loaded = machines.load(name)
    top, text = verilog(limits(loaded))
    return {"machine": loaded.name, **blocks(text, top, node, clock_mhz, effort)}


def blocks(text: str, top: str, node: str | Path, clock_mhz: float, effort: str = HIGH) -> dict[str, Any]:
    """As `synthesize`, of Verilog whose memories are modules `memory_<rows>x<bits>` as rtl.accelerator writes them."""
    if clock_mhz <= 0:
        raise ConfigError(f"clock_mhz = {clock_mhz:g}: must be positive")
    liberty = library_path(node)
    library = wired_library(liberty)
    ideal = isinstance(node, Path)
    boxes = {macro.module: macro for macro in macros(text)}
    made, provenance = synthesize_hierarchy(
        text,
        top,
        liberty,
        period_ps=round(1e6 / clock_mhz),
        kept=kept_modules(text, top) - boxes.keys(),
        black_boxes=boxes.keys(),
        timeout_s=TIMEOUT_S,
        effort=effort,
    )
    boundary, conditions = surroundings(library)
    whole = with_memories(
        library, boxes.values(), driver=boundary.driving_cell, register=conditions.input_cell, ideal=ideal
    )
    flat, trees = buffered(made.flat(whole), whole, conditions, ideal=("rst",))
    timing = analyse(flat, whole, conditions, ideal=("rst",))
    places = made.places()
    logic = [_block(place, library) for place in places]
    logic += [_block(Place("buffer trees", "", 1, Counter(buffer.cell for buffer in trees), Counter()), library)]
    memories = [_memory(place, boxes[kind], n, ideal) for place in places for kind, n in sorted(place.boxes.items())]
    rows = [row for row in [*logic, *memories] if row["area_um2"] != 0]
    cycles_ns = [] if ideal else [box.cost.cycle_ns for box in boxes.values()]
    cycle_ns = max([timing.min_period_ns, *cycles_ns])
    logic_um2 = sum(row["area_um2"] for row in logic)
    memories_um2 = None if ideal else sum(row["area_um2"] for row in memories)
    figures: dict[str, Any] = rounded(
        {
            "node": node_name(node),
            "clock_mhz": clock_mhz,
            "meets_clock": 1e3 / cycle_ns >= clock_mhz,
            "area_um2": logic_um2 + (memories_um2 or 0.0),
            "logic_um2": logic_um2,
            "memories_um2": memories_um2,
            "min_period_ns": cycle_ns,
            "fmax_mhz": 1e3 / cycle_ns,
            "critical_path": {"from": timing.path_instances[0], "to": timing.path_instances[-1]},
            "leakage_uw": flat.leakage_uw(whole),
            "blocks": sorted(rows, key=lambda row: -(row["area_um2"] or 0.0)),
            "cells": sum(row["cells"] for row in logic),
            "tool": provenance.tool,
            "library_sha256": library.sha256,
            "rtl_sha256": sha256_text(text),
        }
    )
    return figures


def kept_modules(text: str, top: str) -> set[str]:
    """Modules that are blocks of their own: the top's, the execute engine's, and all that stand more than once."""
    parts = _MODULE.split(text)
    bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
    inside = {name: [kind for kind in _INSTANCE.findall(body) if kind in bodies] for name, body in bodies.items()}
    times = Counter(kind for kinds in inside.values() for kind in kinds)
    repeated = {kind for kind, n in times.items() if n > 1}
    return repeated.union(inside[top], inside.get(f"{top}_execute", ()))


def _block(place: Place, library: Library) -> dict[str, Any]:
    cells = [(library.cell(kind), n) for kind, n in place.cells.items()]
    each_um2 = sum(cell.area_um2 * n for cell, n in cells)
    registers_um2 = sum(cell.area_um2 * n for cell, n in cells if cell.ff is not None)
    return {
        "block": place.path or "top",
        "kind": "logic",
        "count": place.count,
        "area_um2": each_um2 * place.count,
        "each_um2": each_um2,
        "sequential_um2": registers_um2 * place.count,
        "cells": sum(place.cells.values()) * place.count,
    }


def _memory(place: Place, macro: MemoryMacro, in_one: int, ideal: bool) -> dict[str, Any]:
    cost, count = macro.cost, in_one * place.count
    what = {
        "block": f"{place.path}.{macro.module}".removeprefix("."),
        "kind": "memory",
        "count": count,
        "capacity_bytes": macro.rows * macro.bits / 8,
    }
    if ideal:
        return {**what, "area_um2": None, "each_um2": None}
    return {
        **what,
        "area_um2": cost.area_mm2 * 1e6 * count,
        "each_um2": cost.area_mm2 * 1e6,
        "read_pj": cost.read_pj,
        "write_pj": cost.write_pj,
        "access_ns": cost.access_ns,
        "cycle_ns": cost.cycle_ns,
    }
