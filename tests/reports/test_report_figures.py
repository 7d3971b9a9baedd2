"""The plotly specifications: valid, complete, and true to the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import pytest
from bitwright.reports.checks import SUMS
from bitwright.reports.compare import BUDGETS, Accuracy, phase_values
from bitwright.reports.figures import NEUTRAL, PARTS, accuracy_figure, pareto_figure, roofline_figure

Rows = list[dict[str, Any]]
SYMBOLS = {"fp16-mac": "circle", "int8-mac": "square", "shift-add": "diamond"}


def points(figure: dict[str, Any]) -> dict[int, list[tuple[float, float, dict[str, Any]]]]:
    """row -> its (x, y, marker) in the figure."""
    found: dict[int, list[tuple[float, float, dict[str, Any]]]] = {}
    for trace in figure["data"]:
        for at, row in enumerate(trace.get("customdata", [])):
            found.setdefault(row, []).append((trace["x"][at], trace["y"][at], trace["marker"]))
    return found


def test_plotly_accepts_every_figure(rows: Rows) -> None:
    everything = range(len(rows))
    figures = [
        pareto_figure(rows, everything, phase, against, SYMBOLS)
        for phase in ("decode", "prefill")
        for against in ("energy", "area")
    ]
    for figure in [*figures, roofline_figure(rows, everything, SYMBOLS), accuracy_figure(rows, SYMBOLS)]:
        go.Figure(figure)
        json.dumps(figure, allow_nan=False)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_every_design_is_one_point_of_its_own_values(rows: Rows, phase: str) -> None:
    found = points(pareto_figure(rows, range(len(rows)), phase, "area", SYMBOLS))
    assert sorted(found) == list(range(len(rows)))
    for row, places in found.items():
        ((x, y, marker),) = places
        assert (x, y) == pytest.approx((rows[row]["area_mm2"], rows[row][f"{phase}_tokens_per_s"]), rel=1e-5)
        assert marker["symbol"].removesuffix("-open") == SYMBOLS[rows[row]["pe"]]


def test_destroyed_designs_are_hollow_and_off_the_colour_scale(rows: Rows) -> None:
    accuracy = Accuracy.of(rows)
    figure = pareto_figure(rows, range(len(rows)), "decode", "energy", SYMBOLS)
    lost = {i for i, row in enumerate(rows) if row["perplexity"] > 3 * accuracy.best}
    assert lost
    for row, ((_, _, marker),) in points(figure).items():
        assert marker["symbol"].endswith("-open") == (row in lost)
        assert ("coloraxis" in marker) == (row not in lost)
    assert 10 ** figure["layout"]["coloraxis"]["cmax"] <= 3 * accuracy.best * (1 + 1e-9)
    texts = [note["text"] for note in figure["layout"]["annotations"]]
    assert f"hollow: perplexity > 3\N{MULTIPLICATION SIGN} best ({len(lost)})" in texts


def test_each_budget_has_the_front_of_its_designs(rows: Rows) -> None:
    accuracy = Accuracy.of(rows)
    figure = pareto_figure(rows, range(len(rows)), "decode", "energy", SYMBOLS)
    fronts = {trace["meta"]["budget"]: trace["meta"]["rows"] for trace in figure["data"] if "meta" in trace}
    for budget, (_, ratio) in enumerate(BUDGETS):
        inside = [i for i, row in enumerate(rows) if accuracy.within(row, ratio)]
        best = {i: phase_values(rows[i], "decode") for i in inside}
        unbeaten = [
            i
            for i in inside
            if not any(best[j] != best[i] and best[j][0] <= best[i][0] and best[j][1] >= best[i][1] for j in inside)
        ]
        assert sorted(fronts[budget]) == sorted(unbeaten)


def test_roofline_points_lie_under_their_machines_ceiling(rows: Rows) -> None:
    figure = roofline_figure(rows, range(len(rows)), SYMBOLS)
    ceilings = {row: trace for trace in figure["data"] if "meta" in trace for row in trace["meta"]["rows"]}
    for row, places in points(figure).items():
        assert len(places) == 2
        peak, bandwidth = rows[row]["peak_macs_per_cycle"], rows[row]["dram_bandwidth_bytes_per_cycle"]
        assert ceilings[row]["x"][1] == pytest.approx(peak / bandwidth)
        assert ceilings[row]["y"][1:] == [peak, peak]
        for x, y, _ in places:
            assert y <= min(peak, x * bandwidth) * (1 + 2e-5)


def test_bars_are_made_of_the_parts_that_the_checks_sum() -> None:
    sums = {(total, frozenset(parts)) for total, parts in SUMS}
    drawn = {"cycles": "cycles", "operators": "cycles", "energy": "energy_uj", "area": "area_mm2"}
    for kind, total in drawn.items():
        assert (total, frozenset(key for key, *_ in PARTS[kind])) in sums
        looks = [(colour, hatch) for _, _, colour, hatch in PARTS[kind]]
        assert len(set(looks)) == len(looks)


def test_one_design_and_a_lost_model_still_draw(make_rows: Callable[..., Rows]) -> None:
    row = make_rows(1)[0] | {"perplexity": math.inf}
    for figure in (
        pareto_figure([row], [0], "decode", "energy", SYMBOLS),
        roofline_figure([row], [0], SYMBOLS),
        accuracy_figure([row], SYMBOLS),
    ):
        go.Figure(figure)
        json.dumps(figure, allow_nan=False)


def test_a_run_without_decode_is_on_the_roofline_once(rows: Rows, prefill_only: Callable[[Rows], Rows]) -> None:
    found = points(roofline_figure(prefill_only(rows), range(len(rows)), SYMBOLS))
    assert sorted(found) == list(range(len(rows)))
    assert all(len(places) == 1 for places in found.values())


def test_without_perplexity_one_front_of_all_designs_and_one_neutral_colour(
    rows: Rows, unmeasured: Callable[[Rows], Rows]
) -> None:
    everything = range(len(rows))
    figure = pareto_figure(unmeasured(rows), everything, "decode", "area", SYMBOLS)
    (front,) = [trace for trace in figure["data"] if "meta" in trace]
    last = [
        trace
        for trace in pareto_figure(rows, everything, "decode", "area", SYMBOLS)["data"]
        if trace.get("meta", {}).get("budget") == len(BUDGETS) - 1
    ]
    assert [front["meta"]] == [trace["meta"] for trace in last]
    assert (front["name"], front["visible"]) == ("front, all designs", True)
    assert "coloraxis" not in figure["layout"]
    found = points(figure)
    assert sorted(found) == list(everything)
    looks = {(marker["color"], marker["symbol"].endswith("-open")) for ((_, _, marker),) in found.values()}
    assert looks == {(NEUTRAL, False)}
    go.Figure(figure)
