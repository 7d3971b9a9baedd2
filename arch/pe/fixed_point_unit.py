"""The edge unit of integer PEs whose sums have a binary point: signed zero points, a power of two, up to 63 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Evidence, IntArray, PESpec, Timing, require_ranges
from bitwright.arch.pe.elements import round_to_fp32
from bitwright.arch.pe.fp16_mac import FloatArray, canonical
from bitwright.arch.pe.units import UnitSpec

SIGNIFICAND_BITS = 11  # fp16
UNIT_EXPONENT = 25  # a finite fp16 number is an integer significand times 2**(effective exponent - 25)
FP32_BIAS = 127
_SPECIAL = 31
_LIMB_BITS = 32
_LIMB = np.int64((1 << _LIMB_BITS) - 1)
_DROPPED_BITS = 22  # of a product of more than 52 bits: those that only "is any of them 1" remains of
_RANGES = {
    "psum_bits": (8, 63),
    "act_sum_bits": (0, 63),
    "zero_bits": (0, 9),
    "exponent_bits": (0, 8),
    "exponent_bias": (-255, 255),
}


@dataclass(frozen=True)
class FixedPointDequantiser(UnitSpec):
    """Below a column: out = acc + scale * (psum - zero * act_sum) * 2**(exponent + exponent_bias), in fp32.

    Parameters
        psum_bits : 8..63        Width of the group's integer sum.
        act_sum_bits, zero_bits : 0..63, 0..9   Widths of the sum of activations and of the zero point, both two's
            complement; both 0 for sums without zero points.
        exponent_bits : 0..8     Width of the group's exponent (unsigned). 0: none, it counts as 0.
        exponent_bias : -255..255   Added to the exponent.
        nonfinite : bool         An input `nonfinite` makes the scaled sum a NaN: `special` of lut, `nonfinite` of
            shift-add-a16.
    Arithmetic   corrected = psum - zero * act_sum, exact for any operands; y = scale * corrected * 2**(exponent +
                 exponent_bias), exact, then rounded once to fp32: subnormals, and overflow to infinity, included;
                 out = acc + y, rounded once. To nearest, ties to even; scale is fp16, subnormals included. Every NaN
                 is 0x7fc00000; a corrected sum of 0 counts as plus, and an infinite scale times it is NaN.
    Timing       psum to out 4 cycles, one result a cycle; `acc` is taken 3 cycles after its psum.
    """

    psum_bits: int = 32
    act_sum_bits: int = 0
    zero_bits: int = 0
    exponent_bits: int = 0
    exponent_bias: int = 0
    nonfinite: bool = False

    name: ClassVar[str] = "fixed-point-dequantiser"
    timing: ClassVar[Timing] = Timing(latency_cycles=4)
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "unit equals dequantise: corners crossed, random sums, ties and next to them; five sets of parameters",
            5 * 200_000,
            "tests/rtl/pe/test_fixed_point_unit.py",
        ),
        Evidence(
            "unit on sums of lut and shift-add-a16 equals scale * sum (code - zero) * x with two roundings, in exact "
            "rationals: sums of groups",
            8 * 256,
            "tests/rtl/pe/test_fixed_point_unit.py",
        ),
        Evidence(
            "dequantise equals exact rationals with the rounding written out, seven sets of parameters",
            7 * 3_000,
            "tests/arch/pe/test_fixed_point_unit.py",
        ),
    )

    def __post_init__(self) -> None:
        require_ranges(self, **_RANGES)
        if bool(self.act_sum_bits) != bool(self.zero_bits):
            raise ConfigError(
                f"{self.name} act_sum_bits, zero_bits = {self.act_sum_bits}, {self.zero_bits}: "
                "both or neither must be 0"
            )

    @property
    def corrected_bits(self) -> int:
        """Two's complement width of psum - zero * act_sum, for any values of the three."""
        if not self.zero_bits:
            return self.psum_bits
        return max(self.psum_bits, self.act_sum_bits + self.zero_bits - 1) + 1

    @property
    def product_bits(self) -> int:
        """Width of the magnitude of corrected times the scale's significand: 2**(corrected_bits - 1) * 2047 fits."""
        return self.corrected_bits - 1 + SIGNIFICAND_BITS

    @property
    def top_exponent_range(self) -> tuple[int, int]:
        """Least and greatest biased fp32 exponent of the top bit of that magnitude, whether it is 1 or not."""
        least = FP32_BIAS + self.product_bits - 1 - UNIT_EXPONENT + self.exponent_bias
        return least + 1, least + _SPECIAL + (1 << self.exponent_bits) - 1

    @property
    def reaches_subnormals(self) -> bool:
        """Whether a scaled sum other than 0 may lie below fp32's least normal number."""
        return self.top_exponent_range[0] - (self.product_bits - 1) < 1

    @property
    def module_name(self) -> str:
        parts = ["fixed_point_dequantiser", f"p{self.psum_bits}"]
        parts += [f"s{self.act_sum_bits}", f"z{self.zero_bits}"] if self.zero_bits else []
        parts += [f"e{self.exponent_bits}"] if self.exponent_bits else []
        parts += [f"{'m' if self.exponent_bias < 0 else 'b'}{abs(self.exponent_bias)}"] if self.exponent_bias else []
        return "_".join([*parts, "n"] if self.nonfinite else parts)

    def dequantise(
        self,
        acc: npt.ArrayLike,
        psum: npt.ArrayLike,
        scale: npt.ArrayLike,
        *,
        zero: npt.ArrayLike = 0,
        act_sum: npt.ArrayLike = 0,
        exponent: npt.ArrayLike = 0,
        nonfinite: npt.ArrayLike = False,
    ) -> FloatArray:
        """out, bit-exact: acc float32, scale float16, the others integers within their widths; arrays broadcast."""
        with np.errstate(all="ignore"):
            scaled = self.scaled(psum, scale, zero=zero, act_sum=act_sum, exponent=exponent, nonfinite=nonfinite)
            return canonical(np.asarray(np.asarray(acc, dtype=np.float32) + scaled))

    def scaled(
        self,
        psum: npt.ArrayLike,
        scale: npt.ArrayLike,
        *,
        zero: npt.ArrayLike = 0,
        act_sum: npt.ArrayLike = 0,
        exponent: npt.ArrayLike = 0,
        nonfinite: npt.ArrayLike = False,
    ) -> FloatArray:
        """y of the arithmetic: what is added to acc."""
        factor = np.asarray(scale, dtype=np.float16)
        code = factor.view(np.uint16).astype(np.int64)
        field = code >> 10 & _SPECIAL
        significand = (code & 1023) | np.where(field > 0, 1024, 0)
        high, low, negative = _corrected(psum, zero, act_sum)
        integer, dropped = _rounded_to_odd(high, low, significand)
        power = np.asarray(exponent, dtype=np.int64) + self.exponent_bias + np.maximum(field, 1) - UNIT_EXPONENT
        magnitude = round_to_fp32(integer, power + dropped)
        bad = np.asarray(nonfinite) != 0
        with np.errstate(all="ignore"):
            special = np.where((high | low) == 0, np.float32(np.nan), np.abs(factor.astype(np.float32)))
            value = np.where(bad, np.float32(np.nan), np.where(field == _SPECIAL, special, magnitude))
            sign = np.where(negative ^ (code >> 15 != 0), np.float32(-1), np.float32(1))
            return canonical(np.asarray(np.copysign(value, sign)))


def _corrected(
    psum: npt.ArrayLike, zero: npt.ArrayLike, act_sum: npt.ArrayLike
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """(high, low, negative) of psum - zero * act_sum, of magnitude high * 2**32 + low with 0 <= low < 2**32.

    72 bits at most, so int64 would wrap; of the limbs' terms none reaches 2**42.
    """
    total, ones, point = (np.asarray(values, dtype=np.int64) for values in (psum, act_sum, zero))
    low = (total & _LIMB) - point * (ones & _LIMB)
    high = (total >> _LIMB_BITS) - point * (ones >> _LIMB_BITS) + (low >> _LIMB_BITS)
    low &= _LIMB
    negative = high < 0
    borrow = (low != 0).astype(np.int64)
    return np.where(negative, -high - borrow, high), np.where(negative, -low & _LIMB, low), negative


def _rounded_to_odd(high: IntArray, low: IntArray, significand: IntArray) -> tuple[IntArray, IntArray]:
    """(integer, dropped): (high * 2**32 + low) * significand is integer * 2**dropped, exactly or rounded to odd.

    A product P below 2**52 is itself, dropped 0. A longer one is t * 2**22 + rest with t >= 2**30, and where rest is
    not 0 the last bit of t is set. That changes no rounding of P to 24 bits or fewer: all fp32 numbers about P and the
    midpoints between them are multiples of 2**(52 - 25), so of 2**23; with rest not 0, both P and the odd multiple of
    2**22 lie strictly between the same two neighbouring multiples of 2**23, hence on the same side of every number
    that the rounding compares with. Subnormals and the infinity only make those multiples coarser.
    """
    small = low * significand  # below 2**43; high * significand below 2**53
    top = high * significand + (small >> _LIMB_BITS)
    small &= _LIMB
    wide = top >> (52 - _LIMB_BITS) != 0
    kept = (top << (_LIMB_BITS - _DROPPED_BITS)) | (small >> _DROPPED_BITS)
    jammed = kept | (small & ((1 << _DROPPED_BITS) - 1) != 0)
    whole = np.where(wide, 0, top) << _LIMB_BITS | small
    return np.where(wide, jammed, whole), np.where(wide, _DROPPED_BITS, 0)


def below(spec: PESpec) -> FixedPointDequantiser:
    """The unit below each column of lut or of shift-add-a16, with the widths and the bias that the PE needs.

    lut           zero is z' = 2 * zero + 1 - 2**B of half tables, whose s' = scale / 2 is in the bias; "unpu" has
                  zero - 2**(B-1) and the scale itself. B is weight_bits; the scale port takes the weights' own scale.
    shift-add-a16 zero is that of the codes, 0..2**weight_bits-1, with one bit more for the sign.
    """
    from bitwright.arch.pe.lut import Lut
    from bitwright.arch.pe.shift_add_a16 import ShiftAddA16

    if isinstance(spec, Lut):
        whole, bits = spec.variant == "unpu", spec.psum.bits
        zero_bits = spec.weight_bits + (not whole)
        bias = spec.unit_exponent - (not whole)
        return FixedPointDequantiser(bits, bits, zero_bits, 0, bias, spec.tables.scaled)
    if isinstance(spec, ShiftAddA16):
        act_sum_bits, zero_bits = (spec.act_sum_bits, spec.weight_bits + 1) if spec.zero_points else (0, 0)
        bias = -(UNIT_EXPONENT + spec.guard_bits)
        return FixedPointDequantiser(spec.psum.bits, act_sum_bits, zero_bits, 5, bias, nonfinite=True)
    raise ConfigError(f"pe = {spec.name!r}: its edge unit is {spec.edge_unit}, not {FixedPointDequantiser.name}")
