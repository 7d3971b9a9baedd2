"""The sweep's own arrays, as RTL on Verilator against the simulator: every value, and a cycle difference of 0.

Not part of `make test`: the ten arrays take minutes to build. Run it with `make campaign-array`.
"""

from __future__ import annotations

from typing import Any

import pytest

ARRAYS = [
    *((pe, 16, 16) for pe in ("int8", "shift-add", "fp16")),
    ("int8", 8, 64),
    ("int8", 32, 32),
]
MACHINES = [(f"{pe}-{rows}x{cols}-{dataflow}", rows, cols) for pe, rows, cols in ARRAYS for dataflow in ("ws", "os")]

# M, K, N on any array: single elements, decode, SmolLM2-135M's key projection (576 x 192) at 1, 16 and 128 tokens.
SHAPES = [(1, 1, 1), (1, 100, 33), (13, 29, 11), (1, 576, 192), (16, 576, 192), (128, 576, 192)]
GROUP = 64


def edges(rows: int, cols: int) -> list[tuple[int, int, int]]:
    """Shapes that fit the array exactly, miss by one, and leave a remainder in every direction."""
    return [
        (1, rows, cols),
        (rows, rows, cols),
        (rows + 1, rows - 1, cols + 1),
        (2 * rows - 1, 2 * rows + 1, cols - 1),
        (1, 3 * rows + 1, 2 * cols + 1),
    ]


CASES = [(name, sizes) for name, rows, cols in MACHINES for sizes in (*edges(rows, cols), *SHAPES)]


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=lambda case: case if isinstance(case, str) else str(case))
def test_array_cycles_and_values_equal_the_simulator(comparison: Any, name: str, sizes: tuple[int, int, int]) -> None:
    comparison.require_equal(name, sizes, GROUP)


def test_largest_difference_is_printed(comparison: Any, record_property: Any) -> None:
    if not comparison.cycles:
        pytest.skip("runs after the shapes above, in one process")
    comparison.record("campaign-array", record_property)
