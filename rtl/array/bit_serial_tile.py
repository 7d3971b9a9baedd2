# amaranth: UnusedElaboratable=no
# (a tile may be made only to ask for its name or ports)
"""BitMoD's tile: bit-serial cells that share activations along rows, and along columns a term encoder and a scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, ClockSignal, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib.wiring import In
from bitwright.arch.array_timing import BroadcastShape
from bitwright.arch.pe import Evidence, PESpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.terms import SPECIALS, Encoding, recode, special_code
from bitwright.rtl.array.asynchronous import AsynchronousTile
from bitwright.rtl.array.broadcast import BroadcastTile, Step
from bitwright.rtl.array.skew import control_line
from bitwright.rtl.pe.bit_serial_cell import LANE_TERM_BITS, RECODED_BITS, BitSerialCell, ColumnEncoder, cell_verilog
from bitwright.rtl.pe.bit_serial_pipeline import register
from bitwright.rtl.pe.term_encoder import bit_significance, term_count

SELECTOR_BITS = 2
PAR_BITS = BitSerial.scale_bits + SELECTOR_BITS
"""Of a column's scale, and above it the selector of its special value."""


class BitSerialTile(BroadcastTile):
    """rows x cols bit-serial cells, groups of weights one after the other, each scaled beside the next one's steps.

    A tile command is a group, or a part of one; otherwise as of `BroadcastTile`. A step is four elements of the
    reduction, one term of each weight a cycle: an encoder a column makes the terms, a register a row keeps activations.

    Parameters
        spec : BitSerial         PE of a place.
        rows, cols : int, 1..256
    Members      those of BroadcastTile with psum fp32, and
        encoding : In(3)         How codes are read (arch.pe.terms.Encoding), part of the command.
        specials : In(4 * 7)     The special values of the format, by selector, recoded (`specials_value`); part of the
            command.
        par_data : In(cols * 10)   With `wgt_data`: each column's 8-bit scale and selector; of the tile's last beat the
            scale counts, of every beat the selector.
    Timing       as of BroadcastTile with c = terms of the encoding and latency 13 (with `pipeline` 14), and 8 cycles or
                 more from a tile's end to the next one's: E[t+1] >= E[t] + max(m[t], 8).
    Arithmetic   arch.pe.BitSerial.scaled of group_sum, bit-exact.
    Reset        synchronous; everything in flight is lost.
    Model        arch.pe.bit_serial_tile; cycles: arch.array_timing.
    Source       BitMoD (HPCA 2025, arXiv 2411.11745), section IV: 8 x 8 PEs, terms shared along a column, activations
                 along a row, an accumulator a column (the accelerator's). Drain registers and sequencer are ours.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every result and every accept and result cycle equals the golden and the recurrences, with and without "
            "stalls, five encodings changing from tile to tile",
            5_042,
            "tests/rtl/array/test_bit_serial_tile.py",
        ),
    )
    spec: BitSerial

    def _ports(self) -> dict[str, Any]:
        return {**super()._ports(), "specials": In(SPECIALS * RECODED_BITS), "par_data": In(self.cols * PAR_BITS)}

    def shape(self, mode: int) -> BroadcastShape:
        terms, family = Encoding(mode).terms, self.family
        return BroadcastShape(self.rows, family.lanes, terms, family.latency_cycles, family.sum_cycles)

    def places_verilog(self) -> str:
        return cell_verilog(self.spec)

    def _last_cycle(self, m: Module) -> Value:
        self._last_term, self._floating = term_count(m, self._mode)
        return self._last_term

    def _sums(
        self, m: Module, step: Step, acts: list[list[Value]], wgts: list[list[Value]]
    ) -> tuple[Value, list[Value]]:
        term = Signal(2, name="term")
        m.d.comb += step.ready.eq(term == self._last_term)
        with m.If(step.offered):
            m.d.sync += term.eq(Mux(step.ready, 0, term + 1))
        bsig = register(m, bit_significance(term, self._floating), "bsig_held", step.offered)
        # From a term on offer to the cell's accumulator; 8 scale bits later the product leaves.
        to_take = 4 + self.spec.pipeline
        to_leave = to_take + self.spec.scale_bits
        assert to_leave + 1 == self.family.latency_cycles, "the spec's latency"
        ends = control_line(m, "end_line", step.accept & step.last, to_leave + 1)
        shared: dict[str, Value] = {
            "i_clk": ClockSignal(),
            "i_rst": ResetSignal(),
            "i_bsig": bsig,
            "i_take": control_line(m, "take_line", step.offered, to_take)[to_take],
            "i_fresh": control_line(m, "fresh_line", step.first & ~term.any(), to_take)[to_take],
            "i_load": ends[to_take],
            "i_leave": ends[to_leave],
        }
        held = [register(m, Cat(*lanes), f"act_held_{row}", step.offered) for row, lanes in enumerate(acts)]
        columns = [self._column(m, step, term, col, codes) for col, codes in enumerate(wgts)]
        rows: list[Value] = []
        for row, act in enumerate(held):
            parts = [Signal(32, name=f"part_{row}_{col}") for col in range(self.cols)]
            for col, part in enumerate(parts):
                terms, scale = columns[col]
                m.submodules[f"pe_{row}_{col}"] = Instance(
                    BitSerialCell(self.spec).module_name,
                    **shared,
                    i_act=act,
                    i_terms=terms,
                    i_scale=scale,
                    o_part=part,
                )
            rows.append(Cat(*parts))
        return ends[to_leave + 1], rows

    def _column(self, m: Module, step: Step, term: Value, col: int, codes: Sequence[Value]) -> tuple[Value, Value]:
        """Registered terms of a column, and the scale of its last group."""
        par = self.par_data.word_select(col, PAR_BITS)
        terms = Signal(len(codes) * LANE_TERM_BITS, name=f"terms_{col}")
        special = Signal(RECODED_BITS, name=f"special_{col}")
        specials = Array(self.specials.word_select(index, RECODED_BITS) for index in range(SPECIALS))
        m.d.comb += special.eq(specials[par[BitSerial.scale_bits :]])
        m.submodules[f"encoder_{col}"] = Instance(
            ColumnEncoder.module_name,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_en=step.offered,
            i_codes=Cat(*codes),
            i_encoding=self._mode,
            i_term=term,
            i_floating=self._floating,
            i_special=special,
            o_terms=terms,
        )
        # It is read before the next tile can end: 8 cycles or more.
        scale = register(m, par[: BitSerial.scale_bits], f"scale_held_{col}", step.accept & step.last)
        return terms, scale


def tile_of(spec: PESpec, rows: int, cols: int) -> BroadcastTile:
    """The broadcast tile of a PE, whatever its family."""
    if isinstance(spec, BitSerial):
        return BitSerialTile(spec, rows, cols)
    return (AsynchronousTile if isinstance(spec, Opt3 | Opt4c) else BroadcastTile)(spec, rows, cols)


def specials_value(specials: Sequence[float]) -> int:
    """What the port `specials` is driven with for special values by selector."""
    value = 0
    for index, special in enumerate(specials):
        code = special_code(special)
        bits, subtract = recode(code & 31)
        value |= (bits | code & 32 | int(subtract) << 6) << index * RECODED_BITS
    return value
