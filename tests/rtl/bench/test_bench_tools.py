"""Tools of the benches that fail silently or whose builds go stale: `lint`, and the key of a cocotb build."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from bitwright.arch.errors import ToolError
from bitwright.rtl.bench import cocotb_runner, verilator


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("cannot open shared object file", "verilator --lint-only of top: status 127: cannot open shared object file"),
        ("", "verilator --lint-only of top: status 127: no message"),
    ],
)
def test_a_linter_that_dies_is_no_clean_design(output: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    died = subprocess.CompletedProcess([], 127, stdout="", stderr=output)
    monkeypatch.setattr(verilator.subprocess, "run", lambda *args, **kwargs: died)
    with pytest.raises(ToolError) as caught:
        verilator.lint("module top; endmodule", "top")
    assert str(caught.value) == message


def test_complaints_of_the_linter_are_lines_not_errors() -> None:
    assert verilator.lint("module top(output wire a);\n  assign a = 2'd0;\nendmodule\n", "top")[0].startswith(
        "%Warning"
    )
    assert verilator.lint("module top(input wire a);\n  assign b;\nendmodule\n", "top")[0].startswith("%Error")
    assert verilator.lint("module top(input wire a, output wire b);\n  assign b = a;\nendmodule\n", "top") == []


def test_a_cocotb_build_is_named_by_all_that_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "driver.cpp"
    driver.write_text("int main() {}")
    changes = {
        "_driver": lambda: driver,
        "_libraries": lambda: ["-Lelsewhere"],
        "_FLAGS": ("-DOTHER",),
        "_OPTIMISE": "-O3",
        "_VERILATE": ("--other",),
        "_RUNTIME": ("verilated",),
    }
    keys = [cocotb_runner._key("module top; endmodule", "top")]
    assert cocotb_runner._key("module top; endmodule", "top") == keys[0]
    keys.append(cocotb_runner._key("module top(input a); endmodule", "top"))
    for name, value in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(cocotb_runner, name, value)
            keys.append(cocotb_runner._key("module top; endmodule", "top"))
    with monkeypatch.context() as patch:
        patch.setattr(verilator, "_CXX", ("-O0",))
        keys.append(cocotb_runner._key("module top; endmodule", "top"))
    assert len(set(keys)) == len(keys)
