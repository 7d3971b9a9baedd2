"""Cycles that a PE takes for the codes of a real tensor, where they depend on the data; the golden timing of `arch.pe`.

A PE of the library is data-dependent when equal shapes in one format may take different cycles: opt3, and opt4c with
its encoder, take one cycle a nonzero digit of a weight. The others are not: bit-serial takes its encoding's number of
terms whatever they are, outlier-victim one or two cycles as the format is of 4 or 8 bits; no PE skips zeros of
activations. Sparse digits of opt4c:encoder=false come one a step from the unit at the border, whose cycles are opt4c's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.stream import StreamSpec
from bitwright.arch.pe.weight_codes import weight_code
from numpy.typing import NDArray

DATA_DEPENDENT = ("opt3", "opt4c")
TileCycles = Callable[[IntArray], IntArray]


@dataclasses.dataclass(frozen=True)
class CycleCounts:
    """How many weights take how many cycles: `counts[c]` weights take c, int64 [most + 1]."""

    counts: IntArray

    @classmethod
    def of(cls, cycles: IntArray) -> CycleCounts:
        """Of the cycles of every weight, of any shape."""
        return cls(np.bincount(np.asarray(cycles).ravel()).astype(np.int64))

    @property
    def weights(self) -> int:
        """Number of weights."""
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """Cycles of all weights, one after the other."""
        return int(self.counts @ np.arange(len(self.counts)))

    @property
    def mean(self) -> float:
        """Mean cycles a weight; 0 without weights."""
        return self.total / self.weights if self.weights else 0.0

    @property
    def most(self) -> int:
        """The most cycles of any weight; 0 without weights."""
        return int(self.counts.nonzero()[0].max(initial=0))

    def __add__(self, other: CycleCounts) -> CycleCounts:
        size = max(len(self.counts), len(other.counts))
        return CycleCounts(np.asarray(sum(np.pad(c.counts, (0, size - len(c.counts))) for c in (self, other))))


def data_dependent(name: str, **params: object) -> StreamSpec:
    """The streaming PE of this name; ConfigError unless its cycles depend on the codes of weights."""
    spec = pe.stream(name, **params)
    if not isinstance(spec, Opt3 | Opt4c) or not spec.encodes:
        raise ConfigError(
            f"pe = {name}: takes the same cycles for all codes of a format (those that do not: "
            f"{', '.join(DATA_DEPENDENT)}, with their encoder); leave the trace out"
        )
    return spec


def weight_cycles(spec: StreamSpec, encoded: Encoded) -> IntArray:
    """Cycles of each weight [N, K] in a PE of `data_dependent`: its golden `step_cycles` of what a decoder gives it.

    A decoder before the PE makes int8 of codes, selectors and zero points (arch.pe.weight_codes). Raises ConfigError
    for a format that the PE does not take.
    """
    row_group = encoded.group if isinstance(encoded.group, int) else None
    taken = spec.accepts(encoded.format, row_group)
    if not taken:
        raise ConfigError(f"pe = {spec.name}: does not take {encoded.format}: {taken.reason} (trace another format)")
    length = encoded.shape[-1]
    group = row_group or length

    def spread(values: NDArray[np.uint8] | None) -> IntArray | int:
        return 0 if values is None else np.repeat(values.astype(np.int64), group, axis=-1)[..., :length]

    integers = weight_code(encoded.format).integers(
        encoded.codes, zeros=spread(encoded.zeros), selectors=spread(encoded.selectors)
    )
    return np.asarray(spec.step_cycles({"wgt": integers}), dtype=np.int64)


def gaussian_like(
    shape: tuple[int, ...], rms: float, format_name: str, group: int | None, seed: tuple[int, ...]
) -> Encoded:
    """Codes of independent Gaussian values of this root mean square: what is guessed of a tensor that nobody has."""
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(rms)
    return formats.get(format_name).encode(values, group=group)


def longest_column(sums: IntArray) -> IntArray:
    """Cycles of tiles whose columns run apart and meet at the end: sums [tiles, cols] of their steps to [tiles]."""
    return np.asarray(sums.max(axis=-1), dtype=np.int64)


def tiles_cycles(sums: IntArray, cols: int, tile_cycles: TileCycles = longest_column) -> int:
    """Cycles of all outputs once: `sums` [N] of each output's steps, `cols` outputs a tile, the last one narrower.

    `tile_cycles` is the array's own timing, from sums [tiles, cols] to cycles [tiles]; columns beyond N bring 0.
    """
    padded = np.pad(sums, (0, -len(sums) % cols)).reshape(-1, cols)
    return int(tile_cycles(padded).sum())


def drawn_sums(counts: CycleCounts, n: int, k: int, seed: tuple[int, ...]) -> IntArray:
    """Sums [n] of k cycles drawn independently from `counts`: what stands in for a tensor that nobody has."""
    draws = np.random.default_rng(seed).multinomial(k, counts.counts / counts.weights, size=n)
    return np.asarray(draws @ np.arange(len(counts.counts)), dtype=np.int64)
