"""shift-add stream in Verilog: every code, activation and mode, long and real sums, cycles, and the unit behind it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.pe.shift_add_stream import ShiftAddStream
from bitwright.rtl import pe
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.stream.packing import step_words, sum_words, unpack
from bitwright.rtl.bench.verilator import Compiled, Stream, lint
from bitwright.rtl.pe import streaming

REPLAY = "pytest tests/rtl/pe/test_shift_add_stream.py"
RANDOM_STEPS = 200_000
VARIANTS = pytest.mark.parametrize("params", ShiftAddStream.variants, ids=str)


@VARIANTS
def test_verilog_is_clean_names_its_cuts_and_has_no_multiplier(params: dict[str, Any]) -> None:
    spec = ShiftAddStream(**params)
    text = streaming.verilog(spec)
    assert lint(text, spec.module_stem) == []
    body = text.replace("always @*", "").replace("(* ", "").replace(" *)", "")
    assert not re.findall(r"[^/]\*[^/]", body)
    wires = set(re.findall(r"^  (?:wire|reg) (?:\[\d+:0\] )?(\w+)", text, flags=re.MULTILINE))
    assert {cut.wire for cut in spec.cuts} | {spec.accumulator} <= wires


@VARIANTS
def test_every_code_activation_and_mode_is_exact_in_every_lane(params: dict[str, Any]) -> None:
    spec = ShiftAddStream(**params)
    found = sum((bulk.check(spec, steps, replay=REPLAY) for steps in stimulus.every_pair(spec, 1)), bulk.NONE)
    assert found.macs == 256 * 2**spec.weight_bits * 2 * spec.lanes


@VARIANTS
def test_random_corner_and_real_sums_are_exact_in_the_stated_cycles(params: dict[str, Any]) -> None:
    spec, rng = ShiftAddStream(**params), np.random.default_rng(2)
    lengths = bulk.lengths_for(RANDOM_STEPS, rng)
    assert bulk.check(spec, stimulus.random_steps(spec, lengths, 3, corner_share=0.3), replay=REPLAY).steps == 162_258
    assert bulk.check(spec, stimulus.real_steps(spec, 200, 4), replay=REPLAY).macs >= 200 * 256
    assert bulk.check(spec, stimulus.extreme_steps(spec, spec.longest_sum + 1), replay=REPLAY).sums >= 12


def test_sixteen_lanes_are_exact() -> None:
    spec, rng = ShiftAddStream(lanes=16, group=4096, pipeline=1, zero_points=True), np.random.default_rng(3)
    steps = stimulus.random_steps(spec, bulk.lengths_for(20_000, rng), 5, corner_share=0.3)
    assert bulk.check(spec, steps, replay=REPLAY).steps == 15_599
    assert bulk.check(spec, stimulus.extreme_steps(spec, spec.longest_sum + 1), replay=REPLAY).sums >= 12


def test_a_dropped_sum_leaves_nothing_and_a_sum_goes_on_after_its_result() -> None:
    spec, rng = ShiftAddStream(lanes=4, zero_points=True), np.random.default_rng(4)
    steps = dict(stimulus.random_steps(spec, np.ones(50_000, np.int64), 6))
    steps["first"], steps["last"] = rng.integers(0, 5, 50_000) == 0, rng.integers(0, 4, 50_000) == 0
    steps["first"][0] = True
    steps = {name: values.astype(np.int64) for name, values in steps.items()}
    assert bulk.check(spec, steps, replay=REPLAY).sums > 12_000


def test_the_group_dequantiser_in_verilog_turns_the_sums_into_fp32_rows() -> None:
    """Sums out of the compiled PE through the compiled unit, three groups a row, against integers and float64."""
    spec, rows, group = ShiftAddStream(pipeline=1, zero_points=True), 40, 128
    params = {"psum_bits": spec.psum.bits, "act_sum_bits": spec.act_sum_bits, "zero_bits": 4}
    rng = np.random.default_rng(7)
    weights = (rng.standard_normal((rows, 3 * group)) + rng.standard_normal((rows, 1))).astype(np.float32)
    encoded = formats.get("int4_asym").encode(weights, group=group)
    assert encoded.zeros is not None
    codes, zeros = encoded.codes.astype(np.int64), encoded.zeros.astype(np.int64)
    scales = encoded.scales.astype(np.float16)
    acts = rng.integers(-128, 128, (rows, 3 * group))
    first = (np.arange(acts.size) % group == 0).astype(np.int64)
    steps = {"act": acts.ravel(), "wgt": codes.ravel(), "wgt_unsigned": np.ones(acts.size, np.int64), "first": first}
    sums = _sums_in_verilog(spec, {**steps, "last": np.roll(first, -1)}, rows * 3)
    psum, act_sum = (sums[name].reshape(rows, 3) for name in ("psum", "act_sum"))
    grouped = acts.reshape(rows, 3, group)
    centred = codes.reshape(rows, 3, group) - zeros[:, :, None]
    exact = (grouped * centred).sum(axis=2)
    assert (psum - zeros * act_sum == exact).all()
    unit = Compiled(pe.unit_verilog("group-dequantiser", **params), pe.unit_module_name("group-dequantiser", **params))
    out = np.zeros(rows, np.float32)
    for index in range(3):
        with unit.open(random_state=True) as running:
            running.reset()
            inputs = {
                "valid": np.ones(rows + 3, np.uint64), "psum": _late(psum[:, index], 0),
                "act_sum": _late(act_sum[:, index], 0), "zero": _late(zeros[:, index], 0),
                "scale": _late(scales[:, index].view(np.uint16), 0), "acc": _late(out.view(np.uint32), 2),
            }  # fmt: skip
            got = running.run(inputs)["out"][3:].astype(np.uint32).view(np.float32)
        # 19-bit integers times 11-bit significands: exact in float64, then the unit's two stated roundings
        scaled = (scales[:, index].astype(np.float64) * exact[:, index]).astype(np.float32)
        out = out + scaled
        assert (got == out).all()


def _late(values: np.ndarray, cycles: int) -> np.ndarray:
    return np.pad(values.astype(np.int64), (cycles, 3 - cycles))


def _sums_in_verilog(spec: ShiftAddStream, steps: dict[str, np.ndarray], expected: int) -> dict[str, np.ndarray]:
    with bulk.compiled(spec).open(random_state=True) as running:
        running.reset()
        stream = Stream("step__valid", "step__ready", {"step__payload": step_words(spec, steps)})
        cycles = len(steps["first"]) + spec.timing.latency_cycles + 1
        seen = running.stream(
            [stream], capture="sum__valid", expected=expected, idle={"sum__ready": 1}, max_cycles=cycles
        )
    return unpack(spec.sum_fields, sum_words(spec, seen.outputs["sum__payload"]))
