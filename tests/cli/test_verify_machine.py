"""`bitwright verify MACHINE`: the accelerator's RTL against interpreter and simulators; how a difference is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bitwright.cli.main import app
from bitwright.sim.accelerator import gemm as gemms
from typer.testing import CliRunner

MACHINE = """name: small
pe: int8-mac
array: {rows: 2, cols: 3, dataflow: os}
buffers: {act_kib: 1, wgt_kib: 1, out_kib: 1}
formats: [int4]
"""


def verify(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["verify", *arguments])


def test_a_machine_is_verified_and_a_difference_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(MACHINE)
    result = verify(str(file), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["passed"], len(found["designs"]), len(found["designs"][0]["tests"])) == (True, 1, 3)

    honest = gemms.counters

    def off_by_one(*arguments: Any) -> Any:
        counted = honest(*arguments)
        return replace(counted, cycles=counted.cycles + 1)

    monkeypatch.setattr(gemms, "counters", off_by_one)
    result = verify(str(file), "--json")
    assert result.exit_code != 0
    found = json.loads(result.stdout)
    assert found["passed"] is False
    assert found["failures"][0].startswith("int4, gemm 1,25,6, seed 1: small's RTL counts Counters(cycles=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int8-4x4", "--simulator", "icarus"), "simulator = icarus: a machine's accelerator runs on verilator (leave"),
        (("int8-4x4", "--latency", "2"), "--latency = 2: not an option of a machine; leave it out; the command line"),
    ],
)
def test_options_of_pes_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = verify(*arguments)
    assert result.exit_code != 0
    assert message in str(result.exception)
