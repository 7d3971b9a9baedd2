"""fp16, bf16, fp4_e2m1 and fp3_e2m0.

Cases: fp16 and bf16, all 65,536 codes decoded, and every finite value, every midpoint and both float32 neighbours of
every midpoint encoded (about 254,000 values each), against gfloat and, for bf16, ml_dtypes. fp4_e2m1: all 16 codes,
and every fp16 number in -6..6 (35,842 values) under scale 1, against ml_dtypes and gfloat; every code under every
fp16 scale; 200 random rows each for fp4_e2m1 and fp3_e2m0 against the exact-fraction encoder of conftest.py.
"""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import gfloat  # type: ignore[import-untyped]
import gfloat.formats  # type: ignore[import-untyped]
import ml_dtypes
import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import FormatError
from bitwright.arch.formats import Encoded
from hypothesis import example, given, settings
from hypothesis import strategies as st

ALL_CODES = np.arange(1 << 16, dtype=np.uint16)
INFO = {
    "fp16": gfloat.formats.format_info_binary16,
    "bf16": gfloat.formats.format_info_bfloat16,
    "fp4_e2m1": gfloat.formats.format_info_ocp_e2m1,
}

sixteenths = st.integers(-160, 160).map(lambda n: n / 16)
floats = st.floats(-1e4, 1e4, width=32)
special = st.sampled_from([0.0, -0.0, 6.0, -6.0, 4.0, 0.25, -0.25, 2.0**-149, 2.0**-24])
rows = st.one_of(*(st.lists(st.one_of(kind, special), min_size=1, max_size=16) for kind in (sixteenths, floats)))


# exhaustive


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_all_codes_decode_as_gfloat(name: str) -> None:
    fmt = formats.get(name)
    decoded = fmt.decode(Encoded(name, ALL_CODES, None, None, None, None))
    expected = gfloat.decode_ndarray(INFO[name], ALL_CODES).astype(np.float32)
    finite = np.isfinite(expected)
    assert finite.sum() == (63488 if name == "fp16" else 65280)
    assert np.array_equal(decoded[finite].view(np.uint32), expected[finite].view(np.uint32))
    assert np.array_equal(np.isnan(decoded), np.isnan(expected))
    assert fmt.values().size == finite.sum() - 1  # +0 and -0 are one value
    assert np.array_equal(fmt.code_values()[finite], expected[finite])


def boundary_values(name: str) -> np.ndarray:
    """Every finite value, every midpoint, and the float32 numbers next to each midpoint, both signs."""
    ascending = formats.get(name).values().astype(np.float64)
    midpoints = ((ascending[1:] + ascending[:-1]) / 2).astype(np.float32)
    assert np.array_equal(midpoints.astype(np.float64), (ascending[1:] + ascending[:-1]) / 2)
    up, down = np.nextafter(midpoints, np.float32(np.inf)), np.nextafter(midpoints, np.float32(-np.inf))
    return np.concatenate([ascending.astype(np.float32), [np.float32(-0.0)], midpoints, up, down])


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_every_value_and_midpoint_encodes_as_gfloat(name: str) -> None:
    values = boundary_values(name)
    encoded = formats.get(name).encode(values)
    rounded = gfloat.round_ndarray(INFO[name], values.astype(np.float64), gfloat.RoundMode.TiesToEven)
    expected = gfloat.encode_ndarray(INFO[name], rounded).astype(np.uint16)
    assert encoded.codes.dtype == np.uint16
    assert np.array_equal(encoded.codes, expected)
    if name == "bf16":
        assert np.array_equal(encoded.codes, values.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_all_e2m1_codes_decode_as_ml_dtypes_and_gfloat() -> None:
    codes = np.arange(16, dtype=np.uint8)
    table = formats.get("fp4_e2m1").code_values()
    native = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert np.array_equal(table.view(np.uint32), native.view(np.uint32))
    assert np.array_equal(table, gfloat.decode_ndarray(INFO["fp4_e2m1"], codes))


def test_every_fp16_number_in_range_encodes_as_ml_dtypes_and_gfloat() -> None:
    numbers = ALL_CODES.view(np.float16).astype(np.float32)
    numbers = numbers[np.abs(numbers) <= 6]  # False for NaN
    assert numbers.size == 2 * 0x4601
    encoded = formats.get("fp4_e2m1").encode(numbers)  # one group, largest 6, so the scale is 1
    assert encoded.scales is not None
    assert encoded.scales.tolist() == [1.0]
    assert np.array_equal(encoded.codes, numbers.astype(ml_dtypes.float4_e2m1fn).view(np.uint8))
    rounded = gfloat.round_ndarray(INFO["fp4_e2m1"], numbers.astype(np.float64), gfloat.RoundMode.TiesToEven)
    assert np.array_equal(encoded.codes, gfloat.encode_ndarray(INFO["fp4_e2m1"], rounded))


@pytest.mark.parametrize("name", ["fp4_e2m1", "fp3_e2m0"])
def test_decoded_codes_encode_to_themselves_under_every_fp16_scale(name: str) -> None:
    fmt = formats.get(name)
    scales = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    codes = np.tile(np.arange(1 << fmt.bits, dtype=np.uint8), (scales.size, 1))
    encoded = Encoded(name, codes, scales, None, None, None, "fp16")
    decoded = fmt.decode(encoded)
    assert np.array_equal(decoded.astype(np.float64), fmt.code_values().astype(np.float64) * scales)
    assert np.array_equal(fmt.encode_codes(decoded, encoded), codes)  # type: ignore[attr-defined]


def test_written_ties_go_to_the_even_code() -> None:
    row = np.array([6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -0.75, -5], np.float32)
    fmt = formats.get("fp4_e2m1")
    assert fmt.decode(fmt.encode(row)).tolist() == [6, 0, 1, 1, 2, 2, 4, 4, 0, -1, -4]
    row = np.array([4, 0.5, 1.5, 3, -0.5, -1.5, -3], np.float32)
    fmt = formats.get("fp3_e2m0")
    assert fmt.decode(fmt.encode(row)).tolist() == [4, 0, 2, 2, 0, -2, -2]


def test_a_negative_value_that_rounds_to_zero_keeps_its_sign() -> None:
    fmt = formats.get("fp4_e2m1")
    encoded = fmt.encode(np.array([6, -0.1, -0.0, 0.0], np.float32))
    assert encoded.codes.tolist() == [7, 8, 8, 0]
    assert np.signbit(fmt.decode(encoded)).tolist() == [False, True, True, False]
    assert fmt.integers(encoded).ints.tolist() == [12, 0, 0, 0]


# property


@pytest.mark.parametrize(("name", "magnitudes"), [("fp4_e2m1", "FP4"), ("fp3_e2m0", "FP3")])
@given(row=rows, group=st.one_of(st.none(), st.integers(1, 9)), scale_format=st.sampled_from(["fp16", "fp32", "int8"]))
@example(row=[0.0, -0.0], group=1, scale_format="int8")
@settings(max_examples=200, deadline=None)
def test_minifloats_equal_the_exact_encoder(
    oracle: SimpleNamespace, name: str, magnitudes: str, row: list[float], group: int | None, scale_format: str
) -> None:
    fmt = formats.get(name)
    encoded = fmt.encode(np.array(row, np.float32), group=group, scale_format=scale_format)
    pairs = oracle.signed(getattr(oracle, magnitudes))
    expected = oracle.encode_table(row, group, pairs, "even", scale_format)
    minus_zero = 1 << (fmt.bits - 1)
    codes = [0 if code == minus_zero else code for code in encoded.codes.tolist()]
    assert codes == expected.codes
    assert [Fraction(float(v)) for v in fmt.decode(encoded)] == [oracle.to_fp32(v) for v in expected.values]
    whole = fmt.integers(encoded)
    size = group or len(row)
    assert [Fraction(float(whole.scales[k // size])) * int(i) for k, i in enumerate(whole.ints)] == expected.values


@given(row=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_quantising_twice_changes_nothing_with_normal_fp16_scales(row: list[float]) -> None:
    values = np.array(row, np.float32)
    values[np.abs(values) < 1e-2] = 0
    for name in ("fp4_e2m1", "fp3_e2m0", "fp16", "bf16"):
        fmt = formats.get(name)
        once = fmt.decode(fmt.encode(values, group=8))
        assert np.array_equal(fmt.decode(fmt.encode(once, group=8)), once)


def test_16_bit_floats_take_a_group_and_share_nothing() -> None:
    values = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 12)
    encoded = formats.get("fp16").encode(values, group=5)
    assert (encoded.group, encoded.scales, encoded.scale_format) == (None, None, None)
    assert formats.get("fp16").storage_bits((2, 12), 5).total == 24 * 16
    assert (formats.get("fp16").max_value, formats.get("fp16").min_value) == (65504.0, -65504.0)


# errors


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fp16", 65520.0, "values[0, 2] = 65520: fp16 reaches 65504 (scale the array down); fp16.encode"),
        ("fp16", -1e6, "values[0, 2] = -1000000: fp16 reaches 65504 (scale the array down); fp16.encode"),
        (
            "bf16",
            3.4e38,
            "values[0, 2] = 3.39999995e+38: bf16 reaches 3.38953139e+38 (scale the array down); bf16.encode",
        ),
    ],
)
def test_a_value_that_would_round_to_infinity_is_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(FormatError) as error:
        formats.get(name).encode(np.array([[0, 1, value, 2]], np.float32))
    assert str(error.value) == message


def test_the_greatest_value_below_infinity_is_accepted() -> None:
    for name, limit in (("fp16", 65520.0), ("bf16", float.fromhex("0x1.ffp127"))):
        below = np.nextafter(np.float32(limit), np.float32(0))
        fmt = formats.get(name)
        assert fmt.decode(fmt.encode(np.array([below, -below]))).tolist() == [fmt.max_value, fmt.min_value]


def test_16_bit_floats_refuse_a_scale_format_and_integers() -> None:
    fmt = formats.get("bf16")
    with pytest.raises(FormatError) as error:
        fmt.encode(np.ones(4, np.float32), scale_format="fp16")
    assert str(error.value) == "scale_format = fp16: must be None (bf16 has no scale); bf16.encode"
    with pytest.raises(FormatError) as error:
        fmt.integers(fmt.encode(np.ones(4, np.float32)))
    assert str(error.value) == "format = bf16: has no integer values (use decode); bf16.integers"
    with pytest.raises(FormatError) as error:
        fmt.decode(formats.get("fp16").encode(np.ones(4, np.float32)))
    assert str(error.value) == "encoded.format = fp16: must be bf16 (use formats.get('fp16')); bf16.decode"
    with pytest.raises(FormatError) as error:
        fmt.code_values(selector=1)
    assert str(error.value) == "selector, zero = 1, 0: must be 0, 0 (it has neither); bf16.code_values"
