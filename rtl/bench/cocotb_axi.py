"""cocotb testbench of `MemoryEngines`: AXI4 by a model of a slave that is not ours (cocotbext-axi); plusargs port_bytes
and seed.

The slave checks lengths, 4 KiB, sizes and WLAST itself; a handshake monitor rides on the channels that the port
drives. Every channel pauses by its own generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import cocotb
import numpy as np
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.instructions import Load
from bitwright.rtl.bench.memory_engines_runner import Scene, stored_rows
from bitwright.rtl.bench.memory_model import FetchBurst, play
from bitwright.rtl.bench.memory_scenes import random_scene, read_bytes
from bitwright.rtl.bench.stream.monitors import HandshakeMonitor
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from cocotbext.axi import AxiBus, AxiSlave, SparseMemoryRegion

_PAYLOADS = {
    "ar": ("araddr", "arlen", "arsize", "arburst", "arcache", "arprot"),
    "aw": ("awaddr", "awlen", "awsize", "awburst", "awcache", "awprot"),
    "w": ("wdata", "wstrb", "wlast"),
}
_CHANNELS = ("ar", "r", "aw", "w", "b")
_MOST_CYCLES = 40_000
_MOST_BEATS = 270  # of an instruction: a burst and a little more

Pauses = Callable[[np.random.Generator], Iterator[bool]]


def never(rng: np.random.Generator) -> Iterator[bool]:
    """No pause at all."""
    return itertools.repeat(False)


def often(rng: np.random.Generator) -> Iterator[bool]:
    """A pause in two of three cycles, at random."""
    while True:
        yield bool(rng.random() < 2 / 3)


def bursts(rng: np.random.Generator) -> Iterator[bool]:
    """Busy for a while, then idle for a while."""
    for busy in itertools.cycle((True, False)):
        yield from [not busy] * int(rng.integers(1, 40))


class Testbench:
    """The engines, the slave, and what the engines did. Own inputs change on the falling edge, where all is read."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.port_bytes, seed = int(str(cocotb.plusargs["port_bytes"])), int(str(cocotb.plusargs["seed"]))
        self.rng = np.random.default_rng(seed)
        self.space = SparseMemoryRegion(1 << 40)
        self.monitors = {name: HandshakeMonitor(name.upper()) for name in _PAYLOADS}
        self.cycle = 0
        for name in ("load_push", "store_push", "fetch_push", "bases"):
            getattr(dut, name).value = 0
        dut.rst.value = 1
        Clock(dut.clk, 10, unit="ns").start()
        self.slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self.space)

    async def start(self) -> None:
        """Two cycles of reset."""
        await FallingEdge(self.dut.clk)
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await FallingEdge(self.dut.clk)

    def pause(self, pauses: dict[str, Pauses]) -> None:
        """How each channel of the slave pauses from now on."""
        for side in (self.slave.read_if, self.slave.write_if):
            for name in _CHANNELS:
                channel = getattr(side, f"{name}_channel", None)
                if channel is not None:
                    channel.set_pause_generator(pauses[name](self.rng))

    async def play(self, scene: Scene) -> None:
        """Queue everything, wait until it is done, and compare all that was read and written."""
        play(FixedMemory(), scene.bases, self.port_bytes, 16, 16, scene.loads, scene.stores, scene.fetches)
        after = stored_rows(scene)
        for base, region in zip(scene.bases, scene.regions, strict=True):
            await self.space.write(base, region.tobytes())
        self.dut.bases.value = sum(base << 40 * place for place, base in enumerate(scene.bases))
        loaded: list[tuple[int, int, int, bytes]] = []
        fetched: list[bytes] = []
        dones = {"load": len(scene.loads), "store": len(scene.stores)}
        queues: dict[str, list[Any]] = {
            "load": list(scene.loads),
            "store": list(scene.stores),
            "fetch": list(scene.fetches),
        }
        wanted = sum(job.work.beats for job in scene.fetches)
        end = self.cycle + _MOST_CYCLES
        while dones["load"] or dones["store"] or len(fetched) < wanted:
            assert self.cycle < end, f"cycle {self.cycle}: not done after {_MOST_CYCLES} cycles"
            for name, jobs in queues.items():
                self.push(name, jobs.pop(0) if jobs else None)
            await FallingEdge(self.dut.clk)
            self.cycle += 1
            self.watch()
            if enables := int(self.dut.load_write_en.value):
                place = int(self.dut.load_write_slot.value), int(self.dut.load_write_beat.value)
                loaded.append((enables, *place, self.data("load_write_data")))
            if int(self.dut.fetch_valid.value):
                fetched.append(self.data("fetch_data"))
            for name in dones:
                assert not int(getattr(self.dut, f"{name}_error").value), f"cycle {self.cycle}: {name}_error = 1"
                dones[name] -= int(getattr(self.dut, f"{name}_done").value)
        self.compare(scene, loaded, fetched)
        for number, (base, region) in enumerate(zip(scene.bases, after, strict=True)):
            found = np.frombuffer(await self.space.read(base, region.size), dtype=np.uint8)
            wrong = np.flatnonzero(found != region)
            assert not wrong.size, f"region {number}: byte {wrong[0]} = {found[wrong[0]]}: must be {region[wrong[0]]}"

    def push(self, name: str, job: Any) -> None:
        """Offer a job to its queue in the coming cycle, or nothing."""
        getattr(self.dut, f"{name}_push").value = int(job is not None)
        if job is None:
            return
        if isinstance(job.work, FetchBurst):
            self.dut.fetch_burst.value = job.work.address | job.work.beats << 40
            return
        slots = job.slot << int(job.work.buffer) if isinstance(job.work, Load) else job.slot
        getattr(self.dut, f"{name}_word").value = encode(job.work)
        getattr(self.dut, f"{name}_slots").value = slots

    def data(self, name: str) -> bytes:
        return int(getattr(self.dut, name).value).to_bytes(self.port_bytes, "little")

    def watch(self) -> None:
        """VALID holds until READY with its payload."""
        for name, monitor in self.monitors.items():
            valid, ready = (int(getattr(self.dut, f"m_axi_{name}{end}").value) for end in ("valid", "ready"))
            pins = _PAYLOADS[name] if valid else ()
            payload = ":".join(str(getattr(self.dut, f"m_axi_{pin}").value) for pin in pins)
            wrong = monitor.sample(valid, ready, payload)
            assert wrong is None, f"cycle {self.cycle}: {wrong}"

    def compare(self, scene: Scene, loaded: list[tuple[int, int, int, bytes]], fetched: list[bytes]) -> None:
        """What was read, with what memory holds."""
        wanted = []
        for job in scene.loads:
            beat = job.work.at
            for address, beats in job.pieces:
                for data in read_bytes(scene, address, beats):
                    wanted.append((1 << int(job.work.buffer), job.slot, beat, data.tobytes()))
                    beat += 1
        assert loaded == wanted, f"cycle {self.cycle}: Load wrote {len(loaded)} beats of {len(wanted)}, or other ones"
        parts = [read_bytes(scene, job.work.address, job.work.beats) for job in scene.fetches]
        assert fetched == [data.tobytes() for part in parts for data in part], f"cycle {self.cycle}: fetched beats"


@cocotb.test()
async def no_pauses_and_pauses_of_one_channel(dut: Any) -> None:
    """A slave that never pauses, then one that often does on one channel, each in turn."""
    bench = Testbench(dut)
    await bench.start()
    for paused in (None, *_CHANNELS):
        bench.pause({name: often if name == paused else never for name in _CHANNELS})
        await bench.play(random_scene(bench.rng, bench.port_bytes, 4, 4, 4, most_beats=_MOST_BEATS))


@cocotb.test()
async def pauses_of_all_channels(dut: Any) -> None:
    """Every channel pauses by itself, at random or in bursts."""
    bench = Testbench(dut)
    await bench.start()
    for generators in (
        (often,) * 5,
        (bursts,) * 5,
        (bursts, often, often, bursts, never),
        (never, bursts) * 2 + (often,),
    ):
        bench.pause(dict(zip(_CHANNELS, generators, strict=True)))
        await bench.play(random_scene(bench.rng, bench.port_bytes, 4, 4, 4, most_beats=_MOST_BEATS))
