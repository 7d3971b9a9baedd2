"""Array RTL on Verilator against the simulator: the same programs, every value, and a cycle difference of 0.

135 programs: 14 shapes on 9 small arrays (3 PEs, both dataflows, three ways to load weights) and 3 on the
int8 array of 16x16. The
sweep's other arrays, up to 32x32, are compared in campaign_array_cycles.py; how, and with what, stands in conftest.py.
"""

from __future__ import annotations

from typing import Any

import pytest

ARRAYS = ["int8-4x4-ws", "int8-4x4-os", "shift-add-8x5-ws", "shift-add-8x5-os", "fp16-3x4-ws", "fp16-3x4-os"]

# M, K, N: one-row decode shapes, edges that no array divides, single elements, several groups with a short last one.
SHAPES = [
    (1, 1, 1), (1, 64, 16), (1, 37, 9), (1, 100, 33), (4, 4, 4), (8, 8, 8), (5, 7, 3), (16, 16, 16), (13, 29, 11),
    (2, 72, 6), (31, 5, 17), (9, 90, 2), (33, 24, 10), (7, 150, 7),
]  # fmt: skip
GROUP = 24
LOADS = ["int8-4x4-ws+2", "shift-add-8x5-ws+4single", "fp16-3x4-ws+1single"]  # how weights enter
SWEEP_SHAPES = [(1, 576, 192), (16, 576, 192), (17, 31, 33)]  # SmolLM2-135M's key projection; misses by one
CASES = [
    *((name, sizes) for name in ARRAYS for sizes in SHAPES),
    *((name, sizes) for name in LOADS for sizes in SHAPES),
    *((name, sizes) for name in ("int8-16x16-ws", "int8-16x16-os") for sizes in SWEEP_SHAPES),
]


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=lambda case: case if isinstance(case, str) else str(case))
def test_array_cycles_and_values_equal_the_simulator(comparison: Any, name: str, sizes: tuple[int, int, int]) -> None:
    comparison.require_equal(name, sizes, GROUP)


def test_largest_difference_is_printed(comparison: Any, record_property: Any) -> None:
    if not comparison.cycles:
        pytest.skip("runs after the shapes above, in one process")
    comparison.record("array cycles", record_property)
