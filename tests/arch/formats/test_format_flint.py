"""flint4, flint5, flint6, flint4_unsigned, ant4, ant5, ant6.

Oracles: the value sets of ANT's repository, typed from them; first-one coding read from strings of bits; the nearest
value in exact fractions; for ANT, every type and clip tried in exact fractions, only the steps in float64.

Cases: all 128 codes of the flints decoded; every value, midpoint and float32 neighbour of both, 762 numbers, encoded at
scale 1; every code under 31,743 fp16 scales decoded and encoded again: 3,967,875; the same numbers of the 16 types of
ant4, ant5, ant6 and ant4:float=e2m1, 3,048; 300 random rows of the flints and 40 arrays of ANT against the exact
encoders; 100 rows quantised twice.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from bitwright.arch.errors import FormatError
from bitwright.arch.formats import Encoded
from bitwright.arch.formats.flint import FLINT4, FLINT4_UNSIGNED, FLINT5, FLINT6, FLINT_FORMATS, Ant
from bitwright.arch.formats.table import TableFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Record = Callable[[str, object], None]
ANTS = [fmt for fmt in FLINT_FORMATS if isinstance(fmt, Ant)]
FLINTS = (FLINT4, FLINT5, FLINT6, FLINT4_UNSIGNED)
PUBLISHED = {
    "flint4": [0, 1, 2, 3, 4, 6, 8, 16],
    "flint5": [*range(9), 10, 12, 14, 16, 24, 32, 64],
    "flint6": [*range(17), *range(18, 33, 2), *range(40, 65, 8), 96, 128, 256],
    "flint4_unsigned": [*range(9), 10, 12, 14, 16, 24, 32, 64],
}
Pairs = list[tuple[Fraction, int]]
each = pytest.mark.parametrize("fmt", FLINTS, ids=[fmt.name for fmt in FLINTS])


# the exact oracle


def first_one(word: str) -> Fraction:
    """Value of unsigned flint from its bits: integer below a 0, else zeros, a one, a mantissa."""
    rest = word[1:]
    if word[0] == "0":
        return Fraction(int(rest, 2))
    if "1" not in rest:
        return Fraction(2) ** (2 * len(rest))
    zeros = rest.index("1")
    mantissa = rest[zeros + 1 :]
    return (1 + Fraction(int(mantissa or "0", 2), 2 ** len(mantissa))) * Fraction(2) ** (len(rest) + zeros)


def flint_pairs(bits: int, *, signed: bool) -> Pairs:
    """(value, code) of every code that is written, ascending."""
    if not signed:
        return sorted((first_one(format(code, f"0{bits}b")), code) for code in range(2**bits))
    positive = flint_pairs(bits - 1, signed=False)
    return sorted(positive + [(-value, code + 2 ** (bits - 1)) for value, code in positive if code])


def pairs_of(fmt: TableFormat) -> Pairs:
    return flint_pairs(fmt.bits, signed=fmt is not FLINT4_UNSIGNED)


def nearest(x: Fraction, pairs: Pairs) -> tuple[Fraction, int]:
    """The nearest of ascending pairs; of two, the even code, and if both or neither are, the smaller magnitude."""
    place = bisect(pairs, x, key=lambda pair: pair[0])
    low, high = pairs[max(place - 1, 0)], pairs[min(place, len(pairs) - 1)]
    if high[0] - x != x - low[0]:
        return high if high[0] - x < x - low[0] else low
    if low[1] % 2 != high[1] % 2:
        return low if low[1] % 2 == 0 else high
    return min(low, high, key=lambda pair: abs(pair[0]))


def around(pairs: Pairs) -> NDArray[np.float32]:
    """Values, midpoints, their float32 neighbours, numbers beyond, zeros."""
    ascending = np.array(sorted(float(value) for value, _ in pairs))
    exact = np.concatenate([ascending, (ascending[1:] + ascending[:-1]) / 2]).astype(np.float32)
    up, down = np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))
    ends = np.array([1e4, -1e4, 0.0, -0.0, 2.0**-149, -(2.0**-149)], np.float32)
    return np.concatenate([exact, up, down, ends])


def at_scale_one(fmt: TableFormat | Ant, values: NDArray[np.float32], kind: int | None = None) -> list[int]:
    """Codes of values as they are, of one ANT type."""
    selectors = None if kind is None else np.full(1, kind, np.uint8)
    like = Encoded(fmt.name, np.zeros(values.shape, np.uint8), np.ones(1, np.float32), None, selectors, None, "fp32")
    return fmt.encode_codes(values, like).tolist()


# flint: interface, exhaustive


@each
def test_codes_are_the_published_sets_by_first_one_coding(fmt: TableFormat) -> None:
    table = fmt.code_values()
    assert {code: Fraction(float(table[code])) for _, code in pairs_of(fmt)} == {c: v for v, c in pairs_of(fmt)}
    published = PUBLISHED[fmt.name]
    negative = [] if fmt is FLINT4_UNSIGNED else [-value for value in published[:0:-1]]
    assert fmt.values().tolist() == negative + published
    assert fmt.max_value == published[-1]
    if fmt is not FLINT4_UNSIGNED:
        minus_zero = table[1 << (fmt.bits - 1)]
        assert minus_zero == 0
        assert np.signbit(minus_zero)


def test_every_border_encodes_as_the_exact_oracle(record_property: Record) -> None:
    cases = 0
    for fmt in FLINTS:
        pairs = pairs_of(fmt)
        numbers = around(pairs)
        codes = at_scale_one(fmt, numbers)
        assert codes == [nearest(Fraction(x), pairs)[1] for x in numbers.tolist()], fmt.name
        assert set(codes) == {code for _, code in pairs}  # the code of -0 is never written
        cases += numbers.size
    assert cases == 762
    record_property("figure", f"{cases} values and borders of 4 flints encoded as the exact oracle")


@each
def test_decoded_codes_encode_to_themselves_under_every_fp16_scale(fmt: TableFormat) -> None:
    scales = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    codes = np.array(sorted(code for _, code in pairs_of(fmt)), np.uint8)
    tiled = np.tile(codes, (scales.size, 1))
    encoded = Encoded(fmt.name, tiled, scales, None, None, None, "fp16")
    decoded = fmt.decode(encoded)
    assert np.array_equal(decoded, fmt.code_values()[codes].astype(np.float64) * scales)
    assert np.array_equal(fmt.encode_codes(decoded, encoded), tiled)
    whole = fmt.integers(encoded)
    assert np.array_equal(whole.ints * whole.scales.astype(np.float64), decoded)


eighths = st.integers(-96, 96).map(lambda n: n / 8)
numbers = st.one_of(
    eighths,
    st.floats(-1e4, 1e4, width=32),
    st.floats(-(2.0**-20), 2.0**-20, width=32),
    st.sampled_from([0.0, -0.0, 16.0, -64.0, 5.0, 2.0**-149]),
)


@pytest.mark.parametrize("fmt", FLINTS[:3], ids=[fmt.name for fmt in FLINTS[:3]])
@given(
    row=st.lists(numbers, min_size=1, max_size=10),
    group=st.one_of(st.none(), st.integers(1, 5)),
    scale_format=st.sampled_from(["fp16", "fp32", "int8"]),
)
@example(row=[0.0, -0.0, 0.0], group=2, scale_format="int8")
@example(row=[0.0625], group=None, scale_format="int8")
@settings(max_examples=100, deadline=None)
def test_flint_equals_the_exact_encoder(
    oracle: SimpleNamespace, fmt: TableFormat, row: list[float], group: int | None, scale_format: str
) -> None:
    encoded = fmt.encode(np.array(row, np.float32), group=group, scale_format=scale_format)
    size = group or len(row)
    parts = [row[i : i + size] for i in range(0, len(row), size)]
    scales = oracle_scales([max(abs(Fraction(w)) for w in part) / int(fmt.max_value) for part in parts], scale_format)
    assert encoded.scales is not None
    assert [Fraction(float(s)) for s in encoded.scales] == scales
    pairs = pairs_of(fmt)
    quotients = [oracle.to_fp32(Fraction(w) / scales[k // size]) if scales[k // size] else 0 for k, w in enumerate(row)]
    picks = [nearest(Fraction(x), pairs) for x in quotients]
    assert encoded.codes.tolist() == [code for _, code in picks]
    values = [oracle.to_fp32(value * scales[k // size]) for k, (value, _) in enumerate(picks)]
    assert [Fraction(float(v)) for v in fmt.decode(encoded)] == values


def to_float(value: Fraction, dtype: type[np.floating]) -> Fraction:  # type: ignore[type-arg]
    """value to the nearest float of the type, ties to even: fractions of few bits pass float64 without loss or
    are quotients that no float64 lies between and a tie."""
    return Fraction(float(dtype(float(value))))


def oracle_scales(steps: list[Fraction], scale_format: str) -> list[Fraction]:
    """Scales of a row: fp16, fp32, or two levels."""
    if scale_format == "fp32":
        return [max(to_float(s, np.float32), Fraction(1, 2**100)) if s else Fraction(0) for s in steps]
    first = [max(to_float(s, np.float16), Fraction(1, 2**24)) if s else Fraction(0) for s in steps]
    if scale_format == "fp16" or not max(first):
        return first
    channel = max(to_float(max(first) / 127, np.float16), Fraction(1, 2**24))
    if round(max(first) / channel) > 127:  # a subnormal channel that rounded down too far: the next one up
        channel += Fraction(1, 2**24)
    return [channel * min(127, max(1, round(s / channel))) if s else Fraction(0) for s in first]


@given(row=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=24))
@settings(max_examples=100, deadline=None)
def test_quantising_twice_changes_nothing_with_normal_fp16_scales(row: list[float]) -> None:
    values = np.array(row, np.float32)
    values[np.abs(values) < 0.1] = 0
    for fmt in FLINTS:
        part = np.abs(values) if fmt is FLINT4_UNSIGNED else values
        once = fmt.decode(fmt.encode(part, group=8))
        assert np.array_equal(fmt.decode(fmt.encode(once, group=8)), once)


# ANT


def ant_pairs(bits: int, float_bits: tuple[int, int]) -> list[Pairs]:
    """(value, code) of the four types, in order; codes of -0 left out."""
    half = 2 ** (bits - 1)
    whole: Pairs = [(Fraction(code if code < half else code - 2 * half), code) for code in range(2 * half)]
    powers = [Fraction(0), *(Fraction(2) ** (power - max(0, half - 8)) for power in range(half - 1))]
    e, m = float_bits
    real = []
    for code in range(half):
        field, mantissa = code >> m, Fraction(code % 2**m, 2**m)
        value = mantissa if field == 0 else (1 + mantissa) * Fraction(2) ** (field - 1)
        real.append(value * Fraction(2) ** (e - 1) / Fraction(2) ** (2 ** (e - 1) - 2))
    both: list[Pairs] = [
        [(sign * value, code + (half if sign < 0 else 0)) for sign in (1, -1) for code, value in enumerate(values)
         if code or sign > 0]
        for values in (powers, real)
    ]  # fmt: skip
    return [sorted(pairs) for pairs in (whole, flint_pairs(bits, signed=True), *both)]


FLOATS = {"ant4": (3, 0), "ant5": (3, 1), "ant6": (3, 2), "ant4:float=e2m1": (2, 1)}
VARIANTS: dict[str, Ant] = {fmt.name: fmt for fmt in ANTS}
VARIANTS["ant4:float=e2m1"] = VARIANTS["ant4"].with_options(float="e2m1")  # type: ignore[assignment]


def test_types_of_ant_are_the_authors_and_round_to_nearest(record_property: Record) -> None:
    cases = 0
    for name, fmt in VARIANTS.items():
        for kind, pairs in enumerate(ant_pairs(fmt.bits, FLOATS[name])):
            table = fmt.code_values(kind)
            assert {code: Fraction(float(table[code])) for _, code in pairs} == {c: v for v, c in pairs}, (name, kind)
            ends = around(pairs)
            assert at_scale_one(fmt, ends, kind) == [nearest(Fraction(x), pairs)[1] for x in ends.tolist()]
            cases += ends.size
    assert cases == 3048
    record_property("figure", f"{cases} values and borders of the types of 4 ANT formats encoded as the exact oracle")
    assert (fmt4 := VARIANTS["ant4"]).integer_step == 1
    assert (VARIANTS["ant5"].integer_step, VARIANTS["ant6"].integer_step) == (2.0**-8, None)
    assert fmt4.code_values(2)[:8].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]
    assert np.array_equal(fmt4.code_values(3), fmt4.code_values(2))  # E3M0 is PoT


def exact_ant(
    groups: list[list[float]], types: list[Pairs], choice: str, scale_format: str
) -> tuple[list[int], list[Fraction]]:
    """Selectors and scales by trying everything: types x clips 0.75 .. 1.49 in exact fractions."""
    limit = 65504.0 if scale_format == "fp16" else 2.0**100
    table = []
    for group in groups:
        exact = [Fraction(w) for w in group]
        largest, energy = max(map(abs, group)), sum((w * w for w in exact), Fraction(0))
        best = []
        for pairs in types:
            found: tuple[Fraction, Fraction] | None = None
            for percent in range(75, 150):
                step = min(largest * (percent / 100) / float(max(value for value, _ in pairs)), limit)
                (scale,) = oracle_scales([Fraction(step)], scale_format)
                picked = [nearest(w / scale, pairs)[0] * scale if scale else Fraction(0) for w in exact]
                error = sum(((w - p) ** 2 for w, p in zip(exact, picked, strict=True)), Fraction(0))
                if found is None or error < found[0] - energy / 2**32:
                    found = (error, scale)
            assert found is not None
            best.append((*found, energy))
        table.append(best)

    def first_least(errors: list[Fraction], energy: Fraction) -> int:
        chosen = 0
        for kind, error in enumerate(errors):
            if error < errors[chosen] - energy / 2**32:
                chosen = kind
        return chosen

    if choice == "tensor":
        energies = sum((best[0][2] for best in table), Fraction(0))
        kind = first_least([sum((b[k][0] for b in table), Fraction(0)) for k in range(len(types))], energies)
        selectors = [kind] * len(groups)
    else:
        selectors = [first_least([b[0] for b in best], best[0][2]) for best in table]
    return selectors, [best[s][1] for best, s in zip(table, selectors, strict=True)]


@pytest.mark.parametrize("name", VARIANTS)
@given(
    row=st.lists(st.one_of(eighths, st.floats(-4, 4, width=32), st.just(0.0)), min_size=1, max_size=5),
    group=st.sampled_from([None, 2, "tensor"]),
    choice=st.sampled_from(["tensor", "group"]),
    scale_format=st.sampled_from(["fp16", "fp32"]),
)
@example(row=[0.0, -0.0, 1.0], group=2, choice="group", scale_format="fp16")
@example(row=[1.0, 2.0, 64.0, -32.0], group=None, choice="tensor", scale_format="fp32")
@settings(max_examples=10, deadline=None)
def test_ant_chooses_as_the_exact_search(
    oracle: SimpleNamespace, name: str, row: list[float], group: int | None, choice: str, scale_format: str
) -> None:
    fmt = VARIANTS[name].with_options(choice=choice)
    if name.endswith("e2m1"):
        fmt = VARIANTS["ant4"].with_options(choice=choice, float="e2m1")
    types = ant_pairs(fmt.bits, FLOATS[name])
    size = group if isinstance(group, int) else len(row)
    groups = [row[i : i + size] for i in range(0, len(row), size)]
    encoded = fmt.encode(np.array(row, np.float32), group=group, scale_format=scale_format)
    selectors, scales = exact_ant(groups, types, choice, scale_format)
    assert encoded.selectors is not None
    assert encoded.scales is not None
    assert encoded.selectors.tolist() == selectors
    assert [Fraction(float(s)) for s in encoded.scales] == scales
    for k, w in enumerate(row):
        scale = scales[k // size]
        value, code = nearest(
            oracle.to_fp32(Fraction(w) / scale) if scale else Fraction(0), types[selectors[k // size]]
        )
        assert encoded.codes[k] == code
        assert Fraction(float(fmt.decode(encoded)[k])) == oracle.to_fp32(value * scale)


def squared_error(fmt: TableFormat | Ant, values: NDArray[np.float32], group: int | str | None = None) -> float:
    decoded = fmt.decode(fmt.encode(values, group=group)).astype(np.float64)  # type: ignore[arg-type]
    return float(((values - decoded) ** 2).sum())


def test_ant_takes_int_for_uniform_flint_for_laplace_and_pot_for_heavy_tails() -> None:
    # ANT, section II: int suits uniform-like tensors, flint Gaussian-like ones with tails, PoT Laplace-like outliers
    rng = np.random.default_rng(5)
    shape = (40, 512)
    chosen = []
    for values in (rng.uniform(-1, 1, shape), rng.laplace(size=shape), rng.standard_t(2, shape)):
        part = values.astype(np.float32)
        encoded = VARIANTS["ant4"].encode(part)
        assert encoded.selectors is not None
        assert np.unique(encoded.selectors).size == 1
        chosen.append(int(encoded.selectors[0, 0]))
        assert squared_error(VARIANTS["ant4"], part) < squared_error(FLINT4, part)
        free = VARIANTS["ant4"].with_options(choice="group")
        assert squared_error(free, part) <= squared_error(VARIANTS["ant4"], part) * (1 + 1e-12)  # type: ignore[arg-type]
    assert chosen == [0, 1, 2]


def test_selectors_are_charged_once_an_array_or_once_a_group() -> None:
    fmt = VARIANTS["ant4"]
    assert fmt.storage_bits((10, 96), 32).selectors == 2
    assert fmt.with_options(choice="group").storage_bits((10, 96), 32).selectors == 2 * 30
    assert fmt.storage_bits((10, 96), "tensor").total == 4 * 960 + 16 + 2
    assert fmt.storage_bits((0, 96), None).total == 0


def test_quantising_twice_is_not_once_for_ant() -> None:
    # 9 and 3 are 6 and 2 steps of int with clip 1.17, about 7/6; every search takes that clip of what it finds
    fmt = VARIANTS["ant4"]
    once = fmt.decode(fmt.encode(np.array([9, 3], np.float32)))
    assert once.tolist() == [9.0234375, 3.0078125]
    assert fmt.decode(fmt.encode(once)).tolist() == [9.046875, 3.015625]


@pytest.mark.parametrize("fmt", ANTS, ids=[fmt.name for fmt in ANTS])
def test_greater_values_never_get_lesser_codes(fmt: Ant) -> None:
    values = np.sort(np.random.default_rng(3).standard_t(3, 4000)).astype(np.float32)
    for other in (fmt, *FLINTS[:3]):
        assert (np.diff(other.decode(other.encode(values))) >= 0).all()


# errors


def message_of(call: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(FormatError) as error:
        call(*args, **kwargs)
    return str(error.value)


def test_unsigned_flint_refuses_negative_values() -> None:
    values = np.array([[1, 0.5, -0.0], [2, -0.25, -3]], np.float32)
    assert message_of(FLINT4_UNSIGNED.encode, values) == (
        "values[1, 1] = -0.25: must not be negative, flint4_unsigned has no sign (use flint4); flint4_unsigned.encode"
    )
    encoded = FLINT4_UNSIGNED.encode(np.abs(values))
    assert FLINT4_UNSIGNED.encode_codes(values, encoded)[1].tolist()[1:] == [0, 0]
    for fmt in FLINTS:
        assert message_of(fmt.encode, np.array([1, np.nan], np.float32)) == (
            f"values[1] = nan: must be finite (replace NaN and infinity before encoding); {fmt.name}.encode"
        )


def test_ant_refuses_what_its_scales_cannot_hold_and_limits_its_clips() -> None:
    fmt = VARIANTS["ant4"]
    assert message_of(fmt.encode, np.array([1, -7.1 * 65504], np.float32)) == (
        "scale = 66439.8: fp16 scales reach 65504 (use scale_format='fp32' or smaller values); values[0:2], ant4.encode"
    )
    encoded = fmt.encode(np.array([1, -6.9 * 65504], np.float32))  # clips above 1.01 are beyond fp16
    assert encoded.scales is not None
    assert np.isfinite(encoded.scales).all()
    assert message_of(fmt.encode, np.ones(4, np.float32), scale_format="e8m0") == (
        "scale_format = e8m0: ant4 takes fp16 or fp32 or int8; ant4.encode"
    )
    assert message_of(VARIANTS["ant5"].with_options, float="e2m1") == (
        "ant5: option float: no such option; known: choice, scale"
    )
