"""Loads, Stores and fetches through the compiled `MemoryEngines`: what each did, in which cycle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import MismatchError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.instructions import Buffer, Load, Store
from bitwright.arch.isa.limits import REGIONS
from bitwright.rtl.bench.accelerator_driver import BurstRecord, BusErrors, BusSimulation, CompiledWithMemory, Region
from bitwright.rtl.bench.memory_engines import QUEUE, TOP, memory_engines_verilog, stored_beat
from bitwright.rtl.bench.memory_model import FetchBurst, Job
from bitwright.rtl.bench.words import Words

_CHUNK = 4096
_ADDRESS_BITS = 40


@lru_cache(maxsize=16)
def compiled_engines(port_bytes: int, outstanding_reads: int = 16, outstanding_writes: int = 16) -> CompiledWithMemory:
    """The design as a library; kept on disk by content, and in this process."""
    text = memory_engines_verilog(
        port_bytes, outstanding_reads=outstanding_reads, outstanding_writes=outstanding_writes
    )
    return CompiledWithMemory(text, TOP)


@dataclass(frozen=True)
class Scene:
    """What is queued, and the memory: four regions and, for fetches, any of them.

    `loads`, `stores` and `fetches` are in order of their queues, each pushed in a cycle of its own.
    """

    port_bytes: int
    bases: tuple[int, ...]
    regions: tuple[npt.NDArray[np.uint8], ...]
    loads: Sequence[Job[Load]]
    stores: Sequence[Job[Store]]
    fetches: Sequence[Job[FetchBurst]]


@dataclass(frozen=True)
class Write:
    """A beat that Load wrote."""

    cycle: int
    buffer: Buffer
    slot: int
    beat: int
    data: bytes


@dataclass(frozen=True)
class Seen:
    """What happened. Cycles count from the end of the reset.

    Members
        load_starts, load_dones, store_starts, store_dones, fetch_taken : cycles
        load_ready, store_ready, idle : bool [cycles]
        writes : in order. fetched : (cycle, data, last) of each beat shown to the fetcher.
        load_errors, store_errors, fetch_errors : cycles
        bursts : accepted by the memory, in its order
    """

    load_starts: list[int]
    load_dones: list[int]
    store_starts: list[int]
    store_dones: list[int]
    fetch_taken: list[int]
    load_ready: npt.NDArray[np.bool_]
    store_ready: npt.NDArray[np.bool_]
    idle: npt.NDArray[np.bool_]
    writes: list[Write]
    fetched: list[tuple[int, bytes, bool]]
    load_errors: list[int]
    store_errors: list[int]
    fetch_errors: list[int]
    bursts: list[BurstRecord]


def run(
    scene: Scene, memory: FixedMemory, *, stalls_seed: int | None = None, errors: BusErrors | None = None,
    outstanding: tuple[int, int] = (16, 16), base_offset: int = 0, design: CompiledWithMemory | None = None,
    max_cycles: int = 400_000, power_up_seed: int = 1,
) -> Seen:  # fmt: skip
    """Play a scene until all of it is done, and 64 cycles more. `scene.regions` change in place.

    `base_offset` is added to the bases that the design is told; `design` stands in for the usual one. MismatchError
    when the scene is not done in `max_cycles`, or when a rule of AXI is broken.
    """
    design = design or compiled_engines(scene.port_bytes, *outstanding)
    regions = [Region(base, data) for base, data in zip(scene.bases, scene.regions, strict=True)]
    words = _inputs(design, scene, base_offset)
    with BusSimulation(
        design, regions, memory, stalls_seed=stalls_seed, errors=errors, power_up_seed=power_up_seed
    ) as simulation:
        simulation.reset()
        first = simulation.cycle
        parts = [simulation.run_words(words)]
        idle = np.repeat(words[-1:], _CHUNK, axis=0)
        while not _finished(design, scene, parts):
            if len(parts) * _CHUNK > max_cycles:
                raise MismatchError(f"{TOP}: the scene is not done after {max_cycles} cycles (stalls {stalls_seed})")
            parts.append(simulation.run_words(idle))
        parts.append(simulation.run_words(idle[:64]))
        bursts = [burst.moved(-first) for burst in simulation.bursts()]
    return _seen(design, design.output_values(np.concatenate(parts)), bursts, scene.port_bytes)


def _finished(design: CompiledWithMemory, scene: Scene, parts: Sequence[Words]) -> bool:
    names = ("load_done", "store_done", "fetch_last")
    counts = [0, 0, 0]
    for part in parts:
        for place, name in enumerate(names):
            high = part[:, design.outputs[name].word] & 1
            if name == "fetch_last":
                high &= part[:, design.outputs["fetch_valid"].word] & 1
            counts[place] += int(high.sum())
    return counts == [len(scene.loads), len(scene.stores), len(scene.fetches)]


def _inputs(design: CompiledWithMemory, scene: Scene, base_offset: int) -> Words:
    """Input words from cycle 0 to after the last push; the last row is that of an idle cycle."""
    queues: dict[str, Sequence[Job[Any]]] = {"load": scene.loads, "store": scene.stores, "fetch": scene.fetches}
    cycles = max((job.pushed for jobs in queues.values() for job in jobs), default=0) + 2
    bases = sum(base + base_offset << _ADDRESS_BITS * place for place, base in enumerate(scene.bases))
    words = np.repeat(design.input_words({"bases": _row(bases, REGIONS * _ADDRESS_BITS)}, 1), cycles, axis=0)
    for name, jobs in queues.items():
        assert len(jobs) <= QUEUE, f"{len(jobs)} {name} jobs: the queue holds {QUEUE}"
        for job in jobs:
            row = words[job.pushed]
            row[design.inputs[f"{name}_push"].word] = 1
            if isinstance(job.work, FetchBurst):
                _put(design, row, "fetch_burst", job.work.address | job.work.beats << _ADDRESS_BITS)
            else:
                slots = job.slot << int(job.work.buffer) if isinstance(job.work, Load) else job.slot
                _put(design, row, f"{name}_word", encode(job.work))
                _put(design, row, f"{name}_slots", slots)
    return words


def _row(value: int, bits: int) -> Words:
    return np.frombuffer(value.to_bytes(-(-bits // 32) * 4, "little"), dtype="<u4")[None, :].copy()


def _put(design: CompiledWithMemory, row: npt.NDArray[np.uint32], name: str, value: int) -> None:
    port = design.inputs[name]
    row[port.word : port.word + port.words] = _row(value, port.bits)[0]


def _seen(
    design: CompiledWithMemory, values: dict[str, npt.NDArray[Any]], bursts: list[BurstRecord], port_bytes: int
) -> Seen:
    def cycles(name: str) -> list[int]:
        found: list[int] = np.flatnonzero(values[name]).tolist()
        return found

    def data(name: str, cycle: int) -> bytes:
        return np.ascontiguousarray(values[name][cycle]).tobytes()[:port_bytes]

    writes = []
    for cycle in cycles("load_write_en"):
        enables = int(values["load_write_en"][cycle])
        assert enables in (1, 2, 4, 8), f"cycle {cycle}: load_write_en = {enables:#06b}: one channel at a time"
        slot, beat = int(values["load_write_slot"][cycle]), int(values["load_write_beat"][cycle])
        writes.append(Write(cycle, Buffer(enables.bit_length() - 1), slot, beat, data("load_write_data", cycle)))
    fetched = [(cycle, data("fetch_data", cycle), bool(values["fetch_last"][cycle])) for cycle in cycles("fetch_valid")]
    fetch_errors = [cycle for cycle, _, _ in fetched if values["fetch_error"][cycle]]
    return Seen(
        cycles("load_start"), cycles("load_done"), cycles("store_start"), cycles("store_done"), cycles("fetch_taken"),
        values["load_ready"] != 0, values["store_ready"] != 0, values["idle"] != 0, writes, fetched,
        cycles("load_error"), cycles("store_error"), fetch_errors, bursts,
    )  # fmt: skip


def stored_rows(scene: Scene) -> list[npt.NDArray[np.uint8]]:
    """The regions as all Stores of the scene leave them, made from a copy of the scene's."""
    after = [region.copy() for region in scene.regions]
    size = scene.port_bytes
    for job in scene.stores:
        store, beat = job.work, job.work.at
        for row in range(store.rows):
            start = (store.offset + row * store.stride) * size
            for place in range(store.beats):
                cut = store.tail_bytes if place == store.beats - 1 and store.tail_bytes else size
                content = stored_beat(job.slot, beat % (1 << 16), size)[:cut]
                at = start + place * size
                after[store.region][at : at + cut] = np.frombuffer(content, dtype=np.uint8)
                beat += 1
    return after
