"""What a streaming PE sees while it works without a pause, is stalled, and has nothing to do.

A simulation lane is one PE with its own steps. ACTIVE cycles: a step is on offer in every cycle, for as many as it
occupies, and every sum is taken. PASS cycles: stalled, a sum on offer is not taken while the next step waits. IDLE
cycles: nothing is on offer. Real steps are dot products of 256 channels as the spec quantises them itself, sum after
sum; random ones are legal codes, the sums as long.

`moving_stimulus` is the other kind of standing still: no step is on offer, but the steps of a neighbour pass on the
same wires, as on a bus that PEs share; without a sum to wait for (IDLE), and with one that nobody takes (PASS). A step
that is on offer is held, as the rules of streams ask, so that it moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.rtl.asic import operands
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS, UNCOUNTED, Stimulus, reset_port
from bitwright.rtl.bench.stream import packing
from bitwright.rtl.bench.stream.stimulus import random_steps, real_steps
from numpy.typing import NDArray

LANES = 64
ACTIVE_CYCLES = 192
WARM_UP_CYCLES = 16
STILL_CYCLES = 16
MOVING_CYCLES = 64


@dataclass(frozen=True)
class Work:
    """A stimulus and how much it does: multiply-accumulates a cycle and PE while active."""

    stimulus: Stimulus
    macs_per_cycle: float


def stream_work(spec: StreamSpec, *, random: bool) -> Work:
    """The stimulus of a streaming PE on a real model's operands, or on random codes."""
    active = WARM_UP_CYCLES + ACTIVE_CYCLES
    steps = _steps(spec, LANES * active, random=random)
    occupied = spec.step_cycles(steps).reshape(LANES, active)
    macs = spec.macs(steps).reshape(LANES, active)
    chosen = _in_turn(occupied, active)
    at = chosen + active * np.arange(LANES)[:, None]
    rates = np.take_along_axis(macs / occupied, chosen, axis=1)[:, WARM_UP_CYCLES:]
    payload = _payloads(spec, steps)[at].transpose(1, 0, 2)
    still = spec.timing.latency_cycles + WARM_UP_CYCLES
    tail = 2 * (still + STILL_CYCLES)
    waiting = payload[-1:].copy()
    waiting[..., -1] = 1  # the step that waits is the last of its sum: one is on offer soon
    cycles = 1 + active + tail
    valid = np.ones((cycles, 1), np.int64)
    valid[0], valid[-tail // 2 :] = 0, 0
    ready = np.ones((cycles, 1), np.int64)
    ready[1 + active : 1 + active + tail // 2] = 0
    bins = [UNCOUNTED] * (1 + WARM_UP_CYCLES) + [ACTIVE] * ACTIVE_CYCLES
    for kind in (PASS, IDLE):
        bins += [UNCOUNTED] * still + [kind] * STILL_CYCLES
    ports = {
        "rst": reset_port(cycles),
        "step__payload": np.concatenate([payload[:1], payload, np.repeat(waiting, tail, axis=0)]),
        "step__valid": valid,
        "sum__ready": ready,
    }
    return Work(Stimulus(ports, tuple(bins)), float(rates.mean()))


def moving_stimulus(spec: StreamSpec) -> Stimulus:
    """A streaming PE whose neighbour works on a real model's operands, all of which pass the PE's payload wires.

    Each lane works for WARM_UP_CYCLES, and on until its step is whole, which is marked as the last of its sum: from
    then on nothing is on offer, and the payload is what the lane beside it has on offer while it works. PASS cycles:
    the sum is on offer and not taken; then sums are taken again, and IDLE cycles.
    """
    active = WARM_UP_CYCLES + ACTIVE_CYCLES
    steps = _steps(spec, LANES * active, random=False)
    first = active * np.arange(LANES)
    passing = _in_turn(spec.step_cycles(steps).reshape(LANES, active), active)
    final = passing[:, WARM_UP_CYCLES - 1]
    neighbour = np.roll(_payloads(spec, steps)[passing + first[:, None]], 1, axis=0).transpose(1, 0, 2)
    last = np.array(steps[LAST])
    last[first + final] = 1
    steps = {**steps, LAST: last}
    occupied = spec.step_cycles(steps).reshape(LANES, active)
    ends = np.take_along_axis(occupied.cumsum(axis=1), final[:, None], axis=1)[:, 0]
    own = _in_turn(occupied, int(ends.max())) + first[:, None]
    still = spec.timing.latency_cycles + WARM_UP_CYCLES
    bins = [UNCOUNTED] * (1 + int(ends.max()))
    for kind in (PASS, IDLE):
        bins += [UNCOUNTED] * still + [kind] * MOVING_CYCLES
    payload = neighbour[np.arange(len(bins)) % active]
    times = np.arange(-1, len(bins) - 1)[:, None]  # 0 in the first cycle after reset
    offered = times < ends
    payload[1 : 1 + ends.max()] = np.where(
        offered[1 : 1 + ends.max(), :, None],
        _payloads(spec, steps)[own].transpose(1, 0, 2),
        payload[1 : 1 + ends.max()],
    )
    ports = {
        "rst": reset_port(len(bins)),
        "step__payload": payload,
        "step__valid": (offered & (times >= 0)).astype(np.int64),
        "sum__ready": (offered | (times >= ends.max() + still + MOVING_CYCLES)).astype(np.int64),
    }
    return Stimulus(ports, tuple(bins))


def _payloads(spec: StreamSpec, steps: Steps) -> NDArray[np.uint8]:
    """Payloads of the steps, bit by bit, lowest first: uint8 [steps, width]."""
    words = packing.step_words(spec, steps)
    width = sum(field.bits * field.lanes for field in packing.step_fields(spec))
    bits: NDArray[np.uint8] = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    return bits[:, :width]


def _steps(spec: StreamSpec, count: int, *, random: bool) -> Steps:
    """`count` steps, the first one of a sum."""
    rows = LANES  # some PEs work on several dot products at once
    real = real_steps(spec, rows, operands.SEED)
    if random:
        length = int(np.flatnonzero(real[LAST])[0]) + 1
        found = random_steps(spec, np.full(-(-count // length), length), operands.SEED)
    else:
        while len(real[FIRST]) < count:  # a sum may hold several dot products, or be as long as its format makes it
            rows *= 2
            real = real_steps(spec, rows, operands.SEED)
        found = real
    return {name: values[:count] for name, values in found.items()}


def _in_turn(occupied: NDArray[np.int64], cycles: int) -> NDArray[np.int64]:
    """Which step each lane has on offer in each cycle: int64 [lanes, cycles]."""
    return np.stack([np.repeat(np.arange(occupied.shape[1]), lane)[:cycles] for lane in occupied])
