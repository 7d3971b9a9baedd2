"""Radix-4 digits of int8: values and digits of every code, how many are zero, and the published averages."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.digits import ENCODINGS, digits, nonzero_digits, serial_cycles

CODES = np.arange(-128, 128)


def ent_by_division(code: int) -> list[int]:
    """The one representation of |code| in digits -1, 0, 1, 2, by repeated division; negated for a negative code."""
    left, found = abs(code), []
    for _ in range(4):
        digit = {0: 0, 1: 1, 2: 2, 3: -1}[left % 4]
        found.append(-digit if code < 0 else digit)
        left = (left - digit) // 4
    assert left == 0
    return found


def booth_by_bits(code: int) -> list[int]:
    bits = "0" + format(code & 255, "08b")[::-1]
    return [int(bits[at]) + int(bits[at + 1]) - 2 * int(bits[at + 2]) for at in range(0, 8, 2)]


@pytest.mark.parametrize(("encoding", "oracle"), [("en-t", ent_by_division), ("mbe", booth_by_bits)])
def test_digits_of_every_code(encoding: str, oracle: object) -> None:
    found = digits(encoding, CODES)
    assert found.tolist() == [oracle(int(code)) for code in CODES]  # type: ignore[operator]
    assert np.array_equal((found * 4 ** np.arange(4)).sum(axis=1), CODES)
    assert digits(encoding, [[-128, 127]]).shape == (1, 2, 4)


def test_the_magnitude_of_minus_128_is_kept() -> None:
    assert digits("en-t", [-128, -127, 127, 3, -3]).tolist() == [
        [0, 0, 0, -2], [1, 0, 0, -2], [-1, 0, 0, 2], [-1, 1, 0, 0], [1, -1, 0, 0],
    ]  # fmt: skip


def test_mean_of_nonzero_digits_over_all_codes() -> None:
    assert {name: float(nonzero_digits(name, CODES).mean()) for name in ENCODINGS} == {"en-t": 747 / 256, "mbe": 3.0}
    assert round(747 / 256, 3) == 2.918  # the published figure, to its digits


def test_a_code_takes_one_cycle_a_nonzero_digit_and_zero_takes_one() -> None:
    for encoding in ENCODINGS:
        counts = [sum(digit != 0 for digit in row) for row in digits(encoding, CODES).tolist()]
        assert nonzero_digits(encoding, CODES).tolist() == counts
        assert serial_cycles(encoding, CODES).tolist() == [max(1, count) for count in counts]
        assert serial_cycles(encoding, 0) == 1


@pytest.mark.parametrize(("sigma", "published"), [(10, 1.75), (20, 2.10), (30, 2.32), (40, 2.48), (50, 2.60)])
def test_average_cycles_of_normal_codes_are_the_published_ones(sigma: int, published: float) -> None:
    """The averages in the authors' repository: en-t, K = 128, values cut to integers."""
    values = np.random.default_rng(1).normal(0, sigma, (4096, 128))
    codes = np.clip(np.trunc(values), -128, 127).astype(np.int64)
    assert abs(float(serial_cycles("en-t", codes).mean()) - published) < 0.02


def test_average_digits_of_normal_matrices_scaled_by_their_largest_magnitude() -> None:
    """The paper's 2.22 and 2.41, 2.257 and 2.451 of one matrix here before: its largest draw moves a figure by 0.04."""
    means: dict[str, list[float]] = {name: [] for name in ENCODINGS}
    for seed in range(8):
        values = np.random.default_rng(seed).normal(0, 1, (1024, 1024))
        codes = np.rint(values / np.abs(values).max() * 127).astype(np.int64)
        for name, found in means.items():
            found.append(float(nonzero_digits(name, codes).mean()))
    for published, counted, name in ((2.22, 2.257, "en-t"), (2.41, 2.451, "mbe")):
        mean, spread = float(np.mean(means[name])), float(np.std(means[name]))
        assert abs(mean - counted) < 0.02
        assert abs(mean - published) < spread < 0.05


def test_other_encodings_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        digits("booth", [1])
    assert str(error.value) == "encoding = 'booth': must be en-t or mbe"
