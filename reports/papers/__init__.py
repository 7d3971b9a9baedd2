"""Published simulators, reproduced: their model from the spec, their figures, ours beside them, and why they differ.

`names()` lists the papers; the modules `bitmod_answer`, `mixpe_answer`, `scale_sim`, `lut_tensor_core` and
`fpga_decode` compute. Every published figure is data in `published.json` with its source; what the authors' own models
say is computed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from bitwright.arch.errors import ConfigError, suggest
from bitwright.workloads import shapes
from bitwright.workloads.shapes import ModelShape

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Paper:
    """One paper whose simulator is reproduced."""

    name: str
    title: str
    reproduces: str
    source: str


PAPERS = (
    Paper(
        "bitmod",
        "BitMoD (HPCA 2025)",
        "cycles and energy of 5 accelerators x 2 tasks on any model shape; the headline speed-ups",
        "arXiv 2411.11745; abdelfattah-lab/BitMoD-HPCA-25 at 58d7bdb",
    ),
    Paper(
        "mixpe",
        "MixPE (arXiv 2024)",
        "cycles and energy of 6 designs at batch 64 on any model shape; its normalised time and energy",
        "arXiv 2411.16158; yuzhang712/mixpe_simulator at 7e0d42c",
    ),
    Paper(
        "scale-sim",
        "SCALE-Sim v3 (ISPASS 2025)",
        "stall-free cycles of a GEMM on a systolic array, weight-, output- and input-stationary",
        "scalesim 3.0.0 on PyPI",
    ),
    Paper(
        "lut-tensor-core",
        "LUT Tensor Core (ISCA 2025)",
        "A100 and H100 latencies of its Table 1 beside the bound of a roofline, for any model shape",
        "arXiv 2408.06003, Table 1",
    ),
    Paper(
        "accllm",
        "AccLLM (TVLSI 2026)",
        "tokens/s of Llama-2-7B beside what its board's bandwidth allows",
        "Table VII, simulated by its authors",
    ),
    Paper(
        "flightllm",
        "FlightLLM (FPGA 2024)",
        "tokens/s of Llama-2-7B beside what its board's bandwidth allows",
        "FlightLLM; AccLLM, Table VII",
    ),
)


def names() -> tuple[str, ...]:
    """The papers' names."""
    return tuple(paper.name for paper in PAPERS)


def listing() -> list[dict[str, Any]]:
    """One row a paper, with `name`."""
    return [asdict(paper) for paper in PAPERS]


def check(name: str) -> None:
    """ConfigError with the closest name when there is no such paper."""
    if name not in names():
        raise ConfigError(f"paper = {name!r}: no such paper; {suggest(name, names())}; the command line")


@cache
def published(name: str) -> dict[str, Any]:
    """The figures that `name`'s authors publish, with their `source`."""
    text = resources.files("bitwright.reports.papers").joinpath("published.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)[name]
    return found


def dense(paper: str, model: str) -> ModelShape:
    """The shape called `model`; ConfigError for an unknown one and for what no model of these papers knows."""
    shape = shapes.get(model)
    if shape.experts is not None or shape.latent is not None:
        raise ConfigError(
            f"model = {model!r}: {paper}'s model knows neither experts nor latent attention; "
            "name a dense one such as llama-2-7b; the command line"
        )
    return shape


def percent(ours: float, base: float) -> float:
    """How much `ours` is above `base`, in percent."""
    return 100 * (ours / base - 1)
