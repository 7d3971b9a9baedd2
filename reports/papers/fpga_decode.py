"""`bitwright reproduce accllm|flightllm`: published tokens/s of an FPGA beside what its memory's bandwidth allows.

A decoded token at batch 1 reads every weight and the KV cache once, so tokens/s is at most bandwidth over those bytes.
The estimate takes of the bandwidth the part that FlightLLM measured on the same board (HBM utilisation). Neither
paper's resource table was found: no array is modelled, and compute is taken to hide behind the reads.
"""

from __future__ import annotations

from typing import Any

from bitwright.reports.papers import SCHEMA_VERSION, percent, published
from bitwright.sim.gpus import step_bytes
from bitwright.workloads import shapes, sparsity
from bitwright.workloads.operators import Choices, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.steps import decode

CONTEXTS = (0, 512, 2048)  # tokens in the cache; the papers' own windows are not known


def answer(paper: str) -> dict[str, Any]:
    """The published rate beside bound and estimate, for each format that the paper may mean, at several contexts."""
    data, used = published(paper), published("flightllm")["hbm_utilisation"]
    shape = shapes.get(data["model"])
    rows = []
    for chosen in data["formats"]:
        policy = FormatPolicy(pe="float32", weights=chosen["weights"], acts=chosen["acts"], kv=chosen["kv"])
        kept = None if chosen["sparsity"] is None else sparsity.parse(chosen["sparsity"])
        for context in CONTEXTS:
            step = decode(context)
            moved = step_bytes(shape, policy, step, work_of(shape, policy, step, Choices(sparsity=kept)))
            bound = data["bandwidth_gbytes_per_s"] * 1e9 / moved
            rows.append(
                {
                    "weights": chosen["weights"],
                    "sparsity": chosen["sparsity"] or "none",
                    "kv": chosen["kv"],
                    "context": context,
                    "bytes_per_token": moved,
                    "bound_tokens_per_s": bound,
                    "published_tokens_per_s": data["tokens_per_s"],
                    "bandwidth_used": data["tokens_per_s"] / bound,
                    "estimate_tokens_per_s": bound * used,
                    "estimate_percent": percent(bound * used, data["tokens_per_s"]),
                    "possible": data["tokens_per_s"] <= bound,
                }
            )
    notes = [
        f"{data['board']}: {data['bandwidth_gbytes_per_s']} GB/s; the estimate takes {used:.1%}, as FlightLLM did",
        f"published power {data['power_w']} W: {data['tokens_per_s'] / data['power_w']:.2f} tokens a joule",
        "one scale a row of weights, the head dense in the same format, places of kept weights charged; no sinks or "
        "window: the cache is whole",
    ]
    if len(data["formats"]) > 1:
        notes.append(
            "the widths and sparsity of its weights are not in what is quoted: dense int8 and int4 stand for them"
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": paper,
        "model": shape.name,
        "source": data["source"],
        "rows": rows,
        "notes": notes,
    }
