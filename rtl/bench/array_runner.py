"""Runs tiles through an array's compiled Verilog: values and cycle numbers, without or with stalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch import pe as specs
from bitwright.arch.array_timing import ONE_ROW, WeightLoad
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.pe import PESpec
from bitwright.rtl.array import SystolicArray, array_verilog
from bitwright.rtl.bench.array_stalls import stream_with_stalls
from bitwright.rtl.bench.verilator import Captured, Compiled, Stream
from bitwright.rtl.bench.words import Words, pack_lanes, to_integers, unpack_lanes


@dataclass(frozen=True)
class PassEvents:
    """Cycle numbers of one tile; cycle 0 is the program's first accepted beat (the first tile's first weight row).

    first_wgt, last_wgt : the cycles in which the tile's first and last weight row are accepted.
    first_act, last_act : the same of its activation beats.
    first_out, last_out : the cycles in which its first and last result vector are valid.
    """

    first_wgt: int
    last_wgt: int
    first_act: int
    last_act: int
    first_out: int
    last_out: int


@dataclass(frozen=True)
class ArrayRun:
    """What a program did on the compiled array.

    outputs : one array [m, cols] a pass, int64 or float32 as the PE's psum.
    act_sums : one array [m] a pass from the zero-point column; None for a PE without one.
    cycles : from the first accepted beat to the last valid result, both included.
    events : one a pass.
    """

    outputs: list[npt.NDArray[Any]]
    act_sums: list[npt.NDArray[Any]] | None
    cycles: int
    events: list[PassEvents]


@lru_cache(maxsize=16)
def compiled_array(spec: PESpec, rows: int, cols: int, dataflow: str, load: WeightLoad = ONE_ROW) -> Compiled:
    """The array as a shared library; kept on disk by content, and in this process.

    Optimised with -O1: 16x16 int8 builds in a third of the time of -O2 and runs as fast.
    """
    array = SystolicArray(spec, rows, cols, dataflow, load=load)
    return Compiled(array_verilog(array), array.module_name, optimise="-O1")


def run_passes(
    pe: str | PESpec,
    rows: int,
    cols: int,
    dataflow: str,
    passes: Sequence[tuple[int, int]],
    wgt: Sequence[npt.NDArray[Any]],
    act: Sequence[npt.NDArray[Any]],
    *,
    stall_seed: int | None = None,
    wgt_unsigned: bool = False,
    power_up_seed: int = 1,
    load: WeightLoad = ONE_ROW,
) -> ArrayRun:
    """Run tiles back to back on the array's Verilog.

    Parameters
        pe, rows, cols, dataflow, load : as of `SystolicArray`.
        passes : (m, k) of each tile, within the limits of the dataflow.
        wgt, act : for each tile [k, cols] and [m, k]: float16 values for a float PE, else integers.
        stall_seed : None: no stream ever stalls. Else random stalls on all three streams from this seed, which keep
            the array's weight rule (`rtl.bench.array_stalls`); far slower, for tests.
        wgt_unsigned : the level of the pin of that name, where the array has it.
        power_up_seed : registers start random from this seed (1..2**31-1), then two reset cycles follow.
    Lanes without an operand (k < rows, m < rows) carry all ones, so that a missing mask shows.
    Raises ConfigError for shapes that do not fit, MismatchError when results are missing, too many, or wrongly marked.
    """
    spec = specs.get(pe) if isinstance(pe, str) else pe
    _check(rows, cols, dataflow, passes, wgt, act)
    design = compiled_array(spec, rows, cols, dataflow, load)
    program = streams(spec, rows, dataflow, passes, wgt, act, load.rows)
    idle = {"wgt_unsigned": int(wgt_unsigned)} if "wgt_unsigned" in design.inputs else {}
    if wgt_unsigned and not idle:
        raise ConfigError(f"wgt_unsigned: {design.top} has no such mode (only PEs whose weights are codes do)")
    expected = sum(m for m, _ in passes)
    beats = [(m, load.beats(k)) for m, k in passes]
    limit = 64 + 4 * (rows + cols) + sum(2 * m + k + 2 * rows for m, k in passes) * (1 if stall_seed is None else 12)
    with design.open(random_state=True, seed=power_up_seed) as simulation:
        simulation.reset()
        if stall_seed is None:
            seen = simulation.stream(program, capture="psum_valid", expected=expected, max_cycles=limit, idle=idle)
        else:
            seen = stream_with_stalls(simulation, program, dataflow, beats, stall_seed, expected, limit, idle)
        after = simulation.run(idle, 4 * rows + cols + 4)["psum_valid"]
    _check_results(design.top, passes, seen, int(after.sum()))
    return _result(spec, cols, dataflow, beats, seen, program)


def _check(
    rows: int,
    cols: int,
    dataflow: str,
    passes: Sequence[tuple[int, int]],
    wgt: Sequence[npt.NDArray[Any]],
    act: Sequence[npt.NDArray[Any]],
) -> None:
    if not len(passes) == len(wgt) == len(act) or not passes:
        raise ConfigError(f"passes, wgt, act = {len(passes)}, {len(wgt)}, {len(act)} tiles: must be equal and not 0")
    most_m, most_k = (65535, rows) if dataflow == "ws" else (rows, 65535)
    for index, (m, k) in enumerate(passes):
        if not (1 <= m <= most_m and 1 <= k <= most_k):
            raise ConfigError(f"passes[{index}] = (m {m}, k {k}): {dataflow} needs m in 1..{most_m}, k in 1..{most_k}")
        if wgt[index].shape != (k, cols) or act[index].shape != (m, k):
            raise ConfigError(
                f"passes[{index}] operands: wgt {wgt[index].shape}, act {act[index].shape}: "
                f"must be {(k, cols)}, {(m, k)}"
            )


def _codes(values: npt.NDArray[Any], spec_kind: str) -> npt.NDArray[Any]:
    """Operand values as integers: the bits of a float16, an integer as it is."""
    return np.ascontiguousarray(values, dtype=np.float16).view(np.uint16) if spec_kind == "float" else values


def _port_value(words: Words, bits: int) -> npt.NDArray[Any]:
    """Packed words as `Stream` wants them: integers for a port of at most 64 bits, else the words."""
    return words if bits > 64 else to_integers(words, bits)


def streams(
    spec: PESpec,
    rows: int,
    dataflow: str,
    passes: Sequence[tuple[int, int]],
    wgt: Sequence[npt.NDArray[Any]],
    act: Sequence[npt.NDArray[Any]],
    load_rows: int,
) -> tuple[Stream, Stream, Stream]:
    """The tile, wgt and act streams of a program."""
    wgt_rows = np.concatenate([_wide(_codes(tile, spec.wgt.kind), load_rows) for tile in wgt])
    beats = act if dataflow == "ws" else [tile.T for tile in act]
    act_rows = np.full((sum(len(tile) for tile in beats), rows), -1, dtype=np.int64)
    start = 0
    for tile in beats:
        act_rows[start : start + len(tile), : tile.shape[1]] = _codes(tile, spec.act.kind)
        start += len(tile)
    wgt_words = pack_lanes(wgt_rows, spec.wgt.bits)
    act_words = pack_lanes(act_rows, spec.act.bits)
    shape = np.asarray(passes, dtype=np.int64)
    return (
        Stream("tile_valid", "tile_ready", {"tile_m": shape[:, 0], "tile_k": shape[:, 1]}),
        Stream("wgt_valid", "wgt_ready", {"wgt_data": _port_value(wgt_words, wgt_rows.shape[1] * spec.wgt.bits)}),
        Stream("act_valid", "act_ready", {"act_data": _port_value(act_words, rows * spec.act.bits)}),
    )


def _wide(tile: npt.NDArray[Any], load_rows: int) -> npt.NDArray[Any]:
    """Rows [k, cols] as beats of `load_rows` of them; the rows that the last one lacks are all ones."""
    if load_rows == 1:
        return tile
    k, cols = tile.shape
    rows = np.full((-(-k // load_rows) * load_rows, cols), -1, dtype=np.int64)
    rows[:k] = tile
    return rows.reshape(-1, load_rows * cols)


def _check_results(top: str, passes: Sequence[tuple[int, int]], seen: Captured, extra: int) -> None:
    ends = np.cumsum([m for m, _ in passes])
    if len(seen.at) != ends[-1] or extra:
        raise MismatchError(
            f"{top}: {len(seen.at) + extra} result vectors in {seen.cycles} cycles, expected {ends[-1]}; "
            f"passes {list(passes)[:8]}{' ...' if len(passes) > 8 else ''}"
        )
    last = np.zeros(ends[-1], dtype=np.uint64)
    last[ends - 1] = 1
    wrong = np.flatnonzero(seen.outputs["psum_last"] != last)
    if wrong.size:
        raise MismatchError(
            f"{top}: psum_last = {1 - int(last[wrong[0]])} on result vector {wrong[0]}, expected {int(last[wrong[0]])}"
        )


def _result(
    spec: PESpec,
    cols: int,
    dataflow: str,
    passes: Sequence[tuple[int, int]],
    seen: Captured,
    streams: tuple[Stream, Stream, Stream],
) -> ArrayRun:
    _, wgt, act = streams
    bits = spec.psum.bits
    words = seen.outputs["psum_data"]
    if cols * bits <= 64:
        words = np.ascontiguousarray(words, dtype=np.uint64).view(np.uint32).reshape(-1, 2)
    values = _psum_values(unpack_lanes(words, bits, cols, signed=True), spec)
    results = np.asarray([m for m, _ in passes])
    depths = np.asarray([k for _, k in passes])
    split = np.cumsum(results)[:-1]
    origin = min(wgt.accepted_at[0], act.accepted_at[0])
    ends = [
        _first_and_last(wgt.accepted_at - origin, depths),
        _first_and_last(act.accepted_at - origin, results if dataflow == "ws" else depths),
        _first_and_last(seen.at - origin, results),
    ]
    events = [PassEvents(*map(int, numbers)) for numbers in np.concatenate(ends).T]
    sums = None
    if spec.zero_point_column:
        raw = pack_lanes(seen.outputs["act_sum"][:, None].astype(np.int64), bits)
        sums = list(np.split(_psum_values(unpack_lanes(raw, bits, 1, signed=True)[:, 0], spec), split))
    return ArrayRun(list(np.split(values, split)), sums, events[-1].last_out + 1, events)


def _first_and_last(cycles: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The first and last number [2, tiles] of each tile's share of `cycles`, `counts` numbers a tile."""
    end = np.cumsum(counts)
    return np.stack([cycles[end - counts], cycles[end - 1]])


def _psum_values(values: npt.NDArray[np.int64], spec: PESpec) -> npt.NDArray[Any]:
    """Integers as they are; the bits of a float32 as that float32."""
    return values if spec.psum.kind == "int" else values.astype(np.uint32).view(np.float32)
