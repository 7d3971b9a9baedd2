"""Cycle-by-cycle traces of a streaming PE: inputs of every cycle and what the ports must show, known beforehand.

A trace binds exactly what arch.pe.stream.StreamSpec binds: `step.ready` and `sum.valid` in every cycle after the first
reset, the sum's payload only while `sum.valid` is high and only of sums begun after a reset. It is made from the
spec and from `StreamModel`, never from a design; being known, it is compared with many designs (mutants, netlists) at
the speed of the compiled model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.rtl.bench.stream import stimulus
from bitwright.rtl.bench.stream.bulk import lengths_for, schedule
from bitwright.rtl.bench.stream.hard import hard_steps
from bitwright.rtl.bench.stream.model import Offer, StreamModel
from bitwright.rtl.bench.stream.packing import as_integer, pack, port_values, step_fields, step_words, sum_words, unpack
from bitwright.rtl.bench.stream.player import RESET_CYCLES, Bools, TracePlayer, Wrong
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.bench.words import Words, word_count


@dataclass(frozen=True)
class Trace:
    """Inputs and the outputs that they must give, [cycles] each; the first cycles are a reset.

    `stalled`: source and sink waited; else every cycle's place is the schedule's. `shown`: cycles whose payload counts.
    """

    stalled: bool
    rst: Bools
    step_valid: Bools
    step_payload: Words
    sum_ready: Bools
    ready: Bools
    valid: Bools
    shown: Bools
    sum_payload: Words
    steps: int
    sums: int

    @property
    def cycles(self) -> int:
        return len(self.rst)


def unstalled(spec: StreamSpec, steps: Steps, latency_cycles: int | None = None) -> Trace:
    """Steps back to back with the sink always ready; what `bulk.check` runs, as a trace."""
    taken, offered = schedule(spec, steps, latency_cycles)
    total = int(max(taken[-1], offered[-1])) + 2
    at = np.arange(total)
    number = np.minimum(np.searchsorted(taken, at), len(taken) - 1)
    busy = at <= taken[-1]
    ready = np.where(busy, taken[number] == at, spec.step_cycles(steps)[number] == 1)
    valid = np.zeros(total, dtype=bool)
    valid[offered] = True
    golden = pack(spec.sum_fields, spec.sums(steps))
    payload = np.zeros((total, golden.shape[1]), dtype=np.uint32)
    payload[offered] = golden
    body = (busy, step_words(spec, steps)[number], np.ones(total, dtype=bool), ready, valid, valid, payload)
    return _after_reset(False, np.zeros(total, dtype=bool), body, len(taken), len(offered))


def _after_reset(stalled: bool, rst: Bools, body: tuple[npt.NDArray[Any], ...], steps: int, sums: int) -> Trace:
    """The trace with reset cycles in front."""

    def led(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros((RESET_CYCLES, *part.shape[1:]), dtype=part.dtype), part])

    valid, payload, sum_ready, ready, offered, shown, sum_payload = (led(part) for part in body)
    led_rst = np.concatenate([np.ones(RESET_CYCLES, dtype=bool), rst])
    return Trace(
        stalled, led_rst, valid, payload, sum_ready, ready, offered, shown, sum_payload, steps, sums
    )  # fmt: skip


def bulk_steps(spec: StreamSpec, total: int, seed: int, *, real: bool = True) -> Iterator[Steps]:
    """About `total` steps a part: random codes, corners, range ends all along a sum, a real model's operands."""
    rng = np.random.default_rng(seed)
    yield stimulus.random_steps(spec, lengths_for(total // 2, rng), seed)
    yield stimulus.random_steps(spec, lengths_for(total, rng), seed + 1, corner_share=0.4)
    yield kin_steps(spec, total, seed + 2)
    yield from hard_steps(spec, total, seed + 3)
    corners = spec.corners()
    pairs = len(corners[spec.multiplied[0]]) * len(corners[spec.multiplied[1]])
    yield stimulus.extreme_steps(spec, max(2, total // pairs))
    if real:
        yield stimulus.real_steps(spec, 8, seed)


def kin_steps(spec: StreamSpec, total: int, seed: int) -> Steps:
    """Short sums whose steps resemble each other: the one before with some bits changed, often a top one; few ones.

    Near cancellations, ties of a rounding and equal exponents come of it, which random codes hardly ever give.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, max(2, total // 3))
    steps = dict(stimulus.random_steps(spec, lengths, seed, corner_share=0.05))
    count = len(steps[FIRST])
    place = np.arange(count) - np.maximum.accumulate(np.where(steps[FIRST] != 0, np.arange(count), 0))
    for field in (field for field in spec.step_fields if field.name not in spec.modes):
        codes = np.asarray(steps[field.name]).reshape(count, field.lanes)
        sparse = codes & (np.int64(-1) << rng.integers(0, field.bits + 1, codes.shape))
        codes = np.where(rng.random(codes.shape) < 0.3, sparse, codes)
        for depth in range(1, int(place.max()) + 1):
            at = np.flatnonzero(place == depth)
            flip = np.int64(1) << rng.integers(0, field.bits, (len(at), field.lanes))
            flip = np.where(rng.random(flip.shape) < 0.4, np.int64(1) << (field.bits - 1), flip)
            kin = codes[at - 1] ^ np.where(rng.random(flip.shape) < 0.5, flip, 0)
            codes[at] = np.where(rng.random((len(at), 1)) < 0.85, kin, codes[at])
        codes &= (1 << field.bits) - 1
        codes = np.where(codes > field.high, codes - (1 << field.bits), codes)
        steps[field.name] = codes[:, 0] if field.lanes == 1 else codes
    return spec.tame(steps)


def restless_steps(spec: StreamSpec, total: int, seed: int) -> Steps:
    """Sums whose flags are disturbed: offered in the middle, gone on with after `last`, or dropped by a new `first`."""
    rng = np.random.default_rng(seed)
    lengths = np.where(rng.random(max(4, total // 4)) < 0.3, 1, rng.integers(1, 9, max(4, total // 4)))
    steps = dict(stimulus.random_steps(spec, lengths, seed, corner_share=0.3))
    count = len(steps[FIRST])
    for name, share in ((FIRST, 0.05), (LAST, 0.15)):
        steps[name] = np.where(rng.random(count) < share, 1 - steps[name] if name == LAST else 1, steps[name])
    steps[FIRST][0] = 1
    return spec.tame(steps)


def stalled(spec: StreamSpec, cycles: int, seed: int, latency_cycles: int | None = None) -> Trace:
    """Idle sources, back-pressure, resets, clears in mid-sum and garbage without `valid`, at changing rates."""
    steps = restless_steps(spec, cycles, seed)
    model = StreamModel(spec.timing.latency_cycles if latency_cycles is None else latency_cycles)
    log = _Log(spec, steps, model)
    log.run(cycles, np.random.default_rng([seed, 2]))
    return log.trace()


def replayed(spec: StreamSpec, payload: Words, valid: Bools, sum_ready: Bools, rst: Bools) -> Trace:
    """The trace of given inputs, [cycles] each; the source must obey its rule: what it offers holds until taken."""
    steps = unpack(step_fields(spec), payload)
    log = _Log(spec, steps, StreamModel(spec.timing.latency_cycles))
    for at in range(len(payload)):
        log.cycle(at if valid[at] else -1, at, bool(sum_ready[at]), bool(rst[at]))
    return log.trace()


def from_rows(spec: StreamSpec, rows: Sequence[Mapping[str, int]], payload_bits: int) -> Trace:
    """`replayed` of one {rst, valid, payload, sum__ready} a cycle, and some more cycles that let sums come out."""
    quiet = {"rst": 0, "valid": 0, "payload": rows[-1]["payload"], "sum__ready": 1}
    every = [*rows, *[quiet] * (spec.timing.latency_cycles + 2)]
    size = 4 * word_count(payload_bits)
    words = np.stack([np.frombuffer(each["payload"].to_bytes(size, "little"), dtype="<u4") for each in every])
    columns = (np.asarray([each[name] != 0 for each in every]) for name in ("valid", "sum__ready", "rst"))
    return replayed(spec, words.astype(np.uint32), *columns)


class _Log:
    """Drives a StreamModel cycle by cycle and writes down what went in and what must come out."""

    def __init__(self, spec: StreamSpec, steps: Steps, model: StreamModel) -> None:
        self.spec, self.steps, self.model = spec, steps, model
        self.duration = np.asarray(spec.step_cycles(steps)).tolist()
        self.first, self.last = (np.asarray(steps[name]).tolist() for name in (FIRST, LAST))
        self.rows: list[tuple[bool, bool, int, bool, bool, bool, int]] = []
        self.begun: list[int] | None = None  # the steps of the unfinished sum; None: it goes back to before a reset
        self.owed: deque[int] = deque()  # places in `held` of the sums in flight; -1: not comparable
        self.held: list[list[int]] = []
        self.place = -1
        self.taken = 0

    def run(self, cycles: int, rng: np.random.Generator) -> None:
        rates = rng.choice([1.0, 0.9, 0.5, 0.15], (cycles // 64 + 1, 2))
        draws, others = rng.random((cycles, 4)), rng.integers(0, len(self.first), cycles)
        following, pending, count = 0, -1, len(self.first)
        for at in range(cycles):
            offer_rate, ready_rate = rates[at // 64]
            if pending < 0 and draws[at, 0] < offer_rate:
                pending, following = following, (following + 1) % count
            rst = bool(draws[at, 2] < 0.01)
            taken = self.cycle(pending, int(others[at]), bool(draws[at, 1] < ready_rate), rst)
            if taken:
                pending = -1
            elif rst and draws[at, 3] < 0.8:  # else the same step stays on offer and starts again
                pending = -1
                while draws[at, 3] < 0.6 and not self.first[following]:
                    following = (following + 1) % count

    def cycle(self, pending: int, other: int, sum_ready: bool, rst: bool) -> bool:
        model, number = self.model, pending if pending >= 0 else other
        duration = self.duration[number]
        ready = model.ready(duration, sum_ready)
        place = self.place if model.offered else -1
        self.rows.append((rst, pending >= 0, number, sum_ready, ready, model.offered, place))
        moves = not model.offered or sum_ready
        offer = Offer(duration, bool(self.last[number])) if pending >= 0 else None
        taken = model.step(offer, sum_ready, rst)
        if taken:
            self._take(number)
        if rst:
            self.owed.clear()
            self.begun = None
        elif moves and model.offered:
            self.place = self.owed.popleft()
        return taken

    def _take(self, number: int) -> None:
        self.taken += 1
        if self.first[number]:
            self.begun = [number]
        elif self.begun is not None:
            self.begun.append(number)
        if self.last[number]:
            self.owed.append(-1 if self.begun is None else len(self.held))
            if self.begun is not None:
                self.held.append(list(self.begun))

    def trace(self) -> Trace:
        rst, valid, number, sum_ready, ready, offered, place = (
            np.asarray(column) for column in zip(*self.rows, strict=True)
        )
        held = self.held or [[0]]  # no sum at all: one that is never shown
        golden = pack(self.spec.sum_fields, sums_of(self.spec, self.steps, held))
        shown = place >= 0
        payload = np.where(shown[:, None], golden[np.maximum(place, 0)], np.uint32(0)).astype(np.uint32)
        body = (valid, step_words(self.spec, self.steps)[number], sum_ready, ready, offered, shown, payload)
        return _after_reset(True, rst, body, self.taken, len(np.unique(place[shown])))


def sums_of(spec: StreamSpec, steps: Steps, held: list[list[int]]) -> dict[str, IntArray]:
    """The golden sum of each list of step numbers."""
    at = np.asarray([number for numbers in held for number in numbers], dtype=np.int64)
    lengths = np.asarray([len(numbers) for numbers in held], dtype=np.int64)
    fields = {field.name: np.asarray(steps[field.name])[at] for field in spec.step_fields}
    return spec.sums({**fields, **stimulus.flags(lengths)})


class Player(TracePlayer):
    """A streaming PE's design with a trace's inputs laid out for it."""

    def __init__(self, spec: StreamSpec, design: Compiled, trace: Trace) -> None:
        self.spec, self.expected = spec, trace
        inputs: dict[str, npt.ArrayLike] = {
            "rst": trace.rst, "step__valid": trace.step_valid, "sum__ready": trace.sum_ready,
            "step__payload": port_values(trace.step_payload, design.inputs["step__payload"].bits),
        }  # fmt: skip
        super().__init__(design, design.input_words(inputs, trace.cycles), trace.stalled)

    def wrong(self, outputs: dict[str, npt.NDArray[Any]], part: slice) -> Wrong:
        want = self.expected
        levels = {"step.ready": ("step__ready", want.ready[part]), "sum.valid": ("sum__valid", want.valid[part])}
        handshakes = {name: ((outputs[port] != 0) != level, level) for name, (port, level) in levels.items()}
        payload = sum_words(self.spec, outputs["sum__payload"])
        return Wrong(handshakes, want.shown[part] & (payload != want.sum_payload[part]).any(axis=1))

    def payloads(self, outputs: dict[str, npt.NDArray[Any]], at: int, cycle: int) -> tuple[str, int, int]:
        found = sum_words(self.spec, outputs["sum__payload"][at : at + 1])[0]
        return "sum", as_integer(found), as_integer(self.expected.sum_payload[cycle])
