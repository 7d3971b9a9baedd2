"""Builds the cost table of a node: `python -m bitwright.rtl.asic.costs` writes arch/costs/<node>.json.

For every entry (see entries): Verilog from `rtl.pe`, mapped at one clock by one script (synthesis), timed (timing), and
simulated on a real model's operands in every weight format that it takes, with uniform random codes beside them
(activity, power). Finished pieces are kept under build/costs by the hash of everything they depend on: a run that was
stopped, or that follows a change of one cell, does only what is missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic import operands
from bitwright.rtl.asic.characterise import Builder
from bitwright.rtl.asic.entries import entries
from bitwright.rtl.asic.jsonout import write_json

CLOCK_MHZ = 250
"""All netlists are sized for this clock; building the table refuses a cell or unit that does not reach it."""


def build_costs(
    node: str,
    *,
    clock_mhz: int = CLOCK_MHZ,
    only: str | None = None,
    more_formats: Sequence[str] = (),
    cache: Path = Path("build/costs"),
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The cost table of a node as JSON data.

    only           Build only entries whose key starts with this; the others are taken from `before`, a whole table.
    more_formats   Formats beyond the built-in ones (registered from outside) to measure as well.
    cache          Where finished pieces are kept.
    Raises ToolError when a tool or library is missing, ConfigError for an unknown node or entry or a clock that an
    entry does not reach.
    """
    builder = Builder(node, clock_mhz, cache)
    made = dict(before["entries"]) if before and only else {}
    for entry in entries(only, more_formats):
        result = builder.build(entry)
        if "fmax_mhz" in result and result["fmax_mhz"] < clock_mhz:
            raise ConfigError(
                f"clock_mhz = {clock_mhz}: {entry.key} reaches {result['fmax_mhz']:.1f} MHz (choose a lower clock)"
            )
        made[entry.key] = result
    return {
        "schema_version": 1,
        "node": node,
        "clock_mhz": clock_mhz,
        "entries": made,
        "provenance": _provenance(builder),
    }


def _provenance(builder: Builder) -> dict[str, Any]:
    found = operands.sample()
    return {
        **{key: value for key, value in builder.base.items() if key not in ("clock_mhz", "library")},
        "command": f"python -m bitwright.rtl.asic.costs --node {builder.node}",
        "library": builder.library.name,
        "library_sha256": builder.library.sha256,
        "voltage_v": builder.library.voltage_v,
        "wire_load": builder.library.wire_load.name,
        "corner": "typical, 25 C",
        "glitches": "not included (zero-delay activity)",
        "operands": found.origin,
        "operands_sha256": found.sha256,
        "random_seed": operands.SEED,
        "group": operands.GROUP,
    }


def main() -> None:
    """Write the table, keeping entries that were not asked for."""
    parser = argparse.ArgumentParser(description="Cost table of a node from real cells and real operands")
    parser.add_argument("--node", default="nangate45")
    parser.add_argument("--only", help="build only entries whose key starts with this, such as pe/int8-mac")
    parser.add_argument("--format", action="append", default=[], help="also measure this registered format")
    parser.add_argument("--clock-mhz", type=int, default=CLOCK_MHZ)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or Path("arch/costs") / f"{options.node}.json"
    before = json.loads(output.read_text()) if output.is_file() else None
    table = build_costs(
        options.node, clock_mhz=options.clock_mhz, only=options.only, more_formats=options.format, before=before
    )
    write_json(output, table)
    print(json.dumps({"entries": len(table["entries"]), "output": str(output)}))


if __name__ == "__main__":
    main()
