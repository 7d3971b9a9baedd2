"""From one matrix product to a program: tile sizes, loop order, and the three instruction queues.

Blocks of Mb x Kb x Nb live in the buffers; inside a block the array walks passes. The mapper enumerates block sizes
and both outer loop orders and keeps the one with the fewest predicted cycles (array plus first load, or DRAM plus last
block), among nearly equal ones the fewest DRAM bytes. The prediction bounds nothing: the engine decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from bitwright.arch import pe
from bitwright.arch.array_timing import IDLE, ArrayShape, PassRun, run_passes
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Dataflow, Machine
from bitwright.arch.program import Execute, Load, Program, Store, Token
from bitwright.workloads.operators import Gemm

OUTPUT_BYTES = 4  # a sum in the output buffer: int32 or float32


@dataclass(frozen=True)
class Tiling:
    """Block sizes, and whether the weight block is the outer loop (else the activation block is)."""

    m: int
    k: int
    n: int
    weights_outer: bool


def array_shape(machine: Machine) -> ArrayShape:
    """What the timing contract needs of a machine."""
    stationary = machine.array.dataflow is Dataflow.WEIGHT_STATIONARY
    return ArrayShape(machine.array.rows, machine.physical_cols, stationary)


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


def longest_reduction(machine: Machine) -> int | None:
    """Steps that the PE can sum before its accumulator must be taken away (None: any length that fits memory)."""
    return pe.get(machine.pe).params.get("group")


def block_passes(
    machine: Machine, group: int | None, m: int, k0: int, k: int, n: int
) -> tuple[tuple[PassRun, ...], int, tuple[PassRun, ...], int]:
    """How the array walks one block: (pattern, times, tail pattern, tail times) of an Execute."""
    rows, cols = machine.array.rows, machine.array.cols
    column_tiles = -(-n // cols)
    limit = longest_reduction(machine)
    if machine.array.dataflow is Dataflow.WEIGHT_STATIONARY:
        lengths = reduction_slices(k0, k, group, rows if limit is None else min(rows, limit))
        return _runs(m, lengths), column_tiles, (), 0
    lengths = reduction_slices(k0, k, group, limit)
    full, ragged = divmod(m, rows)
    pattern = _runs(rows, lengths) if full else ()
    tail = _runs(ragged, lengths) if ragged else ()
    return pattern, full * column_tiles, tail, column_tiles if ragged else 0


def compile_gemm(machine: Machine, gemm: Gemm, port: DramPort) -> Program:
    """The program of `gemm` on `machine` under the best tiling found.

    Raises ConfigError when a buffer cannot hold one tile, or the PE refuses the format.
    """
    return emit(machine, gemm, choose_tiling(machine, gemm, port))


@lru_cache(maxsize=4096)
def choose_tiling(machine: Machine, gemm: Gemm, port: DramPort) -> Tiling:
    """The tiling with the fewest predicted cycles, then the fewest DRAM bytes.

    Raises ConfigError when a buffer cannot hold one tile, or the PE refuses the format.
    """
    check_one_tile(machine, gemm)
    best: tuple[tuple[int, int, int], Tiling] | None = None
    for tiling in _candidates(machine, gemm):
        score = _predict(machine, gemm, port, tiling)
        if best is None or score < best[0]:
            best = (score, tiling)
    assert best is not None, "a machine that holds one tile has a tiling"
    return best[1]


def _candidates(machine: Machine, gemm: Gemm) -> Iterator[Tiling]:
    unit_k = gemm.group if gemm.group is not None else machine.array.rows
    unit_m = machine.array.rows if machine.array.dataflow is Dataflow.OUTPUT_STATIONARY else 1
    for m in _halvings(gemm.m, unit_m):
        for k in _halvings(gemm.k, unit_k):
            for n in _halvings(gemm.n, machine.array.cols):
                if _fits(machine, gemm, m, k, n):
                    yield Tiling(m, k, n, True)
                    yield Tiling(m, k, n, False)
                    break


def _halvings(size: int, unit: int) -> list[int]:
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


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def act_bits(machine: Machine) -> int:
    """Bits of one activation of the machine's PE."""
    return pe.get(machine.pe).act.bits


def _sizes(machine: Machine, gemm: Gemm, m: int, k: int, n: int) -> dict[str, int]:
    """Bytes of one block in each buffer."""
    return {
        "act": _bytes(m * k * act_bits(machine)),
        "wgt": _bytes(gemm.weight_bits(n, k)),
        "out": m * n * OUTPUT_BYTES,
    }


def _fits(machine: Machine, gemm: Gemm, m: int, k: int, n: int) -> bool:
    sizes = _sizes(machine, gemm, m, k, n)
    return all(size <= machine.buffers.slot_bytes(tensor) for tensor, size in sizes.items())


def check_one_tile(machine: Machine, gemm: Gemm) -> None:
    """Refuse a machine whose PE or buffers cannot run even one tile of `gemm`. Raises ConfigError."""
    _check_format(machine, gemm)
    unit_k = gemm.group if gemm.group is not None else machine.array.rows
    unit_m = machine.array.rows if machine.array.dataflow is Dataflow.OUTPUT_STATIONARY else 1
    m, k, n = min(unit_m, gemm.m), min(unit_k, gemm.k), min(machine.array.cols, gemm.n)
    for tensor, size in _sizes(machine, gemm, m, k, n).items():
        slot = machine.buffers.slot_bytes(tensor)
        if size > slot:
            raise ConfigError(
                f"buffers.{tensor}_kib = {machine.buffers.capacity_bytes(tensor) / 1024:g}: one tile of '{gemm.name}' "
                f"({m} x {k} x {n}) needs {size} bytes and a slot (half the buffer) holds {slot}; "
                f"make it at least {-(-2 * size // 1024)} KiB; machine {machine.name}"
            )


@lru_cache(maxsize=8192)
def _block_cycles(machine: Machine, group: int | None, m: int, k: int, n: int) -> int:
    """Cycles the array takes operands for one block that starts at a group boundary."""
    shape = array_shape(machine)
    pattern, times, tail, tail_times = block_passes(machine, group, m, 0, k, n)
    state = IDLE
    for runs, repeat in ((pattern, times), (tail, tail_times)):
        if repeat:
            state = run_passes(shape, state, 0, runs, repeat).state
    return state.stream_free


def _predict(machine: Machine, gemm: Gemm, port: DramPort, tiling: Tiling) -> tuple[int, int, int]:
    """What a tiling is judged by, in this order: cycles (to 2 % of the ideal), bytes moved, number of blocks."""
    blocks_m, blocks_k, blocks_n = -(-gemm.m // tiling.m), -(-gemm.k // tiling.k), -(-gemm.n // tiling.n)
    blocks = blocks_m * blocks_k * blocks_n
    block = _block_cycles(machine, gemm.group, tiling.m, tiling.k, tiling.n)
    sizes = _sizes(machine, gemm, tiling.m, tiling.k, tiling.n)
    if tiling.weights_outer:
        wgt_loads = blocks_n * blocks_k * (1 if blocks_k == 1 else blocks_m)
        act_loads = blocks_m * blocks_k * (1 if blocks_m * blocks_k == 1 else blocks_n)
    else:
        act_loads = blocks_m * blocks_k * (1 if blocks_k == 1 else blocks_n)
        wgt_loads = blocks_n * blocks_k * (1 if blocks_n * blocks_k == 1 else blocks_m)
    moved = wgt_loads * sizes["wgt"] + act_loads * sizes["act"] + _bytes(gemm.m * gemm.n * act_bits(machine))
    first_load = port.busy_cycles(sizes["wgt"] + sizes["act"])
    cycles = max(block * blocks + first_load, port.busy_cycles(moved) + block)
    if (
        blocks_m * blocks_n > 2
    ):  # an output slot is free again only when its last tenant is computed, drained and stored
        drain = (
            machine.array.rows + machine.physical_cols + port.busy_cycles(tiling.m * tiling.n * act_bits(machine) // 8)
        )
        cycles = max(cycles, blocks_m * blocks_n * (blocks_k * block + drain) // 2)
    step = max(1, gemm.m * gemm.k * gemm.n // (50 * machine.array.rows * machine.array.cols))
    return cycles // step, moved, blocks


def _spans(size: int, block: int) -> list[tuple[int, int]]:
    return [(start, min(block, size - start)) for start in range(0, size, block)]


def emit(machine: Machine, gemm: Gemm, tiling: Tiling) -> Program:
    """The program of `gemm` under `tiling`.

    An operand block stays in its slot while consecutive executes use it and is loaded again otherwise. Outputs stay
    in their slot over the whole reduction.
    """
    m_spans, n_spans = _spans(gemm.m, tiling.m), _spans(gemm.n, tiling.n)
    k_spans = _spans(gemm.k, tiling.k)
    if tiling.weights_outer:
        outer = [(ms, ns) for ns in n_spans for ms in m_spans]
    else:
        outer = [(ms, ns) for ms in m_spans for ns in n_spans]
    blocks = [(ms, ks, ns) for ms, ns in outer for ks in k_spans]
    loads: list[Load] = []
    executes: list[Execute] = []
    stores: list[Store] = []
    value_bits = act_bits(machine)
    weight_bytes = cache(lambda n, k: _bytes(gemm.weight_bits(n, k)))
    passes = cache(lambda m, k0, k, n: block_passes(machine, gemm.group, m, k0, k, n))
    for index, ((m0, m), (k0, k), (n0, n)) in enumerate(blocks):
        before = blocks[index - 1] if index else None
        after = blocks[index + 1] if index + 1 < len(blocks) else None
        waits, signals = [], []
        for tensor, free, ready, pick in (
            ("wgt", Token.WGT_FREE, Token.WGT_READY, (1, 2)),
            ("act", Token.ACT_FREE, Token.ACT_READY, (0, 1)),
        ):
            here = tuple(blocks[index][axis] for axis in pick)
            if before is None or here != tuple(before[axis] for axis in pick):
                size = weight_bytes(n, k) if tensor == "wgt" else _bytes(m * k * value_bits)
                loads.append(Load(tensor, size, (free,), (ready,)))
                waits.append(ready)
            if after is None or here != tuple(after[axis] for axis in pick):
                signals.append(free)
        if k0 == 0:
            waits.append(Token.OUT_FREE)
        if k0 + k == gemm.k:
            signals.append(Token.OUT_READY)
            stores.append(Store(_bytes(m * n * value_bits), (Token.OUT_READY,), (Token.OUT_FREE,)))
        walk = passes(m, k0 % (gemm.group or 1), k, n)  # only the place within a group matters
        executes.append(Execute(m0, k0, n0, m, k, n, *walk, tuple(waits), tuple(signals)))
    return Program(gemm.m, gemm.k, gemm.n, tuple(loads), tuple(executes), tuple(stores))


def _check_format(machine: Machine, gemm: Gemm) -> None:
    spec = pe.get(machine.pe)
    # The KV cache has one scale a row; a longer reduction than the PE sums is cut into passes added as integers.
    group = longest_reduction(machine) if gemm.kind == "attention" else gemm.group
    acceptance = spec.accepts(gemm.weight_format, group)
    if acceptance.kind == "refused":
        raise ConfigError(
            f"weights = {gemm.weight_format}: PE {spec.name} cannot take it ({acceptance.reason}); "
            f"machine {machine.name}, operator {gemm.name}"
        )
