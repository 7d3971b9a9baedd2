"""GPUs' bounds in the reports: the rows' own figures, and the fastest design of the same formats beside them."""

from __future__ import annotations

from bitwright.reports.gpu_bounds import bounds_table
from bitwright.reports.labels import number
from bitwright.sim.inference import simulate
from bitwright.sim.row import result_row

SIZES = {"prompt_tokens": 8, "output_tokens": 2}


def test_a_row_a_gpu_and_policy_with_the_fastest_design() -> None:
    rows = [result_row(simulate(name, "smollm2-135m", **SIZES)) for name in ("int8-8x8", "int8-16x16", "fp16-mac-8x8")]
    table = bounds_table(rows)
    assert table.count("<tr>") == 1 + 2 * len(rows[0]["gpus"])
    assert table.count(f"<td class=n>{number(rows[1]['ttft_ms'])}<td") == len(rows[1]["gpus"])  # faster than 8x8
    for gpu in rows[0]["gpus"]:
        assert number(gpu["least_decode_ms"] / 2) in table
        assert rows[1]["tpot_ms"] >= gpu["least_decode_ms"] / 2


def test_a_run_without_decode_and_rows_without_bounds() -> None:
    row = result_row(simulate("int8-8x8", "smollm2-135m", prompt_tokens=8, output_tokens=0))
    assert bounds_table([row]).count("no decode") == 2 * len(row["gpus"])
    assert bounds_table([{key: value for key, value in row.items() if key != "gpus"}]) == ""
