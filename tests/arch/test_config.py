"""Configs refuse what is wrong with one message: what, value, rule, where."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.arch import config, machine
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Machine

GOOD = """\
name: edge
pe: int8-mac
array:
  rows: 8
  cols: 8
  dataflow: ws
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "edge.yaml"
    path.write_text(text)
    return path


def message(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(Machine, write(tmp_path, text))
    return str(caught.value)


def test_good_file_loads_with_defaults(tmp_path: Path) -> None:
    loaded = machine.load(str(write(tmp_path, GOOD)))
    assert (loaded.pe, loaded.array.rows, loaded.clock_mhz) == ("int8-mac", 8, 250)


def test_unknown_key_names_file_line_and_closest_key(tmp_path: Path) -> None:
    text = GOOD.replace("  rows: 8", "  rosw: 8\n  rows: 8")
    expected = "array.rosw: unknown key; did you mean 'rows'? (known: cols, dataflow, rows); edge.yaml, line 4"
    assert message(tmp_path, text) == expected


def test_zero_dimension_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("cols: 8", "cols: 0")
    assert message(tmp_path, text) == "array.cols = 0: must be greater than or equal to 1; edge.yaml, line 5"


def test_unknown_pe_names_the_closest(tmp_path: Path) -> None:
    text = GOOD.replace("int8-mac", "int8-mca")
    assert message(tmp_path, text) == (
        "pe = 'int8-mca': unknown PE; did you mean 'int8-mac'? (known: fp16-mac, int8-mac, shift-add); "
        "edge.yaml, line 2"
    )


def test_missing_key_is_named(tmp_path: Path) -> None:
    assert message(tmp_path, GOOD.replace("name: edge\n", "")) == "name: missing; add this key; edge.yaml, line 1"


def test_every_broken_rule_is_told_on_its_own_line(tmp_path: Path) -> None:
    text = GOOD.replace("rows: 8", "rows: -1").replace("dataflow: ws", "dataflow: up")
    assert message(tmp_path, text).splitlines() == [
        "array.rows = -1: must be greater than or equal to 1; edge.yaml, line 4",
        "array.dataflow = 'up': must be 'ws' or 'os'; edge.yaml, line 6",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "edge.yaml: is empty; it must hold a mapping of keys"),
        ("- 1\n", "edge.yaml: holds list; it must hold a mapping of keys"),
        ("name: [\n", "edge.yaml, line 2: is not valid YAML (expected the node content, but found '<stream end>')"),
        ("name: a\nname: b\n", "edge.yaml, line 2: key 'name' stands twice (first on line 1); keep one"),
        ("name: &a [*a]\n", "edge.yaml, line 1: refers to itself; break the cycle of anchors"),
    ],
)
def test_file_that_is_no_mapping(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text) == expected


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as caught:
        machine.load(str(path))
    assert str(caught.value) == f"{path}: cannot be read (No such file or directory); give the path of a YAML file"


@pytest.mark.parametrize(
    ("name", "pe", "rows", "cols", "dataflow"),
    [
        ("int8-8x8", "int8-mac", 8, 8, "ws"),
        ("fp16-4x16-os", "fp16-mac", 4, 16, "os"),
        ("shift-add-32x32", "shift-add", 32, 32, "ws"),
        ("int8-mac-128x128-ws", "int8-mac", 128, 128, "ws"),
    ],
)
def test_machine_by_pattern(name: str, pe: str, rows: int, cols: int, dataflow: str) -> None:
    loaded = machine.load(name)
    assert (loaded.pe, loaded.array.rows, loaded.array.cols, loaded.array.dataflow.value) == (pe, rows, cols, dataflow)


@pytest.mark.parametrize("name", ["fp16", "int8", "mixpe"])
def test_shipped_machines_load(name: str) -> None:
    assert machine.load(name).name == name


def test_unknown_machine_says_what_can_be_written() -> None:
    with pytest.raises(ConfigError) as caught:
        machine.load("mixp")
    assert str(caught.value) == (
        "machine 'mixp': unknown; did you mean 'mixpe'? (known: fp16, int8, mixpe), a pattern such as int8-16x16 or "
        "int8-16x16-os, or the path of a YAML file"
    )


def test_too_large_array_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        machine.load("int8-512x8")
    assert str(caught.value) == "array.rows = 512: must be less than or equal to 256; machine 'int8-512x8'"


def test_zero_point_column_is_a_physical_column() -> None:
    assert machine.load("shift-add-8x8").physical_cols == 9
    assert machine.load("int8-8x8").physical_cols == 8
