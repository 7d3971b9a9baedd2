"""What the report refuses, and with which words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from bitwright.arch.errors import BitwrightError, ConfigError, MismatchError, StoreError
from bitwright.reports.checks import DECODED, MEASURED, NUMBERS, OPTIONAL, SUMS, TEXT, check_rows

Rows = list[dict[str, Any]]
AGAIN = "(run the point again with this version of bitwright)"


def message(rows: Rows, kind: type[BitwrightError]) -> str:
    with pytest.raises(kind) as raised:
        check_rows(rows)
    assert type(raised.value) is kind
    return str(raised.value)


def test_complete_rows_pass(rows: Rows) -> None:
    check_rows(rows)


def test_no_rows_says_to_run_a_sweep() -> None:
    assert message([], ConfigError) == (
        "rows = []: no results in the store: run a sweep first (bitwright sweep SPACE.yaml --store DIR)"
    )


@pytest.mark.parametrize("field", [*TEXT[1:], *OPTIONAL, *NUMBERS, "notes", "hashes", "versions"])
def test_a_missing_field_names_the_row_and_the_field(make_rows: Callable[..., Rows], field: str) -> None:
    rows = make_rows(3)
    del rows[1][field]
    wanted = f"row {rows[1]['key']!r}, field {field!r}: missing: every result row has it {AGAIN}"
    assert message(rows, StoreError) == wanted


def test_a_row_without_a_key_is_named_by_its_number(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(3)
    del rows[2]["key"]
    assert message(rows, StoreError) == f"row number 2, field 'key': missing: every result row has it {AGAIN}"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("pe", 3, "must be text"),
        ("cycles", "12", "must be a number"),
        ("cycles", None, "must be a number"),
        ("batch", True, "must be a number"),
        ("area_mm2", -1.0, "must be finite and not negative"),
        ("energy_uj", math.inf, "must be finite and not negative"),
        ("perplexity", math.nan, "must be finite and not negative"),
        ("perplexity", 0.5, "must be at least 1, that of a model that is never wrong"),
        ("group", 12.5, "must be an integer or null"),
        ("weight_unit", 1, "must be text or null"),
        ("notes", "one", "must be a list of texts"),
        ("hashes", ["a"], "must map names to texts"),
        ("versions", {"numpy": 2}, "must map names to texts"),
    ],
)
def test_a_wrong_value_names_row_field_value_and_rule(
    make_rows: Callable[..., Rows], field: str, value: object, rule: str
) -> None:
    rows = make_rows(2)
    rows[1][field] = value
    assert message(rows, StoreError) == f"row {rows[1]['key']!r}, field {field!r} = {value!r}: {rule} {AGAIN}"


def test_another_schema_is_refused(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(1)
    rows[0]["schema_version"] = 1
    assert message(rows, StoreError) == f"row {rows[0]['key']!r}, field 'schema_version' = 1: must be 2 {AGAIN}"


def test_a_key_may_appear_once(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(2)
    rows[1]["key"] = rows[0]["key"]
    wanted = f"row {rows[0]['key']!r}: appears more than once: a key is one design point (remove the copy)"
    assert message(rows, StoreError) == wanted


def test_an_infinite_perplexity_is_a_result(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(2)
    rows[1]["perplexity"] = rows[1]["bits_per_byte"] = math.inf
    check_rows(rows)


def test_rows_without_accuracy_or_decode_pass(
    rows: Rows, unmeasured: Callable[[Rows], Rows], prefill_only: Callable[[Rows], Rows]
) -> None:
    check_rows([*unmeasured(rows[:3]), *prefill_only(rows), *rows[3:]])
    check_rows(unmeasured(prefill_only(rows)))


@pytest.mark.parametrize("field", MEASURED[1:])
def test_accuracy_is_there_as_a_whole_or_not_at_all(rows: Rows, unmeasured: Callable[[Rows], Rows], field: str) -> None:
    half, value = unmeasured(rows[:1]), rows[0][field]
    half[0][field] = value
    rule = "must be null in a row whose perplexity is None"
    assert message(half, StoreError) == f"row {rows[0]['key']!r}, field {field!r} = {value!r}: {rule} {AGAIN}"
    rows[0][field] = None
    rule = "must be text" if field in TEXT else "must be a number"
    assert message(rows, StoreError) == f"row {rows[0]['key']!r}, field {field!r} = None: {rule} {AGAIN}"


@pytest.mark.parametrize("field", DECODED)
def test_decode_figures_are_null_exactly_without_output_tokens(
    rows: Rows, prefill_only: Callable[[Rows], Rows], field: str
) -> None:
    wrong = prefill_only(rows[:1])
    wrong[0][field] = 0.0
    rule = "must be null in a row whose output_tokens is 0"
    assert message(wrong, StoreError) == f"row {wrong[0]['key']!r}, field {field!r} = 0.0: {rule} {AGAIN}"
    rows[0][field] = None
    assert message(rows, StoreError) == f"row {rows[0]['key']!r}, field {field!r} = None: must be a number {AGAIN}"


@pytest.mark.parametrize(("total", "part"), [(total, part) for total, parts in SUMS for part in parts])
def test_parts_that_do_not_sum_are_a_mismatch(make_rows: Callable[..., Rows], total: str, part: str) -> None:
    rows = make_rows(2)
    rows[1][part] += rows[1][total] * 3e-6 + (1 if isinstance(rows[1][part], int) else 0)
    found = message(rows, MismatchError)
    start = rf"row '{rows[1]['key']}', (\w+) = .*: must be the sum of its parts, .* = .*; replay: "
    assert re.match(start, found)
    assert found.endswith(rows[1]["command"])
    assert MismatchError("").exit_code == 1


def test_the_mismatch_shows_total_parts_and_replay(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(1)
    rows[0].update(macs=10, prefill_macs=4, decode_macs=5, command="bitwright simulate it")
    assert message(rows, MismatchError) == (
        f"row {rows[0]['key']!r}, macs = 10: must be the sum of its parts, 9.0 = prefill_macs 4 + decode_macs 5; "
        "replay: bitwright simulate it"
    )


def test_float_rounding_is_not_a_mismatch(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(1)
    rows[0]["energy_uj"] *= 1 + 5e-7
    check_rows(rows)


def test_a_phase_faster_than_its_bound_is_a_mismatch(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(1)
    row = rows[0]
    row["decode_bound_cycles"] = row["decode_cycles"] * 2
    assert message(rows, MismatchError) == (
        f"row {row['key']!r}, decode_cycles = {row['decode_cycles']}: must not be below the analytic bound "
        f"decode_bound_cycles = {row['decode_bound_cycles']}; replay: {row['command']}"
    )
