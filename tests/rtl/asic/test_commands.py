"""The table-writing commands: where results go, how errors end them, the pinned download."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bitwright.arch import costs
from bitwright.arch.errors import ConfigError, MismatchError, ToolError
from bitwright.rtl.asic import commands, sram_table


@pytest.mark.parametrize(
    ("module", "chosen", "file"),
    [("costs", "table.json", ""), ("stream_costs", "table.json", ""), ("sram_table", "", "sram.json")],
)
def test_an_unwritable_output_is_refused_before_any_work(module: str, chosen: str, file: str, tmp_path: Path) -> None:
    """Run from another folder: nothing is left there either. sram_table takes the folder of its two tables."""
    given = tmp_path / "missing" / chosen
    output = given / file
    command = [sys.executable, "-m", f"bitwright.rtl.asic.{module}", "--output", str(given)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: output = {output}: cannot write there: No such file or directory (choose --output)\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("error", "status"), [(ConfigError, 2), (ToolError, 3), (MismatchError, 1)])
def test_an_error_is_one_message_and_its_exit_code(
    error: type[Exception], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error("what went wrong")

    with pytest.raises(SystemExit) as caught:
        commands.run(fails)
    assert caught.value.code == status
    assert capsys.readouterr() == ("", "error: what went wrong\n")


def test_tables_go_where_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands.output_path(None, "nangate45.json")
    assert found.read_text() == (Path(costs.__file__).parent / "nangate45.json").read_text()
    assert commands.output_path(tmp_path / "x.json", "nangate45.json") == tmp_path / "x.json"
    assert commands.work_folder("costs").name == "costs"
    assert tmp_path not in commands.work_folder("costs").parents
    with pytest.raises(ConfigError) as caught:
        commands.output_path(tmp_path, "nangate45.json")
    assert str(caught.value) == f"output = {tmp_path}: is a folder (choose a file with --output)"


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"not it")
    with pytest.raises(ToolError) as caught:
        sram_table.build_cacti(tmp_path)
    assert str(caught.value) == (
        f"CACTI wheel {wheel}: sha256 is 06121725c433ccd0469b52730a723e66a9c1e31c67c42b1dba6b501f0bf94c9d, must be "
        f"{sram_table.WHEEL_SHA256} (delete it and try again)"
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_calls_at_once_give_what_calls_in_turn_do(processes: int) -> None:
    found = dict(commands.in_parallel(math.sqrt, [(4,), (9,), (16,)], processes))
    assert found == {4: 2.0, 9: 3.0, 16: 4.0}


def test_a_call_that_raises_ends_a_run_after_those_that_were_begun() -> None:
    found: list[tuple[float, float]] = []
    with pytest.raises(ValueError, match="math domain error"):
        found.extend(commands.in_parallel(math.sqrt, [(4,), (-1,), *[(9,)] * 20], 2))
    assert (4, 2.0) in found
    assert set(found) <= {(4, 2.0), (9, 3.0)}


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(ToolError, match=r"^a worker process was killed, .* with one processor \(taskset"):
        list(commands.in_parallel(os._exit, [(1,), (1,)], 2))
