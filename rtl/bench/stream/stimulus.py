"""Steps for a streaming PE: random codes, extreme codes, every pair of codes, and a real model's operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.stream import FIRST, LAST, Field, Steps, StreamSpec

PAIRS_AT_ONCE = 1 << 16


def flags(lengths: IntArray) -> dict[str, IntArray]:
    """`first` and `last` of sums of the given lengths, one after the other."""
    ends = np.cumsum(lengths)
    first, last = np.zeros(int(ends[-1]), dtype=np.int64), np.zeros(int(ends[-1]), dtype=np.int64)
    first[np.append(0, ends[:-1])], last[ends - 1] = 1, 1
    return {FIRST: first, LAST: last}


def random_steps(spec: StreamSpec, lengths: IntArray, seed: int, *, corner_share: float = 0.0) -> Steps:
    """Sums of the given lengths of random codes; of each code, `corner_share` are the spec's corners.

    A mode is one for each sum.
    """
    rng, count, found = np.random.default_rng(seed), int(np.sum(lengths)), {}
    corners = spec.corners()
    for field in spec.step_fields:
        mode = field.name in spec.modes
        shape = (len(lengths) if mode else count, field.lanes)
        codes = rng.integers(field.low, field.high + 1, shape)
        if corner_share:
            extreme = rng.choice(np.asarray(corners[field.name], dtype=np.int64), shape)
            codes = np.where(rng.random(shape) < corner_share, extreme, codes)
        codes = np.repeat(codes, lengths, axis=0) if mode else codes
        found[field.name] = codes[:, 0] if field.lanes == 1 else codes
    return spec.tame({**found, **flags(np.asarray(lengths))})


def extreme_steps(spec: StreamSpec, length: int) -> Steps:
    """One sum of `length` steps for each combination of one corner of `act` and one of `wgt`, the same in all lanes."""
    names, corners = spec.multiplied, spec.corners()
    pairs = [(a, w) for a in corners[names[0]] for w in corners[names[1]]]
    found = dict(random_steps(spec, np.full(len(pairs), length), seed=1))
    for place, name in enumerate(names):
        found[name] = np.broadcast_to(
            np.repeat([pair[place] for pair in pairs], length).reshape(-1, *[1] * (np.ndim(found[name]) - 1)),
            np.shape(found[name]),
        ).copy()
    return spec.tame(found)


def pair_count(spec: StreamSpec) -> int:
    """Pairs of codes of the two multiplied fields."""
    return 1 << sum(field.bits for field in spec.step_fields if field.name in spec.multiplied)


def every_pair(spec: StreamSpec, seed: int) -> Iterator[Steps]:
    """Sums of one step that show every lane every pair of codes, for every mode; other fields random; in parts."""
    fields = {field.name: field for field in spec.step_fields}
    act, wgt = (fields[name] for name in spec.multiplied)
    total = pair_count(spec)
    for mode in _every_mode([fields[name] for name in spec.modes]):
        for start in range(0, total, PAIRS_AT_ONCE):
            number = np.arange(start, min(start + PAIRS_AT_ONCE, total))
            found = dict(random_steps(spec, np.ones(len(number), dtype=np.int64), seed + start))
            found.update({name: np.full(len(number), value) for name, value in mode.items()})
            found[act.name] = _spread(number >> wgt.bits, act, total >> wgt.bits)
            found[wgt.name] = _spread(number & ((1 << wgt.bits) - 1), wgt, 1 << wgt.bits)
            yield spec.tame(found)


def _spread(codes: IntArray, field: Field, many: int) -> IntArray:
    """Codes 0..many-1 to every lane, each lane at another place of the cycle; signed as the field is."""
    lanes = (codes[:, None] + 37 * np.arange(field.lanes)[None, :]) % many
    lanes = lanes + (field.low if field.signed else 0)
    return lanes[:, 0] if field.lanes == 1 else lanes


def _every_mode(modes: list[Field]) -> Iterator[Mapping[str, int]]:
    if not modes:
        yield {}
        return
    for code in range(modes[0].low, modes[0].high + 1):
        for rest in _every_mode(modes[1:]):
            yield {modes[0].name: code, **rest}


def real_steps(spec: StreamSpec, count: int, seed: int) -> Steps:
    """`count` dot products of SmolLM2's activations and weights (576 or fewer channels), as the spec quantises them."""
    from bitwright.rtl.asic.operands import sample

    found, rng = sample(), np.random.default_rng(seed)
    channels = found.acts.shape[-1] - 1
    matrix = rng.integers(0, len(found.acts), count)
    token, row = rng.integers(0, found.acts.shape[1], count), rng.integers(0, found.weights.shape[1], count)
    return spec.quantised(found.acts[matrix, token, :channels], found.weights[matrix, row, :channels])
