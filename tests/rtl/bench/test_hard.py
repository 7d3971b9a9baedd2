"""Hard steps are what they are said to be: sums that climb, every prefix of them seen; products of subnormals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.pe.digits import PLACES, digits
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.arch.pe.stream import FIRST, LAST
from bitwright.rtl.bench.stream import bulk
from bitwright.rtl.bench.stream.hard import climbing_sums, small_operands

SEED = 4


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("opt1", {"lanes": 4, "resolve_cycles": 1, "pipeline": 1}),
        ("opt3", {"encoding": "mbe", "psum_bits": 24}),
        ("opt4c", {"rows": 2, "encoder": False, "psum_bits": 24, "pipeline": 1, "resolve_cycles": 3}),
    ],
)
def test_a_sum_climbs_at_four_fifths_of_the_steepest_and_one_falls(name: str, params: dict[str, Any]) -> None:
    print(f"seed {SEED}")
    spec: Any = pe.stream(name, **params)
    up, down = climbing_sums(spec, 2000, SEED)
    steepest = 128 * (128 if getattr(spec, "encodes", True) else 2 * 4 ** (PLACES - 1)) * getattr(spec, "lanes", 1)
    for steps, sign in ((up, 1), (down, -1)):
        assert steps[FIRST].tolist() == [1] + 999 * [0]
        assert steps[LAST].all()
        assert (sign * spec.products(steps) >= 0.8 * steepest).all()
        counts = bulk.check(spec, steps, replay="pytest tests/rtl/bench/test_hard.py")
        assert counts.sums == counts.steps == 1000


def test_each_plane_of_opt2_climbs_and_falls() -> None:
    print(f"seed {SEED}")
    spec: Any = pe.stream("opt2", lanes=3, psum_bits=24, pipeline=2, resolve_cycles=3)
    parts = list(climbing_sums(spec, 8500, SEED))
    assert [len(steps[FIRST]) for steps in parts] == [3200, 3200, 800, 800, 200, 200, 50, 50]
    for number, steps in enumerate(parts):
        plane = digits(spec.encoding, steps["wgt"])[..., number // 2] * np.asarray(steps["act"])
        assert (plane * (1, -1)[number % 2] >= 0.9 * 254).all()
        assert bulk.check(spec, steps, replay="pytest tests/rtl/bench/test_hard.py").sums == len(steps[FIRST])


def test_other_engines_have_none() -> None:
    assert list(climbing_sums(pe.stream("int8-mac"), 100, SEED)) == []
    assert list(climbing_sums(pe.stream("opt1", resolve_cycles=0), 100, SEED)) == []


def test_small_operands_end_in_a_subnormal_times_a_normal_beside_a_full_sum() -> None:
    spec = Fp16Stream()
    steps = small_operands(spec, 4000, 1)
    pairs = np.stack([steps["act"], steps["wgt"]]).reshape(2, -1, 4)
    exponents = pairs[:, :, 3] >> 10 & 31
    assert np.array_equal(np.sort(exponents, axis=0)[0], np.zeros(len(exponents[0]))), "one operand is subnormal"
    assert (exponents.max(axis=0) >= 16).all()
    values = pairs.astype(np.uint16).view(np.float16).astype(np.float64).prod(axis=0)
    before, last = values[:, :3].sum(axis=1), values[:, 3]
    ratio = np.abs(last / before)
    assert ((ratio > 2**-3) & (ratio < 2**10)).mean() > 0.9
    assert (before * last < 0).mean() > 0.8
