"""The Vector engine between its memories: every result, every write and every cycle, against interpreter and timing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch import machine
from bitwright.arch.isa import encode
from bitwright.arch.isa.extents import uses
from bitwright.arch.isa.instructions import Function, NumberType, Vector
from bitwright.arch.isa.interpreter import Machine
from bitwright.arch.isa.limits import Channel, Limits, limits
from bitwright.arch.isa.timing import VECTOR_DRAIN, vector_lanes, vector_slots
from bitwright.rtl.accelerator.banks import AccMemory, BeatBanks
from bitwright.rtl.accelerator.lanes import LANE_NAME, lane_verilog
from bitwright.rtl.accelerator.vector import VectorEngine
from bitwright.rtl.bench.verilator import Compiled, Simulation, lint
from numpy.typing import NDArray

SEED = 20261201
ROWS, VEC_BEATS, OUT_BEATS = 48, 600, 400
FLAGS = [flags for flags in range(16) if flags & 9 != 8]  # no by_column without scale
MACHINES = [("int8-4x5", 8), ("int8-4x13", 16), ("int8-4x16", 32), ("int8-4x9", 64)]
"""Columns over lanes: 5 / 2, 13 / 4, 16 / 8, 9 / 16."""


class Scene(wiring.Component):
    """The engine and its three memories, all of which can be reached from outside."""

    def __init__(self, sizes: Limits) -> None:
        self.engine = VectorEngine(sizes)
        self.acc = AccMemory(ROWS, 32 * sizes.cols)
        self.vec = BeatBanks(VEC_BEATS, 8 * sizes.port_bytes, 1)
        self.out = BeatBanks(OUT_BEATS, 8 * sizes.port_bytes, 1)
        self.through = [
            *((self.engine, name, name) for name in ("ready", "start", "word", "slots", "done")),
            *((self.acc, f"x_w_{name}", f"acc_{name}") for name in ("en", "slot", "row", "data")),
            *((self.vec, f"w_{name}", f"vec_{name}") for name in ("en", "slot", "beat", "data")),
            *((self.out, f"r_{name}", f"out_{name}") for name in ("en", "slot", "beat", "data")),
        ]
        ports: dict[str, Any] = {name: part.signature.members[port] for part, port, name in self.through}
        for name, member in self.engine.signature.members.items():
            if name.startswith("out_w"):
                ports[f"seen_{name}"] = Out(member.shape)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine, m.submodules.acc = engine, acc = self.engine, self.acc
        m.submodules.vec, m.submodules.out = vec, out = self.vec, self.out
        for part, port, name in self.through:
            inner, outer = getattr(part, port), getattr(self, name)
            m.d.comb += outer.eq(inner) if part.signature.members[port].flow == Out else inner.eq(outer)
        for memory, port, prefix in ((acc, "v_r", "v_r"), (vec, "r", "vec_r"), (out, "w", "out_w")):
            for name, member in engine.signature.members.items():
                if name.startswith(f"{prefix}_"):
                    theirs, ours = getattr(memory, port + name.removeprefix(prefix)), getattr(engine, name)
                    m.d.comb += ours.eq(theirs) if member.flow == In else theirs.eq(ours)
        for name in ("en", "slot", "beat", "data"):
            m.d.comb += getattr(self, f"seen_out_w_{name}").eq(getattr(engine, f"out_w_{name}"))
        return m


@cache
def sizes_of(name: str, port_bytes: int) -> Limits:
    whole = limits(machine.load(name), port_bytes=port_bytes)
    return replace(whole, acc_rows=ROWS, vec_beats=VEC_BEATS, out_beats=OUT_BEATS)


@cache
def compiled(name: str, port_bytes: int) -> Compiled:
    text: str = backend.convert(Scene(sizes_of(name, port_bytes)), name="scene", emit_src=False)
    return Compiled(text + "\n" + lane_verilog(), "scene", optimise="-O1")


@dataclass(frozen=True)
class Job:
    """An instruction, its slots of acc, vec and out, and how long the engine has been ready before its start."""

    vector: Vector
    slots: tuple[int, int, int]
    pause: int


@dataclass(frozen=True)
class Contents:
    """Two slots of each memory: fp32 bits of rows, bytes of beats."""

    acc: NDArray[np.uint32]
    vec: NDArray[np.uint8]


def numbers(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> NDArray[np.uint32]:
    """fp32 numbers of about that size, some of any bits, and specials with their neighbours."""
    usual = rng.normal(0, width, shape).astype(np.float32).view(np.uint32)
    wild = rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    corners = rng.choice(np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0, 1 << 31, 1, 0x7F7FFFFF], np.uint32), shape)
    kind = rng.integers(0, 40, shape)
    return np.where(kind == 0, corners, np.where(kind < 4, wild, usual)).astype(np.uint32)


def random_contents(rng: np.random.Generator, sizes: Limits) -> Contents:
    acc = numbers(rng, (2, ROWS, sizes.cols), 30)
    return Contents(acc, numbers(rng, (2, VEC_BEATS * sizes.port_bytes // 4), 1).view(np.uint8))


def random_vector(rng: np.random.Generator, sizes: Limits, flags: int, to: NumberType, function: Function) -> Vector:
    """With the flags scale, bias, residual, by_column in bits 0 to 3; addresses anywhere in the slots."""
    chunks = -(-sizes.cols // vector_lanes(sizes))
    m = int(rng.integers(1, 12))
    scale, bias, residual, by_column = (bool(flags >> bit & 1) for bit in range(4))
    beats = {
        "scale_at": (scale, chunks if by_column else -(-m // vector_lanes(sizes))),
        "bias_at": (bias, chunks),
        "residual_at": (residual, m * chunks),
    }
    at = {name: int(rng.integers(0, VEC_BEATS - count + 1)) * used for name, (used, count) in beats.items()}
    return Vector(
        m=m, acc_at=int(rng.integers(0, ROWS - m + 1)), to=to, function=function, scale=scale, bias=bias,
        residual=residual, by_column=by_column, out_at=int(rng.integers(0, OUT_BEATS - m * chunks + 1)), **at,
    )  # fmt: skip


def words(port_bits: int, data: NDArray[np.uint8]) -> NDArray[Any]:
    """Rows of bytes as `Simulation.run` takes them: 32-bit words, or integers for ports of at most 64 bits."""
    if port_bits > 64:
        return np.ascontiguousarray(data).view("<u4")
    padded = np.zeros((len(data), 8), np.uint8)
    padded[:, : data.shape[1]] = data
    return padded.view("<u8")[:, 0]


def fill(running: Simulation, sizes: Limits, contents: Contents) -> None:
    for slot in range(2):
        rows = words(32 * sizes.cols, contents.acc[slot].view(np.uint8))
        running.run({"acc_en": 1, "acc_slot": slot, "acc_row": np.arange(ROWS), "acc_data": rows}, ROWS)
        beats = words(8 * sizes.port_bytes, contents.vec[slot].reshape(-1, sizes.port_bytes))
        running.run({"vec_en": 1, "vec_slot": slot, "vec_beat": np.arange(VEC_BEATS), "vec_data": beats}, VEC_BEATS)


def golden(sizes: Limits, contents: Contents, jobs: list[Job]) -> list[tuple[int, int, bytes]]:
    """The beats that the jobs write, in order: (slot, beat, bytes), by the interpreter."""
    model = Machine(sizes, [np.zeros(0, np.uint8)] * 4)
    model._acc[:] = contents.acc.view(np.float32)
    model._slots[Channel.VEC][:] = contents.vec
    written: list[tuple[int, int, bytes]] = []
    for job in jobs:
        model.move(job.vector, dict(zip((Channel.ACC, Channel.VEC, Channel.OUT), job.slots, strict=True)))
        (extent,) = uses(job.vector, sizes)[-1].extents
        beats = model._slots[Channel.OUT][job.slots[2]].reshape(-1, sizes.port_bytes)
        written += [(job.slots[2], beat, beats[beat].tobytes()) for beat in range(extent.at, extent.end)]
    return written


def run(running: Simulation, sizes: Limits, jobs: list[Job]) -> dict[str, NDArray[Any]]:
    """Outputs from the first cycle in which the engine is ready; asserts starts and dones by the timing's formula."""
    starts, dones, cycle = [], [], 0
    for job in jobs:
        starts.append(cycle + job.pause)
        dones.append(starts[-1] + vector_slots(job.vector, sizes) + VECTOR_DRAIN)
        cycle = dones[-1] + 1
    cycles = cycle + 20
    start, slots = np.zeros(cycles, np.uint64), np.random.default_rng(cycles).integers(0, 8, cycles)
    word = np.random.default_rng(cycles + 1).integers(0, 1 << 32, (cycles, 4), dtype=np.uint32)
    start[starts] = 1
    for at, job in zip(starts, jobs, strict=True):
        slots[at] = sum(slot << bit for bit, slot in enumerate(job.slots))
        word[at] = np.frombuffer(encode(job.vector).to_bytes(16, "little"), "<u4")
    out = running.run({"start": start, "slots": slots, "word": word}, cycles)
    ready = np.ones(cycles, bool)
    for first, last in zip(starts, dones, strict=True):
        ready[first + 1 : last + 1] = False
    assert np.flatnonzero(out["done"]).tolist() == dones
    assert np.flatnonzero(out["ready"] != ready).tolist() == []
    assert set(dones) <= set(np.flatnonzero(out["seen_out_w_en"]).tolist()), "the last beat is written with done"
    return out


def written(sizes: Limits, out: dict[str, NDArray[Any]]) -> list[tuple[int, int, bytes]]:
    at = np.flatnonzero(out["seen_out_w_en"])
    data = np.ascontiguousarray(out["seen_out_w_data"][at]).view(np.uint8).reshape(len(at), -1)[:, : sizes.port_bytes]
    places = zip(out["seen_out_w_slot"][at].tolist(), out["seen_out_w_beat"][at].tolist(), data, strict=True)
    return [(slot, beat, row.tobytes()) for slot, beat, row in places]


def check(name: str, port_bytes: int, contents: Contents, jobs: list[Job], seed: int) -> None:
    """All jobs on one machine: the writes in their order, then both slots as they are."""
    sizes = sizes_of(name, port_bytes)
    with compiled(name, port_bytes).open(random_state=True, seed=seed) as running:
        running.reset()
        fill(running, sizes, contents)
        got = written(sizes, run(running, sizes, jobs))
        final: dict[tuple[int, int], bytes] = {}
        right = golden(sizes, contents, jobs)
        wrong = [index for index, pair in enumerate(zip(got, right, strict=False)) if pair[0] != pair[1]]
        where = f"{name}, port of {port_bytes}, seed {seed}"
        assert not wrong, f"{where}: write {wrong[0]} is {got[wrong[0]]}, must be {right[wrong[0]]}"
        assert len(got) == len(right), where
        final.update({(slot, beat): data for slot, beat, data in right})
        for slot in range(2):
            beats = sorted(beat for where_slot, beat in final if where_slot == slot)
            reads = running.run({"out_en": 1, "out_slot": slot, "out_beat": np.array([*beats, 0])})["out_data"][1:]
            held = np.ascontiguousarray(reads).view(np.uint8).reshape(len(beats), -1)[:, :port_bytes]
            assert [row.tobytes() for row in held] == [final[slot, beat] for beat in beats], where


def jobs_of(rng: np.random.Generator, sizes: Limits, kinds: list[tuple[int, NumberType, Function]]) -> list[Job]:
    jobs = []
    for flags, to, function in kinds:
        slots = tuple(int(slot) for slot in rng.integers(0, 2, 3))
        pause = int(rng.choice([0, 0, 1, 2, 7]))
        jobs.append(Job(random_vector(rng, sizes, flags, to, function), (slots[0], slots[1], slots[2]), pause))
    return jobs


# Interface


def test_engine_is_one_module_without_lint() -> None:
    engine = VectorEngine(sizes_of("int8-4x5", 8))
    text: str = backend.convert(engine, name="vector_engine", emit_src=False)
    assert text.count("\nmodule ") == 1
    assert lint(text + "\n" + lane_verilog(), "vector_engine") == []
    assert text.count(f"\n  {LANE_NAME} lane_") == engine.lanes


def test_evidence_states_what_the_tests_below_compare() -> None:
    (evidence,) = VectorEngine.evidence
    assert evidence.cases == len(MACHINES) * len(FLAGS) * len(NumberType) * len(Function)


# Property


@pytest.mark.parametrize(("name", "port_bytes"), MACHINES)
def test_every_kind_of_instruction_in_random_order(name: str, port_bytes: int) -> None:
    """All flags x types x functions, back to back and with pauses, on operands and slots of any kind."""
    rng, sizes = np.random.default_rng(SEED), sizes_of(name, port_bytes)
    kinds = [(flags, to, function) for flags in FLAGS for to in NumberType for function in Function]
    order = rng.permutation(len(kinds))
    jobs = jobs_of(rng, sizes, [kinds[index] for index in order])
    check(name, port_bytes, random_contents(rng, sizes), jobs, SEED)


# Timing


def test_cycles_of_a_row_by_hand() -> None:
    """5 columns on 2 lanes: 3 chunks, with all flags 1 + 3 * 2 slots a row."""
    sizes = sizes_of("int8-4x5", 8)
    assert VECTOR_DRAIN == 14
    assert vector_slots(Vector(m=3), sizes) == 9
    assert vector_slots(Vector(m=3, scale=True, bias=True, residual=True), sizes) == 21
    assert vector_slots(Vector(m=3, scale=True, by_column=True), sizes) == 9
    assert vector_slots(Vector(m=3, scale=True, bias=True, residual=True, by_column=True), sizes) == 27
    rng = np.random.default_rng(SEED + 1)
    with compiled("int8-4x5", 8).open(random_state=True, seed=2) as running:
        running.reset()
        fill(running, sizes, random_contents(rng, sizes))
        out = run(running, sizes, [Job(Vector(m=3, bias=True, residual=True, to=NumberType.INT8), (0, 0, 0), 5)])
        assert np.flatnonzero(out["seen_out_w_en"]).tolist() == [5 + row * 6 + 14 for row in (1, 2, 3)]


# Protocol


def test_reset_in_the_middle_ends_all_writing() -> None:
    sizes = sizes_of("int8-4x13", 16)
    rng = np.random.default_rng(SEED + 2)
    contents = random_contents(rng, sizes)
    long = Vector(m=20, scale=True, bias=True, to=NumberType.INT8, bias_at=300)
    word = np.frombuffer(encode(long).to_bytes(16, "little"), "<u4")[np.newaxis]
    for cycles in (1, 2, 13, 14, 15, 16, 17, 40):
        with compiled("int8-4x13", 16).open(random_state=True, seed=3) as running:
            running.reset()
            fill(running, sizes, contents)
            running.run({"start": 1, "slots": 0, "word": word}, 1)
            running.run({}, cycles - 1)
            running.reset(1)
            quiet = running.run({}, 60)
            assert not quiet["seen_out_w_en"].any()
            assert quiet["ready"].all()
            job = Job(random_vector(rng, sizes, 7, NumberType.FP16, Function.SILU), (1, 1, 1), 0)
            assert written(sizes, run(running, sizes, [job])) == golden(sizes, contents, [job])
