"""`bitwright reproduce bitmod`: the authors' figures, their model computed here, and each simplification taken away."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

from bitwright.reports.papers import SCHEMA_VERSION, bitmod, dense, percent, published
from bitwright.reports.papers.bitmod import ACCELERATORS, MODELS, Figures, Rules, Task
from bitwright.reports.papers.traps import ladder
from bitwright.workloads import shapes
from bitwright.workloads.shapes import ModelShape

DECODED_TOKENS = 20  # of the paper's "generative" task, all at context 256, after the prompt
SIMULATED = replace(bitmod.CORRECTED, equal_area=False)
"""The closed form's rules on what `simulated_cycles` simulates: the published array, every other trap gone."""

# Ratios as the paper's text states them (sections V-C and V-D, figures 7 and 8) beside the keys of `headline`.
CLAIMS = {
    "lossless_over_fp16_prefill": 1.99,
    "lossless_over_fp16_generative": 2.41,
    "lossy_over_ant_prefill": 1.72,
    "lossy_over_ant_generative": 1.66,
    "lossy_over_olive_prefill": 1.56,
    "lossy_over_olive_generative": 1.39,
    "lossless_energy_gain_over_fp16": 2.31,
    "lossy_energy_gain_over_ant": 1.48,
    "lossy_energy_gain_over_olive": 1.31,
}


def answer(model: str, accelerator: str, task: str) -> dict[str, Any]:
    """One model on one accelerator: cycles and energy as the authors count them, and with each trap removed.

    Raises ConfigError for an unknown model, accelerator or task.
    """
    machine, job, shape = bitmod.accelerator(accelerator), bitmod.task(task), dense("bitmod", model)
    base = ACCELERATORS["fp16"]
    rows = ladder(bitmod.PUBLISHED, bitmod.TRAPS, bitmod.CORRECTED, "array, bandwidth and energies")
    found = [
        (name, text, bitmod.evaluate(machine, shape, job, rules), bitmod.evaluate(base, shape, job, rules))
        for name, rules, text in rows
    ]
    ours, first, simulated = found[-1][2], found[0][2], simulated_cycles(machine, shape, job)
    result = {
        "schema_version": SCHEMA_VERSION,
        "paper": "bitmod",
        "model": shape.name,
        "accelerator": machine.name,
        "task": job.value,
        "weight_bits": machine.weight_bits(shape.name, job),
        **_figures(first),
        "speedup_over_fp16": found[0][3].cycles / first.cycles,
        "published_cycles": None,
        "published_energy_uj": None,
        "ours": _figures(ours),
        "simulated_cycles": simulated,
        "simulated_beside_cycles": None
        if simulated is None
        else bitmod.evaluate(machine, shape, job, SIMULATED).cycles,
        "differences": [
            {
                "name": name,
                "cycles": row.cycles,
                "cycles_percent": percent(row.cycles, first.cycles),
                "energy_uj": row.energy_uj,
                "energy_percent": percent(row.energy_uj, first.energy_uj),
                "speedup_over_fp16": fp16.cycles / row.cycles,
                "text": text,
            }
            for name, text, row, fp16 in found
        ],
        "notes": _notes(machine, shape, job),
    }
    if model in MODELS:
        index = MODELS.index(model)
        for key in ("cycles", "energy_uj"):
            result[f"published_{key}"] = published("bitmod")[key][machine.name][job.value][index]
    return result


def _figures(row: Figures) -> dict[str, float]:
    return {
        "cycles": row.cycles,
        "compute_cycles": row.compute_cycles,
        "dram_cycles": row.dram_cycles,
        "dram_bytes": row.dram_bytes,
        "energy_uj": row.energy_uj,
        "energy_onchip_uj": row.energy_onchip_uj,
        "energy_dram_uj": row.energy_dram_uj,
    }


def _notes(machine: bitmod.Accelerator, shape: ModelShape, job: Task) -> list[str]:
    notes = []
    if job is Task.DECODE:
        notes.append(
            f"decode is one token at context {bitmod.TOKENS}; the paper's generative task is {DECODED_TOKENS} of them, "
            "all at that context, and the prompt"
        )
    if job is Task.DECODE and machine.profiled_bits and shape.name not in MODELS:
        notes.append(
            f"{machine.name}'s bits a weight are profiled by hand for the paper's six models; this is their median"
        )
    if not machine.bit_serial:
        notes.append(
            "a multiply-accumulate takes a cycle whatever the weight's bits: fewer bits save DRAM traffic only"
        )
    if job is Task.PREFILL:
        notes.append("the LM head is charged for every token of the prompt; a decoder needs it for the last one alone")
    if machine.name == "fp16":
        notes.append(
            "simulated_cycles: our SimPy machine, output-stationary, fill, drain and LM head of the last token"
        )
    if machine.bit_serial or machine.name == "fp16":
        notes.append("simulated_beside_cycles: the closed form of the same array, every trap but its area taken away")
    if machine.bit_serial:
        notes.append(
            "simulated_cycles: our SimPy machine of the same bit-serial PEs, selectors moved, KV cache in int8 (4 "
            "cycles a step), each head's attention by itself, LM head of the last token"
        )
    return notes


def simulated_cycles(accelerator: bitmod.Accelerator, shape: ModelShape, job: Task) -> int | None:
    """The FP16 and the BitMoD machines on our SimPy engine: same PEs, 512 KiB a buffer, 32 DRAM bytes a cycle without
    latency. None for ANT and OliVe as BitMoD has them (16-bit activations): no PE of ours.

    Rows are tokens and columns output channels. Cycles of the matrix products alone. BitMoD's are a broadcast tile of
    its PEs, weights (head included) in groups of 128, the KV cache in int8.
    """
    if not accelerator.bit_serial and accelerator.name != "fp16":
        return None
    from bitwright.arch.dram_port import DramPort
    from bitwright.arch.machine import Array, Buffers, Dataflow, Machine
    from bitwright.sim import engine
    from bitwright.workloads import mapping, steps
    from bitwright.workloads.operators import work_of
    from bitwright.workloads.policy import FormatPolicy

    if accelerator.bit_serial:
        weights = {6: "int6", 4: "bitmod_fp4", 3: "bitmod_fp3"}[int(accelerator.weight_bits(shape.name, job))]
        policy = FormatPolicy(pe="bit-serial", weights=weights, group=128, kv="int8")
    else:
        policy = FormatPolicy()
    rows, cols = accelerator.array(job)
    machine = Machine(
        name=accelerator.name,
        pe=policy.pe,
        array=Array(rows=cols, cols=rows, dataflow=Dataflow.OUTPUT_STATIONARY),
        buffers=Buffers(act_kib=512, wgt_kib=512, out_kib=512),
        clock_mhz=1000,
    )
    port = DramPort(mbytes_per_s=bitmod.DRAM_BYTES_PER_CYCLE * 1000, clock_khz=1_000_000, latency_cycles=0)
    step = steps.prefill(bitmod.TOKENS) if job is Task.PREFILL else steps.decode(bitmod.TOKENS)
    cycles = 0
    for gemm in work_of(shape, policy, step).gemms:
        program = mapping.compile_gemm(machine, gemm, port)
        cycles += gemm.count * engine.run(program, mapping.array_shape(machine, gemm.weight_format), port, 1).cycles
    return cycles


def overview() -> dict[str, Any]:
    """The paper's whole evaluation: 60 cycle counts and energies beside the published ones, and the headline ratios."""
    known = published("bitmod")
    rows = []
    for model in MODELS:
        for machine in ACCELERATORS.values():
            for job in Task:
                row = bitmod.evaluate(machine, shapes.get(model), job)
                cycles = known["cycles"][machine.name][job.value][MODELS.index(model)]
                energy = known["energy_uj"][machine.name][job.value][MODELS.index(model)]
                rows.append(
                    {
                        "model": model,
                        "accelerator": machine.name,
                        "task": job.value,
                        "cycles": row.cycles,
                        "published_cycles": cycles,
                        "difference_cycles": row.cycles - cycles,
                        "energy_uj": row.energy_uj,
                        "published_energy_uj": energy,
                        "energy_percent": percent(row.energy_uj, energy),
                    }
                )
    return {
        "schema_version": SCHEMA_VERSION,
        "paper": "bitmod",
        "source": known["source"],
        "rows": rows,
        "headline": headline(),
        "claimed": CLAIMS,
        "headline_corrected": headline(bitmod.CORRECTED),
    }


def headline(rules: Rules = bitmod.PUBLISHED) -> dict[str, float]:
    """The paper's mean ratios, computed as its plots do: arithmetic means, although their bar is named geometric.

    A speed-up over ANT or OliVe is a ratio of two such means. "generative" is 20 decoded tokens and the prompt.
    Energy gains are means of the two tasks' gains.
    """
    speed: dict[tuple[str, str], float] = {}
    energy: dict[tuple[str, str], float] = {}
    totals = {
        (machine.name, model): [bitmod.evaluate(machine, shapes.get(model), job, rules) for job in Task]
        for machine in ACCELERATORS.values()
        for model in MODELS
    }
    for name in ACCELERATORS:
        for kind, decoded in (("prefill", 0), ("generative", DECODED_TOKENS)):
            pairs = [(totals["fp16", model], totals[name, model]) for model in MODELS]
            speed[name, kind] = fmean(
                (base[0].cycles + decoded * base[1].cycles) / (own[0].cycles + decoded * own[1].cycles)
                for base, own in pairs
            )
            energy[name, kind] = fmean(
                (own[0].energy_uj + decoded * own[1].energy_uj) / (base[0].energy_uj + decoded * base[1].energy_uj)
                for base, own in pairs
            )
    found = {}
    for name, base in (("lossless", "fp16"), ("lossy", "ant"), ("lossy", "olive")):
        ours = f"bitmod-{name}"
        for kind in ("prefill", "generative"):
            found[f"{name}_over_{base}_{kind}"] = speed[ours, kind] / speed[base, kind]
        found[f"{name}_energy_gain_over_{base}"] = fmean(
            energy[base, kind] / energy[ours, kind] for kind in ("prefill", "generative")
        )
    return found
