"""One GEMM or Llama-2-7B through genz-llm 0.0.16, in its own environment: `python genz_driver.py JOB.json`.

JOB: macs_per_cycle (int8), clock_mhz, bytes_per_cycle, and one of

    m, k, n                        one fully connected operator, its activations in memory
    model, phase, prompt_tokens    prefill of prompt_tokens, or decode of one token at that context; batch and beam 1

Its system is written as our machine's peak and bandwidth, straight in operations and bytes a second: its `flops` are of
bf16 and its "int8" takes half the time of them, so the peak given is half ours; its GB are 2**30 bytes. Efficiencies
stay 1, on-chip memory unlimited (its defaults), network none.

Prints one JSON object: cycles and latency_ms of the roofline (max of compute and memory, operator by operator), of a
model also operators, a list of name, kind, latency_ms, compute_ms, memory_ms.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

HZ_OF_MHZ = 1e6


def system(job: dict[str, Any]) -> Any:
    """Its description of our machine."""
    from GenZ.system import System  # type: ignore[import-not-found]

    made = System(bits="int8", frequency=job["clock_mhz"], off_chip_mem_size=64 * 1024)
    made.flops = 2 * job["macs_per_cycle"] * job["clock_mhz"] * HZ_OF_MHZ * made.get_bit_multiplier(type="C")
    made.op_per_sec = made.flops / 2
    made.offchip_mem_bw = job["bytes_per_cycle"] * job["clock_mhz"] * HZ_OF_MHZ
    return made


def one_product(job: dict[str, Any]) -> dict[str, Any]:
    from GenZ.operators import FC  # type: ignore[import-not-found]
    from GenZ.unit import Unit  # type: ignore[import-not-found]

    dimensions = ["gemm", job["m"], job["n"], job["k"], 0]  # name, B, O, I, kind of operator (0: FC)
    roofline = FC(dim=dimensions, density=(1.0, 1.0, 1.0)).get_roofline(system=system(job), unit=Unit())
    return {
        "cycles": roofline["Cycles"], "latency_ms": roofline["Latency (msec)"],
        "compute_cycles": roofline["Compute cycle"], "memory_cycles": roofline["Memory cycle"],
    }  # fmt: skip


def whole_model(job: dict[str, Any]) -> dict[str, Any]:
    from GenZ import decode_moddeling, prefill_moddeling  # type: ignore[import-not-found]

    common = {"model": job["model"], "batch_size": 1, "system_name": system(job), "bits": "int8"}
    if job["phase"] == "prefill":
        result = prefill_moddeling(input_tokens=job["prompt_tokens"], **common)
    else:
        result = decode_moddeling(input_tokens=job["prompt_tokens"], output_tokens=1, Bb=1, **common)
    operators = [
        {
            "name": row["Layer Name"], "kind": row["Op Type"], "dimension": str(row["Dimension"]),
            "latency_ms": row["Latency (msec)"],
            "compute_ms": row["Compute time (msec)"], "memory_ms": row["Memory time (msec)"],
        }
        for row in result["model_df"].to_dict("records")
    ]  # fmt: skip
    latency_ms = float(result["Latency"])
    return {"cycles": latency_ms * job["clock_mhz"] * 1e3, "latency_ms": latency_ms, "operators": operators}


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables of its own
        answer = whole_model(job) if "model" in job else one_product(job)
    print(json.dumps(answer, default=float))
