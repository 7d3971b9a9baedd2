"""Names, numbers and comparisons that the report shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from bitwright.reports.compare import BUDGETS, Accuracy, pareto_front, phase_values
from bitwright.reports.labels import (
    act_scale,
    collect_notes,
    design_labels,
    energy_unit,
    mark,
    memory_labels,
    number,
    percent,
    policy_label,
    workloads,
)
from bitwright.reports.table import encode_column
from hypothesis import given
from hypothesis import strategies as st

Rows = list[dict[str, Any]]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12345.6, 4, "12,350"),
        (0.01234, 4, "0.01234"),
        (17.2134, 4, "17.21"),
        (9.9996, 4, "10.00"),
        (999.96, 4, "1,000"),
        (3.2e7, 4, "3.200e+07"),
        (0, 4, "0"),
        (434.4, 3, "434"),
        (math.inf, 4, "inf"),
    ],
)
def test_numbers_keep_their_significant_digits(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


@given(st.floats(1e-4, 9.9e6), st.integers(2, 6))
def test_a_printed_number_is_the_value_to_its_digits(value: float, digits: int) -> None:
    assert abs(float(number(value, digits).replace(",", "")) - value) <= 0.5001 * 10 ** (
        math.floor(math.log10(value)) - digits + 1
    )


def test_percent_becomes_a_factor_from_ten_times_on() -> None:
    assert [percent(1.094), percent(1.0), percent(24.0)] == ["+9.4 %", "+0.0 %", "\N{MULTIPLICATION SIGN}24"]


def test_energy_unit_follows_the_median() -> None:
    assert energy_unit([5.0, 2500.0, 9000.0]) == (1e-3, "mJ")
    assert energy_unit([0.01, 0.02]) == (1e3, "nJ")
    assert energy_unit([]) == (1.0, "µJ")


def test_labels_are_unique_and_hold_only_what_differs(rows: Rows) -> None:
    labels = design_labels(rows)
    assert len(set(labels)) == len(rows)
    assert not any("MHz" in second or "nangate45" in second for _, second in labels)


def test_equal_designs_are_told_apart_by_machine_or_key(make_rows: Callable[..., Rows]) -> None:
    row = make_rows(1)[0]
    twins = [row, {**row, "key": "other"}]
    assert [second for _, second in design_labels(twins)] == [
        f"{row['machine']} · {row['key']}",
        f"{row['machine']} · other",
    ]
    named = [row, {**row, "key": "other", "machine": "mine"}]
    assert [second for _, second in design_labels(named)] == [row["machine"], "mine"]


def test_a_memory_name_with_two_bandwidths_shows_them(make_rows: Callable[..., Rows]) -> None:
    row = make_rows(1)[0]
    fast = {**row, "dram_bandwidth_bytes_per_cycle": 12.5}
    slow = {**row, "dram_bandwidth_bytes_per_cycle": 6.25}
    assert memory_labels([row]) == [row["dram"]]
    assert memory_labels([fast, slow]) == [f"{row['dram']}, 12.5 B/cycle", f"{row['dram']}, 6.25 B/cycle"]


def test_policy_label_names_operands_once_when_they_agree(make_rows: Callable[..., Rows]) -> None:
    row = make_rows(1)[0] | {"weights": "int4", "group": 128, "acts": "int8", "kv": "int8", "head": "int8"}
    assert policy_label(row) == "int4 g128 weights, int8 acts, kv and head"
    assert policy_label(row | {"head": "fp16"}) == "int4 g128 weights, int8 acts, int8 kv, fp16 head"


def test_workloads_keep_different_texts_apart(make_rows: Callable[..., Rows]) -> None:
    first, second, third = make_rows(3)
    second["text_sha256"] = "f" * 64
    groups = workloads([first, second, third])
    assert [indices for _, indices in groups] == [[0, 2], [1]]
    assert groups[1][0].endswith(", text ffffffff")


def test_an_unmeasured_workload_is_told_apart_from_its_measured_twin(
    make_rows: Callable[..., Rows], unmeasured: Callable[[Rows], Rows]
) -> None:
    rows = make_rows(2)
    names = [name for name, _ in workloads([rows[0], *unmeasured(rows[1:])])]
    assert names[0].endswith(f", text {rows[0]['text_sha256'][:8]}")
    assert names[1].endswith(", perplexity not measured")


@pytest.mark.parametrize(
    ("acts", "words"), [("int8", "one a token"), ("int8_tensor", "one a tensor"), ("fp16", "none")]
)
def test_activation_scales_are_named_in_words(acts: str, words: str) -> None:
    assert act_scale({"acts": acts}) == words


def test_notes_of_some_rows_carry_marks(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(3)
    for row, notes in zip(rows, (["a", "b"], ["a", "c"], ["a", "b", "b"]), strict=True):
        row["notes"] = notes
    assert collect_notes(rows) == (["a"], ["b", "c"])
    assert [mark(i) for i in (0, 1, 5)] == ["†", "‡", "†6"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    front = pareto_front([(float(x), float(y)) for x, y in points])
    alive = [p for p in points if p[0] > 0 and p[1] > 0]
    beaten = {p for p, q in itertools.product(alive, alive) if q != p and q[0] <= p[0] and q[1] >= p[1]}
    assert [points[i] for i in front] == sorted(set(alive) - beaten)


def test_the_best_design_is_inside_every_budget(rows: Rows) -> None:
    accuracy = Accuracy.of(rows)
    best = min(rows, key=lambda row: float(row["perplexity"]))
    assert all(accuracy.within(best, ratio) for _, ratio in BUDGETS)
    assert accuracy.best <= accuracy.top <= accuracy.limit == 3 * accuracy.best


def test_prefill_energy_is_shared_by_prompt_tokens_and_batch(make_rows: Callable[..., Rows]) -> None:
    row = make_rows(1)[0] | {"prefill_energy_uj": 800.0, "prompt_tokens": 4, "batch": 2, "prefill_tokens_per_s": 9.0}
    assert phase_values(row, "prefill") == (100.0, 9.0)


@given(st.lists(st.one_of(st.none(), st.integers(), st.sampled_from("abc")), min_size=1))
def test_columns_survive_encoding(values: list[Any]) -> None:
    coded = encode_column(values)
    if isinstance(coded, dict):
        coded = [coded["c"]] * len(values) if "c" in coded else [coded["d"][at] for at in coded["i"]]
    assert coded == values
