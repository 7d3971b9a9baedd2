"""config.json of a Hugging Face folder -> ModelShape, for the architectures that the forward pass knows.

Absent keys mean what they mean to transformers 5.23 (configuration_<model_type>.py) where that is one value for every
released model; a size is never guessed. What the forward pass does not do is refused by name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from bitwright.arch.errors import CheckpointError, ConfigError, shown, suggest
from bitwright.workloads.shape_parts import RopeScaling
from bitwright.workloads.shapes import ModelShape


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the code of one `model_type` has beyond its config.

    qkv_bias : bool | None   Always, never, or (None) as `attention_bias` says, which then holds for o as well.
    mlp_bias, qk_norm : bool   `mlp_bias` is read from the config; q and k are normalised.
    head_dim : int | None   Default of `head_dim`; None: hidden_size / num_attention_heads.
    windows : str   "never", "always" (`sliding_window`, default 4096) or "asked" (only with `use_sliding_window`).
    """

    class_name: str
    qkv_bias: bool | None
    mlp_bias: bool
    qk_norm: bool
    head_dim: int | None
    windows: str


ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", None, True, False, None, "never"),
    "mistral": Architecture("MistralForCausalLM", False, False, False, None, "always"),
    "qwen2": Architecture("Qwen2ForCausalLM", True, False, False, None, "asked"),
    "qwen3": Architecture("Qwen3ForCausalLM", None, False, True, 128, "asked"),
}
MOST_LAYERS = 4096
_REQUIRED = object()


class Config:
    """Typed look-ups in config.json; every error names the file and the key."""

    def __init__(self, path: Path, entries: Mapping[str, Any], prefix: str = "") -> None:
        self.path, self.entries, self.prefix = path, entries, prefix

    def refuse(self, key: str, value: object, rule: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {self.prefix}{key} = {shown(value)}: {rule}")

    def whole(self, key: str, default: Any = _REQUIRED) -> int:
        value = self.entries.get(key, default)
        if type(value) is not int or not 1 <= value < 1 << 31:
            self.refuse(key, None if value is _REQUIRED else value, "must be there, as a whole number of at least 1")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        value = self.entries.get(key, default)
        if type(value) not in (int, float) or not 0 <= value < math.inf or value > 1e300:
            self.refuse(key, None if value is _REQUIRED else value, "must be there, as a number of at least 0")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.entries.get(key, False)
        if type(value) is not bool:
            self.refuse(key, value, "must be true or false")
        return value


def architecture(path: Path, entries: Mapping[str, Any]) -> Architecture:
    """The architecture that config.json at `path` names. Raises CheckpointError for one that is not known."""
    config = Config(path, entries)
    kind = entries.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        config.refuse("model_type", kind, f"no such architecture here; {suggest(str(kind), ARCHITECTURES)}")
    known = ARCHITECTURES[kind]
    classes = entries.get("architectures")
    if classes is not None and classes != [known.class_name]:
        config.refuse("architectures", classes, f"must be [{known.class_name!r}], a model with a language head")
    return known


def shape(name: str, path: Path, entries: Mapping[str, Any]) -> ModelShape:
    """The sizes that config.json at `path` states, for a model called `name`.

    Raises CheckpointError for another architecture, a missing or impossible value, or what the forward pass lacks.
    """
    known = architecture(path, entries)
    config = Config(path, entries)
    act = entries.get("hidden_act", "silu")
    if act != "silu":
        config.refuse("hidden_act", act, "must be 'silu'")
    layers, heads = config.whole("num_hidden_layers"), config.whole("num_attention_heads")
    if layers > MOST_LAYERS:
        config.refuse("num_hidden_layers", layers, f"must be at most {MOST_LAYERS}")
    kv_heads = heads
    if entries.get("num_key_value_heads", None if known.class_name.startswith("Llama") else _REQUIRED) is not None:
        kv_heads = config.whole("num_key_value_heads")
    eps = config.number("rms_norm_eps", 1e-6)
    if eps >= 1:
        config.refuse("rms_norm_eps", eps, "must be below 1")
    base, scaling = _rope(config)
    window, sliding_layers = _windows(config, known, layers)
    attention_bias = config.flag("attention_bias") if known.qkv_bias is None else False
    try:
        return ModelShape(
            name=name,
            layers=layers,
            hidden=config.whole("hidden_size"),
            ffn=config.whole("intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=_head_dim(config, known, heads),
            vocab=config.whole("vocab_size"),
            tied_embeddings=config.flag("tie_word_embeddings"),
            gated_ffn=True,
            rope_base=base,
            eps=eps,
            source=f"config.json of {path.parent.name}",
            qkv_bias=attention_bias if known.qkv_bias is None else known.qkv_bias,
            o_bias=attention_bias,
            mlp_bias=config.flag("mlp_bias") if known.mlp_bias else False,
            qk_norm=known.qk_norm,
            sliding_window=window,
            sliding_layers=sliding_layers,
            rope_scaling=scaling,
            max_context=config.whole("max_position_embeddings")
            if entries.get("max_position_embeddings") is not None
            else None,
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _head_dim(config: Config, known: Architecture, heads: int) -> int:
    hidden, given = config.whole("hidden_size"), config.entries.get("head_dim", known.head_dim)
    if given is None:
        if hidden % heads:
            config.refuse("hidden_size", hidden, f"must be a multiple of num_attention_heads = {heads}")
        given = hidden // heads
    if type(given) is not int or given < 2 or given % 2:
        config.refuse("head_dim", given, "must be an even whole number of at least 2")
    return given


def _rope(config: Config) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary frequencies: `rope_parameters` (transformers 5), `rope_scaling`, `rope_theta`."""
    key = "rope_scaling" if config.entries.get("rope_scaling") else "rope_parameters"
    entries = config.entries.get(key)
    entries = {} if entries is None else entries
    if not isinstance(entries, dict):
        config.refuse(key, entries, "must be a map or null")
    rope = Config(config.path, entries, f"{key}.")
    nested = sorted(name for name, value in entries.items() if isinstance(value, dict))
    if nested:
        rope.refuse(nested[0], entries[nested[0]], "frequencies that differ from layer to layer are not supported")
    base = (rope if "rope_theta" in entries else config).number("rope_theta", 10000.0)
    if base < 1:
        config.refuse("rope_theta", base, "must be at least 1")
    for place in (rope, config):
        if place.entries.get("partial_rotary_factor", 1.0) != 1:
            place.refuse(
                "partial_rotary_factor", place.entries["partial_rotary_factor"], "must be 1: whole heads rotate"
            )
    kind = entries.get("rope_type", entries.get("type", "default"))
    if kind == "default":
        return base, None
    if kind not in ("linear", "llama3"):
        rope.refuse("rope_type", kind, f"not supported; {suggest(str(kind), ('default', 'linear', 'llama3'))}")
    try:
        if kind == "linear":
            return base, RopeScaling(kind, rope.number("factor"))
        # As transformers: the config's own key first, and the model's context where neither is given.
        length = "original_max_position_embeddings"
        original = (config if length in config.entries else rope).whole(
            length, config.entries.get("max_position_embeddings", _REQUIRED)
        )
        low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        return base, RopeScaling(kind, rope.number("factor"), low, high, original)
    except ConfigError as error:
        raise CheckpointError(f"{config.path}: {error}") from None


def _windows(config: Config, known: Architecture, layers: int) -> tuple[int | None, tuple[int, ...] | None]:
    """The sliding window and the layers that have it (None: all)."""
    wanted = known.windows == "always" or (known.windows == "asked" and config.flag("use_sliding_window"))
    window = None
    if wanted and config.entries.get("sliding_window", 4096) is not None:
        window = config.whole("sliding_window", 4096)
    kinds = config.entries.get("layer_types") if known.windows != "never" else None
    if kinds is None:
        if window is None or known.windows == "always":
            return window, None
        first = config.entries.get("max_window_layers", 28)
        if type(first) is not int or first < 0:
            config.refuse("max_window_layers", first, "must be a whole number of at least 0")
        return (window, tuple(range(first, layers))) if first < layers else (None, None)
    if not isinstance(kinds, list) or len(kinds) != layers:
        config.refuse("layer_types", kinds, f"must be a list of {layers} types, one a layer")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            config.refuse("layer_types", kind, "must be 'full_attention' or 'sliding_attention'")
    sliding = tuple(index for index, kind in enumerate(kinds) if kind == "sliding_attention")
    if sliding and window is None:
        config.refuse("sliding_window", None, "layer_types has 'sliding_attention', which needs a window")
    if known.windows == "always" and len(sliding) != (layers if window else 0):
        config.refuse("layer_types", kinds, "every layer of this architecture has the window, or none")
    return (window, sliding) if sliding else (None, None)
