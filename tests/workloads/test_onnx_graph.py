"""ONNX graphs: matrix products by hand, and a convolution against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bitwright.arch.errors import BitwrightError
from bitwright.workloads.policy import FormatPolicy

onnx = pytest.importorskip("onnx", reason="the optional package onnx is not installed")

POLICY = FormatPolicy()


def graph(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], weights: dict[str, tuple[int, ...]]) -> Path:
    from onnx import TensorProto, helper

    ins = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    out = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    stored = []
    for name, shape in weights.items():
        size = 1
        for dim in shape:
            size *= dim
        stored.append(helper.make_tensor(name, TensorProto.FLOAT, shape, [0.0] * size))
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ins, out, stored)), str(path))
    return path


def test_products_of_a_graph(tmp_path: Path) -> None:
    """Batch 2, 5 tokens, width 8; attention of two computed tensors; a gate of two inputs; a grouped convolution."""
    from bitwright.workloads import onnx_graph
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="project"),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["s"], name="scores"),
        helper.make_node("Gemm", ["v", "g"], ["y"], name="gate", transB=1),
        helper.make_node("Conv", ["image", "f"], ["c"], name="conv", group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    inputs = {"x": ["batch", 5, 8], "v": [3, 6], "image": [1, 4, 9, 9]}
    path = graph(tmp_path / "g.onnx", nodes, inputs, {"w": (8, 12), "g": (7, 6), "f": (10, 2, 3, 3)})
    found = onnx_graph.read(path, POLICY, {"batch": 2}).gemms
    assert [(g.name, g.m, g.k, g.n, g.count) for g in found] == [
        ("project", 10, 8, 12, 1),
        ("scores", 5, 8, 5, 2),
        ("gate", 3, 6, 7, 1),
        ("conv", 25, 18, 5, 2),  # 5 x 5 pixels; 2 channels of 3 x 3; 10 filters in 2 groups
    ]
    with pytest.raises(BitwrightError) as error:
        onnx_graph.read(path, POLICY)
    assert str(error.value) == f"{path}: node 'project': dimension 'batch' of 'x' is not known; give its size"


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    from bitwright.workloads import onnx_graph
    from onnx import helper

    with pytest.raises(BitwrightError) as error:
        onnx_graph.read(tmp_path / "none.onnx", POLICY)
    assert str(error.value) == f"{tmp_path / 'none.onnx'}: no such file"
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 30)
    with pytest.raises(BitwrightError) as error:
        onnx_graph.read(tmp_path / "bad.onnx", POLICY)
    assert str(error.value) == f"{tmp_path / 'bad.onnx'}: not a readable ONNX file (DecodeError)"
    path = graph(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [2, 3]}, {})
    with pytest.raises(BitwrightError) as error:
        onnx_graph.read(path, POLICY)
    assert str(error.value) == f"{path}: no MatMul, Gemm, Conv in its graph; must have at least one"
