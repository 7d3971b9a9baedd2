"""Shapes of decoder-only transformers: how many matrices of which size a model has, without its weights.

The published ones are data: models.yaml, every entry with its source.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import resources
from typing import Any

import yaml
from bitwright.arch.errors import ConfigError, suggest
from bitwright.workloads.other_shapes import ScanShape, VisionShape
from bitwright.workloads.shape_parts import Experts, LatentAttention, Matmul, RopeScaling, at_least

_NORMS = ("rms", "layer")


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder-only transformer.

    Fields
        layers, hidden, ffn : int   Decoder layers, width of the residual stream, width inside the feed-forward.
        heads, kv_heads, head_dim : int   Query heads, key/value heads (grouped-query attention), width of a head. With
            `latent` set: kv_heads = heads and head_dim = nope + rope.
        vocab : int   Rows of the head's matrix (padded size).
        tied_embeddings : bool   The head's matrix is the embedding's.
        gated_ffn : bool   Three matrices (gate, up, down) instead of two (up, down).
        rope_base : float | None   Base of the rotary angles; None where positions are learned.
        eps : float   Added under the norm's square root.
        source : str   Where the numbers were read.
        qkv_bias, o_bias, mlp_bias : bool   Whether q, k and v, o, and the feed-forward's matrices have biases.
        qk_norm : bool   An RMSNorm over every head of q and of k before the rotation (Qwen3).
        sliding_window : int | None   Tokens that an attention layer sees, itself included; None: all before it.
        sliding_layers : tuple of int | None   Layers with that window; None: all.
        rope_scaling : RopeScaling | None   Stretched rotary frequencies.
        sink_tokens : int   First tokens of a sequence that layers with a window see besides it.
        max_context : int | None   Tokens that the model was made for; None: not stated.
        positions : int   Rows of the table of learned positions; 0: none.
        alibi : bool   Positions are a slope a head, added to the scores.
        rotary_dim : int | None   Elements of a head that are rotated; None: all.
        head_bias : bool   Whether the language head has one.
        norm : "rms" (a weight) | "layer" (a weight and a bias)
        layer_norms : int   Norms over the residual stream in a layer (Gemma 3 has four, a parallel block one).
        inner_norms : bool   Norms before the output projection and before down (BitNet).
        embedding_norm : bool   A norm of the embedding (BLOOM).
        parallel : bool   Attention and feed-forward read the same input and are added together.
        experts : Experts | None   Mixture of experts.
        latent : LatentAttention | None   Multi-head latent attention.
    """

    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied_embeddings: bool
    gated_ffn: bool
    rope_base: float | None
    eps: float
    source: str
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] | None = None
    rope_scaling: RopeScaling | None = None
    sink_tokens: int = 0
    max_context: int | None = None
    positions: int = 0
    alibi: bool = False
    rotary_dim: int | None = None
    head_bias: bool = False
    norm: str = "rms"
    layer_norms: int = 2
    inner_norms: bool = False
    embedding_norm: bool = False
    parallel: bool = False
    experts: Experts | None = None
    latent: LatentAttention | None = None

    def __post_init__(self) -> None:
        sizes = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab")
        at_least(self.name, {field: getattr(self, field) for field in sizes}, 1)
        if self.heads % self.kv_heads:
            raise ConfigError(f"{self.name}.heads = {self.heads}: must be a multiple of kv_heads = {self.kv_heads}")
        given = {name: getattr(self, name) for name in ("sliding_window", "max_context", "rotary_dim")}
        at_least(self.name, {name: value for name, value in given.items() if value is not None}, 1)
        counts = ("sink_tokens", "positions", "layer_norms")
        at_least(self.name, {field: getattr(self, field) for field in counts}, 0)
        if self.norm not in _NORMS:
            raise ConfigError(f"{self.name}.norm = {self.norm!r}: no such norm; {suggest(self.norm, _NORMS)}")
        if self.experts is not None and self.experts.dense_layers >= self.layers:
            raise ConfigError(
                f"{self.name}.experts.dense_layers = {self.experts.dense_layers}: must be below layers = {self.layers}"
            )
        latent = self.latent
        if latent is not None and (self.kv_heads, self.head_dim) != (self.heads, latent.nope + latent.rope):
            raise ConfigError(
                f"{self.name}.kv_heads, head_dim = {self.kv_heads}, {self.head_dim}: with latent they must be heads = "
                f"{self.heads} and nope + rope = {latent.nope + latent.rope}"
            )

    @property
    def dense_layers(self) -> int:
        """Layers whose feed-forward is the dense one."""
        return self.layers if self.experts is None else self.experts.dense_layers

    @property
    def value_dim(self) -> int:
        """Width of a head's value."""
        return self.head_dim if self.latent is None else self.latent.value

    @property
    def cached_per_token(self) -> int:
        """Numbers that the KV cache keeps of a token, in one layer."""
        return 2 * self.kv_heads * self.head_dim if self.latent is None else self.latent.cached

    def window_of(self, layer: int) -> int | None:
        """Tokens that the attention of `layer` sees, itself included; None: all before it."""
        sliding = self.sliding_layers is None or layer in self.sliding_layers
        return self.sliding_window if sliding else None

    def windows(self) -> dict[int | None, int]:
        """Window (None: none) -> how many layers have it."""
        if self.sliding_window is None:
            return {None: self.layers}
        sliding = self.layers if self.sliding_layers is None else len(self.sliding_layers)
        counts = {None: self.layers - sliding, self.sliding_window: sliding}
        return {window: count for window, count in counts.items() if count}

    def bias_of(self, part: str) -> bool:
        """Whether the layers' matrix `part` ("q", "down", ...) has a bias."""
        if part in ("q", "k", "v"):
            return self.qkv_bias
        return self.o_bias if part == "o" else self.mlp_bias

    def matmuls(self) -> tuple[Matmul, ...]:
        """Every weight matrix, in the order a token meets them; the attention's own products are not here."""
        layer = [Matmul(name, n, k, self.layers) for name, n, k in self._projections()]
        layer += [Matmul(name, n, k, self.dense_layers) for name, n, k in self.ffn_sizes("", self.ffn)]
        if self.experts is not None:
            experts, count = self.experts, self.layers - self.dense_layers
            layer.append(Matmul("router", experts.count, self.hidden, count))
            routed = self.ffn_sizes("expert_", experts.width)
            layer += [Matmul(name, n, k, count * experts.count) for name, n, k in routed]
            if experts.shared_width:
                layer += [Matmul(name, n, k, count) for name, n, k in self.ffn_sizes("shared_", experts.shared_width)]
            if experts.shared_gate:
                layer.append(Matmul("shared_scale", 1, self.hidden, count))
        return (*(matmul for matmul in layer if matmul.count), Matmul("head", self.vocab, self.hidden, 1))

    def ffn_sizes(self, prefix: str, width: int) -> list[tuple[str, int, int]]:
        """(name, n, k) of the matrices of a feed-forward of `width` inside."""
        sizes = [(f"{prefix}gate", width, self.hidden)] if self.gated_ffn else []
        return [*sizes, (f"{prefix}up", width, self.hidden), (f"{prefix}down", self.hidden, width)]

    def _projections(self) -> list[tuple[str, int, int]]:
        q, latent = self.heads * self.head_dim, self.latent
        if latent is None:
            kv = self.kv_heads * self.head_dim
            return [("q", q, self.hidden), ("k", kv, self.hidden), ("v", kv, self.hidden), ("o", self.hidden, q)]
        down = [] if latent.q_rank is None else [("q_down", latent.q_rank, self.hidden)]
        return [
            *down,
            ("q" if latent.q_rank is None else "q_up", q, latent.q_rank or self.hidden),
            ("kv_down", latent.cached, self.hidden),
            ("kv_up", self.heads * (latent.nope + latent.value), latent.kv_rank),
            ("o", self.hidden, self.heads * latent.value),
        ]

    @property
    def linear_parameters(self) -> int:
        """Weights of all matrices that multiply activations, the head included."""
        return sum(matmul.parameters for matmul in self.matmuls())

    @property
    def parameters(self) -> int:
        """Everything that was trained: matrices, embedding (once where the head is tied to it), norms, biases."""
        tables = (0 if self.tied_embeddings else self.vocab) + self.positions
        return self.linear_parameters + tables * self.hidden + self._biases() + self._norms()

    @property
    def active_parameters(self) -> int:
        """`parameters` without the experts that a token does not go through."""
        if self.experts is None:
            return self.parameters
        idle = (self.experts.count - self.experts.active) * (self.layers - self.dense_layers)
        return self.parameters - idle * sum(n * k for _, n, k in self.ffn_sizes("", self.experts.width))

    def _biases(self) -> int:
        matmuls = [matmul for matmul in self.matmuls() if matmul.name != "head" and self.bias_of(matmul.name)]
        router = self.experts.count * (self.layers - self.dense_layers) if self.experts else 0
        found = sum(matmul.n * matmul.count for matmul in matmuls) + (self.vocab if self.head_bias else 0)
        return found + (router if self.experts and self.experts.router_bias else 0)

    def _norms(self) -> int:
        rows = 2 if self.norm == "layer" else 1
        layer = self.layer_norms * self.hidden + (self.heads * self.value_dim + self.ffn if self.inner_norms else 0)
        total = rows * (self.layers * layer + self.hidden + (self.hidden if self.embedding_norm else 0))
        inside = 2 * self.head_dim if self.qk_norm else 0
        if self.latent is not None:
            inside += (self.latent.q_rank or 0) + self.latent.kv_rank
        return total + self.layers * inside


Shape = ModelShape | VisionShape | ScanShape
_FILE = "workloads/models.yaml"
_FAMILIES = {"decoder": ModelShape, "vision": VisionShape, "scan": ScanShape}
_PARTS = {"experts": Experts, "latent": LatentAttention}


@cache
def published() -> dict[str, Shape]:
    """Name -> shape, in the file's order; vision and scan models included."""
    text = resources.files("bitwright.workloads").joinpath("models.yaml").read_text("utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries: dict[str, dict[str, Any]] = yaml.load(text, Loader=loader)
    return {name: _shape(name, entry) for name, entry in entries.items()}


def family(shape: Shape) -> str:
    """ "decoder", "vision" or "scan"."""
    return next(name for name, kind in _FAMILIES.items() if isinstance(shape, kind))


def names() -> tuple[str, ...]:
    """Names of the decoders, in the file's order."""
    return tuple(name for name, shape in published().items() if isinstance(shape, ModelShape))


def get(name: str) -> ModelShape:
    """The decoder called `name`.

    Raises ConfigError for a vision or scan model, and with the closest known name when there is none.
    """
    shape = published().get(name)
    if shape is None:
        raise ConfigError(f"model = {name!r}: no such shape; {suggest(name, names())}")
    if not isinstance(shape, ModelShape):
        raise ConfigError(
            f"model = {name!r}: only its matrix sizes are known (bitwright list models), no timing of it is claimed; "
            "name a decoder"
        )
    return shape


def _shape(name: str, entry: dict[str, Any]) -> Shape:
    values = dict(entry)
    family = values.pop("family", "decoder")
    if family not in _FAMILIES:
        raise ConfigError(f"{name}.family = {family!r}: no such family; {suggest(str(family), _FAMILIES)}; {_FILE}")
    for part, kind in _PARTS.items():
        if part in values:
            values[part] = kind(**_checked(f"{name}.{part}", kind, values[part]))
    if isinstance(values.get("sliding_layers"), list):
        values["sliding_layers"] = tuple(values["sliding_layers"])
    kind = _FAMILIES[family]
    shape: Shape = kind(name=name, **_checked(name, kind, values))
    return shape


def _checked(owner: str, kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name != "name"}
    for key in values:
        if key not in fields:
            raise ConfigError(f"{owner}.{key}: unknown key; {suggest(key, fields)}; {_FILE}")
    for key, field in sorted(fields.items()):
        if field.default is dataclasses.MISSING and key not in values:
            raise ConfigError(f"{owner}.{key}: missing; {_FILE}")
    return values
