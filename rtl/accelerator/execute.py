# amaranth: UnusedElaboratable=no
# (an engine may be made only to ask what it needs)
"""The Execute engine: activations times one column tile of weights, into accumulators, on an array."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.array_timing import ONE_ROW
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.pe import Evidence
from bitwright.arch.pe.terms import format_specials
from bitwright.rtl.accelerator.collector import FP32_BITS, Collector, acc_port, has_act_sum
from bitwright.rtl.accelerator.column_decoder import column_decoder_verilog, column_unit_verilog, unsigned_codes
from bitwright.rtl.accelerator.feeders import ActFeeder, WeightFeeder, bank_read, banks, chosen
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS, field
from bitwright.rtl.accelerator.slices import Slices
from bitwright.rtl.array.bit_serial_tile import BitSerialTile, specials_value, tile_of
from bitwright.rtl.array.broadcast import BroadcastTile
from bitwright.rtl.array.sequencer import TILE_BITS
from bitwright.rtl.array.systolic import SystolicArray
from bitwright.rtl.pe.emit import emit


class ExecuteEngine(wiring.Component):
    """Runs Executes on its array, slice after slice, one after the other without a bubble.

    Parameters
        limits : arch.isa.limits.Limits
        array : SystolicArray or BroadcastTile   Of these limits (`array_of`); the engine holds it.
    Members
        ready, start, word, slots, done : the engine interface; `slots` bit i of the i-th channel of UNIT_CHANNELS
        act, wgt : Out(bank_read)   Read ports of the slots, of `banks(limits)` beats each.
        weight_par, result_par : Out(bank_read)   Two read ports of the par slots; only those in `par_ports`, which the
            decoders above the columns and the units below them read at their own times.
        acc : Out(acc_port)      The x ports of the accumulators.
    Rules        at most IN_FLIGHT Executes are started and not done. What an Execute reads was written before its
                 start, and nobody writes it before its done.
    Timing       start in cycle s: the first beat of weights is offered in s + EXECUTE_FILL (4). Then every tile (a
                 slice of the reduction, m tokens) is as in arch.array_timing.step with ready = s + 4: none is late.
                 ready is low from s + 1 to the cycle q in which the array takes the last weight row (output-stationary:
                 element); done is execute_drain (3; of lut 4) cycles after the last result at the array's edge.
    Weight rule  of the weight-stationary array: beat i of a tile no later than i - 1 cycles after its first activation.
                 The reader of weights gives a row a cycle once it began, that of the decoders' parameters too, and both
                 wait for nothing but the array's ready; so `wgt_valid` stays high to the last row.
    Signedness   of weight codes (shift-add): the array's pin never changes, see `feeders.code_offset`; formats of both
                 kinds follow each other like any others.
    Arithmetic   that of arch.isa.arithmetic.execute, bit-exact.
    Reset        every Execute is lost.
    Model        arch.array_timing, arch.isa.arithmetic.
    Source       our own design; weight prefetch as of the array; decoupled access and execute: J. E. Smith, ISCA 1982.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every accumulator bit and every cycle of ready and done of 5,549 random Executes that overlap, early and "
            "late, nine machines; resets in mid flight",
            61_663,
            "tests/rtl/accelerator/test_execute.py",
        ),
    )

    def __init__(self, limits: Limits, array: SystolicArray | BroadcastTile) -> None:
        dataflow = "os" if isinstance(array, BroadcastTile) else array.dataflow
        asked = (limits.rows, limits.cols, limits.stationary, limits.pe, limits.load)
        load = ONE_ROW if isinstance(array, BroadcastTile) else array.load
        if asked != (array.rows, array.cols, dataflow, array.spec, load):
            raise ConfigError(
                f"array = {array.module_name}: must be {limits.rows} x {limits.cols} {limits.stationary} of "
                f"{limits.pe.name}; the execute engine"
            )
        self.limits, self.array = limits, array
        self._weights, self._acts, self._collector = WeightFeeder(limits), ActFeeder(limits), Collector(limits, array)
        users = {"weight_par": self._weights.par_users, "result_par": self._collector.par_users}
        self.par_ports = tuple(name for name, forms in users.items() if any(forms))
        bits = {channel: 8 * limits.port_bytes * count for channel, count in banks(limits).items()}
        ports: dict[str, Any] = {
            "ready": Out(1),
            "start": In(1),
            "word": In(WORD_BITS),
            "slots": In(len(UNIT_CHANNELS[Op.EXECUTE])),
            "done": Out(1),
            "act": Out(bank_read(bits[Channel.ACT])),
            "wgt": Out(bank_read(bits[Channel.WGT])),
            "acc": Out(acc_port(FP32_BITS * limits.cols)),
        }
        ports |= {name: Out(bank_read(bits[Channel.PAR])) for name in self.par_ports}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        weights, acts, collector, array = self._weights, self._acts, self._collector, self.array
        m.submodules.weights, m.submodules.acts, m.submodules.collector = weights, acts, collector
        m.submodules.array = array
        slot = dict(zip(UNIT_CHANNELS[Op.EXECUTE], self.slots, strict=True))
        for part in (weights, acts, collector):
            m.d.comb += [part.start.eq(self.start), part.word.eq(self.word)]
        m.d.comb += [
            weights.wgt_slot.eq(slot[Channel.WGT]),
            weights.par_slot.eq(slot[Channel.PAR]),
            acts.slot.eq(slot[Channel.ACT]),
            collector.acc_slot.eq(slot[Channel.ACC]),
            collector.par_slot.eq(slot[Channel.PAR]),
            self.ready.eq(~weights.busy),
            self.done.eq(collector.done),
        ]
        wiring.connect(m, weights.wgt, wiring.flipped(self.wgt))
        wiring.connect(m, acts.act, wiring.flipped(self.act))
        wiring.connect(m, collector.acc, wiring.flipped(self.acc))
        for name in self.par_ports:
            part = weights if name == "weight_par" else collector
            wiring.connect(m, part.par, wiring.flipped(getattr(self, name)))
        self._stream(m)
        return m

    def _stream(self, m: Module) -> None:
        """Tile commands, operands and results of the array."""
        weights, acts, collector, array = self._weights, self._acts, self._collector, self.array
        m.submodules.tiles = tiles = Slices(self.limits.slice_steps)
        tokens = Signal(TILE_BITS, reset_less=True)
        with m.If(self.start):
            m.d.sync += tokens.eq(field(self.word, Op.EXECUTE, "m"))
        m.d.comb += [
            tiles.load.eq(self.start),
            tiles.k.eq(field(self.word, Op.EXECUTE, "k")),
            tiles.group.eq(field(self.word, Op.EXECUTE, "group")),
            tiles.next.eq(array.tile_ready),  # only while tile_valid
            array.tile_valid.eq(tiles.valid),
            array.tile_m.eq(tokens),
            array.tile_k.eq(tiles.length),
            array.wgt_valid.eq(weights.wgt_valid),
            array.wgt_data.eq(weights.wgt_data),
            weights.wgt_ready.eq(array.wgt_ready),
            array.act_valid.eq(acts.act_valid),
            array.act_data.eq(acts.act_data),
            acts.act_ready.eq(array.act_ready),
            collector.psum_valid.eq(array.psum_valid),
            collector.psum_data.eq(array.psum_data),
            collector.psum_last.eq(array.psum_last),
        ]
        if has_act_sum(self.limits):
            m.d.comb += collector.act_sum.eq(array.act_sum)
        if isinstance(array, BitSerialTile):
            m.d.comb += array.par_data.eq(weights.wgt_par)
        if isinstance(array, BroadcastTile):
            self._mode(m, array)
        elif array.has_unsigned_mode:
            m.d.comb += array.wgt_unsigned.eq(Const(any(map(unsigned_codes, self.limits.formats)), 1))

    def _mode(self, m: Module, tile: BroadcastTile) -> None:
        """What the tile's PEs are told of the weights' format."""
        family = tile.family
        if family.mode_field is None:
            return
        told = {family.mode_field.name: [family.mode(form.name) for form in self.limits.formats]}
        if isinstance(tile, BitSerialTile):
            told["specials"] = [specials_value(format_specials(form.name)) for form in self.limits.formats]
        for name, values in told.items():
            held = Signal(len(getattr(tile, name)), name=f"{name}_held", reset_less=True)
            with m.If(self.start):
                m.d.sync += held.eq(chosen(m, field(self.word, Op.EXECUTE, "format"), values, f"{name}_now"))
            m.d.comb += getattr(tile, name).eq(held)


def array_of(limits: Limits) -> SystolicArray | BroadcastTile:
    """The array of a machine."""
    if limits.tile is None:
        return SystolicArray(limits.pe, limits.rows, limits.cols, limits.stationary, load=limits.load)
    return tile_of(limits.pe, limits.rows, limits.cols)


def execute_verilog(engine: ExecuteEngine) -> str:
    """The modules that an engine instantiates by name, once each: cell, column decoder, unit below a column."""
    limits, array = engine.limits, engine.array
    if isinstance(array, BroadcastTile):
        return "\n".join([array.places_verilog(), column_unit_verilog(limits)[1]])
    return "\n".join(
        [emit(array.cell, array.cell_name), column_decoder_verilog(limits)[1], column_unit_verilog(limits)[1]]
    )
