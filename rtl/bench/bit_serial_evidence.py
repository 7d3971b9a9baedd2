"""What mutants and netlist of the bit-serial PE go through: traces of its own streams."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.bench import bit_serial_bulk
from bitwright.rtl.bench import bit_serial_stimulus as stimulus
from bitwright.rtl.bench import bit_serial_trace as traces
from bitwright.rtl.bench.bit_serial_bench import Channels, random_channels
from bitwright.rtl.bench.stream import mutants
from bitwright.rtl.bench.stream.player import TracePlayer
from bitwright.rtl.bench.verilator import Compiled

_SHORT_CHANNELS, _SHORT_CYCLES = 16, 12_000
_LONG_CHANNELS, _LONG_CYCLES, _LONG_RUNS = 150, 40_000, 4


class Bench(mutants.Bench):
    """As its base, on traces of the PE's own streams."""

    short: ClassVar[tuple[str, ...]] = ("short_bulk", "short_stalled")
    inductive: ClassVar[bool] = False

    def _channels(self, parts: Sequence[Channels]) -> traces.Player:
        return traces.Player(self.mutated.design, traces.unstalled(self.spec, parts))

    def _stalls(self, cycles: int, seed: int) -> traces.Player:
        return traces.Player(self.mutated.design, traces.stalled(self.spec, cycles, seed))

    @cached_property
    def short_bulk(self) -> list[TracePlayer]:
        return [self._channels(list(stimulus.bulk_channels(self.spec, _SHORT_CHANNELS, self.seed)))]

    @cached_property
    def short_stalled(self) -> list[TracePlayer]:
        return [self._stalls(_SHORT_CYCLES, self.seed)]

    @cached_property
    def long_bulk(self) -> list[TracePlayer]:
        """Much more of the same, and every code times activations of every exponent and sign."""
        fractions = np.array([0, 1, 1023], np.uint16)
        acts = (np.arange(64, dtype=np.uint16)[:, None] << 10 | fractions).ravel().astype(np.uint16)
        products = [stimulus.product_channels(self.spec, name, acts, self.seed) for name in stimulus.FORMATS]
        more = list(stimulus.bulk_channels(self.spec, _LONG_CHANNELS, self.seed + 10))
        return [self._channels(more), *(self._channels([part]) for part in products)]

    @cached_property
    def long_stalled(self) -> list[TracePlayer]:
        return [self._stalls(_LONG_CYCLES, self.seed + 20 + number) for number in range(_LONG_RUNS)]

    def directed(self, number: int, seconds: float) -> str:
        """Nothing is known: the search for inputs is written for streams of steps."""
        return ""


def run_netlist(
    spec: BitSerial, design: Compiled, *, steps: int, cycles: int, seed: int, real: bool
) -> tuple[int, int, int]:
    """(slices, sums, cycles with stalls) that were compared.

    steps : slices, about, of each format in groups of 128, beside channels of all kinds. real : no part is.
    """
    channels = -(-steps * spec.lanes // 128)
    replay = f"python -m bitwright.rtl.bench.stream.netlists {spec.name} --seed {seed}"
    bulk = traces.unstalled(spec, list(stimulus.bulk_channels(spec, _LONG_CHANNELS, seed)))
    stalled = traces.stalled(spec, cycles, seed)
    for trace in (bulk, stalled):
        traces.Player(design, trace).require(seed=seed)
    slices, sums = bulk.slices + stalled.slices, bulk.sums + stalled.sums
    for name in stimulus.FORMATS:
        part = random_channels(spec, name, channels, 128, 128, seed, wild=True)
        slices += bit_serial_bulk.check(spec, design, part, seed=seed, replay=replay)
        sums += channels
    return slices, sums, stalled.cycles
