"""One GEMM through zigzag-dse 3.9.1, in its own environment: `python zigzag_driver.py JOB.json`.

JOB: m, k, n, rows, cols, buffers_kib ([act, wgt, out]), bytes_per_cycle, mode:

    systolic    the array's dimensions are systolic: 3.9.1 adds (rows - 1) + (cols - 1) cycles once, for the results
                to leave
    broadcast   without (all that versions before had)

The machine is written as ours: two weight registers of 8 bits a PE (double buffer), a 32-bit sum a column, one SRAM for
each of activations, weights and outputs (a row of the array a cycle, both ways), one DRAM port for all. Weights are
stationary: K over columns, C over rows; which loops surround them its mapper (LOMA, 6 loop prime factors, its default)
chooses for the least latency. Its SRAMs do not hold two tiles by force: it searches whether loads hide.

Prints one JSON object: cycles (latency_total2, the mapper's objective), ideal_temporal_cycles.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

PREFIXES = {"read": "r", "write": "w", "read_write": "rw"}  # that it wants before a port's name


def memory(name: str, size_bits: int, operands: list[str], served: list[str], ports: list[Any]) -> dict[str, Any]:
    """A memory of its description; `ports` are (type, bits a cycle, allocation). Energies and areas are not asked."""
    return {
        name: {
            "size": size_bits, "r_cost": 1, "w_cost": 1, "area": 0, "latency": 1, "operands": operands,
            "ports": [
                {
                    "name": f"{PREFIXES[kind]}_port_{index}", "type": kind, "allocation": allocation,
                    "bandwidth_min": min(8, bits), "bandwidth_max": bits,
                }
                for index, (kind, bits, allocation) in enumerate(ports)
            ],
            "served_dimensions": served,
        }
    }  # fmt: skip


def accelerator(job: dict[str, Any]) -> dict[str, Any]:
    """Its description of our machine: D1 are columns, D2 rows."""
    rows, cols = job["rows"], job["cols"]
    act, wgt, out = (kib * 1024 * 8 for kib in job["buffers_kib"])
    dram = int(job["bytes_per_cycle"] * 8)
    sums = ["O, fh", "O, fl"], ["O, tl", "O, th"]
    all_ways = [f"{name}, {way}" for name in ("I1", "I2") for way in ("fh", "tl")] + sums[0] + sums[1]
    return {
        "name": "ours",
        "memories": memory("wgt_reg", 16, ["I2"], [], [("read", 8, ["I2, tl"]), ("write", 8, ["I2, fh"])])
        | memory(
            "sum_reg", 32, ["O"], ["D2"],
            [("read", 32, ["O, tl"]), ("read", 32, ["O, th"]), ("write", 32, ["O, fh"]), ("write", 32, ["O, fl"])],
        )
        | memory("act_sram", act, ["I1"], ["D1", "D2"], [("read", rows * 8, ["I1, tl"]), ("write", dram, ["I1, fh"])])
        | memory("wgt_sram", wgt, ["I2"], ["D1", "D2"], [("read", cols * 8, ["I2, tl"]), ("write", dram, ["I2, fh"])])
        | memory("out_sram", out, ["O"], ["D1", "D2"], [("write", cols * 32, sums[0]), ("read", cols * 32, sums[1])])
        | memory(
            "dram", 10**12, ["I1", "I2", "O"], ["D1", "D2"],
            [("read_write", dram, all_ways)],
        ),
        "operational_array": {
            "input_precision": [8, 8], "unit_energy": 1, "unit_area": 1, "dimensions": ["D1", "D2"],
            "sizes": [cols, rows],
            "systolic_dimensions": ["D1", "D2"] if job["mode"] == "systolic" else [],
        },
    }  # fmt: skip


def run(job: dict[str, Any], folder: Path) -> dict[str, float]:
    """Cycles of the best mapping that it finds."""
    from zigzag import api  # type: ignore[import-not-found]

    layer = {
        "id": 0, "name": "gemm", "operator_type": "Gemm", "equation": "O[b][k]+=W[k][c]*I[b][c]",
        "loop_dims": ["B", "K", "C"], "loop_sizes": [job["m"], job["n"], job["k"]],
        "operand_precision": {"W": 8, "I": 8, "O": 32, "O_final": 8}, "operand_source": {"W": 0, "I": 0},
    }  # fmt: skip
    mapping = {
        "name": "default",
        "spatial_mapping": {"D1": [f"K, {job['cols']}"], "D2": [f"C, {job['rows']}"]},
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }
    for name, what in (("workload", [layer]), ("mapping", [mapping]), ("accelerator", accelerator(job))):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(what, sort_keys=False))
    logging.disable(logging.WARNING)
    _, latency, found = api.get_hardware_performance_zigzag(
        str(folder / "workload.yaml"),
        str(folder / "accelerator.yaml"),
        str(folder / "mapping.yaml"),
        opt="latency",
        dump_folder=str(folder / "out"),
        loma_show_progress_bar=False,
    )
    (evaluation, _), *_ = found[0][1]
    return {"cycles": latency, "ideal_temporal_cycles": evaluation.ideal_temporal_cycle}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        answer = run(json.loads(Path(sys.argv[1]).read_text()), Path(name))
    print(json.dumps(answer))
