"""fp16-mac behind a stream: the golden against exact rationals with the rounding written out, and the error of sums."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.fp16_stream import CORNERS
from bitwright.arch.pe.stream import FIRST, LAST

# Exponent bits, fraction bits: of operands and accumulators.
LAYOUT = {"fp16": (5, 10), "fp32": (8, 23)}


def value_of(bits: int, layout: tuple[int, int]) -> Fraction | str:
    """The number's value, or "inf", "-inf", "nan"; a zero's sign is lost here."""
    exponent_bits, fraction_bits = layout
    fraction, exponent = bits & ((1 << fraction_bits) - 1), bits >> fraction_bits & ((1 << exponent_bits) - 1)
    sign = -1 if bits >> (exponent_bits + fraction_bits) else 1
    if exponent == (1 << exponent_bits) - 1:
        return "nan" if fraction else ("inf" if sign > 0 else "-inf")
    bias = (1 << (exponent_bits - 1)) - 1
    whole = fraction + ((1 << fraction_bits) if exponent else 0)
    return Fraction(sign * whole) * Fraction(2) ** (max(exponent, 1) - bias - fraction_bits)


def round_to(value: Fraction, layout: tuple[int, int]) -> int:
    """Bits of the nearest number, ties to even, of a value that is not 0."""
    exponent_bits, fraction_bits = layout
    bias = (1 << (exponent_bits - 1)) - 1
    magnitude, sign = abs(value), int(value < 0) << (exponent_bits + fraction_bits)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent  # 2**exponent <= magnitude < 2**(exponent + 1)
    exponent = max(exponent, 1 - bias)
    scaled = magnitude / Fraction(2) ** (exponent - fraction_bits)
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    # A carry out of the fraction goes on into the exponent field, out of the largest exponent to infinity.
    field = whole + ((exponent + bias - 1) << fraction_bits)
    return sign | min(field, ((1 << exponent_bits) - 1) << fraction_bits)


def step_of(acc: int, act: int, wgt: int, name: str) -> int:
    """acc + act * wgt as bits, by the rules of IEEE 754."""
    layout, half = LAYOUT[name], LAYOUT["fp16"]
    total_bits, infinity = sum(layout), ((1 << layout[0]) - 1) << layout[1]
    nan = {"fp16": 0x7E00, "fp32": 0x7FC00000}[name]
    added, first, second = value_of(acc, layout), value_of(act, half), value_of(wgt, half)
    product_sign, acc_sign = (act ^ wgt) >> 15, acc >> total_bits
    if "nan" in (added, first, second):
        return nan
    if isinstance(first, str) or isinstance(second, str):
        if 0 in (first, second) or (isinstance(added, str) and acc_sign != product_sign):
            return nan
        return infinity | product_sign << total_bits
    if isinstance(added, str):
        return acc
    total = added + first * second
    if total:
        return round_to(total, layout)
    return int(added == 0 and acc_sign == product_sign == 1) << total_bits


def operands(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Random bits, corners, numbers near 1 whose products nearly cancel, and subnormals; [count / 8, 8] each."""
    rng = np.random.default_rng(seed)
    act, wgt = rng.integers(0, 1 << 16, (2, count // 8, 8))
    kind = rng.integers(0, 4, (count // 8, 1))
    for bits in (act, wgt):
        bits[:] = np.where((rng.random(bits.shape) < 0.3) & (kind == 0), rng.choice(CORNERS, bits.shape), bits)
        bits[:] = np.where(kind == 1, (bits & 0x8003) | 0x3C00, bits)
        bits[:] = np.where(kind == 2, bits & 0x93FF, bits)
    return act, wgt


# Arithmetic


@pytest.mark.parametrize("acc_format", ["fp32", "fp16"])
def test_every_sum_on_the_way_is_the_exact_one_rounded_once(acc_format: str) -> None:
    spec = pe.stream("fp16-mac", acc_format=acc_format)
    act, wgt = operands(24_000, seed=4)
    state, expected, seen = spec.start(len(act)), [0] * len(act), set()
    for column in range(8):
        state = spec.step(state, {"act": act[:, column], "wgt": wgt[:, column]})
        expected = [
            step_of(acc, int(a), int(w), acc_format)
            for acc, a, w in zip(expected, act[:, column], wgt[:, column], strict=True)
        ]
        np.testing.assert_array_equal(spec.result(state)["psum"], expected)
        seen |= {bits >> LAYOUT[acc_format][1] for bits in expected}
    assert len(seen) >= {"fp32": 140, "fp16": 64}[acc_format]  # exponents of both signs


@pytest.mark.parametrize("acc_format", ["fp32", "fp16"])
def test_every_pair_of_corners_after_every_corner(acc_format: str) -> None:
    spec = pe.stream("fp16-mac", acc_format=acc_format)
    before, act, wgt = (axis.ravel() for axis in np.meshgrid(CORNERS, CORNERS, CORNERS, indexing="ij"))
    state = spec.step(spec.start(len(act)), {"act": before, "wgt": np.full(len(before), 0x3C00)})
    state = spec.step(state, {"act": act, "wgt": wgt})
    expected = [
        step_of(step_of(0, int(first), 0x3C00, acc_format), int(a), int(w), acc_format)
        for first, a, w in zip(before, act, wgt, strict=True)
    ]
    np.testing.assert_array_equal(spec.result(state)["psum"], expected)


def test_fp16_sums_overflow_to_infinity_and_stay_there() -> None:
    spec = pe.stream("fp16-mac", acc_format="fp16")
    steps = {
        "act": np.array([0x7BFF, 0x7BFF, 0x4C00, 0xFBFF]),  # 65504, 65504, 16, -65504
        "wgt": np.array([0x3C00, 0x3C00, 0x3C00, 0x3C00]),
        FIRST: np.array([1, 1, 0, 0]), LAST: np.array([1, 0, 1, 1]),
    }  # fmt: skip
    # 65504 + 16 is a tie between 65504 and 2**16, whose last place is even; after it nothing finite helps.
    np.testing.assert_array_equal(spec.sums(steps)["psum"], [0x7BFF, 0x7C00, 0x7C00])


def test_a_negative_product_below_fp16_leaves_minus_zero() -> None:
    spec = pe.stream("fp16-mac", acc_format="fp16")
    tiny = {"act": np.array([0x8001]), "wgt": np.array([0x0001])}
    assert spec.result(spec.step(spec.start(1), tiny))["psum"] == 0x8000
    zero = {"act": np.array([0x8000]), "wgt": np.array([0x3C00])}
    assert spec.result(spec.step(spec.start(1), zero))["psum"] == 0


def test_fp32_sums_are_those_of_the_systolic_cell() -> None:
    spec, cell = pe.stream("fp16-mac"), pe.get("fp16-mac")
    act, wgt = np.random.default_rng(5).standard_normal((2, 64, 100)).astype(np.float16)
    state, acc = spec.start(100), np.zeros(100, np.float32)
    for a, w in zip(act, wgt, strict=True):
        state = spec.step(state, {"act": a.view(np.uint16), "wgt": w.view(np.uint16)})
        acc = cell.accumulate(acc, a, w)
    np.testing.assert_array_equal(spec.result(state)["psum"], acc.view(np.uint32))


def errors(acc_format: str, length: int, count: int, seed: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Errors of sums of standard normal operands: in ulps of the exact sum, and over the sum of |act * wgt|."""
    spec = pe.stream("fp16-mac", acc_format=acc_format)
    act, wgt = np.random.default_rng(seed).standard_normal((2, count, length)).astype(np.float16)
    state = spec.start(count)
    for k in range(length):
        state = spec.step(state, {"act": act[:, k].view(np.uint16), "wgt": wgt[:, k].view(np.uint16)})
    products = act.astype(np.float64) * wgt.astype(np.float64)  # 22 bits: exact
    exact = np.array([math.fsum(row) for row in products])
    kind = np.float32 if acc_format == "fp32" else np.float16
    ulp = np.spacing(np.abs(exact).astype(kind)).astype(np.float64)
    error = np.abs(state[0].astype(np.float64) - exact)
    return error / ulp, error / np.abs(products).sum(axis=1)


@pytest.mark.parametrize(
    ("acc_format", "length", "mean_ulp", "most_ulp", "most_share"),
    [
        ("fp32", 128, 5.2, 1700.0, 1.9e-07),
        ("fp32", 576, 14.0, 5700.0, 1.8e-07),
        ("fp16", 128, 6.4, 2600.0, 0.0013),
        ("fp16", 576, 15.0, 2900.0, 0.0017),
    ],
)
def test_error_of_sums_is_as_the_docstring_says(
    acc_format: str, length: int, mean_ulp: float, most_ulp: float, most_share: float
) -> None:
    ulps, shares = errors(acc_format, length, 4000, seed=6)
    found = [float(f"{value:.2g}") for value in (ulps.mean(), ulps.max(), shares.max())]
    assert found == [mean_ulp, most_ulp, most_share]


# Interface


def test_contract_and_names() -> None:
    spec = pe.stream("fp16-mac")
    assert (spec.acc_format, spec.pipeline, spec.macs_per_step, spec.longest_sum) == ("fp32", 0, 1, None)
    stems = [pe.stream("fp16-mac", **params).module_stem for params in spec.variants]
    assert stems == ["fp16_mac_fp32_s0", "fp16_mac_fp32_s1", "fp16_mac_fp32_s2", "fp16_mac_fp16_s0", "fp16_mac_fp16_s1"]
    latencies = [pe.stream("fp16-mac", **params).timing.latency_cycles for params in spec.variants]
    assert latencies == [1, 2, 3, 1, 2]
    assert [field.bits for field in pe.stream("fp16-mac", acc_format="fp16").sum_fields] == [16]


def test_real_rows_become_fp16_steps() -> None:
    act = np.array([[1.0, -2.0, 0.333333], [65504.0, 1e-8, 0.0]], np.float32)
    steps = pe.stream("fp16-mac").quantised(act, -act)
    np.testing.assert_array_equal(steps["act"], [0x3C00, 0xC000, 0x3555, 0x7BFF, 0x0000, 0x0000])
    np.testing.assert_array_equal(steps["wgt"], [0xBC00, 0x4000, 0xB555, 0xFBFF, 0x8000, 0x8000])
    np.testing.assert_array_equal(steps[FIRST], [1, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(steps[LAST], [0, 0, 1, 0, 0, 1])


def test_taming_leaves_specials_in_single_steps_and_in_each_eighth_sum() -> None:
    ends = np.cumsum(np.tile([1, 2], 8))
    first, last = np.zeros(24, np.int64), np.zeros(24, np.int64)
    first[np.append(0, ends[:-1])], last[ends - 1] = 1, 1
    steps = {"act": np.full(24, 0xFC00), "wgt": np.full(24, 0x7E01), FIRST: first, LAST: last}
    tamed = pe.stream("fp16-mac").tame(steps)
    wild = ((first == 1) & (last == 1)) | (np.cumsum(first) % 8 == 0)
    np.testing.assert_array_equal(tamed["act"], np.where(wild, 0xFC00, 0xBC00))
    np.testing.assert_array_equal(tamed["wgt"], np.where(wild, 0x7E01, 0x3E01))


def test_formats_are_taken_as_by_the_cell() -> None:
    spec, cell = pe.stream("fp16-mac", acc_format="fp16"), pe.get("fp16-mac")
    for name in ("fp16", "bf16", "int4", "int8_asym", "mxfp4"):
        assert spec.accepts(name, 128) == cell.accepts(name, 128)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"acc_format": "bf16"}, "fp16-mac acc_format = 'bf16': must be one of fp32, fp16"),
        ({"pipeline": 3}, "fp16-mac pipeline = 3: must be in 0..2 with acc_format fp32"),
        ({"pipeline": 2, "acc_format": "fp16"}, "fp16-mac pipeline = 2: must be in 0..1 with acc_format fp16"),
        ({"lanes": 2}, "fp16-mac.lanes: no such parameter (known: acc_format, pipeline)"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        pe.stream("fp16-mac", **params)
    assert str(error.value) == message
