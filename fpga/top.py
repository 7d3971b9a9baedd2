# amaranth: UnusedElaboratable=no
# (a board top may be made only to ask for its name or its parts)
"""The board top: one module with plain pins that a board's clock, pads and constraints are put around."""

from __future__ import annotations

from typing import Protocol

from amaranth.lib import wiring
from bitwright.arch.machine import Machine


class Board(Protocol):
    """What the board top must know of a board; `fpga.boards` has them with their pins.

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


def board_top(machine: Machine, board: Board) -> wiring.Component:
    """The top of a machine on a board.

    Members of what it gives
        clk : In(1)    `board.clock_hz`.
        rst : In(1)    Active high, asynchronous to clk: the PLL is not locked, or the button is pressed. It is brought
                       into the clock inside, as rx is: a board adds no synchroniser.
        rx : In(1), tx : Out(1)     The serial line, idle high, straight to the pads.
        leds : Out(board.leds)      1 is lit.
    """
    raise NotImplementedError


def verilog(machine: Machine, board: Board) -> tuple[str, str]:
    """Name and Verilog-2001 of the top, all modules in the text: `module <name>(clk, rst, rx, tx, leds)`."""
    raise NotImplementedError
