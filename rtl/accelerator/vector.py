"""The Vector engine: accumulator rows to rows of results, a beat of fp32 columns at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2
from bitwright.arch.isa.extents import FP32_BITS
from bitwright.arch.isa.fields import BY_OP, WORD_BITS
from bitwright.arch.isa.instructions import NumberType, Op
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.timing import VECTOR_DRAIN, vector_lanes
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.banks import ADDRESS_BITS
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS, field
from bitwright.rtl.accelerator.lanes import (
    ACTIVATION_BITS,
    FP32_MINUS_ZERO,
    FP32_ONE,
    LANE_CYCLES,
    LANE_NAME,
    TO_BITS,
)
from bitwright.rtl.array.skew import delay_control

_CHANNELS = UNIT_CHANNELS[Op.VECTOR]
_READ_CYCLES = 2
"""From a slot of work to its values at the lanes: the memory, then a register."""

assert VECTOR_DRAIN == _READ_CYCLES + LANE_CYCLES, "the last beat is written in the cycle in which its results show"


@dataclass(frozen=True)
class _Work:
    """What the slot of work in this cycle reads; every value is 0 where there is none.

    Members
        scale, bias, residual : it reads a beat of these
        column : it is the last slot of its chunk, whose columns are complete with it
        chunk : number of the chunk in its row
        row_end, end : with `column`: the row's, the instruction's last chunk
        scale_lane : which value of the beat is the row's scale
    """

    scale: Value
    bias: Value
    residual: Value
    column: Value
    chunk: Value
    row_end: Value
    end: Value
    scale_lane: Value


def _chosen(data: Value, width: int, index: Value) -> Value:
    """The part of `width` bits at an index; a higher index than there are parts does not come."""
    parts = [data[start : start + width] for start in range(0, len(data), width)]
    parts += [parts[-1]] * ((1 << len(index)) - len(parts))  # so that every index has a case
    return Array(parts)[index]


class VectorEngine(wiring.Component):
    """Does what a Vector says, with as many lanes as a beat has fp32 values; one instruction at a time.

    Parameters
        limits : Limits          The machine.
    Members
        ready, start, word, slots, done : the engine interface; `slots` bit i of the i-th channel of UNIT_CHANNELS
        v_r_en, v_r_slot, v_r_row, v_r_data : Out(1), Out(1), Out(16), In(32 * cols)   Of the accumulators.
        vec_r_en, vec_r_slot, vec_r_beat, vec_r_data : Out(1), Out(1), Out(16), In(P)   Of scales, biases, residuals.
        out_w_en, out_w_slot, out_w_beat, out_w_data : Out(1), Out(1), Out(16), Out(P)   Of the results.
    Timing       start in cycle s: one slot of work a cycle from s + 1 to s + D, D = timing.vector_slots; done in
                 s + D + VECTOR_DRAIN, with the write of the last beat; ready is low from s + 1 to there.
                 Slots of a row: its scale, if it has one; for each chunk of columns its scales (by_column), its bias
                 and its residual, or one without a read of vec. The accumulators are read in the row's first slot.
    Arithmetic   bit-exact with arch.isa.arithmetic.vector; a step that the instruction leaves out is done with a
                 number that changes nothing (x 1, + -0).
    Reset        synchronous; an instruction in flight is lost, and nothing more is written.
    Model        arch.isa.interpreter (values), arch.isa.timing (cycles).
    Source       our own design.
    Evidence     see `evidence`.
    Verilog      its lanes are the module of lanes.lane_verilog().
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every write and every cycle of every kind of instruction equal interpreter and timing, 4 machines",
            576,
            "tests/rtl/accelerator/test_vector.py",
        ),
    )

    def __init__(self, limits: Limits) -> None:
        self.cols = limits.cols
        self.lanes = vector_lanes(limits)
        self.chunks = -(-limits.cols // self.lanes)
        self.port_bits = 8 * limits.port_bytes
        ports: dict[str, Any] = {
            "ready": Out(1),
            "start": In(1),
            "word": In(WORD_BITS),
            "slots": In(len(_CHANNELS)),
            "done": Out(1),
        }
        for prefix, place, width in (
            ("v_r", "row", FP32_BITS * limits.cols),
            ("vec_r", "beat", self.port_bits),
            ("out_w", "beat", self.port_bits),
        ):
            ports[f"{prefix}_en"] = Out(1)
            ports[f"{prefix}_slot"] = Out(1)
            ports[f"{prefix}_{place}"] = Out(ADDRESS_BITS)
            ports[f"{prefix}_data"] = Out(width) if prefix == "out_w" else In(width)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taken = self._taken(m)
        work = self._work(m, taken)
        column = delay_control(m, "column", work.column, VECTOR_DRAIN)
        row_end = delay_control(m, "row_end", work.row_end, VECTOR_DRAIN)
        end = delay_control(m, "last", work.end, VECTOR_DRAIN)
        results = self._lanes(m, taken, work)
        self._pack(m, taken, results, column, row_end)
        m.d.comb += self.done.eq(end)
        return m

    def _taken(self, m: Module) -> dict[str, Signal]:
        """The fields and slots of the instruction that is worked on, and `ready`."""
        busy = Signal(name="busy")
        m.d.comb += self.ready.eq(~busy)
        with m.If(self.start):
            m.d.sync += busy.eq(1)
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)
        taken: dict[str, Signal] = {}
        for name in ("to", "function", "scale", "bias", "residual", "by_column", "scale_at", "bias_at"):
            bits = BY_OP[int(Op.VECTOR)].field(name).bits
            taken[name] = Signal(bits, name=f"taken_{name}", reset_less=True)
            with m.If(self.start):
                m.d.sync += taken[name].eq(self._field(name))
        slots = Signal(len(_CHANNELS), name="taken_slots", reset_less=True)
        with m.If(self.start):
            m.d.sync += slots.eq(self.slots)
        m.d.comb += [
            self.v_r_slot.eq(slots[_CHANNELS.index(Channel.ACC)]),
            self.vec_r_slot.eq(slots[_CHANNELS.index(Channel.VEC)]),
            self.out_w_slot.eq(slots[_CHANNELS.index(Channel.OUT)]),
        ]
        return taken

    def _field(self, name: str) -> Value:
        return field(self.word, Op.VECTOR, name)

    def _work(self, m: Module, taken: dict[str, Signal]) -> _Work:
        """The slots of work, one a cycle, and what they read."""
        # `scale_slot` is high only while `working`, and by column never.
        working, scale_slot, second = Signal(name="working"), Signal(name="scale_slot"), Signal(name="second_slot")
        scaled = Signal(name="chunk_scaled")  # by column: the chunk's scales are read
        row_start = Signal(name="row_start", reset_less=True)
        rows_left = Signal(len(self._field("m")), name="rows_left", reset_less=True)
        chunk = Signal(bits_for(self.chunks - 1), name="chunk", reset_less=True)
        scale_lane = Signal(ceil_log2(self.lanes), name="scale_lane", reset_less=True)
        row, scale_beat, bias_beat, residual_beat = (
            Signal(ADDRESS_BITS, name=name, reset_less=True)
            for name in ("acc_row", "scale_beat", "bias_beat", "residual_beat")
        )
        scales, bias, residual, column, row_end, end = (
            Signal(name=f"{name}_now") for name in ("scales", "bias", "residual", "column", "row_end", "end")
        )
        chunk_slot = working & ~scale_slot
        others = chunk_slot & ~scales
        m.d.comb += [
            scales.eq(chunk_slot & taken["by_column"] & ~scaled),
            bias.eq(others & taken["bias"] & ~second),
            residual.eq(others & taken["residual"] & (second | ~taken["bias"])),
            column.eq(
                Mux(
                    scales,
                    ~(taken["bias"] | taken["residual"]),
                    chunk_slot & (second | ~(taken["bias"] & taken["residual"])),
                )
            ),
            row_end.eq(column & (chunk == self.chunks - 1)),
            end.eq(row_end & (rows_left == 1)),
            self.v_r_en.eq(working & row_start),
            self.v_r_row.eq(row),
            self.vec_r_en.eq(scale_slot | scales | bias | residual),
            self.vec_r_beat.eq(Mux(scale_slot | scales, scale_beat, Mux(residual, residual_beat, bias_beat))),
        ]
        m.d.sync += row_start.eq(row_end)
        with m.If(scale_slot):
            m.d.sync += [scale_slot.eq(0), Cat(scale_lane, scale_beat).eq(Cat(scale_lane, scale_beat) + 1)]
        with m.Elif(working):
            m.d.sync += [second.eq(~column & ~scales), residual_beat.eq(residual_beat + residual)]
            m.d.sync += [scaled.eq(~column), scale_beat.eq(scale_beat + scales)]
        with m.If(column):
            m.d.sync += [chunk.eq(chunk + 1), bias_beat.eq(bias_beat + 1)]
        with m.If(row_end):
            m.d.sync += [
                chunk.eq(0),
                bias_beat.eq(taken["bias_at"]),
                row.eq(row + 1),
                rows_left.eq(rows_left - 1),
                scale_slot.eq(taken["scale"] & ~taken["by_column"] & ~end),
                working.eq(~end),
            ]
            with m.If(taken["by_column"]):
                m.d.sync += scale_beat.eq(taken["scale_at"])
        with m.If(self.start):
            m.d.sync += [
                working.eq(1),
                scale_slot.eq(self._field("scale") & ~self._field("by_column")),
                second.eq(0),
                scaled.eq(0),
                row_start.eq(1),
                rows_left.eq(self._field("m")),
                chunk.eq(0),
                scale_lane.eq(0),
                row.eq(self._field("acc_at")),
                scale_beat.eq(self._field("scale_at")),
                bias_beat.eq(self._field("bias_at")),
                residual_beat.eq(self._field("residual_at")),
            ]
        return _Work(scale_slot | scales, bias, residual, column, chunk, row_end, end, scale_lane)

    def _lanes(self, m: Module, taken: dict[str, Signal], work: _Work) -> list[Value]:
        """The results of a chunk, VECTOR_DRAIN cycles after its last slot of work."""
        chunk = Signal(len(work.chunk), name="chunk_read", reset_less=True)
        lane = Signal(len(work.scale_lane), name="scale_lane_read", reset_less=True)
        m.d.sync += [chunk.eq(work.chunk), lane.eq(work.scale_lane)]
        acc = Signal(self.port_bits, name="acc_beat", reset_less=True)
        m.d.sync += acc.eq(_chosen(self.v_r_data, self.port_bits, chunk))
        # A number lives in its register from the cycle after it was read to the last chunk that needs it.
        row_scale = _chosen(self.vec_r_data, FP32_BITS, lane)
        row_scales = Mux(taken["by_column"], self.vec_r_data, row_scale.replicate(self.lanes))
        ones = Const(FP32_ONE, FP32_BITS).replicate(self.lanes)
        scale = self._operand(m, "scale", work.scale, row_scales, ones)
        nothing = Const(FP32_MINUS_ZERO, FP32_BITS).replicate(self.lanes)
        bias = self._operand(m, "bias", work.bias, self.vec_r_data, nothing)
        residual = self._operand(m, "residual", work.residual, self.vec_r_data, nothing)
        results: list[Value] = []
        for number in range(self.lanes):
            result = Signal(FP32_BITS, name=f"result_{number}")
            place = slice(number * FP32_BITS, (number + 1) * FP32_BITS)
            m.submodules[f"lane_{number}"] = Instance(
                LANE_NAME,
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                i_acc=acc[place],
                i_scale=scale[place],
                i_bias=bias[place],
                i_residual=residual[place],
                i_activation=taken["function"][:ACTIVATION_BITS],
                i_to=taken["to"][:TO_BITS],
                o_result=result,
            )
            results.append(result)
        return results

    def _operand(self, m: Module, name: str, read: Value, data: Value, nothing: Value) -> Signal:
        """What the memory shows a cycle after a read; `nothing` from the start of an instruction to its first read."""
        value = Signal(len(data), name=f"{name}_operand", reset_less=True)
        shown = Signal(name=f"{name}_shown")
        m.d.sync += shown.eq(read)
        with m.If(shown):
            m.d.sync += value.eq(data)
        with m.If(self.start):
            m.d.sync += value.eq(nothing)
        return value

    def _pack(self, m: Module, taken: dict[str, Signal], results: list[Value], column: Value, row_end: Value) -> None:
        """Results to beats: 1, 2 or 4 chunks a beat, zeros behind the end of a row."""
        place = Signal(2, name="pack_place")
        partial = Signal(self.port_bits, name="pack_partial")
        beat = Signal(ADDRESS_BITS, name="out_beat", reset_less=True)
        used = self.cols - (self.chunks - 1) * self.lanes  # lanes of a row's last chunk
        shown = [Mux(row_end, 0, result) if lane >= used else result for lane, result in enumerate(results)]
        placed, full = Signal(self.port_bits, name="pack_placed"), Signal(name="pack_full")
        with m.Switch(taken["to"]):
            for to, bits in ((NumberType.FP16, 16), (NumberType.INT8, 8)):
                with m.Case(int(to)):
                    chunk = Cat(*(result[:bits] for result in shown))
                    in_beat = self.port_bits // len(chunk)
                    here = [~place.any(), *(place == number for number in range(1, in_beat))]
                    m.d.comb += [full.eq(here[-1]), placed.eq(Cat(*(Mux(chosen, chunk, 0) for chosen in here)))]
            with m.Default():
                m.d.comb += [full.eq(1), placed.eq(Cat(*shown))]
        m.d.comb += [
            self.out_w_en.eq(column & (full | row_end)),
            self.out_w_beat.eq(beat),
            self.out_w_data.eq(partial | placed),
        ]
        with m.If(self.out_w_en):
            m.d.sync += [place.eq(0), partial.eq(0), beat.eq(beat + 1)]
        with m.Elif(column):
            m.d.sync += [place.eq(place + 1), partial.eq(partial | placed)]
        with m.If(self.start):
            m.d.sync += beat.eq(self._field("out_at"))
