"""The result store: a folder of small files, one a result, each written whole or not at all.

    STORE/sweep.json            the space last swept into this store and the keys of its points, in order
    STORE/rows/<key>.json       one result row
    STORE/accuracy/<key>.json   one perplexity, shared by all points with its formats
    STORE/failed/<key>.json     the message of a point that could not be run

A file is written under a temporary name, flushed to disk, then renamed: kill -9 leaves old or new, never half. Two
sweeps may share a store: a key is the content hash of a result's inputs, so both would write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from bitwright.arch.errors import StoreError

KINDS = ("rows", "accuracy", "failed")


def content_hash(data: Any) -> str:
    """First 16 hex digits of the sha256 of `data` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """A result store in `folder`, made if missing.

    Raises StoreError when the folder cannot be made or written, or is a file.
    """

    def __init__(self, folder: Path, create: bool = True) -> None:
        self.folder = folder
        if not create:
            if not (folder / "rows").is_dir():
                raise StoreError(f"store = {folder}: is not a result store; run `bitwright sweep` into it first")
            return
        try:
            for kind in KINDS:
                (folder / kind).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StoreError(
                f"store = {folder}: cannot be written ({error.strerror}); choose a folder that you may write"
            ) from error

    def path(self, kind: str, key: str) -> Path:
        """Where the entry `key` of `kind` lies."""
        return self.folder / kind / f"{key}.json"

    def has(self, kind: str, key: str) -> bool:
        """Whether the entry is there and whole."""
        return self.read(kind, key) is not None

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """One entry, or None when it is missing or not ours (then it is run again)."""
        try:
            data = json.loads(self.path(kind, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def write(self, kind: str, key: str, data: dict[str, Any]) -> None:
        """Write one entry whole. Raises StoreError when the disk does not take it; nothing stored is lost."""
        self.write_file(self.path(kind, key), json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n")

    def write_file(self, path: Path, text: str) -> None:
        """Write `text` to `path` whole or not at all."""
        temporary = path.parent / f".new-{uuid.uuid4().hex}"
        try:
            with temporary.open("x", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StoreError(f"{path}: cannot be written ({error.strerror}); what was stored before is kept") from error

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Remember which points were last asked for: `space` (plain data) and `keys`."""
        self.write_file(self.folder / "sweep.json", json.dumps(plan, sort_keys=True) + "\n")

    def plan(self) -> dict[str, Any]:
        """What `write_plan` wrote. Raises StoreError when nothing was swept into this store."""
        try:
            plan: dict[str, Any] = json.loads((self.folder / "sweep.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            path = self.folder / "sweep.json"
            raise StoreError(
                f"{path}: missing or broken; run `bitwright sweep SPACE.yaml --store {self.folder}`"
            ) from error
        return plan

    def remove(self, kind: str, key: str) -> None:
        """Forget one entry."""
        self.path(kind, key).unlink(missing_ok=True)
