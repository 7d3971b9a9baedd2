"""`bitwright reproduce accllm|flightllm`: published tokens/s of an FPGA beside what its memory's bandwidth allows.

A decoded token at batch 1 reads every weight and the KV cache once, so tokens/s is at most bandwidth over those bytes.
The estimate takes of the bandwidth the part that FlightLLM measured on the same board (HBM utilisation).

Neither paper's resource table was found, so `machine` is a stand-in: as many multipliers as the board's 9,024 DSPs make
int8 products (two each), rounded down to a power of two, as one row of a broadcast tile, for one token at a time; the
board's bandwidth without latency, AccLLM's clock. Its simulated tokens/s say what tiles of weights and the ends of
operators cost beside the bound. Not modelled: normalisation, softmax, the papers' own instructions, HBM channels that
idle.
"""

from __future__ import annotations

from typing import Any

from bitwright.arch.dram_port import DramPort
from bitwright.arch.machine import Array, Buffers, Dataflow, Machine
from bitwright.reports.papers import SCHEMA_VERSION, percent, published
from bitwright.sim import fast
from bitwright.sim.gpus import step_bytes
from bitwright.workloads import mapping, shapes, sparsity
from bitwright.workloads.operators import Choices, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.sparsity import Sparsity
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
                    "simulated_tokens_per_s": simulated_tokens_per_s(shape, policy, context, kept, data),
                    "possible": data["tokens_per_s"] <= bound,
                }
            )
    notes = [
        "simulated: our engine on a stand-in of 16,384 multipliers at 225 MHz behind the board's whole bandwidth; what "
        "it has less than the bound are the ends of operators, what the paper has less is not modelled",
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


def machine() -> Machine:
    """The stand-in: 256 columns of 32 lanes, two values of 4 bits or fewer a lane, or one of 8 bits in two cycles."""
    return Machine(
        name="u280",
        pe="outlier-victim:lanes=32",
        array=Array(rows=1, cols=256, dataflow=Dataflow.OUTPUT_STATIONARY),
        buffers=Buffers(act_kib=1024, wgt_kib=1024, out_kib=1024),
        clock_mhz=225,
    )


def simulated_tokens_per_s(
    shape: ModelShape, policy: FormatPolicy, context: int, kept: Sparsity | None, data: dict[str, Any]
) -> float:
    """Decode of one token at `context` on `machine`, matrix products alone, by the fast engine."""
    board = machine()
    clock_hz = board.clock_mhz * 1e6
    port = DramPort(round(data["bandwidth_gbytes_per_s"] * 1000), round(clock_hz / 1000), 0)
    cycles = 0
    for gemm in work_of(shape, policy, decode(context), Choices(sparsity=kept)).gemms:
        program = mapping.compile_gemm(board, gemm, port)
        cycles += gemm.count * fast.run(program, mapping.array_shape(board, gemm.weight_format), port, 1).cycles
    return clock_hz / cycles
