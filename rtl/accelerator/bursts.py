"""Rows of beats cut into bursts that AXI4 allows: the address side of Load and Store."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout, View
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2
from bitwright.arch.fixed_memory import BURST_BYTES, MOST_BURST_BEATS
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import ADDRESS_BITS
from bitwright.arch.pe import Evidence

BURST_BITS = bits_for(MOST_BURST_BEATS)
BURST = StructLayout({"address": ADDRESS_BITS, "beats": BURST_BITS})
"""A burst: its first byte, which starts a beat, and its length 1..256."""


def region_base(bases: View[ArrayLayout], region: Value) -> Value:
    """The first byte of a region, out of those of all."""
    return Array(bases[i] for i in range(REGIONS))[region]


class BurstSplitter(wiring.Component):
    """The bursts of a Load or a Store, one a cycle.

    Row after row, each cut at multiples of 4 KiB in memory and after 256 beats of a burst.

    Parameters
        port_bytes : 8, 16, 32 or 64   A beat.
    Members
        start : In(1)            Takes the six inputs below; only while `busy` is low.
        base : In(40)            First byte of the region; the bits below a beat are taken as 0.
        offset : In(32), stride : In(24), rows : In(16), beats : In(16)   As of the instruction, in beats; rows and
            beats from 1.
        busy : Out(1)            Not all bursts are taken.
        burst : Out(stream of BURST)
        final : Out(1)           The burst on offer is the last one.
    Timing       start in cycle s: the first burst is offered from s + 1, each other from the cycle after the one before
                 was taken; `busy` from s + 1 to the cycle in which the last is taken.
    Arithmetic   addresses modulo 2**40.
    Reset        busy = 0.
    Model        arch.fixed_memory.bursts
    Source       AMBA AXI and ACE protocol specification, ARM IHI 0022, A3.4.1 (length, 4 KiB); deviation: none.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("every burst of random Loads, four widths", 960, "tests/rtl/accelerator/test_load.py"),
    )

    def __init__(self, port_bytes: int) -> None:
        self.port_bytes = port_bytes
        super().__init__(
            {
                "start": In(1),
                "base": In(ADDRESS_BITS),
                "offset": In(32),
                "stride": In(24),
                "rows": In(16),
                "beats": In(16),
                "busy": Out(1),
                "burst": Out(stream.Signature(BURST)),
                "final": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat_bits = exact_log2(self.port_bytes)
        window_bits = exact_log2(BURST_BYTES) - beat_bits  # of a beat's place between two multiples of 4 KiB
        address_bits = ADDRESS_BITS - beat_bits

        row_at = Signal(address_bits, reset_less=True)
        at = Signal(address_bits, reset_less=True)
        rows_left = Signal(16, reset_less=True)
        beats_left = Signal(16, reset_less=True)
        beats = Signal(16, reset_less=True)
        stride = Signal(24, reset_less=True)

        most = Signal(BURST_BITS)
        to_edge = Signal(window_bits + 1)
        whole = Signal()
        next_row = Signal(address_bits)
        m.d.comb += [
            to_edge.eq(Const(1 << window_bits) - at[:window_bits]),
            most.eq(Mux(to_edge > MOST_BURST_BEATS, MOST_BURST_BEATS, to_edge)),
            whole.eq(beats_left <= most),
            self.burst.valid.eq(self.busy),
            self.burst.payload.address.eq(at << beat_bits),
            self.burst.payload.beats.eq(Mux(whole, beats_left, most)),
            self.final.eq(whole & (rows_left == 1)),
            next_row.eq(row_at + stride),
        ]
        with m.If(self.burst.valid & self.burst.ready):
            with m.If(whole):
                m.d.sync += [
                    row_at.eq(next_row),
                    at.eq(next_row),
                    beats_left.eq(beats),
                    rows_left.eq(rows_left - 1),
                    self.busy.eq(~self.final),
                ]
            with m.Else():
                m.d.sync += [at.eq(at + most), beats_left.eq(beats_left - most)]
        first = Signal(address_bits)
        m.d.comb += first.eq(self.base[beat_bits:] + self.offset)
        with m.If(self.start):
            m.d.sync += [
                row_at.eq(first),
                at.eq(first),
                stride.eq(self.stride),
                beats.eq(self.beats),
                beats_left.eq(self.beats),
                rows_left.eq(self.rows),
                self.busy.eq(1),
            ]
        return m
