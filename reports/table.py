"""The report's rows as compact columns for the page's table, hover texts and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.reports.checks import DECODED, MAY_BE_INFINITE, MEASURED, NUMBERS, OPTIONAL, TEXT
from bitwright.reports.compare import Accuracy
from bitwright.reports.figures import note_marks
from bitwright.reports.labels import (
    NOT_MEASURED,
    TIMES,
    Row,
    act_scale,
    buffers_label,
    memory_labels,
    operands_label,
    weights_label,
)


@dataclass(frozen=True)
class Column:
    """One table column.

    key : a row key or one of `display_values`; label : heading; kind : "design" columns that hold one value in
    every row leave the table for the line above it, "result" columns stay unless they are null in every row;
    sort : the key whose values order this column, when not its own.
    """

    key: str
    label: str
    kind: str = "result"
    sort: str = ""


MAIN: tuple[Column, ...] = (
    Column("workload", "workload", "design"),
    Column("pe", "PE", "design"),
    Column("array", "array", "design", "array_pes"),
    Column("dataflow", "flow", "design"),
    Column("weights_and_group", "weights", "design"),
    Column("operands", "acts, kv, head", "design"),
    Column("memory", "memory", "design", "dram_bandwidth_bytes_per_cycle"),
    Column("buffers", "act/wgt/out buffers", "design", "buffers_kib"),
    Column("vector_lanes", "vector lanes", "design"),
    Column("clock_mhz", "clock MHz", "design"),
    Column("node", "node", "design"),
    Column("decode_tokens_per_s", "decode tokens/s"),
    Column("prefill_tokens_per_s", "prefill tokens/s"),
    Column("ttft_ms", "first token, ms"),
    Column("decode_energy_uj_per_token", "decode µJ/token"),
    Column("energy_uj_per_token", "run µJ/token"),
    Column("area_mm2", "area, mm²"),
    Column("perplexity", "perplexity"),
    Column("perplexity_over_best", f"{TIMES} best"),
    Column("bits_per_weight", "bits/ weight"),
    Column("utilisation", "utilisation"),
    Column("marks", "notes"),
    Column("command", "command"),
)
"""The table's columns before "all columns" is chosen."""

FILTERS = ("workload", "pe", "weights_and_group", "array", "dataflow", "memory", "buffers")
"""Columns with a drop-down filter, where they hold more than one value."""

WHY_NULL = {
    **dict.fromkeys((*MEASURED, "perplexity_over_best"), NOT_MEASURED),
    **dict.fromkeys(DECODED, "no decode"),
}
"""What the page writes for a null, where a dash would leave open why."""

DISPLAY_NUMBERS = ("array_pes", "buffers_kib", "perplexity_over_best")


def display_values(
    rows: Sequence[Row],
    workloads: Sequence[tuple[str, list[int]]],
    labels: Sequence[tuple[str, str]],
    partial: Sequence[str],
) -> dict[str, list[Any]]:
    """Columns that exist for display only: labels, ratios to the workload's best perplexity, footnote marks."""
    names: list[str] = [""] * len(rows)
    ratios: list[float | None] = [None] * len(rows)
    for name, indices in workloads:
        accuracy = Accuracy.of([rows[i] for i in indices])
        for index in indices:
            names[index] = name
            ratios[index] = rows[index]["perplexity"] / accuracy.best if accuracy.measured else None
    return {
        "workload": names,
        "array": [f"{row['rows']}{TIMES}{row['cols']}" for row in rows],
        "array_pes": [row["rows"] * row["cols"] for row in rows],
        "buffers": [buffers_label(row) for row in rows],
        "buffers_kib": [row["act_buffer_kib"] + row["wgt_buffer_kib"] + row["out_buffer_kib"] for row in rows],
        "memory": memory_labels(rows),
        "act_scale": [act_scale(row) for row in rows],
        "operands": [operands_label(row) for row in rows],
        "weights_and_group": [weights_label(row) for row in rows],
        "perplexity_over_best": ratios,
        "marks": [note_marks(row, partial) for row in rows],
        "label_1": [label[0] for label in labels],
        "label_2": [label[1] for label in labels],
    }


def encode_column(values: Sequence[Any]) -> Any:
    """A column as JSON data: {"c": value} when constant, {"d": distinct, "i": indices} for few texts, else a list.

    Numbers that are not finite become "Infinity" (the page knows which columns may hold it).
    """
    plain = ["Infinity" if isinstance(v, float) and not math.isfinite(v) else v for v in values]
    distinct = list(dict.fromkeys(plain))
    if len(distinct) == 1:
        return {"c": distinct[0]}
    if any(isinstance(v, str) for v in plain) and len(distinct) <= len(plain) // 2:
        at = {value: index for index, value in enumerate(distinct)}
        return {"d": distinct, "i": [at[value] for value in plain]}
    return plain


def table_data(rows: Sequence[Row], shown: dict[str, list[Any]]) -> dict[str, Any]:
    """What the page's table needs: columns, drop-down filters, what all designs share, encoded values.

    shown : `display_values`. Keys: count, columns, filters, shared, csv, values.
    """
    raw = list(dict.fromkeys([*TEXT, *OPTIONAL, *NUMBERS]))
    values = {key: [row[key] for row in rows] for key in raw} | shown
    constant = {key for key, column in values.items() if len(set(column)) == 1}
    if shown["workload"] and "workload" in constant:
        main = [column for column in MAIN if column.key != "workload"]
    else:
        main = list(MAIN)
    several = len(rows) > 1
    shared = [column for column in main if column.kind == "design" and column.key in constant and several]
    empty = [column for column in main if column.key in constant and values[column.key][0] is None]
    visible = [column for column in main if column not in shared and column not in empty]
    if not any(shown["marks"]):
        visible = [column for column in visible if column.key != "marks"]
    named = {column.key for column in visible}
    numbers = {*NUMBERS, *DISPLAY_NUMBERS, "group"}
    infinite = {*MAY_BE_INFINITE, "perplexity_over_best"}

    def entry(column: Column, main_column: bool) -> dict[str, Any]:
        return {
            "key": column.key,
            "label": column.label,
            "number": column.key in numbers,
            "infinite": column.key in infinite,
            "null": WHY_NULL.get(column.key),
            "main": main_column,
            "sort": column.sort or column.key,
        }

    columns = [entry(column, True) for column in visible if column.key != "command"]
    columns += [entry(Column(key, key), False) for key in raw if key not in named and key != "command"]
    columns.append(entry(next(column for column in MAIN if column.key == "command"), True))
    return {
        "count": len(rows),
        "columns": columns,
        "filters": [key for key in FILTERS if key not in constant],
        "shared": [[column.label, values[column.key][0]] for column in shared],
        "csv": raw,
        "values": {key: encode_column(column) for key, column in values.items()},
    }
