"""The table precompute unit against its golden: all pairs of int8 values, random and corner rows, cycles, waits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from bitwright.arch.pe.lut_tables import TableUnit
from bitwright.arch.pe.stream import IntArray
from bitwright.rtl.bench.stream.packing import pack
from bitwright.rtl.bench.verilator import Compiled, Stream, lint
from bitwright.rtl.bench.words import Words, to_integers
from bitwright.rtl.pe.emit import emit
from bitwright.rtl.pe.lut_tables import TableUnit as Component

UNITS = [TableUnit(), TableUnit(1, 3, "fp16", 0, True), TableUnit(2, 4, "fp16", 10)]


def stem(unit: TableUnit) -> str:
    return unit.module_name


@cache
def design(unit: TableUnit) -> Compiled:
    return Compiled(emit(Component(unit), unit.module_name), unit.module_name)


def port(unit: TableUnit, rows: IntArray) -> Words | IntArray:
    """Rows as the bench takes them: integers up to 64 bits, words above."""
    words, bits = pack([unit.act_field], {"act": rows}), unit.act_field.bits * unit.act_field.lanes
    return words if bits > 64 else np.asarray(to_integers(words, bits)).astype(np.int64)


def random_rows(unit: TableUnit, count: int) -> IntArray:
    rng, field = np.random.default_rng(17), unit.act_field
    ends = [field.low, field.high, 0] if field.signed else [0, 1, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x7C00, 0xFFFF, 0x8000]
    rows = rng.integers(field.low, field.high + 1, (count, field.lanes))
    if not field.signed:  # half of the rows with exponents close together
        near = (rows[:, :1] & 0x7800) | (rows & 0x87FF)
        rows = np.where(rng.random((count, 1)) < 0.5, near, rows)
    return np.where(rng.random(rows.shape) < 0.1, rng.choice(np.asarray(ends), rows.shape), rows)


def pairs(unit: TableUnit) -> IntArray:
    """All pairs of int8 values in neighbouring lanes, the other lanes random."""
    number, parts = np.arange(1 << 16), []
    for lane in range(unit.k - 1):
        rows = random_rows(unit, 1 << 16)
        rows[:, lane], rows[:, lane + 1] = (number & 255) - 128, (number >> 8) - 128
        parts.append(rows)
    return np.concatenate(parts)


@pytest.mark.parametrize("unit", UNITS, ids=stem)
def test_tables_equal_the_golden_one_set_a_cycle(unit: TableUnit) -> None:
    rows = random_rows(unit, 100_000) if unit.scaled else pairs(unit)
    stream = Stream("act__valid", "act__ready", {"act__payload": port(unit, rows)})
    with design(unit).open(random_state=True, seed=18) as running:
        running.reset()
        seen = running.stream(
            [stream], capture="table__valid", expected=len(rows), idle={"table__ready": 1}, max_cycles=len(rows) + 2
        )
    assert np.array_equal(stream.accepted_at, np.arange(len(rows)))
    assert np.array_equal(seen.at, np.arange(len(rows)) + unit.timing.latency_cycles)
    assert np.array_equal(seen.outputs["table__payload"], pack(unit.table_fields, unit.fields_of(unit.make(rows))))


@pytest.mark.parametrize("unit", UNITS, ids=stem)
def test_pauses_waits_and_resets(unit: TableUnit) -> None:
    """The ports of a register with a valid bit, in every cycle."""
    rng, cycles = np.random.default_rng(19), 3000
    rows, want = random_rows(unit, cycles), []
    offered, take, rst = (rng.random(cycles) < share for share in (0.6, 0.6, 0.02))
    rst[:2] = True
    held: int | None = None
    number, numbers = 0, []
    for cycle in range(cycles):
        ready = held is None or bool(take[cycle])
        numbers.append(number)
        want.append((ready, held))
        taken = ready and bool(offered[cycle])
        held = None if rst[cycle] else number if taken else None if ready else held
        number += taken
    inputs = {"act__valid": offered, "act__payload": port(unit, rows[numbers]), "table__ready": take, "rst": rst}
    with design(unit).open(random_state=True, seed=20) as running:
        seen = running.run(inputs, cycles)
    assert [bool(value) for value in seen["act__ready"][2:]] == [ready for ready, _ in want[2:]]
    assert [bool(value) for value in seen["table__valid"][2:]] == [held is not None for _, held in want[2:]]
    tables = pack(unit.table_fields, unit.fields_of(unit.make(rows)))
    shown = [(cycle, held) for cycle, (_, held) in enumerate(want) if held is not None]
    assert len(shown) > 1000
    for cycle, held in shown:
        assert np.array_equal(seen["table__payload"][cycle], tables[held])


@pytest.mark.parametrize("unit", UNITS, ids=stem)
def test_verilog_is_lint_clean(unit: TableUnit) -> None:
    assert lint(emit(Component(unit), unit.module_name), unit.module_name) == []
