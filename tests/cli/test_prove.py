"""bitwright prove: what has no proof is told apart from what was tried and is none."""

from __future__ import annotations

import pytest
from bitwright import rtl
from bitwright.cli.main import app
from bitwright.rtl.formal.model import Result
from typer.testing import CliRunner

PROVED = Result("lut", "default", "cut-range", "induction", 1, "proved", 0.2)
MISSING = Result("lut", "default", "exact-acc", "shown by a test alone", 0, "not proved", 0.0)
LATE = Result("lut", "default", "cut-range", "bounded", 3, "timed out", 120.0)


@pytest.mark.parametrize(
    ("last", "line", "code"),
    [
        (MISSING, "default: not proved: exact-acc (shown by a test alone)", 0),
        (LATE, "default: cut-range: timed out (bounded, depth 3, 120.0 s)", 1),
    ],
)
def test_only_a_proof_that_was_tried_can_fail(
    last: Result, line: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtl, "prove", lambda *_, **__: iter([PROVED, last]))
    ran = CliRunner().invoke(app, ["prove", "lut"])
    assert ran.stdout.splitlines()[1:] == [line, "1 of 2 properties proved"]
    assert ran.exit_code == code
