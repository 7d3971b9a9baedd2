"""The matrix products of an ONNX graph: MatMul, Gemm and Conv, everything else is left out. Needs the extra `onnx`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.arch.errors import CheckpointError, ConfigError, ToolError, shown
from bitwright.workloads.gemm_list import product
from bitwright.workloads.operators import Gemm, Work
from bitwright.workloads.policy import FormatPolicy

KINDS = ("MatMul", "Gemm", "Conv")


def read(path: Path, policy: FormatPolicy, sizes: Mapping[str, int] | None = None) -> Work:
    """The products of the graph in `path`, in its order; `sizes` gives its symbolic dimensions ({"batch": 1}).

    A convolution is the product that it is after im2col: rows are output pixels, the reduction a filter's window, one
    product a group. A MatMul of two computed tensors is one product a matrix of their leading dimensions. Weights stay
    out of memory (external data is not read).
    Raises ToolError without the package, CheckpointError for an unreadable file or one without products, ConfigError
    for a dimension that is not known.
    """
    try:
        import onnx
        import onnx.shape_inference
    except ImportError:
        raise ToolError("reading ONNX needs the package onnx: pip install 'bitwright[onnx]'") from None
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is of no public module
        raise CheckpointError(f"{path}: not a readable ONNX file ({type(error).__name__})") from None
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in (sizes or {}):
                dim.dim_value = (sizes or {})[dim.dim_param]
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:
        raise CheckpointError(f"{path}: shapes do not fit each other ({type(error).__name__})") from None
    shapes = _Shapes(path, graph)
    makers = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv}
    gemms = [makers[node.op_type](shapes, node, policy) for node in graph.node if node.op_type in makers]
    if not gemms:
        raise CheckpointError(f"{path}: no {', '.join(KINDS)} in its graph; must have at least one")
    return Work(tuple(gemms), ())


class _Shapes:
    """Shape of every tensor of a graph."""

    def __init__(self, path: Path, graph: Any) -> None:
        self.path = path
        self.weights = {item.name: tuple(item.dims) for item in graph.initializer}
        self.known = {
            value.name: tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims.dim)
            for value in (*graph.input, *graph.output, *graph.value_info)
            if (dims := value.type.tensor_type.shape) is not None and value.type.tensor_type.HasField("shape")
        } | self.weights

    def of(self, node: Any, name: str) -> tuple[int, ...]:
        """Raises ConfigError naming node and tensor where a dimension is not a positive number."""
        found = self.known.get(name)
        if found is None:
            raise ConfigError(f"{self.path}: node {shown(_name(node))}: shape of {shown(name)} is not known")
        for dim in found:
            if isinstance(dim, str):
                raise ConfigError(
                    f"{self.path}: node {shown(_name(node))}: dimension {shown(dim or '?')} of {shown(name)} is not "
                    "known; give its size"
                )
            if dim < 1:
                raise ConfigError(f"{self.path}: node {shown(_name(node))}: dimension {dim} of {shown(name)}: must be "
                                  "at least 1")  # fmt: skip
        return found


def _name(node: Any) -> str:
    return str(node.name or node.output[0])


def _matmul(shapes: _Shapes, node: Any, policy: FormatPolicy) -> Gemm:
    left, right = (shapes.of(node, name) for name in node.input[:2])
    out = shapes.of(node, node.output[0])
    k, n = left[-1], right[-1] if len(right) > 1 else 1
    rows = math.prod(out) // n
    count = math.prod(out[:-2]) if math.prod(right[:-2]) > 1 else 1
    return product(_name(node), policy, m=rows // count, k=k, n=n, count=count)


def _gemm(shapes: _Shapes, node: Any, policy: FormatPolicy) -> Gemm:
    left, out = shapes.of(node, node.input[0]), shapes.of(node, node.output[0])
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return product(_name(node), policy, m=out[0], k=left[0 if transposed else 1], n=out[1])


def _conv(shapes: _Shapes, node: Any, policy: FormatPolicy) -> Gemm:
    filters, out = shapes.of(node, node.input[1]), shapes.of(node, node.output[0])
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    pixels = out[0] * math.prod(out[2:])
    return product(_name(node), policy, m=pixels, k=math.prod(filters[1:]), n=filters[0] // groups, count=groups)
