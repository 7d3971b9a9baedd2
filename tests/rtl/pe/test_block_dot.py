"""Block-scaled dot products against their goldens: pairs of codes and scales, sums of many blocks, protocol, lint."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.block_dot import BlockDot, MxFp4Dot, MxFp8Dot, MxInt8Dot, NvFp4Dot, NvInt4Dot
from bitwright.arch.pe.stream import Steps
from bitwright.rtl.bench.block_directed import directed
from bitwright.rtl.bench.block_stimulus import sequences, single
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.verilator import Compiled, lint
from bitwright.rtl.pe import streaming

SPECS = [
    MxFp8Dot(),
    MxFp8Dot(element_format="e5m2"),
    MxFp8Dot(aligner_bits=24),
    MxInt8Dot(),
    MxFp4Dot(),
    NvFp4Dot(),
    NvInt4Dot(),
]
PIPELINED = [
    MxFp8Dot(pipeline=1),
    MxFp8Dot(element_format="e5m2", aligner_bits=24, pipeline=3),
    MxInt8Dot(pipeline=3),
    MxFp4Dot(pipeline=2),
    NvFp4Dot(pipeline=3),
    NvInt4Dot(pipeline=1),
]
DEPTH = 8


def stem(spec: BlockDot) -> str:
    return spec.module_stem


def check(spec: BlockDot, steps: Steps, design: Compiled | None = None) -> None:
    """Every sum equals the golden's, and comes out in its cycle: one a cycle, after the latency."""
    counts = bulk.check(spec, steps, design=design, replay="pytest tests/rtl/pe/test_block_dot.py")
    assert counts.cycles == spec.cycles(counts.steps) + 1


def one_lane(spec: BlockDot, lane: IntArray, pairs: IntArray, scales: tuple[int, int]) -> Steps:
    """Steps of one pair [n, 2] each, in the given lane [n]; the other lanes hold zeros."""
    codes = np.zeros((2, len(pairs), spec.lanes), dtype=np.int64)
    codes[:, np.arange(len(pairs)), lane] = pairs.T
    return single(*codes, *scales)


def grid(spec: BlockDot) -> IntArray:
    """Every pair of codes, [n, 2]."""
    number = np.arange(1 << 2 * spec.element.bits)
    return np.stack([number >> spec.element.bits, number & ((1 << spec.element.bits) - 1)], axis=1)


def every_pair_in_every_lane(spec: BlockDot, scales: tuple[int, int]) -> Iterator[Steps]:
    """4-bit codes and pairs with infinities or NaN one lane at a time; the others in all lanes at once.

    Those go by the size of their product, every lane a few pairs behind the one before: no lane's product is too small
    for the sum, so that none hides behind another's.
    """
    pairs, special = grid(spec), np.zeros(1 << spec.element.bits, dtype=bool)
    codes = np.arange(len(special))
    special[spec.element.is_nan(codes) | spec.element.is_inf(codes)] = True
    alone = special[pairs].any(axis=1) | (spec.element.bits == 4)
    if alone.any():
        lane = np.repeat(np.arange(spec.lanes), int(alone.sum()))
        yield one_lane(spec, lane, np.tile(pairs[alone], (spec.lanes, 1)), scales)
    if alone.all():
        return
    finite, behind = pairs[~alone], 3 * np.arange(spec.lanes)
    unit = np.exp2(spec.element.shift(finite).sum(axis=1))
    size = np.abs(spec.element.significand(finite).prod(axis=1)) * unit
    order = np.argsort(size, kind="stable")
    place = np.arange(len(finite) + behind[-1])[:, None] - behind
    inside = (place >= 0) & (place < len(finite))  # zeros elsewhere
    at = order[np.clip(place, 0, len(finite) - 1)]
    least = np.where(inside & (size[at] > 0), unit[at], np.inf).min(axis=1)
    assert (np.where(inside, size[at], 0).sum(axis=1) < np.minimum(least, 1e99) * (1 << 24)).all()  # fp32 holds all
    assert all(len(np.unique(at[inside[:, lane], lane])) == len(finite) for lane in range(spec.lanes))
    yield single(*(np.where(inside, finite[at, operand], 0) for operand in (0, 1)), *scales)


# Exhaustive


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_every_pair_of_codes(spec: BlockDot) -> None:
    """In every lane at scales of 1, and each in some lane, another one each time, at two extreme pairs of scales."""
    e8m0 = spec.scale_format == "e8m0"
    for steps in every_pair_in_every_lane(spec, (127, 127) if e8m0 else (0x38, 0x38)):
        check(spec, steps)
    rng, pairs = np.random.default_rng(1), grid(spec)
    for scales in ((3, 100), (210, 180)) if e8m0 else ((0x01, 0x81), (0x77, 0xF9)):
        check(spec, one_lane(spec, rng.integers(0, spec.lanes, len(pairs)), pairs, scales))


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_every_pair_of_scales(spec: BlockDot) -> None:
    act_scale, wgt_scale = (grid.ravel() for grid in np.meshgrid(np.arange(256), np.arange(256)))
    codes = np.zeros((2, 1 << 16, spec.lanes), dtype=np.int64)
    codes[0, :, 3], codes[1, :, 3] = 5, 3
    codes[0, :, -1], codes[1, :, -1] = (1 << spec.element.bits) - 5, 2
    check(spec, single(*codes, act_scale, wgt_scale))


def corner_pairs(spec: BlockDot) -> Steps:
    """In every lane every pair of: zeros, the least, ones, the greatest, infinities, NaN, of both signs."""
    half = 1 << (spec.element.bits - 1)
    corners = sorted({0, 1, half >> 1, half - 5, half - 4, half - 3, half - 2, half - 1} & set(range(half)))
    both = np.asarray([*corners, *(code + half for code in corners)])
    grids = np.meshgrid(np.arange(spec.lanes), both, both)
    lane, one_act, one_wgt = (grid.reshape(-1, 1) for grid in grids)
    act, wgt = np.ones((2, len(lane), spec.lanes), dtype=np.int64)
    np.put_along_axis(act, lane, one_act, axis=1)
    np.put_along_axis(wgt, lane, one_wgt, axis=1)
    return single(act, wgt, *((127, 127) if spec.scale_format == "e8m0" else (0x38, 0x38)))


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_corner_codes_in_every_lane(spec: BlockDot) -> None:
    check(spec, corner_pairs(spec))


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_the_widest_sums(spec: BlockDot) -> None:
    """All lanes at the extreme codes of either sign: the fixed-point sum at both ends of its width."""
    codes = np.arange(1 << spec.element.bits)
    finite = codes[~(spec.element.is_nan(codes) | spec.element.is_inf(codes))]
    value = spec.element.significand(finite) << spec.element.shift(finite)
    ends = finite[[value.argmin(), value.argmax(), np.abs(value).argmin()]]
    corners = np.stack([grid.ravel() for grid in np.meshgrid(ends, ends, ends, ends)])
    half = np.repeat(corners[:, :, None], spec.lanes // 2, axis=2)
    act, wgt = np.concatenate([half[0], half[1]], axis=1), np.concatenate([half[2], half[3]], axis=1)
    for scale in (0, 120, 250) if spec.scale_format == "e8m0" else (0x01, 0x77, 0xFE):
        check(spec, single(act, wgt, scale, scale))


# Random


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_sums_of_many_blocks(spec: BlockDot) -> None:
    """200,000 blocks in sums of 8, all partial sums: cancelling, subnormal, overflowing, with infinities and NaN."""
    blocks = sequences(spec, 25_000, DEPTH, seed=1)
    check(spec, blocks)


@pytest.mark.parametrize("spec", PIPELINED, ids=stem)
def test_pipelined_sums_of_many_blocks(spec: BlockDot) -> None:
    check(spec, sequences(spec, 5_000, DEPTH, seed=2))


@pytest.mark.parametrize("spec", SPECS + PIPELINED, ids=stem)
def test_directed_sums(spec: BlockDot) -> None:
    """Ties, cancellations of every depth, both ends of fp32's range: see tests/rtl/bench/test_block_directed.py."""
    check(spec, directed(spec, 4000, seed=1))


# Real operands


@pytest.mark.parametrize("spec", SPECS, ids=stem)
def test_dot_products_of_a_real_model(spec: BlockDot) -> None:
    check(spec, stimulus.real_steps(spec, 400, seed=1))


# The streams' protocol: tests/rtl/bench/test_stream_bench.py, as for every streaming PE.


@pytest.mark.parametrize("spec", SPECS + PIPELINED, ids=stem)
def test_verilog_is_one_module_the_same_each_time_and_lint_clean(spec: BlockDot) -> None:
    text = streaming.verilog(spec)
    assert streaming.verilog(spec) == text
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [spec.module_stem]
    assert lint(text, spec.module_stem) == []


# Tests that can fail

MUTANTS = [
    (MxFp8Dot(), r"block_round_up = (.*) & (.*);", r"block_round_up = \1;"),
    (MxFp8Dot(), r"block_subnormal_sticky = (.*) \| (.*);", r"block_subnormal_sticky = \1;"),
    (NvFp4Dot(), r"lane_9_sign = (\S+) \^ (\S+);", r"lane_9_sign = \1;"),
    (NvFp4Dot(), r"either_scale_nan = (.*) \| (.*);", r"either_scale_nan = \1;"),
]


@pytest.mark.parametrize(("spec", "pattern", "replacement"), MUTANTS)
def test_a_mutant_is_caught(spec: BlockDot, pattern: str, replacement: str) -> None:
    mutant, count = re.subn(pattern, replacement, streaming.verilog(spec), count=1)
    assert count == 1, f"nothing to mutate: {pattern}"
    with pytest.raises(MismatchError, match=r" of 40000 sums differ"):
        check(spec, sequences(spec, 5_000, DEPTH, seed=1), Compiled(mutant, spec.module_stem, optimise="-O0"))
