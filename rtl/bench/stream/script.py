"""What a bench plays to a streaming PE: steps in order, their cycles, and the golden sum at each step marked `last`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.rtl.bench.stream.packing import as_integer, pack, step_words
from bitwright.rtl.bench.stream.stimulus import random_steps

LONGEST_STEPS = 1 << 17
_DROPPED, _EXTRA_LAST = 0.2, 0.1  # shares of sums without a `last`, and of steps marked `last` in mid-sum


@dataclass(frozen=True)
class Script:
    """Steps as the bits of the `step` payload, one golden call for all. `sums` is None but at a `last`."""

    payloads: list[int]
    cycles: list[int]
    first: list[bool]
    last: list[bool]
    sums: list[int | None]

    def __len__(self) -> int:
        return len(self.payloads)


def script(spec: StreamSpec, steps: Steps) -> Script:
    """The steps as a script; the first of them must be marked `first`."""
    last = (np.asarray(steps[LAST]) != 0).tolist()
    golden = iter(pack(spec.sum_fields, spec.sums(steps)) if any(last) else ())
    return Script(
        payloads=[as_integer(words) for words in step_words(spec, steps)],
        cycles=spec.step_cycles(steps).tolist(),
        first=(np.asarray(steps[FIRST]) != 0).tolist(),
        last=last,
        sums=[as_integer(next(golden)) if marked else None for marked in last],
    )


def cut_to(spec: StreamSpec, steps: Steps, cycles: int) -> Steps:
    """The whole sums at the front that take about `cycles` cycles; at least one."""
    starts = np.append(np.flatnonzero(np.asarray(steps[FIRST])), len(steps[FIRST]))
    spent = np.cumsum(spec.step_cycles(steps))
    end = int(starts[1:][max(0, int((spent[starts[1:] - 1] <= cycles).sum()) - 1)])
    return {name: values[:end] for name, values in steps.items()}


def shuffled(steps: Steps, seed: int) -> Steps:
    """The same sums in another order."""
    starts = np.append(np.flatnonzero(np.asarray(steps[FIRST])), len(steps[FIRST]))
    order = np.random.default_rng(seed).permutation(len(starts) - 1)
    at = np.concatenate([np.arange(starts[number], starts[number + 1]) for number in order])
    return {name: np.asarray(values)[at] for name, values in steps.items()}


def mixed_steps(spec: StreamSpec, count: int, seed: int) -> Steps:
    """About `count` steps of random and corner codes in short sums; some are dropped, some go on after a `last`."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([1, 1, 2, 3, 5, 8], max(2, count * 3 // 10))
    steps = random_steps(spec, lengths, seed, corner_share=0.3)
    ends, last = np.cumsum(lengths) - 1, np.array(steps[LAST])
    last[ends[:-1][rng.random(len(ends) - 1) < _DROPPED]] = 0
    last[rng.random(len(last)) < _EXTRA_LAST] = 1
    return spec.tame({**steps, LAST: last})


def dropping_steps(spec: StreamSpec, unfinished: int, finished: int, seed: int) -> Steps:
    """`unfinished` steps without a `last`, then a sum of `finished` steps."""
    steps = random_steps(spec, np.asarray([unfinished, finished]), seed, corner_share=0.3)
    last = np.array(steps[LAST])
    last[unfinished - 1] = 0
    return spec.tame({**steps, LAST: last})


def longest_steps(spec: StreamSpec) -> Steps | None:
    """The longest sum that fits the accumulator and one step more, of the ends of the operands' ranges.

    None if the spec promises no bound, or one beyond `LONGEST_STEPS`.
    """
    if spec.longest_sum is None or spec.longest_sum >= LONGEST_STEPS:
        return None
    length = spec.longest_sum + 1
    found = dict(random_steps(spec, np.full(4, length), seed=1))
    for place, name in enumerate(spec.multiplied):
        codes = spec.corners()[name]
        ends = np.asarray([(codes[0], codes[-1])[pair >> place & 1] for pair in range(4)])
        shape = (-1, *[1] * (np.ndim(found[name]) - 1))
        found[name] = np.broadcast_to(np.repeat(ends, length).reshape(shape), np.shape(found[name])).copy()
    return spec.tame(found)
