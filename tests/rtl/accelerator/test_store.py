"""StoreEngine behind the port and a fixed-timing memory: every byte of memory, every burst and cycle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.instructions import Store
from bitwright.rtl.bench.accelerator_driver import BusErrors
from bitwright.rtl.bench.memory_engines import stored_beat
from bitwright.rtl.bench.memory_engines_runner import Scene, Seen, run, stored_rows
from bitwright.rtl.bench.memory_model import Job, play
from bitwright.rtl.bench.memory_scenes import random_memory, random_scene

SEED = 20261123
WIDTHS = (8, 16, 32, 64)
STORES = 40


def scene_of(stores: list[Store], port_bytes: int = 16, base: int = 0x10_0000_0F40) -> Scene:
    """Stores that all are queued at once, to regions of 0xAA."""
    regions = tuple(np.full(8192 * port_bytes, 0xAA, dtype=np.uint8) for _ in range(4))
    bases = tuple(base + (index << 32) for index in range(4))
    return Scene(port_bytes, bases, regions, [], [Job(store, 1 + i, i % 2) for i, store in enumerate(stores)], [])


def check(scene: Scene, seen: Seen) -> None:
    """Everything that the golden says of the Stores of a scene."""
    assert seen.store_starts == [job.start for job in scene.stores]
    writes = [burst for burst in seen.bursts if burst.write]
    assert [(b.address, b.beats, b.first, b.last, b.response) for b in writes] == [
        (*piece, burst.first_beat, burst.last_beat, burst.response)
        for job in scene.stores
        for piece, burst in zip(job.pieces, job.bursts, strict=True)
    ]
    assert seen.store_dones == [job.done for job in scene.stores]
    ready = np.ones(len(seen.store_ready), dtype=bool)
    for job in scene.stores:
        ready[job.start + 1 : job.done + 1] = False
    assert np.flatnonzero(seen.store_ready != ready).tolist() == []


def check_memory(scene: Scene, after: list[npt.NDArray[np.uint8]]) -> None:
    for number, (found, wanted) in enumerate(zip(scene.regions, after, strict=True)):
        assert np.flatnonzero(found != wanted).tolist() == [], f"region {number}"


@pytest.mark.parametrize("port_bytes", WIDTHS)
@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_every_byte_is_written_and_every_burst_in_its_cycle(port_bytes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene, memory = random_scene(rng, port_bytes, 0, STORES, 0), random_memory(rng)
    after = stored_rows(scene)
    seen = run(scene, memory, power_up_seed=seed)
    play(memory, scene.bases, port_bytes, 16, 16, [], scene.stores, [])
    check(scene, seen)
    check_memory(scene, after)


@pytest.mark.parametrize("port_bytes", WIDTHS)
def test_random_stalls_change_no_byte(port_bytes: int) -> None:
    for seed in range(SEED, SEED + 4):
        rng = np.random.default_rng(seed)
        scene, memory = random_scene(rng, port_bytes, 0, STORES, 0), random_memory(rng)
        after = stored_rows(scene)
        seen = run(scene, memory, stalls_seed=seed)
        check_memory(scene, after)
        play(memory, scene.bases, port_bytes, 16, 16, [], scene.stores, [])
        pieces = [piece for job in scene.stores for piece in job.pieces]
        assert [(burst.address, burst.beats) for burst in seen.bursts] == pieces, f"seed {seed}"
        last = np.cumsum([len(job.pieces) for job in scene.stores]) - 1
        assert seen.store_dones == [seen.bursts[place].response + 1 for place in last], f"seed {seed}"


def test_worked_example_of_one_store() -> None:
    """Queued in 1, started in 2; its address at the port in 5, on the pins in 6; a beat 10 cycles later."""
    memory = FixedMemory(latency_cycles=10, response_cycles=4)
    scene = scene_of([Store(region=1, rows=2, beats=14, stride=14, at=3, tail_bytes=5)])
    seen = run(scene, memory)
    assert seen.store_starts == [2]
    assert [(b.address - scene.bases[1], b.beats, b.accepted, b.first, b.last, b.response) for b in seen.bursts] == [
        (0, 12, 6, 16, 27, 31), (0xC0, 2, 7, 28, 29, 33), (0xE0, 14, 8, 30, 43, 47)
    ]  # fmt: skip
    assert seen.store_dones == [48]
    assert np.flatnonzero(~seen.store_ready).tolist() == list(range(3, 49))
    rows = [b"".join(stored_beat(0, beat, 16) for beat in range(first, first + 14)) for first in (3, 17)]
    assert scene.regions[1][: 2 * 14 * 16].tobytes() == b"".join(row[: 13 * 16 + 5] + b"\xaa" * 11 for row in rows)
    assert (scene.regions[1][2 * 14 * 16 :] == 0xAA).all()


@pytest.mark.parametrize("port_bytes", WIDTHS)
def test_tail_bytes_of_every_length(port_bytes: int) -> None:
    stores = [
        Store(rows=2, beats=3, stride=3, offset=6 * tail, tail_bytes=tail, at=7 * tail) for tail in range(port_bytes)
    ]
    scene = scene_of(stores, port_bytes)
    after = stored_rows(scene)
    run(scene, FixedMemory(latency_cycles=1))
    check_memory(scene, after)


@pytest.mark.parametrize("latency", [1, 2, 3])
def test_beats_are_never_late_for_a_memory_that_takes_them_at_once(latency: int) -> None:
    """The compiled memory raises when WVALID is low in the cycle of a beat."""
    stores = [Store(rows=rows, beats=beats, stride=beats + 1) for rows, beats in ((40, 1), (20, 2), (9, 5), (2, 600))]
    scene = scene_of(stores)
    memory = FixedMemory(latency_cycles=latency, response_cycles=1)
    seen = run(scene, memory)
    play(memory, scene.bases, 16, 16, 16, [], scene.stores, [])
    check(scene, seen)


def test_a_response_with_an_error_is_told() -> None:
    """Of the burst with the beat that failed, and of one that ends outside its region."""
    scene = scene_of([Store(beats=40), Store(beats=3, region=2, offset=8190)])
    seen = run(scene, FixedMemory(), errors=BusErrors(write_beat=20))
    assert [burst.beats for burst in seen.bursts] == [12, 28, 3]
    assert seen.store_errors == [burst.response + 1 for burst in seen.bursts[1:]]
    assert seen.store_dones == seen.store_errors
