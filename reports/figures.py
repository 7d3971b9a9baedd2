"""The report's figures as plotly specifications (plain data), and what their colours stand for.

Each function returns `{"data": [...], "layout": {...}}` that plotly.js draws and `plotly.graph_objects.Figure`
accepts. Points carry `customdata` = the row's index in the report; the page adds the hover text, the dimming
outside the chosen perplexity budget and the rings around selected designs.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitwright.reports.compare import BUDGETS, DESTROYED_RATIO, Accuracy, pareto_front, phase_values
from bitwright.reports.labels import TIMES, Row, act_scale, energy_unit, mark, number, number_short, weights_label

Figure = dict[str, Any]

SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "star",
    "hexagon",
    "triangle-down",
    "pentagon",
    "x",
)

# Viridis, dark = good: readable in grey and by colour-blind eyes; outlined, so its yellow end stays visible.
SCALE = [[0.0, "#440154"], [0.25, "#3b528b"], [0.5, "#21918c"], [0.75, "#5ec962"], [1.0, "#fde725"]]
INK, MUTED, GRID, NEUTRAL = "#1c2430", "#5b6675", "#e6e9ee", "#8FA3B8"

# Okabe-Ito colours; a hatch separates relatives (busy/idle array, the three SRAMs).
PARTS: dict[str, list[tuple[str, str, str, str]]] = {
    "cycles": [
        ("cycles_stream", "array takes operands", "#0072B2", ""),
        ("cycles_array_stall", "array waits for its own registers", "#56B4E9", ""),
        ("cycles_fill_drain", "fill and drain", "#F0E442", ""),
        ("cycles_dram_wait", "waits for DRAM", "#D55E00", ""),
        ("cycles_vector", "vector unit", "#CC79A7", ""),
    ],
    "operators": [
        ("cycles_op_attention_projections", "attention projections", "#0072B2", ""),
        ("cycles_op_attention", "attention", "#56B4E9", ""),
        ("cycles_op_ffn", "feed-forward", "#009E73", ""),
        ("cycles_op_head", "output head", "#E69F00", ""),
        ("cycles_op_vector", "vector operators", "#CC79A7", ""),
    ],
    "energy": [
        ("energy_array_uj", "array, computing", "#0072B2", ""),
        ("energy_array_idle_uj", "array, idle", "#0072B2", "/"),
        ("energy_array_wires_uj", "array, wires", "#0072B2", "x"),
        ("energy_skew_uj", "skew registers", "#56B4E9", ""),
        ("energy_edge_uj", "dequantise and decode", "#E69F00", ""),
        ("energy_sram_act_uj", "activation SRAM", "#009E73", ""),
        ("energy_sram_wgt_uj", "weight SRAM", "#009E73", "/"),
        ("energy_sram_out_uj", "output SRAM", "#009E73", "x"),
        ("energy_dram_uj", "DRAM, moving", "#D55E00", ""),
        ("energy_dram_idle_uj", "DRAM, standby", "#D55E00", "/"),
        ("energy_vector_uj", "vector unit", "#CC79A7", ""),
        ("energy_clock_tree_uj", "clock tree", "#F0E442", ""),
        ("energy_leakage_uj", "leakage", "#9AA3AE", ""),
    ],
    "area": [
        ("area_array_mm2", "array", "#0072B2", ""),
        ("area_edge_mm2", "array edge (decoders, skew)", "#E69F00", ""),
        ("area_sram_mm2", "SRAM", "#009E73", ""),
        ("area_vector_mm2", "vector unit", "#CC79A7", ""),
        ("area_clock_tree_mm2", "clock tree", "#F0E442", ""),
    ],
}
"""What each stacked bar is made of: (row key, name, colour, hatch); the keys sum to the bar's total."""


def pareto_figure(
    rows: Sequence[Row], indices: Sequence[int], phase: str, against: str, symbols: Mapping[str, str]
) -> Figure:
    """Tokens/s of a phase against "energy" per token or "area": points, and one front a perplexity budget.

    rows : all rows of the report; indices : those of one workload; symbols : PE name -> marker symbol.
    Where perplexity is not measured there is one front, over all designs, and no colour scale.
    Front traces carry `meta = {"budget": i, "rows": [...]}`; the page shows the chosen one beside the last, "any".
    """
    chosen = [rows[i] for i in indices]
    accuracy = Accuracy.of(chosen)
    factor, unit = energy_unit([phase_values(row, phase)[0] for row in chosen])
    if against == "energy":
        title, xs = f"energy per token, {unit}", [phase_values(row, phase)[0] * factor for row in chosen]
    else:
        title, xs = "area, mm²", [float(row["area_mm2"]) for row in chosen]
    ys = [phase_values(row, phase)[1] for row in chosen]
    points = list(zip(xs, ys, strict=True))
    data: list[Figure] = []
    for budget in accuracy.budgets:
        inside = [i for i, row in enumerate(chosen) if accuracy.within(row, BUDGETS[budget][1])]
        front = [inside[i] for i in pareto_front([points[i] for i in inside])]
        line = [points[i] for i in front]
        if line:
            # Out to the edges of the data: everything below and to the right of the line is beaten.
            line = [(line[0][0], min(y for y in ys if y > 0)), *line, (max(xs), line[-1][1])]
        data.append(_front_trace(line, [indices[i] for i in front], budget, accuracy))
    for pe, symbol in symbols.items():
        mine = [i for i, row in enumerate(chosen) if row["pe"] == pe]
        if mine:
            data += _point_traces(pe, symbol, mine, points, chosen, indices, accuracy)
    destroyed = sum(not accuracy.usable(row) for row in chosen)
    layout = _layout(title, f"{phase} tokens/s", xs, ys)
    if accuracy.measured:
        layout["coloraxis"] = _colour_axis(accuracy)
    layout["annotations"] = [_corner("better ↖", 0.01, 0.99, "left", "top")]
    if destroyed:
        text = f"hollow: perplexity > {DESTROYED_RATIO:g}{TIMES} best ({destroyed})"
        layout["annotations"].append(_corner(text, 0.99, 0.01, "right", "bottom"))
    return {"data": data, "layout": layout}


def _colour_axis(accuracy: Accuracy) -> Figure:
    """The colour axis: log10 of the perplexity when the range is wider than 1.5 times, else linear."""
    low, high = accuracy.colour(accuracy.best), accuracy.colour(accuracy.top)
    if not math.isfinite(low):
        low, high = 0.0, 1.0  # every format destroyed the model: no point has a colour
    if high <= low:
        high = low + (0.1 if accuracy.logarithmic() else 0.1 * abs(low) + 1e-9)
    ticks = [low + (high - low) * step / 4 for step in range(5)]
    texts = [number(10**tick if accuracy.logarithmic() else tick, 3) for tick in ticks]
    bar = {
        "title": {"text": "perplexity", "side": "top", "font": {"size": 12}},
        "tickvals": ticks,
        "ticktext": texts,
        "thickness": 12,
        "len": 0.82,
        "outlinewidth": 0,
        "x": 1.01,
        "xpad": 4,
    }
    return {"colorscale": SCALE, "cmin": low, "cmax": high, "colorbar": bar}


def _front_trace(points: Sequence[tuple[float, float]], rows: list[int], budget: int, accuracy: Accuracy) -> Figure:
    name, ratio = BUDGETS[budget]
    anything = accuracy.measured and ratio == math.inf
    scope = f"{name} perplexity" if anything else f"{name} of best perplexity" if accuracy.measured else "all designs"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"front, {scope}",
        "x": [_drawn(x) for x, _ in points],
        "y": [_drawn(y) for _, y in points],
        "line": {
            "shape": "hv",
            "width": 2,
            "color": MUTED if anything else "#B5179E",
            "dash": "dot" if anything else "solid",
        },
        "hoverinfo": "skip",
        "meta": {"budget": budget, "rows": rows},
        "visible": anything or budget == accuracy.budget,
    }


def _point_traces(
    pe: str,
    symbol: str,
    mine: Sequence[int],
    points: Sequence[tuple[float, float]],
    chosen: Sequence[Row],
    indices: Sequence[int],
    accuracy: Accuracy,
) -> list[Figure]:
    """A grey legend entry, the coloured points, and the hollow points of destroyed designs of one PE."""
    common: Figure = {"type": "scatter", "mode": "markers", "legendgroup": pe, "name": html.escape(pe)}
    legend: Figure = {**common, "x": [None], "y": [None], "hoverinfo": "skip"}
    legend["marker"] = {"symbol": symbol, "size": 10, "color": "#c3c9d1", "line": {"width": 1, "color": INK}}
    traces = [legend]
    for usable in (False, True):
        which = [i for i in mine if accuracy.usable(chosen[i]) == usable]
        if not which:
            continue
        marker: Figure = {"symbol": symbol if usable else f"{symbol}-open", "size": 10 if usable else 8}
        if usable and accuracy.measured:
            marker["color"] = [_drawn(accuracy.colour(chosen[i]["perplexity"])) for i in which]
            marker["coloraxis"] = "coloraxis"
        else:
            marker["color"] = NEUTRAL if usable else "#9AA3AE"
        if usable:
            marker["line"] = {"width": 0.8, "color": INK}
        traces.append(
            {
                **common,
                "showlegend": False,
                "x": [_drawn(points[i][0]) for i in which],
                "y": [_drawn(points[i][1]) for i in which],
                "customdata": [indices[i] for i in which],
                "marker": marker,
            }
        )
    return traces


def roofline_figure(rows: Sequence[Row], indices: Sequence[int], symbols: Mapping[str, str]) -> Figure:
    """MACs/cycle against MACs per DRAM byte of both phases, under each machine's ceiling.

    A ceiling is min(peak MACs/cycle, bandwidth x intensity), one trace for each distinct (peak, bandwidth); its
    `meta = {"ceiling": i, "rows": [...]}` lets the page raise it while one of its designs is hovered.
    """
    chosen = [rows[i] for i in indices]
    marks: dict[str, list[tuple[float, float, int]]] = {"prefill": [], "decode": []}
    for index in indices:
        for phase, found in marks.items():
            row = rows[index]
            if row[f"{phase}_dram_bytes"] > 0 and row[f"{phase}_macs_per_cycle"] > 0:
                intensity = row[f"{phase}_macs"] / row[f"{phase}_dram_bytes"]
                found.append((intensity, row[f"{phase}_macs_per_cycle"], index))
    ceilings: dict[tuple[float, float], list[int]] = {}
    for index, row in zip(indices, chosen, strict=True):
        pair = (float(row["peak_macs_per_cycle"]), float(row["dram_bandwidth_bytes_per_cycle"]))
        if min(pair) > 0:
            ceilings.setdefault(pair, []).append(index)
    ridges = [peak / bandwidth for peak, bandwidth in ceilings]
    seen = [point[0] for found in marks.values() for point in found] + ridges
    low, high = (min(seen) / 2, max(seen) * 3) if seen else (0.1, 10.0)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [low, peak / bandwidth, high],
            "y": [low * bandwidth, peak, peak],
            "line": {"color": "#c3c9d1", "width": 1},
            "hoverinfo": "skip",
            "showlegend": False,
            "meta": {"ceiling": at, "rows": users},
        }
        for at, ((peak, bandwidth), users) in enumerate(ceilings.items())
    ]
    for phase, colour in (("prefill", "#0072B2"), ("decode", "#D55E00")):
        for pe, symbol in symbols.items():
            found = [point for point in marks[phase] if rows[point[2]]["pe"] == pe]
            if found:
                # The legend entry is a trace of its own: the page fades points, and a legend copies the first one.
                common: Figure = {"type": "scatter", "mode": "markers", "legendgroup": f"{phase} {pe}"}
                common["name"] = html.escape(f"{phase}, {pe}")
                common["marker"] = {"symbol": symbol, "size": 9, "color": colour}
                common["marker"] |= {"opacity": 0.85, "line": {"width": 0.6, "color": "white"}}
                data.append({**common, "x": [None], "y": [None], "hoverinfo": "skip"})
                xs, ys, users = zip(*found, strict=True)
                common |= {"x": [_drawn(x) for x in xs], "y": [_drawn(y) for y in ys], "customdata": list(users)}
                data.append({**common, "showlegend": False})
    layout = _layout("MACs per DRAM byte", "MACs per cycle", [low, high], _heights(marks, ceilings), log=True)
    layout["xaxis"]["range"] = [math.log10(low), math.log10(high)]
    layout["annotations"] = _ceiling_labels(ceilings, low, high)
    layout["height"] = 540
    return {"data": data, "layout": layout}


def _heights(
    marks: Mapping[str, list[tuple[float, float, int]]], ceilings: Mapping[tuple[float, float], list[int]]
) -> list[float]:
    """The roofline's lowest and highest MACs/cycle, points and peaks together."""
    found = [point[1] for points in marks.values() for point in points] + [peak for peak, _ in ceilings]
    return [min(found), max(found)] if found else []


def _ceiling_labels(ceilings: Mapping[tuple[float, float], list[int]], low: float, high: float) -> list[Figure]:
    """Peaks at the right end of their flats, bandwidths at the left end of their slopes; at most 8 of each."""
    peaks = sorted({peak for peak, _ in ceilings}, reverse=True)[:8]
    bandwidths = sorted({bandwidth for _, bandwidth in ceilings}, reverse=True)[:8]
    places = [(high, peak, f"peak {number_short(peak)} MACs/cycle", "right") for peak in peaks]
    places += [(low, low * rate, f"{number_short(round(rate, 2))} B/cycle", "left") for rate in bandwidths]
    return [
        {
            "x": math.log10(x),
            "y": math.log10(y),
            "text": text,
            "showarrow": False,
            "xanchor": side,
            "yanchor": "bottom",
            "yshift": 0 if side == "right" else 8,
            "font": {"size": 11, "color": MUTED},
            "bgcolor": "rgba(255,255,255,0.7)",
        }
        for x, y, text, side in places
    ]


def accuracy_figure(policies: Sequence[Row], symbols: Mapping[str, str], marks: Sequence[str] = ()) -> Figure:
    """Perplexity against bits per weight, one point a format policy; destroyed policies are left to the table.

    policies : one row for each distinct policy; marks : footnote marks beside their labels, same order.
    """
    accuracy = Accuracy.of(policies)
    marks = marks or [""] * len(policies)
    kept = [(row, sign) for row, sign in zip(policies, marks, strict=True) if accuracy.usable(row)]
    xs, ys = [row["bits_per_weight"] for row, _ in kept], [row["perplexity"] for row, _ in kept]
    named = _spread(xs, ys, pareto_front([(x, 1 / y) for x, y in zip(xs, ys, strict=True)]))
    middle = math.sqrt(min(xs, default=1) * max(xs, default=1))
    data = []
    for pe, symbol in symbols.items():
        mine = [i for i, (row, _) in enumerate(kept) if row["pe"] == pe]
        if mine:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "name": html.escape(pe),
                    "x": [xs[i] for i in mine],
                    "y": [ys[i] for i in mine],
                    "text": [html.escape(weights_label(kept[i][0])) + kept[i][1] if i in named else "" for i in mine],
                    "textposition": ["middle right" if xs[i] < middle else "middle left" for i in mine],
                    "textfont": {"size": 11, "color": MUTED},
                    "cliponaxis": False,
                    "hovertext": [
                        f"{html.escape(weights_label(kept[i][0]))}{kept[i][1]} on {html.escape(pe)}<br>"
                        f"perplexity {number(ys[i])} at {number(xs[i])} bits a weight<br>"
                        f"activation scales: {act_scale(kept[i][0])}"
                        for i in mine
                    ],
                    "hoverinfo": "text",
                    "marker": {"symbol": symbol, "size": 10, "color": "#0072B2", "line": {"width": 0.8, "color": INK}},
                }
            )
    layout = _layout("bits per weight (with scales and zero points)", "perplexity", xs, ys)
    bits = [1, 2, 3, 4, 5, 6, 8, 12, 16, 32]
    layout["xaxis"] |= {"type": "log", "tickvals": bits, "ticktext": [str(count) for count in bits]}
    layout["annotations"] = [_corner("better ↙", 0.01, 0.01, "left", "bottom")]
    return {"data": data, "layout": layout}


def _spread(xs: Sequence[float], ys: Sequence[float], candidates: Sequence[int]) -> set[int]:
    """The candidates that are labelled: lowest y first, each away from the ones before, so that no text overlaps."""
    chosen: list[int] = []
    gap = 0.05 * (max(ys) - min(ys)) if candidates else 0.0
    for index in sorted(candidates, key=lambda i: ys[i]):
        if all(abs(ys[index] - ys[at]) > gap or max(xs[index], xs[at]) > 1.4 * min(xs[index], xs[at]) for at in chosen):
            chosen.append(index)
    return set(chosen)


def note_marks(row: Row, partial: Sequence[str]) -> str:
    """The footnote marks of a row: those of the notes that only some rows carry."""
    return "".join(mark(at) for at, note in enumerate(partial) if note in row["notes"])


def _drawn(value: float) -> float:
    """A coordinate to 6 significant digits, far below a pixel: the page's size is mostly digits."""
    return float(f"{value:.6g}")


def _corner(text: str, x: float, y: float, xanchor: str, yanchor: str) -> Figure:
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": xanchor,
        "yanchor": yanchor,
        "showarrow": False,
        "font": {"size": 12, "color": MUTED},
        "bgcolor": "rgba(255,255,255,0.8)",
    }


def _layout(x: str, y: str, xs: Sequence[float], ys: Sequence[float], log: bool = False) -> Figure:
    """The house layout; an axis is logarithmic when asked or when its values span more than 10 times."""
    sans = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    return {
        "xaxis": _axis(x, xs, log),
        "yaxis": _axis(y, ys, log),
        "font": {"family": sans, "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 64, "r": 16, "t": 30, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "font": {"size": 12}},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#9AA3AE",
            "font": {"family": sans, "size": 12, "color": INK},
            "align": "left",
        },
        "hovermode": "closest",
        "height": 490,
    }


def _axis(title: str, values: Sequence[float], log: bool = False) -> Figure:
    """One axis; logarithmic ones are ticked at 1-2-5 up to three decades, else at whole decades."""
    positive = [value for value in values if 0 < value < math.inf]
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    found: Figure = {
        "title": {"text": title, "font": {"size": 13}, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#9AA3AE",
        "ticks": "outside",
        "tickcolor": "#9AA3AE",
        "automargin": True,
    }
    if log or high > 10 * low:
        steps = (1, 2, 5) if high < 1000 * low else (1,)
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        found |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.15g}" for tick in ticks]}
    return found
