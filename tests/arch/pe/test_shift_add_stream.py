"""shift-add stream: the golden against Python integers, derived widths, and group-level dequantisation in rationals."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.shift_add import ShiftAdd
from bitwright.arch.pe.shift_add_stream import ShiftAddStream
from bitwright.arch.pe.stream import StreamSpec
from bitwright.arch.pe.units import GroupDequantiser


def shifted_terms(act: int, code: int, bits: int, unsigned: int) -> int:
    """act * value(code) from its terms: set bits add act << position, a signed code's highest subtracts it."""
    total = 0
    for position in range(bits):
        term = (act << position) if code >> position & 1 else 0
        total += -term if position == bits - 1 and not unsigned else term
    return total


def random_steps(spec: ShiftAddStream, count: int, seed: int) -> dict[str, np.ndarray]:
    """Random operands and random flags: sums of any length, dropped ones and ones that go on after a result."""
    rng = np.random.default_rng(seed)
    shape = (count,) if spec.lanes == 1 else (count, spec.lanes)
    first, last = rng.integers(0, 8, count) == 0, rng.integers(0, 6, count) == 0
    first[0] = True
    return {
        "act": rng.integers(-128, 128, shape),
        "wgt": rng.integers(0, 1 << spec.weight_bits, shape),
        "wgt_unsigned": rng.integers(0, 2, count),
        "first": first.astype(np.int64),
        "last": last.astype(np.int64),
    }


def test_the_library_lists_the_stream_by_name() -> None:
    spec = pe.stream("shift-add", weight_bits=2, lanes=8, group=64, pipeline=1, zero_points=True)
    assert spec == ShiftAddStream(2, 8, 64, 1, True)
    assert spec.module_stem == "shift_add_w2_l8_g64_s1_z"
    assert ShiftAddStream().module_stem == "shift_add_w4_l1_g128_s0"
    assert len({ShiftAddStream(**params).module_stem for params in ShiftAddStream.variants}) == 6
    assert spec.timing.latency_cycles == 2
    assert ShiftAddStream().timing.latency_cycles == 1


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_one_step_equals_the_shifted_terms_for_every_code_activation_and_mode(bits: int) -> None:
    spec = ShiftAddStream(bits, zero_points=True)
    cases = list(product(range(-128, 128), range(1 << bits), (0, 1)))
    act, code, unsigned = (np.asarray(column) for column in zip(*cases, strict=True))
    state = spec.accumulate(spec.start(len(cases)), act, code, wgt_unsigned=unsigned)
    assert state[0].tolist() == [shifted_terms(a, c, bits, u) for a, c, u in cases]
    assert state[1].tolist() == act.tolist()


def test_codes_of_4_bits_are_those_of_the_systolic_cell() -> None:
    cell, stream = ShiftAdd(group=128), ShiftAddStream()
    assert stream.psum.bits == cell.psum.bits
    rng = np.random.default_rng(1)
    acc = rng.integers(-(1 << 18), 1 << 18, 20_000)
    act, code, unsigned = rng.integers(-128, 128, 20_000), rng.integers(0, 16, 20_000), rng.integers(0, 2, 20_000)
    expected = cell.accumulate(acc, act, code, wgt_unsigned=unsigned)
    got = stream.accumulate((acc, acc * 0), act, code, wgt_unsigned=unsigned)[0]
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("params", ShiftAddStream.variants, ids=str)
def test_sums_equal_python_integers_and_the_step_by_step_golden(params: dict[str, Any]) -> None:
    spec = ShiftAddStream(**params)
    steps = random_steps(spec, 3_000, seed=2)
    expected: dict[str, list[int]] = {"psum": [], "act_sum": []}
    psum = act_sum = 0
    for at in range(3_000):
        acts, codes = (np.atleast_1d(steps[name][at]).tolist() for name in ("act", "wgt"))
        unsigned = int(steps["wgt_unsigned"][at])
        if steps["first"][at]:
            psum = act_sum = 0
        psum += sum(shifted_terms(a, c, spec.weight_bits, unsigned) for a, c in zip(acts, codes, strict=True))
        act_sum += sum(acts)
        if steps["last"][at]:
            for name, value, bits in (("psum", psum, spec.psum.bits), ("act_sum", act_sum, spec.act_sum_bits)):
                half = 1 << (bits - 1)
                expected[name].append((value + half) % (2 * half) - half)
    got, slow = spec.sums(steps), StreamSpec.sums(spec, steps)
    assert list(got) == (["psum", "act_sum"] if spec.zero_points else ["psum"])
    for name, values in got.items():
        assert values.tolist() == expected[name], name
        assert slow[name].tolist() == expected[name], name


# Widths


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("group", "lanes"), [
    (1, 1), (2, 1), (3, 1), (20, 3), (63, 4), (64, 4), (65, 4), (128, 1), (128, 64), (5, 64), (65536, 1), (65536, 64),
])  # fmt: skip
def test_sums_of_a_whole_group_fit_and_widths_follow_from_it(bits: int, group: int, lanes: int) -> None:
    spec = ShiftAddStream(bits, lanes, group)
    products = lanes
    while products < group:
        products += lanes
    doublings = 0
    while 2**doublings < products:
        doublings += 1
    assert spec.psum.bits == 8 + bits + doublings
    assert spec.act_sum_bits == 8 + doublings
    extremes = [shifted_terms(a, c, bits, u) for a in (-128, 127) for c in range(1 << bits) for u in (0, 1)]
    assert min(extremes) * products >= -(1 << (spec.psum.bits - 1))
    assert max(extremes) * products < 1 << (spec.psum.bits - 1)
    assert -128 * products >= -(1 << (spec.act_sum_bits - 1))
    if products == 2**doublings:  # not a bit too many
        assert min(extremes) * products < -(1 << (spec.psum.bits - 2))
        assert -128 * products == -(1 << (spec.act_sum_bits - 1))


@pytest.mark.parametrize("params", [
    *ShiftAddStream.variants, {"weight_bits": 2}, {"lanes": 64}, {"lanes": 64, "group": 4096}
], ids=str)  # fmt: skip
def test_the_longest_sum_fits_and_one_more_step_wraps(params: dict[str, Any]) -> None:
    spec = ShiftAddStream(**params)
    assert spec.longest_sum * spec.lanes >= spec.group
    codes = np.full((1, spec.lanes), (1 << spec.weight_bits) - 1)
    state = spec.start(1)
    exact = 0
    for _ in range(spec.longest_sum):
        state = spec.accumulate(state, np.full((1, spec.lanes), -128), codes, wgt_unsigned=np.ones(1, np.int64))
        exact -= 128 * spec.lanes
    assert state[0].tolist() == [exact * ((1 << spec.weight_bits) - 1)]
    assert state[1].tolist() == [exact] or not spec.zero_points
    state = spec.accumulate(state, np.full((1, spec.lanes), -128), codes, wgt_unsigned=np.ones(1, np.int64))
    assert state[0][0] > 0 or (spec.zero_points and state[1][0] > 0)


@pytest.mark.parametrize("params", ShiftAddStream.variants, ids=str)
def test_the_longest_sum_stays_in_range_whatever_a_cut_wire_holds(params: dict[str, Any]) -> None:
    spec = ShiftAddStream(**params)
    low = sum(cut.low * cut.weight for cut in spec.cuts)
    high = sum(cut.high * cut.weight for cut in spec.cuts)
    assert bool(spec.cuts) == bool(spec.pipeline or spec.lanes == 1)
    limit = 1 << (spec.psum.bits - 1)
    assert low * spec.longest_sum >= -limit
    assert high * spec.longest_sum < limit


# After the group


def nearest_fp32(value: Fraction) -> Fraction:
    """`value`, far from the ends of fp32's range, rounded to 24 significant bits, ties to even."""
    if value == 0:
        return value
    exponent = abs(value).numerator.bit_length() - abs(value).denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    step = Fraction(2) ** (exponent - 23)
    return round(value / step) * step


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_row_of_groups_is_dequantised_with_scale_and_zero_point_exactly(bits: int) -> None:
    group, depth, rows, lanes = 64, 224, 12, 4  # three whole groups and a short one
    spec = ShiftAddStream(bits, lanes=lanes, group=group, zero_points=True)
    unit = GroupDequantiser(psum_bits=spec.psum.bits, act_sum_bits=spec.act_sum_bits, zero_bits=4)
    rng = np.random.default_rng(bits)
    weights = (rng.standard_normal((rows, depth)) + rng.standard_normal((rows, 1))).astype(np.float32)
    encoded = formats.get(f"int{bits}_asym").encode(weights, group=group)
    assert encoded.zeros is not None
    codes, zeros = encoded.codes.astype(np.int64), encoded.zeros.astype(np.int64)
    scales = encoded.scales.astype(np.float16)
    assert len(np.unique(zeros)) > 1
    acts = rng.integers(-128, 128, (rows, depth))
    out, exact = np.zeros(rows, np.float32), [Fraction(0)] * rows
    for index, start in enumerate(range(0, depth, group)):
        end = min(start + group, depth)
        state = spec.start(rows)
        for at in range(start, end, lanes):
            part = np.s_[:, at : at + lanes]
            state = spec.accumulate(state, acts[part], codes[part], wgt_unsigned=np.ones(rows, np.int64))
        found = spec.result(state)
        out = unit.dequantise(
            out, found["psum"], scales[:, index], zero=zeros[:, index], act_sum=found["act_sum"]
        )  # fmt: skip
        for row in range(rows):
            scale, zero = Fraction(float(scales[row, index])), int(zeros[row, index])
            wanted = sum(
                (scale * (int(codes[row, at]) - zero) * int(acts[row, at]) for at in range(start, end)), Fraction(0)
            )
            assert scale * (int(found["psum"][row]) - zero * int(found["act_sum"][row])) == wanted
            exact[row] = nearest_fp32(exact[row] + nearest_fp32(wanted))
    assert [Fraction(float(value)) for value in out] == exact


@pytest.mark.parametrize("zero_points", [False, True])
def test_real_rows_become_one_sum_for_each_group_with_idle_lanes_at_zero(zero_points: bool) -> None:
    spec = ShiftAddStream(3, lanes=3, group=20, zero_points=zero_points)
    rng = np.random.default_rng(5)
    act, wgt = rng.standard_normal((2, 7, 50)).astype(np.float32)
    steps = spec.quantised(act, wgt)
    lengths = np.diff(np.append(np.flatnonzero(steps["first"]), len(steps["first"])))
    assert lengths.tolist() == [7] * 14 + [4] * 7  # 20, 20 and 10 products of 7 rows
    assert (np.flatnonzero(steps["last"]) == np.cumsum(lengths) - 1).all()
    assert steps["wgt_unsigned"].tolist() == [int(zero_points)] * len(lengths.repeat(lengths))
    rows = np.concatenate([steps["act"][:49].reshape(7, 21), steps["act"][49:98].reshape(7, 21)], axis=1)
    assert (rows[:, [20, 41]] == 0).all()
    top = np.abs(act).max(axis=1, keepdims=True)
    assert np.abs(rows[:, :20] * top / 127 - act[:, :20]).max() <= top.max() / 127 * 0.51
    encoded = formats.get("int3_asym" if zero_points else "int3").encode(wgt, group=20)
    assert (steps["wgt"][:49].reshape(7, 21)[:, :20] == (encoded.codes[:, :20].astype(np.int64) & 7)).all()


# Formats and errors


def test_narrow_integer_codes_are_taken_as_they_are() -> None:
    with_zeros = ShiftAddStream(zero_points=True)
    assert with_zeros.accepts("int4", 128).reason == "int4 is a 4-bit code"
    assert with_zeros.accepts("int4_asym", 64).reason == "int4_asym is a 4-bit code"
    assert with_zeros.accepts("int3_asym", 64).reason == "int3_asym is a 3-bit code, extended at the array border"
    assert with_zeros.accepts("int4", 128).kind == "native"


@pytest.mark.parametrize(("params", "format_name", "group", "reason"), [
    ({}, "int5", 128, "int5 codes are not integers of at most 4 bits"),
    ({"weight_bits": 2}, "int3", 128, "int3 codes are not integers of at most 2 bits"),
    ({}, "fp4_e2m1", 128, "fp4_e2m1 codes are not integers of at most 4 bits"),
    ({}, "fp16", 128, "fp16 codes are not integers of at most 4 bits"),
    ({}, "int4_asym", 128, "int4_asym has zero points, and this PE no sum of activations"),
    ({}, "int4", 129, "a group of 129 does not fit the 19-bit sum of 128 products"),
    ({"group": 64}, "int4", None, "a group of a whole row does not fit the 18-bit sum of 64 products"),
])  # fmt: skip
def test_other_formats_and_longer_groups_are_refused(
    params: dict[str, Any], format_name: str, group: int | None, reason: str
) -> None:
    found = ShiftAddStream(**params).accepts(format_name, group)
    assert not found
    assert found.reason == reason


@pytest.mark.parametrize(("params", "message"), [
    ({"weight_bits": 1}, "shift-add weight_bits = 1: must be in 2..4"),
    ({"weight_bits": 5}, "shift-add weight_bits = 5: must be in 2..4"),
    ({"lanes": 0}, "shift-add lanes = 0: must be in 1..64"),
    ({"lanes": 65}, "shift-add lanes = 65: must be in 1..64"),
    ({"group": 0}, "shift-add group = 0: must be in 1..65536"),
    ({"group": 65537}, "shift-add group = 65537: must be in 1..65536"),
    ({"pipeline": 2}, "shift-add pipeline = 2: must be in 0..1"),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ShiftAddStream(**params)
    assert str(error.value) == message
