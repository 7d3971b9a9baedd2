"""config.json of a Hugging Face model whose forward pass is not here -> ModelShape, for the simulator.

Sizes and structure only: scaled rotary frequencies, soft caps, multipliers and the order of dense and sparse layers
change no count and are not read. Absent keys mean what they mean to transformers 5.23
(configuration_<model_type>.py); a size is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bitwright.arch.errors import CheckpointError, ConfigError, suggest
from bitwright.workloads import hf_config
from bitwright.workloads.hf_config import Config
from bitwright.workloads.shape_parts import Experts, LatentAttention
from bitwright.workloads.shapes import ModelShape

_ALL_BIASES = {"qkv_bias": True, "o_bias": True, "mlp_bias": True}
_EPS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "layernorm_epsilon", "norm_epsilon", "norm_eps")


def shape(name: str, path: Path, entries: Mapping[str, Any]) -> ModelShape:
    """The sizes that config.json at `path` states, for a model called `name`.

    Raises CheckpointError for an architecture that is not known, or a missing or impossible value.
    """
    config = Config(path, entries)
    kind = entries.get("model_type")
    if kind in hf_config.ARCHITECTURES:
        return hf_config.shape(name, path, entries)
    if not isinstance(kind, str) or kind not in _READERS:
        known = (*hf_config.ARCHITECTURES, *_READERS)
        config.refuse("model_type", kind, f"no such architecture here; {suggest(str(kind), known)}")
    values = _common(config) | {"name": name, "source": f"config.json of {path.parent.name}"}
    try:
        return ModelShape(**(values | _READERS[kind](config, values)))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _first(config: Config, keys: tuple[str, ...]) -> int:
    """The whole number under the first of these keys that is there."""
    return config.whole(next((key for key in keys if config.entries.get(key) is not None), keys[0]))


def _or(config: Config, key: str, default: int) -> int:
    """`key`, or `default` where it is absent or null."""
    return default if config.entries.get(key) is None else config.whole(key)


def _flag(config: Config, key: str, default: bool) -> bool:
    return config.flag(key) if key in config.entries else default


def _common(config: Config) -> dict[str, Any]:
    """What most architectures say alike; RMSNorm, gated, rotary, head not tied."""
    hidden = _first(config, ("hidden_size", "n_embd", "n_embed"))
    heads = _first(config, ("num_attention_heads", "n_head"))
    layers = _first(config, ("num_hidden_layers", "n_layer"))
    if layers > hf_config.MOST_LAYERS:
        config.refuse("num_hidden_layers", layers, f"must be at most {hf_config.MOST_LAYERS}")
    contexts = [
        key for key in ("max_position_embeddings", "n_positions", "seq_length") if config.entries.get(key) is not None
    ]
    rope = config.entries.get("rope_parameters")
    place = Config(config.path, rope, "rope_parameters.") if isinstance(rope, dict) and "rope_theta" in rope else config
    eps = next((key for key in _EPS if key in config.entries), None)
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": _or(config, "num_key_value_heads", heads),
        "head_dim": _or(config, "head_dim", hidden // heads),
        "ffn": _or(config, "intermediate_size", 4 * hidden),
        "vocab": config.whole("vocab_size"),
        "tied_embeddings": _flag(config, "tie_word_embeddings", False),
        "gated_ffn": True,
        "rope_base": place.number("rope_theta", 10000.0),
        "eps": config.number(eps) if eps else 1e-5,
        "max_context": config.whole(contexts[0]) if contexts else None,
    }


def _tied(config: Config, **values: Any) -> dict[str, Any]:
    """With the head tied unless the config says otherwise."""
    return {"tied_embeddings": _flag(config, "tie_word_embeddings", True), **values}


def _gpt2(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    ffn = _or(config, "n_inner", 4 * common["hidden"])
    positions = common["max_context"] or 1024
    plain = {"gated_ffn": False, "rope_base": None, "norm": "layer", "positions": positions, "ffn": ffn}
    return _tied(config, **plain, **_ALL_BIASES)


def _opt(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    if _or(config, "word_embed_proj_dim", common["hidden"]) != common["hidden"]:
        config.refuse("word_embed_proj_dim", config.entries["word_embed_proj_dim"], "must be hidden_size")
    if not _flag(config, "do_layer_norm_before", True):
        config.refuse("do_layer_norm_before", False, "must be true")
    plain = {"gated_ffn": False, "rope_base": None, "norm": "layer", "ffn": config.whole("ffn_dim")}
    return _tied(config, **plain, positions=config.whole("max_position_embeddings") + 2, **_ALL_BIASES)


def _bloom(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    plain = {"gated_ffn": False, "rope_base": None, "norm": "layer", "alibi": True, "embedding_norm": True}
    return _tied(config, **plain, ffn=4 * common["hidden"], **_ALL_BIASES)


def _falcon(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    new = _flag(config, "new_decoder_architecture", False)
    many = _or(config, "num_kv_heads", common["heads"])
    kv_heads = many if new else 1 if _flag(config, "multi_query", True) else common["heads"]
    parallel, alibi, bias = _flag(config, "parallel_attn", True), _flag(config, "alibi", False), config.flag("bias")
    norms = _or(config, "num_ln_in_parallel_attn", 2) if new else 1 if parallel else 2
    return _tied(
        config, gated_ffn=False, norm="layer", kv_heads=kv_heads, parallel=parallel or new, alibi=alibi,
        rope_base=None if alibi else common["rope_base"], ffn=_or(config, "ffn_hidden_size", 4 * common["hidden"]),
        layer_norms=norms, qkv_bias=bias, o_bias=bias, mlp_bias=bias,
    )  # fmt: skip


def _phi(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    rotated = int(common["head_dim"] * _share(config, "partial_rotary_factor", 0.5))
    plain = {"gated_ffn": False, "norm": "layer", "layer_norms": 1, "parallel": True, "head_bias": True}
    return {**plain, "rotary_dim": rotated, **_ALL_BIASES}


def _gpt_neox(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    rotated = int(common["head_dim"] * _share(config, "rotary_pct", 0.25))
    bias = _flag(config, "attention_bias", True)
    return {
        "gated_ffn": False, "norm": "layer", "parallel": _flag(config, "use_parallel_residual", True),
        "rotary_dim": rotated, "qkv_bias": bias, "o_bias": bias, "mlp_bias": True,
        "rope_base": config.number("rotary_emb_base", common["rope_base"]),
    }  # fmt: skip


def _share(config: Config, key: str, default: float) -> float:
    """A share of a head's elements, on its own or among the rotary parameters."""
    rope = config.entries.get("rope_parameters")
    place = Config(config.path, rope, "rope_parameters.") if isinstance(rope, dict) and key in rope else config
    value = place.number(key, default)
    if not 0 < value <= 1:
        place.refuse(key, value, "must be above 0 and at most 1")
    return value


def _gemma(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    return _tied(config, head_dim=config.whole("head_dim", 256))


def _gemma2(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    every_other = tuple(range(0, common["layers"], 2))
    return _gemma(config, common) | {"layer_norms": 4, **_windows(config, common["layers"], every_other)}


def _gemma3(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    period = _or(config, "sliding_window_pattern", _or(config, "_sliding_window_pattern", 6))
    local = tuple(layer for layer in range(common["layers"]) if (layer + 1) % period)
    base = config.number("rope_theta", 1e6)
    windows = _windows(config, common["layers"], local)
    return _gemma(config, common) | {"layer_norms": 4, "qk_norm": True, "rope_base": base, **windows}


def _windows(config: Config, layers: int, default: tuple[int, ...] | None) -> dict[str, Any]:
    """sliding_window and the layers that have it: `layer_types`, or `default`."""
    if config.entries.get("sliding_window") is None:
        return {}
    kinds = config.entries.get("layer_types")
    if kinds is not None:
        good = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in good for kind in kinds):
            config.refuse("layer_types", kinds, f"must be a list of {layers} of {', '.join(good)}")
        default = tuple(index for index, kind in enumerate(kinds) if kind == good[1])
    if default == ():
        return {}
    return {"sliding_window": config.whole("sliding_window"), "sliding_layers": default}


def _mixtral(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    active = config.whole("num_experts_per_tok", 2)
    experts = Experts(config.whole("num_local_experts"), active, common["ffn"])
    return {"experts": experts, **_windows(config, common["layers"], None)}


def _dense_of(config: Config, layers: int) -> int:
    """Layers without experts, of Qwen's two keys."""
    step, named = _or(config, "decoder_sparse_step", 1), config.entries.get("mlp_only_layers") or []
    if not isinstance(named, list) or not all(type(layer) is int for layer in named):
        config.refuse("mlp_only_layers", named, "must be a list of layer numbers")
    return sum(layer in named or (layer + 1) % step != 0 for layer in range(layers))


def _qwen2_moe(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    experts = Experts(
        config.whole("num_experts"), config.whole("num_experts_per_tok"), config.whole("moe_intermediate_size"),
        shared_width=config.whole("shared_expert_intermediate_size"), shared_gate=True,
        dense_layers=_dense_of(config, common["layers"]),
    )  # fmt: skip
    return {"experts": experts, "qkv_bias": True, **_asked_windows(config, common["layers"])}


def _qwen3_moe(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    experts = Experts(
        config.whole("num_experts"), config.whole("num_experts_per_tok"), config.whole("moe_intermediate_size"),
        dense_layers=_dense_of(config, common["layers"]),
    )  # fmt: skip
    bias = config.flag("attention_bias")
    plain = {"experts": experts, "qk_norm": True, "qkv_bias": bias, "o_bias": bias}
    return plain | _asked_windows(config, common["layers"])


def _asked_windows(config: Config, layers: int) -> dict[str, Any]:
    return _windows(config, layers, None) if config.flag("use_sliding_window") else {}


def _deepseek(config: Config, common: dict[str, Any], version: int) -> dict[str, Any]:
    rope, nope = config.whole("qk_rope_head_dim"), config.whole("qk_nope_head_dim")
    q_rank = None if config.entries.get("q_lora_rank") is None else config.whole("q_lora_rank")
    latent = LatentAttention(q_rank, config.whole("kv_lora_rank"), nope, rope, config.whole("v_head_dim"))
    values = {"latent": latent, "kv_heads": common["heads"], "head_dim": nope + rope}
    if config.entries.get("n_routed_experts") is None:
        return values
    if _or(config, "moe_layer_freq", 1) != 1:
        config.refuse("moe_layer_freq", config.entries["moe_layer_freq"], "must be 1")
    width, dense = config.whole("moe_intermediate_size"), config.entries.get("first_k_dense_replace", 0)
    shared = width * config.whole("n_shared_experts") if config.entries.get("n_shared_experts") else 0
    active = config.whole("num_experts_per_tok")
    count = config.whole("n_routed_experts")
    return values | {"experts": Experts(count, active, width, shared, False, dense, router_bias=version == 3)}


def _starcoder2(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    bias = _flag(config, "use_bias", True)
    biases = dict.fromkeys(_ALL_BIASES, bias)
    return _tied(config, gated_ffn=False, norm="layer", **biases, **_windows(config, common["layers"], None))


def _phi3(config: Config, common: dict[str, Any]) -> dict[str, Any]:
    rotated = int(common["head_dim"] * _share(config, "partial_rotary_factor", 1.0))
    return {"rotary_dim": rotated, **_windows(config, common["layers"], None)}


_READERS: dict[str, Callable[[Config, dict[str, Any]], dict[str, Any]]] = {
    "bitnet": lambda config, common: _tied(config, inner_norms=True),
    "bloom": _bloom,
    "deepseek_v2": lambda config, common: _deepseek(config, common, 2),
    "deepseek_v3": lambda config, common: _deepseek(config, common, 3),
    "falcon": _falcon,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "mixtral": _mixtral,
    "opt": _opt,
    "phi": _phi,
    "phi3": _phi3,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "starcoder2": _starcoder2,
}
