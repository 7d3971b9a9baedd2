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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic import commands, operands
from bitwright.rtl.asic.characterise import Builder
from bitwright.rtl.asic.clock_tree import repeater
from bitwright.rtl.asic.entries import entries
from bitwright.rtl.asic.jsonout import rounded, write_json
from bitwright.rtl.asic.stimulus import ARRAY_ROWS

CLOCK_MHZ = 250
"""All netlists are sized for this clock; building the table refuses a cell or unit that does not reach it."""


def build_costs(
    node: str,
    *,
    clock_mhz: int = CLOCK_MHZ,
    only: str | None = None,
    more_formats: Sequence[str] = (),
    cache: Path | None = None,
    before: dict[str, Any] | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """The cost table of a node as JSON data.

    only           Build only entries whose key starts with this; the others are taken from `before`, a whole table.
    more_formats   Formats beyond the built-in ones (registered from outside) to measure as well.
    cache          Where finished pieces are kept; None: build/costs of the checkout, else the user's cache.
    processes      How many entries are made at once.
    Raises ToolError when a tool or library is missing; ConfigError for an unknown node or entry, a clock that an entry
    does not reach, or a `before` that was not made in the same way.
    """
    chosen = entries(only, more_formats)
    folder = cache or commands.work_folder("costs")
    builder = Builder(node, clock_mhz, folder)
    head = {"schema_version": 3, "node": node, "clock_mhz": clock_mhz, "provenance": _provenance(builder)}
    made = {}
    if before and only:
        _refuse_other_origin(before, head, only)
        made = dict(before["entries"])
    calls = [(entry.key, node, clock_mhz, folder, more_formats) for entry in chosen]
    for key, result in commands.in_parallel(_built, calls, processes):
        if "fmax_mhz" in result and result["fmax_mhz"] < clock_mhz:
            raise ConfigError(
                f"clock_mhz = {clock_mhz}: {key} reaches {result['fmax_mhz']:.1f} MHz (choose a lower clock)"
            )
        made[key] = result
    return {**head, "entries": made}


def _built(key: str, node: str, clock_mhz: int, folder: Path, more_formats: Sequence[str]) -> dict[str, Any]:
    (entry,) = (one for one in entries(key, more_formats) if one.key == key)
    return Builder(node, clock_mhz, folder).build(entry)


def _refuse_other_origin(before: dict[str, Any], head: dict[str, Any], only: str) -> None:
    """ConfigError when `before` differs in anything that all entries of a table have in common."""
    stored = {**before, **before.get("provenance", {})}
    today = rounded({**head, **head["provenance"]})
    for name in sorted(today.keys() - {"provenance", "command"}):
        if stored.get(name) != today[name]:
            raise ConfigError(
                f"only = {only}: the table to add to has {name} = {stored.get(name)}, this run {today[name]}: entries "
                "made in different ways do not share a table (build all of it, without --only)"
            )


def _provenance(builder: Builder) -> dict[str, Any]:
    found = operands.sample()
    made: dict[str, Any] = rounded(
        {
            **builder.base,
            "command": f"python -m bitwright.rtl.asic.costs --node {builder.node}",
            "library": builder.library.name,
            "voltage_v": builder.library.voltage_v,
            "wire_load": builder.library.wire_load.name,
            "wire_ff_per_um": builder.library.wire_load.ff_per_length,
            "clock_buffer": asdict(repeater(builder.library, builder.conditions)),
            "corner": "typical, 25 C",
            "glitches": "not included (zero-delay activity)",
            "operands": found.origin,
            "operands_sha256": found.sha256,
            "random_seed": operands.SEED,
            "group": operands.GROUP,
            "array_rows": ARRAY_ROWS,
        }
    )
    return made


def main() -> None:
    """Write the table, keeping entries that were not asked for."""
    parser = argparse.ArgumentParser(description="Cost table of a node from real cells and real operands")
    parser.add_argument("--node", default="nangate45")
    parser.add_argument("--only", help="build only entries whose key starts with this, such as pe/int8-mac")
    parser.add_argument("--format", action="append", default=[], help="also measure this registered format")
    parser.add_argument("--clock-mhz", type=int, default=CLOCK_MHZ)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = commands.output_path(options.output, f"{options.node}.json")
    before = json.loads(output.read_text()) if output.is_file() else None
    table = build_costs(
        options.node,
        clock_mhz=options.clock_mhz,
        only=options.only,
        more_formats=options.format,
        before=before,
        processes=commands.processors(),
    )
    write_json(output, table)
    print(json.dumps({"entries": len(table["entries"]), "output": str(output)}))


if __name__ == "__main__":
    commands.run(main)
