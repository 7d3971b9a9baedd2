"""bit-serial as hardware: term encoder, four-lane PE, bit-serial scale and the column's accumulator in one module."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe.bit_serial import BitSerial as Spec
from bitwright.rtl.pe import bit_serial_pipeline as pipeline
from bitwright.rtl.pe import bit_serial_stages as stages
from bitwright.rtl.pe.bit_serial_pipeline import register, registers
from bitwright.rtl.pe.bit_serial_stages import Float
from bitwright.rtl.pe.term_encoder import (
    SPECIAL_PORTS,
    Term,
    bit_significance,
    encode_lane,
    special_file,
    term_count,
)

SLICE = StructLayout(
    {
        "act": ArrayLayout(16, Spec.lanes),
        "code": ArrayLayout(8, Spec.lanes),
        "encoding": 3,
        "selector": 2,
        "scale": Spec.scale_bits,
        "group_end": 1,
        "channel_end": 1,
    }
)


class BitSerial(wiring.Component):
    """Sums of scale * (sum of act * weight) over the groups of a channel, weights one term a cycle.

    Parameters
        spec : arch.pe.BitSerial   P = acc_bits below.
    Members
        slice : In(stream of SLICE)   4 fp16 activations and 4 codes, with their encoding (arch.pe.terms.Encoding) and
            their group's selector; at a group's last slice group_end and the scale; at a channel's last, both ends.
            Lanes that a short group leaves over hold activation 0 and code 0. Taken in the cycle of its last term.
        special_write, special_index, special_value : In(1), In(2), In(6)   Writes a special value: sign, I3..I0, F0.
        clear : In(1)            Drops all that was taken and is not yet on offer; nothing is taken in that cycle, and
            the next slice begins a channel. A sum on offer stays.
        column : Out(stream of 32)   fp32 sum of a channel.
    Timing       a slice takes its encoding's terms, 2 to 4 cycles; a group at least 8, the cycles of its scale, which
                 run beside the next group; latency 15 cycles, with `pipeline` 16, from a channel's last slice to its
                 sum on offer. A column that is not taken stops the PE when the next one is whole. `slice.ready` depends
                 on `column.ready` in the same cycle.
    Arithmetic   the spec's, bit-exact.
    Reset        synchronous; clears valid bits, counters and the marks of a fresh sum; special values, like all
                 data registers, power up unknown and are written before floats are used.
    Model        arch.pe.BitSerial.channel_sum and channel_cycles.
    Source       BitMoD (HPCA 2025, arXiv 2411.11745), Fig. 5; deviations in the spec's docstring. Stages: encode | add
                 exponents | align and sum (with `pipeline` two) | normalise | accumulate | 8 x scale | round | column.
    Evidence     see the spec.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        super().__init__(
            {
                "slice": In(stream.Signature(SLICE)),
                **SPECIAL_PORTS,
                "clear": In(1),
                "column": Out(stream.Signature(32)),
            }
        )

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `bit_serial_l4_fp16_a16`."""
        return self.spec.module_stem

    def elaborate(self, platform: object) -> Module:
        m = Module()
        advance = Signal(name="advance")
        valids = [Signal(name=f"{name}_valid") for name in stage_names(self.spec)]
        for before, after in pairwise(valids):
            with m.If(advance):
                m.d.sync += after.eq(before)
        encoded = self._encode(m, advance, valids[0])
        aligned = pipeline.exponents(m, advance, encoded)
        step = pipeline.lanes_total(m, self.spec, advance, aligned)
        acc, ends = self._accumulate(m, advance & valids[-1], step)
        self._scale(m, advance, valids[-1] & step["group_end"], acc, ends)
        with m.If(self.clear):
            m.d.sync += [valid.eq(0) for valid in valids]
        return m

    def _encode(self, m: Module, advance: Value, valid: Signal) -> dict[str, Any]:
        """Registers terms and activations of the slice, one term after the other."""
        payload = self.slice.payload
        specials = special_file(m, self.special_write, self.special_index, self.special_value)
        last, floating = term_count(m, payload.encoding)
        term, whole = Signal(2, name="term"), Signal(name="slice_whole")
        special = specials[payload.selector]
        go = Signal(name="slice_go")
        m.d.comb += [whole.eq(term == last), self.slice.ready.eq(advance & whole & ~self.clear)]
        m.d.comb += go.eq(self.slice.valid & advance)
        lanes = []
        for index in range(self.spec.lanes):
            found = encode_lane(m, payload.code[index], payload.encoding, term, special, floating, f"code_{index}")
            lanes.append(Term(*(register(m, value, f"term_{index}_{name}", go) for name, value in vars(found).items())))
        # channel_end counts only together with group_end.
        ends = {"group_end": payload.group_end & whole, "channel_end": payload.channel_end}
        with m.If(advance):
            m.d.sync += valid.eq(self.slice.valid)
        with m.If(go):
            m.d.sync += term.eq(Mux(whole, 0, term + 1))
        with m.If(self.clear):
            m.d.sync += term.eq(0)
        return {
            "terms": lanes,
            "acts": [register(m, payload.act[i], f"act_{i}", go) for i in range(self.spec.lanes)],
            **registers(m, {"bsig": bit_significance(term, floating), "scale": payload.scale, **ends}, "encoded", go),
        }

    def _accumulate(self, m: Module, take: Value, step: dict[str, Any]) -> tuple[Float, dict[str, Value]]:
        """The accumulator; returns its next value and what goes with it at a group's end."""
        fresh = Signal(init=1, name="group_fresh")
        acc, special = pipeline.accumulator(m, self.spec, take, fresh, step, fresh.eq(step["group_end"]))
        with m.If(self.clear):
            m.d.sync += fresh.eq(1)
        return acc, {"scale": step["scale"], "channel_end": step["channel_end"], "special": special}

    def _scale(self, m: Module, advance: Value, group_end: Value, acc: Float, ends: dict[str, Value]) -> None:
        """A group's significand times its scale, a bit a cycle, then its fp32 value into the column's sum."""
        spec = self.spec
        count, busy = Signal(3, name="scale_count"), Signal(name="scale_busy")
        whole, free = Signal(name="scale_whole"), Signal(name="scale_free")
        load = Signal(name="scale_load")
        product = Signal(spec.acc_bits + spec.scale_bits, name="product", reset_less=True)
        stepped = Signal(len(product), name="product_next")
        kept = {"sign": acc.sign, "exponent": acc.exponent, "special": ends["special"], "end": ends["channel_end"]}
        group = registers(m, {**kept, "significand": acc.significand}, "group", load)
        done, done_ready = Signal(name="product_valid"), Signal(name="product_ready")
        m.d.comb += [
            stepped.eq(stages.scale_step(product, group["significand"])),
            whole.eq(count == spec.scale_bits - 1),
            free.eq(~busy | (whole & (~done | done_ready))),
            advance.eq(~group_end | free),
            load.eq(group_end & free),
        ]
        with m.If(busy & (~whole | free)):
            m.d.sync += [count.eq(count + 1), product.eq(stepped)]
        with m.If(load):
            m.d.sync += [product.eq(Cat(ends["scale"], Const(0, spec.acc_bits))), count.eq(0)]
        with m.If(free):
            m.d.sync += busy.eq(load)
        leave = busy & whole & free
        fields = {name: group[name] for name in kept}
        ready = registers(m, {**fields, "product": stepped}, "scaled", leave)
        with m.If(~done | done_ready):
            m.d.sync += done.eq(leave)
        value = Float(ready["sign"], ready["exponent"], ready["product"])
        self._column(m, done, done_ready, stages.rounded_product(m, value, spec.scale_bits), ready)
        with m.If(self.clear):
            m.d.sync += [busy.eq(0), done.eq(0)]

    def _column(self, m: Module, done: Value, done_ready: Signal, part: Float, with_it: dict[str, Value]) -> None:
        """Rounded parts into the column's sum; a channel's last sum goes on offer as fp32.

        As that of a group, the sum is a normalised float: no part is subnormal, and it stops growing far below 2**127.
        """
        valid, go = Signal(name="part_valid"), Signal(name="part_go")
        fresh, dirty = Signal(init=1, name="column_fresh"), Signal(name="column_dirty", reset_less=True)
        offered, fp32 = Signal(32, name="offered", reset_less=True), Signal(32, name="column_fp32")
        take = done & done_ready
        held = registers(m, {**vars(part), "special": with_it["special"], "end": with_it["end"]}, "part", take)
        sums = {name: Signal(len(held[name]), name=f"column_{name}_held", reset_less=True) for name in vars(part)}
        start = {name: value & (~fresh).replicate(len(value)) for name, value in sums.items()}
        total = stages.add_floats(m, Float(**start), Float(*(held[name] for name in vars(part))), "column")
        special = Signal(name="column_special")
        m.d.comb += [
            special.eq(held["special"] | (dirty & ~fresh)),
            fp32.eq(Mux(special, pipeline.NAN, stages.fp32(total))),
            go.eq(valid & ~(held["end"] & self.column.valid & ~self.column.ready)),
            done_ready.eq(~valid | go),
            self.column.payload.eq(offered),
        ]
        with m.If(done_ready):
            m.d.sync += valid.eq(done)
        with m.If(go):
            m.d.sync += [register.eq(getattr(total, name)) for name, register in sums.items()]
            m.d.sync += [dirty.eq(special), fresh.eq(held["end"])]
        with m.If(self.column.ready):
            m.d.sync += self.column.valid.eq(0)
        with m.If(go & held["end"] & ~self.clear):
            m.d.sync += [self.column.valid.eq(1), offered.eq(fp32)]
        with m.If(self.clear):
            m.d.sync += [valid.eq(0), fresh.eq(1)]


def stage_names(spec: Spec) -> tuple[str, ...]:
    """The stages that move together, up to the accumulator."""
    return ("encoded", "exponents", *(["aligned"] if spec.pipeline else []), "summed", "step")
