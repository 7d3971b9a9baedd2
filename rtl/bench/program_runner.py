"""Runs a program's executes on the array's compiled Verilog: the same object that the simulator runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.array_timing import ONE_ROW, WeightLoad
from bitwright.arch.pe import PESpec
from bitwright.arch.program import Program, Tile
from bitwright.rtl.bench.array_runner import ArrayRun, run_passes


@dataclass(frozen=True)
class ProgramRun:
    """The tiles of a program, the array's answer to each, and the cycles of them all."""

    tiles: list[Tile]
    run: ArrayRun

    @property
    def cycles(self) -> int:
        """From the first operand taken to the last sum valid."""
        return self.run.cycles

    def sums(self, m: int, n: int, cuts: list[int]) -> npt.NDArray[Any]:
        """Sums [pieces, m, n] of the reduction pieces that end at `cuts`, added up over the passes of each piece.

        Integer PEs: int64, exact. Float PEs: float32, each pass added to the last in order, as the column edge does.
        """
        first = self.run.outputs[0]
        total = np.zeros((len(cuts), m, n), dtype=first.dtype)
        for tile, output in zip(self.tiles, self.run.outputs, strict=True):
            piece = next(index for index, cut in enumerate(cuts) if tile.k0 + tile.k <= cut)
            total[piece, tile.m0 : tile.m0 + tile.m, tile.n0 : tile.n0 + tile.n] += output[:, : tile.n]
        return total


def run_program(
    spec: PESpec,
    rows: int,
    cols: int,
    dataflow: str,
    program: Program,
    act: npt.NDArray[Any],
    wgt: npt.NDArray[Any],
    *,
    wgt_unsigned: bool = False,
    load: WeightLoad = ONE_ROW,
) -> ProgramRun:
    """Run every execute of `program` back to back, operands always there.

    act : [m, k] and wgt : [n, k] as of `run_passes`. Columns beyond n carry zero weights. Raises as `run_passes`.
    """
    tiles = [tile for execute in program.executes for tile in execute.tiles(cols)]
    weights, activations = [], []
    for tile in tiles:
        piece = np.zeros((tile.k, cols), dtype=wgt.dtype)
        piece[:, : tile.n] = wgt[tile.n0 : tile.n0 + tile.n, tile.k0 : tile.k0 + tile.k].T
        weights.append(piece)
        activations.append(act[tile.m0 : tile.m0 + tile.m, tile.k0 : tile.k0 + tile.k])
    passes = [(tile.m, tile.k) for tile in tiles]
    return ProgramRun(
        tiles,
        run_passes(spec, rows, cols, dataflow, passes, weights, activations, wgt_unsigned=wgt_unsigned, load=load),
    )
