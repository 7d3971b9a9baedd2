"""Cycles of real codes: against digits counted by hand-written arithmetic, a loop over tiles, and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.workloads.data_cycles import (
    CycleCounts,
    data_dependent,
    drawn_sums,
    gaussian_like,
    tiles_cycles,
    weight_cycles,
)
from hypothesis import given
from hypothesis import strategies as st

_PLACES = list(itertools.product(range(-2, 3), repeat=4))


def booth_digits(code: int) -> int:
    """Nonzero radix-4 Booth digits: by the bits' changes, without the windows' arithmetic."""
    bits = [0, *((code >> i) & 1 for i in range(8))]
    return sum(len({bits[2 * i], bits[2 * i + 1], bits[2 * i + 2]}) > 1 for i in range(4))


def ent_digits(code: int) -> int:
    """Of the magnitude with digits -1..2, the only such numeral: found by trying all of them."""
    found = [
        digits for digits in _PLACES if min(digits) > -2 and sum(d * 4**i for i, d in enumerate(digits)) == abs(code)
    ]
    assert len(found) == 1
    return sum(digit != 0 for digit in found[0])


@pytest.mark.parametrize("encoding", ["en-t", "mbe"])
@pytest.mark.parametrize("name", ["opt3", "opt4c"])
def test_every_int8_code_takes_its_nonzero_digits_and_at_least_one(name: str, encoding: str) -> None:
    form = formats.get("int8")
    values = np.arange(-127, 128, dtype=np.float32)[None]
    encoded = form.encode(values)
    np.testing.assert_array_equal(form.decode(encoded), values)
    count = booth_digits if encoding == "mbe" else ent_digits
    expected = [max(1, count(code)) for code in range(-127, 128)]
    assert weight_cycles(data_dependent(name, encoding=encoding), encoded)[0].tolist() == expected


@pytest.mark.parametrize("name", ["int4", "int4_asym", "bitmod_fp4", "bitmod_fp3", "fp4_e2m1"])
def test_other_formats_take_the_cycles_of_their_integers(name: str) -> None:
    """The integer, from the format's own decoded values: value / scale in the least steps that are whole."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((6, 48)).astype(np.float32)
    form = formats.get(name)
    encoded = form.encode(weights, group=16)
    assert encoded.scales is not None
    steps = form.decode(encoded).astype(np.float64) / np.repeat(encoded.scales.astype(np.float64), 16, axis=1)
    integers = np.rint(steps / float(form.integer_step or 0)).astype(int)
    expected = np.vectorize(lambda code: max(1, ent_digits(code)))(integers)
    np.testing.assert_array_equal(weight_cycles(data_dependent("opt3"), encoded), expected)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 9))
def test_tiles_take_the_longest_of_their_columns(sums: list[int], cols: int) -> None:
    expected = sum(max(sums[first : first + cols]) for first in range(0, len(sums), cols))
    assert tiles_cycles(np.asarray(sums), cols) == expected
    assert tiles_cycles(np.asarray(sums), cols, lambda tiles: tiles.sum(axis=1)) == sum(sums)


def test_counts_have_the_mean_and_the_most_of_their_weights() -> None:
    cycles = np.asarray([[1, 4, 2], [1, 1, 3]])
    counts = CycleCounts.of(cycles)
    assert (counts.weights, counts.mean, counts.most) == (6, 2.0, 4)
    both = counts + CycleCounts.of(np.asarray([6]))
    assert (both.weights, both.mean, both.most) == (7, 18 / 7, 6)


def test_draws_have_the_distribution_that_they_are_drawn_from() -> None:
    counts = CycleCounts.of(np.asarray([1, 1, 1, 4]))
    sums = drawn_sums(counts, 4000, 100, (0,))
    assert sums.mean() == pytest.approx(175, abs=4 * np.sqrt(100 * 27 / 16 / 4000))
    assert sums.var() == pytest.approx(100 * 27 / 16, rel=4 * np.sqrt(2 / 4000))
    assert drawn_sums(CycleCounts.of(np.asarray([3])), 2, 5, (0,)).tolist() == [15, 15]


def test_gaussian_weights_have_the_root_mean_square_asked_for() -> None:
    encoded = gaussian_like((64, 512), 0.03, "int8", None, (0,))
    values = formats.get("int8").decode(encoded)
    assert float(np.sqrt((values.astype(float) ** 2).mean())) == pytest.approx(0.03, rel=0.02)


def test_pes_whose_cycles_do_not_depend_on_codes_and_formats_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        data_dependent("outlier-victim")
    assert str(error.value) == (
        "pe = outlier-victim: takes the same cycles for all codes of a format (those that do not: opt3, opt4c, with "
        "their encoder); leave the trace out"
    )
    spec = data_dependent("opt3")
    encoded = formats.get("mxfp4").encode(np.ones((1, 32), np.float32))
    with pytest.raises(ConfigError) as error:
        weight_cycles(spec, encoded)
    reason = spec.accepts("mxfp4", None).reason
    assert str(error.value) == f"pe = opt3: does not take mxfp4: {reason} (trace another format)"
