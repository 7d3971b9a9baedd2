"""Header of any decoder's GGUF file -> ModelShape, for the simulator: no weight is read.

Sizes are metadata; what a model has beyond them (biases, norms, gates, experts) is read off the names of its tensors.
The guard against an architecture that is understood wrongly: the shape's parameters must be the elements of the file's
tensors, exactly.
Source: ggml-org/ggml, docs/gguf.md; gguf-py, constants.py (names of keys and tensors).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from bitwright.arch.errors import CheckpointError, ConfigError, shown
from bitwright.workloads.gguf_file import GgufFile
from bitwright.workloads.shape_parts import Experts, LatentAttention
from bitwright.workloads.shapes import ModelShape

_NO_PARAMETERS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_NORMS = ("attn_norm", "attn_norm_2", "ffn_norm", "post_attention_norm", "post_ffw_norm")
_EPS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
_LOCAL = {"gemma2": 2, "gemma3": 6}  # every so many-th layer sees everything


def shape_of(path: Path) -> ModelShape:
    """The sizes that the header of the file at `path` states.

    Raises CheckpointError for an unreadable file, a missing or impossible value, or tensors that are no such decoder's.
    """
    header = _Header(GgufFile(path))
    try:
        shape = header.shape()
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    tensors = header.file.tensors.items()
    elements = sum(math.prod(info.shape) for name, info in tensors if name not in _NO_PARAMETERS)
    if elements != shape.parameters:
        raise CheckpointError(
            f"{path}: its tensors hold {elements} numbers and a {header.kind} model of its header {shape.parameters}: "
            "this architecture is not understood"
        )
    return shape


class _Header:
    """Typed look-ups in the metadata and the tensors' names."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        kind = file.fields.get("general.architecture")
        if not isinstance(kind, str):
            self.refuse("general.architecture", kind, "must be there, as text")
        self.kind = kind
        self.layers = 0

    def refuse(self, key: str, value: object, rule: str) -> NoReturn:
        raise CheckpointError(f"{self.file.path}: {key} = {shown(value)}: {rule}")

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive whole number under the architecture's `key`."""
        key = f"{self.kind}.{key}"
        value = self.file.fields.get(key, default)
        if type(value) is not int or not 1 <= value < 1 << 31:
            self.refuse(key, value, "must be there, as a whole number of at least 1")
        return int(value)

    def maybe(self, key: str) -> int | None:
        """None where it is absent or 0."""
        value = self.file.fields.get(f"{self.kind}.{key}")
        return None if value is None or (type(value) is int and value == 0) else self.whole(key)

    def number(self, *keys: str, default: float) -> float:
        """The first of these keys that is there."""
        value = next((self.file.fields[key] for key in self._full(keys) if key in self.file.fields), default)
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            self.refuse(self._full(keys)[0], value, "must be a number of at least 0")
        return float(value)

    def _full(self, keys: tuple[str, ...]) -> list[str]:
        return [f"{self.kind}.{key}" for key in keys]

    def has(self, name: str) -> bool:
        """Whether a layer has tensor `name`; the last layer is asked, the first may be of another kind."""
        return f"blk.{self.layers - 1}.{name}" in self.file.tensors

    def rows(self, name: str) -> int:
        """Rows of tensor `name`; 0 where there is none."""
        info = self.file.tensors.get(name)
        return info.shape[0] if info else 0

    def shape(self) -> ModelShape:
        """All of it."""
        self.layers, hidden = self.whole("block_count"), self.whole("embedding_length")
        if self.layers > len(self.file.tensors):
            self.refuse(f"{self.kind}.block_count", self.layers, f"the file has {len(self.file.tensors)} tensors")
        heads = self.whole("attention.head_count")
        ffn, positions = self.whole("feed_forward_length"), self.rows("position_embd.weight")
        up = self.rows(f"blk.{self.layers - 1}.ffn_up.weight")
        alibi = "attention.max_alibi_bias" in (key.removeprefix(f"{self.kind}.") for key in self.file.fields)
        norms = sum(self.has(f"{name}.weight") for name in _NORMS)
        tied = "output.weight" not in self.file.tensors
        values: dict[str, Any] = {
            "name": self.file.path.stem,
            "layers": self.layers,
            "hidden": hidden,
            "ffn": ffn,
            "heads": heads,
            "kv_heads": self.whole("attention.head_count_kv", heads),
            "head_dim": self.whole("attention.key_length", hidden // heads),
            "vocab": self.rows("token_embd.weight"),
            "tied_embeddings": tied,
            "gated_ffn": up == 2 * ffn or any(".ffn_gate" in name for name in self.file.tensors if "_inp" not in name),
            "rope_base": None if alibi or positions else self.number("rope.freq_base", default=10000.0),
            # Stored as float32; the shortest decimal of that float32 is what the model's authors wrote.
            "eps": float(str(np.float32(self.number(*_EPS, default=1e-5)))),
            "source": f"GGUF header of {self.file.path.name}",
            "qkv_bias": self.has("attn_q.bias") or self.has("attn_qkv.bias"),
            "o_bias": self.has("attn_output.bias"),
            "mlp_bias": self.has("ffn_up.bias"),
            "qk_norm": self.has("attn_q_norm.weight"),
            "max_context": self.maybe("context_length"),
            "positions": positions,
            "alibi": alibi,
            "rotary_dim": self.maybe("rope.dimension_count"),
            "head_bias": "output.bias" in self.file.tensors,
            "norm": "layer" if "output_norm.bias" in self.file.tensors else "rms",
            "layer_norms": norms,
            "inner_norms": self.has("attn_sub_norm.weight"),
            "embedding_norm": "token_embd_norm.weight" in self.file.tensors,
            "parallel": norms == 1,
        }
        return ModelShape(**(values | self._windows() | self._experts(ffn) | self._latent(heads)))

    def _windows(self) -> dict[str, Any]:
        window = self.maybe("attention.sliding_window")
        if window is None:
            return {}
        period = _LOCAL.get(self.kind)
        local = None if period is None else tuple(i for i in range(self.layers) if (i + 1) % period)
        return {} if local == () else {"sliding_window": window, "sliding_layers": local}

    def _experts(self, ffn: int) -> dict[str, Any]:
        count = self.maybe("expert_count")
        if count is None:
            return {}
        width = self.whole("expert_feed_forward_length", ffn)
        shared = self.maybe("expert_shared_feed_forward_length") or width * (self.maybe("expert_shared_count") or 0)
        return {
            "experts": Experts(
                count, self.whole("expert_used_count"), width, shared,
                shared_gate=self.has("ffn_gate_inp_shexp.weight"),
                dense_layers=self.maybe("leading_dense_block_count") or 0,
                router_bias=self.has("exp_probs_b.bias"),
            )
        }  # fmt: skip

    def _latent(self, heads: int) -> dict[str, Any]:
        rank = self.maybe("attention.kv_lora_rank")
        if rank is None:
            return {}
        rope = self.whole("rope.dimension_count")
        key = self.maybe("attention.key_length_mla") or self.whole("attention.key_length")
        value = self.maybe("attention.value_length_mla") or self.whole("attention.value_length")
        latent = LatentAttention(self.maybe("attention.q_lora_rank"), rank, key - rope, rope, value)
        return {"latent": latent, "kv_heads": heads, "head_dim": key}
