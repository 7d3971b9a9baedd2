"""How the report names things: designs, format policies, workloads, numbers and notes.

A design's label holds what always matters (PE, array, weights) and then only what differs between the rows of
the report, so that labels stay short and no two designs share one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

TIMES = "\N{MULTIPLICATION SIGN}"

MARKS = ("†", "‡", "§", "¶", "‖")

WORKLOAD_KEYS = ("model", "text_sha256", "prompt_tokens", "output_tokens", "batch")
"""Rows are compared only with rows that agree on all of these."""

POLICY_KEYS = ("weights", "group", "acts", "kv", "head")

NOT_MEASURED = "not measured"

ACT_SCALES = {"int8": "one a token", "int8_tensor": "one a tensor"}
"""How many scales the machine gives its activations, by their format; other formats have none."""


def number(value: float, digits: int = 4) -> str:
    """`value` to `digits` significant digits, thousands separated, never an exponent below a million.

    12345.6 -> '12,350'; 0.01234 -> '0.01234'; 17.2134 -> '17.21'; 3.2e7 -> '3.200e+07'; infinity -> 'inf'.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    magnitude = math.floor(math.log10(abs(rounded)))
    if magnitude >= 7 or magnitude < -4:
        return f"{value:.{digits - 1}e}"
    return f"{rounded:,.{max(0, digits - 1 - magnitude)}f}"


def percent(ratio: float) -> str:
    """A ratio as a signed percentage over 1: 1.094 -> '+9.4 %'; from 10 times on, the factor."""
    if math.isnan(ratio):
        return "n/a"
    if ratio >= 10:
        return f"{TIMES}{number(ratio, 2)}"
    return f"{(ratio - 1) * 100:+.1f} %"


def energy_unit(energies_uj: Sequence[float]) -> tuple[float, str]:
    """(factor, unit) that puts the median of energies in microjoules between 1 and 1000."""
    positive = sorted(value for value in energies_uj if value > 0)
    median = positive[len(positive) // 2] if positive else 1.0
    for factor, unit in ((1e-6, "J"), (1e-3, "mJ"), (1.0, "µJ")):
        if median * factor >= 1:
            return factor, unit
    return 1e3, "nJ"


def weights_label(row: Row) -> str:
    """The weight format with its group: 'int4 g128'; without a group just the format."""
    return str(row["weights"]) if row["group"] is None else f"{row['weights']} g{row['group']}"


def operands_label(row: Row) -> str:
    """Formats of activations, KV cache and output head: 'int8, int8, fp16', or 'int8' when all agree."""
    formats = [str(row[key]) for key in ("acts", "kv", "head")]
    return formats[0] if len(set(formats)) == 1 else ", ".join(formats)


def act_scale(row: Row) -> str:
    """The activations' scales in words: 'one a token', 'one a tensor', or 'none'."""
    return ACT_SCALES.get(row["acts"], "none")


def policy_label(row: Row) -> str:
    """The whole format policy: 'int4 g128 weights, int8 acts, kv and head', or each of the three when they differ."""
    if row["acts"] == row["kv"] == row["head"]:
        return f"{weights_label(row)} weights, {row['acts']} acts, kv and head"
    return f"{weights_label(row)} weights, {row['acts']} acts, {row['kv']} kv, {row['head']} head"


def workload_label(row: Row) -> str:
    """'smollm2-135m, 512 prompt + 64 output tokens, batch 1'."""
    return f"{row['model']}, {row['prompt_tokens']} prompt + {row['output_tokens']} output tokens, batch {row['batch']}"


def workloads(rows: Sequence[Row]) -> list[tuple[str, list[int]]]:
    """(label, indices of its rows) of each workload, in order of first appearance; labels are distinct."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(row[key] for key in WORKLOAD_KEYS), []).append(index)
    labels = [workload_label(rows[indices[0]]) for indices in groups.values()]
    repeated = {label for label, count in Counter(labels).items() if count > 1}

    def told_apart(label: str, text_sha256: str | None) -> str:
        return f"{label}, text {text_sha256[:8]}" if text_sha256 else f"{label}, perplexity {NOT_MEASURED}"

    return [
        (told_apart(label, rows[indices[0]]["text_sha256"]) if label in repeated else label, indices)
        for label, indices in zip(labels, groups.values(), strict=True)
    ]


def buffers_label(row: Row) -> str:
    """Activation, weight and output buffers: '64/64/32 KiB'."""
    return "/".join(number_short(row[f"{name}_buffer_kib"]) for name in ("act", "wgt", "out")) + " KiB"


def memory_labels(rows: Sequence[Row]) -> list[str]:
    """Each row's DRAM; with its bytes a cycle where one name stands for several bandwidths."""
    names = [str(row["dram"]) for row in rows]
    rates = [f"{number_short(round(row['dram_bandwidth_bytes_per_cycle'], 2))} B/cycle" for row in rows]
    if len(set(zip(names, rates, strict=True))) == len(set(names)):
        return names
    return [f"{name}, {rate}" for name, rate in zip(names, rates, strict=True)]


def number_short(value: float) -> str:
    """A configured number as a person writes it: 64.0 -> '64', 12.8 -> '12.8'."""
    return f"{value:g}"


def design_labels(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(first line, second line) for each row; the pair is unique within its workload.

    First line: PE, array, and the weights; second: whatever of dataflow, memory, buffers, clock, node and the
    rest of the policy differs between rows. A remaining tie adds the machine's name, then the key.
    """

    def texts(row: Row, memory: str) -> list[str]:
        return [
            str(row["dataflow"]).upper(),
            memory,
            buffers_label(row),
            f"{number_short(row['clock_mhz'])} MHz",
            str(row["node"]),
            f"{row['acts']} acts",
            f"{row['kv']} kv",
            f"{row['head']} head",
            f"{row['vector_lanes']} lanes",
        ]

    columns = [texts(row, memory) for row, memory in zip(rows, memory_labels(rows), strict=True)]
    varies = [len(set(column)) > 1 for column in zip(*columns, strict=True)]
    # Operand formats that follow from the PE and the weights would only repeat them.
    for at in (5, 6, 7):
        known = {(row["pe"], row["weights"]): text[at] for row, text in zip(rows, columns, strict=True)}
        varies[at] = any(known[row["pe"], row["weights"]] != text[at] for row, text in zip(rows, columns, strict=True))
    first = [f"{row['pe']} {row['rows']}{TIMES}{row['cols']} · {weights_label(row)}" for row in rows]
    second = [" · ".join(text for text, keep in zip(column, varies, strict=True) if keep) for column in columns]
    for field in ("machine", "key"):
        scope = [tuple(row[key] for key in WORKLOAD_KEYS) for row in rows]
        counts = Counter(zip(scope, first, second, strict=True))
        second = [
            text if counts[where, head, text] == 1 else " · ".join(filter(None, (text, str(row[field])[:24])))
            for row, where, head, text in zip(rows, scope, first, second, strict=True)
        ]
    return list(zip(first, second, strict=True))


def mark(index: int) -> str:
    """The footnote mark of note `index`: † ‡ § ¶ ‖, then †6, †7, ..."""
    return MARKS[index] if index < len(MARKS) else f"†{index + 1}"


def collect_notes(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """(notes that every row carries, notes that only some carry), each in order of first appearance.

    The second list's order is the order of the footnote marks.
    """
    counts: Counter[str] = Counter(note for row in rows for note in dict.fromkeys(row["notes"]))
    every = [note for note, count in counts.items() if count == len(rows)]
    return every, [note for note, count in counts.items() if count < len(rows)]
