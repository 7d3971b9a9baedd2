"""From one matrix product to a program: tile sizes, loop order, and the three instruction queues.

`tiling` enumerates block sizes and both outer loop orders and predicts; the prediction bounds nothing: the engine
decides.

Where operands lie in memory (it matters on machines with `dram_timing: banks`): the stationary operand (weights, or a
sequence's and head's KV cache), then the activations, then the outputs, each from a row boundary of all banks of all
channels on. A tensor lies in blocks as its program moves them, in the order of their first use, so that a transfer is
one run of addresses; a block starts at the first channel, and one loaded again is read from the same place. Layers
follow each other at row boundaries, so where a layer lies changes no time and every program counts addresses from 0.
Not modelled: rearranging activations or the cache between two operators that cut them differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import compress, pairwise

from bitwright.arch import dram, formats
from bitwright.arch.array_timing import ArrayShape, BroadcastShape, Shape
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Dataflow, DramTiming, Machine
from bitwright.arch.program import Execute, Load, Program, Store, Token
from bitwright.workloads.operators import Gemm
from bitwright.workloads.tiling import (
    Fabric,
    Passes,
    Span,
    Tiling,
    candidates,
    halvings,
    ordered_blocks,
    passes,
    predict,
    spans,
    state_after,
)

OUTPUT_BYTES = 4  # a sum in the output buffer: int32 or float32


@lru_cache(maxsize=256)
def array_shape(machine: Machine, weight_format: str) -> Shape:
    """What the timing contract needs of a machine; a broadcast tile's steps take as long as the weights' format says.

    k counts values: of a tile whose elements hold several, `lanes` is values a step.
    """
    tile = machine.tile
    if tile is not None:
        shape = tile.shape(machine.array.rows, weight_format)
        return replace(shape, lanes=shape.lanes * tile.values(weight_format))
    stationary = machine.array.dataflow is Dataflow.WEIGHT_STATIONARY
    return ArrayShape(machine.array.rows, machine.physical_cols, stationary, machine.array.load)


def longest_reduction(machine: Machine, weight_format: str) -> int | None:
    """Values that the PE can sum before its accumulator must be taken away (None: any length that fits memory)."""
    tile = machine.tile
    if tile is None:
        return machine.spec.params.get("group")
    return None if tile.longest_elements is None else tile.longest_elements * tile.values(weight_format)


def fabric(machine: Machine, weight_format: str) -> Fabric:
    """The array of `machine`."""
    return Fabric(array_shape(machine, weight_format), machine.array.cols, longest_reduction(machine, weight_format))


def block_passes(machine: Machine, gemm: Gemm, m: int, k0: int, k: int, n: int) -> Passes:
    """How the array walks one block: (pattern, times, tail pattern, tail times) of an Execute."""
    return passes(fabric(machine, gemm.weight_format), gemm.group, m, k0, k, n)


def compile_gemm(machine: Machine, gemm: Gemm, port: DramPort) -> Program:
    """The program of `gemm` on `machine` under the best tiling found.

    Raises ConfigError when a buffer cannot hold one tile, or the PE refuses the format.
    """
    return emit(machine, gemm, choose_tiling(machine, gemm, port))


class _Region:
    """One tensor's blocks in memory, each from a multiple of `step` bytes on."""

    def __init__(self, step: int) -> None:
        self._places: dict[object, tuple[int, int]] = {}
        self._step, self.end = step, 0

    def place(self, block: object, size_bytes: int) -> tuple[int, int]:
        """(its size, its first byte)."""
        placed = self._places.get(block)
        if placed is None:
            placed = self._places[block] = size_bytes, self.end
            self.end += -(-size_bytes // self._step) * self._step
        return placed


def _steps(machine: Machine) -> tuple[int, int]:
    """Bytes of (a block's alignment, a tensor's)."""
    if machine.dram_timing is DramTiming.BANDWIDTH:
        return 1, 1
    memory = dram.load(machine.dram)
    device = memory.device
    rows = memory.channels * device.bank_groups * device.banks_per_group * device.page_bytes
    return memory.channels * memory.interleave_bytes, rows


@lru_cache(maxsize=4096)
def choose_tiling(machine: Machine, gemm: Gemm, port: DramPort) -> Tiling:
    """The tiling with the fewest predicted cycles, then the fewest DRAM bytes.

    Raises ConfigError when a buffer cannot hold one tile, or the PE refuses the format.
    """
    check_one_tile(machine, gemm)
    unit_k = _unit_k(machine, gemm)
    work = _MachineBlocks(machine, gemm, fabric(machine, gemm.weight_format), act_bits(machine, gemm.weight_format))
    step = max(1, gemm.m * gemm.k * gemm.n // (50 * machine.array.rows * machine.array.cols))  # 2 % of the ideal

    def score(tiling: Tiling) -> tuple[int, int, int]:
        cycles, moved, blocks = predict(work, port, tiling)
        return cycles // step, moved, blocks

    best = min(candidates(work, halvings(gemm.m, _unit_m(machine)), halvings(gemm.k, unit_k)), key=score, default=None)
    assert best is not None, "a machine that holds one tile has a tiling"
    return best


def _unit_k(machine: Machine, gemm: Gemm) -> int:
    """Values of the reduction in the smallest block: a group, else the rows of an array or one step of a tile."""
    if gemm.group is not None:
        return gemm.group
    shape = array_shape(machine, gemm.weight_format)
    return shape.lanes if isinstance(shape, BroadcastShape) else shape.rows


def _unit_m(machine: Machine) -> int:
    """Tokens of the smallest block."""
    return machine.array.rows if machine.array.dataflow is Dataflow.OUTPUT_STATIONARY else 1


@dataclass(frozen=True)
class _MachineBlocks:
    """`tiling.Blocks` of an operator in a machine's buffers."""

    machine: Machine
    gemm: Gemm
    fabric: Fabric
    output_bits: int

    @property
    def m(self) -> int:
        return self.gemm.m

    @property
    def k(self) -> int:
        return self.gemm.k

    @property
    def n(self) -> int:
        return self.gemm.n

    def sizes(self, m: int, k: int, n: int) -> dict[str, int]:
        return _sizes(self.gemm, self.output_bits, m, k, n)

    def fits(self, m: int, k: int, n: int) -> bool:
        sizes = self.sizes(m, k, n)
        return all(size <= self.machine.buffers.slot_bytes(tensor) for tensor, size in sizes.items())

    def program_bytes(self, m: int, k: int, n: int) -> int:
        return 0  # the engine's instructions are in no memory

    def k_spans(self, k: int) -> list[Span]:
        return spans(self.gemm.k, k)

    def block_cycles(self, m: int, k: int, n: int) -> int:
        return state_after(self.fabric, self.gemm.group, m, k, n).stream_free


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def act_bits(machine: Machine, weight_format: str) -> int:
    """Bits of one activation beside weights of this format: outlier-victim's are as wide as its weights."""
    tile = machine.tile
    return machine.spec.act.bits // (1 if tile is None else tile.values(weight_format))


def _sizes(gemm: Gemm, value_bits: int, m: int, k: int, n: int) -> dict[str, int]:
    """Bytes of one block in each buffer."""
    return {
        "act": _bytes(m * k * value_bits),
        "wgt": _bytes(gemm.weight_bits(n, k)),
        "out": m * n * OUTPUT_BYTES,
    }


def check_one_tile(machine: Machine, gemm: Gemm) -> None:
    """Refuse a machine whose PE or buffers cannot run even one tile of `gemm`. Raises ConfigError."""
    _check_format(machine, gemm)
    unit_k = _unit_k(machine, gemm)
    m, k, n = min(_unit_m(machine), gemm.m), min(unit_k, gemm.k), min(machine.array.cols, gemm.n)
    for tensor, size in _sizes(gemm, act_bits(machine, gemm.weight_format), m, k, n).items():
        slot = machine.buffers.slot_bytes(tensor)
        if size > slot:
            raise ConfigError(
                f"buffers.{tensor}_kib = {machine.buffers.capacity_bytes(tensor) / 1024:g}: one tile of '{gemm.name}' "
                f"({m} x {k} x {n}) needs {size} bytes and a slot (half the buffer) holds {slot}; "
                f"make it at least {-(-2 * size // 1024)} KiB; machine {machine.name}"
            )


def emit(machine: Machine, gemm: Gemm, tiling: Tiling) -> Program:
    """The program of `gemm` under `tiling`.

    An operand block stays in its slot while consecutive executes use it and is loaded again otherwise. Outputs stay
    in their slot over the whole reduction.
    """
    m_spans, k_spans, n_spans = spans(gemm.m, tiling.m), spans(gemm.k, tiling.k), spans(gemm.n, tiling.n)
    blocks = ordered_blocks(m_spans, k_spans, n_spans, tiling.weights_outer)
    value_bits = act_bits(machine, gemm.weight_format)
    weight_bytes = cache(lambda n, k: _bytes(gemm.weight_bits(n, k)))
    walks = cache(lambda m, k0, k, n: block_passes(machine, gemm, m, k0, k, n))
    block_step, tensor_step = _steps(machine)
    wgt, act, out = _Region(block_step), _Region(block_step), _Region(block_step)
    loads: list[tuple[str, int, int]] = []  # tensor, size, place within the tensor
    stores: list[tuple[int, int]] = []
    executes: list[Execute] = []
    new_wgt, new_act = _changes([(k, n) for _, k, n in blocks]), _changes([(m, k) for m, k, _ in blocks])
    for index, (m_span, k_span, n_span) in enumerate(blocks):
        (m0, m), (k0, k), (n0, n) = m_span, k_span, n_span
        if new_wgt[index]:
            loads.append(("wgt", *wgt.place((k_span, n_span), weight_bytes(n, k))))
        if new_act[index]:
            loads.append(("act", *act.place((m_span, k_span), _bytes(m * k * value_bits))))
        ends = k0 + k == gemm.k
        if ends:
            stores.append(out.place((m_span, n_span), _bytes(m * n * value_bits)))
        waits = _chosen(_WAITS, (new_wgt[index], new_act[index], k0 == 0))
        signals = _chosen(_SIGNALS, (new_wgt[index + 1], new_act[index + 1], ends))
        walk = walks(m, k0 % (gemm.group or 1), k, n)  # only the place within a group matters
        executes.append(Execute(m0, k0, n0, m, k, n, *walk, waits, signals))
    act_start = -(-wgt.end // tensor_step) * tensor_step
    out_start = act_start + -(-act.end // tensor_step) * tensor_step
    starts = {"wgt": 0, "act": act_start}
    return Program(
        gemm.m, gemm.k, gemm.n,
        tuple(Load(tensor, size, *_LOADED[tensor], starts[tensor] + place) for tensor, size, place in loads),
        tuple(executes),
        tuple(Store(size, (Token.OUT_READY,), (Token.OUT_FREE,), out_start + place) for size, place in stores),
    )  # fmt: skip


# Tokens of a load by its tensor; of an execute, each if its own of three conditions holds.
_LOADED = {"wgt": ((Token.WGT_FREE,), (Token.WGT_READY,)), "act": ((Token.ACT_FREE,), (Token.ACT_READY,))}
_WAITS = (Token.WGT_READY, Token.ACT_READY, Token.OUT_FREE)
_SIGNALS = (Token.WGT_FREE, Token.ACT_FREE, Token.OUT_READY)


@cache
def _chosen(tokens: tuple[Token, ...], wanted: tuple[bool, ...]) -> tuple[Token, ...]:
    return tuple(compress(tokens, wanted))


def _changes(operands: Sequence[object]) -> list[bool]:
    """Whether each block's operand differs from the one before; True for the first block, and once more at the end."""
    return [True, *(before != after for before, after in pairwise(operands)), True]


def _check_format(machine: Machine, gemm: Gemm) -> None:
    where = f"machine {machine.name}, operator {gemm.name}"
    if machine.tile is not None:
        check_formats(machine, {"weights": gemm.weight_format})
        lanes = machine.tile.lanes * machine.tile.values(gemm.weight_format)
        if gemm.group is not None and gemm.group < gemm.k and gemm.group % lanes:
            raise ConfigError(f"group = {gemm.group}: must be a multiple of the {lanes} values of a step; {where}")
        return
    # The KV cache has one scale a row; a longer reduction than the PE sums is cut into passes added as integers.
    group = longest_reduction(machine, gemm.weight_format) if gemm.kind == "attention" else gemm.group
    acceptance = machine.spec.accepts(gemm.weight_format, group)
    if acceptance.kind == "refused":
        raise ConfigError(
            f"weights = {gemm.weight_format}: PE {machine.pe} cannot take it ({acceptance.reason}); {where}"
        )


def check_formats(machine: Machine, chosen: Mapping[str, str]) -> None:
    """ConfigError for a format, by its key of the policy, that the machine's broadcast tile cannot take."""
    from bitwright.arch.isa.limits import refusal  # 30 ms, for tiles alone

    for key, name in chosen.items():
        reason = refusal(machine.spec, name)
        if reason:
            taken = ", ".join(known for known in formats.names() if not refusal(machine.spec, known))
            raise ConfigError(
                f"policy.{key} = '{name}': refused by {machine.pe}: {reason}; it takes {taken}; machine {machine.name}"
            )
