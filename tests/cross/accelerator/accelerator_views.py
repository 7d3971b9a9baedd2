"""One program in every view: the compiled accelerator, the interpreter, the validator and both simulators.

Independent sources: bytes and verdicts from arch.isa (untimed), cycles from the compiled Verilog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from accelerator_cases import Case, _case, _Maker, _shuffled
from bitwright.arch import formats, machine
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa import End, Instruction, encode, to_bytes
from bitwright.arch.isa.instructions import NumberType
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.arch.isa.limits import Limits, limits
from bitwright.arch.isa.network import validate
from bitwright.rtl.accelerator.top import verilog
from bitwright.rtl.bench.accelerator_runner import AcceleratorRun, CompiledAccelerator
from bitwright.sim.accelerator import engine, fast
from bitwright.workloads.lowering import Lowered, lower
from bitwright.workloads.operands import operand

Memory = list[np.ndarray]

MEMORIES = tuple(FixedMemory(latency_cycles=latency, beat_cycles=beat) for latency in (4, 20, 100) for beat in (1, 2))
"""Three latencies at two bandwidths."""


@lru_cache
def machine_limits(name: str, port_bytes: int, forms: tuple[str, ...] | None = None, kib: float = 2) -> Limits:
    """A machine with small buffers, so that programs have many tiles and every slot comes up."""
    plain, _, load = name.partition("+")
    loaded = tile_machine(name) if "lut" in name else machine.load(plain)
    if load:  # int8-4x4+2: two rows of weights a cycle; +2single: into single registers
        array = {"load_rows": int(load.removesuffix("single")), "double_buffered": not load.endswith("single")}
        loaded = loaded.model_copy(update={"array": loaded.array.model_copy(update=array)})
    small = machine.with_changes(loaded, buffers_kib=f"{kib},{kib},{kib}")
    return limits(small, port_bytes=port_bytes, formats=forms)


def tile_machine(name: str) -> machine.Machine:
    """A lut machine `lut-RxC` for weights of up to 8 bits."""
    rows, cols = map(int, name.split("-")[1].split("x"))
    data = {
        "name": name,
        "pe": "lut:weight_bits=8,depth=16384",
        "array": {"rows": rows, "cols": cols, "dataflow": "os"},
    }
    return machine.Machine.model_validate(data)


@lru_cache
def compiled(lim: Limits, **opened: int) -> CompiledAccelerator:
    """The machine's Verilog as a library; `opened` are the bursts that its memory port keeps open."""
    module, text = verilog(lim, **opened)
    return CompiledAccelerator(text, module, lim)


def random_bytes(case_seed: int, lim: Limits, region_beats: Sequence[int]) -> Memory:
    """Memory of any bits: scales that are infinite or NaN, codes of every value."""
    draw = np.random.default_rng(case_seed)
    return [draw.integers(0, 256, beats * lim.port_bytes, dtype=np.uint8) for beats in region_beats]


def check(
    lim: Limits, program: Sequence[Instruction], memory: Sequence[np.ndarray], timing: FixedMemory,
    opened: Mapping[str, int] | None = None, **options: Any,
) -> AcceleratorRun:  # fmt: skip
    """A legal program: bytes in memory, counters, and the cycles in which instructions start and end, in every view."""
    opened = opened or {}
    expected, found = ([region.copy() for region in memory] for _ in range(2))
    assert interpret(program, lim, expected).legal
    sizes = [region.size // lim.port_bytes for region in memory]
    done = compiled(lim, **opened).run(to_bytes(program), found, timing, trace=True, **options)
    assert done.fault is None, f"{done.fault} at {done.index}"
    same_bytes(found, expected)
    if "stalls_seed" in options:
        return done
    contents = memory if lim.skips else None
    simulated = fast.run(program, lim, sizes, timing, **opened, **options, contents=contents)
    reference = engine.run(program, lim, sizes, timing, **opened, **options, contents=contents)
    assert simulated == reference
    assert done.counters == simulated.counters
    assert done.trace is not None
    for op, starts in done.trace.starts.items():
        mine = [
            at for at, item in zip(simulated.times, program, strict=False) if type(item).__name__.upper() == op.name
        ]
        assert starts == [times.started for times in mine], op
        assert done.trace.dones[op] == [times.done for times in mine], op
    return done


def same_bytes(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        wrong = np.flatnonzero(one != other)
        assert not wrong.size, f"region {number}: {wrong.size} bytes differ, the first is {wrong[0]}"


def check_verdict(lim: Limits, words: Sequence[int], memory: Sequence[np.ndarray], timing: FixedMemory) -> bool:
    """Any words: the RTL ends as the validator says, with the interpreter's bytes if it says legal; whether it does."""
    expected, found = ([region.copy() for region in memory] for _ in range(2))
    outcome = interpret(words, lim, expected)
    done = compiled(lim).run(b"".join(word.to_bytes(16, "little") for word in words), found, timing)
    assert (done.fault, done.index) == (outcome.fault, outcome.index), f"{outcome}, the RTL says otherwise"
    if outcome.legal:
        same_bytes(found, expected)
    return outcome.legal


def made_case(lim: Limits, seed: int) -> Case:
    """Blocks of random instructions, formats mixed, moved about as far as that is legal."""
    draw = Random(seed)
    maker = _Maker(draw, lim)
    made = [item for _ in range(draw.randint(1, 4)) for item in maker.block()]
    for swaps in (4 * len(made), len(made) // 2, 2, 0):
        program = [*_shuffled(draw, made, swaps), End()]
        if validate(program, lim, maker.region_beats).legal:
            break
    return _case(draw, seed, program, lim, maker.region_beats)


def random_gemm(lim: Limits, seed: int) -> Lowered:
    """A product of 1 to 3 times the array in each dimension, groups that need not divide k, lowered.

    Every other one to any type of results and with its reduction cut anywhere that its groups allow.
    """
    draw, numbers = Random(seed), np.random.default_rng(seed)
    m, k, n = (draw.randint(1, 3 * side) for side in (lim.rows, lim.rows * lim.lanes, lim.cols))
    form = formats.get(draw.choice(lim.formats).name)
    once = lim.weight_rows * (1 if lim.tile is None else lim.tile.values(form.name))
    groups = [None, draw.randint(1, k), 4] if once == 1 else [None, once, 2 * once]
    group = draw.choice(groups) if form.default_scale_format else None
    weights = numbers.normal(size=(n, k)).astype(np.float32)
    encoded = form.encode(weights, group=group, scale_format=lim.scale_format)
    acts = operand(lim, form.name, numbers.normal(size=(m, k)).astype(np.float32))
    bias = numbers.normal(size=n).astype(np.float32) if draw.random() < 0.5 else None
    lowered = lower(encoded, acts, lim, bias=bias)
    if seed % 2:
        return lowered
    layout = lowered.layout
    tiling = replace(layout.tiling, k=draw.choice([size for size in layout.job.k_sizes() if size <= layout.tiling.k]))
    return lower(encoded, acts, lim, bias=bias, to=draw.choice([*NumberType]), tiling=tiling)


def flips(program: Sequence[Instruction]) -> Iterator[list[int]]:
    """The program with each of its bits changed in turn."""
    words = [encode(item) for item in program]
    for at in range(len(words)):
        for bit in range(128):
            yield [word ^ (1 << bit) if place == at else word for place, word in enumerate(words)]
