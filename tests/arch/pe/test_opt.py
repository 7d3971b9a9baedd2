"""opt1 and opt2: parameters, sums against Python's integers, the two vectors of a step, range and wrap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.opt import Opt1, Opt2, compress, compress_all
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.rtl.bench.stream import stimulus

SPECS: list[Any] = [cls(**params) for cls in (Opt1, Opt2) for params in cls.variants]


def stem(spec: StreamSpec) -> str:
    return spec.module_stem


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def exact_sums(steps: Steps) -> list[int]:
    """Dot products by Python's integers, at each step marked last."""
    total, found = 0, []
    for act, wgt, first, last in zip(*(np.asarray(steps[name]).tolist() for name in ("act", "wgt", FIRST, LAST)),
                                     strict=True):  # fmt: skip
        pairs = zip(act, wgt, strict=True) if isinstance(act, list) else [(act, wgt)]
        total = (0 if first else total) + sum(a * w for a, w in pairs)
        if last:
            found.append(total)
    return found


def resolved(spec: StreamSpec, sums: dict[str, Any], bits: int) -> list[int]:
    if "psum" in sums:
        return list(sums["psum"].tolist())
    vectors = zip(sums["psum_sum"].tolist(), sums["psum_carry"].tolist(), strict=True)
    return [signed(total + carry, bits) for total, carry in vectors]


# Interface


def test_they_are_streams_with_a_module_for_each_parameter_set() -> None:
    assert pe.stream("opt1") == Opt1()
    assert pe.stream("opt2", lanes=8) == Opt2(lanes=8)
    assert [spec.module_stem for spec in SPECS] == [
        "opt1_l1_mbe_p32_r2_s0", "opt1_l1_mbe_p32_r0_s0", "opt1_l4_mbe_p32_r1_s1", "opt1_l4_ent_p24_r0_s2",
        "opt2_l4_mbe_p32_r2_s0", "opt2_l4_ent_p32_r1_s1", "opt2_l3_mbe_p24_r3_s2",
        "opt2_l4_mbe_p32_r0_s0",
    ]  # fmt: skip
    assert [spec.timing.latency_cycles for spec in SPECS] == [3, 1, 3, 3, 4, 4, 7, 2]
    assert [spec.macs_per_step for spec in SPECS] == [1, 1, 4, 4, 4, 4, 3, 4]


def test_a_sum_goes_out_resolved_or_as_two_vectors() -> None:
    assert [(field.name, field.bits, field.signed) for field in Opt1().sum_fields] == [("psum", 32, True)]
    assert [(field.name, field.bits, field.signed) for field in Opt1(resolve_cycles=0, psum_bits=24).sum_fields] == [
        ("psum_sum", 24, False), ("psum_carry", 24, False),
    ]  # fmt: skip


def test_adders_inside_cost_registers_for_what_is_added_and_what_is_not() -> None:
    """By hand, 32 bits: one cycle 32; two 16 + 2 * 16 + 1, then 32; of 24 in three, 8 + 32 + 1, 16 + 16 + 1, 24."""
    assert [Opt1(resolve_cycles=cycles).resolve_register_bits for cycles in (0, 1, 2)] == [0, 32, 81]
    assert Opt2(resolve_cycles=3, psum_bits=24).resolve_register_bits == 98
    assert Opt4c(rows=4).resolve_register_bits == 4 * 81


def test_parameters_out_of_range_are_refused() -> None:
    cases = [
        ("opt1", {"lanes": 65}, "opt1 lanes = 65: must be in 1..64"),
        ("opt1", {"psum_bits": 23}, "opt1 psum_bits = 23: must be in 24..48"),
        ("opt1", {"resolve_cycles": 5}, "opt1 resolve_cycles = 5: must be in 0..4"),
        ("opt1", {"encoding": "ent"}, "opt1 encoding = 'ent': must be en-t or mbe"),
        ("opt2", {"resolve_cycles": 5}, "opt2 resolve_cycles = 5: must be in 0..4"),
        ("opt2", {"pipeline": 3}, "opt2 pipeline = 3: must be in 0..2"),
    ]
    for name, params, message in cases:
        with pytest.raises(ConfigError) as error:
            pe.stream(name, **params)
        assert str(error.value) == message


def test_formats_are_those_of_an_int8_mac() -> None:
    assert [Opt1().accepts(name, 128).kind for name in ("int8", "int4", "int8_asym", "fp16")] == [
        "native", "native", "refused", "refused",
    ]  # fmt: skip


# Arithmetic


def test_a_compressor_is_a_full_adder_in_each_place() -> None:
    first, second, third = (np.arange(8) >> bit & 1 for bit in range(3))
    total, carry = compress(first, second, third)
    assert (total + carry).tolist() == [bin(number).count("1") for number in range(8)]
    assert set(carry.tolist()) == {0, 2}
    rng = np.random.default_rng(2)
    for count in range(2, 20):
        rows = [rng.integers(0, 1 << 20, 50) for _ in range(count)]
        assert np.array_equal(sum(compress_all(rows)), np.sum(rows, axis=0))
        ones = [rng.integers(0, 2, 50) for _ in range(count)]  # two more than there are compressors
        assert np.array_equal(sum(compress_all(rows, ones)), np.sum([*rows, *ones[: count - 2]], axis=0))


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_the_vectors_of_a_step_hold_its_total_and_the_offset(lanes: int) -> None:
    """Every pair of operands in every lane; the total never leaves the bits that the hardware has for it."""
    wgt, act = (grid.ravel() for grid in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
    for encoding in ("mbe", "en-t"):
        spec = Opt1(lanes=lanes, encoding=encoding)
        acts = np.broadcast_to(act[:, None], (1 << 16, lanes))
        first, second = spec.step_vectors({"act": acts, "wgt": np.broadcast_to(wgt[:, None], acts.shape)})
        assert np.array_equal(first + second, lanes * act * wgt + (1 << spec.offset_bits))
        assert first.min() >= 0
        assert second.min() >= 0
        assert (first + second).max() < 2 << spec.offset_bits


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_are_the_exact_dot_products_modulo_the_width(spec: StreamSpec) -> None:
    lengths = np.random.default_rng(3).integers(1, 60, 60)
    bits = spec.psum.bits
    for steps in (
        stimulus.random_steps(spec, lengths, 4),
        stimulus.random_steps(spec, lengths, 5, corner_share=1.0),
        stimulus.extreme_steps(spec, 40),
    ):
        assert resolved(spec, spec.sums(steps), bits) == [signed(value, bits) for value in exact_sums(steps)]


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_run_on_after_last_and_are_dropped_by_first(spec: StreamSpec) -> None:
    steps = dict(stimulus.random_steps(spec, np.full(2, 50), 6))
    steps[FIRST], steps[LAST] = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    steps[FIRST][[0, 10, 60]] = 1  # 0 and 10 never end
    steps[LAST][[20, 30, 60, 99]] = 1
    found = spec.sums(steps)
    assert resolved(spec, found, spec.psum.bits) == exact_sums(steps)
    stepwise = StreamSpec.sums(spec, steps)
    assert {name: values.tolist() for name, values in found.items()} == {
        name: values.tolist() for name, values in stepwise.items()
    }


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_the_longest_sum_fits_and_one_step_more_wraps(spec: StreamSpec) -> None:
    bits, lanes = spec.psum.bits, spec.macs_per_step
    assert spec.longest_sum == (2 ** (bits - 1) - 1) // (128 * 128 * lanes)
    if bits > 24:  # too long to run here; the bound is the same expression
        return
    for length in (spec.longest_sum, spec.longest_sum + 1):
        ones = np.full((length, lanes) if lanes > 1 else length, -128)
        steps = {"act": ones, "wgt": ones, **stimulus.flags(np.asarray([length]))}
        total = resolved(spec, spec.sums(steps), bits)[0]
        assert (total == 128 * 128 * lanes * length) == (length == spec.longest_sum)


def test_real_rows_become_int8_steps() -> None:
    act, wgt = np.asarray([[1.0, -2.0, 0.5, 0.0]], np.float32), np.asarray([[0.1, 0.1, -0.2, 0.4]], np.float32)
    steps = Opt2(lanes=2).quantised(act, wgt)
    assert np.asarray(steps["act"]).tolist() == [[64, -127], [32, 0]]
    assert np.asarray(steps["wgt"]).tolist() == [[32, 32], [-64, 127]]
    assert (steps[FIRST].tolist(), steps[LAST].tolist()) == ([1, 0], [0, 1])
