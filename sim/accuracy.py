"""Accuracy as part of a result: what it depends on, and many format policies of one model side by side."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import BitwrightError, ConfigError, FormatError
from bitwright.arch.space import Accuracy
from bitwright.arch.workers import killed, worker_pool
from bitwright.sim.store import Store, content_hash
from bitwright.workloads import models
from bitwright.workloads.policy import FormatPolicy

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
LIBRARIES = ("numpy", "gguf", "ml_dtypes", "tokenizers")  # whose versions are part of a perplexity's identity


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
    """Identity of a format that may be a package's or a file's own: what it does to a probe, its scalars, its source.

    The probe is a fixed matrix: codes, metadata and decoded values of a format that can encode it are hashed.
    """
    item = formats.get(name)
    lazy = {
        key
        for parent in type(item).__mro__
        for key, value in vars(parent).items()
        if isinstance(value, cached_property)
    }
    members = {key: value for key, value in sorted(vars(item).items()) if key not in lazy and _is_plain(value)}
    digest = hashlib.sha256(repr((type(item).__qualname__, members)).encode())
    probe = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    with contextlib.suppress(FormatError):  # read only, or without a sign
        encoded = item.encode(probe)
        for array in (encoded.codes, encoded.scales, encoded.zeros, encoded.selectors, item.decode(encoded)):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    sources = [getattr(sys.modules[type(item).__module__], "__file__", None)]
    sources += [name.rpartition(":")[0]] if ".py:" in name else []
    for source in sources:
        with contextlib.suppress(OSError):
            digest.update(Path(source).read_bytes() if source else b"")
    return digest.hexdigest()[:16]


def accuracy_identity(model: str, weights: str | None, policy: FormatPolicy, accuracy: Accuracy) -> dict[str, Any]:
    """Everything that a perplexity depends on, as plain data: its content hash is the result's key."""
    return {
        "policy": policy.model_dump(mode="json"),
        "model": model,
        "weights": weights,
        "accuracy": accuracy.model_dump(mode="json"),
        "code": code_hash(),
        "formats": policy_format_hashes(policy),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }


def _is_plain(value: object) -> bool:
    """Whether a value's text says everything about it: a scalar, or a tuple of such values."""
    return isinstance(value, str | int | float) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def policy_format_hashes(policy: FormatPolicy) -> list[str]:
    """Identities of the formats that a policy names."""
    names = (policy.weights, policy.head_format, policy.kv, policy.acts)
    return [format_hash(name) for name in names if _is_format(name)]


def _is_format(name: str) -> bool:
    """Whether a policy's field names a format (and not "stored", "int8_tensor" or the like)."""
    with contextlib.suppress(FormatError):
        formats.get(name)
        return True
    return False


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


def compare(
    model: str,
    policies: Sequence[FormatPolicy],
    accuracy: Accuracy,
    *,
    text: str = "jargon",
    store: Store | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """One row of `quantizing.quantize` a policy, in order, computed by `workers` processes (None: one a core).

    A policy that cannot be measured has a row of its fields, `describe` and `error` only. Rows that `store` holds are
    read, the others are stored as soon as they are there, so that a comparison that was stopped goes on where it was.
    Raises what loading the model and the text raises, and ConfigError for impossible sizes.
    """
    from bitwright.workloads import checkpoint, texts
    from bitwright.workloads.perplexity import check_size

    weights = checkpoint.load(model).sha256
    passage = texts.load(text)
    check_size(model, accuracy.tokens, accuracy.window, text)  # of policies, each in its own row
    identities = [
        accuracy_identity(model, weights, policy, accuracy) | {"kind": "quantize", "text": passage.sha256}
        for policy in policies
    ]
    keys = [content_hash(identity) for identity in identities]
    rows = {key: row for key in keys if store is not None and (row := store.read("accuracy", key)) is not None}
    missing = {key: index for index, key in enumerate(keys) if key not in rows}
    report = progress or (lambda *_: None)
    report("policies", len(rows), len(set(keys)))
    if missing:
        with worker_pool(min(workers or os.cpu_count() or 1, len(missing))) as pool:
            jobs = {pool.submit(_row, model, policies[index], accuracy, text): key for key, index in missing.items()}
            for job in as_completed(jobs):
                key = jobs[job]
                policy = policies[missing[key]]
                try:
                    row, hashes = job.result()
                except BrokenProcessPool as error:
                    raise killed("--workers 1") from error
                except BitwrightError as error:
                    row, hashes = {**policy.model_dump(mode="json"), "describe": policy.describe()}, None
                    row["error"] = str(error)
                if hashes is not None and hashes != identities[missing[key]]["formats"]:
                    raise ConfigError(
                        f"{policy.describe()}: the format's file was changed during the run; run it again"
                    )
                rows[key] = row
                if store is not None and "error" not in row:
                    store.write("accuracy", key, row)
                report("policies", len(rows), len(set(keys)))
    return [rows[key] for key in keys]


def _row(model: str, policy: FormatPolicy, accuracy: Accuracy, text: str) -> tuple[dict[str, Any], list[str]]:
    """The row of one policy (in a worker), and the identities of its formats as the worker has them."""
    from bitwright.workloads.quantizing import quantize

    row = quantize(model, policy, tokens=accuracy.tokens, window=accuracy.window, text=text)
    return row, policy_format_hashes(policy)
