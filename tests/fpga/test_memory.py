# amaranth: UnusedElaboratable=no
# (parts that are refused)
"""The board's memory: every beat in the cycle of the fixed-timing contract, every byte in its place, with and without a
slow master. Independent source of cycles: arch.fixed_memory; of bytes: an array that is written beat by beat."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.arch.fixed_memory import FixedMemoryTiming
from bitwright.fpga.memory import BoardMemory, timing
from bitwright.rtl.accelerator import memories
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.bench.words import Words

SIZE = 8192


@lru_cache
def compiled(port_bytes: int, single_port: bool) -> Compiled:
    made = BoardMemory(port_bytes, SIZE, single_port=single_port)
    return Compiled(memories.verilog(made, "board_memory") + made.ram_verilog(), "board_memory", optimise="-O1")


@dataclass
class Burst:
    address: int
    beats: int
    sent: int = 0
    due: deque[int] = field(default_factory=deque)  # cycles of its beats, by the contract
    response: int = 0

    def overlaps(self, other: Burst, beat: int) -> bool:
        return self.address < other.address + other.beats * beat and other.address < self.address + self.beats * beat


class Master:
    """Random bursts against one memory; raises AssertionError at the first beat that is wrong or not in its cycle."""

    def __init__(
        self, port_bytes: int, single_port: bool, seed: int, *, slow: bool, size: int = SIZE,
        design: Compiled | None = None,
    ) -> None:  # fmt: skip
        self.beat, self.slow, self.draw = port_bytes, slow, random.Random(seed)
        self.design = design or compiled(port_bytes, single_port)
        self.simulation = self.design.open(random_state=True, seed=seed % 1000 + 1)
        self.size, self.bytes = size, np.zeros(size, np.uint8)
        self.contract = FixedMemoryTiming(timing(single_port))
        self.reads: deque[Burst] = deque()
        self.writes: deque[Burst] = deque()  # beats are owed
        self.responses: deque[Burst] = deque()
        self.asked: dict[str, Burst | None] = {"ar": None, "aw": None}
        self.cycle = self.done = 0
        self.offer: tuple[np.ndarray, int] | None = None

    def step(self, **pins: int | np.ndarray) -> dict[str, int]:
        row: Words = np.zeros((1, self.design.in_words), np.uint32)
        for name, value in pins.items():
            port = self.design.inputs[name]
            words = np.atleast_1d(value) if isinstance(value, np.ndarray) else _words(value, port.words)
            row[0, port.word : port.word + port.words] = words
        out = self.simulation.run_words(row)[0]
        self.cycle += 1
        return {
            name: int.from_bytes(out[port.word : port.word + port.words].tobytes(), "little")
            for name, port in self.design.outputs.items()
        }

    def fill(self) -> None:
        """All of it by the host's way in, in any order."""
        self.step(rst=1)
        order = np.array(self.draw.sample(range(self.size), self.size))
        self.bytes[:] = np.frombuffer(self.draw.randbytes(self.size), np.uint8)
        self.simulation.run({"host_write": 1, "host_address": order, "host_put": self.bytes[order]})
        self.cycle = 0

    def check_all(self) -> None:
        """The same way out: each byte is there a cycle after it was asked for."""
        out = self.simulation.run({"host_read": 1, "host_address": np.append(np.arange(self.size), 0)})
        assert out["idle"].all()
        np.testing.assert_array_equal(out["host_got"][1:], self.bytes)

    def _new(self) -> Burst | None:
        beats = self.draw.choice((1, 1, 2, 3, 8, 30))
        page = self.draw.randrange(self.size // 4096 + 1) * 4096  # the last one is beyond
        burst = Burst(page + self.draw.randrange(4096 // self.beat - beats + 1) * self.beat, beats)
        others = [*self.reads, *self.writes, *self.responses, *filter(None, self.asked.values())]
        return None if any(burst.overlaps(other, self.beat) for other in others) else burst

    def _late(self) -> bool:
        return self.slow and self.draw.random() < 0.4

    def run(self, bursts: int) -> None:
        started = 0
        while self.done < bursts:
            for channel in self.asked:
                if self.asked[channel] is None and started < bursts and self.draw.random() < 0.6:
                    self.asked[channel] = self._new()
                    started += self.asked[channel] is not None
            owed = next((burst for burst in self.writes if burst.sent < burst.beats), None)
            if self.offer is None and owed is not None and not self._late():
                data = np.frombuffer(self.draw.randbytes(self.beat), np.uint8)
                strobes = self.draw.choice((0, (1 << self.beat) - 1, self.draw.randrange(1 << self.beat)))
                self.offer = data, strobes
            self._one_cycle(owed)

    def _one_cycle(self, owed: Burst | None) -> None:
        now = self.cycle
        pins: dict[str, int | np.ndarray] = {}
        for channel, burst in self.asked.items():
            if burst is not None:
                pins |= {f"m_axi_{channel}valid": 1, f"m_axi_{channel}addr": burst.address}
                pins[f"m_axi_{channel}len"] = burst.beats - 1
        if self.offer is not None:
            pins |= {"m_axi_wvalid": 1, "m_axi_wdata": self.offer[0].view(np.uint32), "m_axi_wstrb": self.offer[1]}
            assert owed is not None
            pins["m_axi_wlast"] = int(owed.sent + 1 == owed.beats)
        r_ready, b_ready = not self._late(), not self._late()
        out = self.step(**pins, m_axi_rready=int(r_ready), m_axi_bready=int(b_ready))
        if not self.slow:
            self._in_time(out, now)
        if self.offer is not None and out["m_axi_wready"]:
            self._write_beat(owed)
        if out["m_axi_rvalid"] and r_ready:
            self._read_beat(out)
        if out["m_axi_bvalid"] and b_ready:
            assert out["m_axi_bresp"] == self._response(self.responses.popleft())
            self.done += 1
        self._accept(out, now)

    def _accept(self, out: dict[str, int], now: int) -> None:
        for channel, told in (("ar", self.contract.read), ("aw", self.contract.write)):
            burst = self.asked[channel]
            if burst is None or not out[f"m_axi_{channel}ready"]:
                continue
            if not self.slow:
                served = told(now, burst.beats)
                step = self.contract.memory.beat_cycles
                burst.due = deque(range(served.first_beat, served.last_beat + 1, step))
                burst.response = served.response or 0
            (self.reads if channel == "ar" else self.writes).append(burst)
            self.asked[channel] = None

    def _in_time(self, out: dict[str, int], now: int) -> None:
        """Every READY and VALID as the contract says, in this cycle."""
        assert out["m_axi_arready"] == (now >= self.contract.read_ready_from)
        assert out["m_axi_awready"] == (now >= self.contract.write_ready_from)
        assert out["m_axi_rvalid"] == (bool(self.reads) and self.reads[0].due[0] == now)
        due = next((burst.due[burst.sent] for burst in self.writes if burst.sent < burst.beats), None)
        assert out["m_axi_wready"] == (due == now)
        assert out["m_axi_bvalid"] == any(burst.response == now for burst in self.responses)

    def _response(self, burst: Burst) -> int:
        return 3 if burst.address >= self.size else 0

    def _read_beat(self, out: dict[str, int]) -> None:
        burst = self.reads[0]
        at = burst.address + burst.sent * self.beat
        burst.sent += 1
        if burst.due:
            burst.due.popleft()
        assert out["m_axi_rlast"] == (burst.sent == burst.beats)
        assert out["m_axi_rresp"] == self._response(burst)
        if at < self.size:
            expected = int.from_bytes(self.bytes[at : at + self.beat].tobytes(), "little")
            assert out["m_axi_rdata"] == expected, f"{at:#x}"
        if burst.sent == burst.beats:
            self.reads.popleft()
            self.done += 1

    def _write_beat(self, burst: Burst | None) -> None:
        assert burst is not None
        assert self.offer is not None
        data, strobes = self.offer
        at = burst.address + burst.sent * self.beat
        for lane in range(self.beat):
            if strobes >> lane & 1 and at < self.size:
                self.bytes[at + lane] = data[lane]
        burst.sent += 1
        self.offer = None
        if burst.sent == burst.beats:
            self.writes.remove(burst)
            self.responses.append(burst)


def _words(value: int, count: int) -> np.ndarray:
    return np.frombuffer(value.to_bytes(4 * count, "little"), np.uint32)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(("port_bytes", "single_port"), [(8, True), (16, False), (64, False)])
def test_bursts(port_bytes: int, single_port: bool, slow: bool) -> None:
    for seed in range(2):
        master = Master(port_bytes, single_port, seed, slow=slow)
        master.fill()
        master.run(400)
        assert not master.reads
        master.check_all()
        assert master.cycle > 400


def test_sizes_that_it_cannot_have() -> None:
    with pytest.raises(ConfigError) as error:
        BoardMemory(16, 5000, single_port=False)
    assert str(error.value) == "memory_bytes = 5000: must be a multiple of 4096 in 4096..16777216"
