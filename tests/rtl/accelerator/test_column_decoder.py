# amaranth: UnusedElaboratable=no
"""The border of a column against the goldens: every code, zero point and format of a machine, and holding."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Signal
from bitwright.arch import machine
from bitwright.arch.isa.limits import Limits, TileFormat, limits
from bitwright.arch.pe import units
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.shift_add import ShiftAdd
from bitwright.arch.pe.weight_codes import weight_code
from bitwright.rtl.accelerator.column_decoder import (
    ColumnDecoder,
    column_decoder_verilog,
    column_unit,
    column_unit_verilog,
    counts_halves,
    decoder,
    unsigned_codes,
    weight_scale,
    weight_zero_bits,
)
from bitwright.rtl.array import SystolicArray
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.operands import FP16_CORNERS, cross
from bitwright.rtl.bench.verilator import Compiled, lint

INPUT_BITS = {"en": 1, "format": 4, "code": 16, "scale": 16, "zero": 8}

# What a machine is asked for: its name, and formats (none: what it has unless told).
MACHINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "int8": ("int8-16x16", ()),
    "fp16": ("fp16-4x4", ()),
    "codes": ("shift-add-4x4", ()),
    "int8-more": ("int8-4x4", ("int6", "fp4_e2m1", "int7_asym", "int2_asym", "int8", "fp3_e2m0")),
    "fp16-more": ("fp16-4x4", ("int8_asym", "bf16", "int3", "fp4_e2m1", "int2_asym")),
    "codes-more": ("shift-add-4x4", ("int2", "int3_asym", "int3", "int2_asym")),
    "int8-only": ("int8-4x4", ("int8",)),
    "fp16-only": ("fp16-4x4", ("fp16",)),
    "one-decoder": ("int8-4x4", ("int4_asym",)),
}
CODES = [(name, index) for name in MACHINES for index in range(len(MACHINES[name][1]) or 4)]


@cache
def of(name: str) -> Limits:
    which, formats = MACHINES[name]
    return limits(machine.load(which), formats=formats or None)


@cache
def verilog_of(name: str) -> tuple[str, str]:
    return column_decoder_verilog(of(name))


@cache
def compiled() -> Compiled:
    """Every machine's decoder side by side, on common inputs: one compilation."""
    inputs = {port: Signal(bits, name=port) for port, bits in INPUT_BITS.items()}
    m, outs = Module(), []
    for name in MACHINES:
        made = ColumnDecoder(of(name))
        members = made.signature.members
        outs.append(Signal(members["wgt"].shape, name=f"{name.replace('-', '_')}_wgt"))
        wires = {f"i_{port}": inputs[port][: len(getattr(made, port))] for port in members if port != "wgt"}
        m.submodules += Instance(made.module_name, i_clk=ClockSignal(), i_rst=ResetSignal(), o_wgt=outs[-1], **wires)
    text: str = backend.convert(m, name="bench", ports=[*inputs.values(), *outs], emit_src=False)
    return Compiled("\n".join([text, *(verilog_of(name)[1] for name in MACHINES)]), "bench", optimise="-O0")


def golden(
    limit: Limits, form: TileFormat, code: npt.NDArray[Any], zero: npt.NDArray[Any], scale: npt.NDArray[Any]
) -> npt.NDArray[np.uint64]:
    """The bits of the weights that the array must get, as `arch.isa.arithmetic` makes them."""
    zeros = zero & ((1 << form.zero_bits) - 1)
    if limit.pe.name == "fp16-mac":
        if form.name == "fp16":
            return code.astype(np.uint64)
        spec = units.WeightDequantiser(form.name)
        scales = scale.astype(np.uint16).view(np.float16) if form.scale else 1.0
        return spec.dequantise(code, scales, zero=zeros).view(np.uint16).astype(np.uint64)
    rule = weight_code(form.name)
    if limit.pe.name == "int8-mac":
        return (rule.integers(code, zeros) & 0xFF).astype(np.uint64)
    assert limit.pe.name == "shift-add"
    return (rule.integers(code) & 0xF).astype(np.uint64)  # the zero point column takes the zeros off


def every_operand(limit: Limits, index: int, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """Every code and zero point of a format, with every corner of the scale where it is short; the rest random."""
    form = limit.formats[index]
    codes, zeros = np.arange(1 << form.bits), np.arange(1 << form.zero_bits)
    scales = FP16_CORNERS if form.scale and weight_scale(limit) and form.bits + form.zero_bits <= 12 else np.arange(1)
    code, zero, scale = cross(codes, zeros, scales)
    count = len(code)
    if not (form.scale and form.bits + form.zero_bits <= 12):
        scale = rng.integers(0, 1 << 16, count)
    return {
        "code": code.astype(np.int64) | rng.integers(0, 1 << 16, count) << form.bits,  # what is above is not looked at
        "zero": zero.astype(np.int64) | rng.integers(0, 1 << 16, count) << form.zero_bits,
        "scale": np.asarray(scale, np.int64),
        "format": np.full(count, index),
    }


def run(name: str, inputs: dict[str, Any]) -> npt.NDArray[np.uint64]:
    """`wgt` of every cycle."""
    with compiled().open(random_state=True) as running:
        return np.asarray(running.run(inputs)[f"{name.replace('-', '_')}_wgt"], np.uint64)


@pytest.mark.parametrize(("name", "index"), [(name, index) for name, index in CODES if index < len(of(name).formats)])
def test_every_code_and_zero_point_of_a_format(name: str, index: int) -> None:
    limit, rng = of(name), np.random.default_rng(index)
    operands = every_operand(limit, index, rng)
    got = run(name, {**operands, "en": 1})
    form = limit.formats[index]
    code = operands["code"] & ((1 << form.bits) - 1)
    want = golden(limit, form, code, operands["zero"], operands["scale"])
    wrong = np.flatnonzero(got[1:] != want[:-1])
    at = int(wrong[0]) if len(wrong) else 0
    assert not len(wrong), (
        f"{name} {form.name}: {len(wrong)} differ, the first for code {code[at]:#x}, zero {operands['zero'][at]:#x}, "
        f"scale {operands['scale'][at]:#x}: {got[at + 1]:#x}, must be {want[at]:#x}"
    )
    assert len(code) >= 1 << (form.bits + form.zero_bits)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_formats_mixed_and_the_weight_stays_while_en_is_low(name: str, share: float) -> None:
    limit, rng, cycles = of(name), np.random.default_rng(int(10 * share)), 6000
    en = rng.random(cycles) < share
    operands = {port: rng.integers(0, 1 << 16, cycles) for port in ("code", "zero", "scale")}
    operands["format"] = rng.integers(0, len(limit.formats), cycles)
    got = run(name, {**operands, "en": en})
    want = np.zeros(cycles, np.uint64)
    for index, form in enumerate(limit.formats):
        code = operands["code"] & ((1 << form.bits) - 1)
        values = golden(limit, form, code, operands["zero"], operands["scale"])
        want = np.where(operands["format"] == index, values, want)
    first = int(np.argmax(en))
    last_taken = np.maximum.accumulate(np.where(en, np.arange(cycles), 0))
    np.testing.assert_array_equal(got[first + 1 :], want[last_taken[first:-1]], err_msg=f"{name}, en {share}")


def test_reset_does_not_touch_a_weight() -> None:
    inputs = {"code": 5, "format": 1, "scale": 0x3C00, "en": [1, 0, 0, 0], "rst": [0, 1, 1, 0]}
    for name in ("int8", "fp16", "codes"):
        wgt = run(name, inputs)[1:]
        assert wgt.tolist() == [wgt[0]] * 3
        assert wgt[0]


def test_members_are_what_the_formats_need() -> None:
    members = {name: list(ColumnDecoder(of(name)).signature.members) for name in MACHINES}
    assert members == {
        "int8": ["en", "format", "code", "wgt", "zero"],
        "fp16": ["en", "format", "code", "wgt", "scale", "zero"],
        "codes": ["en", "format", "code", "wgt"],
        "int8-more": ["en", "format", "code", "wgt", "zero"],
        "fp16-more": ["en", "format", "code", "wgt", "scale", "zero"],
        "codes-more": ["en", "format", "code", "wgt"],
        "int8-only": ["en", "format", "code", "wgt"],
        "fp16-only": ["en", "format", "code", "wgt"],
        "one-decoder": ["en", "format", "code", "wgt", "zero"],
    }
    for name in MACHINES:
        assert weight_scale(of(name)) == ("scale" in members[name])
        assert bool(weight_zero_bits(of(name))) == ("zero" in members[name])
    assert weight_zero_bits(of("int8-more")) == 7


@pytest.mark.parametrize("name", ["codes", "codes-more"])
def test_the_array_gives_a_code_the_value_of_its_format_with_this_pin(name: str) -> None:
    limit = of(name)
    assert isinstance(limit.pe, ShiftAdd)
    assert SystolicArray(limit.pe, 2, 2, "ws").has_unsigned_mode
    for form in limit.formats:
        assert decoder(limit, form) is None
        code = np.arange(1 << form.bits)
        given = golden(limit, form, code, np.zeros(1, int), np.zeros(1, int)).astype(np.int64)
        value = limit.pe.accumulate(0, 1, given, wgt_unsigned=unsigned_codes(form))
        np.testing.assert_array_equal(value, weight_code(form.name).integers(code), err_msg=form.name)
    assert {form.name: unsigned_codes(form) for form in limit.formats} == {
        form.name: "asym" in form.name for form in limit.formats
    }


def test_decoders_by_pe_and_format() -> None:
    kinds = {name: [getattr(decoder(of(name), form), "name", "") for form in of(name).formats] for name in MACHINES}
    assert kinds["int8"] == ["", "", "weight-decoder"]
    assert kinds["fp16"] == ["", "weight-dequantiser", "weight-dequantiser", "weight-dequantiser"]
    assert kinds["fp16-more"] == ["weight-dequantiser"] * 5
    assert kinds["codes"] == ["", ""]


def test_result_units() -> None:
    assert column_unit(of("int8")) == units.GroupDequantiser(32)
    assert column_unit(of("int8-more")) == units.GroupDequantiser(32, halves=True)
    assert column_unit(of("codes")) == units.GroupDequantiser(19, 15, 4)
    assert column_unit(of("fp16-more")) == units.Fp32Accumulator()
    assert [counts_halves(form) for form in of("int8-more").formats] == [False, True, False, False, False, False]
    for name in ("int8", "int8-more", "codes", "fp16"):
        spec = column_unit(of(name))
        top, text = column_unit_verilog(of(name))
        assert top == spec.module_name
        assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [top]
        assert lint(text, top) == []
        ports = {port.name for port in ports_of(text, top)}
        assert ("halve" in ports) == any(map(counts_halves, of(name).formats)) & isinstance(of(name).pe, Int8Mac)


@pytest.mark.parametrize("name", MACHINES)
def test_verilog_is_the_same_every_time_and_without_fault(name: str) -> None:
    top, text = verilog_of(name)
    assert (top, text) == column_decoder_verilog(of(name))
    modules = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert modules[0] == top
    assert all(module.startswith(top) for module in modules)
    assert "\\" not in text
    assert lint(text, top) == []


def test_module_names_differ_with_pe_and_with_the_order_of_formats() -> None:
    names = [ColumnDecoder(of(name)).module_name for name in MACHINES]
    assert len(set(names)) == len(names)
    assert names[0] == "column_decoder_int8_mac_0int8_1int4_2int4_asym"
    turned = limits(machine.load("int8-4x4"), formats=["int4", "int8", "int4_asym"])
    assert ColumnDecoder(turned).module_name not in names
