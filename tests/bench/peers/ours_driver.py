"""One GEMM or a whole model through bitwright: `python ours_driver.py JOB.json`, in bitwright's own environment.

JOB: rows, cols, dataflow, buffers_kib, dram, clock_mhz, load_rows, vector_lanes, mode (fast or simpy: the engine), and
one of

    m, k, n                one product on the tile engine, int8, operands and results in DRAM
    model, prompt_tokens   prefill of prompt_tokens, then one decode step at that context

Prints one JSON object: cycles, of a model {prefill, decode}: each cycles and what they are made of.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bitwright.arch import config
from bitwright.arch.machine import Machine


def machine(job: dict[str, Any]) -> Machine:
    """The array of int8-mac of `job`."""
    act, wgt, out = job["buffers_kib"]
    data = {
        "name": "peers", "pe": "int8-mac", "dram": job["dram"], "clock_mhz": job["clock_mhz"],
        "array": {name: job[name] for name in ("rows", "cols", "dataflow", "load_rows")},
        "buffers": {"act_kib": act, "wgt_kib": wgt, "out_kib": out}, "vector": {"lanes": job["vector_lanes"]},
    }  # fmt: skip
    return config.validate(Machine, data, "the job")


def one_product(job: dict[str, Any]) -> dict[str, Any]:
    from bitwright.sim.inference import operator
    from bitwright.workloads.operators import Gemm

    gemm = Gemm("gemm", "ffn", job["m"], job["k"], job["n"], 1, "int8", None)
    found = operator(machine(job), gemm, ("int8",), job["mode"])
    return {"cycles": found.cycles, "dram_bytes": found.dram_bytes}


def whole_model(job: dict[str, Any]) -> dict[str, Any]:
    from bitwright.sim import simulate

    result = simulate(
        machine(job), job["model"], prompt_tokens=job["prompt_tokens"], output_tokens=1, engine=job["mode"]
    )
    parts = ("cycles", "cycles_stream", "cycles_array_stall", "cycles_fill_drain", "cycles_dram_wait", "cycles_vector")
    phases = {"prefill": result.prefill, "decode": result.decode}
    return {
        name: {part: getattr(phase, part) for part in parts} | {"macs": phase.macs, "by_kind": phase.by_kind}
        for name, phase in phases.items()
    }


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(whole_model(job) if "model" in job else one_product(job)))
