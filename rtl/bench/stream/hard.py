"""Steps that random codes would hardly ever make: sums that cancel, ties of a rounding, numbers small beside the sum.

`hard_steps` has some for each PE whose arithmetic needs them; benches, mutants and netlists take them beside the rest.
`climbing_sums` are longer than those can be: one sum up to the top bits of a carry-save accumulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.block_dot import BlockDot
from bitwright.arch.pe.digits import PLACES, digits
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.arch.pe.opt import CarrySave, Opt2
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16
from bitwright.arch.pe.stream import FIRST, LAST, Steps, StreamSpec
from bitwright.arch.pe.w4a16_dequant import W4A16Dequant
from bitwright.rtl.bench import block_directed, block_stimulus
from bitwright.rtl.bench.stream import stimulus


def hard_steps(spec: StreamSpec, total: int, seed: int) -> Iterator[Steps]:
    """About `total` hard steps of a PE that has some."""
    for kind, make in _MAKERS.items():
        if isinstance(spec, kind):
            yield make(spec, total, seed)


def _bits(values: npt.NDArray[np.floating]) -> IntArray:
    return values.astype(np.float16).view(np.uint16).astype(np.int64)


def cancelling_sums(spec: Fp16Stream, count: int, seed: int) -> Steps:
    """Sums of six steps: three that fill the accumulator's fraction, one that nearly cancels them, one that is small
    against the rest (ties and sticky bits), one of any size. Exponents from one end to the other."""
    rng = np.random.default_rng(seed)
    exponent = rng.integers(-9, 9, (count, 1))
    act = np.ldexp(rng.uniform(1, 2, (count, 6)), exponent + rng.integers(-2, 2, (count, 6)))
    wgt = np.ldexp(rng.uniform(1, 2, (count, 6)), -rng.integers(0, 4, (count, 6)))
    wgt *= rng.choice([-1.0, 1.0], (count, 6))
    wgt[:, 1:3] = np.ldexp(wgt[:, 1:3], -rng.integers(0, 12, (count, 2)))
    act_bits, wgt_bits = _bits(act), _bits(wgt)
    short = rng.random((count, 6)) < 0.3
    act_bits = np.where(short, act_bits & 0xFE00, act_bits)  # few significant bits make ties
    state = spec.start(count)
    for k in range(3):
        state = spec.step(state, {"act": act_bits[:, k], "wgt": wgt_bits[:, k]})
    factor = act_bits[:, 3].astype(np.uint16).view(np.float16).astype(np.float64)
    wgt_bits[:, 3] = _bits(-state[0].astype(np.float64) / factor) + rng.integers(-1, 2, count)
    small = np.ldexp(act[:, 4], -rng.integers(18, 28, count) // 2)
    act_bits[:, 4], wgt_bits[:, 4] = _bits(small), _bits(np.ldexp(wgt[:, 4], -rng.integers(8, 14, count)))
    act_bits[:, 5] = rng.integers(0, 0x7C00, count) | rng.integers(0, 2, count) << 15
    # Every prefix of a sum is seen: all its steps are marked last.
    steps = {
        "act": (act_bits & 0xFFFF).ravel(),
        "wgt": (wgt_bits & 0xFFFF).ravel(),
        **stimulus.flags(np.full(count, 6)),
    }
    return spec.tame({**steps, LAST: np.ones(6 * count, dtype=np.int64)})


def small_operands(spec: Fp16Stream, count: int, seed: int) -> Steps:
    """Sums of four steps: three that fill the accumulator's fraction, then a subnormal of few bits times a number near
    a power of two. That product is 1/4 to 2**9 times the sum, mostly of the other sign: an error in the count of the
    subnormal's leading zeros shows in the last place of few such sums."""
    rng = np.random.default_rng(seed)
    leading = 1 << rng.integers(0, 10, count)
    below = rng.integers(0, 1024, count) & leading - 1
    subnormal = leading | np.where(rng.random(count) < 0.5, below >> rng.integers(0, 9, count), 0)
    fraction = rng.integers(0, 1024, count) >> np.where(rng.random(count) < 0.5, rng.integers(0, 10, count), 0)
    normal = rng.integers(16, 31, count) << 10 | fraction | rng.integers(0, 2, count) << 15
    act, wgt = np.zeros((count, 4), dtype=np.int64), np.zeros((count, 4), dtype=np.int64)
    act[:, 3], wgt[:, 3] = subnormal | rng.integers(0, 2, count) << 15, normal
    product = _value(act[:, 3]) * _value(wgt[:, 3])
    size, sign = np.abs(product) * np.exp2(-rng.uniform(-2, 9, count)), np.sign(product)
    for k, (places, same) in enumerate(((0, 0.1), (10, 0.5), (20, 0.5))):
        wanted = np.ldexp(size * rng.uniform(1, 2, count), -places)
        half = np.floor(np.log2(np.maximum(wanted, 2.0**-48)) / 2)
        factor = np.ldexp(rng.uniform(1, 2, count), np.clip(half, -13, 14).astype(np.int64))
        signs = np.where(rng.random(count) < same, sign, -sign)
        act[:, k], wgt[:, k] = _bits(factor), _bits(signs * wanted / factor)
    swapped = rng.random((count, 1)) < 0.5
    steps = {"act": np.where(swapped, wgt, act) & 0xFFFF, "wgt": np.where(swapped, act, wgt) & 0xFFFF}
    flat = {name: codes.ravel() for name, codes in steps.items()}
    return spec.tame({**flat, **stimulus.flags(np.full(count, 4)), LAST: np.ones(4 * count, dtype=np.int64)})


def _value(bits: IntArray) -> npt.NDArray[np.float64]:
    return bits.astype(np.uint16).view(np.float16).astype(np.float64)


def _fp16_sums(spec: Fp16Stream, total: int, seed: int) -> Steps:
    parts = cancelling_sums(spec, max(2, total // 12), seed), small_operands(spec, max(2, total // 8), seed)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _dequantised_sums(spec: W4A16Dequant, total: int, seed: int) -> Steps:
    """The same with weights that are a scale times a code of 1."""
    steps = dict(_fp16_sums(Fp16Stream(), total, seed))
    scale = steps.pop("wgt")
    zeros = np.zeros_like(scale)
    return spec.tame({**steps, "wgt": zeros + 1, "scale": scale, "zero": zeros, "asym": zeros})


def shared_exponents(spec: ShiftAddA16, count: int, seed: int) -> Steps:
    """Sums of one to six steps for every shared exponent as often, 0 with nothing but subnormals, none raised by a
    larger activation, as random codes are: each activation's exponent is the sum's or any below it."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, max(32, count // 3))
    steps = stimulus.random_steps(spec, lengths, seed)
    exponent = np.repeat(np.arange(len(lengths)) % 32, lengths)
    act = np.asarray(steps["act"]).reshape(len(exponent), -1)
    below = rng.integers(0, exponent[:, None] + 1, act.shape)
    own = np.where(rng.random(act.shape) < 0.5, below, exponent[:, None])
    act = act & 0x83FF | own << 10
    return {**steps, "act": act[:, 0] if spec.lanes == 1 else act, "exponent": exponent}


def _blocks(spec: BlockDot, total: int, seed: int) -> Steps:
    """Random blocks of a kind, and blocks made for one event each."""
    parts = (
        block_stimulus.sequences(spec, max(8, total // 8), 8, seed),
        block_directed.directed(spec, max(8, total // block_directed.DEPTH), seed),
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def climbing_sums(spec: StreamSpec, total: int, seed: int) -> Iterator[Steps]:
    """About `total` steps of a carry-save PE with an adder: a sum that only grows, then one that only falls.

    No accumulator's vectors show their top bits otherwise: a carry there moves a place a step. Every prefix is seen, as
    all steps are marked last. Each digit plane of opt2 has such sums of its own, a quarter as long as those of the
    plane below, whose accumulator is two bits longer. Vectors that go out as they are have none: their golden takes
    the steps of a sum one by one.
    """
    if not isinstance(spec, CarrySave) or not spec.resolve_cycles:
        return
    ranges = {field.name: np.arange(field.low, field.high + 1) for field in spec.step_fields}
    act, wgt = (codes.ravel() for codes in np.meshgrid(ranges["act"], ranges["wgt"]))
    if isinstance(spec, Opt2):
        found = digits(spec.encoding, wgt) * act[:, None]
        added, shares = [found[:, place] for place in range(PLACES)], 0.25 ** np.arange(PLACES)
    else:
        added, shares = [spec.products({"act": act, "wgt": wgt})], np.ones(1)
    for place, (values, share) in enumerate(zip(added, shares / shares.sum(), strict=True)):
        for sign in (1, -1):
            much = np.flatnonzero(sign * values >= 0.9 * (sign * values).max())
            yield _climb(spec, act[much], wgt[much], max(2, int(total * share / 2)), seed + 2 * place + (sign < 0))


def _climb(spec: CarrySave, act: IntArray, wgt: IntArray, count: int, seed: int) -> Steps:
    """One sum of `count` steps whose operands are among the given pairs, every prefix of it seen."""
    lanes = {field.name: field.lanes for field in spec.step_fields}
    pair = np.random.default_rng(seed).integers(0, len(act), (count, lanes["wgt"]))
    steps = {"act": np.broadcast_to(act[pair], (count, lanes["act"])), "wgt": wgt[pair]}
    steps = {name: codes[:, 0] if lanes[name] == 1 else codes for name, codes in steps.items()}
    first = np.zeros(count, dtype=np.int64)
    first[0] = 1
    return {**steps, FIRST: first, LAST: np.ones(count, dtype=np.int64)}


_MAKERS: dict[type[StreamSpec], Callable[[Any, int, int], Steps]] = {
    BlockDot: _blocks,
    Fp16Stream: _fp16_sums,
    ShiftAddA16: shared_exponents,
    W4A16Dequant: _dequantised_sums,
}
