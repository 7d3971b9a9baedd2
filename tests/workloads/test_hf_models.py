"""Llama, Mistral, Qwen2 and Qwen3 from folders written here, against an independent float64 forward.

18 models; the reference reads the folder's own tensors and config, goes token by token with a cache, and rotates by
complex numbers. tests/torch compares the same architectures with transformers itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads import checkpoint, grids
from bitwright.workloads.policy import FLOAT_MODEL, FormatPolicy
from bitwright.workloads.shape_parts import RopeScaling
from bitwright.workloads.transformer import forward, logits

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64, "rope_theta": 100.0}  # one pair stays, two mix, one slows
ALTERNATING = ["sliding_attention", "full_attention"]


def spin_of(config: dict[str, Any], width: int) -> Any:
    """Radians a token of every pair, by the published rules one frequency at a time."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    spin = []
    for i in range(width // 2):
        frequency = base ** (-2 * i / width)
        length, context = 2 * np.pi / frequency, rope.get("original_max_position_embeddings")
        if kind == "linear" or (kind == "llama3" and length > context / rope["low_freq_factor"]):
            frequency /= rope["factor"]
        elif kind == "llama3" and length >= context / rope["high_freq_factor"]:
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            smooth = (context / length - low) / (high - low)
            frequency = (1 - smooth) * frequency / rope["factor"] + smooth * frequency
        spin.append(frequency)
    return np.array(spin)


def window_of(config: dict[str, Any], layer: int) -> int:
    """How many tokens the layer sees, by the rules of the four architectures."""
    kind, everything = config["model_type"], 1 << 30
    if kind == "mistral":
        return config.get("sliding_window", 4096) or everything
    if kind == "llama" or not config.get("use_sliding_window"):
        return everything
    types = config.get("layer_types")
    sliding = types[layer] == "sliding_attention" if types else layer >= config.get("max_window_layers", 28)
    return config["sliding_window"] if sliding else everything


def reference_logits(folder: Any, tokens: Any) -> Any:
    """Every position's logits in float64, straight from the folder's tensors."""
    config = folder.config
    w = {name: tensor.astype(np.float64) for name, tensor in folder.tensors.items()}
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    d = config.get("head_dim") or config["hidden_size"] // heads
    spin, per = spin_of(config, d), heads // kv_heads
    cache: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(config["num_hidden_layers"])]

    def norm(x: Any, weight: Any) -> Any:
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config["rms_norm_eps"]) * weight

    def linear(name: str, x: Any) -> Any:
        return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0.0)

    def turned(x: Any, position: int) -> Any:
        pairs = (x[:, : d // 2] + 1j * x[:, d // 2 :]) * np.exp(1j * position * spin)
        return np.concatenate([pairs.real, pairs.imag], axis=1)

    out = []
    for position, token in enumerate(tokens):
        x = w["model.embed_tokens.weight"][token]
        for i, (keys, values) in enumerate(cache):
            layer = f"model.layers.{i}"
            n = norm(x, w[f"{layer}.input_layernorm.weight"])
            q, k, v = (linear(f"{layer}.self_attn.{part}_proj", n).reshape(-1, d) for part in "qkv")
            if config["model_type"] == "qwen3":
                q = norm(q, w[f"{layer}.self_attn.q_norm.weight"])
                k = norm(k, w[f"{layer}.self_attn.k_norm.weight"])
            keys.append(turned(k, position))
            values.append(v)
            first = max(0, position + 1 - window_of(config, i))
            mixed = []
            for h, query in enumerate(turned(q, position)):
                scores = np.array([k[h // per] @ query for k in keys[first:]]) / np.sqrt(d)
                p = np.exp(scores - scores.max())
                mixed.append(sum(a * v[h // per] for a, v in zip(p / p.sum(), values[first:], strict=True)))
            x = x + linear(f"{layer}.self_attn.o_proj", np.concatenate(mixed))
            n = norm(x, w[f"{layer}.post_attention_layernorm.weight"])
            gate = linear(f"{layer}.mlp.gate_proj", n)
            x = x + linear(f"{layer}.mlp.down_proj", gate / (1 + np.exp(-gate)) * linear(f"{layer}.mlp.up_proj", n))
        head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
        out.append(head @ norm(x, w["model.norm.weight"]))
    return np.array(out)


def all_logits(folder: Any, policy: FormatPolicy, tokens: Any) -> Any:
    model = checkpoint.load(folder.path)
    run = forward(model, policy, tokens)
    return np.concatenate([chunk for _, chunk in logits(model, policy, run)], axis=1)


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama bf16 in 3 shards": ("llama", {"dtype": ml_dtypes.bfloat16, "shards": 3}),
    "llama fp16": ("llama", {"dtype": np.float16}),
    "llama one kv head": ("llama", {"num_key_value_heads": 1}),
    "llama wide heads": ("llama", {"head_dim": 12, "rope_theta": 500.0, "rms_norm_eps": 1e-2}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama attention biases": ("llama", {"attention_bias": True}),
    "llama linear rope": ("llama", {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_theta": 100.0}),
    "llama llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "mistral window 5": ("mistral", {"sliding_window": 5}),
    "mistral window 1": ("mistral", {"sliding_window": 1}),
    "mistral default window": ("mistral", {}),
    "qwen2": ("qwen2", {"dtype": ml_dtypes.bfloat16}),
    "qwen2 window from layer 1": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "qwen3": ("qwen3", {}),
    "qwen3 biases": ("qwen3", {"attention_bias": True, "shards": 2}),
    "qwen3 alternating windows": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": ALTERNATING},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_reference(name: str, make_folder: Callable[..., Any]) -> None:
    kind, changes = MODELS[name]
    folder = make_folder(kind, **changes)
    tokens = np.random.default_rng(3).integers(0, 97, (2, 24))
    found = all_logits(folder, FLOAT_MODEL, tokens).reshape(2, 24, 97)
    for window in range(2):
        expected = reference_logits(folder, tokens[window])
        assert np.abs(found[window] - expected).max() < 2e-5 * np.abs(expected).max()


def test_window_shorter_than_a_block_of_queries(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("mistral", sliding_window=9, num_hidden_layers=1)
    tokens = np.random.default_rng(4).integers(0, 97, (1, 140))  # attention handles 128 queries together
    expected = reference_logits(folder, tokens[0])
    assert np.abs(all_logits(folder, FLOAT_MODEL, tokens) - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_architecture_runs_on_an_integer_pe(kind: str, make_folder: Callable[..., Any]) -> None:
    folder = make_folder(kind, use_sliding_window=True, sliding_window=5, max_window_layers=0)
    tokens = np.random.default_rng(5).integers(0, 97, (1, 20))
    found = all_logits(folder, FormatPolicy(weights="int8", acts="int8", kv="int8", pe="int8-mac"), tokens)
    expected = reference_logits(folder, tokens[0])
    assert 1e-4 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05


def test_weights_have_canonical_names_and_stored_values(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("qwen2", dtype=ml_dtypes.bfloat16, shards=3)
    model = checkpoint.load(folder.path)
    names = {
        "embed": "model.embed_tokens",
        "head": "lm_head",
        "final_norm": "model.norm",
        "layers.1.q": "model.layers.1.self_attn.q_proj",
        "layers.0.down": "model.layers.0.mlp.down_proj",
        "layers.1.attn_norm": "model.layers.1.input_layernorm",
        "layers.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    }
    for ours, theirs in names.items():
        stored = folder.tensors[f"{theirs}.weight"].astype(np.float32)
        assert np.array_equal(model.weight(ours), stored)
        assert model.weight(ours).dtype == np.float32
        assert model.source_type(ours) == "BF16"
    k_bias = folder.tensors["model.layers.1.self_attn.k_proj.bias"].astype(np.float32)
    assert np.array_equal(model.weight("layers.1.k_bias"), k_bias)
    down = folder.tensors["model.layers.0.mlp.down_proj.weight"].astype(np.float32)
    assert np.array_equal(model.rows("layers.0.down", 3, 9), down[3:9])
    tokens = np.array([5, 2, 5, 96])
    assert np.array_equal(model.embedding(tokens), folder.tensors["model.embed_tokens.weight"][tokens].astype("f4"))
    assert model.matrices[:2] == ("embed", "layers.0.q")
    assert model.matrices[-1] == "head"
    assert len(model.matrices) == 1 + 2 * 7 + 1
    assert model.stored("layers.0.q") is None
    assert grids.detect(model).grid is None


def test_q_and_k_norms_have_names(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("qwen3")
    stored = folder.tensors["model.layers.1.self_attn.k_norm.weight"]
    assert np.array_equal(checkpoint.load(folder.path).weight("layers.1.k_norm"), stored)


def test_shape_says_what_the_config_says(make_folder: Callable[..., Any]) -> None:
    shape = checkpoint.load(make_folder("llama", rope_parameters=LLAMA3, attention_bias=True).path).shape
    assert shape.rope_base == 100.0
    assert shape.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 64)
    assert (shape.qkv_bias, shape.o_bias, shape.mlp_bias, shape.qk_norm) == (True, True, False, False)
    assert (shape.name, shape.source, shape.eps) == ("llama", "config.json of llama", 1e-5)
    shape = checkpoint.load(
        make_folder("qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1).path
    ).shape
    assert (shape.qkv_bias, shape.o_bias) == (True, False)
    assert [shape.window_of(i) for i in range(2)] == [None, 5]
    shape = checkpoint.load(make_folder("qwen3", head_dim=128).path).shape
    assert (shape.head_dim, shape.qk_norm, shape.window_of(0)) == (128, True, None)
    shape = checkpoint.load(make_folder("mistral").path).shape
    assert [shape.window_of(i) for i in range(2)] == [4096, 4096]


def test_impossible_scaling_is_refused() -> None:
    for change, message in {
        ("kind", "yarn"): "rope_scaling.kind = 'yarn': no such kind; known: linear, llama3",
        ("factor", 0.0): "rope_scaling.factor = 0.0: must be a positive number",
        ("low_freq_factor", 4.0): (
            "rope_scaling.low_freq_factor = 4.0: must be above 0 and below high_freq_factor = 4.0"
        ),
        ("original_context", 0): "rope_scaling.original_context = 0: must be a whole number of at least 1",
    }.items():
        with pytest.raises(ConfigError) as error:
            RopeScaling(**({"kind": "llama3", "factor": 8.0} | dict([change])))
        assert str(error.value) == message


def test_a_matrix_at_a_time_is_in_memory(make_folder: Callable[..., Any]) -> None:
    """Peak of allocations of a forward pass: some matrices' size, far below the model's."""
    import tracemalloc

    folder = make_folder(
        "llama", hidden_size=256, intermediate_size=512, num_hidden_layers=8, vocab_size=64, dtype=ml_dtypes.bfloat16
    )
    folder.tensors = {}
    model = checkpoint.load(folder.path)
    tracemalloc.start()
    try:
        forward(model, FLOAT_MODEL, np.zeros((1, 2), np.int64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    matrix, everything = 256 * 512 * 4, model.shape.linear_parameters * 4
    assert everything > 35 * matrix
    assert peak < 6 * matrix


def test_sha256_is_of_config_weights_index_and_tokenizer(make_folder: Callable[..., Any]) -> None:
    from hashlib import sha256

    folder = make_folder("llama", shards=2)
    before = checkpoint.load(folder.path).sha256
    names = ["config.json", "model-0.safetensors", "model-1.safetensors", "model.safetensors.index.json"]
    lines = [f"{name} {sha256((folder.path / name).read_bytes()).hexdigest()}\n" for name in names]
    assert before == sha256("".join(lines).encode()).hexdigest()
    (folder.path / "README.md").write_text("no part of the model")
    assert checkpoint.load(folder.path).sha256 == before
    (folder.path / "tokenizer.json").write_text("{}")
    with_tokenizer = checkpoint.load(folder.path).sha256
    (folder.path / "config.json").write_text(json.dumps(folder.config | {"rms_norm_eps": 2e-5}))
    assert len({before, with_tokenizer, checkpoint.load(folder.path).sha256}) == 3
