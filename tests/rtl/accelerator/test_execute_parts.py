# amaranth: UnusedElaboratable=no
"""Parts of the Execute engine by themselves: slices by counting, rows of group parameters, codes with an offset."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.arithmetic import cut
from bitwright.arch.isa.limits import Limits, TileFormat, limits
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.banks import BeatBanks, banks_needed
from bitwright.rtl.accelerator.feeders import GroupReader, code_offset, result_par, weight_par
from bitwright.rtl.accelerator.slices import Slices
from bitwright.rtl.bench.verilator import Compiled

STEPS = (None, 1, 3, 4, 128)
ROW_BITS = (5 * 16, 5 * 20, 0, 5 * 18)
PORT_BITS, DEPTH = 64, 1024


@cache
def slices_bench() -> Compiled:
    """A `Slices` of each limit, all driven alike but for `next`."""
    m, ports = Module(), []
    shared = {name: Signal(1 if name == "load" else 14, name=name) for name in ("load", "k", "group")}
    for steps in STEPS:
        part = Slices(steps)
        m.submodules[f"slices_{steps}"] = part
        m.d.comb += [getattr(part, name).eq(signal) for name, signal in shared.items()]
        for name in ("next", "valid", "length", "group_end", "last"):
            inside = getattr(part, name)
            outside = Signal(len(inside), name=f"{name}_{steps}")
            m.d.comb += inside.eq(outside) if name == "next" else outside.eq(inside)
            ports.append(outside)
    text: str = backend.convert(m, name="bench", ports=[*shared.values(), *ports], emit_src=False)
    return Compiled(text, "bench", optimise="-O0")


@pytest.mark.parametrize("steps", STEPS)
def test_slices_are_those_of_the_model(steps: int | None) -> None:
    rng = np.random.default_rng(5)
    loads: list[tuple[int, int, int]] = []
    nexts: list[int] = []
    want: list[tuple[int, int, int, int]] = []  # valid, length, group_end, last
    for _ in range(400):
        k = int(rng.choice([1, 2, 4, rng.integers(1, 60), rng.integers(1, 16384)]))
        group = int(rng.choice([1, 3, 4, 128, k, rng.integers(1, 60), rng.integers(1, 16384)]))
        slices = cut(k, group, steps)
        if slices.count > 300:
            continue
        if want and rng.random() < 0.5:
            loads[-1], nexts[-1] = (1, k, group), int(rng.integers(2))  # with the last `next`, or instead of it
        else:
            idle = int(rng.integers(1, 4))
            loads += [(0, 0, 0)] * (idle - 1) + [(1, k, group)]
            nexts += [0] * idle
            want += [(0, 0, 0, 0)] * idle
        lengths = np.bincount(slices.of)
        ends = np.append(slices.slice_group[1:] != slices.slice_group[:-1], True)
        for number, length in enumerate(lengths.tolist()):
            held = int(rng.integers(1, 3)) if rng.random() < 0.3 else 1
            loads += [(0, int(rng.integers(1, 99)), int(rng.integers(1, 99)))] * held
            nexts += [0] * (held - 1) + [1]
            want += [(1, length, int(ends[number]), int(number == slices.count - 1))] * held
    columns = np.asarray(loads)
    with slices_bench().open(random_state=True) as run:
        run.reset()
        inputs = {"load": columns[:, 0], "k": columns[:, 1], "group": columns[:, 2], f"next_{steps}": nexts}
        out = run.run(inputs)
    shown = np.stack([out[f"{name}_{steps}"] for name in ("valid", "length", "group_end", "last")], axis=1).astype(int)
    shown[shown[:, 0] == 0] = 0  # without a slice the rest does not matter
    different = np.flatnonzero((shown != np.asarray(want)).any(axis=1))
    assert not len(different), f"cycle {different[0]}: {shown[different[0]]}, must be {want[different[0]]}; seed 5"


@cache
def reader_bench() -> Compiled:
    """A GroupReader with its memory; port names as the parts'."""
    m, ports = Module(), []
    count = banks_needed(ROW_BITS, PORT_BITS)
    m.submodules.memory = memory = BeatBanks(DEPTH, PORT_BITS, count)
    m.submodules.reader = reader = GroupReader(PORT_BITS, count, list(ROW_BITS))
    m.d.comb += [getattr(memory, name).eq(getattr(reader, name)) for name in ("r_en", "r_slot", "r_beat")]
    m.d.comb += reader.r_data.eq(memory.r_data)
    for part, wanted in ((memory, "w_"), (reader, ("job_", "row_"))):
        for name, member in part.signature.members.items():
            if name.startswith(wanted):
                inside = getattr(part, name)
                outside = Signal(len(inside), name=name)
                m.d.comb += inside.eq(outside) if member.flow == In else outside.eq(inside)
                ports.append(outside)
    job_group = Signal(len(reader.job_group), name="job_group")
    m.d.comb += reader.job_group.eq(job_group)
    text = memories.verilog(m, "bench", least_bits=0, ports=[*ports, job_group])
    return Compiled(text, "bench", optimise="-O0")


@pytest.mark.parametrize("stalls", [False, True])
def test_a_row_a_group_in_the_third_cycle_and_then_in_every(stalls: bool) -> None:
    rng = np.random.default_rng(9)
    jobs: list[dict[str, int]] = []
    rows: list[tuple[int, int, int]] = []  # choice, bits, last of its job
    data = rng.integers(0, 1 << 64, (2, DEPTH), np.uint64)
    raw = [np.unpackbits(data[slot].view(np.uint8), bitorder="little") for slot in range(2)]
    for _ in range(150):
        choice, beat, slot = int(rng.choice([0, 1, 3])), int(rng.integers(0, DEPTH // 2)), int(rng.integers(2))
        group = int(rng.choice([1, 2, 7, 200]))
        k = int(rng.integers(1, 30 * group))
        count, bits = -(-k // group), ROW_BITS[choice]
        jobs.append({"slot": slot, "beat": beat, "choice": choice, "count": k, "group": group})
        for row in range(count):
            first = beat * PORT_BITS + row * bits
            value = int.from_bytes(np.packbits(raw[slot][first : first + bits], bitorder="little").tobytes(), "little")
            rows.append((choice, value, int(row == count - 1)))
    cycles = (4 if stalls else 1) * len(rows) + 50
    ready = rng.random(cycles) < 0.4 if stalls else np.ones(cycles, bool)
    with reader_bench().open(random_state=True) as run:
        run.reset()
        for slot in range(2):
            run.run({"w_en": 1, "w_slot": slot, "w_beat": np.arange(DEPTH), "w_data": data[slot]}, DEPTH)
        got, taken = drive(run, jobs, ready)
    assert [(choice, value & ((1 << ROW_BITS[choice]) - 1), last) for _, choice, value, last in got] == rows
    if not stalls:
        assert taken[0] == 0
        assert [cycle for cycle, *_ in got] == list(range(3, 3 + len(rows)))


def drive(run: Any, jobs: list[dict[str, int]], ready: np.ndarray) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    """Jobs always on offer; the rows taken as (cycle, choice, bits, last), and the cycles of the jobs taken."""
    got: list[tuple[int, int, int, int]] = []
    taken: list[int] = []
    for cycle, want in enumerate(ready.tolist()):
        valid = len(taken) < len(jobs)
        job = {f"job_{name}": value for name, value in jobs[len(taken)].items()} if valid else {}
        out = run.run({"job_valid": int(valid), "row_ready": int(want), **job}, 1)
        if valid and out["job_ready"][0]:
            taken.append(cycle)
        if want and out["row_valid"][0]:
            value = int.from_bytes(out["row_data"][0].tobytes(), "little")
            got.append((cycle, int(out["row_choice"][0]), value, int(out["row_last"][0])))
    return got, taken


def of(name: str, *formats: str) -> Limits:
    return limits(machines.load(name), port_bytes=8, formats=formats or None)


@pytest.mark.parametrize(
    ("name", "formats", "weight", "result"),
    [
        ("int8-4x4", ("int8", "int4", "int4_asym"), ["int4_asym"], ["int8", "int4", "int4_asym"]),
        ("int8-4x4", ("int8", "int4"), [], ["int8", "int4"]),
        ("fp16-4x4", ("fp16", "bf16", "int4", "int4_asym"), ["int4", "int4_asym"], []),
        ("shift-add-4x4", ("int4", "int4_asym"), [], ["int4", "int4_asym"]),
    ],
)
def test_who_reads_the_parameters_of_which_formats(
    name: str, formats: tuple[str, ...], weight: list[str], result: list[str]
) -> None:
    sizes = of(name, *formats)
    assert [form.name for form in weight_par(sizes) if form] == weight
    assert [form.name for form in result_par(sizes) if form] == result


def test_signed_codes_have_an_offset_only_beside_unsigned_ones() -> None:
    mixed, signed, unsigned = (
        of("shift-add-4x4", *formats) for formats in (("int4", "int4_asym"), ("int4", "int3"), ("int4_asym",))
    )
    assert [code_offset(mixed, form) for form in mixed.formats] == [8, 0]
    assert [code_offset(signed, form) for form in signed.formats] == [0, 0]
    assert [code_offset(unsigned, form) for form in unsigned.formats] == [0]
    plain = of("int8-4x4", "int4", "int4_asym")  # its decoder makes int8 of either
    assert [code_offset(plain, form) for form in plain.formats] == [0, 0]


def test_signed_codes_with_zero_points_beside_unsigned_ones_are_refused() -> None:
    sizes = of("shift-add-4x4", "int4", "int4_asym")
    with pytest.raises(ConfigError) as caught:
        code_offset(sizes, TileFormat("int4", 4, scale=True, zero=True))
    assert str(caught.value) == (
        "formats: int4: signed codes with zero points beside unsigned codes (int4, int4_asym) do not fit shift-add; "
        "leave one out"
    )
