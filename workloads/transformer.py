"""A llama-family transformer in numpy whose matrix products follow a machine's arithmetic.

RMSNorm, rotary positions (half-split pairs), grouped-query attention, SwiGLU, tied or own head. All windows go
through one layer before the next layer is touched: a layer's weights are read, quantised and used once, and are
then forgotten, so memory is one layer's weights plus the activations.

Not quantised, and float32 throughout: embedding look-up (a read of one row, not a product), norms, rotation, softmax,
SiLU, residual additions. A machine does these in its vector unit, whose own rounding is not modelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from bitwright.arch.errors import ConfigError
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.linear import F32, Fp16Rule, IntegerRule, LinearRule, Operand, SquaredError
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from numpy.typing import NDArray

_VOCAB_CHUNK = 4096  # rows of the head handled at once: bounds the logits held in memory
Progress = Callable[[int, int], None]


@dataclasses.dataclass
class Forward:
    """What a forward pass leaves behind.

    hidden : float32 [windows, tokens, hidden]   After the final norm: the head's input.
    weight_errors : dict   Matrix name -> SquaredError of its format, for every matrix used so far.
    """

    hidden: F32
    weight_errors: dict[str, SquaredError]


def rule_for(policy: FormatPolicy, format_name: str) -> LinearRule:
    """The arithmetic of `policy.pe` for weights of `format_name`."""
    if policy.pe == "fp16-mac":
        return Fp16Rule(format_name, policy.group)
    return IntegerRule(format_name, policy.group, per_tensor=policy.acts == "int8_tensor")


def forward(
    checkpoint: Checkpoint, policy: FormatPolicy, tokens: NDArray[np.int64], progress: Progress | None = None
) -> Forward:
    """Runs `tokens` [windows, tokens] through all layers; windows do not see each other.

    `progress(done, total)` is called after every layer. Raises ConfigError for token ids outside the vocabulary and
    FormatError for values that a format cannot hold.
    """
    shape = checkpoint.shape
    if tokens.ndim != 2 or tokens.size == 0:
        raise ConfigError(f"tokens.shape = {tokens.shape}: must be [windows, tokens], neither of them 0")
    if tokens.min() < 0 or tokens.max() >= shape.vocab:
        raise ConfigError(f"tokens = {tokens.min()}..{tokens.max()}: must be in 0..{shape.vocab - 1}")
    windows, length = tokens.shape
    layer = _Layer(checkpoint, rule_for(policy, policy.weights), AttentionRule(policy.acts, policy.kv), windows, length)
    stream = checkpoint.embedding(tokens.reshape(-1))
    for index in range(shape.layers):
        layer.run(index, stream)
        if progress is not None:
            progress(index + 1, shape.layers)
    hidden = rms_norm(stream, checkpoint.weight("final_norm"), shape.eps)
    return Forward(hidden.reshape(windows, length, shape.hidden), layer.errors)


def logits(checkpoint: Checkpoint, policy: FormatPolicy, run: Forward) -> Iterator[tuple[int, F32]]:
    """The head's outputs, a chunk of the vocabulary at a time: (first token id, float32 [windows * tokens, chunk]).

    When the last chunk has been taken, `run.weight_errors["head"]` is the error of the whole head.
    """
    rule = rule_for(policy, policy.head_format)
    windows, _, width = run.hidden.shape
    acts = rule.encode_acts(run.hidden.reshape(-1, width), windows, "head.input")
    error = SquaredError(0.0, 0.0)
    for first in range(0, checkpoint.shape.vocab, _VOCAB_CHUNK):
        last = min(first + _VOCAB_CHUNK, checkpoint.shape.vocab)
        weights, chunk_error = rule.encode_weights(checkpoint.rows("head", first, last), "head")
        error += chunk_error
        yield first, rule.multiply(acts, weights)
    run.weight_errors["head"] = error


def rms_norm(values: F32, weight: F32, eps: float) -> F32:
    """values / sqrt(mean(values**2) + eps) * weight over the last axis, float32."""
    mean_square = np.einsum("tk,tk->t", values, values) / np.float32(values.shape[1])
    normed: F32 = values / np.sqrt(mean_square + np.float32(eps))[:, None]
    normed *= weight
    return normed


def rotation(shape: ModelShape, length: int) -> tuple[F32, F32]:
    """Cosine and sine [length, head_dim / 2] of the rotary angles of positions 0..length-1."""
    if shape.rope_base is None:
        raise ConfigError(f"{shape.name}.rope_base = None: this forward pass needs rotary positions")
    half = shape.head_dim // 2
    frequencies = shape.rope_base ** (-np.arange(half, dtype=np.float64) / half)
    angles = np.arange(length, dtype=np.float64)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(values: F32, cosine: F32, sine: F32) -> F32:
    """Rotates pairs (i, i + D/2) of values [windows, T, heads, D] by the angles [T, D/2] of their positions."""
    half = values.shape[-1] // 2
    left, right = values[..., :half], values[..., half:]
    cosine, sine = cosine[:, None, :], sine[:, None, :]
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)


class _Layer:
    """One decoder layer at a time over all windows; keeps the weight errors."""

    def __init__(
        self, checkpoint: Checkpoint, rule: LinearRule, attention: AttentionRule, windows: int, length: int
    ) -> None:
        self.checkpoint, self.rule, self.attention = checkpoint, rule, attention
        self.windows, self.length = windows, length
        self.cosine, self.sine = rotation(checkpoint.shape, length)
        self.errors: dict[str, SquaredError] = {}

    def run(self, index: int, stream: F32) -> None:
        """Adds layer `index` to the residual stream [windows * T, hidden], in place."""
        eps, name = self.checkpoint.shape.eps, f"layers.{index}"
        normed = rms_norm(stream, self.checkpoint.weight(f"{name}.attn_norm"), eps)
        mixed = self._attention(name, self._encode(normed, f"{name}.attn_input"))
        stream += self._linear(f"{name}.o", self._encode(mixed, f"{name}.o_input"))
        normed = rms_norm(stream, self.checkpoint.weight(f"{name}.ffn_norm"), eps)
        acts = self._encode(normed, f"{name}.ffn_input")
        gated = silu(self._linear(f"{name}.gate", acts))
        gated *= self._linear(f"{name}.up", acts)
        stream += self._linear(f"{name}.down", self._encode(gated, f"{name}.down_input"))

    def _encode(self, acts: F32, what: str) -> Operand:
        return self.rule.encode_acts(acts, self.windows, what)

    def _linear(self, name: str, acts: Operand) -> F32:
        weights, self.errors[name] = self.rule.encode_weights(self.checkpoint.weight(name), name)
        return self.rule.multiply(acts, weights)

    def _attention(self, name: str, acts: Operand) -> F32:
        split = (self.windows, self.length, -1, self.checkpoint.shape.head_dim)
        q = rotate(self._linear(f"{name}.q", acts).reshape(split), self.cosine, self.sine)
        k = rotate(self._linear(f"{name}.k", acts).reshape(split), self.cosine, self.sine)
        v = self._linear(f"{name}.v", acts).reshape(split)
        return np.concatenate([self.attention.attend(q[w], k[w], v[w], name) for w in range(self.windows)])


def silu(values: F32) -> F32:
    """values / (1 + exp(-values)), float32, in a new array; very negative values give -0."""
    with np.errstate(over="ignore"):
        gate = np.exp(-values)
    gate += np.float32(1)
    return np.divide(values, gate, out=gate)
