"""Operands of the fixed-point dequantiser: corners crossed, sums of all sizes, ties of its rounding and nearly."""

from __future__ import annotations

import numpy as np
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser
from bitwright.rtl.bench.operands import FP16_CORNERS, cross, fp32_near, integer_extremes


def fixed_point(spec: FixedPointDequantiser, count: int, seed: int) -> dict[str, IntArray]:
    """`count` operands, as the unit's ports take them; scale and acc are bits."""
    rng = np.random.default_rng(seed)
    psum, scale = _sums(spec.psum_bits, count, rng), rng.integers(0, 1 << 16, count)
    corner = [axis.astype(np.int64) for axis in cross(np.asarray(integer_extremes(spec.psum_bits)), FP16_CORNERS)]
    crossed = min(len(corner[0]), count // 4)
    psum[:crossed], scale[:crossed] = corner[0][:crossed], corner[1][:crossed]
    half = count // 2  # from here on ties: powers of two times sums that end in the middle between two fp32 numbers
    scale[half:] &= np.where(rng.integers(0, 4, count - half) > 0, 0xFC00, 0xFFFF)
    found = {"psum": psum, "scale": scale}
    if spec.zero_bits:
        found["act_sum"] = _sums(spec.act_sum_bits, count, rng)
        found["zero"] = _sums(spec.zero_bits, count, rng)
        found["zero"][half:] *= rng.integers(0, 4, count - half) == 0
        cancelling = np.arange(count) % 8 == 0  # psum is the product, or next to it: short results of long terms
        low, high = -(1 << (spec.psum_bits - 1)), (1 << (spec.psum_bits - 1)) - 1
        narrow = np.clip(found["act_sum"], low >> spec.zero_bits, high >> spec.zero_bits)
        found["act_sum"] = np.where(cancelling, narrow, found["act_sum"])
        near = np.clip(found["zero"] * narrow + rng.integers(-2, 3, count), low, high)
        found["psum"] = np.where(cancelling, near, psum)
    if spec.exponent_bits:
        found["exponent"] = rng.integers(0, 1 << spec.exponent_bits, count)
    others = {name: values for name, values in found.items() if name != "scale"}
    scaled = spec.scaled(scale=scale.astype(np.uint16).view(np.float16), **others)
    found["acc"] = fp32_near(scaled, seed + 1).astype(np.int64)
    if spec.nonfinite:
        found["nonfinite"] = (rng.integers(0, 16, count) == 0).astype(np.int64)
    return found


def _sums(bits: int, count: int, rng: np.random.Generator) -> IntArray:
    """Two's complement integers of all lengths; the second half of them ties, where they are long enough, or nearly."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    found = rng.integers(low, high, count, endpoint=True) >> rng.integers(0, bits, count)
    if bits > 25:
        half = count // 2
        places = rng.integers(1, bits - 24, count - half)
        kept = rng.integers(1 << 23, 1 << 24, count - half) * (1 - 2 * rng.integers(0, 2, count - half))
        ties = (kept << places) + (np.int64(1) << (places - 1)) + rng.integers(-1, 2, count - half)
        found[half:] = np.clip(ties, low, high)
    return np.asarray(found)
