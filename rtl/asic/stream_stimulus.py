"""What a streaming PE sees while it works without a pause, is stalled, and has nothing to do.

A simulation lane is one PE with its own steps. ACTIVE cycles: a step is on offer in every cycle, for as many as it
occupies, and every sum is taken. PASS cycles: stalled, a sum on offer is not taken while the next step waits. IDLE
cycles: nothing is on offer. Real steps are dot products of 256 channels as the spec quantises them itself, sum after
sum; random ones are legal codes, the sums as long.
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
    words = packing.step_words(spec, steps)
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    width = sum(field.bits * field.lanes for field in packing.step_fields(spec))
    payload = bits[at, :width].transpose(1, 0, 2)
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
