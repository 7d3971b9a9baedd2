"""`make campaign-proofs`: the proofs of a machine's control are about something.

What they speak of happens: a run reaches it under all their assumptions. And for each group a broken control, or a
program that is not valid in order, for which its claim is not proved.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import Op
from bitwright.rtl.formal import control_flow
from bitwright.rtl.formal.control_flow import Control
from bitwright.rtl.formal.control_parts import CLAIM
from test_control_flow import changed, results, verilog

_CYCLES = 26  # from reset; the longest way to a verdict


def goal(made: Control, group: str) -> str:
    """What a run must be able to reach in this group's harness."""
    kind, _, unit = group.partition("-")
    if kind in ("done", "deadlock"):
        code = 0 if kind == "done" else int(Fault.DEADLOCK)
        return f"{made.look('controller.run_state', 3)} == 3 && {made.look('controller.code', 4)} == {code}"
    return {
        "slots": lambda: made.unit(Op.LOAD, "start"),
        "fetch": lambda: made.fetch("state__pushes"),
        "order": lambda: "f_marked",
        "stays": lambda: f"{unit}_had",
        "oldest": lambda: f"marked && {made.unit(Op[unit.upper()], 'start')} && ahead == 0",
    }[kind]()


@pytest.mark.parametrize("group", ["slots", "fetch", "done", "deadlock", "order-load", "stays-load", "oldest-load"])
def test_what_is_proved_happens(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = control_flow._harness
    of = "ends" if group in ("done", "deadlock") else group

    def only_the_goal(name: str, port_bytes: int) -> Control:
        made = harness(name, port_bytes)
        made.lines = [line for line in made.lines if "assert" not in line]
        made.properties.clear()
        made.state(CLAIM, "never", f"!({goal(made, group)})")
        return made

    monkeypatch.setattr(control_flow, "_harness", only_the_goal)
    monkeypatch.setattr(control_flow, "_BOUNDED", _CYCLES)
    assert results(verilog(), of, tmp_path) == {"never": "refuted"}


@pytest.mark.parametrize(
    ("group", "module", "pattern", "replacement", "claim"),
    [
        ("fetch", "fetcher", r"= state__index \+ 1'h1;", "= state__index + 2'h2;", "each-once-in-order"),
        ("ends", "fetcher", r"assign state__stands = [^;]*;", "assign state__stands = 1'h1;", "judged-when-stuck"),
        ("order-store", "store_control.queue", r"storage\[w_port__addr\] <=", "storage[2'h0] <=",
         "queue-order"),
        ("stays-execute", "act_link", r"(assign consumer__can_take = )([^;]*);", r"\1(\2) & ~producer_holds;",
         "can-start-stays"),
    ],
)  # fmt: skip
def test_broken_control_is_not_proved(
    group: str, module: str, pattern: str, replacement: str, claim: str, tmp_path: Path
) -> None:
    assert results(changed(module, pattern, replacement), group, tmp_path)[claim] in ("refuted", "not inductive")


def test_a_program_that_is_not_valid_in_order_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = control_flow._harness

    def any_program(name: str, port_bytes: int) -> Control:
        made = harness(name, port_bytes)
        kept = [line for line in made.lines if "_there != 0)" not in line]
        assert len(kept) < len(made.lines), "the assumption that a program is valid in order"
        made.lines = kept
        return made

    monkeypatch.setattr(control_flow, "_harness", any_program)
    found = results(verilog(), "oldest-store", tmp_path)
    assert found["oldest-can-start"] != "proved"
