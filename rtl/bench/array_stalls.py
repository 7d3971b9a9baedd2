"""Random stalls on an array's three streams, cycle by cycle, within the array's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from bitwright.rtl.bench.driver import Port
from bitwright.rtl.bench.verilator import Captured, Simulation, Stream
from bitwright.rtl.bench.words import Words

IDLE_CHANCES = (0.0, 0.25, 0.7)
"""A stream's chance to stay idle instead of offering a beat; every stream of a run draws one of them."""


class WeightRule:
    """When a weight-stationary array's source may offer a tile's first activation, and what it then owes.

    Row r of a tile has to be accepted no later than r - 1 cycles after the tile's first activation. For every tile
    a coin decides how the source keeps it: it waits until all rows are accepted, or (with `promise_chance`) it
    offers at once and from then on leaves no gap between the tile's weight rows.
    """

    def __init__(
        self, passes: Sequence[tuple[int, int]], rng: np.random.Generator, promise_chance: float = 0.5
    ) -> None:
        self.first_act = np.concatenate(([0], np.cumsum([m for m, _ in passes])[:-1])).tolist()
        self.wgt_end = np.cumsum([k for _, k in passes]).tolist()
        self.promises = (rng.random(len(passes)) < promise_chance).tolist()
        self.owed = 0
        """Weight rows before this one are offered without a gap."""

    def may_offer_act(self, beat: int, wgt_accepted: int) -> bool:
        """Whether activation `beat` may be offered in this cycle; call it only to offer, for it makes promises."""
        tile = int(np.searchsorted(self.first_act, beat))
        if tile == len(self.first_act) or self.first_act[tile] != beat or wgt_accepted >= self.wgt_end[tile]:
            return True
        if self.promises[tile]:
            self.owed = self.wgt_end[tile]
            return True
        return False


class _Source:
    """One stream's beats as input words. While it does not offer, its payload is the complement of the next beat."""

    def __init__(self, simulation: Simulation, stream: Stream) -> None:
        design = simulation.design
        self.stream = stream
        beats = len(next(iter(stream.payload.values())))  # type: ignore[arg-type]
        self.data = design.input_words(stream.payload, beats)
        mask = np.zeros(design.in_words, dtype=np.uint32)
        for name in stream.payload:
            _set_mask(mask, design.inputs[name])
        self.noise = self.data ^ mask
        self.valid_word = design.inputs[stream.valid].word
        self.ready_word = design.outputs[stream.ready].word
        self.data[:, self.valid_word] = 1
        self.next = 0
        self.pending = False
        stream.accepted_at = np.full(beats, -1, dtype=np.int64)

    def wants(self) -> bool:
        return not self.pending and self.next < len(self.data)

    def words(self) -> Words:
        row: Words = (self.data if self.pending else self.noise)[min(self.next, len(self.data) - 1)]
        return row

    def settle(self, out: Words, cycle: int) -> None:
        if self.pending and out[self.ready_word] & 1:
            self.stream.accepted_at[self.next] = cycle
            self.next += 1
            self.pending = False


def _set_mask(mask: Words, port: Port) -> None:
    mask[port.word : port.word + port.words] = 0xFFFFFFFF
    if port.bits % 32:
        mask[port.word + port.words - 1] = (1 << port.bits % 32) - 1


def stream_with_stalls(
    simulation: Simulation,
    streams: tuple[Stream, Stream, Stream],
    dataflow: str,
    passes: Sequence[tuple[int, int]],
    seed: int,
    expected: int,
    max_cycles: int,
    idle: Mapping[str, npt.ArrayLike],
) -> Captured:
    """As `Simulation.stream` of (tile, wgt, act), capturing `psum_valid`, with stalls drawn from `seed`.

    A beat once offered is held until taken. Weight-stationary sources keep `WeightRule`; output-stationary ones are
    independent. Fills `accepted_at` of each stream.
    """
    design = simulation.design
    rng = np.random.default_rng(seed)
    chances = rng.choice(IDLE_CHANCES, 3).tolist()
    rule = WeightRule(passes, rng) if dataflow == "ws" else None
    tile, wgt, act = sources = [_Source(simulation, stream) for stream in streams]
    base = design.input_words(idle, 1)[0]
    capture = design.outputs["psum_valid"].word
    captured = np.empty((expected, design.out_words), dtype=np.uint32)
    at: list[int] = []
    cycle = 0
    while cycle < max_cycles and len(at) < expected:
        draws = rng.random(3).tolist()
        if tile.wants():
            tile.pending = draws[0] >= chances[0]
        if act.wants() and draws[2] >= chances[2]:
            act.pending = rule is None or rule.may_offer_act(act.next, wgt.next)
        if wgt.wants():
            wgt.pending = draws[1] >= chances[1] or (rule is not None and wgt.next < rule.owed)
        words = base.copy()
        for source in sources:
            words |= source.words()
        out = simulation.run_words(words[None])[0]
        for source in sources:
            source.settle(out, cycle)
        if out[capture] & 1:
            captured[len(at)] = out
            at.append(cycle)
        cycle += 1
    return Captured(np.asarray(at, dtype=np.int64), design.output_values(captured[: len(at)]), cycle)
