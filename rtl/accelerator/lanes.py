"""A lane of the vector unit: one column, one result a cycle."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.activation import (
    GATE_BITS,
    OFFSET_BITS,
    ONE,
    PLACE_BITS,
    RANGE_BITS,
    SQUARE_SHIFT,
    segments,
)
from bitwright.arch.isa.instructions import Function, NumberType
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.fp32_math import ADD_CYCLES, GATED_CYCLES, MULTIPLY_CYCLES, add, gated, held, multiply
from bitwright.rtl.accelerator.fp32_math import special as special_number
from bitwright.rtl.array.skew import delay_data
from bitwright.rtl.pe.emit import emit
from bitwright.rtl.pe.floats import Unpacked, effective_exponent, round_fields, shift_right_sticky, unpack

_TEST = "tests/rtl/accelerator/test_vector_lane.py"
LANE_NAME = "vector_lane"
ACTIVATION_BITS = 2
TO_BITS = 2
FP32_ONE = 0x3F800000
FP32_MINUS_ZERO = 0x80000000

_GATE_CYCLES = 3
_FUNCTION_CYCLES = _GATE_CYCLES + GATED_CYCLES
LANE_CYCLES = MULTIPLY_CYCLES + ADD_CYCLES + _FUNCTION_CYCLES + ADD_CYCLES + 1
"""From a lane's operands to its result."""

_FP16_BIAS_LESS = 127 - 15
_INT8_BITS = 7  # of a magnitude
# An fp32 number of this exponent field has 7 bits before the point.
_INT8_EXPONENT = 127 + _INT8_BITS - 1


class VectorLane(wiring.Component):
    """result = rounded(activation(acc * scale + bias) + residual), every step rounded to fp32.

    Members
        acc, scale, bias, residual : In(32)   fp32. A scale of 1 and a bias or residual of -0 change nothing.
        activation : In(2)       `Function`. to : In(2)   `NumberType`. Both stay while an operand is in flight.
        result : Out(32)         In the lowest 32, 16 or 8 bits; zeros above.
    Timing       latency LANE_CYCLES; one result a cycle; never stalls. Stages: multiply | round | align and add |
                 round | look up | interpolate | gate | multiply | round | align and add | round | convert.
    Arithmetic   bit-exact with arch.isa.arithmetic.vector for all operands.
    Reset        none: there is no control in it.
    Model        arch.isa.arithmetic.vector.
    Source       our own design.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("products equal numpy's: corners crossed, subnormal, overflowing, ties, any", 1_001_764, _TEST),
        Evidence("sums, at both adders, equal numpy's: corners crossed, cancelling, ties, any", 2_003_528, _TEST),
        Evidence("roundings to fp16 and int8: every tie and its neighbours, any", 2_908_990, _TEST),
        Evidence("silu and gelu at every place of their tables, both signs", 4_194_304, _TEST),
    )

    def __init__(self) -> None:
        super().__init__(
            {
                "acc": In(32),
                "scale": In(32),
                "bias": In(32),
                "residual": In(32),
                "activation": In(ACTIVATION_BITS),
                "to": In(TO_BITS),
                "result": Out(32),
            }
        )
        self.result = Signal(32, name="result", reset_less=True)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        before_function = MULTIPLY_CYCLES + ADD_CYCLES
        bias = delay_data(m, "bias", self.bias, MULTIPLY_CYCLES)
        residual = delay_data(m, "residual", self.residual, before_function + _FUNCTION_CYCLES)
        scaled = multiply(m, self.acc, self.scale, "scaled")
        biased = add(m, scaled, bias, "biased")
        activated = self._activated(m, biased)
        summed = add(m, activated, residual, "summed")
        m.d.sync += self.result.eq(self._converted(m, summed))
        return m

    def _activated(self, m: Module, bits: Value) -> Value:
        """The function of an fp32 number, canonical where NaN."""
        x = unpack(m, bits, 8, "x")
        relu = self.activation == Function.RELU
        gate = self._gate(m, x)
        later = unpack(m, delay_data(m, "x", bits, _GATE_CYCLES), 8, "later")
        fields = gated(m, later, gate, "gated")
        # Minus infinity has the gate 0, and then the product is 0 as it should.
        infinite, nan = held(m, later.inf & gate.any(), "infinite_1"), held(m, later.nan, "nan_1")
        sign = held(m, later.sign & ~relu, "sign_1")
        flags = held(m, Cat(infinite | nan, nan, sign), "flags_2")
        activated = Signal(32, name="activated")
        m.d.comb += activated.eq(Mux(flags[0], special_number(flags[1], flags[2]), Cat(fields, flags[2])))
        return activated

    def _gate(self, m: Module, x: Unpacked) -> Value:
        """The gate of a number, 0 to 2**22, `_GATE_CYCLES` later. Stages: look up | interpolate | gate."""
        none = ~self.activation.any()  # its code is 0
        plain = none | (self.activation == Function.RELU)
        right, outside = Signal(9, name="right"), Signal(name="outside")
        place = Signal(PLACE_BITS, name="place")
        significand = x.significand[-PLACE_BITS:]
        # Of a number just inside the range the leading bits of the significand are the place.
        tops = {function: 127 - 1 + bits for function, bits in RANGE_BITS.items()}
        top = Mux(self.activation == Function.SILU, tops[Function.SILU], tops[Function.GELU])
        m.d.comb += [
            right.eq(top - effective_exponent(x)),
            outside.eq(right[-1]),
            place.eq(Mux(right[5:].any(), 0, significand >> right[:5])),
        ]
        c0, c1, c2 = (held(m, column, f"c{order}_1") for order, column in enumerate(self._segment(m, place)))
        offset_1 = held(m, place[:OFFSET_BITS], "offset_1")
        fixed_1 = held(m, plain | outside, "fixed_1")
        open_1 = held(m, ~x.sign | none, "open_1")
        negative_1 = held(m, x.sign, "negative_1")

        slope, base = Signal(len(c1), name="slope"), Signal(GATE_BITS + 1, name="base")
        m.d.comb += [
            slope.eq(Mux(fixed_1, 0, c1 - (c2 * offset_1 >> SQUARE_SHIFT))),
            base.eq(Mux(fixed_1, Cat(Const(0, GATE_BITS), open_1), Mux(negative_1, c0, ONE - c0))),
        ]
        slope_2, base_2 = held(m, slope, "slope_2"), held(m, base, "base_2")
        offset_2, negative_2 = held(m, offset_1, "offset_2"), held(m, negative_1, "negative_2")

        part = Signal(GATE_BITS + 1, name="part")
        gate = Signal(GATE_BITS + 1, name="gate")
        m.d.comb += [
            part.eq((slope_2 * offset_2 >> OFFSET_BITS) ^ negative_2.replicate(GATE_BITS + 1)),
            gate.eq(base_2 + part + negative_2),
        ]
        return held(m, gate, "gate_3")

    def _segment(self, m: Module, place: Value) -> list[Signal]:
        """The three coefficients of the place's segment."""
        tables = {function: segments(function) for function in RANGE_BITS}
        columns = [[table.c0, table.c1, table.c2] for table in tables.values()]
        coefficients = [
            Signal(max(max(both) for both in zip(*pair, strict=True)).bit_length(), name=f"c{order}")
            for order, pair in enumerate(zip(*columns, strict=True))
        ]
        with m.Switch(Cat(place[OFFSET_BITS:], self.activation != Function.SILU)):
            for which, table in enumerate(tables.values()):
                for index, row in enumerate(zip(table.c0, table.c1, table.c2, strict=True)):
                    with m.Case(which * len(table.c0) + index):
                        m.d.comb += [signal.eq(value) for signal, value in zip(coefficients, row, strict=True)]
        return coefficients

    def _converted(self, m: Module, bits: Value) -> Value:
        """An fp32 number, canonical where NaN, rounded to the type that is asked for. One right shift serves both."""
        x = unpack(m, bits, 8, "y")
        exponent = effective_exponent(x)
        places, right = Signal(9, name="places"), Signal(8, name="places_right")
        int8 = self.to == NumberType.INT8
        m.d.comb += [
            places.eq(Mux(int8, _INT8_EXPONENT, _FP16_BIAS_LESS + 1) - exponent),
            right.eq(Mux(places[-1], 0, places[:-1])),
        ]
        aligned = shift_right_sticky(m, x.significand, right, "aligned")
        half_exponent = Signal(8, name="half_exponent")
        m.d.comb += half_exponent.eq(Mux(places[-1], exponent - _FP16_BIAS_LESS, 1))
        half = Cat(round_fields(m, aligned, half_exponent, 5, 10, "half"), x.sign)
        byte = self._int8(m, aligned, places[-1], x)
        full = Mux(self.to == NumberType.FP16, Mux(x.nan, 0x7E00, half), bits)
        return Mux(int8, byte, full)

    def _int8(self, m: Module, aligned: Value, large: Value, x: Unpacked) -> Signal:
        """The integer nearest to a number, ties to even, at most 127 from 0; 0 for NaN."""
        whole, guard, below = aligned[-_INT8_BITS:], aligned[-_INT8_BITS - 1], aligned[: -_INT8_BITS - 1]
        rounded, magnitude = Signal(_INT8_BITS + 1, name="byte_rounded"), Signal(_INT8_BITS, name="byte_magnitude")
        byte = Signal(8, name="byte")
        most = (1 << _INT8_BITS) - 1
        m.d.comb += [
            rounded.eq(whole + (guard & (whole[0] | below.any()))),
            magnitude.eq(Mux(x.nan, 0, Mux(large | rounded[-1], most, rounded[:-1]))),
            byte.eq(Mux(x.sign, -magnitude, magnitude)),
        ]
        return byte


@cache
def lane_verilog() -> str:
    """Verilog of the one module `vector_lane`."""
    return emit(VectorLane(), LANE_NAME)
