"""The Load engine: rows of beats from memory to a slot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import ClassVar

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import ADDRESS_BITS
from bitwright.arch.isa.timing import IN_FLIGHT
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.bursts import BURST, BurstSplitter, region_base
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS, field
from bitwright.rtl.accelerator.memory_port import read_beats

BEAT_BITS = 16
"""Of a beat's place in a slot."""


class LoadEngine(wiring.Component):
    """Reads what a Load names and writes it, beat by beat, to the slot; up to IN_FLIGHT Loads overlap.

    Parameters
        port_bytes : 8, 16, 32 or 64   A beat.
        outstanding_reads : int    As of its MemoryPort.
    Members
        ready, start, word, slots, done : the engine interface; `slots` bit i of the i-th channel of UNIT_CHANNELS
        bases : In(4 x 40)       First byte of each region, at a multiple of a beat.
        request : Out(stream of BURST), beats : In(read_beats)   Of the memory port.
        write_en : Out(4)        One bit a channel, as `slots`: it takes the beat below at the end of this cycle.
        write_slot, write_beat, write_data : Out(1), Out(16), Out(8 * port_bytes)
        error : Out(1)           The beat that is written in this cycle came with an error; it is written all the same.
    Timing       start in cycle s: the first burst is offered from s + 1, each other from the cycle after the one before
                 was taken; ready is low from s + 1 to the cycle in which the last is taken. A beat is written in the
                 cycle in which the port shows it, the last one in the cycle of done.
    Reset        nothing in flight; only while the port is idle.
    Model        arch.fixed_memory (bursts, and when they come back).
    Source       our own design; decoupled access and execute: J. E. Smith, ISCA 1982.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every beat in its slot and in its cycle, ready and done in theirs, four widths; bytes with random stalls",
            1_600,
            "tests/rtl/accelerator/test_load.py",
        ),
    )

    def __init__(self, port_bytes: int, *, outstanding_reads: int = 16) -> None:
        self.port_bytes, self.outstanding_reads = port_bytes, outstanding_reads
        channels = len(UNIT_CHANNELS[Op.LOAD])
        super().__init__(
            {
                "ready": Out(1),
                "start": In(1),
                "word": In(WORD_BITS),
                "slots": In(channels),
                "done": Out(1),
                "bases": In(ArrayLayout(ADDRESS_BITS, REGIONS)),
                "request": Out(stream.Signature(BURST)),
                "beats": In(read_beats(port_bytes)),
                "write_en": Out(channels),
                "write_slot": Out(1),
                "write_beat": Out(BEAT_BITS),
                "write_data": Out(8 * port_bytes),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = BurstSplitter(self.port_bytes)
        m.d.comb += [
            self.ready.eq(~splitter.busy),
            splitter.start.eq(self.start),
            splitter.base.eq(region_base(self.bases, field(self.word, Op.LOAD, "region"))),
            self.write_data.eq(self.beats.data),
            self.error.eq(self.beats.valid & self.beats.error),
        ]
        for name in ("offset", "stride", "rows", "beats"):
            m.d.comb += getattr(splitter, name).eq(field(self.word, Op.LOAD, name))
        wiring.connect(m, splitter.burst, wiring.flipped(self.request))
        self._receive(m, splitter)
        return m

    def _receive(self, m: Module, splitter: BurstSplitter) -> None:
        """Beats to their slots: a ring of IN_FLIGHT Loads; `oldest` gets beats, `newest` asks for them (one-hot).

        Bursts are numbered as they are taken, modulo more than can be open, so that the last one of a Load is known by
        its number.
        """
        # One more than the port's: the port counts a burst's end a cycle before it is seen here.
        number_bits = bits_for(self.outstanding_reads + 1)
        taken, ended = (Signal(number_bits, name=name) for name in ("taken", "ended"))
        oldest, newest = (Signal(IN_FLIGHT, init=1, name=name) for name in ("oldest", "newest"))
        buffer = field(self.word, Op.LOAD, "buffer")
        takes = Signal()
        m.d.comb += takes.eq(self.request.valid & self.request.ready)
        enables, slots, places, lasts = [], [], [], []
        for i in range(IN_FLIGHT):
            channel = Signal(len(self.write_en), name=f"channel_{i}", reset_less=True)
            slot = Signal(name=f"slot_{i}", reset_less=True)
            at = Signal(BEAT_BITS, name=f"at_{i}", reset_less=True)
            final = Signal(number_bits, name=f"final_{i}", reset_less=True)
            asked = Signal(name=f"asked_{i}", reset_less=True)  # all bursts are taken; the last is number `final`
            with m.If(self.start & newest[i]):
                m.d.sync += [
                    channel.eq(one_hot(buffer)),
                    slot.eq((self.slots & one_hot(buffer)).any()),
                    at.eq(field(self.word, Op.LOAD, "at")),
                    asked.eq(0),
                ]
            with m.If(takes & splitter.final & newest[i]):
                m.d.sync += [final.eq(taken), asked.eq(1)]
            with m.If(self.beats.valid & oldest[i]):
                m.d.sync += at.eq(at + 1)
            enables.append(Mux(oldest[i], channel, 0))
            slots.append(Mux(oldest[i], slot, 0))
            places.append(Mux(oldest[i], at, 0))
            lasts.append(oldest[i] & asked & (final == ended))
        m.d.comb += [
            self.write_en.eq(Mux(self.beats.valid, any_of(enables), 0)),
            self.write_slot.eq(any_of(slots)),
            self.write_beat.eq(any_of(places)),
            self.done.eq(self.beats.valid & self.beats.last & any_of(lasts)),
        ]
        with m.If(takes):
            m.d.sync += taken.eq(taken + 1)
            with m.If(splitter.final):
                m.d.sync += newest.eq(newest.rotate_left(1))
        with m.If(self.beats.valid & self.beats.last):
            m.d.sync += ended.eq(ended + 1)
        with m.If(self.done):
            m.d.sync += oldest.eq(oldest.rotate_left(1))


def one_hot(number: Value) -> Value:
    """Bit `number` of 2**len(number) bits."""
    return Cat(number == i if i else ~number.any() for i in range(1 << len(number)))


def any_of(values: Sequence[Value]) -> Value:
    """The one that is not 0, or 0."""
    return reduce(or_, values)
