"""Rows of SmolLM2 as they were, to the last bit: cycles and bytes since version 0.3.0 (commit dfd2401), energies since
tables are mapped with our own generic pass (docs/stream-costs.md)."""

from __future__ import annotations

import pytest
from bitwright.sim.inference import simulate
from bitwright.sim.row import result_row

KEYS = (
    "prefill_cycles",
    "decode_cycles",
    "macs",
    "dram_bytes",
    "prefill_bound_cycles",
    "peak_memory_bytes",
    "cycles_vector",
    "cycles_dram_wait",
    "energy_uj",
)
ROWS = {
    ("int8-16x16", 3, 37, 3): (
        57786857,
        26623221,
        13234005504,
        925050660,
        47704088,
        193278912,
        9755166,
        552256,
        115824.76706126184,
    ),
    ("fp16-8x8", 1, 64, 2): (
        115217775,
        34090620,
        7238128896,
        1181073960,
        110595885,
        270873600,
        3137064,
        416019,
        156728.4636245435,
    ),
    ("shift-add-16x16-os", 1, 64, 2): (
        34586075,
        17286580,
        7238128896,
        371182752,
        27693143,
        129716688,
        5712954,
        341325,
        55741.25532661041,
    ),
}


@pytest.mark.parametrize(("machine", "batch", "prompt", "output"), ROWS)
def test_rows_of_smollm2_are_as_they_were(machine: str, batch: int, prompt: int, output: int) -> None:
    row = result_row(simulate(machine, "smollm2-135m", prompt_tokens=prompt, output_tokens=output, batch=batch))
    assert tuple(row[key] for key in KEYS) == ROWS[machine, batch, prompt, output]
