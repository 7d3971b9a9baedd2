"""Tables of activations: reinterpretation, half tables, folding of all codes, quantised tables against rationals."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.lut_tables import TableUnit, fold, odd_integers, reinterpreted, unfold

WIDTHS = range(1, 9)
KS = range(2, 7)


def signs(pattern: int, k: int) -> list[int]:
    return [1 if pattern >> lane & 1 else -1 for lane in range(k)]


# Reinterpretation


@pytest.mark.parametrize("bits", WIDTHS)
def test_reinterpreted_weights_are_the_same_for_all_codes_and_zeros(bits: int) -> None:
    scale = 0.375
    codes = np.arange(1 << bits)
    odd = odd_integers(codes, bits)
    for zero in range(1 << bits):
        new_scale, new_zero = reinterpreted(scale, zero, bits)
        for code, integer in zip(codes, odd, strict=True):
            assert Fraction(scale) * (int(code) - zero) == Fraction(float(new_scale)) * (int(integer) - int(new_zero))


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_plane_of_an_odd_integer_is_a_sign(bits: int) -> None:
    for code, integer in enumerate(odd_integers(np.arange(1 << bits), bits)):
        assert integer == sum((1 if code >> place & 1 else -1) << place for place in range(bits))


@pytest.mark.parametrize("bits", range(2, 9))
def test_odd_integers_are_the_values_of_bipolar_formats(bits: int) -> None:
    values = formats.get(f"bipolar_int{bits}").code_values()
    assert np.array_equal(values, odd_integers(np.arange(1 << bits), bits))


def test_tables_give_the_dot_product_of_bipolar_planes() -> None:
    """2**(i+j) * (K - 2 * popcount(w_i xor x_j)): the bipolar product, with tables made of the planes of x."""
    rng, k, bits = np.random.default_rng(1), 4, 3
    for _ in range(200):
        w, x = rng.integers(0, 1 << bits, (2, k))
        by_counting = sum(
            (k - 2 * sum(int(a >> i & 1) ^ int(b >> j & 1) for a, b in zip(w, x, strict=True))) << (i + j)
            for i, j in product(range(bits), repeat=2)
        )
        table = TableUnit(1, k).make(odd_integers(x, bits)[None])["table"][0, 0]
        stored = fold(w, bits)
        by_tables = 0
        for plane in range(bits):
            address = sum(int(stored[lane] >> plane & 1) << lane for lane in range(k - 1))
            value = int(table[address])
            by_tables += (-value if stored[-1] >> plane & 1 else value) << plane
        assert by_tables == by_counting


# Half tables and folding


@pytest.mark.parametrize("k", KS)
def test_half_table_holds_every_pattern_or_its_negative(k: int) -> None:
    act = np.random.default_rng(k).integers(-128, 128, (50, k))
    table = TableUnit(1, k).make(act)["table"][:, 0]
    assert table.shape == (50, 1 << (k - 1))
    for row, values in zip(act, table, strict=True):
        for pattern in range(1 << k):
            want = sum(int(x) * sign for x, sign in zip(row, signs(pattern, k), strict=True))
            low = (1 << (k - 1)) - 1
            got = values[pattern & low] if pattern >> (k - 1) else -values[~pattern & low]
            assert got == want


@pytest.mark.parametrize("k", KS)
def test_whole_table_holds_every_subset(k: int) -> None:
    act = np.random.default_rng(k).integers(-128, 128, (50, k))
    table = TableUnit(1, k, whole=True).make(act)["table"][:, 0]
    for row, values in zip(act, table, strict=True):
        assert list(values) == [sum(int(x) for lane, x in enumerate(row) if p >> lane & 1) for p in range(1 << k)]


@pytest.mark.parametrize("k", KS)
def test_folding_does_the_complement_of_every_pattern(k: int) -> None:
    for pattern in range(1 << k):
        bits = [pattern >> lane & 1 for lane in range(k)]
        stored = fold(bits, 1)
        top = bits[-1]
        assert list(stored) == [bit if top else 1 - bit for bit in bits[:-1]] + [1 - top]
        assert list(unfold(stored, 1)) == bits


@pytest.mark.parametrize("bits", WIDTHS)
def test_folding_codes_folds_each_plane_and_comes_back(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (1000, 4))
    stored = fold(codes, bits)
    assert stored.min() >= 0
    assert stored.max() < 1 << bits
    assert np.array_equal(unfold(stored, bits), codes)
    for plane in range(bits):
        assert np.array_equal(stored >> plane & 1, fold(codes >> plane & 1, 1))


@pytest.mark.parametrize("k", KS)
def test_entries_need_all_of_their_bits(k: int) -> None:
    unit = TableUnit(1, k)
    corners = np.array(list(product((-128, 127), repeat=k)))
    table = unit.make(corners)["table"]
    top = 1 << (unit.entry_bits - 1)
    assert table.min() == -128 * k >= -top
    assert table.max() == 128 * k - 1 < top
    assert table.max() >= top // 2
    assert (-table).max() == 128 * k  # the entries whose top sign is 0
    assert unit.entry_bits == {2: 9, 3: 10, 4: 10, 5: 11, 6: 11}[k]


# fp16 tables against exact rationals


def value_of(code: int) -> Fraction:
    """An fp16 code's value, by the definition of the format; only finite ones."""
    exponent, fraction = code >> 10 & 31, code & 1023
    magnitude = Fraction(fraction + (1024 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 25)
    return -magnitude if code >> 15 else magnitude


def oracle(codes: list[int], k: int, bits: int, whole: bool) -> tuple[list[Fraction], Fraction, bool]:
    """(entries, quantum, special) of one row, every rounding written out with rationals."""
    special = any(code >> 10 & 31 == 31 for code in codes)
    codes = [0 if code >> 10 & 31 == 31 else code for code in codes]
    top = max(max(code >> 10 & 31, 1) for code in codes)
    grain = Fraction(2) ** (top - 28)  # 10 fraction bits and 3 more below the largest
    cut = [Fraction(int(abs(value_of(code)) / grain)) * grain for code in codes]
    values = [-a if code >> 15 else a for a, code in zip(cut, codes, strict=True)]
    quantum = grain * 2 ** (15 - bits)
    while round(sum(cut) / quantum) > (1 << (bits - 1)) - 1:
        quantum *= 2
    entries = []
    for pattern in range(1 << (k if whole else k - 1)):
        if whole:
            total = sum((x for lane, x in enumerate(values) if pattern >> lane & 1), Fraction(0))
        else:
            factors = signs(pattern | 1 << (k - 1), k)
            total = sum((x * sign for x, sign in zip(values, factors, strict=True)), Fraction(0))
        entries.append(round(total / quantum) * quantum)  # Python rounds a Fraction's ties to even
    return entries, quantum, special


def rows_of(kind: str, k: int, count: int) -> np.ndarray:
    rng = np.random.default_rng([k, len(kind)])
    if kind == "normal":
        return rng.standard_normal((count, k)).astype(np.float16).view(np.uint16).astype(np.int64)
    if kind == "near":  # exponents close together, at both ends: ties, largest sums, subnormals
        exponent = np.where(
            rng.random((count, 1)) < 0.5, rng.integers(0, 3, (count, k)), rng.integers(28, 31, (count, k))
        )
        fraction = rng.choice([0, 1, 512, 1022, 1023], (count, k))
        return rng.integers(0, 2, (count, k)) << 15 | exponent << 10 | fraction
    return rng.integers(0, 1 << 16, (count, k))


@pytest.mark.parametrize("kind", ["normal", "near", "any"])
@pytest.mark.parametrize(
    ("k", "bits", "whole"), [(4, 8, False), (3, 8, True), (2, 12, False), (5, 4, False), (6, 8, False)]
)
def test_quantised_tables_equal_rationals(k: int, bits: int, whole: bool, kind: str) -> None:
    unit = TableUnit(1, k, "fp16", bits, whole)
    rows = rows_of(kind, k, 200)
    made = unit.make(rows)
    for at, row in enumerate(rows):
        entries, quantum, special = oracle([int(code) for code in row], k, bits, whole)
        scale = Fraction(2) ** (int(made["exponent"][at, 0]) + unit.unit_exponent)
        assert scale == quantum
        assert [int(entry) * scale for entry in made["table"][at, 0]] == entries
        assert bool(made["special"][at, 0]) == special
        assert np.abs(made["table"][at]).max() <= (1 << (bits - 1)) - 1
        assert 0 <= made["exponent"][at, 0] <= unit.top_exponent


def test_entries_err_by_half_a_quantum_and_what_alignment_cut_off() -> None:
    unit, rows = TableUnit(1, 4, "fp16"), rows_of("normal", 4, 2000)
    made = unit.make(rows)
    exact = rows.astype(np.uint16).view(np.float16).astype(np.float64) @ unit.patterns.T
    quantum = 2.0 ** (made["exponent"] + unit.unit_exponent)
    error = np.abs(made["table"][:, 0] * quantum - exact)
    top = np.maximum(rows >> 10 & 31, 1).max(axis=1, keepdims=True)
    assert (error <= quantum / 2 + 3 * 2.0 ** (top - 28)).all()
    assert (error > 0.49 * quantum).any()


def test_largest_exponent_is_reached() -> None:
    for k, bits in product(KS, (4, 8, 12)):
        unit = TableUnit(1, k, "fp16", bits)
        assert unit.make(np.full((1, k), 0x7BFF))["exponent"][0, 0] == unit.top_exponent


# Errors


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rows": 0}, "table-precompute rows = 0: must be in 1..16"),
        ({"k": 7}, "table-precompute k = 7: must be in 2..6"),
        (
            {"activation": "fp8"},
            "table-precompute activation = 'fp8': no such activation (known: fp16, int8)",
        ),
        ({"table_bits": 8}, "table-precompute table_bits = 8: must be 0 (int8 tables are exact)"),
        (
            {"activation": "fp16", "table_bits": 13},
            "table-precompute table_bits = 13: must be 0 (for 8) or in 4..12",
        ),
    ],
)
def test_bad_parameters(params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TableUnit(**params)  # type: ignore[arg-type]
    assert str(caught.value) == message
