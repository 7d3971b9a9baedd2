"""A board without a board: its top compiled by Verilator, its serial line on a pseudo-terminal of this machine.

A host opens the terminal as it opens a board's port; every bit of every character goes over the top's `rx` and `tx`.
Simulated time passes only while something happens: a character on the line, or a run.

Not modelled: the PLL and the pads (clk and rst are driven), the USB bridge and its delays, jitter and metastability.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import select
import threading
import tty
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from bitwright.arch.machine import Machine
from bitwright.fpga.top import LEDS, Board, verilog
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.verilator import Compiled

_GLUE = Path(__file__).with_name("serial_line.cpp")
_SYMBOL = np.dtype([("bits", np.uint16), ("idle_bits", np.uint16)])
_STEP_CYCLES = 4000
_QUIET_CYCLES = 4000
_RESET_CYCLES = 16
_ROOM = 1024
_RUNNING = LEDS.index("a run goes on")
_STOP = 1 << 9


class Line:
    """What a serial line does to what goes over it: nothing. Tests have worse ones.

    A character is 10 bits: the start bit 0 lowest, 8 of data, the stop bit 1.
    """

    def to_board(self, byte: int) -> Iterable[tuple[int, int]]:
        """Characters that reach the board for one that is sent: (its bits, idle bits before it)."""
        return ((_STOP | byte << 1, 0),)

    def to_host(self, byte: int) -> bytes:
        """Bytes that reach the host for one that the board sends."""
        return bytes([byte])


_verilog = lru_cache(maxsize=8)(verilog)  # it takes seconds, and a test opens many boards of a machine


@lru_cache
def _compiled(top: str, text: str) -> Compiled:
    """A board top's Verilog as a library, with the line of serial_line.cpp."""
    words = {port.name.upper(): port.word for port in ports_of(text, top)}
    glue = _GLUE.read_text()
    for name in ("RST", "RX", "TX", "LEDS"):
        glue = glue.replace(f"@{name}@", str(words[name]))
    design = Compiled(text, top, optimise="-O1", extra=glue)
    design._library.sl_open.restype = ctypes.c_void_p
    design._library.sl_run.restype = ctypes.c_int64
    return design


class SimulatedBoard:
    """A machine on a board, in simulation, with a serial port; use it in a `with`.

    Parameters
        machine, board : as of `board_top`
        made : name and Verilog of another top with the same pins, instead of `fpga.top.verilog`'s
        line : what the serial line does
        seed : 1..2**31-1, of what registers and memory hold at power-up
    Members
        port : str               What a host opens, such as /dev/pts/3.
        cycles : int             Clocks that have passed.
        leds : int               As they are now.
    ToolError when Verilator or g++ is missing; what goes wrong while it runs is raised at the end of the `with`.
    """

    def __init__(
        self,
        machine: Machine,
        board: Board,
        *,
        made: tuple[str, str] | None = None,
        line: Line | None = None,
        seed: int = 1,
    ) -> None:
        self._design = _compiled(*(made or _verilog(machine, board)))
        self._library = self._design._library
        self._line = line or Line()
        self._clocks_per_bit = board.clock_hz / board.baud
        self._seed = seed
        self.cycles, self.leds = 0, 0
        self._resets = threading.Event()
        self._stops = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> SimulatedBoard:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._wake_read, self._wake_write = os.pipe()
        self.reset()
        self._thread = threading.Thread(target=self._guarded, name=f"board at {self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stops.set()
        self._wake()
        self._thread.join()
        for handle in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(handle)
        if self._failure is not None:
            raise self._failure

    def reset(self) -> None:
        """Press the reset button."""
        self._resets.set()
        self._wake()

    def _wake(self) -> None:
        os.write(self._wake_write, b"w")

    def _guarded(self) -> None:
        try:
            with self._design.open(random_state=True, seed=self._seed) as simulation:
                line = ctypes.c_void_p(self._library.sl_open(ctypes.c_double(self._clocks_per_bit)))
                try:
                    self._serve(ctypes.c_void_p(simulation._handle), line)
                finally:
                    self._library.sl_close(line)
        except BaseException as error:
            self._failure = error

    def _serve(self, board: ctypes.c_void_p, line: ctypes.c_void_p) -> None:
        """From the terminal to the line and back, until `_stops`."""
        to_board: deque[tuple[int, int]] = deque()
        to_host = bytearray()
        is_quiet = False
        while not self._stops.is_set():
            sleeps = is_quiet and not to_board and not to_host and not self._resets.is_set()
            ready, _, _ = select.select([self._master, self._wake_read], [], [], None if sleeps else 0)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            if self._master in ready:
                for byte in os.read(self._master, 4096):
                    to_board.extend(self._line.to_board(byte))
            if self._resets.is_set():
                self._resets.clear()
                self._step(board, line, deque(), reset=True)
            got, is_quiet = self._step(board, line, to_board)
            for bits in got:
                to_host += self._line.to_host(bits >> 1 & 0xFF)
            with contextlib.suppress(BlockingIOError):
                del to_host[: os.write(self._master, to_host)]

    def _step(
        self, board: ctypes.c_void_p, line: ctypes.c_void_p, to_board: deque[tuple[int, int]], *, reset: bool = False
    ) -> tuple[list[int], bool]:
        """Some cycles; the characters that came, and whether nothing goes on any more."""
        symbols = np.array(list(itertools.islice(to_board, _ROOM)), dtype=_SYMBOL)
        out = np.empty(_ROOM, dtype=np.uint16)
        taken, got, leds = ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint32(0)
        if to_board:
            self._library.sl_wake(line)
        ran = self._library.sl_run(
            board, line, ctypes.c_int64(_RESET_CYCLES if reset else _STEP_CYCLES), ctypes.c_int64(_QUIET_CYCLES),
            ctypes.c_int32(reset), symbols.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(symbols)),
            ctypes.byref(taken), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(_ROOM), ctypes.byref(got),
            ctypes.byref(leds), ctypes.c_int32(_RUNNING),
        )  # fmt: skip
        for _ in range(taken.value):
            to_board.popleft()
        self.cycles += int(ran)
        self.leds = leds.value
        return out[: got.value].tolist(), ran < _STEP_CYCLES and got.value < _ROOM
