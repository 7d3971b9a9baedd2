"""How often each part of a machine works while it runs a program: exact counts, no energy.

Words are one array edge wide: an activation word feeds all rows, a weight word all columns, an output word holds one
sum a column. Padding is charged: a pass that uses fewer columns than there are still clocks valid activations
through all of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

from bitwright.arch.array_timing import PassRun
from bitwright.arch.program import Program

Segments = tuple[tuple[tuple[PassRun, ...], int], ...]


@dataclass(frozen=True)
class Activity:
    """Counts of one program; all are events.

    active_cell_cycles   cell x cycle with a valid activation (padding columns included)
    act_words, wgt_words reads of the activation and weight buffer
    out_reads, out_writes  of the output buffer
    group_results        sums that leave a group for the dequantiser (per output)
    partial_sums         sums added to an unfinished group in the output buffer (per output)
    border_weights       weights that pass the array border (and its decoder)
    """

    active_cell_cycles: int = 0
    act_words: int = 0
    wgt_words: int = 0
    out_reads: int = 0
    out_writes: int = 0
    group_results: int = 0
    partial_sums: int = 0
    border_weights: int = 0

    def __add__(self, other: Activity) -> Activity:
        return Activity(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, count: int) -> Activity:
        """`count` repetitions."""
        return Activity(*(getattr(self, f.name) * count for f in fields(self)))


def count(program: Program, weight_stationary: bool, cols: int, physical_cols: int, group: int | None) -> Activity:
    """Count everything that `program` makes happen on an array of `cols` columns (`physical_cols` cells a row)."""
    alike: Counter[tuple[int, int, Segments]] = Counter(
        (execute.k0, execute.n, tuple(execute.segments())) for execute in program.executes
    )
    total = Activity()
    for (k0, n, segments), blocks in alike.items():
        tiles = -(-n // cols)
        for pattern, times in segments:
            ended = _groups_ended(k0, pattern, program.k, group)
            one = _segment(pattern, times, times // tiles, k0 > 0, n, ended, weight_stationary, physical_cols)
            total += one.times(blocks)
    return total


def _segment(
    pattern: tuple[PassRun, ...],
    times: int,
    row_tiles: int,
    revisits_outputs: bool,
    n: int,
    groups_ended: int,
    weight_stationary: bool,
    physical_cols: int,
) -> Activity:
    passes = sum(run.count for run in pattern)
    steps = sum(run.k * run.count for run in pattern)
    rows = pattern[0].m
    outputs = rows * n * row_tiles
    return Activity(
        active_cell_cycles=rows * steps * physical_cols * times,
        act_words=(rows * passes if weight_stationary else steps) * times,
        wgt_words=steps * times,
        out_reads=rows * (passes if revisits_outputs else passes - 1) * times,
        out_writes=rows * passes * times,
        group_results=outputs * groups_ended,
        partial_sums=outputs * (passes - groups_ended),
        border_weights=steps * n * row_tiles,
    )


def _groups_ended(k0: int, pattern: tuple[PassRun, ...], reduction: int, group: int | None) -> int:
    """Passes of the pattern after which a scaled group is complete."""
    ended, position = 0, k0
    for run in pattern:
        for _ in range(run.count):
            position += run.k
            ended += position == reduction or (group is not None and position % group == 0)
    return ended
