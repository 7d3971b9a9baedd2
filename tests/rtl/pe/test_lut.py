"""lut against its golden: every weight code, activation and pattern of signs; tiles; cycles; protocol."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from bitwright.arch.pe.base import wrap
from bitwright.arch.pe.lut import ABLATION, VARIANTS, Lut
from bitwright.arch.pe.stream import IntArray, Steps
from bitwright.rtl.bench.stream import bulk, stimulus, traces
from bitwright.rtl.bench.stream.packing import step_port, sum_words, unpack
from bitwright.rtl.bench.verilator import Compiled, Stream, lint
from bitwright.rtl.pe import streaming

Params = dict[str, Any]
REPLAY = "pytest tests/rtl/pe/test_lut.py"
DEFAULT = Lut()
SMALL = [Lut(**params) for params in Lut.variants if params]
STORED = [spec for spec in SMALL if spec.precompute and spec.weight_bits == 4 and not spec.tables.scaled]


def stem(spec: Lut) -> str:
    return spec.module_stem


@cache
def verilog(spec: Lut) -> str:
    return streaming.verilog(spec)


@cache
def design(spec: Lut) -> Compiled:
    return Compiled(verilog(spec), spec.module_stem)


def run(spec: Lut, steps: Steps) -> bulk.Counts:
    return bulk.check(spec, steps, design=design(spec), replay=REPLAY)


def singles(spec: Lut, act: IntArray, wgt: IntArray, bits: int) -> Steps:
    """Sums of one step each."""
    count = len(act)
    plane = {"top_plane": np.full(count, bits - 1)} if spec.weight_bits > 1 else {}
    return {"act": act, "wgt": wgt, **plane, **stimulus.flags(np.ones(count, dtype=np.int64))}


def outputs(spec: Lut, steps: Steps, max_cycles: int) -> dict[str, IntArray]:
    """What the hardware gives, not compared with anything."""
    stream = Stream("step__valid", "step__ready", {"step__payload": step_port(spec, steps)})
    with design(spec).open(random_state=True, seed=13) as running:
        running.reset()
        seen = running.stream(
            [stream], capture="sum__valid", expected=int(np.sum(steps["last"])), idle={"sum__ready": 1},
            max_cycles=max_cycles,
        )  # fmt: skip
    return unpack(spec.sum_fields, sum_words(spec, seen.outputs["sum__payload"]))


# Exhaustive


@pytest.mark.parametrize("spec", STORED, ids=stem)
def test_every_code_times_every_activation_in_every_lane(spec: Lut) -> None:
    """Of each width 1..4: all lanes at once, each at another place, and one lane at a time, other activations 0."""
    assert {spec.variant for spec in STORED} == set(VARIANTS)
    parts = [run(spec, part) for part in stimulus.every_pair(spec, seed=1)]
    assert sum(part.steps for part in parts) == 4 << 12
    rng = np.random.default_rng(2)
    for bits in range(1, 5):
        codes, acts = (grid.ravel() for grid in np.meshgrid(np.arange(1 << bits), np.arange(-128, 128)))
        for lane in range(spec.k):
            act, wgt = np.zeros((len(acts), spec.k), dtype=np.int64), rng.integers(0, 1 << bits, (len(acts), 2, spec.k))
            act[:, lane], wgt[:, 0, lane], wgt[:, 1, lane] = acts, codes, codes[::-1]
            run(spec, singles(spec, act, spec.stored(wgt, bits).reshape(len(act), -1), bits))


@pytest.mark.parametrize("spec", STORED, ids=stem)
def test_every_pattern_of_a_plane_reads_its_entry(spec: Lut) -> None:
    """All 2**4 patterns in each plane, and all 2**16 pairs of patterns in two planes, with activations of which no two
    patterns' sums are equal."""
    pattern = np.arange(1 << 16)
    wgt = np.stack([(pattern >> lane & 1) + 2 * (pattern >> (4 + lane) & 1) for lane in range(8)], axis=1)
    wgt[:, 4:] = np.stack([(pattern >> (8 + lane) & 1) + 2 * (pattern >> (12 + lane) & 1) for lane in range(4)], axis=1)
    act = np.broadcast_to([-101, 57, 23, 8], (1 << 16, 4))
    sums = [sum(x if p >> lane & 1 else -x for lane, x in enumerate((-101, 57, 23, 8))) for p in range(16)]
    assert len(set(sums)) == 16
    run(spec, singles(spec, act, wgt, 2))


def test_every_code_of_eight_bits_times_every_entry() -> None:
    """Tables from outside whose entries take all 2**11 values, each at another place, under all 8-bit codes: every
    pair at every slot of the table."""
    spec = Lut(**Lut.variants[5])
    number = np.arange(1 << 19)
    entries = (number[:, None] + 37 * np.arange(spec.m * spec.tables.entries)) % 2048 - 1024
    wgt = ((number >> 11)[:, None] + 51 * np.arange(spec.k)) & 255
    flags = stimulus.flags(np.ones(len(number), dtype=np.int64))
    counts = run(spec, {"table": entries, "wgt": wgt, "top_plane": np.full(len(number), 7), **flags})
    assert counts.cycles == 8 * len(number) + spec.timing.latency_cycles


def test_every_sign_code_of_eight_bits_times_every_entry_read_from_every_slot() -> None:
    """Column s reads slot s in all planes, its top lane's code being the signs: 2**18 products at each of 8 slots."""
    spec = Lut(m=1, n=8, weight_bits=8)
    number, slot = np.arange(1 << 18), np.arange(8)
    entries = ((number >> 8)[:, None] + 129 * slot) % 1024 - 512
    wgt = np.zeros((len(number), 8, 4), dtype=np.int64)
    wgt[:, :, :3] = 255 * (slot[:, None] >> np.arange(3) & 1)
    wgt[:, :, 3] = (number[:, None] + 37 * slot) & 255
    flags = stimulus.flags(np.ones(len(number), dtype=np.int64))
    steps = {"table": entries, "wgt": wgt.reshape(-1, 32), "top_plane": np.full(len(number), 7), **flags}
    want = entries * (255 - 2 * wgt[:, :, 3])  # a stored sign bit of 1 is minus
    assert np.array_equal(spec.sums(steps)["psum"], want)
    run(spec, steps)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_code_of_eight_bits_times_every_activation_in_every_lane(variant: str) -> None:
    """Through the PE's own tables: one lane at a time, other activations 0, and all lanes at once at each width 1..8.

    All 65,536 pairs a lane; with one lane the other codes are random, which reads the value at every slot.
    """
    spec = Lut(m=1, n=1, weight_bits=8, variant=variant, precompute=True)
    number, rng = np.arange(1 << 16), np.random.default_rng(16)
    for lane in range(spec.k):
        act, wgt = np.zeros((len(number), 4), dtype=np.int64), rng.integers(0, 256, (len(number), 4))
        act[:, lane], wgt[:, lane] = (number >> 8) - 128, number & 255
        run(spec, singles(spec, act, spec.stored(wgt, 8), 8))
    assert sum(run(spec, part).steps for part in stimulus.every_pair(spec, seed=17)) == 8 << 16


@pytest.mark.parametrize("lane", range(4))
def test_every_code_times_every_fp16_activation(lane: int) -> None:
    """All 2**20 pairs of a 4-bit code and an fp16 code in a lane, other activations 0, other codes random.

    8-bit codes times fp16 codes are not done as pairs (2**24 a lane). The tables do not depend on the weights, and the
    lookup and the planes are int8's: the tests above hold 8-bit codes against all entries of 10 and 11 bits.
    """
    spec = Lut(m=1, n=1, activation="fp16", precompute=True, pipeline=2)
    number = np.arange(1 << 20)
    act, wgt = np.zeros((len(number), 4), dtype=np.int64), np.random.default_rng(lane).integers(0, 16, (1 << 20, 4))
    act[:, lane], wgt[:, lane] = number >> 4, number & 15
    run(spec, singles(spec, act, spec.stored(wgt, 4), 4))


def test_every_fp16_code_in_every_lane() -> None:
    """All 2**16 codes in each of 4 lanes, the others near it in exponent or anything, and the sums of all of them."""
    spec = Lut(m=1, n=2, activation="fp16", precompute=True, pipeline=2)
    rng, codes = np.random.default_rng(4), np.arange(1 << 16)
    for lane in range(4):
        near = (
            (codes[:, None] & 0x7C00) | rng.integers(0, 1 << 10, (1 << 16, 4)) | rng.integers(0, 2, (1 << 16, 4)) << 15
        )
        act = np.where(rng.random((1 << 16, 4)) < 0.7, near, rng.integers(0, 1 << 16, (1 << 16, 4)))
        act[:, lane] = codes
        run(spec, singles(spec, act, rng.integers(0, 16, (1 << 16, 8)), 4))


def test_every_row_of_corners_reads_all_entries() -> None:
    """All 15**4 rows of fp16 corner codes, ties and limits among them; the planes' addresses are all there are."""
    spec = Lut(m=1, n=2, activation="fp16", precompute=True, pipeline=2)
    act = np.asarray(list(product(spec.corners()["act"], repeat=4)))
    assert len(act) == 50_625
    address = np.arange(8).reshape(2, 4)  # [column, plane]
    codes = [
        sum((int(at) >> lane & 1) << plane for plane, at in enumerate(row)) for row in address for lane in range(4)
    ]
    run(spec, singles(spec, act, np.tile(codes, (len(act), 1)), 4))


# Properties


@pytest.mark.parametrize("spec", SMALL, ids=stem)
def test_sums_and_cycles_of_random_corner_and_real_steps(spec: Lut) -> None:
    rng = np.random.default_rng(5)
    counts = run(spec, stimulus.random_steps(spec, bulk.lengths_for(40_000, rng), seed=6))
    counts += run(spec, stimulus.random_steps(spec, bulk.lengths_for(40_000, rng), seed=7, corner_share=0.5))
    counts += run(spec, stimulus.extreme_steps(spec, 40))
    counts += run(spec, stimulus.real_steps(spec, 8, seed=8))
    assert counts.steps > 60_000


def test_default_tile() -> None:
    rng = np.random.default_rng(9)
    counts = run(DEFAULT, stimulus.random_steps(DEFAULT, bulk.lengths_for(2000, rng), seed=10, corner_share=0.2))
    counts += run(DEFAULT, stimulus.real_steps(DEFAULT, 128, seed=11))
    assert counts.macs > 900_000
    assert lint(verilog(DEFAULT), DEFAULT.module_stem) == []


def test_all_variants_give_the_same_sums() -> None:
    """The hardware of each, on its own stored form of the same weights, gives sum q' * x."""
    rng, count, bits = np.random.default_rng(12), 2000, 3
    act, codes = rng.integers(-128, 128, (count, 4)), rng.integers(0, 1 << bits, (count, 2, 4))
    want = np.einsum("ck,cnk->cn", act, 2 * codes - 7)
    for spec in STORED:
        steps = singles(spec, act, spec.stored(codes, bits).reshape(count, -1), bits)
        assert np.array_equal(spec.odd_sums(outputs(spec, steps, 4 * count))[:, 0], want)


def test_ablation_shrinks_what_a_pair_needs() -> None:
    """Entries of a table, and complements of addresses in the PE, as each stage says."""
    rows = {name: Lut(**{**params, "m": 1, "n": 2}) for name, params in ABLATION.items()}
    assert {name: row.tables.entries for name, row in rows.items()} == {
        "unpu": 16, "reinterpretation": 8, "no-negation": 8, "full": 8,
    }  # fmt: skip
    text = {name: verilog(row) for name, row in rows.items()}
    assert [name for name in VARIANTS if "unfolded_" in text[name]] == ["reinterpretation"]
    assert [name for name in VARIANTS if "signed_0_" not in text[name]] == ["full"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_the_ablation(variant: str) -> None:
    """Smaller in m and n only. All take tables from outside, so the areas of the rows compare."""
    spec = Lut(**{**ABLATION[variant], "m": 1, "n": 2})
    assert "make" not in verilog(spec)
    assert "row_0_make" in verilog(Lut(m=1, n=2, variant=variant, weight_bits=2, precompute=True))
    run(
        spec,
        stimulus.random_steps(spec, bulk.lengths_for(20_000, np.random.default_rng(18)), seed=19, corner_share=0.2),
    )
    run(spec, stimulus.real_steps(spec, 8, seed=20))


def test_illegal_planes_and_exponents_do_what_the_docstring_says() -> None:
    """The last plane again for each that is not there; totals and addends modulo their widths."""
    spec = Lut(m=1, n=1, weight_bits=3, activation="fp16")
    rng, count = np.random.default_rng(21), 4000
    assert (spec.tables.top_exponent, spec.plane_bits) == (32, 2)
    table, wgt = rng.integers(-128, 128, (count, 8)), rng.integers(0, 8, (count, 4))
    exponent, plane = rng.integers(33, 64, count), rng.integers(2, 4, count)
    entry = [table[np.arange(count), (wgt >> at & 1)[:, :3] @ [1, 2, 4]] for at in range(3)]
    value = [np.where(wgt[:, 3] >> at & 1, -entry[at], entry[at]) for at in range(3)]
    low = value[0] + 2 * value[1]
    total = wrap(np.where(plane == 3, low + 12 * value[2], low + 4 * value[2]), 11)
    steps = {"table": table, "exponent": exponent, "special": np.zeros(count, dtype=np.int64), "wgt": wgt}
    steps |= {"top_plane": plane, **stimulus.flags(np.ones(count, dtype=np.int64))}
    found = outputs(spec, steps, 4 * count)
    assert total.max() < 1 << 10 <= np.abs(low + 12 * value[2]).max()
    assert np.array_equal(found["psum"], wrap(total << exponent, 43))
    legal = steps | {"top_plane": np.full(count, 2), "exponent": np.minimum(exponent, 32)}
    assert np.array_equal(outputs(spec, legal, 4 * count)["psum"], spec.sums(legal)["psum"])


# Protocol


@pytest.mark.parametrize("spec", SMALL, ids=stem)
def test_pauses_waits_resets_and_dropped_sums(spec: Lut) -> None:
    trace = traces.stalled(spec, 4000, seed=14)
    assert trace.sums > 60
    traces.Player(spec, design(spec), trace).require(seed=15)


@pytest.mark.parametrize("spec", SMALL, ids=stem)
def test_verilog_is_lint_clean(spec: Lut) -> None:
    assert lint(verilog(spec), spec.module_stem) == []
