"""Column-edge units: every code and many random operands against the goldens, pipelines, lint, mutants."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch import pe as specs
from bitwright.arch.errors import ConfigError, FormatError
from bitwright.arch.pe import units
from bitwright.arch.pe.weight_codes import WeightCode, decodable
from bitwright.rtl import pe
from bitwright.rtl.bench.cocotb_runner import run_cocotb
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.operands import FP16_CORNERS, FP32_CORNERS, cross, fp32_near, integer_extremes
from bitwright.rtl.bench.verilator import Compiled, lint

DEQUANTISERS: list[dict[str, Any]] = [
    {"psum_bits": 32},
    {"psum_bits": 19, "act_sum_bits": 15, "zero_bits": 4},
    {"psum_bits": 32, "scale_code_bits": 8, "halves": True},
]
UNITS: list[tuple[str, dict[str, Any]]] = [
    *(("group-dequantiser", params) for params in DEQUANTISERS),
    ("fp32-accumulator", {}),
    ("weight-dequantiser", {"format": "bitmod_fp4", "scale_code_bits": 8}),
    ("weight-decoder", {"format": "bitmod_fp3"}),
]


@cache
def compiled(name: str, **params: Any) -> Compiled:
    return Compiled(pe.unit_verilog(name, **params), pe.unit_module_name(name, **params))


def run(design: Compiled, latency: int, **inputs: Any) -> np.ndarray:
    """The data output for each of n operands, one a cycle from a random state; `acc` of the group-dequantiser late."""
    late = "acc_take" in design.outputs
    count = max(len(np.atleast_1d(values)) for values in inputs.values())
    padded = {
        name: np.pad(np.broadcast_to(values, (count,)), (2, latency - 2) if late and name == "acc" else (0, latency))
        for name, values in inputs.items()
    }
    output = next(name for name in design.outputs if name not in ("valid_out", "acc_take"))
    with design.open(random_state=True) as running:
        running.reset()
        out = running.run({"valid": np.pad(np.ones(count, np.uint64), (0, latency)), **padded})
    assert out["valid_out"].tolist() == [0] * latency + [1] * count
    return np.asarray(out[output][latency:])


def first_difference(got: np.ndarray, expected: np.ndarray, **inputs: Any) -> str | None:
    """None, or the first operands that differ."""
    wrong = np.flatnonzero(got != expected)
    if not len(wrong):
        return None
    at = wrong[0]
    given = {name: hex(int(np.broadcast_to(values, got.shape)[at])) for name, values in inputs.items()}
    return f"[{at}] got {int(got[at]):#x}, must be {int(expected[at]):#x}, {given}; {len(wrong)} differ"


def dequantiser_operands(params: dict[str, Any], count: int, seed: int) -> dict[str, np.ndarray]:
    """Corners crossed, then random sums of all sizes, with accumulators near the scaled sum."""
    spec, rng = units.GroupDequantiser(**params), np.random.default_rng(seed)
    psums = np.asarray(integer_extremes(spec.psum_bits))
    index, scale = cross(np.arange(len(psums)), FP16_CORNERS)
    bits = spec.psum_bits
    random = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), count) >> rng.integers(0, bits, count)
    inputs = {
        "psum": np.concatenate([psums[index.astype(int)], random]),
        "scale": np.concatenate([scale, rng.integers(0, 1 << 16, count)]).astype(np.uint16),
    }
    total = len(inputs["psum"])
    if spec.zero_bits:
        half = 1 << (spec.act_sum_bits - 1)
        inputs["act_sum"] = rng.integers(-half, half, total)
        inputs["zero"] = rng.integers(0, 1 << spec.zero_bits, total)
    if spec.scale_code_bits:
        inputs["scale_code"] = rng.integers(0, 1 << spec.scale_code_bits, total)
    if spec.halves:
        inputs["halve"] = rng.integers(0, 2, total)
    scaled = golden_dequantised(params, np.zeros(total, np.uint64), inputs)
    inputs["acc"] = fp32_near(scaled.astype(np.uint32).view(np.float32), seed + 1)
    return inputs


def golden_dequantised(params: dict[str, Any], acc: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
    others = {name: values for name, values in inputs.items() if name not in ("psum", "scale", "acc")}
    scale = inputs["scale"].view(np.float16)
    out = units.GroupDequantiser(**params).dequantise(
        acc.astype(np.uint32).view(np.float32), inputs["psum"], scale, **others
    )
    return out.view(np.uint32)


# Exhaustive

DEQUANTISED = [name for name in formats.names() if decodable(name) or name == "bf16"]
DECODED = [name for name in formats.names() if specs.get("int8-mac").accepts(name, 128).kind == "decoder"]


@cache
def bundle(name: str, formats_: tuple[str, ...]) -> Compiled:
    """One design with a unit of each format side by side, fed from the low bits of common inputs: one compilation."""
    declarations, instances, modules = [], [], []
    widths: dict[str, int] = {}
    for form in formats_:
        text, top = pe.unit_verilog(name, format=form), pe.unit_module_name(name, format=form)
        ports = ports_of(text, top)
        wires = [f".clk(clk), .wgt(wgt_{form})"]
        for port in ports:
            if not port.output:
                widths[port.name] = max(port.bits, widths.get(port.name, 0))
                wires.append(
                    f".{port.name}({port.name}[{port.bits - 1}:0])" if port.bits > 1 else f".{port.name}({port.name})"
                )
        bits = next(port.bits for port in ports if port.name == "wgt")
        declarations.append(f"  output [{bits - 1}:0] wgt_{form};")
        instances.append(f"  {top} u_{form} ({', '.join(wires)}, .valid_out());")
        modules.append(text)
    declarations += [f"  input {f'[{bits - 1}:0] ' if bits > 1 else ''}{port};" for port, bits in widths.items()]
    names = ["clk", *widths, *(f"wgt_{form}" for form in formats_)]
    header = [f"module bundle({', '.join(names)});", "  input clk;"]
    return Compiled("\n".join([*header, *declarations, *instances, "endmodule", *modules]), "bundle", optimise="-O1")


def codes(rule: WeightCode, *more: Any) -> dict[str, np.ndarray]:
    """Every code, zero point and selector of a format, crossed with the values in `more` (named "scale")."""
    axes = {"code": rule.code_bits, "zero": rule.zero_bits, "selector": rule.selector_bits}
    axes = {axis: bits for axis, bits in axes.items() if bits}
    names = [*axes, *(["scale"] if more else [])]
    return dict(zip(names, cross(*(np.arange(1 << bits) for bits in axes.values()), *more), strict=True))


def run_bundle(design: Compiled, form: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with design.open(random_state=True) as running:
        out = running.run({"valid": 1, **{name: np.pad(values, (0, 1)) for name, values in inputs.items()}})
    return np.asarray(out[f"wgt_{form}"][1:])


@pytest.mark.parametrize("name", DEQUANTISED)
def test_weight_dequantiser_is_right_for_every_code_zero_and_selector(name: str) -> None:
    spec, rng = units.WeightDequantiser(name), np.random.default_rng(1)
    if spec.is_bf16:
        inputs = {"code": np.arange(1 << 16, dtype=np.uint64)}
    else:
        scales = [*FP16_CORNERS, *rng.integers(0, 1 << 16, 40)]
        inputs = codes(spec.code, scales[::8] if spec.code.zero_bits > 6 else scales)
    given = {port: values for port, values in inputs.items() if port != "code"}
    if "scale" in given:
        given["scale"] = given["scale"].astype(np.uint16).view(np.float16)
    expected = spec.dequantise(inputs["code"], **given).view(np.uint16)
    got = run_bundle(bundle("weight-dequantiser", tuple(DEQUANTISED)), name, inputs)
    assert first_difference(got, expected, **inputs) is None


@pytest.mark.parametrize("name", DECODED)
def test_weight_decoder_is_right_for_every_code_zero_and_selector(name: str) -> None:
    spec = units.WeightDecoder(name)
    inputs = codes(spec.code)
    expected = spec.decode(**{"codes" if port == "code" else port: values for port, values in inputs.items()})
    got = run_bundle(bundle("weight-decoder", tuple(DECODED)), name, inputs)
    np.testing.assert_array_equal(got.astype(np.uint8).view(np.int8), expected)


# Random


@pytest.mark.parametrize("params", DEQUANTISERS, ids=str)
def test_group_dequantiser_rounds_once_for_scale_and_once_for_sum(params: dict[str, Any]) -> None:
    inputs = dequantiser_operands(params, 500_000, seed=2)
    expected = golden_dequantised(params, inputs["acc"], inputs)
    assert first_difference(run(compiled("group-dequantiser", **params), 3, **inputs), expected, **inputs) is None


def test_fp32_accumulator_is_ieee_addition() -> None:
    rng = np.random.default_rng(3)
    acc, psum = cross(FP32_CORNERS, FP32_CORNERS)
    wild = rng.integers(0, 1 << 32, 1_000_000).astype(np.uint32)
    small = rng.integers(0, 8, len(wild)) == 0
    wild = np.where(small, wild & np.uint32(0x81FFFFFF), wild)  # subnormal sums
    huge = rng.integers(0, 16, len(wild)) == 0
    wild = np.where(huge, wild | np.uint32(0x7F000000), wild)  # overflow
    acc = np.concatenate([acc, wild])
    psum = np.concatenate([psum, fp32_near(wild.view(np.float32), 4)])
    floats = [bits.astype(np.uint32).view(np.float32) for bits in (acc, psum)]
    expected = units.Fp32Accumulator().accumulate(*floats).view(np.uint32)
    got = run(compiled("fp32-accumulator"), 1, acc=acc, psum=psum)
    assert first_difference(got, expected, acc=acc, psum=psum) is None
    assert (np.isinf(expected.view(np.float32)) & np.isfinite(floats[0]) & np.isfinite(floats[1])).any()


def test_weight_dequantiser_with_a_second_level_scale_rounds_once() -> None:
    params = {"format": "bitmod_fp4", "scale_code_bits": 8}
    rng = np.random.default_rng(5)
    bits = {"code": 4, "selector": 2, "scale": 16, "scale_code": 8}
    inputs = {port: rng.integers(0, 1 << width, 300_000) for port, width in bits.items()}
    others = {port: inputs[port] for port in ("selector", "scale_code")}
    scale = inputs["scale"].astype(np.uint16).view(np.float16)
    expected = units.WeightDequantiser(**params).dequantise(inputs["code"], scale, **others).view(np.uint16)
    got = run(compiled("weight-dequantiser", **params), 1, **inputs)
    assert first_difference(got, expected, **inputs) is None


# Protocol


@pytest.mark.parametrize(("name", "params"), [UNITS[0], UNITS[3], UNITS[5]])
def test_valid_passes_through_the_pipeline(name: str, params: dict[str, Any]) -> None:
    text, top = pe.unit_verilog(name, **params), pe.unit_module_name(name, **params)
    plusargs = {"unit": name, "params": json.dumps(params), "seed": 1}
    assert run_cocotb(text, top, "bitwright.rtl.bench.cocotb_units", plusargs=plusargs) == [
        "valid_comes_out_after_the_latency_and_reset_loses_it"
    ]


@pytest.mark.parametrize(("name", "params"), UNITS)
def test_verilog_is_one_module_the_same_each_time_and_lint_clean(name: str, params: dict[str, Any]) -> None:
    text, top = pe.unit_verilog(name, **params), pe.unit_module_name(name, **params)
    assert pe.unit_verilog(name, **params) == text
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [top]
    assert lint(text, top) == []


# Tests that can fail

MUTANTS = [
    (r"product_round_up = (.*) & (.*);", r"product_round_up = \1;"),
    (r"add_a_larger = (\S+) >= ", r"add_a_larger = \1 < "),
    (r"\$signed\(psum\) - ", "$signed(psum) + "),
    (r"add_sum_places = (.*) \? (.*) : (.*);", r"add_sum_places = \3;"),
]


@pytest.mark.parametrize(("pattern", "replacement"), MUTANTS)
def test_a_mutated_group_dequantiser_is_caught(pattern: str, replacement: str) -> None:
    params = DEQUANTISERS[1]
    text, top = pe.unit_verilog("group-dequantiser", **params), pe.unit_module_name("group-dequantiser", **params)
    mutant, count = re.subn(pattern, replacement, text, count=1)
    assert count == 1, f"nothing to mutate: {pattern}"
    inputs = dequantiser_operands(params, 100_000, seed=6)
    expected = golden_dequantised(params, inputs["acc"], inputs)
    assert first_difference(run(Compiled(mutant, top, optimise="-O0"), 3, **inputs), expected, **inputs) is not None


# Errors


def test_wrong_parameters_are_refused() -> None:
    known = f"known: {', '.join(units.names())}"
    with pytest.raises(ConfigError) as unit:
        pe.unit_verilog("weight-decode")
    assert str(unit.value) == f"unit = 'weight-decode': no such edge unit (did you mean 'weight-decoder'? ({known}))"
    with pytest.raises(ConfigError) as span:
        pe.unit("weight-decoder", format="int8_asym")
    assert str(span.value) == "weight-decoder format = int8_asym: decodes to -255..255, must fit -128..127"
    with pytest.raises(FormatError) as form:
        pe.unit("weight-decoder", format="fp16")
    assert str(form.value) == (
        "format = fp16: has no integer codes of at most 8 bits to decode (use a format with a scale); weight_code"
    )
