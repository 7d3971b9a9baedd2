"""Random legal programs on random small machines before random memories, each out of one seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

import numpy as np
from bitwright.arch import formats, pe
from bitwright.arch.array_timing import WeightLoad
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.extents import act_vectors
from bitwright.arch.isa.instructions import (
    Buffer,
    End,
    Execute,
    Function,
    Instruction,
    Load,
    NumberType,
    Store,
    Vector,
)
from bitwright.arch.isa.limits import Limits, tile_format
from bitwright.arch.isa.network import validate
from bitwright.arch.isa.placement import Placement
from bitwright.arch.pe import broadcast
from bitwright.workloads import linear
from bitwright.workloads.layout import Job
from bitwright.workloads.lowering import lower
from bitwright.workloads.tiling import Tiling

FORMATS = {
    "int8-mac": ("int8", "int4_asym", "int3"),
    "shift-add": ("int4", "int4_asym"),
    "fp16-mac": ("fp16", "int4_asym", "int4"),
    "outlier-victim": ("ovp4", "ovp8"),
    "lut": ("int2", "int8", "int4_asym", "bipolar_int3"),
    "bit-serial": ("bitmod_fp4", "int8", "bitmod_fp3", "int6", "int4"),
}
TILES: dict[str, list[dict[str, Any]]] = {
    "outlier-victim": [{}, {"lanes": 4, "pipeline": 1}, {"lanes": 6}],
    "bit-serial": [{}, {"pipeline": 1}],
    "lut": [{"weight_bits": 8}, {"weight_bits": 8, "k": 2, "depth": 8192}, {"weight_bits": 8, "k": 3, "pipeline": 3}],
}
"""Parameters of the PEs of broadcast tiles."""
_LOADED, _STORED = (0, 1), 3  # regions


@dataclass(frozen=True)
class Case:
    """One run; `seed` makes it again."""

    seed: int
    program: tuple[Instruction, ...]
    limits: Limits
    region_beats: tuple[int, int, int, int]
    memory: FixedMemory
    outstanding_reads: int
    outstanding_writes: int
    placement: Placement

    def options(self) -> dict[str, Any]:
        """The keyword arguments of an engine's `run`."""
        names = ("outstanding_reads", "outstanding_writes", "placement")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        lim = self.limits
        where = f"{lim.pe.name} {lim.rows}x{lim.cols} {lim.stationary}, beats of {lim.port_bytes}, {self.memory}"
        most = f"{self.outstanding_reads} reads and {self.outstanding_writes} writes open"
        return f"seed {self.seed}: {len(self.program)} instructions on {where}, {most}"


def random_memory(draw: Random) -> FixedMemory:
    """Often with only one or two bursts open, or slower than a beat a cycle."""
    return FixedMemory(
        latency_cycles=draw.choice([1, 1, 2, 3, 7, 20, 50]),
        beat_cycles=draw.choice([1, 1, 1, 2, 3]),
        reads=draw.choice([1, 2, 3, 4, 16]),
        writes=draw.choice([1, 2, 3, 16]),
        response_cycles=draw.choice([1, 2, 4, 9]),
    )


def random_limits(draw: Random, names: Sequence[str] = tuple(FORMATS)) -> Limits:
    """Slots from one tile to some."""
    name = draw.choice(names)
    most = draw.choice([4, 9, 9, 24]) if name not in TILES else 9 if name == "bit-serial" else 6
    rows, cols = draw.randint(1, most), draw.randint(1, most)
    spec = broadcast.tile_spec(name, rows, cols, draw.choice(TILES[name])) if name in TILES else pe.get(name)
    stationary: Any = "os" if name in TILES else draw.choice(["ws", "os"])
    forms = tuple(tile_format(spec, form, "test") for form in FORMATS[name])
    lim = Limits(rows, cols, stationary, spec, draw.choice([8, 16, 32, 64]), forms, 1, 1, 1, 1, 1, 1)
    if stationary == "ws":
        wide = draw.choice([one for one in range(1, rows + 1) if (lim.slice_steps or rows) % one == 0])
        lim = replace(lim, load=WeightLoad(draw.choice([1, wide]), draw.random() < 0.6))
    row = lim.beats(32 * cols)
    least = (2 * rows * lim.lanes, lim.beats(16 * max(rows, lim.lanes) * cols), lim.beats(24 * cols), 3 * row, 2, row)
    return replace(lim, **dict(zip(_SLOTS, (one + draw.choice([0, 3, 40, 300]) for one in least), strict=True)))


_SLOTS = ("act_vectors", "wgt_beats", "par_beats", "vec_beats", "acc_rows", "out_beats")


def random_placement(draw: Random, words: int, region_beats: Sequence[int], port_bytes: int) -> Placement:
    """Bases at any beat, so that bursts end anywhere."""
    at = 256 * draw.randint(0, 40)
    program = at
    at += 16 * words
    bases: list[int] = []
    for beats in region_beats:
        at += -at % port_bytes + port_bytes * draw.randint(0, 4096 // port_bytes)
        bases.append(at)
        at += beats * port_bytes
    return Placement(program, (bases[0], bases[1], bases[2], bases[3]))


def _case(draw: Random, seed: int, program: Sequence[Instruction], limits: Limits, beats: Sequence[int]) -> Case:
    sizes = (beats[0], beats[1], beats[2], beats[3])
    port = draw.choice([1, 2, 3, 16]), draw.choice([1, 2, 16])
    placement = random_placement(draw, len(program), beats, limits.port_bytes)
    return Case(seed, tuple(program), limits, sizes, random_memory(draw), *port, placement)


# --- Programs of the lowering ------------------------------------------------------------------------------------


def lowered_case(seed: int, most: int = 20) -> Case | None:
    """A product on a machine with small slots, by any tiling that fits; None where none does."""
    draw = Random(seed)
    lim = random_limits(draw, ("int8-mac", "shift-add", "fp16-mac"))
    number = draw.randrange(len(lim.formats))
    m, k, n = draw.randint(1, 2 * lim.rows), draw.randint(1, most), draw.randint(1, most)
    form = formats.get(lim.formats[number].name)
    once = lim.weight_rows
    groups = [None, draw.randint(1, k), 4] if once == 1 else [None, once * draw.randint(1, 3)]
    group = draw.choice(groups) if form.default_scale_format else None
    numbers = np.random.default_rng(seed)
    encoded = form.encode(numbers.normal(size=(n, k)).astype(np.float32), group=group)
    values = numbers.normal(size=(m, k)).astype(np.float32)
    floats = lim.pe.name == "fp16-mac"
    acts = linear.Fp16Rule("fp16", None).encode_acts(values, 1, "") if floats else linear.encode_int8_acts(values, None)
    bias = numbers.normal(size=n).astype(np.float32) if draw.random() < 0.5 else None
    to = draw.choice([*NumberType])
    length = min(encoded.group, k) if isinstance(encoded.group, int) else k
    job = Job(lim, m, k, n, number, length, acts.scales is not None, bias is not None, to)
    widths = [*range(lim.cols, n, lim.cols), n]
    sizes = [size for size in product(range(1, m + 1), job.k_sizes(), widths) if job.fits(*size)]
    if not sizes:
        return None
    tiling = Tiling(*draw.choice(sizes), draw.random() < 0.5)
    lowered = lower(encoded, acts, lim, bias=bias, to=to, tiling=tiling)
    return _case(draw, seed, lowered.program, lim, lowered.layout.region_beats)


# --- Programs that no lowering makes -----------------------------------------------------------------------------


class _Maker:
    """Blocks of loads, executes, a vector and stores in any order that is legal."""

    def __init__(self, draw: Random, limits: Limits) -> None:
        self.draw, self.limits = draw, limits
        self.region_beats = [draw.choice([600, 1500]) for _ in range(4)]

    def loads(self, buffer: Buffer, beats: int, hand: bool = True) -> Iterator[Load]:
        """The first beats of a slot in some Loads: rows with strides, or one long row."""
        at, draw = 0, self.draw
        while at < beats:
            count = draw.randint(1, beats - at)
            rows = draw.choice([d for d in range(1, count + 1) if count % d == 0])
            stride, region = draw.randint(0, 4), draw.choice(_LOADED)
            span = (rows - 1) * stride + count // rows
            if span > self.region_beats[region]:
                continue
            offset = draw.randint(0, self.region_beats[region] - span)
            shape = {"rows": rows, "beats": count // rows, "stride": stride, "offset": offset}
            at += count
            yield Load(buffer=buffer, hand=hand and at == beats, region=region, at=at - count, **shape)

    def block(self) -> list[Instruction]:
        draw, lim = self.draw, self.limits
        program: list[Instruction] = []
        most_m = min(lim.rows if lim.stationary == "os" else 12, lim.acc_rows)
        m = draw.randint(1, most_m)
        count = draw.randint(1, 4)
        first = True
        for number in range(count):
            form = draw.randrange(len(lim.formats))
            execute = Execute(format=form, m=m, k=1, group=1)
            for _ in range(20):
                k = draw.randint(1, draw.choice([3, 40, 40]))
                group = draw.choice([k, lim.weight_rows * draw.randint(1, 9), lim.weight_rows * draw.randint(1, 4)])
                longer = replace(execute, k=k, group=group)
                if self._fits(longer):
                    execute = longer
                    break
            if not self._fits(execute):
                return []
            act, wgt, par = self._needs(execute)
            program += [*self.loads(Buffer.ACT, act), *self.loads(Buffer.WGT, wgt)]
            program += self.loads(Buffer.PAR, par)
            frees = {"free_act": True, "free_wgt": True, "free_par": par > 0}
            again = draw.choice([0, 0, 1, 2, 7])  # more Executes with the same operands
            for left in range(again, -1, -1):
                more = {} if left else frees | {"hand_acc": number == count - 1}
                program.append(replace(execute, first=first, **more))
                first = draw.random() < 0.4
        return [*program, *self._drain(m)]

    def _needs(self, execute: Execute) -> tuple[int, int, int]:
        lim = self.limits
        form = lim.formats[execute.format]
        groups = -(-execute.k // execute.group)
        act = act_vectors(execute, lim) * lim.vector_beats
        return act, lim.beats(execute.k * lim.cols * form.bits), lim.beats(groups * lim.cols * form.par_bits)

    def _fits(self, execute: Execute) -> bool:
        act, wgt, par = self._needs(execute)
        lim = self.limits
        return act <= lim.act_vectors * lim.vector_beats and wgt <= lim.wgt_beats and par <= lim.par_beats

    def _drain(self, m: int) -> Iterator[Instruction]:
        draw, lim = self.draw, self.limits
        scale, bias, residual = (draw.random() < 0.5 for _ in range(3))
        by_column = scale and draw.random() < 0.3
        row = lim.beats(32 * lim.cols)
        to = draw.choice([*NumberType])
        out_row = lim.beats(lim.cols * {NumberType.FP32: 32, NumberType.FP16: 16, NumberType.INT8: 8}[to])
        while (m * out_row > lim.out_beats or (residual and m * row > lim.vec_beats)) and m > 1:
            m -= 1
        extras = {"scale": scale, "bias": bias, "residual": residual, "by_column": by_column}
        scales = row if by_column else scale * lim.beats(32 * m)
        needed = max(scales, bias * row, residual * m * row)
        if needed > lim.vec_beats:
            extras, needed = {}, 0
        if needed:
            yield from self.loads(Buffer.VEC, needed)
        function = draw.choice([*Function])
        yield Vector(m=m, to=to, function=function, **extras, hand=True, free_acc=True, free_vec=needed > 0)
        stride = draw.randint(0, 5)
        beats = m * out_row
        rows = draw.choice([d for d in range(1, beats + 1) if beats % d == 0])
        span = (rows - 1) * stride + beats // rows
        if span > self.region_beats[_STORED]:
            rows, span = 1, beats
        offset = draw.randint(0, self.region_beats[_STORED] - span)
        tail = draw.randrange(lim.port_bytes)
        shape = {"rows": rows, "beats": beats // rows, "stride": stride, "offset": offset, "tail_bytes": tail}
        yield Store(region=_STORED, **shape, free_out=True)


def _shuffled(draw: Random, program: list[Instruction], swaps: int) -> list[Instruction]:
    """Neighbours of different units changed about: what that makes of it the validator says."""
    program = list(program)
    for _ in range(swaps):
        at = draw.randrange(max(1, len(program) - 1))
        pair = program[at : at + 2]
        if len(pair) == 2 and type(pair[0]) is not type(pair[1]):
            program[at : at + 2] = pair[::-1]
    return program


def made_case(seed: int, blocks: int = 4) -> Case:
    """Some random blocks, their instructions moved about as far as that is legal."""
    draw = Random(seed)
    lim = random_limits(draw)
    maker = _Maker(draw, lim)
    made = [item for _ in range(draw.randint(0, blocks)) for item in maker.block()]
    for swaps in (8 * len(made), 2 * len(made), len(made) // 2, 2, 0):
        program = [*_shuffled(draw, made, swaps), End()]
        if validate(program, lim, maker.region_beats).legal:
            break
    return _case(draw, seed, program, lim, maker.region_beats)
