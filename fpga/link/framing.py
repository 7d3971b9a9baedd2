"""Frames in hardware: bytes of the line to requests that wait in a ring, and replies to bytes of the line."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import Evidence
from bitwright.fpga.link.protocol import CRC_BYTES, END, ESCAPE, ESCAPED

BODY = StructLayout({"data": 8, "last": 1})
"""A byte of a body; `last` of it."""
LEAST_LINK_BYTES, MOST_LINK_BYTES = 512, 32768
_CRC = catalog.CRC32_ETHERNET(data_width=8)


class Deframer(wiring.Component):
    """Requests from the bytes of a line: whole and with the right CRC, or not at all.

    Parameters
        link_bytes : 512..32768, a power of two   Bytes that wait. A body that finds no room is lost.
    Members
        valid, data, broken : In     As the UartReceiver gives them.
        bodies : Out(stream of BODY)
        lost : Out(1)                In a cycle in which a frame is dropped: its CRC, an escape, a broken byte, no room.
    Timing       a body is there 2 cycles after the END that closes it; a byte every 2 cycles. Bytes of the line must be
                 2 cycles or more apart.
    Reset        nothing waits, no frame is under way.
    Model        protocol.body_of
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "random frames, whole and broken: bodies and losses as body_of says, with a reader that pauses",
            800,
            "tests/fpga/link/test_framing.py",
        ),
    )

    def __init__(self, link_bytes: int) -> None:
        if link_bytes not in (1 << bits for bits in range(9, 16)):
            raise ConfigError(
                f"link_bytes = {link_bytes}: must be a power of two in {LEAST_LINK_BYTES}..{MOST_LINK_BYTES}"
            )
        self.link_bytes = link_bytes
        super().__init__(
            {
                "valid": In(1),
                "data": In(8),
                "broken": In(1),
                "bodies": Out(stream.Signature(BODY)),
                "lost": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = _CRC.create()
        m.submodules.ring = ring = Memory(shape=BODY, depth=self.link_bytes, init=[])
        place = exact_log2(self.link_bytes)
        written, committed, taken = (Signal(place, name=name) for name in ("written", "committed", "taken"))

        # The last bytes are the CRC, and the one before them is the last of the body: they wait until END tells.
        held = Signal(8 * (CRC_BYTES + 1), reset_less=True)
        count = Signal(range(CRC_BYTES + 2))
        escaped, bad = Signal(), Signal()
        is_full = count == CRC_BYTES + 1
        byte, wrong = Signal(8), Signal()
        m.d.comb += byte.eq(self.data)
        with m.If(escaped):
            m.d.comb += wrong.eq(1)
            for meant, code in ESCAPED.items():
                with m.If(self.data == code):
                    m.d.comb += [byte.eq(meant), wrong.eq(0)]
        ends, comes = Signal(), Signal()
        m.d.comb += [
            ends.eq(self.valid & (self.data == END) & ~self.broken),
            comes.eq(self.valid & ~ends & (escaped | (self.data != ESCAPE))),
            crc.start.eq(ends),
            crc.data.eq(byte),
            crc.valid.eq(comes),
        ]
        has_room, push, good = Signal(), Signal(), Signal()
        write = ring.write_port()
        m.d.comb += [
            has_room.eq((written + 1)[:place] != taken),
            good.eq(ends & is_full & ~bad & ~escaped & has_room & crc.match_detected),
            push.eq(good | (comes & is_full)),
            write.en.eq(push & has_room),
            write.addr.eq(written),
            write.data.data.eq(held[:8]),
            write.data.last.eq(ends),
            self.lost.eq(ends & ~good & (bad | escaped | (count != 0))),
        ]
        with m.If(self.valid):
            m.d.sync += escaped.eq(~ends & ~escaped & (self.data == ESCAPE))
            with m.If(self.broken | (comes & wrong) | (push & ~has_room)):
                m.d.sync += bad.eq(1)
        with m.If(comes):
            m.d.sync += [held.eq(Cat(held[8:], byte)), count.eq(Mux(is_full, count, count + 1))]
        with m.If(push & has_room):
            m.d.sync += written.eq(written + 1)
        with m.If(good):
            m.d.sync += committed.eq(written + 1)
        with m.If(ends):
            m.d.sync += [count.eq(0), bad.eq(0)]
            with m.If(~good):
                m.d.sync += written.eq(committed)

        # A byte is asked for in one cycle and there from the next on.
        read = ring.read_port()
        goes = self.bodies.valid & self.bodies.ready
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(taken),
            self.bodies.payload.eq(read.data),
        ]
        m.d.sync += self.bodies.valid.eq((taken != committed) & ~goes)
        with m.If(goes):
            m.d.sync += taken.eq(taken + 1)
        return m


class Framer(wiring.Component):
    """Frames on the line from the bodies of replies.

    Members
        bodies : In(stream of BODY)   At least a byte each.
        bytes : Out(stream of 8)      To the UartTransmitter: END, body and CRC, escaped, END.
    Timing       a byte of a body is taken with its (last) byte on the line; a cycle is between two frames.
    Reset        no frame is under way.
    Model        protocol.frame
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "random bodies with pauses on both sides: the bytes of frame",
            59,
            "tests/fpga/link/test_framing.py",
        ),
    )

    def __init__(self) -> None:
        super().__init__({"bodies": In(stream.Signature(BODY)), "bytes": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = _CRC.create()
        byte, offered, sent = Signal(8), Signal(), Signal()
        escaping, left = Signal(), Signal(range(CRC_BYTES))
        check = Signal(8 * CRC_BYTES, reset_less=True)
        special = Signal()
        m.d.comb += special.eq(0)
        for meant, code in ESCAPED.items():
            with m.If(byte == meant):
                m.d.comb += [special.eq(1), self.bytes.payload.eq(Mux(escaping, code, ESCAPE))]
        with m.If(~special):
            m.d.comb += self.bytes.payload.eq(byte)
        m.d.comb += [
            crc.data.eq(self.bodies.payload.data),
            crc.valid.eq(self.bodies.valid & self.bodies.ready),
            sent.eq(offered & self.bytes.ready & (~special | escaping)),
        ]
        with m.If(offered & self.bytes.ready):
            m.d.sync += escaping.eq(special & ~escaping)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                with m.If(self.bodies.valid):
                    m.d.comb += [self.bytes.valid.eq(1), self.bytes.payload.eq(END)]
                    with m.If(self.bytes.ready):
                        m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [
                    offered.eq(self.bodies.valid),
                    byte.eq(self.bodies.payload.data),
                    self.bytes.valid.eq(offered),
                    self.bodies.ready.eq(sent),
                ]
                with m.If(sent & self.bodies.payload.last):
                    m.next = "LATCH"
            with m.State("LATCH"):
                m.d.sync += [check.eq(crc.crc), left.eq(CRC_BYTES - 1)]
                m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [offered.eq(1), byte.eq(check[:8]), self.bytes.valid.eq(1)]
                with m.If(sent):
                    m.d.sync += [check.eq(check >> 8), left.eq(left - 1)]
                    with m.If(left == 0):
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [self.bytes.valid.eq(1), self.bytes.payload.eq(END)]
                with m.If(self.bytes.ready):
                    m.next = "IDLE"
        return m
