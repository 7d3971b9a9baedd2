"""What shapes are made of: weight matrices, rotary scaling, experts, latent attention."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from bitwright.arch.errors import ConfigError, suggest

_ROPE_KINDS = ("linear", "llama3")


def at_least(owner: str, values: dict[str, Any], least: int) -> None:
    """Refuse what is no whole number of at least `least`. Raises ConfigError naming owner and key."""
    for name, value in values.items():
        if type(value) is not int or value < least:
            raise ConfigError(f"{owner}.{name} = {value!r}: must be a whole number of at least {least}")


@dataclasses.dataclass(frozen=True)
class Matmul:
    """One weight matrix of a model: y[M, n] = x[M, k] @ w[n, k].T, `count` times in the whole model."""

    name: str
    n: int
    k: int
    count: int

    @property
    def parameters(self) -> int:
        """Weights of all `count` matrices."""
        return self.n * self.k * self.count


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies of a model are stretched beyond the context it was first trained on.

    kind "linear": every frequency is divided by `factor`.
    kind "llama3": frequencies with more than `high_freq_factor` turns over `original_context` tokens stay, those with
        fewer than `low_freq_factor` are divided by `factor`, those between are mixed linearly in the number of turns.
    Source: Llama 3.1 model code, `apply_scaling`; the same as "llama3" in transformers' modeling_rope_utils.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in _ROPE_KINDS:
            raise ConfigError(f"rope_scaling.kind = {self.kind!r}: no such kind; {suggest(self.kind, _ROPE_KINDS)}")
        if not 0.0 < self.factor < math.inf:
            raise ConfigError(f"rope_scaling.factor = {self.factor!r}: must be a positive number")
        if not 0.0 < self.low_freq_factor < self.high_freq_factor < math.inf:
            raise ConfigError(
                f"rope_scaling.low_freq_factor = {self.low_freq_factor!r}: must be above 0 and below "
                f"high_freq_factor = {self.high_freq_factor!r}"
            )
        if type(self.original_context) is not int or self.original_context < 1:
            raise ConfigError(
                f"rope_scaling.original_context = {self.original_context!r}: must be a whole number of at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Experts:
    """The feed-forwards of a mixture-of-experts model; all have the gated form of the dense one.

    Fields
        count, active : int   Experts of a layer, and how many of them a token goes through.
        width : int   Inside one expert.
        shared_width : int   Inside what every token goes through besides (all shared experts together); 0: none.
        shared_gate : bool   The shared part's output is scaled by a sigmoid of one more product (Qwen2-MoE).
        dense_layers : int   Layers (the first ones) with the dense feed-forward `ffn` instead.
        router_bias : bool   One number an expert is added to the router's scores (DeepSeek-V3).
    """

    count: int
    active: int
    width: int
    shared_width: int = 0
    shared_gate: bool = False
    dense_layers: int = 0
    router_bias: bool = False

    def __post_init__(self) -> None:
        at_least("experts", {"count": self.count, "active": self.active, "width": self.width}, 1)
        at_least("experts", {"shared_width": self.shared_width, "dense_layers": self.dense_layers}, 0)
        if self.active > self.count:
            raise ConfigError(f"experts.active = {self.active}: must be at most count = {self.count}")


@dataclasses.dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention: keys and values of all heads are one cached vector a token and matrices.

    Fields
        q_rank : int | None   Width that queries are squeezed through; None: one matrix.
        kv_rank : int   Width of the cached latent.
        nope, rope : int   Parts of a query's or key's head: without and with rotation; the rotated part of the key is
            one for all heads, and cached beside the latent.
        value : int   Width of a value's head.
    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.
    """

    q_rank: int | None
    kv_rank: int
    nope: int
    rope: int
    value: int

    def __post_init__(self) -> None:
        sizes = {"kv_rank": self.kv_rank, "nope": self.nope, "rope": self.rope, "value": self.value}
        at_least("latent", sizes | ({} if self.q_rank is None else {"q_rank": self.q_rank}), 1)

    @property
    def cached(self) -> int:
        """Numbers that the cache keeps of a token, in one layer."""
        return self.kv_rank + self.rope
