"""fixed-point-dequantiser: random and corner operands against the golden; below lut and shift-add-a16; mutants."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from bitwright.arch import pe as specs
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser, below
from bitwright.arch.pe.lut import Lut
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16, shared_exponent
from bitwright.rtl import pe
from bitwright.rtl.bench import dequantiser_operands
from bitwright.rtl.bench.cocotb_runner import run_cocotb
from bitwright.rtl.bench.verilator import Compiled, lint

LATENCY = 4
GROUPS, COLUMNS = 2, 128  # sums of a chain: so many, one after the other, for each of so many outputs
NAN = 0x7FC00000
LUT, LUT_FP16 = Lut(), Lut(activation="fp16", precompute=True)
ALIGNED = ShiftAddA16(zero_points=True)
UNITS = [
    below(LUT),
    below(LUT_FP16),
    below(ALIGNED),
    FixedPointDequantiser(8, exponent_bits=8, exponent_bias=-128),
    FixedPointDequantiser(63, 63, 9, 8, -160, nonfinite=True),
]
Operands = dict[str, np.ndarray]


@cache
def compiled(unit: FixedPointDequantiser) -> Compiled:
    return Compiled(pe.unit_verilog(unit.name, **unit.params), unit.module_name)


def run(design: Compiled, operands: Operands) -> np.ndarray:
    """`out` bits of each operand, one a cycle from a random state; acc comes when it is asked for."""
    count = len(operands["psum"])
    inputs = {"valid": np.ones(count, np.int64), **operands}
    late = {name: LATENCY - 1 if name == "acc" else 0 for name in inputs}
    padded = {name: np.pad(values, (late[name], LATENCY - late[name])) for name, values in inputs.items()}
    with design.open(random_state=True) as running:
        running.reset()
        found = running.run(padded)
    assert found["valid_out"].tolist() == [0] * LATENCY + [1] * count
    assert found["acc_take"].tolist() == [0] * (LATENCY - 1) + [1] * count + [0]
    return np.asarray(found["out"][LATENCY:])


def golden(unit: FixedPointDequantiser, operands: Operands) -> np.ndarray:
    ports = dict(operands)
    acc = ports.pop("acc").astype(np.uint32).view(np.float32)
    return unit.dequantise(acc, scale=ports.pop("scale").astype(np.uint16).view(np.float16), **ports).view(np.uint32)


def first_difference(got: np.ndarray, expected: np.ndarray, operands: Operands) -> str | None:
    """None, or the first operands that differ."""
    wrong = np.flatnonzero(got != expected)
    if not len(wrong):
        return None
    given = {name: int(values[wrong[0]]) for name, values in operands.items()}
    return f"got {int(got[wrong[0]]):#x}, must be {int(expected[wrong[0]]):#x}, {given}; {len(wrong)} differ"


# Random and corners


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.module_name)
def test_unit_equals_golden(unit: FixedPointDequantiser) -> None:
    operands = dequantiser_operands.fixed_point(unit, 200_000, seed=3)
    assert first_difference(run(compiled(unit), operands), golden(unit, operands), operands) is None


# Below the PEs: sums of their goldens through the compiled unit, in chains of groups


def nearest_fp32(value: Fraction) -> np.float32:
    """`value`, far from the ends of fp32's range, rounded to 24 significant bits, ties to even."""
    if value == 0:
        return np.float32(0)
    exponent = abs(value).numerator.bit_length() - abs(value).denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    step = Fraction(2) ** (exponent - 23)
    return np.float32(float(round(value / step) * step))


def random_scales(rng: np.random.Generator) -> np.ndarray:
    """Bits of fp16 scales [GROUPS, COLUMNS], of both signs, subnormals among them."""
    bits = rng.integers(1, 0x7C00, (GROUPS, COLUMNS))
    bits[rng.integers(0, 8, bits.shape) == 0] &= 0x3FF
    return np.maximum(bits, 1) | rng.integers(0, 2, bits.shape) << 15


def check_chain(unit: FixedPointDequantiser, groups: list[Operands], scales: np.ndarray, exact: list[list]) -> None:
    """Each output adds its groups' scaled sums in turn; exact[g][c] is sum (code - zero) * x, a rational."""
    out = np.zeros(COLUMNS, np.float32)
    for ports, scale, sums in zip(groups, scales, exact, strict=True):
        got = run(compiled(unit), {**ports, "scale": scale, "acc": out.view(np.uint32).astype(np.int64)})
        factors = scale.astype(np.uint16).view(np.float16).tolist()
        scaled = [nearest_fp32(Fraction(factor) * one) for factor, one in zip(factors, sums, strict=True)]
        out = out + np.asarray(scaled, np.float32)
        assert got.astype(np.uint32).view(np.float32).tolist() == out.tolist()
    assert len(np.unique(out)) > COLUMNS // 2


def weights(rng: np.random.Generator, bits: int, channels: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes [GROUPS, columns, channels] and zero points [GROUPS, columns], both 0..2**bits-1."""
    return rng.integers(0, 1 << bits, (GROUPS, columns, channels)), rng.integers(0, 1 << bits, (GROUPS, columns))


def lut_steps(spec: Lut, act: np.ndarray, codes: np.ndarray, bits: int) -> Operands:
    """Steps of GROUPS sums: act [GROUPS, m, channels], as the PE takes them, and codes [GROUPS, n, channels]."""
    rows = [part.reshape(GROUPS, part.shape[1], -1, spec.k).swapaxes(1, 2) for part in (act, codes)]
    count = GROUPS * rows[0].shape[1]
    acts = rows[0].reshape(count, -1)
    inputs = {"act": acts} if spec.precompute else spec.tables.fields_of(spec.tables.make(acts))
    first = (np.arange(count) % (count // GROUPS) == 0).astype(np.int64)
    stored = spec.stored(rows[1].reshape(count, spec.n, spec.k), bits).reshape(count, -1)
    top = np.full(count, bits - 1)
    return {**inputs, "wgt": stored, "top_plane": top, "first": first, "last": np.roll(first, -1)}


def lut_ports(spec: Lut, sums: Operands, zeros: np.ndarray, bits: int) -> list[Operands]:
    """The unit's ports for each group; its columns are the sums [m, n] in turn."""
    whole = spec.variant == "unpu"
    zero = zeros - (1 << (bits - 1)) if whole else 2 * zeros + 1 - (1 << bits)
    found = []
    for group in range(GROUPS):
        ports = {
            "psum": sums["psum"].reshape(GROUPS, -1)[group],
            "act_sum": np.repeat(sums["act_sum"].reshape(GROUPS, -1)[group], spec.n),
            "zero": np.tile(zero[group], spec.m),
        }
        if spec.tables.scaled:
            ports["nonfinite"] = np.repeat(sums["special"].reshape(GROUPS, -1)[group], spec.n)
        found.append(ports)
    return found


@pytest.mark.parametrize("variant", ["full", "unpu"])
@pytest.mark.parametrize("bits", [4, 3])
def test_int8_sums_of_lut_with_zero_points(variant: str, bits: int) -> None:
    """Weights of the PE's bits, and of one bit less."""
    spec, rng = Lut(variant=variant), np.random.default_rng([bits, len(variant)])
    act = rng.integers(-128, 128, (GROUPS, spec.m, 128))
    codes, zeros = weights(rng, bits, 128, spec.n)
    sums = spec.sums(lut_steps(spec, act, codes, bits))
    exact = act @ (codes - zeros[:, :, None]).swapaxes(1, 2)
    check_chain(below(spec), lut_ports(spec, sums, zeros, bits), random_scales(rng), exact.reshape(GROUPS, -1).tolist())


def small_tables(rng: np.random.Generator, rows: int) -> np.ndarray:
    """fp16 activations [GROUPS, rows, 128], each 4 at most 31 times one power of two: their tables are exact."""
    power = rng.integers(-12, 9, (GROUPS, rows, 32, 1))
    return np.ldexp(rng.integers(-31, 32, (GROUPS, rows, 32, 4)).astype(float), power).reshape(GROUPS, rows, 128)


def test_fp16_sums_of_lut_with_zero_points() -> None:
    spec, rng = LUT_FP16, np.random.default_rng(5)
    act = small_tables(rng, spec.m)
    codes, zeros = weights(rng, 4, 128, spec.n)
    sums = spec.sums(lut_steps(spec, act.astype(np.float16).view(np.uint16).astype(np.int64), codes, 4))
    whole = np.ldexp(act, 12).astype(np.int64)  # multiples of 2**-12
    exact = whole @ (codes - zeros[:, :, None]).swapaxes(1, 2)
    rationals = [[Fraction(one, 1 << 12) for one in row] for row in exact.reshape(GROUPS, -1).tolist()]
    check_chain(below(spec), lut_ports(spec, sums, zeros, 4), random_scales(rng), rationals)


def test_fp16_sums_of_lut_with_rounded_tables_and_a_special_row() -> None:
    """Any activations: half of (sum q' * x - z' * sum x), in multiples of 2**unit_exponent, of what the tables hold."""
    spec, rng = LUT_FP16, np.random.default_rng(6)
    act = (rng.standard_normal((GROUPS, spec.m, 128)) * np.exp2(rng.integers(-9, 9, (GROUPS, spec.m, 128)))).astype(
        "f2"
    )
    codes, zeros = weights(rng, 4, 128, spec.n)
    steps = lut_steps(spec, act.view(np.uint16).astype(np.int64), codes, 4)
    ports, scales = lut_ports(spec, spec.sums(steps), zeros, 4), random_scales(rng)
    unit = Fraction(2) ** (spec.unit_exponent - 1)
    exact = [
        [
            (p - z * s) * unit
            for p, z, s in zip(*(one[name].tolist() for name in ("psum", "zero", "act_sum")), strict=True)
        ]
        for one in ports
    ]
    check_chain(below(spec), ports, scales, exact)
    act[0, 1, 77] = np.inf
    flagged = lut_ports(spec, spec.sums(lut_steps(spec, act.view(np.uint16).astype(np.int64), codes, 4)), zeros, 4)[0]
    got = run(compiled(below(spec)), {**flagged, "scale": scales[0], "acc": np.zeros(COLUMNS, np.int64)})
    assert (got[spec.n :] == NAN).all()
    assert ((got[: spec.n] & 0x7FFFFFFF) < 0x7F800000).all()


@pytest.mark.parametrize("spread", [6, 18])
def test_sums_of_shift_add_a16_with_zero_points(spread: int) -> None:
    """Activations that the aligner keeps (6 powers of two at most), and such that it rounds as its rule says."""
    spec, rng = ALIGNED, np.random.default_rng(spread)
    magnitudes = rng.integers(1024, 2048, (GROUPS, COLUMNS, 128)) << rng.integers(0, spread + 1, (GROUPS, COLUMNS, 128))
    act = np.ldexp(magnitudes * rng.choice([-1, 1], magnitudes.shape), -10 - spread // 2).astype(np.float16)
    codes, zeros = weights(rng, 4, 128, COLUMNS)
    bits = act.view(np.uint16).astype(np.int64)
    exponent = shared_exponent(bits)
    first = (np.arange(bits.size) % 128 == 0).astype(np.int64)
    sums = spec.sums({
        "act": bits.reshape(-1, 1), "wgt": codes.reshape(-1, 1), "wgt_unsigned": np.ones(bits.size, np.int64),
        "exponent": np.repeat(exponent.ravel(), 128), "first": first, "last": np.roll(first, -1),
    })  # fmt: skip
    ports = [
        {**{name: values.reshape(GROUPS, COLUMNS)[group] for name, values in sums.items()}, "zero": zeros[group]}
        for group in range(GROUPS)
    ]
    place = np.ldexp(1.0, exponent - 25 - spec.guard_bits)[..., None]
    quotient = np.abs(act.astype(float)) / place  # exact: 11 bits, powers of two
    aligned = np.copysign(np.floor(quotient + 0.5), act).astype(np.int64)
    assert (aligned * place == act).all() == (spread == 6)
    whole = ((codes - zeros[..., None]) * aligned).sum(axis=-1).tolist()
    units = place[..., 0].tolist()
    exact = [[one * Fraction(unit) for one, unit in zip(*rows, strict=True)] for rows in zip(whole, units, strict=True)]
    check_chain(below(spec), ports, random_scales(rng), exact)


def test_the_edge_unit_that_a_pe_names_is_this_one() -> None:
    for spec in (LUT, LUT_FP16, ALIGNED):
        assert type(specs.stream(spec.name)).edge_unit == below(spec).name


# Protocol and text


def test_valid_passes_through_the_pipeline() -> None:
    unit = UNITS[2]
    plusargs = {"unit": unit.name, "params": json.dumps(dict(unit.params)), "seed": 1}
    text = pe.unit_verilog(unit.name, **unit.params)
    assert run_cocotb(text, unit.module_name, "bitwright.rtl.bench.cocotb_units", plusargs=plusargs) == [
        "valid_comes_out_after_the_latency_and_reset_loses_it"
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.module_name)
def test_verilog_is_one_module_and_lint_clean(unit: FixedPointDequantiser) -> None:
    text = pe.unit_verilog(unit.name, **unit.params)
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [unit.module_name]
    assert lint(text, unit.module_name) == []
    assert ("subnormal" in text) == unit.reaches_subnormals


# Tests that can fail

MUTANTS = [
    (r"\$signed\(psum\) - ", "$signed(psum) + "),
    (r"\$signed\(zero\) \* ", "zero * "),
    (r"tiny = (.*) < \$signed\(2'h1\);", r"tiny = \1 < $signed(2'h0);"),
    (r"subnormal_near = (.*);", r"subnormal_near = 1'h1;"),
    (r"product_overflow = (.*) & (.*);", r"product_overflow = 1'h0;"),
    (r"(= \| product_by_1\[\d+):0\]", r"\1:30]"),
]


@pytest.mark.parametrize(("pattern", "replacement"), MUTANTS)
def test_a_mutant_is_caught(pattern: str, replacement: str) -> None:
    unit = UNITS[4]
    mutant, count = re.subn(pattern, replacement, pe.unit_verilog(unit.name, **unit.params), count=1)
    assert count == 1, f"nothing to mutate: {pattern}"
    operands = dequantiser_operands.fixed_point(unit, 50_000, seed=4)
    got = run(Compiled(mutant, unit.module_name, optimise="-O0"), operands)
    assert first_difference(got, golden(unit, operands), operands) is not None
