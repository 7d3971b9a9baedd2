"""One simulated run as an HTML page: which operator takes its time when, and what the cycles of each are spent on.

An operator's repetitions (layers, heads) stand together, in the order in which a layer meets them: the picture says
how long each takes, not how layers follow each other. The page holds plotly.js and needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from bitwright.reports import gpu_bounds
from bitwright.reports.figures import GRID, INK, PARTS, Figure
from bitwright.reports.labels import number
from bitwright.reports.page import inline_script, json_text, write_whole
from bitwright.sim.timeline import Operator

_COLOURS = {"prefill": "#0072B2", "decode": "#D55E00"}
_TABLES = (
    "table {border-collapse: collapse} th, td {text-align: left; font-weight: normal; padding: 2px 12px 2px 0; "
    "vertical-align: top; border-bottom: 1px solid #ddd} .n {text-align: right} .foot {font-size: 12px; margin: 4px 0}"
)
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": INK}


def write_run(row: dict[str, Any], operators: Sequence[Operator], out: Path) -> Path:
    """Write the page of `row` (`sim.row.result_row`, with `sim.layers.layer_rows` as `layers`) and its operators.

    Raises ConfigError for an unwritable `out`.
    """
    from plotly.offline import get_plotlyjs

    title = escape(f"{row['model']} on {row['machine']}")
    told = escape(
        f"{row['prompt_tokens']} prompt tokens, {row['output_tokens']} decode steps, batch {row['batch']}: "
        f"{row['cycles']:,} cycles, {row['latency_ms']:.4g} ms at {row['clock_mhz']:g} MHz"
    )
    drawn = "".join(
        f'<div id="{name}"></div><script>const {name} = {json_text(figure)}; '
        f"Plotly.newPlot('{name}', {name}.data, {name}.layout, {{displaylogo: false}});</script>"
        for name, figure in (("breakdown", breakdown(row)), ("gantt", gantt(operators)))
    )
    tables = f"<h2>Operators</h2>{layers_table(row['layers'])}<h2>GPUs: bounds</h2><p>{escape(gpu_bounds.LEAD)}</p>"
    tables += gpu_bounds.bounds_table([row])
    notes = "".join(f"<li>{escape(note)}</li>" for note in row["notes"])
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>body {{font: 14px system-ui, sans-serif; color: {INK}; max-width: 1200px; margin: 24px auto}} "
        f"{_TABLES}</style>"
        f"<script>{inline_script(get_plotlyjs())}</script></head><body><h1>{title}</h1><p>{told}</p>{drawn}"
        f"{tables}<h2>Not modelled</h2><ul>{notes}</ul><p><code>{escape(row['command'])}</code></p></body></html>\n"
    )
    return write_whole(out, page)


def layers_table(layers: Sequence[dict[str, Any]]) -> str:
    """HTML of what holds each operator up and where it stands under the roof (`sim.layers`)."""
    lines = [
        f"<tr><th scope=row>{escape(item['layer'])}<td>{item['phase']}<td class=n>{item['count']}"
        f"<td class=n>{item['m']} x {item['k']} x {item['n']}<td class=n>{item['cycles']:,}"
        f"<td>{escape(item['critical'])}"
        f"<td class=n>{number(item['macs_per_byte'], 3)}<td>{item['roof']}<td class=n>{percent_of(item['of_roof'])}"
        for item in layers
    ]
    words = (
        "operator",
        "phase",
        "times",
        "M x K x N",
        "cycles each",
        "most cycles go to",
        "MACs a byte",
        "roof",
        "of it",
    )
    right = ("times", "M x K x N", "cycles each", "MACs a byte", "of it")
    head = "".join(f"<th scope=col{' class=n' if word in right else ''}>{word}" for word in words)
    return f"<table><thead><tr>{head}<tbody>{''.join(lines)}</table>"


def percent_of(share: float) -> str:
    """0.123 as 12.3 %."""
    return f"{100 * share:.1f} %"


def breakdown(row: dict[str, Any]) -> Figure:
    """Cycles of the whole run by cause and by kind of operator: two bars that each sum to `cycles`."""
    data = [
        {
            "type": "bar", "orientation": "h", "name": name, "x": [row[key]], "y": [bar],
            "marker": {"color": colour, "pattern": {"shape": hatch}, "line": {"color": "white", "width": 1}},
            "legendgroup": bar, "legendgrouptitle": {"text": bar},
        }
        for bar, part in (("by operator", "operators"), ("by cause", "cycles"))
        for key, name, colour, hatch in PARTS[part]
    ]  # fmt: skip
    return {"data": data, "layout": _layout("Where the cycles go", 480) | {"barmode": "stack"}}


def gantt(operators: Sequence[Operator]) -> Figure:
    """A bar an operator, as long as all its repetitions, each beginning where the one before ends."""
    data, at = [], 0
    for phase, colour in _COLOURS.items():
        names, starts, lengths, told = [], [], [], []
        for operator in (item for item in operators if item.phase == phase):
            length = operator.count * (operator.end_cycle - operator.start_cycle)
            names.append(f"{phase} {operator.name}")
            starts.append(at)
            lengths.append(length)
            told.append(f"{operator.count} x {length // operator.count:,} cycles")
            at += length
        data.append(
            {
                "type": "bar", "orientation": "h", "name": phase, "y": names, "base": starts, "x": lengths,
                "customdata": told, "hovertemplate": "%{y}: %{customdata}<extra></extra>", "marker": {"color": colour},
            }
        )  # fmt: skip
    title = "Prefill and the first decode step, operator by operator (all layers of one stand together)"
    layout = _layout(title, 60 + 22 * len(operators) + 80)
    layout["yaxis"] |= {"autorange": "reversed"}
    return {"data": data, "layout": layout | {"barmode": "overlay"}}


def _layout(title: str, height: int) -> dict[str, Any]:
    return {
        "title": {"text": title}, "height": height, "font": _FONT, "plot_bgcolor": "white", "margin": {"l": 220},
        "xaxis": {"title": {"text": "cycles"}, "gridcolor": GRID}, "yaxis": {"automargin": True},
    }  # fmt: skip
