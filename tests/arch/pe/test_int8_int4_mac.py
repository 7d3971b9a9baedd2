"""int8-int4-mac: exact integer sums in both modes, where they wrap, its formats and parameters."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.int8_int4_mac import Int8Int4Mac
from bitwright.arch.pe.stream import FIRST, LAST


def signed(value: int, bits: int) -> int:
    """The low `bits` bits of a Python integer, two's complement."""
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def products(acts: list[int], weights: list[int], int4: int) -> int:
    """The lanes' total, from the docstring's words."""
    total = 0
    for lane, byte in enumerate(weights):
        if int4:
            total += acts[2 * lane] * signed(byte, 4) + acts[2 * lane + 1] * signed(byte >> 4, 4)
        else:
            total += acts[2 * lane] * byte
    return total


@pytest.mark.parametrize(("lanes", "psum_bits"), [(1, 32), (1, 16), (4, 19), (7, 24), (32, 32)])
def test_sums_are_those_of_integers_in_mixed_modes(lanes: int, psum_bits: int) -> None:
    spec, rng, rows, length = (
        pe.stream("int8-int4-mac", lanes=lanes, psum_bits=psum_bits),
        np.random.default_rng(1),
        60,
        6,
    )
    act = rng.integers(-128, 128, (rows * length, 2 * lanes))
    wgt, int4 = rng.integers(-128, 128, (rows * length, lanes)), rng.integers(0, 2, rows * length)
    first = (np.arange(rows * length) % length == 0).astype(np.int64)
    fields = {"act": act, "wgt": wgt[:, 0] if lanes == 1 else wgt, "int4": int4}
    each = [products(a.tolist(), w.tolist(), int(mode)) for a, w, mode in zip(act, wgt, int4, strict=True)]
    expected = [signed(sum(each[at : at + length]), psum_bits) for at in range(0, rows * length, length)]
    np.testing.assert_array_equal(spec.sums({**fields, FIRST: first, LAST: np.roll(first, -1)})["psum"], expected)
    state = spec.start(rows)
    for k in range(length):
        state = spec.step(state, {name: values[k::length] for name, values in fields.items()})
    np.testing.assert_array_equal(spec.result(state)["psum"], expected)


@pytest.mark.parametrize("int4", [0, 1])
def test_totals_of_all_operands_lie_in_the_cuts_range(int4: int) -> None:
    """One lane: every byte with the activations that can be extreme."""
    spec = Int8Int4Mac()
    ends = np.array([-128, -127, -1, 0, 1, 126, 127])
    first, second, byte = (axis.ravel() for axis in np.meshgrid(ends, ends, np.arange(-128, 128), indexing="ij"))
    dots = spec.dots({"act": np.stack([first, second], axis=1), "wgt": byte, "int4": np.full(len(byte), int4)})
    (cut,) = spec.cuts
    assert (cut.wire, cut.low, cut.high) == ("dot", -128 * 127, 128 * 128)
    assert (dots.min(), dots.max()) == ((-2 * 127 * 8, 2 * 128 * 8) if int4 else (cut.low, cut.high))


@pytest.mark.parametrize(("lanes", "psum_bits"), [(1, 16), (4, 20)])
def test_the_longest_sum_fits_and_one_step_more_wraps(lanes: int, psum_bits: int) -> None:
    spec = pe.stream("int8-int4-mac", lanes=lanes, psum_bits=psum_bits)
    assert spec.longest_sum is not None
    for length, fits in ((spec.longest_sum, True), (spec.longest_sum + 1, False)):
        wgt = np.full((length, lanes), -128)
        first = (np.arange(length) == 0).astype(np.int64)
        steps = {
            "act": np.full((length, 2 * lanes), -128), "wgt": wgt[:, 0] if lanes == 1 else wgt,
            "int4": np.zeros(length, np.int64), FIRST: first, LAST: np.roll(first, -1),
        }  # fmt: skip
        assert (spec.sums(steps)["psum"][0] == length * lanes * 128 * 128) == fits


def test_int8_mode_is_int8_mac() -> None:
    mixed, plain = pe.stream("int8-int4-mac", lanes=4), pe.stream("int8-mac", lanes=4)
    rng = np.random.default_rng(2)
    act, wgt = rng.integers(-128, 128, (200, 8)), rng.integers(-128, 128, (200, 4))
    flags = {FIRST: np.ones(200, np.int64), LAST: np.ones(200, np.int64)}
    found = mixed.sums({"act": act, "wgt": wgt, "int4": np.zeros(200, np.int64), **flags})["psum"]
    np.testing.assert_array_equal(found, plain.sums({"act": act[:, ::2], "wgt": wgt, **flags})["psum"])


def test_real_rows_alternate_between_the_modes() -> None:
    spec = pe.stream("int8-int4-mac", lanes=2)
    act = np.array([[127, -64, 3, 0, 5], [127, -64, 3, 0, 5]], np.float32)
    wgt = np.array([[127, 1, 2, 3, 4], [7, -7, 2, 3, 4]], np.float32)
    steps = spec.quantised(act, wgt)
    np.testing.assert_array_equal(steps["int4"], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(steps[FIRST], [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(steps[LAST], [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(
        steps["act"], [[127, 0, -64, 0], [3, 0, 0, 0], [5, 0, 0, 0], [127, -64, 3, 0], [5, 0, 0, 0]]
    )
    np.testing.assert_array_equal(steps["wgt"], [[127, 1], [2, 3], [4, 0], [signed(0x97, 8), 0x32], [4, 0]])
    exact = [int((act[row] * wgt[row]).sum()) for row in range(2)]
    np.testing.assert_array_equal(spec.sums(steps)["psum"], exact)


# Interface


def test_contract_and_names() -> None:
    spec = pe.stream("int8-int4-mac")
    variants = [pe.stream("int8-int4-mac", **params) for params in spec.variants]
    assert [found.module_stem for found in variants] == [
        "int8_int4_mac_l1_p32_s0", "int8_int4_mac_l4_p32_s1", "int8_int4_mac_l4_p24_s2"
    ]  # fmt: skip
    assert [found.timing.latency_cycles for found in variants] == [1, 2, 3]
    both = {"int4": np.asarray([0, 1])}
    assert [found.macs(both).tolist() for found in variants] == [[1, 2], [4, 8], [4, 8]]


def test_formats_that_fit_int4_go_two_a_byte() -> None:
    spec = pe.stream("int8-int4-mac")
    assert spec.accepts("int3", 128).reason == "int3 sign-extends to int4, two weights a byte"
    for name in ("int5", "int8", "int4_asym", "fp4_e2m1", "fp16"):
        assert spec.accepts(name, 128) == pe.get("int8-mac").accepts(name, 128)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lanes": 33}, "int8-int4-mac lanes = 33: must be in 1..32"),
        ({"psum_bits": 15}, "int8-int4-mac psum_bits = 15: must be in 16..32"),
        ({"pipeline": 3}, "int8-int4-mac pipeline = 3: must be in 0..2"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        pe.stream("int8-int4-mac", **params)
    assert str(error.value) == message
