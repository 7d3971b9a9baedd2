"""opt3 and opt4c: parameters, sums against Python's integers, cycles of every weight, digit codes, columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import OperandType
from bitwright.arch.pe.digits import digit_codes, digit_value, nonzero_digits
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.rtl.bench.stream import stimulus

SPECS: list[Any] = [cls(**params) for cls in (Opt3, Opt4c) for params in cls.variants]
CODES = np.arange(-128, 128)


def stem(spec: StreamSpec) -> str:
    return spec.module_stem


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def weight(spec: Any, code: int) -> int:
    """A weight's value; of a digit code, by its definition in words."""
    if spec.encodes:
        return code
    return 0 if code >> 2 & 1 else {0: -2, 1: 1, 2: 2, 3: -1}[code & 3] * 4 ** (code >> 3)


def exact_sums(spec: Any, steps: Steps) -> list[list[int]]:
    """Sums of each row by Python's integers, at each step marked last."""
    rows = spec.sum_lanes
    total, found = [0] * rows, []
    acts = np.asarray(steps["act"]).reshape(-1, rows).tolist()
    rest = (np.asarray(steps[name]).tolist() for name in ("wgt", FIRST, LAST))
    for act, code, first, last in zip(acts, *rest, strict=True):
        wgt = weight(spec, code)
        total = [(0 if first else old) + a * wgt for old, a in zip(total, act, strict=True)]
        if last:
            found.append([signed(value, spec.psum_bits) for value in total])
    return found


def resolved(spec: Any, sums: dict[str, Any]) -> list[list[int]]:
    parts = [values.reshape(-1, spec.sum_lanes).astype(object) for values in sums.values()]
    return [[signed(int(value), spec.psum_bits) for value in row] for row in sum(parts[1:], parts[0])]


# Interface


def test_they_are_streams_with_a_module_for_each_parameter_set() -> None:
    assert pe.stream("opt3") == Opt3()
    assert pe.stream("opt4c", rows=2) == Opt4c(rows=2)
    assert [spec.module_stem for spec in SPECS] == [
        "opt3_ent_p32_r2_s0", "opt3_ent_p32_r0_s0", "opt3_mbe_p24_r1_s2", "opt4c_r4_ent_p32_r2_s0",
        "opt4c_r16_mbe_p32_r0_s2", "opt4c_r2_digits_p24_r3_s1", "opt4c_r1_digits_p32_r0_s0",
    ]  # fmt: skip
    assert [spec.timing.latency_cycles for spec in SPECS] == [3, 1, 4, 3, 3, 5, 1]
    assert [spec.macs_per_step for spec in SPECS] == [1, 1, 1, 4, 16, 2, 1]
    assert [field.name for field in SPECS[4].sum_fields] == ["psum_sum", "psum_carry"]


def test_parameters_out_of_range_are_refused() -> None:
    cases = [
        ("opt3", {"encoding": "sign"}, "opt3 encoding = 'sign': must be en-t or mbe"),
        ("opt3", {"psum_bits": 49}, "opt3 psum_bits = 49: must be in 24..48"),
        ("opt3", {"rows": 2}, "opt3.rows: no such parameter (known: encoding, pipeline, psum_bits, resolve_cycles)"),
        ("opt4c", {"rows": 33}, "opt4c rows = 33: must be in 1..32"),
        ("opt4c", {"rows": 0}, "opt4c rows = 0: must be in 1..32"),
        ("opt4c", {"pipeline": -1}, "opt4c pipeline = -1: must be in 0..2"),
    ]
    for name, params, message in cases:
        with pytest.raises(ConfigError) as error:
            pe.stream(name, **params)
        assert str(error.value) == message


def test_formats_are_those_of_an_int8_mac() -> None:
    assert [Opt4c().accepts(name, 128).kind for name in ("int8", "int4", "int8_asym", "fp16")] == [
        "native", "native", "refused", "refused",
    ]  # fmt: skip


def test_a_column_without_encoder_takes_digits_of_its_border_unit() -> None:
    column = Opt4c(encoder=False)
    assert column.wgt == OperandType("digit", 5, "code")
    assert Opt4c().wgt == OperandType("int8", 8, "int")
    accepted = {name: column.accepts(name, 128) for name in ("int8", "int4_asym", "int8_asym", "fp16")}
    assert [(found.kind, found.unit) for found in accepted.values()] == [
        ("decoder", "sparse-encoder"), ("decoder", "sparse-encoder"), ("refused", None), ("refused", None),
    ]  # fmt: skip
    assert accepted["int8"].reason == "int8 weights become digits of en-t: int8 sign-extends to int8"
    assert accepted["int4_asym"].reason == (
        "behind a weight-decoder, int8 weights become digits of en-t: int4_asym decodes to integers -15..15"
    )
    assert accepted["fp16"] == Opt4c().accepts("fp16", 128)


# Digit codes


@pytest.mark.parametrize("encoding", ["en-t", "mbe"])
def test_digit_codes_of_a_weight_add_up_to_it(encoding: str) -> None:
    codes, count = digit_codes(encoding, CODES)
    assert count.tolist() == [max(1, number) for number in nonzero_digits(encoding, CODES).tolist()]
    values = digit_value(codes)
    assert values.tolist() == [weight(Opt4c(encoder=False), int(code)) for code in codes]
    assert np.add.reduceat(values, np.cumsum(count) - count).tolist() == CODES.tolist()
    assert codes[np.repeat(CODES, count) == 0].tolist() == [4]
    assert (np.diff(codes >> 3)[np.diff(np.repeat(CODES, count)) == 0] > 0).all()  # lowest place first


# Arithmetic and cycles


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_are_the_exact_dot_products_modulo_the_width(spec: StreamSpec) -> None:
    lengths = np.random.default_rng(3).integers(1, 60, 60)
    for steps in (
        stimulus.random_steps(spec, lengths, 4),
        stimulus.random_steps(spec, lengths, 5, corner_share=1.0),
        stimulus.extreme_steps(spec, 40),
    ):
        assert resolved(spec, spec.sums(steps)) == exact_sums(spec, steps)


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_run_on_after_last_and_are_dropped_by_first(spec: StreamSpec) -> None:
    steps = dict(stimulus.random_steps(spec, np.full(2, 50), 6))
    steps[FIRST], steps[LAST] = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    steps[FIRST][[0, 10, 60]] = 1  # 0 and 10 never end
    steps[LAST][[20, 30, 60, 99]] = 1
    found = spec.sums(steps)
    assert resolved(spec, found) == exact_sums(spec, steps)
    stepwise = StreamSpec.sums(spec, steps)
    assert {name: values.tolist() for name, values in found.items()} == {
        name: values.tolist() for name, values in stepwise.items()
    }


def test_a_step_takes_a_cycle_for_each_nonzero_digit() -> None:
    steps = {"act": np.zeros(256, dtype=np.int64), "wgt": CODES, FIRST: np.ones(256, dtype=np.int64)}
    for spec in (Opt3(), Opt4c(), Opt3(encoding="mbe"), Opt4c(encoding="mbe")):
        want = [max(1, number) for number in nonzero_digits(spec.encoding, CODES).tolist()]
        assert spec.step_cycles(steps).tolist() == want
    assert Opt4c(encoder=False).step_cycles(steps).tolist() == [1] * 256
    few = np.asarray([0, 1, 3, 127, -128, -86, 85])
    assert Opt3().step_cycles({"wgt": few}).tolist() == [1, 1, 2, 2, 1, 4, 4]


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.psum_bits == 24], ids=stem)
def test_the_longest_sum_fits_and_one_step_more_wraps(spec: Any) -> None:
    assert spec.longest_sum == (2**23 - 1) // (128 * 128) == 511
    worst = -128 if spec.encodes else 0 | 3 << 3  # -2 * 4**3
    for length in (511, 512):
        act = np.full((length, spec.sum_lanes) if spec.sum_lanes > 1 else length, -128)
        steps = {"act": act, "wgt": np.full(length, worst), **stimulus.flags(np.asarray([length]))}
        want = 128 * 128 * 511 if length == 511 else -(2**23)
        assert resolved(spec, spec.sums(steps)) == [[want] * spec.sum_lanes]


# Real operands


def test_rows_of_a_column_share_their_weights() -> None:
    act = np.asarray([[1, -2], [3, 0.5], [4, 4], [0, 1]], np.float32)
    wgt = np.asarray([[0.5, -1], [9, 9], [1, 0], [9, 9]], np.float32)
    steps = Opt4c(rows=2).quantised(act, wgt)
    assert np.asarray(steps["act"]).tolist() == [[64, 127], [-127, 21], [127, 0], [127, 127]]
    assert np.asarray(steps["wgt"]).tolist() == [64, -127, 127, 0]
    assert (steps[FIRST].tolist(), steps[LAST].tolist()) == ([1, 0, 1, 0], [0, 1, 0, 1])


def test_digits_from_outside_make_the_same_sums_in_the_same_cycles() -> None:
    rng = np.random.default_rng(7)
    act, wgt = (rng.normal(0, 1, (8, 64)).astype(np.float32) for _ in range(2))
    for encoding in ("en-t", "mbe"):
        inside, outside = (Opt4c(rows=2, encoder=encoder, encoding=encoding) for encoder in (True, False))
        weights, codes = inside.quantised(act, wgt), outside.quantised(act, wgt)
        assert np.array_equal(inside.sums(weights)["psum"], outside.sums(codes)["psum"])
        assert inside.step_cycles(weights).sum() == outside.step_cycles(codes).sum() == len(codes["wgt"])
