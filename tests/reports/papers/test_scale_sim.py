"""SCALE-Sim's closed form against scalesim 3.0.0's own runs, and our array's cycles against a pass-by-pass sum.

`RUNS` are "Total Cycles" of scalesim 3.0.0 (PyPI, numpy 2.3.5, InterfaceBandwidth CALC), 2026-11-23: one in 25 of 300
random GEMMs up to 80 x 80 x 80 on 12 random arrays up to 24 x 24, four a dataflow. All 300 equalled `cycles`.
"""

from __future__ import annotations

import pytest
from bitwright.arch import array_timing
from bitwright.arch.array_timing import ArrayShape, Pass
from bitwright.arch.errors import ConfigError
from bitwright.reports.papers import scale_sim
from bitwright.reports.papers.scale_sim import Dataflow, Product
from hypothesis import given, settings
from hypothesis import strategies as st

# (M, K, N, rows, cols, dataflow, cycles)
RUNS = [
    (31, 12, 71, 11, 5, "ws", 1679),
    (64, 75, 59, 3, 4, "ws", 26999),
    (8, 25, 9, 12, 20, "ws", 149),
    (61, 34, 25, 18, 18, "ws", 451),
    (65, 17, 69, 9, 7, "os", 2479),
    (51, 63, 21, 15, 11, "os", 695),
    (7, 24, 26, 3, 9, "os", 305),
    (36, 65, 26, 1, 9, "os", 7883),
    (6, 79, 26, 18, 3, "is", 629),
    (16, 26, 2, 6, 1, "is", 1039),
    (23, 44, 72, 21, 6, "is", 1415),
    (50, 34, 29, 1, 5, "is", 11559),
]

products = st.builds(
    Product,
    *(st.integers(1, 90) for _ in range(3)),
    *(st.integers(1, 40) for _ in range(2)),
    st.sampled_from(list(Dataflow)),
)


@pytest.mark.parametrize("run", RUNS)
def test_cycles_are_scalesims_own(run: tuple[int, int, int, int, int, str, int]) -> None:
    m, k, n, rows, cols, dataflow, expected = run
    assert scale_sim.answer(f"{m},{k},{n}", rows, cols, dataflow)["cycles"] == expected


def test_decode_row_of_the_peers_survey() -> None:
    """peers.md, finding 3: (1, 4096, 4096) on 128 x 128, weight-stationary: 392,191 cycles, ideal 1,024."""
    row = scale_sim.answer("1,4096,4096", 128, 128, "ws")
    assert (row["cycles"], row["ideal_cycles"]) == (392_191, 1024)


@settings(deadline=None)
@given(products)
def test_ours_is_the_sum_over_single_passes(work: Product) -> None:
    weight_stationary = work.dataflow is not Dataflow.OUTPUT
    stays, streams = (work.m, work.n) if work.dataflow is Dataflow.INPUT else (work.n, work.m)
    blocks = range(0, stays, work.cols)
    if weight_stationary:
        passes = [Pass(streams, min(work.rows, work.k - k)) for _ in blocks for k in range(0, work.k, work.rows)]
    else:
        passes = [Pass(min(work.rows, work.m - m), work.k) for _ in blocks for m in range(0, work.m, work.rows)]
    shape = ArrayShape(work.rows, work.cols, weight_stationary)
    assert scale_sim.our_cycles(work) == array_timing.cycles(shape, passes)
    assert scale_sim.our_cycles_fold_by_fold(work) == sum(array_timing.cycles(shape, [item]) for item in passes)


@given(products)
def test_ideal_is_a_bound_and_overlap_never_costs(work: Product) -> None:
    ideal = -(-work.m * work.k * work.n // (work.rows * work.cols))
    assert ideal <= scale_sim.our_cycles(work) <= scale_sim.our_cycles_fold_by_fold(work)
    assert scale_sim.cycles(work) + 1 >= ideal


def test_steps_add_up_to_our_answer() -> None:
    row = scale_sim.answer("100,300,50", 32, 32, "is")
    assert row["cycles"] + sum(step["change_cycles"] for step in row["differences"]) == row["ours"]["cycles"]
    # 40 folds, each 2R + C + N - 2 = 144 of theirs and N + R + C = 114 of ours
    assert [step["cycles"] for step in row["differences"][:3]] == [40 * 144 - 1, 40 * 144, 40 * 114]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("128,4096", 8, 8, "ws"),
            "gemm = '128,4096': must be three whole numbers M,K,N such as 128,4096,4096; the command line",
        ),
        (
            ("a,b,c", 8, 8, "ws"),
            "gemm = 'a,b,c': must be three whole numbers M,K,N such as 128,4096,4096; the command line",
        ),
        (("1,0,4", 8, 8, "ws"), "gemm.K = 0: must be at least 1; the command line"),
        (("1,4,-4", 8, 8, "ws"), "gemm.N = -4: must be at least 1; the command line"),
        (("1,4,4", 0, 8, "ws"), "rows = 0: must be at least 1; the command line"),
        (("1,4,4", 8, 0, "os"), "cols = 0: must be at least 1; the command line"),
        (("1,4,4", 8, 8, "rs"), "dataflow = 'rs': unknown; known: is, os, ws; the command line"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[str, int, int, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        scale_sim.answer(*arguments)
    assert str(error.value) == message
