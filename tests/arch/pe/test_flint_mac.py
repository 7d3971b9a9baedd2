"""flint: decoded codes against codes written out and the codec, sums in Python integers, bounds, acceptance."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.flint_mac import ACT_CODES, WGT_CODES, FlintMac, reading
from bitwright.arch.pe.stream import Steps, StreamSpec

# First-one codes without sign, as ANT prints them; x stands for a mantissa bit.
FLINT3 = {"000": 0, "001": 1, "010": 2, "011": 3, "110": 4, "111": 6, "101": 8, "100": 16}
FLINT4 = {f"{value:04b}": value for value in range(8)} | {
    "1100": 8, "1101": 10, "1110": 12, "1111": 14, "1010": 16, "1011": 24, "1001": 32, "1000": 64,
}  # fmt: skip
FLINT5 = {f"{value:05b}": value for value in range(16)} | {
    "11000": 16, "11001": 18, "11010": 20, "11011": 22, "11100": 24, "11101": 26, "11110": 28, "11111": 30,
    "10100": 32, "10101": 40, "10110": 48, "10111": 56, "10010": 64, "10011": 96, "10001": 128, "10000": 256,
}  # fmt: skip
POT3 = {"000": 0, "001": 1, "010": 2, "011": 4, "100": 8, "101": 16, "110": 32, "111": 64}
SIGNED = {"flint4": FLINT3, "flint5": FLINT4, "flint6": FLINT5}
SPECS = [FlintMac(**params) for params in FlintMac.variants]


def values_of(name: str, kind: int = 0) -> list[int]:
    """Value of every code."""
    width = int(name[-1])
    if name == "ant4" and kind >= 1:
        table = FLINT3 if kind == 1 else POT3
    elif name in SIGNED:
        table = SIGNED[name]
    else:
        return [code - (1 << width) * (code >> (width - 1)) for code in range(1 << width)]
    codes = [f"{code:0{width}b}" for code in range(1 << width)]
    return [-table[code[1:]] if code[0] == "1" else table[code[1:]] for code in codes]


def oracle(spec: FlintMac, steps: Steps) -> list[int]:
    found, acc, modulus = [], 0, 1 << spec.psum_bits
    count = len(steps["first"])
    for at in range(count):
        rows = []
        for name, form in (("act", spec.act_format), ("wgt", spec.wgt_format)):
            table = values_of(form, int(steps[f"{name}_type"][at]) if form == "ant4" else 0)
            rows.append([table[int(code) % len(table)] for code in np.atleast_1d(steps[name][at])])
        acc = (0 if steps["first"][at] else acc) + sum(a * w for a, w in zip(*rows, strict=True))
        if steps["last"][at]:
            found.append((acc + modulus // 2) % modulus - modulus // 2)
    return found


def random_steps(spec: FlintMac, count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for field in spec.step_fields:
        shape = (count,) if field.lanes == 1 else (count, field.lanes)
        found[field.name] = rng.integers(field.low, field.high + 1, shape)
    first = rng.random(count) < 0.2
    first[0] = True
    return {**found, "first": first.astype(np.int64), "last": (rng.random(count) < 0.4).astype(np.int64)}


# Decoders, exhaustive


@pytest.mark.parametrize("name", ACT_CODES)
def test_every_code_decodes_as_written_out_and_as_the_codec(name: str) -> None:
    read, form = reading(name), formats.get(name)
    assert len(read.types) == 1 << form.selector_bits
    for kind, numbers in enumerate(read.types):
        assert numbers.value.tolist() == values_of(name, kind)
        assert (numbers.value == form.code_values(kind)).all()


@pytest.mark.parametrize(("name", "integer_bits", "exponent"), [("flint4", 3, 3), ("flint5", 4, 4), ("flint6", 5, 5)])
def test_flint_integers_are_narrow(name: str, integer_bits: int, exponent: int) -> None:
    """Two bits less than the code, and a sign: the multiplier of a flint PE is smaller than that of its integers."""
    assert reading(name).integer_bits == integer_bits
    assert reading(name).types[0].exponent.max() == exponent


@pytest.mark.parametrize(("act", "wgt"), list(product(ACT_CODES, WGT_CODES)))
def test_every_product_of_two_codes(act: str, wgt: str) -> None:
    spec = FlintMac(act, wgt, lanes=1)
    kinds = [range(4) if form == "ant4" else range(1) for form in (act, wgt)]
    for act_type, wgt_type in product(*kinds):
        left, right = values_of(act, act_type), values_of(wgt, wgt_type)
        codes = np.array(list(product(range(len(left)), range(len(right)))))
        modes = {"act_type": act_type, "wgt_type": wgt_type}
        steps = {name: np.full(len(codes), modes[name]) for name in spec.modes}
        steps |= {"act": codes[:, 0], "wgt": codes[:, 1], "first": np.ones(len(codes)), "last": np.ones(len(codes))}
        assert spec.sums(steps)["psum"].tolist() == [a * w for a, w in product(left, right)]


# Sums


@pytest.mark.parametrize("spec", [*SPECS, FlintMac(lanes=1, depth=1)], ids=lambda spec: spec.module_stem)
def test_sums_match_python_integers(spec: FlintMac) -> None:
    steps = random_steps(spec, 2000, seed=3)
    assert spec.sums(steps)["psum"].tolist() == oracle(spec, steps)
    assert StreamSpec.sums(spec, steps)["psum"].tolist() == oracle(spec, steps)


@pytest.mark.parametrize("spec", [*SPECS, FlintMac(lanes=5, depth=1000)], ids=lambda spec: spec.module_stem)
def test_longest_sum_fits_and_one_step_more_wraps(spec: FlintMac) -> None:
    products = np.multiply.outer(*(np.array([values_of(f, k) for k in ks]) for f, ks in operand_types(spec)))
    ends = [(int(place), int(products.ravel()[place])) for place in (products.argmin(), products.argmax())]
    longest, half = spec.longest_sum, 1 << (spec.psum_bits - 1)
    for place, end in ends:
        act_type, act, wgt_type, wgt = np.unravel_index(place, products.shape)
        codes = {"act": act, "wgt": wgt, "act_type": act_type, "wgt_type": wgt_type}
        shapes = {field.name: (longest + 1, field.lanes)[: 1 + (field.lanes > 1)] for field in spec.step_fields}
        steps = {name: np.full(shape, codes[name]) for name, shape in shapes.items()}
        steps |= {"first": np.arange(longest + 1) == 0, "last": np.ones(longest + 1)}
        found = spec.sums(steps)["psum"]
        exact = spec.lanes * end * np.arange(1, longest + 2)
        assert (found[:longest] == exact[:longest]).all()
        if exact[-1] >= half:
            assert found[-1] == exact[-1] - 2 * half
    greatest = max(end for _, end in ends)
    assert (longest + 1) * spec.lanes * greatest >= half  # not one step more, at least at one end
    assert longest * spec.lanes >= spec.depth - spec.lanes + 1


def operand_types(spec: FlintMac) -> list[tuple[str, range]]:
    return [(form, range(4) if form == "ant4" else range(1)) for form in (spec.act_format, spec.wgt_format)]


@pytest.mark.parametrize(
    ("params", "bits"),
    [
        ({}, 22),  # 4096 * 16 * 16 = 2**20 needs 22 bits, sign included
        ({"depth": 4095}, 21),
        ({"act_format": "int8"}, 25),  # 4096 * -128 * -16 = 2**23
        ({"act_format": "ant4", "wgt_format": "ant4"}, 26),
        ({"act_format": "flint6", "wgt_format": "flint6", "depth": 1 << 20}, 38),
    ],
)
def test_width_of_the_sum_follows_from_its_depth(params: dict[str, Any], bits: int) -> None:
    assert FlintMac(**params).psum_bits == bits


def test_cuts_are_the_ranges_of_the_products() -> None:
    cuts = FlintMac("int8", "flint4", lanes=2).cuts
    assert [(cut.wire, cut.low, cut.high) for cut in cuts] == [(f"aligned_{i}", -2048, 2048) for i in range(2)]
    assert FlintMac("int4", "flint5").cuts[0].high == 8 * 64


@pytest.mark.parametrize("spec", [*SPECS, FlintMac("int4", "flint4", lanes=1)], ids=lambda spec: spec.module_stem)
def test_quantised_rows_are_the_dot_of_the_codecs_values(spec: FlintMac) -> None:
    rng = np.random.default_rng(5)
    rows = [rng.standard_t(3, (24, 46)).astype(np.float32) for _ in range(2)]
    rows[1][:12] = rng.uniform(-1, 1, (12, 46))  # another type's shape
    fill = ((0, 0), (0, -46 % spec.lanes))
    decoded, types = [], []
    for form_name, values in zip((spec.act_format, spec.wgt_format), rows, strict=True):
        form = formats.get("ant4:choice=group" if form_name == "ant4" else form_name)
        encoded = form.encode(np.pad(values, fill))
        decoded.append(form.decode(encoded).astype(np.float64) / encoded.scales.astype(np.float64))
        types.append(0 if encoded.selectors is None else len(np.unique(encoded.selectors)))
    exact = np.rint((decoded[0] * decoded[1]).sum(axis=1))
    assert spec.sums(spec.quantised(*rows))["psum"].tolist() == exact.tolist()
    assert types[1] != 1


# Acceptance, errors


@pytest.mark.parametrize(
    ("wgt", "name", "kind", "reason"),
    [
        ("flint4", "flint4", "native", "flint4 codes are decoded inside the PE"),
        ("flint6", "flint6", "native", "flint6 codes are decoded inside the PE"),
        ("ant4", "ant4", "native", "ant4 codes are decoded inside the PE"),
        ("ant4", "ant4:choice=group", "native", "ant4:choice=group codes are decoded inside the PE"),
        ("ant4", "int4", "native", "int4 codes are decoded inside the PE"),
        ("ant4", "flint4", "native", "flint4 codes are decoded inside the PE"),
        ("ant4", "ant4:float=e2m1", "refused", "ant4:float=e2m1 has values that ant4 has not"),
        ("flint4", "int4", "refused", "int4 has values that flint4 has not"),
        ("flint4", "ant4", "refused", "ant4 has values that flint4 has not"),
        ("flint4", "flint5", "refused", "flint5 has not the codes of flint4"),
        ("ant4", "ovp4", "refused", "ovp4 has not the codes of ant4"),
        ("ant4", "int4_asym", "refused", "int4_asym has not the codes of ant4"),
    ],
)
def test_accepts(wgt: str, name: str, kind: str, reason: str) -> None:
    found = pe.stream("flint", wgt_format=wgt).accepts(name, 128)
    assert (found.kind, found.unit, found.reason) == (kind, None, reason)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"act_format": "fp4"}, "flint act_format = 'fp4': must be flint4, flint5, flint6, ant4, int4 or int8"),
        ({"wgt_format": "int4"}, "flint wgt_format = 'int4': must be flint4, flint5, flint6 or ant4"),
        ({"lanes": 0}, "flint lanes = 0: must be in 1..64"),
        ({"lanes": 65}, "flint lanes = 65: must be in 1..64"),
        ({"depth": 3}, "flint depth = 3: must be in 4..1048576, lanes or more (default 4096)"),
        ({"pipeline": 4}, "flint pipeline = 4: must be in 0..3"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pe.stream("flint", **params)
    assert str(caught.value) == message


def test_module_stem_and_timing() -> None:
    assert FlintMac().module_stem == "flint_mac_flint4_flint4_l4_p22_s0"
    assert len({spec.module_stem for spec in SPECS}) == len(SPECS)
    assert [spec.timing.latency_cycles for spec in SPECS] == [1, 2, 3, 4, 1]
    assert [spec.modes for spec in SPECS[:2]] == [(), ("act_type", "wgt_type")]
