"""Runs as lists of steps: what every sequence gets, and that nothing is lost or done twice."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import hypothesis.strategies as st
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads import batching, steps
from bitwright.workloads.batching import Limits, Request
from bitwright.workloads.steps import Advance, Step
from hypothesis import given, settings


def processed(run: tuple[Step, ...]) -> Counter[int]:
    """Context position -> how many sequences put a token there."""
    found: Counter[int] = Counter()
    for step in run:
        for item in step.sequences:
            for position in range(item.context, item.keys):
                found[position] += item.count
    return found


def test_static_run() -> None:
    assert steps.static(5, 2, 3) == (
        Step((Advance(5, 0, "prefill", 1, 3),)),
        Step((Advance(1, 5, "decode", 1, 3),)),
        Step((Advance(1, 6, "decode", 1, 3),)),
    )


def test_chunks_of_two_prompts() -> None:
    run = steps.chunked(5, 2, 3, batch=2)
    assert [step.sequences for step in run] == [
        (Advance(3, 0, "prefill", 0),),
        (Advance(2, 3, "prefill", 1),),
        (Advance(1, 5), Advance(3, 0, "prefill", 0)),
        (Advance(1, 6), Advance(2, 3, "prefill", 1)),
        (Advance(1, 5),),
        (Advance(1, 6),),
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 6), st.integers(1, 50), st.integers(1, 4))
def test_chunked_puts_every_token_through_once(prompt: int, output: int, chunk: int, batch: int) -> None:
    run = steps.chunked(prompt, output, chunk, batch)
    assert processed(run) == Counter(dict.fromkeys(range(prompt + output), batch))
    assert sum(step.logits for step in run) == batch * (1 + output)
    whole = steps.static(prompt, output, batch)
    assert processed(whole) == processed(run)
    if chunk >= prompt and batch == 1:
        assert run == whole


def test_mean_tokens_of_a_verification() -> None:
    """Leviathan's closed form, and a simulation of it."""
    for drafts, acceptance in ((0, Fraction(1, 2)), (4, Fraction(4, 5)), (7, Fraction(3, 10))):
        closed = (1 - acceptance ** (drafts + 1)) / (1 - acceptance)
        assert steps.expected_tokens(drafts, acceptance) == closed
    draw = random.Random(3)
    tokens = 0
    for _ in range(20000):
        tokens += 1
        for _ in range(4):
            if draw.random() >= 0.8:
                break
            tokens += 1
    assert tokens / 20000 == pytest.approx(float(steps.expected_tokens(4, Fraction(4, 5))), rel=0.01)
    assert steps.expected_tokens(4, Fraction(1)) == 5


def test_speculation_with_the_expected_acceptance() -> None:
    """a = 1/2, 2 drafts: 7/4 tokens a step, so 1, 3, 5, 7 after 1 to 4 steps."""
    run = steps.speculative(10, 7, 2, 0.5)
    assert [step.sequences for step in run] == [
        (Advance(10, 0, "prefill", 1),),
        (Advance(3, 10, "decode", 3),),
        (Advance(3, 11, "decode", 3),),
        (Advance(3, 13, "decode", 3),),
        (Advance(2, 15, "decode", 2),),
    ]


def test_speculation_without_drafts_is_plain_decoding() -> None:
    assert steps.speculative(9, 4, 0, 0.7, batch=2) == steps.static(9, 4, 2)
    assert len(steps.speculative(9, 12, 3, 1.0)) == 1 + 3
    assert len(steps.speculative(9, 12, 3, 0)) == 1 + 12


def test_sampled_speculation_meets_the_mean_and_repeats() -> None:
    run = steps.speculative(4, 4000, 4, 0.8, seed=7)
    assert run == steps.speculative(4, 4000, 4, 0.8, seed=7)
    assert run != steps.speculative(4, 4000, 4, 0.8, seed=8)
    mean = float(steps.expected_tokens(4, Fraction(4, 5)))
    assert 4000 / (len(run) - 1) == pytest.approx(mean, rel=0.05)
    contexts = [step.sequences[0].context for step in run[1:]]
    assert all(1 <= later - earlier <= 5 for earlier, later in itertools.pairwise(contexts))


def test_sequences_of_a_sampled_batch_go_their_own_way() -> None:
    run = steps.speculative(4, 30, 3, 0.6, batch=5, seed=1)
    assert any(len(step.sequences) > 1 for step in run)
    assert sum(item.count for item in run[1].sequences) == 5
    assert max(item.keys for step in run for item in step.sequences) <= 34


def replay(requests: list[Request], limits: Limits, pace: float) -> list[tuple[float, Step]]:
    return list(batching.continuous(requests, limits, lambda step: pace * step.tokens))


def test_continuous_batching_by_hand() -> None:
    """Two places, whole prompts, a second a step: the third request waits for the first to leave."""
    requests = [Request(0.0, 4, 2), Request(0.5, 3, 3), Request(0.6, 2, 0), Request(99.0, 1, 1)]
    run = list(batching.continuous(requests, Limits(sequences=2), lambda _: 1.0))
    assert [(now, step.sequences) for now, step in run] == [
        (0.0, (Advance(4, 0, "prefill"),)),
        (1.0, (Advance(1, 4), Advance(3, 0, "prefill"))),
        (2.0, (Advance(1, 5), Advance(1, 3))),
        (3.0, (Advance(1, 4), Advance(2, 0, "prefill"))),
        (4.0, (Advance(1, 5),)),
        (99.0, (Advance(1, 0, "prefill"),)),
        (100.0, (Advance(1, 1),)),
    ]


def test_decodes_come_first_and_prompts_fill_what_is_left() -> None:
    requests = [Request(0.0, 3, 3), Request(0.0, 9, 0)]
    run = list(batching.continuous(requests, Limits(sequences=2, step_tokens=4), lambda _: 1.0))
    assert [step.sequences for _, step in run] == [
        (Advance(3, 0, "prefill", 1), Advance(1, 0, "prefill", 0)),
        (Advance(1, 3), Advance(3, 1, "prefill", 0)),
        (Advance(1, 4), Advance(3, 4, "prefill", 0)),
        (Advance(1, 5), Advance(2, 7, "prefill", 1)),
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.builds(Request, st.floats(0, 30, allow_nan=False), st.integers(1, 12), st.integers(0, 5)),
        min_size=1, max_size=12,
    ),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(4, 20)),
    st.one_of(st.none(), st.integers(17, 40)),
    st.floats(0, 2),
)  # fmt: skip
def test_every_request_is_served_within_the_limits(
    requests: list[Request], most: int, step_tokens: int | None, cached: int | None, pace: float
) -> None:
    run = replay(requests, Limits(most, step_tokens, cached), pace)
    wanted: Counter[int] = Counter()
    for request in requests:
        wanted.update(range(request.prompt_tokens + request.output_tokens))
    assert processed(tuple(step for _, step in run)) == wanted
    assert sum(step.logits for _, step in run) == sum(1 + request.output_tokens for request in requests)
    for now, step in run:
        assert sum(item.count for item in step.sequences) <= most
        assert step_tokens is None or step.tokens <= step_tokens
        assert cached is None or sum(item.keys * item.count for item in step.sequences) <= cached
        assert now >= min(request.arrival_s for request in requests)
    assert [now for now, _ in run] == sorted(now for now, _ in run)


def test_requests_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "load.csv"
    file.write_text("arrival_s,output_tokens,prompt_tokens,user\n0.5, 3, 40, a\n2,0,7,b\n")
    assert batching.read_requests(file) == (Request(0.5, 40, 3), Request(2.0, 7, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 'arrival_s' is missing; its first line must name arrival_s, prompt_tokens, output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n", "no rows below the header; must have at least one"),
        ("arrival_s,prompt_tokens\n0,4\n", "column 'output_tokens' is missing; its first line must name "
         "arrival_s, prompt_tokens, output_tokens"),
    ],
)  # fmt: skip
def test_files_without_requests(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "load.csv"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        batching.read_requests(file)
    assert str(error.value) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nan,4,1", "arrival_s = nan: must be a number of at least 0"),
        ("-1,4,1", "arrival_s = -1.0: must be a number of at least 0"),
        ("inf,4,1", "arrival_s = inf: must be a number of at least 0"),
        ("soon,4,1", "arrival_s = 'soon': must be a number"),
        ("0,0,1", "prompt_tokens = 0: must be a whole number of at least 1"),
        ("0,4,-1", "output_tokens = -1: must be a whole number of at least 0"),
        ("0,4.5,1", "prompt_tokens = '4.5': must be a whole number"),
        ("0,4", "output_tokens = '': must be a whole number"),
    ],
)
def test_impossible_requests_name_their_line(tmp_path: Path, row: str, message: str) -> None:
    file = tmp_path / "load.csv"
    file.write_text(f"arrival_s,prompt_tokens,output_tokens\n1,1,1\n{row}\n")
    with pytest.raises(ConfigError) as error:
        batching.read_requests(file)
    assert str(error.value) == f"{file}, line 3: {message}"


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        batching.read_requests(tmp_path / "none.csv")
    assert str(error.value) == f"{tmp_path / 'none.csv'}: no such file"
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError) as error:
        batching.read_requests(tmp_path / "binary.csv")
    assert str(error.value) == f"{tmp_path / 'binary.csv'}: must be UTF-8 text"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Advance(0, 4), "new_tokens = 0: must be a whole number of at least 1; the workload"),
        (lambda: Advance(1, -4), "context = -4: must be a whole number of at least 0; the workload"),
        (lambda: Advance(1, float("nan")), "context = nan: must be a whole number of at least 0; the workload"),
        (lambda: Advance(2, 4, logits=3), "logits = 3: must be at most new_tokens = 2; the workload"),
        (lambda: Advance(2, 4, "train"), "phase = 'train': must be 'prefill' or 'decode'; the workload"),
        (lambda: Step(()), "step = (): must advance at least one sequence; the workload"),
        (lambda: steps.static(0, 1), "prompt_tokens = 0: must be a whole number of at least 1; the workload"),
        (lambda: steps.chunked(4, 1, 0), "chunk_tokens = 0: must be a whole number of at least 1; the workload"),
        (lambda: steps.speculative(4, 1, 2, 1.5), "acceptance = 1.5: must be a number in 0..1; the workload"),
        (lambda: steps.speculative(4, 1, 2, float("nan")), "acceptance = nan: must be a number in 0..1; the workload"),
        (lambda: steps.speculative(4, 1, -1, 0.5), "drafts = -1: must be a whole number of at least 0; the workload"),
        (lambda: replay([], Limits(2), 1.0), "requests = (): must be at least one; the workload"),
        (
            lambda: replay([Request(0, 9, 2)], Limits(2, cached_tokens=10), 1.0),
            "cached_tokens = 10: a request of 9 + 2 tokens can never enter; the workload",
        ),
        (
            lambda: Limits(4, step_tokens=3),
            "step_tokens = 3: must be at least sequences = 4, which all decode one token a step; the workload",
        ),
        (
            lambda: replay([Request(0, 9, 2)], Limits(2), -1.0),
            "seconds_of(step) = -9.0: must be a number of at least 0",
        ),
    ],
)
def test_impossible_runs(make: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()  # type: ignore[operator]
    assert str(error.value) == message
