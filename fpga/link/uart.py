"""A serial line's receiver and transmitter: 8 data bits, no parity, 1 stop bit, lowest bit first."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import Evidence

_PHASE_BITS = 16
LEAST_CLOCKS = 4
"""A bit, for the receiver to sample well inside it."""
MOST_CLOCKS = 1 << 12


def phase_step(clock_hz: int, baud: int) -> int:
    """What a clock adds to the phase, which wraps once a bit. ConfigError for a line too fast or too slow."""
    if not LEAST_CLOCKS * baud <= clock_hz <= MOST_CLOCKS * baud:
        raise ConfigError(
            f"baud = {baud}: must be in {-(-clock_hz // MOST_CLOCKS)}..{clock_hz // LEAST_CLOCKS} at a clock of "
            f"{clock_hz} Hz ({LEAST_CLOCKS} to {MOST_CLOCKS} clocks a bit)"
        )
    return round((1 << _PHASE_BITS) * baud / clock_hz)


class UartReceiver(wiring.Component):
    """Bytes from the line.

    Parameters
        clock_hz, baud : int     4..4096 clocks a bit, need not be whole.
    Members
        rx : In(1)               The line, already in this clock.
        valid, data : Out(1), Out(8)   A byte has come, in this cycle.
        broken : Out(1)          Its stop bit was 0: it is none, in the cycle of `valid`.
    Timing       from the clock in which the line falls, each bit is sampled in its middle, at most a clock and 2**-17
                 of the bits since then off; a byte shows in the cycle after the middle of its stop bit, and the next
                 start bit is looked for from there.
    Reset        no byte is under way.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "bytes from waves 2 % off, at three clocks, gaps and phases",
            1152,
            "tests/fpga/link/test_uart.py",
        ),
    )

    def __init__(self, clock_hz: int, baud: int) -> None:
        self.step = phase_step(clock_hz, baud)
        super().__init__({"rx": In(1), "valid": Out(1), "data": Out(8), "broken": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase, bits, busy = Signal(_PHASE_BITS), Signal(range(10)), Signal()
        ahead = phase + self.step
        m.d.sync += self.valid.eq(0)
        with m.If(~busy):
            # Half a bit from here to the middle of the start bit; this clock is part of it.
            m.d.sync += [phase.eq((1 << (_PHASE_BITS - 1)) + self.step // 2), bits.eq(0), busy.eq(~self.rx)]
        with m.Else():
            m.d.sync += phase.eq(ahead)
            with m.If(ahead[_PHASE_BITS]):
                m.d.sync += bits.eq(bits + 1)
                with m.If((bits == 0) & self.rx):
                    m.d.sync += busy.eq(0)  # a glitch, no start bit
                with m.Elif(bits == 9):
                    m.d.sync += [busy.eq(0), self.valid.eq(1), self.broken.eq(~self.rx)]
                with m.Else():
                    m.d.sync += self.data.eq(Cat(self.data[1:], self.rx))
        return m


class UartTransmitter(wiring.Component):
    """Bytes to the line.

    Parameters
        clock_hz, baud : int     As of UartReceiver.
    Members
        bytes : In(stream of 8)
        tx : Out(1)              The line, idle high, from a register.
    Timing       a byte is taken when none is under way; it takes 10 bits, each as long as the phase's wraps say: a
                 clock more or less than 1 / baud, never off by more than that in sum.
    Reset        the line is idle.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "bytes as a receiver 2 % off reads them, at three clocks",
            288,
            "tests/fpga/link/test_uart.py",
        ),
    )

    def __init__(self, clock_hz: int, baud: int) -> None:
        self.step = phase_step(clock_hz, baud)
        super().__init__({"bytes": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase, left, shift = Signal(_PHASE_BITS), Signal(range(11)), Signal(9)
        ahead: Any = phase + self.step
        m.d.comb += self.bytes.ready.eq(left == 0)
        with m.If(left == 0):
            m.d.sync += phase.eq(0)
            with m.If(self.bytes.valid):
                m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.bytes.payload, 1)), left.eq(10)]
        with m.Else():
            m.d.sync += phase.eq(ahead)
            with m.If(ahead[_PHASE_BITS]):
                m.d.sync += [self.tx.eq(shift[0]), shift.eq(Cat(shift[1:], 1)), left.eq(left - 1)]
        return m
