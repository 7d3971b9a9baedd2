"""A decode step of a model whose matrix products run on a board, the rest on the host; and how fast that would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bitwright.arch import formats
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa.limits import Limits
from bitwright.fpga.host.link import CHARACTER_BITS
from bitwright.fpga.host.products import Board, multiply
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.linear import F32, IntegerRule, LinearRule, Operand, SquaredError, rows_of_operand
from bitwright.workloads.transformer import DecoderLayer, rms_norm
from numpy.typing import NDArray

_HEAD_ROWS = 4096
Progress = Callable[[str, int, int], None]


class OnBoard(IntegerRule):
    """The last token's matrix products on a board, those of the tokens before it (whose keys and values a decode step
    finds in its cache) in numpy with the same bits; activations int8 with a scale a token.

    Parameters
        board : runs the tiles
        limits : of its machine, whose PE adds integers
        form, group : weight format and weights that share a scale
        golden : as of `multiply`
    Members
        cycles, runs : of all products so far
    """

    def __init__(self, board: Board, limits: Limits, form: str, group: int | None, *, golden: bool = False) -> None:
        super().__init__(form, group, pass_depth=limits.slice_steps)
        self._board, self._limits, self._form, self._weights_group = board, limits, form, group
        self._golden = golden
        self._encoded: tuple[Operand, Encoded] | None = None
        self.cycles = self.runs = 0

    def encode_weights(self, weight: F32, what: str, codes: Encoded | None = None) -> tuple[Operand, SquaredError]:
        """As IntegerRule's; the codes are kept for the product that follows."""
        if codes is None:
            codes = formats.get(self._form).encode(weight, group=self._weights_group)
        operand, error = super().encode_weights(weight, what, codes)
        self._encoded = operand, codes
        return operand, error

    def multiply(self, acts: Operand, weights: Operand) -> F32:
        """As IntegerRule's, bit for bit."""
        assert self._encoded is not None, "weights are encoded before they are multiplied"
        operand, codes = self._encoded
        assert operand is weights, "the weights encoded last"
        last = len(acts.values) - 1
        done = multiply(
            self._board, codes, rows_of_operand(acts, slice(last, last + 1)), self._limits, golden=self._golden
        )
        self.cycles += done.cycles
        self.runs += len(done.counters)
        before = super().multiply(rows_of_operand(acts, slice(0, last)), weights) if last else done.results[:0]
        return np.concatenate([before, done.results])


def decode_step(
    checkpoint: Checkpoint,
    rule: LinearRule,
    attention: AttentionRule,
    tokens: NDArray[np.int64],
    progress: Progress | None = None,
) -> F32:
    """The logits [vocab] after the last of `tokens` [T]: every matrix, the head too, by `rule`."""
    stream = checkpoint.embedding(tokens)
    layer = DecoderLayer(checkpoint, rule, attention, 1, len(tokens))
    layers, vocab = checkpoint.shape.layers, checkpoint.shape.vocab
    for index in range(layers):
        layer.run(index, stream)
        if progress is not None:
            progress("layers", index + 1, layers)
    hidden = rms_norm(stream[-1:], checkpoint.weight("final_norm"), checkpoint.shape.eps)
    acts = rule.encode_acts(hidden, 1, "head.input")
    logits = np.empty(vocab, np.float32)
    for start in range(0, vocab, _HEAD_ROWS):
        stop = min(start + _HEAD_ROWS, vocab)
        weights, _ = rule.encode_weights(checkpoint.rows("head", start, stop), "head")
        logits[start:stop] = rule.multiply(acts, weights)[0]
        if progress is not None:
            progress("head", stop, vocab)
    return logits


@dataclass(frozen=True)
class Prediction:
    """How long a token takes on a board, from what was counted.

    Members
        cycles : of all runs
        clock_hz : of the board
        bytes_sent, bytes_received : over its line, frames and all
        baud : of the line
    Not modelled: the bridge's and the operating system's delays, the host's own work, one direction of the line while
    the other is busy (the two are added), lost frames. Nothing overlaps: a tile is loaded, run and read back.
    """

    cycles: int
    clock_hz: int
    bytes_sent: int
    bytes_received: int
    baud: int

    @property
    def compute_s(self) -> float:
        """The accelerator's runs."""
        return self.cycles / self.clock_hz

    @property
    def link_s(self) -> float:
        """The line."""
        return (self.bytes_sent + self.bytes_received) * CHARACTER_BITS / self.baud

    @property
    def tokens_per_s(self) -> float:
        """1 over the sum of both."""
        return 1 / (self.compute_s + self.link_s)

    @property
    def link_share(self) -> float:
        """Part of the time that is the line's, 0..1."""
        return self.link_s / (self.compute_s + self.link_s)
