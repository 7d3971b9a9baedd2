# amaranth: UnusedElaboratable=no
# (a column decoder is made here for its ports; the feeder instantiates its Verilog module by name)
"""What feeds the array: weight rows through the column decoders, activation vectors, rows of group parameters."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Channel, Limits, TileFormat
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser
from bitwright.arch.pe.units import GroupDequantiser
from bitwright.rtl.accelerator.banks import ADDRESS_BITS, banks_needed
from bitwright.rtl.accelerator.column_decoder import (
    ColumnDecoder,
    column_unit,
    decoder,
    unsigned_codes,
    weight_scale,
)
from bitwright.rtl.accelerator.interfaces import field
from bitwright.rtl.accelerator.legality import quotient
from bitwright.rtl.accelerator.row_reader import RowReader, lanes
from bitwright.rtl.accelerator.slices import K_BITS, Slices
from bitwright.rtl.array.bit_serial_tile import PAR_BITS
from bitwright.rtl.array.sequencer import TILE_BITS

SCALE_BITS = 16
"""Of an entry of the par channel; the zero point code stands above it."""


def bank_read(bits: int) -> wiring.Signature:
    """A read port of `BeatBanks`, seen from its reader: en, slot, beat; data in the next cycle."""
    return wiring.Signature({"en": Out(1), "slot": Out(1), "beat": Out(ADDRESS_BITS), "data": In(bits)})


def banks(limits: Limits) -> dict[Channel, int]:
    """How many banks the slots that Execute reads need; the same for every read port of par."""
    bits, cols = 8 * limits.port_bytes, limits.cols
    return {
        Channel.ACT: banks_needed([limits.lanes * limits.vector_beats * bits], bits, padded=True),
        Channel.WGT: banks_needed([limits.weight_rows * cols * form.bits for form in limits.formats], bits),
        Channel.PAR: banks_needed([cols * form.par_bits for form in limits.formats], bits),
    }


def weight_par(limits: Limits) -> list[TileFormat | None]:
    """Of each format itself if its decoder takes scales or zero points, or the PE its scales, else None."""
    if limits.scales_by_column:
        return list(limits.formats)
    scales = weight_scale(limits)
    wanted = [(form.scale if scales else form.zero) and decoder(limits, form) is not None for form in limits.formats]
    return [form if wants else None for form, wants in zip(limits.formats, wanted, strict=True)]


def result_par(limits: Limits) -> list[TileFormat | None]:
    """Of each format itself if the column's result unit takes its scales, else None."""
    dequantises = isinstance(column_unit(limits), GroupDequantiser | FixedPointDequantiser)
    return [form if dequantises and form.scale else None for form in limits.formats]


def code_offset(limits: Limits, form: TileFormat) -> int:
    """What is added to the format's codes before an array that takes codes; 0 but for signed ones beside unsigned ones.

    Such an array has one pin for all its cells that says what the codes' top bit weighs, while tiles of two formats
    overlap in it. Where a machine has both kinds, the pin stays high, and a signed code enters as the unsigned
    code + 2**(bits - 1): its top bit inverted. The zero point column takes the offset off with the zero point, exactly.
    """
    kinds = [unsigned_codes(item) for item in limits.formats]
    if not limits.pe.zero_point_column or not any(kinds) or unsigned_codes(form):
        return 0
    if form.zero:
        raise ConfigError(
            f"formats: {form.name}: signed codes with zero points beside unsigned codes "
            f"({', '.join(item.name for item in limits.formats)}) do not fit {limits.pe.name}; leave one out"
        )
    return 1 << (limits.pe.wgt.bits - 1)


def beats_of(limits: Limits, elements: Value) -> Value:
    """Beats of weights of so many elements of the reduction, of a broadcast tile also of activations."""
    return quotient(elements + (limits.weight_rows - 1), limits.weight_rows)


class GroupReader(RowReader):
    """Rows of group parameters: a RowReader whose job has a row a group, counted while it reads, without a division.

    Parameters
        as of RowReader
    Members      as of RowReader, but
        job_count : In(17)       Elements of the reduction, k.
        job_group : In(14)       Elements of a group (no member of the signature): the job has ceil(k / group) rows.
    Timing       as of RowReader, but it holds no job beside the one that it reads: job_ready is high while it has none
                 and in the cycle of the last read, so it depends on row_ready.
    Reset        every job and row is lost.
    """

    def __init__(self, port_bits: int, banks: int, row_bits: list[int]) -> None:
        super().__init__(port_bits, banks, row_bits)
        self.job_group = Signal(K_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.groups = groups = Slices(None)
        offset_bits = ceil_log2(self.port_bits // self.unit_bits)
        slot = Signal(reset_less=True)
        choice = Signal(len(self.job_choice), reset_less=True)
        place = Signal(ADDRESS_BITS + offset_bits, reset_less=True)  # of the row, in units
        read, free = Signal(), Signal()
        m.d.comb += [
            read.eq(groups.valid & free),
            self.job_ready.eq(~groups.valid | (read & groups.last)),
            groups.load.eq(self.job_valid & self.job_ready),
            groups.k.eq(self.job_count),
            groups.group.eq(self.job_group),
            groups.next.eq(read),
            self.r_en.eq(read),
            self.r_slot.eq(slot),
            self.r_beat.eq(place[offset_bits:]),
        ]
        with m.If(groups.load):
            m.d.sync += [slot.eq(self.job_slot), choice.eq(self.job_choice), place.eq(self.job_beat << offset_bits)]
        with m.Elif(read):
            m.d.sync += place.eq(place + self._step(choice))
        self._deliver(m, free, read, place[:offset_bits], choice, groups.last)
        return m


def group_reader(limits: Limits, users: list[TileFormat | None]) -> GroupReader:
    """The reader of the parameters of those formats."""
    row_bits = [limits.cols * form.par_bits if form else 0 for form in users]
    return GroupReader(8 * limits.port_bytes, banks(limits)[Channel.PAR], row_bits)


def par_lanes(limits: Limits, users: list[TileFormat | None], reader: GroupReader) -> list[Value]:
    """Each column's entry in the reader's row: the scale, above it the zero point, 0 where the format has none."""
    bits = [form.par_bits if form else 0 for form in users]
    return lanes(reader.row_data, reader.row_choice, bits, limits.cols)


def connect_bank(m: Module, reader: RowReader, port: Any) -> None:
    """Join a reader with its memory's port."""
    m.d.comb += [
        port.en.eq(reader.r_en),
        port.slot.eq(reader.r_slot),
        port.beat.eq(reader.r_beat),
        reader.r_data.eq(port.data),
    ]


def chosen(m: Module, choice: Value, values: list[int], name: str) -> Value:
    """values[choice], as a signal `name`."""
    found = Signal(bits_for(max(values)), name=name)
    with m.Switch(choice):
        for index, value in enumerate(values[:-1]):
            with m.Case(index):
                m.d.comb += found.eq(value)
        with m.Default():
            m.d.comb += found.eq(values[-1])
    return found


class WeightFeeder(wiring.Component):
    """The weight rows of an Execute, decoded, `weight_rows` at once, for the array; of a tile as they are.

    A row and its format go together from the reader to the decoders, and the group's parameters wait beside them until
    the last row of the group is taken.

    Parameters
        limits : arch.isa.limits.Limits
    Members
        start, word, wgt_slot, par_slot : In   Takes an Execute; only while `busy` is low. The slots count with `start`.
        busy : Out(1)            The array has not taken the last row yet.
        wgt : Out(bank_read)     Of the wgt slots.
        par : Out(bank_read)     Of the par slots; only if some decoder takes scales or zero points, or the PE scales.
        wgt_valid, wgt_ready, wgt_data : Out(1), In(1), Out   To the array.
        wgt_par : Out            With wgt_data: each column's entry of the par channel; only if the PE takes scales.
    Timing       start in cycle s: the first row is offered in s + EXECUTE_FILL (4), every other in the cycle after the
                 one before was taken; `wgt_valid` is high from s + 4 until the last row is taken, `busy` from s + 1 to
                 then.
    Reset        nothing to feed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.par_users = weight_par(limits)
        self._weight_bits = limits.pe.wgt.bits if limits.tile is None else limits.tile.code_bits
        bits, count = 8 * limits.port_bytes, banks(limits)
        ports: dict[str, Any] = {
            "start": In(1),
            "word": In(WORD_BITS),
            "wgt_slot": In(1),
            "par_slot": In(1),
            "busy": Out(1),
            "wgt": Out(bank_read(bits * count[Channel.WGT])),
            "wgt_valid": Out(1),
            "wgt_ready": In(1),
            "wgt_data": Out(limits.weight_rows * limits.cols * self._weight_bits),
        }
        if any(self.par_users):
            ports["par"] = Out(bank_read(bits * count[Channel.PAR]))
        if limits.scales_by_column:
            ports["wgt_par"] = Out(limits.cols * PAR_BITS)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        row_bits = [limits.weight_rows * limits.cols * form.bits for form in limits.formats]
        m.submodules.rows = rows = RowReader(8 * limits.port_bytes, banks(limits)[Channel.WGT], row_bits)
        connect_bank(m, rows, self.wgt)
        m.d.comb += [
            rows.job_valid.eq(self.start),
            rows.job_slot.eq(self.wgt_slot),
            rows.job_beat.eq(field(self.word, Op.EXECUTE, "wgt_at")),
            rows.job_choice.eq(field(self.word, Op.EXECUTE, "format")),
            rows.job_count.eq(beats_of(limits, field(self.word, Op.EXECUTE, "k"))),
        ]
        take, room, last = Signal(), Signal(), Signal(reset_less=True)
        entries, there = self._parameters(m, rows, take)
        m.d.comb += [
            room.eq(~self.wgt_valid | self.wgt_ready),
            rows.row_ready.eq(room & there),
            take.eq(rows.row_valid & rows.row_ready),
        ]
        with m.If(room):
            m.d.sync += self.wgt_valid.eq(take)
        with m.If(take):
            m.d.sync += last.eq(rows.row_last)
        with m.If(self.start):
            m.d.sync += self.busy.eq(1)
        with m.Elif(self.wgt_valid & self.wgt_ready & last):
            m.d.sync += self.busy.eq(0)
        self._decode(m, rows, take, entries)
        return m

    def _parameters(self, m: Module, rows: RowReader, take: Value) -> tuple[list[Value], Value]:
        """Each column's entry of the row's group, and whether it is there; none and 1 where no decoder wants any."""
        if not any(self.par_users):
            return [], Signal(init=1)
        m.submodules.par_rows = reader = group_reader(self.limits, self.par_users)
        connect_bank(m, reader, self.par)
        wanted = [int(form is not None) for form in self.par_users]
        of_word = field(self.word, Op.EXECUTE, "format")
        of_row = chosen(m, rows.row_choice, wanted, "row_wants")
        group = field(self.word, Op.EXECUTE, "group")
        whole_group, left = (Signal(K_BITS, name=name, reset_less=True) for name in ("whole_group", "group_left"))
        ends = Signal()
        m.d.comb += [
            reader.job_valid.eq(self.start & chosen(m, of_word, wanted, "job_wants")),
            reader.job_slot.eq(self.par_slot),
            reader.job_beat.eq(field(self.word, Op.EXECUTE, "par_at")),
            reader.job_choice.eq(of_word),
            reader.job_count.eq(field(self.word, Op.EXECUTE, "k")),
            reader.job_group.eq(group),
            ends.eq((left <= self.limits.weight_rows) | rows.row_last),
            reader.row_ready.eq(take & of_row & ends),
        ]
        with m.If(self.start):
            m.d.sync += [whole_group.eq(group), left.eq(group)]
        with m.Elif(take):
            m.d.sync += left.eq(Mux(ends, whole_group, left - self.limits.weight_rows))
        return par_lanes(self.limits, self.par_users, reader), reader.row_valid | ~of_row

    def _decode(self, m: Module, rows: RowReader, take: Value, entries: list[Value]) -> None:
        """A ColumnDecoder a weight, and the offset of the weights."""
        limits = self.limits
        if limits.tile is not None:
            bits = [form.bits for form in limits.formats]
            stored = lanes(rows.row_data, rows.row_choice, bits, limits.lanes * limits.cols)
            with m.If(take):
                m.d.sync += self.wgt_data.eq(Cat(self._element(code, rows.row_choice) for code in stored))
                if limits.scales_by_column:
                    m.d.sync += self.wgt_par.eq(Cat(Cat(entry, Const(0, PAR_BITS))[:PAR_BITS] for entry in entries))
            return
        made = ColumnDecoder(limits)
        names = [
            f"{f'r{row}_' if row else ''}c{col}" for row in range(limits.weight_rows) for col in range(limits.cols)
        ]
        weights = [Signal(limits.pe.wgt.bits, name=f"weight_{name}") for name in names]
        codes = lanes(rows.row_data, rows.row_choice, [form.bits for form in limits.formats], len(names))
        for number, (name, code, weight) in enumerate(zip(names, codes, weights, strict=True)):
            col = number % limits.cols
            inputs: dict[str, Value] = {"i_en": take, "i_format": rows.row_choice, "i_code": code}
            if hasattr(made, "scale"):
                inputs["i_scale"] = entries[col][:SCALE_BITS]
            if hasattr(made, "zero"):
                inputs["i_zero"] = entries[col][SCALE_BITS : SCALE_BITS + len(made.zero)]
            clock: dict[str, Value] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
            m.submodules[f"decoder_{name}"] = Instance(made.module_name, **clock, **inputs, o_wgt=weight)
        offsets = [code_offset(limits, form) for form in limits.formats]
        if any(offsets):
            offset = Signal(limits.pe.wgt.bits, name="offset", reset_less=True)
            with m.If(take):
                m.d.sync += offset.eq(chosen(m, rows.row_choice, offsets, "row_offset"))
            m.d.comb += self.wgt_data.eq(Cat(weight ^ offset for weight in weights))
        else:
            m.d.comb += self.wgt_data.eq(Cat(*weights))

    def _element(self, code: Value, choice: Value) -> Value:
        """A stored code as wide as a tile's PE takes it: zeros above, or copies of its top bit."""
        tile, bits = self.limits.tile, self._weight_bits
        assert tile is not None, "elements are a tile's"
        value: Value = Cat(code, Const(0, bits))[:bits]  # also where no format of the machine is as wide
        for index, form in enumerate(self.limits.formats):
            if tile.sign_extended(form.name):
                extended = Cat(code[: form.bits], code[form.bits - 1].replicate(bits - form.bits))
                value = Mux(choice == index, extended, value)
        return value


class ActFeeder(wiring.Component):
    """The activation vectors of Executes, for the array's stream.

    Weight-stationary: m vectors a slice, a job of the reader for each slice. Output-stationary: k vectors; a broadcast
    tile takes `lanes` of them at once.

    Parameters
        limits : arch.isa.limits.Limits
    Members
        start, word, slot : In   Takes an Execute. The reader may still be at one before; Rules.
        act : Out(bank_read)     Of the act slots.
        act_valid, act_ready, act_data : Out(1), In(1), Out   To the array.
    Rules        start only when the array has taken the last weight row of the Execute before. Then at most two slices
                 are not streamed, and the reader has the jobs of both: the array takes the first weight row of slice t
                 only when it has taken an activation of slice t - 1, and when that one was read, the job of slice t was
                 next for the queue.
    Timing       start in cycle s: the first vector is offered in s + 4 if none is before it, every other in the cycle
                 after the one before was taken.
    Reset        nothing to feed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        super().__init__(
            {
                "start": In(1),
                "word": In(WORD_BITS),
                "slot": In(1),
                "act": Out(bank_read(8 * limits.port_bytes * banks(limits)[Channel.ACT])),
                "act_valid": Out(1),
                "act_ready": In(1),
                "act_data": Out(limits.lanes * limits.rows * limits.act_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        vector_bits, padded_bits = limits.rows * limits.act_bits, limits.vector_beats * 8 * limits.port_bytes
        m.submodules.rows = rows = RowReader(
            8 * limits.port_bytes,
            banks(limits)[Channel.ACT],
            [(limits.lanes - 1) * padded_bits + vector_bits],
            stride_beats=limits.lanes * limits.vector_beats,
        )
        connect_bank(m, rows, self.act)
        m.submodules.slices = slices = Slices(limits.slice_steps if limits.stationary == "ws" else None)
        beats = limits.vector_beats
        slot = Signal(reset_less=True)
        at = Signal(ADDRESS_BITS, reset_less=True)
        count, count_beats = Signal(TILE_BITS, reset_less=True), Signal(ADDRESS_BITS, reset_less=True)
        whole = field(self.word, Op.EXECUTE, "k")
        tokens = field(self.word, Op.EXECUTE, "m")
        streamed = limits.stationary == "os"
        m.d.comb += [
            slices.load.eq(self.start),
            slices.k.eq(whole),
            # Output-stationary: one job, as if the reduction were one group.
            slices.group.eq(whole if streamed else field(self.word, Op.EXECUTE, "group")),
            slices.next.eq(rows.job_valid & rows.job_ready),
            rows.job_valid.eq(slices.valid),
            rows.job_slot.eq(slot),
            rows.job_beat.eq(at),
            rows.job_count.eq(beats_of(limits, slices.length) if streamed else count),
            self.act_valid.eq(rows.row_valid),
            rows.row_ready.eq(self.act_ready),
            self.act_data.eq(Cat(rows.row_data.bit_select(i * padded_bits, vector_bits) for i in range(limits.lanes))),
        ]
        with m.If(self.start):
            m.d.sync += [
                slot.eq(self.slot),
                at.eq(field(self.word, Op.EXECUTE, "act_at") * beats),
                count.eq(tokens),
                count_beats.eq(tokens * beats),
            ]
        with m.Elif(slices.next):
            m.d.sync += at.eq(at + count_beats)
        return m
