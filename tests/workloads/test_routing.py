"""Which experts are touched: expectation against simulation, traces exactly, and refusals."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads.routing import UNIFORM, StatedRouting, TracedRouting, read_trace
from bitwright.workloads.shape_parts import Experts
from hypothesis import given, settings

FOUR = Experts(count=4, active=2, width=8)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 70), st.booleans())
def test_loads_deal_every_pick(active: int, idle: int, tokens: int, layers: int, skewed: bool) -> None:
    experts = Experts(count=active + idle, active=active, width=8)
    shares = None
    if skewed:  # one expert that everybody picks, one that nobody does
        rest = (active - 1) / (experts.count - 2) if experts.count > 2 else 0.0
        shares = (1.0, *[rest] * (experts.count - 2), 0.0) if rest <= 1 and (rest or active == 1) else None
    routing = StatedRouting(shares)
    loads = routing.loads(experts, tokens, layers)
    assert sum(load * number for load, number in loads) == tokens * active * layers
    assert all(1 <= load <= tokens for load, _ in loads)
    touched = sum(number for _, number in loads)
    assert abs(touched - layers * routing.distinct(experts, tokens)) <= 0.5 + 1e-9
    assert [load for load, _ in loads] == sorted({load for load, _ in loads}, reverse=True)


def test_one_token_touches_its_own_experts_and_many_touch_all() -> None:
    assert UNIFORM.loads(FOUR, 1, 3) == ((1, 6),)
    assert UNIFORM.loads(FOUR, 10_000, 3) == ((5000, 12),)
    assert UNIFORM.distinct(FOUR, 1) == pytest.approx(2)


def test_skewed_shares_against_simulation() -> None:
    """Picks drawn independently for each expert have the stated shares; the number a token is then random."""
    shares = (0.9, 0.6, 0.3, 0.2)
    draw, trials = random.Random(5), 20000
    for tokens in (1, 3, 8):
        found = sum(any(draw.random() < share for _ in range(tokens)) for _ in range(trials) for share in shares)
        assert StatedRouting(shares).distinct(FOUR, tokens) == pytest.approx(found / trials, rel=0.01)


def test_shares_of_a_trace_predict_its_distinct_experts() -> None:
    draw = random.Random(2)
    popular = [1, 1, 1, 1, 2, 2, 4, 8]
    experts = Experts(count=8, active=2, width=8)

    def token() -> tuple[int, ...]:
        first = draw.choices(range(8), popular)[0]
        return first, draw.choice([expert for expert in range(8) if expert != first])

    trace = TracedRouting((tuple(token() for _ in range(6000)),))
    shares = trace.shares(experts)
    assert sum(shares) == pytest.approx(2)
    counted = [sum(number for _, number in TracedRouting(trace.picks, first).loads(experts, 6, 1))
               for first in range(0, 5994, 6)]  # fmt: skip
    assert StatedRouting(shares).distinct(experts, 6) == pytest.approx(sum(counted) / len(counted), rel=0.03)


def test_traced_loads_are_counted() -> None:
    picks = (((0, 1), (0, 2), (0, 1)), ((3, 2), (2, 3), (1, 0)))
    assert TracedRouting(picks).loads(FOUR, 3, 2) == ((3, 1), (2, 3), (1, 3))
    assert TracedRouting(picks, first=2).loads(FOUR, 1, 2) == ((1, 4),)
    counts = Counter(pick for layer in picks for token in layer for pick in token)
    assert TracedRouting(picks).shares(FOUR) == tuple(counts[expert] / 6 for expert in range(4))


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        (StatedRouting((0.5, 1.5)), "shares = 2 numbers: must be one an expert, 4"),
        (StatedRouting((0.5, 0.5, 0.5, 1.5)), "shares[3] = 1.5: must be a probability in 0..1"),
        (StatedRouting((float("nan"), 0.5, 0.5, 1.0)), "shares[0] = nan: must be a probability in 0..1"),
        (StatedRouting((0.5, 0.5, 0.5, 0.4)), "shares sum to 1.9: must sum to active = 2, a token's experts"),
        (TracedRouting((((0, 1),),)), "trace of 1 layers: the model has 2 with experts"),
        (
            TracedRouting((((0, 1),), ((0, 1),))),
            "trace of 1 tokens (layer 0): the step needs tokens 0 to 1",
        ),
        (
            TracedRouting((((0, 1), (1, 1)), ((0, 1), (1, 2)))),
            "trace, layer 0: picks [1, 1]: must be 2 different experts of 0..3",
        ),
        (
            TracedRouting((((0, 1), (1, 4)), ((0, 1), (1, 2)))),
            "trace, layer 0: picks [1, 4]: must be 2 different experts of 0..3",
        ),
    ],
)
def test_routings_of_another_model(routing: StatedRouting | TracedRouting, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        routing.loads(FOUR, 2, 2)
    assert str(error.value) == message


def test_trace_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text(json.dumps({"picks": [[[0, 1], [2, 3]]]}))
    assert read_trace(file) == TracedRouting((((0, 1), (2, 3)),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "picks: must be a list of layers, each a list of at least one token"),
        ('{"picks": []}', "picks: must be a list of layers, each a list of at least one token"),
        ('{"picks": [[]]}', "picks: must be a list of layers, each a list of at least one token"),
        ('{"picks": [[[0, NaN]]]}', "picks[0]: [0, nan]: must be a list of expert numbers"),
        ('{"picks": [[3]]}', "picks[0]: 3: must be a list of expert numbers"),
    ],
)
def test_traces_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_trace(file)
    assert str(error.value) == f"{file}: {message}"
    with pytest.raises(ConfigError) as error:
        read_trace(tmp_path / "none.json")
    assert str(error.value) == f"{tmp_path / 'none.json'}: no such file"
