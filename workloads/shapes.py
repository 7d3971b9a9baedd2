"""Published model shapes: how many matrices of which size a model has, without its weights."""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import resources
from typing import Any

import yaml
from bitwright.arch.errors import ConfigError, suggest

_FILE = "workloads/models.yaml"


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
class ModelShape:
    """The sizes of a decoder-only transformer.

    Fields
        layers, hidden, ffn : int   Decoder layers, width of the residual stream, width inside the feed-forward.
        heads, kv_heads, head_dim : int   Query heads, key/value heads (grouped-query attention), width of a head.
        vocab : int   Rows of the head's matrix (padded size).
        tied_embeddings : bool   The head's matrix is the embedding's.
        gated_ffn : bool   Three matrices (gate, up, down) instead of two (up, down).
        rope_base : float | None   Base of the rotary angles; None where positions are learned.
        eps : float   Added under the norm's square root.
        source : str   Where the numbers were read.
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

    def __post_init__(self) -> None:
        for field in ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{self.name}.{field} = {value!r}: must be a whole number of at least 1")
        if self.heads % self.kv_heads:
            raise ConfigError(f"{self.name}.heads = {self.heads}: must be a multiple of kv_heads = {self.kv_heads}")

    def matmuls(self) -> tuple[Matmul, ...]:
        """Every weight matrix, in the order a token meets them; the attention's own products are not here."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = [("q", q, self.hidden), ("k", kv, self.hidden), ("v", kv, self.hidden), ("o", self.hidden, q)]
        sizes += [("gate", self.ffn, self.hidden)] if self.gated_ffn else []
        sizes += [("up", self.ffn, self.hidden), ("down", self.hidden, self.ffn)]
        layer = [Matmul(name, n, k, self.layers) for name, n, k in sizes]
        return (*layer, Matmul("head", self.vocab, self.hidden, 1))

    @property
    def linear_parameters(self) -> int:
        """Weights of all matrices that multiply activations, the head included."""
        return sum(matmul.parameters for matmul in self.matmuls())


@cache
def _table() -> dict[str, ModelShape]:
    text = resources.files("bitwright.workloads").joinpath("models.yaml").read_text("utf-8")
    entries: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {name: _shape(name, entry) for name, entry in entries.items()}


def _shape(name: str, entry: dict[str, Any]) -> ModelShape:
    fields = {field.name for field in dataclasses.fields(ModelShape)} - {"name"}
    for key in entry:
        if key not in fields:
            raise ConfigError(f"{name}.{key}: unknown key; {suggest(key, fields)}; {_FILE}")
    for key in sorted(fields - set(entry)):
        raise ConfigError(f"{name}.{key}: missing; {_FILE}")
    return ModelShape(name=name, **entry)


def names() -> tuple[str, ...]:
    """Names of the known shapes, in the file's order."""
    return tuple(_table())


def get(name: str) -> ModelShape:
    """The shape called `name`.

    Raises ConfigError with the closest known name when there is none.
    """
    try:
        return _table()[name]
    except KeyError:
        raise ConfigError(f"model = {name!r}: no such shape; {suggest(name, names())}") from None
