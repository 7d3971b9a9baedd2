"""Campaigns and their evidence: what is counted, going on after a stop, stale rows, and files that are not rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError, StoreError
from bitwright.rtl.bench.stream import bulk, campaign, evidence

SPEC = pe.stream("int8-mac", lanes=4, pipeline=1)
PARAMS = {"lanes": 4, "pipeline": 1}
SMALL = campaign.Target(lane_steps=600_000, groups=6_000, seed=3)


def quiet(line: str) -> None:
    """Says nothing."""


def test_a_campaign_reaches_its_target_and_counts(tmp_path: Path) -> None:
    figures = campaign.run(SPEC, PARAMS, SMALL, folder=tmp_path, tell=quiet)
    assert figures["complete"] is True
    assert figures["lane_steps"] >= 600_000
    assert figures["groups"] >= 6_000
    assert figures["lane_steps"] == 4 * figures["steps"]
    assert (figures["pairs"], figures["pair_parts"]) == (1 << 16, 1)
    assert figures["mismatches"] == 0
    row = evidence.load(tmp_path)[0]
    assert row["figures"] == figures
    assert row["command"] == (
        "python -m bitwright.rtl.bench.stream.campaign --pe int8-mac:lanes=4,pipeline=1 "
        "--lane-steps 600000 --groups 6000 --seed 3"
    )


def test_what_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = campaign.run(SPEC, PARAMS, SMALL, folder=tmp_path, tell=quiet)
    text = (tmp_path / "int8-mac.json").read_text()
    monkeypatch.setattr(bulk, "check", lambda *_, **__: pytest.fail("a part was run again"))
    said: list[str] = []
    assert campaign.run(SPEC, PARAMS, SMALL, folder=tmp_path, tell=said.append) == first
    assert said[0].startswith("int8-mac:lanes=4,pipeline=1: was done: ")
    assert (tmp_path / "int8-mac.json").read_text() == text


def test_a_stopped_campaign_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = campaign.run(SPEC, PARAMS, SMALL, folder=tmp_path / "whole", tell=quiet)
    monkeypatch.setattr(campaign, "SAVE_S", 0.0)
    check, ran = bulk.check, []

    def stopping(*args: object, **options: object) -> bulk.Counts:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(1)
        return check(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk, "check", stopping)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(SPEC, PARAMS, SMALL, folder=tmp_path / "parts", tell=quiet)
    half = evidence.load(tmp_path / "parts")[0]["figures"]
    assert (half["complete"], half["pair_parts"], half["group_parts"]) == (False, 1, 1)
    monkeypatch.setattr(bulk, "check", check)
    assert campaign.run(SPEC, PARAMS, SMALL, folder=tmp_path / "parts", tell=quiet) == whole


def test_a_difference_names_the_part_that_replays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = pe.stream("int8-mac", lanes=4)  # a cycle less than the PE that is compiled
    monkeypatch.setattr(bulk, "compiled", lambda spec: compiled)
    compiled = bulk.Compiled(campaign.bulk.streaming.verilog(SPEC), SPEC.module_stem)
    with pytest.raises(MismatchError) as caught:
        campaign.run(wrong, {"lanes": 4}, SMALL, folder=tmp_path, tell=quiet)
    assert "replay: python -m bitwright.rtl.bench.stream.campaign --pe int8-mac:lanes=4 --seed 3 --only pair 0" in str(
        caught.value
    )
    assert evidence.load(tmp_path) == []


def test_groups_are_whole_and_parts_differ() -> None:
    parts = [campaign.group_steps(SPEC, part, 3) for part in range(3)]
    for steps in parts:
        lengths = np.diff(np.append(np.flatnonzero(steps["first"]), len(steps["first"])))
        assert lengths.min() * 4 >= 64
        assert lengths.max() * 4 <= 128
        assert steps["first"].sum() == steps["last"].sum()
    assert not np.array_equal(parts[0]["act"][:100], parts[2]["act"][:100])
    assert np.array_equal(campaign.group_steps(SPEC, 1, 3)["wgt"], parts[1]["wgt"])


def test_a_part_alone_is_the_campaigns(tmp_path: Path) -> None:
    counts = campaign.replay(SPEC, "group", 0, 3)
    assert counts.steps == len(campaign.group_steps(SPEC, 0, 3)["first"])
    assert campaign.replay(SPEC, "pair", 0, 3).sums == 1 << 16


def test_a_row_replaces_the_one_before_and_others_stay(tmp_path: Path) -> None:
    evidence.store(evidence.row(SPEC, PARAMS, "netlist", {"cells": 1}, "x"), tmp_path)
    evidence.store(evidence.row(SPEC, PARAMS, "proof", {"property": "range"}, "x"), tmp_path)
    evidence.store(evidence.row(SPEC, PARAMS, "proof", {"property": "order"}, "x"), tmp_path)
    evidence.store(evidence.row(SPEC, PARAMS, "netlist", {"cells": 2}, "x"), tmp_path)
    found = [(row["kind"], row["figures"]) for row in evidence.load(tmp_path)]
    assert found == [("netlist", {"cells": 2}), ("proof", {"property": "order"}), ("proof", {"property": "range"})]
    assert [path.name for path in tmp_path.iterdir()] == ["int8-mac.json"]


def test_rows_of_other_verilog_are_stale(tmp_path: Path) -> None:
    row = evidence.row(SPEC, PARAMS, "netlist", {}, "the command")
    assert evidence.stale([row]) == []
    today = row["rtl_sha256"][:12]
    assert evidence.stale([{**row, "rtl_sha256": "0" * 64}]) == [
        f"int8-mac:lanes=4,pipeline=1 netlist: rtl_sha256 = 000000000000: must be {today} (run again: the command)"
    ]
    evidence.store({**row, "rtl_sha256": "0" * 64}, tmp_path)
    assert evidence.find(SPEC, PARAMS, "netlist", tmp_path) is None


def test_broken_evidence_is_named(tmp_path: Path) -> None:
    (tmp_path / "lut.json").write_text('{"rows": [{"pe": "lut"}]}')
    with pytest.raises(StoreError) as caught:
        evidence.load(tmp_path)
    assert str(caught.value) == (
        "evidence lut.json, row 0: must have exactly the keys "
        "pe, params, module, rtl_sha256, kind, figures, command, date"
    )
    (tmp_path / "lut.json").write_text("{")
    with pytest.raises(
        StoreError, match=r"^evidence lut\.json: cannot be read \(.*\); restore it from version control$"
    ):
        evidence.load(tmp_path)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^kind = 'guess': must be one of campaign, mutants, netlist, proof$"):
        evidence.row(SPEC, PARAMS, "guess", {}, "x")
