"""The page's text: complete, self-contained, escaped, and written whole or not at all."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.reports import TITLE, report
from bitwright.reports.findings import Findings
from bitwright.reports.labels import design_labels, number

Rows = list[dict[str, Any]]


def ours(page: str) -> str:
    """The page without plotly.js."""
    start = page.index("<script>/**\n* plotly.js")
    return page[:start] + page[page.index("</script>", start) :]


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def column(page: str, key: str) -> list[Any]:
    data = embedded(page)
    coded = data["values"][key]
    if isinstance(coded, list):
        return coded
    return [coded["c"]] * data["count"] if "c" in coded else [coded["d"][at] for at in coded["i"]]


def test_report_returns_its_path_and_is_below_six_megabytes(rows: Rows, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert report(rows, out) == out
    assert out.stat().st_size < 6_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_eight_hundred_designs_stay_below_six_megabytes(make_rows: Callable[..., Rows], tmp_path: Path) -> None:
    assert report(make_rows(800), tmp_path / "report.html").stat().st_size < 6_000_000


def test_same_rows_give_the_same_bytes(rows: Rows, tmp_path: Path) -> None:
    first = report(rows, tmp_path / "a.html").read_bytes()
    assert report(rows, tmp_path / "b.html").read_bytes() == first


def test_page_needs_no_other_file_and_forbids_the_network(rows: Rows, tmp_path: Path) -> None:
    page = report(rows, tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script>/**\n* plotly.js v") == 1
    assert "default-src 'none'" in page
    mine = ours(page)
    assert not re.search(r"https?://|<link|@import|\bsrc=|url\(", mine)
    assert "{{" not in mine


def test_every_number_field_of_every_row_is_in_the_page(rows: Rows, tmp_path: Path) -> None:
    page = report(rows, tmp_path / "report.html").read_text(encoding="utf-8")
    for key in ("key", "cycles", "energy_dram_uj", "perplexity", "command", "group"):
        assert column(page, key) == [row[key] for row in rows]


def test_findings_hold_the_extremes_of_the_rows(rows: Rows) -> None:
    best = min(row["perplexity"] for row in rows)
    text = "\n".join(Findings(rows, design_labels(rows), range(len(rows))).sentences())
    for ratio in (1.05, 1.1, 1.25):
        inside = [row for row in rows if row["perplexity"] <= best * ratio]
        fastest = max(row["decode_tokens_per_s"] for row in inside)
        least = min(row["decode_energy_uj_per_token"] for row in inside)
        assert f"{len(inside)} of {len(rows)} designs" in text
        assert f"{number(fastest, 3)} tokens/s" in text
        assert f"{number(least * 1e-3, 3)} mJ/token" in text
    assert f"<b>{number(best)}</b>" in text


def test_choice_tables_show_each_elements_best(rows: Rows) -> None:
    best = min(row["perplexity"] for row in rows)
    table = Findings(rows, design_labels(rows), range(len(rows))).choice_tables("decode", 2)
    for pe in {row["pe"] for row in rows}:
        inside = [row for row in rows if row["pe"] == pe and row["perplexity"] <= best * 1.25]
        line = re.search(rf"<th scope=row>{pe}<td class=n>(\d+)(.*?)<tr>", table)
        assert line
        assert int(line[1]) == len(inside)
        assert f">{number(max(row['decode_tokens_per_s'] for row in inside), 3)}</a>" in line[2]
    lowest = min(row["perplexity"] for row in rows if row["weights"] == "int2_asym")
    start = (
        "<th scope=row>int2_asym g128<td class=n>0<td class=none colspan=4>no design in this budget; lowest perplexity "
    )
    assert re.search(rf"{re.escape(start)}<a [^>]*>{number(lowest)}</a>", table)


def test_an_element_outside_the_budget_is_said_with_its_best_at_any_accuracy(rows: Rows) -> None:
    for row in rows:
        row["perplexity"] *= 2 if row["pe"] == "shift-add" else 1
    text = "\n".join(Findings(rows, design_labels(rows), range(len(rows))).sentences())
    mine = [row for row in rows if row["pe"] == "shift-add"]
    (said,) = [line for line in text.split("\n") if line.startswith("<b>shift-add</b> has no design within 25 % of it")]
    assert f">{number(min(row['perplexity'] for row in mine))}</a>" in said
    fastest = max(mine, key=lambda row: float(row["decode_tokens_per_s"]))
    assert f"the fastest decode is <b>{number(fastest['decode_tokens_per_s'], 3)} tokens/s</b>" in said
    assert f"perplexity {number(fastest['perplexity'])}, " in said
    assert text.count("has no design") == 1


def test_without_perplexity_nothing_is_said_of_it(rows: Rows, unmeasured: Callable[[Rows], Rows]) -> None:
    found = Findings(unmeasured(rows), design_labels(rows), range(len(rows)))
    text = "\n".join(found.sentences())
    assert text.startswith("<b>Perplexity is not measured</b>")
    assert f"<b>Of all {len(rows)} designs</b>, the fastest decode is" in text
    assert f"{number(max(row['decode_tokens_per_s'] for row in rows), 3)} tokens/s" in text
    assert found.glance()[-1][:2] == ("perplexity", "not measured")
    assert "perplexity" not in found.choice_tables("decode", 3)
    assert "within" not in text


def test_mixed_stores_offer_each_workload_what_it_has(
    make_rows: Callable[..., Rows],
    unmeasured: Callable[[Rows], Rows],
    prefill_only: Callable[[Rows], Rows],
    tmp_path: Path,
) -> None:
    known, unknown = make_rows(10), unmeasured(make_rows(8, seed=3, model="llama-2-7b"))
    rows = known + unknown + prefill_only(known) + prefill_only(unknown)
    page = report(rows, tmp_path / "report.html").read_text(encoding="utf-8")
    groups = embedded(page)["workloads"]
    both = ["decode", "prefill"]
    assert [group["phases"] for group in groups] == [both, both, ["prefill"], ["prefill"]]
    assert [group["budgets"] for group in groups] == [[0, 1, 2, 3], [3]] * 2
    assert [sorted(group["energy"]) for group in groups] == [group["phases"] for group in groups]
    assert [group["accuracy"] is None for group in groups] == [False, True] * 2
    assert column(page, "perplexity") == [row["perplexity"] for row in rows]
    assert column(page, "perplexity_over_best")[10:18] == [None] * 8
    assert page.count("Perplexity is not measured for this workload: it has no budgets") == 2
    assert page.count("min prefill<br>") == page.count("min decode<br>") == 1
    nulls = {entry["key"]: entry["null"] for entry in embedded(page)["columns"]}
    assert (nulls["perplexity"], nulls["tpot_ms"], nulls["group"]) == ("not measured", "no decode", None)


def test_columns_that_no_design_fills_leave_the_table(
    rows: Rows, unmeasured: Callable[[Rows], Rows], prefill_only: Callable[[Rows], Rows], tmp_path: Path
) -> None:
    page = report(unmeasured(prefill_only(rows)), tmp_path / "report.html").read_text(encoding="utf-8")
    shown = {entry["key"] for entry in embedded(page)["columns"] if entry["main"]}
    assert {"prefill_tokens_per_s", "area_mm2"} <= shown
    assert not shown & {"perplexity", "perplexity_over_best", "bits_per_weight", "decode_tokens_per_s"}


def test_activation_scales_stand_in_the_accuracy_table(rows: Rows, tmp_path: Path) -> None:
    at = next(i for i, row in enumerate(rows) if row["weights"] == "int8")
    rows[at] |= {"acts": "int8_tensor", "perplexity": rows[at]["perplexity"] * 1.5}
    page = ours(report(rows, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "<td>int8_tensor, int8, int8<td>one a tensor<td>int8-mac" in page
    assert "<td>int8<td>one a token<td>int8-mac" in page
    assert "<td>fp16<td>none<td>fp16-mac" in page
    assert page.count("<p class=foot>Act scales: ") == 1


def test_tightening_the_budget_for_free_is_said(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(3)
    for row in rows:
        row["perplexity"] = 20.0
    text = "\n".join(Findings(rows, design_labels(rows), range(3)).sentences())
    assert "Staying within 5 % instead of within 25 % costs neither speed nor energy." in text


def test_biased_policies_carry_the_dagger_and_its_note(rows: Rows, tmp_path: Path) -> None:
    page = ours(report(rows, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "<th scope=row>int4 g128†<td>" in page
    assert "<th scope=row>bitmod_fp4 g128<td>" in page
    assert "<p class=foot>† the checkpoint&#x27;s weights were trained on a 4-bit grid" in page


def test_notes_scopes_hashes_and_versions_are_collected(rows: Rows, tmp_path: Path) -> None:
    rows[0]["dram_scope"] = "device only"
    rows[0]["hashes"] = {**rows[0]["hashes"], "engine": "feedbeef"}
    page = ours(report(rows, tmp_path / "report.html").read_text(encoding="utf-8"))
    for row in rows:
        for text in (*row["notes"], row["dram_scope"], *row["hashes"].values(), *row["versions"].values()):
            assert html.escape(text) in page
    assert "Designs with different DRAM scopes are in one picture" in page


def test_text_from_rows_and_title_cannot_become_markup(make_rows: Callable[..., Rows], tmp_path: Path) -> None:
    rows = make_rows(4)
    evil = "</script><img src=x onerror=alert(1)>&\"' {{data}} \u2028"
    for key in ("machine", "pe", "weights", "acts", "dram", "dram_scope", "model", "command", "space_name", "node"):
        rows[0][key] = evil
    rows[0]["notes"] = [evil]
    rows[0]["hashes"] = {evil: evil}
    rows[0]["versions"] = {evil: evil}
    page = report(rows, tmp_path / "report.html", title=evil).read_text(encoding="utf-8")
    assert "<img" not in ours(page)
    assert page.count("</script>") == 4
    assert column(page, "command")[0] == evil


def test_workloads_are_never_compared_with_each_other(make_rows: Callable[..., Rows], tmp_path: Path) -> None:
    rows = make_rows(10) + make_rows(8, seed=3, model="prose-17m", prompt=128)
    page = report(rows, tmp_path / "report.html").read_text(encoding="utf-8")
    groups = embedded(page)["workloads"]
    assert [group["rows"] for group in groups] == [list(range(10)), list(range(10, 18))]
    assert [group["best"] for group in groups] == [
        min(row["perplexity"] for row in part) for part in (rows[:10], rows[10:])
    ]
    assert "<select id=workload>" in page
    assert "2 workloads" in page


def test_one_design_with_a_lost_model_is_a_report(make_rows: Callable[..., Rows], tmp_path: Path) -> None:
    rows = make_rows(1)
    rows[0].update(perplexity=math.inf, bits_per_byte=math.inf)
    page = report(rows, tmp_path / "report.html").read_text(encoding="utf-8")
    assert column(page, "perplexity") == ["Infinity"]
    assert TITLE in page


def test_a_refused_row_leaves_the_old_report(rows: Rows, tmp_path: Path) -> None:
    out = report(rows, tmp_path / "report.html")
    before = out.read_bytes()
    rows[5]["cycles_stream"] += 10**9
    with pytest.raises(MismatchError):
        report(rows, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [("missing/report.html", "No such file or directory"), ("folder", "Is a directory"), ("file/x", "Not a directory")],
)
def test_an_unwritable_path_is_named(rows: Rows, tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / place
    with pytest.raises(ConfigError) as raised:
        report(rows, out)
    assert str(raised.value) == f"out = {out}: must be a writable file in an existing folder ({reason})"
    assert raised.value.exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
