# amaranth: UnusedElaboratable=no
# (parts that are refused)
"""The serial line's two ends against ideal waves of another clock. Independent source: 8N1, written here as times."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from amaranth.back import verilog
from bitwright.arch.errors import ConfigError
from bitwright.fpga.link.uart import UartReceiver, UartTransmitter
from bitwright.rtl.bench.verilator import Compiled

CLOCKS = [(12_000_000, 3_000_000), (25_000_000, 3_000_000), (27_000_000, 1_000_000)]
DATA = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80, 0xC0, 0xDB, *range(0, 256, 11)]


@lru_cache
def compiled(kind: type, clock_hz: int, baud: int) -> Compiled:
    return Compiled(verilog.convert(kind(clock_hz, baud), name="uart", emit_src=False), "uart")


def wave(data: list[int], clocks_per_bit: float, gap_bits: float, phase: float, stop: int = 1) -> np.ndarray:
    """The line, clock by clock: bit i of a byte from i * clocks_per_bit on, then an idle gap."""
    length = (10 + gap_bits) * clocks_per_bit
    times = np.arange(int(20 * clocks_per_bit + len(data) * length)) - 5 * clocks_per_bit - phase
    line = np.ones(len(times), np.uint8)
    for number, byte in enumerate(data):
        place = np.floor((times - number * length) / clocks_per_bit).astype(int)
        bits = [0, *(byte >> bit & 1 for bit in range(8)), stop]
        inside = (place >= 0) & (place < 10)
        line[inside] = np.asarray(bits)[place[inside]]
    return line


@pytest.mark.parametrize(("clock_hz", "baud"), CLOCKS)
def test_bytes_are_received_from_a_line_two_percent_off(clock_hz: int, baud: int) -> None:
    design = compiled(UartReceiver, clock_hz, baud)
    for off in (0.98, 1.0, 1.02):
        for gap_bits, phase in ((0, 0.1), (0, 0.6), (0.37, 0.5), (3, 0.9)):
            line = wave(DATA, off * clock_hz / baud, gap_bits, phase)
            with design.open() as simulation:
                simulation.reset()
                simulation.run({"rx": 1}, 10)
                out = simulation.run({"rx": line})
            came = out["valid"].astype(bool)
            assert out["data"][came].tolist() == DATA, (off, gap_bits, phase)
            assert not out["broken"][came].any()


def test_a_byte_without_stop_bit_is_broken_and_a_glitch_is_none() -> None:
    design = compiled(UartReceiver, *CLOCKS[2])
    clocks = CLOCKS[2][0] / CLOCKS[2][1]
    with design.open() as simulation:
        simulation.reset()
        out = simulation.run({"rx": wave([0x5A], clocks, 1, 0, stop=0)})
        assert out["broken"][out["valid"].astype(bool)].tolist()[:1] == [1]
        simulation.run({"rx": 1}, 400)
        line = np.ones(400, np.uint8)
        line[100:110] = 0  # less than half a bit
        assert not simulation.run({"rx": line})["valid"].any()


@pytest.mark.parametrize(("clock_hz", "baud"), CLOCKS)
def test_bytes_are_sent_as_a_receiver_two_percent_off_reads_them(clock_hz: int, baud: int) -> None:
    design = compiled(UartTransmitter, clock_hz, baud)
    with design.open() as simulation:
        simulation.reset()
        clocks = clock_hz / baud
        cycles = int(12 * clocks * len(DATA))
        taken, line, left = [], [], list(DATA)
        for _ in range(cycles):
            out = simulation.run({"bytes__valid": int(bool(left)), "bytes__payload": left[0] if left else 0}, 1)
            line.append(int(out["tx"][0]))
            if left and out["bytes__ready"][0]:
                taken.append(left.pop(0))
    assert taken == DATA
    for off in (0.98, 1.0, 1.02):
        assert read(line, off * clocks) == DATA, off


def read(line: list[int], clocks_per_bit: float) -> list[int]:
    """Bytes of a line, each bit read in its middle; the start and stop bits must be."""
    found, at = [], 0
    while 0 in line[at:]:
        start = line.index(0, at)
        middles = [line[int(start + (bit + 0.5) * clocks_per_bit)] for bit in range(10)]
        assert middles[0] == 0
        assert middles[9] == 1
        found.append(sum(bit << place for place, bit in enumerate(middles[1:9])))
        at = int(start + 9.5 * clocks_per_bit)
    return found


def test_a_line_that_the_clock_cannot_keep_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        UartReceiver(12_000_000, 4_000_000)
    assert str(error.value) == (
        "baud = 4000000: must be in 2930..3000000 at a clock of 12000000 Hz (4 to 4096 clocks a bit)"
    )
