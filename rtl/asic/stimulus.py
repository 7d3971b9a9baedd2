"""What an array cell sees in every cycle while its array multiplies: port values for the netlist simulator.

A lane is one cell of a 16-row array, with its own operands. Times are the cell's own: skew between cells moves
whole streams and changes no toggle count.

ACTIVE cycles, weight-stationary: a weight is used for 64 activations; `psum_in` is the true partial sum of the rows
above. Between tiles, not counted, the next weight is loaded and swapped in, and the last two activations of the tile
before are applied again, so that the first counted cycle follows the one that it would follow in the array. `Loading`
chooses what else happens while the 64 activations are counted: differences between such runs are the cost of loads.
ACTIVE cycles, output-stationary: accumulations of 64 products back to back; the drain chain moves the previous 16
results up for 16 cycles, as in the array's timing contract.
PASS cycles: act_valid = 0 and act = 0, as on the lane of a row without operands. Weight-stationary: `psum_in` is the
true sum of 1 to 16 rows above (one more in every lane than in ACTIVE cycles). Output-stationary: a new weight every
cycle; the drain chain stands still.
IDLE cycles end each run: valid bits are 0, all inputs are held.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from bitwright.arch.pe import PESpec
from bitwright.rtl.asic import operands
from numpy.typing import NDArray

ACTIVE, PASS, IDLE, UNCOUNTED = 0, 1, 2, -1
ARRAY_ROWS = 16
PERIODS = 4
PERIOD = operands.GROUP
IDLE_CYCLES = 16
SETTLE_CYCLES = 2
COLUMNS = 4
CONSTANT_ONE = "constant-one"
LEAD_CYCLES = ARRAY_ROWS + 3
"""Between two tiles: the weight rows, the swap, its way through the cell's register, and one activation more."""


class Loading(Enum):
    """What a weight-stationary cell's weight bus does while activations are counted."""

    NONE = "none"
    """Nothing: weights are loaded and swapped in between tiles."""
    BEATS = "beats"
    """As NONE, and the bus carries a tile's rows, all for other cells."""
    OWN = "own"
    """The bus carries the next tile's rows, the cell loads its own and swaps it in with the next first activation."""


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


def cell_stimulus(
    spec: PESpec, dataflow: str, format_name: str, *, random: bool, loading: Loading = Loading.NONE
) -> Stimulus:
    """The stimulus of a PE cell with weights of a format; `constant-one` is the cell of a zero-point column.

    `loading` is of weight-stationary cells; output-stationary ones load nothing.
    """
    acts = operands.activations(spec, random=random)
    if format_name == CONSTANT_ONE:
        wgts, mode = np.ones((acts.shape[0], PERIODS * COLUMNS, acts.shape[2]), np.int64), {"wgt_unsigned": True}
    else:
        found = operands.weights(format_name, random=random)
        wgts = operands.pe_weights(spec, found)
        mode = {"wgt_unsigned": found.unsigned_codes} if spec.wgt.kind == "code" else {}
    if dataflow == "ws":
        return _weight_stationary(spec, acts, wgts, mode, loading)
    return _output_stationary(spec, acts, wgts, mode)


def _weight_stationary(
    spec: PESpec, acts: NDArray[Any], wgts: NDArray[Any], mode: dict[str, bool], loading: Loading
) -> Stimulus:
    shape = (acts.shape[0], COLUMNS, ARRAY_ROWS)
    lanes = int(np.prod(shape))
    tiles = [wgts[:, COLUMNS * p : COLUMNS * (p + 1), PERIOD * p : PERIOD * p + ARRAY_ROWS] for p in range(PERIODS)]
    before = 1 + ARRAY_ROWS + 1
    passing = before + PERIODS * (LEAD_CYCLES + PERIOD)
    cycles = passing + SETTLE_CYCLES + PERIOD
    act, bus, load, psum = (np.zeros((cycles, lanes), np.int64) for _ in range(4))
    valid, swap = np.zeros((cycles, 1), np.int64), np.zeros((cycles, 1), np.int64)
    row = np.broadcast_to(np.arange(ARRAY_ROWS), shape).reshape(-1)
    bins = [UNCOUNTED] * before

    def beats(first: int, tile: NDArray[Any], *, own: bool) -> None:
        """The rows of a tile on the bus, which then stays as it is; with `own` each cell loads its row."""
        for j in range(ARRAY_ROWS):
            bus[first + j :] = np.broadcast_to(to_bits(tile)[:, :, j : j + 1], shape).reshape(-1)
            load[first + j] = own & (row == j)

    streams = [_streams(spec, acts, tile, mode, p) for p, tile in enumerate(tiles)]
    beats(1, tiles[-1], own=True)
    swap[1 + ARRAY_ROWS] = 1
    for p in range(PERIODS):
        lead = before + p * (LEAD_CYCLES + PERIOD)
        first = lead + LEAD_CYCLES
        for port, which in ((act, 0), (psum, 1)):
            former = streams[p - 1][which]
            port[lead : first - 1], port[first - 1] = former[-2], former[-1]
            port[first : first + PERIOD] = streams[p][which]
        valid[lead : first + PERIOD] = 1
        if loading is not Loading.OWN or p == 0:
            beats(lead, tiles[p], own=True)
        swap[first if loading is Loading.OWN else lead + ARRAY_ROWS] = 1
        if loading is not Loading.NONE:
            beats(first, tiles[(p + 1) % PERIODS], own=loading is Loading.OWN)
        bins += [UNCOUNTED] * LEAD_CYCLES + [ACTIVE] * PERIOD
    below = streams[-1][2]
    psum[passing:] = np.concatenate([below[-SETTLE_CYCLES:], below])
    bins += [UNCOUNTED] * SETTLE_CYCLES + [PASS] * PERIOD
    ports = {"rst": reset_port(cycles), "act": act, "act_valid": valid, "act_swap": swap}
    ports |= {"wgt": bus, "wgt_load": load, "psum_in": psum, **_mode_port(mode, cycles)}
    return with_idle(ports, bins, ("act_valid", "act_swap", "wgt_load"))


Streams = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _streams(spec: PESpec, acts: NDArray[Any], tile: NDArray[Any], mode: dict[str, bool], p: int) -> Streams:
    """Activations, psum_in, and psum_in of the cell below: bits [PERIOD, lanes] while tile `p` is used."""
    block = acts[:, :PERIOD, PERIOD * p : PERIOD * p + ARRAY_ROWS].transpose(1, 0, 2)[:, :, None, :]
    shape = (PERIOD, acts.shape[0], COLUMNS, ARRAY_ROWS)
    sums = _partial_sums(spec, block, tile, mode)
    act = np.broadcast_to(to_bits(block), shape).reshape(PERIOD, -1)
    return act, sums[..., :-1].reshape(PERIOD, -1), sums[..., 1:].reshape(PERIOD, -1)


def _partial_sums(spec: PESpec, block: NDArray[Any], tile: NDArray[Any], mode: dict[str, bool]) -> NDArray[np.int64]:
    """Bits [T, L, C, R + 1] of the sum of the first 0 to R rows."""
    tokens, matrices, _, rows = block.shape
    acc = np.full((tokens, matrices, tile.shape[1]), spec.zero())
    found = np.zeros((tokens, matrices, tile.shape[1], rows + 1), np.int64)
    for row in range(rows):
        acc = spec.accumulate(acc, block[..., row], tile[None, :, :, row], **mode)
        found[..., row + 1] = to_bits(acc)
    return found


def _output_stationary(spec: PESpec, acts: NDArray[Any], wgts: NDArray[Any], mode: dict[str, bool]) -> Stimulus:
    matrices = acts.shape[0]
    shape = (matrices, COLUMNS, ARRAY_ROWS)
    lanes = int(np.prod(shape))
    passing = 1 + PERIODS * PERIOD
    cycles = passing + SETTLE_CYCLES + PERIOD
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
        bins += [ACTIVE if p else UNCOUNTED] * PERIOD
    weights = wgt[passing - PERIOD : passing]
    wgt[passing:] = np.concatenate([weights[-SETTLE_CYCLES:], weights])
    drain[passing:] = drain[passing - 1]
    bins += [UNCOUNTED] * SETTLE_CYCLES + [PASS] * PERIOD
    valid = np.zeros((cycles, 1), np.int64)
    valid[1:passing] = 1
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
