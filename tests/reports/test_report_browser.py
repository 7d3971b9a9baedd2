"""The page in a real browser: it draws, it obeys its controls, and it makes no error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from bitwright.reports import report
from bitwright.reports.screenshot import find_chromium, render_dom

Rows = list[dict[str, Any]]
pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on PATH to draw the report")

COUNT = 40

# Runs after the page's own script and writes what it saw into the document.
PROBE = """
const seen = {};
const all = (selector) => [...document.querySelectorAll(selector)];
const lineCount = () => all("#table tbody tr").length;
const choose = (selector) => { document.querySelector(selector).click(); };
const traces = (id) => $(id).data;
const search = (text) => { $("find").value = text; filter(); };
seen.start = lineCount();
choose('#table thead button[title="area_mm2"]');
choose('#table thead button[title="area_mm2"]');
const at = 1 + all("#table thead button").findIndex((button) => button.title === "area_mm2");
seen.smallest = all("#table tbody tr")[0].children[at].textContent;
seen.sorted = document.querySelector("#table th[aria-sort]").getAttribute("aria-sort");
search("perplexity<18 pe=int8-mac");
seen.found = lineCount();
search("nonsense<3");
seen.bad = $("bad").textContent;
search("");
$("only").checked = true;
choose('input[name=budget][value="0"]');
seen.budget = lineCount();
seen.inside = $("inside").textContent;
seen.faded = traces("plot-energy").flatMap((t) => t.customdata ? t.marker.opacity : []).filter((o) => o < 0.5).length;
$("only").checked = false;
choose('input[name=phase][value="prefill"]');
seen.axis = $("plot-energy").layout.yaxis.title.text;
seen.tables = all(".choices:not([hidden])").map((t) => t.dataset.phase + t.dataset.budget).join();
const before = traces("plot-cycles")[0].y.length;
choose("#table tbody input");
seen.bars = traces("plot-cycles")[0].y.length - before;
seen.picked = all("tr.picked").length + " " + traces("plot-energy").at(-1).name;
choose('input[name=cycles][value="operators"]');
seen.parts = traces("plot-cycles").map((t) => t.name).join();
seen.sums = traces("plot-cycles")[0].x.map((_, i) => traces("plot-cycles").reduce((sum, t) => sum + t.x[i], 0));
choose("#everything");
seen.columns = all("#table thead th").length;
document.documentElement.dataset.seen = JSON.stringify(seen);
"""


@pytest.fixture(scope="module")
def page(make_rows: Callable[..., Rows], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The drawn page of `COUNT` designs."""
    return render_dom(report(make_rows(COUNT), tmp_path_factory.mktemp("page") / "report.html"))


def attribute(page: str, name: str) -> str | None:
    """A data attribute of the drawn page's root."""
    root = re.search(r"<html[^>]*>", page)
    assert root
    found = re.search(rf' data-{name}="([^"]*)"', root[0])
    return unescape(found[1]) if found else None


def test_page_draws_without_an_error(page: str) -> None:
    assert attribute(page, "errors") is None
    assert attribute(page, "ready") == "true"


@pytest.mark.parametrize("plot", ["energy", "area", "cycles", "parts", "roofline", "accuracy"])
def test_every_plot_is_an_svg(page: str, plot: str) -> None:
    start = page.index(f'id="plot-{plot}"')
    assert page.index('class="main-svg"', start) - start < 2000


def test_every_design_is_a_line_of_the_table(page: str, make_rows: Callable[..., Rows]) -> None:
    assert len(re.findall(r'<tr id="design-\d+"', page)) == len(make_rows(COUNT))
    for row in make_rows(COUNT):
        assert f'title="copy: {row["command"]}"' in page


def test_every_design_is_a_point_of_the_front_plots(page: str, make_rows: Callable[..., Rows]) -> None:
    plot = page[page.index('id="plot-energy"') : page.index('id="plot-area"')]
    # One more for each PE: its entry in the legend.
    assert len(re.findall(r'<path class="point[ "]', plot)) >= len(make_rows(COUNT))


def test_controls_sort_filter_select_and_switch(make_rows: Callable[..., Rows], tmp_path: Path) -> None:
    rows = make_rows(COUNT)
    out = report(rows, tmp_path / "report.html")
    # Functions of a classic script are global, so that a second script can drive the page.
    out.write_text(out.read_text(encoding="utf-8").replace("</body>", f"<script>{PROBE}</script></body>"))
    drawn = render_dom(out)
    assert attribute(drawn, "errors") is None
    seen = json.loads(attribute(drawn, "seen") or "{}")
    best = min(row["perplexity"] for row in rows)
    tight = sum(row["perplexity"] <= best * 1.05 for row in rows)
    assert seen["start"] == COUNT
    assert float(seen["smallest"]) == pytest.approx(min(row["area_mm2"] for row in rows), rel=1e-3)
    assert seen["sorted"] == "ascending"
    assert seen["found"] == sum(row["perplexity"] < 18 and row["pe"] == "int8-mac" for row in rows)
    assert seen["bad"] == "search ignores “nonsense<3”: no column nonsense"
    assert seen["budget"] == tight
    assert seen["inside"].startswith(f"{tight} of {COUNT} designs with perplexity ≤ ")
    assert seen["faded"] == COUNT - tight
    assert seen["axis"] == "prefill tokens/s"
    assert seen["tables"] == "prefill0"
    assert seen["bars"] in (0, 1)  # 0 when the chosen design is on the front already
    assert seen["picked"] == "1 selected"
    assert seen["parts"] == "attention projections,attention,feed-forward,output head,vector operators"
    assert seen["sums"] == pytest.approx([100.0] * len(seen["sums"]))
    assert seen["columns"] > 80


# Walks the workloads of a mixed store; hover texts are made while drawing.
MIXED_PROBE = """
const seen = [];
const offers = (name) => !document.querySelector("input[name=" + name + "]").closest("fieldset").hidden;
for (const at of DATA.workloads.keys()) {
  $("workload").value = at;
  $("workload").dispatchEvent(new Event("change", { bubbles: true }));
  const points = $("plot-energy").data.filter((trace) => trace.customdata);
  $("find").value = "perplexity<1000";
  filter();
  seen.push({
    phase: offers("phase"), budget: offers("budget"), axis: $("plot-energy").layout.yaxis.title.text,
    accuracy: !$("plot-accuracy").closest("figure").hidden, inside: $("inside").textContent,
    faded: points.flatMap((trace) => trace.marker.opacity).filter((o) => o < 0.5).length,
    hover: points[0].hovertext[0], bars: $("plot-cycles").data[0].y.length, found: lineCount(),
    tables: document.querySelectorAll("[data-workload]:not([hidden]) .choices:not([hidden])").length,
  });
  $("find").value = "";
  filter();
}
document.documentElement.dataset.seen = JSON.stringify(seen);
"""


def test_each_workload_of_a_mixed_store_shows_what_it_has(
    make_rows: Callable[..., Rows],
    unmeasured: Callable[[Rows], Rows],
    prefill_only: Callable[[Rows], Rows],
    tmp_path: Path,
) -> None:
    known, unknown = make_rows(10), unmeasured(make_rows(8, seed=3, model="llama-2-7b"))
    rows = prefill_only(unknown) + prefill_only(known) + unknown + known
    out = report(rows, tmp_path / "report.html")
    probe = 'const lineCount = () => document.querySelectorAll("#table tbody tr").length;' + MIXED_PROBE
    out.write_text(out.read_text(encoding="utf-8").replace("</body>", f"<script>{probe}</script></body>"))
    drawn = render_dom(out)
    assert attribute(drawn, "errors") is None
    seen = json.loads(attribute(drawn, "seen") or "[]")
    assert [view["budget"] for view in seen] == [view["accuracy"] for view in seen] == [False, True, False, True]
    assert [view["phase"] for view in seen] == [False, False, True, True]
    assert [view["axis"] for view in seen] == ["prefill tokens/s"] * 2 + ["decode tokens/s"] * 2
    assert seen[0]["inside"] == "prefill of 8 designs, perplexity not measured"
    assert seen[2]["inside"] == "decode and prefill of 8 designs, perplexity not measured"
    assert [view["faded"] > 0 for view in seen] == [False, True, False, True]
    assert ["<b>perplexity not measured</b>" in view["hover"] for view in seen] == [True, False, True, False]
    assert ["decode tokens/s" in view["hover"] for view in seen] == [False, False, True, True]
    assert all(view["bars"] > 0 and view["tables"] == 1 for view in seen)
    assert {view["found"] for view in seen} == {2 * sum(row["perplexity"] < 1000 for row in known)}


def test_hostile_text_and_several_workloads_draw_as_text(make_rows: Callable[..., Rows], tmp_path: Path) -> None:
    rows = make_rows(6) + make_rows(4, seed=3, model="prose-17m", prompt=128)
    evil = "<img src=x onerror=\"document.documentElement.dataset.owned='yes'\">%{x}</script>"
    for key in ("pe", "weights", "machine", "dram", "model", "node", "command"):
        rows[0][key] = evil
    rows[1].update(perplexity=float("inf"), bits_per_byte=float("inf"))
    drawn = render_dom(report(rows, tmp_path / "report.html", title=evil))
    assert attribute(drawn, "errors") is None
    assert attribute(drawn, "owned") is None
    assert attribute(drawn, "ready") == "true"
    assert len(re.findall(r'<tr id="design-\d+"', drawn)) == 10
    assert "<img" not in drawn.split("<script>/**")[0]
