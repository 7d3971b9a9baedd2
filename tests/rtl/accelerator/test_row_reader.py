# amaranth: UnusedElaboratable=no
"""Rows out of beats: the compiled reader in every cycle, with stalls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa import packing
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.banks import BeatBanks, banks_needed
from bitwright.rtl.accelerator.row_reader import QUEUE_JOBS, RowReader, lanes
from bitwright.rtl.bench.verilator import Compiled, Simulation, lint
from bitwright.rtl.bench.words import word_count
from bitwright.rtl.pe.emit import plain


@dataclass(frozen=True)
class Reader:
    """A reader with memories of `depth` beats."""

    port_bits: int
    row_bits: tuple[int, ...]
    stride: int | None = None
    depth: int = 45
    spare_banks: int = 1  # times as many as it needs

    @property
    def banks(self) -> int:
        return banks_needed(self.row_bits, self.port_bits, padded=self.stride is not None) * self.spare_banks

    def most_rows(self, beat: int, choice: int) -> int:
        """Rows that fit from a beat on."""
        beats = self.depth - beat
        if self.stride is None:
            return beats * self.port_bits // self.row_bits[choice]
        own = -(-self.row_bits[choice] // self.port_bits)
        return 0 if beats < own else (beats - own) // self.stride + 1


READERS: dict[str, Reader] = {
    "odd": Reader(64, (3 * 5, 8 * 5)),
    "six": Reader(64, (6 * 7, 3 * 7, 0, 20 * 7)),
    "square": Reader(128, (16 * 8, 16 * 4, 16 * 3, 16 * 6), depth=64),
    "one": Reader(64, (64,), depth=3),
    "spare": Reader(64, (32, 16), spare_banks=4),
    "wide": Reader(256, (12 * 3, 12 * 16)),
    "widest": Reader(512, (40 * 3, 40 * 8, 40 * 20, 37 * 7), depth=19),
    "vectors": Reader(64, (5 * 16,), stride=2),
    "sparse": Reader(128, (3 * 100,), stride=4, depth=41),
}


@cache
def compiled(port_bits: int) -> Compiled:
    """The readers of this port width, each with its memory, ports `<name>_<port>`."""
    m, ports = Module(), []
    for name, item in READERS.items():
        if item.port_bits != port_bits:
            continue
        banks = BeatBanks(item.depth, item.port_bits, item.banks)
        reader = RowReader(item.port_bits, item.banks, item.row_bits, stride_beats=item.stride)
        m.submodules[f"{name}_banks"], m.submodules[f"{name}_reader"] = banks, reader
        for part, wanted in ((banks, "w_"), (reader, ("job_", "row_"))):
            for port, member in part.signature.members.items():
                if port.startswith(wanted):
                    outside, inside = Signal(member.shape, name=f"{name}_{port}"), getattr(part, port)
                    m.d.comb += inside.eq(outside) if member.flow == In else outside.eq(inside)
                    ports.append(outside)
        m.d.comb += [banks.r_en.eq(reader.r_en), banks.r_slot.eq(reader.r_slot), banks.r_beat.eq(reader.r_beat)]
        m.d.comb += reader.r_data.eq(banks.r_data)
    text = memories.verilog(m, "bench", least_bits=0, ports=ports)
    return Compiled(plain(text), "bench", optimise="-O0")


@dataclass(frozen=True)
class Job:
    """As the reader's port says."""

    slot: int
    beat: int
    choice: int
    count: int


@dataclass(frozen=True)
class Row:
    """What the stream shows: bits, choice, last."""

    bits: tuple[int, ...]
    choice: int
    last: bool


def rows_of(item: Reader, contents: Sequence[bytes], job: Job) -> Iterator[Row]:
    """The rows of a job by unpacking bytes."""
    beat_bytes, width = item.port_bits // 8, item.row_bits[job.choice]
    data = contents[job.slot][job.beat * beat_bytes :]
    for row in range(job.count):
        if item.stride is None:
            bits = packing.unpack(data, 1, (row + 1) * width)[row * width :]
        else:
            bits = packing.unpack(data[row * item.stride * beat_bytes :], 1, width)
        yield Row(tuple(bits.tolist()), job.choice, row == job.count - 1)


@dataclass
class Seen:
    """What happened: by cycle, whether a job was taken, and the row on offer or None."""

    job_ready: list[bool]
    job_taken: list[int]
    row_shown: list[Row | None]
    row_taken: list[int]


def predicted(item: Reader, contents: Sequence[bytes], jobs: Sequence[Job], offers: Any, ready: Any) -> Seen:
    """The reader as three places, the last one the output: a row moves when the place before it is or gets free."""
    queue: deque[Job] = deque()
    reading: deque[Row] = deque()
    memory: Row | None = None
    output: Row | None = None
    seen, at, pending = Seen([], [], [], []), 0, False
    for cycle in range(len(offers)):
        pending = pending or (at < len(jobs) and bool(offers[cycle]))
        takes = len(queue) < QUEUE_JOBS
        seen.job_ready.append(takes)
        seen.row_shown.append(output)
        if output is not None and ready[cycle]:
            seen.row_taken.append(cycle)
        room = output is None or bool(ready[cycle])
        free = memory is None or room
        if room:
            output = memory
        if free:
            memory = reading.popleft() if reading else None
        if pending and takes:
            queue.append(jobs[at])
            seen.job_taken.append(cycle)
            at, pending = at + 1, False
        if not reading and queue:
            reading.extend(rows_of(item, contents, queue.popleft()))
    return seen


def fill(running: Simulation, name: str, rng: np.random.Generator) -> list[bytes]:
    """Random bytes in both slots; the last beats of a slot too."""
    item = READERS[name]
    words = word_count(item.port_bits)
    data = rng.integers(0, 1 << 32, (2 * item.depth, words), dtype=np.uint32)
    beats = {"w_slot": np.repeat([0, 1], item.depth), "w_beat": np.tile(np.arange(item.depth), 2), "w_en": 1}
    flat = data if item.port_bits > 64 else data[:, 0].astype(np.uint64) | data[:, 1].astype(np.uint64) << np.uint64(32)
    running.run({f"{name}_w_data": flat, **{f"{name}_{port}": values for port, values in beats.items()}})
    return [data[: item.depth].tobytes(), data[item.depth :].tobytes()]


def run(
    running: Simulation, name: str, contents: list[bytes], jobs: list[Job], offers: Any, ready: Any
) -> tuple[Seen, dict[str, npt.NDArray[Any]]]:
    """The prediction, and the outputs of the compiled reader for the same offers and stalls."""
    want = predicted(READERS[name], contents, jobs, offers, ready)
    inputs: dict[str, Any] = {"job_valid": np.zeros(len(offers), int)}
    fields = ("slot", "beat", "choice", "count")
    rng = np.random.default_rng(len(offers))
    for field in fields:
        inputs[f"job_{field}"] = rng.integers(0, 1 << 16, len(offers))  # while not valid: anything
    at = 0
    for cycle, job in _offered(jobs, want, offers):
        inputs["job_valid"][cycle], at = 1, at + 1
        for field in fields:
            inputs[f"job_{field}"][cycle] = getattr(job, field)
    inputs["row_ready"] = np.asarray(ready, int)
    out = running.run({f"{name}_{port}": values for port, values in inputs.items()})
    return want, {port.removeprefix(f"{name}_"): values for port, values in out.items() if port.startswith(f"{name}_")}


def _offered(jobs: list[Job], want: Seen, offers: Any) -> Iterator[tuple[int, Job]]:
    """The cycles in which a job is on offer: from its first offer until it is taken."""
    start = 0
    for job, taken in zip(jobs, want.job_taken, strict=False):
        first = next(cycle for cycle in range(start, taken + 1) if offers[cycle])
        yield from ((cycle, job) for cycle in range(first, taken + 1))
        start = taken + 1
    left = jobs[len(want.job_taken) :]
    later = [cycle for cycle in range(start, len(offers)) if offers[cycle]]
    if left and later:
        yield from ((cycle, left[0]) for cycle in range(later[0], len(offers)))


def shown(item: Reader, out: dict[str, npt.NDArray[Any]], cycle: int) -> Row:
    """The compiled reader's row in a cycle, without the bits that its choice does not have."""
    choice = int(out["row_choice"][cycle])
    value = out["row_data"][cycle]
    words = np.asarray([value], np.uint64).view(np.uint32) if np.ndim(value) == 0 else value
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")[: item.row_bits[choice]]
    return Row(tuple(bits.tolist()), choice, bool(out["row_last"][cycle]))


def random_jobs(item: Reader, rng: np.random.Generator, count: int, longest: int) -> list[Job]:
    """Jobs anywhere in a slot; now and then as long as the slot takes."""
    jobs: list[Job] = []
    while len(jobs) < count:
        beat, choice = int(rng.integers(item.depth)), int(rng.integers(len(item.row_bits)))
        most = item.most_rows(beat, choice) if item.row_bits[choice] else 0
        if most:
            length = most if rng.random() < 0.1 else int(rng.integers(1, min(most, longest) + 1))
            jobs.append(Job(int(rng.integers(2)), beat, choice, length))
    return jobs


# The compiled reader

LEVELS = [(offer, ready) for offer in (1.0, 0.5, 0.05) for ready in (1.0, 0.7, 0.2)]


@pytest.mark.parametrize("name", READERS)
def test_every_cycle_of_random_jobs_with_random_stalls(name: str) -> None:
    item = READERS[name]
    for seed, (offer, ready_share) in enumerate(LEVELS, 10):
        rng = np.random.default_rng(seed)
        with compiled(item.port_bits).open(random_state=True, seed=seed) as running:
            contents = fill(running, name, rng)
            running.reset()
            jobs = random_jobs(item, rng, 40, 6)
            offers, ready = rng.random(1500) < offer, rng.random(1500) < ready_share
            want, out = run(running, name, contents, jobs, offers, ready)
        where = f"{name}, seed {seed}, offer {offer}, ready {ready_share}"
        assert out["job_ready"].tolist() == want.job_ready, where
        assert out["row_valid"].tolist() == [row is not None for row in want.row_shown], where
        for cycle, row in enumerate(want.row_shown):
            if row is not None:
                assert shown(item, out, cycle) == row, f"{where}, cycle {cycle}"
        assert len(want.row_taken) > 100 or item.depth == 3, where


@pytest.mark.parametrize("name", READERS)
def test_first_row_three_cycles_after_the_job_and_no_bubble_to_the_next(name: str) -> None:
    item, rng = READERS[name], np.random.default_rng(3)
    jobs = random_jobs(item, rng, 8, 4)
    with compiled(item.port_bits).open(random_state=True) as running:
        contents = fill(running, name, rng)
        running.reset()
        offers = np.zeros(400, bool)
        offers[7:] = True
        want, out = run(running, name, contents, jobs, offers, np.ones(400, bool))
    total = sum(job.count for job in jobs)
    assert want.job_taken[:2] == [7, 8]
    assert np.flatnonzero(out["row_valid"]).tolist() == list(range(10, 10 + total))
    assert (
        np.flatnonzero(out["row_last"] & out["row_valid"]).tolist()
        == (9 + np.cumsum([job.count for job in jobs])).tolist()
    )


def test_a_job_taken_with_the_last_read_follows_without_a_bubble_and_one_cycle_later_with_one() -> None:
    for late in (3, 4, 5):  # the four reads of the first job are in cycles 1..4
        with compiled(64).open() as running:
            contents = fill(running, "odd", np.random.default_rng(5))
            offers = np.zeros(30, bool)
            offers[[0, late]] = True
            _, out = run(running, "odd", contents, [Job(0, 0, 0, 4), Job(1, 3, 1, 2)], offers, np.ones(30, bool))
        assert np.flatnonzero(out["row_valid"]).tolist() == [3, 4, 5, 6, *[[7, 8], [7, 8], [8, 9]][late - 3]]


def test_it_takes_the_job_it_reads_and_four_more_while_rows_are_refused() -> None:
    jobs = [Job(0, 0, 0, 9)] * 8
    with compiled(64).open() as running:
        contents = fill(running, "odd", np.random.default_rng(6))
        ready = np.zeros(60, bool)
        _, out = run(running, "odd", contents, jobs, np.ones(60, bool), ready)
    assert out["job_ready"].tolist() == [1] * (1 + QUEUE_JOBS) + [0] * 55
    assert out["row_valid"].tolist() == [0] * 3 + [1] * 57
    assert len(np.unique(out["row_data"][3:])) == 1


def test_a_job_of_the_greatest_count_ends_there() -> None:
    count = 1 << 16
    with compiled(128).open(random_state=True) as running:
        running.reset()
        cycles = count + 10
        valid = np.zeros(cycles, int)
        valid[:2] = 1
        sizes = np.where(np.arange(cycles) == 0, count, 1)
        inputs = {"job_valid": valid, "job_count": sizes, "row_ready": 1}
        out = running.run({f"sparse_{port}": values for port, values in inputs.items()})
    assert int(out["sparse_row_valid"].sum()) == count + 1
    assert np.flatnonzero(out["sparse_row_last"] & out["sparse_row_valid"]).tolist() == [count + 2, count + 3]


def test_reset_forgets_jobs_and_rows() -> None:
    with compiled(64).open(random_state=True) as running:
        inputs = {"job_valid": 1, "job_count": 7, "rst": np.arange(40) == 20}
        rename = {port if port == "rst" else f"odd_{port}": values for port, values in inputs.items()}
        running.reset()
        before = running.run(rename, 40)
        assert before["odd_row_valid"].tolist() == [0] * 3 + [1] * 18 + [0] * 3 + [1] * 16
        running.reset(1)
        after = running.run({}, 20)
    assert not after["odd_row_valid"].any()
    assert after["odd_job_ready"].all()


# Lanes


def test_lanes_cut_a_row_by_choice() -> None:
    widths, count = [5, 3, 0, 5, 2], 4
    row, choice = Signal(20, name="row"), Signal(3, name="choice")
    m = Module()
    outs = [Signal(5, name=f"lane_{index}") for index in range(count)]
    m.d.comb += [out.eq(value) for out, value in zip(outs, lanes(row, choice, widths, count), strict=True)]
    text: str = backend.convert(m, name="cut", ports=[row, choice, *outs], emit_src=False)
    rng = np.random.default_rng(8)
    rows = rng.integers(0, 1 << 20, 500)
    choices = rng.choice([0, 1, 3, 4], 500)
    with Compiled(text, "cut").open() as running:
        out = running.run({"row": rows, "choice": choices})
    for lane in range(count):
        bits = np.asarray(widths)[choices]
        np.testing.assert_array_equal(out[f"lane_{lane}"], rows >> (lane * bits) & ((1 << bits) - 1))


# Errors and Verilog


@pytest.mark.parametrize(
    ("arguments", "stride", "message"),
    [
        ((48, 2, [8]), None, "row reader port_bits = 48: must be a power of two, 8 or more"),
        ((64, 2, []), None, "row reader row_bits = []: must be one width or more, not all of them 0"),
        ((64, 2, [0]), None, "row reader row_bits = [0]: must be one width or more, not all of them 0"),
        ((64, 2, [8]), 0, "row reader stride_beats = 0: must be 1 or more"),
        ((64, 2, [8, 192]), None, "row reader banks = 2: must be at least 4 for rows of [8, 192] bits in beats of 64"),
        ((64, 1, [80]), 2, "row reader banks = 1: must be at least 2 for rows of [80] bits in beats of 64"),
    ],
)
def test_what_cannot_be(arguments: tuple[int, int, list[int]], stride: int | None, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RowReader(*arguments, stride_beats=stride)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["six", "vectors"])
def test_verilator_finds_no_fault_in_the_text(name: str) -> None:
    item = READERS[name]
    reader = RowReader(item.port_bits, item.banks, item.row_bits, stride_beats=item.stride)
    text: str = backend.convert(reader, name="row_reader", emit_src=False)
    assert lint(text, "row_reader") == []
    assert text == backend.convert(
        RowReader(item.port_bits, item.banks, item.row_bits, stride_beats=item.stride),
        name="row_reader",
        emit_src=False,
    )
