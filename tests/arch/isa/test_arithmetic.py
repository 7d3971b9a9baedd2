"""Slices, long sums and the vector unit, at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.isa.arithmetic import Extras, Tile, cut, execute, vector
from bitwright.arch.isa.extents import slice_count
from bitwright.arch.isa.instructions import Function, NumberType, Vector
from bitwright.arch.isa.limits import Limits, TileFormat
from bitwright.workloads import linear
from hypothesis import given
from hypothesis import strategies as st

VALUES = [0.5, 1.5, -2.5, 126.5, 127.5, -128.0, 3e38, -3e38, float("inf"), float("-inf"), float("nan"), -0.0]


@given(k=st.integers(1, 300), group=st.integers(1, 350), steps=st.none() | st.integers(1, 70))
def test_slices_are_those_of_the_matmul_behind_perplexity(k: int, group: int, steps: int | None) -> None:
    slices = cut(k, group, steps)
    expected = list(linear.cut(k, group, steps))
    bounds = [np.flatnonzero(slices.of == number) for number in range(slices.count)]
    assert [(slice(part[0], part[-1] + 1), g) for part, g in zip(bounds, slices.slice_group, strict=True)] == expected
    assert slices.count == slice_count(k, group, steps)
    assert slices.longest == max(part.stop - part.start for part, _ in expected)


@pytest.mark.parametrize("m", [1, 3])
def test_sums_beyond_float32s_integers_are_exact(m: int) -> None:
    """2000 products of about 2**13.9: sums of 2**24.8, each rounded to fp32 once."""
    draw = np.random.default_rng(1)
    acts, codes = draw.integers(100, 128, (2000, m)).astype(np.int8), draw.integers(100, 128, (2000, 2), np.uint16)
    limits = Limits(4, 2, "os", pe.Int8Mac(), 8, (TileFormat("int8", 8, True, False),), 1, 1, 1, 1, 1, 1)
    tile = Tile(acts, codes, np.ones((1, 2), np.float16), None)
    found = execute(limits, limits.formats[0], tile, cut(2000, 2000, None), np.zeros((m, 2), np.float32))
    exact = acts.T.astype(np.int64) @ codes.astype(np.int64)
    assert exact.min() > 1 << 24
    np.testing.assert_array_equal(found, exact.astype(np.float32))


@pytest.mark.parametrize(
    ("to", "function", "expected"),
    [
        (NumberType.INT8, Function.NONE, [0, 2, -2, 126, 127, -127, 127, -127, 127, -127, 0, 0]),
        (NumberType.INT8, Function.RELU, [0, 2, 0, 126, 127, 0, 127, 0, 127, 0, 0, 0]),
        (
            NumberType.FP16,
            Function.NONE,
            [0x3800, 0x3E00, 0xC100, 0x57E8, 0x57F8, 0xD800, 0x7C00, 0xFC00, 0x7C00, 0xFC00, 0x7E00, 0x8000],
        ),
        (
            NumberType.FP16,
            Function.RELU,
            [0x3800, 0x3E00, 0, 0x57E8, 0x57F8, 0, 0x7C00, 0, 0x7C00, 0, 0x7E00, 0],
        ),
        (
            NumberType.FP32,
            Function.RELU,
            [*np.array([0.5, 1.5, 0, 126.5, 127.5, 0, 3e38, 0], "<f4").view("<u4"), 0x7F800000, 0, 0x7FC00000, 0],
        ),
    ],
)
def test_conversions_at_their_edges(to: NumberType, function: Function, expected: list[int]) -> None:
    values = np.array([VALUES], np.float32)
    found = vector(Vector(m=1, to=to, function=function), values, Extras())
    bits = {NumberType.INT8: np.int8, NumberType.FP16: np.uint16, NumberType.FP32: np.uint32}[to]
    assert found.view(bits)[0].tolist() == expected


def test_every_nan_is_the_canonical_one() -> None:
    """Whatever operand brings it, and of infinity less infinity, which is negative on some processors."""
    odd = np.array([0xFFC00001, 0x7F800001], np.uint32).view(np.float32)
    one = np.ones((2, 2), np.float32)
    infinite = np.full((2, 2), np.inf, np.float32)
    for accumulators, extras in (
        (one, Extras(scales=odd)),
        (one, Extras(biases=odd)),
        (one, Extras(residuals=np.stack([odd, odd]))),
        (infinite, Extras(scales=np.zeros(2, np.float32))),
        (infinite, Extras(residuals=-infinite)),
    ):
        found = vector(Vector(m=2), accumulators, extras)
        assert found.view(np.uint32).tolist() == [[0x7FC00000] * 2] * 2


def test_scale_bias_function_residual_in_this_order_each_rounded() -> None:
    """In steps of 2**-24: one and its neighbours, where a fused or reordered computation differs."""
    accumulators = np.array([[1 + 2**-23]], np.float32)
    scales, biases = np.array([1 + 2**-23], np.float32), np.array([-1 - 2**-22], np.float32)
    plain = vector(Vector(m=1), accumulators, Extras(scales, biases))
    assert plain.tolist() == [[0.0]]  # fused: 2**-46
    residual = np.array([[-3.0]], np.float32)
    relu = vector(Vector(m=1, function=Function.RELU), -accumulators, Extras(None, None, residual))
    assert relu.tolist() == [[-3.0]]
