"""SCALE-Sim's stall-free cycle count of a GEMM in closed form, and our array's beside it.

With an array of R rows and C columns, a fold is one array-full of the operand that stays:

    weight-stationary   ceil(K/R) ceil(N/C) (2R + C + M - 2) - 1
    output-stationary   ceil(M/R) ceil(N/C) (K + R + C - 2) - 1
    input-stationary    ceil(K/R) ceil(M/C) (2R + C + N - 2) - 1

Source: scalesim 3.0.0 measured (peers.md, finding 1); its own runs on random GEMMs agree, see
tests/reports/papers/test_scale_sim.py. Not modelled: memory (its default is stall-free; ours has every operand there).
Ours is `arch.array_timing`, exact against the RTL of the array; our array has no input-stationary dataflow, which is
the weight-stationary one of the transposed product.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bitwright.arch import array_timing
from bitwright.arch.array_timing import ArrayShape, PassRun
from bitwright.arch.errors import ConfigError, shown, suggest
from bitwright.reports.papers import SCHEMA_VERSION, percent


class Dataflow(StrEnum):
    """What stays in the array."""

    WEIGHT = "ws"
    OUTPUT = "os"
    INPUT = "is"


@dataclass(frozen=True)
class Product:
    """out[m, n] = act[m, k] . wgt[k, n] on an array of rows x cols."""

    m: int
    k: int
    n: int
    rows: int
    cols: int
    dataflow: Dataflow


def product(gemm: str, rows: int, cols: int, dataflow: str) -> Product:
    """The product `gemm` ("M,K,N") on an array; ConfigError for text that is no such thing and for sizes below 1."""
    try:
        m, k, n = (int(part) for part in gemm.split(","))
    except ValueError:
        raise ConfigError(
            f"gemm = {shown(gemm)}: must be three whole numbers M,K,N such as 128,4096,4096; the command line"
        ) from None
    for name, value in (("gemm.M", m), ("gemm.K", k), ("gemm.N", n), ("rows", rows), ("cols", cols)):
        if value < 1:
            raise ConfigError(f"{name} = {value}: must be at least 1; the command line")
    if dataflow not in set(Dataflow):
        raise ConfigError(f"dataflow = {dataflow!r}: unknown; {suggest(dataflow, list(Dataflow))}; the command line")
    return Product(m, k, n, rows, cols, Dataflow(dataflow))


def cycles(work: Product) -> int:
    """SCALE-Sim's count."""
    r, c = work.rows, work.cols
    if work.dataflow is Dataflow.OUTPUT:
        return -(-work.m // r) * -(-work.n // c) * (work.k + r + c - 2) - 1
    stays, streams = (work.n, work.m) if work.dataflow is Dataflow.WEIGHT else (work.m, work.n)
    return -(-work.k // r) * -(-stays // c) * (2 * r + c + streams - 2) - 1


def _folds(work: Product) -> tuple[ArrayShape, list[PassRun], int]:
    """Our array, the folds of one block of columns as runs of equal passes, and how many blocks there are."""
    shape = ArrayShape(work.rows, work.cols, work.dataflow is not Dataflow.OUTPUT)
    if work.dataflow is Dataflow.OUTPUT:
        full, ragged = divmod(work.m, work.rows)
        runs = [PassRun(work.rows, work.k, full), PassRun(ragged, work.k, 1)]
        stays = work.n
    else:
        stays, streams = (work.n, work.m) if work.dataflow is Dataflow.WEIGHT else (work.m, work.n)
        full, ragged = divmod(work.k, work.rows)
        runs = [PassRun(streams, work.rows, full), PassRun(streams, ragged, 1)]
    return shape, [run for run, there in zip(runs, (full, ragged), strict=True) if there], -(-stays // work.cols)


def our_cycles(work: Product) -> int:
    """Of our array, folds back to back, every operand there: from the first operand taken to the last result."""
    shape, runs, times = _folds(work)
    timing = array_timing.run_passes(shape, array_timing.IDLE, 0, runs, times)
    return timing.finish - timing.first + 1


def our_cycles_fold_by_fold(work: Product) -> int:
    """Of our array when every fold waits until the one before has left."""
    shape, runs, times = _folds(work)
    return times * sum(run.count * array_timing.cycles(shape, [array_timing.Pass(run.m, run.k)]) for run in runs)


_ALONE = {
    True: "our array takes the first activation a cycle after the first weight row: M + R + C cycles a fold",
    False: "a fold of m rows takes K + 2 m + C - 2 cycles: our results leave row by row; edge folds pay for their rows",
}


def answer(gemm: str, rows: int, cols: int, dataflow: str) -> dict[str, Any]:
    """SCALE-Sim's cycles and ours, with the steps from one to the other; each step's cycles add to the one before."""
    work = product(gemm, rows, cols, dataflow)
    theirs, alone, ours = cycles(work), our_cycles_fold_by_fold(work), our_cycles(work)
    macs = work.m * work.k * work.n
    stationary = work.dataflow is not Dataflow.OUTPUT
    steps = [
        ("as published", theirs, "SCALE-Sim's count"),
        ("last cycle counted", theirs + 1, "it reports the number of the last cycle, counted from 0"),
        ("our array, fold by fold", alone, _ALONE[stationary]),
        (
            "folds overlap",
            ours,
            "the next fold's operands enter while results of the one before leave",
        ),
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": "scale-sim",
        "gemm": [work.m, work.k, work.n],
        "rows": work.rows,
        "cols": work.cols,
        "dataflow": work.dataflow.value,
        "cycles": theirs,
        "ours": {"cycles": ours},
        "ideal_cycles": -(-macs // (work.rows * work.cols)),
        "utilisation": macs / (work.rows * work.cols * theirs) if theirs else None,
        "differences": [
            {
                "name": name,
                "cycles": count,
                "change_cycles": count - (steps[index - 1][1] if index else count),
                "cycles_percent": percent(count, theirs) if theirs else None,
                "text": text,
            }
            for index, (name, count, text) in enumerate(steps)
        ],
        "notes": [
            "neither has memory in it: operands are always there",
            *(
                ["ours is the weight-stationary array on the transposed product"]
                if work.dataflow is Dataflow.INPUT
                else []
            ),
        ],
    }
