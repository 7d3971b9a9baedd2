"""Which blocks a matrix product is cut into, for every mapper: candidates, prediction, order.

Blocks of Mb x Kb x Nb live in the buffers; inside a block the array walks passes. A mapper takes the candidate with the
fewest predicted cycles (array plus first load, or memory plus last block), among nearly equal ones the one with the
fewest bytes moved, then the fewest blocks. The prediction bounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from bitwright.arch.array_timing import IDLE, ArrayState, PassRun, Shape, run_passes
from bitwright.arch.dram_port import DramPort

Span = tuple[int, int]  # (first, how many)
Passes = tuple[tuple[PassRun, ...], int, tuple[PassRun, ...], int]


@dataclass(frozen=True)
class Tiling:
    """Block sizes, and whether the weight block is the outer loop (else the activation block is)."""

    m: int
    k: int
    n: int
    weights_outer: bool


@dataclass(frozen=True)
class Fabric:
    """An array as a mapper sees it.

    Members
        shape : its timing
        cols : output channels of a pass; `shape` counts a constant-one column as well
        longest : steps that a PE sums before its accumulator must be taken away; None: any number
    """

    shape: Shape
    cols: int
    longest: int | None


class Blocks(Protocol):
    """One product act[m, k] . wgt[n, k] on one machine, as the choice of a tiling sees it.

    Members
        output_bits : of one result as it is stored
        sizes(m, k, n) : bytes of a block's operands and results: "act", "wgt" (with all metadata), "out"
        fits(m, k, n) : whether a block of this size finds room
        program_bytes(m, k, n) : of the instructions of a block, where they come through the same port
        k_spans(k) : the blocks of the reduction of this size
        block_cycles(m, k, n) : cycles from a block, beginning at a group boundary, to the next
    """

    @property
    def m(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def fabric(self) -> Fabric: ...
    @property
    def output_bits(self) -> int: ...
    def sizes(self, m: int, k: int, n: int) -> Mapping[str, int]: ...
    def fits(self, m: int, k: int, n: int) -> bool: ...
    def program_bytes(self, m: int, k: int, n: int) -> int: ...
    def k_spans(self, k: int) -> Sequence[Span]: ...
    def block_cycles(self, m: int, k: int, n: int) -> int: ...


def candidates(
    work: Blocks, m_sizes: Iterable[int], k_sizes: Sequence[int], *, every_n: bool = False
) -> Iterator[Tiling]:
    """Blocks that fit, of these sizes along m and k, in both orders.

    Of `n` the halvings down to the array's columns are tried: the first that fits beside an m and a k, or every one.
    """
    for m in m_sizes:
        for k in k_sizes:
            for n in halvings(work.n, work.fabric.cols):
                if work.fits(m, k, n):
                    yield Tiling(m, k, n, True)
                    yield Tiling(m, k, n, False)
                    if not every_n:
                        break


def halvings(size: int, unit: int) -> list[int]:
    """`size`, then ever smaller multiples of `unit`, down to one unit."""
    found = [size]
    pieces = 2
    while found[-1] > unit:
        smaller = -(-size // pieces)
        found.append(min(size, -(-smaller // unit) * unit))
        pieces *= 2
        if found[-1] == found[-2]:
            found.pop()
            if -(-size // pieces) <= unit:
                found.append(min(size, unit))
    return found


def predict(work: Blocks, port: DramPort, tiling: Tiling) -> tuple[int, int, int]:
    """What a tiling is judged by: cycles, bytes moved, number of blocks."""
    shape = work.fabric.shape
    blocks_m, blocks_k, blocks_n = -(-work.m // tiling.m), len(work.k_spans(tiling.k)), -(-work.n // tiling.n)
    blocks = blocks_m * blocks_k * blocks_n
    block = work.block_cycles(tiling.m, tiling.k, tiling.n)
    sizes = work.sizes(tiling.m, tiling.k, tiling.n)
    if tiling.weights_outer:
        wgt_loads = blocks_n * blocks_k * (1 if blocks_k == 1 else blocks_m)
        act_loads = blocks_m * blocks_k * (1 if blocks_m * blocks_k == 1 else blocks_n)
    else:
        act_loads = blocks_m * blocks_k * (1 if blocks_k == 1 else blocks_n)
        wgt_loads = blocks_n * blocks_k * (1 if blocks_n * blocks_k == 1 else blocks_m)
    moved = wgt_loads * sizes["wgt"] + act_loads * sizes["act"] + -(-work.m * work.n * work.output_bits // 8)
    moved += blocks * work.program_bytes(tiling.m, tiling.k, tiling.n)
    first_load = port.busy_cycles(sizes["wgt"] + sizes["act"])
    cycles = max(block * blocks + first_load, port.busy_cycles(moved) + block)
    if (
        blocks_m * blocks_n > 2
    ):  # an output slot is free again only when its last tenant is computed, drained and stored
        drain = shape.drain_cycles + port.busy_cycles(tiling.m * tiling.n * work.output_bits // 8)
        cycles = max(cycles, blocks_m * blocks_n * (blocks_k * block + drain) // 2)
    return cycles, moved, blocks


def spans(size: int, block: int) -> list[Span]:
    """0 .. size in blocks; the last may be short."""
    return [(start, min(block, size - start)) for start in range(0, size, block)]


def ordered_blocks(
    m_spans: Sequence[Span], k_spans: Sequence[Span], n_spans: Sequence[Span], weights_outer: bool
) -> list[tuple[Span, Span, Span]]:
    """(m, k, n) of every block in the order of the loops; the reduction is always the inner one."""
    if weights_outer:
        outer = [(ms, ns) for ns in n_spans for ms in m_spans]
    else:
        outer = [(ms, ns) for ms in m_spans for ns in n_spans]
    return [(ms, ks, ns) for ms, ns in outer for ks in k_spans]


def reduction_slices(k0: int, k: int, group: int | None, longest: int | None) -> list[int]:
    """Lengths of the passes that walk k0 .. k0+k, cut at every multiple of `group` and after `longest` steps."""
    lengths: list[int] = []
    position, end = k0, k0 + k
    while position < end:
        stop = end if group is None else min(end, (position // group + 1) * group)
        length = stop - position if longest is None else min(longest, stop - position)
        lengths.append(length)
        position += length
    return lengths


def _runs(m: int, lengths: list[int]) -> tuple[PassRun, ...]:
    runs: list[PassRun] = []
    for length in lengths:
        if runs and runs[-1].k == length:
            runs[-1] = PassRun(m, length, runs[-1].count + 1)
        else:
            runs.append(PassRun(m, length, 1))
    return tuple(runs)


def passes(fabric: Fabric, group: int | None, m: int, k0: int, k: int, n: int) -> Passes:
    """How the array walks one block: (pattern, times, tail pattern, tail times) of an Execute."""
    rows, limit = fabric.shape.rows, fabric.longest
    column_tiles = -(-n // fabric.cols)
    if fabric.shape.weight_stationary:
        lengths = reduction_slices(k0, k, group, rows if limit is None else min(rows, limit))
        return _runs(m, lengths), column_tiles, (), 0
    lengths = reduction_slices(k0, k, group, limit)
    full, ragged = divmod(m, rows)
    pattern = _runs(rows, lengths) if full else ()
    tail = _runs(ragged, lengths) if ragged else ()
    return pattern, full * column_tiles, tail, column_tiles if ragged else 0


@lru_cache(maxsize=8192)
def state_after(fabric: Fabric, group: int | None, m: int, k: int, n: int) -> ArrayState:
    """The array after one block that starts at a group boundary, its operands there from cycle 0."""
    pattern, times, tail, tail_times = passes(fabric, group, m, 0, k, n)
    state = IDLE
    for runs, repeat in ((pattern, times), (tail, tail_times)):
        if repeat:
            state = run_passes(fabric.shape, state, 0, runs, repeat).state
    return state
