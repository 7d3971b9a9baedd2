"""Scale formats: how the real-valued step of a group becomes the scale that the decoder multiplies by.

fp16   round to nearest even; 2**-24 (least subnormal) .. 65504.
fp32   round to nearest even; 2**-100 .. 2**100, so that the scale, its half and all products stay normal.
int8   two levels (VS-Quant, as BitMoD uses it): first = fp16 scale of each group;
       channel = fp16(greatest first of the row / 127); code = nearest even integer to first / channel,
       0..127 (the positive half of symmetric INT8). The scale is channel * code, exact in float32
       (11 + 7 significant bits).

A group whose step is not zero never gets scale 0: below the least scale it gets the least scale (int8: code
1, channel at least 2**-24). A group of zeros gets scale 0. A step above the greatest scale is a FormatError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bitwright.arch.errors import FormatError, suggest
from bitwright.arch.formats.base import FloatArray
from bitwright.arch.formats.blocks import Layout, group_text
from numpy.typing import NDArray

SCALE_BITS = {"fp16": 16, "fp32": 32, "int8": 8}
CHANNEL_SCALE_BITS = 16
SCALE_CODE_MAX = 127

_FLOAT_SCALES: dict[str, tuple[type[np.float16] | type[np.float32], float, float]] = {
    "fp16": (np.float16, 2.0**-24, 65504.0),
    "fp32": (np.float32, 2.0**-100, 2.0**100),
}


@dataclass(frozen=True, eq=False)
class Scales:
    """Scales of all groups.

    Fields
        effective : float32 [rows, G]   What the decoder multiplies by.
        stored : float16|float32 [rows, G]   The same numbers in the type that `Encoded.scales` has.
        codes : uint8 [rows, G] or None      int8 only.
        channels : float16 [rows, 1] or None int8 only.
    """

    effective: FloatArray
    stored: NDArray[np.float16] | FloatArray
    codes: NDArray[np.uint8] | None = None
    channels: NDArray[np.float16] | None = None


def check_scale_format(scale_format: str, where: str) -> str:
    """scale_format itself, or FormatError."""
    if scale_format not in SCALE_BITS:
        raise FormatError(
            f"scale_format = {scale_format}: not a scale format; {suggest(str(scale_format), SCALE_BITS)}; {where}"
        )
    return scale_format


def scale_storage_bits(layout: Layout, scale_format: str) -> int:
    """Bits of all scales of an array, second level included."""
    first = SCALE_BITS[scale_format] * layout.rows * layout.groups
    return first + (CHANNEL_SCALE_BITS * layout.rows if scale_format == "int8" else 0)


def fit_scales(
    steps: NDArray[np.float64], scale_format: str, layout: Layout, shape: tuple[int, ...], where: str
) -> Scales:
    """Scales of steps [rows, G] (>= 0) by the rules above; shape is that of the values, for messages."""
    if scale_format != "int8":
        stored = round_scales(steps, scale_format, layout, shape, where)
        return Scales(stored.astype(np.float32), stored)
    first = round_scales(steps, "fp16", layout, shape, where).astype(np.float64)
    widest = first.max(axis=1, keepdims=True)
    channels = _round_up_zeros(widest / SCALE_CODE_MAX, np.float16, 2.0**-24)
    ratio = first / np.where(channels > 0, channels, 1).astype(np.float64)
    codes = np.clip(np.rint(ratio), first > 0, SCALE_CODE_MAX).astype(np.uint8)
    effective = channels.astype(np.float32) * codes
    return Scales(effective, effective, codes, channels.astype(np.float16))


def round_scales(
    steps: NDArray[np.float64], scale_format: str, layout: Layout, shape: tuple[int, ...], where: str
) -> NDArray[np.float16] | FloatArray:
    """steps [rows, G] rounded to fp16 or fp32; FormatError for one above the greatest scale."""
    dtype, least, greatest = _FLOAT_SCALES[scale_format]
    if steps.size and steps.max() > greatest:
        row, group = np.unravel_index(int(np.argmax(steps > greatest)), steps.shape)
        more = "use scale_format='fp32' or smaller values" if scale_format == "fp16" else "use smaller values"
        raise FormatError(
            f"scale = {steps[row, group]:.6g}: {scale_format} scales reach {greatest:.6g} ({more}); "
            f"{group_text(int(row), int(group), shape, layout)}, {where}"
        )
    return _round_up_zeros(steps, dtype, least)


def divisors(effective: FloatArray) -> FloatArray:
    """Scales to divide by: those of all-zero groups become 1, so that 0 / scale is 0."""
    return np.where(effective > 0, effective, np.float32(1))


def _round_up_zeros(
    steps: NDArray[np.float64], dtype: type[np.float16] | type[np.float32], least: float
) -> NDArray[np.float16] | FloatArray:
    lifted = np.where(steps > 0, np.maximum(steps, least), 0.0)
    return lifted.astype(np.float16) if dtype is np.float16 else lifted.astype(np.float32)
