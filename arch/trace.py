"""A trace: what a real model does on a real prompt, as plain data in a folder; its schema and its reader.

    trace.json       `Header`: where the trace comes from. Written last: a folder without it is an unfinished trace.
    layers.parquet   a row a layer and operator: `Operator`.
    layer-000.safetensors, ..., head.safetensors
                     <operator>.<member> of `formats.base.Encoded`, whole: codes [N, K] and what belongs to them
                     (scales, zeros, ...; <operator>.parts.<name>); <input>.acts: float32 [S, K], the operator's input
                     at the S sampled token positions, before it is quantised.

`bitwright.workloads.tracing` writes one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from bitwright.arch import json_text
from bitwright.arch.errors import CheckpointError, shown
from bitwright.arch.formats.base import Encoded
from bitwright.arch.safetensors_file import SafetensorsFile
from numpy.typing import NDArray

SCHEMA_VERSION = 2
HEADER, LAYERS = "trace.json", "layers.parquet"
MEMBERS = ("codes", "scales", "zeros", "selectors", "scale_codes", "channel_scales")  # of Encoded


@dataclasses.dataclass(frozen=True)
class Header:
    """trace.json.

    Fields
        schema_version : int           2.
        model, weights_sha256 : str    Name and hash of the checkpoint.
        text, text_sha256 : str        Name and hash of the text.
        token_ids : list of int        The prompt.
        sampled_positions : list of int   Of the prompt, those whose activations are kept, ascending.
        versions : dict                Library -> version.
        policy : dict                  The fields of `workloads.policy.FormatPolicy`.
        seed : int                     Of the choice of positions.
        command : str                  What makes the trace again.
        operators : int                Rows of layers.parquet.
        files : dict                   Name of every other file -> its sha256.
    """

    schema_version: int
    model: str
    weights_sha256: str
    text: str
    text_sha256: str
    token_ids: list[int]
    sampled_positions: list[int]
    versions: dict[str, str]
    policy: dict[str, Any]
    seed: int
    command: str
    operators: int
    files: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Operator:
    """A row of layers.parquet: one weight matrix [n, k] and its input.

    Fields
        name, layer, operator   "layers.3.q", 3, "q"; the head is "head", -1, "head".
        file, acts              The safetensors file, and the tensor in it with the sampled input.
        n, k : int              Outputs and reduction.
        weight_format, group, scale_format   As in `Encoded`; group None: one a row, or the format's own block.
        weight_rms, weight_max_abs, weight_error   Of the weights before they are encoded; mean squared error of the
            codes relative to the mean square.
        act_format, act_rms, act_max_abs   Of the whole input, all positions, before it is quantised.
    """

    name: str
    layer: int
    operator: str
    file: str
    acts: str
    n: int
    k: int
    weight_format: str
    group: int | None
    scale_format: str | None
    weight_rms: float
    weight_max_abs: float
    weight_error: float
    act_format: str
    act_rms: float
    act_max_abs: float


_COLUMNS: dict[str, tuple[type, ...]] = {
    field.name: {"str": (str,), "int": (int,), "float": (float,)}.get(
        str(field.type), (str, type(None)) if "str" in str(field.type) else (int, type(None))
    )
    for field in dataclasses.fields(Operator)
}


class Trace:
    """A checked trace: `header`, `operators` by name, and their arrays, read when asked for.

    Opening it checks trace.json, layers.parquet, that every file holds the codes and inputs that the rows speak of, and
    each file's sha256. Raises CheckpointError, naming the file, for whatever is missing, damaged or of another schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder (bitwright trace MODEL -o {folder})")
        if not (folder / HEADER).is_file():
            empty = not any(folder.iterdir())
            what = "an empty folder, no trace" if empty else f"has no {HEADER}: an unfinished trace, or none"
            raise CheckpointError(f"{folder}: {what} (bitwright trace MODEL -o {folder}; it goes on where it stopped)")
        self.header = _header(folder / HEADER)
        rows = _rows(folder / LAYERS)
        if len(rows) != self.header.operators or not rows:
            raise CheckpointError(
                f"{folder / LAYERS}: {len(rows)} rows: {HEADER} has {self.header.operators} operators (trace again)"
            )
        self.operators = {row.name: row for row in rows}
        self._files: dict[str, SafetensorsFile] = {}
        for row in rows:
            self._check(row)
        self._check_hashes()

    def codes(self, name: str) -> Encoded:
        """The codes [n, k] of operator `name`, with all that belongs to them. CheckpointError: not in the trace."""
        row = self.operator(name)
        file = self._files[row.file]
        found: dict[str, Any] = {}
        for member in MEMBERS:
            key = f"{row.operator}.{member}"
            found[member] = file.array(key) if key in file.tensors else None
        prefix = f"{row.operator}.parts."
        parts = {key.removeprefix(prefix): file.array(key) for key in file.tensors if key.startswith(prefix)}
        return Encoded(
            format=row.weight_format, group=row.group, scale_format=row.scale_format, parts=parts, **found
        )  # fmt: skip

    def acts(self, name: str) -> NDArray[np.float32]:
        """The sampled input [S, k] of operator `name`, float32, before it is quantised."""
        row = self.operator(name)
        return self._files[row.file].array(row.acts)

    def operator(self, name: str) -> Operator:
        """The row of this name; CheckpointError if the trace lacks it."""
        if name not in self.operators:
            raise CheckpointError(
                f"{self.folder}: has no operator {shown(name)}: it is a trace of {self.header.model}, "
                f"{len(self.operators)} operators (trace the model that is simulated)"
            )
        return self.operators[name]

    def _check(self, row: Operator) -> None:
        path = self.folder / row.file
        if Path(row.file).name != row.file:
            raise CheckpointError(f"{self.folder / LAYERS}: file {shown(row.file)}: must be a name in the folder")
        if row.file not in self._files:
            self._files[row.file] = SafetensorsFile(path)
        tensors = self._files[row.file].tensors
        samples = len(self.header.sampled_positions)
        for key, shape in ((f"{row.operator}.codes", (row.n, row.k)), (row.acts, (samples, row.k))):
            if key not in tensors:
                raise CheckpointError(f"{path}: has no tensor {shown(key)} (trace again)")
            if tensors[key].shape != shape:
                raise CheckpointError(
                    f"{path}: tensor {shown(key)} has shape {tensors[key].shape}: {LAYERS} has {shape} (trace again)"
                )

    def _check_hashes(self) -> None:
        for name in sorted({LAYERS, *self._files} | set(self.header.files)):
            path, wanted = self.folder / name, self.header.files.get(name)
            if Path(name).name != name or not path.is_file():
                raise CheckpointError(f"{self.folder / HEADER}: files: {shown(name)}: no such file in the folder")
            found = file_sha256(path)
            if found != wanted:
                recorded = "no sha256" if wanted is None else wanted[:12]
                raise CheckpointError(
                    f"{path}: damaged: its sha256 begins {found[:12]}, {HEADER} has {recorded} "
                    f"(remove {self.folder} and trace again: {self.header.command})"
                )


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(folder: str | Path) -> Trace:
    """The trace in `folder`; see `Trace`."""
    return Trace(Path(folder))


def _header(path: Path) -> Header:
    found = json_text.read(path)

    def refuse(what: str) -> NoReturn:
        raise CheckpointError(f"{path}: {what} (trace again with this bitwright)")

    if found.get("schema_version") != SCHEMA_VERSION:
        refuse(f"schema_version = {shown(found.get('schema_version'))}: must be {SCHEMA_VERSION}")
    fields = {field.name: str(field.type).partition("[")[0] for field in dataclasses.fields(Header)}
    if set(found) != set(fields):
        wrong = sorted(set(found) ^ set(fields))[0]
        refuse(f"{'lacks' if wrong in fields else 'has an unknown'} {shown(wrong)}")
    for name, kind in fields.items():
        if type(found[name]).__name__ != kind:
            refuse(f"{name} = {shown(found[name])}: must be {kind}")
    for name in ("token_ids", "sampled_positions"):
        if not all(type(item) is int and item >= 0 for item in found[name]):
            refuse(f"{name}: must be whole numbers")
    for name, sha256 in found["files"].items():
        if type(sha256) is not str or re.fullmatch("[0-9a-f]{64}", sha256) is None:
            refuse(f"files: {shown(name)}: {shown(sha256)}: must be a sha256, 64 hexadecimal digits")
    return Header(**found)


def _rows(path: Path) -> list[Operator]:
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file (trace again)")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError):
        raise CheckpointError(f"{path}: not a readable parquet file (trace again)") from None
    for row in rows:
        if set(row) != set(_COLUMNS):
            wrong = sorted(set(row) ^ set(_COLUMNS))[0]
            raise CheckpointError(f"{path}: column {shown(wrong)}: is missing or unknown (trace again)")
        for name, kinds in _COLUMNS.items():
            if type(row[name]) not in kinds:
                raise CheckpointError(f"{path}: {name} = {shown(row[name])}: of the wrong type (trace again)")
    return [Operator(**row) for row in rows]
