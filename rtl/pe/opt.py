"""Bit-weight engines opt1 and opt2: multiples of activations through compressors into accumulators of two vectors."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Value
from bitwright.arch.pe.digits import PLACES
from bitwright.arch.pe.opt import MULTIPLE_BITS, Opt1, Opt2
from bitwright.rtl.pe import compressors
from bitwright.rtl.pe.digits import encode, multiple
from bitwright.rtl.pe.stream import Flow, StreamPE


def _multiples(
    m: Module, flow: Flow, pe: Opt1PE | Opt2PE, register: bool
) -> tuple[list[list[Value]], list[list[Value]]]:
    """Unsigned multiples and the ones they lack, both [place][lane], behind a register if wanted."""
    spec, values = pe.spec, {}
    for lane in range(spec.lanes):
        act, wgt = (
            pe.step.payload[name] if spec.lanes == 1 else pe.step.payload[name][lane] for name in ("act", "wgt")
        )
        for place, digit in enumerate(encode(m, wgt, spec.encoding, f"digit_{lane}")):
            bits = multiple(m, act, digit, f"multiple_{lane}_{place}")
            values[f"multiple_{lane}_{place}"] = Cat(bits[:-1], ~bits[-1])
            values[f"negative_{lane}_{place}"] = digit.negative
    held = dict(zip(values, flow.cut(register, **values), strict=True))
    rows, ones = (
        [[held[f"{name}_{lane}_{place}"] for lane in range(spec.lanes)] for place in range(PLACES)]
        for name in ("multiple", "negative")
    )
    return rows, ones


class Opt1PE(StreamPE):
    """The hardware of arch.pe.opt.Opt1; members, timing and arithmetic as its docstring says."""

    spec: Opt1

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow = Flow(m, self)
        multiples, negative = _multiples(m, flow, self, spec.pipeline >= 2)
        # Each lane's first three ones have a free place below the next multiple; its last one does not.
        top = 2 * (PLACES - 1)
        rows: list[Value] = [Cat(Const(0, top), one) for one in negative[-1][1:]]
        for place in range(PLACES):
            for lane in range(spec.lanes):
                below = Const(0, 2 * place)
                if place:
                    below = Cat(Const(0, 2 * place - 2), negative[place - 1][lane], Const(0, 1))
                rows.append(Cat(below, multiples[place][lane]))
        rows.append(Cat(Const(0, top), negative[-1][0], Const(spec.row_constant >> (top + 1), spec.offset_bits - top)))
        vectors, _ = compressors.compress_all(m, rows, spec.offset_bits + 1, "step")
        first, second = compressors.joined_top(vectors, spec.offset_bits)
        first, second = flow.cut(spec.pipeline >= 1, product_sum=first, product_carry=second)
        acc = compressors.accumulator(flow, spec.psum_bits)
        compressors.accumulate(m, flow, acc, (first, second), spec.offset_bits)
        if spec.resolve_cycles:
            flow.holds(*acc)
            m.d.comb += self.sum.payload.psum.eq(compressors.resolve(m, flow, acc, spec.resolve_cycles))
        else:
            m.d.comb += [self.sum.payload.psum_sum.eq(acc[0]), self.sum.payload.psum_carry.eq(acc[1])]
        flow.offer()
        return m


class Opt2PE(StreamPE):
    """The hardware of arch.pe.opt.Opt2; members, timing and arithmetic as its docstring says."""

    spec: Opt2

    def elaborate(self, platform: object) -> Module:
        m, spec = Module(), self.spec
        flow = Flow(m, self)
        multiples, negative = _multiples(m, flow, self, spec.pipeline >= 2)
        values: dict[str, Value] = {}
        for place in range(PLACES):
            rows, constant = list(multiples[place]), spec.row_constant
            if constant >> MULTIPLE_BITS << MULTIPLE_BITS == constant:  # it fits above a multiple
                rows[0] = Cat(rows[0], Const(constant >> MULTIPLE_BITS, spec.offset_bits + 1 - MULTIPLE_BITS))
            else:
                rows.append(Const(constant, spec.offset_bits + 1))
            name = f"plane_{place}"
            vectors, spare = compressors.compress_all(m, rows, spec.offset_bits + 1, name, negative[place])
            first, second = compressors.joined_top(vectors, spec.offset_bits)
            values.update({f"{name}_sum": first, f"{name}_carry": second})
            values.update({f"{name}_one_{number}": one for number, one in enumerate(spare)})
        held = dict(zip(values, flow.cut(spec.pipeline >= 1, **values), strict=True))
        ends: list[Value] = []
        planes = []
        for place in range(PLACES):
            acc = compressors.accumulator(flow, spec.psum_bits - 2 * place, f"_{place}")
            vectors = (held[f"plane_{place}_sum"], held[f"plane_{place}_carry"])
            ones = [value for name, value in held.items() if name.startswith(f"plane_{place}_one_")]
            compressors.accumulate(m, flow, acc, vectors, spec.offset_bits, ones, f"_{place}")
            ends += [Cat(Const(0, 2 * place), part) for part in acc]
            planes.append(acc)
        flow.cut()
        total, _ = compressors.compress_all(m, ends, spec.psum_bits, "end")
        kept = tuple(flow.register(spec.psum_bits, f"total_{name}") for name in ("sum", "carry"))
        with m.If(flow.advance & flow.valid & flow.last):
            m.d.sync += [register.eq(part) for register, part in zip(kept, total, strict=True)]
        if spec.resolve_cycles:
            for acc in planes:
                flow.holds(*acc)
            flow.holds(*kept, ended=True)
            m.d.comb += self.sum.payload.psum.eq(compressors.resolve(m, flow, (kept[0], kept[1]), spec.resolve_cycles))
        else:
            m.d.comb += [self.sum.payload.psum_sum.eq(kept[0]), self.sum.payload.psum_carry.eq(kept[1])]
        flow.offer()
        return m
