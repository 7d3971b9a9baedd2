"""bit-serial for a broadcast tile: the term encoder that a column shares, and the cell of a place."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe.bit_serial import BitSerial as Spec
from bitwright.rtl.pe import bit_serial_pipeline as pipeline
from bitwright.rtl.pe import bit_serial_stages as stages
from bitwright.rtl.pe.bit_serial_pipeline import register, registers
from bitwright.rtl.pe.bit_serial_stages import Float
from bitwright.rtl.pe.emit import emit
from bitwright.rtl.pe.term_encoder import SPECIAL_BITS, Term, encode_lane

TERM_BITS = {"sign": 1, "exp": 2, "man": 1}
LANE_TERM_BITS = sum(TERM_BITS.values())
RECODED_BITS = SPECIAL_BITS + 1
"""Of a special value: F0, I0..I3, sign, and whether its second term is subtracted (`term_encoder.special_file`)."""


class ColumnEncoder(wiring.Component):
    """A term of each lane's code, for all places of a column.

    Members
        en : In(1)               A term is made; low: `terms` stays.
        codes : In(4 * 8)        Lane 0 lowest.
        encoding, term : In(3), In(2)   arch.pe.terms.Encoding, and the number of the term, below the encoding's count.
        floating : In(1)         The encoding is a float's.
        special : In(7)          The group's special value, recoded; of a float.
        terms : Out(4 * 4)       Of each lane sign, exp and man, lowest first. Registered.
    Timing       latency 1 cycle; a term a cycle.
    Arithmetic   exact; equals arch.pe.terms.encode.
    Reset        none: there is no control in it.
    Model        arch.pe.terms.encode.
    Source       BitMoD (HPCA 2025, arXiv 2411.11745), section IV: term encoders are shared by the PEs of a column.
    Evidence     `term_encoder.TermEncoder`, whose logic it is; the tile's, rtl.array.BitSerialTile.
    """

    module_name = "bit_serial_column_encoder"

    def __init__(self) -> None:
        super().__init__(
            {
                "en": In(1),
                "codes": In(Spec.lanes * Spec.wgt.bits),
                "encoding": In(3),
                "term": In(2),
                "floating": In(1),
                "special": In(RECODED_BITS),
                "terms": Out(Spec.lanes * LANE_TERM_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        found: list[Value] = []
        for lane in range(Spec.lanes):
            code = self.codes.word_select(lane, Spec.wgt.bits)
            made = encode_lane(m, code, self.encoding, self.term, self.special, self.floating, f"code_{lane}")
            found += [getattr(made, name) for name in TERM_BITS]
        m.d.comb += self.terms.eq(register(m, Cat(*found), "terms_held", self.en))
        return m


class BitSerialCell(wiring.Component):
    """A place of the tile: four activations times four terms a cycle, summed over a group and scaled.

    What the places of a tile have in common, the control of the pipeline, is the tile's.

    Parameters
        spec : arch.pe.BitSerial   p = pipeline below.
    Members
        act : In(4 * 16), terms : In(4 * 4), bsig : In(3)   Operands, in every cycle; lane 0 lowest (`ColumnEncoder`).
        take, fresh : In(1) x 2  The operands of 3 + p cycles ago are added to the sum of before, or (fresh) to +0.
        load, scale : In(1), In(8)   With the `take` of a group's last operands: its sum goes on to be scaled.
        leave : In(1)            8 cycles after each `load`.
        part : Out(32)           fp32(scale * sum), from the cycle after `leave` to the next `leave`.
    Rules        a load no earlier than 8 cycles after the one before.
    Arithmetic   arch.pe.BitSerial.scaled of group_sum, bit-exact; NaN is 0x7fc00000, zero +0.
    Reset        none: there is no control in it.
    Model        arch.pe.BitSerial.
    Source       BitMoD (HPCA 2025, arXiv 2411.11745), Fig. 5; deviations in the spec's docstring.
    Evidence     the tile's, rtl.array.BitSerialTile; the parts are those of the PE alone, rtl.pe.BitSerial.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        super().__init__(
            {
                "act": In(Spec.lanes * 16),
                "terms": In(Spec.lanes * LANE_TERM_BITS),
                "bsig": In(3),
                "take": In(1),
                "fresh": In(1),
                "load": In(1),
                "scale": In(Spec.scale_bits),
                "leave": In(1),
                "part": Out(32),
            }
        )

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `bit_serial_l4_fp16_a16_cell`."""
        return f"{self.spec.module_stem}_cell"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        always = Const(1, 1)
        encoded = {
            "terms": [self._term(lane) for lane in range(Spec.lanes)],
            "acts": [self.act.word_select(lane, 16) for lane in range(Spec.lanes)],
            "bsig": self.bsig,
        }
        aligned = pipeline.exponents(m, always, encoded)
        step = pipeline.lanes_total(m, self.spec, always, aligned)
        acc, special = pipeline.accumulator(m, self.spec, self.take, self.fresh, step)
        self._scale(m, acc, special)
        return m

    def _scale(self, m: Module, acc: Float, special: Value) -> None:
        """A group's significand times its scale, a bit a cycle, then its fp32 value."""
        product = Signal(self.spec.acc_bits + self.spec.scale_bits, name="product", reset_less=True)
        stepped = Signal(len(product), name="product_next")
        kept = {"sign": acc.sign, "exponent": acc.exponent, "special": special}
        group = registers(m, {**kept, "significand": acc.significand}, "group", self.load)
        m.d.comb += stepped.eq(stages.scale_step(product, group["significand"]))
        m.d.sync += product.eq(Mux(self.load, self.scale, stepped))
        ready = registers(m, {**{name: group[name] for name in kept}, "product": stepped}, "scaled", self.leave)
        value = Float(ready["sign"], ready["exponent"], ready["product"])
        part = stages.rounded_product(m, value, self.spec.scale_bits)
        m.d.comb += self.part.eq(Mux(ready["special"], pipeline.NAN, stages.fp32(part)))

    def _term(self, lane: int) -> Term:
        fields, at = {}, lane * LANE_TERM_BITS
        for name, bits in TERM_BITS.items():
            fields[name] = self.terms[at : at + bits]
            at += bits
        return Term(**fields)


def cell_verilog(spec: Spec) -> str:
    """Verilog of the two modules that a tile of `spec` instantiates."""
    cell = BitSerialCell(spec)
    return "\n".join([emit(cell, cell.module_name), emit(ColumnEncoder(), ColumnEncoder.module_name)])
