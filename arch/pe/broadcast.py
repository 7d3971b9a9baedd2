"""PEs of a broadcast tile: what its instructions, its timing and its hardware need to know of each family.

A broadcast tile has R x C places; place (r, c) sums token r by column c. In a step all places of row r get the same
`lanes` activations, all of column c the same `lanes` weights. Either a place is one PE (outlier-victim, bit-serial,
opt3), or one PE is a column (opt4c), or the whole tile (lut). Of opt3 and opt4c columns run apart within a step
(`arch.pe.asynchronous`). An *element* is what an activation vector and a row of weights have one of: a byte of
outlier-victim, else a value. In the step that ends a reduction, elements that are missing count as code 0, of both
operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.asynchronous import Opt3Family, Opt4cFamily
from bitwright.arch.pe.base import IntArray, PESpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.bit_serial_tile import BitSerialFamily
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser, below
from bitwright.arch.pe.fp16_mac import FloatArray
from bitwright.arch.pe.lut import Lut
from bitwright.arch.pe.lut_tables import ROWS_RANGE
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.outlier_victim import OutlierVictim
from bitwright.arch.pe.pair_codes import narrow_pairs, wide_values
from bitwright.arch.pe.stream import row_flags
from bitwright.arch.pe.tile_family import Family, StreamFamily, Sums
from bitwright.arch.pe.units import GroupDequantiser, edge_unit
from bitwright.arch.pe.weight_codes import decodable, weight_code

TEMPLATE = "broadcast"
_MOST = (1 << 31) - 1  # of outlier-victim's sums
_LANES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PairFamily(StreamFamily):
    """outlier-victim: an element is a byte of pairs, its mode `wide` for 8-bit values.

    A value's width is the weights': 4-bit formats need activations in 4-bit pairs, 8-bit formats in 8-bit ones. The
    flag `overflow` of a saturated sum goes nowhere.
    """

    spec: OutlierVictim

    @classmethod
    def made(cls, rows: int, cols: int, params: Mapping[str, Any]) -> OutlierVictim:
        spec = OutlierVictim(**params)
        if not spec.decoders:
            raise ConfigError(f"{spec.name}.decoders = false: a tile has no decoders at its border (leave it out)")
        return spec

    @property
    def lanes(self) -> int:
        return self.spec.lanes

    def refusal(self, format_name: str) -> str:
        return ""

    def element_bits(self, format_name: str) -> int:
        return 8

    def mode(self, format_name: str) -> int:
        return int(formats.get(format_name).bits > 4)

    def values(self, format_name: str) -> int:
        return 2 - self.mode(format_name)

    def sums(self, acts: IntArray, codes: IntArray, format_name: str) -> Sums:
        wide = self.mode(format_name)
        left, right = self.whole_steps(acts), self.whole_steps(codes)
        values = [_pair_values(item, self.spec.normal, wide).astype(np.float64) for item in (left, right)]
        psum = np.asarray(values[0].T @ values[1], dtype=np.int64)  # exact: below 2**45
        tokens, columns = np.nonzero(np.abs(values[0]).T @ np.abs(values[1]) > _MOST)
        at_once = max(1, _LANES_AT_ONCE // len(left))
        for start in range(0, len(tokens), at_once):  # these may saturate on their way
            some = slice(start, start + at_once)
            psum[tokens[some], columns[some]] = self._steps(left[:, tokens[some]], right[:, columns[some]], wide)
        return Sums(psum)

    def _steps(self, acts: IntArray, codes: IntArray, wide: int) -> IntArray:
        """The golden sums of pairs of columns [n, sums], step after step."""
        count = acts.shape[1]
        steps = len(acts) // self.lanes
        fields = {name: item.T.reshape(-1, self.lanes) for name, item in (("act", acts), ("wgt", codes))}
        modes = np.full(count * steps, wide, dtype=np.int64)
        return self.spec.sums({**fields, "wide": modes, **row_flags(count, steps)})["psum"]

    def scaled(
        self, sums: Sums, scales: npt.NDArray[np.float16], zeros: IntArray | None, format_name: str
    ) -> FloatArray:
        unit = edge_unit(self.spec)
        assert isinstance(unit, GroupDequantiser), "sums are integers"
        return unit.dequantise(np.float32(0), sums.psum, scales)


def _pair_values(elements: IntArray, normal: str, wide: int) -> IntArray:
    """Values [2 n or n, columns] of bytes [n, columns]."""
    pairs = wide_values()[elements[0::2] | elements[1::2] << 8] if wide else narrow_pairs(normal).value[elements]
    return np.moveaxis(pairs, -1, 1).reshape(-1, elements.shape[1])


@dataclass(frozen=True)
class LutFamily(StreamFamily):
    """lut: an element is a value; weights stand in memory in the variant's stored form, their mode is the top plane.

    A format's code is read as the unsigned q of B bits: a signed code with its sign bit inverted, of zero point
    2**(B - 1). The odd integers of bipolar formats have no zero point, and the par channel holds twice their scale.
    """

    spec: Lut

    whole: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, str]] = {
        "m": "the tile's rows",
        "n": "the tile's columns",
        "precompute": "true (the tile makes its tables)",
        "table_bits": "0 (int8 tables are exact)",
    }

    @classmethod
    def made(cls, rows: int, cols: int, params: Mapping[str, Any]) -> Lut:
        if rows > ROWS_RANGE[1]:
            raise ConfigError(f"array.rows = {rows}: must be at most {ROWS_RANGE[1]}, a lut's tables")
        spec = Lut(**{"m": rows, "n": cols, "precompute": True, **params})
        if spec.activation != "int8":
            raise ConfigError(f"{spec.name}.activation = '{spec.activation}': a tile takes int8 (its sums are exact)")
        return spec

    @property
    def lanes(self) -> int:
        return self.spec.k

    @property
    def longest_elements(self) -> int:
        return self.spec.longest_sum * self.spec.k

    def refusal(self, format_name: str) -> str:
        if self._bipolar(format_name):
            return "its odd integers are half a step off unpu's two's complement" if self._unpu else ""
        if not decodable(format_name) or weight_code(format_name).fraction_bits:
            return "its codes count fractions"
        return ""

    def element_bits(self, format_name: str) -> int:
        return formats.get(format_name).bits

    def mode(self, format_name: str) -> int:
        return formats.get(format_name).bits - 1 if self.mode_field is not None else 0

    def plain_codes(self, codes: npt.ArrayLike, format_name: str) -> IntArray:
        """q of a format's codes."""
        code = np.asarray(codes, dtype=np.int64)
        return code ^ self._signed_zero(format_name)

    def zero_points(self, zeros: IntArray | None, format_name: str) -> IntArray:
        """What the result unit takes as `zero`, of zero point codes; one number where the format has none."""
        bits = formats.get(format_name).bits
        if self._bipolar(format_name):
            return np.zeros(1, dtype=np.int64)
        zero = np.full(1, self._signed_zero(format_name)) if zeros is None else zeros
        return zero - (1 << (bits - 1)) if self._unpu else 2 * zero + 1 - (1 << bits)

    def scale_factor(self, format_name: str) -> int:
        """How many times a format's scale the par channel holds."""
        return 2 if self._bipolar(format_name) else 1

    def sums(self, acts: IntArray, codes: IntArray, format_name: str) -> Sums:
        left, right = self.whole_steps(acts), self.whole_steps(codes)
        stored = np.moveaxis(right.reshape(-1, self.lanes, right.shape[1]), 1, 2)
        weights = np.moveaxis(self.spec.weights(stored, self.element_bits(format_name)), 2, 1).reshape(right.shape)
        psum = left.T.astype(np.float64) @ weights.astype(np.float64)  # exact, and within the sum's range
        return Sums(np.asarray(psum, dtype=np.int64), left.sum(axis=0))

    def scaled(
        self, sums: Sums, scales: npt.NDArray[np.float16], zeros: IntArray | None, format_name: str
    ) -> FloatArray:
        assert sums.act_sum is not None, "lut gives it"
        zero = self.zero_points(zeros, format_name)
        return self.unit.dequantise(np.float32(0), sums.psum, scales, zero=zero, act_sum=sums.act_sum[:, np.newaxis])

    @property
    def zero_shift(self) -> int:
        return 0 if self._unpu else 1

    @property
    def unit(self) -> FixedPointDequantiser:
        """The result unit."""
        return below(self.spec)

    @property
    def _unpu(self) -> bool:
        return self.spec.variant == "unpu"

    @staticmethod
    def _bipolar(format_name: str) -> bool:
        return formats.get(format_name).family == "bipolar-integer"

    def _signed_zero(self, format_name: str) -> int:
        """The zero point of a format whose codes are signed, which is the bit that makes them unsigned; else 0."""
        if self._bipolar(format_name) or weight_code(format_name).coding != "signed":
            return 0
        return 1 << (formats.get(format_name).bits - 1)


_FAMILIES: dict[type[PESpec], type[Family]] = {
    OutlierVictim: PairFamily,
    Lut: LutFamily,
    BitSerial: BitSerialFamily,
    Opt3: Opt3Family,
    Opt4c: Opt4cFamily,
}
_BY_NAME: dict[str, type[Family]] = {cls.name: family for cls, family in _FAMILIES.items()}


def names() -> list[str]:
    """The names of the PEs that a broadcast tile takes, sorted."""
    return sorted(_BY_NAME)


@lru_cache(maxsize=64)
def family(spec: PESpec) -> Family:
    """What a tile needs to know of its PE. The spec is one of the template's."""
    assert TEMPLATE in spec.templates, f"{spec.name}: no broadcast tile takes it"
    return _FAMILIES[type(spec)](spec)


def tile_of(spec: PESpec) -> Family | None:
    """What a broadcast tile's PE tells of itself; None for a PE of no tile."""
    return family(spec) if TEMPLATE in spec.templates else None


def tile_spec(name: str, rows: int, cols: int, params: Mapping[str, Any]) -> PESpec:
    """The spec of PE `name` (one of `names`) for a tile of rows x cols.

    ConfigError: a parameter out of range, or one that follows from the tile.
    """
    chosen = _BY_NAME[name]
    for key in params:
        if key in chosen.fixed:
            raise ConfigError(f"{name}.{key}: is {chosen.fixed[key]} (leave it out)")
    return chosen.made(rows, cols, params)
