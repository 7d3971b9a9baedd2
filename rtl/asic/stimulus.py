"""What an array cell sees in every cycle while its array multiplies: port values for the netlist simulator.

A lane is one cell of a 16-row array, with its own operands. Times are the cell's own: skew between cells moves
whole streams and changes no toggle count.

Weight-stationary: a weight is used for 64 activations. In the first 16 cycles of those the column's weight bus carries
the next tile's 16 rows, and the cell loads its own; then the bus is quiet. `psum_in` is the true partial sum of the
rows above. Output-stationary: accumulations of 64 products back to back; the drain chain moves the previous 16 results
up for 16 cycles, as in the array's timing contract.
Each run ends with idle cycles: act_valid = 0, all inputs held.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from bitwright.arch.pe import PESpec
from bitwright.rtl.asic import operands
from numpy.typing import NDArray

STEADY, BUSY, IDLE, UNCOUNTED = 0, 1, 2, -1
ARRAY_ROWS = 16
PERIODS = 4
PERIOD = operands.GROUP
IDLE_CYCLES = 16
SETTLE_CYCLES = 2
COLUMNS = 4


@dataclass(frozen=True)
class Stimulus:
    """Port values [cycles, lanes] (or [cycles, 1]) and the bin of every cycle."""

    ports: dict[str, NDArray[np.int64]]
    bins: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Hash of all port values and bins: the identity of a stimulus in cost tables."""
        digest = hashlib.sha256(repr(self.bins).encode())
        for name in sorted(self.ports):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.ports[name]).tobytes())
        return digest.hexdigest()


def to_bits(values: NDArray[Any]) -> NDArray[np.int64]:
    """Floats to their bit patterns, integers unchanged; int64."""
    if values.dtype == np.float16:
        return values.view(np.uint16).astype(np.int64)
    if values.dtype == np.float32:
        return values.view(np.uint32).astype(np.int64)
    return values.astype(np.int64)


def with_idle(ports: dict[str, NDArray[np.int64]], bins: list[int], lower: tuple[str, ...]) -> Stimulus:
    """Append the idle cycles: everything held, the ports of `lower` at 0."""
    held = {}
    for name, values in ports.items():
        last = np.zeros_like(values[-1:]) if name in lower else values[-1:]
        held[name] = np.concatenate([values, np.repeat(last, SETTLE_CYCLES + IDLE_CYCLES, axis=0)])
    return Stimulus(held, (*bins, *[UNCOUNTED] * SETTLE_CYCLES, *[IDLE] * IDLE_CYCLES))


def reset_port(cycles: int) -> NDArray[np.int64]:
    """`rst`: 1 in cycle 0."""
    rst = np.zeros((cycles, 1), np.int64)
    rst[0] = 1
    return rst


def cell_stimulus(spec: PESpec, dataflow: str, format_name: str, *, random: bool) -> Stimulus:
    """The stimulus of a PE cell with weights of a format; `constant-one` is the cell of a zero-point column."""
    acts = operands.activations(spec, random=random)
    if format_name == CONSTANT_ONE:
        wgts, mode = np.ones((acts.shape[0], PERIODS * COLUMNS, acts.shape[2]), np.int64), {"wgt_unsigned": True}
    else:
        found = operands.weights(format_name, random=random)
        wgts = operands.pe_weights(spec, found)
        mode = {"wgt_unsigned": found.unsigned_codes} if spec.wgt.kind == "code" else {}
    build = _weight_stationary if dataflow == "ws" else _output_stationary
    return build(spec, acts, wgts, mode)


CONSTANT_ONE = "constant-one"


def _weight_stationary(spec: PESpec, acts: NDArray[Any], wgts: NDArray[Any], mode: dict[str, bool]) -> Stimulus:
    matrices = acts.shape[0]
    shape = (matrices, COLUMNS, ARRAY_ROWS)
    lanes = int(np.prod(shape))
    tiles = [wgts[:, COLUMNS * p : COLUMNS * (p + 1), PERIOD * p : PERIOD * p + ARRAY_ROWS] for p in range(PERIODS)]
    lead = 1 + ARRAY_ROWS
    cycles = lead + PERIODS * PERIOD
    act = np.zeros((cycles, lanes), np.int64)
    bus, load, psum = np.zeros_like(act), np.zeros_like(act), np.zeros_like(act)
    valid, swap = np.zeros((cycles, 1), np.int64), np.zeros((cycles, 1), np.int64)
    row = np.broadcast_to(np.arange(ARRAY_ROWS), shape).reshape(-1)
    bins = [UNCOUNTED] * lead
    for p in range(-1, PERIODS):
        first = lead + p * PERIOD if p >= 0 else 1
        coming = tiles[(p + 1) % PERIODS]
        for j in range(ARRAY_ROWS):
            beat = np.broadcast_to(to_bits(coming)[:, :, j : j + 1], shape).reshape(-1)
            bus[first + j : first + PERIOD] = beat
            load[first + j] = row == j
        if p < 0:
            continue
        rows = slice(PERIOD * p, PERIOD * p + ARRAY_ROWS)
        block = acts[:, :PERIOD, rows].transpose(1, 0, 2)[:, :, None, :]
        act[first : first + PERIOD] = np.broadcast_to(to_bits(block), (PERIOD, *shape)).reshape(PERIOD, lanes)
        psum[first : first + PERIOD] = _partial_sums(spec, block, tiles[p], mode).reshape(PERIOD, lanes)
        valid[first : first + PERIOD], swap[first] = 1, 1
        bins += [BUSY] * (ARRAY_ROWS + 1) + [STEADY] * (PERIOD - ARRAY_ROWS - 1)
    ports = {"rst": reset_port(cycles), "act": act, "act_valid": valid, "act_swap": swap}
    ports |= {"wgt": bus, "wgt_load": load, "psum_in": psum, **_mode_port(mode, cycles)}
    return with_idle(ports, bins, ("act_valid", "act_swap", "wgt_load"))


def _partial_sums(spec: PESpec, block: NDArray[Any], tile: NDArray[Any], mode: dict[str, bool]) -> NDArray[np.int64]:
    """psum_in bits [T, L, C, R] of each row: the sum of the rows above it."""
    tokens, matrices, _, rows = block.shape
    acc = np.full((tokens, matrices, tile.shape[1]), spec.zero())
    found = np.zeros((tokens, matrices, tile.shape[1], rows), np.int64)
    for row in range(rows):
        found[..., row] = to_bits(acc)
        acc = spec.accumulate(acc, block[..., row], tile[None, :, :, row], **mode)
    return found


def _output_stationary(spec: PESpec, acts: NDArray[Any], wgts: NDArray[Any], mode: dict[str, bool]) -> Stimulus:
    matrices = acts.shape[0]
    shape = (matrices, COLUMNS, ARRAY_ROWS)
    lanes = int(np.prod(shape))
    cycles = 1 + PERIODS * PERIOD
    act = np.zeros((cycles, lanes), np.int64)
    wgt, drain = np.zeros_like(act), np.zeros_like(act)
    first_mark, last_mark, shift = (np.zeros((cycles, 1), np.int64) for _ in range(3))
    sums = np.zeros(shape, np.int64)
    bins = [UNCOUNTED]
    for p in range(PERIODS):
        start = 1 + p * PERIOD
        steps = slice(PERIOD * p, PERIOD * (p + 1))
        block = acts[:, ARRAY_ROWS * p : ARRAY_ROWS * (p + 1), steps][:, None]
        tile = wgts[:, COLUMNS * p : COLUMNS * (p + 1), steps][:, :, None]
        drain[start : start + PERIOD] = _drain_chain(sums).reshape(PERIOD, lanes)
        acc = np.full(shape, spec.zero())
        for j in range(PERIOD):
            act[start + j] = np.broadcast_to(to_bits(block[..., j]), shape).reshape(-1)
            wgt[start + j] = np.broadcast_to(to_bits(tile[..., j]), shape).reshape(-1)
            acc = spec.accumulate(acc, block[..., j], tile[..., j], **mode)
        sums = to_bits(acc)
        first_mark[start], last_mark[start + PERIOD - 1] = 1, 1
        shift[start + ARRAY_ROWS - 1 : start + 2 * ARRAY_ROWS - 1] = 1 if p else 0
        kinds = [BUSY] * (2 * ARRAY_ROWS) + [STEADY] * (PERIOD - 2 * ARRAY_ROWS)
        bins += kinds if p else [UNCOUNTED] * PERIOD
    valid = np.ones((cycles, 1), np.int64)
    valid[0] = 0
    ports = {"rst": reset_port(cycles), "act": act, "act_valid": valid, "act_first": first_mark}
    ports |= {"act_last": last_mark, "wgt": wgt, "drain_shift": shift, "drain_in": drain}
    ports |= _mode_port(mode, cycles)
    return with_idle(ports, bins, ("act_valid", "act_first", "act_last", "drain_shift"))


def _drain_chain(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """drain_in bits [PERIOD, L, C, R] of each row while the previous tile's sums [L, C, R] move up."""
    rows = sums.shape[-1]
    padded = np.concatenate([sums, np.zeros_like(sums), np.zeros_like(sums)], axis=-1)
    moved = [min(max(j - (rows - 1), 0), rows) for j in range(PERIOD)]
    return np.stack([padded[..., 1 + steps : 1 + steps + rows] for steps in moved])


def _mode_port(mode: dict[str, bool], cycles: int) -> dict[str, NDArray[np.int64]]:
    return {name: np.full((cycles, 1), int(value), np.int64) for name, value in mode.items()}
