"""opt3 and opt4c in a tile of asynchronous columns: each column goes through its weights' digits at its own pace.

A step brings ELEMENTS elements of the reduction: of each an activation a row and a weight a column. A column takes
element after element, max(1, nonzero digits of its weight) cycles each, and does not look at the other columns; when
it has done all of the step it waits. When every column has, the step is done and the next one begins. So a step takes
as many cycles as its slowest column, and a step's activations are the bounded buffer within which columns run apart.

What the paper does, and what is ours: in OPT3 and OPT4C columns run apart over a whole tile and synchronise at its end,
which needs each column to read activations at places of its own; the paper interleaves the reduction over banks for
that, and says nothing of how conflicts end. Here columns synchronise every ELEMENTS elements: one read of activations
serves them all and there are no conflicts, for the cycles that the slowest column is behind the mean of each step.
Source: OPT (HPCA 2025, arXiv 2503.06342).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import IntArray, PESpec
from bitwright.arch.pe.digits import serial_cycles
from bitwright.arch.pe.fp16_mac import FloatArray
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.tile_family import StreamFamily, Sums
from bitwright.arch.pe.units import GroupDequantiser, edge_unit
from bitwright.arch.pe.weight_codes import decodable, weight_code

ELEMENTS = 8
"""Elements of a step: how far a column can be ahead of another."""


@dataclass(frozen=True)
class AsynchronousFamily(StreamFamily):
    """opt3: a place is a PE with an encoder of its own; opt4c: a column is one, whose rows share the encoder.

    An element is a value, weights are signed integers of up to 8 bits, sign-extended. The result unit below a column
    scales sums as those of a systolic array.
    """

    spec: Opt3 | Opt4c

    usual: ClassVar[tuple[str, ...] | None] = ("int8", "int4")
    skips: ClassVar[bool] = True
    sum_parameter: ClassVar[str] = "psum_bits"

    @staticmethod
    def _resolves(spec: Opt3 | Opt4c) -> None:
        if not spec.resolve_cycles:
            raise ConfigError(f"{spec.name}.resolve_cycles = 0: a tile has no adders outside its PEs (must be in 1..4)")

    @property
    def lanes(self) -> int:
        return ELEMENTS

    @property
    def longest_elements(self) -> int:
        return self.spec.longest_sum

    def refusal(self, format_name: str) -> str:
        rule = weight_code(format_name) if decodable(format_name) else None
        if rule is None or rule.coding != "signed" or rule.fraction_bits:
            return f"a tile of {self.spec.name} takes signed integers without zero points, it has no decoders"
        return ""

    def element_bits(self, format_name: str) -> int:
        return formats.get(format_name).bits

    def sign_extended(self, format_name: str) -> bool:
        return self.element_bits(format_name) < self.code_bits

    def mode(self, format_name: str) -> int:
        return 0

    def step_cycles(self, format_name: str) -> int:
        return ELEMENTS  # the least: a digit an element

    def code_cycles(self, codes: npt.ArrayLike, format_name: str) -> IntArray:
        each = serial_cycles(self.spec.encoding, self._read(codes, format_name))
        starts = np.arange(0, len(each), ELEMENTS)
        return np.asarray(np.add.reduceat(each, starts, axis=0).max(axis=1), dtype=np.int64)

    def sums(self, acts: IntArray, codes: IntArray, format_name: str) -> Sums:
        weights = self._read(codes, format_name)
        return Sums(np.asarray(acts.T.astype(np.float64) @ weights.astype(np.float64), dtype=np.int64))  # exact

    def scaled(
        self, sums: Sums, scales: npt.NDArray[np.float16], zeros: IntArray | None, format_name: str
    ) -> FloatArray:
        unit = edge_unit(self.spec)
        assert isinstance(unit, GroupDequantiser), "sums are integers"
        return unit.dequantise(np.float32(0), sums.psum, scales)

    def _read(self, codes: npt.ArrayLike, format_name: str) -> IntArray:
        """The weights of codes as they are in memory."""
        half = 1 << (self.element_bits(format_name) - 1)
        return (np.asarray(codes, dtype=np.int64) ^ half) - half


@dataclass(frozen=True)
class Opt3Family(AsynchronousFamily):
    """A place is a PE with an encoder of its own; those of a column do the same digits."""

    spec: Opt3

    @classmethod
    def made(cls, rows: int, cols: int, params: Mapping[str, Any]) -> PESpec:
        spec = Opt3(**params)
        cls._resolves(spec)
        return spec


@dataclass(frozen=True)
class Opt4cFamily(AsynchronousFamily):
    """A column of the tile is one PE, its rows those of the tile."""

    spec: Opt4c

    fixed: ClassVar[Mapping[str, str]] = {"rows": "the tile's rows"}

    @classmethod
    def made(cls, rows: int, cols: int, params: Mapping[str, Any]) -> PESpec:
        most = Opt4c.ranges["rows"][1]
        if rows > most:
            raise ConfigError(f"array.rows = {rows}: must be at most {most}, the rows of a column of {Opt4c.name}")
        spec = Opt4c(**{"rows": rows, **params})
        if not spec.encoder:
            raise ConfigError(f"{spec.name}.encoder = false: a tile has an encoder in each column (leave it out)")
        cls._resolves(spec)
        return spec
