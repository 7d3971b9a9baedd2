"""lut: the golden against integer dot products and exact rationals, all variants; widths, longest sums, errors."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import wrap
from bitwright.arch.pe.lut import ABLATION, VARIANTS, Lut
from bitwright.arch.pe.lut_tables import TableUnit, odd_integers, reinterpreted
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16
from bitwright.arch.pe.stream import IntArray, Steps

Params = dict[str, Any]


def flags(lengths: list[int]) -> dict[str, IntArray]:
    first = np.concatenate([np.arange(length) == 0 for length in lengths]).astype(np.int64)
    last = np.concatenate([np.arange(length) == length - 1 for length in lengths]).astype(np.int64)
    return {"first": first, "last": last}


def steps_of(spec: Lut, act: IntArray, codes: IntArray, bits: int, lengths: list[int]) -> Steps:
    """Steps of activations [s, m, k] and plain codes q [s, n, k], tables made where the PE does not."""
    count = len(act)
    acts = act.reshape(count, -1)
    inputs = {"act": acts} if spec.precompute else spec.tables.fields_of(spec.tables.make(acts))
    top = {"top_plane": np.full(count, bits - 1)} if spec.weight_bits > 1 else {}
    return {**inputs, "wgt": spec.stored(codes, bits).reshape(count, -1), **top, **flags(lengths)}


def dot(act: IntArray, codes: IntArray, lengths: list[int]) -> list[IntArray]:
    """sum act * w [m, n] of each sum, as Python integers' arithmetic."""
    found, at = [], 0
    for length in lengths:
        a, w = (part[at : at + length].astype(object) for part in (act, codes))
        found.append(sum(a[s] @ w[s].T for s in range(length)))
        at += length
    return found


SHAPES: list[tuple[int, int, int, int]] = [
    *((1, 2, k, bits) for k in (2, 3, 4, 5, 6) for bits in (1, 2, 4)),
    *((2, 3, 4, bits) for bits in range(1, 9)),
    (2, 64, 4, 4),
]


# int8: exact


@pytest.mark.parametrize("precompute", [True, False], ids=["acts", "tables"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("m", "n", "k", "bits"), SHAPES)
def test_sums_are_integer_dot_products(m: int, n: int, k: int, bits: int, variant: str, precompute: bool) -> None:
    spec = Lut(m=m, n=n, k=k, weight_bits=bits, variant=variant, precompute=precompute)
    rng, lengths = np.random.default_rng([m, n, k, bits]), [1, 7, 2, 40]
    act = rng.integers(-128, 128, (50, m, k))
    codes = rng.integers(0, 1 << bits, (50, n, k))
    zero = rng.integers(0, 1 << bits, n)
    steps = steps_of(spec, act, codes, bits, lengths)
    sums = spec.sums(steps)
    weight = codes - (1 << (bits - 1)) if variant == "unpu" else 2 * codes - (1 << bits) + 1
    assert np.array_equal(spec.weights(spec.stored(codes, bits), bits), weight)
    psum = np.asarray(sums["psum"]).reshape(-1, m, n)
    assert np.array_equal(psum, np.stack(dot(act, weight, lengths)))
    assert np.array_equal(
        np.asarray(sums["act_sum"]).reshape(-1, m), np.stack(dot(act, np.ones((50, 1, k)), lengths))[..., 0]
    )
    assert np.array_equal(spec.odd_sums(sums), np.stack(dot(act, 2 * codes - (1 << bits) + 1, lengths)))
    assert np.array_equal(spec.corrected(sums, zero, bits), 2 * np.stack(dot(act, codes - zero[:, None], lengths)))
    slow = super(Lut, spec).sums(steps)  # step by step
    assert all(np.array_equal(slow[name], sums[name]) for name in slow)


def test_zero_point_correction_gives_the_scaled_dot_product() -> None:
    """s * (q - z) == s' * (q' - z') after the sum, exactly."""
    spec, rng, scale, zero = Lut(m=1, n=2, weight_bits=4), np.random.default_rng(3), 0.0625, 5
    act, codes = rng.integers(-128, 128, (32, 1, 4)), rng.integers(0, 16, (32, 2, 4))
    sums = spec.sums(steps_of(spec, act, codes, 4, [32]))
    want = scale * np.einsum("smk,snk->mn", act, codes - zero)
    new_scale, new_zero = reinterpreted(scale, zero, 4)
    assert np.array_equal(new_scale * spec.corrected(sums, zero, 4)[0], want)
    by_hand = new_scale * (np.asarray(sums["psum"])[0] - new_zero * np.asarray(sums["act_sum"])[0])
    assert np.array_equal(by_hand, want[0])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_a_sum_may_use_fewer_bits_and_ignores_those_above(variant: str, bits: int) -> None:
    spec, rng = Lut(m=1, n=2, weight_bits=5, variant=variant, precompute=True), np.random.default_rng(bits)
    act, codes = rng.integers(-128, 128, (30, 1, 4)), rng.integers(0, 1 << bits, (30, 2, 4))
    steps = dict(steps_of(spec, act, codes, bits, [30]))
    want = spec.odd_sums(spec.sums(steps))
    assert np.array_equal(want, np.stack(dot(act, odd_integers(codes, bits), [30])))
    steps["wgt"] = steps["wgt"] | rng.integers(0, 32, steps["wgt"].shape) >> bits << bits
    assert np.array_equal(spec.odd_sums(spec.sums(steps)), want)
    assert np.array_equal(spec.step_cycles(steps), np.full(30, bits))


def test_weights_of_a_bipolar_format_need_no_correction() -> None:
    rng, form = np.random.default_rng(4), formats.get("bipolar_int3")
    weights = rng.standard_normal((2, 64)).astype(np.float32)
    encoded = form.encode(weights, group=64, scale_format="fp32")
    act = rng.integers(-128, 128, (1, 64))
    spec = Lut(m=1, n=2, weight_bits=3)
    steps = steps_of(
        spec, act.reshape(1, 16, 4).swapaxes(0, 1), encoded.codes.astype(int).reshape(2, 16, 4).swapaxes(0, 1), 3, [16]
    )
    assert encoded.scales is not None
    scaled = spec.odd_sums(spec.sums(steps))[0] * encoded.scales.astype(np.float64).reshape(1, 2)
    assert np.allclose(scaled, act @ form.decode(encoded).astype(np.float64).T, rtol=1e-6)


def test_a_step_after_last_goes_on_and_first_drops() -> None:
    spec, rng = Lut(m=1, n=1, k=2), np.random.default_rng(5)
    act, codes = rng.integers(-128, 128, (5, 1, 2)), rng.integers(0, 16, (5, 1, 2))
    steps = {
        **steps_of(spec, act, codes, 4, [5]),
        "first": np.array([1, 0, 0, 1, 0]),
        "last": np.array([0, 1, 1, 0, 1]),
    }
    each = [int(part[0, 0]) for part in dot(act, odd_integers(codes, 4), [1] * 5)]
    assert list(spec.sums(steps)["psum"]) == [sum(each[:2]), sum(each[:3]), sum(each[3:])]


# fp16: rounded in the tables alone


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("precompute", [True, False], ids=["acts", "tables"])
def test_fp16_sums_are_exact_in_quantised_tables(variant: str, precompute: bool) -> None:
    spec = Lut(m=2, n=2, k=3, weight_bits=3, activation="fp16", variant=variant, precompute=precompute)
    rng, lengths, bits = np.random.default_rng(6), [3, 1, 26], 3
    act = rng.integers(0, 1 << 16, (30, 2, 3))
    act[4:] = np.where(act[4:] >> 10 & 31 == 31, act[4:] & 0x83FF, act[4:])  # the last sum is finite
    codes = rng.integers(0, 8, (30, 2, 3))
    steps = steps_of(spec, act, codes, bits, lengths)
    made = TableUnit(2, 3, "fp16", 0, variant == "unpu").make(act.reshape(30, -1))
    scale = [[Fraction(2) ** int(e) for e in row] for row in made["exponent"]]
    want, ends = [], np.cumsum([0, *lengths])
    for begin, end in pairwise(ends):
        total = [[Fraction(0)] * 2 for _ in range(2)]
        for s, m, n, plane in np.ndindex(30, 2, 2, bits):
            if not begin <= s < end:
                continue
            pattern = sum(int(code >> plane & 1) << lane for lane, code in enumerate(codes[s, n]))
            table = made["table"][s, m]
            if variant == "unpu":
                pattern ^= 7 * (plane == bits - 1)  # two's complement of q - 4
                value = int(table[pattern]) * (-1 if plane == bits - 1 else 1)
            else:
                value = int(table[pattern & 3]) if pattern >> 2 else -int(table[~pattern & 3])
            total[m][n] += value * scale[s][m] * 2**plane
        want.append(total)
    sums = spec.sums(steps)
    assert [[int(x) for x in row] for row in sums["psum"]] == [[int(x) for r in total for x in r] for total in want]
    special = [[(act[b:e, m] >> 10 & 31 == 31).any() for m in range(2)] for b, e in pairwise(ends)]
    assert np.array_equal(sums["special"], special)
    slow = super(Lut, spec).sums(steps)
    assert all(np.array_equal(slow[name], sums[name]) for name in slow)


def normal_operands() -> tuple[IntArray, IntArray]:
    """fp16 codes of activations [sum, step, m, k] and 4-bit codes [sum, step, n, k]: 200 sums of 128 channels."""
    rng = np.random.default_rng(7)
    act = rng.standard_normal((200, 32, 4, 4)).astype(np.float16).view(np.uint16).astype(np.int64)
    return act, np.clip(np.rint(rng.standard_normal((200, 32, 16, 4)) * 3 + 7.5), 0, 15).astype(np.int64)


def shown(got: npt.NDArray[np.float64]) -> str:
    """Largest and mean |error| / sum |x * q'| of dot products of the normal operands."""
    act, codes = normal_operands()
    odd, values = odd_integers(codes, 4).astype(np.float64), act.astype(np.uint16).view(np.float16).astype(np.float64)
    exact = np.einsum("csmk,csnk->cmn", values, odd)  # far below 2**53 of fp16's least steps: exact
    error = np.abs(got - exact) / np.einsum("csmk,csnk->cmn", np.abs(values), np.abs(odd))
    return f"{error.max():.2g} and {error.mean():.2g}"


def sums_of(variant: str) -> npt.NDArray[np.float64]:
    spec, (act, codes) = Lut(m=4, n=16, activation="fp16", variant=variant), normal_operands()
    sums = spec.sums(steps_of(spec, act.reshape(-1, 4, 4), codes.reshape(-1, 16, 4), 4, [32] * 200))
    return np.asarray(spec.odd_sums(sums) * 2.0**spec.unit_exponent)


def sums_with_quotient_scales() -> npt.NDArray[np.float64]:
    """Half tables of the exact sums in steps of sum |x| / 127, summed without any other rounding."""
    act, codes = normal_operands()
    values = act.astype(np.uint16).view(np.float16).astype(np.float64)
    step = np.abs(values).sum(axis=-1, keepdims=True) / 127
    table = np.rint(values @ TableUnit(1, 4).patterns.T / step) * step
    total = np.zeros((200, 32, 4, 16))
    for plane in range(4):
        bits = codes >> plane & 1
        top = bits[..., 3]
        address = ((bits[..., :3] ^ (1 - top[..., None])) << np.arange(3)).sum(axis=-1)
        entry = np.take_along_axis(table, np.broadcast_to(address[:, :, None], (200, 32, 4, 16)), axis=-1)
        total += np.where(top == 1, 1, -1)[:, :, None] * entry * 2**plane
    return np.asarray(total.sum(axis=1))


def test_error_of_quantised_tables_is_as_documented() -> None:
    text = " ".join((Lut.__doc__ or "").split())
    assert f"is at most {shown(sums_of('full'))} on average" in text
    assert f'("unpu": {shown(sums_of("unpu"))};' in text
    assert f"|x| / 127: {shown(sums_with_quotient_scales())})" in text


# Widths


WIDTHS: list[Params] = [
    {"m": 1, "n": 1, "depth": 3, "precompute": True},
    {"m": 1, "n": 1, "depth": 3, "precompute": True, "variant": "unpu"},
    {"m": 1, "n": 1, "k": 3, "weight_bits": 8, "depth": 5},
    {"m": 1, "n": 1, "k": 3, "weight_bits": 5, "depth": 5, "variant": "unpu"},
    {"m": 1, "n": 1, "k": 5, "weight_bits": 1, "depth": 2, "precompute": True, "variant": "reinterpretation"},
    {"m": 1, "n": 1, "depth": 3, "precompute": True, "activation": "fp16"},
    {"m": 1, "n": 1, "depth": 3, "precompute": True, "activation": "fp16", "variant": "unpu"},
    {"m": 1, "n": 1, "k": 2, "weight_bits": 2, "depth": 6, "activation": "fp16"},
    {"m": 1, "n": 1, "k": 2, "weight_bits": 2, "depth": 6, "activation": "fp16", "variant": "unpu", "table_bits": 5},
]


def largest_step(spec: Lut) -> tuple[Steps, int]:
    """One step that adds the addend of largest magnitude, and that addend, from the definition."""
    bits, k = spec.weight_bits, spec.k
    top, planes = 1 << (bits - 1), (1 << bits) - 1
    if spec.precompute:
        code = 0xFBFF if spec.tables.scaled else -128
        act = np.full((1, k), code)
        steps = steps_of(spec, act[:, None, :], np.zeros((1, 1, k), dtype=np.int64), bits, [1])
        factor = top if spec.variant == "unpu" else planes
        if not spec.tables.scaled:
            return steps, 128 * k * factor
        table = spec.tables.make(act & 0x7FFF)
        return steps, int(table["table"].max()) * factor << int(table["exponent"][0, 0])
    low, high = -(1 << (spec.tables.entry_bits - 1)), (1 << (spec.tables.entry_bits - 1)) - 1
    shift = spec.tables.top_exponent
    stored = np.zeros((1, k), dtype=np.int64)
    table = np.full((1, spec.tables.entries), high)
    if spec.variant == "unpu":  # pattern 1 in the top plane, 0 elsewhere
        table[0, 1], stored[0, 0], most = low, top, -low * top + high * (top - 1)
    else:
        table[0, 0], stored[0, -1], most = low, planes, -low * planes
    scale = {"exponent": np.array([shift]), "special": np.array([0])} if spec.tables.scaled else {}
    plane = {"top_plane": np.array([bits - 1])} if bits > 1 else {}
    return {"table": table, **scale, "wgt": stored, **plane, **flags([1])}, most << shift


@pytest.mark.parametrize("params", WIDTHS, ids=lambda params: Lut(**params).module_stem)
def test_longest_sum_fits_and_one_step_more_wraps(params: Params) -> None:
    spec = Lut(**params)
    step, most = largest_step(spec)
    assert max(spec.addend_range[1], -spec.addend_range[0]) == most
    assert spec.longest_sum >= spec.depth
    many = {name: np.repeat(values, spec.longest_sum + 1, axis=0) for name, values in step.items()}
    for length, fits in ((spec.longest_sum, True), (spec.longest_sum + 1, False)):
        steps = {name: values[:length] for name, values in many.items()} | flags([length])
        got = int(np.asarray(spec.sums(steps)["psum"]).ravel()[0])
        assert (got == most * length) == fits
        assert got == wrap(np.int64(most * length), spec.psum_bits)


@pytest.mark.parametrize("params", WIDTHS, ids=lambda params: Lut(**params).module_stem)
def test_no_step_leaves_the_ranges(params: Params) -> None:
    spec, rng = Lut(**params), np.random.default_rng(8)
    fields: dict[str, IntArray] = {}
    corners = spec.corners()
    for field in spec.step_fields:
        shape = (20_000, field.lanes) if field.lanes > 1 else (20_000,)
        extreme = rng.choice(np.asarray(corners[field.name]), shape)
        fields[field.name] = np.where(rng.random(shape) < 0.7, extreme, rng.integers(field.low, field.high + 1, shape))
    steps = spec.tame({**fields, **flags([1] * 20_000)})
    sums = spec.sums(steps)
    for name, (low, high) in (("psum", spec.addend_range), ("act_sum", spec.row_range)):
        assert low <= sums[name].min()
        assert sums[name].max() <= high


# Real operands, formats, parameters


def test_quantised_tiles_hold_every_pair_of_the_tile() -> None:
    spec, rng = Lut(m=2, n=3, weight_bits=4, precompute=True), np.random.default_rng(9)
    act, wgt = rng.standard_normal((6, 30)).astype(np.float32), rng.standard_normal((6, 30)).astype(np.float32)
    steps = spec.quantised(act, wgt)
    sums = spec.odd_sums(spec.sums(steps))
    assert sums.shape == (3, 2, 3)
    assert steps["act"].shape == (24, 8)  # 30 channels are 8 steps of 4
    low, high = wgt.min(axis=1, keepdims=True), wgt.max(axis=1, keepdims=True)
    q = np.rint((wgt - low) / ((high - low) / 15)).astype(np.int64)
    x = np.rint(act / (np.abs(act).max(axis=1, keepdims=True) / 127)).astype(np.int64)
    for tile in range(3):
        rows, columns = [2 * tile, 2 * tile + 1], [(3 * tile + c) % 6 for c in range(3)]
        assert np.array_equal(sums[tile], x[rows] @ odd_integers(q[columns], 4).T)


def test_default_is_the_published_tile() -> None:
    spec = pe.stream("lut")
    assert isinstance(spec, Lut)
    assert (spec.m, spec.n, spec.k, spec.macs_per_step) == (2, 64, 4, 512)
    assert spec.tables.entries == 8
    assert spec.tables.entry_bits == 10
    assert {name: Lut(**params).macs_per_step for name, params in ABLATION.items()} == dict.fromkeys(VARIANTS, 512)


def test_rows_of_the_ablation_differ_by_the_variant_alone() -> None:
    """Tables from outside in each; a row's table unit is that of `tables`, whole for "unpu" only."""
    rows = {name: Lut(**params) for name, params in ABLATION.items()}
    assert tuple(rows) == VARIANTS
    assert [replace(row, variant="full") for row in rows.values()] == [Lut(weight_bits=2)] * 4
    assert [row.precompute for row in rows.values()] == [False] * 4
    assert [row.tables.whole for row in rows.values()] == [True, False, False, False]


def test_cost_of_fp16_sums_is_as_documented() -> None:
    text = " ".join((Lut.__doc__ or "").split())
    spec, short = (Lut(activation="fp16", precompute=True, depth=depth) for depth in (4096, 32))
    other = ShiftAddA16(group=128)
    assert f"takes psum_bits = {spec.psum_bits} an output" in text
    assert f"(default tile with precompute; {short.psum_bits} at depth {short.depth}," in text
    assert f"an addend of {spec.addend_range[1].bit_length() + 1} bits" in text
    assert f"takes {other.psum.bits} bits for {short.depth * short.k} products" in text


def test_module_names_differ_with_every_parameter() -> None:
    changes: list[Params] = [
        {}, {"m": 1}, {"n": 2}, {"k": 3}, {"weight_bits": 2}, {"activation": "fp16"}, {"precompute": True},
        {"activation": "fp16", "table_bits": 9}, {"depth": 9}, {"pipeline": 1}, *({"variant": v} for v in VARIANTS[:3]),
    ]  # fmt: skip
    assert len({Lut(**params).module_stem for params in changes}) == len(changes)


@pytest.mark.parametrize(
    ("name", "group", "kind", "reason"),
    [
        ("int4", 128, "native", "int4 is reinterpreted: s' * (q' - z')"),
        ("int3_asym", None, "native", "int3_asym is reinterpreted: s' * (q' - z')"),
        ("bipolar_int2", 64, "native", "bipolar_int2 is reinterpreted: the odd integers themselves, z' = 0"),
        ("int5", 128, "refused", "int5 has 5 bits, the PE takes 4"),
        ("fp4_e2m1", 32, "refused", "fp4_e2m1 codes are not integers"),
        ("int4", 1 << 20, "refused", "a group of 1048576 does not fit the sum of 17476 products"),
    ],
)
def test_accepts(name: str, group: int | None, kind: str, reason: str) -> None:
    found = Lut().accepts(name, group)
    assert (found.kind, found.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"m": 0}, "lut m = 0: must be in 1..16"),
        ({"n": 257}, "lut n = 257: must be in 1..256"),
        ({"k": 1}, "lut k = 1: must be in 2..6"),
        ({"weight_bits": 9}, "lut weight_bits = 9: must be in 1..8"),
        ({"depth": 0}, "lut depth = 0: must be in 1..1048576"),
        ({"pipeline": 3}, "lut pipeline = 3: must be in 0..2 (3 with precompute only)"),
        ({"pipeline": 4, "precompute": True}, "lut pipeline = 4: must be in 0..3"),
        (
            {"activation": "int4"},
            "lut activation = 'int4': no such activation (did you mean 'int8'? (known: fp16, int8))",
        ),
        (
            {"variant": "no_negation"},
            "lut variant = 'no_negation': no such variant (did you mean 'no-negation'? "
            "(known: full, no-negation, reinterpretation, unpu))",
        ),
        ({"table_bits": 8}, "lut table_bits = 8: must be 0 (int8 tables are exact)"),
        (
            {"activation": "fp16", "weight_bits": 8, "depth": 1 << 20},
            "lut depth = 1048576: needs sums of 68 bits, must be at most 62 (at most depth 16448)",
        ),
    ],
)
def test_bad_parameters(params: Params, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Lut(**params)
    assert str(caught.value) == message
