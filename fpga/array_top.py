# amaranth: UnusedElaboratable=no
# (a top may be made only to ask for its name)
"""A machine's array alone behind a serial line: for boards that are too small for an accelerator.

It shows that the array's logic works on the board and how large it is and how fast its clock; the line feeds it far
slower than it could go.
"""

from __future__ import annotations

import re

from amaranth.hdl import Cat, ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.limits import limits
from bitwright.arch.machine import Machine
from bitwright.fpga.link.uart import UartReceiver, UartTransmitter
from bitwright.fpga.top import Board
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.execute import array_of
from bitwright.rtl.array.broadcast import BroadcastTile
from bitwright.rtl.pe.emit import emit, plain

_VALIDS = ("tile_valid", "wgt_valid", "act_valid")
_READY = {f"{name}_valid": f"{name}_ready" for name in ("tile", "wgt", "act")}


class ArrayTop(wiring.Component):
    """Frames of bytes from the host are beats of the array's streams; its results are bytes to the host.

    Members
        clk, rst, rx, tx, leds : as of fpga.top.BoardTop; LEDs: a frame is on offer, a result waits.
    Frames       `frame_bytes` bytes from the host: the array's inputs in the order of `inputs`, lowest bit first. With
                 the last byte those whose valid bit is 1 are offered until the array takes each; the others are as the
                 frame says. A host sends no frame before the last one was taken: a few clocks, less than a byte takes
                 unless results wait. `result_bytes` bytes to the host for each vector: psum_data, then psum_last.
    Capacity     as many results as a tile has at most wait; a host that starts another tile before it has read them
                 loses some.
    Errors       none is found: the line has no CRC here.
    """

    def __init__(self, machine: Machine, board: Board) -> None:
        self.machine, self.board = machine, board
        self.array = array_of(limits(machine))
        members = self.array.signature.members.items()
        names = [name for name, member in members if member.flow is In]
        self.inputs = [*_VALIDS, *(name for name in names if name not in _VALIDS)]
        self.frame_bits = sum(len(getattr(self.array, name)) for name in self.inputs)
        self.frame_bytes = -(-self.frame_bits // 8)
        self.result_bytes = -(-(len(self.array.psum_data) + 1) // 8)
        super().__init__({"clk": In(1), "rst": In(1), "rx": In(1), "tx": Out(1, init=1), "leds": Out(board.leds)})

    @property
    def module_name(self) -> str:
        """The Verilog module's name."""
        return re.sub(r"\W", "_", f"board_{self.board.name}_array_{self.array.module_name}")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = domain = ClockDomain("sync")
        m.d.comb += domain.clk.eq(self.clk)
        m.submodules.reset_crossing = ResetSynchronizer(self.rst)
        line = Signal(init=1)
        m.submodules.rx_crossing = FFSynchronizer(self.rx, line, init=1)
        clock = {"clock_hz": self.board.clock_hz, "baud": self.board.baud}
        m.submodules.receiver = receiver = UartReceiver(**clock)
        m.submodules.transmitter = transmitter = UartTransmitter(**clock)
        m.submodules.array = array = self.array
        m.d.comb += receiver.rx.eq(line)

        shift = Signal(8 * self.frame_bytes)
        have = Signal(range(self.frame_bytes))
        fresh = Signal()
        m.d.sync += fresh.eq(0)
        with m.If(receiver.valid):
            m.d.sync += [shift.eq(Cat(shift[8:], receiver.data)), have.eq(have + 1)]
            with m.If(have == self.frame_bytes - 1):
                m.d.sync += [have.eq(0), fresh.eq(1)]
        start = 0
        for name in self.inputs:
            port = getattr(array, name)
            part = shift[start : start + len(port)]
            start += len(port)
            held = Signal(len(port), name=f"held_{name}")
            m.d.comb += port.eq(held)
            if name in _READY:
                with m.If(getattr(array, _READY[name])):
                    m.d.sync += held.eq(0)
                with m.If(fresh & part.any()):
                    m.d.sync += held.eq(1)
            else:
                with m.If(fresh):
                    m.d.sync += held.eq(part)

        m.submodules.results = results = SyncFIFOBuffered(
            width=8 * self.result_bytes, depth=max(4, self.machine.array.rows)
        )
        m.d.comb += [results.w_en.eq(array.psum_valid), results.w_data.eq(Cat(array.psum_data, array.psum_last))]
        at = Signal(range(self.result_bytes))
        stream = transmitter.bytes
        m.d.comb += [
            stream.valid.eq(results.r_rdy),
            stream.payload.eq(results.r_data.word_select(at, 8)),
            results.r_en.eq(stream.valid & stream.ready & (at == self.result_bytes - 1)),
            self.tx.eq(transmitter.tx),
            self.leds.eq(Cat(Cat(getattr(array, name) for name in _VALIDS).any(), results.r_rdy)),
        ]
        with m.If(stream.valid & stream.ready):
            m.d.sync += at.eq(at + 1)
            with m.If(at == self.result_bytes - 1):
                m.d.sync += at.eq(0)
        return m


def verilog(machine: Machine, board: Board) -> tuple[str, str]:
    """Name and Verilog-2001 of the top, all modules in the text: `module <name>(clk, rst, rx, tx, leds)`."""
    made = ArrayTop(machine, board)
    array = made.array
    cells = array.places_verilog() if isinstance(array, BroadcastTile) else emit(array.cell, array.cell_name)
    return made.module_name, plain(memories.verilog(made, made.module_name) + "\n" + cells)
