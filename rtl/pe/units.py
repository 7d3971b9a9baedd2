"""Column-edge units as hardware: dequantisers, accumulator and decoder, one a column."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe import units as specs
from bitwright.arch.pe.weight_codes import WeightCode
from bitwright.rtl.pe.fixed_point_unit import FixedPointDequantiser
from bitwright.rtl.pe.floats import (
    effective_exponent,
    fp32_add,
    normalise,
    round_fields,
    shift_to_exponent,
    unpack,
)
from bitwright.rtl.pe.pair_decoder import PairDecoderUnit
from bitwright.rtl.pe.sparse_encoder import SparseEncoderUnit


class _Unit(wiring.Component):
    """What the units share: the spec, `valid` through to `valid_out`, and outputs whose data needs no reset."""

    data_output: str

    def __init__(self, spec: Any, ports: dict[str, Any]) -> None:
        self.spec = spec
        super().__init__({"valid": In(1), **ports, "valid_out": Out(1)})
        width = getattr(self, self.data_output).shape()
        setattr(self, self.data_output, Signal(width, name=self.data_output, reset_less=True))


class GroupDequantiser(_Unit):
    """out = acc + scale * (psum - zero * act_sum), in fp32.

    Parameters
        spec : arch.pe.units.GroupDequantiser
    Members
        valid, psum, scale : In(1), In(signed), In(16)   One group's sum and its fp16 scale.
        act_sum, zero : In       With zero_bits only. scale_code : In   With scale_code_bits only.
        halve : In(1)            With halves only; taken with its psum.
        acc : In(32)             fp32; taken in the cycle in which acc_take is high, 2 cycles after its psum.
        acc_take : Out(1)        The `valid` of 2 cycles ago.
        valid_out, out : Out(1), Out(32)   Registered; 3 cycles after the psum.
    Timing       latency 3 cycles; one result a cycle; never stalls. Stages: correct | scale and round | add.
    Arithmetic   bit-exact with the spec's `dequantise`.
    Reset        synchronous; clears the valid bits; a sum in flight is lost.
    """

    data_output = "out"

    def __init__(self, spec: specs.GroupDequantiser) -> None:
        ports: dict[str, Any] = {"psum": In(signed(spec.psum_bits)), "scale": In(16), "acc": In(32)}
        if spec.zero_bits:
            ports |= {"act_sum": In(signed(spec.act_sum_bits)), "zero": In(spec.zero_bits)}
        if spec.scale_code_bits:
            ports["scale_code"] = In(spec.scale_code_bits)
        if spec.halves:
            ports["halve"] = In(1)
        super().__init__(spec, {**ports, "acc_take": Out(1), "out": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        corrected = Signal(signed(spec.corrected_bits), name="corrected", reset_less=True)
        valid_1, scaled = Signal(name="valid_1"), Signal(32, name="scaled", reset_less=True)
        m.d.sync += [
            valid_1.eq(self.valid),
            self.acc_take.eq(valid_1),
            self.valid_out.eq(self.acc_take),
            corrected.eq(self.psum - self.zero * self.act_sum if spec.zero_bits else self.psum),
        ]
        held = {
            name: Signal.like(getattr(self, name), name=f"{name}_1", reset_less=True)
            for name in ("scale", "scale_code", "halve")
            if hasattr(self, name)
        }
        m.d.sync += [register.eq(getattr(self, name)) for name, register in held.items()]
        factor = Signal(spec.corrected_bits, name="factor")
        m.d.comb += factor.eq(abs(corrected))
        product: Value = factor * held["scale_code"] if "scale_code" in held else factor
        m.d.sync += scaled.eq(self._scale(m, product, corrected[-1], held["scale"], held.get("halve", Const(0, 1))))
        m.d.sync += self.out.eq(fp32_add(m, self.acc, scaled, "add"))
        return m

    def _scale(self, m: Module, factor: Value, negative: Value, scale: Value, halve: Value) -> Value:
        """The fp32 number factor * scale, rounded once. Its exponent is far from both ends of fp32's range."""
        number = unpack(m, scale, 5, "scale")
        product = Signal(len(factor) + 11, name="product")
        m.d.comb += product.eq(factor * number.significand)
        shifted, count = normalise(m, product, "product")
        # Significand 1.f times 2**(e - 15) is an integer times 2**(e - 25); fp32's bias is 127.
        exponent = Signal(9, name="product_exponent")
        m.d.comb += exponent.eq(effective_exponent(number) + (127 + len(product) - 1 - 25) - count - halve)
        rounded = round_fields(m, shifted, exponent, 8, 23, "product")
        nan = Signal(name="product_nan")
        m.d.comb += nan.eq(number.nan | (number.inf & ~factor.any()))
        special = Cat(Const(0, 22), nan, Const(0xFF, 8), (negative ^ number.sign) & ~nan)
        return Mux(number.special, special, Cat(rounded, negative ^ number.sign))


class Fp32Accumulator(_Unit):
    """out = acc + psum, in fp32.

    Members
        valid, psum, acc : In(1), In(32), In(32)   Two fp32 numbers.
        valid_out, out : Out(1), Out(32)           Registered.
    Timing       latency 1 cycle; one result a cycle; never stalls.
    Arithmetic   bit-exact with the spec's `accumulate`.
    Reset        synchronous; clears valid_out.
    """

    data_output = "out"

    def __init__(self, spec: specs.Fp32Accumulator) -> None:
        super().__init__(spec, {"psum": In(32), "acc": In(32), "out": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += [self.valid_out.eq(self.valid), self.out.eq(fp32_add(m, self.acc, self.psum, "add"))]
        return m


class IntAccumulator(_Unit):
    """out = acc + psum, in int32.

    Members
        valid, psum, acc : In(1), In(signed(psum_bits)), In(signed(32))
        valid_out, out : Out(1), Out(signed(32))   Registered.
    Timing       latency 1 cycle; one result a cycle; never stalls.
    Arithmetic   exact; wraps modulo 2**32; bit-exact with the spec's `accumulate`.
    Reset        synchronous; clears valid_out.
    """

    data_output = "out"

    def __init__(self, spec: specs.IntAccumulator) -> None:
        super().__init__(spec, {"psum": In(signed(spec.psum_bits)), "acc": In(signed(32)), "out": Out(signed(32))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += [self.valid_out.eq(self.valid), self.out.eq(self.acc + self.psum)]
        return m


def _code_ports(code: WeightCode) -> dict[str, Any]:
    widths = {"code": code.code_bits, "zero": code.zero_bits, "selector": code.selector_bits}
    return {name: In(bits) for name, bits in widths.items() if bits}


def _integer(m: Module, code: WeightCode, unit: Any) -> Signal:
    """The integer - zero of the unit's `code`, `zero` and `selector` inputs, `integer_bits` wide, signed."""
    integer = Signal(signed(code.integer_bits), name="integer")
    if code.coding == "signed":
        m.d.comb += integer.eq(unit.code.as_signed())
    elif code.coding == "unsigned":
        m.d.comb += integer.eq(unit.code - unit.zero if code.zero_bits else unit.code)
    else:
        assert not code.zero_bits, f"{code.format}: a table with zero points has no decoder"
        with m.Switch(unit.code):
            for index, column in enumerate(zip(*code.table, strict=True)):
                with m.Case(index):
                    _select(m, integer, unit, column)
    return integer


def _select(m: Module, integer: Signal, unit: Any, column: tuple[int, ...]) -> None:
    """Drive `integer` with a code's value, by selector where the selector matters."""
    if len(set(column)) == 1:
        m.d.comb += integer.eq(column[0])
        return
    with m.Switch(unit.selector):
        for selector, value in enumerate(column):
            with m.Case(selector):
                m.d.comb += integer.eq(value)


class WeightDecoder(_Unit):
    """A code to the int8 weight integer - zero.

    Parameters
        spec : arch.pe.units.WeightDecoder
    Members
        valid, code : In(1), In  One code; zero, selector : In   Where the format has them; with every code.
        valid_out, wgt : Out(1), Out(8)   Registered.
    Timing       latency 1 cycle; one weight a cycle; never stalls.
    Arithmetic   exact; equals the spec's `decode`.
    Reset        synchronous; clears valid_out.
    """

    data_output = "wgt"

    def __init__(self, spec: specs.WeightDecoder) -> None:
        super().__init__(spec, {**_code_ports(spec.code), "wgt": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += [self.valid_out.eq(self.valid), self.wgt.eq(_integer(m, self.spec.code, self))]
        return m


class WeightDequantiser(_Unit):
    """A code to the fp16 weight (integer - zero) / 2**fraction_bits * scale.

    Parameters
        spec : arch.pe.units.WeightDequantiser
    Members
        valid, code : In(1), In  One code; zero, selector : In   Where the format has them; with every code.
        scale : In(16)           fp16, with every code; absent for bf16. scale_code : In   With scale_code_bits only.
        valid_out, wgt : Out(1), Out(16)   Registered.
    Timing       latency 1 cycle; one weight a cycle; never stalls.
    Arithmetic   one rounding, to nearest, ties to even; bit-exact with the spec's `dequantise`.
    Reset        synchronous; clears valid_out.
    """

    data_output = "wgt"

    def __init__(self, spec: specs.WeightDequantiser) -> None:
        ports: dict[str, Any] = {"code": In(16)} if spec.is_bf16 else {**_code_ports(spec.code), "scale": In(16)}
        if spec.scale_code_bits:
            ports["scale_code"] = In(spec.scale_code_bits)
        super().__init__(spec, {**ports, "wgt": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        weight = self._from_bf16(m) if self.spec.is_bf16 else self._from_code(m)
        m.d.sync += [self.valid_out.eq(self.valid), self.wgt.eq(weight)]
        return m

    def _from_code(self, m: Module) -> Value:
        code = self.spec.code
        integer = _integer(m, code, self)
        number = unpack(m, self.scale, 5, "scale")
        magnitude = Signal(code.integer_bits, name="magnitude")
        m.d.comb += magnitude.eq(abs(integer))
        factor = magnitude * self.scale_code if self.spec.scale_code_bits else magnitude
        # The exponent before normalising must be at least 1 for the smallest scale, and the value wide enough to
        # hold fraction, guard and one more bit.
        width = max(len(factor) + 11, 12 + code.fraction_bits, 13)
        product = Signal(width, name="product")
        m.d.comb += product.eq(factor * number.significand)
        exponent = Signal(7, name="exponent")
        # An integer times 2**(e - 25) whose top bit weighs 2**(width - 1); fp16's bias is 15.
        m.d.comb += exponent.eq(effective_exponent(number) + (15 + width - 1 - 25 - code.fraction_bits))
        return self._pack(m, product, exponent, integer[-1] ^ number.sign, number, ~factor.any())

    def _from_bf16(self, m: Module) -> Value:
        number = unpack(m, self.code, 8, "number")
        # 8 significant bits below 12 zeros: shifting left from there reaches every fp16 number that is not zero, and
        # a smaller one leaves its bits in the sticky places.
        width, shift = 21, 13
        bias = 127 - 15 - shift  # fp16 exponent of the top bit = bf16 exponent - bias
        exponent, tiny = Signal(9, name="exponent"), Signal(name="tiny")
        effective = effective_exponent(number)
        m.d.comb += [
            tiny.eq(effective <= bias),
            exponent.eq(Mux(tiny, 1, effective - bias)),
        ]
        kept = Mux(tiny, 0, number.significand)
        product = Signal(width, name="product")
        m.d.comb += product.eq(kept)
        return self._pack(m, product, exponent, number.sign, number, Const(0, 1))

    def _pack(self, m: Module, product: Value, exponent: Value, sign: Value, number: Any, zero: Value) -> Value:
        """fp16 of `product`, or the infinity or NaN that `number` asks for (NaN if it is infinite and `zero`)."""
        shifted, lowered = shift_to_exponent(m, product, exponent, "weight")
        rounded = round_fields(m, shifted, lowered, 5, 10, "weight")
        nan = Signal(name="weight_nan")
        m.d.comb += nan.eq(number.nan | (number.inf & zero))
        special = Cat(Const(0, 9), nan, Const(0x1F, 5), sign & ~nan)
        return Mux(number.special, special, Cat(rounded, sign))


_UNITS: dict[str, type[Any]] = {
    "group-dequantiser": GroupDequantiser,
    "fp32-accumulator": Fp32Accumulator,
    "int-accumulator": IntAccumulator,
    "weight-dequantiser": WeightDequantiser,
    "weight-decoder": WeightDecoder,
    "pair-decoder": PairDecoderUnit,
    "sparse-encoder": SparseEncoderUnit,
    "fixed-point-dequantiser": FixedPointDequantiser,
}


def build(spec: specs.UnitSpec) -> Any:
    """The component of an edge unit's spec."""
    return _UNITS[spec.name](spec)
