"""Operands for array benches, and what the array must answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe import PESpec

Array = npt.NDArray[Any]


def random_passes(rng: np.random.Generator, rows: int, dataflow: str, count: int) -> list[tuple[int, int]]:
    """Shapes (m, k) of `count` tiles; the ends of the legal ranges come up often, the open side goes to 3 x rows."""
    full = [1, rows, *rng.integers(1, rows + 1, 2).tolist()]
    free = [1, 2, rows, *rng.integers(1, 3 * rows + 1, 3).tolist()]
    m, k = (free, full) if dataflow == "ws" else (full, free)
    return [(int(rng.choice(m)), int(rng.choice(k))) for _ in range(count)]


def random_operands(spec: PESpec, rng: np.random.Generator, m: int, k: int, cols: int) -> tuple[Array, Array]:
    """wgt [k, cols] and act [m, k] of one tile, as `run_passes` takes them.

    Integers cover their whole range, codes 0..2**bits-1; floats are random bits of float16 with exponents near
    zero, so that sums round and cancel, and one in 64 of all float16 (subnormals, infinities, NaN).
    """
    return _operand(spec.wgt.bits, spec.wgt.kind, rng, (k, cols)), _operand(spec.act.bits, spec.act.kind, rng, (m, k))


def _operand(bits: int, kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    if kind == "code":
        return rng.integers(0, 1 << bits, shape)
    if kind == "int":
        values = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)
        return np.where(rng.random(shape) < 0.1, -(1 << (bits - 1)), values)
    near_one = rng.integers(10 << 10, 21 << 10, shape) | rng.integers(0, 2, shape) << 15
    any_bits = rng.integers(0, 1 << 16, shape)
    return np.where(rng.random(shape) < 1 / 64, any_bits, near_one).astype(np.uint16).view(np.float16)


def expected(spec: PESpec, wgt: Array, act: Array, **mode: bool) -> Array:
    """The results [m, cols] of one tile: the PE's golden `accumulate` from its zero over k = 0, 1, ..."""
    acc = np.full((act.shape[0], wgt.shape[1]), spec.zero())
    for step in range(wgt.shape[0]):
        acc = spec.accumulate(acc, act[:, step, None], wgt[step, None, :], **mode)
    return acc


def expected_act_sum(spec: PESpec, act: Array, **mode: bool) -> Array:
    """The zero-point column's results [m] of one tile: every weight is 1."""
    return expected(spec, np.ones((act.shape[1], 1), dtype=np.int64), act, **mode)[:, 0]


def bits_of(values: Array) -> Array:
    """Integers as they are, float32 as its bits: what bit-exact comparisons compare."""
    return values.view(np.uint32) if values.dtype == np.float32 else values
