"""The Store engine: a slot of results to rows of beats in memory."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from bitwright.arch.fixed_memory import BURST_BYTES, MOST_BURST_BEATS
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import ADDRESS_BITS
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.bursts import BURST, BurstSplitter, region_base
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS, field
from bitwright.rtl.accelerator.load import BEAT_BITS
from bitwright.rtl.accelerator.memory_port import RESPONSE, open_count, write_beat

FIFO_BEATS = 4
"""A beat asked for in one cycle can leave two cycles later, and its place is known free one after: 3 would do."""


class StoreEngine(wiring.Component):
    """Reads a slot densely and writes what a Store names; one Store at a time.

    Parameters
        port_bytes : 8, 16, 32 or 64   A beat.
        outstanding_writes : int   As of its MemoryPort.
    Members
        ready, start, word, slots, done : the engine interface
        bases : In(4 x 40)       First byte of each region, at a multiple of a beat.
        read_en, read_slot, read_beat, read_data : Out(1), Out(1), Out(16), In(8 * port_bytes)   A read port of the out
            slots: the data a cycle after `read_en`.
        request : Out(stream of BURST), beats : Out(stream of write_beat), response : In(RESPONSE)   Of the memory port.
        error : Out(1)           The response in this cycle is an error.
    Timing       start in cycle s: beats are read from s + 1, one a cycle while the FIFO has room. The first burst is
                 offered from s + STORE_FILL (3), in which the first beat is there; each other from the cycle after the
                 one before was taken. Beats leave as the memory takes them, never late where it takes one a cycle. done
                 in the cycle in which the last burst's response is shown; ready is low from s + 1 to then.
    Reset        nothing in flight; only while the port is idle.
    Model        arch.fixed_memory (bursts, and when they are served).
    Source       our own design; decoupled access and execute: J. E. Smith, ISCA 1982.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every byte of memory, every burst, done and ready in their cycles, four widths; bytes with random stalls",
            1_600,
            "tests/rtl/accelerator/test_store.py",
        ),
    )

    def __init__(self, port_bytes: int, *, outstanding_writes: int = 16) -> None:
        self.port_bytes, self.outstanding_writes = port_bytes, outstanding_writes
        super().__init__(
            {
                "ready": Out(1),
                "start": In(1),
                "word": In(WORD_BITS),
                "slots": In(len(UNIT_CHANNELS[Op.STORE])),
                "done": Out(1),
                "bases": In(ArrayLayout(ADDRESS_BITS, REGIONS)),
                "read_en": Out(1),
                "read_slot": Out(1),
                "read_beat": Out(BEAT_BITS),
                "read_data": In(8 * port_bytes),
                "request": Out(stream.Signature(BURST)),
                "beats": Out(stream.Signature(write_beat(port_bytes))),
                "response": In(RESPONSE),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = BurstSplitter(self.port_bytes)
        m.submodules.fifo = fifo = SyncFIFO(width=8 * self.port_bytes + 2, depth=FIFO_BEATS)
        filled = Signal()
        busy = Signal()
        m.d.comb += [
            splitter.start.eq(self.start),
            splitter.base.eq(region_base(self.bases, field(self.word, Op.STORE, "region"))),
            self.request.payload.eq(splitter.burst.payload),
            self.request.valid.eq(splitter.burst.valid & filled),
            splitter.burst.ready.eq(self.request.ready & filled),
            self.ready.eq(~busy),
            self.error.eq(self.response.valid & self.response.error),
        ]
        for name in ("offset", "stride", "rows", "beats"):
            m.d.comb += getattr(splitter, name).eq(field(self.word, Op.STORE, name))
        taken = self.request.valid & self.request.ready
        owed = open_count(m, "owed", self.outstanding_writes + 1, taken, self.response.valid)
        m.d.comb += self.done.eq(self.response.valid & (owed == 1) & ~splitter.busy)

        arriving, last, tail = self._read(m, splitter, fifo)
        m.d.comb += [fifo.w_en.eq(arriving), fifo.w_data.eq(Cat(self.read_data, last, tail))]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), filled.eq(0)]
        with m.Else():
            with m.If(arriving):
                m.d.sync += filled.eq(1)
            with m.If(self.done):
                m.d.sync += busy.eq(0)
        self._send(m, fifo)
        return m

    def _read(self, m: Module, splitter: BurstSplitter, fifo: SyncFIFO) -> tuple[Signal, Signal, Signal]:
        """The slot's beats, one a cycle while the FIFO has a place; returns whether one arrives, and whether it is the
        last of its burst, of its row.

        The burst's end follows from the beat's place between two multiples of 4 KiB, as in the splitter.
        """
        window = BURST_BYTES // self.port_bytes
        place_bits = exact_log2(window)
        reading = Signal()
        free = Signal(range(FIFO_BEATS + 1), init=FIFO_BEATS)
        beats, beats_left, rows_left = (Signal(16, name=f"read_{n}", reset_less=True) for n in ("row", "left", "rows"))
        row_place, place, stride = (
            Signal(place_bits, name=f"read_{n}", reset_less=True) for n in ("row_place", "place", "stride")
        )
        in_burst = Signal(range(MOST_BURST_BEATS))
        row_end, burst_end = Signal(), Signal()
        m.d.comb += [
            self.read_en.eq(reading & free.any()),
            row_end.eq(beats_left == 1),
            burst_end.eq(row_end | (place == window - 1) | (in_burst == MOST_BURST_BEATS - 1)),
        ]
        with m.If(self.read_en):
            m.d.sync += [
                self.read_beat.eq(self.read_beat + 1),
                place.eq(place + 1),
                beats_left.eq(beats_left - 1),
                in_burst.eq(Mux(burst_end, 0, in_burst + 1)),
            ]
            with m.If(row_end):
                m.d.sync += [
                    row_place.eq(row_place + stride),
                    place.eq(row_place + stride),
                    beats_left.eq(beats),
                    rows_left.eq(rows_left - 1),
                    reading.eq(rows_left != 1),
                ]
        first = Signal(place_bits)
        base = splitter.base[exact_log2(self.port_bytes) :]
        m.d.comb += first.eq(base + splitter.offset)
        with m.If(self.start):
            m.d.sync += [
                reading.eq(1),
                self.read_slot.eq(self.slots),
                self.read_beat.eq(field(self.word, Op.STORE, "at")),
                row_place.eq(first),
                place.eq(first),
                stride.eq(splitter.stride),
                beats.eq(splitter.beats),
                beats_left.eq(splitter.beats),
                rows_left.eq(splitter.rows),
            ]
        leaves = fifo.r_rdy & fifo.r_en
        with m.If(self.read_en & ~leaves):
            m.d.sync += free.eq(free - 1)
        with m.If(leaves & ~self.read_en):
            m.d.sync += free.eq(free + 1)
        arriving = Signal()
        last, tail = Signal(name="arriving_last", reset_less=True), Signal(name="arriving_tail", reset_less=True)
        m.d.sync += [arriving.eq(self.read_en), last.eq(burst_end), tail.eq(row_end)]
        return arriving, last, tail

    def _send(self, m: Module, fifo: SyncFIFO) -> None:
        """The FIFO's beats with their strobes: all bytes, or of a row's last beat so many as the Store says."""
        payload, bits = self.beats.payload, 8 * self.port_bytes
        tail_bytes = field(self.word, Op.STORE, "tail_bytes")
        mask = Signal(self.port_bytes, reset_less=True)
        with m.If(self.start):
            m.d.sync += mask.eq(Cat(~tail_bytes.any() | (tail_bytes > byte) for byte in range(self.port_bytes)))
        m.d.comb += [
            self.beats.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.beats.ready),
            payload.data.eq(fifo.r_data[:bits]),
            payload.last.eq(fifo.r_data[bits]),
            payload.strobe.eq(Mux(fifo.r_data[bits + 1], mask, ~0)),
        ]
