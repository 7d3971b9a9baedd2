"""A lane of the vector unit against numpy: multiplication, addition, functions, conversions, all together."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from bitwright.arch.isa.activation import PLACE_BITS, RANGE_BITS, activate
from bitwright.arch.isa.arithmetic import Extras, vector
from bitwright.arch.isa.instructions import Function, NumberType, Vector
from bitwright.rtl.accelerator.lanes import FP32_MINUS_ZERO, FP32_ONE, LANE_CYCLES, LANE_NAME, VectorLane, lane_verilog
from bitwright.rtl.bench.operands import FP32_CORNERS, cross, fp32_near
from bitwright.rtl.bench.verilator import Compiled, lint
from numpy.typing import NDArray

U32 = NDArray[np.uint32]
NAN = 0x7FC00000
CASES = 1_000_000
MORE_CORNERS = (
    *FP32_CORNERS, 0x00000002, 0x00400000, 0x80400001, 0x007FFFFE, 0x00800001, 0x01000000, 0x01000001, 0x3F000000,
    0x3EFFFFFF, 0x34000000, 0x33FFFFFF, 0x1F800000, 0x20000001, 0x5F000000, 0x5F7FFFFF, 0x7F000000, 0x7F7FFFFE,
)  # fmt: skip


@cache
def compiled() -> Compiled:
    return Compiled(lane_verilog(), LANE_NAME)


def run(
    acc: U32,
    *,
    scale: U32 | int = FP32_ONE,
    bias: U32 | int = FP32_MINUS_ZERO,
    residual: U32 | int = FP32_MINUS_ZERO,
    activation: Function = Function.NONE,
    to: NumberType = NumberType.FP32,
) -> U32:
    """The result of each operand, one a cycle, from registers in any state."""
    numbers = {"acc": acc, "scale": scale, "bias": bias, "residual": residual}
    inputs = {name: np.pad(np.broadcast_to(values, acc.shape), (0, LANE_CYCLES)) for name, values in numbers.items()}
    with compiled().open(random_state=True) as running:
        out = running.run({**inputs, "activation": int(activation), "to": int(to)})
    return out["result"][LANE_CYCLES:].astype(np.uint32)


def check(got: U32, wanted: NDArray[np.float32] | U32, **operands: U32) -> None:
    """Equal bits, or the first operands that differ."""
    right = wanted if wanted.dtype == np.uint32 else canonical_bits(wanted)
    wrong = np.flatnonzero(got != right)
    at = wrong[:1]
    given = {name: [hex(value) for value in values[at].tolist()] for name, values in operands.items()}
    assert not len(wrong), f"got {got[at]}, must be {right[at]} for {given}; {len(wrong)} of {len(got)} differ"


def canonical_bits(values: NDArray[np.float32]) -> U32:
    return np.where(np.isnan(values), np.uint32(NAN), values.view(np.uint32)).astype(np.uint32)


def wild(count: int, seed: int) -> U32:
    """fp32 numbers of any exponent; a quarter with short fractions, for ties."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    short = bits & ~np.uint32(0x7FFFFF) | (bits & 0x7FFFFF) >> 17 << 17
    return np.where(rng.integers(0, 4, count) == 0, short, bits).astype(np.uint32)


def _some_subnormal(rng: np.random.Generator, numbers: U32) -> U32:
    """An eighth of the numbers with exponent 0 and any count of leading zeros."""
    small = numbers & np.uint32(0x80000000) | (numbers & np.uint32(0x7FFFFF)) >> rng.integers(
        0, 24, len(numbers), dtype=np.uint32
    )
    return np.where(rng.integers(0, 8, len(numbers)) == 0, small, numbers)


def factors() -> tuple[U32, U32]:
    """Corners crossed; pairs whose product is near the smallest numbers, near the largest, a tie, or anything."""
    corners = cross(MORE_CORNERS, MORE_CORNERS)
    rng = np.random.default_rng(3)
    first = wild(CASES, 4)
    exponent = (first >> 23 & 0xFF).astype(np.int64)
    near = rng.choice([127 - 150, 127 - 126, 127 + 127, 127], CASES) + rng.integers(-3, 28, CASES)
    wanted = np.where(rng.integers(0, 4, CASES) > 0, near + 127 - exponent, rng.integers(0, 256, CASES))
    second = wild(CASES, 5) & np.uint32(0x807FFFFF) | (np.clip(wanted, 0, 255).astype(np.uint32) << np.uint32(23))
    first, second = (_some_subnormal(rng, numbers) for numbers in (first, second))
    pairs = zip(corners, (first, second), strict=True)
    one, two = (np.concatenate([corner.astype(np.uint32), numbers.astype(np.uint32)]) for corner, numbers in pairs)
    return one, two


def addends() -> tuple[U32, U32]:
    """Corners crossed; numbers that nearly cancel, make ties, or anything."""
    corners = cross(MORE_CORNERS, MORE_CORNERS)
    first = wild(CASES, 6)
    second = fp32_near(first.view(np.float32), 7)
    pairs = zip(corners, (first, second), strict=True)
    one, two = (np.concatenate([corner.astype(np.uint32), numbers.astype(np.uint32)]) for corner, numbers in pairs)
    return one, two


def roundable(to: NumberType) -> U32:
    """Around every tie of the type and its neighbours by a last place; numbers of every exponent; anything."""
    if to is NumberType.FP16:
        halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float64)
        halves[-1] = 65536  # where infinity stands
        ties = ((halves[:-1] + halves[1:]) / 2).astype(np.float32)
        grid = np.concatenate([halves.astype(np.float32), ties])
    else:
        grid = np.arange(0, 600, dtype=np.float32) / 4
    bits = grid.view(np.uint32).astype(np.int64)
    around = np.concatenate([np.maximum(bits + step, 0) for step in (-1, 0, 1)]).astype(np.uint32)
    exponent, fraction = np.meshgrid(np.arange(256, dtype=np.uint32) << 23, np.arange(512, dtype=np.uint32) << 14)
    upward = np.concatenate([around, (exponent | fraction).ravel(), np.array(MORE_CORNERS, np.uint32)])
    return np.concatenate([upward, upward ^ np.uint32(1 << 31), wild(CASES, 8)])


# Interface


def test_one_module_without_lint() -> None:
    text = lane_verilog()
    assert re.findall(r"^module (\S+?)\(", text, flags=re.MULTILINE) == [LANE_NAME]
    assert lint(text, LANE_NAME) == []


def test_evidence_states_what_the_tests_below_compare() -> None:
    compared = (
        len(factors()[0]),
        2 * len(addends()[0]),
        len(roundable(NumberType.FP16)) + len(roundable(NumberType.INT8)),
        4 << PLACE_BITS,
    )
    assert tuple(evidence.cases for evidence in VectorLane.evidence) == compared


# Exhaustive


@pytest.mark.parametrize("function", [Function.SILU, Function.GELU])
def test_functions_at_every_place_of_their_table_and_both_signs(function: Function) -> None:
    rng = np.random.default_rng(9)
    places = np.arange(1 << PLACE_BITS).astype(np.float32)
    x = np.ldexp(places, RANGE_BITS[function] - PLACE_BITS).view(np.uint32)
    free = (
        24 - np.frexp(places)[1]
    )  # lowest fraction bits, which are below the place: only the multiplication sees them
    lower = rng.integers(0, 1 << 23, len(x), dtype=np.uint32) & ((1 << free) - 1).astype(np.uint32)
    x = x | lower
    both = np.concatenate([x, x | np.uint32(1 << 31)])
    check(run(both, activation=function), activate(function, both.view(np.float32)), x=both)


# Property


def test_products_are_numpys() -> None:
    first, second = factors()
    with np.errstate(all="ignore"):
        single = first.view(np.float32) * second.view(np.float32)
        double = (first.view(np.float32).astype(np.float64) * second.view(np.float32)).astype(np.float32)
    assert np.array_equal(canonical_bits(single), canonical_bits(double))  # one rounding of the exact product
    check(run(first, scale=second), single, first=first, second=second)


@pytest.mark.parametrize("operand", ["bias", "residual"])
def test_sums_are_numpys(operand: str) -> None:
    first, second = addends()
    with np.errstate(all="ignore"):
        total = first.view(np.float32) + second.view(np.float32)
    check(run(first, **{operand: second}), total, first=first, second=second)


def test_fp16_is_numpys() -> None:
    values = roundable(NumberType.FP16)
    with np.errstate(all="ignore"):
        half = values.view(np.float32).astype(np.float16)
    right = np.where(np.isnan(half), np.uint16(0x7E00), half.view(np.uint16)).astype(np.uint32)
    check(run(values, to=NumberType.FP16), right, values=values)


def test_int8_is_the_nearest_integer() -> None:
    """By float64: x + 1.5 * 2**52 has the nearest integer, ties to even, in its last bits."""
    values = roundable(NumberType.INT8)
    with np.errstate(all="ignore"):
        near = np.clip(np.nan_to_num(values.view(np.float32).astype(np.float64), posinf=1e9, neginf=-1e9), -1000, 1000)
    whole = np.clip((near + 1.5 * 2.0**52) - 1.5 * 2.0**52, -127, 127).astype(np.int64)
    right = (np.where(np.isnan(values.view(np.float32)), 0, whole) & 0xFF).astype(np.uint32)
    check(run(values, to=NumberType.INT8), right, values=values)


@pytest.mark.parametrize("function", list(Function))
def test_functions_of_any_number(function: Function) -> None:
    """Every exponent, corners, and numbers about the ends of the tables."""
    ends = np.array([8, 16, 2.0**-16, 2.0**-17], np.float32).view(np.uint32)
    near = (ends[:, np.newaxis].astype(np.int64) + np.arange(-20, 21)).ravel().astype(np.uint32)
    middle = wild(CASES // 4, 10) & np.uint32(0x83FFFFFF) | np.uint32(0x3C000000)  # 2**-7 .. 2
    upward = np.concatenate([near, np.array(MORE_CORNERS, np.uint32), wild(CASES // 4, 11), middle])
    x = np.concatenate([upward, upward ^ np.uint32(1 << 31)])
    check(run(x, activation=function), activate(function, canonical_bits(x.view(np.float32)).view(np.float32)), x=x)


@pytest.mark.parametrize("function", list(Function))
@pytest.mark.parametrize("to", list(NumberType))
def test_all_steps_together_equal_the_golden(function: Function, to: NumberType) -> None:
    seed = 20 + 4 * int(to) + int(function)
    rng, m, cols = np.random.default_rng(seed), 200, 250
    accumulators = rng.normal(0, 100, (m, cols)).astype(np.float32)
    odd = rng.integers(0, 8, (m, cols)) == 0
    accumulators = np.where(odd, wild(m * cols, seed).view(np.float32).reshape(m, cols), accumulators)
    scales, biases = rng.normal(0, 0.03, m).astype(np.float32), rng.normal(0, 2, cols).astype(np.float32)
    residuals = rng.normal(0, 4, (m, cols)).astype(np.float32)
    golden = vector(Vector(m=m, to=to, function=function), accumulators, Extras(scales, biases, residuals))
    bits = {NumberType.FP32: np.uint32, NumberType.FP16: np.uint16, NumberType.INT8: np.uint8}[to]
    acc, scale, bias, residual = (
        np.broadcast_to(part, (m, cols)).reshape(-1).view(np.uint32)
        for part in (accumulators, scales[:, np.newaxis], biases, residuals)
    )
    got = run(acc, scale=scale, bias=bias, residual=residual, activation=function, to=to)
    wanted = golden.reshape(-1).view(bits).astype(np.uint32)
    check(got, wanted, acc=acc, scale=scale, bias=bias, residual=residual)
