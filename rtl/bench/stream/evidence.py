"""What has been checked of each streaming PE, as rows of JSON files that campaigns write and docs print.

One file a PE, docs/evidence/<pe>.json: {"rows": [...]}. A row holds
    pe, params, module       Which hardware; params are the spec's fields that are not default.
    rtl_sha256               Of the Verilog that was checked; a row whose hash is not today's is stale.
    kind                     campaign, mutants, netlist or proof.
    figures                  What was counted; their names are those of the command that wrote them.
    command, date            How to run it again; the day (UTC) of the result.
A row replaces the one with the same pe, params, kind and `figures["property"]` (of proofs).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, StoreError
from bitwright.arch.pe import PESpec
from bitwright.rtl.asic.synthesis import sha256_text
from bitwright.rtl.pe import streaming

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "evidence"
KINDS = ("campaign", "mutants", "netlist", "proof")
_KEYS = ("pe", "params", "module", "rtl_sha256", "kind", "figures", "command", "date")

Row = dict[str, Any]


def shown(name: str, params: Mapping[str, Any]) -> str:
    """A PE with parameters as the command line takes it: `lut:m=1,precompute=true`."""
    values = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in params.items()]
    return name + (":" + ",".join(values) if values else "")


def spec_of(name: str, params: Mapping[str, Any]) -> PESpec:
    """The spec of a PE as it is generated: behind a stream of steps where it has one."""
    return pe.stream(name, **params) if name in pe.stream_names() else pe.get(name, **params)


def rtl_sha256(spec: PESpec) -> str:
    """The identity of the PE's Verilog of today."""
    return sha256_text(streaming.verilog(spec))


def row(spec: PESpec, params: Mapping[str, Any], kind: str, figures: Mapping[str, Any], command: str) -> Row:
    """A row of today. Raises ConfigError for a kind that does not exist."""
    if kind not in KINDS:
        raise ConfigError(f"kind = {kind!r}: must be one of {', '.join(KINDS)}")
    values = (spec.name, dict(params), spec.module_stem, rtl_sha256(spec), kind, dict(figures), command)
    return dict(zip(_KEYS, (*values, datetime.now(UTC).date().isoformat()), strict=True))


def key(found: Row) -> tuple[str, ...]:
    """What makes two rows the same check."""
    params = json.dumps(found["params"], sort_keys=True)
    return found["pe"], params, found["kind"], str(found["figures"].get("property", ""))


def load(folder: Path | None = None) -> list[Row]:
    """All rows, by PE. Raises StoreError for a file that is not rows as above."""
    return [found for path in sorted((folder or FOLDER).glob("*.json")) for found in _read(path)]


def _read(path: Path) -> list[Row]:
    try:
        rows = json.loads(path.read_text())["rows"]
        broken = next((number for number, found in enumerate(rows) if set(found) != set(_KEYS)), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"evidence {path.name}: cannot be read ({error}); restore it from version control") from None
    if broken is not None:
        raise StoreError(f"evidence {path.name}, row {broken}: must have exactly the keys {', '.join(_KEYS)}")
    return list(rows)


def store(found: Row, folder: Path | None = None) -> None:
    """Put a row in, in place of the one with the same key; the file is replaced whole, under a lock."""
    _change(found["pe"], folder or FOLDER, lambda rows: {**rows, key(found): found})


def keep(spec: PESpec, params: Mapping[str, Any], properties: Iterable[str], folder: Path | None = None) -> None:
    """Take out the proofs of a PE with these parameters whose property is none of those given, all that there are."""
    group, wanted = (spec.name, json.dumps(dict(params), sort_keys=True), "proof"), set(properties)

    def rest(rows: dict[tuple[str, ...], Row]) -> dict[tuple[str, ...], Row]:
        return {name: each for name, each in rows.items() if name[:3] != group or name[3] in wanted}

    _change(spec.name, folder or FOLDER, rest)


def _change(
    pe_name: str, folder: Path, change: Callable[[dict[tuple[str, ...], Row]], dict[tuple[str, ...], Row]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pe_name}.json"
    # The lock is on the folder: no file is left behind, and writers of different PEs hardly ever meet.
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        rows = change({key(each): each for each in (_read(path) if path.exists() else [])})
        _replace(path, json.dumps({"rows": [rows[each] for each in sorted(rows)]}, indent=1) + "\n")
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(scratch, 0o644)  # mkstemp's own mode is for its owner only
        os.replace(scratch, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(scratch)
        raise


def find(spec: PESpec, params: Mapping[str, Any], kind: str, folder: Path | None = None) -> Row | None:
    """The row of this check if it is of today's Verilog."""
    path = (folder or FOLDER) / f"{spec.name}.json"
    for found in _read(path) if path.exists() else []:
        if (found["params"], found["kind"]) == (dict(params), kind) and found["rtl_sha256"] == rtl_sha256(spec):
            return found
    return None


def stale(rows: Iterable[Row]) -> list[str]:
    """One line for each row whose Verilog is not today's: run its command again."""
    found, today = [], dict[str, str]()
    for each in rows:
        name = shown(each["pe"], each["params"])
        if name not in today:
            today[name] = rtl_sha256(spec_of(each["pe"], each["params"]))
        if today[name] != each["rtl_sha256"]:
            found.append(
                f"{name} {each['kind']}: rtl_sha256 = {each['rtl_sha256'][:12]}: must be {today[name][:12]} "
                f"(run again: {each['command']})"
            )
    return found
