"""shift-add-a16: the golden against exact rationals, the bound of its error, and the conversion to fp32."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.fixed_point_unit import below
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16, shared_exponent
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.asic.operands import sample

INF, NAN = 0x7C00, 0x7E00
ALL = np.arange(1 << 16)
NAN_FP32 = 0x7FC00000


def value_of(codes: Any) -> np.ndarray:
    """fp16 codes as float64, by numpy's own float16."""
    return np.asarray(codes, dtype=np.uint16).view(np.float16).astype(np.float64)


def top_exponent(codes: np.ndarray) -> np.ndarray:
    """E with 2**(E - 15) <= greatest magnitude < 2**(E - 14) over the last axis, at least 1."""
    greatest = np.maximum(np.abs(value_of(codes)).max(axis=-1), 2.0**-24)
    return np.maximum(np.frexp(greatest)[1] + 14, 1)


def signed_code(code: int, bits: int, unsigned: int) -> int:
    return code if unsigned or code < 1 << (bits - 1) else code - (1 << bits)


def half_away(value: Fraction) -> int:
    """`value` to the nearest integer, ties away from zero."""
    whole = int(abs(value) + Fraction(1, 2))
    return -whole if value < 0 else whole


def nearest_fp32(value: Fraction) -> Fraction:
    """`value` below 2**128 rounded to 24 significant bits, to a multiple of 2**-149 at least, ties to even."""
    if value == 0:
        return value
    exponent = abs(value).numerator.bit_length() - abs(value).denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    step = Fraction(2) ** max(exponent - 23, -149)
    return round(value / step) * step


def finite_steps(spec: ShiftAddA16, lengths: list[int], seed: int) -> dict[str, np.ndarray]:
    """Sums of finite activations of the spread of a real layer's, each with its group's exponent."""
    rng, count = np.random.default_rng(seed), sum(lengths)
    act = rng.standard_normal((count, spec.lanes)) * np.exp2(rng.integers(-12, 5, (count, spec.lanes)))
    first = np.zeros(count, np.int64)
    first[np.append(0, np.cumsum(lengths)[:-1])] = 1
    codes = act.astype(np.float16).view(np.uint16).astype(np.int64)
    wgt = rng.integers(0, 1 << spec.weight_bits, (count, spec.lanes))
    exponent = np.concatenate([
        np.full(length, top_exponent(codes[end - length : end].ravel()))
        for length, end in zip(lengths, np.cumsum(lengths), strict=True)
    ])  # fmt: skip
    shaped = {"act": codes, "wgt": wgt} if spec.lanes > 1 else {"act": codes[:, 0], "wgt": wgt[:, 0]}
    mode = np.repeat(rng.integers(0, 2, len(lengths)), lengths)
    return {**shaped, "wgt_unsigned": mode, "exponent": exponent, "first": first, "last": np.roll(first, -1)}


def test_the_library_lists_the_stream_by_name() -> None:
    spec = pe.stream("shift-add-a16", weight_bits=3, lanes=2, group=64, pipeline=2, zero_points=True)
    assert spec == ShiftAddA16(3, 2, 64, 2, True)
    assert spec.module_stem == "shift_add_a16_w3_l2_g64_s2_z"
    assert ShiftAddA16().module_stem == "shift_add_a16_w4_l1_g128_s0"
    assert len({ShiftAddA16(**params).module_stem for params in ShiftAddA16.variants}) == 6
    assert [ShiftAddA16(pipeline=stages).timing.latency_cycles for stages in range(3)] == [1, 2, 3]
    assert (ShiftAddA16().guard_bits, ShiftAddA16().psum.bits, ShiftAddA16().act_sum_bits) == (8, 31, 27)


# Border unit and aligner


def test_the_shared_exponent_is_that_of_the_greatest_magnitude() -> None:
    finite = np.flatnonzero(np.isfinite(value_of(ALL)))
    assert (shared_exponent(finite[:, None]) == top_exponent(finite[:, None])).all()
    groups = np.random.default_rng(1).choice(finite, (5_000, 16)) & np.asarray([0x83FF, 0xFFFF])[ALL[:5_000, None] % 2]
    assert (shared_exponent(groups) == top_exponent(groups)).all()
    assert shared_exponent([[0x3C00, INF], [NAN, 0], [0, 0x8000]]).tolist() == [31, 31, 1]


@pytest.mark.parametrize("group", [1, 128, 65536])
def test_every_activation_is_aligned_to_every_exponent_by_one_rounding(group: int) -> None:
    spec = ShiftAddA16(group=group)
    value = value_of(ALL)
    finite = np.isfinite(value)
    own = top_exponent(np.where(finite, ALL, 0)[:, None])
    for exponent in range(32):
        aligned, nonfinite = spec.align(ALL, exponent)
        fits = finite & (own <= max(exponent, 1))
        assert (nonfinite == ~fits).all()
        unit = 2.0 ** (max(exponent, 1) - 25 - spec.guard_bits)
        scaled = np.abs(value[fits]) / unit  # an integer below 2**41, halved at most 29 times: exact
        expected = np.copysign(np.floor(scaled + 0.5), value[fits])
        assert (aligned[fits] == expected).all()
        assert np.abs(aligned).max() <= spec.max_aligned
        exact = np.abs(value[fits]) >= 2.0 ** (max(exponent, 1) - 15 - spec.guard_bits)
        assert (aligned[fits] * unit == value[fits])[exact].all()


# Sums


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_one_step_is_exact_for_every_code_activation_and_mode(bits: int) -> None:
    spec = ShiftAddA16(bits, zero_points=True)
    act = ALL[np.isfinite(value_of(ALL))]
    exponent = top_exponent(act[:, None])
    unit = np.ldexp(1.0, exponent - 25 - spec.guard_bits)
    for code in range(1 << bits):
        for unsigned in (0, 1):
            mode = np.full(len(act), unsigned)
            state = spec.accumulate(
                spec.start(len(act)), act, np.full(len(act), code), wgt_unsigned=mode, exponent=exponent
            )
            assert (state[0] * unit == value_of(act) * signed_code(code, bits, unsigned)).all()
            assert (state[1] * unit == value_of(act)).all()
            assert (state[2] == exponent).all()
            assert not state[3].any()


@pytest.mark.parametrize("params", ShiftAddA16.variants, ids=str)
def test_sums_equal_rationals_with_the_rounding_written_out_and_stay_below_the_bound(params: dict[str, Any]) -> None:
    spec = ShiftAddA16(**params)
    rng = np.random.default_rng(3)
    whole = -(-spec.group // spec.lanes)
    lengths = [whole, 1, *rng.integers(1, whole + 1, 40).tolist(), whole]
    steps = finite_steps(spec, lengths, seed=4)
    got, slow = spec.sums(steps), StreamSpec.sums(spec, steps)
    for name in got:
        assert got[name].tolist() == slow[name].tolist(), name
    start = 0
    for place, length in enumerate(lengths):
        part = slice(start, start + length)
        start += length
        acts = [Fraction(float(value)) for value in value_of(steps["act"][part].ravel())]
        unsigned, exponent = int(steps["wgt_unsigned"][part][0]), int(steps["exponent"][part][0])
        codes = [signed_code(int(code), spec.weight_bits, unsigned) for code in steps["wgt"][part].ravel()]
        unit = Fraction(2) ** (exponent - 25 - spec.guard_bits)
        aligned = [half_away(act / unit) for act in acts]
        psum = sum(act * code for act, code in zip(aligned, codes, strict=True))
        assert got["psum"][place] == psum
        if spec.zero_points:
            assert got["act_sum"][place] == sum(aligned)
        assert got["exponent"][place] == exponent
        assert got["nonfinite"][place] == 0
        error = abs(psum * unit - sum(act * code for act, code in zip(acts, codes, strict=True)))
        assert error <= sum(map(abs, codes)) * unit / 2 <= Fraction(float(spec.error_bound(exponent)))


def test_a_special_or_too_large_activation_flags_its_sum_and_no_other() -> None:
    spec = ShiftAddA16()
    acts = np.asarray([0x3C00, INF, 0x3C00, 0x3C00, 0x0000, NAN | 0x8000, 0x4000, 0x3C00, 0x0001, 0x0400])
    exponents = np.asarray([15, 15, 15, 31, 31, 31, 15, 15, 0, 0])
    first, last = np.asarray([1, 0, 1, 1, 0, 1, 1, 0, 1, 1]), np.asarray([0, 1, 1, 0, 1, 1, 0, 1, 1, 1])
    steps = {"act": acts, "wgt": np.zeros(10, np.int64), "wgt_unsigned": np.zeros(10, np.int64)}
    found = spec.sums({**steps, "exponent": exponents, "first": first, "last": last})
    assert found["nonfinite"].tolist() == [1, 0, 0, 1, 1, 0, 0]
    assert found["exponent"].tolist() == [15, 15, 31, 31, 15, 1, 1]
    slow = StreamSpec.sums(spec, {**steps, "exponent": exponents, "first": first, "last": last})
    assert {name: values.tolist() for name, values in slow.items()} == {
        name: values.tolist() for name, values in found.items()
    }


# Error


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("group", "lanes"), [(1, 1), (20, 3), (64, 4), (128, 1), (129, 1), (65536, 64)])
def test_the_bound_is_below_half_an_fp16_ulp_of_the_largest_product(bits: int, group: int, lanes: int) -> None:
    spec = ShiftAddA16(bits, lanes, group)
    for exponent in range(1, 31):
        smallest = Fraction(2) ** (exponent - 15)  # of the largest activations that have this exponent
        largest_product = smallest * ((1 << bits) - 1)
        ulp = Fraction(1)
        while largest_product < 1024 * ulp:
            ulp /= 2
        while largest_product >= 2048 * ulp:
            ulp *= 2
        assert Fraction(float(spec.error_bound(exponent))) < ulp / 2


def test_a_group_of_halves_of_the_last_place_comes_up_to_the_bound() -> None:
    spec = ShiftAddA16(group=128)
    # 2**15, and 127 activations whose last place is half the unit of the sum: 2**(30 - 25 - 8 - 1)
    small = np.float16(1025 * 2.0**-4).view(np.uint16)
    acts = np.asarray([0x7800, *[int(small)] * 127])
    state = spec.start(1)
    for act in acts:
        state = spec.accumulate(
            state, np.asarray([act]), np.asarray([15]), wgt_unsigned=np.asarray([1]), exponent=np.asarray([30])
        )
    exact = 15 * (2**15 + 127 * Fraction(1025, 16))
    error = abs(int(state[0][0]) * Fraction(2) ** (30 - 33) - exact)
    assert error == Fraction(127, 128) * Fraction(float(spec.error_bound(30)))


def groups_of(kind: str, group: int) -> tuple[np.ndarray, np.ndarray]:
    """(fp16 codes, int4 codes) [n, group]: 20,000 random groups, or every token against every row of the sample."""
    if kind == "normal":
        rng = np.random.default_rng(1)
        acts = rng.standard_normal((20_000, group)).astype(np.float16)
        return acts.view(np.uint16).astype(np.int64), rng.integers(0, 16, (20_000, group))
    real = sample()
    channels = real.acts.shape[-1] - 1
    codes = formats.get("int4").encode(real.weights, group=group).codes[..., :channels].astype(np.int64) & 15
    acts = real.acts[..., :channels].astype(np.float16).view(np.uint16).astype(np.int64)
    shape = (*acts.shape[:2], codes.shape[1], channels)
    spread = (np.broadcast_to(acts[:, :, None], shape), np.broadcast_to(codes[:, None], shape))
    return spread[0].reshape(-1, group), spread[1].reshape(-1, group)


@pytest.mark.parametrize(("kind", "group", "of_bound", "ulps", "unharmed"), [
    ("normal", 64, (0.0198, 0.00142), (6.5, 0.0029), 0.614),
    ("normal", 128, (0.0094, 0.00073), (3.5, 0.0011), 0.607),
    ("real", 64, (0.0249, 0.00201), (16.0, 0.0165), 0.362),
    ("real", 128, (0.0161, 0.00120), (4.59, 0.0090), 0.261),
])  # fmt: skip
def test_the_error_of_whole_groups_against_exact_arithmetic_is_as_stated(
    kind: str, group: int, of_bound: tuple[float, float], ulps: tuple[float, float], unharmed: float
) -> None:
    spec = ShiftAddA16(group=group)
    acts, codes = groups_of(kind, group)
    assert len(acts) == {("real", 64): 16_384, ("real", 128): 8_192}.get((kind, group), 20_000)
    value = value_of(acts)
    exponent = top_exponent(acts)
    signed = np.where(codes < 8, codes, codes - 16)
    # fp16 numbers are integers times 2**-24 below 2**40, times at most 8, times 128 of them: exact in int64
    exact = (np.ldexp(value, 24).astype(np.int64) * signed).sum(axis=1)
    steps = {
        "act": acts.ravel(), "wgt": codes.ravel(), "wgt_unsigned": np.zeros(acts.size, np.int64),
        "exponent": np.repeat(exponent, group),
    }  # fmt: skip
    first = (np.arange(acts.size) % group == 0).astype(np.int64)
    found = spec.sums({**steps, "first": first, "last": np.roll(first, -1)})
    error = np.abs(np.ldexp(found["psum"].astype(float), exponent - 25 - spec.guard_bits) - exact * 2.0**-24)
    share = error / spec.error_bound(exponent)
    assert share.max() <= 1
    some = exact != 0
    magnitude = np.ldexp(np.abs(exact[some]).astype(float), -24)
    in_ulps = error[some] / np.ldexp(1.0, np.maximum(np.frexp(magnitude)[1] - 11, -24))
    assert (share.max(), share.mean()) == pytest.approx(of_bound, rel=0.01)
    assert (in_ulps.max(), in_ulps.mean()) == pytest.approx(ulps, rel=0.03)
    assert (error == 0).mean() == pytest.approx(unharmed, abs=0.001)


# Widths


@pytest.mark.parametrize("params", [*ShiftAddA16.variants, {"group": 65536}, {"group": 1}], ids=str)
def test_widths_hold_a_whole_group_and_the_longest_sum_but_not_one_step_more(params: dict[str, Any]) -> None:
    spec = ShiftAddA16(**params)
    products = -(-spec.group // spec.lanes) * spec.lanes
    assert spec.longest_sum * spec.lanes >= products
    largest = 2047 * 2**spec.guard_bits
    tops = {"psum": (largest * ((1 << spec.weight_bits) - 1), spec.psum.bits)}
    if spec.zero_points:
        tops["act_sum"] = (largest, spec.act_sum_bits)
    fits = [
        -(1 << (bits - 1)) <= sign * count * spec.lanes * top < 1 << (bits - 1)
        for top, bits in tops.values()
        for sign in (1, -1)
        for count in (spec.longest_sum, spec.longest_sum + 1)
    ]
    assert all(fits[::2])
    assert not all(fits[1::2])
    for count, wraps in ((spec.longest_sum, False), (spec.longest_sum + 1, True)):
        first = (np.arange(count) == 0).astype(np.int64)
        shape = count if spec.lanes == 1 else (count, spec.lanes)
        found = spec.sums({
            "act": np.full(shape, 0x7BFF), "wgt": np.full(shape, (1 << spec.weight_bits) - 1),
            "wgt_unsigned": np.ones(count, np.int64), "exponent": np.full(count, 30),
            "first": first, "last": np.roll(first, -1),
        })  # fmt: skip
        exact = {name: count * spec.lanes * top for name, (top, _) in tops.items()}
        assert any(found[name].tolist() != [exact[name]] for name in tops) == wraps


@pytest.mark.parametrize("params", ShiftAddA16.variants, ids=str)
def test_the_longest_sum_stays_in_range_whatever_a_cut_wire_holds(params: dict[str, Any]) -> None:
    spec = ShiftAddA16(**params)
    limit = 1 << (spec.psum.bits - 1)
    assert bool(spec.cuts) == (spec.pipeline == 2)
    assert sum(cut.low for cut in spec.cuts) * spec.longest_sum >= -limit
    assert sum(cut.high for cut in spec.cuts) * spec.longest_sum < limit


# After the group


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_scaled_sums_with_zero_points_are_rounded_once(bits: int) -> None:
    spec = ShiftAddA16(bits, lanes=4, group=64, zero_points=True)
    rng = np.random.default_rng(bits)
    steps = finite_steps(spec, [16] * 300, seed=bits)
    found = spec.sums(steps)
    scale = rng.integers(0, 0x7C00, 300).astype(np.uint16) | (rng.integers(0, 2, 300) << 15).astype(np.uint16)
    scales, zeros = scale.view(np.float16), rng.integers(0, 1 << bits, 300)
    got = spec.to_fp32(found, scales, zero=zeros)
    for row in range(300):
        corrected = int(found["psum"][row]) - int(zeros[row]) * int(found["act_sum"][row])
        unit = Fraction(2) ** (int(found["exponent"][row]) - 25 - spec.guard_bits)
        assert Fraction(float(got[row])) == nearest_fp32(Fraction(float(scales[row])) * corrected * unit)
    assert (below(spec).dequantise(np.float32(0), scale=scales, zero=zeros, **found) == got).all()


def test_specials_and_zeros_are_converted_as_ieee_754_multiplies() -> None:
    spec = ShiftAddA16(group=1)
    sums = {"psum": np.asarray([5, 5, -5, 0, 0, 0, 5, -5, 0]), "exponent": np.full(9, 15), "nonfinite": np.eye(9)[0]}
    scales = np.asarray([1, np.inf, np.inf, np.inf, 1, -1, np.nan, 0, -0.0], np.float16)
    bits = spec.to_fp32(sums, scales).view(np.uint32).tolist()
    inf = 0x7F800000
    sign = 1 << 31
    assert bits == [NAN_FP32, inf, inf | sign, NAN_FP32, 0, sign, NAN_FP32, sign, sign]


def test_a_zero_point_needs_the_sum_of_activations() -> None:
    sums = {"psum": np.asarray([5]), "exponent": np.asarray([15]), "nonfinite": np.asarray([0])}
    with pytest.raises(ConfigError) as error:
        ShiftAddA16().to_fp32(sums, zero=3)
    assert str(error.value) == "shift-add-a16 zero_points = False: must be True for zero points other than 0"


def test_real_rows_get_the_exponent_of_each_group() -> None:
    spec = ShiftAddA16(lanes=4, group=16)
    rng = np.random.default_rng(6)
    act, wgt = rng.standard_normal((2, 5, 40)).astype(np.float32)
    steps = spec.quantised(act, wgt)
    found = spec.sums(steps)
    halves = act.astype(np.float16)
    for index, (start, end) in enumerate(((0, 16), (16, 32), (32, 40))):
        part = halves[:, start:end].view(np.uint16)
        assert (found["exponent"][5 * index : 5 * index + 5] == top_exponent(part)).all()
        codes = formats.get("int4").encode(wgt, group=16).codes[:, start:end].astype(np.int64) & 15
        exact = (part.view(np.float16).astype(float) * (codes - (codes >> 3 << 4))).sum(axis=1)
        got = spec.to_fp32({name: values[5 * index : 5 * index + 5] for name, values in found.items()})
        assert np.abs(got - exact).max() <= spec.error_bound(top_exponent(part)).max()
    assert not found["nonfinite"].any()


def test_a_given_exponent_is_raised_to_its_group_and_shared_by_it() -> None:
    spec = ShiftAddA16()
    steps = spec.tame({
        "act": np.asarray([0x3C00, 0x0001, 0x7BFF, 0x3C00]), "exponent": np.asarray([3, 31, 20, 2]),
        "first": np.asarray([1, 0, 1, 0]),
    })  # fmt: skip
    assert steps["exponent"].tolist() == [15, 15, 30, 30]


@pytest.mark.parametrize(("params", "message"), [
    ({"weight_bits": 5}, "shift-add-a16 weight_bits = 5: must be in 2..4"),
    ({"lanes": 65}, "shift-add-a16 lanes = 65: must be in 1..64"),
    ({"group": 0}, "shift-add-a16 group = 0: must be in 1..65536"),
    ({"pipeline": 3}, "shift-add-a16 pipeline = 3: must be in 0..2"),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ShiftAddA16(**params)
    assert str(error.value) == message


def test_formats_are_taken_and_refused_by_width_zero_point_and_group() -> None:
    spec = ShiftAddA16()
    assert spec.accepts("int4", 128).reason == "int4 is a 4-bit code"
    assert ShiftAddA16(zero_points=True).accepts("int2_asym", 64).kind == "native"
    assert spec.accepts("int4_asym", 64).reason == "int4_asym has zero points, and this PE no sum of activations"
    assert spec.accepts("int8", 64).reason == "int8 codes are not integers of at most 4 bits"
    assert spec.accepts("int4", None).reason == "a group of a whole row does not fit the 31-bit sum of 128 products"
