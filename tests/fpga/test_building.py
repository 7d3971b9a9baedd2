"""One small bitstream from the command line, twice the same bytes; refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from bitwright.arch import machine
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.cli.main import app
from bitwright.fpga import boards, building
from typer.testing import CliRunner

ARGUMENTS = ["--board", "tang-nano-9k", "--machine", "int8-1x1", "--array", "--json"]


def run(folder: Path, command: str = "build") -> dict[str, object]:
    result = CliRunner().invoke(app, ["fpga", command, *ARGUMENTS, "-o", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    row: dict[str, object] = json.loads(result.stdout)
    return row


def test_a_bitstream_meets_its_clock_is_kept_and_is_the_same_again(tmp_path: Path) -> None:
    first = run(tmp_path / "one")
    content = Path(str(first["bitstream"])).read_bytes()
    assert hashlib.sha256(content).hexdigest() == first["bitstream_sha256"]
    assert set(content) == set(b"01\n")
    assert len(content) == first["bitstream_bytes"] > 1_000_000
    assert float(str(first["fmax_mhz"])) > first["clock_mhz"] == 27.0
    assert first["utilisation"]["MULT9X9"]["used"] == 1  # type: ignore[index]
    before = Path(str(first["bitstream"])).stat().st_mtime_ns
    assert run(tmp_path / "one", "report") == first
    assert Path(str(first["bitstream"])).stat().st_mtime_ns == before  # not built again
    second = run(tmp_path / "two")
    assert second["bitstream_sha256"] == first["bitstream_sha256"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [Path(str(first["bitstream"])).parent.name]


def test_a_design_that_exceeds_the_part_is_refused_with_what_exceeds(tmp_path: Path) -> None:
    cells = {str(n): {"type": "LUT4"} for n in range(8641)} | {"d": {"type": "DFFRE"}, "r": {"type": "SDPX9B"}}
    netlist = tmp_path / "design.json"
    netlist.write_text(json.dumps({"modules": {"board": {"cells": cells}}}))
    loaded = machine.load("int8-8x8")
    with pytest.raises(ConfigError) as raised:
        building._fits(netlist, loaded, boards.get("tang-nano-9k"))
    assert str(raised.value) == (
        "machine int8-8x8 on tang-nano-9k: needs 8641 LUT4 of 8640; take a larger board, a smaller array, "
        "port.bytes: 8 and smaller buffers, or the array alone (--array)"
    )
    building._fits(netlist, loaded, boards.get("tang-nano-20k"))


def test_a_missing_tool_says_how_to_install_it() -> None:
    with pytest.raises(ToolError) as raised:
        building._tool("yowasp-none", "nextpnr-none", "yowasp-nextpnr-none")
    assert str(raised.value) == (
        "nextpnr-none: not found; install it (python -m pip install yowasp-nextpnr-none, or bitwright[fpga])"
    )
    assert raised.value.exit_code == 3


def test_a_missing_bitstream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        building.program(tmp_path / "none.fs", boards.get("tang-nano-9k"))
    assert str(raised.value) == (f"bitstream = {tmp_path / 'none.fs'}: no such file; make it with bitwright fpga build")
