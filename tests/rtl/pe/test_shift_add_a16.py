"""shift-add-a16 in Verilog: every code x activation x mode, every activation x exponent, long and real sums, cycles."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16, effective_exponent
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.pe import streaming

REPLAY = "pytest tests/rtl/pe/test_shift_add_a16.py"
RANDOM_STEPS = 200_000
VARIANTS = pytest.mark.parametrize("params", ShiftAddA16.variants, ids=str)


@VARIANTS
def test_verilog_is_clean_names_its_cuts_and_has_no_multiplier(params: dict[str, Any]) -> None:
    spec = ShiftAddA16(**params)
    text = streaming.verilog(spec)
    assert lint(text, spec.module_stem) == []
    body = text.replace("always @*", "").replace("(* ", "").replace(" *)", "")
    assert not re.findall(r"[^/]\*[^/]", body)
    wires = set(re.findall(r"^  (?:wire|reg) (?:\[\d+:0\] )?(\w+)", text, flags=re.MULTILINE))
    assert {cut.wire for cut in spec.cuts} | {spec.accumulator} <= wires


@VARIANTS
def test_every_code_activation_and_mode_is_exact_in_every_lane(params: dict[str, Any]) -> None:
    """Sums of one step; each has an exponent between the largest of its lanes and 31, so most are aligned."""
    spec = ShiftAddA16(**params)
    found = sum((bulk.check(spec, steps, replay=REPLAY) for steps in stimulus.every_pair(spec, 1)), bulk.NONE)
    assert found.macs == (1 << 16) * 2**spec.weight_bits * 2 * spec.lanes


def test_every_activation_is_exact_at_every_exponent_also_at_those_below_its_own() -> None:
    spec, rng = ShiftAddA16(pipeline=1, zero_points=True), np.random.default_rng(1)
    count = 1 << 16
    for exponent in range(32):
        one = np.ones(count, np.int64)
        steps = {
            "act": np.arange(count), "wgt": rng.integers(0, 16, count), "wgt_unsigned": rng.integers(0, 2, count),
            "exponent": np.full(count, exponent), "first": one, "last": one,
        }  # fmt: skip
        assert bulk.check(spec, steps, replay=REPLAY).sums == count
        flagged = spec.sums(steps)["nonfinite"].sum()
        assert flagged == 2 * 1024 * (31 - max(exponent, 1)) or (exponent == 31 and flagged == 2048)


@VARIANTS
def test_random_corner_and_real_sums_are_exact_in_the_stated_cycles(params: dict[str, Any]) -> None:
    spec, rng = ShiftAddA16(**params), np.random.default_rng(2)
    lengths = bulk.lengths_for(RANDOM_STEPS, rng)
    steps = stimulus.random_steps(spec, lengths, 3, corner_share=0.3)
    assert bulk.check(spec, steps, replay=REPLAY).steps == 162_258
    assert bulk.check(spec, finite(spec, steps), replay=REPLAY).steps == 162_258
    real = stimulus.real_steps(spec, 200, 4)
    assert not spec.sums(real)["nonfinite"].any()
    assert bulk.check(spec, real, replay=REPLAY).macs >= 200 * 256
    assert bulk.check(spec, stimulus.extreme_steps(spec, spec.longest_sum + 1), replay=REPLAY).sums >= 66


def finite(spec: ShiftAddA16, steps: Any) -> dict[str, np.ndarray]:
    """The same steps with the exponents of activations cut to 4 bits, and given exponents from 0 to 18."""
    cut = {**steps, "act": np.asarray(steps["act"]) & 0xBFFF, "exponent": np.asarray(steps["exponent"]) % 19}
    tamed = dict(spec.tame(cut))
    assert effective_exponent(tamed["act"]).max() == 15
    assert not spec.sums(tamed)["nonfinite"].any()
    return tamed


def test_a_dropped_sum_leaves_no_number_and_no_flag_and_a_sum_goes_on_after_its_result() -> None:
    spec, rng = ShiftAddA16(lanes=4, group=64, zero_points=True), np.random.default_rng(4)
    steps = dict(stimulus.random_steps(spec, np.ones(50_000, np.int64), 6))
    keep = rng.random(50_000) < 0.9  # a special activation in one step of about ten
    steps["act"] = np.where(keep[:, None], steps["act"] & 0xBFFF, steps["act"])
    steps["first"], steps["last"] = rng.integers(0, 5, 50_000) == 0, rng.integers(0, 4, 50_000) == 0
    steps["first"][0] = True
    steps = {name: values.astype(np.int64) for name, values in steps.items()}
    assert bulk.check(spec, steps, replay=REPLAY).sums > 12_000
    assert 0.02 < spec.sums(steps)["nonfinite"].mean() < 0.2
