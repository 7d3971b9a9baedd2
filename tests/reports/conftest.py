"""Seeded, plausible result rows for the report's tests only: no simulator, no real measurement."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

Row = dict[str, Any]

# (format, group, bits a weight with metadata, perplexity over the fp16 one)
FORMATS: dict[str, list[tuple[str, int | None, float, float]]] = {
    "fp16-mac": [("fp16", None, 16.0, 1.0), ("int4_asym", 128, 4.1875, 1.09), ("bitmod_fp3", 128, 3.2, 1.22)],
    "int8-mac": [
        ("int8", None, 8.03, 1.012),
        ("int4", 128, 4.125, 1.14),
        ("bitmod_fp4", 128, 4.2, 1.07),
        ("bitmod_fp3", 128, 3.2, 1.25),
    ],
    "shift-add": [
        ("int4", 128, 4.125, 1.14),
        ("int4_asym", 128, 4.1875, 1.1),
        ("int3_asym", 128, 3.17, 1.62),
        ("int2_asym", 128, 2.15, 410.0),
    ],
}
PE_COST = {"fp16-mac": (1.05, 1900.0), "int8-mac": (0.24, 430.0), "shift-add": (0.15, 330.0)}  # pJ a MAC, um2
DRAMS = [("lpddr4-3200-x16", 6.4), ("lpddr4-3200-x32", 12.8), ("lpddr5-6400-x32", 25.6)]
WEIGHTS = 134_515_008
GRID_NOTE = "the checkpoint's weights were trained on a 4-bit grid: int4 perplexities are biased low"

NO_WEIGHTS_NOTE = "no weights of the model are here: perplexity is not measured"
STATES = ("stream", "array_stall", "fill_drain", "dram_wait", "vector")
OPERATORS = ("op_attention_projections", "op_attention", "op_ffn", "op_head", "op_vector")
ENERGIES = (
    "array",
    "array_idle",
    "array_wires",
    "skew",
    "edge",
    "sram_act",
    "sram_wgt",
    "sram_out",
    "dram",
    "dram_idle",
    "vector",
    "clock_tree",
    "leakage",
)


def _split(total: float, shares: list[float]) -> list[float]:
    """Float parts that sum to the total up to rounding."""
    return [total * share / sum(shares) for share in shares]


def _split_int(total: int, shares: list[float]) -> list[int]:
    """Whole parts that sum to the total exactly."""
    parts = [int(total * share / sum(shares)) for share in shares]
    parts[0] += total - sum(parts)
    return parts


def _row(
    design: tuple[str, int, str, tuple[str, float], int],
    fmt: Any,
    rng: random.Random,
    model: str,
    prompt: int,
) -> Row:
    pe, size, dataflow, (dram, gb_s), buffer_kib = design
    weights, group, bits, worse = fmt
    clock_mhz, batch, output = 1000.0, 1, 64
    peak = size * size
    bandwidth = gb_s * 1e9 / (clock_mhz * 1e6)
    prefill_macs, decode_macs = WEIGHTS * prompt, WEIGHTS * output
    weight_bytes = int(WEIGHTS * bits / 8)
    prefill_bytes = weight_bytes * max(1, prompt // (buffer_kib * 4)) + 900_000
    decode_bytes = (weight_bytes + 400_000) * output
    columns = 1 if dataflow == "ws" else 0.8
    efficiency = rng.uniform(0.72, 0.93)
    cycles, bounds = [], []
    for macs, moved, feed in (
        (prefill_macs, prefill_bytes, 1.0),
        (decode_macs, decode_bytes, 0.5 * columns),
    ):
        bound = int(max(macs / peak, moved / bandwidth))
        bounds.append(bound)
        cycles.append(int(max(macs / (peak * feed), moved / bandwidth) / efficiency) + 1)
    total_cycles = sum(cycles)
    wait = min(0.9, 1.1 * (decode_bytes / bandwidth) / total_cycles)
    states = _split_int(total_cycles, [1 - wait, 0.08, 0.05, wait, 0.02 * rng.random() + 0.01])
    operators = _split_int(total_cycles, [0.2, 0.06 + rng.random() * 0.05, 0.5, 0.21, 0.03])
    pj, um2 = PE_COST[pe]
    macs, moved = prefill_macs + decode_macs, prefill_bytes + decode_bytes
    edge = 0.04 if pe == "shift-add" else 0.08
    area = [peak * um2 * 1e-6, peak * um2 * 1e-6 * edge, buffer_kib * 3 * 0.0042, 0.11, peak * um2 * 1e-8]
    parts = [
        macs * pj * 1e-6,
        macs * 0.02e-6,
        macs * 0.05e-6,
        macs * 0.03e-6,
        macs * 0.02e-6,
        macs * 0.05e-6,
        macs * 0.06e-6,
        macs * 0.04e-6,
        moved * 8 * 6.5e-6,
        macs * 0.02e-6,
        macs * 0.01e-6,
        macs * 0.02e-6,
        sum(area) * 0.9 * total_cycles / (clock_mhz * 1e3),
    ]
    energy = sum(parts)
    prefill_energy = energy * prefill_macs / macs * 0.6
    seconds = [count / (clock_mhz * 1e6) for count in cycles]
    perplexity = float(f"{17.2134 * worse * (1.0 if pe == 'fp16-mac' else 1.004):.5g}")
    notes = [
        "DRAM energy is a published pJ/bit, not a simulation of the device",
        "the vector unit's cycles are an estimate from its lane count",
        "wires and the clock tree are of a geometry before layout",
    ]
    if weights in ("int4", "int4_asym"):
        notes.append(GRID_NOTE)
    text = f"{pe} {size} {dataflow} {dram} {buffer_kib} {weights} {group} {model} {prompt}"
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    row: Row = {
        "schema_version": 2,
        "key": key,
        "bitwright_version": "0.1.0",
        "space_name": "edge",
        "machine": f"{pe.split('-')[0]}-{size}x{size}",
        "pe": pe,
        "rows": size,
        "cols": size,
        "dataflow": dataflow,
        "clock_mhz": clock_mhz,
        "node": "nangate45",
        "act_buffer_kib": buffer_kib,
        "wgt_buffer_kib": buffer_kib,
        "out_buffer_kib": buffer_kib,
        "dram": dram,
        "dram_bandwidth_bytes_per_cycle": bandwidth,
        "dram_scope": "device and PHY; no refresh",
        "vector_lanes": 16,
        "weights": weights,
        "group": group,
        "acts": "fp16" if pe == "fp16-mac" else "int8",
        "kv": "fp16" if pe == "fp16-mac" else "int8",
        "head": "fp16" if pe == "fp16-mac" else "int8",
        "weight_path": "native" if weights in ("fp16", "int8") or pe == "shift-add" else "decoder",
        "weight_unit": None if weights in ("fp16", "int8") or pe == "shift-add" else "weight-decoder",
        "model": model,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "batch": batch,
        "cycles": total_cycles,
        "prefill_cycles": cycles[0],
        "decode_cycles": cycles[1],
        "latency_ms": sum(seconds) * 1e3,
        "ttft_ms": seconds[0] * 1e3,
        "tpot_ms": seconds[1] * 1e3 / output,
        "prefill_tokens_per_s": prompt / seconds[0],
        "decode_tokens_per_s": output / seconds[1],
        "energy_uj": energy,
        "energy_uj_per_token": energy / (prompt + output),
        "prefill_energy_uj": prefill_energy,
        "decode_energy_uj": energy - prefill_energy,
        "decode_energy_uj_per_token": (energy - prefill_energy) / output,
        "area_mm2": sum(area),
        "perplexity": perplexity,
        "bits_per_byte": 1.02 + 0.2 * (worse - 1) ** 0.5,
        "bits_per_weight": bits,
        "perplexity_predictions": 65535,
        "perplexity_window": 512,
        "text_sha256": hashlib.sha256(b"text").hexdigest(),
        "weights_sha256": hashlib.sha256(weights.encode()).hexdigest(),
        "macs": macs,
        "prefill_macs": prefill_macs,
        "decode_macs": decode_macs,
        "dram_bytes": moved,
        "prefill_dram_bytes": prefill_bytes,
        "decode_dram_bytes": decode_bytes,
        "prefill_bound_cycles": bounds[0],
        "decode_bound_cycles": bounds[1],
        "prefill_macs_per_cycle": prefill_macs / cycles[0],
        "decode_macs_per_cycle": decode_macs / cycles[1],
        "peak_macs_per_cycle": peak,
        "utilisation": macs / (peak * total_cycles),
        "peak_memory_bytes": weight_bytes + 30_000_000,
        "notes": notes,
        "command": (
            f"bitwright simulate {pe.split('-')[0]}-{size}x{size} {model} --prompt-tokens {prompt} "
            f"--output-tokens {output} --format {weights} --set dataflow={dataflow} --set dram={dram}"
        ),
        "hashes": {
            "machine": key[:12],
            "policy": hashlib.sha256(weights.encode()).hexdigest()[:12],
            "model": hashlib.sha256(model.encode()).hexdigest()[:12],
            "text": hashlib.sha256(b"text").hexdigest()[:12],
            "cost_table": hashlib.sha256(pe.encode()).hexdigest()[:12],
        },
        "versions": {"bitwright": "0.1.0", "numpy": "2.4.6", "python": "3.11"},
    }
    row.update({f"cycles_{name}": value for name, value in zip(STATES, states, strict=True)})
    row.update({f"cycles_{name}": value for name, value in zip(OPERATORS, operators, strict=True)})
    row.update({f"energy_{name}_uj": value for name, value in zip(ENERGIES, parts, strict=True)})
    row.update(
        {
            f"area_{name}_mm2": value
            for name, value in zip(["array", "edge", "sram", "vector", "clock_tree"], area, strict=True)
        }
    )
    return row


def fake_rows(count: int = 120, seed: int = 7, model: str = "smollm2-135m", prompt: int = 512) -> list[Row]:
    """`count` rows of distinct designs drawn with `seed`."""
    rng = random.Random(seed)
    designs = [
        ((pe, size, dataflow, dram, kib), fmt)
        for pe, size, dataflow, dram, kib in itertools.product(
            FORMATS, (8, 16, 32, 64), ("ws", "os"), DRAMS, (32, 64, 128, 256)
        )
        for fmt in FORMATS[pe]
    ]
    return [_row(design, fmt, rng, model, prompt) for design, fmt in rng.sample(designs, count)]


def without_accuracy(rows: list[Row]) -> list[Row]:
    """The same designs on a model whose weights are not here."""
    keys = ("perplexity", "bits_per_byte", "bits_per_weight", "perplexity_predictions", "perplexity_window")
    nothing = dict.fromkeys((*keys, "text_sha256", "weights_sha256"))
    return [row | nothing | {"notes": [*row["notes"], NO_WEIGHTS_NOTE]} for row in rows]


def without_decode(rows: list[Row]) -> list[Row]:
    """The same designs in runs of no output tokens."""
    parts = ("cycles", "dram_bytes", "macs", "energy_uj")
    found = []
    for row in rows:
        row = {key: 0 if key.startswith("decode_") else value for key, value in row.items()}
        for total in parts:  # The first part of every sum stands for all that is left.
            row[total] = row[f"prefill_{total}"]
        for names in (STATES, OPERATORS):
            row |= {f"cycles_{name}": 0 for name in names} | {f"cycles_{names[0]}": row["cycles"]}
        row |= {f"energy_{name}_uj": 0 for name in ENERGIES} | {"energy_array_uj": row["energy_uj"]}
        row |= {"output_tokens": 0, "key": f"{row['key']} prefill"}
        found.append(row | dict.fromkeys(("tpot_ms", "decode_tokens_per_s", "decode_energy_uj_per_token")))
    return found


@pytest.fixture(scope="session")
def unmeasured() -> Callable[[list[Row]], list[Row]]:
    """unmeasured(rows): the rows without accuracy."""
    return without_accuracy


@pytest.fixture(scope="session")
def prefill_only() -> Callable[[list[Row]], list[Row]]:
    """prefill_only(rows): the rows without decode, under other keys."""
    return without_decode


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[Row]]:
    """The generator itself: make_rows(count, seed, model, prompt)."""
    return fake_rows


@pytest.fixture
def rows() -> list[Row]:
    """120 designs of one workload."""
    return fake_rows()
