"""Rounding to fp16 against numpy's own conversion."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.errors import FormatError
from bitwright.workloads.rounding import round_fp16
from hypothesis import given, settings
from hypothesis import strategies as st


def test_every_fp16_value_and_every_midpoint_and_its_neighbours() -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    values = np.sort(codes.view(np.float16).astype(np.float32))
    values = values[np.isfinite(values)]
    midpoints = (values[:-1] + values[1:]) / 2  # exact: one more bit
    every = np.concatenate(
        [values, midpoints, np.nextafter(midpoints, np.float32(-1e9)), np.nextafter(midpoints, np.float32(1e9))]
    )
    expected = every.astype(np.float16).astype(np.float32)
    assert np.array_equal(round_fp16(every, "x"), expected)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-65519.0, 65519.0, width=32), min_size=1, max_size=50))
def test_any_value_in_range(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert np.array_equal(round_fp16(array, "x"), array.astype(np.float16).astype(np.float32))


def test_shape_and_chunks() -> None:
    array = np.random.default_rng(1).standard_normal((3, 40_001)).astype(np.float32)
    assert np.array_equal(round_fp16(array, "x"), array.astype(np.float16).astype(np.float32))
    assert round_fp16(np.zeros((0, 4), np.float32), "x").shape == (0, 4)


@pytest.mark.parametrize(("value", "shown"), [(65520.0, "65520"), (-7e4, "-70000"), (np.inf, "inf"), (np.nan, "nan")])
def test_what_fp16_cannot_hold_is_refused(value: float, shown: str) -> None:
    array = np.zeros((2, 3), np.float32)
    array[1, 2] = value
    with pytest.raises(FormatError) as error:
        round_fp16(array, "layers.3.down_input")
    assert str(error.value) == (
        f"layers.3.down_input[1, 2] = {shown}: does not fit fp16 (largest finite value 65504); use another format"
    )


def test_the_largest_that_rounds_down() -> None:
    below = np.nextafter(np.float32(65520.0), np.float32(0))
    assert round_fp16(np.array([below]), "x")[0] == 65504.0
