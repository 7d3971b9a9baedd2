"""fixed-point-dequantiser: the golden against exact rationals with the rounding written out; what stands below a PE."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import units
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser, below
from bitwright.rtl.bench import dequantiser_operands

NAN, INF, SIGN = 0x7FC00000, 0x7F800000, 1 << 31
SPECS = [
    below(pe.stream("lut")),
    below(pe.stream("lut", activation="fp16")),
    below(pe.stream("lut", variant="unpu", weight_bits=8)),
    below(pe.stream("shift-add-a16", zero_points=True)),
    below(pe.stream("shift-add-a16")),
    FixedPointDequantiser(psum_bits=8, exponent_bits=8, exponent_bias=-128),
    FixedPointDequantiser(63, 63, 9, 8, -160, nonfinite=True),
]


def rounded(magnitude: Fraction) -> int:
    """Bits of `magnitude` rounded to fp32: 24 bits, multiples of 2**-149, ties to even; infinity from 2**128."""
    if magnitude == 0:
        return 0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent  # floor(log2)
    place = max(exponent - 23, -149)
    count = round(magnitude / Fraction(2) ** place)  # Python rounds a Fraction's ties to even
    # A subnormal is its count; above, each exponent has 2**23 counts from 2**23 on. A carry to 2**24 fits in.
    return min(count + ((place + 149) << 23), INF)


def fraction_of(bits: int, exponent_bits: int, fraction_bits: int) -> Fraction | None:
    """The magnitude of an IEEE 754 number; None if it is not finite."""
    field, fraction = bits >> fraction_bits & ((1 << exponent_bits) - 1), bits & ((1 << fraction_bits) - 1)
    if field == (1 << exponent_bits) - 1:
        return None
    significand = fraction + (1 << fraction_bits if field else 0)
    return significand * Fraction(2) ** (max(field, 1) - (1 << (exponent_bits - 1)) + 2 - 1 - fraction_bits)


def scaled(spec: FixedPointDequantiser, row: dict[str, int]) -> int:
    """Bits of the scaled sum of one group."""
    corrected = row["psum"] - row.get("zero", 0) * row.get("act_sum", 0)
    scale, sign = fraction_of(row["scale"], 5, 10), SIGN * ((corrected < 0) ^ (row["scale"] >> 15))
    if row.get("nonfinite", 0):
        return NAN
    if scale is None:
        return NAN if row["scale"] & 1023 or not corrected else INF | sign
    return rounded(scale * abs(corrected) * Fraction(2) ** (row.get("exponent", 0) + spec.exponent_bias)) | sign


def added(first: int, second: int) -> int:
    """Bits of the sum of two fp32 numbers."""
    one, other = (fraction_of(bits & ~SIGN, 8, 23) for bits in (first, second))
    if one is None or other is None:
        special = {bits for bits, value in ((first, one), (second, other)) if value is None}
        return special.pop() if len(special) == 1 and special <= {INF, INF | SIGN} else NAN
    total = (-one if first & SIGN else one) + (-other if second & SIGN else other)
    if total == 0:
        return first & second & SIGN  # -0 only of two of them
    return rounded(abs(total)) | (SIGN if total < 0 else 0)


def golden(spec: FixedPointDequantiser, operands: dict[str, np.ndarray]) -> np.ndarray:
    ports = dict(operands)
    acc = ports.pop("acc").astype(np.uint32).view(np.float32)
    return spec.dequantise(acc, scale=ports.pop("scale").astype(np.uint16).view(np.float16), **ports).view(np.uint32)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.module_name)
def test_product_and_sum_are_each_rounded_once(spec: FixedPointDequantiser) -> None:
    operands = dequantiser_operands.fixed_point(spec, 3_000, seed=1)
    rows = [dict(zip(operands, row, strict=True)) for row in zip(*(v.tolist() for v in operands.values()), strict=True)]
    expected = [added(row["acc"], scaled(spec, row)) for row in rows]
    got = golden(spec, operands).tolist()
    wrong = [(row, hex(a), hex(b)) for row, a, b in zip(rows, got, expected, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} differ, the first: {wrong[0]}"


def test_operands_reach_both_ends_of_the_range_and_ties() -> None:
    """Ties count, and what lies next to them by one place of a sum of 63 bits."""
    operands = dequantiser_operands.fixed_point(SPECS[-1], 3_000, seed=1)
    acc = operands.pop("acc")
    values = scaled_bits(SPECS[-1], operands)
    magnitude = values & (INF | 0x7FFFFF)
    assert ((magnitude > 0) & (magnitude < 0x800000)).sum() > 50, "subnormal results"
    finite = (operands["scale"] >> 10 & 31) < 31
    assert (finite & (operands["nonfinite"] == 0) & (magnitude == INF)).sum() > 50, "overflow"
    assert len(np.unique(acc)) > 2_000
    for step, tied in ((0, 0x4B800000), (1, 0x4B800001), (-1, 0x4B800000)):  # 2**24 + 1 + step * 2**-36
        psum = ((1 << 24) + 1 << 36) + step
        got = FixedPointDequantiser(63, exponent_bias=-36).scaled(psum, np.float16(1)).view(np.uint32)
        assert int(got) == tied


def scaled_bits(spec: FixedPointDequantiser, operands: dict[str, np.ndarray]) -> np.ndarray:
    others = {name: values for name, values in operands.items() if name != "scale"}
    return spec.scaled(scale=operands["scale"].astype(np.uint16).view(np.float16), **others).view(np.uint32)


def test_specials_and_zeros_are_those_of_ieee_754() -> None:
    unit = FixedPointDequantiser(nonfinite=True)
    psum = np.asarray([5, -5, 0, 0, 0, 5, -5, 5])
    scale = np.asarray([np.inf, np.inf, np.inf, 1, -1, np.nan, 0, 1], np.float16)
    got = unit.scaled(psum, scale, nonfinite=np.eye(8, dtype=np.int64)[7]).view(np.uint32).tolist()
    assert got == [INF, INF | SIGN, NAN, 0, SIGN, NAN, SIGN, NAN]
    out = unit.dequantise(np.float32(-0.0), [0, 0], np.asarray([1, -1], np.float16))
    assert out.view(np.uint32).tolist() == [0, SIGN]


def test_shift_add_a16_gets_what_its_own_rounding_gives() -> None:
    spec = pe.stream("shift-add-a16", zero_points=True)
    operands = dequantiser_operands.fixed_point(below(spec), 20_000, seed=2)
    operands["exponent"] = np.maximum(operands["exponent"], 1)
    scale = operands["scale"].astype(np.uint16).view(np.float16)
    sums = {name: operands[name] for name in ("psum", "act_sum", "exponent", "nonfinite")}
    expected = spec.to_fp32(sums, scale, zero=operands["zero"])  # type: ignore[attr-defined]
    got = below(spec).scaled(scale=scale, zero=operands["zero"], **sums)
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    ("name", "params", "module"),
    [
        ("lut", {}, "fixed_point_dequantiser_p26_s26_z5_m1"),
        ("lut", {"variant": "unpu"}, "fixed_point_dequantiser_p26_s26_z4"),
        ("lut", {"activation": "fp16"}, "fixed_point_dequantiser_p56_s56_z5_m21_n"),
        ("lut", {"m": 1, "n": 1, "weight_bits": 1, "variant": "unpu"}, "fixed_point_dequantiser_p23_s23_z1"),
        ("shift-add-a16", {}, "fixed_point_dequantiser_p31_e5_m33_n"),
        ("shift-add-a16", {"zero_points": True}, "fixed_point_dequantiser_p31_s27_z5_e5_m33_n"),
    ],
)
def test_the_unit_below_a_pe_has_its_widths(name: str, params: dict[str, Any], module: str) -> None:
    spec = pe.stream(name, **params)
    unit = below(spec)
    assert (unit.name, unit.module_name) == (spec.edge_unit, module)
    assert units.get(spec.edge_unit, **unit.params) == unit
    assert not unit.reaches_subnormals


@pytest.mark.parametrize("name", ["lut", "shift-add-a16"])
def test_every_variant_of_a_pe_has_a_unit(name: str) -> None:
    for params in pe.stream(name).variants:
        spec = pe.stream(name, **params)
        widths = {field.name: field.bits for field in spec.sum_fields}
        unit = below(spec)
        assert unit.psum_bits == widths["psum"]
        assert unit.act_sum_bits == widths.get("act_sum", 0)
        assert unit.exponent_bits == widths.get("exponent", 0)
        assert unit.nonfinite == bool({"special", "nonfinite"} & set(widths))
    widest = pe.stream("lut", weight_bits=8, activation="fp16", table_bits=12, depth=2056)
    assert (below(widest).psum_bits, below(widest).zero_bits) == (62, 9)


def test_wrong_parameters_and_pes_are_refused() -> None:
    cases = [
        ({"psum_bits": 64}, "psum_bits = 64: must be in 8..63"),
        ({"act_sum_bits": 64, "zero_bits": 2}, "act_sum_bits = 64: must be in 0..63"),
        ({"act_sum_bits": 9, "zero_bits": 10}, "zero_bits = 10: must be in 0..9"),
        ({"zero_bits": 4}, "act_sum_bits, zero_bits = 0, 4: both or neither must be 0"),
        ({"exponent_bits": 9}, "exponent_bits = 9: must be in 0..8"),
        ({"exponent_bias": 256}, "exponent_bias = 256: must be in -255..255"),
    ]
    for params, message in cases:
        with pytest.raises(ConfigError) as error:
            units.get("fixed-point-dequantiser", **params)
        assert str(error.value) == f"fixed-point-dequantiser {message}"
    with pytest.raises(ConfigError) as other:
        below(pe.stream("int8-mac"))
    assert str(other.value) == ("pe = 'int8-mac': its edge unit is group-dequantiser, not fixed-point-dequantiser")
