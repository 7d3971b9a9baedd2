"""How commands print: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Progress = Callable[[str, int, int], None]


def print_json(data: Any) -> None:
    """`data` as JSON with sorted keys."""
    print(json.dumps(data, indent=1, sort_keys=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain aligned table; empty cells for None."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(columns), *texts]) for index in range(len(columns))]
    for row in [list(columns), *texts]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def refuse_options(of: str, given: Mapping[str, Any]) -> None:
    """ConfigError for the first of the options that was given (is not None): `of` does not take it."""
    from bitwright.arch.errors import ConfigError

    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} = {value}: not an option of {of}; leave it out; the command line")


def check_outputs(**paths: Path | None) -> None:
    """ConfigError for the first of these options' files that cannot be written, before any work."""
    for name, path in paths.items():
        if path is None:
            continue
        from tempfile import TemporaryFile

        from bitwright.arch.errors import ConfigError

        reason = "Is a directory" if path.is_dir() else None
        try:
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            raise ConfigError(
                f"--{name} = {path}: must be a writable file in an existing folder ({reason}); the command line"
            )


@contextmanager
def progress(after_s: float = 0) -> Iterator[Progress]:
    """Progress on stderr: a bar on a terminal; else a line when a stage begins, every five seconds, and at its end.

    after_s : what is told before so many seconds is not shown: a short run says nothing.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        shown: Progress | None = None

        def show(stage: str, done: int, total: int) -> None:
            nonlocal shown
            if shown is None:
                if time.monotonic() - began < after_s:
                    return
                shown = stack.enter_context(_bar()) if sys.stderr.isatty() else _lines()
            shown(stage, done, total)

        yield show


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def _lines() -> Progress:
    last, begun = 0.0, ""

    def line(stage: str, done: int, total: int) -> None:
        nonlocal last, begun
        now = time.monotonic()
        if done == total or stage != begun or now - last >= 5:
            last, begun = now, stage
            print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)

    return line
