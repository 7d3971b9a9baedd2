"""Millions of steps through a compiled streaming PE: every sum and every cycle compared with the spec."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.rtl.bench.stream.monitors import another_latency, steps_of_sum
from bitwright.rtl.bench.stream.packing import as_integer, pack, step_port, step_words, sum_words, unpack
from bitwright.rtl.bench.verilator import Compiled, Stream
from bitwright.rtl.bench.words import Words
from bitwright.rtl.pe import streaming


@cache
def compiled(spec: StreamSpec) -> Compiled:
    """The PE's own Verilog, compiled once a machine."""
    return Compiled(streaming.verilog(spec), spec.module_stem)


@dataclass(frozen=True)
class Counts:
    """What a run compared."""

    sums: int
    steps: int
    macs: int
    cycles: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.sums + other.sums, self.steps + other.steps, self.macs + other.macs, self.cycles + other.cycles
        )


NONE = Counts(0, 0, 0, 0)
_PATIENCE_CYCLES = 32  # for sums that come later than they must: the message says by how much


def schedule(spec: StreamSpec, steps: Steps, latency_cycles: int | None = None) -> tuple[IntArray, IntArray]:
    """(cycle in which each step is taken, cycle in which each sum is on offer) when nothing waits.

    Counted from the cycle of the first offer.
    """
    latency = spec.timing.latency_cycles if latency_cycles is None else latency_cycles
    taken = np.cumsum(spec.step_cycles(steps)) - 1
    return taken, taken[np.asarray(steps[LAST]) != 0] + latency


def check(
    spec: StreamSpec, steps: Steps, *, design: Compiled | None = None, latency_cycles: int | None = None,
    seed: int = 1, power_up: int | None = None, replay: str = "", run: str = "",
) -> Counts:  # fmt: skip
    """Run steps back to back from random power-up state; every sum and every cycle must be the spec's.

    The first step must be marked `first`. `design` is another implementation with the same ports; `latency_cycles`
    its latency if it is not the spec's. `power_up` is the seed of that state, if it is not the run's `seed`, which
    a message names; `run` is what it calls these steps. Raises MismatchError at the first
    difference.
    """
    design = design or compiled(spec)
    taken_at, offered_at = schedule(spec, steps, latency_cycles)
    cycles = int(offered_at[-1]) + 1
    stream = Stream("step__valid", "step__ready", {"step__payload": step_port(spec, steps)})
    with design.open(random_state=True, seed=seed if power_up is None else power_up) as running:
        running.reset()
        seen = running.stream(
            [stream], capture="sum__valid", expected=len(offered_at), idle={"sum__ready": 1},
            max_cycles=cycles + _PATIENCE_CYCLES,
        )  # fmt: skip
    got = sum_words(spec, seen.outputs["sum__payload"])
    want = pack(spec.sum_fields, spec.sums(steps))
    if len(got) != len(want):
        wrong: str | None = (
            f"{len(got)} sums in {cycles + _PATIENCE_CYCLES} cycles: must be {len(want)} in {cycles} "
            f"(sum.valid too late or lost)"
        )
    else:
        wrong = _wrong_sum(spec, steps, got, want)
        wrong = wrong or _wrong_cycle("step taken", stream.accepted_at, taken_at)
        wrong = wrong or _wrong_cycle("sum on offer", seen.at, offered_at, latency_cycles)
    if wrong is not None:
        where = f"{design.top}, {run}{', ' if run else ''}seed {seed}"
        raise MismatchError(f"{where}: {wrong}" + (f"\nreplay: {replay}" if replay else ""))
    return Counts(len(want), len(steps[FIRST]), int(spec.macs(steps).sum()), cycles)


def _wrong_cycle(what: str, found: IntArray, expected: IntArray, latency_cycles: int | None = None) -> str | None:
    """The first cycle that is not the contract's; with a latency that the user gave, also the one to try."""
    off = found - expected
    if not off.any():
        return None
    at = int(np.flatnonzero(off)[0])
    text = f"{what} {at} in cycle {found[at]}: must be {expected[at]}"
    if latency_cycles is None or (off != off[0]).any():
        return text
    return text + another_latency(latency_cycles, latency_cycles + int(off[0]))


def _wrong_sum(spec: StreamSpec, steps: Steps, got: Words, want: Words) -> str | None:
    """The first sum that is not the golden one, with the steps that it is the sum of."""
    wrong = np.flatnonzero((got != want).any(axis=1))
    if not len(wrong):
        return None
    at = int(wrong[0])
    values = [unpack(spec.sum_fields, words[at : at + 1]) for words in (got, want)]
    name = next(name for name in values[0] if (values[0][name] != values[1][name]).any())
    pair = [np.atleast_1d(found[name][0]) for found in values]
    lane = int(np.flatnonzero(pair[0] != pair[1])[0])
    end = int(np.flatnonzero(np.asarray(steps[LAST]) != 0)[at])
    start = int(np.flatnonzero(np.asarray(steps[FIRST])[: end + 1])[-1])
    bits = next(field.bits for field in spec.sum_fields if field.name == name)
    shown = [f"{int(values[lane]) & ((1 << bits) - 1):#0{2 + -(-bits // 4)}x} ({int(values[lane])})" for values in pair]
    which = f"{name}[{lane}]" if len(pair[0]) > 1 else name

    def payload(number: int) -> int:
        step = {field: np.asarray(codes)[number : number + 1] for field, codes in steps.items()}
        return as_integer(step_words(spec, step)[0])

    return (
        f"sum {at}, {which} = {shown[0]}: must be {shown[1]}; "
        f"{steps_of_sum(range(start, end + 1), payload, spec.step_fields)}; "
        f"{len(wrong)} of {len(want)} sums differ"
    )


def lengths_for(total: int, rng: np.random.Generator, longest: int = 40) -> npt.NDArray[np.int64]:
    """Random lengths of sums, together about `total` steps, many of them 1."""
    count = max(1, 2 * total // longest)
    found = rng.integers(1, longest, count)
    return np.where(rng.random(count) < 0.2, 1, found)
