"""Operands that hurt: corners, near-cancellation and random bit patterns for each processing element."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]

FP16_CORNERS = (
    0x0000, 0x8000, 0x0001, 0x8001, 0x0002, 0x0200, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x0401, 0x07FF, 0x3BFF, 0x3C00,
    0xBC00, 0x3C01, 0x4000, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFE01,
)  # fmt: skip
FP32_CORNERS = (
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800000, 0x27800000, 0xA7800000,
    0x33800000, 0xB3800000, 0x3F7FFFFF, 0x3F800000, 0xBF800000, 0x3F800001, 0x4B7FFFFF, 0x4F7FE001, 0xCF7FE001,
    0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF,
)  # fmt: skip


def cross(*axes: npt.ArrayLike) -> list[Bits]:
    """Every combination of the axes' values, as one flat array an axis."""
    grids = np.meshgrid(*[np.asarray(axis, dtype=np.uint64) for axis in axes], indexing="ij")
    return [grid.ravel() for grid in grids]


def fp32_near(target: npt.NDArray[np.float32], seed: int) -> Bits:
    """fp32 bit patterns that make sums with `target` hard: half its neighbours in magnitude with either sign (they
    cancel, or nearly), a quarter at an exponent 20 to 27 away (ties and sticky bits), a quarter any bits."""
    rng = np.random.default_rng(seed)
    count = len(target)
    raw = target.view(np.uint32).astype(np.int64)
    near = raw + rng.integers(-(1 << 26), 1 << 26, count) * (rng.integers(0, 2, count) > 0) + rng.integers(-4, 5, count)
    steps = rng.choice([-27, -26, -25, -24, -23, -22, -21, -20, 20, 21, 22, 23, 24, 25, 26, 27], count)
    far = raw + (steps << 23)
    few = rng.integers(0, 1 << 23, count) & ~((1 << rng.integers(0, 24, count)) - 1)  # short fractions make ties
    far = (far & ~0x7FFFFF) | few
    wild = rng.integers(0, 1 << 32, count)
    kind = rng.integers(0, 4, count)
    chosen = np.where(kind < 2, near, np.where(kind == 2, far, wild))
    return ((chosen ^ (rng.integers(0, 2, count) << 31)) & 0xFFFFFFFF).astype(np.uint64)


def fp16_mac_operands(count: int, seed: int) -> tuple[Bits, Bits, Bits]:
    """Corner triples (acc, act, wgt), then `count` random products with accumulators near them."""
    rng = np.random.default_rng(seed)
    corner = cross(FP32_CORNERS, FP16_CORNERS, FP16_CORNERS)
    act, wgt = rng.integers(0, 1 << 16, (2, count)).astype(np.uint16)
    subnormal = rng.integers(0, 6, count) == 0
    act = np.where(subnormal, act & 0x83FF, act).astype(np.uint16)
    short = rng.integers(0, 4, count) == 0  # few significant bits: ties
    wgt = np.where(short, wgt & 0xFE00, wgt).astype(np.uint16)
    with np.errstate(all="ignore"):
        product = act.view(np.float16).astype(np.float32) * wgt.view(np.float16).astype(np.float32)
    acc = fp32_near(product, seed + 1)
    random = (acc, act.astype(np.uint64), wgt.astype(np.uint64))
    first, second, third = (np.concatenate(pair) for pair in zip(corner, random, strict=True))
    return first, second, third


def all_weights(acts: tuple[int, ...], seed: int) -> tuple[Bits, Bits, Bits]:
    """Every fp16 weight against each activation in `acts`, with accumulators near the product: (acc, act, wgt)."""
    act, wgt = cross(acts, np.arange(1 << 16))
    with np.errstate(all="ignore"):
        factors = [bits.astype(np.uint16).view(np.float16).astype(np.float32) for bits in (act, wgt)]
        product = factors[0] * factors[1]
    return fp32_near(product, seed), act, wgt


def integer_extremes(bits: int) -> list[int]:
    """Two's complement extremes, their neighbours, and values about zero, as integers."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return sorted({low, low + 1, -1, 0, 1, high - 1, high})
