"""Area, clock and energy of every PE behind streams: `python -m bitwright.rtl.asic.stream_costs` writes
arch/costs/streams_<node>.json.

One row a PE (cells.synthesize_stream), one more with clock gating, and on the default node with operand isolation, with
both, and at each of OTHER_CLOCKS_MHZ; as many at once as there are processors. The table is written after each one, and
a row whose RTL, stimuli, library, tool, flow, clock and method are still the same is kept, as are netlists: a run that
was stopped goes on where it was. A clock that a PE does not reach is a row that says so (`meets_clock`).
Machines do not read this table; their cells and edge units are in arch/costs/<node>.json.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitwright.arch import pe
from bitwright.arch.pe import block_gates, lut
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.asic import cells, commands, glitches, stream_parts
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.jsonout import rounded, write_json
from bitwright.rtl.asic.liberty import library_path, node_name, read_library
from bitwright.rtl.asic.synthesis import FLOW_SHA256, HIGH, LOW, sha256_text, synthesize_verilog, yosys_version
from bitwright.rtl.pe import streaming

CLOCK_MHZ = 250
OTHER_CLOCKS_MHZ = (125, 500)
"""Every PE reaches the first; half of them the second, with larger cells."""
# The default tile of lut has 512 MACs a step: a small one with its table unit inside stands beside it.
PES = (
    "shift-add", "int8-mac", "flint", "int8-int4-mac", "opt1", "opt3", "shift-add-a16", "fp16-mac", "w4a16-dequant",
    "fp16-mac:acc_format=fp16", "fp16-mac:pipeline=2", "int8-mac:pipeline=1", "int8-mac:lanes=4,pipeline=1",
    "shift-add:lanes=4,pipeline=1", "int8-mac:weight_bits=4,lanes=4,pipeline=1,psum_bits=19", "opt1:resolve_cycles=0",
    "opt2", "opt4c", "outlier-victim", "bit-serial", "lut:m=1,n=2,variant=full,precompute=true,pipeline=3",
    "nvint4-dot", "nvfp4-dot", "mxfp4-dot", "mxint8-dot", "mxfp8-dot", "lut",
)  # fmt: skip
"""From the quickest to the slowest to map: every PE with its defaults, and variants that comparisons need."""

ABLATION = tuple(f"lut:m=1,n=16,weight_bits={row['weight_bits']},variant={name}" for name, row in lut.ABLATION.items())
"""The stages of LUT Tensor Core's Table 2 on an eighth of its tile: one table of four activations, 16 columns."""

LUT_TILES = tuple(
    f"lut:m=1,n=16,weight_bits={bits},activation={activation}" for activation in ("int8", "fp16") for bits in (1, 2, 4)
)
"""The same tile for weights of 1, 2 and 4 bits and both activations, each built for its width: beside MACs."""
ALIGNED = (f"mxfp8-dot:aligner_bits={block_gates.ALIGNED_LIMIT_BITS}",)
"""MXFP8 as the published gate model has it: products aligned to the largest, instead of an exact sum."""
LOW_EFFORT = (
    "int8-mac", "shift-add", "fp16-mac", "mxfp4-dot", "mxfp8-dot", "mxint8-dot", "nvfp4-dot", "nvint4-dot",
)  # fmt: skip
"""Mapped with less effort beside their rows, to show what the flow moves."""
SECTIONS = {"ablation": ABLATION, "lut_tiles": LUT_TILES, "aligned": ALIGNED, "low_effort": LOW_EFFORT}
"""Sections with rows of their own, at the table's clock: on the default node only, where papers are compared."""

GLITCHING = ("int8-mac", "shift-add", "int8-mac:pipeline=1", "opt1")
"""Measured with cell delays too: the two that the comparison needs, and two whose registers cut the logic short."""
GLITCH_LANES = 8


@functools.cache
def rtl_sha256(name: str, *, operand_isolation: bool = False) -> str:
    """Hash of the Verilog that a row of this name must have."""
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec | BitSerial), "every PE has streams"
    return sha256_text(cells.stream_verilog(spec, operand_isolation=operand_isolation))


@functools.cache
def stimuli_sha256(name: str) -> str:
    """Hash of the stimuli that a row of this name must have come from."""
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec | BitSerial), "every PE has streams"
    return cells.stimuli_sha256(cells.stream_works(spec))


@functools.cache
def moving_sha256(name: str) -> str:
    """Hash of the stimulus that a row's energies of moving operands must have come from."""
    spec = cells.stream_spec(name)
    assert isinstance(spec, StreamSpec | BitSerial), "every PE has streams"
    return cells.moving_stimulus(spec).sha256


@dataclass(frozen=True)
class Wanted:
    """A row of the table.

    clock_mhz   Of the row; the table's, but for rows of "clocks".
    own         The section of SECTIONS that it is of; None: by its clock and switches.
    moving      Without energies of moving operands, or with those of another stimulus, it is stale too.
    """

    name: str
    clock_mhz: float
    clock_gating: bool = False
    operand_isolation: bool = False
    own: str | None = None
    moving: bool = False

    def __str__(self) -> str:
        gated, isolated = ", clock-gated" * self.clock_gating, ", isolated" * self.operand_isolation
        return f"{self.name}, {self.clock_mhz:g} MHz{gated}{isolated}"

    def rows(self, table: dict[str, Any]) -> dict[str, Any]:
        """The rows by PE that it is one of, to be added to: "rows" at the table's clock, "clock_gated", "isolated",
        "isolated_clock_gated", `own`, "clocks" by the others."""
        switches = ["isolated"] * self.operand_isolation + ["clock_gated"] * self.clock_gating
        if self.own is not None:
            found = table.setdefault(self.own, {})
        elif switches:
            found = table.setdefault("_".join(switches), {})
        elif self.clock_mhz == table["clock_mhz"]:
            found = table.setdefault("rows", {})
        else:
            found = table.setdefault("clocks", {}).setdefault(f"{self.clock_mhz:g}", {})
        rows: dict[str, Any] = found
        return rows

    def is_fresh(self, kept: dict[str, Any], library_sha256: str) -> bool:
        """Whether `kept` is of today's library, RTL, stimuli, flow, method and tool."""
        if not kept.get("tool", "").startswith(yosys_version()):
            return False
        today = {"library_sha256": library_sha256, "clock_mhz": self.clock_mhz, "method": cells.STREAM_METHOD}
        today["flow_sha256"] = FLOW_SHA256
        today["rtl_sha256"] = rtl_sha256(self.name, operand_isolation=self.operand_isolation)
        today["stimuli_sha256"] = stimuli_sha256(self.name)
        if self.moving:
            today["moving_stimulus_sha256"] = moving_sha256(self.name)
        return bool(rounded(today).items() <= kept.items())

    @property
    def effort(self) -> str:
        """LOW of the section that shows it."""
        return LOW if self.own == "low_effort" else HIGH

    def make(self, node: str | Path) -> dict[str, Any]:
        """The row; its netlist is kept."""
        print(f"streams: {self}", file=sys.stderr, flush=True)
        return cells.synthesize_stream(
            self.name,
            node,
            self.clock_mhz,
            commands.work_folder("netlists"),
            clock_gating=self.clock_gating,
            operand_isolation=self.operand_isolation,
            effort=self.effort,
        )


def build(
    path: Path, node: str | Path, clock_mhz: float, wanted: Sequence[Wanted], processes: int = 1
) -> dict[str, Any]:
    """Write the rows that are missing or stale into the table of `clock_mhz` at `path`, each as soon as it is made.

    processes   How many rows are made at once, each by a process of its own.
    Raises as `cells.synthesize_stream`; what was written before stays.
    """
    library_sha256 = read_library(library_path(node)).sha256
    table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    table |= {"schema_version": 3, "node": node_name(node), "command": "python -m bitwright.rtl.asic.stream_costs"}
    table["clock_mhz"] = clock_mhz
    stale = [row for row in wanted if not row.is_fresh(row.rows(table).get(row.name, {}), library_sha256)]
    for row, made in commands.in_parallel(Wanted.make, [(row, node) for row in stale], processes):
        row.rows(table)[row.name] = made
        write_json(path, table)
    return table


def build_parts(path: Path, node: str | Path, clock_mhz: float) -> dict[str, Any]:
    """Add the parts that are missing or stale to the table at `path`, as `build` does rows."""
    library_sha256 = read_library(library_path(node)).sha256
    table: dict[str, Any] = json.loads(path.read_text())
    parts = table.setdefault("parts", {})
    for name in stream_parts.PARTS:
        wanted = {"library_sha256": library_sha256, "clock_mhz": clock_mhz, "flow_sha256": FLOW_SHA256}
        wanted["rtl_sha256"] = stream_parts.rtl_sha256(name)
        kept = parts.get(name, {})
        if not (kept.get("tool", "").startswith(yosys_version()) and rounded(wanted).items() <= kept.items()):
            print(f"parts: {name}", file=sys.stderr, flush=True)
            parts[name] = stream_parts.synthesize_part(name, node, clock_mhz, commands.work_folder("netlists"))
            write_json(path, table)
    return table


def build_glitches(path: Path, node: str | Path, clock_mhz: float) -> dict[str, Any]:
    """Add what glitches add to the energy of GLITCHING, each with the netlist and the stimuli of its row."""
    library = wired_library(library_path(node))
    table: dict[str, Any] = json.loads(path.read_text())
    found = table.setdefault("glitches", {})
    for name in GLITCHING:
        row, period_ps = table["rows"][name], round(1e6 / clock_mhz)
        origin = ("rtl_sha256", "stimuli_sha256", "library_sha256", "flow_sha256", "clock_mhz", "tool")
        made_from = {key: row[key] for key in origin}
        if made_from.items() <= found.get(name, {}).items():
            continue
        print(f"glitches: {name}", file=sys.stderr, flush=True)
        spec = cells.stream_spec(name)
        assert isinstance(spec, StreamSpec), "GLITCHING are streaming PEs"
        made = synthesize_verilog(
            streaming.verilog(spec),
            spec.module_stem,
            library_path(node),
            period_ps=period_ps,
            cache=commands.work_folder("netlists"),
        )
        for kind, work in zip(("real", "random"), cells.stream_works(spec), strict=True):
            conditions = surroundings(library)[1]
            measured = glitches.measure(
                made.netlist, library, conditions, work.stimulus, period_ps=period_ps, lanes=GLITCH_LANES
            )
            found[name] = {**found.get(name, {}), **made_from, kind: asdict(measured)}
        write_json(path, table)
    return table


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Area, clock and energy of every PE behind streams")
    parser.add_argument("--node", default="nangate45")
    parser.add_argument("--liberty", type=Path, help="a Liberty file instead; then --name is its table's")
    parser.add_argument("--name", help="of the table: streams_<name>.json")
    parser.add_argument("--clock-mhz", type=float, default=CLOCK_MHZ)
    parser.add_argument("--only", help="rows whose name starts with this")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    path = commands.output_path(options.output, f"streams_{options.name or options.node}.json")
    names = [name for name in PES if options.only is None or name.startswith(options.only)]
    missing = {*pe.all_names()} - {name.partition(":")[0] for name in PES}
    assert not missing, f"PEs without a row: {missing}"
    node = options.liberty or options.node
    whole, clock_mhz = options.liberty is None, options.clock_mhz
    switches = (False, True)
    wanted = []
    for name in names:  # all rows of the quick ones before any of the slow
        wanted += [
            Wanted(name, clock_mhz, gating, isolation, moving=whole)
            for isolation, gating in itertools.product(switches if whole else (False,), switches)
        ]
        wanted += [Wanted(name, other_mhz) for other_mhz in (OTHER_CLOCKS_MHZ if whole else ())]
    if options.only is None and whole:
        wanted += [Wanted(tile, clock_mhz, own=own) for own, tiles in SECTIONS.items() for tile in tiles]
    table = build(path, node, clock_mhz, wanted, commands.processors())
    if options.only is None:
        build_parts(path, node, options.clock_mhz)
        table = build_glitches(path, node, options.clock_mhz)
    print(json.dumps({"rows": len(table["rows"]), "output": str(path)}))


if __name__ == "__main__":
    commands.run(main)
