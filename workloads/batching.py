"""Continuous batching: requests come, run together for a while, and leave.

The scheduler decides before every step what it holds; how long a step takes is the caller's to say, so that the engine
that times steps also moves the clock. First come, first served: a request enters when there is room, and stays.
"""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitwright.arch.errors import ConfigError, shown
from bitwright.workloads.steps import Advance, Step, check_whole, prompt_chunk, step_of

COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Request:
    """One prompt and how many tokens its answer has; raises ConfigError for negative, infinite or NaN values."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if type(self.arrival_s) not in (int, float) or not 0 <= self.arrival_s < math.inf:
            raise ConfigError(f"arrival_s = {shown(self.arrival_s)}: must be a number of at least 0; the workload")
        check_whole("prompt_tokens", self.prompt_tokens, 1)
        check_whole("output_tokens", self.output_tokens, 0)


@dataclass(frozen=True)
class Limits:
    """What a step may hold.

    Fields
        sequences : int   At most so many at once.
        step_tokens : int | None   At most so many new tokens a step: decoding ones first, then pieces of prompts in
            the order of arrival. None: prompts go through whole.
        cached_tokens : int | None   Room of the KV cache, in tokens. A request enters when its whole length fits.
    """

    sequences: int
    step_tokens: int | None = None
    cached_tokens: int | None = None

    def __post_init__(self) -> None:
        check_whole("sequences", self.sequences, 1)
        for name in ("step_tokens", "cached_tokens"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        if self.step_tokens is not None and self.step_tokens < self.sequences:
            raise ConfigError(
                f"step_tokens = {self.step_tokens}: must be at least sequences = {self.sequences}, which all decode "
                "one token a step; the workload"
            )


@dataclass(frozen=True)
class Served:
    """When a request's first token was there (at the end of the step with its prompt's last piece), and its last."""

    request: Request
    first_s: float
    done_s: float


@dataclass
class _Running:
    request: Request
    done: int = 0  # tokens in the cache
    first_s: float = math.nan

    @property
    def left(self) -> int:
        return self.request.prompt_tokens + self.request.output_tokens - self.done

    def next(self, most: int) -> Advance:
        if self.done < self.request.prompt_tokens:
            return prompt_chunk(self.done, self.request.prompt_tokens, most)
        return Advance(1, self.done)


def continuous(
    requests: Iterable[Request],
    limits: Limits,
    seconds_of: Callable[[Step], float],
    served: list[Served] | None = None,
) -> Iterator[tuple[float, Step]]:
    """(start in seconds, step) until every request is done; `seconds_of(step)` says how long each takes.

    To `served`, if given, every request is added as it is done.

    A request with o output tokens has o decode steps after its prompt, the first at context prompt_tokens, as in
    `steps.static`. Where nothing runs the clock jumps to the next arrival.
    Raises ConfigError for no requests, one that the cache cannot hold, or a step that takes no finite time.
    Source: Orca, Yu et al., OSDI 2022 (iterations as the unit of scheduling); Sarathi-Serve, OSDI 2024, algorithm 3
    (decodes first, prompts fill what is left).
    """
    waiting = deque(sorted(requests, key=lambda request: request.arrival_s))
    if not waiting:
        raise ConfigError("requests = (): must be at least one; the workload")
    room = math.inf if limits.cached_tokens is None else limits.cached_tokens
    for request in waiting:
        if request.prompt_tokens + request.output_tokens > room:
            raise ConfigError(
                f"cached_tokens = {limits.cached_tokens}: a request of {request.prompt_tokens} + "
                f"{request.output_tokens} tokens can never enter; the workload"
            )
    now = 0.0
    running: list[_Running] = []
    while waiting or running:
        if not running:
            now = max(now, waiting[0].arrival_s)
        taken = sum(item.done + item.left for item in running)
        while waiting and waiting[0].arrival_s <= now and len(running) < limits.sequences:
            size = waiting[0].prompt_tokens + waiting[0].output_tokens
            if taken + size > room:
                break
            taken += size
            running.append(_Running(waiting.popleft()))
        step = _schedule(running, limits.step_tokens)
        seconds = seconds_of(step)
        if not 0 <= seconds < math.inf:
            raise ConfigError(f"seconds_of(step) = {seconds}: must be a number of at least 0")
        yield now, step
        now += seconds
        for item in running:
            if math.isnan(item.first_s) and item.done >= item.request.prompt_tokens:
                item.first_s = now
            if not item.left and served is not None:
                served.append(Served(item.request, item.first_s, now))
        running = [item for item in running if item.left]


def _schedule(running: Sequence[_Running], step_tokens: int | None) -> Step:
    """The next step; moves the sequences that it holds on."""
    begun = sorted(running, key=lambda item: item.done < item.request.prompt_tokens)  # stable: decoding ones first
    left = math.inf if step_tokens is None else step_tokens
    advances = []
    for item in begun:
        if left < 1:
            break
        advance = item.next(item.left if left == math.inf else int(left))
        item.done += advance.new_tokens
        left -= advance.new_tokens
        advances.append(advance)
    return step_of(advances)


def read_requests(path: Path) -> tuple[Request, ...]:
    """Requests of a CSV file with the columns arrival_s, prompt_tokens, output_tokens, in any order, others ignored.

    Raises ConfigError, naming the line, for a missing file or column, no rows, or an impossible value.
    """
    found = []
    for line, row in table_rows(path, COLUMNS):
        try:
            arrival = float(row["arrival_s"])
        except ValueError:
            raise ConfigError(f"{path}, line {line}: arrival_s = {shown(row['arrival_s'])}: must be a number") from None
        sizes = [whole_cell(path, line, row, name) for name in COLUMNS[1:]]
        try:
            found.append(Request(arrival, *sizes))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {line}: {str(error).removesuffix('; the workload')}") from None
    return tuple(found)


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a CSV file with a header. Raises ConfigError as `read_requests`."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if path.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size} bytes: must be at most {_MOST_BYTES}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: must be UTF-8 text") from None
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    try:
        given = reader.fieldnames or ()
        missing = [name for name in columns if name not in given]
        if missing:
            raise ConfigError(
                f"{path}: column {missing[0]!r} is missing; its first line must name {', '.join(columns)}"
            )
        empty = True
        for row in reader:
            empty = False
            yield reader.line_num, {name: (row[name] or "").strip() for name in given if name}
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}: not CSV") from None
    if empty:
        raise ConfigError(f"{path}: no rows below the header; must have at least one")


def whole_cell(path: Path, line: int, row: dict[str, str], name: str) -> int:
    """Cell `name` as a whole number. Raises ConfigError naming the line."""
    try:
        return int(row[name])
    except ValueError:
        raise ConfigError(f"{path}, line {line}: {name} = {shown(row[name])}: must be a whole number") from None
