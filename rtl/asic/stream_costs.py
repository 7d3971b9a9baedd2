"""Area, clock and energy of every PE behind streams: `python -m bitwright.rtl.asic.stream_costs` writes
arch/costs/streams_<node>.json.

One row a PE (cells.synthesize_stream). The table is written after each one, and a row whose RTL, stimuli, library,
tool, clock and method are still the same is kept, as are netlists: a run that was stopped goes on where it was.
Machines do not read this table; their cells and edge units are in arch/costs/<node>.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bitwright.arch import pe
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.asic import cells, commands
from bitwright.rtl.asic.jsonout import rounded, write_json
from bitwright.rtl.asic.liberty import library_path, node_name, read_library
from bitwright.rtl.asic.synthesis import sha256_text, yosys_version
from bitwright.rtl.pe import streaming

CLOCK_MHZ = 250
# The default tile of lut has 512 MACs a step: a small one with its table unit inside stands beside it.
PES = (
    "shift-add", "int8-mac", "flint", "int8-int4-mac", "opt1", "opt3", "shift-add-a16", "fp16-mac", "w4a16-dequant",
    "fp16-mac:acc_format=fp16", "fp16-mac:pipeline=2", "int8-mac:pipeline=1", "int8-mac:lanes=4,pipeline=1",
    "shift-add:lanes=4,pipeline=1", "int8-mac:weight_bits=4,lanes=4,pipeline=1,psum_bits=19", "opt1:resolve_cycles=0",
    "opt2", "opt4c", "outlier-victim", "bit-serial", "lut:m=1,n=2,variant=full,precompute=true,pipeline=3",
    "nvint4-dot", "nvfp4-dot", "mxfp4-dot", "mxint8-dot", "mxfp8-dot", "lut",
)  # fmt: skip
"""From the quickest to the slowest to map: every PE with its defaults, and variants that comparisons need."""


def rtl_sha256(name: str) -> str:
    """Hash of the Verilog that a row of this name must have."""
    return sha256_text(streaming.verilog(cells.stream_spec(name)))


def stimuli_sha256(name: str) -> str | None:
    """Hash of the stimuli that a row of this name must have come from; None for a PE without energies."""
    spec = cells.stream_spec(name)
    return cells.stimuli_sha256(cells.stream_works(spec)) if isinstance(spec, StreamSpec) else None


def build(path: Path, node: str | Path, clock_mhz: float, names: list[str]) -> dict[str, Any]:
    """Write the rows of `names` that are missing or stale into the table at `path`, one after the other.

    Raises as `cells.synthesize_stream`; what was written before stays.
    """
    same = {
        "library_sha256": read_library(library_path(node)).sha256,
        "clock_mhz": clock_mhz,
        "method": cells.STREAM_METHOD,
    }
    cache = commands.work_folder("netlists")
    table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    table |= {"schema_version": 2, "node": node_name(node), "command": "python -m bitwright.rtl.asic.stream_costs"}
    for name in names:
        kept = table["rows"].get(name, {})
        wanted = {**same, "rtl_sha256": rtl_sha256(name), "stimuli_sha256": kept and stimuli_sha256(name)}
        if kept.get("tool", "").startswith(yosys_version()) and rounded(wanted).items() <= kept.items():
            continue
        print(f"streams: {name}", file=sys.stderr, flush=True)
        table["rows"][name] = cells.synthesize_stream(name, node, clock_mhz, cache)
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
    table = build(path, options.liberty or options.node, options.clock_mhz, names)
    print(json.dumps({"rows": len(table["rows"]), "output": str(path)}))


if __name__ == "__main__":
    commands.run(main)
