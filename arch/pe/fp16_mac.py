"""fp16-mac: the exact product of two fp16 numbers added into an fp32 accumulator with one rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import Acceptance, Evidence, OperandType, PESpec
from bitwright.arch.pe.weight_codes import decodable

FloatArray = npt.NDArray[np.float32]
CANONICAL_NAN = 0x7FC00000


def canonical(values: FloatArray) -> FloatArray:
    """`values` with every NaN replaced by the quiet NaN 0x7fc00000, the only one our hardware makes."""
    nan = np.uint32(CANONICAL_NAN).view(np.float32)
    return np.where(np.isnan(values), nan, values).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Fp16Mac(PESpec):
    """acc <- acc + act * wgt: fp16 operands, fp32 accumulator, one rounding to nearest, ties to even.

    Arithmetic   IEEE 754, subnormal operands and accumulators included. A product has 22 significant bits and is
                 exact in fp32, so acc + product in fp32 is the fused result. Every NaN is 0x7fc00000; inf * 0 and
                 inf - inf are NaN; exact cancellation gives +0. A sum never overflows: a finite product is below
                 2**32, less than half the last place of the largest fp32. A sum that starts from 0 stays a multiple
                 of 2**-48, so it is never subnormal; a subnormal accumulator from outside is still summed exactly.
    Operands     act fp16, wgt fp16. Every other format comes through "weight-dequantiser" at the array border.
    """

    name: ClassVar[str] = "fp16-mac"
    act: ClassVar[OperandType] = OperandType("fp16", 16, "float")
    wgt: ClassVar[OperandType] = OperandType("fp16", 16, "float")
    edge_unit: ClassVar[str] = "fp32-accumulator"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "ws cell equals accumulate: random, corners, all weights, subnormals, cancellation; os cell on sequences",
            1_014_400 + 8 * (1 << 16),
            "tests/rtl/pe/test_fp16_mac.py",
        ),
        Evidence(
            "accumulate equals exact rational arithmetic, finite results", 18_773, "tests/arch/pe/test_pe_specs.py"
        ),
    )

    @property
    def psum(self) -> OperandType:
        return OperandType("fp32", 32, "float")

    @property
    def module_stem(self) -> str:
        return "fp16_mac"

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        if format_name == "fp16":
            return Acceptance("native", None, "fp16 is the multiplier's own format")
        if decodable(format_name) or format_name == "bf16":
            return Acceptance("decoder", "weight-dequantiser", f"{format_name} values are rounded once to fp16")
        return Acceptance("refused", None, f"no decoder from {format_name} to fp16")

    def zero(self) -> np.float32:
        return np.float32(0)

    def accumulate(  # type: ignore[override]
        self, acc: npt.ArrayLike, act: npt.ArrayLike, wgt: npt.ArrayLike
    ) -> FloatArray:
        """acc + act * wgt as float32, rounded once; act and wgt are float16, acc is float32."""
        with np.errstate(all="ignore"):
            product = np.asarray(act, dtype=np.float16).astype(np.float32)
            product = product * np.asarray(wgt, dtype=np.float16).astype(np.float32)
            return canonical(np.asarray(np.asarray(acc, dtype=np.float32) + product))
