"""`bitwright reproduce mixpe`: the authors' figures, their model computed here, and each simplification taken away."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from bitwright.arch.errors import ConfigError, suggest
from bitwright.reports.papers import SCHEMA_VERSION, mixpe, percent, published
from bitwright.reports.papers.mixpe import DESIGNS, MODELS, Figures, Rules
from bitwright.reports.papers.traps import ladder
from bitwright.workloads.shapes import ModelShape

TASKS = ("prefill", "decode")
ENERGY_PARTS = ("static", "dram", "buffer", "core")
# Policies of our PEs that are the design's, for `simulated_cycles`.
OUR_PES: dict[str, dict[str, Any]] = {
    "fp16": {"pe": "fp16-mac"},
    "int8": {"pe": "int8-mac", "weights": "int8", "acts": "int8", "kv": "int8"},
    "mixpe-w4a8": {"pe": "shift-add", "weights": "int4_asym", "group": 128, "acts": "int8", "kv": "int4"},
}


def answer(model: str, accelerator: str, task: str | None = None) -> dict[str, Any]:
    """One model on one design: cycles and energy as the authors count them, and with each trap removed.

    `task` changes nothing, as its layers have no context. Raises ConfigError for an unknown model, design or task.
    """
    if task is not None and task not in TASKS:
        raise ConfigError(f"task = {task!r}: not one of mixpe's; {suggest(task, TASKS)}; the command line")
    machine = mixpe.design(accelerator)
    net, shape = mixpe.net(model)
    base = DESIGNS["fp16"]
    rows = ladder(mixpe.PUBLISHED, mixpe.TRAPS, mixpe.CORRECTED, "PEs, bandwidth and energies")
    found = [
        (name, text, mixpe.evaluate(machine, net, shape, rules), mixpe.evaluate(base, net, shape, rules))
        for name, rules, text in rows
    ]
    first, ours = found[0], found[-1]
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": "mixpe",
        "model": net.name,
        "accelerator": machine.name,
        "task": task,
        **_figures(first[2]),
        "time_over_fp16": first[2].cycles / first[3].cycles,
        "energy_over_fp16": first[2].energy_uj / first[3].energy_uj,
        **_published(net.name, machine.name),
        "ours": _figures(ours[2]),
        "simulated_cycles": None if shape is None else simulated_cycles(machine.name, shape),
        "differences": [
            {
                "name": name,
                "cycles": row.cycles,
                "cycles_percent": percent(row.cycles, first[2].cycles),
                "energy_uj": row.energy_uj,
                "energy_percent": percent(row.energy_uj, first[2].energy_uj),
                "speedup_over_fp16": fp16.cycles / row.cycles,
                "text": text,
            }
            for name, text, row, fp16 in found
        ],
        "notes": [
            "one token of each of 64 sequences: no attention, no context, no LM head; prefill and decode are the same",
            *(["a vision model's 197 tokens are one as well, after its patch embedding"] if net.patches else []),
            *(
                ["simulated_cycles: our SimPy machine with this array and these buffers, the model's own matrices"]
                if machine.name in OUR_PES and shape is not None
                else []
            ),
        ],
    }


def _figures(row: Figures) -> dict[str, float]:
    return {
        "cycles": row.cycles,
        "compute_cycles": row.compute_cycles,
        "dram_cycles": row.dram_cycles,
        "stall_cycles": row.stall_cycles,
        "energy_uj": row.energy_uj,
        **{f"energy_{part}_uj": getattr(row, f"energy_{part}_uj") for part in ENERGY_PARTS},
    }


def _published(model: str, accelerator: str) -> dict[str, float | None]:
    """The result file's time and its four energies summed, over FP16's; None for a model that is not in it."""
    if model not in MODELS:
        return {"published_time_over_fp16": None, "published_energy_over_fp16": None}
    known = published("mixpe")
    at = MODELS.index(model), known["accelerators"].index(accelerator)
    parts = (known[part][at[0]][at[1]] for part in ENERGY_PARTS)
    return {
        "published_time_over_fp16": known["time"][at[0]][at[1]],
        "published_energy_over_fp16": round(sum(parts), 2),
    }


def simulated_cycles(accelerator: str, shape: ModelShape) -> int | None:
    """The blocks' matrices on our SimPy engine, 64 rows: the design's array, buffers and 128 DRAM bytes a cycle.

    Output-stationary, with fill and drain, no latency; None for a design whose PE no array of ours has.
    """
    if accelerator not in OUR_PES:
        return None
    from bitwright.arch.dram_port import DramPort
    from bitwright.arch.machine import Array, Buffers, Dataflow, Machine
    from bitwright.sim import engine
    from bitwright.workloads import mapping, steps
    from bitwright.workloads.operators import work_of
    from bitwright.workloads.policy import FormatPolicy

    design = DESIGNS[accelerator]
    policy = FormatPolicy(**OUR_PES[accelerator])
    machine = Machine(
        name=f"mixpe-{accelerator}",
        pe=policy.pe,
        array=Array(rows=design.rows, cols=design.cols, dataflow=Dataflow.OUTPUT_STATIONARY),
        buffers=Buffers(act_kib=256, wgt_kib=128, out_kib=128),
        clock_mhz=500,
    )
    port = DramPort(mbytes_per_s=64_000, clock_khz=500_000, latency_cycles=0)
    cycles = 0
    for gemm in work_of(shape, policy, steps.prefill(1, mixpe.BATCH)).gemms:
        if gemm.kind in ("attention_projections", "ffn"):
            program = mapping.compile_gemm(machine, gemm, port)
            cycles += gemm.count * engine.run(program, mapping.array_shape(machine, gemm.weight_format), port, 1).cycles
    return cycles


def overview() -> dict[str, Any]:
    """The result file's four nets and six designs beside ours, and the means."""
    rows = []
    for model in MODELS:
        net, shape = mixpe.net(model)
        base = mixpe.evaluate(DESIGNS["fp16"], net, shape)
        for machine in DESIGNS.values():
            row = mixpe.evaluate(machine, net, shape)
            known = _published(model, machine.name)
            rows.append(
                {
                    "model": model,
                    "accelerator": machine.name,
                    "compute_cycles": row.compute_cycles,
                    "cycles": row.cycles,
                    "time_over_fp16": row.cycles / base.cycles,
                    "published_time_over_fp16": known["published_time_over_fp16"],
                    "energy_uj": row.energy_uj,
                    "energy_over_fp16": row.energy_uj / base.energy_uj,
                    "published_energy_over_fp16": known["published_energy_over_fp16"],
                }
            )
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": "mixpe",
        "source": published("mixpe")["source"],
        "rows": rows,
        "headline": headline(),
        "claimed": {"over_state_of_the_art_time": 2.6, "over_state_of_the_art_energy": 1.4},  # the abstract
        "headline_corrected": headline(mixpe.CORRECTED),
    }


def headline(rules: Rules = mixpe.PUBLISHED) -> dict[str, float]:
    """How much faster and more frugal W4A8 is than each other design, from arithmetic means of four normalised nets."""
    time: dict[str, float] = {}
    energy: dict[str, float] = {}
    bases = [mixpe.evaluate(DESIGNS["fp16"], *mixpe.net(model), rules) for model in MODELS]
    for machine in DESIGNS.values():
        rows = [mixpe.evaluate(machine, *mixpe.net(model), rules) for model in MODELS]
        time[machine.name] = fmean(row.cycles / base.cycles for row, base in zip(rows, bases, strict=True))
        energy[machine.name] = fmean(row.energy_uj / base.energy_uj for row, base in zip(rows, bases, strict=True))
    ours = "mixpe-w4a8"
    found = {}
    for name in DESIGNS:
        if name != ours:
            found[f"w4a8_over_{name}_time"] = time[name] / time[ours]
            found[f"w4a8_over_{name}_energy"] = energy[name] / energy[ours]
    return found
