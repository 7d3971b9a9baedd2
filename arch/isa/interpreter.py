"""The functional interpreter: a program's numbers, in the program's accumulation order, without time.

Memory is 4 regions of bytes; a slot is the bytes of its beats, an accumulator slot fp32 rows. The order in which
instructions run is `network.walk`'s; a slot has one owner at a time and no region is both read and written, so every
order gives the same bytes. Slots start as zeros, which no legal program can see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.arithmetic import Extras, Tile, cut, execute, vector
from bitwright.arch.isa.extents import FP32_BITS, VALUE_BITS, act_vectors
from bitwright.arch.isa.faults import Outcome
from bitwright.arch.isa.instructions import Execute, Instruction, Load, Store, Vector
from bitwright.arch.isa.limits import REGIONS, Channel, Limits, TileFormat
from bitwright.arch.isa.network import SLOTS, Program, walk
from bitwright.arch.isa.packing import SCALE_BITS, unpack, unpack_par
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def run(
    program: Program,
    limits: Limits,
    memory: Sequence[Bytes],
    *,
    arithmetic: bool = True,
    schedule: Random | None = None,
) -> Outcome:
    """Run a program on a memory, which it changes in place.

    Parameters
        memory : 4 uint8 arrays of whole beats, C-contiguous; those that the program stores to must be writable
        arithmetic : False: memory stays as it is, as in `network.validate`
        schedule : draws the order of steps; outcome and memory are the same for any

    After a fault memory holds what the Stores that were done have written. ConfigError for a wrong number of regions, a
    region of another type, shape or layout, or one that ends inside a beat.
    """
    sizes = region_beats(limits, memory)
    numbers = Machine(limits, memory) if arithmetic else None
    return walk(program, limits, sizes, numbers=numbers, schedule=schedule)


def region_beats(limits: Limits, memory: Sequence[Bytes]) -> tuple[int, ...]:
    """The size of each region in beats; ConfigError for a memory that `run` does not take."""
    if len(memory) != REGIONS:
        raise ConfigError(f"memory: {len(memory)} regions, must be {REGIONS} (an unused one is empty)")
    for index, region in enumerate(memory):
        if region.dtype != np.uint8 or region.ndim != 1 or not region.flags.c_contiguous:
            raise ConfigError(
                f"memory[{index}] = {region.dtype} of shape {region.shape}: must be uint8, 1-dimensional, contiguous"
            )
        if region.size % limits.port_bytes:
            raise ConfigError(
                f"memory[{index}] = {region.size} bytes: must be a multiple of the beat's {limits.port_bytes} bytes"
            )
    return tuple(region.size // limits.port_bytes for region in memory)


class Machine:
    """The slots and the memory: `network.Numbers`."""

    def __init__(self, limits: Limits, memory: Sequence[Bytes]) -> None:
        self._limits, self._memory = limits, memory
        beats = (Channel.ACT, Channel.WGT, Channel.PAR, Channel.VEC, Channel.OUT)
        self._slots: dict[Channel, Bytes] = {
            channel: np.zeros((SLOTS, limits.capacity(channel) * limits.port_bytes), np.uint8) for channel in beats
        }
        self._acc = np.zeros((SLOTS, limits.acc_rows, limits.cols), np.float32)

    def move(self, instruction: Instruction, slots: Mapping[Channel, int]) -> None:
        """Do the instruction's work; it was found legal, and what it reads was written."""
        match instruction:
            case Load():
                self.load(instruction, slots)
            case Execute():
                self._execute(instruction, slots)
            case Vector():
                self._vector(instruction, slots)
            case Store():
                self._store(instruction, slots)

    def load(self, load: Load, slots: Mapping[Channel, int]) -> None:
        ((channel, slot),) = slots.items()
        memory = self._beats(self._memory[load.region])
        rows = load.offset + load.stride * np.arange(load.rows)
        beats = memory[rows[:, np.newaxis] + np.arange(load.beats)]
        target = self._beats(self._slots[channel][slot])
        target[load.at : load.at + load.rows * load.beats] = beats.reshape(-1, self._limits.port_bytes)

    def _execute(self, instruction: Execute, slots: Mapping[Channel, int]) -> None:
        limits, form = self._limits, self._limits.formats[instruction.format]
        k, cols = instruction.k, limits.cols
        slices = cut(k, instruction.group, limits.slice_steps)
        codes = self.codes(instruction, slots)
        scales = zeros = None
        if form.scale:
            count = -(-k // instruction.group) * cols
            entries = self._from(Channel.PAR, slots, instruction.par_at)[: -(-count * form.par_bits // 8)]
            scales, zeros = _parameters(form, entries.tobytes(), count)
            scales, zeros = scales.reshape(-1, cols), None if zeros is None else zeros.reshape(-1, cols)
        acts = self._acts(instruction, slots, slices.of, slices.lane)
        tile = Tile(acts, codes, scales, zeros)
        rows = self._acc[slots[Channel.ACC], instruction.acc_at : instruction.acc_at + instruction.m]
        start = np.zeros_like(rows) if instruction.first else rows
        rows[:] = execute(limits, form, tile, slices, start)

    def codes(self, instruction: Execute, slots: Mapping[Channel, int]) -> NDArray[np.uint16]:
        """The codes of an Execute's weights: unsigned [k, cols]."""
        k, cols, bits = instruction.k, self._limits.cols, self._limits.formats[instruction.format].bits
        weights = self._from(Channel.WGT, slots, instruction.wgt_at)
        return unpack(weights[: -(-k * cols * bits // 8)].tobytes(), bits, k * cols).reshape(k, cols)

    def _acts(
        self, instruction: Execute, slots: Mapping[Channel, int], of: NDArray[np.int64], lane: NDArray[np.int64]
    ) -> NDArray[np.int8] | NDArray[np.float16]:
        """Activations [k, m] out of their vectors."""
        limits, m = self._limits, instruction.m
        vector_bytes = limits.vector_beats * limits.port_bytes
        count = act_vectors(instruction, limits)
        raw = self._from(Channel.ACT, slots, instruction.act_at * limits.vector_beats)[: count * vector_bytes]
        lanes = raw.reshape(count, vector_bytes)[:, : limits.rows * limits.act_bits // 8]
        dense = np.ascontiguousarray(lanes)
        vectors = dense.view("<f2").astype(np.float16, copy=False) if limits.act_bits == 16 else dense.view(np.int8)
        if limits.stationary == "os":
            return vectors[:, :m]
        return vectors.reshape(-1, m, limits.rows)[of, :, lane]

    def _vector(self, instruction: Vector, slots: Mapping[Channel, int]) -> None:
        limits, m, cols = self._limits, instruction.m, self._limits.cols
        accumulators = self._acc[slots[Channel.ACC], instruction.acc_at : instruction.acc_at + m]
        scales = biases = residuals = None
        if instruction.scale:
            scales = self._fp32(slots, instruction.scale_at, cols if instruction.by_column else m)
        if instruction.bias:
            biases = self._fp32(slots, instruction.bias_at, cols)
        if instruction.residual:
            padded = limits.beats(cols * FP32_BITS) * limits.port_bytes * 8 // FP32_BITS
            residuals = self._fp32(slots, instruction.residual_at, m * padded).reshape(m, padded)[:, :cols]
        values = vector(instruction, accumulators, Extras(scales, biases, residuals))
        results = values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(m, -1)
        row_bytes = limits.beats(cols * VALUE_BITS[instruction.to]) * limits.port_bytes
        out = self._from(Channel.OUT, slots, instruction.out_at)[: m * row_bytes].reshape(m, row_bytes)
        out[:] = 0
        out[:, : results.shape[1]] = results

    def _store(self, store: Store, slots: Mapping[Channel, int]) -> None:
        port = self._limits.port_bytes
        memory = self._memory[store.region]
        row_bytes = store.beats * port
        rows = self._from(Channel.OUT, slots, store.at)[: store.rows * row_bytes].reshape(store.rows, row_bytes)
        written = row_bytes - port + store.tail_bytes if store.tail_bytes else row_bytes
        for index, row in enumerate(rows):  # in order: rows may overlap
            start = (store.offset + index * store.stride) * port
            memory[start : start + written] = row[:written]

    def _beats(self, data: Bytes) -> Bytes:
        return data.reshape(-1, self._limits.port_bytes)

    def _from(self, channel: Channel, slots: Mapping[Channel, int], at_beats: int) -> Bytes:
        """The bytes of the unit's slot from a beat on."""
        slot: Bytes = self._slots[channel][slots[channel]]
        return slot[at_beats * self._limits.port_bytes :]

    def _fp32(self, slots: Mapping[Channel, int], at_beats: int, count: int) -> NDArray[np.float32]:
        words = self._from(Channel.VEC, slots, at_beats)[: 4 * count]
        return words.view("<f4").astype(np.float32, copy=False)


def _parameters(
    form: TileFormat, entries: bytes, count: int
) -> tuple[NDArray[np.float16] | NDArray[np.uint16], NDArray[np.uint16] | None]:
    """Scales of groups and beside them zero point codes or selectors, if the format has some."""
    if form.scale_bits == SCALE_BITS:
        scales, zeros = unpack_par(entries, form.zero_bits, count)
        return scales, zeros if form.zero else None
    fields = unpack(entries, form.par_bits, count)
    return fields & np.uint16((1 << form.scale_bits) - 1), fields >> np.uint16(form.scale_bits)
