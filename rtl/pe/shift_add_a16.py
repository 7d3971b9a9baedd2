"""shift-add-a16: an aligner a lane, then the gates and the carry-save tree of shift-add."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16
from bitwright.rtl.pe.floats import effective_exponent, unpack
from bitwright.rtl.pe.shift_add_stream import Total, accumulate, gated, lanes
from bitwright.rtl.pe.stream import Flow, StreamPE


class ShiftAddA16PE(StreamPE):
    """The hardware of arch.pe.shift_add_a16.ShiftAddA16; members, timing and arithmetic as its docstring says."""

    spec: ShiftAddA16

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        exponent, negate = Signal(5, name="exponent"), Signal(name="negate")
        m.d.comb += [
            exponent.eq(Cat(payload.exponent[0] | ~payload.exponent.any(), payload.exponent[1:])),
            negate.eq(~payload.wgt_unsigned),
        ]
        aligned: dict[str, Value] = {}
        flags = []
        for lane, act in enumerate(lanes(payload.act, spec.lanes)):
            aligned[f"value_{lane}"], aligned[f"carry_{lane}"], flag = self._align(m, act, exponent, lane)
            flags.append(flag)
        nonfinite = Signal(name="nonfinite")
        m.d.comb += nonfinite.eq(Cat(flags).any())
        codes = {f"code_{lane}": code for lane, code in enumerate(lanes(payload.wgt, spec.lanes))}
        held = flow.cut(
            spec.pipeline >= 1, **aligned, **codes, negate=negate, exponent=exponent, nonfinite=nonfinite
        )  # fmt: skip
        negate, exponent, nonfinite = held[-3:]
        both = 2 * spec.lanes
        totals = self._totals(m, held[0:both:2], held[1:both:2], held[both:-3], negate)
        found = accumulate(m, flow, totals, cut=spec.pipeline == 2, exponent=exponent, nonfinite=nonfinite)
        self._output(m, flow, found)
        return m

    def _align(self, m: Module, act: Value, exponent: Value, lane: int) -> tuple[Value, Value, Value]:
        """(value, carry, flag) of one lane: value + carry is the aligned activation."""
        spec = self.spec
        number = unpack(m, act, 5, f"act_{lane}")
        distance = Signal(6, name=f"distance_{lane}")
        shifted = Signal(spec.kept_bits + 1, name=f"shifted_{lane}")
        value, carry = Signal(signed(spec.kept_bits + 1), name=f"value_{lane}"), Signal(name=f"carry_{lane}")
        flag = Signal(name=f"nonfinite_{lane}")
        m.d.comb += [
            distance.eq(exponent - effective_exponent(number)),
            shifted.eq(Cat(Const(0, spec.guard_bits + 1), number.significand) >> distance[:5]),
            # -(kept + up) = ~kept + (1 - up), with `up` the first bit below the kept ones.
            value.eq(Cat(shifted[1:] ^ number.sign.replicate(spec.kept_bits), number.sign)),
            carry.eq(number.sign ^ shifted[0]),
            flag.eq(number.special | distance[5]),
        ]
        return value, carry, flag

    def _totals(
        self, m: Module, values: list[Value], carries: list[Value], codes: list[Value], negate: Value
    ) -> dict[str, Total]:
        spec, top = self.spec, self.spec.weight_bits - 1
        terms = [
            gated(m, value, code, position, negate, f"term_{lane}_{position}")
            for position in range(spec.weight_bits)
            for lane, (value, code) in enumerate(zip(values, codes, strict=True))
        ]
        rows = []
        for lane, (carry, code) in enumerate(zip(carries, codes, strict=True)):
            row = Signal(spec.weight_bits, name=f"carries_{lane}")
            # An inverted term lacks 1, and a negated carry takes 1 away: together the carry is inverted.
            m.d.comb += row.eq((code & carry.replicate(spec.weight_bits)) ^ Cat(Const(0, top), negate))
            rows.append(row)
        totals = {"acc": Total(spec.psum.bits, spec.max_dot.bit_length() + 1, terms, rows)}
        if spec.zero_points:
            dot_bits = (spec.lanes * spec.max_aligned).bit_length() + 1
            totals["act_acc"] = Total(spec.act_sum_bits, dot_bits, values, carries)
        return totals

    def _output(self, m: Module, flow: Flow, found: dict[str, Value]) -> None:
        """The sum's payload: the accumulators, the exponent of the step and the flag of all steps."""
        exponent, nonfinite = flow.register(5, "sum_exponent"), flow.register(1, "sum_nonfinite")
        with m.If(flow.advance & flow.valid):
            m.d.sync += [
                exponent.eq(found["exponent"]),
                nonfinite.eq(found["nonfinite"] | Mux(flow.first, 0, nonfinite)),
            ]
        payload = self.sum.payload
        m.d.comb += [payload.psum.eq(found["acc"]), payload.exponent.eq(exponent), payload.nonfinite.eq(nonfinite)]
        if self.spec.zero_points:
            m.d.comb += payload.act_sum.eq(found["act_acc"])
        flow.offer()
