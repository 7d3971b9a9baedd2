"""int8-mac behind a stream: exact integer sums, where they wrap, and its parameters."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.arch.pe.stream import FIRST, LAST, Steps


def wrapped(value: int, bits: int) -> int:
    """A Python integer modulo 2**bits, two's complement."""
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def random_steps(spec: Int8Stream, rows: int, length: int, seed: int) -> dict[str, np.ndarray]:
    act, wgt = np.random.default_rng(seed).integers(-128, 128, (2, rows * length, spec.lanes))
    first = (np.arange(rows * length) % length == 0).astype(np.int64)
    shaped = (part[:, 0] if spec.lanes == 1 else part for part in (act, wgt))
    return {**dict(zip(("act", "wgt"), shaped, strict=True)), FIRST: first, LAST: np.roll(first, -1)}


def exact_sums(steps: Steps, bits: int) -> list[int]:
    """By Python integers, a step after the other."""
    found, total = [], 0
    for act, wgt, first, last in zip(steps["act"], steps["wgt"], steps[FIRST], steps[LAST], strict=True):
        total = 0 if first else total
        total += sum(int(a) * int(w) for a, w in zip(np.atleast_1d(act), np.atleast_1d(wgt), strict=True))
        if last:
            found.append(wrapped(total, bits))
    return found


def coded_steps(spec: Int8Stream, rows: int, length: int, seed: int) -> tuple[dict[str, np.ndarray], Steps]:
    """Steps of weight codes, their mode one of two at every step; the same steps with the weights' values."""
    steps, rng = random_steps(spec, rows, length, seed), np.random.default_rng(seed + 1)
    code = rng.integers(0, 1 << spec.weight_bits, np.shape(steps["wgt"]))
    mode = rng.integers(0, 2, rows * length)
    taken = np.broadcast_to(mode.reshape(-1, *[1] * (code.ndim - 1)), code.shape) == 0
    half = 1 << (spec.weight_bits - 1)
    values = np.where(taken & (code >= half), code - 2 * half, code)
    return {**steps, "wgt": code, "wgt_unsigned": mode}, {**steps, "wgt": values}


@pytest.mark.parametrize(("lanes", "psum_bits"), [(1, 32), (1, 16), (4, 18), (5, 20), (64, 32)])
def test_sums_are_those_of_integers(lanes: int, psum_bits: int) -> None:
    spec = pe.stream("int8-mac", lanes=lanes, psum_bits=psum_bits)
    steps = random_steps(spec, 60, 7, seed=lanes)
    np.testing.assert_array_equal(spec.sums(steps)["psum"], exact_sums(steps, psum_bits))
    state = spec.start(60)
    for k in range(7):
        state = spec.step(state, {name: steps[name][k::7] for name in ("act", "wgt")})
    np.testing.assert_array_equal(spec.result(state)["psum"], exact_sums(steps, psum_bits))


@pytest.mark.parametrize(
    ("weight_bits", "lanes", "psum_bits"), [(2, 1, 16), (4, 4, 19), (4, 64, 32), (5, 3, 16), (7, 5, 20)]
)
def test_sums_of_codes_are_those_of_their_values(weight_bits: int, lanes: int, psum_bits: int) -> None:
    spec = pe.stream("int8-mac", weight_bits=weight_bits, lanes=lanes, psum_bits=psum_bits)
    steps, values = coded_steps(spec, 60, 7, seed=weight_bits)
    np.testing.assert_array_equal(spec.sums(steps)["psum"], exact_sums(values, psum_bits))
    np.testing.assert_array_equal(spec.sums(steps)["psum"], super(Int8Stream, spec).sums(steps)["psum"])


@pytest.mark.parametrize("weight_bits", [2, 3, 4])
def test_steps_and_sums_are_those_of_shift_add(weight_bits: int) -> None:
    """One payload for both, so that their hardware can be compared; sums of one bit width."""
    other = pe.stream("shift-add", weight_bits=weight_bits, lanes=4, group=256)
    spec = pe.stream("int8-mac", weight_bits=weight_bits, lanes=4, psum_bits=other.psum.bits)
    assert (spec.step_fields, spec.sum_fields, spec.modes) == (other.step_fields, other.sum_fields, other.modes)
    assert (spec.wgt, spec.psum) == (other.wgt, other.psum)
    assert (spec.products[0] * 4, spec.longest_sum) == (other.dot_low, other.longest_sum)
    steps, _ = coded_steps(spec, 40, 64, seed=20)
    np.testing.assert_array_equal(spec.sums(steps)["psum"], other.sums(steps)["psum"])


@pytest.mark.parametrize("weight_bits", range(2, 8))
def test_products_of_codes_reach_their_stated_ends_and_no_further(weight_bits: int) -> None:
    spec = pe.stream("int8-mac", weight_bits=weight_bits)
    values = np.arange(-(1 << (weight_bits - 1)), 1 << weight_bits)
    products = np.arange(-128, 128)[:, None] * values
    assert spec.products == (products.min(), products.max())
    assert [(cut.low, cut.high) for cut in spec.cuts] == [spec.products]


def test_first_and_last_may_stand_anywhere() -> None:
    """A first before a last drops a sum; a last without a first after it goes on."""
    spec = pe.stream("int8-mac", psum_bits=16)
    rng = np.random.default_rng(3)
    steps = {
        "act": rng.integers(-128, 128, 500), "wgt": rng.integers(-128, 128, 500),
        FIRST: rng.integers(0, 2, 500), LAST: rng.integers(0, 2, 500),
    }  # fmt: skip
    steps[FIRST][0] = 1
    np.testing.assert_array_equal(spec.sums(steps)["psum"], exact_sums(steps, 16))
    np.testing.assert_array_equal(spec.sums(steps)["psum"], super(Int8Stream, spec).sums(steps)["psum"])


@pytest.mark.parametrize(("lanes", "psum_bits"), [(1, 16), (4, 20), (3, 18)])
def test_the_longest_sum_fits_and_one_step_more_wraps(lanes: int, psum_bits: int) -> None:
    spec = pe.stream("int8-mac", lanes=lanes, psum_bits=psum_bits)
    assert spec.longest_sum is not None
    for length, fits in ((spec.longest_sum, True), (spec.longest_sum + 1, False)):
        count = np.full((length, lanes), -128)
        first = (np.arange(length) == 0).astype(np.int64)
        codes = count[:, 0] if lanes == 1 else count
        found = spec.sums({"act": codes, "wgt": codes, FIRST: first, LAST: np.roll(first, -1)})["psum"]
        assert (found[0] == length * lanes * 128 * 128) == fits


@pytest.mark.parametrize(("weight_bits", "lanes", "psum_bits"), [(4, 4, 19), (2, 1, 16), (7, 3, 18)])
def test_the_longest_sum_of_codes_fits_and_one_step_more_wraps(weight_bits: int, lanes: int, psum_bits: int) -> None:
    spec = pe.stream("int8-mac", weight_bits=weight_bits, lanes=lanes, psum_bits=psum_bits)
    largest = (1 << weight_bits) - 1
    assert spec.longest_sum is not None
    for act, extra, fits in ((-128, 0, True), (127, 0, True), (-128, 1, False)):
        length = spec.longest_sum + extra
        acts, codes = (np.full((length, lanes), code) for code in (act, largest))
        acts, codes = (acts[:, 0], codes[:, 0]) if lanes == 1 else (acts, codes)
        first, ones = (np.arange(length) == 0).astype(np.int64), np.ones(length, dtype=np.int64)
        steps = {"act": acts, "wgt": codes, "wgt_unsigned": ones, FIRST: first, LAST: np.roll(first, -1)}
        assert (spec.sums(steps)["psum"][0] == length * lanes * act * largest) == fits


def test_sums_are_those_of_the_systolic_cell() -> None:
    spec, cell = pe.stream("int8-mac", psum_bits=18), pe.get("int8-mac", psum_bits=18)
    steps = random_steps(spec, 50, 40, seed=8)
    acc = np.zeros(50, np.int64)
    for k in range(40):
        acc = cell.accumulate(acc, steps["act"][k::40], steps["wgt"][k::40])
    np.testing.assert_array_equal(spec.sums(steps)["psum"], acc)


def test_real_rows_are_scaled_and_padded() -> None:
    spec = pe.stream("int8-mac", lanes=4)
    act = np.array([[1, -2, 0.5, 0, 2], [0, 0, 0, 0, 0]], np.float32)
    steps = spec.quantised(act, 3 * act)
    np.testing.assert_array_equal(
        steps["act"], [[64, -127, 32, 0], [127, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    )  # 63.5 and 31.75 rounded, ties to even
    np.testing.assert_array_equal(steps["act"], steps["wgt"])
    np.testing.assert_array_equal(steps[FIRST], [1, 0, 1, 0])
    np.testing.assert_array_equal(steps[LAST], [0, 1, 0, 1])


def test_real_weights_are_scaled_to_their_bits() -> None:
    spec = pe.stream("int8-mac", weight_bits=4, lanes=2)
    steps = spec.quantised(np.array([[1, -2, 0.5]], np.float32), np.array([[1, -4, 0.6]], np.float32))
    np.testing.assert_array_equal(steps["act"], [[64, -127], [32, 0]])
    np.testing.assert_array_equal(steps["wgt"], [[2, 16 - 7], [1, 0]])  # 1.75, -7 and 1.05 rounded
    np.testing.assert_array_equal(steps["wgt_unsigned"], [0, 0])


# Interface


def test_contract_and_names() -> None:
    spec = pe.stream("int8-mac")
    variants = [pe.stream("int8-mac", **params) for params in spec.variants]
    assert [found.module_stem for found in variants] == [
        "int8_mac_l1_p32_s0", "int8_mac_l1_p24_s1", "int8_mac_l4_p32_s1", "int8_mac_l4_p20_s2",
        "int8_mac_w4_l4_p19_s1",
    ]  # fmt: skip
    assert [found.timing.latency_cycles for found in variants] == [1, 2, 2, 3, 2]
    assert [found.macs_per_step for found in variants] == [1, 1, 4, 4, 4]
    assert [(cut.wire, cut.low, cut.high) for cut in variants[2].cuts] == [
        (f"product_{lane}", -128 * 127, 128 * 128) for lane in range(4)
    ]
    assert spec.accepts("int4", 128) == pe.get("int8-mac").accepts("int4", 128)
    assert (spec.modes, variants[4].modes) == ((), ("wgt_unsigned",))
    assert variants[4].corners()["wgt"] == (0, 1, 7, 8, 15)


@pytest.mark.parametrize(
    ("weight_bits", "name", "kind", "unit", "reason"),
    [
        (4, "int4", "native", None, "int4 sign-extends to int4"),
        (4, "int3", "native", None, "int3 sign-extends to int4"),
        (4, "int5", "refused", None, "int5 decodes to integers -16..15, which do not fit int4"),
        (4, "int4_asym", "refused", None, "int4_asym decodes to integers -15..15, which do not fit int4"),
        (5, "int4_asym", "decoder", "weight-decoder", "int4_asym decodes to integers -15..15"),
        (3, "fp3_e2m0", "refused", None, "fp3_e2m0 decodes to integers -4..4, which do not fit int3"),
        (4, "fp3_e2m0", "decoder", "weight-decoder", "fp3_e2m0 decodes to integers -4..4"),
        (6, "bitmod_fp4", "decoder", "weight-decoder", "bitmod_fp4 decodes to integers -16..16"),
        (7, "int8_asym", "refused", None, "int8_asym decodes to integers -255..255, which do not fit int8"),
    ],
)
def test_narrow_weights_take_the_formats_that_fit(
    weight_bits: int, name: str, kind: str, unit: str | None, reason: str
) -> None:
    found = pe.stream("int8-mac", weight_bits=weight_bits).accepts(name, 128)
    assert (found.kind, found.unit, found.reason) == (kind, unit, reason)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lanes": 0}, "int8-mac lanes = 0: must be in 1..64"),
        ({"psum_bits": 33}, "int8-mac psum_bits = 33: must be in 16..32"),
        ({"pipeline": 3}, "int8-mac pipeline = 3: must be in 0..2"),
        ({"weight_bits": 1}, "int8-mac weight_bits = 1: must be in 2..8"),
        ({"weight_bits": 9}, "int8-mac weight_bits = 9: must be in 2..8"),
        (
            {"pipeline": 2},
            "int8-mac pipeline = 2: must be in 0..1 with lanes = 1 (one product needs no adder tree to cut)",
        ),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        pe.stream("int8-mac", **params)
    assert str(error.value) == message
