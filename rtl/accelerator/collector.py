"""The collector: results of the array into the accumulators, an fp32 addition each."""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout, View
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Channel, Limits, TileFormat
from bitwright.arch.isa.timing import IN_FLIGHT, execute_drain
from bitwright.arch.pe.tile_family import StreamFamily
from bitwright.arch.pe.units import Fp32Accumulator, GroupDequantiser
from bitwright.rtl.accelerator.banks import ADDRESS_BITS
from bitwright.rtl.accelerator.column_decoder import column_unit, counts_halves
from bitwright.rtl.accelerator.feeders import (
    SCALE_BITS,
    GroupReader,
    bank_read,
    banks,
    chosen,
    code_offset,
    connect_bank,
    group_reader,
    par_lanes,
    result_par,
)
from bitwright.rtl.accelerator.interfaces import field
from bitwright.rtl.accelerator.slices import K_BITS, Slices
from bitwright.rtl.array.broadcast import BroadcastTile
from bitwright.rtl.array.skew import control_line, delay_data
from bitwright.rtl.array.systolic import SystolicArray

FP32_BITS = 32


def acc_port(bits: int) -> wiring.Signature:
    """The x ports of `AccMemory`, seen from the collector; r_data a cycle after r_en."""
    return wiring.Signature(
        {
            "r_en": Out(1),
            "r_slot": Out(1),
            "r_row": Out(ADDRESS_BITS),
            "r_data": In(bits),
            "w_en": Out(1),
            "w_slot": Out(1),
            "w_row": Out(ADDRESS_BITS),
            "w_data": Out(bits),
        }
    )


def has_act_sum(limits: Limits) -> bool:
    """Whether the array gives the sum of activations, for zero points."""
    return limits.pe.zero_point_column or (limits.tile is not None and limits.tile.has_act_sum)


class Collector(wiring.Component):
    """Adds every result vector of the array to its accumulator row; up to IN_FLIGHT Executes overlap.

    The result that the array shows belongs to the oldest Execute whose last one was not seen; which slice, group and
    token it is follows by counting. The parameters of its group are at the head of the par rows, whose choice is the
    format.

    Parameters
        limits : arch.isa.limits.Limits
        array : SystolicArray or BroadcastTile   For the widths of its outputs.
    Members
        start, word, acc_slot, par_slot : In   An Execute begins; its first result comes 5 cycles later or after that.
        psum_valid, psum_data, psum_last, act_sum : In   Of the array (act_sum with a zero point column).
        par : Out(bank_read)     Of the par slots; only if the columns' units take scales.
        acc : Out(acc_port)      Of the accumulators.
        done : Out(1)            The oldest Execute's last row is written in this cycle.
    Timing       a result in cycle c is written in c + D, D = execute_drain (3; of lut 4); its row is read in c + D - 2.
                 A row that comes again 1 or 2 cycles later takes the sum from the unit's output or from the register
                 behind it; after 3 cycles the memory has it.
    Arithmetic   that of arch.pe.units.GroupDequantiser or Fp32Accumulator, bit-exact.
    Reset        every Execute and result in flight is lost.
    """

    def __init__(self, limits: Limits, array: SystolicArray | BroadcastTile) -> None:
        self.limits = limits
        self.unit = column_unit(limits)
        self.drain = execute_drain(limits)
        self.par_users = result_par(limits)
        ports: dict[str, Any] = {
            "start": In(1),
            "word": In(WORD_BITS),
            "acc_slot": In(1),
            "par_slot": In(1),
            "psum_valid": In(1),
            "psum_data": In(len(array.psum_data)),
            "psum_last": In(1),
            "acc": Out(acc_port(FP32_BITS * limits.cols)),
            "done": Out(1),
        }
        if has_act_sum(limits):
            ports["act_sum"] = In(len(array.act_sum))
        if any(self.par_users):
            ports["par"] = Out(bank_read(8 * limits.port_bytes * banks(limits)[Channel.PAR]))
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slices = slices = Slices(self.limits.slice_steps)
        place, fresh, final = self._place(m, slices)
        units = self._dequantisers(m, slices) if any(self.par_users) else self._accumulators(m)
        self._accumulate(m, units, place, fresh)
        m.d.comb += self.done.eq(control_line(m, "done_line", final, self.drain)[self.drain])
        return m

    def _place(self, m: Module, slices: Slices) -> tuple[Value, Value, Value]:
        """Row and slot of the result of this cycle; whether they start from +0; whether it is its Execute's last."""
        layout = StructLayout({"slot": 1, "at": ADDRESS_BITS, "fresh": 1, "k": K_BITS, "group": K_BITS})
        m.submodules.waiting = waiting = SyncFIFO(width=layout.size, depth=IN_FLIGHT)
        entry, head = Signal(layout), View(layout, waiting.r_data)
        m.d.comb += [
            entry.slot.eq(self.acc_slot),
            entry.at.eq(field(self.word, Op.EXECUTE, "acc_at")),
            entry.fresh.eq(field(self.word, Op.EXECUTE, "first")),
            entry.k.eq(field(self.word, Op.EXECUTE, "k")),
            entry.group.eq(field(self.word, Op.EXECUTE, "group")),
            waiting.w_en.eq(self.start),
            waiting.w_data.eq(entry),
        ]
        final, load, slice_ends = Signal(), Signal(), Signal()
        slot, fresh = Signal(name="slot", reset_less=True), Signal(name="fresh", reset_less=True)
        at, row = (Signal(ADDRESS_BITS, name=name, reset_less=True) for name in ("at", "row"))
        m.d.comb += [
            slice_ends.eq(self.psum_valid & self.psum_last),
            final.eq(slice_ends & slices.last),
            load.eq(waiting.r_rdy & (~slices.valid | final)),
            waiting.r_en.eq(load),
            slices.load.eq(load),
            slices.k.eq(head.k),
            slices.group.eq(head.group),
            slices.next.eq(slice_ends),
        ]
        with m.If(load):
            m.d.sync += [slot.eq(head.slot), fresh.eq(head.fresh), at.eq(head.at), row.eq(head.at)]
        with m.Elif(self.psum_valid):
            m.d.sync += row.eq(Mux(self.psum_last, at, row + 1))
            with m.If(self.psum_last):
                m.d.sync += fresh.eq(0)
        return Cat(row, slot), fresh, final

    def _dequantisers(self, m: Module, slices: Slices) -> list[dict[str, Value]]:
        """The inputs of each column's GroupDequantiser but for `acc`: those of this cycle's result."""
        limits, unit, bits = self.limits, self.unit, self.limits.pe.psum.bits
        assert not isinstance(unit, Fp32Accumulator), f"{unit.name}: takes no scales"
        m.submodules.par_rows = reader = group_reader(limits, self.par_users)
        connect_bank(m, reader, self.par)
        self._queue_jobs(m, reader)
        m.d.comb += reader.row_ready.eq(self.psum_valid & self.psum_last & slices.group_end)
        shared: dict[str, Value] = {"i_valid": self.psum_valid}
        if isinstance(unit, GroupDequantiser) and unit.halves:
            halves = [int(counts_halves(form)) for form in limits.formats]
            shared["i_halve"] = chosen(m, reader.row_choice, halves, "halve")
        offset: Value = Const(0)
        if unit.zero_bits:
            # Of a systolic array: a format with an offset has no zero points, its entries have zeros there.
            offset = chosen(m, reader.row_choice, [self._offset(form) for form in limits.formats], "offset")
            shared["i_act_sum"] = self.act_sum[: unit.act_sum_bits]
        inputs = []
        for col, entry in enumerate(par_lanes(limits, self.par_users, reader)):
            mine = {"i_psum": self.psum_data[col * bits : (col + 1) * bits], "i_scale": entry[:SCALE_BITS]}
            if unit.zero_bits:
                mine["i_zero"] = Signal(unit.zero_bits, name=f"zero_c{col}")
                m.d.comb += mine["i_zero"].eq(self._zero(entry[SCALE_BITS:], offset))
            inputs.append(shared | mine)
        return inputs

    def _offset(self, form: TileFormat) -> int:
        """What the format adds to its zero point codes, as the unit's bits."""
        if self.limits.tile is None:
            return code_offset(self.limits, form)
        assert not isinstance(self.unit, Fp32Accumulator), "only units with scales have zero points"
        assert isinstance(self.limits.tile, StreamFamily), "the others scale their sums"
        code = np.zeros(1, np.int64) if form.zero else None
        return int(self.limits.tile.zero_points(code, form.name)[0]) & ((1 << self.unit.zero_bits) - 1)

    def _zero(self, code: Value, offset: Value) -> Value:
        """What the unit takes of a zero point code (0 where the format has none)."""
        if self.limits.tile is None:
            return code | offset
        assert isinstance(self.limits.tile, StreamFamily), "the others scale their sums"
        return (code << self.limits.tile.zero_shift) + offset

    def _queue_jobs(self, m: Module, reader: GroupReader) -> None:
        """The Executes whose parameters are not read yet: the reader takes one after the other."""
        layout = StructLayout(
            {"slot": 1, "at": ADDRESS_BITS, "choice": len(reader.job_choice), "k": K_BITS, "group": K_BITS}
        )
        m.submodules.par_jobs = jobs = SyncFIFO(width=layout.size, depth=IN_FLIGHT)
        entry, head = Signal(layout), View(layout, jobs.r_data)
        m.d.comb += [
            entry.slot.eq(self.par_slot),
            entry.at.eq(field(self.word, Op.EXECUTE, "par_at")),
            entry.choice.eq(field(self.word, Op.EXECUTE, "format")),
            entry.k.eq(field(self.word, Op.EXECUTE, "k")),
            entry.group.eq(field(self.word, Op.EXECUTE, "group")),
            jobs.w_en.eq(self.start),
            jobs.w_data.eq(entry),
            reader.job_valid.eq(jobs.r_rdy),
            jobs.r_en.eq(reader.job_ready),
            reader.job_slot.eq(head.slot),
            reader.job_beat.eq(head.at),
            reader.job_choice.eq(head.choice),
            reader.job_count.eq(head.k),
            reader.job_group.eq(head.group),
        ]

    def _accumulators(self, m: Module) -> list[dict[str, Value]]:
        """The inputs of each column's Fp32Accumulator but for `acc`: those of the result of two cycles ago."""
        valid = control_line(m, "psum_valid_delay", self.psum_valid, 2)[2]
        data = delay_data(m, "psum_data_delay", self.psum_data, 2)
        columns = range(self.limits.cols)
        return [{"i_valid": valid, "i_psum": data[col * FP32_BITS : (col + 1) * FP32_BITS]} for col in columns]

    def _accumulate(self, m: Module, units: list[dict[str, Value]], place: Value, fresh: Value) -> None:
        """The units, and their `acc`: the row in memory, or its newer word that is still on its way there."""
        read, add, write = self.drain - 2, self.drain - 1, self.drain  # ages of a result
        valid = control_line(m, "valid_line", self.psum_valid, write)
        places = _ages(m, "place", place, write)
        starts = _ages(m, "starts", fresh, add)
        shown = [Signal(FP32_BITS, name=f"sum_c{col}") for col in range(self.limits.cols)]
        sums = Cat(*shown)
        written = Signal(len(sums), name="written", reset_less=True)
        from_unit, from_written = (Signal(name=name, reset_less=True) for name in ("from_unit", "from_written"))
        m.d.sync += [
            from_unit.eq(valid[add] & (places[add] == places[read])),
            from_written.eq(valid[write] & (places[write] == places[read])),
            written.eq(sums),
        ]
        acc = Signal(len(sums), name="acc_now")
        with m.If(starts[add]):
            m.d.comb += acc.eq(0)
        with m.Elif(from_unit):
            m.d.comb += acc.eq(sums)
        with m.Elif(from_written):
            m.d.comb += acc.eq(written)
        with m.Else():
            m.d.comb += acc.eq(self.acc.r_data)
        m.d.comb += [
            self.acc.r_en.eq(valid[read] & ~starts[read]),
            Cat(self.acc.r_row, self.acc.r_slot).eq(places[read]),
            self.acc.w_en.eq(valid[write]),
            Cat(self.acc.w_row, self.acc.w_slot).eq(places[write]),
            self.acc.w_data.eq(sums),
        ]
        for col, inputs in enumerate(units):
            marks = ["valid_out", *([] if isinstance(self.unit, Fp32Accumulator) else ["acc_take"])]
            m.submodules[f"unit_c{col}"] = Instance(
                self.unit.module_name,
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                **inputs,
                i_acc=acc[col * FP32_BITS : (col + 1) * FP32_BITS],
                o_out=shown[col],
                **{
                    f"o_{name}": Signal(name=f"{name}_c{col}") for name in marks
                },  # what valid_line says for all columns
            )


def _ages(m: Module, name: str, value: Value, cycles: int) -> list[Value]:
    """`value` now and 1, 2, ... `cycles` cycles ago, in registers without a reset."""
    values = [value]
    for age in range(1, cycles + 1):
        register = Signal(len(value), name=f"{name}_{age}", reset_less=True)
        m.d.sync += register.eq(values[-1])
        values.append(register)
    return values
