"""fp16-mac behind a stream: exact products of fp16 numbers added into an fp32 or fp16 sum, one rounding a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType
from bitwright.arch.pe.fp16_mac import Fp16Mac
from bitwright.arch.pe.stream import FIRST, LAST, Field, State, Steps, StreamSpec, row_flags

ACC_FORMATS = ("fp32", "fp16")
_DEEPEST = {"fp32": 2, "fp16": 1}  # one cut more would not shorten the longest stage, which is fp16's loop
CANONICAL_NAN_FP16 = 0x7E00
_EXPONENT = 0x7C00
# Both zeros, the ends and middle of the subnormals, the least normals, about 1, the largest, infinities and NaNs.
CORNERS = (
    0x0000, 0x8000, 0x0001, 0x8001, 0x0200, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3BFF, 0x3C00, 0xBC00, 0x3C01, 0x7BFF,
    0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0xFE01,
)  # fmt: skip


@dataclass(frozen=True)
class Fp16Stream(StreamSpec):
    """sum <- sum + act * wgt, fp16 operands, one rounding a step, to nearest, ties to even.

    Parameters
        acc_format : "fp32" | "fp16"   Format of the sum, and of every sum on the way.
        pipeline : 0..2          Registers in front of the loop: 1 after the product, 2 after the multiplier as well;
            0..1 for fp16, whose loop is longer than what 2 would cut.
    Operands     act, wgt fp16.
    Arithmetic   IEEE 754. The product (22 bits) is exact; it is rounded only as part of the sum, once a step. fp32 is
                 arch.pe.fp16_mac: never overflows, never becomes subnormal, NaN 0x7fc00000. fp16: subnormals count with
                 their value, overflow gives infinity, NaN is 0x7e00. A sum starts from +0. An exact cancellation gives
                 +0; a sum in fp16 is -0 where a negative product too small for fp16 is rounded to it. Before the
                 fp32-accumulator an fp16 sum is widened to fp32, exactly: wires, but for subnormals a shift. No unit of
                 ours holds that.
    Error        sums of standard normal operands against exact arithmetic, in ulps of the exact sum in the
                 accumulator's format, over 4,000 sums each; the largest are of sums that cancel:
                                 K = 128                     K = 576
                     fp32        mean 5.2, max 1,700         mean 14, max 5,700
                     fp16        mean 6.4, max 2,600         mean 15, max 2,900
                 Over the sum of |act * wgt| it is at most 1.9e-7 in fp32, 1.7e-3 in fp16.
    Timing       latency 1 + pipeline cycles, one step a cycle. The loop stays one cycle: with pipeline 1 it holds an
                 addition and its rounding, in fp32 by two paths; with pipeline 2 the difference of exponents is made a
                 step ahead and leading zeros are foretold.
    Depth        that loop bounds the clock: at the deepest pipeline of either sum the longest path starts at the sum's
                 register (rtl.asic.timing, nangate45), so that a register more in front of it gains nothing.
    Lanes        one, a product a cycle; a dot product of several lanes is not built. For weights in integer codes
                 `weight-dequantiser` at the border of an array is the shared form of w4a16-dequant.
    Source       the usual fused multiply-add; the baseline of every comparison with fp16 activations.
    """

    acc_format: Literal["fp32", "fp16"] = "fp32"
    pipeline: int = 0

    name: ClassVar[str] = "fp16-mac"
    act: ClassVar[OperandType] = Fp16Mac.act
    wgt: ClassVar[OperandType] = Fp16Mac.wgt
    edge_unit: ClassVar[str] = Fp16Mac.edge_unit
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"pipeline": 1},
        {"pipeline": 2},
        {"acc_format": "fp16"},
        {"acc_format": "fp16", "pipeline": 1},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "hardware equals golden at every cut, values and cycles: cancelling and tied sums seen after every step; "
            "every fp16 weight times 6 activations onto another product; random, corner and real sums; steps",
            5 * (240_000 + 12 * (1 << 16) + 247_785),
            "tests/rtl/pe/test_fp16_stream.py",
        ),
        Evidence(
            "golden equals exact rationals with the rounding written out, both accumulators: random, subnormal, "
            "cancelling; every corner pair after every corner; steps",
            2 * (24_000 + 19**3),
            "tests/arch/pe/test_fp16_stream.py",
        ),
        Evidence(
            "error of sums of 128 and 576 against exact arithmetic, sums", 16_000, "tests/arch/pe/test_fp16_stream.py"
        ),
    )

    def __post_init__(self) -> None:
        if self.acc_format not in ACC_FORMATS:
            raise ConfigError(f"{self.name} acc_format = {self.acc_format!r}: must be one of {', '.join(ACC_FORMATS)}")
        deepest = _DEEPEST[self.acc_format]
        if not 0 <= self.pipeline <= deepest:
            raise ConfigError(
                f"{self.name} pipeline = {self.pipeline}: must be in 0..{deepest} with acc_format {self.acc_format}"
            )

    @property
    def psum(self) -> OperandType:
        return OperandType(self.acc_format, 32 if self.acc_format == "fp32" else 16, "float")

    @property
    def module_stem(self) -> str:
        return f"fp16_mac_{self.acc_format}_s{self.pipeline}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        return (Field("act", 16), Field("wgt", 16))

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        return (Field("psum", self.psum.bits),)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        return Fp16Mac().accepts(format_name, group)

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        return {"act": CORNERS, "wgt": CORNERS}

    def tame(self, steps: Steps) -> Steps:
        return without_specials(steps, ("act", "wgt"))

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows rounded to fp16."""
        return {"act": fp16_bits(act).ravel(), "wgt": fp16_bits(wgt).ravel(), **row_flags(*act.shape)}

    def start(self, count: int) -> State:
        return start(count, self.acc_format)

    def step(self, state: State, fields: Steps) -> State:
        act, wgt = (as_fp16(fields[name]) for name in ("act", "wgt"))
        return (fused(state[0], act, wgt),)

    def result(self, state: State) -> dict[str, IntArray]:
        return {"psum": bits_of(state[0])}


def start(count: int, acc_format: str) -> State:
    """`count` sums of +0."""
    return (np.zeros(count, dtype=np.float32 if acc_format == "fp32" else np.float16),)


def fused(acc: npt.NDArray[Any], act: npt.NDArray[np.float16], wgt: npt.NDArray[np.float16]) -> npt.NDArray[Any]:
    """acc + act * wgt rounded once to the format of `acc`, float32 or float16.

    For fp16 the sum is made in float64 first, which decides no rounding: it is inexact only where the product is below
    2**-31 of the accumulator's leading bit, far from any tie of fp16, or above 2**17, where every sum overflows.
    """
    if acc.dtype == np.float32:
        return Fp16Mac().accumulate(acc, act, wgt)
    with np.errstate(all="ignore"):
        product = act.astype(np.float32) * wgt.astype(np.float32)
        total = (acc.astype(np.float64) + product).astype(np.float16)
    bits = total.view(np.uint16)
    bits[np.isnan(total)] = CANONICAL_NAN_FP16
    return total


def as_fp16(codes: IntArray) -> npt.NDArray[np.float16]:
    """fp16 numbers of their bits."""
    return np.asarray(codes).astype(np.uint16).view(np.float16)


def bits_of(numbers: npt.NDArray[Any]) -> IntArray:
    """Bits of floats, int64."""
    unsigned: npt.NDArray[Any] = numbers.view(np.uint32 if numbers.dtype == np.float32 else np.uint16)
    return unsigned.astype(np.int64)


def fp16_bits(values: npt.NDArray[np.float32]) -> IntArray:
    """Bits of the nearest fp16 numbers."""
    return bits_of(values.astype(np.float16))


def without_specials(steps: Steps, names: tuple[str, ...]) -> Steps:
    """Infinities and NaNs made finite in 7 of 8 sums of more than one step: one of them would hide all other steps."""
    first, last = np.asarray(steps[FIRST]) != 0, np.asarray(steps[LAST]) != 0
    guarded = ~(first & last) & (np.cumsum(first) % 8 != 0)
    tamed = dict(steps)
    for name in names:
        codes = np.asarray(steps[name])
        special = guarded & (codes & _EXPONENT == _EXPONENT)
        tamed[name] = np.where(special, codes & ~0x4000, codes)
    return tamed
