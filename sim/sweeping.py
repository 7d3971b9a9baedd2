"""Run every point of a design space in a pool of processes, each result stored as soon as it is whole.

A sweep runs what its store lacks, so it goes on where Ctrl-C, kill -9 or a power cut stopped it. Everything that can be
refused (formats, clocks, memories, buffers) is refused before the first point runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.arch import costs, formats
from bitwright.arch import space as spaces
from bitwright.arch.errors import BitwrightError, ConfigError, ToolError
from bitwright.arch.space import Accuracy, Point, Space
from bitwright.sim.store import Store, content_hash
from bitwright.workloads import mapping, models, operators
from bitwright.workloads.policy import FormatPolicy

if TYPE_CHECKING:
    import pandas as pd

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
ACCURACY_KEYS = (
    "perplexity",
    "bits_per_byte",
    "bits_per_weight",
    "perplexity_predictions",
    "perplexity_window",
    "text_sha256",
    "weights_sha256",
)
PER_TENSOR_NOTE = (
    "one activation scale a tensor, the maximum of a whole window: what a machine with a scale fixed beforehand would "
    "suffer; its cycles and energy equal those with a scale a token"
)
LIBRARIES = ("numpy", "gguf", "tokenizers", "simpy")  # whose versions are part of a result's identity
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


@cache
def code_hash() -> str:
    """Hash of every source and data file that a result depends on (arch, workloads, sim)."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in ("arch", "workloads", "sim"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".yaml", ".json", ".txt", ".gz"):
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def format_hash(name: str) -> str:
    """Identity of a format that may be a package's own: its values and scalar members, and its class's source."""
    item = formats.get(name)
    members = {key: value for key, value in sorted(vars(item).items()) if isinstance(value, str | int | float | tuple)}
    values = item.values().tolist() if item.bits <= 8 else []
    digest = hashlib.sha256(repr((type(item).__qualname__, members, values)).encode())
    source = getattr(sys.modules[type(item).__module__], "__file__", None)
    with contextlib.suppress(OSError):
        digest.update(Path(source).read_bytes() if source else b"")
    return digest.hexdigest()[:16]


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
        accuracy_inputs = {
            "policy": policy.model_dump(mode="json"),
            "model": point.model,
            "weights": weights,
            "accuracy": point.accuracy.model_dump(mode="json"),
            "code": code_hash(),
            "formats": [format_hash(name) for name in (policy.weights, policy.head_format, policy.kv)],
            "libraries": {name: metadata.version(name) for name in LIBRARIES},
        }
        row_inputs = accuracy_inputs | {
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
    from bitwright.sim.inference import installed

    costs.load(point.machine.node).dram(point.machine.dram)
    check_clock(point.machine, installed(policy))
    shape = models.shape_of(point.model)
    work = point.workload
    for new_tokens, context in ((work.prompt_tokens, 0), (1, work.prompt_tokens + max(0, work.output_tokens - 1))):
        for gemm in operators.step(shape, policy, new_tokens, context, work.batch).gemms:
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
    before = {name: os.environ.get(name) for name in BLAS_VARIABLES}
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
    try:
        pool = ProcessPoolExecutor(
            min(workers, len(missing) + len(accuracies)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(),),
        )
        try:
            _collect(pool, missing, accuracies, store, progress)
        except BaseException:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
        pool.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
            raise ToolError(
                "a worker process was killed, probably because memory ran out; what was finished is kept; "
                "run the same command again with --workers 1"
            ) from error
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


def measure_accuracy(model: str, policy: FormatPolicy, accuracy: Accuracy) -> dict[str, Any]:
    """Perplexity of `model` under `policy`, as the accuracy keys of a row; None each where no weights are here."""
    if models.weights_sha256(model) is None:
        return dict.fromkeys(ACCURACY_KEYS) | {"notes": [f"no weights of {model} are here: perplexity is not measured"]}
    from bitwright.workloads.perplexity import perplexity

    measured = asdict(perplexity(model, policy, tokens=accuracy.tokens, window=accuracy.window))
    figures = {key: measured.get(key, measured.get(key.removeprefix("perplexity_"))) for key in ACCURACY_KEYS}
    size = f"{measured['predictions']} tokens in windows of {measured['window']}"
    notes = [f"perplexity is measured on {size} of the text '{measured['text']}'"]
    notes += measured["notes"] if policy.weights not in ("fp16", "bf16") else []
    notes += [PER_TENSOR_NOTE] if policy.acts == "int8_tensor" else []
    return figures | {"notes": notes}


def _start_worker(parent: int) -> None:
    """A worker leaves Ctrl-C to its parent and ends when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
