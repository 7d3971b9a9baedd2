"""Where rows lie in beats, and the shifter that cuts them out, for every width: plain Python, no hardware."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
import numpy.typing as npt
import pytest
from bitwright.rtl.accelerator.banks import banks_needed
from bitwright.rtl.accelerator.row_reader import shift_steps

PORTS = (64, 128, 256, 512)


@pytest.mark.parametrize("port_bits", PORTS)
def test_banks_needed_is_what_the_worst_row_touches(port_bits: int) -> None:
    for bits in range(1, 9):
        for cols in range(1, 41):
            width = bits * cols
            ends = [(row * width % port_bits) + width for row in range(port_bits)]  # then the places repeat
            beats = -(-max(ends) // port_bits)
            needed = banks_needed([width], port_bits)
            assert beats <= needed < 2 * beats, f"{cols} columns of {bits} bits"
            assert needed & (needed - 1) == 0
            padded = banks_needed([width], port_bits, padded=True)
            assert -(-width // port_bits) <= padded < 2 * -(-width // port_bits)


def test_banks_needed_by_hand() -> None:
    assert banks_needed([64], 64) == 1
    assert banks_needed([32, 16], 64) == 1
    assert banks_needed([48], 64) == 2
    assert banks_needed([128], 64) == 2
    assert banks_needed([192], 64) == 4  # three beats
    assert banks_needed([130], 64) == 4  # 62 + 130
    assert banks_needed([130], 64, padded=True) == 4
    assert banks_needed([128], 64, padded=True) == 2
    assert banks_needed([1], 512) == 1
    assert banks_needed([0], 64) == 1
    assert banks_needed([0, 48], 64) == banks_needed([48], 64)


def shifted(row_bits: Sequence[int], port_bits: int, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which bit of the beats the shifter puts at each place, for each offset; -1 where none."""
    banks = banks_needed(row_bits, port_bits)
    value = np.tile(np.arange(banks * port_bits), (len(offsets), 1))
    for step in shift_steps(row_bits, port_bits):
        assert step.amount + step.reach <= value.shape[1], "the step takes bits that the one before dropped"
        moves = (offsets & step.amount)[:, None] > 0
        low = np.where(moves, value[:, step.amount : step.amount + step.reach], value[:, : step.reach])
        value = np.hstack([low, value[:, step.reach : step.kept]])
        assert value.shape[1] == step.kept
    return value


def check_rows(row_bits: Sequence[int], port_bits: int, rows: int) -> None:
    """Beat, offset and shift of the first rows of every width are those of a dense bit field."""
    unit = gcd(port_bits, *row_bits)
    per_beat = port_bits // unit
    for width in row_bits:
        place = np.arange(min(rows, port_bits)) * (width // unit)  # the register: place + step, row after row
        beat, offset = place // per_beat, place % per_beat * unit
        first = np.arange(len(place)) * width
        np.testing.assert_array_equal(beat * port_bits + offset, first)
        different = np.unique(offset)
        found = shifted(row_bits, port_bits, different)[:, :width]
        np.testing.assert_array_equal(
            found, different[:, None] + np.arange(width), err_msg=f"{width} of {row_bits} in {port_bits}"
        )


@pytest.mark.parametrize("port_bits", PORTS)
def test_places_and_shifts_of_every_width(port_bits: int) -> None:
    for cols in range(1, 41):
        for bits in range(1, 9):
            check_rows([cols * bits], port_bits, 40)
    for cols in (1, 3, 5, 16, 37, 40):
        for bits in (1, 3, 6):
            check_rows([cols * bits], port_bits, port_bits)


@pytest.mark.parametrize("port_bits", PORTS)
def test_places_and_shifts_of_mixed_widths(port_bits: int) -> None:
    for cols in (1, 4, 5, 12, 16, 40):
        check_rows([cols * bits for bits in (8, 3, 4, 6)], port_bits, port_bits)
        check_rows([cols * bits for bits in (16, 20)], port_bits, port_bits)
        check_rows([cols * bits for bits in range(1, 9)], port_bits, port_bits)


def test_a_shifter_has_only_the_steps_that_occur() -> None:
    assert shift_steps([128, 64], 64) == []
    assert [step.amount for step in shift_steps([48], 64)] == [32, 16]
    # A row of 128 never moves by less than 64, so the smaller steps reach only as far as the narrow row.
    assert [(step.amount, step.reach, step.kept) for step in shift_steps([128, 16], 64)] == [
        (32, 32, 128),
        (16, 16, 128),
    ]
