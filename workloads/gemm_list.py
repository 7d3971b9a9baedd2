"""Matrix products from a CSV file: any layer list as one step's work."""

from __future__ import annotations

from pathlib import Path

from bitwright.arch.errors import ConfigError
from bitwright.workloads.batching import table_rows, whole_cell
from bitwright.workloads.operators import Gemm, Work
from bitwright.workloads.policy import FormatPolicy

COLUMNS = ("m", "k", "n")
MOST = 1 << 31


def read(path: Path, policy: FormatPolicy) -> Work:
    """The products of a CSV file with the columns m, k, n and, if wanted, name and count (1); others are ignored.

    out[m, n] = act[m, k] . wgt[n, k], weights in the policy's format; no element-wise work.
    Raises ConfigError, naming the line, for a missing file or column, no rows, or a size below 1 or above 2**31 - 1.
    """
    gemms = []
    for line, row in table_rows(path, COLUMNS):
        sizes = {name: whole_cell(path, line, row, name) for name in COLUMNS}
        sizes["count"] = whole_cell(path, line, row, "count") if "count" in row else 1
        for name, value in sizes.items():
            if not 1 <= value < MOST:
                raise ConfigError(f"{path}, line {line}: {name} = {value}: must be in 1..{MOST - 1}")
        gemms.append(product(row.get("name") or f"line {line}", policy, **sizes))
    return Work(tuple(gemms), ())


def product(name: str, policy: FormatPolicy, *, m: int, k: int, n: int, count: int = 1) -> Gemm:
    """A product of weights that belongs to no transformer's part."""
    return Gemm(name, "ffn", m, k, n, count, policy.weights, policy.group_size)
