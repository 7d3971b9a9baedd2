"""Refuses result rows that are incomplete or whose parts do not add up, before anything is drawn.

The fields are those of result schema version 1. Nothing here repairs a row: a picture of a wrong row is worse
than no picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitwright.arch.errors import BitwrightError, ConfigError, MismatchError, StoreError

SCHEMA_VERSION = 2
"""The result schema that the report reads."""

RELATIVE_TOLERANCE = 1e-6
"""How far a sum of parts may be from its total, as a share of the total (float rounding only)."""

TEXT = [
    "key",
    "bitwright_version",
    "space_name",
    "machine",
    "pe",
    "dataflow",
    "node",
    "dram",
    "dram_scope",
    "weights",
    "acts",
    "kv",
    "head",
    "weight_path",
    "model",
    "text_sha256",
    "weights_sha256",
    "command",
]
"""Fields that hold text."""

OPTIONAL = ("group", "weight_unit")
"""Fields that must be present and may be null: no group (one scale a row), no column-edge unit."""

MEASURED = (
    "perplexity",
    "bits_per_byte",
    "bits_per_weight",
    "perplexity_predictions",
    "perplexity_window",
    "text_sha256",
    "weights_sha256",
)
DECODED = ("tpot_ms", "decode_tokens_per_s", "decode_energy_uj_per_token")

ABSENT: tuple[tuple[str, int | None, tuple[str, ...]], ...] = (
    ("perplexity", None, MEASURED),
    ("output_tokens", 0, DECODED),
)
"""(field, its value where something was not done, the fields that are null there and nowhere else): a model whose
weights are not here has no accuracy, a run without output tokens no decode."""

CYCLE_PARTS = ("stream", "array_stall", "fill_drain", "dram_wait", "vector")
OPERATOR_PARTS = ("attention_projections", "attention", "ffn", "head", "vector")
ENERGY_PARTS = (
    "array",
    "array_idle",
    "array_wires",
    "skew",
    "edge",
    "sram_act",
    "sram_wgt",
    "sram_out",
    "dram",
    "dram_idle",
    "vector",
    "clock_tree",
    "leakage",
)
AREA_PARTS = ("array", "edge", "sram", "vector", "clock_tree")

CYCLE_KEYS = tuple(f"cycles_{part}" for part in CYCLE_PARTS)
OPERATOR_KEYS = tuple(f"cycles_op_{part}" for part in OPERATOR_PARTS)
ENERGY_KEYS = tuple(f"energy_{part}_uj" for part in ENERGY_PARTS)
AREA_KEYS = tuple(f"area_{part}_mm2" for part in AREA_PARTS)

SUMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cycles", CYCLE_KEYS),
    ("cycles", OPERATOR_KEYS),
    ("cycles", ("prefill_cycles", "decode_cycles")),
    ("energy_uj", ENERGY_KEYS),
    ("energy_uj", ("prefill_energy_uj", "decode_energy_uj")),
    ("area_mm2", AREA_KEYS),
    ("macs", ("prefill_macs", "decode_macs")),
    ("dram_bytes", ("prefill_dram_bytes", "decode_dram_bytes")),
)
"""(total, its parts): each must add up in every row."""

BOUNDS = (("prefill_bound_cycles", "prefill_cycles"), ("decode_bound_cycles", "decode_cycles"))
"""(lower bound, simulated): an engine faster than the analytic bound is wrong."""

NUMBERS = [
    "schema_version",
    "rows",
    "cols",
    "clock_mhz",
    "act_buffer_kib",
    "wgt_buffer_kib",
    "out_buffer_kib",
    "dram_bandwidth_bytes_per_cycle",
    "vector_lanes",
    "prompt_tokens",
    "output_tokens",
    "batch",
    "cycles",
    "prefill_cycles",
    "decode_cycles",
    "latency_ms",
    "ttft_ms",
    "tpot_ms",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "energy_uj",
    "energy_uj_per_token",
    "prefill_energy_uj",
    "decode_energy_uj",
    "decode_energy_uj_per_token",
    "area_mm2",
    "perplexity",
    "bits_per_byte",
    "bits_per_weight",
    "perplexity_predictions",
    "perplexity_window",
    "macs",
    "prefill_macs",
    "decode_macs",
    "dram_bytes",
    "prefill_dram_bytes",
    "decode_dram_bytes",
    "prefill_bound_cycles",
    "decode_bound_cycles",
    "prefill_macs_per_cycle",
    "decode_macs_per_cycle",
    "peak_macs_per_cycle",
    "utilisation",
    "peak_memory_bytes",
    *CYCLE_KEYS,
    *OPERATOR_KEYS,
    *ENERGY_KEYS,
    *AREA_KEYS,
]
"""Fields that hold a number, 0 or more."""

MAY_BE_INFINITE = ("perplexity", "bits_per_byte")
"""A format that destroys the model may overflow these two; every other number is finite."""


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless every row is complete, of the right types, unique, and adds up.

    Raises ConfigError for an empty list; StoreError naming the row's key and the field for a missing or wrong
    value, another schema or a repeated key; MismatchError naming the total, its parts and the command that
    replays the point.
    """
    if not rows:
        raise ConfigError(
            "rows = []: no results in the store: run a sweep first (bitwright sweep SPACE.yaml --store DIR)"
        )
    seen: set[str] = set()
    for index, row in enumerate(rows):
        where = f"row {row['key']!r}" if isinstance(row.get("key"), str) else f"row number {index}"
        _check_fields(row, where)
        if row["key"] in seen:
            raise StoreError(f"{where}: appears more than once: a key is one design point (remove the copy)")
        seen.add(row["key"])
        _check_sums(row, where)


def _check_fields(row: Mapping[str, Any], where: str) -> None:
    again = "(run the point again with this version of bitwright)"
    for field in ("schema_version", *TEXT, *OPTIONAL, *NUMBERS, "notes", "hashes", "versions"):
        if field not in row:
            raise StoreError(f"{where}, field {field!r}: missing: every result row has it {again}")
    if row["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"{where}, field 'schema_version' = {row['schema_version']!r}: must be {SCHEMA_VERSION} {again}"
        )

    def refuse(field: str, rule: str) -> BitwrightError:
        return StoreError(f"{where}, field {field!r} = {row[field]!r}: {rule} {again}")

    absent: set[str] = set()
    for cause, nothing, fields in ABSENT:
        if row[cause] == nothing:
            absent.update(fields)
            for field in fields:
                if row[field] is not None:
                    raise refuse(field, f"must be null in a row whose {cause} is {nothing}")
    for field in TEXT:
        if field not in absent and not isinstance(row[field], str):
            raise refuse(field, "must be text")
    for field in (field for field in NUMBERS if field not in absent):
        value = row[field]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refuse(field, "must be a number")
        if math.isnan(value) or value < 0 or (math.isinf(value) and field not in MAY_BE_INFINITE):
            raise refuse(field, "must be finite and not negative")
    if "perplexity" not in absent and row["perplexity"] < 1:
        raise refuse("perplexity", "must be at least 1, that of a model that is never wrong")
    if row["group"] is not None and (isinstance(row["group"], bool) or not isinstance(row["group"], int)):
        raise refuse("group", "must be an integer or null")
    if row["weight_unit"] is not None and not isinstance(row["weight_unit"], str):
        raise refuse("weight_unit", "must be text or null")
    if not isinstance(row["notes"], list) or not all(isinstance(note, str) for note in row["notes"]):
        raise refuse("notes", "must be a list of texts")
    for field in ("hashes", "versions"):
        table = row[field]
        if not isinstance(table, dict) or not all(
            isinstance(name, str) and isinstance(value, str) for name, value in table.items()
        ):
            raise refuse(field, "must map names to texts")


def _check_sums(row: Mapping[str, Any], where: str) -> None:
    replay = f"replay: {row['command']}"
    for total, parts in SUMS:
        found = math.fsum(row[part] for part in parts)
        if abs(found - row[total]) > RELATIVE_TOLERANCE * max(abs(row[total]), abs(found)):
            listed = " + ".join(f"{part} {row[part]!r}" for part in parts)
            raise MismatchError(
                f"{where}, {total} = {row[total]!r}: must be the sum of its parts, {found!r} = {listed}; {replay}"
            )
    for bound, simulated in BOUNDS:
        if row[bound] > row[simulated] * (1 + RELATIVE_TOLERANCE):
            raise MismatchError(
                f"{where}, {simulated} = {row[simulated]!r}: must not be below the analytic bound "
                f"{bound} = {row[bound]!r}; {replay}"
            )
