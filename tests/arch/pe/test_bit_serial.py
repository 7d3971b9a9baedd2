"""bit-serial spec: terms of every code, the golden against exact rationals, its error, and the timing contract."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch import pe as specs
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding, encode, encoding_of, format_specials, special_code

FORMATS = ("int8", "int6", "int5", "bitmod_fp4", "bitmod_fp3")
SPEC = BitSerial()

# Interface


def test_it_is_a_pe_of_its_own_template() -> None:
    assert specs.get("bit-serial") == SPEC
    assert "bit-serial" not in specs.names()
    assert "bit-serial" in specs.names(None)
    assert specs.names("bit-serial") == ["bit-serial"]
    assert SPEC.module_stem == "bit_serial_l4_fp16_a16"
    assert (SPEC.act.bits, SPEC.wgt.bits, SPEC.psum.bits, SPEC.dataflows) == (16, 8, 24, ())


def test_it_takes_integers_and_bitmod_floats() -> None:
    taken = {name: encoding_of(name) for name in formats.names() if SPEC.accepts(name, 128)}
    assert taken == {
        **dict.fromkeys(("int2", "int3", "int4", "int5"), Encoding.INT5),
        "int6": Encoding.INT6,
        **dict.fromkeys(("int7", "int8"), Encoding.INT8),
        **dict.fromkeys(("bitmod_fp4", "bitmod_fp4_er", "bitmod_fp4_ea", "fp4_e2m1"), Encoding.FP4),
        **dict.fromkeys(("bitmod_fp3", "bitmod_fp3_er", "bitmod_fp3_ea", "fp3_e2m0"), Encoding.FP3),
    }
    assert SPEC.accepts("int4_asym", 128).reason == "int4_asym codes are neither int2..int8 nor fp4, fp3 of BitMoD"


# Terms


@pytest.mark.parametrize(("name", "terms"), [
    ("int8", 4), ("int6", 3), ("int5", 3), ("bitmod_fp4", 2), ("bitmod_fp3", 2), ("bitmod_fp4_er", 2),
    ("bitmod_fp4_ea", 2), ("bitmod_fp3_er", 2), ("bitmod_fp3_ea", 2), ("fp4_e2m1", 2), ("fp3_e2m0", 2),
])  # fmt: skip
def test_the_terms_of_every_code_and_special_value_sum_to_the_formats_value(name: str, terms: int) -> None:
    form, encoding = formats.get(name), encoding_of(name)
    assert encoding is not None
    assert encoding.terms == terms
    for selector in range(1 << form.selector_bits):
        found = encode(encoding, np.arange(1 << form.bits), selector, format_specials(name))
        assert found.man.shape == (1 << form.bits, terms)
        assert set(found.man.ravel()) <= {0, 1}
        assert set(found.sign.ravel()) <= {0, 1}
        assert found.exp.min() >= 0
        assert found.exp.max() <= 3
        assert np.array_equal(found.values(), form.code_values(selector))


def test_bits_above_a_code_are_ignored() -> None:
    for encoding, special in product(Encoding, (7.0, -5.0)):
        codes = np.arange(256)
        kept = encode(encoding, codes & ((1 << encoding.code_bits) - 1), 2, (0.0, 0.0, special, 0.0))
        assert np.array_equal(encode(encoding, codes, 2, (0.0, 0.0, special, 0.0)).values(), kept.values())


def test_special_values_are_the_sums_and_differences_of_two_powers() -> None:
    high, low = (0, 1, 2, 4, 8), (0, 0.5, 1, 2, 4)
    possible = {h + sign * w for h, w, sign in product(high, low, (1, -1)) if h + sign * w >= 0}
    for halves in range(-31, 32):
        value = halves / 2
        if abs(value) in possible:
            found = encode(Encoding.FP4, [8], 1, (0.0, value, 0.0, 0.0))
            assert found.values() == [value]
            assert encode(Encoding.FP3, [4], 1, (0.0, value, 0.0, 0.0)).values() == [value]
        else:
            with pytest.raises(ConfigError) as error:
                special_code(value)
            rule = "must be a sum or difference of two powers of two (like 5, 7, 12)"
            assert str(error.value) == f"special value = {value:g}: {rule}"
    seven = encode(Encoding.FP4, [8], 0, (7.0,) * 4)
    assert (seven.sign.tolist(), seven.exp.tolist(), seven.bsig) == ([[0, 1]], [[3, 1]], (1, 0))  # 2**3 - 2**0


# Golden arithmetic against exact rationals


def exact_act(bits: int) -> tuple[int, int, Fraction]:
    """(exponent field, at least 1; significand; value) of a finite fp16 number."""
    exponent, fraction = bits >> 10 & 31, bits & 1023
    significand = fraction + (1024 if exponent else 0)
    value = Fraction(significand) * Fraction(2) ** (max(exponent, 1) - 25)
    return max(exponent, 1), significand, -value if bits >> 15 else value


def rounded(value: Fraction, bits: int) -> Fraction:
    """To `bits` significant bits, to nearest, ties to even, by integer division."""
    if not value:
        return value
    unit = Fraction(1)
    while abs(value) / unit >= 1 << bits:
        unit *= 2
    while abs(value) / unit < 1 << (bits - 1):
        unit /= 2
    whole, rest = divmod(abs(value) / unit, 1)
    whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2)
    return (whole if value > 0 else -whole) * unit


def oracle_group(act: list[int], terms: list[list[tuple[int, int, int, int]]], acc_bits: int) -> Fraction:
    """The accumulator after slices of four: the docstring's rules 1 to 3 on rationals."""
    acc = Fraction(0)
    for at in range(0, len(act), 4):
        fields = [exact_act(bits) for bits in act[at : at + 4]]
        for index in range(len(terms[0])):
            lanes = [(f, terms[at + lane][index]) for lane, f in enumerate(fields) if terms[at + lane][index][2]]
            if not lanes:
                continue
            top = max(field[0] + term[1] for field, term in lanes)
            unit = Fraction(2) ** (top - 25 - 3)
            total = Fraction(0)
            for field, term in lanes:
                value = field[2] * 2 ** term[1] * (-1 if term[0] else 1)
                away = top - field[0] - term[1]
                whole, rest = divmod(abs(value) / unit, 1)
                kept = 0 if away >= 16 else int(whole) | (1 if rest else 0)
                total += kept * unit * (1 if value > 0 else -1)
            acc = rounded(acc + total * Fraction(2) ** (lanes[0][1][3] - 1), acc_bits)
    return acc


def term_list(encoding: Encoding, code: np.ndarray, selector: int, special: tuple[float, ...]) -> list:
    found = encode(encoding, code, selector, special)
    return [
        [(int(s), int(e), int(m), b) for s, e, m, b in zip(*lane, found.bsig, strict=True)]
        for lane in zip(found.sign, found.exp, found.man, strict=True)
    ]


@pytest.mark.parametrize("acc_bits", [16, 20, 24])
@pytest.mark.parametrize("name", FORMATS)
def test_group_sums_equal_exact_rationals_rounded_as_stated(name: str, acc_bits: int) -> None:
    rng = np.random.default_rng(1)
    spec, encoding, special = BitSerial(acc_bits), SPEC.encoding(name), format_specials(name)
    for case in range(30):
        length = int(rng.integers(1, 33))
        act = rng.integers(0, 1 << 16, length).astype(np.uint16)
        if case % 3 == 0:  # like sizes: cancellation and ties
            act = (act & 0x83C0 | rng.integers(14, 17, length).astype(np.uint16) << 10).astype(np.uint16)
        if case % 3 == 1:
            act = (act & 0x87FF).astype(np.uint16)  # subnormals
        act = np.where(act & 0x7C00 == 0x7C00, 0, act).astype(np.uint16)
        code, selector = rng.integers(0, 256, length), int(rng.integers(0, 4))
        got = spec.group_sum(act.view(np.float16), code, encoding=encoding, selector=selector, specials=special)
        padded = np.pad(act, (0, -length % 4)).tolist(), np.pad(code, (0, -length % 4))
        want = oracle_group(padded[0], term_list(encoding, padded[1], selector, special), acc_bits)
        assert Fraction(float(got)) == want, f"case {case}: {got} for {float(want)}"


@pytest.mark.parametrize("acc_bits", [16, 24])
def test_the_scale_is_exact_or_rounded_once_and_the_column_is_fp32(acc_bits: int) -> None:
    rng = np.random.default_rng(2)
    spec = BitSerial(acc_bits)
    for _ in range(300):
        acc = float(rng.integers(-(1 << acc_bits) + 1, 1 << acc_bits)) * 2.0 ** float(rng.integers(-28, 30))
        scale = int(rng.integers(0, 256))
        column = np.float32(rng.standard_normal() * 2.0 ** float(rng.integers(-10, 50)))
        part = rounded(Fraction(acc) * scale, 24)
        if acc_bits == 16:
            assert part == Fraction(acc) * scale
        want = rounded(Fraction(float(column)) + part, 24)
        assert Fraction(float(spec.dequantise(column, acc, scale))) == want


@pytest.mark.parametrize(("name", "acc_bits", "median_ulp", "mean_ulp", "max_ulp", "worst"), [
    ("int8", 16, 579, 2831, 1_231_872, 4.95e-5), ("int6", 16, 513, 3136, 2_435_584, 3.46e-5),
    ("bitmod_fp4", 16, 460, 1763, 210_944, 2.84e-5), ("bitmod_fp3", 16, 424, 1971, 557_056, 2.68e-5),
    ("int8", 24, 282, 1677, 877_568, 1.35e-5), ("bitmod_fp4", 24, 262, 1425, 311_296, 1.47e-5),
])  # fmt: skip
def test_error_of_a_group_of_128_against_exact_arithmetic(
    name: str, acc_bits: int, median_ulp: int, mean_ulp: int, max_ulp: int, worst: float
) -> None:
    """2000 groups, normal activations, uniform codes: ulps of the exact sum in fp32 (many where it cancels), and the
    greatest error as a part of the sum of |act * weight|. 2000 fp32 ulps are 2**-13: an eighth of an fp16 ulp."""
    encoding, special = SPEC.encoding(name), format_specials(name)
    rng = np.random.default_rng(0)
    act = rng.standard_normal((2000, 128)).astype(np.float16)
    code = rng.integers(0, 1 << encoding.code_bits, act.shape)
    got = BitSerial(acc_bits).group_sum(act, code, encoding=encoding, specials=special)
    products = act.astype(np.float64) * encode(encoding, code, 0, special).values()
    exact = products.sum(axis=1)  # multiples of 2**-25 below 2**20: exact in float64
    error = np.abs(got - exact)
    ulps = error / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    stated = [median_ulp, mean_ulp, max_ulp, worst]
    measured = [np.median(ulps), ulps.mean(), ulps.max(), (error / np.abs(products).sum(axis=1)).max()]
    for limit, value in zip(stated, measured, strict=True):
        assert 0.99 * limit < value <= limit, f"{measured} for {stated}"


def test_zeros_subnormals_and_non_finite_activations() -> None:
    one, tiny = np.float16(1), np.array(1, np.uint16).view(np.float16)
    int8 = {"encoding": Encoding.INT8}
    assert SPEC.group_sum([tiny, 0, 0, 0], [3, 5, 0, 0], **int8) == 3 * 2.0**-24
    zero = SPEC.group_sum([one, -one, -0.0, 0], [7, 7, 255, 0], **int8)
    assert (float(zero), np.signbit(zero)) == (0.0, False)
    for bad in (np.inf, -np.inf, np.nan):
        acc = SPEC.group_sum([one, bad, one, one], [1, 0, 1, 1], **int8)
        assert SPEC.dequantise(0, acc, 0).view(np.uint32) == 0x7FC00000


# Timing contract


def test_cycles_a_group_are_the_papers() -> None:
    assert [SPEC.cycles(name, 128) for name in ("int8", "int6", "bitmod_fp4", "bitmod_fp3")] == [128, 96, 64, 64]
    table = {name: [SPEC.cycles(name, group) for group in (8, 16, 32, 64, 128)] for name in FORMATS}
    assert table == {
        "int8": [8, 16, 32, 64, 128],
        "int6": [8, 12, 24, 48, 96],
        "int5": [8, 12, 24, 48, 96],
        "bitmod_fp4": [8, 8, 16, 32, 64],
        "bitmod_fp3": [8, 8, 16, 32, 64],
    }
    assert SPEC.dot_cycles("bitmod_fp4", 8) == 4
    assert [SPEC.cycles("int8", group) for group in (1, 5, 9)] == [8, 8, 12]


def test_cycles_of_a_channel_with_a_short_last_group() -> None:
    assert SPEC.channel_cycles("int8", 576, 128) == 4 * 128 + 64 + 14
    assert SPEC.channel_cycles("bitmod_fp4", 576, 128) == 4 * 64 + 32 + 14
    assert SPEC.channel_cycles("bitmod_fp3", 576, 8) == 4 + 71 * 8 + 14
    assert SPEC.channel_cycles("int6", 4, 128) == 3 + 14


# Errors


def test_wrong_parameters_and_formats_are_refused() -> None:
    cases = [
        (lambda: BitSerial(12), "bit-serial acc_bits = 12: must be in 16..24 (default 16)"),
        (lambda: BitSerial(pipeline=2), "bit-serial pipeline = 2: must be 0 or 1 (default 0)"),
        (lambda: special_code(0.25), "special value = 0.25: must be a multiple of 0.5 in -15.5..15.5"),
        (lambda: special_code(16), "special value = 16: must be a multiple of 0.5 in -15.5..15.5"),
        (
            lambda: SPEC.cycles("fp16", 8),
            "bit-serial format = fp16: fp16 codes are neither int2..int8 nor fp4, fp3 of BitMoD",
        ),
        (lambda: specs.get("bit-serial", lanes=8), "bit-serial.lanes: no such parameter (known: acc_bits, pipeline)"),
    ]
    for make, message in cases:
        with pytest.raises(ConfigError) as error:
            make()
        assert str(error.value) == message
