"""A run of a program under limits, measured; and the peers' environments."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
POLL_S = 0.005


class Status(StrEnum):
    """How a run ended."""

    DONE = "done"
    CAPPED = "capped"  # at the limit of time or of memory
    NOT_STARTED = "not started"  # the estimate is far beyond the cap
    FAILED = "failed"
    MISSING = "missing"  # the peer is not there


@dataclass(frozen=True)
class Limits:
    """What a run may take: processor seconds, and GiB of address space."""

    processor_s: float
    memory_gib: float


@dataclass(frozen=True)
class Run:
    """One run: how it ended, what it answered, what it took. Times and memory are of its processes, start included.

    `peak_mib` of a program smaller than what launches it is the last seen, at most `POLL_S` before its end (None: none
    seen).
    """

    status: Status
    answer: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    wall_s: float | None = None
    processor_s: float | None = None
    peak_mib: float | None = None


class Runner:
    """Runs, each kept in a file of lines, so that a comparison that was stopped goes on; no file: nothing is kept.

    A run is known by its command, job, limits and the text of the driver beside this file.
    """

    def __init__(self, limits: Limits, kept: Path | None = None) -> None:
        self.limits = limits
        self.kept = kept
        self.known: dict[str, Run] = {}
        for line in kept.read_text().splitlines() if kept and kept.is_file() else ():
            entry = json.loads(line)
            self.known[entry["key"]] = Run(**entry["run"] | {"status": Status(entry["run"]["status"])})

    def __call__(self, command: list[str], job: dict[str, Any], *how: Any) -> Run:
        """As `measure`."""
        texts = [Path(part).read_text() for part in command if part.endswith(".py")]
        key = hashlib.sha256(json.dumps([command, job, asdict(self.limits), texts]).encode()).hexdigest()
        if key not in self.known:
            self.known[key] = measure(command, job, self.limits, *how)
            if self.kept:
                with self.kept.open("a") as file:
                    file.write(json.dumps({"key": key, "run": asdict(self.known[key])}) + "\n")
        return self.known[key]


def measure(
    command: list[str], job: dict[str, Any], limits: Limits, read: Callable[[Path, str], dict[str, Any]] | None = None,
    prepare: Callable[[dict[str, Any], Path], None] | None = None,
) -> Run:  # fmt: skip
    """Run `command` with the path of `job` as JSON at its end (without `prepare`) in a folder of its own.

    `prepare` writes its inputs instead; `read` makes the answer of the folder and what it printed (default: a JSON
    object, its last line). One thread a run: numpy's BLAS is told so.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if prepare is None:
            (folder / "job.json").write_text(json.dumps(job))
            command = [*command, str(folder / "job.json")]
        else:
            prepare(job, folder)
        code, took = _run(command, folder, limits)
        if code:
            return Run(*_failure(code, (folder / "stderr").read_text(errors="replace"), limits), **took)
        printed = (folder / "stdout").read_text(errors="replace")
        try:
            answer = read(folder, printed) if read else json.loads(printed.strip().splitlines()[-1])
        except (ValueError, IndexError, KeyError, OSError) as error:
            return Run(Status.FAILED, why=f"its output is not as expected: {error}", **took)
        return Run(Status.DONE, answer, **took)


def _run(command: list[str], folder: Path, limits: Limits) -> tuple[int, dict[str, Any]]:
    """Exit code and what it took; its streams go to files in `folder`."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "NUMBA")}
    launcher_kib, peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    began = time.perf_counter()
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=err, env=os.environ | threads, preexec_fn=lambda: _limit(limits)
        )
        try:
            while True:
                peak_kib = max(peak_kib, _most_resident_kib(process.pid))
                done, code, usage = os.wait4(process.pid, os.WNOHANG)
                if done:
                    break
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(code)
    if usage.ru_maxrss > launcher_kib:  # counted from the fork on, when it was still the launcher
        peak_kib = usage.ru_maxrss
    return process.returncode, {
        "wall_s": time.perf_counter() - began,
        "processor_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": peak_kib / 1024 if peak_kib else None,
    }


def _most_resident_kib(pid: int) -> int:
    """The most memory that a process had resident since it began its program; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _limit(limits: Limits) -> None:
    size, seconds = int(limits.memory_gib * 2**30), int(limits.processor_s)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


def _failure(code: int, errors: str, limits: Limits) -> tuple[Status, dict[str, Any], str]:
    """Status, no answer, and why, of an exit code other than 0."""
    last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "nothing on stderr")
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Status.CAPPED, {}, f"unfinished after {limits.processor_s:g} s of processor time"
    if "MemoryError" in last or "bad_alloc" in errors or "Unable to allocate" in last:
        return Status.CAPPED, {}, f"needs more than {limits.memory_gib:g} GiB"
    return Status.FAILED, {}, f"exit code {code}: {last[:160]}"


def environment(name: str, folder: Path) -> Path | Run:
    """The Python of a peer's own environment under `folder`, made by pip from `peers/<name>.txt` where it is not yet.

    A Run that says why where pip cannot make it.
    """
    pins = HERE / f"{name}.txt"
    python, done = folder / name / "bin/python", folder / name / "pins.txt"
    if done.is_file() and done.read_text() == pins.read_text():
        return python
    print(f"making {folder / name} from {pins.name}", file=sys.stderr, flush=True)
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(folder / name)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", str(pins)],
    )
    for step in steps:
        made = subprocess.run(step, capture_output=True, text=True, check=False)
        if made.returncode:
            last = (made.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            return Run(Status.MISSING, why=f"its environment could not be made: {last[:160]}")
    done.write_text(pins.read_text())
    return python
