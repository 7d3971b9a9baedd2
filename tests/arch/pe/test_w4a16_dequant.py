"""w4a16-dequant: the golden against exact rationals with both roundings written out, its formats and parameters."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.stream import FIRST, LAST
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant

INFINITE = Fraction(1 << 200)


def half(bits: int) -> Fraction:
    """The value of a finite fp16 number."""
    fraction, exponent = bits & 0x3FF, bits >> 10 & 31
    whole = fraction + (1024 if exponent else 0)
    return (-1) ** (bits >> 15) * Fraction(whole) * Fraction(2) ** (max(exponent, 1) - 25)


def nearest(value: Fraction, fraction_bits: int, least_exponent: int, limit: Fraction) -> Fraction:
    """The nearest multiple of the last place, ties to even; INFINITE, signed, from `limit` on."""
    magnitude = abs(value)
    exponent = least_exponent
    while Fraction(2) ** (exponent + 1) <= magnitude:
        exponent += 1
    last_place = Fraction(2) ** (exponent - fraction_bits)
    whole, rest = divmod(magnitude / last_place, 1)
    whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    rounded = whole * last_place
    return (INFINITE if rounded >= limit else rounded) * (-1 if value < 0 else 1)


def weight_of(code: int, scale: int, zero: int, asym: int, bits: int) -> Fraction:
    integer = code - zero if asym else code - ((code >> (bits - 1)) << bits)
    return nearest(integer * half(scale), 10, -14, Fraction(1 << 16))


def as_half(value: Fraction) -> float:
    return float("inf") * (1 if value > 0 else -1) if abs(value) == INFINITE else float(value)


def finite_scales(rng: np.random.Generator, count: int) -> np.ndarray:
    scales = rng.integers(0, 1 << 16, count)
    return np.where(scales & 0x7C00 == 0x7C00, scales & ~0x4000, scales)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("asym", [0, 1])
def test_weights_are_integer_times_scale_rounded_once_to_fp16(bits: int, asym: int) -> None:
    rng = np.random.default_rng(bits)
    count = 4000
    code, zero = rng.integers(0, 1 << bits, (2, count))
    # Corners of the scale often: subnormal results, ties, and overflow.
    scale = np.where(rng.random(count) < 0.3, rng.choice([1, 0x3FF, 0x401, 0x7BFF, 0xFBFF, 0], count),
                     finite_scales(rng, count))  # fmt: skip
    found = W4A16Dequant(bits).weights({"wgt": code, "scale": scale, "zero": zero, "asym": np.full(count, asym)})
    expected = [
        as_half(weight_of(int(c), int(s), int(z), asym, bits)) for c, s, z in zip(code, scale, zero, strict=True)
    ]
    np.testing.assert_array_equal(found.astype(np.float64), expected)


def test_a_mode_of_each_step_is_followed() -> None:
    fields = {"wgt": np.array([15, 15]), "scale": np.full(2, 0x3C00), "zero": np.full(2, 3), "asym": np.array([0, 1])}
    np.testing.assert_array_equal(W4A16Dequant().weights(fields), [-1.0, 12.0])


def test_infinite_and_nan_scales() -> None:
    scale = np.array([0x7C00, 0xFC00, 0x7C00, 0x7E01])
    fields = {"wgt": np.array([3, 3, 5, 5]), "scale": scale, "zero": np.array([5, 5, 5, 4]), "asym": np.ones(4, int)}
    found = W4A16Dequant().weights(fields)
    np.testing.assert_array_equal(found.view(np.uint16), [0xFC00, 0x7C00, 0x7E00, 0x7E00])  # 0 * infinity is NaN


def test_sums_round_the_weight_and_then_the_sum_once_each() -> None:
    spec, rng, rows, length = W4A16Dequant(), np.random.default_rng(9), 300, 12
    count = rows * length
    act = np.where(rng.random(count) < 0.2, rng.integers(0, 0x400, count), rng.integers(0x2C00, 0x4400, count))
    act |= rng.integers(0, 2, count) << 15
    code, zero, asym = rng.integers(0, 16, count), rng.integers(0, 16, count), rng.integers(0, 2, count)
    scale = rng.integers(0x1800, 0x3C00, count)
    first = (np.arange(count) % length == 0).astype(np.int64)
    found = spec.sums({
        "act": act, "wgt": code, "scale": scale, "zero": zero, "asym": asym, FIRST: first, LAST: np.roll(first, -1),
    })["psum"].astype(np.uint32).view(np.float32)  # fmt: skip
    for row in range(rows):
        total = Fraction(0)
        for k in range(row * length, (row + 1) * length):
            weight = weight_of(int(code[k]), int(scale[k]), int(zero[k]), int(asym[k]), 4)
            total = nearest(total + half(int(act[k])) * weight, 23, -126, INFINITE)
        assert Fraction(float(found[row])) == total


def test_sums_all_at_once_are_the_steps_one_by_one() -> None:
    spec, rng = W4A16Dequant(), np.random.default_rng(10)
    steps = {field.name: rng.integers(0, 1 << field.bits, 64) for field in spec.step_fields}
    first = (np.arange(64) % 4 == 0).astype(np.int64)
    steps |= {FIRST: first, LAST: np.roll(first, -1)}
    np.testing.assert_array_equal(spec.sums(steps)["psum"], super(W4A16Dequant, spec).sums(steps)["psum"])


def test_real_rows_keep_their_formats_codes() -> None:
    rng = np.random.default_rng(11)
    act, wgt = rng.standard_normal((2, 3, 200)).astype(np.float32)
    spec, form = W4A16Dequant(), formats.get("int4_asym")
    steps = spec.quantised(act, wgt)
    np.testing.assert_array_equal(steps["wgt"].reshape(3, 200), form.encode(wgt, group=128).codes)
    exact = form.decode(form.encode(wgt, group=128)).astype(np.float16)
    np.testing.assert_array_equal(spec.weights(steps).reshape(3, 200), exact)
    assert steps[FIRST].sum() == steps[LAST].sum() == 3


# Interface


def test_contract_and_names() -> None:
    spec = pe.stream("w4a16-dequant")
    assert [(field.name, field.bits) for field in spec.step_fields] == [
        ("act", 16), ("wgt", 4), ("scale", 16), ("zero", 4), ("asym", 1)
    ]  # fmt: skip
    stems = [pe.stream("w4a16-dequant", **params).module_stem for params in spec.variants]
    assert stems == [
        "w4a16_dequant_fp32_s0", "w4a16_dequant_fp32_s2", "w4a16_dequant_fp32_s4", "w2a16_dequant_fp32_s1",
        "w8a16_dequant_fp32_s3",
    ]  # fmt: skip
    assert [pe.stream("w4a16-dequant", **params).timing.latency_cycles for params in spec.variants] == [1, 3, 5, 2, 4]
    assert (spec.psum.name, spec.macs_per_step, spec.longest_sum, spec.modes) == ("fp32", 1, None, ("asym",))


def test_formats_of_at_most_as_many_bits_are_taken() -> None:
    names = ("int2", "int3", "int4", "int5", "int2_asym", "int4_asym", "int8_asym", "fp4_e2m1", "bitmod_fp4", "fp16")
    taken = {bits: [name for name in names if W4A16Dequant(bits).accepts(name, 128)] for bits in (2, 4, 8)}
    assert taken == {
        2: ["int2", "int2_asym"],
        4: ["int2", "int3", "int4", "int2_asym", "int4_asym"],
        8: ["int2", "int3", "int4", "int5", "int2_asym", "int4_asym", "int8_asym"],
    }
    spec = W4A16Dequant()
    assert spec.accepts("int5", 128).reason == "int5 has 5 bits, more than 4"
    assert spec.accepts("fp4_e2m1", 128).reason == "fp4_e2m1 has no plain integer codes"
    assert spec.accepts("int3_asym", 128).reason == (
        "int3_asym codes minus their zero point times their scale are rounded once to fp16"
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weight_bits": 1}, "w4a16-dequant weight_bits = 1: must be in 2..8"),
        ({"weight_bits": 9}, "w4a16-dequant weight_bits = 9: must be in 2..8"),
        ({"pipeline": 5}, "w4a16-dequant pipeline = 5: must be in 0..4"),
        ({"bits": 4}, "w4a16-dequant.bits: no such parameter (known: pipeline, weight_bits)"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        pe.stream("w4a16-dequant", **params)
    assert str(error.value) == message
