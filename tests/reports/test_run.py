"""The page of one run: its bars sum to the cycles, and it needs no network."""

from __future__ import annotations

from pathlib import Path

from bitwright.cli.main import app
from bitwright.reports.run import breakdown, gantt
from bitwright.sim.inference import policy_for, simulate
from bitwright.sim.row import result_row
from bitwright.sim.timeline import timeline
from typer.testing import CliRunner

SIZES = {"prompt_tokens": 8, "output_tokens": 1, "batch": 1}


def test_bars_sum_to_the_cycles() -> None:
    policy = policy_for("int8-mac")
    result = simulate("int8-16x16", "smollm2-135m", policy=policy, **SIZES)
    drawn = gantt(timeline(result.machine, result.shape, policy, **SIZES))["data"]
    assert [sum(bar["x"]) for bar in drawn] == [result.prefill.cycles, result.decode.cycles]
    ends = [start + length for bar in drawn for start, length in zip(bar["base"], bar["x"], strict=True)]
    assert [start for bar in drawn for start in bar["base"]] == [0, *ends[:-1]]
    bars = breakdown(result_row(result))["data"]
    for name in ("by cause", "by operator"):
        assert sum(bar["x"][0] for bar in bars if bar["y"] == [name]) == result.cycles


def test_the_page_is_whole_and_alone(tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    asked = ["simulate", "int8-16x16", "smollm2-135m", "--prompt-tokens", "8", "--output-tokens", "1"]
    assert CliRunner().invoke(app, [*asked, "--html", str(out)]).exception is None
    page = out.read_text("utf-8")
    assert page.endswith("</body></html>\n")
    assert "<script src" not in page
    for told in ("Operators", "most cycles go to", "GPUs: bounds", "a100-80gb-sxm", "h100-sxm", "rtx-4090"):
        assert told in page
    refused = CliRunner().invoke(app, [*asked, "--engine", "fast", "--html", str(out)])
    assert str(refused.exception) == f"--html = {out}: not an option of --engine; leave it out; the command line"
