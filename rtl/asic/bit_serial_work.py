"""What a bit-serial PE sees while it works without a pause, is stalled, and has nothing to do.

A simulation lane is one PE with its own dot products of 256 channels: codes of FORMAT in groups of 64 with their
8-bit scales and selectors, fp16 activations. A slice is on offer for as many cycles as its code has terms. Bins as in
stream_stimulus; the PE stalls only when a second channel is whole, so that PASS cycles come late.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import format_specials, special_code
from bitwright.rtl.asic import operands
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS, UNCOUNTED, Stimulus, reset_port
from bitwright.rtl.asic.stream_stimulus import LANES, MOVING_CYCLES, STILL_CYCLES, Work
from bitwright.rtl.bench.bit_serial_bench import Channels
from numpy.typing import NDArray

FORMAT = "bitmod_fp4"
CHANNELS = 4
"""Dot products of a lane: one to warm up, two counted, one that is not taken."""


def lane_channels(spec: BitSerial, *, random: bool) -> Channels:
    """CHANNELS dot products of each lane, lane by lane."""
    found = operands.weights(FORMAT, random=random)
    acts = operands.activations(spec, random=random)
    matrices, rows = found.codes.shape[:2]
    count = LANES * CHANNELS
    matrix, row, token = (np.arange(count) // step % size for step, size in _steps(matrices, rows, acts.shape[1]))
    return Channels(
        FORMAT,
        spec.encoding(FORMAT),
        operands.GROUP,
        acts[matrix, token].view(np.uint16),
        found.codes[matrix, row],
        found.scale_codes[matrix, row],
        found.selectors[matrix, row],
    )


def _steps(matrices: int, rows: int, tokens: int) -> tuple[tuple[int, int], ...]:
    """How fast matrix, row and token go on: the token with each dot product, then the matrix, then the row."""
    return (CHANNELS, matrices), (CHANNELS * matrices, rows), (1, tokens)


def bit_serial_work(spec: BitSerial, *, random: bool) -> Work:
    """The stimulus on a real model's operands, or on random codes and activations."""
    held, terms = _held(spec, random=random)
    lead = 1 + len(_specials())
    each = len(held) // CHANNELS
    settle = 2 * spec.timing.latency_cycles + each
    # One channel more, then its last slice again, each time a channel of its own: taken until sums wait everywhere.
    stall = np.concatenate([held[3 * each :], np.repeat(held[-1:], settle + STILL_CYCLES - each, axis=0)])
    payload = np.concatenate([np.repeat(held[:1], lead, axis=0), held[: 3 * each], stall])
    payload = np.concatenate([payload, np.repeat(payload[-1:], settle + STILL_CYCLES, axis=0)])
    cycles = len(payload)
    valid, ready = np.ones((cycles, 1), np.int64), np.ones((cycles, 1), np.int64)
    valid[:lead] = 0
    first = lead + 3 * each
    ready[first : first + len(stall)] = 0
    valid[first + len(stall) :] = 0
    bins = [UNCOUNTED] * (lead + each) + [ACTIVE] * (2 * each)
    for kind in (PASS, IDLE):
        bins += [UNCOUNTED] * settle + [kind] * STILL_CYCLES
    ports = _ports(payload, valid, ready)
    return Work(Stimulus(ports, tuple(bins)), spec.lanes / terms)


def moving_stimulus(spec: BitSerial) -> Stimulus:
    """As stream_stimulus.moving_stimulus: two channels of each lane, whose sums nobody takes, and then
    no slice."""
    held, _ = _held(spec, random=False)
    lead, each = 1 + len(_specials()), len(held) // CHANNELS
    settle = 2 * spec.timing.latency_cycles
    bins = [UNCOUNTED] * (lead + 2 * each)
    for kind in (PASS, IDLE):
        bins += [UNCOUNTED] * settle + [kind] * MOVING_CYCLES
    times = np.arange(-lead, len(bins) - lead)
    payload = np.roll(held, 1, axis=1)[times % len(held)]
    payload[lead : lead + 2 * each] = held[: 2 * each]
    valid = (times >= 0) & (times < 2 * each)
    ready = times >= 2 * each + settle + MOVING_CYCLES
    return Stimulus(_ports(payload, valid[:, None].astype(np.int64), ready[:, None].astype(np.int64)), tuple(bins))


def _held(spec: BitSerial, *, random: bool) -> tuple[NDArray[np.uint8], int]:
    """Slices bit by bit [cycles, lanes, width], each for as many cycles as it has terms; and these."""
    channels = lane_channels(spec, random=random)
    bits = _bits(channels.slices())
    slices = len(bits) // LANES
    terms = channels.encoding.terms
    return np.repeat(bits.reshape(LANES, slices, -1).transpose(1, 0, 2), terms, axis=0), terms


def _specials() -> list[int]:
    """Codes of FORMAT's special values, which are written in the cycles before the first slice."""
    return [special_code(value) for value in format_specials(FORMAT)]


def _ports(payload: NDArray[Any], valid: NDArray[np.int64], ready: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """All ports of a stimulus."""
    cycles, specials = len(payload), _specials()
    lead = 1 + len(specials)
    writes = {name: np.zeros((cycles, 1), np.int64) for name in ("special_write", "special_index", "special_value")}
    writes["special_write"][1:lead] = 1
    writes["special_index"][1:lead, 0] = np.arange(len(specials))
    writes["special_value"][1:lead, 0] = specials
    ports = {"rst": reset_port(cycles), "clear": np.zeros((cycles, 1), np.int64), **writes}
    return {**ports, "slice__payload": payload, "slice__valid": valid, "column__ready": ready}


def _bits(words: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Slices as bits [slices, width], least significant first."""
    width = 4 * 16 + 4 * 8 + 3 + 2 + BitSerial.scale_bits + 2
    raw = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    return raw[:, :width]
