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


@pytest.mark.parametrize(("lanes", "psum_bits"), [(1, 32), (1, 16), (4, 18), (5, 20), (64, 32)])
def test_sums_are_those_of_integers(lanes: int, psum_bits: int) -> None:
    spec = pe.stream("int8-mac", lanes=lanes, psum_bits=psum_bits)
    steps = random_steps(spec, 60, 7, seed=lanes)
    np.testing.assert_array_equal(spec.sums(steps)["psum"], exact_sums(steps, psum_bits))
    state = spec.start(60)
    for k in range(7):
        state = spec.step(state, {name: steps[name][k::7] for name in ("act", "wgt")})
    np.testing.assert_array_equal(spec.result(state)["psum"], exact_sums(steps, psum_bits))


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


# Interface


def test_contract_and_names() -> None:
    spec = pe.stream("int8-mac")
    variants = [pe.stream("int8-mac", **params) for params in spec.variants]
    assert [found.module_stem for found in variants] == [
        "int8_mac_l1_p32_s0", "int8_mac_l1_p24_s1", "int8_mac_l4_p32_s1", "int8_mac_l4_p20_s2"
    ]  # fmt: skip
    assert [found.timing.latency_cycles for found in variants] == [1, 2, 2, 3]
    assert [found.macs_per_step for found in variants] == [1, 1, 4, 4]
    assert [(cut.wire, cut.low, cut.high) for cut in variants[2].cuts] == [
        (f"product_{lane}", -128 * 127, 128 * 128) for lane in range(4)
    ]
    assert spec.accepts("int4", 128) == pe.get("int8-mac").accepts("int4", 128)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lanes": 0}, "int8-mac lanes = 0: must be in 1..64"),
        ({"psum_bits": 33}, "int8-mac psum_bits = 33: must be in 16..32"),
        ({"pipeline": 3}, "int8-mac pipeline = 3: must be in 0..2"),
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
