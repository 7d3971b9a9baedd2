"""A llama-family transformer in numpy whose matrix products follow a machine's arithmetic.

RMSNorm, rotary positions (half-split pairs, plain or scaled), grouped-query attention over all or a sliding window of
tokens, an RMSNorm a head of q and k (Qwen3), biases (Qwen2), SwiGLU, tied or own head. All windows go through one layer
before the next layer is touched: a matrix is read, quantised, used once and forgotten, so memory is one matrix plus
the activations.

Not quantised, and float32 throughout: embedding look-up (a read of one row, not a product), norms, biases, rotation,
softmax, SiLU, residual additions. A machine does these in its vector unit, whose own rounding is not modelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.linear import F32, LinearRule, Operand, SquaredError, rows_of_operand
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.quantise.prepared import chosen_codes
from bitwright.workloads.rowwise import independent
from bitwright.workloads.rules import attention_for, rule_for
from bitwright.workloads.shape_parts import RopeScaling
from bitwright.workloads.shapes import ModelShape
from numpy.typing import NDArray

_VOCAB_CHUNK = 4096  # rows of the head handled at once: bounds the logits held in memory
Progress = Callable[[int, int], None]
Observe = Callable[[str, F32], None]


@dataclasses.dataclass
class Forward:
    """What a forward pass leaves behind.

    hidden : float32 [windows, tokens, hidden]   After the final norm: the head's input.
    weight_errors : dict   Matrix name -> SquaredError of its format, for every matrix used so far.
    """

    hidden: F32
    weight_errors: dict[str, SquaredError]


def forward(
    checkpoint: Checkpoint,
    policy: FormatPolicy,
    tokens: NDArray[np.int64],
    progress: Progress | None = None,
    *,
    observe: Observe | None = None,
) -> Forward:
    """Runs `tokens` [windows, tokens] through all layers; windows do not see each other.

    `progress(done, total)` is called after every layer. `observe(name, acts)` is called with the float32 input
    [windows * tokens, K] of each group of matrices before it is encoded: "layers.<i>.attn_input" (q, k, v), ".o_input",
    ".ffn_input" (gate, up), ".down_input", and "head.input"; it must not change the array.
    Raises ConfigError for token ids outside the vocabulary and FormatError for values that a format cannot hold.
    """
    shape = checkpoint.shape
    if tokens.ndim != 2 or tokens.size == 0:
        raise ConfigError(f"tokens.shape = {tokens.shape}: must be [windows, tokens], neither of them 0")
    if tokens.min() < 0 or tokens.max() >= shape.vocab:
        raise ConfigError(f"tokens = {tokens.min()}..{tokens.max()}: must be in 0..{shape.vocab - 1}")
    windows, length = tokens.shape
    rule, attention = rule_for(policy, checkpoint), attention_for(policy)
    layer = DecoderLayer(checkpoint, rule, attention, windows, length, observe)
    stream = checkpoint.embedding(tokens.reshape(-1))
    for index in range(shape.layers):
        layer.run(index, stream)
        if progress is not None:
            progress(index + 1, shape.layers)
    hidden = rms_norm(stream, checkpoint.weight("final_norm"), shape.eps)
    if observe is not None:
        observe("head.input", hidden)
    return Forward(hidden.reshape(windows, length, shape.hidden), layer.errors)


def logits(checkpoint: Checkpoint, policy: FormatPolicy, run: Forward) -> Iterator[tuple[int, F32]]:
    """The head's outputs, a chunk of the vocabulary at a time: (first token id, float32 [windows * tokens, chunk]).

    The head is encoded a chunk at a time as well, but whole (and kept as the multiplier takes it) where its format has
    something that is one for a matrix. When the last chunk has been taken, `run.weight_errors["head"]` is the error of
    the whole head.
    """
    rule = rule_for(policy, checkpoint, head=True)
    windows, _, width = run.hidden.shape
    acts = rule.encode_acts(run.hidden.reshape(-1, width), windows, "head.input")
    vocab, error = checkpoint.shape.vocab, SquaredError(0.0, 0.0)
    step = vocab if _is_one_array(policy) else _VOCAB_CHUNK
    for start in range(0, vocab, step):
        stop = min(start + step, vocab)
        codes = chosen_codes(checkpoint, "head", start, stop)
        weights, part_error = rule.encode_weights(checkpoint.rows("head", start, stop), "head", codes)
        error += part_error
        for first in range(start, stop, _VOCAB_CHUNK):
            rows = slice(first - start, first - start + _VOCAB_CHUNK)
            yield first, rule.multiply(acts, rows_of_operand(weights, rows))
    run.weight_errors["head"] = error


def _is_one_array(policy: FormatPolicy) -> bool:
    """Whether codes of one row of the head depend on its other rows."""
    if policy.head_format == "stored":
        return False
    return policy.head_group == "tensor" or not independent(formats.get(policy.head_format))


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
    if shape.rope_scaling is not None:
        frequencies = _scaled(frequencies, shape.rope_scaling)
    angles = np.arange(length, dtype=np.float64)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _scaled(frequencies: NDArray[np.float64], scaling: RopeScaling) -> NDArray[np.float64]:
    """The rotary frequencies (radians a token) after `scaling`."""
    slow = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = frequencies * scaling.original_context / (2 * np.pi)
    share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share = np.clip(share, 0.0, 1.0)
    return share * frequencies + (1.0 - share) * slow


def rotate(values: F32, cosine: F32, sine: F32) -> F32:
    """Rotates pairs (i, i + D/2) of values [windows, T, heads, D] by the angles [T, D/2] of their positions."""
    half = values.shape[-1] // 2
    left, right = values[..., :half], values[..., half:]
    cosine, sine = cosine[:, None, :], sine[:, None, :]
    out = np.empty_like(values)
    for window in range(len(values)):  # a window's parts stay in the cache
        np.multiply(left[window], cosine, out=out[window, ..., :half])
        np.multiply(right[window], cosine, out=out[window, ..., half:])
        out[window, ..., :half] -= right[window] * sine
        out[window, ..., half:] += left[window] * sine
    return out


class DecoderLayer:
    """One decoder layer at a time over all windows; keeps the weight errors.

    Parameters
        checkpoint, rule, attention   The weights, the arithmetic of the matrices and that of the attention.
        windows, length : int         The residual stream holds `windows` runs of `length` tokens, one after the other.
        observe                       As in `forward`, without "head.input".
    A quantiser that goes layer by layer starts from `checkpoint.embedding` and calls `run` for index 0, 1, ...; running
    an index again on a copy of the same stream gives the same result.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rule: LinearRule,
        attention: AttentionRule,
        windows: int,
        length: int,
        observe: Observe | None = None,
    ) -> None:
        self.checkpoint, self.rule, self.attention = checkpoint, rule, attention
        self.windows, self.length, self.observe = windows, length, observe
        self.cosine, self.sine = rotation(checkpoint.shape, length)
        self.errors: dict[str, SquaredError] = {}

    def run(self, index: int, stream: F32) -> None:
        """Adds layer `index` to the residual stream [windows * T, hidden], in place."""
        eps, name = self.checkpoint.shape.eps, f"layers.{index}"
        normed = rms_norm(stream, self.checkpoint.weight(f"{name}.attn_norm"), eps)
        mixed = self._attention(index, self._encode(normed, f"{name}.attn_input"))
        stream += self._linear(f"{name}.o", self._encode(mixed, f"{name}.o_input"))
        normed = rms_norm(stream, self.checkpoint.weight(f"{name}.ffn_norm"), eps)
        acts = self._encode(normed, f"{name}.ffn_input")
        gated = silu(self._linear(f"{name}.gate", acts))
        gated *= self._linear(f"{name}.up", acts)
        stream += self._linear(f"{name}.down", self._encode(gated, f"{name}.down_input"))

    def _encode(self, acts: F32, what: str) -> Operand:
        if self.observe is not None:
            self.observe(what, acts)
        return self.rule.encode_acts(acts, self.windows, what)

    def _linear(self, name: str, acts: Operand) -> F32:
        weight, codes = self.checkpoint.weight(name), chosen_codes(self.checkpoint, name)
        weights, self.errors[name] = self.rule.encode_weights(weight, name, codes)
        out = self.rule.multiply(acts, weights)
        if self.checkpoint.shape.bias_of(name.rpartition(".")[2]):
            out += self.checkpoint.weight(f"{name}_bias")
        return out

    def _attention(self, index: int, acts: Operand) -> F32:
        name, window = f"layers.{index}", self.checkpoint.shape.window_of(index)
        q, k = (rotate(self._heads(f"{name}.{part}", acts), self.cosine, self.sine) for part in ("q", "k"))
        v = self._heads(f"{name}.v", acts)
        runs = [self.attention.attend(q[w], k[w], v[w], name, window) for w in range(self.windows)]
        return np.concatenate(runs)

    def _heads(self, name: str, acts: Operand) -> F32:
        """q, k or v before the rotation: [windows, T, heads, D]."""
        shape = self.checkpoint.shape
        rows = self._linear(name, acts).reshape(-1, shape.head_dim)
        if shape.qk_norm and not name.endswith(".v"):
            rows = rms_norm(rows, self.checkpoint.weight(f"{name}_norm"), shape.eps)
        return rows.reshape(self.windows, self.length, -1, shape.head_dim)


def silu(values: F32) -> F32:
    """values / (1 + exp(-values)), float32, in a new array; very negative values give -0."""
    with np.errstate(over="ignore"):
        gate = np.exp(-values)
    gate += np.float32(1)
    return np.divide(values, gate, out=gate)
