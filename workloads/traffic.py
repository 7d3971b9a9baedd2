"""The least bytes that one step moves: every operand of every operator once."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.arch import formats
from bitwright.workloads.attended import cached_keys
from bitwright.workloads.operators import Work
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.steps import Step


@dataclass(frozen=True)
class Traffic:
    """Bytes of one step, each field rounded up.

    Fields
        weights : int   Of the matrices, with scales and indices; experts that no token goes through are not read.
        indices : int   Of `weights`, places of the weights that N:M sparsity kept.
        cache_read, cache_written : int   KV cache: what any query of a sequence sees is read once a layer, the new
            tokens' own included; their keys and values are written.
        acts_read, acts_written : int   Inputs and outputs of every matrix product that are no cache.
        embedding : int   fp16 rows of the new tokens.
    """

    weights: int
    indices: int
    cache_read: int
    cache_written: int
    acts_read: int
    acts_written: int
    embedding: int

    @property
    def total(self) -> int:
        """All bytes; `indices` are part of `weights`."""
        cache, acts = self.cache_read + self.cache_written, self.acts_read + self.acts_written
        return self.weights + cache + acts + self.embedding


def cache_bits(shape: ModelShape, policy: FormatPolicy, tokens: int) -> int:
    """Bits of the KV cache of so many tokens in one layer, scales included."""
    if tokens == 0:
        return 0
    stored = formats.get(policy.kv)
    if shape.latent is not None:
        return stored.storage_bits((tokens, shape.latent.cached), None).total
    return 2 * stored.storage_bits((tokens * shape.kv_heads, shape.head_dim), None).total


def traffic_of(shape: ModelShape, policy: FormatPolicy, step: Step, work: Work) -> Traffic:
    """Of `work`, which is `work_of(shape, policy, step, ...)`; the policy's formats must be of a PE."""
    act_bits = policy.act_bits
    weights = indices = acts_read = acts_written = 0
    for gemm in work.gemms:
        if gemm.source == "weights":
            weights += gemm.count * gemm.weight_bits(gemm.n, gemm.k)
            indices += gemm.count * gemm.index_bits(gemm.n, gemm.k)
        elif gemm.source == "acts":
            acts_read += gemm.count * gemm.weight_bits(gemm.n, gemm.k)
        if gemm.act_source == "acts":
            acts_read += gemm.count * gemm.m * gemm.k * act_bits
        if gemm.out_target == "acts":
            acts_written += gemm.count * gemm.m * gemm.n * act_bits
    read = written = 0
    for window, layers in shape.windows().items():
        for item in step.sequences:
            seen = item.keys if window is None else cached_keys(item.context, item.keys, window, shape.sink_tokens)
            read += layers * item.count * cache_bits(shape, policy, seen)
            written += layers * item.count * cache_bits(shape, policy, item.new_tokens)
    embedding = 16 * step.tokens * shape.hidden
    return Traffic(*(-(-bits // 8) for bits in (weights, indices, read, written, acts_read, acts_written, embedding)))
