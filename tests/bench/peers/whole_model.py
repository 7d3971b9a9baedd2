"""Llama-2-7B, prefill of 2,048 tokens and one decode step, on 128x128 with HBM2E: ours beside GenZ's roofline."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from bitwright.arch import machine as machines
from bitwright.sim.inference import dram_port
from peers.plan import ARRAYS, MACHINE, MODEL, PROMPT_TOKENS, WIDE
from peers.runs import HERE, Run, Runner, Status

HEADER = ("phase", "who", "cycles", "ms", "/ GenZ", "products alone", "/ GenZ's", "CPU s", "MiB", "what it is made of")

UNCOMPARED = ("embeddings", "classifier")
"""Operators of GenZ's that ours sees otherwise: a lookup, and one token of the head."""


def bytes_per_cycle() -> float:
    """Of the machine's DRAM."""
    machine = machines.with_changes(
        machines.load(f"int8-{ARRAYS[0]}x{ARRAYS[0]}"), dram=MACHINE["dram"], clock_mhz=MACHINE["clock_mhz"]
    )
    return dram_port(machine).bytes_per_cycle


def ours(measure: Runner, changes: dict[str, Any]) -> Run:
    """Both phases in one process, fast engine."""
    job = MACHINE | changes | {
        "rows": ARRAYS[0], "cols": ARRAYS[0], "model": MODEL, "prompt_tokens": PROMPT_TOKENS, "mode": "fast"
    }  # fmt: skip
    return measure([sys.executable, str(HERE / "ours_driver.py")], job)


def genz(python: Path | Run, phase: str, measure: Runner, rate: float) -> Run:
    """One phase."""
    if isinstance(python, Run):
        return python
    job = {
        "model": f"meta-llama/{MODEL}", "phase": phase, "prompt_tokens": PROMPT_TOKENS,
        "macs_per_cycle": ARRAYS[0] ** 2, "clock_mhz": MACHINE["clock_mhz"], "bytes_per_cycle": rate,
    }  # fmt: skip
    return measure([str(python), str(HERE / "genz_driver.py")], job)


def split(operators: list[dict[str, Any]]) -> dict[str, float]:
    """GenZ's milliseconds of the layers and of `UNCOMPARED`; what is between Repeat and End Repeat counts so often."""
    total: dict[str, float] = {"layers": 0.0, **dict.fromkeys(UNCOMPARED, 0.0)}
    times = 1
    for operator in operators:
        if operator["kind"] == "Repeat":
            times = int(operator["dimension"])
        elif operator["kind"] == "EndRepeat":
            times = 1
        else:
            name = operator["name"] if operator["name"] in UNCOMPARED else "layers"
            total[name] += times * operator["latency_ms"]
    return total


def rows(python: Path | Run, measure: Runner, rate: float) -> list[tuple[str, ...]]:
    """The table's rows, by phase: ours as asked, ours with a wide load path and vector unit, GenZ."""
    found = [("bitwright", ours(measure, {})), ("bitwright, wide", ours(measure, WIDE))]
    made = []
    for phase in ("prefill", "decode"):
        theirs = genz(python, phase, measure, rate)
        made += [phase_row(phase, who, run, theirs) for who, run in found]
        made.append(genz_row(phase, theirs))
    return made


def phase_row(phase: str, who: str, run: Run, theirs: Run) -> tuple[str, ...]:
    """One of ours; time and memory are of both phases together."""
    if run.status is not Status.DONE:
        return (phase, who, *["-"] * 7, f"{run.status}: {run.why}")
    figures = run.answer[phase]
    cycles, products = figures["cycles"], figures["cycles"] - figures["cycles_vector"]
    layers = products - figures["by_kind"]["head"]
    genz_ms = theirs.answer.get("latency_ms", math.nan)
    genz_layers = split(theirs.answer["operators"])["layers"] if theirs.answer else math.nan
    parts = ("stream", "array_stall", "fill_drain", "dram_wait", "vector")
    made_of = ", ".join(f"{part} {figures[f'cycles_{part}'] / cycles:.1%}" for part in parts)
    return (
        phase, who, f"{cycles:,}", f"{_ms(cycles):,.2f}", f"{_ms(cycles) / genz_ms:.3f}", f"{products:,}",
        f"{_ms(layers) / genz_layers:.3f}", f"{run.processor_s:.2f}", f"{run.peak_mib or 0:.0f}", made_of,
    )  # fmt: skip


def genz_row(phase: str, run: Run) -> tuple[str, ...]:
    """GenZ's."""
    if run.status is not Status.DONE:
        return (phase, "genz", *["-"] * 7, f"{run.status}: {run.why}")
    cycles, ms = run.answer["cycles"], run.answer["latency_ms"]
    made_of = ", ".join(f"{name} {part:,.2f} ms" for name, part in split(run.answer["operators"]).items())
    return (
        phase, "genz", f"{cycles:,.0f}", f"{ms:,.2f}", "1", f"{cycles:,.0f}", "1", f"{run.processor_s:.2f}",
        f"{run.peak_mib or 0:.0f}", made_of,
    )  # fmt: skip


def _ms(cycles: float) -> float:
    return float(cycles / (MACHINE["clock_mhz"] * 1e3))
