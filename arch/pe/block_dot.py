"""Block-scaled dot products: k products summed in fixed point, two block scales, one fp32 accumulator a block.

The five PEs multiply one block of activations with one block of weights in each step:

    PE           elements                          k    scales a block
    mxfp8-dot    mxfp8_e4m3 or mxfp8_e5m2          32   two E8M0
    mxint8-dot   mxint8                            32   two E8M0
    mxfp4-dot    mxfp4                             32   two E8M0
    nvfp4-dot    nvfp4                             16   two E4M3
    nvint4-dot   nvint4                            16   two E4M3

    sum   = total over the lanes of act[i] * wgt[i]       exact, in fixed point (but see aligner_bits)
    block = fl32(sum * act_scale * wgt_scale)             one rounding
    acc  <- fl32(acc + block)                             one rounding

fl32 is IEEE 754: to nearest, ties to even, subnormals and overflow to infinity included. NaN is always 0x7fc00000.

A block is NaN if a scale is NaN (E8M0 255, E4M3 0x7f and 0xff), an element is NaN, an infinity meets a 0, or products
are infinities of both signs; with infinities of one sign it is that infinity. A sum or scale of 0 makes a block of
+0; a negative sum that rounds to 0 makes -0. E4M3 scales with a sign bit are taken as the negative numbers they code.
The fp32 scale a tensor of nvfp4 and nvint4 is applied outside, to finished sums; a short last block is filled with
codes of 0.

How wide. A minifloat is significand * 2**shift * 2**least_exponent with the shift counted from the subnormals (shift
= max(field, 1) - 1), so a product of two is an integer of 2 * (y + 1) bits shifted left by at most 2 * greatest
shift; the sum needs ceil(log2 k) more and a sign. `sum_bits` is computed from the extreme products of finite codes:
42 for e4m3, 70 for e5m2, 21 for mxint8, 14 for mxfp4, 13 for nvfp4, 12 for nvint4. All but mxfp8's fit fp32's 24
bits, so their block is rounded only where it is subnormal or overflows (MX), or never (NV: the scales' significands
make it 20 and 19 bits).

aligner_bits (mxfp8 only) is the other way to build it, that of the published gate model: products are aligned to the
largest exponent in the block, n bits are kept of each, the rest is cut off (toward zero), and the sum of what is left
is exact. Then |sum - exact sum| < k * 2**(2 * (y + 1) - n) last places of the product with the largest exponent
(largest sum of shifts). Products of 0 do not take part in the search.

Sources: OCP Microscaling Formats v1.0, section 6.2 (Dot; internal precision is left to the implementation); NVFP4:
arXiv 2509.25149; aligner and n: INT v.s. FP, arXiv 2510.25602, appendix C. Deviation: the exact sum, which is the
default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType
from bitwright.arch.pe.elements import E4M3_SCALE, ELEMENTS, Element, round_to_fp32
from bitwright.arch.pe.fp16_mac import CANONICAL_NAN, FloatArray, canonical
from bitwright.arch.pe.stream import FIRST, Field, State, Steps, StreamSpec, row_flags

MAX_PIPELINE = 3
MAX_ALIGNER_BITS = 32
_NAN = np.uint32(CANONICAL_NAN).view(np.float32)
_JAM_BITS = 12  # of a sum of two limbs that does not fit 60 bits, this many low bits become one sticky bit


@dataclass(frozen=True)
class BlockDot(StreamSpec):
    """What the five block-scaled dot products share; see the module docstring. A step is one pair of blocks.

    Parameters
        pipeline : 0..3          Registers inside: 1 after the fixed-point sum, 2 also after the rounded block, 3 also
            after the lanes' products. The accumulator is always a register.
    Timing       latency 1 + pipeline cycles from a block to the sum that holds it; one block a cycle, never stalls.
    """

    pipeline: int = 0

    lanes: ClassVar[int] = 32
    scale_format: ClassVar[Literal["e8m0", "e4m3"]] = "e8m0"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"pipeline": MAX_PIPELINE})
    edge_unit: ClassVar[str] = "fp32-accumulator"

    def __post_init__(self) -> None:
        if not 0 <= self.pipeline <= MAX_PIPELINE:
            raise ConfigError(f"{self.name} pipeline = {self.pipeline}: must be in 0..{MAX_PIPELINE} (default 0)")

    @property
    def element(self) -> Element:
        """How codes of both operands are read."""
        return ELEMENTS[self.name.removesuffix("-dot")]

    @property
    def act(self) -> OperandType:  # type: ignore[override]
        return OperandType(self.name.removesuffix("-dot"), self.element.bits, "int" if self.element.integer else "code")

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return self.act

    @property
    def kept_bits(self) -> int:
        """Bits that the aligner keeps of a product; 0 for the exact sum."""
        return 0

    def cycles(self, blocks: int) -> int:
        """From the cycle of the first of `blocks` blocks, one a cycle, to the cycle that shows their sum."""
        return blocks + self.pipeline

    @property
    def psum(self) -> OperandType:
        return OperandType("fp32", 32, "float")

    @property
    def module_stem(self) -> str:
        stem = self.element.format if self.element.format.startswith(self.name[:-4]) else self.name[:-4]
        kept = f"_a{self.kept_bits}" if self.kept_bits else ""
        return f"{stem}_dot_k{self.lanes}{kept}" + (f"_p{self.pipeline}" if self.pipeline else "")

    @property
    def product_bits(self) -> int:
        """Bits of the product of two significands (minifloats: magnitude; integers: two's complement)."""
        return 2 * (self.element.mantissa_bits + 1)

    @property
    def sum_bits(self) -> int:
        """Two's complement width of the fixed-point sum, from the extreme products of finite codes."""
        if self.kept_bits:
            most = ((2 << self.element.mantissa_bits) - 1) ** 2 << (self.kept_bits - self.product_bits)
            return (self.lanes * most).bit_length() + 1
        low, high = min(self.element.finite), max(self.element.finite)
        least, most = self.lanes * low * high, self.lanes * max(low * low, high * high)
        return max(most.bit_length(), (~least).bit_length()) + 1

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        from bitwright.arch import formats

        if formats.get(format_name).name.partition(":")[0] != self.element.format:
            return Acceptance("refused", None, f"{self.name} multiplies {self.element.format} only")
        if group not in (None, self.lanes):
            return Acceptance("refused", None, f"a block has {self.lanes} values, not {group}")
        return Acceptance("native", None, f"{self.element.format} is the multiplier's own format")

    def zero(self) -> np.float32:
        return np.float32(0)

    # A stream of steps

    @property
    def step_fields(self) -> tuple[Field, ...]:
        codes = [Field(name, self.element.bits, self.lanes) for name in self.multiplied]
        return (*codes, Field("act_scale", 8), Field("wgt_scale", 8))

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        return (Field("fp32", 32),)

    def start(self, count: int) -> State:
        return (np.zeros(count, dtype=np.float32),)

    def step(self, state: State, fields: Steps) -> State:
        scales = {name: fields[name] for name in ("act_scale", "wgt_scale")}
        return (self.accumulate(state[0], fields["act"], fields["wgt"], **scales),)

    def result(self, state: State) -> dict[str, IntArray]:
        return {"fp32": np.asarray(state[0], dtype=np.float32).view(np.uint32).astype(np.int64)}

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        """Elements: both zeros, the least and the greatest finite codes of either sign, and what is not finite."""
        element, codes = self.element, np.arange(1 << self.element.bits)
        special = element.is_nan(codes) | element.is_inf(codes)
        value = np.where(special, 0, element.significand(codes) << element.shift(codes))
        half = 1 << (element.bits - 1)
        ends = {0, 1, half, half + 1, int(value.argmax()), int(value.argmin()), *codes[special].tolist()[-2:]}
        scales = (0, 126, 127, 128, 254, 255) if self.scale_format == "e8m0" else (0, 1, 0x38, 0x7E, 0xFE, 0x7F)
        both = tuple(sorted(ends))
        return {"act": both, "wgt": both, "act_scale": scales, "wgt_scale": scales}

    def tame(self, steps: Steps) -> Steps:
        """Three of four sums get finite codes and scales near 1: with random bits nearly every sum would be NaN."""
        wild = np.cumsum(steps[FIRST]) % 4 == 0
        found = dict(steps)
        for name in self.multiplied:
            codes = np.asarray(steps[name])
            special = self.element.is_nan(codes) | self.element.is_inf(codes)
            found[name] = np.where(special & ~wild[:, None], codes ^ (1 << self.element.mantissa_bits), codes)
        for name in ("act_scale", "wgt_scale"):
            codes = np.asarray(steps[name])
            near = 120 + codes % 16 if self.scale_format == "e8m0" else np.where(codes & 0x7F == 0x7F, 0x38, codes)
            found[name] = np.where(wild, codes, near)
        return found

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows through the format's own encoder; the fp32 scale of a tensor is left out, as in the hardware."""
        from bitwright.arch import formats

        codec, blocks = formats.get(self.element.format), -(-act.shape[1] // self.lanes)
        fill = ((0, 0), (0, blocks * self.lanes - act.shape[1]))
        found: dict[str, IntArray] = {}
        for name, values in (("act", act), ("wgt", wgt)):
            encoded = codec.encode(np.pad(values, fill))
            assert encoded.scale_codes is not None, f"{codec.name} has scale codes"
            found[name] = encoded.codes.reshape(-1, self.lanes).astype(np.int64)
            found[f"{name}_scale"] = encoded.scale_codes.ravel().astype(np.int64)
        return {**found, **row_flags(len(act), blocks)}

    # Golden arithmetic

    def accumulate(
        self, acc: Any, act: Any, wgt: Any, *, act_scale: npt.ArrayLike = 127, wgt_scale: npt.ArrayLike = 127,
        **mode: Any,
    ) -> FloatArray:  # fmt: skip
        """acc + block, both roundings done: acc float32 [...], act and wgt codes [..., lanes], scale codes [...]."""
        block = self.block(act, wgt, act_scale, wgt_scale)
        with np.errstate(all="ignore"):
            return canonical(np.asarray(np.asarray(acc, dtype=np.float32) + block))

    def block(
        self, act: npt.ArrayLike, wgt: npt.ArrayLike, act_scale: npt.ArrayLike, wgt_scale: npt.ArrayLike
    ) -> FloatArray:
        """The scaled sum of one block, rounded once to fp32; codes as in `accumulate`."""
        act, wgt = np.asarray(act), np.asarray(wgt)
        total, exponent = self.fixed_sum(act, wgt)
        scales = [np.asarray(codes, dtype=np.int64) for codes in (act_scale, wgt_scale)]
        if self.scale_format == "e8m0":
            nan = (scales[0] == 255) | (scales[1] == 255)
            result = round_to_fp32(total, exponent + scales[0] + scales[1] - 2 * 127)
        else:
            read = E4M3_SCALE
            nan = read.is_nan(scales[0]) | read.is_nan(scales[1])
            factor = read.significand(scales[0]) * read.significand(scales[1])
            shift = read.shift(scales[0]) + read.shift(scales[1]) + 2 * read.least_exponent
            result = round_to_fp32(total * factor, exponent + shift)
        positive, negative, lane_nan = self._specials(act, wgt)
        result = np.where(positive, np.float32(np.inf), np.where(negative, np.float32(-np.inf), result))
        return np.where(nan | lane_nan | (positive & negative), _NAN, result).astype(np.float32, copy=False)

    def fixed_sum(self, act: npt.ArrayLike, wgt: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """(sum, exponent) of blocks of codes [..., lanes]: their dot product is sum * 2**exponent.

        Where e5m2's exact sum needs more than 60 bits, its low bits are one sticky bit here (the hardware keeps them):
        far below fp32's last place, that rounds alike. Arbitrary for blocks with codes of infinity or NaN.
        """
        element = self.element
        product = element.significand(act) * element.significand(wgt)
        shift = element.shift(act) + element.shift(wgt)
        base = 2 * element.least_exponent
        if self.kept_bits:
            return self._aligned_sum(product, shift, base)
        if self.sum_bits <= 62:
            total = (product << shift).sum(axis=-1)
            return total, np.full(total.shape, base, dtype=np.int64)
        upper = shift >= 32
        low = np.where(upper, 0, product << np.where(upper, 0, shift)).sum(axis=-1)
        high = np.where(upper, product << np.where(upper, shift - 32, 0), 0).sum(axis=-1)
        high, low = high + (low >> 32), low & 0xFFFFFFFF
        narrow = np.abs(high) < 1 << 27
        whole = (np.where(narrow, high, 0) << 32) + low
        sticky = (low & ((1 << _JAM_BITS) - 1)) > 0
        jammed = (high << (32 - _JAM_BITS)) + (low >> _JAM_BITS) | sticky
        return np.where(narrow, whole, jammed), np.where(narrow, base, base + _JAM_BITS)

    def _aligned_sum(self, product: IntArray, shift: IntArray, base: int) -> tuple[IntArray, IntArray]:
        top = np.where(product != 0, shift, 0).max(axis=-1)
        spare = self.kept_bits - self.product_bits
        distance = np.clip(top[..., None] - shift, 0, 63)
        kept = (np.abs(product) << spare) >> distance
        return np.where(product < 0, -kept, kept).sum(axis=-1), top + (base - spare)

    def _specials(
        self, act: npt.ArrayLike, wgt: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Whether a block holds a product of +infinity, of -infinity, and a NaN."""
        element = self.element
        codes = [np.asarray(operand, dtype=np.int64) for operand in (act, wgt)]
        nan, inf = ([test(code) for code in codes] for test in (element.is_nan, element.is_inf))
        zero = [element.significand(code) == 0 for code in codes]
        lane_nan = nan[0] | nan[1] | (inf[0] & zero[1]) | (inf[1] & zero[0])
        lane_inf = (inf[0] | inf[1]) & ~lane_nan
        minus = ((codes[0] ^ codes[1]) >> (element.bits - 1)) & 1 == 1
        return (lane_inf & ~minus).any(axis=-1), (lane_inf & minus).any(axis=-1), lane_nan.any(axis=-1)


def _evidence(cases: int, oracle_cases: int) -> tuple[Evidence, ...]:
    return (
        Evidence(
            "hardware equals accumulate: all pairs of codes, all pairs of scales, random blocks, sums of many",
            cases,
            "tests/rtl/pe/test_block_dot.py",
        ),
        Evidence(
            "block and accumulate equal exact rationals or exact float64 with the roundings written out",
            oracle_cases,
            "tests/arch/pe/test_block_dot.py",
        ),
    )


@dataclass(frozen=True)
class MxFp8Dot(BlockDot):
    """32 products of mxfp8 elements, two E8M0 scales.

    Parameters
        element_format : "e4m3" or "e5m2"   Of both operands.
        aligner_bits : 0, or 8..32 (e4m3), 6..32 (e5m2)   Bits kept of each product; 0: the exact sum.
        pipeline : 0..3          As of BlockDot.
    """

    element_format: str = "e4m3"
    aligner_bits: int = 0

    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {}, {"element_format": "e5m2"}, {"aligner_bits": 24}, {"pipeline": MAX_PIPELINE}
    )  # fmt: skip
    name: ClassVar[str] = "mxfp8-dot"
    evidence: ClassVar[tuple[Evidence, ...]] = _evidence(1_680_248, 815_944)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.element_format not in ("e4m3", "e5m2"):
            hint = suggest(self.element_format, ("e4m3", "e5m2"))
            raise ConfigError(f"{self.name} element_format = {self.element_format!r}: no such format ({hint})")
        if self.aligner_bits and not self.product_bits <= self.aligner_bits <= MAX_ALIGNER_BITS:
            raise ConfigError(
                f"{self.name} aligner_bits = {self.aligner_bits}: must be 0 (the exact sum) or in "
                f"{self.product_bits}..{MAX_ALIGNER_BITS} (the gate model of arXiv 2510.25602 has 24)"
            )

    @property
    def element(self) -> Element:
        """How codes of both operands are read."""
        return ELEMENTS[self.element_format]

    @property
    def kept_bits(self) -> int:
        """Bits that the aligner keeps of a product; 0 for the exact sum."""
        return self.aligner_bits


@dataclass(frozen=True)
class MxInt8Dot(BlockDot):
    """32 products of mxint8 elements (two's complement, -128 included), two E8M0 scales. Parameters of BlockDot."""

    name: ClassVar[str] = "mxint8-dot"
    evidence: ClassVar[tuple[Evidence, ...]] = _evidence(510_672, 415_228)


@dataclass(frozen=True)
class MxFp4Dot(BlockDot):
    """32 products of mxfp4 elements, two E8M0 scales. Parameters of BlockDot."""

    name: ClassVar[str] = "mxfp4-dot"
    evidence: ClassVar[tuple[Evidence, ...]] = _evidence(320_755, 88_828)


@dataclass(frozen=True)
class NvFp4Dot(BlockDot):
    """16 products of nvfp4 elements, two E4M3 scales. Parameters of BlockDot."""

    name: ClassVar[str] = "nvfp4-dot"
    lanes: ClassVar[int] = 16
    scale_format: ClassVar[Literal["e8m0", "e4m3"]] = "e4m3"
    evidence: ClassVar[tuple[Evidence, ...]] = _evidence(313_523, 88_828)


@dataclass(frozen=True)
class NvInt4Dot(BlockDot):
    """16 products of nvint4 elements (two's complement, -8 included), two E4M3 scales. Parameters of BlockDot."""

    name: ClassVar[str] = "nvint4-dot"
    lanes: ClassVar[int] = 16
    scale_format: ClassVar[Literal["e8m0", "e4m3"]] = "e4m3"
    evidence: ClassVar[tuple[Evidence, ...]] = _evidence(313_523, 88_828)


BLOCK_DOTS: tuple[type[BlockDot], ...] = (MxFp8Dot, MxInt8Dot, MxFp4Dot, NvFp4Dot, NvInt4Dot)
