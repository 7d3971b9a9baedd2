"""`bitwright doctor` and `bitwright list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from bitwright.cli.output import print_json, print_table


class Catalogue(StrEnum):
    """What can be listed."""

    FORMATS = "formats"
    PES = "pes"
    MACHINES = "machines"
    MODELS = "models"
    NODES = "nodes"
    DRAMS = "drams"
    PAPERS = "papers"
    BOARDS = "boards"


_JSON_ONLY = ("options", "scale_rule", "cell_formats")
_MODEL_COLUMNS = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab", "source")
LIST_SHAPE = (4096, 4096)  # the matrix whose bits a value are listed, in the format's usual group


def list_(
    what: Annotated[str, typer.Argument(help="formats, pes, machines, models, nodes, drams, papers or boards")],
    json: Annotated[bool, typer.Option("--json", help="An array of objects with `name`.")] = False,
) -> None:
    """What bitwright knows by name.

    Examples:

      bitwright list formats

      bitwright list pes --json
    """
    if what not in [*Catalogue]:
        from bitwright.arch.errors import ConfigError, suggest

        raise ConfigError(f"what = {what!r}: cannot be listed; {suggest(what, [*Catalogue])}; the command line")
    rows = {
        Catalogue.FORMATS: _formats,
        Catalogue.PES: _pes,
        Catalogue.MACHINES: _machines,
        Catalogue.MODELS: _models,
        Catalogue.NODES: _nodes,
        Catalogue.DRAMS: _drams,
        Catalogue.PAPERS: _papers,
        Catalogue.BOARDS: _boards,
    }[Catalogue(what)]()
    if json:
        print_json(rows)
        return
    columns = [name for name in rows[0] if name not in _JSON_ONLY]
    if what == Catalogue.MODELS:
        columns = ["name", "family", "parameters", *_MODEL_COLUMNS]
    print_table(columns, [[_text(row.get(name, "")) for name in columns] for row in rows])


def _text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _formats() -> list[dict[str, Any]]:
    from bitwright.arch import formats

    rows = []
    for name in formats.names():
        item = formats.get(name)
        learnt = "kmeans" in name  # its values are a codebook a row
        block = getattr(item, "fixed_group", None)
        rows.append(
            {
                "name": name,
                "bits": item.bits,
                "bits_per_value": item.storage_bits(LIST_SHAPE, block or item.default_group).bits_per_value,
                "family": item.family,
                "min": None if learnt else item.min_value,
                "max": None if learnt else item.max_value,
                "values": None if learnt else len(item.values()),
                "block": block or item.block,
                "default_group": block or item.default_group,
                "scale": item.default_scale_format,
                "options": [f"{key}={'|'.join(known)}" for key, known in getattr(item, "options", {}).items()],
                "scale_rule": item.scale_rule,
                "source": item.source,
            }
        )
    return rows


def _pes() -> list[dict[str, Any]]:
    from bitwright.arch import formats, pe

    def accepted(spec: pe.PESpec) -> list[str]:
        """Formats in groups of 64, or of the block that the format itself fixes."""
        return [item for item in formats.names() if spec.accepts(item, 64) or spec.accepts(item, None)]

    rows = []
    for name in pe.all_names():
        streams = name in pe.stream_names()
        # All that a row says is of its parameters, those of the stream if the PE has one; cells take formats besides.
        spec = pe.stream(name) if streams else pe.get(name)
        cell = pe.get(name) if name in pe.names() else None
        rows.append(
            {
                "name": name,
                "act_bits": spec.act.bits,
                "wgt_bits": spec.wgt.bits,
                "psum_bits": spec.psum.bits,
                "templates": sorted({*spec.templates, *(cell.templates if cell else ())}),
                "dataflows": list(cell.dataflows if cell else ()),
                "latency_cycles": spec.timing.latency_cycles,
                "params": [f"{key}={value}" for key, value in spec.params.items()],
                "formats": accepted(spec),
                "cell_formats": accepted(cell) if cell else [],
            }
        )
    return rows


def _machines() -> list[dict[str, Any]]:
    from bitwright.arch import machine

    rows = []
    for name in machine.names():
        item = machine.load(name)
        rows.append(
            {
                "name": name,
                "pe": item.pe,
                "rows": item.array.rows,
                "cols": item.array.cols,
                "dataflow": item.array.dataflow.value,
                "clock_mhz": item.clock_mhz,
                "dram": item.dram,
            }
        )
    return rows


def _models() -> list[dict[str, Any]]:
    from dataclasses import asdict

    from bitwright.workloads import shapes

    rows = []
    for name, shape in shapes.published().items():
        sizes = asdict(shape)
        first = {"name": name, "family": shapes.family(shape), "parameters": shape.parameters}
        details = [key for key in sizes if key not in (*_MODEL_COLUMNS, "name")]
        rows.append(first | {key: sizes[key] for key in (*_MODEL_COLUMNS, *details) if key in sizes})
    return rows


def _nodes() -> list[dict[str, Any]]:
    from bitwright.arch import costs

    rows = []
    for name in costs.nodes():
        table = costs.load(name)
        rows.append({"name": name, "clock_mhz": table.clock_mhz, "entries": len(table.entries())})
    return rows


def _drams() -> list[dict[str, Any]]:
    from dataclasses import asdict

    from bitwright.arch import costs

    rows = [asdict(costs.dram(name)) for name in costs.dram_names()]
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]  # nan: not known


def _papers() -> list[dict[str, Any]]:
    from bitwright.reports import papers

    return papers.listing()


def _boards() -> list[dict[str, Any]]:
    from bitwright.fpga import boards

    rows = []
    for name in boards.names():
        board = boards.get(name)
        rows.append(
            {
                "name": name,
                "family": board.family,
                "clock_mhz": board.clock_hz / 1e6,
                "baud": board.baud,
                "memory_bytes": board.memory_bytes,
                "capacity": [f"{kind}={count}" for kind, count in board.capacity.items()],
                "pins": board.pin_source,
            }
        )
    return rows


def doctor(json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """The tools and packages found, their versions, and what each missing one disables.

    Examples:

      bitwright doctor

      bitwright doctor --json
    """
    from bitwright.cli import tools

    found = [
        {
            "name": item.name,
            "version": item.version() or "missing",
            "needed_for": item.needed_for,
            "install": item.install,
        }
        for item in tools.TOOLS
    ]
    if json:
        print_json(found)
        return
    print_table(("tool", "version", "needed for"), [(row["name"], row["version"], row["needed_for"]) for row in found])
    for row in found:
        if row["version"] == "missing":
            print(f"missing {row['name']}: {row['needed_for']} will not work; {row['install']}")
