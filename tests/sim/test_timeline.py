"""Timelines: the same cycles as the row, intervals that do not overlap within a unit, events that Perfetto reads."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path

import pytest
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.reports.timeline import trace_events, write_timeline
from bitwright.sim import simulate
from bitwright.sim.inference import policy_for
from bitwright.sim.timeline import Operator, timeline

MACHINE = machines.load("int8-8x8")


@pytest.fixture(scope="module")
def run() -> list[Operator]:
    sizes = {"prompt_tokens": 4, "output_tokens": 1, "batch": 2}
    return timeline(MACHINE, simulate(MACHINE, "smollm2-135m", **sizes).shape, policy_for("int8-mac"), **sizes)


def test_operators_times_their_counts_are_the_run(run: list[Operator]) -> None:
    result = simulate(MACHINE, "smollm2-135m", prompt_tokens=4, output_tokens=1, batch=2)
    cycles: dict[str, int] = defaultdict(int)
    for operator in run:
        cycles[operator.phase] += operator.count * (operator.end_cycle - operator.start_cycle)
    assert cycles == {"prefill": result.prefill.cycles, "decode": result.decode.cycles}
    assert [one.end_cycle for one in run[:-1]] == [one.start_cycle for one in run[1:]]


def test_the_channel_moves_one_thing_at_a_time_and_all_bytes(run: list[Operator]) -> None:
    result = simulate(MACHINE, "smollm2-135m", prompt_tokens=4, output_tokens=1, batch=2)
    moved = 0
    for operator in run:
        transfers = [item for item in operator.intervals if item.unit == "dram"]
        moved += operator.count * sum(item.size_bytes for item in transfers)
        assert all(first.end_cycle <= then.start_cycle for first, then in itertools.pairwise(transfers))
        waits = [item for item in operator.intervals if item.unit == "array waits"]
        assert all(first.end_cycle <= then.start_cycle for first, then in itertools.pairwise(waits))
        assert all(operator.start_cycle <= item.start_cycle < item.end_cycle <= operator.end_cycle
                   for item in operator.intervals)  # fmt: skip
    assert moved == result.prefill.dram_bytes + result.decode.dram_bytes


def test_events_are_those_of_the_timeline_in_microseconds(run: list[Operator], tmp_path: Path) -> None:
    out = write_timeline(run, 250.0, tmp_path / "run.json")
    events = json.loads(out.read_text())["traceEvents"]
    assert events == list(trace_events(run, 250.0))
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    complete = [event for event in events if event["ph"] == "X"]
    assert {names[event["tid"]] for event in complete} == set(names.values())
    assert max(event["ts"] + event["dur"] for event in complete) == run[-1].end_cycle / 250
    levels = [event for event in events if event["ph"] == "C"]
    for name in ("DRAM bytes a cycle", "array busy"):
        times = [event["ts"] for event in levels if event["name"] == name]
        assert times == sorted(times)
    area = moved = 0.0
    channel = [event for event in levels if event["name"] == "DRAM bytes a cycle"]
    for event, then in itertools.pairwise(channel):
        area += event["args"]["value"] * round((then["ts"] - event["ts"]) * 250)
    moved = sum(event["args"]["bytes"] for event in complete if names[event["tid"]] == "dram")
    assert area == pytest.approx(moved)


def test_unwritable_file_is_refused(run: list[Operator], tmp_path: Path) -> None:
    out = tmp_path / "none" / "run.json"
    with pytest.raises(ConfigError) as caught:
        write_timeline(run, 250.0, out)
    assert str(caught.value) == (
        f"timeline = {out}: must be a writable file in an existing folder (No such file or directory)"
    )
