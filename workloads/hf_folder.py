"""Checkpoints in a Hugging Face folder: config.json, safetensors in one file or in shards, tokenizer.json. No torch.

A matrix is read from the mapped file when it is asked for, so memory is about one matrix; rows are read alone.
Rows of q and k are already in the half-split rotary order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from bitwright.arch import json_text
from bitwright.arch.errors import CheckpointError, shown
from bitwright.arch.safetensors_file import SafetensorsFile, TensorInfo
from bitwright.workloads import config_shape, hf_config, tokenizer
from bitwright.workloads.checkpoint import Checkpoint, matrices_of, sha256_of, unknown_weight
from bitwright.workloads.shapes import ModelShape
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers

_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9._ -]{1,200}\.safetensors")  # no path, and printable
_PLAIN = ("F32", "F16", "BF16")
_TOP = {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "head": "lm_head.weight"}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_MODULES = {part: f"self_attn.{part}_proj" for part in ("q", "k", "v", "o")}
_MODULES |= {part: f"mlp.{part}_proj" for part in ("gate", "up", "down")}
_CHUNK = 1 << 24  # bytes of two tensors compared at a time


class HfFolder:
    """The files of one folder: its config, and all tensors of all its shards by name.

    Members
        config : dict                 What config.json holds.
        files : tuple of Path         Every file that defines the model, tokenizer included, in the order of the names.
        tensors : dict                Tensor name -> (its file, its TensorInfo).
    Errors: CheckpointError for missing, unreadable or contradictory files.
    """

    config: Mapping[str, Any]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_config(path)
        index = None if (path / _SINGLE).is_file() else self._index()
        names = [_SINGLE] if index is None else sorted(set(index.values()))
        self.tensors: dict[str, tuple[SafetensorsFile, TensorInfo]] = {}
        for name in names:
            file = SafetensorsFile(path / name)
            for tensor, info in file.tensors.items():
                if index is not None and index.get(tensor) != name:
                    self._refuse(name, f"has tensor {shown(tensor)}, which {_INDEX} does not place there")
                self.tensors[tensor] = file, info
        missing = sorted(set(index or ()) - set(self.tensors))
        if index is not None and missing:
            self._refuse(_INDEX, f"places tensor {shown(missing[0])} in {index[missing[0]]}, which does not have it")
        extra = [_CONFIG, *(() if index is None else (_INDEX,))]
        extra += [_TOKENIZER] if (path / _TOKENIZER).is_file() else []
        self.files = tuple(path / name for name in sorted([*names, *extra]))

    @property
    def sha256(self) -> str:
        """sha256 of one line `name sha256` a file (config, weights, index, tokenizer.json), in the names' order."""
        lines = [f"{file.name} {sha256_of(file)}\n" for file in self.files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _index(self) -> dict[str, str]:
        """Tensor name -> shard, whose name must be that of a file beside the index."""
        if not (self.path / _INDEX).is_file():
            raise CheckpointError(
                f"{self.path}: neither {_SINGLE} nor {_INDEX}: bitwright reads safetensors only (save the model with "
                "safe_serialization)"
            )
        index = json_text.read(self.path / _INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            self._refuse(_INDEX, "weight_map must be a map from tensor to file")
        for tensor, shard in index.items():
            if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
                self._refuse(
                    _INDEX, f"{shown(tensor)} is in {shown(shard)}: must be the name of a .safetensors file here"
                )
        return index

    def _refuse(self, file: str, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path / file}: {what} (get the folder again)")


class HfCheckpoint(Checkpoint):
    """The plain (F32, F16 or BF16) weights of one folder.

    Errors: CheckpointError for another architecture, packed weights, missing or unknown tensors, wrong shapes or types.
    """

    def __init__(self, folder: HfFolder) -> None:
        self.path, self.name = folder.path, name_of(folder.path)
        self.shape = shape_of(folder.path, folder.config)
        self.matrices = matrices_of(self.shape)
        self._tensors = _tensors(folder, self.shape)
        self.sha256 = folder.sha256

    def weight(self, name: str) -> NDArray[np.float32]:
        """As `Checkpoint.weight`."""
        file, info = self._tensor(name)
        return file.array(info.name).astype(np.float32, copy=False)

    def rows(self, name: str, first: int, last: int) -> NDArray[np.float32]:
        """As `Checkpoint.rows`; the order is that of `weight`."""
        file, info = self._tensor(name)
        return file.array(info.name, first, last).astype(np.float32, copy=False)

    def source_type(self, name: str) -> str:
        """safetensors' name of the type: "F32", "F16" or "BF16"."""
        return self._tensor(name)[1].type_name

    def stored_bits(self, name: str) -> int:
        """As `Checkpoint.stored_bits`."""
        return 8 * self._tensor(name)[1].nbytes

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The folder's tokenizer.json. Raises CheckpointError when it is missing or unreadable."""
        return tokenizer.read(self.path / _TOKENIZER)

    def _tensor(self, name: str) -> tuple[SafetensorsFile, TensorInfo]:
        if name not in self._tensors:
            raise unknown_weight(self, name)
        return self._tensors[name]


def load(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`. Raises CheckpointError for everything that is wrong with it."""
    config = read_config(path)
    hf_config.architecture(path / _CONFIG, config)
    if config.get("quantization_config") is not None:
        from bitwright.workloads.packed.checkpoint import PackedCheckpoint

        return PackedCheckpoint(HfFolder(path))
    return HfCheckpoint(HfFolder(path))


def read_config(path: Path) -> dict[str, Any]:
    """What config.json of the folder `path` holds. Raises CheckpointError when there is none, or it is unreadable."""
    if not (path / _CONFIG).is_file():
        raise CheckpointError(f"{path}: no {_CONFIG} in it: not a Hugging Face folder")
    return json_text.read(path / _CONFIG)


def shape_of(path: Path, config: Mapping[str, Any] | None = None) -> ModelShape:
    """The sizes that config.json of the folder `path` states; no weight file is looked at."""
    config = read_config(path) if config is None else config
    return config_shape.shape(name_of(path), path / _CONFIG, config)


def name_of(path: Path) -> str:
    """The folder's own name, also for `.` and links to it."""
    return path.resolve().name or "model"


def expected_tensors(shape: ModelShape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Canonical name -> tensor name and shape, of everything that a model of this shape must have."""
    sizes: dict[str, tuple[int, ...]] = {m.name: (m.n, m.k) for m in shape.matmuls()}
    top = {"embed": sizes["head"], "final_norm": (shape.hidden,), "head": sizes["head"]}
    expected = {ours: (_TOP[ours], size) for ours, size in top.items()}
    if shape.tied_embeddings:
        expected["head"] = expected["embed"]
    for layer in range(shape.layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        for part, module in _NORMS.items():
            expected[ours + part] = (f"{theirs}{module}.weight", (shape.hidden,))
        for part, module in _MODULES.items():
            expected[ours + part] = (f"{theirs}{module}.weight", sizes[part])
            if shape.bias_of(part):
                expected[f"{ours}{part}_bias"] = (f"{theirs}{module}.bias", sizes[part][:1])
        for part in ("q", "k") if shape.qk_norm else ():
            expected[f"{ours}{part}_norm"] = (f"{theirs}self_attn.{part}_norm.weight", (shape.head_dim,))
    return expected


def _tensors(folder: HfFolder, shape: ModelShape) -> dict[str, tuple[SafetensorsFile, TensorInfo]]:
    """Canonical name -> tensor, after checking that exactly the expected tensors are there."""
    if shape.layers * len(_MODULES) > len(folder.tensors):
        raise CheckpointError(
            f"{folder.path}: num_hidden_layers = {shape.layers}: needs at least {shape.layers * len(_MODULES)} "
            f"tensors, the folder has {len(folder.tensors)}"
        )
    expected = expected_tensors(shape)
    for tensor, size in expected.values():
        if tensor not in folder.tensors:
            raise CheckpointError(f"{folder.path}: tensor {tensor!r} is missing")
        file, info = folder.tensors[tensor]
        if info.shape != size:
            raise CheckpointError(f"{file.path}: tensor {tensor!r} has shape {info.shape}: must be {size}")
        if info.type_name not in _PLAIN:
            raise CheckpointError(
                f"{file.path}: tensor {tensor!r} has type {info.type_name}: must be one of {', '.join(_PLAIN)}"
            )
    # Old Llama checkpoints carry the rotary frequencies, which the config defines.
    given = {name for name in folder.tensors if not name.endswith(".rotary_emb.inv_freq")}
    unknown = sorted(given - {tensor for tensor, _ in expected.values()})
    if unknown == [_TOP["head"]] and shape.tied_embeddings:
        check_tied(folder)
    elif unknown:
        raise CheckpointError(f"{folder.path}: tensor {shown(unknown[0])} is not part of such a model")
    return {ours: folder.tensors[tensor] for ours, (tensor, _) in expected.items()}


def check_tied(folder: HfFolder) -> None:
    """A head stored beside a tied embedding must be its copy."""
    (file, embed), (other, head) = folder.tensors[_TOP["embed"]], folder.tensors[_TOP["head"]]
    same = (embed.type_name, embed.shape) == (head.type_name, head.shape)
    step = max(1, _CHUNK // (embed.nbytes // embed.shape[0]))
    for first in range(0, embed.shape[0] if same else 0, step):
        last = min(first + step, embed.shape[0])
        left, right = file.array(embed.name, first, last), other.array(head.name, first, last)
        same = same and left.tobytes() == right.tobytes()
    if not same:
        raise CheckpointError(
            f"{other.path}: tensor {_TOP['head']!r} differs from {_TOP['embed']!r}: must be its copy, since "
            "config.json says tie_word_embeddings"
        )
