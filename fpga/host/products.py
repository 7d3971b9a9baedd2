"""Matrix products on a board whose memory holds only a part of them: tile after tile, streamed from the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import Instruction
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.arch.isa.limits import Limits
from bitwright.fpga.host.driver import BoardRun, placed_bytes
from bitwright.fpga.host.link import Progress as LoadProgress
from bitwright.fpga.link.protocol import Info
from bitwright.workloads.layout import OUT_REGION, Bytes, Job, Layout
from bitwright.workloads.linear import F32, Operand, rows_of_operand
from bitwright.workloads.lowering import Lowered, choose_tiling, job_of, lower, program
from bitwright.workloads.quantise.prepared import rows_of

Progress = Callable[[str, int, int], None]
"""Called with a product's name, bytes that the board has answered for, and about how many there are in all."""


class Board(Protocol):
    """What runs a tile: `driver.Accelerator`."""

    @property
    def info(self) -> Info: ...

    def run(
        self, program: Sequence[Instruction], memory: Sequence[Bytes], *, max_cycles: int, outputs: Sequence[int],
        progress: LoadProgress | None,
    ) -> BoardRun: ...  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of a product that fits on the board: some tokens by some outputs, the whole reduction."""

    tokens: slice
    outputs: slice
    lowered: Lowered


@dataclass(frozen=True, eq=False)
class Product:
    """A product that a board has made.

    Members
        results : float32 [m, n]
        counters : of each tile's run, in order
        pass_depths : of the tiles (`Lowered.pass_depth`): `linear` has the bits of the results with that one
    """

    results: F32
    counters: tuple[Counters, ...]
    pass_depths: frozenset[int | None]

    @property
    def cycles(self) -> int:
        """Of all runs."""
        return sum(item.cycles for item in self.counters)


def multiply(
    board: Board, weights: Encoded, acts: Operand, limits: Limits, *, golden: bool = False, name: str = "product",
    progress: Progress | None = None,
) -> Product:  # fmt: skip
    """act[m, k] . wgt[n, k] on a board; limits are its machine's.

    golden : compare every output of each tile with the functional interpreter's, MismatchError with the first that is
    another. ConfigError: as of `lower`, and where the board's memory cannot hold one tile. MismatchError too where the
    board stops a program. BoardError as of the driver.
    """
    results = np.empty((len(acts.values), weights.shape[0]), np.float32)
    counters: list[Counters] = []
    depths = set()
    tokens, outputs = tile_sizes(job_of(weights, acts, limits), board.info.memory_bytes)
    count, before = -(-len(acts.values) // tokens) * -(-weights.shape[0] // outputs), 0

    def show(done: int, total: int) -> None:
        nonlocal before
        if progress is not None:
            progress(name, before + done, before + total * (count - len(counters)))
        before += total if done == total else 0

    for tile in tiles(weights, acts, limits, board.info.memory_bytes):
        lowered = tile.lowered
        found = [region.copy() for region in lowered.memory]
        where = f"{name}[{tile.tokens.start}:{tile.tokens.stop}, {tile.outputs.start}:{tile.outputs.stop}]"
        run = board.run(
            lowered.program, found, max_cycles=_most_cycles(lowered), outputs=[OUT_REGION], progress=show
        )  # fmt: skip
        if run.fault is not None:
            raise MismatchError(f"{where}: the board stops at instruction {run.index}: {run.fault.name}")
        part = lowered.layout.read(found[OUT_REGION])
        if golden:
            _compare(lowered, part, limits, where)
        results[tile.tokens, tile.outputs] = part
        counters.append(run.counters)
        depths.add(lowered.pass_depth)
    return Product(results, tuple(counters), frozenset(depths))


def tiles(weights: Encoded, acts: Operand, limits: Limits, memory_bytes: int) -> Iterator[Tile]:
    """A product cut so that each part, program and operands, fits in so many bytes."""
    tokens, outputs = tile_sizes(job_of(weights, acts, limits), memory_bytes)
    m, n = len(acts.values), weights.shape[0]
    for left in range(0, n, outputs):
        columns = slice(left, min(left + outputs, n))
        part = rows_of(weights, columns.start, columns.stop)
        for first in range(0, m, tokens):
            rows = slice(first, min(first + tokens, m))
            yield Tile(rows, columns, lower(part, rows_of_operand(acts, rows), limits))


@lru_cache(maxsize=1024)
def tile_sizes(job: Job, memory_bytes: int) -> tuple[int, int]:
    """Most tokens, then most outputs (whole columns of the array, or all), that fit. ConfigError when nothing does."""
    cols = job.limits.cols
    tokens = job.m
    while needed_bytes(_sized(job, tokens, min(cols, job.n))) > memory_bytes:
        if tokens == 1:
            least = needed_bytes(_sized(job, 1, min(cols, job.n)))
            raise ConfigError(
                f"memory = {memory_bytes} bytes: a token by {min(cols, job.n)} outputs with a reduction of "
                f"{job.k * job.values} takes {least} (a board with more memory, or narrower weights)"
            )
        tokens = -(-tokens // 2)
    fits, beyond = 1, -(-job.n // cols) + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if needed_bytes(_sized(job, tokens, min(middle * cols, job.n))) <= memory_bytes:
            fits = middle
        else:
            beyond = middle
    return tokens, min(fits * cols, job.n)


def _sized(job: Job, m: int, n: int) -> Job:
    return replace(job, m=m, n=n)


@lru_cache(maxsize=4096)
def needed_bytes(job: Job) -> int:
    """Of memory, for a job's program and regions."""
    layout = Layout(job, choose_tiling(job))
    words = sum(1 for _ in program(layout))
    return placed_bytes(words * WORD_BYTES, [beats * job.limits.port_bytes for beats in layout.region_beats])


def _most_cycles(lowered: Lowered) -> int:
    """A watchdog that no healthy run meets: a thousand cycles an instruction, and each element by itself."""
    job = lowered.layout.job
    return min(1 << 32, 1000 * len(lowered.program) + 16 * job.m * job.k * job.n + 100_000)


def _compare(lowered: Lowered, part: object, limits: Limits, where: str) -> None:
    expected = [region.copy() for region in lowered.memory]
    interpret(lowered.program, limits, expected)
    wanted, got = lowered.layout.read(expected[OUT_REGION]), np.asarray(part)
    wrong = np.argwhere(got.view(np.uint32) != wanted.view(np.uint32))
    if wrong.size:
        token, output = (int(index) for index in wrong[0])
        bits = [int(values[token, output].view(np.uint32)) for values in (got, wanted)]
        raise MismatchError(
            f"{where}: {len(wrong)} of {got.size} outputs differ from the interpreter's; the first is token {token}, "
            f"output {output}: {bits[0]:#010x} ({got[token, output]!r}), must be {bits[1]:#010x} "
            f"({wanted[token, output]!r})"
        )
