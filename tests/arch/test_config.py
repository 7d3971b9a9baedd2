"""Configs refuse what is wrong with one message: what, value, rule, where."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.arch import config, machine, pe, space
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
    expected = (
        "array.rosw: unknown key; did you mean 'rows'? (known: cols, dataflow, double_buffered, load_rows, rows); "
        "edge.yaml, line 4"
    )
    assert message(tmp_path, text) == expected


def test_zero_dimension_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("cols: 8", "cols: 0")
    assert message(tmp_path, text) == "array.cols = 0: must be greater than or equal to 1; edge.yaml, line 5"


def test_unknown_pe_names_the_closest(tmp_path: Path) -> None:
    text = GOOD.replace("int8-mac", "int8-mca")
    assert message(tmp_path, text) == (
        "pe = 'int8-mca': unknown PE; did you mean 'int8-mac'? (known: bit-serial, fp16-mac, int8-mac, lut, "
        "opt3, opt4c, outlier-victim, shift-add); edge.yaml, line 2"
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


# 30 anchors, each of which holds the one before it twice: 2**30 values in 800 bytes.
DOUBLING = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DOUBLING, "line 17: holds more than 100000 values once its anchors are expanded; use fewer"),
        ("name: " + "[" * 5000, "line 1: has more than 40 levels; make it flatter"),
        ("name:\n" + "".join(" " * i + "- \n" for i in range(60)), "line 41: has more than 40 levels; make it flatter"),
        ("? [1]\n: 2\n", "line 1: key of several values must be text (put it in quotes)"),
        ("1: 2\n", "line 1: key '1' must be text (put it in quotes)"),
        ("no: 2\n", "line 1: key 'no' must be text (put it in quotes)"),
        ("name: 2001-99-99\n", "line 1: is read as YAML's timestamp: must be plain data (put text in quotes)"),
        (
            "name: !!python/name:os x\n",
            "line 1: is read as YAML's python/name:os: must be plain data (put text in quotes)",
        ),
        ("name: !!int many\n", "line 1: 'many' is no int"),
        ("name: " + "9" * 5000 + "\n", f"line 1: '{'9' * 76}... is no int"),
        ("<<: [1]\n", "line 1: is not valid YAML (expected a mapping for merging, but found scalar)"),
    ],
)
def test_what_is_no_plain_data_of_a_bounded_size(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text) == f"edge.yaml, {expected}"


def test_long_files_are_not_read(tmp_path: Path) -> None:
    assert message(tmp_path, GOOD + "#" * 65536) == (
        f"{tmp_path / 'edge.yaml'}: {len(GOOD) + 65536} bytes: must be at most 65536; give the path of a YAML file"
    )


def test_messages_stay_short_and_printable(tmp_path: Path) -> None:
    text = GOOD.replace("int8-mac", "x" * 300) + "vector: {" + ", ".join(f'"\\e{i}": 1' for i in range(30)) + "}\n"
    lines = message(tmp_path, text).splitlines()
    assert lines[0].startswith(f"pe = '{'x' * 76}...: unknown PE; ")
    assert lines[1] == "vector.'\\x1b0': unknown key; known: lanes; edge.yaml, line 7"
    assert len(lines) == 11
    assert lines[10] == "and 21 more; edge.yaml"


def test_anchors_and_merge_keys_are_read(tmp_path: Path) -> None:
    text = GOOD.replace("array:\n", "array: &grid\n") + "buffers: &sizes {act_kib: 8, wgt_kib: 16}\n"
    (tmp_path / "both.yaml").write_text(text + "vector: {<<: *sizes, <<: *grid}\n")
    data, lines = config.load_yaml(write(tmp_path, text + "vector: {<<: [*sizes, *grid], wgt_kib: 4}\n"))
    assert data["vector"] == {"act_kib": 8, "wgt_kib": 4, "rows": 8, "cols": 8, "dataflow": "ws"}
    assert lines[("vector", "wgt_kib")] == 8
    with pytest.raises(ConfigError) as caught:
        config.load_yaml(tmp_path / "both.yaml")
    assert str(caught.value) == "both.yaml, line 8: key '<<' stands twice (first on line 8); keep one"


def test_space_of_machines_without_costs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "name: a\nmachines: {array: [[8, 8]], dataflow: [os]}\ndesigns: [{pe: lut, formats: [{weights: int4}]}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        space.load(tmp_path / "space.yaml")
    assert str(caught.value) == (
        "designs[0].pe = 'lut': no cost table has this PE yet; those with one: fp16-mac, int8-mac, shift-add; "
        "space.yaml, line 3"
    )


def test_an_empty_axis_is_refused(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "name: a\nmachines: {array: [[8, 8]], dataflow: []}\ndesigns: [{pe: int8-mac, formats: [{weights: int8}]}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        space.load(tmp_path / "space.yaml")
    assert str(caught.value) == "machines.dataflow: must hold at least one item; space.yaml, line 2"


def test_space_of_too_many_points_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        f"name: a\nmachines: {{array: {[[8, 8]] * 400}, buffers_kib: {[8] * 400}}}\n"
        "designs: [{pe: int8-mac, formats: [{weights: int8}]}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        space.load(tmp_path / "space.yaml")
    assert str(caught.value) == (
        "machines x formats = 160000 points: must be at most 100000 (split the space); space.yaml, line 1"
    )


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("vector_lanes: [16, 5000]", "lanes = 5000: must be less than or equal to 4096; space.yaml, line 1"),
        ("clock_mhz: [250, 20000]", "clock_mhz = 20000.0: must be less than or equal to 10000; space.yaml, line 1"),
    ],
)
def test_every_value_of_an_axis_is_checked(tmp_path: Path, axes: str, expected: str) -> None:
    (tmp_path / "space.yaml").write_text(
        f"name: a\nmachines: {{array: [[8, 8], [4, 4]], {axes}}}\n"
        "designs: [{pe: int8-mac, formats: [{weights: int8}]}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        space.load(tmp_path / "space.yaml")
    assert str(caught.value) == expected


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
        "machine 'mixp': unknown; did you mean 'mixpe'? (known: bitmod, fp16, int8, "
        "lut-tensor-core, mixpe, olive), a pattern such as int8-16x16 or "
        "int8-16x16-os, or the path of a YAML file"
    )


def test_too_large_array_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        machine.load("int8-512x8")
    assert str(caught.value) == "array.rows = 512: must be less than or equal to 256; machine 'int8-512x8'"


def test_zero_point_column_is_a_physical_column() -> None:
    assert machine.load("shift-add-8x8").physical_cols == 9
    assert machine.load("int8-8x8").physical_cols == 8


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        machine.load(name)
    return str(caught.value)


def test_a_pe_that_no_array_takes_is_named() -> None:
    assert refusal("flint-8x8") == (
        "pe = 'flint': no array takes this PE yet; those with one: bit-serial, fp16-mac, int8-mac, lut, "
        "opt3, opt4c, outlier-victim, shift-add; machine 'flint-8x8'"
    )


def test_broadcast_tiles_are_output_stationary() -> None:
    assert machine.load("outlier-victim-8x8").array.dataflow == "os"
    assert machine.load("lut-4x16-os") == machine.load("lut-4x16").model_copy(update={"name": "lut-4x16-os"})
    assert machine.load("bit-serial-8x8").array.dataflow == "os"
    assert refusal("bit-serial-8x8-ws") == (
        "array.dataflow = 'ws': PE bit-serial supports os; machine 'bit-serial-8x8-ws'"
    )
    assert refusal("lut-4x16-ws") == "array.dataflow = 'ws': PE lut supports os; machine 'lut-4x16-ws'"


def test_a_tiles_spec_follows_from_its_size_and_its_parameters(tmp_path: Path) -> None:
    text = GOOD.replace("int8-mac", "lut:weight_bits=8,pipeline=2").replace("dataflow: ws", "dataflow: os")
    loaded = machine.load(str(write(tmp_path, text)))
    assert loaded.spec == pe.stream("lut", m=8, n=8, weight_bits=8, precompute=True, pipeline=2)
    assert (loaded.cells, loaded.physical_cols) == (64, 8)
    assert machine.load("outlier-victim-3x5").spec == pe.stream("outlier-victim")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lut:wieght_bits=8", "lut.wieght_bits: no such parameter (did you mean 'weight_bits'? (known: activation, "),
        ("bit-serial:acc_bits=12", "bit-serial acc_bits = 12: must be in 16..24 (default 16); "),
        ("lut:m=4", "lut.m: is the tile's rows (leave it out); "),
        ("lut:activation=fp16", "lut.activation = 'fp16': a tile takes int8 (its sums are exact); "),
        ("outlier-victim:decoders=false", "outlier-victim.decoders = false: a tile has no decoders at its border "),
        ("outlier-victim:lanes=3", "outlier-victim lanes = 3: must be an even number in 2..32 (default 2); "),
        ("int8:psum_bits=24", "pe = 'int8:psum_bits=24': int8-mac takes no parameters in an array; write 'int8-mac'; "),
    ],
)
def test_parameters_that_no_tile_has(tmp_path: Path, name: str, expected: str) -> None:
    found = message(tmp_path, GOOD.replace("int8-mac", f'"{name}"').replace("dataflow: ws", "dataflow: os"))
    assert expected in found, found


def test_more_rows_than_a_lut_has_tables() -> None:
    assert refusal("lut-32x8") == "array.rows = 32: must be at most 16, a lut's tables; machine 'lut-32x8'"


@pytest.mark.parametrize("name", ["bit-serial-4x4", "lut-4x4", "outlier-victim-4x4"])
def test_machines_without_costs_are_told_apart(name: str) -> None:
    assert not machine.has_costs(machine.load(name))
    loaded = machine.load("int8-4x4")
    assert machine.has_costs(loaded)
    two_rows = loaded.model_copy(update={"array": loaded.array.model_copy(update={"load_rows": 2})})
    assert not machine.has_costs(two_rows)


def test_a_pattern_may_carry_parameters() -> None:
    assert machine.load("lut:weight_bits=8,k=2-4x8").pe == "lut:weight_bits=8,k=2"
    assert machine.load("lut:weight_bits=8-4x8-os").array.cols == 8
    assert "int8-mac takes no parameters in an array" in refusal("int8-mac:lanes=2-4x4")


@pytest.mark.parametrize(
    ("name", "weights", "macs"),
    [
        ("int8-2x3", "int8", 6),
        ("shift-add-2x3", "int4_asym", 6),
        # BitMoD (HPCA 2025): 128 products of a group take 128, 96, 64 and 64 cycles, and no product a cycle more.
        ("bit-serial-2x3", "int8", 6 * 128 // 128),
        ("bit-serial-2x3", "int6", 6 * 128 // 96),
        ("bit-serial-2x3", "bitmod_fp4", 6 * 128 // 64),
        ("bit-serial-2x3", "bitmod_fp3", 6 * 128 // 64),
        # LUT Tensor Core (ISCA 2025): a cycle for each bit of a weight, of k = 4 products.
        ("lut-2x3", "int2", 12),
        ("lut-2x3", "int4", 6),
        # OliVe (ISCA 2023): a PE multiplies 4 bits, four of them 8 bits; one of ours has four multipliers.
        ("outlier-victim-2x3", "ovp4", 24),
        ("outlier-victim-2x3", "ovp8", 6),
        ("olive", "ovp4", 64 * 64),
    ],
)
def test_macs_a_cycle_are_the_publications(name: str, weights: str, macs: int) -> None:
    assert machine.load(name).macs_a_cycle(weights) == macs
