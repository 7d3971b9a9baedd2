"""Executes of broadcast tiles against exact Python integers and fractions, written from the PEs' docstrings."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bitwright.arch import machine, pe
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import Limits, limits, tile_format
from bitwright.arch.pe import broadcast
from bitwright.arch.pe.base import PESpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import StreamSpec, row_flags
from bitwright.arch.pe.terms import format_specials
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Rows = list[list[int]]
Scales = list[list[Fraction]]
LEAST, MOST = -(1 << 31), (1 << 31) - 1


# --- The oracle ---------------------------------------------------------------------------------------------------


def signed(code: int, bits: int) -> int:
    return code - (1 << bits) if code >> (bits - 1) else code


def outlier(code: int, bits: int, mantissa_bits: int, bias: int) -> int:
    """abfloat: sign * (2**m + mantissa) * 2**(exponent + bias), magnitude code 0 is 0; clipped at 2**15."""
    magnitude = code & ((1 << (bits - 1)) - 1)
    mantissa, exponent = magnitude & ((1 << mantissa_bits) - 1), magnitude >> mantissa_bits
    value = 0 if magnitude == 0 else min(1 << 15, ((1 << mantissa_bits) + mantissa) << (exponent + bias))
    return -value if code >> (bits - 1) else value


FLINT = (0, 1, 2, 3, 16, 8, 4, 6)


def normal_value(code: int, bits: int, flint: bool) -> int:
    if not flint or bits == 8:
        return signed(code, bits)
    return -FLINT[code & 7] if code >> 3 else FLINT[code & 7]


def pair(first: int, second: int, bits: int, flint: bool) -> tuple[int, int]:
    identifier = 1 << (bits - 1)
    mantissa_bits, bias = (3, 4) if bits == 8 else (1, 3 if flint else 2)

    def value(own: int, partner: int) -> int:
        if partner == identifier:
            return outlier(own, bits, mantissa_bits, bias)
        return 0 if own == identifier else normal_value(own, bits, flint)

    return value(first, second), value(second, first)


def saturated(value: int) -> int:
    return max(LEAST, min(MOST, value))


def pair_sum(acts: list[int], wgts: list[int], lanes: int, wide: bool, flint: bool) -> int:
    """One place's sum of bytes: a step adds all of its products at once, a wide one the even values' first."""
    total = 0
    for start in range(0, len(acts), lanes):
        act, wgt = ([*part[start : start + lanes], *[0] * lanes][:lanes] for part in (acts, wgts))
        if wide:
            pairs = [
                (pair(*act[at : at + 2], 8, flint), pair(*wgt[at : at + 2], 8, flint)) for at in range(0, lanes, 2)
            ]
            for parity in (0, 1):
                total = saturated(total + sum(a[parity] * w[parity] for a, w in pairs))
        else:
            pairs = [
                tuple(pair(byte & 15, byte >> 4, 4, flint) for byte in bytes_) for bytes_ in zip(act, wgt, strict=True)
            ]
            total = saturated(total + sum(a[0] * w[0] + a[1] * w[1] for a, w in pairs))
    return total


def fp32(exact: Fraction) -> Fraction:
    """The nearest fp32, ties to even, by whole numbers; of no subnormal, no infinity."""
    if exact == 0:
        return exact
    exponent = 0
    while abs(exact) / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    while abs(exact) / Fraction(2) ** exponent < 1 << 23:
        exponent -= 1
    assert -149 < exponent < 104
    return round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent


def accumulated(products: Callable[[int, int, int, int], Fraction], m: int, n: int, k: int, group: int) -> list[float]:
    """acc = fp32(acc + fp32(products(token, column, first, end))) for each group."""
    found = []
    for token in range(m):
        for column in range(n):
            total = Fraction(0)
            for first in range(0, k, group):
                total = fp32(total + fp32(products(token, column, first, min(k, first + group))))
            found.append(float(total))
    return found


# --- Programs -----------------------------------------------------------------------------------------------------

PROGRAM = """
load act hand beats={act_beats}
load wgt hand region=1 beats={wgt_beats}
load par hand region=2 beats={par_beats}
execute format={format} first m={m} k={k} group={group} hand_acc free_act free_wgt free_par
vector m={m} hand free_acc
store region=3 rows={m} beats={row_beats} stride={row_beats} free_out
end
"""


def limits_of(spec: PESpec, rows: int, cols: int, names: tuple[str, ...]) -> Limits:
    forms = tuple(tile_format(spec, name, "test") for name in names)
    return Limits(rows, cols, "os", spec, 8, forms, 256, 256, 256, 256, 64, 256)


def padded(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data + bytes(-len(data) % 8), np.uint8).copy()


def dense(fields: list[int], bits: int) -> bytes:
    digits = "".join(format(code, f"0{bits}b") for code in reversed(fields))
    return int(digits, 2).to_bytes(-(-len(digits) // 8), "little")


def executed(lim: Limits, number: int, acts: Rows, stored: Rows, par: list[int], group: int) -> list[float]:
    """The accumulators of one Execute of acts [k][m] (each all of its bytes), stored codes [k][cols], par entries in
    order."""
    k, m, form = len(acts), len(acts[0]) * 8 // lim.act_bits, lim.formats[number]
    memory = [
        padded(b"".join(bytes(vector).ljust(lim.vector_beats * 8, b"\xa5") for vector in acts)),
        padded(dense([code for row in stored for code in row], form.bits)),
        padded(dense(par, form.par_bits)),
        np.zeros(m * lim.beats(32 * lim.cols) * 8, np.uint8),
    ]
    beats = {name: len(region) // 8 for name, region in zip(("act", "wgt", "par"), memory, strict=False)}
    text = PROGRAM.format(
        **{f"{name}_beats": count for name, count in beats.items()},
        format=number, m=m, k=k, group=group, row_beats=lim.beats(32 * lim.cols),
    )  # fmt: skip
    outcome = run(assemble(text), lim, memory)
    assert outcome.legal, outcome
    rows = memory[3].view("<f4").reshape(m, -1)[:, : lim.cols]
    assert not np.signbit(rows[rows == 0]).any(), "no accumulator is -0"
    return [float(value) for value in rows.ravel()]


def half(value: float) -> int:
    return int(struct.unpack("<H", struct.pack("<e", value))[0])


@st.composite
def shapes(draw: Callable[..., Any], lanes: int) -> tuple[int, int, int, int]:
    """(m, cols, k, group): short last steps, groups of one step and of all."""
    k = draw(st.integers(1, 5 * lanes))
    group = draw(st.sampled_from([lanes, 2 * lanes, 3 * lanes, k, k + 1]))
    return draw(st.integers(1, 3)), draw(st.integers(1, 3)), k, group


def matrices(values: st.SearchStrategy[int], rows: int, cols: int) -> st.SearchStrategy[Rows]:
    return st.lists(st.lists(values, min_size=cols, max_size=cols), min_size=rows, max_size=rows)


CORNERS = (0x00, 0x07, 0x70, 0x77, 0x99, 0x80, 0x08, 0x88, 0xF8, 0x8F, 0x87, 0x78, 0x3F, 0x7F, 0xFF, 0x81)
BYTES = st.one_of(st.sampled_from(CORNERS), st.integers(0, 255))
PAIR_SPECS = ({}, {"lanes": 4, "normal": "flint4", "pipeline": 1}, {"lanes": 6})
SCALES = st.sampled_from([1.0, -0.5, 2.0**-24, 65504.0, 0.1, 0.0, 3.0])


@given(data=st.data(), params=st.sampled_from(PAIR_SPECS), wide=st.booleans())
@settings(max_examples=300, deadline=None)
def test_outlier_victim_executes_equal_exact_pairs(data: st.DataObject, params: dict[str, Any], wide: bool) -> None:
    spec = pe.stream("outlier-victim", **params)
    flint, lanes = spec.params["normal"] == "flint4", spec.params["lanes"]
    m, cols, k, group = data.draw(shapes(lanes))
    lim = limits_of(spec, 3, cols, ("ovp4_flint" if flint else "ovp4", "ovp8"))
    acts, codes = data.draw(matrices(BYTES, k, m)), data.draw(matrices(BYTES, k, cols))
    scales = data.draw(st.lists(SCALES, min_size=-(-k // group) * cols, max_size=-(-k // group) * cols))

    def products(token: int, column: int, first: int, end: int) -> Fraction:
        act, wgt = ([row[at] for row in rows[first:end]] for rows, at in ((acts, token), (codes, column)))
        total = pair_sum(act, wgt, lanes, wide, flint)
        if total in (LEAST, MOST):
            event("a sum saturates")
        scale = struct.unpack("<e", struct.pack("<e", scales[first // group * cols + column]))[0]
        return Fraction(scale) * total

    found = executed(lim, int(wide), acts, codes, [half(scale) for scale in scales], group)
    assert found == accumulated(products, m, cols, k, group)


def test_a_saturated_sum_comes_back_from_the_limit() -> None:
    """Pairs of 2**15 and a victim: 2**30 a step, the third saturates; then 4 steps down from the limit."""
    lim = limits_of(pe.stream("outlier-victim"), 1, 1, ("ovp8",))
    most, least = [0x7F, 0x80], [0xFF, 0x80]
    acts = [[byte] for byte in most * 7]
    codes = [[byte] for byte in most * 3 + least * 4]
    exact = (1 << 31) - 1 - (4 << 30)
    assert executed(lim, 0, acts, codes, [half(1.0)], 14) == [float(np.float32(exact))]
    assert np.float32(exact) != np.float32(3 - 4) * 2.0**30


def stored_codes(plain: list[int], variant: str, bits: int, lanes: int) -> list[int]:
    """Codes 0..2**bits-1 of one column as the variants store them: `Lut`'s and `lut_tables`' docstrings."""
    found = []
    for start in range(0, len(plain), lanes):
        step = plain[start : start + lanes]
        missing = lanes - len(step)
        planes = [[code >> plane & 1 for code in step] for plane in range(bits)]
        if variant == "unpu":
            planes[-1] = [1 - bit for bit in planes[-1]]
        elif variant != "reinterpretation" and not missing:  # of a short step the top bit is read as 0: not negated
            planes = [[bit ^ (1 - plane[-1]) for bit in plane[:-1]] + [1 - plane[-1]] for plane in planes]
        found += [sum(planes[plane][lane] << plane for plane in range(bits)) for lane in range(len(step))]
    return found


LUT_SPECS = (
    {},
    {"variant": "unpu", "weight_bits": 8},
    {"variant": "reinterpretation", "k": 3, "depth": 8192},
    {"variant": "no-negation", "k": 5, "weight_bits": 6, "pipeline": 3},
    {"k": 2, "weight_bits": 8, "depth": 8192},
)
LUT_FORMATS = ("int2", "int3", "int4", "int8", "int2_asym", "int4_asym", "int6_asym", "bipolar_int2", "bipolar_int4")


def lut_limits(params: dict[str, Any], rows: int, cols: int) -> Limits:
    spec = broadcast.tile_spec("lut", rows, cols, params)
    bits = spec.params["weight_bits"]
    names = [name for name in LUT_FORMATS if int(name.removeprefix("bipolar_")[3]) <= bits]
    if params.get("variant") == "unpu":
        names = [name for name in names if not name.startswith("bipolar")]
    return limits_of(spec, rows, cols, tuple(names))


@given(data=st.data(), params=st.sampled_from(LUT_SPECS))
@settings(max_examples=300, deadline=None)
def test_lut_executes_equal_exact_products(data: st.DataObject, params: dict[str, Any]) -> None:
    lanes, variant = params.get("k", 4), params.get("variant", "full")
    m, cols, k, group = data.draw(shapes(lanes))
    lim = lut_limits(params, 3, cols)
    number = data.draw(st.integers(0, len(lim.formats) - 1))
    form, top = lim.formats[number], 1 << (lim.formats[number].bits - 1)
    event(f"{variant} {form.name}")
    count = -(-k // group) * cols
    acts = data.draw(matrices(st.integers(-128, 127), k, m))
    plain = data.draw(matrices(st.integers(0, 2 * top - 1), k, cols))
    zeros = data.draw(st.lists(st.integers(0, 2 * top - 1), min_size=count, max_size=count))
    scales = data.draw(st.lists(st.sampled_from([1.0, -0.5, 2.0**-24, 30000.0, 0.1]), min_size=count, max_size=count))

    def value(code: int, zero: int) -> int:
        if form.zero:
            return code - zero
        return 2 * code - (2 * top - 1) if form.name.startswith("bipolar") else code - top

    def products(token: int, column: int, first: int, end: int) -> Fraction:
        entry = first // group * cols + column
        scale = struct.unpack("<e", struct.pack("<e", scales[entry]))[0]
        rows = zip(acts[first:end], plain[first:end], strict=True)
        return Fraction(scale) * sum(act[token] * value(codes[column], zeros[entry]) for act, codes in rows)

    columns = [stored_codes([row[column] for row in plain], variant, form.bits, lanes) for column in range(cols)]
    factor = 2 if form.name.startswith("bipolar") else 1
    par = [half(scale * factor) | (zero << 16 if form.zero else 0) for scale, zero in zip(scales, zeros, strict=True)]
    stored = [list(row) for row in zip(*columns, strict=True)]
    found = executed(lim, number, [[act & 255 for act in row] for row in acts], stored, par, group)
    assert found == accumulated(products, m, cols, k, group)


SERIAL_FORMATS = ("bitmod_fp4", "bitmod_fp3", "bitmod_fp4_er", "fp4_e2m1", "int8", "int6", "int4")
FINITE = st.integers(0, 0xFFFF).map(lambda bits: bits if bits & 0x7C00 != 0x7C00 else bits & 0x83FF)
CLOSE = st.builds(lambda bits, exponent: bits & 0x83FF | exponent << 10, FINITE, st.integers(13, 16))


@given(data=st.data(), number=st.integers(0, len(SERIAL_FORMATS) - 1))
@settings(max_examples=150, deadline=None)
def test_bit_serial_executes_equal_one_place_after_the_other(data: st.DataObject, number: int) -> None:
    """A place's sum is the PE's golden (tests/arch/pe/test_bit_serial.py has it from exact rationals)."""
    spec = BitSerial()
    m, cols, k, group = data.draw(shapes(4))
    lim = limits_of(spec, 3, cols, SERIAL_FORMATS)
    form = lim.formats[number]
    acts = data.draw(matrices(st.one_of(FINITE, CLOSE), k, m))
    codes = data.draw(matrices(st.integers(0, (1 << form.bits) - 1), k, cols))
    entries = st.tuples(
        st.one_of(st.integers(0, 255), st.sampled_from([0, 127, 255])), st.integers(0, (1 << form.selector_bits) - 1)
    )
    par = data.draw(st.lists(entries, min_size=-(-k // group) * cols, max_size=-(-k // group) * cols))

    def products(token: int, column: int, first: int, end: int) -> Fraction:
        scale, selector = par[first // group * cols + column]
        act = np.array([row[token] for row in acts[first:end]], np.uint16).view(np.float16)
        wgt = [row[column] for row in codes[first:end]]
        if form.name.startswith("int"):
            wgt = [signed(code, form.bits) for code in wgt]
        total = spec.group_sum(
            act, wgt, encoding=spec.encoding(form.name), selector=selector, specials=format_specials(form.name)
        )
        return Fraction(float(total)) * scale

    stored = [[byte for bits in row for byte in bits.to_bytes(2, "little")] for row in acts]
    found = executed(lim, number, stored, codes, [scale | selector << 8 for scale, selector in par], group)
    assert found == accumulated(products, m, cols, k, group)


# --- The golden ---------------------------------------------------------------------------------------------------


def golden_sums(lim: Limits, acts: NDArray[np.int64], codes: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """The PE's own golden of a slice: [m, cols]."""
    tile, form = lim.tile, lim.formats[number]
    assert tile is not None
    assert isinstance(tile.spec, StreamSpec)
    steps = -(-len(acts) // tile.lanes)
    left, right = (np.pad(item, ((0, steps * tile.lanes - len(item)), (0, 0))) for item in (acts, codes))
    flags = row_flags(1, steps)
    mode = {} if tile.mode_field is None else {tile.mode_field.name: np.full(steps, tile.mode(form.name))}
    split = [item.reshape(steps, tile.lanes, -1).swapaxes(1, 2) for item in (left, right)]
    if tile.whole:
        fields = {name: item.reshape(steps, -1) for name, item in zip(("act", "wgt"), split, strict=True)}
        return tile.spec.golden(**fields, **mode, **flags)["psum"].reshape(lim.rows, lim.cols)
    found = np.zeros((acts.shape[1], codes.shape[1]), np.int64)
    for row in range(len(found)):
        for column in range(found.shape[1]):
            fields = {"act": split[0][:, row], "wgt": split[1][:, column]}
            found[row, column] = tile.spec.golden(**fields, **mode, **flags)["psum"][0]
    return found


@pytest.mark.parametrize("wide", [False, True])
def test_sums_of_pairs_are_the_goldens(wide: bool) -> None:
    draw = np.random.default_rng(int(wide))
    lim = limits_of(pe.stream("outlier-victim", lanes=4), 4, 5, ("ovp4", "ovp8"))
    for length in (1, 4, 39, 200):
        acts, codes = draw.integers(0, 256, (length, 4)), draw.integers(0, 256, (length, 5))
        if wide:  # outliers of one sign, so that many sums pass the limits
            acts[1::2], codes[1::2] = 0x80, 0x80
        assert lim.tile is not None
        found = lim.tile.sums(acts, codes, lim.formats[int(wide)].name)
        np.testing.assert_array_equal(found.psum, golden_sums(lim, acts, codes, int(wide)))
        if wide and length == 200:
            assert np.isin(found.psum, (LEAST, MOST)).any() or np.abs(found.psum).max() > 1 << 29


@pytest.mark.parametrize("params", LUT_SPECS)
def test_sums_of_lookups_are_the_goldens(params: dict[str, Any]) -> None:
    draw = np.random.default_rng(5)
    lim = lut_limits(params, 4, 3)
    assert lim.tile is not None
    for number, form in enumerate(lim.formats):
        acts, codes = draw.integers(-128, 128, (33, 4)), draw.integers(0, 1 << form.bits, (33, 3))
        found = lim.tile.sums(acts, codes, form.name)
        np.testing.assert_array_equal(found.psum, golden_sums(lim, acts, codes, number))
        assert found.act_sum is not None
        np.testing.assert_array_equal(found.act_sum, acts.sum(axis=0))


@pytest.mark.parametrize("name", [name for name in broadcast.names() if not name.startswith("opt")])
def test_a_format_decides_a_steps_cycles(name: str) -> None:
    loaded = machine.load(f"{name}-2x2")
    lim = limits(loaded)
    tile = lim.tile
    assert tile is not None
    assert tile.mode_field is not None
    for form in lim.formats:
        if not isinstance(tile.spec, StreamSpec):  # bit-serial: BitMoD's figures
            assert tile.step_cycles(form.name) == {"bitmod_fp4": 2, "bitmod_fp3": 2, "int8": 4, "int6": 3}[form.name]
            continue
        steps = {"first": np.ones(1, np.int64), tile.mode_field.name: np.array([tile.mode(form.name)])}
        assert tile.spec.step_cycles(steps).tolist() == [tile.step_cycles(form.name)]
