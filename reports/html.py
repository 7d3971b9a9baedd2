"""One self-contained HTML page about the designs of a sweep: no server, no network, no other file.

plotly.js is inlined once (the plotly package carries only the full minified bundle); a content security policy
in the page forbids every network access. The same rows give the same bytes: no date, no random ids. Besides
plotly.js (4.8 MB) a design takes about 1.2 kB and a workload about 100 kB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from bitwright.reports import gpu_bounds
from bitwright.reports.checks import RELATIVE_TOLERANCE, check_rows
from bitwright.reports.compare import BUDGETS, DEFAULT_BUDGET, PHASES, Accuracy, phase_values, phases
from bitwright.reports.figures import PARTS, SYMBOLS, accuracy_figure, note_marks, pareto_figure, roofline_figure
from bitwright.reports.findings import Findings
from bitwright.reports.labels import (
    ACT_SCALES,
    NOT_MEASURED,
    POLICY_KEYS,
    Row,
    act_scale,
    collect_notes,
    design_labels,
    energy_unit,
    mark,
    number,
    number_short,
    operands_label,
    percent,
    weights_label,
    workloads,
)
from bitwright.reports.page import asset, fill, inline_script, json_text, write_whole
from bitwright.reports.table import display_values, table_data

TITLE = "bitwright: what a design gives, and what it costs"


SCALES_FOOT = (
    "Act scales: a machine with <code>int8</code> activations gives each token a scale of its own; with "
    "<code>int8_tensor</code>, all tokens of a tensor share one, and the largest value of any sets the step of all."
)


def report(rows: list[dict[str, Any]], out: Path, title: str = TITLE) -> Path:
    """Write the report on `rows` to the HTML file `out` and return `out`.

    rows : result rows of schema version 1, at least one. Rows of several workloads (model, text, tokens, batch)
    may be mixed, with and without perplexity or decode; designs are compared within a workload only, and the page
    has a selector.
    Raises ConfigError for no rows or an unwritable `out`; StoreError for a row that lacks a field;
    MismatchError for a row whose parts do not sum to its totals. `out` is replaced whole or not at all.
    """
    check_rows(rows)
    return write_whole(out, render(rows, title))


def render(rows: Sequence[Row], title: str = TITLE) -> str:
    """The page's HTML. `rows` must have passed `check_rows`."""
    from plotly.offline import get_plotlyjs

    groups = workloads(rows)
    labels = design_labels(rows)
    every, partial = collect_notes(rows)
    symbols = {pe: SYMBOLS[at % len(SYMBOLS)] for at, pe in enumerate(sorted({row["pe"] for row in rows}))}
    data = table_data(rows, display_values(rows, groups, labels, partial))
    data["budgets"] = [{"name": name, "ratio": None if ratio == math.inf else ratio} for name, ratio in BUDGETS]
    data["budget"] = DEFAULT_BUDGET
    data["parts"] = PARTS
    data["workloads"] = [_workload_data(rows, name, indices, partial, symbols) for name, indices in groups]
    findings = [Findings(rows, labels, indices) for _, indices in groups]
    data["phase"] = PHASES[0]
    page = resources.files("bitwright.reports").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        "title": escape(title),
        "subtitle": _subtitle(rows, groups),
        "style": asset("report.css"),
        "controls": _controls(groups),
        "findings": "".join(_findings(found, at) for at, found in enumerate(findings)),
        "gpus_lead": escape(gpu_bounds.LEAD),
        "gpus": "".join(_gpus([rows[i] for i in indices], at) for at, (_, indices) in enumerate(groups)),
        "accuracy": "".join(_accuracy_table(rows, indices, partial, at) for at, (_, indices) in enumerate(groups)),
        "shared": "; ".join(f"{escape(name)} {escape(_plain(value))}" for name, value in data["shared"]),
        "budgets": escape(", ".join(name for name, ratio in BUDGETS if ratio != math.inf)),
        "notes": _notes(every, partial, rows),
        "provenance": _provenance(rows),
        "tolerance": f"{RELATIVE_TOLERANCE:g}",
        "data": json_text(data),
        "script": asset("report.js"),
        "plotly": inline_script(get_plotlyjs()),
    }
    return fill(page, parts)


def _workload_data(
    rows: Sequence[Row], name: str, indices: list[int], partial: Sequence[str], symbols: Mapping[str, str]
) -> dict[str, Any]:
    accuracy, found = Accuracy.of([rows[i] for i in indices]), phases(rows[indices[0]])
    drawn = None
    if accuracy.measured:
        policies = [row for row, _ in _policies(rows, indices)]
        drawn = accuracy_figure(policies, symbols, [note_marks(row, partial) for row in policies])
    return {
        "label": name,
        "rows": indices,
        "phases": found,
        "budgets": accuracy.budgets,
        "best": accuracy.best if math.isfinite(accuracy.best) else None,
        "energy": {phase: pareto_figure(rows, indices, phase, "energy", symbols) for phase in found},
        "area": {phase: pareto_figure(rows, indices, phase, "area", symbols) for phase in found},
        "roofline": roofline_figure(rows, indices, symbols),
        "accuracy": drawn,
    }


def _policies(rows: Sequence[Row], indices: Sequence[int]) -> list[tuple[Row, list[int]]]:
    """(a row, the indices of all rows like it) of each distinct policy and its accuracy, best perplexity first."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index in indices:
        row = rows[index]
        key = (*(row[field] for field in POLICY_KEYS), row["perplexity"], row["bits_per_weight"])
        found.setdefault(key, []).append(index)
    groups = sorted(found.values(), key=lambda members: (rows[members[0]]["perplexity"], members[0]))
    return [(rows[members[0]], members) for members in groups]


def _subtitle(rows: Sequence[Row], groups: Sequence[tuple[str, list[int]]]) -> str:
    spaces = ", ".join(sorted({row["space_name"] for row in rows}))
    what = groups[0][0] if len(groups) == 1 else f"{len(groups)} workloads"
    count = f"{len(rows):,} design{'s' if len(rows) > 1 else ''}"
    return f"{count} of space <b>{escape(spaces)}</b>, each running <b>{escape(what)}</b>"


def _controls(groups: Sequence[tuple[str, list[int]]]) -> str:
    """The bar that stays in view: workload (when several), phase, perplexity budget.

    The page hides a choice of which the shown workload has only one value.
    """

    def radios(name: str, legend: str, choices: Sequence[tuple[str, str]], chosen: str) -> str:
        inputs = "".join(
            f'<label><input type=radio name={name} value="{value}"{" checked" if value == chosen else ""}>'
            f"<span>{escape(text)}</span></label>"
            for value, text in choices
        )
        return f"<fieldset class=seg><legend>{legend}</legend>{inputs}</fieldset>"

    select = ""
    if len(groups) > 1:
        options = "".join(f'<option value="{at}">{escape(name)}' for at, (name, _) in enumerate(groups))
        select = f"<label class=pick>workload <select id=workload>{options}</select></label>"
    budgets = [(str(at), name) for at, (name, _) in enumerate(BUDGETS)]
    return (
        select
        + radios("phase", "phase", [(name, name) for name in PHASES], PHASES[0])
        + radios("budget", "perplexity of best", budgets, str(DEFAULT_BUDGET))
        + "<output id=inside></output>"
    )


def _findings(found: Findings, workload: int) -> str:
    cards = "".join(
        f"<div class=card><p class=cap>{escape(caption)}<p class=big>{escape(value)}<p class=who>{who}</div>"
        for caption, value, who in found.glance()
    )
    sentences = "".join(f"<li>{text}" for text in found.sentences())
    tables = "".join(
        f'<div class=choices data-phase="{phase}" data-budget="{budget}" hidden>'
        f"{found.choice_tables(phase, budget)}</div>"
        for phase in found.phases
        for budget in found.accuracy.budgets
    )
    return (
        f'<div data-workload="{workload}" hidden><div class=cards>{cards}</div><ul class=said>{sentences}</ul>'
        f"<h3>Best by choice <small>in the chosen phase and budget</small></h3>{tables}</div>"
    )


def _accuracy_table(rows: Sequence[Row], indices: Sequence[int], partial: Sequence[str], workload: int) -> str:
    marks = [at for at, note in enumerate(partial) if any(note in rows[i]["notes"] for i in indices)]
    feet = "".join(f"<p class=foot>{mark(at)} {escape(partial[at])}" for at in marks)
    if not Accuracy.of([rows[i] for i in indices]).measured:
        said = "Perplexity is not measured for this workload: it has no budgets, no colour scale and no table here."
        return f'<div data-workload="{workload}" hidden><p>{said}{feet}</div>'
    policies = _policies(rows, indices)
    best = policies[0][0]["perplexity"]
    phase = phases(rows[indices[0]])[0]
    factor, unit = energy_unit([phase_values(rows[i], phase)[0] for i in indices])
    lines = []
    for row, members in policies:
        pes = ", ".join(dict.fromkeys(rows[i]["pe"] for i in members))
        frugal = min(phase_values(rows[i], phase)[0] for i in members)
        fast = max(phase_values(rows[i], phase)[1] for i in members)
        over = "best" if row["perplexity"] == best else percent(row["perplexity"] / best)
        lines.append(
            f"<tr><th scope=row>{escape(weights_label(row))}{note_marks(row, partial)}"
            f"<td>{escape(operands_label(row))}<td>{act_scale(row)}<td>{escape(pes)}"
            f"<td class=n>{number(row['bits_per_weight'])}<td class=n>{number(row['perplexity'])}"
            f"<td class=n>{over}<td class=n>{number(row['bits_per_byte'])}<td class=n>{len(members)}"
            f"<td class=n>{number(fast, 3)}<td class=n>{number(frugal * factor, 3)}"
        )
    numbers = ["bits/<br>weight", "perplexity", "over best", "bits/byte", "designs", f"max {phase}<br>tokens/s"]
    head = "".join(f"<th scope=col>{name}" for name in ("weights", "acts, kv, head", "act scales", "PEs"))
    head += "".join(f"<th scope=col class=n>{name}" for name in [*numbers, f"min {phase}<br>{unit}/token"])
    if any(row["acts"] in ACT_SCALES for row, _ in policies):
        feet += f"<p class=foot>{SCALES_FOOT}"
    return (
        f'<div data-workload="{workload}" hidden><div class=scroll tabindex=0><table class=plain><thead><tr>{head}'
        f"<tbody>{''.join(lines)}</table></div>{feet}</div>"
    )


def _gpus(rows: Sequence[Row], workload: int) -> str:
    table = gpu_bounds.bounds_table(rows) or "<p>These rows are of a version without bounds: run the sweep again."
    return f'<div data-workload="{workload}" hidden>{table}</div>'


def _notes(every: Sequence[str], partial: Sequence[str], rows: Sequence[Row]) -> str:
    """Notes of all rows, marked notes of some, and the DRAM scopes with how many designs each covers."""
    items = "".join(f"<li>{escape(note)}" for note in every)
    html = f"<h3>Holds for every design</h3><ul>{items}</ul>" if items else ""
    items = "".join(
        f"<li>{mark(at)} {escape(note)} <small>({sum(note in row['notes'] for row in rows)} designs)</small>"
        for at, note in enumerate(partial)
    )
    html += f"<h3>Holds for some designs</h3><ul class=marks>{items}</ul>" if items else ""
    scopes: dict[str, int] = {}
    for row in rows:
        scopes[row["dram_scope"]] = scopes.get(row["dram_scope"], 0) + 1
    items = "".join(f"<li>{escape(scope)} <small>({count} designs)</small>" for scope, count in scopes.items())
    warning = ""
    if len(scopes) > 1:
        warning = (
            "<p class=warn>Designs with different DRAM scopes are in one picture: compare their energies with care."
        )
    return f"{html}<h3>What the DRAM figures cover</h3><ul>{items}</ul>{warning}"


def _provenance(rows: Sequence[Row]) -> str:
    """Every distinct version, text and hash behind the rows; long lists are folded away."""
    found: dict[str, dict[str, int]] = {}

    def add(name: str, value: str) -> None:
        counts = found.setdefault(name, {})
        counts[value] = counts.get(value, 0) + 1

    for row in rows:
        add("bitwright", row["bitwright_version"])
        add("text SHA-256", row["text_sha256"] or NOT_MEASURED)
        add("weights SHA-256", row["weights_sha256"] or "not here")
        for name, value in sorted(row["versions"].items()):
            if name != "bitwright":
                add(f"version of {name}", value)
        for name, value in sorted(row["hashes"].items()):
            add(f"hash of {name}", value)
    lines = []
    for name, counts in found.items():
        values = "".join(f"<li><code>{escape(value)}</code> <small>{count}</small>" for value, count in counts.items())
        shown = f"<ul class=hashes>{values}</ul>"
        if len(counts) > 4:
            shown = f"<details><summary>{len(counts)} distinct</summary>{shown}</details>"
        lines.append(f"<tr><th scope=row>{escape(name)}<td>{shown}")
    return f"<table class=plain><tbody>{''.join(lines)}</table>"


def _plain(value: Any) -> str:
    return number_short(value) if isinstance(value, (int, float)) else str(value)
