# amaranth: UnusedElaboratable=no
# (engines are made to ask what they need)
"""The Execute engine against its two models: every accumulator bit, and every cycle of start, ready and done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch import machine as machines
from bitwright.arch.array_timing import IDLE, step
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.arithmetic import Tile, cut, execute
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.instructions import Execute
from bitwright.arch.isa.limits import Channel, Limits, TileFormat, limits
from bitwright.arch.isa.packing import pack, pack_par
from bitwright.arch.isa.timing import EXECUTE_FILL, IN_FLIGHT, execute_drain
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.banks import AccMemory, BeatBanks
from bitwright.rtl.accelerator.execute import ExecuteEngine, execute_verilog
from bitwright.rtl.accelerator.feeders import banks
from bitwright.rtl.array.systolic import SystolicArray
from bitwright.rtl.bench.verilator import LINT_WAIVERS, Compiled, Simulation, lint
from bitwright.rtl.pe.emit import plain

# Small slots: a round is as many Executes as fit.
BUFFERS_KIB = "16,16,4"
USUAL = None
# The port's bytes, and the weight formats.
MACHINES: dict[str, tuple[int, tuple[str, ...] | None]] = {
    "int8-4x4": (8, USUAL),
    "int8-4x4-os": (16, USUAL),
    "fp16-4x4": (16, USUAL),
    "fp16-4x4-os": (8, ("fp16", "bf16", "int4_asym", "fp4_e2m1")),
    "shift-add-4x4": (8, USUAL),
    "shift-add-4x4-os": (16, USUAL),
    "int8-3x5": (8, ("int8", "fp4_e2m1", "int2_asym")),
    "int8-9x1-os": (8, ("int4", "int3")),
    "shift-add-12x2": (8, ("int4_asym", "int3", "int2_asym")),
}
SLOT_CHANNELS = (Channel.ACT, Channel.WGT, Channel.PAR, Channel.ACC)


class Top(wiring.Component):
    """An engine between its memories, which the bench writes and reads."""

    def __init__(self, engine: ExecuteEngine) -> None:
        self.engine = engine
        self.bits = 8 * engine.limits.port_bytes
        super().__init__(
            {
                "start": In(1),
                "word": In(128),
                "slots": In(4),
                "ready": Out(1),
                "done": Out(1),
                "w_en": In(3),
                "w_slot": In(1),
                "w_beat": In(16),
                "w_data": In(self.bits),
                "v_en": In(1),
                "v_slot": In(1),
                "v_row": In(16),
                "v_data": Out(32 * engine.limits.cols),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        ports = {Channel.ACT: ["act"], Channel.WGT: ["wgt"], Channel.PAR: list(engine.par_ports)}
        for index, (channel, names) in enumerate(ports.items()):
            capacity, count = engine.limits.capacity(channel), banks(engine.limits)[channel]
            memory = BeatBanks(capacity, self.bits, count, read_ports=max(1, len(names)))
            m.submodules[channel.value] = memory
            m.d.comb += [memory.w_en.eq(self.w_en[index])]
            m.d.comb += [getattr(memory, name).eq(getattr(self, name)) for name in ("w_slot", "w_beat", "w_data")]
            for number, name in enumerate(names):
                prefix, port = f"r{number or ''}", getattr(engine, name)
                m.d.comb += [
                    getattr(memory, f"{prefix}_{what}").eq(getattr(port, what)) for what in ("en", "slot", "beat")
                ]
                m.d.comb += port.data.eq(getattr(memory, f"{prefix}_data"))
        m.submodules.acc = acc = AccMemory(engine.limits.acc_rows, 32 * engine.limits.cols)
        for name in ("r_en", "r_slot", "r_row", "w_en", "w_slot", "w_row", "w_data"):
            m.d.comb += getattr(acc, f"x_{name}").eq(getattr(engine.acc, name))
        m.d.comb += [
            engine.acc.r_data.eq(acc.x_r_data),
            acc.v_r_en.eq(self.v_en),
            acc.v_r_slot.eq(self.v_slot),
            acc.v_r_row.eq(self.v_row),
            self.v_data.eq(acc.v_r_data),
            engine.start.eq(self.start),
            engine.word.eq(self.word),
            engine.slots.eq(self.slots),
            self.ready.eq(engine.ready),
            self.done.eq(engine.done),
        ]
        return m


@cache
def limits_of(name: str) -> Limits:
    machine = machines.with_changes(machines.load(name), buffers_kib=BUFFERS_KIB)
    port_bytes, formats = MACHINES[name]
    return limits(machine, port_bytes=port_bytes, formats=formats)


def engine_of(name: str) -> ExecuteEngine:
    of = limits_of(name)
    return ExecuteEngine(of, SystolicArray(of.pe, of.rows, of.cols, of.stationary))


@cache
def verilog(name: str) -> str:
    engine = engine_of(name)
    return memories.verilog(Top(engine), "top", least_bits=0) + execute_verilog(engine)


@cache
def compiled(name: str) -> Compiled:
    return Compiled(verilog(name), "top", optimise="-O1")


@dataclass(frozen=True)
class Job:
    """One Execute: its operands, its slots, and how many cycles after the first possible one it starts."""

    instruction: Execute
    slots: dict[Channel, int]
    tile: Tile
    late: int


class Memories:
    """The bytes of the slots; what no operand covers is random."""

    def __init__(self, of: Limits, rng: np.random.Generator) -> None:
        self.of = of
        self.bytes = {
            channel: rng.integers(0, 256, (2, of.capacity(channel) * of.port_bytes), np.uint8)
            for channel in SLOT_CHANNELS[:3]
        }
        self.used = {channel: [0, 0] for channel in self.bytes}  # beats

    def place(self, channel: Channel, slot: int, data: bytes) -> int | None:
        """Where the data now begins, in beats; None if the slot is full."""
        at, port = self.used[channel][slot], self.of.port_bytes
        beats = -(-len(data) // port)
        if at + beats > self.of.capacity(channel):
            return None
        self.bytes[channel][slot, at * port : at * port + len(data)] = np.frombuffer(data, np.uint8)
        self.used[channel][slot] = at + beats
        return at


def fp16_values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """fp16 with exponents around 1, so that sums round and cancel; rarely any bits at all."""
    near_one = rng.integers(11 << 10, 19 << 10, shape) | rng.integers(0, 2, shape) << 15
    special = rng.random(shape) < (1 / 100 if rng.random() < 0.1 else 0)
    return np.where(special, rng.integers(0, 1 << 16, shape), near_one).astype(np.uint16).view(np.float16)


def draw_tile(rng: np.random.Generator, of: Limits, form: TileFormat, m: int, k: int, group: int) -> Tile:
    groups, cols = -(-k // group), of.cols
    if of.act_bits == 16:
        acts = fp16_values(rng, (k, m))
    else:
        acts = rng.choice([-128, 127, *rng.integers(-128, 128, 14)], (k, m)).astype(np.int8)
    if form.name == "fp16":
        codes = fp16_values(rng, (k, cols)).view(np.uint16)
    elif form.name == "bf16":
        codes = (fp16_values(rng, (k, cols)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        codes = rng.integers(0, 1 << form.bits, (k, cols)).astype(np.uint16)
    scales = fp16_values(rng, (groups, cols)) if form.scale else None
    zeros = rng.integers(0, 1 << form.zero_bits, (groups, cols)).astype(np.uint16) if form.zero else None
    return Tile(acts, codes, scales, zeros)


def act_bytes(of: Limits, tile: Tile, group: int) -> bytes:
    """Activation vectors as docs/isa.md says; the lanes that do not matter are random."""
    (k, m), size = tile.acts.shape, of.vector_beats * of.port_bytes * 8 // of.act_bits
    if of.stationary == "os":
        vectors = np.random.default_rng(k).integers(0, 100, (k, size)).astype(tile.acts.dtype)
        vectors[:, :m] = tile.acts
        return vectors.tobytes()
    slices = cut(k, group, of.slice_steps)
    vectors = np.random.default_rng(k).integers(0, 100, (slices.count, m, size)).astype(tile.acts.dtype)
    vectors[slices.of, :, slices.lane] = tile.acts
    return vectors.tobytes()


def draw_shape(rng: np.random.Generator, of: Limits) -> dict[str, int]:
    """m, k and group: one slice and many, shorter and longer than the array."""
    short = [1, 2, 3, of.rows - 1, of.rows, of.rows + 1]
    most = of.rows if of.stationary == "os" else 99
    k = max(1, int(rng.choice([*short, *rng.integers(1, 41, 6)])))
    group = max(1, int(rng.choice([*short, k, k + 3, *rng.integers(1, 41, 3)])))
    return {"m": min(most, int(rng.choice([1, 1, 2, 3, 4, of.rows, 20]))), "k": k, "group": group}


def draw_jobs(rng: np.random.Generator, of: Limits, memories: Memories, most: int) -> list[Job]:
    """Legal Executes until a slot is full, into few accumulator rows, so that the same ones come soon again.

    Some are echoes: one product, at once, into one of the rows that the Execute before ends with, or the same row of
    the other slot.
    """
    written = np.zeros((2, of.acc_rows), bool)
    jobs: list[Job] = []
    while len(jobs) < most:
        shape, number = draw_shape(rng, of), int(rng.integers(len(of.formats)))
        slots = {channel: int(rng.integers(2)) for channel in SLOT_CHANNELS}
        acc_at = int(rng.integers(0, 4 if rng.random() < 0.8 else of.acc_rows - shape["m"] + 1))
        late = 0 if rng.random() < 0.6 else int(rng.integers(1, 30))
        if jobs and rng.random() < 0.4:
            before = jobs[-1]
            shape, late = {"m": 1, "k": 1, "group": 1}, 0
            slots[Channel.ACC] = before.slots[Channel.ACC] ^ int(rng.random() < 0.3)
            acc_at = before.instruction.acc_at + int(
                rng.integers(max(0, before.instruction.m - 3), before.instruction.m)
            )
        form = of.formats[number]
        tile = draw_tile(rng, of, form, **shape)
        places = {
            "act_at": memories.place(Channel.ACT, slots[Channel.ACT], act_bytes(of, tile, shape["group"])),
            "wgt_at": memories.place(Channel.WGT, slots[Channel.WGT], pack(tile.codes, form.bits)),
        }
        if tile.scales is not None:
            data = pack_par(tile.scales, tile.zeros, form.zero_bits)
            places["par_at"] = memories.place(Channel.PAR, slots[Channel.PAR], data)
        at = {name: place for name, place in places.items() if place is not None}
        if len(at) < len(places):
            break
        at["act_at"] //= of.vector_beats
        rows = written[slots[Channel.ACC], acc_at : acc_at + shape["m"]]
        first = not rows.all() or bool(rng.random() < 0.3)
        rows[:] = True
        hand = bool(rng.integers(2))  # the flags of slots are not the engine's
        instruction = Execute(
            format=number, first=first, acc_at=acc_at, hand_acc=hand, free_act=not hand, **shape, **at
        )
        jobs.append(Job(instruction, slots, tile, late))
    return jobs


def expected_rows(of: Limits, jobs: Sequence[Job]) -> np.ndarray:
    """fp32 [2, rows, cols] after the jobs; NaN with a payload where nothing was written."""
    acc = np.full((2, of.acc_rows, of.cols), 0x7FABCDEF, np.uint32).view(np.float32)
    for job in jobs:
        item = job.instruction
        rows = acc[job.slots[Channel.ACC], item.acc_at : item.acc_at + item.m]
        slices = cut(item.k, item.group, of.slice_steps)
        start = np.zeros_like(rows) if item.first else rows
        rows[:] = execute(of, of.formats[item.format], job.tile, slices, start)
    return acc


@dataclass(frozen=True)
class Times:
    """Of each job its start, the last cycle in which the engine is not ready, and its done; and all results' cycles."""

    starts: list[int]
    busy_until: list[int]
    done: list[int]
    results: list[tuple[int, int, int, int]]  # cycle, acc slot, row, job


def predict(engine: ExecuteEngine, jobs: Sequence[Job]) -> Times:
    """The contract: array_timing.step for every slice, operands there from start + EXECUTE_FILL."""
    of, state, times, q = engine.limits, IDLE, Times([], [], [], []), -1
    for number, job in enumerate(jobs):
        item = job.instruction
        free = times.done[number - IN_FLIGHT] + 1 if number >= IN_FLIGHT else 0
        start = max(q + 1, free) + job.late
        slices, shape = cut(item.k, item.group, of.slice_steps), of.array_shape(of.formats[item.format])
        finish = 0
        for length in np.bincount(slices.of).tolist():
            state, first, finish = step(shape, state, start + EXECUTE_FILL, item.m, length)
            q = first + length - 1
            slot = job.slots[Channel.ACC]
            times.results.extend((finish - item.m + 1 + row, slot, item.acc_at + row, number) for row in range(item.m))
        times.starts.append(start)
        times.busy_until.append(q)
        times.done.append(finish + execute_drain(of))
    return times


def preload(run: Simulation, memories: Memories) -> None:
    """All slots, a beat a cycle."""
    of = memories.of
    for index, (_, data) in enumerate(memories.bytes.items()):
        for slot in range(2):
            words = data[slot].view("<u4").reshape(-1, of.port_bytes // 4)
            payload = words.view("<u8")[:, 0] if of.port_bytes == 8 else words
            beats = np.arange(len(words))
            run.run({"w_en": 1 << index, "w_slot": slot, "w_beat": beats, "w_data": payload}, len(words))


def inputs_of(of: Limits, jobs: Sequence[Job], starts: Sequence[int], cycles: int) -> dict[str, Any]:
    start, slots, word = np.zeros(cycles, int), np.zeros(cycles, int), np.zeros((cycles, 4), np.uint32)
    word[:] = np.random.default_rng(cycles).integers(0, 1 << 32, word.shape)  # counts only with start
    for job, at in zip(jobs, starts, strict=True):
        start[at] = 1
        slots[at] = sum(job.slots[channel] << bit for bit, channel in enumerate(SLOT_CHANNELS))
        word[at] = np.frombuffer(encode(job.instruction).to_bytes(16, "little"), "<u4")
    return {"start": start, "slots": slots, "word": word}


def check_round(run: Simulation, engine: ExecuteEngine, seed: int, most: int = 40) -> tuple[Sequence[Job], Times]:
    """A random sequence: its cycles, and every accumulator, read from the cycle after the last done."""
    of, rng = engine.limits, np.random.default_rng(seed)
    memories = Memories(of, rng)
    jobs = draw_jobs(rng, of, memories, most)
    times = predict(engine, jobs)
    preload(run, memories)
    reads = 2 * of.acc_rows
    cycles = times.done[-1] + 1
    place = np.arange(reads)[::-1] if seed % 2 else np.arange(reads)
    inputs = inputs_of(of, jobs, times.starts, cycles + reads + 1)
    quiet = np.zeros(cycles, int)
    inputs["v_en"] = np.concatenate([quiet, np.ones(reads, int), [0]])
    inputs["v_slot"] = np.concatenate([quiet, place // of.acc_rows, [0]])
    inputs["v_row"] = np.concatenate([quiet, place % of.acc_rows, [0]])
    out = run.run(inputs)
    ready = np.ones(len(out["ready"]), int)
    for start, q in zip(times.starts, times.busy_until, strict=True):
        ready[start + 1 : q + 1] = 0
    where = f"machine {of.pe.name} {of.rows}x{of.cols} {of.stationary}, seed {seed}"
    assert np.flatnonzero(out["done"]).tolist() == times.done, f"done, {where}"
    wrong = np.flatnonzero(out["ready"] != ready)
    assert not len(wrong), f"ready in cycle {wrong[0]}, {where}"
    got = np.empty((reads, of.cols), np.uint32)
    shown = out["v_data"][cycles + 1 :]
    got[place] = (
        shown.reshape(reads, -1) if of.cols > 2 else shown[:, np.newaxis].astype("<u8").view("<u4")[:, : of.cols]
    )
    want = expected_rows(of, jobs).view(np.uint32).reshape(reads, of.cols)
    written = want != 0x7FABCDEF
    different = np.argwhere(written & (got != want))
    if len(different):
        row, col = different[0]
        raise AssertionError(
            f"accumulator slot {row // of.acc_rows} row {row % of.acc_rows} column {col}: got {got[row, col]:#010x}, "
            f"must be {want[row, col]:#010x}; {len(different)} of {written.sum()} differ; {where}"
        )
    return jobs, times


@pytest.mark.parametrize("name", MACHINES)
def test_every_accumulator_and_every_cycle(name: str, record_property: Any) -> None:
    engine, count, results = engine_of(name), 0, 0
    gaps: set[tuple[int, str]] = set()
    flying, pairs = 0, set()
    with compiled(name).open(random_state=True, seed=7) as run:
        run.reset()
        for seed in range(16):
            jobs, times = check_round(run, engine, seed)
            count, results = count + len(jobs), results + len(times.results)
            gaps |= same_row_gaps(jobs, times)
            for index, start in enumerate(times.starts):
                flying = max(flying, 1 + sum(done >= start for done in times.done[:index]))
                if index and times.done[index - 1] > start:
                    pairs.add((jobs[index - 1].instruction.format, jobs[index].instruction.format))
    record_property("figure", f"{name}: {count} Executes, {results} results, bit and cycle equal")
    # What the rounds must have met, or they prove little.
    wanted = {(gap, kind) for gap in (1, 2, 3) for kind in ("same", "other", "slot")}
    assert wanted <= gaps, f"the same row did not go on after {sorted(wanted - gaps)}"
    kinds = range(len(engine.limits.formats))
    assert pairs == {(one, other) for one in kinds for other in kinds}, "formats that overlap"
    assert flying == IN_FLIGHT or engine.limits.stationary == "os"


def same_row_gaps(jobs: Sequence[Job], times: Times) -> set[tuple[int, str]]:
    """How many cycles after a result its row goes on: by the same Execute, another, or one in the other slot."""
    last: dict[tuple[int, int], tuple[int, int]] = {}
    gaps = set()
    for cycle, slot, row, job in times.results:
        if (slot, row) in last:
            before, its_job = last[slot, row]
            gaps.add((cycle - before, "same" if job == its_job else "other"))
        if (1 - slot, row) in last and not jobs[job].instruction.first:
            gaps.add((cycle - last[1 - slot, row][0], "slot"))
        last[slot, row] = cycle, job
    return gaps


@pytest.mark.parametrize("name", ["shift-add-4x4", "fp16-4x4-os"])
def test_reset_in_mid_flight_leaves_nothing_behind(name: str) -> None:
    engine, rng = engine_of(name), np.random.default_rng(3)
    with compiled(name).open(random_state=True, seed=11) as run:
        run.reset()
        for seed in range(8):
            memories = Memories(engine.limits, rng)
            jobs = draw_jobs(rng, engine.limits, memories, 8)
            times = predict(engine, jobs)
            preload(run, memories)
            cycles = int(rng.integers(times.starts[-1] + 1, times.done[-1] + 1))
            run.run(inputs_of(engine.limits, jobs, times.starts, cycles))
            run.reset(1)
            check_round(run, engine, 100 + seed, most=6)


@pytest.mark.parametrize("name", MACHINES)
def test_lint(name: str) -> None:
    # `!` of a vector is how Yosys writes that it is 0; before a casez without a default it assigns one.
    waivers = (*LINT_WAIVERS, "-Wno-WIDTHTRUNC", "-Wno-CASEINCOMPLETE")
    assert lint(plain(verilog(name)), "top", waivers) == []


def test_an_array_of_another_machine_is_refused() -> None:
    of = limits_of("int8-3x5")
    with pytest.raises(ConfigError) as caught:
        ExecuteEngine(of, SystolicArray(of.pe, 5, 3, "ws"))
    assert str(caught.value) == "array = int8_mac_ws_5x3: must be 3 x 5 ws of int8-mac; the execute engine"
