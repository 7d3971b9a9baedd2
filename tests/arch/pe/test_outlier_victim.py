"""outlier-victim: decoded pairs against codes written out and the codec, sums and saturation in Python integers."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.pe.outlier_victim import OutlierVictim
from bitwright.arch.pe.pair_codes import PairDecoder, narrow_pairs, unpacked, wide_pairs, wide_values
from bitwright.arch.pe.stream import Steps, StreamSpec
from bitwright.rtl.bench.stream import stimulus

# 4-bit codes as the papers print them: normal values, and the outliers beside the identifier 1000.
INT4 = {f"{value & 15:04b}": value for value in range(-7, 8)}
FLINT3 = {"000": 0, "001": 1, "010": 2, "011": 3, "110": 4, "111": 6, "101": 8, "100": 16}
FLINT4 = {sign + code: (-value if sign == "1" else value) for code, value in FLINT3.items() for sign in "01"}
OUTLIERS = {
    "int4": {"000": 0, "001": 12, "010": 16, "011": 24, "100": 32, "101": 48, "110": 64, "111": 96},
    "flint4": {"000": 0, "001": 24, "010": 32, "011": 48, "100": 64, "101": 96, "110": 128, "111": 192},
}
INT32 = (-(1 << 31), (1 << 31) - 1)
RISING, FALLING = [0x7F, 0x80], [0xFF, 0x80]  # ovp8: +2**15 (clipped) and -2**15, then the victim


def narrow_value(own: str, partner: str, normal: str) -> int:
    if partner == "1000":
        value = OUTLIERS[normal][own[1:]]
        return -value if own[0] == "1" else value
    if own == "1000":
        return 0
    return INT4[own] if normal == "int4" else FLINT4[own]


def wide_value(own: str, partner: str) -> int:
    """E4M3 with bias 4 beside the identifier, at most 2**15; else an 8-bit integer."""
    if partner == "10000000":
        size = (8 + int(own[5:], 2)) << (int(own[1:5], 2) + 4) if int(own[1:], 2) else 0
        return min(size, 1 << 15) * (-1 if own[0] == "1" else 1)
    return 0 if own == "10000000" else int(own, 2) - (256 if own[0] == "1" else 0)


def bits(code: int, width: int) -> str:
    return f"{code:0{width}b}"


def narrow_pair(byte: int, normal: str = "int4") -> tuple[int, int]:
    high, low = bits(byte, 8)[:4], bits(byte, 8)[4:]
    return narrow_value(low, high, normal), narrow_value(high, low, normal)


def wide_pair(word: int) -> tuple[int, int]:
    high, low = bits(word, 16)[:8], bits(word, 16)[8:]
    return wide_value(low, high), wide_value(high, low)


def dot(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    return left[0] * right[0], left[1] * right[1]


def oracle(steps: Steps) -> list[tuple[int, int]]:
    """(psum, overflow) of each sum, a cycle at a time; int4 normal values."""
    found, acc, flag = [], 0, 0
    for act, wgt, wide, first, last in zip(*(steps[n].tolist() for n in STEP), strict=True):
        acc, flag = (0, 0) if first else (acc, flag)
        if wide:
            words = [[low | high << 8 for low, high in zip(c[::2], c[1::2], strict=True)] for c in (act, wgt)]
            pairs = [dot(wide_pair(a), wide_pair(w)) for a, w in zip(*words, strict=True)]
            cycles = [sum(pair[value] for pair in pairs) for value in range(2)]
        else:
            pairs = [dot(narrow_pair(a), narrow_pair(w)) for a, w in zip(act, wgt, strict=True)]
            cycles = [sum(map(sum, pairs))]
        for total in cycles:
            exact = acc + total
            acc = min(max(exact, INT32[0]), INT32[1])
            flag |= exact != acc
        if last:
            found.append((acc, flag))
    return found


STEP = ("act", "wgt", "wide", "first", "last")


def steps_of(acts: Any, wgts: Any, wide: Any, first: Any, last: Any) -> dict[str, np.ndarray]:
    flags = [np.broadcast_to(values, (len(acts),)).astype(np.int64) for values in (wide, first, last)]
    return dict(zip(STEP, (np.asarray(acts), np.asarray(wgts), *flags), strict=True))


def shown(spec: OutlierVictim, steps: Steps) -> list[tuple[int, int]]:
    found = spec.sums(steps)
    return list(zip(found["psum"].tolist(), found["overflow"].tolist(), strict=True))


def one_sum(spec: OutlierVictim, byte_rows: list[list[int]], wide: int) -> dict[str, np.ndarray]:
    """One sum whose every prefix is shown: act the given rows, wgt +2**15 (wide) or 96 (narrow) in all lanes."""
    wgt = (RISING * (spec.lanes // 2)) if wide else [0x87] * spec.lanes
    return steps_of(byte_rows, [wgt] * len(byte_rows), wide, np.arange(len(byte_rows)) == 0, 1)


def codec_values(name: str, codes: np.ndarray) -> np.ndarray:
    """The codec's decode at scale 1, a pair a row."""
    ones = np.ones((len(codes), 1), dtype=np.float16)
    return formats.get(name).decode(Encoded(name, codes.astype(np.uint8), ones, None, None, None, "fp16"))


# Decoders, exhaustive


@pytest.mark.parametrize(("normal", "name"), [("int4", "ovp4"), ("flint4", "ovp4_flint")])
def test_every_byte_decodes_as_written_out_and_as_the_codec(normal: str, name: str) -> None:
    numbers = narrow_pairs(normal)
    assert [tuple(pair) for pair in numbers.value.tolist()] == [narrow_pair(byte, normal) for byte in range(256)]
    byte = np.arange(256)
    assert (numbers.value == codec_values(name, np.stack([byte & 15, byte >> 4], 1))).all()
    greatest = {"int4": (5, 7), "flint4": (6, 3)}[normal]
    assert (numbers.exponent.max(), np.abs(numbers.integer).max()) == greatest


def test_abfloat4_is_the_published_set() -> None:
    found = set(np.abs(narrow_pairs("int4").value).ravel().tolist())
    assert found - set(range(8)) == {12, 16, 24, 32, 48, 64, 96}


def test_every_16_bit_pair_decodes_as_written_out_and_as_the_codec_clipped() -> None:
    values = wide_values()
    assert [tuple(pair) for pair in values.tolist()] == [wide_pair(word) for word in range(1 << 16)]
    word = np.arange(1 << 16)
    decoded = codec_values("ovp8", np.stack([word & 255, word >> 8], 1))
    assert (values == np.clip(decoded, -(1 << 15), 1 << 15)).all()
    assert (np.abs(decoded) > 1 << 15).any(axis=1).sum() == 4 * 63  # of 64 codes from 2**15 on, all but the first
    assert np.unique(np.abs(values)).max() == 1 << 15


def test_wide_values_are_h_and_l_of_four_bits() -> None:
    """x = <e + 4, h> + <e, l>, h of -8..7, l of 0..15, exponents of four bits."""
    numbers = wide_pairs()
    assert (numbers.exponent[:, 0::2] == numbers.exponent[:, 1::2] + 4).all()
    assert (numbers.integer[:, 0::2].min(), numbers.integer[:, 0::2].max()) == (-8, 7)
    assert (numbers.integer[:, 1::2].min(), numbers.integer[:, 1::2].max()) == (0, 15)
    assert (numbers.exponent.min(), numbers.exponent.max()) == (0, 15)


def test_decoder_units_give_the_packed_numbers() -> None:
    both = PairDecoder("both", "flint4")
    pairs = np.arange(1 << 16)
    for wide in (0, 1):
        numbers = unpacked(both.decode(pairs, wide=wide))
        assert numbers.value.shape == (1 << 16, 4)
        if wide:
            assert (numbers.value.reshape(-1, 2, 2).sum(axis=-1) == wide_values()).all()
        else:
            assert (numbers.value[:, :2] == narrow_pairs("flint4").value[pairs & 255]).all()
            assert (numbers.value[:, 2:] == narrow_pairs("flint4").value[pairs >> 8]).all()
    assert (PairDecoder("ovp4").decode(np.arange(256)) == narrow_pairs("int4").packed).all()
    assert (PairDecoder("ovp8").decode(pairs) == both.decode(pairs, wide=1)).all()
    assert PairDecoder("ovp4").module_name == "pair_decoder_ovp4_int4"
    assert PairDecoder("ovp8").module_name == "pair_decoder_ovp8"


# Sums


@pytest.mark.parametrize("normal", ["int4", "flint4"])
def test_every_byte_times_every_byte_is_the_exact_dot(normal: str) -> None:
    spec = OutlierVictim(normal=normal)
    act, wgt = (np.pad(codes.reshape(-1, 1), ((0, 0), (0, 1))) for codes in np.indices((256, 256)))
    pairs = [narrow_pair(code, normal) for code in range(256)]
    expected = [(sum(dot(pairs[a], pairs[w])), 0) for a, w in product(range(256), repeat=2)]
    assert shown(spec, steps_of(act, wgt, 0, 1, 1)) == expected


@pytest.mark.parametrize("lanes", [2, 6])
def test_sums_of_both_modes_match_python_integers(lanes: int) -> None:
    spec, rng = OutlierVictim(lanes=lanes), np.random.default_rng(4)
    count = 3000
    codes = rng.integers(0, 256, (2, count, lanes // 2, 2))
    extreme = rng.random(codes.shape[:-1]) < 0.4
    codes[extreme] = rng.choice([RISING, FALLING], int(extreme.sum()))
    codes = codes.reshape(2, count, lanes)
    first = rng.random(count) < 0.2
    first[0] = True
    steps = steps_of(*codes, rng.integers(0, 2, count), first, rng.random(count) < 0.5)
    expected = oracle(steps)
    assert any(flag for _, flag in expected)
    assert not all(flag for _, flag in expected)
    assert shown(spec, steps) == expected
    slow = StreamSpec.sums(spec, steps)
    assert list(zip(slow["psum"].tolist(), slow["overflow"].tolist(), strict=True)) == expected


def test_saturates_at_both_ends_and_the_flag_stays_until_first() -> None:
    spec = OutlierVictim()
    up, down = RISING, FALLING
    steps = one_sum(spec, [up, up, down, [0, 0], down, down, down, down, up], wide=1)
    half, bottom, top = 1 << 30, *INT32
    falls = [(top - half, 1), (top - half, 1), (top - 2 * half, 1), (-1 - half, 1), (bottom, 1), (bottom, 1)]
    assert shown(spec, steps) == [(half, 0), (top, 1), *falls, (bottom + half, 1)]
    again = {name: np.concatenate([values, values]) for name, values in steps.items()}
    assert shown(spec, again) == 2 * shown(spec, steps)
    # -2**31 itself is in range.
    assert shown(spec, one_sum(spec, [down, down, down], wide=1)) == [(-half, 0), (bottom, 0), (bottom, 1)]


def test_a_wide_step_saturates_after_its_even_values() -> None:
    """+2**31 from the even values, then -2**31 from the odd ones: not 0."""
    spec = OutlierVictim(lanes=8)
    act = [*RISING, *RISING, 0x80, 0x7F, 0x80, 0x7F]
    wgt = [*RISING, *RISING, 0x80, 0xFF, 0x80, 0xFF]
    assert shown(spec, steps_of([act], [wgt], 1, 1, 1)) == [(-1, 1)]


def test_a_narrow_step_saturates_once() -> None:
    """The lanes' exact total counts: +3 * 9216 - 3 * 9216 in one step adds nothing at the top of the range."""
    spec = OutlierVictim(lanes=6)
    up = [[*RISING, 0, 0, 0, 0]] * 2
    level = [[0x87, 0x87, 0x87, 0x8F, 0x8F, 0x8F]]
    steps = steps_of(up + level, [*up, [0x87] * 6], [1, 1, 0], [1, 0, 0], 1)
    assert shown(spec, steps) == [(1 << 30, 0), (INT32[1], 1), (INT32[1], 1)]
    low = steps_of(up[:1] + level * 2, up[:1] + [[0x87] * 6] * 2, [1, 0, 0], [1, 0, 0], 1)
    assert shown(spec, low) == [(1 << 30, 0)] * 3


@pytest.mark.parametrize(("normal", "peak"), [("int4", 96**2), ("flint4", 192**2)])
def test_exact_steps_of_narrow_pairs_are_exact(normal: str, peak: int) -> None:
    spec = OutlierVictim(lanes=32, normal=normal)
    steps = spec.exact_steps(wide=False)
    assert steps == INT32[1] // (32 * peak)
    found = shown(spec, one_sum(spec, [[0x87] * 32] * (steps + 1), wide=0))
    assert found[steps - 1] == (steps * 32 * peak, 0)
    assert found[steps] == (INT32[1], 1)


def test_longest_sum_is_that_of_the_wide_mode() -> None:
    spec = OutlierVictim()
    assert (spec.exact_steps(wide=False), spec.exact_steps(wide=True), spec.longest_sum) == (116508, 1, 1)
    assert shown(spec, one_sum(spec, [RISING] * 2, wide=1)) == [(1 << 30, 0), (INT32[1], 1)]
    assert OutlierVictim(lanes=4).exact_steps(wide=True) == 0
    assert OutlierVictim(lanes=4).longest_sum is None
    assert OutlierVictim(decoders=False).longest_sum is None


@pytest.mark.parametrize("normal", ["int4", "flint4"])
def test_decoded_numbers_give_the_sums_of_their_pairs(normal: str) -> None:
    inside, border = OutlierVictim(lanes=4, normal=normal), OutlierVictim(lanes=4, normal=normal, decoders=False)
    rng, count = np.random.default_rng(7), 5000
    first = np.arange(count) % 3 == 0
    steps = steps_of(*rng.integers(0, 256, (2, count, 4)), rng.integers(0, 2, count), first, 1)
    numbers = dict(steps)
    for name in ("act", "wgt"):
        words = steps[name][:, 0::2] | steps[name][:, 1::2] << 8
        numbers[name] = border.decoder.decode(words, wide=steps["wide"][:, None]).reshape(count, -1)
    assert shown(border, numbers) == shown(inside, steps)


def test_any_numbers_count_modulo_2_32() -> None:
    spec, rng, count = OutlierVictim(decoders=False), np.random.default_rng(8), 2000
    act, wgt = rng.integers(0, 512, (2, count, 4))
    wide = rng.integers(0, 2, count)
    expected = []
    for acts, wgts, is_wide in zip(act.tolist(), wgt.tolist(), wide.tolist(), strict=True):
        numbers = [[((word % 32 ^ 16) - 16, word >> 5) for word in words] for words in (acts, wgts)]
        pairs = [(0, 0), (1, 1), (2, 2), (3, 3)]
        cross = [[(v + i, v + j) for i in (0, 1) for j in (0, 1)] for v in (0, 2)]
        acc = flag = 0
        for places in cross if is_wide else [pairs]:
            for_all = [(numbers[0][a], numbers[1][w]) for a, w in places]
            terms = [(a[0] * w[0] << a[1] + w[1]) % (1 << 32) for a, w in for_all]
            exact = acc + sum(term - (term >> 31 << 32) for term in terms)
            acc = min(max(exact, INT32[0]), INT32[1])
            flag |= exact != acc
        expected.append((acc, flag))
    assert any(flag for _, flag in expected)
    assert shown(spec, steps_of(act, wgt, wide, 1, 1)) == expected


@pytest.mark.parametrize("params", [{}, {"lanes": 6}, {"lanes": 4, "normal": "flint4"}, {"decoders": False}])
def test_quantised_rows_are_the_exact_dot_of_the_codecs_integers(params: dict[str, Any]) -> None:
    spec, rng = OutlierVictim(**params), np.random.default_rng(9)
    act, wgt = (rng.standard_t(3, (5, 46)).astype(np.float32) for _ in range(2))
    own = "ovp4" if spec.normal == "int4" else "ovp4_flint"
    expected = []
    for name, rows in ((own, slice(0, 3)), ("ovp8", slice(3, 5))):
        step = 2 * spec.lanes if name == own else spec.lanes
        fill = ((0, 0), (0, -46 % step))
        form = formats.get(name)
        found = [form.integers(form.encode(np.pad(x[rows], fill))).ints.astype(np.int64) for x in (act, wgt)]
        expected += [(int(total), 0) for total in (found[0] * found[1]).sum(axis=1)]
    assert shown(spec, spec.quantised(act, wgt)) == expected


def test_plain_int4_and_int8_are_pairs_without_identifier() -> None:
    rng = np.random.default_rng(3)
    for name, width in (("int4", 4), ("int8", 8)):
        rows = rng.standard_normal((2, 64)).astype(np.float32)
        form = formats.get(name)
        codes, ints = form.encode(rows).codes.astype(np.int64), form.integers(form.encode(rows)).ints
        assert (codes != 1 << (width - 1)).all()
        words = codes[:, 0::2] | codes[:, 1::2] << width
        values = narrow_pairs("int4").value[words] if width == 4 else wide_values()[words]
        assert (values.reshape(2, -1) == ints).all()


def test_tame_makes_outliers_of_equal_bytes_and_keeps_all_else() -> None:
    spec = OutlierVictim(lanes=4)
    steps = steps_of([[7, 7, 7, 9], [7, 7, 7, 9]], [[1, 2, 5, 5], [1, 2, 5, 5]], [1, 0], 1, 1)
    tamed = spec.tame(steps)
    assert tamed["act"].tolist() == [[7, 0x80, 7, 9], [7, 7, 7, 9]]
    assert tamed["wgt"].tolist() == [[1, 2, 5, 0x80], [1, 2, 5, 5]]
    golden = spec.sums(stimulus.extreme_steps(spec, 8))
    assert {INT32[0], INT32[1]} <= set(golden["psum"].tolist())
    seen = [np.unique(part["act"][:, lane] << 8 | part["wgt"][:, lane]).size
            for part in stimulus.every_pair(spec, seed=1) for lane in range(4)]  # fmt: skip
    assert seen == [1 << 16] * 8


# Timing, cuts, acceptance, errors


def test_a_wide_step_takes_two_cycles_and_half_the_products() -> None:
    spec = OutlierVictim(lanes=4, pipeline=2)
    steps = steps_of([[0] * 4] * 3, [[0] * 4] * 3, [0, 1, 0], [1, 0, 0], 1)
    assert spec.step_cycles(steps).tolist() == [1, 2, 1]
    both = {"wide": np.asarray([0, 1])}
    assert (spec.macs(both).tolist(), spec.macs_per_step) == ([8, 4], 8)
    assert spec.timing.latency_cycles == 3


def test_the_cut_is_the_range_of_a_cycles_total() -> None:
    narrow, wide = narrow_pairs("int4").value, wide_pairs().value
    parts = np.unique(wide).astype(object)
    products = np.multiply.outer(parts, parts)
    assert (products.min(), products.max()) == (-(1 << 30), 1 << 30)
    assert np.abs(narrow).max() < 1 << 15
    assert [(cut.wire, cut.low, cut.high) for cut in OutlierVictim().cuts] == [("total", -(1 << 32), 1 << 32)]
    free = OutlierVictim(decoders=False).cuts
    assert [(cut.low, cut.high) for cut in free] == [(4 * INT32[0], 4 * INT32[1])]


@pytest.mark.parametrize(
    ("params", "name", "group", "kind", "reason"),
    [
        ({}, "ovp4", None, "native", "ovp4 pairs are read as they are"),
        ({}, "ovp8", 128, "native", "ovp8 pairs are read as they are"),
        ({}, "int8", None, "native", "int8 pairs are read as they are"),
        ({}, "int3", None, "native", "int3 codes, sign-extended to 4 bits at the border, are read as they are"),
        ({}, "int5", 128, "native", "int5 codes, sign-extended to 8 bits at the border, are read as they are"),
        ({"decoders": False}, "ovp4", None, "decoder", "ovp4 pairs become numbers <exponent, integer>"),
        (
            {"decoders": False},
            "int5",
            None,
            "decoder",
            "int5 codes, sign-extended to 8 bits at the border, become numbers <exponent, integer>",
        ),
        ({"normal": "flint4"}, "ovp4_flint", None, "native", "ovp4_flint pairs are read as they are"),
        ({"normal": "flint4"}, "flint4", None, "native", "flint4 pairs are read as they are"),
        ({"normal": "flint4"}, "int4", None, "refused", "int4 codes are not normal codes of ovp4_flint"),
        ({}, "ovp4_flint", None, "refused", "ovp4_flint is neither ovp4 nor ovp8 with outliers E4M3"),
        ({}, "ovp8:outlier=e2m5", None, "refused", "ovp8:outlier=e2m5 is neither ovp4 nor ovp8 with outliers E4M3"),
        ({}, "fp4_e2m1", None, "refused", "fp4_e2m1 codes are neither those of ovp4 nor of ovp8"),
        ({}, "int4", 7, "refused", "group = 7 is odd, and two values share a byte"),
    ],
)
def test_accepts(params: dict[str, Any], name: str, group: int | None, kind: str, reason: str) -> None:
    found = pe.stream("outlier-victim", **params).accepts(name, group)
    assert (found.kind, found.reason) == (kind, reason)
    assert found.unit == ("pair-decoder" if kind == "decoder" else None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lanes": 3}, "outlier-victim lanes = 3: must be an even number in 2..32 (default 2)"),
        ({"lanes": 34}, "outlier-victim lanes = 34: must be an even number in 2..32 (default 2)"),
        ({"normal": "int8"}, "outlier-victim normal = 'int8': must be int4 or flint4"),
        ({"pipeline": 4}, "outlier-victim pipeline = 4: must be in 0..3"),
        ({"pipeline": -1}, "outlier-victim pipeline = -1: must be in 0..3"),
        ({"decoders": 2}, "outlier-victim.decoders = 2: must be of type bool"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pe.stream("outlier-victim", **params)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"reads": "int4"}, "pair-decoder reads = 'int4': must be ovp4, ovp8 or both"),
        ({"normal": "fp4"}, "pair-decoder normal = 'fp4': must be int4 or flint4"),
    ],
)
def test_bad_decoder_parameters_are_refused(params: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PairDecoder(**params)
    assert str(caught.value) == message


def test_module_stem_tells_every_parameter_set_apart() -> None:
    sets = product((2, 4), ("int4", "flint4"), (True, False), (0, 3))
    specs = [OutlierVictim(lanes, normal, decoders, pipeline) for lanes, normal, decoders, pipeline in sets]
    assert len({spec.module_stem for spec in specs}) == len(specs)
    assert specs[0].module_stem == "outlier_victim_l2_int4_s0"
