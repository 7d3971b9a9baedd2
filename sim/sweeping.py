"""Run every point of a design space in a pool of processes, each result stored as soon as it is whole.

A sweep runs what its store lacks, so it goes on where Ctrl-C, kill -9 or a power cut stopped it. Everything that can be
refused (formats, clocks, memories, buffers) is refused before the first point runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.arch import costs
from bitwright.arch import space as spaces
from bitwright.arch.errors import BitwrightError, ConfigError
from bitwright.arch.space import Point, Space
from bitwright.arch.workers import killed, worker_pool
from bitwright.sim.accuracy import accuracy_identity, code_hash, measure_accuracy
from bitwright.sim.store import Store, content_hash
from bitwright.workloads import mapping, models, operators, steps
from bitwright.workloads.policy import FormatPolicy

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Planned:
    """A point with the keys of its row and of its perplexity."""

    point: Point
    key: str
    accuracy_key: str


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is: points in the space, rows stored, points that failed."""

    points: int
    done: int
    failed: int

    @property
    def missing(self) -> int:
        """Points still to run."""
        return self.points - self.done - self.failed


def plan(space: Space) -> list[Planned]:
    """All points of `space` with their keys; equal points stand once.

    Raises ConfigError for the first point that could not run: a format its PE refuses, an unknown memory, a clock above
    the PE's fmax, a buffer that cannot hold one tile.
    """
    weights = models.weights_sha256(space.model)
    if weights is not None:
        from bitwright.workloads.perplexity import check_size

        check_size(space.model, space.perplexity.tokens, space.perplexity.window)
    planned: dict[str, Planned] = {}
    for point in space.points():
        try:
            policy = FormatPolicy(**point.policy)
            check_point(point, policy)
        except ConfigError as error:
            raise ConfigError(f"{error}; in `designs`: pe {point.machine.pe}, formats {_written(point)}") from error
        accuracy_inputs = accuracy_identity(point.model, weights, policy, point.accuracy)
        row_inputs = accuracy_inputs | {
            "simpy": metadata.version("simpy"),
            "machine": point.machine.model_dump(mode="json"),
            "workload": point.workload.model_dump(mode="json"),
        }
        key = content_hash(row_inputs)
        planned[key] = Planned(point, key, content_hash(accuracy_inputs))
    return list(planned.values())


def _written(point: Point) -> str:
    """The point's formats as they stand in the space file."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in point.policy.items() if name != "pe") + "}"


def check_point(point: Point, policy: FormatPolicy) -> None:
    """Refuse a point that cannot run, before any work. Raises ConfigError."""
    from bitwright.sim.costs import check_clock
    from bitwright.sim.inference import check_capacity, installed, memory_of, peak_memory_bytes

    tables = costs.load(point.machine.node)
    if not tables.dram(point.machine.dram).has_energy:
        usable = ", ".join(name for name in costs.dram_names() if tables.dram(name).has_energy)
        raise ConfigError(
            f"dram = {point.machine.dram}: its energy is not known, and a sweep compares energy; use {usable}"
        )
    memory_of(point.machine)
    check_clock(point.machine, installed(policy))
    shape = models.shape_of(point.model)
    work = point.workload
    first = operators.work_of(shape, policy, steps.prefill(work.prompt_tokens, work.batch))
    context = work.prompt_tokens + work.output_tokens
    check_capacity(point.machine, peak_memory_bytes(shape, policy, first, context, work.batch), context, work.batch)
    last = work.prompt_tokens + max(0, work.output_tokens - 1)
    for step in (steps.prefill(work.prompt_tokens, work.batch), steps.decode(last, work.batch)):
        for gemm in operators.work_of(shape, policy, step).gemms:
            mapping.check_one_tile(point.machine, gemm)


def sweep(
    space: Space | Path | str,
    store: Store | Path | str,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run what `store` lacks of `space` and return all its rows as a table, in the order of the space.

    `workers` processes (default: the machine's cores), each with one BLAS thread. `progress(stage, done, total)` is
    called after every finished piece. A point that fails is stored as failed with its message and left out of the
    table. Raises ConfigError or StoreError before any work; KeyboardInterrupt leaves all finished rows stored.
    """
    import pandas as pd

    space = spaces.load(Path(space)) if isinstance(space, Path | str) else space
    planned = plan(space)
    store = Store(Path(store)) if isinstance(store, Path | str) else store
    store.write_plan({"space": space.model_dump(mode="json"), "keys": [item.key for item in planned]})
    missing = [item for item in planned if not store.has("rows", item.key) and not store.has("failed", item.key)]
    if missing:
        _run(missing, store, workers or os.cpu_count() or 1, progress or (lambda *_: None))
    rows = rows_of(store, [item.key for item in planned])
    return pd.DataFrame([row | {"space_name": space.name} for row in rows])


def status(store: Store, keys: list[str] | None = None) -> SweepStatus:
    """Count what `store` holds of the points with these keys, or of those last swept into it."""
    keys = store.plan()["keys"] if keys is None else keys
    done = sum(store.has("rows", key) for key in keys)
    failed = sum(store.has("failed", key) for key in keys)
    return SweepStatus(len(keys), done, failed)


def _run(missing: list[Planned], store: Store, workers: int, progress: Progress) -> None:
    accuracies = {item.accuracy_key: item.point for item in missing if not store.has("accuracy", item.accuracy_key)}
    with worker_pool(min(workers, len(missing) + len(accuracies))) as pool:
        _collect(pool, missing, accuracies, store, progress)


def _collect(
    pool: ProcessPoolExecutor,
    missing: list[Planned],
    accuracies: dict[str, Point],
    store: Store,
    progress: Progress,
) -> None:
    """Submit every piece of work, and write a row when both its halves are there."""
    futures: dict[Future[dict[str, Any]], tuple[str, Any]] = {}
    for key, point in accuracies.items():
        futures[pool.submit(run_accuracy, point)] = ("accuracy", key)
    for item in missing:
        futures[pool.submit(run_point, item.point)] = ("point", item)
    waiting: dict[str, list[tuple[Planned, dict[str, Any]]]] = {}
    errors: dict[str, str] = {}
    done, total = 0, len(futures)
    progress("points and perplexities", done, total)

    def finish(item: Planned, row: dict[str, Any]) -> None:
        accuracy = store.read("accuracy", item.accuracy_key)
        if accuracy is not None:
            store.write("rows", item.key, join(item, row, accuracy))

    for future in as_completed(futures):
        stage, subject = futures.pop(future)
        try:
            outcome = future.result()
        except BrokenProcessPool as error:
            raise killed("--workers 1") from error
        except Exception as error:
            errors[subject if stage == "accuracy" else subject.key] = _describe(error)
        else:
            if stage == "accuracy":
                store.write("accuracy", subject, outcome)
                for item, row in waiting.pop(subject, []):
                    finish(item, row)
            elif store.has("accuracy", subject.accuracy_key):
                finish(subject, outcome)
            else:
                waiting.setdefault(subject.accuracy_key, []).append((subject, outcome))
        done += 1
        progress("points and perplexities", done, total)
    for item in missing:
        message = errors.get(item.key) or errors.get(item.accuracy_key)
        if message is not None:
            store.write(
                "failed", item.key, {"key": item.key, "message": message, "point": item.point.model_dump(mode="json")}
            )


def _describe(error: Exception) -> str:
    """Our own message; of an unexpected error also its type and where it came from."""
    if isinstance(error, BitwrightError):
        return str(error)
    traceback = str(error.__cause__).splitlines()  # a pool puts the worker's traceback there, as text
    places = [line.strip() for line in traceback if line.lstrip().startswith('File "')]
    return " | ".join([f"{type(error).__name__}: {error}", *places[-1:]])


def join(item: Planned, row: dict[str, Any], accuracy: dict[str, Any]) -> dict[str, Any]:
    """A whole result row: key, figures of the machine, accuracy of its formats."""
    notes = [*row["notes"], *accuracy.get("notes", [])]
    hashes = row.get("hashes", {}) | {"code": code_hash()}
    figures = {name: value for name, value in accuracy.items() if name != "notes"}
    return row | figures | {"key": item.key, "notes": notes, "hashes": hashes}


def run_point(point: Point) -> dict[str, Any]:
    """Simulate one point (in a worker). Raises the BitwrightError of `simulate`."""
    from bitwright.sim.inference import simulate
    from bitwright.sim.row import result_row

    work = point.workload
    result = simulate(
        point.machine,
        point.model,
        policy=FormatPolicy(**point.policy),
        prompt_tokens=work.prompt_tokens,
        output_tokens=work.output_tokens,
        batch=work.batch,
    )
    return result_row(result, point.accuracy)


def run_accuracy(point: Point) -> dict[str, Any]:
    """Perplexity of one point's formats (in a worker), as the accuracy keys of a row."""
    return measure_accuracy(point.model, FormatPolicy(**point.policy), point.accuracy)


def retry(store: Store) -> int:
    """Forget the failed points of the last sweep, so that the next runs them again; gives how many."""
    failed = [key for key in store.plan()["keys"] if store.has("failed", key)]
    for key in failed:
        store.remove("failed", key)
    return len(failed)


def failures(store: Store) -> Iterator[str]:
    """One line a failed point of the last sweep: machine, formats, message."""
    for key in store.plan()["keys"]:
        entry = store.read("failed", key)
        if entry is not None:
            machine, policy = entry["point"]["machine"], entry["point"]["policy"]
            choices = [f"{name} {value}" for name, value in sorted(policy.items()) if name != "pe"]
            choices += [f"{machine['buffers']['wgt_kib']:g} KiB", machine["dram"]]
            yield f"{machine['name']} ({', '.join(choices)}): {entry['message']}"


def stored_rows(store: Store) -> list[dict[str, Any]]:
    """The rows of the points last swept into `store`, in the order of their space."""
    plan = store.plan()
    return [row | {"space_name": plan["space"]["name"]} for row in rows_of(store, plan["keys"])]


def rows_of(store: Store, keys: list[str]) -> list[dict[str, Any]]:
    """The rows with these keys that `store` holds, in this order."""
    rows = (store.read("rows", key) for key in keys)
    return [row for row in rows if row is not None]


def export(store: Store, output: Path) -> int:
    """Write the rows of the store's last space to FILE.csv or FILE.parquet; gives how many.

    Nested values (notes, hashes, versions) are written as JSON text. Raises ConfigError for another ending or an
    unwritable file.
    """
    import json

    import pandas as pd

    if output.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"output = {output}: must end in .csv or .parquet")
    rows = stored_rows(store)
    if not rows:
        raise ConfigError(f"{store.folder}: holds no results yet; run the sweep first")
    flat = [
        {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()}
        for row in rows
    ]
    table = pd.DataFrame(flat)
    try:
        if output.suffix == ".csv":
            table.to_csv(output, index=False)
        else:
            table.to_parquet(output, index=False)
    except OSError as error:
        raise ConfigError(
            f"output = {output}: cannot be written ({error.strerror or error}); choose another path"
        ) from error
    return len(rows)
