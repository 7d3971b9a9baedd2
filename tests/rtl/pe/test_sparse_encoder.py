"""The border's sparse encoder against its spec, with stalls; before a column of opt4c against one with its encoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.arch.pe.sparse_encoder import FINAL, SparseEncoder
from bitwright.arch.pe.stream import FIRST, LAST, Field, Steps
from bitwright.rtl import pe
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.stream.packing import pack, step_port, sum_words, unpack
from bitwright.rtl.bench.verilator import Compiled, Stream, lint
from bitwright.rtl.pe.emit import plain
from bitwright.rtl.pe.sparse_encoder import verilog

WEIGHT = (Field("wgt", 8, signed=True), Field(FIRST, 1), Field(LAST, 1))
DIGIT = (Field("digit", 5), Field(FINAL, 1), Field(FIRST, 1), Field(LAST, 1))
CODES = np.arange(-128, 128)
CYCLES = 30_000  # more than any run here takes

encodings = pytest.mark.parametrize("encoding", ["en-t", "mbe"])


@cache
def compiled(spec: SparseEncoder) -> Compiled:
    return Compiled(verilog(spec), spec.module_name)


def pattern(share: float, seed: int) -> Any:
    """Offers in a share of the cycles; None: in all."""
    return None if share == 1 else np.random.default_rng(seed).random(CYCLES) < share


def encoded(spec: SparseEncoder, weights: Steps, offers: Any = None, takes: Any = None) -> tuple[dict[str, Any], Any]:
    """(digits that the unit sent, cycles in which they were taken); a digit on offer must hold until it is taken."""
    total = int(spec.cycles(weights).sum())
    wgt = Stream("wgt__valid", "wgt__ready", {"wgt__payload": pack(WEIGHT, weights)[:, 0]}, offers)
    # The sink is a source of takes: `ready` is what it holds until the unit's `valid` answers. It has no payload.
    sink = Stream("digit__ready", "digit__valid", {"rst": np.zeros(total + 9, dtype=np.int64)}, takes)
    with compiled(spec).open(random_state=True, seed=3) as running:
        running.reset()
        seen = running.stream([wgt, sink], capture="digit__valid", expected=CYCLES, max_cycles=CYCLES)
    taken = sink.accepted_at[sink.accepted_at >= 0]
    payload = seen.outputs["digit__payload"]
    ends = np.isin(seen.at, taken)
    assert ends.sum() == len(taken) == total
    waits = np.flatnonzero(~ends)
    assert np.array_equal(payload[waits], payload[waits + 1])
    assert np.array_equal(seen.at[waits] + 1, seen.at[waits + 1])
    digits = np.cumsum(spec.cycles(weights)) - 1
    assert (wgt.accepted_at < taken[digits]).all()  # each before its last digit
    return unpack(DIGIT, payload[ends].astype(np.uint32)[:, None]), taken


def some_weights(count: int, seed: int) -> dict[str, Any]:
    """Every weight, then random ones, many of them 0 or with all four digits; any flags."""
    rng = np.random.default_rng(seed)
    drawn = np.where(rng.random(count) < 0.3, rng.choice([0, -86, 85, -128], count), rng.integers(-128, 128, count))
    wgt = np.concatenate([CODES, drawn])
    return {"wgt": wgt, FIRST: rng.integers(0, 2, len(wgt)), LAST: rng.integers(0, 2, len(wgt))}


# The unit alone


@encodings
@pytest.mark.parametrize("offered", [1, 0.6])
@pytest.mark.parametrize("taken", [1, 0.6])
def test_digits_of_every_weight_with_and_without_stalls(encoding: str, offered: float, taken: float) -> None:
    spec, weights = SparseEncoder(encoding), some_weights(2000, 1)
    found, at = encoded(spec, weights, pattern(offered, 2), pattern(taken, 3))
    want = spec.encode(weights)
    assert {name: values.tolist() for name, values in found.items()} == {n: v.tolist() for n, v in want.items()}
    if offered == taken == 1:  # a digit a cycle, each on offer in the cycle after
        assert at.tolist() == list(range(1, len(want["digit"]) + 1))
    else:
        assert at[-1] > len(want["digit"])


@encodings
def test_a_reset_drops_the_digit_on_offer_and_the_place_in_a_weight(encoding: str) -> None:
    """85 has four digits 1. After two of them and a reset all four come again."""
    spec = SparseEncoder(encoding)
    weight = int(pack(WEIGHT, {"wgt": np.asarray([85]), FIRST: np.ones(1), LAST: np.ones(1)})[0, 0])
    with compiled(spec).open(random_state=True, seed=5) as running:
        running.reset()
        inputs = {"wgt__valid": np.ones(8), "wgt__payload": np.full(8, weight), "digit__ready": np.ones(8)}
        rst = np.asarray([0, 0, 1, 0, 0, 0, 0, 0])
        seen = running.run({**{name: values.astype(np.int64) for name, values in inputs.items()}, "rst": rst})
    digit = unpack(DIGIT, seen["digit__payload"].astype(np.uint32)[:, None])
    assert seen["digit__valid"].tolist() == [0, 1, 1, 0, 1, 1, 1, 1]
    assert seen["wgt__ready"].tolist() == [0, 0, 0, 0, 0, 0, 1, 0]
    assert (digit["digit"] >> 3)[[1, 2, 4, 5, 6, 7]].tolist() == [0, 1, 0, 1, 2, 3]
    assert digit[FIRST][4:].tolist() == [1, 0, 0, 0]
    assert digit[LAST][4:].tolist() == digit[FINAL][4:].tolist() == [0, 0, 0, 1]


@encodings
def test_ready_does_not_look_at_valid(encoding: str) -> None:
    spec = SparseEncoder(encoding)
    with compiled(spec).open() as running:
        running.reset()
        single = pack(WEIGHT, {name: np.asarray([0, 85]) for name in ("wgt", FIRST, LAST)})[:, 0]
        seen = running.run({"wgt__payload": single.astype(np.int64), "digit__ready": 0, "wgt__valid": 0}, 2)
    assert seen["wgt__ready"].tolist() == [1, 0]  # of one digit, of four
    assert seen["digit__valid"].tolist() == [0, 0]


@encodings
def test_its_verilog_is_an_edge_units_and_lint_clean(encoding: str) -> None:
    spec = SparseEncoder(encoding)
    text = verilog(spec)
    assert lint(text, spec.module_name) == []
    assert plain(pe.unit_verilog("sparse-encoder", encoding=encoding)) == text
    assert "\\" not in text


# Before a column


def column_sums(spec: Opt4c, steps: Steps, offers: Any) -> tuple[Any, Any]:
    """(the sums of the compiled column as words, cycles in which it took its steps)."""
    stream = Stream("step__valid", "step__ready", {"step__payload": step_port(spec, steps)}, offers)
    with bulk.compiled(spec).open(random_state=True, seed=7) as running:
        running.reset()
        seen = running.stream([stream], capture="sum__valid", expected=int(np.sum(steps[LAST])),
                              idle={"sum__ready": 1}, max_cycles=CYCLES)  # fmt: skip
    return sum_words(spec, seen.outputs["sum__payload"]), stream.accepted_at


@encodings
@pytest.mark.parametrize("share", [1, 0.6])
def test_encoder_and_column_are_the_column_with_its_encoder(encoding: str, share: float) -> None:
    """Digits as the encoder's Verilog sends them, each row's activation held until `final`."""
    spec = SparseEncoder(encoding)
    for rows, resolve_cycles in ((4, 2), (3, 0)):
        inside, outside = (
            Opt4c(rows=rows, encoding=encoding, encoder=encoder, resolve_cycles=resolve_cycles)
            for encoder in (True, False)
        )
        lengths = np.append(np.ones(256, dtype=np.int64), np.full(100, 15))  # every weight alone, then sums of 15
        steps = dict(stimulus.random_steps(inside, lengths, rows, corner_share=0.2))
        steps["wgt"] = np.append(CODES, np.asarray(steps["wgt"])[256:])
        weights = {name: steps[name] for name in ("wgt", FIRST, LAST)}
        sent, _ = encoded(spec, weights, pattern(share, 11), pattern(share, 12))
        at = np.append(0, np.cumsum(sent[FINAL])[:-1])  # a weight's digits are behind the finals of those before
        digits = {"act": np.asarray(steps["act"])[at], "wgt": sent["digit"], FIRST: sent[FIRST], LAST: sent[LAST]}
        offers = pattern(share, 13)
        want, taken = column_sums(inside, steps, offers)
        got, fed = column_sums(outside, digits, offers)
        assert len(want) == len(lengths)
        assert np.array_equal(got, want)
        assert len(fed) == inside.step_cycles(steps).sum()
        if share == 1:  # a digit a cycle, in both
            assert fed[-1] == taken[-1]
