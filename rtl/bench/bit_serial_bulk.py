"""Hundreds of thousands of slices through a compiled bit-serial PE: what `verify` runs beside its cocotb bench."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.bench import bit_serial_stimulus as stimulus
from bitwright.rtl.bench.bit_serial_bench import Channels, require_channels, sums_and_cycles
from bitwright.rtl.bench.verilator import Compiled

_CHANNELS = 200  # of each kind and format
_FRACTIONS = np.array([0, 1, 512, 1022, 1023])


def runs(spec: BitSerial, seed: int) -> Iterator[tuple[str, Channels]]:
    """(what the channels are, the channels): every finite activation in every lane, every code beside activations of
    every exponent and sign, and some of everything else; scales and selectors are random, all of them."""
    for place, name in enumerate(stimulus.FORMATS):
        yield "every_finite_activation", every_activation(spec, name, seed + place)
        acts = (np.arange(64)[:, None] << 10 | _FRACTIONS).ravel().astype(np.uint16)
        finite = acts[acts & 0x7C00 != 0x7C00]
        yield "every_code", stimulus.product_channels(spec, name, finite, seed + place)
    for part in stimulus.bulk_channels(spec, _CHANNELS, seed):
        yield "channels_of_every_kind", part


def every_activation(spec: BitSerial, name: str, seed: int) -> Channels:
    """Channels of one slice whose lanes have every finite fp16 activation, each lane in an order of its own."""
    rng, encoding = np.random.default_rng([seed, 41]), spec.encoding(name)
    every = np.arange(1 << 16)
    finite = every[every & 0x7C00 != 0x7C00].astype(np.uint16)
    act = np.stack([rng.permutation(finite) for _ in range(spec.lanes)], axis=1)
    code = rng.integers(0, 1 << encoding.code_bits, act.shape)
    scale, selector = rng.integers(1, 256, (len(act), 1)), rng.integers(0, 4, (len(act), 1))
    return Channels(name, encoding, spec.lanes, act, code, scale, selector)


def check(spec: BitSerial, design: Compiled, channels: Channels, *, seed: int, replay: str) -> int:
    """Every sum, and the cycles between sums of one length, from random power-up state; returns how many slices.

    Raises MismatchError at the first difference.
    """
    got, at = sums_and_cycles(design, channels, seed=seed)
    require_channels(channels, spec, got, replay=replay)
    depth = channels.act.shape[1]
    must = spec.cycles(channels.format, depth)
    if depth <= channels.group and (np.diff(at) != must).any():
        apart = sorted({int(step) for step in np.diff(at)})
        raise MismatchError(
            f"{design.top}, {channels.format}: sums of {depth} products {apart} cycles apart: must be {must}; "
            f"replay: {replay}"
        )
    return len(channels.act) * -(-depth // spec.lanes)
