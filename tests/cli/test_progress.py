"""Progress: from when it is shown, what it says, and what an interrupted command says."""

from __future__ import annotations

import sys

import pytest
from bitwright.arch.machine import load
from bitwright.cli import main, output
from bitwright.sim import simulate


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress(after_s=60) as show:
        for done in range(4):
            show("operators", done, 3)
    assert capsys.readouterr().err == ""


def test_a_long_run_says_where_it_is_and_when_it_has_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 100.5, 101.5, 101.5, 102, 107, 107.1])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(times))
    with output.progress(after_s=1) as show:
        for done in (0, 1, 2, 3, 4):
            show("operators", done, 4)
    assert capsys.readouterr().err == "operators: 1 of 4\noperators: 3 of 4\noperators: 4 of 4\n"


def test_simulate_tells_of_every_operator_of_every_step() -> None:
    told: list[tuple[str, int, int]] = []
    simulate(load("int8-8x8"), "smollm2-135m", prompt_tokens=4, output_tokens=2, progress=lambda *now: told.append(now))
    total = told[0][2]
    assert told == [("operators", done, total) for done in range(total + 1)]
    assert total % 3 == 0  # prefill and two steps
    assert total > 3


@pytest.mark.parametrize(("word", "more"), [("simulate", ""), ("sweep", "; what was finished is kept")])
def test_an_interrupted_command_says_that_it_keeps_something_only_if_it_does(
    word: str, more: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise SystemExit(130)

    monkeypatch.setattr(main, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["bitwright", word])
    with pytest.raises(SystemExit):
        main.run()
    assert capsys.readouterr().err == f"bitwright: interrupted{more}\n"
