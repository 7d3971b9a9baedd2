"""Units at the edges of an array: what turns group sums into fp32 outputs, and codes into a PE's weights."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.pe.base import Evidence, PESpec, Timing, require_ranges, wrap
from bitwright.arch.pe.fp16_mac import FloatArray, canonical
from bitwright.arch.pe.weight_codes import WeightCode, weight_code

_SIGNIFICAND_BITS = 11  # fp16
_CANONICAL_NAN_FP16 = np.uint16(0x7E00).view(np.float16)
_MODEL_BITS = 53  # products up to this wide are exact in the golden's float64


@dataclass(frozen=True)
class UnitSpec(abc.ABC):
    """One edge unit; the fields of a subclass are its parameters. `module_name` differs for different parameters."""

    name: ClassVar[str]
    timing: ClassVar[Timing] = Timing()
    evidence: ClassVar[tuple[Evidence, ...]] = ()

    @property
    @abc.abstractmethod
    def module_name(self) -> str:
        """Name of the unit's Verilog module."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters, by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True)
class GroupDequantiser(UnitSpec):
    """Below a column of an integer PE: out = acc + scale * (psum - zero * act_sum), in fp32.

    Parameters
        psum_bits : 8..48        Width of the group's integer sum.
        act_sum_bits, zero_bits : 0..32, 0..8   Widths of the sum of activations and of the zero point; both 0 for
            formats without zero points.
        scale_code_bits : 0..8   Width of a second-level scale code (unsigned); the scale is then
            scale * scale_code, exactly, before the one rounding. 0: none.
        halves : bool            A mode input `halve` divides the scale by 2 exactly, for formats whose integers
            count halves (fp4).
    Arithmetic   corrected = psum - zero * act_sum, exact; y = scale * scale_code * corrected / (halve ? 2 : 1),
                 rounded once to fp32; out = acc + y, rounded once; to nearest, ties to even, IEEE 754, every NaN
                 0x7fc00000. y neither overflows nor is subnormal; out may be either.
    Timing       psum to out 3 cycles, one result a cycle; `acc` is taken 2 cycles after its psum.
    """

    psum_bits: int = 32
    act_sum_bits: int = 0
    zero_bits: int = 0
    scale_code_bits: int = 0
    halves: bool = False

    name: ClassVar[str] = "group-dequantiser"
    timing: ClassVar[Timing] = Timing(latency_cycles=3)
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "unit equals dequantise, random and corner operands, three sets of parameters",
            1_500_000,
            "tests/rtl/pe/test_units.py",
        ),
    )

    def __post_init__(self) -> None:
        where = self.name
        require_ranges(self, psum_bits=(8, 48), act_sum_bits=(0, 32), zero_bits=(0, 8), scale_code_bits=(0, 8))
        if bool(self.act_sum_bits) != bool(self.zero_bits):
            raise ConfigError(
                f"{where} act_sum_bits, zero_bits = {self.act_sum_bits}, {self.zero_bits}: both or neither must be 0"
            )
        width = self.corrected_bits + self.scale_code_bits + _SIGNIFICAND_BITS
        if width > _MODEL_BITS:
            raise ConfigError(f"{where} product bits = {width}: must be at most {_MODEL_BITS} (narrow psum_bits)")

    @property
    def corrected_bits(self) -> int:
        """Two's complement width of psum - zero * act_sum, for any values of the three."""
        if not self.zero_bits:
            return self.psum_bits
        return max(self.psum_bits, self.act_sum_bits + self.zero_bits) + 1

    @property
    def module_name(self) -> str:
        parts = ["group_dequantiser", f"p{self.psum_bits}"]
        parts += [f"s{self.act_sum_bits}", f"z{self.zero_bits}"] if self.zero_bits else []
        parts += [f"c{self.scale_code_bits}"] if self.scale_code_bits else []
        return "_".join([*parts, "h"] if self.halves else parts)

    def dequantise(
        self,
        acc: npt.ArrayLike,
        psum: npt.ArrayLike,
        scale: npt.ArrayLike,
        *,
        zero: npt.ArrayLike = 0,
        act_sum: npt.ArrayLike = 0,
        scale_code: npt.ArrayLike = 1,
        halve: npt.ArrayLike = False,
    ) -> FloatArray:
        """out, bit-exact: acc float32, scale float16, the others integers within their widths; arrays broadcast."""
        corrected = np.asarray(psum, dtype=np.int64) - np.asarray(zero, dtype=np.int64) * np.asarray(act_sum, np.int64)
        factor = corrected.astype(np.float64) * np.asarray(scale_code, dtype=np.float64)  # keeps the sign of a zero
        with np.errstate(all="ignore"):
            exact = np.asarray(scale, dtype=np.float16).astype(np.float64) * factor * np.where(halve, 0.5, 1.0)
            return canonical(np.asarray(np.asarray(acc, dtype=np.float32) + exact.astype(np.float32)))


@dataclass(frozen=True)
class Fp32Accumulator(UnitSpec):
    """Below a column of fp16-mac: out = acc + psum in fp32, IEEE 754, to nearest, ties to even.

    Arithmetic   subnormals, infinities and overflow included; every NaN is 0x7fc00000.
    Timing       1 cycle, one result a cycle.
    """

    name: ClassVar[str] = "fp32-accumulator"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("unit equals accumulate, random and corner operands", 1_000_000, "tests/rtl/pe/test_units.py"),
    )

    @property
    def module_name(self) -> str:
        return "fp32_accumulator"

    def accumulate(self, acc: npt.ArrayLike, psum: npt.ArrayLike) -> FloatArray:
        """acc + psum, both float32; arrays broadcast."""
        with np.errstate(all="ignore"):
            return canonical(np.asarray(np.asarray(acc, dtype=np.float32) + np.asarray(psum, dtype=np.float32)))


@dataclass(frozen=True)
class IntAccumulator(UnitSpec):
    """Below a column of an integer PE whose group takes several passes: out = acc + psum, in int32.

    Parameters
        psum_bits : 8..32        Width of a pass's integer sum.
    Arithmetic   exact; wraps modulo 2**32; no wrap for reductions of at most 2**31 / 2**14 int8 products.
    Timing       1 cycle, one result a cycle.
    """

    psum_bits: int = 32

    name: ClassVar[str] = "int-accumulator"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("unit equals accumulate, random and corner operands", 100_000, "tests/rtl/pe/test_int_accumulator.py"),
    )

    def __post_init__(self) -> None:
        require_ranges(self, psum_bits=(8, 32))

    @property
    def module_name(self) -> str:
        return f"int_accumulator_p{self.psum_bits}"

    def accumulate(self, acc: npt.ArrayLike, psum: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """acc + psum modulo 2**32 as int64 in -2**31..2**31-1; arrays broadcast."""
        return wrap(np.asarray(acc, dtype=np.int64) + np.asarray(psum, dtype=np.int64), 32)


@dataclass(frozen=True)
class WeightDequantiser(UnitSpec):
    """At the top of a column of fp16-mac: a code to the fp16 weight (integer - zero) / 2**fraction_bits * scale.

    Parameters
        format : str             Any format with integer codes of at most 8 bits, or "bf16" (no scale).
        scale_code_bits : 0..8   As of GroupDequantiser.
    Arithmetic   the exact product, rounded once to fp16, to nearest, ties to even; subnormal results and overflow to
                 infinity included; every NaN is 0x7e00. A zero has the sign of integer times scale, an integer 0
                 counting as plus.
    Timing       1 cycle, one weight a cycle.
    """

    format: str = "int4"
    scale_code_bits: int = 0

    name: ClassVar[str] = "weight-dequantiser"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "unit equals dequantise: every code, zero point and selector of every format, corner and random scales",
            1_116_416,
            "tests/rtl/pe/test_units.py",
        ),
    )

    def __post_init__(self) -> None:
        require_ranges(self, scale_code_bits=(0, 8))
        if not self.is_bf16:
            _ = self.code
        elif self.scale_code_bits:
            raise ConfigError(
                f"{self.name} scale_code_bits = {self.scale_code_bits}: must be 0 for bf16, which has no scale"
            )

    @property
    def is_bf16(self) -> bool:
        """Whether codes are bf16 numbers, which have no scale."""
        return self.format == "bf16"

    @property
    def code(self) -> WeightCode:
        """The decoding rule of the format; FormatError if it has none."""
        return weight_code(self.format)

    @property
    def module_name(self) -> str:
        suffix = f"_c{self.scale_code_bits}" if self.scale_code_bits else ""
        return f"weight_dequantiser_{self.format}{suffix}"

    def dequantise(
        self,
        codes: npt.ArrayLike,
        scale: npt.ArrayLike = 1.0,
        *,
        zero: npt.ArrayLike = 0,
        selector: npt.ArrayLike = 0,
        scale_code: npt.ArrayLike = 1,
    ) -> npt.NDArray[np.float16]:
        """Weights as float16, bit-exact; scale is float16, the others unsigned integers; arrays broadcast."""
        with np.errstate(all="ignore"):
            if self.is_bf16:
                exact = (np.asarray(codes, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
            else:
                integer = self.code.integers(codes, zero, selector).astype(np.float64)
                integer = integer * np.asarray(scale_code, dtype=np.float64)  # keeps the sign of a zero
                exact = integer * np.asarray(scale, dtype=np.float16).astype(np.float64)
                exact = exact * 2.0**-self.code.fraction_bits
            narrow = np.asarray(exact.astype(np.float16))
        return np.where(np.isnan(narrow), _CANONICAL_NAN_FP16, narrow)


@dataclass(frozen=True)
class WeightDecoder(UnitSpec):
    """At the top of a column of int8-mac: a code to the int8 weight integer - zero.

    Parameters
        format : str             A format whose integer - zero always fits int8.
    Arithmetic   exact.
    Timing       1 cycle, one weight a cycle.
    """

    format: str = "int4_asym"

    name: ClassVar[str] = "weight-decoder"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "unit equals integers on every code, zero point and selector of every format",
            22_056,
            "tests/rtl/pe/test_units.py",
        ),
    )

    def __post_init__(self) -> None:
        if self.code.integer_bits > 8:
            span = f"{self.code.least}..{self.code.greatest}"
            raise ConfigError(f"{self.name} format = {self.format}: decodes to {span}, must fit -128..127")

    @property
    def code(self) -> WeightCode:
        """The decoding rule of the format; FormatError if it has none."""
        return weight_code(self.format)

    @property
    def module_name(self) -> str:
        return f"weight_decoder_{self.format}"

    def decode(
        self, codes: npt.ArrayLike, *, zero: npt.ArrayLike = 0, selector: npt.ArrayLike = 0
    ) -> npt.NDArray[np.int64]:
        """Weights as int64 in -128..127; arrays broadcast."""
        return self.code.integers(codes, zero, selector)


_UNITS: dict[str, type[UnitSpec]] = {
    cls.name: cls for cls in (GroupDequantiser, Fp32Accumulator, IntAccumulator, WeightDequantiser, WeightDecoder)
}


# Where the specs of the others are, as module:class below this package: their modules need this one.
_ELSEWHERE = {
    "fixed-point-dequantiser": "fixed_point_unit:FixedPointDequantiser",
    "pair-decoder": "pair_codes:PairDecoder",
    "sparse-encoder": "sparse_encoder:SparseEncoder",
}


def names() -> list[str]:
    """The names of all edge units, sorted."""
    return sorted([*_UNITS, *_ELSEWHERE])


def get(name: str, **params: Any) -> UnitSpec:
    """The spec of an edge unit. Raises ConfigError for an unknown unit or parameter, naming the closest one."""
    if name not in names():
        raise ConfigError(f"unit = {name!r}: no such edge unit ({suggest(name, names())})")
    cls = _UNITS[name] if name in _UNITS else _elsewhere(name)
    known = [item.name for item in fields(cls)]
    for param in params:
        if param not in known:
            raise ConfigError(
                f"{name}.{param}: no such parameter ({suggest(param, known) if known else 'it has none'})"
            )
    return cls(**params)


def _elsewhere(name: str) -> type[UnitSpec]:
    module, _, cls_name = _ELSEWHERE[name].partition(":")
    found: type[UnitSpec] = getattr(import_module(f"bitwright.arch.pe.{module}"), cls_name)
    return found


def edge_unit(spec: PESpec, *, scale_code_bits: int = 0, halves: bool = False) -> GroupDequantiser | Fp32Accumulator:
    """The unit below each column of an array of `spec`, with the widths that the PE needs.

    Not of PEs whose sums have a binary point: `arch.pe.fixed_point_unit.below` has theirs.
    """
    assert spec.edge_unit not in _ELSEWHERE, f"{spec.name}: its unit is from fixed_point_unit.below"
    if spec.edge_unit == Fp32Accumulator.name:
        return Fp32Accumulator()
    if not spec.zero_point_column:
        return GroupDequantiser(spec.psum.bits, scale_code_bits=scale_code_bits, halves=halves)
    act_sum_bits = spec.psum.bits - spec.wgt.bits  # activations times 1 instead of times a code
    return GroupDequantiser(spec.psum.bits, act_sum_bits, spec.wgt.bits, scale_code_bits, halves)
