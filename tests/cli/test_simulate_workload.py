"""simulate --workload FILE, and MODEL a list of matrix products."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from bitwright.cli.main import app
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[2] / "examples" / "workloads"
SIMULATE = ["simulate", "int8-16x16"]


@pytest.mark.parametrize("name", ["chunked", "speculative", "requests"])
def test_an_example_answers(name: str) -> None:
    file = str(EXAMPLES / f"{name}.yaml")
    chosen = ["--workload", file, "--weights", "int4", "--group", "64", "--json"]
    ran = CliRunner().invoke(app, [*SIMULATE, "smollm2-135m", *chosen])
    assert ran.exception is None
    row = json.loads(ran.stdout)
    assert row["bound_cycles"] <= row["cycles"]
    assert name in row["workload"]
    assert again(row) == row


def again(row: dict[str, object]) -> dict[str, object]:
    """What the command of a row answers, with the row's own name and hash of its machine: a pattern stands for it."""
    ran = CliRunner().invoke(app, shlex.split(str(row["command"]))[1:])
    assert ran.exception is None, row["command"]
    other: dict[str, object] = json.loads(ran.stdout)
    return other | {key: row[key] for key in ("machine", "hashes") if key in row}


def test_banks_are_an_option_of_workloads_and_of_products() -> None:
    for what in (["smollm2-135m", "--workload", str(EXAMPLES / "speculative.yaml")], [str(EXAMPLES / "gemms.csv")]):
        peak, row = (
            json.loads(CliRunner().invoke(app, [*SIMULATE, *what, "--dram-timing", timing, "--json"]).stdout)
            for timing in ("bandwidth", "banks")
        )
        assert row["dram_timing"] == "banks"
        assert row["cycles"] > peak["cycles"]
        assert again(row) == row


def test_a_csv_file_is_a_list_of_products() -> None:
    file = str(EXAMPLES / "gemms.csv")
    row = json.loads(CliRunner().invoke(app, [*SIMULATE, file, "--json"]).stdout)
    assert row["macs"] == 128 * 576 * 576 * 30 + 128 * 576 * 192 * 60 + 576 * 49152
    assert again(row) == row
    assert sum(layer["count"] * layer["cycles"] for layer in row["layers"]) == row["cycles"]
    table = CliRunner().invoke(app, [*SIMULATE, file]).stdout
    assert "key and value" in table


def test_an_onnx_graph_takes_its_sizes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = helper.make_tensor("w", kind, [8, 4], [0.0] * 32)
    tensors = [helper.make_tensor_value_info(name, kind, ["batch", size]) for name, size in (("x", 8), ("y", 4))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weights])
    onnx.save(helper.make_model(graph), str(tmp_path / "g.onnx"))
    file = str(tmp_path / "g.onnx")
    row = json.loads(CliRunner().invoke(app, [*SIMULATE, file, "--onnx-sizes", "batch=3", "--json"]).stdout)
    assert (row["macs"], row["layers"][0]["m"]) == (3 * 8 * 4, 3)
    assert again(row) == row
    ran = CliRunner().invoke(app, [*SIMULATE, file, "--onnx-sizes", "batch"])
    assert str(ran.exception) == "--onnx-sizes = batch: must be NAME=SIZE,... such as batch=1,sequence=128"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.csv", "--batch", "2"], "--batch = 2: not an option of a CSV MODEL"),
        (["x.csv", "--onnx-sizes", "a=1"], "--onnx-sizes = a=1: not an option of a CSV MODEL"),
        (["x.onnx", "--kv", "int8"], "--kv = int8: not an option of an ONNX MODEL"),
        (["x.onnx", "--workload", "w.yaml"], "--workload = w.yaml: not an option of an ONNX MODEL"),
        (["smollm2-135m", "--workload", "w.yaml", "--batch", "1"], "--batch = 1: not an option of --workload"),
        (["smollm2-135m", "--workload", "w.yaml", "--engine", "fast"], "--engine = fast: not an option of --workload"),
        (["smollm2-135m", "--workload", "w.yaml", "--timeline", "t"], "--timeline = t: not an option of --workload"),
        (["smollm2-135m", "--onnx-sizes", "a=1"], "--onnx-sizes = a=1: not an option of MODEL without --engine"),
    ],
)
def test_an_option_that_would_be_dropped_is_refused(arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, [*SIMULATE, *arguments])
    assert str(ran.exception) == f"{message}; leave it out; the command line"
