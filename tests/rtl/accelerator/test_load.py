"""LoadEngine and BurstSplitter behind the port and a fixed-timing memory: every beat, address and cycle."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.instructions import Buffer, Load
from bitwright.rtl.bench.accelerator_driver import BusErrors
from bitwright.rtl.bench.memory_engines_runner import Scene, Seen, Write, run
from bitwright.rtl.bench.memory_model import Job, play
from bitwright.rtl.bench.memory_scenes import random_memory, random_scene, read_bytes

SEED = 20261123
WIDTHS = (8, 16, 32, 64)
LOADS = 40


def scene_of(loads: list[Load], port_bytes: int = 16, base: int = 0x10_0000_0F40) -> Scene:
    """Loads that all are queued at once, from one region of counting bytes."""
    regions = tuple(np.arange(8192 * port_bytes, dtype=np.uint32).astype(np.uint8) for _ in range(4))
    bases = tuple(base + (index << 32) for index in range(4))
    return Scene(port_bytes, bases, regions, [Job(load, 1 + i, i % 2) for i, load in enumerate(loads)], [], [])


def expected_writes(scene: Scene, beat_cycles: int) -> list[Write]:
    """From the golden's bursts, each beat a cycle after the pins."""
    writes = []
    for job in scene.loads:
        beat = job.work.at
        for (address, beats), burst in zip(job.pieces, job.bursts, strict=True):
            for place, data in enumerate(read_bytes(scene, address, beats)):
                cycle = burst.first_beat + place * beat_cycles + 1
                writes.append(Write(cycle, job.work.buffer, job.slot, beat, data.tobytes()))
                beat += 1
    return writes


def check(scene: Scene, seen: Seen, memory: FixedMemory) -> None:
    """Everything that the golden says of the Loads of a scene."""
    assert seen.load_starts == [job.start for job in scene.loads]
    ready = np.ones(len(seen.load_ready), dtype=bool)
    for job in scene.loads:
        ready[job.start + 1 : job.taken[-1] + 1] = False
    assert np.flatnonzero(seen.load_ready != ready).tolist() == []
    assert seen.writes == expected_writes(scene, memory.beat_cycles)
    assert seen.load_dones == [job.done for job in scene.loads]
    reads = [(burst.address, burst.beats, burst.first) for burst in seen.bursts if not burst.write]
    assert reads == [
        (*piece, burst.first_beat) for job in scene.loads for piece, burst in zip(job.pieces, job.bursts, strict=True)
    ]


@pytest.mark.parametrize("port_bytes", WIDTHS)
@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_every_beat_is_written_in_the_cycle_of_the_golden(port_bytes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene, memory = random_scene(rng, port_bytes, LOADS, 0, 0), random_memory(rng)
    seen = run(scene, memory, power_up_seed=seed)
    play(memory, scene.bases, port_bytes, 16, 16, scene.loads, [], [])
    check(scene, seen, memory)


@pytest.mark.parametrize("port_bytes", WIDTHS)
def test_random_stalls_change_no_beat(port_bytes: int) -> None:
    for seed in range(SEED, SEED + 4):
        rng = np.random.default_rng(seed)
        scene, memory = random_scene(rng, port_bytes, LOADS, 0, 0), random_memory(rng)
        seen = run(scene, memory, stalls_seed=seed)
        play(memory, scene.bases, port_bytes, 16, 16, scene.loads, [], [])
        found = [(write.buffer, write.slot, write.beat, write.data) for write in seen.writes]
        assert found == [(w.buffer, w.slot, w.beat, w.data) for w in expected_writes(scene, 1)], f"seed {seed}"
        lasts = np.cumsum([job.work.rows * job.work.beats for job in scene.loads]) - 1
        assert seen.load_dones == [seen.writes[last].cycle for last in lasts], f"seed {seed}"


def test_worked_example_of_one_load() -> None:
    """Queued in 1, started in 2; asked for in 3; ARVALID in 4; beats from 4 + 20 on the pins, a cycle later written."""
    memory = FixedMemory(latency_cycles=20)
    scene = scene_of([Load(buffer=Buffer.PAR, rows=2, beats=14, stride=20, at=5)])
    seen = run(scene, memory)
    assert seen.load_starts == [2]
    assert [(b.address - scene.bases[0], b.beats, b.accepted) for b in seen.bursts] == [
        (0, 12, 4), (0xC0, 2, 5), (0x140, 14, 6)
    ]  # fmt: skip
    assert [write.cycle for write in seen.writes] == list(range(25, 25 + 28))
    assert [write.beat for write in seen.writes] == list(range(5, 33))
    assert {(write.buffer, write.slot) for write in seen.writes} == {(Buffer.PAR, 0)}
    assert seen.load_dones == [25 + 27]
    assert np.flatnonzero(~seen.load_ready).tolist() == [3, 4, 5]


def test_at_most_four_loads_are_in_flight() -> None:
    memory = FixedMemory(latency_cycles=100)
    scene = scene_of([Load(buffer=Buffer(i % 4), beats=1, offset=i) for i in range(6)])
    seen = run(scene, memory)
    assert seen.load_starts == [2, 4, 6, 8, seen.load_dones[0] + 1, seen.load_dones[1] + 1]


def test_a_beat_with_an_error_is_told_and_written() -> None:
    memory = FixedMemory(latency_cycles=5)
    scene = scene_of([Load(buffer=Buffer.ACT, beats=8), Load(buffer=Buffer.ACT, beats=8)])
    seen = run(scene, memory, errors=BusErrors(read_beat=11))
    assert seen.load_errors == [seen.writes[11].cycle]
    assert len(seen.writes) == 16
    assert len(seen.load_dones) == 2


def test_beats_outside_every_region_are_errors() -> None:
    scene = scene_of([Load(buffer=Buffer.ACT, beats=4, offset=8190)])
    seen = run(scene, FixedMemory())
    assert seen.load_errors == [write.cycle for write in seen.writes[2:]]


def test_bits_of_a_base_below_a_beat_are_taken_as_zero() -> None:
    scene = scene_of([Load(buffer=Buffer.ACT, beats=300)], port_bytes=64)
    assert run(scene, FixedMemory(), base_offset=56).bursts == run(scene, FixedMemory()).bursts
