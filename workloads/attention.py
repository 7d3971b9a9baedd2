"""Causal attention of one window, with the machine's own activation and cache formats in both products.

q k^T: q is the activation operand, k (after rotation) the weight operand with one scale a token and head.
p v: the scale of a v row lies along the reduction, where an integer PE has no multiplier. It is folded into the
probabilities first: p'[t, j] = p[t, j] * v_scale[j]; each row of p' is then quantised to int8 with its own
float32 scale (also under the one-scale-a-tensor policy, where only the inputs of the matrices and q share scales).
The scaling by 1/sqrt(head_dim), the mask and the softmax are float32, as in a vector unit.
A PE with a short longest group (shift-add: 128 inputs) adds partial sums of p' v of scale 1 in float32; they are
integers below 2**24, so the sum is the same.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from bitwright.workloads.linear import F32, Operand, encode_int8_acts, encode_integers, exact_product
from bitwright.workloads.rounding import round_fp16

_QUERIES = 128  # queries handled together; keys after the last of them are never touched


@dataclasses.dataclass(frozen=True)
class AttentionRule:
    """Formats of the attention's operands.

    acts : "fp16", "int8" or "int8_tensor"   Queries and probabilities.
    kv : "fp16", "int8" or "int4"   Keys and values.
    """

    acts: Literal["fp16", "int8", "int8_tensor"]
    kv: Literal["fp16", "int8", "int4"]

    def attend(self, q: F32, k: F32, v: F32, what: str) -> F32:
        """softmax(q k^T / sqrt(D)) v, causal: q [T, H, D], k and v [T, KV, D] -> [T, H * D] in float32."""
        tokens, heads, width = q.shape
        per_kv = heads // k.shape[1]
        queries = self._queries(q, what)
        mask = np.triu(np.full((_QUERIES, _QUERIES), -np.inf, np.float32), 1)
        out = np.empty((tokens, heads, width), np.float32)
        for kv_head in range(k.shape[1]):
            keys = self._cache(np.ascontiguousarray(k[:, kv_head]), what)
            values = self._cache(np.ascontiguousarray(v[:, kv_head]), what)
            group = slice(kv_head * per_kv, (kv_head + 1) * per_kv)
            for first in range(0, tokens, _QUERIES):
                last = min(first + _QUERIES, tokens)
                block = _rows(queries, group, first, last)
                scores = _product(block, keys, last)
                scores *= np.float32(1.0 / math.sqrt(width))
                by_head = scores.reshape(per_kv, last - first, last)
                by_head[:, :, first:] += mask[: last - first, : last - first]
                _softmax(scores)
                mixed = self._mix(scores, values, last, what)
                out[first:last, group] = mixed.reshape(per_kv, last - first, width).swapaxes(0, 1)
        return out.reshape(tokens, heads * width)

    def _queries(self, q: F32, what: str) -> Operand:
        """The queries as an operand of rows [H * T, D], heads outermost."""
        rows = np.ascontiguousarray(q.swapaxes(0, 1)).reshape(-1, q.shape[2])
        if self.acts == "fp16":
            operand = Operand(round_fp16(rows, f"{what}.q"), None, q.shape[2], 0)
        else:
            operand = encode_int8_acts(rows, 1 if self.acts == "int8_tensor" else None)
        scales = None if operand.scales is None else operand.scales.reshape(q.shape[1], q.shape[0], 1)
        return dataclasses.replace(operand, values=operand.values.reshape(q.shape[1], *q.shape[::2]), scales=scales)

    def _cache(self, rows: F32, what: str) -> Operand:
        """Keys or values of one head, [T, D], as the cache holds them."""
        if self.kv == "fp16":
            return Operand(round_fp16(rows, f"{what}.kv"), None, rows.shape[1], 0)
        operand = encode_integers(rows, self.kv, None)
        if self.acts != "fp16":
            return operand
        assert operand.scales is not None, "integers have scales"
        return Operand(round_fp16(operand.values * operand.scales, f"{what}.kv"), None, rows.shape[1], 0)

    def _mix(self, probabilities: F32, values: Operand, last: int, what: str) -> F32:
        """Probabilities [rows, last] times the first `last` values, [rows, D]."""
        if values.scales is None:
            mixed: F32 = round_fp16(probabilities, f"{what}.p") @ values.values[:last]
            return mixed
        probabilities *= values.scales[:last, 0]
        acts = encode_int8_acts(probabilities, None)
        columns = dataclasses.replace(values, values=np.ascontiguousarray(values.values[:last].T))
        rows, everything = slice(0, len(probabilities)), slice(0, values.values.shape[1])
        out = np.empty((rows.stop, everything.stop), np.float32)
        sums = exact_product(acts, columns, rows, everything, slice(0, last), out)
        assert acts.scales is not None, "integers have scales"
        return sums.astype(np.float32, copy=False) * acts.scales


def _rows(queries: Operand, group: slice, first: int, last: int) -> Operand:
    """The queries first..last of a group of heads as an operand of rows, heads outermost."""
    width = queries.values.shape[2]
    values = np.ascontiguousarray(queries.values[group, first:last]).reshape(-1, width)
    scales = None if queries.scales is None else queries.scales[group, first:last].reshape(-1, 1)
    return dataclasses.replace(queries, values=values, scales=scales)


def _product(queries: Operand, keys: Operand, last: int) -> F32:
    """Scores [rows, last] in float32, before the scaling by the head's size."""
    if keys.scales is None or queries.scales is None:
        scores: F32 = queries.values @ keys.values[:last].T
        return scores
    rows, inputs = slice(0, len(queries.values)), slice(0, queries.values.shape[1])
    sums = exact_product(queries, keys, rows, slice(0, last), inputs, np.empty((rows.stop, last), np.float32))
    scores = np.multiply(sums, keys.scales[:last, 0], dtype=sums.dtype).astype(np.float32, copy=False)
    scores *= queries.scales
    return scores


def _softmax(scores: F32) -> None:
    """Softmax of every row, in place, in float32."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
