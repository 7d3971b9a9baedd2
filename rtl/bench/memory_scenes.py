"""Random work for MemoryPort, Load and Store: rows of all lengths, across 4 KiB, from regions at odd places."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from bitwright.arch.fixed_memory import BURST_BYTES, FixedMemory
from bitwright.arch.isa.instructions import Buffer, Load, Store
from bitwright.rtl.bench.memory_engines_runner import Scene
from bitwright.rtl.bench.memory_model import FetchBurst, Job

REGION_BEATS = 6000
_LENGTHS = ((1, 3), (4, 40), (200, 700))


def random_memory(rng: np.random.Generator) -> FixedMemory:
    """A memory whose every parameter is often at its least."""
    choices = (1, 2, 7, 20, 60), (1, 1, 1, 2, 5), (1, 2, 4, 16, 20), (1, 2, 4, 16, 20), (1, 2, 4, 30)
    drawn = (int(rng.choice(some)) for some in choices)
    return FixedMemory(**dict(zip(FixedMemory.model_fields, drawn, strict=True)))


def random_scene(
    rng: np.random.Generator, port_bytes: int, loads: int, stores: int, fetches: int, *, most_beats: int = 1500
) -> Scene:
    """Loads and fetches from regions 0 and 1, Stores to 2 and 3; some queues fill at once, some slowly.

    `most_beats` is that of an instruction.
    """
    bases = tuple(
        (index + 1 << 34) + int(rng.integers(0, 1 << 12)) * BURST_BYTES
        + int(rng.integers(0, BURST_BYTES // port_bytes)) * port_bytes
        for index in range(4)
    )  # fmt: skip
    regions = tuple(rng.integers(0, 256, REGION_BEATS * port_bytes, dtype=np.uint8) for _ in bases)
    return Scene(
        port_bytes,
        bases,
        regions,
        [Job(_load(rng, most_beats), pushed, int(rng.integers(2))) for pushed in _pushes(rng, loads)],
        [Job(_store(rng, port_bytes, most_beats), pushed, int(rng.integers(2))) for pushed in _pushes(rng, stores)],
        [Job(_fetch(rng, bases, port_bytes), pushed) for pushed in _pushes(rng, fetches)],
    )


def _pushes(rng: np.random.Generator, count: int) -> list[int]:
    gaps = rng.integers(1, int(rng.choice((2, 40, 400))), count)
    return [int(cycle) for cycle in np.cumsum(gaps)]


def _rows(rng: np.random.Generator, most: int) -> tuple[int, int, int, int]:
    """(rows, beats, stride, offset) within a region."""
    low, high = _LENGTHS[rng.integers(len(_LENGTHS))]
    beats = min(most, int(rng.integers(low, high + 1)))
    rows = int(rng.integers(1, min(12, most // beats) + 1))
    room = REGION_BEATS - beats
    stride = int(rng.choice((0, 1, beats, beats + 3, room // max(1, rows - 1))))
    if stride * (rows - 1) > room:
        stride = 0
    return rows, beats, stride, int(rng.integers(0, room - stride * (rows - 1) + 1))


def _load(rng: np.random.Generator, most: int) -> Load:
    rows, beats, stride, offset = _rows(rng, most)
    return Load(
        buffer=Buffer(int(rng.integers(4))), region=int(rng.integers(2)), rows=rows, beats=beats, stride=stride,
        offset=offset, at=_at(rng, rows * beats),
    )  # fmt: skip


def _store(rng: np.random.Generator, port_bytes: int, most: int) -> Store:
    rows, beats, stride, offset = _rows(rng, most)
    return Store(
        region=2 + int(rng.integers(2)), rows=rows, beats=beats, stride=stride, offset=offset,
        tail_bytes=int(rng.integers(port_bytes)) * int(rng.integers(2)), at=_at(rng, rows * beats),
    )  # fmt: skip


def _at(rng: np.random.Generator, beats: int) -> int:
    """A first beat of a slot of 2**16; the last one in one case of four."""
    last = (1 << 16) - beats
    return int(rng.choice((0, last, *rng.integers(0, last + 1, 2))))


def _fetch(rng: np.random.Generator, bases: tuple[int, ...], port_bytes: int) -> FetchBurst:
    beats = int(rng.integers(1, 256 // port_bytes + 1))
    address = bases[rng.integers(2)] + int(rng.integers(0, REGION_BEATS - beats)) * port_bytes
    room = (BURST_BYTES - address % BURST_BYTES) // port_bytes
    return FetchBurst(address, min(beats, room))


def read_bytes(scene: Scene, address: int, beats: int) -> npt.NDArray[np.uint8]:
    """What the regions of a scene hold there, as rows of a beat."""
    for base, region in zip(scene.bases, scene.regions, strict=True):
        at = address - base
        if 0 <= at < region.size:
            return region[at : at + beats * scene.port_bytes].reshape(beats, scene.port_bytes)
    raise AssertionError(f"address {address:#x} is in no region of the scene")
