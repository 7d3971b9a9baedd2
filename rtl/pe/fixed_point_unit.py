"""The fixed-point dequantiser as hardware: a wide integer sum times a scale and a power of two, added in fp32."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe import fixed_point_unit as specs
from bitwright.rtl.pe.floats import (
    effective_exponent,
    fp32_add,
    normalise,
    round_fields,
    shift_right_sticky,
    unpack,
)

_ROUNDED_BITS = 26  # 24 bits of fp32, the guard bit and the OR of all below it


class FixedPointDequantiser(wiring.Component):
    """out = acc + scale * (psum - zero * act_sum) * 2**(exponent + exponent_bias), in fp32.

    Parameters
        spec : arch.pe.fixed_point_unit.FixedPointDequantiser
    Members
        valid, psum, scale : In(1), In(signed), In(16)   One group's sum and its fp16 scale.
        act_sum, zero : In(signed)   With zero_bits only. exponent : In   With exponent_bits only.
        nonfinite : In(1)        With nonfinite only; the scaled sum is then NaN. All four come with their psum.
        acc : In(32)             fp32; taken in the cycle in which acc_take is high, 3 cycles after its psum.
        acc_take : Out(1)        The `valid` of 3 cycles ago.
        valid_out, out : Out(1), Out(32)   Registered; 4 cycles after the psum.
    Timing       latency 4 cycles; one result a cycle; never stalls. Stages: correct | multiply | normalise and round |
                 add.
    Arithmetic   bit-exact with the spec's `dequantise`. The shifter of subnormal results is there only with parameters
                 that reach them.
    Reset        synchronous; clears the valid bits; a sum in flight is lost.
    """

    def __init__(self, spec: specs.FixedPointDequantiser) -> None:
        self.spec = spec
        ports: dict[str, Any] = {"valid": In(1), "psum": In(signed(spec.psum_bits)), "scale": In(16), "acc": In(32)}
        if spec.zero_bits:
            ports |= {"act_sum": In(signed(spec.act_sum_bits)), "zero": In(signed(spec.zero_bits))}
        if spec.exponent_bits:
            ports["exponent"] = In(spec.exponent_bits)
        if spec.nonfinite:
            ports["nonfinite"] = In(1)
        super().__init__({**ports, "acc_take": Out(1), "out": Out(32), "valid_out": Out(1)})
        self.out = Signal(32, name="out", reset_less=True)

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        valid_1, valid_2 = Signal(name="valid_1"), Signal(name="valid_2")
        corrected = Signal(signed(spec.corrected_bits), name="corrected", reset_less=True)
        scaled = Signal(32, name="scaled", reset_less=True)
        m.d.sync += [
            valid_1.eq(self.valid),
            valid_2.eq(valid_1),
            self.acc_take.eq(valid_2),
            self.valid_out.eq(self.acc_take),
            corrected.eq(self.psum - self.zero * self.act_sum if spec.zero_bits else self.psum),
        ]
        held: dict[str, Value] = {"exponent": Const(0, 1), "nonfinite": Const(0, 1)}
        for name in ("scale", "exponent", "nonfinite"):
            if hasattr(self, name):
                held[name] = Signal.like(getattr(self, name), name=f"{name}_1", reset_less=True)
                m.d.sync += held[name].eq(getattr(self, name))
        m.d.sync += scaled.eq(self._round(m, *self._multiply(m, corrected, **held)))
        m.d.sync += self.out.eq(fp32_add(m, self.acc, scaled, "add"))
        return m

    def _multiply(
        self, m: Module, corrected: Value, scale: Value, exponent: Value, nonfinite: Value
    ) -> tuple[Signal, Signal, Signal, Signal, Signal]:
        """Registers: |corrected| * significand, the biased exponent of its top bit, its sign, and special, nan."""
        spec = self.spec
        number = unpack(m, scale, 5, "scale")
        factor = Signal(spec.corrected_bits, name="factor")
        product = Signal(spec.product_bits, name="product", reset_less=True)
        low, high = spec.top_exponent_range
        exponent_bits = max(high.bit_length(), (~low).bit_length()) + 1
        top_exponent = Signal(signed(exponent_bits), name="top_exponent", reset_less=True)
        sign, special, nan = (Signal(name=f"product_{what}", reset_less=True) for what in ("sign", "special", "nan"))
        m.d.comb += factor.eq(abs(corrected))
        m.d.sync += [
            product.eq((factor * number.significand)[: spec.product_bits]),
            top_exponent.eq(effective_exponent(number) + exponent + (low - 1)),
            sign.eq(corrected[-1] ^ number.sign),
            special.eq(number.special | nonfinite),
            nan.eq(number.nan | (number.inf & ~factor.any()) | nonfinite),
        ]
        return product, top_exponent, sign, special, nan

    def _round(self, m: Module, product: Value, top_exponent: Signal, sign: Value, special: Value, nan: Value) -> Value:
        """The fp32 number of a product, or its infinity or NaN."""
        shifted, count = normalise(m, product, "product")
        exponent = Signal(signed(len(top_exponent) + 1), name="exponent_normalised")
        m.d.comb += exponent.eq(top_exponent - count)
        spare = max(_ROUNDED_BITS - len(product), 0)
        wide = Cat(Const(0, spare), shifted)
        value = Signal(_ROUNDED_BITS, name="significand")
        m.d.comb += value.eq(Cat(wide[: 1 - _ROUNDED_BITS].any(), wide[1 - _ROUNDED_BITS :]))
        field: Value = exponent[:-1]  # at least 1, but for a product of 0, of which it does not matter
        rounding: Value = value
        if self.spec.reaches_subnormals:
            tiny, places = Signal(name="tiny"), Signal(len(exponent), name="subnormal_places")
            m.d.comb += [tiny.eq(exponent < 1), places.eq(Mux(tiny, 1 - exponent, 0))]
            # Beyond its stages the shifter gives 0, which is right: less than half of the least subnormal.
            rounding = shift_right_sticky(m, value, places, "subnormal")
            field = Mux(tiny, 1, field)
        rounded = round_fields(m, rounding, field, 8, 23, "product")
        return Mux(special, Cat(Const(0, 22), nan, Const(0xFF, 8), sign & ~nan), Cat(rounded, sign))
