"""`bitwright reproduce lut-tensor-core`: the A100 and H100 latencies of its Table 1 beside a roofline's bound.

The bound is `sim.gpus`: the peak of the format, the bandwidth, one pass over the weights. The quotation of the table
that the published figures come from does not name the model, so the bound is of the one asked for, or of each of
`CANDIDATES`; a published latency under the bound says that it is not that model.
"""

from __future__ import annotations

from typing import Any

from bitwright.reports.papers import SCHEMA_VERSION, percent, published
from bitwright.sim import gpus
from bitwright.workloads import shapes
from bitwright.workloads.operators import work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.steps import Step, decode, prefill

CANDIDATES = ("bitnet-b1.58-3b", "llama-2-7b")
_POLICIES = {
    "fp16": FormatPolicy(),
    "int8": FormatPolicy(pe="int8-mac", weights="int8", acts="int8", kv="int8"),
    "fp8": FormatPolicy(pe="float32", weights="fp8_e4m3", acts="int8", kv="fp8_e4m3"),  # 8 bits, whatever they mean,
}


def answer(model: str | None = None) -> dict[str, Any]:
    """Every published latency beside its bound for `model` (None: each candidate). ConfigError for an unknown one."""
    data = published("lut-tensor-core")
    tasks: dict[str, Step] = {
        "prefill": prefill(data["prefill"]["tokens"], data["prefill"]["batch"]),
        # One token of each of the batch; what they attend to is not said: nothing before them, the least work.
        "decode": decode(0, data["decode"]["batch"]),
    }
    rows = []
    for name in CANDIDATES if model is None else (model,):
        shape = shapes.get(name)
        for gpu in gpus.gpus():
            for kind, figures in data["latency_ms"].get(gpu.name, {}).items():
                for task, step in tasks.items():
                    policy = _POLICIES[kind]
                    work = work_of(shape, policy, step)
                    moved = gpus.step_bytes(shape, policy, step, work)
                    bound_ms = 1e3 * gpu.bound_s(kind, work.macs - work.masked_macs, moved)
                    rows.append(
                        {
                            "model": name,
                            "gpu": gpu.name,
                            "format": kind,
                            "task": task,
                            "published_ms": figures[task],
                            "bound_ms": bound_ms,
                            "bound_percent": percent(bound_ms, figures[task]),
                            "possible": bound_ms <= figures[task],
                        }
                    )
    notes = [
        "bound_percent: the bound above (+) or below (-) the published latency; a bound above it (possible False) says "
        "that the figure is not of this model on this GPU at its peak clock",
        "the quotation does not name the model of Table 1, nor the context of the decoded tokens (0 here, the least)",
        "the table gives H100 FP8 a peak of 1,525 TFLOPS, its sheet 1,978.9: the bound takes the higher",
        "not in the bound: element-wise work, activations' traffic, kernels short of the peak",
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": "lut-tensor-core",
        "source": data["source"],
        "rows": rows,
        "notes": notes,
    }
