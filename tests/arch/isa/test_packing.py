"""Bytes of codes and of scales with zero points, against strings of binary digits."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.errors import FormatError
from bitwright.arch.formats.packing import packed_bytes
from bitwright.arch.isa.packing import pack, pack_par, to_beats, unpack, unpack_par
from hypothesis import given
from hypothesis import strategies as st


def slow_bytes(fields: list[tuple[int, int]]) -> bytes:
    """Fields of (value, bits), the first one lowest, by a string of binary digits."""
    digits = "".join(format(value, f"0{bits}b")[::-1] for value, bits in fields if bits)
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[at : at + 8][::-1], 2) for at in range(0, len(digits), 8))


def lists(bits: int, most: int = 40) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from([0, 2**bits - 1]) | st.integers(0, 2**bits - 1), max_size=most)


CODES = st.integers(1, 16).flatmap(lambda bits: st.tuples(st.just(bits), lists(bits)))
PARS = st.integers(0, 16).flatmap(
    lambda bits: st.tuples(
        st.just(bits), st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**bits - 1)), max_size=30)
    )
)


# Interface


def test_codes_by_hand() -> None:
    assert pack(np.array([1, 2, 3], np.uint8), 3) == bytes([0b11_010_001, 0b0])
    assert pack(np.array([0xABC], np.uint16), 12) == bytes([0xBC, 0x0A])
    assert unpack(bytes([0b11_010_001, 0b0]), 3, 3).tolist() == [1, 2, 3]


def test_scales_and_zero_points_by_hand() -> None:
    scales = np.array([1.0, -2.0], np.float16)  # 0x3c00, 0xc000
    assert pack_par(scales, np.array([0x5, 0xA], np.uint8), 4) == bytes([0x00, 0x3C, 0x05, 0x00, 0xAC])
    assert pack_par(scales) == bytes([0x00, 0x3C, 0x00, 0xC0])
    assert [array.tolist() for array in unpack_par(bytes([0x00, 0x3C, 0x05, 0x00, 0xAC]), 4, 2)] == [[1, -2], [5, 10]]


def test_beats_are_filled_with_zeros() -> None:
    assert [to_beats(bytes([7] * size), 8) for size in (0, 1, 8, 9)] == [
        b"",
        bytes([7] + [0] * 7),
        bytes([7] * 8),
        bytes([7] * 9 + [0] * 7),
    ]


# Property


@given(CODES, st.binary(max_size=5))
def test_codes_are_dense_and_come_back_whatever_follows(drawn: tuple[int, list[int]], after: bytes) -> None:
    bits, codes = drawn
    packed = pack(np.array(codes, np.uint16), bits)
    assert packed == slow_bytes([(code, bits) for code in codes])
    assert len(packed) == packed_bytes(len(codes), bits)
    for count in {0, len(codes) // 2, len(codes)}:
        back = unpack(packed + after, bits, count)
        assert (back.dtype, back.tolist()) == (np.uint16, codes[:count])


@given(PARS, st.binary(max_size=5))
def test_pars_are_dense_and_come_back_whatever_follows(drawn: tuple[int, list[tuple[int, int]]], after: bytes) -> None:
    bits, entries = drawn
    scale_codes = np.array([scale for scale, _ in entries], np.uint16)
    zeros = np.array([zero for _, zero in entries], np.uint16)
    packed = pack_par(scale_codes.view(np.float16), zeros if bits else None, bits)
    assert packed == slow_bytes([field for scale, zero in entries for field in ((scale, 16), (zero, bits))])
    for count in {0, len(entries) // 2, len(entries)}:
        scales, codes = unpack_par(packed + after, bits, count)
        assert (scales.dtype, codes.dtype) == (np.float16, np.uint16)
        # As bits: NaN scales keep their payload.
        assert scales.view(np.uint16).tolist() == scale_codes[:count].tolist()
        assert codes.tolist() == zeros[:count].tolist()


def test_shapes_pack_in_c_order() -> None:
    codes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert pack(codes, 5) == pack(codes.reshape(-1), 5)
    assert pack(codes.T, 5) == pack(codes.T.reshape(-1).copy(), 5)
    scales = codes.astype(np.float16)
    assert pack_par(scales.T, codes.T, 5) == pack_par(scales.T.reshape(-1).copy(), codes.T.reshape(-1).copy(), 5)


# Errors

HALF = np.ones(2, np.float16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack(np.zeros(1, np.uint8), 17), "bits = 17: must be an int in 1..16; formats.packing.pack"),
        (
            lambda: pack(np.array([8], np.uint8), 3),
            "codes: largest is 8, must be below 8 (3 bits a code); formats.packing.pack",
        ),
        (lambda: unpack(b"", 0, 0), "bits = 0: must be an int in 1..16; formats.packing.unpack"),
        (lambda: unpack(b"", 3, -1), "count = -1: must be 0 or more; isa.packing.unpack"),
        (
            lambda: unpack(bytes(2), 6, 3),
            "data = 2 bytes: must be at least 3 for 3 fields of 6 bits; isa.packing.unpack",
        ),
        (lambda: pack_par(HALF, zero_bits=17), "zero_bits = 17: must be 0..16; isa.packing.pack_par"),
        (lambda: pack_par(np.ones(2)), "scales.dtype = float64: must be float16; isa.packing.pack_par"),
        (
            lambda: pack_par(HALF, np.zeros(3, np.uint8), 4),
            "zeros = uint8 of shape (3,): must be unsigned integers of the scales' shape (2,); isa.packing.pack_par",
        ),
        (
            lambda: pack_par(HALF, np.zeros(2, np.int8), 4),
            "zeros = int8 of shape (2,): must be unsigned integers of the scales' shape (2,); isa.packing.pack_par",
        ),
        (
            lambda: pack_par(HALF, np.array([0, 16], np.uint8), 4),
            "zeros: largest is 16, must be below 16 (4 bits); isa.packing.pack_par",
        ),
        (lambda: unpack_par(b"", -1, 0), "zero_bits = -1: must be 0..16; isa.packing.unpack_par"),
        (
            lambda: unpack_par(bytes(4), 4, 2),
            "data = 4 bytes: must be at least 5 for 2 fields of 20 bits; isa.packing.unpack_par",
        ),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        call()  # type: ignore[operator]
    assert str(caught.value) == message
