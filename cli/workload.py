"""`bitwright simulate MACHINE MODEL --workload FILE`, and MODEL an ONNX graph or a CSV file of products."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.arch.errors import ConfigError

if TYPE_CHECKING:
    from bitwright.arch.machine import Machine
    from bitwright.workloads.policy import FormatPolicy

PRODUCTS = (".csv", ".onnx")
"""How the name of a MODEL ends that is a list of matrix products, not a transformer."""


def is_products(model: str | None) -> bool:
    """Whether MODEL is a list of products."""
    return model is not None and model.lower().endswith(PRODUCTS)


def products_row(machine: Machine, model: str, policy: FormatPolicy, onnx_sizes: str | None) -> dict[str, Any]:
    """The row of a list of products. ConfigError for sizes that are no NAME=SIZE, or given for a CSV file."""
    from bitwright.sim.workload import products_row as simulate_products
    from bitwright.workloads import gemm_list, onnx_graph

    path = Path(model)
    if path.suffix.lower() == ".onnx":
        work = onnx_graph.read(path, policy, _sizes(onnx_sizes or ""))
    else:
        work = gemm_list.read(path, policy)
    options = ["--onnx-sizes", onnx_sizes] if onnx_sizes else []
    return simulate_products(machine, model, work, policy=policy, options=options)


def workload_row(machine: Machine, model: str, policy: FormatPolicy, file: Path) -> dict[str, Any]:
    """The row of a workload file; its command names the file as it was given."""
    from bitwright.sim.workload import simulate_workload
    from bitwright.workloads import description

    workload = description.load(file)
    result = simulate_workload(machine, model, workload, folder=file.parent, policy=policy)
    return result.row(str(file))


def _sizes(text: str) -> dict[str, int]:
    """ "batch=1,sequence=128" as a mapping."""
    sizes = {}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise ConfigError(f"--onnx-sizes = {text}: must be NAME=SIZE,... such as batch=1,sequence=128")
        sizes[name] = int(size)
    return sizes
