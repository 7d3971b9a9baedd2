# amaranth: UnusedElaboratable=no
# (a board top may be made only to ask for its name or its parts)
"""The board top: one module with plain pins that a board's clock, pads and constraints are put around."""

from __future__ import annotations

import re
from typing import Protocol

from amaranth.hdl import Cat, ClockDomain, Const, Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import In, Out
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.limits import limits
from bitwright.arch.machine import Machine
from bitwright.fpga.link.framing import Deframer, Framer
from bitwright.fpga.link.protocol import VERSION, Info, design_id
from bitwright.fpga.link.requests import Requests
from bitwright.fpga.link.uart import UartReceiver, UartTransmitter
from bitwright.fpga.memory import BoardMemory
from bitwright.rtl.accelerator import top
from bitwright.rtl.accelerator.memory_port import axi_ports
from bitwright.rtl.accelerator.register_file import axil_ports

LEDS = (
    "a host has begun a session",
    "a run goes on",
    "a request was lost since the session began: its CRC, or no room",
    "bytes come from the host",
    "bytes go to the host",
    "a run has ended and its interrupt, if enabled, was not cleared",
    "out of reset",
    "blinks with the clock",
)
"""What each LED says, most wanted first: a board with fewer has the first ones."""
_BLINK_BITS = 24
"""The last LED changes after so many clocks to the power of two; those of bytes are looked at 16 times as often."""


class Board(Protocol):
    """What the board top must know of a board; `fpga.boards` has them with their pins. A frozen value: it is hashed.

    Members
        name : of `bitwright list boards`
        clock_hz : of `clk`, after the board's PLL
        baud : of the serial line
        memory_bytes : block RAM given to the accelerator's memory, a multiple of 4096
        single_port_memory : its RAM reads or writes in a cycle, not both (SPRAM of the iCE40UP); a beat takes 2 cycles
        link_bytes : block RAM given to requests that wait, a power of two, 512..32768
        leds : 1..8   The first so many of LEDS.
    """

    @property
    def name(self) -> str: ...
    @property
    def clock_hz(self) -> int: ...
    @property
    def baud(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def single_port_memory(self) -> bool: ...
    @property
    def link_bytes(self) -> int: ...
    @property
    def leds(self) -> int: ...
    def __hash__(self) -> int: ...


class BoardTop(wiring.Component):
    """A machine's accelerator, its memory in block RAM, and the serial link to both.

    Members
        clk : In(1)              `board.clock_hz`.
        rst : In(1)              Active high, asynchronous to clk: the PLL is not locked, or the button is pressed.
        rx : In(1), tx : Out(1)  The serial line, idle high, straight to the pads.
        leds : Out(board.leds)   1 is lit; the first so many of LEDS.
    Crossings    `rst` and `rx`, each through `amaranth.lib.cdc`; nothing else is asynchronous. A board adds none.
    Reset        what was in memory stays, but the session is over: the host must greet the board again.
    Timing       a run's cycles are those of the simulator (sim.accelerator) before `memory.timing`.
    Errors       ConfigError for a machine or a board that cannot be.
    """

    def __init__(self, machine: Machine, board: Board) -> None:
        if not 1 <= board.leds <= len(LEDS):
            raise ConfigError(f"{board.name}.leds = {board.leds}: must be 1..{len(LEDS)}")
        self.machine, self.board = machine, board
        clock = {"clock_hz": board.clock_hz, "baud": board.baud}
        self.receiver, self.transmitter = UartReceiver(**clock), UartTransmitter(**clock)
        self.deframer = Deframer(board.link_bytes)
        self.memory = BoardMemory(machine.port.bytes, board.memory_bytes, single_port=board.single_port_memory)
        self.accelerator = top.Accelerator(limits(machine), **top.opened(machine))
        self.info = Info(
            VERSION, machine.port.bytes, board.link_bytes, board.memory_bytes, board.clock_hz, design_id(machine)
        )
        super().__init__({"clk": In(1), "rst": In(1), "rx": In(1), "tx": Out(1, init=1), "leds": Out(board.leds)})

    @property
    def module_name(self) -> str:
        """The Verilog module's name."""
        return re.sub(r"\W", "_", f"board_{self.board.name}_{self.accelerator.module_name}")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = domain = ClockDomain("sync")
        m.d.comb += domain.clk.eq(self.clk)
        m.submodules.reset_crossing = ResetSynchronizer(self.rst)
        line = Signal(init=1)
        m.submodules.rx_crossing = FFSynchronizer(self.rx, line, init=1)

        m.submodules.receiver = receiver = self.receiver
        m.submodules.deframer = deframer = self.deframer
        m.submodules.requests = requests = Requests(self.info)
        m.submodules.framer = framer = Framer()
        m.submodules.transmitter = transmitter = self.transmitter
        m.submodules.accelerator = accelerator = self.accelerator
        memory = self.memory
        m.submodules.memory = ResetInserter(requests.memory_reset)(memory)
        m.d.comb += [
            receiver.rx.eq(line),
            deframer.valid.eq(receiver.valid),
            deframer.data.eq(receiver.data),
            deframer.broken.eq(receiver.broken),
            self.tx.eq(transmitter.tx),
        ]
        wiring.connect(m, deframer.bodies, requests.bodies)
        wiring.connect(m, requests.replies, framer.bodies)
        wiring.connect(m, framer.bytes, transmitter.bytes)
        for name, member in axil_ports().items():
            own, its = getattr(requests, name.replace("s_axil_", "lite_")), getattr(accelerator, name)
            m.d.comb += its.eq(own) if member.flow is In else own.eq(its)
        for name, member in axi_ports(self.machine.port.bytes).items():
            master, slave = getattr(accelerator, name), getattr(memory, name)
            m.d.comb += slave.eq(master) if member.flow is Out else master.eq(slave)
        m.d.comb += [
            requests.busy.eq(accelerator.running | ~memory.idle),
            requests.memory_got.eq(memory.host_got),
            memory.host_read.eq(requests.memory_read),
            memory.host_write.eq(requests.memory_write),
            memory.host_address.eq(requests.memory_address),
            memory.host_put.eq(requests.memory_put),
        ]
        goes = transmitter.bytes.valid & transmitter.bytes.ready
        self._lights(m, requests, deframer.lost, receiver.valid, goes)
        return m

    def _lights(self, m: Module, requests: Requests, lost: Value, comes: Value, goes: Value) -> None:
        since = Signal(_BLINK_BITS)
        looks, was_lost = Signal(), Signal()
        m.d.sync += [since.eq(since + 1), looks.eq(since[:-4].all())]
        with m.If(~requests.greeted):
            m.d.sync += was_lost.eq(0)
        with m.Elif(lost):
            m.d.sync += was_lost.eq(1)
        states = [requests.greeted, self.accelerator.running, was_lost]
        for name, byte in (("comes", comes), ("goes", goes)):
            seen, shown = Signal(name=f"{name}_seen"), Signal(name=f"{name}_shown")
            m.d.sync += seen.eq((seen & ~looks) | byte)
            with m.If(looks):
                m.d.sync += shown.eq(seen)
            states.append(shown)
        states += [self.accelerator.irq, Const(1), since[-1]]
        m.d.comb += self.leds.eq(Cat(states)[: self.board.leds])


def board_top(machine: Machine, board: Board) -> BoardTop:
    """The top of a machine on a board."""
    return BoardTop(machine, board)


def verilog(machine: Machine, board: Board) -> tuple[str, str]:
    """Name and Verilog-2001 of the top, all modules in the text: `module <name>(clk, rst, rx, tx, leds)`."""
    made = board_top(machine, board)
    return made.module_name, top.verilog_of(made, made.module_name, made.accelerator, made.memory.ram_verilog())
