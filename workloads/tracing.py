"""Recording a trace (`bitwright.arch.trace`): the codes and activations of a model on the first tokens of a text.

The reference transformer runs with exactly the codes that are written. A layer's file is written when the layer is
done, then the residual stream behind it: whatever stops the run, at most one layer is done again, and the finished
trace has the same bytes. Every file appears whole (written aside, then renamed).
Not recorded: codes of the KV cache and of activations (their float32 values are; a codec makes codes of them).
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from bitwright.arch import formats, json_text, trace
from bitwright.arch.errors import ConfigError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.safetensors_file import SafetensorsFile
from bitwright.arch.trace import Header, Operator, Trace
from bitwright.workloads import checkpoint, texts
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.linear import F32
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.quantise.prepared import Prepared
from bitwright.workloads.rules import attention_for, rule_for
from bitwright.workloads.token_ids import first_tokens
from bitwright.workloads.transformer import DecoderLayer, Progress, rms_norm
from numpy.typing import NDArray

BEGUN, STREAM = "begun.json", "stream.safetensors"  # only while a trace is not finished
INPUTS = {
    "q": "attn_input", "k": "attn_input", "v": "attn_input", "o": "o_input",
    "gate": "ffn_input", "up": "ffn_input", "down": "down_input", "head": "input",
}  # fmt: skip
_TYPES = {"uint8": "U8", "uint16": "U16", "float16": "F16", "float32": "F32", "int64": "I64", "int16": "I16"}


def record(
    model: str | Path,
    folder: str | Path,
    policy: FormatPolicy,
    *,
    tokens: int = 128,
    samples: int = 16,
    text: str | Path = "jargon",
    seed: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """Record the trace of `model` on the first `tokens` tokens of `text` into `folder`, or finish the one begun there.

    `samples` positions, chosen by `seed`, keep their activations. A finished trace of the same inputs is left as it
    is. Raises ConfigError for a folder with anything else in it, a policy that has no codes of its own (stored weights,
    a method other than rtn, one group a matrix) and impossible sizes; CheckpointError as `checkpoint.load`.
    """
    folder = Path(folder)
    _check_policy(policy)
    if type(samples) is not int or not 1 <= samples <= tokens:
        raise ConfigError(f"samples = {samples}: must be a whole number in 1..{tokens}, the tokens")
    if type(seed) is not int or seed < 0:
        raise ConfigError(f"seed = {seed}: must be a whole number of at least 0")
    source, passage = checkpoint.load(model), texts.load(text)
    ids = first_tokens(source, passage, tokens, tokens)
    positions = np.sort(np.random.default_rng(seed).choice(tokens, samples, replace=False))
    command = ["bitwright", "trace", str(model), "-o", str(folder)]
    for option in ("weights", "group", "acts", "kv", "head"):
        value = getattr(policy, option)
        command += [] if value is None else [f"--{option}", str(value)]
    for option, value in (("tokens", tokens), ("samples", samples), ("text", text), ("seed", seed)):
        command += [f"--{option}", str(value)]
    header = Header(
        schema_version=trace.SCHEMA_VERSION,
        model=source.name,
        weights_sha256=source.sha256,
        text=passage.name,
        text_sha256=passage.sha256,
        token_ids=[int(token) for token in ids],
        sampled_positions=[int(position) for position in positions],
        versions={"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("bitwright", "numpy", "ml_dtypes", "tokenizers", "pyarrow")},
        policy=policy.model_dump(),
        seed=seed,
        command=shlex.join(command),
        operators=7 * source.shape.layers + 1,
        files={},
    )
    if not _begin(folder, header):
        _clear(folder)
        return trace.load(folder)
    _run(source, folder, policy, header, progress)
    _write_parquet(folder, _rows(folder, source.shape.layers))
    files = [trace.LAYERS, *_files(source.shape.layers)]
    header = dataclasses.replace(header, files={name: trace.file_sha256(folder / name) for name in files})
    _write_json(folder / trace.HEADER, dataclasses.asdict(header))
    _clear(folder)
    return trace.load(folder)


def _check_policy(policy: FormatPolicy) -> None:
    for name in ("weights", "head_format"):
        if getattr(policy, name) == "stored":
            raise ConfigError(f"{name.removesuffix('_format')} = stored: a trace records codes of a named format")
    if policy.method != "rtn":
        raise ConfigError(f"method = {policy.method}: a trace records weights rounded to nearest (use rtn)")
    if policy.group == "tensor":
        raise ConfigError("group = tensor: a trace has one scale a row or a group (leave it out, or give a number)")


def _begin(folder: Path, header: Header) -> bool:
    """Whether there is work left; makes the folder, or checks that what is in it is this very trace."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (trace.HEADER, BEGUN):
        if not (folder / name).is_file():
            continue
        found, wanted = json_text.read(folder / name), dataclasses.asdict(header)
        for key in wanted:
            if key not in ("command", "files") and found.get(key) != wanted[key]:
                raise ConfigError(
                    f"{folder}: holds a trace of other inputs: its {key} differs (name another folder with -o, or "
                    "remove this one)"
                )
        return name == BEGUN
    if any(not path.name.endswith(".writing") for path in folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty and holds no trace (name another folder with -o)")
    _write_json(folder / BEGUN, dataclasses.asdict(header))
    return True


def _clear(folder: Path) -> None:
    for path in (folder / BEGUN, folder / STREAM, *folder.glob("*.writing")):
        path.unlink(missing_ok=True)


class _Recording(Prepared):
    """The checkpoint, with its weights encoded as the policy says; codes and weights' figures stay in `tensors`."""

    def __init__(self, source: Checkpoint, policy: FormatPolicy, positions: list[int]) -> None:
        super().__init__(source)
        self.policy, self.positions = policy, positions
        self.begin()

    def begin(self) -> None:
        """Forgets all, for the next file."""
        self.tensors: dict[str, NDArray[Any]] = {}
        self.weights: dict[str, dict[str, Any]] = {}
        self.inputs: dict[str, dict[str, Any]] = {}

    def codes(self, name: str, first: int = 0, last: int | None = None) -> Encoded | None:
        """Codes of the whole matrix `name`."""
        operator = name.rpartition(".")[2]
        head = operator == "head"
        form = formats.get(self.policy.head_format if head else self.policy.weights)
        weight = self.rows("head", 0, self.shape.vocab) if head else self.weight(name)
        group = self.policy.head_group if head else self.policy.group
        encoded = form.encode(weight, group=group)
        for member in trace.MEMBERS:
            if getattr(encoded, member) is not None:
                self.tensors[f"{operator}.{member}"] = getattr(encoded, member)
        self.tensors |= {f"{operator}.parts.{part}": array for part, array in encoded.parts.items()}
        power = float(np.mean(np.square(weight), dtype=np.float64))
        error = float(np.mean(np.square(form.decode(encoded) - weight), dtype=np.float64))
        self.weights[name] = {
            "n": weight.shape[0],
            "k": weight.shape[1],
            "weight_format": encoded.format,
            "group": encoded.group,
            "scale_format": encoded.scale_format,
            "weight_rms": power**0.5,
            "weight_max_abs": float(np.abs(weight).max()),
            "weight_error": error / power if power else 0.0,
        }
        return encoded

    def observe(self, what: str, acts: F32) -> None:
        """The input of some matrices."""
        name = what.rpartition(".")[2]
        self.tensors[f"{name}.acts"] = acts[self.positions]
        self.inputs[name] = {
            "act_format": self.policy.acts,
            "act_rms": float(np.mean(np.square(acts), dtype=np.float64)) ** 0.5,
            "act_max_abs": float(np.abs(acts).max()),
        }

    def write(self, folder: Path, file: str, layer: int) -> None:
        """Tensors into `file`, and its rows of layers.parquet as its metadata."""
        rows = []
        for name, figures in self.weights.items():
            operator = name.rpartition(".")[2]
            origin = {"name": name, "layer": layer, "operator": operator, "file": file}
            rows.append(origin | {"acts": f"{INPUTS[operator]}.acts"} | figures | self.inputs[INPUTS[operator]])
        _write_tensors(folder / file, self.tensors, {"rows": json.dumps(rows)})


def _run(source: Checkpoint, folder: Path, policy: FormatPolicy, header: Header, progress: Progress | None) -> None:
    shape, recording = source.shape, _Recording(source, policy, header.sampled_positions)
    tokens = np.asarray(header.token_ids, np.int64)
    layer = DecoderLayer(
        recording, rule_for(policy, recording), attention_for(policy), 1, tokens.size, recording.observe
    )
    done, stream = 0, source.embedding(tokens)
    if (folder / STREAM).is_file():
        kept = SafetensorsFile(folder / STREAM)
        done, stream = int(kept.metadata["layers"]), kept.array("stream")
    for index in range(done, shape.layers):
        recording.begin()
        layer.run(index, stream)
        recording.write(folder, _file(index), index)
        _write_tensors(folder / STREAM, {"stream": stream}, {"layers": str(index + 1)})
        if progress is not None:
            progress(index + 1, shape.layers + 1)
    recording.begin()
    recording.observe("head.input", rms_norm(stream, source.weight("final_norm"), shape.eps))
    recording.codes("head")
    recording.write(folder, "head.safetensors", -1)
    if progress is not None:
        progress(shape.layers + 1, shape.layers + 1)


def _file(layer: int) -> str:
    return f"layer-{layer:03d}.safetensors"


def _files(layers: int) -> list[str]:
    return [*map(_file, range(layers)), "head.safetensors"]


def _rows(folder: Path, layers: int) -> list[Operator]:
    found = [json.loads(SafetensorsFile(folder / file).metadata["rows"]) for file in _files(layers)]
    return [Operator(**row) for rows in found for row in rows]


def _write_parquet(folder: Path, rows: list[Operator]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {"int": pyarrow.int64(), "float": pyarrow.float64(), "str": pyarrow.string()}
    schema = pyarrow.schema([(f.name, kinds[str(f.type).partition(" ")[0]]) for f in dataclasses.fields(Operator)])
    table = pyarrow.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema)
    _whole(folder / trace.LAYERS, lambda path: parquet.write_table(table, path))


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    _whole(path, lambda aside: aside.write_text(json.dumps(data, indent=1) + "\n", "utf-8"))


def _write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], extra: Mapping[str, str]) -> None:
    """A safetensors file: the header's length, the header, then the tensors, one after the other."""
    # Widest values first, so that every tensor lies at a multiple of its own width.
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors, key=lambda n: -tensors[n].itemsize)}
    entries: dict[str, Any] = {"__metadata__": dict(extra)}
    end = 0
    for name, array in arrays.items():
        offsets = [end, end + array.nbytes]
        entries[name] = {"dtype": _TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())

    _whole(path, write)


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """What `write` puts aside takes the place of `path` in one step."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.writing")
    write(aside)
    os.replace(aside, path)
