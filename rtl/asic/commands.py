"""What the table-writing commands share: where results and work go, and how errors end them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bitwright.arch import costs
from bitwright.arch.errors import BitwrightError, ConfigError
from bitwright.arch.workers import killed, worker_pool
from bitwright.rtl.bench.environment import cache_folder


def run(command: Callable[[], None]) -> None:
    """Run a command; a BitwrightError becomes one message on stderr and its exit code."""
    try:
        command()
    except BitwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def output_path(chosen: Path | None, default: str) -> Path:
    """Where a table goes: as chosen, else `default` in the folder that `bitwright.arch.costs` is read from.

    Raises ConfigError when no file can be made there, before any work is done.
    """
    path = chosen or Path(costs.__file__).parent / default
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"output = {path}: cannot write there: {error.strerror} (choose --output)") from None
    if path.is_dir():
        raise ConfigError(f"output = {path}: is a folder (choose a file with --output)")
    return path


def work_folder(name: str) -> Path:
    """`build/<name>` of a source checkout, else a folder in the user's cache."""
    return cache_folder().parent / name


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def in_parallel(
    make: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[tuple[Any, Any]]:
    """(first argument, result) of each call, as they come, at most `processes` at once, begun in the given order.

    After a call that raised none is begun any more; those that were come first, then the error. One process: here, in
    order.
    """
    if processes == 1:
        for each in arguments:
            yield each[0], make(*each)
        return
    failed: BaseException | None = None
    with worker_pool(processes) as pool:
        begun = {pool.submit(make, *each): each[0] for each in arguments}
        for done in as_completed(begun):
            if done.cancelled():
                continue
            if (error := done.exception()) is None:
                yield begun[done], done.result()
                continue
            failed = failed or error
            for other in begun:
                other.cancel()
    if isinstance(failed, BrokenProcessPool):
        raise killed("one processor (taskset --cpu-list 0)") from failed
    if failed is not None:
        raise failed
