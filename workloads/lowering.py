"""From one quantised matrix product to the accelerator's program and memory, and back to an array of results.

    lowered = lower(weights, acts, limits)
    run(lowered.program, limits, lowered.memory)
    y = lowered.read()

The results have the bits of `workloads.linear` with `pass_depth = lowered.pass_depth`; a float PE adds the products of
a slice in ascending order, then slice after slice (`linear` leaves that order to the BLAS library).

Order of the program. Blocks come in the order of `tiling.ordered_blocks`, the reduction innermost; accumulators stay in
their acc slot over it. A block that an operand channel already holds is not loaded again. For each block: the Loads of
the block after it, which go to the other slots; its Executes; among these the Vectors and Stores of the results before,
so that the array does not wait for them. A block's operands have one Load each, weights, parameters and activations,
and these three wait for slots together in a queue of 4: the fetch goes on to the Executes. (Token scales and biases are
loaded before them, and their slots are rarely taken.) Nothing can deadlock: what an instruction waits for comes earlier
in the program.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from bitwright.arch import formats
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError, FormatError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa.extents import FP32_BITS
from bitwright.arch.isa.instructions import Buffer, End, Execute, Instruction, Load, NumberType, Store, Vector
from bitwright.arch.isa.limits import Limits
from bitwright.arch.pe.broadcast import PairFamily
from bitwright.workloads.layout import (
    ACT_REGION,
    OUT_REGION,
    VEC_REGION,
    WGT_REGION,
    Bytes,
    Job,
    Layout,
    Place,
    Results,
)
from bitwright.workloads.linear import F32, Operand
from bitwright.workloads.tile_codes import pair_elements, tile_scales, weight_elements
from bitwright.workloads.tiling import Tiling, candidates, ordered_blocks, predict, spans
from numpy.typing import NDArray

_REGIONS = {Buffer.ACT: ACT_REGION, Buffer.WGT: WGT_REGION, Buffer.PAR: WGT_REGION, Buffer.VEC: VEC_REGION}


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program and its memory.

    Members
        layout : where everything stands
        program : ends with End
        memory : the four regions; the results are zeros until the program has run
    """

    layout: Layout
    program: tuple[Instruction, ...]
    memory: tuple[Bytes, Bytes, Bytes, Bytes]

    @property
    def pass_depth(self) -> int | None:
        """Products summed before an fp32 addition, where no group ends before: `linear`'s parameter."""
        job = self.layout.job
        depth = job.pass_depth(self.layout.tiling.k)
        return None if depth is None else depth * job.values

    def read(self) -> Results:
        """The results [m, n] that the program has stored."""
        return self.layout.read(self.memory[OUT_REGION])


def lower(
    weights: Encoded,
    acts: Operand,
    limits: Limits,
    *,
    bias: F32 | None = None,
    to: NumberType = NumberType.FP32,
    rescale: float | None = None,
    tiling: Tiling | None = None,
) -> Lowered:
    """act[M, K] . weights[N, K] on a machine.

    Parameters
        weights : codes and group parameters, in a format of the machine and encoded with `limits.scale_format`
        acts : `linear`'s operand: int8 codes with a scale a token, or fp16 values without scales; for outlier-victim
            the integers of a pair format, of the width of the weights' format
        bias : fp32 [N], added after the token scale
        rescale : a static factor of all results, before they are rounded to `to`: a power of two or an fp16 value, both
            exact in fp32. It takes no instruction of its own: it is in the fp32 scales of the tokens, fp32(scale *
            rescale), which are `rescale` itself where acts have none, and in the bias, fp32(bias * rescale).
        tiling : None: the one with the fewest predicted cycles

    ConfigError: a format that the machine has not; operands that do not meet; groups that a broadcast tile cannot cut;
    a buffer that cannot hold one tile; another rescale. FormatError: scales that are no fp16,
    operands that are no codes of the PE.
    """
    job = job_of(weights, acts, limits, bias=bias, to=to)
    if rescale is not None:
        _check_rescale(rescale)
        job = replace(job, scaled=True)
    layout = Layout(job, tiling or choose_tiling(job))
    scales, zeros = _parameters(job, weights)
    token_scales = None
    if job.scaled:
        given = np.float32(1) if acts.scales is None else acts.scales.reshape(-1)
        token_scales = np.broadcast_to(given, job.m)
    if rescale is not None and token_scales is not None:
        token_scales = token_scales * np.float32(rescale)
        bias = None if bias is None else bias * np.float32(rescale)
    memory = (
        layout.act_image(_act_codes(job, acts)),
        layout.weight_image(weight_elements(limits.tile, weights), scales, zeros),
        layout.vec_image(token_scales, _column_scales(job, weights), bias),
        layout.out_image(),
    )
    return Lowered(layout, tuple(program(layout)), memory)


@lru_cache(maxsize=1024)
def choose_tiling(job: Job) -> Tiling:
    """Of the tilings within 2 % of the fewest predicted cycles (memory moving a beat a cycle) that which moves the
    fewest bytes, instructions included, then has the fewest blocks. ConfigError when nothing fits."""
    job.check_length()
    k_sizes, port = job.k_sizes(), DramPort(mbytes_per_s=job.limits.port_bytes, clock_khz=1000, latency_cycles=0)
    found = {tiling: predict(job, port, tiling) for tiling in candidates(job, job.m_sizes(), k_sizes, every_n=True)}
    if not found:
        job.check_room(1, k_sizes[-1], min(job.n, job.limits.cols), "make the buffer larger")
    most = min(cycles for cycles, _, _ in found.values()) * 51 // 50
    return min((tiling for tiling, score in found.items() if score[0] <= most), key=lambda tiling: found[tiling][1:])


# --- The program --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """One block: where it begins and how large it is, and whether it begins or ends its reduction."""

    m0: int
    m: int
    k0: int
    k: int
    n0: int
    n: int
    first: bool
    last: bool


def program(layout: Layout) -> Iterator[Instruction]:
    """The instructions of a job, End included."""
    job, tiling = layout.job, layout.tiling
    order = ordered_blocks(layout.m_spans, layout.k_spans, layout.n_spans, tiling.weights_outer)
    blocks = [_Block(*ms, *ks, *ns, ks[0] == 0, sum(ks) == job.k) for ms, ks, ns in order]
    ends = [block for block in blocks if block.last]
    drained = 0
    drain: list[Vector | Store] = []
    yield from _operand_loads(layout, None, blocks[0])
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.last:
            yield from _vec_loads(layout, ends[drained - 1] if drained else None, block)
        if after is not None:
            yield from _operand_loads(layout, block, after)
        executes = list(_executes(layout, block, after))
        for index, instruction in enumerate(executes):
            yield instruction
            yield from drain[len(drain) * index // len(executes) : len(drain) * (index + 1) // len(executes)]
        drain = []
        if block.last:
            drained += 1
            drain = list(_drain(layout, block, ends[drained] if drained < len(ends) else None))
    yield from drain
    yield End()


def _operands(layout: Layout, block: _Block) -> dict[Buffer, Place]:
    """What Execute reads of each channel for a block."""
    found = {
        Buffer.PAR: layout.pars[block.k0 // layout.job.group, block.n0],
        Buffer.WGT: layout.codes[block.k0, block.n0],
        Buffer.ACT: layout.acts[block.m0, block.k0],
    }
    return {buffer: place for buffer, place in found.items() if place.beats}


def _load(buffer: Buffer, place: Place, *, at: int = 0, hand: bool = True) -> Load:
    return Load(buffer=buffer, hand=hand, region=_REGIONS[buffer], beats=place.beats, offset=place.offset, at=at)


def _operand_loads(layout: Layout, before: _Block | None, block: _Block) -> Iterator[Load]:
    """Loads of the operands that the block before did not use."""
    held = {} if before is None else _operands(layout, before)
    for buffer, place in _operands(layout, block).items():
        if held.get(buffer) != place:
            yield _load(buffer, place)


def _executes(layout: Layout, block: _Block, after: _Block | None) -> Iterator[Execute]:
    """A block's tiles; in an output-stationary array, a tile's tokens by as many as it has rows."""
    job, limits = layout.job, layout.job.limits
    mine = _operands(layout, block)
    kept = {} if after is None else _operands(layout, after)
    frees = {f"free_{buffer.name.lower()}": kept.get(buffer) != place for buffer, place in mine.items()}
    tokens = spans(block.m, limits.rows if limits.stationary == "os" else block.m)
    walks = [(tile, first, m) for tile in range(job.tiles(block.n)) for first, m in tokens]
    for tile, first, m in walks:
        execute = Execute(
            format=job.number,
            first=block.first,
            m=m,
            k=block.k,
            group=min(job.group, block.k),
            act_at=first // limits.rows * block.k if limits.stationary == "os" else 0,
            wgt_at=tile * job.tile_beats(block.k),
            par_at=tile * job.par_beats(block.k),
            acc_at=tile * block.m + first,
        )
        is_last = (tile, first, m) == walks[-1]
        yield replace(execute, hand_acc=block.last, **frees) if is_last else execute


def _vec_key(job: Job, block: _Block) -> Hashable:
    """Blocks with the same key share what Vector reads."""
    return block.m0 if job.scaled else None, block.n0 if job.biased or job.by_column else None


def _vec_loads(layout: Layout, before: _Block | None, block: _Block) -> Iterator[Load]:
    """Scales and biases, unless the results before have the same."""
    job = layout.job
    if before is not None and _vec_key(job, before) == _vec_key(job, block):
        return
    scales, columns = layout.scales[block.m0], layout.columns[block.n0]
    if scales.beats:
        yield _load(Buffer.VEC, scales, hand=not columns.beats)
    if columns.beats:
        yield _load(Buffer.VEC, columns, at=scales.beats)


def _drain(layout: Layout, block: _Block, after: _Block | None) -> Iterator[Vector | Store]:
    """Accumulators to results, an out slot at a time, tile after tile."""
    job, limits = layout.job, layout.job.limits
    reads = job.scaled or job.by_column or job.biased
    free_vec = reads and (after is None or _vec_key(job, after) != _vec_key(job, block))
    tiles, row = job.tiles(block.n), job.out_row_beats
    for tile in range(tiles):
        scale_at = tile * job.column_row_beats if job.by_column else 0
        biases_at = job.scale_beats(block.m) + tiles * job.column_row_beats * job.by_column
        for first, m in spans(block.m, job.store_rows):
            is_last = tile == tiles - 1 and first + m == block.m
            yield Vector(
                m=m,
                acc_at=tile * block.m + first,
                to=job.to,
                scale=job.scaled or job.by_column,
                bias=job.biased,
                scale_at=scale_at,
                bias_at=biases_at + tile * job.column_row_beats if job.biased else 0,
                hand=True,
                free_acc=is_last,
                free_vec=free_vec and is_last,
                by_column=job.by_column,
            )
            scale_at += limits.beats(m * FP32_BITS) if job.scaled else 0
            column = block.n0 // limits.cols + tile
            yield Store(
                region=OUT_REGION,
                rows=m,
                beats=row,
                tail_bytes=_tail_bytes(job, column),
                stride=layout.pitch,
                offset=(block.m0 + first) * layout.pitch + column * row,
                free_out=True,
            )


def _tail_bytes(job: Job, tile: int) -> int:
    """Of a row's last beat, what belongs to outputs that exist: 0 (all of it) where that would be nothing."""
    width = min(job.limits.cols, job.n - tile * job.limits.cols)
    rest = width * job.output_bits // 8 - (job.out_row_beats - 1) * job.limits.port_bytes
    return rest if 0 < rest < job.limits.port_bytes else 0


# --- The operands -------------------------------------------------------------------------------------------------


def job_of(
    weights: Encoded, acts: Operand, limits: Limits, *, bias: F32 | None = None, to: NumberType = NumberType.FP32
) -> Job:
    """The job that the operands make. ConfigError where they make none."""
    (n, k), (m, width) = weights.shape, acts.values.shape
    names = [item.name for item in limits.formats]
    if weights.format not in names:
        raise ConfigError(
            f"weights.format = {weights.format}: the machine has {', '.join(names)} (ask limits() for the format)"
        )
    if width != k:
        raise ConfigError(f"acts = [{m}, {width}], weights = [{n}, {k}]: must have the same reduction")
    if min(m, n, k) < 1:
        raise ConfigError(f"acts = [{m}, {width}], weights = [{n}, {k}]: must not be empty")
    if bias is not None and bias.shape != (n,):
        raise ConfigError(f"bias.shape = {bias.shape}: must be ({n},), one an output")
    group = min(weights.group, k) if isinstance(weights.group, int) else k
    number = names.index(weights.format)
    values = 1 if limits.tile is None else limits.tile.values(weights.format)
    if group < k and group % (limits.weight_rows * values):
        raise ConfigError(
            f"weights.group = {group}: must be a multiple of {limits.weight_rows * values}, which the "
            f"{limits.array_word} takes at once, or at least the reduction of {k}"
        )
    elements = -(-k // values), -(-group // values)
    return Job(limits, m, elements[0], n, number, elements[1], acts.scales is not None, bias is not None, to)


def _check_rescale(rescale: float) -> None:
    """ConfigError for a factor that is neither a power of two of fp32 nor an fp16 value above 0."""
    exact = np.float32(rescale)
    is_power = float(exact) == rescale and np.isfinite(exact) and exact > 0 and np.frexp(exact)[0] == 0.5
    is_fp16 = 0 < rescale <= 65504 and float(np.float16(rescale)) == rescale
    if not is_power and not is_fp16:
        near = float(np.float16(np.clip(rescale, 2.0**-24, 65504))) if rescale == rescale else 1.0
        raise ConfigError(f"rescale = {rescale!r}: must be a power of two or an fp16 value above 0 (nearest {near!r})")


def _parameters(
    job: Job, weights: Encoded
) -> tuple[NDArray[np.float16] | NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Scales and zero point codes (8-bit scales and selectors) [n, groups], of a format that has them."""
    if not job.form.scale:
        return None, None
    if job.by_column:
        if weights.scale_codes is None:
            raise FormatError(
                f"weights.scale_format = {weights.scale_format}: {job.limits.pe.name} takes 8-bit scales of groups "
                "(encode with scale_format='int8')"
            )
        each = job.n, job.groups(job.k)
        others = None if weights.selectors is None else np.broadcast_to(weights.selectors, each)
        return np.broadcast_to(weights.scale_codes, each), others
    assert weights.scales is not None, f"{weights.format} has scales"
    if weights.scales.dtype != np.float16:
        raise FormatError(
            f"weights.scales = {weights.scales.dtype}: the accelerator takes float16 (encode with scale_format='fp16')"
        )
    shape = job.n, job.groups(job.k)
    zeros = weights.zeros if formats.get(weights.format).zero_bits else None
    scales = np.broadcast_to(tile_scales(job.limits.tile, weights.format, weights.scales.astype(np.float16)), shape)
    return scales, None if zeros is None else np.broadcast_to(zeros, shape)


def _column_scales(job: Job, weights: Encoded) -> F32 | None:
    """Scales of columns [n], where groups have 8-bit ones."""
    if not job.by_column:
        return None
    assert weights.channel_scales is not None, "scales of two levels"
    return weights.channel_scales.astype(np.float32).reshape(job.n)


def _act_codes(job: Job, acts: Operand) -> NDArray[np.int8] | NDArray[np.float16]:
    """Activations in the PE's own type."""
    limits = job.limits
    if isinstance(limits.tile, PairFamily):
        return pair_elements(limits.tile, job.form.name, acts.values)
    found: NDArray[np.int8] | NDArray[np.float16]
    with np.errstate(all="ignore"):
        found = acts.values.astype(np.float16) if limits.pe.act.kind == "float" else acts.values.astype(np.int8)
    wrong = found.astype(np.float32) != acts.values
    if wrong.any():
        token, element = (int(index) for index in np.argwhere(wrong)[0])
        raise FormatError(
            f"acts[{token}, {element}] = {acts.values[token, element]:g}: is no {limits.pe.act.name} value, which "
            f"{limits.pe.name} takes (encode the activations first)"
        )
    return found
