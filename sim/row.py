"""One result as one flat row: stable keys with units, the sums they obey, the hashes and the command behind them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import metadata
from typing import Any

from bitwright.arch import costs, pe
from bitwright.arch.costs.tables import DEFAULT_CELL_TYPE
from bitwright.arch.machine import Machine
from bitwright.arch.space import Accuracy
from bitwright.sim.energy import Energy
from bitwright.sim.inference import Phase, Result, dram_port, not_modelled
from bitwright.sim.store import content_hash
from bitwright.workloads.policy import FormatPolicy

SCHEMA_VERSION = 1

KINDS = ("attention_projections", "attention", "ffn", "head", "vector")


def result_row(result: Result, accuracy: Accuracy | None = None) -> dict[str, Any]:
    """All figures of `result` but its accuracy (`accuracy` is how much text that is measured on, for the command).

    `cycles` is the sum of the `cycles_*` causes and of the `cycles_op_*` kinds; `energy_uj` the sum of the
    `energy_<part>_uj`; the `wait_<cause>_cycles` sum to `cycles_dram_wait`; `macs` and the `lost_macs_<cause>` to
    `peak_macs_per_cycle` * `cycles`; `area_mm2` the sum of the `area_*_mm2`.
    """
    total = result.prefill + result.decode
    machine = result.machine
    row = machine_figures(machine, result.policy) | {
        "model": result.model,
        "prompt_tokens": result.prompt_tokens,
        "output_tokens": result.output_tokens,
        "batch": result.batch,
        "utilisation": total.macs / (machine.array.rows * machine.array.cols * total.cycles),
        "peak_memory_bytes": result.peak_memory_bytes,
        "notes": list(not_modelled(machine)),
        "command": command(result, accuracy),
        "hashes": input_hashes(result),
    }
    row |= _times(result, total)
    row |= {f"wait_{cause}_cycles": cycles for cause, cycles in total.waits._asdict().items()}
    row |= _lost(total, machine.array.rows * machine.array.cols)
    row |= _energies(result, total)
    row |= area_figures(result.area_um2)
    for phase, figures in (("prefill_", result.prefill), ("decode_", result.decode)):
        row[f"{phase}macs"] = figures.macs
        row[f"{phase}dram_bytes"] = figures.dram_bytes
        row[f"{phase}bound_cycles"] = figures.bound_cycles
        row[f"{phase}macs_per_cycle"] = figures.macs / figures.cycles if figures.cycles else 0.0
    row["macs"], row["dram_bytes"] = total.macs, total.dram_bytes
    return row


def machine_figures(machine: Machine, policy: FormatPolicy) -> dict[str, Any]:
    """What of a row is the machine's and its formats' alone, and which versions made it."""
    acceptance = pe.get(machine.pe).accepts(policy.weights, policy.group_size)
    dram = costs.load(machine.node).dram(machine.dram)
    return {
        "schema_version": SCHEMA_VERSION,
        "bitwright_version": metadata.version("bitwright"),
        "machine": machine.name,
        "pe": machine.pe,
        "rows": machine.array.rows,
        "cols": machine.array.cols,
        "dataflow": machine.array.dataflow.value,
        "clock_mhz": machine.clock_mhz,
        "node": machine.node,
        "act_buffer_kib": machine.buffers.act_kib,
        "wgt_buffer_kib": machine.buffers.wgt_kib,
        "out_buffer_kib": machine.buffers.out_kib,
        "dram": machine.dram,
        "dram_timing": machine.dram_timing.value,
        "dram_bandwidth_bytes_per_cycle": dram_port(machine).bytes_per_cycle,
        "dram_scope": f"{dram.scope}: {dram.scope_text}",
        "sram_cell_type": DEFAULT_CELL_TYPE,
        "vector_lanes": machine.vector.lanes,
        "weights": policy.weights,
        "group": policy.group,
        "acts": policy.acts,
        "kv": policy.kv,
        "head": policy.head_format,
        "weight_path": acceptance.kind,
        "weight_unit": acceptance.unit,
        "peak_macs_per_cycle": machine.array.rows * machine.array.cols,
        "versions": {name: metadata.version(name) for name in ("numpy", "simpy", "pydantic")},
    }


def area_figures(areas_um2: Mapping[str, float]) -> dict[str, float]:
    """Square millimetres of each part, and of all."""
    parts = {f"area_{name}_mm2": area_um2 * 1e-6 for name, area_um2 in areas_um2.items()}
    return {**parts, "area_mm2": sum(parts.values())}


def _lost(total: Phase, cells: int) -> dict[str, int]:
    """MACs that the array could have done and did not, by cause.

    `macs` and these sum exactly to peak_macs_per_cycle * cycles. edges: cells without an operand while others stream.
    """
    causes = {
        "edges": cells * total.cycles_stream - total.macs,
        "array_stall": cells * total.cycles_array_stall,
        "fill_drain": cells * total.cycles_fill_drain,
        "vector": cells * total.cycles_vector,
        **{f"wait_{cause}": cells * cycles for cause, cycles in total.waits._asdict().items()},
    }
    return {f"lost_macs_{cause}": macs for cause, macs in causes.items()}


def _times(result: Result, total: Phase) -> dict[str, Any]:
    def milliseconds(cycles: int) -> float:
        return cycles / (result.machine.clock_mhz * 1e3)

    prefill_ms, decode_ms = milliseconds(result.prefill.cycles), milliseconds(result.decode.cycles)
    steps = result.output_tokens
    return {
        "cycles": total.cycles,
        "prefill_cycles": result.prefill.cycles,
        "decode_cycles": result.decode.cycles,
        "latency_ms": milliseconds(total.cycles),
        "ttft_ms": prefill_ms,
        "tpot_ms": decode_ms / steps if steps else None,
        "prefill_tokens_per_s": result.batch * result.prompt_tokens / prefill_ms * 1e3,
        "decode_tokens_per_s": result.batch * steps / decode_ms * 1e3 if steps else None,
        **cycle_parts(total),
    }


def energy_parts(total: Phase) -> dict[str, float]:
    """Microjoules by part."""
    return {f"energy_{item.name}_uj": getattr(total.energy, item.name) * 1e-6 for item in fields(Energy)}


def cycle_parts(total: Phase) -> dict[str, int]:
    """Cycles by cause and by kind of operator; each sums to `cycles`."""
    return {
        **{item.name: getattr(total, item.name) for item in fields(Phase) if item.name.startswith("cycles_")},
        **{f"cycles_op_{kind}": total.by_kind.get(kind, 0) for kind in KINDS},
    }


def _energies(result: Result, total: Phase) -> dict[str, Any]:
    parts = energy_parts(total)
    energy_uj = sum(parts.values())
    tokens = result.batch * (result.output_tokens or result.prompt_tokens)
    decoded = result.batch * result.output_tokens
    decode_uj = result.decode.energy.total_pj * 1e-6
    return {
        **parts,
        "energy_uj": energy_uj,
        "energy_uj_per_token": energy_uj / tokens,
        "prefill_energy_uj": result.prefill.energy.total_pj * 1e-6,
        "decode_energy_uj": decode_uj,
        "decode_energy_uj_per_token": decode_uj / decoded if decoded else None,
    }


def command(result: Result, accuracy: Accuracy | None = None) -> str:
    """The command line that computes this row again."""
    run = ["--prompt-tokens", str(result.prompt_tokens), "--output-tokens", str(result.output_tokens)]
    run += ["--batch", str(result.batch)]
    if accuracy:
        run += ["--perplexity-tokens", str(accuracy.tokens), "--perplexity-window", str(accuracy.window)]
    return command_of(result.machine, result.policy, result.model, run)


def command_of(machine: Machine, policy: FormatPolicy, model: str, run: Sequence[str]) -> str:
    """`bitwright simulate` of this machine, model and formats with the options `run`."""
    words = ["bitwright", "simulate", f"{machine.pe}-{machine.array.rows}x{machine.array.cols}"]
    words[-1] += f"-{machine.array.dataflow.value}"
    words += [model, *run, "--weights", policy.weights]
    words += ["--group", str(policy.group)] if policy.group is not None else []
    words += ["--acts", policy.acts, "--kv", policy.kv]
    words += ["--head", policy.head] if policy.head is not None else []
    buffers = machine.buffers
    words += ["--buffers-kib", ",".join(repr(kib) for kib in (buffers.act_kib, buffers.wgt_kib, buffers.out_kib))]
    words += [
        "--dram",
        machine.dram,
        "--dram-timing",
        machine.dram_timing.value,
        "--clock-mhz",
        repr(machine.clock_mhz),
        "--vector-lanes",
        str(machine.vector.lanes),
    ]
    words += ["--node", machine.node, "--json"]
    return shlex.join(words)


def input_hashes(result: Result) -> dict[str, str]:
    """Content hashes of what a row depends on."""
    return {
        "machine": content_hash(result.machine.model_dump(mode="json")),
        "policy": content_hash(result.policy.model_dump(mode="json")),
        "model_shape": content_hash(asdict(result.shape)),
        "cost_table": costs.load(result.machine.node).content_hash,
    }
