"""One result as one flat row: stable keys with units, the sums they obey, the hashes and the command behind them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from fractions import Fraction
from importlib import metadata
from typing import TYPE_CHECKING, Any

from bitwright.arch import costs
from bitwright.arch.array_timing import ONE_ROW
from bitwright.arch.costs.tables import DEFAULT_CELL_TYPE
from bitwright.arch.machine import Machine
from bitwright.sim.energy import Energy
from bitwright.sim.gpus import references
from bitwright.sim.inference import Phase, Result, beyond_capacity, dram_port, installed, not_modelled
from bitwright.sim.store import content_hash
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.steps import static

if TYPE_CHECKING:
    from bitwright.arch.space import Accuracy  # 10 ms, for perplexity alone

SCHEMA_VERSION = 2

KINDS = ("attention_projections", "attention", "ffn", "head", "vector")


def result_row(result: Result, accuracy: Accuracy | None = None, machine_file: str = "MACHINE.yaml") -> dict[str, Any]:
    """All figures of `result` but its accuracy (`accuracy` is how much text that is measured on, for the command).

    `machine_file` is the machine's, as the row's command names it where no pattern tells all of it.

    `cycles` is the sum of the `cycles_*` causes and of the `cycles_op_*` kinds; `energy_uj` the sum of the
    `energy_<part>_uj`; the `wait_<cause>_cycles` sum to `cycles_dram_wait`; `macs` and the `lost_macs_<cause>` to
    `peak_macs_per_cycle` * `cycles`; `area_mm2` the sum of the `area_*_mm2`. Energies and areas are None for a machine
    without cost tables.
    """
    total = result.prefill + result.decode
    machine = result.machine
    peak = peak_macs_per_cycle(machine, result.policy)
    row = machine_figures(machine, result.policy) | {
        "model": result.model,
        "prompt_tokens": result.prompt_tokens,
        "output_tokens": result.output_tokens,
        "batch": result.batch,
        "utilisation": float(total.macs / (peak * total.cycles)),
        "peak_memory_bytes": result.peak_memory_bytes,
        "notes": [
            *beyond_capacity(machine, result.peak_memory_bytes),
            *_vector_bound(total),
            *not_modelled(machine),
        ],
        "gpus": references(
            result.shape, result.policy, static(result.prompt_tokens, result.output_tokens, result.batch)
        ),
        "command": command(result, accuracy, machine_file),
        "hashes": input_hashes(result),
    }
    row |= _times(result, total)
    row |= {f"wait_{cause}_cycles": cycles for cause, cycles in total.waits._asdict().items()}
    row |= _lost(total, peak)
    row |= _energies(result, total)
    row |= area_figures(result.area_um2)
    for phase, figures in (("prefill_", result.prefill), ("decode_", result.decode)):
        row[f"{phase}macs"] = figures.macs
        row[f"{phase}dram_bytes"] = figures.dram_bytes
        row[f"{phase}bound_cycles"] = figures.bound_cycles
        row[f"{phase}macs_per_cycle"] = figures.macs / figures.cycles if figures.cycles else 0.0
    row["macs"], row["dram_bytes"] = total.macs, total.dram_bytes
    return row


def _vector_bound(total: Phase) -> list[str]:
    """A note where most cycles are the vector unit's."""
    if 2 * total.cycles_vector <= total.cycles:
        return []
    return [
        "most cycles are element-wise work on the vector unit, which a larger array does not shorten (vector.lanes, "
        "--vector-lanes)"
    ]


def machine_figures(machine: Machine, policy: FormatPolicy) -> dict[str, Any]:
    """What of a row is the machine's and its formats' alone, and which versions made it."""
    acceptance = machine.spec.accepts(policy.weights, policy.group_size)
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
        "peak_macs_per_cycle": _whole(peak_macs_per_cycle(machine, policy)),
        "versions": {name: metadata.version(name) for name in ("numpy", "simpy", "pydantic")},
    }


def peak_macs_per_cycle(machine: Machine, policy: FormatPolicy) -> Fraction:
    """Products a cycle with every lane at work, in the fastest of the formats that the machine is built for."""
    return max(machine.macs_a_cycle(name) for name in installed(policy))


def known(figures: Mapping[str, Any]) -> dict[str, Any]:
    """None in the place of figures that are nan: of a machine without cost tables."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in figures.items()}


def area_figures(areas_um2: Mapping[str, float]) -> dict[str, float | None]:
    """Square millimetres of each part, and of all; None where they are not known."""
    parts = {f"area_{name}_mm2": area_um2 * 1e-6 for name, area_um2 in areas_um2.items()}
    return known({**parts, "area_mm2": sum(parts.values())})


def _lost(total: Phase, peak: Fraction) -> dict[str, int | float]:
    """MACs that the array could have done and did not, by cause.

    `macs` and these sum to peak_macs_per_cycle * cycles, exactly where that is a whole number. edges: lanes without an
    operand while others stream; on a tile whose formats take unlike cycles a step, also what the slower ones lose.
    """
    causes = {
        "edges": peak * total.cycles_stream - total.macs,
        "array_stall": peak * total.cycles_array_stall,
        "fill_drain": peak * total.cycles_fill_drain,
        "vector": peak * total.cycles_vector,
        **{f"wait_{cause}": peak * cycles for cause, cycles in total.waits._asdict().items()},
    }
    return {f"lost_macs_{cause}": _whole(macs) for cause, macs in causes.items()}


def _whole(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


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


def energy_parts(total: Phase) -> dict[str, float | None]:
    """Microjoules by part; None where they are not known."""
    return known({f"energy_{item.name}_uj": getattr(total.energy, item.name) * 1e-6 for item in fields(Energy)})


def cycle_parts(total: Phase) -> dict[str, int]:
    """Cycles by cause and by kind of operator; each sums to `cycles`."""
    return {
        **{item.name: getattr(total, item.name) for item in fields(Phase) if item.name.startswith("cycles_")},
        **{f"cycles_op_{kind}": total.by_kind.get(kind, 0) for kind in KINDS},
    }


def _energies(result: Result, total: Phase) -> dict[str, Any]:
    parts = {f"energy_{item.name}_uj": getattr(total.energy, item.name) * 1e-6 for item in fields(Energy)}
    energy_uj = sum(parts.values())
    tokens = result.batch * (result.output_tokens or result.prompt_tokens)
    decoded = result.batch * result.output_tokens
    decode_uj = result.decode.energy.total_pj * 1e-6
    sums = {
        "energy_uj": energy_uj,
        "energy_uj_per_token": energy_uj / tokens,
        "prefill_energy_uj": result.prefill.energy.total_pj * 1e-6,
        "decode_energy_uj": decode_uj,
        "decode_energy_uj_per_token": decode_uj / decoded if decoded else None,
    }
    return known(parts | sums)


def command(result: Result, accuracy: Accuracy | None, machine_file: str) -> str:
    """The command line that computes this row again."""
    run = ["--prompt-tokens", str(result.prompt_tokens), "--output-tokens", str(result.output_tokens)]
    run += ["--batch", str(result.batch)]
    if accuracy:
        run += ["--perplexity-tokens", str(accuracy.tokens), "--perplexity-window", str(accuracy.window)]
    return command_of(result.machine, result.policy, result.model, run, machine_file)


def command_of(
    machine: Machine,
    policy: FormatPolicy,
    model: str,
    run: Sequence[str],
    machine_file: str = "MACHINE.yaml",
    *,
    of_a_model: bool = True,
) -> str:
    """`bitwright simulate` of this machine, model and formats with the options `run`.

    Not `of_a_model`: a list of products, which has no KV cache and no head.
    """
    name = f"{machine.pe}-{machine.array.rows}x{machine.array.cols}-{machine.array.dataflow.value}"
    if machine.array.load != ONE_ROW:
        name = machine_file  # no pattern tells how weights are loaded
    words = ["bitwright", "simulate", name]
    words += [model, *run, "--weights", policy.weights]
    words += ["--group", str(policy.group)] if policy.group is not None else []
    words += ["--acts", policy.acts]
    if of_a_model:
        words += ["--kv", policy.kv]
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
