"""bitwright prove of a machine: its control is proved, and a broken one fails the right claim."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from bitwright.arch import machine
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.limits import limits
from bitwright.rtl import prove
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.top import Accelerator
from bitwright.rtl.formal import control_flow
from bitwright.rtl.formal.model import Setting

LIMITS = limits(machine.load("int8-4x4"))


@cache
def verilog() -> str:
    return memories.verilog(Accelerator(LIMITS), "accelerator")


def results(text: str, group: str, work: Path) -> dict[str, str]:
    setting = Setting("int8-4x4", "int8-4x4", work, timeout_s=300)
    proofs = control_flow.prove(text, "accelerator", LIMITS.port_bytes, setting, only=[group])
    return {proof.property: proof.result for proof in proofs}


def changed(module: str, pattern: str, replacement: str) -> str:
    """The accelerator's Verilog with the one place of a module that matches replaced."""
    found = re.search(
        rf"^module \\accelerator\.{re.escape(module)} \(.*?^endmodule", verilog(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"no module {module}"
    text, count = re.subn(pattern, replacement, found[0])
    assert count == 1, f"{pattern} matches {count} places"
    return verilog().replace(found[0], text)


def test_slots_are_kept_for_any_program_and_any_pace(tmp_path: Path) -> None:
    names = ("queue-counts", "last-is-used", "slots-kept", "slots-in-turn")
    assert results(verilog(), "slots", tmp_path) == dict.fromkeys(names, "proved")


@pytest.mark.parametrize(
    ("module", "pattern", "replacement", "claim"),
    [
        ("load_control.queue", r"assign w_rdy = level != 3'h4;", "assign w_rdy = 1'h1;", "queue-counts"),
        ("store_control", r"(assign link_out__give = [^;]*) & [^;]*;", r"\1;", "slots-kept"),
    ],
)
def test_broken_control_is_refuted(module: str, pattern: str, replacement: str, claim: str, tmp_path: Path) -> None:
    assert results(changed(module, pattern, replacement), "slots", tmp_path)[claim] in ("refuted", "not inductive")


def test_rows_of_evidence_are_for_pes() -> None:
    with pytest.raises(ConfigError) as caught:
        next(prove("int8-4x4", write=True))
    assert str(caught.value) == "write: int8-4x4 is a machine; docs/evidence has rows of PEs (leave it out)"
