"""Runs tiles through a broadcast tile's compiled Verilog: values and cycle numbers, without or with stalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from bitwright.arch.errors import MismatchError
from bitwright.arch.formats.scales import SCALE_BITS
from bitwright.arch.pe import PESpec, StreamSpec, broadcast
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.digits import PLACES
from bitwright.arch.pe.stream import row_flags
from bitwright.arch.pe.tile_family import Family
from bitwright.rtl.array.bit_serial_tile import PAR_BITS, tile_of
from bitwright.rtl.array.broadcast import tile_verilog
from bitwright.rtl.bench.array_stalls import stream_with_stalls
from bitwright.rtl.bench.verilator import Captured, Compiled, Stream
from bitwright.rtl.bench.words import Words, pack_lanes, to_integers, unpack_lanes


@dataclass(frozen=True)
class TileWork:
    """One tile: elements `act` [k, m] and `wgt` [k, cols] as codes, and the mode of its format.

    specials, par : of a `BitSerialTile` what these ports are driven with; par [cols].
    """

    act: IntArray
    wgt: IntArray
    mode: int
    specials: int = 0
    par: IntArray | None = None

    @property
    def m(self) -> int:
        """Tokens."""
        return self.act.shape[1]

    @property
    def k(self) -> int:
        """Elements of the reduction."""
        return len(self.act)


@dataclass(frozen=True)
class TileRun:
    """What became of one tile: `psum` [m, cols], `act_sum` [m] or None; the cycles, from the first cycle with a beat on
    offer, in which its beats were accepted (of both streams the same) and its vectors valid."""

    psum: IntArray
    act_sum: IntArray | None
    accepted: list[int]
    shown: list[int]


@lru_cache(maxsize=16)
def compiled_tile(spec: PESpec, rows: int, cols: int) -> Compiled:
    """The tile as a shared library; kept on disk by content, and in this process."""
    tile = tile_of(spec, rows, cols)
    return Compiled(tile_verilog(tile), tile.module_name, optimise="-O1")


def golden(spec: StreamSpec, work: TileWork) -> tuple[IntArray, IntArray | None]:
    """`psum` [m, cols] and `act_sum` [m] of a tile by the PE's golden, its steps filled with code 0."""
    tile = broadcast.family(spec)
    steps = -(-work.k // tile.lanes)
    act, wgt = (tile.whole_steps(item).reshape(steps, tile.lanes, -1).swapaxes(1, 2) for item in (work.act, work.wgt))
    mode = {} if tile.mode_field is None else {tile.mode_field.name: np.full(steps, work.mode, dtype=np.int64)}
    cols = work.wgt.shape[1]
    if tile.whole:
        rows = spec.params["m"]
        act = np.pad(act, ((0, 0), (0, rows - work.m), (0, 0)))
        found = spec.golden(act=act.reshape(steps, -1), wgt=wgt.reshape(steps, -1), **mode, **row_flags(1, steps))
        return found["psum"].reshape(rows, cols)[: work.m], found["act_sum"].reshape(-1)[: work.m]
    many = {name: np.tile(codes, work.m * cols) for name, codes in mode.items()}
    acts = np.repeat(act.transpose(1, 0, 2), cols, axis=0).reshape(-1, tile.lanes)
    wgts = np.tile(wgt.transpose(1, 0, 2), (work.m, 1, 1)).reshape(-1, tile.lanes)
    found = spec.golden(act=acts, wgt=wgts, **many, **row_flags(work.m * cols, steps))
    return found["psum"].reshape(work.m, cols), None


def run_tiles(
    spec: PESpec,
    rows: int,
    cols: int,
    works: Sequence[TileWork],
    *,
    stall_seed: int | None = None,
    power_up_seed: int = 1,
    noise_cycles: int = 0,
) -> list[TileRun]:
    """Run tiles back to back on the tile's Verilog.

    Parameters
        stall_seed : None: no stream ever stalls. Else random stalls on all three streams from this seed.
        power_up_seed : registers start random from this seed (1..2**31-1), then two reset cycles follow.
        noise_cycles : before those, so many cycles of random inputs.
    Lanes without an operand carry all ones, so that a missing mask shows. Raises MismatchError when results are
    missing, too many, or wrongly marked.
    """
    design = compiled_tile(spec, rows, cols)
    tile = broadcast.family(spec)
    program = streams(tile, rows, works)
    expected = sum(work.m for work in works)
    slowest = PLACES * tile.lanes - 1 if tile.skips else 0
    limit = 64 + sum((-(-work.k // tile.lanes) + 1) * (work.mode + 1 + slowest) + rows for work in works)
    noise = np.random.default_rng(power_up_seed).integers(0, 1 << 32, (noise_cycles, design.in_words), np.uint32)
    with design.open(random_state=True, seed=power_up_seed) as simulation:
        simulation.run_words(noise)
        simulation.reset()
        if stall_seed is None:
            seen = simulation.stream(program, capture="psum_valid", expected=expected, max_cycles=limit)
        else:
            shapes = [(work.m, work.k) for work in works]
            seen = stream_with_stalls(simulation, program, "os", shapes, stall_seed, expected, 12 * limit, {})
        extra = int(simulation.run({}, 2 * rows + 16)["psum_valid"].sum())
    _check(design.top, works, seen, extra)
    return _split(tile, cols, works, seen, program)


def streams(tile: Family, rows: int, works: Sequence[TileWork]) -> tuple[Stream, Stream, Stream]:
    """The tile, wgt and act streams of a program; a tile's beats of weights and of activations go together."""
    acts, wgts = [], []
    for work in works:
        short = -work.k % tile.lanes
        act = np.full((work.k + short, rows), -1, dtype=np.int64)
        act[: work.k, : work.m] = work.act
        acts.append(act.reshape(-1, tile.lanes * rows))
        wgt = np.pad(work.wgt, ((0, short), (0, 0)), constant_values=-1)
        wgts.append(wgt.reshape(-1, tile.lanes * wgt.shape[1]))
    act_bits, wgt_bits = tile.spec.act.bits, tile.code_bits
    command = {"tile_m": np.array([work.m for work in works]), "tile_k": np.array([work.k for work in works])}
    if tile.mode_field is not None:
        command[tile.mode_field.name] = np.array([work.mode for work in works])
    data = [(np.concatenate(beats), bits) for beats, bits in ((wgts, wgt_bits), (acts, act_bits))]
    ports = [_port(pack_lanes(beats, bits), beats.shape[1] * bits) for beats, bits in data]
    weights = {"wgt_data": ports[0]}
    if tile.scales_inside:
        command["specials"] = np.array([work.specials for work in works])
        weights["par_data"] = _entries(tile, works)
    return (
        Stream("tile_valid", "tile_ready", command),
        Stream("wgt_valid", "wgt_ready", weights),
        Stream("act_valid", "act_ready", {"act_data": ports[1]}),
    )


def _entries(tile: Family, works: Sequence[TileWork]) -> IntArray | Words:
    """Scales and selectors with every beat of weights; the scale is that only with a tile's last beat."""
    rows = []
    for work in works:
        assert work.par is not None, "each column has an entry"
        beats = np.tile(work.par, (-(-work.k // tile.lanes), 1))
        beats[:-1] ^= (1 << SCALE_BITS["int8"]) - 1
        rows.append(beats)
    return _port(pack_lanes(np.concatenate(rows), PAR_BITS), rows[0].shape[1] * PAR_BITS)


def _port(words: Words, bits: int) -> IntArray | Words:
    """Packed words as `Stream` wants them: integers for a port of at most 64 bits."""
    return words if bits > 64 else to_integers(words, bits).astype(np.uint64).view(np.int64)


def _check(top: str, works: Sequence[TileWork], seen: Captured, extra: int) -> None:
    ends = np.cumsum([work.m for work in works])
    if len(seen.at) != ends[-1] or extra:
        raise MismatchError(f"{top}: {len(seen.at) + extra} result vectors, expected {ends[-1]}")
    last = np.zeros(ends[-1], dtype=np.uint64)
    last[ends - 1] = 1
    wrong = np.flatnonzero(seen.outputs["psum_last"] != last)
    if wrong.size:
        raise MismatchError(f"{top}: psum_last is wrong on result vector {wrong[0]}")


def _split(
    tile: Family, cols: int, works: Sequence[TileWork], seen: Captured, streams: tuple[Stream, Stream, Stream]
) -> list[TileRun]:
    bits = tile.psum_bits

    def lanes(name: str, count: int) -> IntArray:
        words = seen.outputs[name]
        if count * bits <= 64:
            words = np.ascontiguousarray(words, dtype=np.uint64).view(np.uint32).reshape(-1, 2)
        return unpack_lanes(words, bits, count, signed=True)

    _, wgt, act = streams
    if not np.array_equal(wgt.accepted_at, act.accepted_at):
        raise MismatchError(f"{tile.spec.name}: weights and activations of a step were not accepted together")
    psums, act_sums = lanes("psum_data", cols), lanes("act_sum", 1)[:, 0] if tile.has_act_sum else None
    found, out, beat = [], 0, 0
    for work in works:
        rows, steps = slice(out, out + work.m), slice(beat, beat - (-work.k // tile.lanes))
        accepted, shown = wgt.accepted_at[steps].tolist(), seen.at[rows].tolist()
        found.append(TileRun(psums[rows], None if act_sums is None else act_sums[rows], accepted, shown))
        out, beat = rows.stop, steps.stop
    return found
