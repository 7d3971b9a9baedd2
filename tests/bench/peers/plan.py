"""Who runs what: the GEMMs of the survey of peers, the machine, and every peer's modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import maestro

Sizes = tuple[int, int, int]  # M, K, N

SMALL: tuple[Sizes, ...] = ((100, 300, 50), (512, 512, 512))
"""On both arrays, in every dataflow."""
LAYER: tuple[Sizes, ...] = tuple(
    sizes
    for tokens in (1, 2048)
    for sizes in (
        (tokens, 4096, 4096), (tokens, 4096, 11008), (tokens, 11008, 4096), (tokens, 128, 2048), (tokens, 2048, 128)
    )
)  # fmt: skip
"""The unique products of a layer of Llama-2-7B, decode and prefill at context 2,048."""
OTHERS: tuple[Sizes, ...] = ((128, 4096, 4096),)
ARRAYS = (128, 32)
MODEL = "llama-2-7b"
PROMPT_TOKENS = 2048

MACHINE: dict[str, Any] = {
    "dataflow": "ws", "buffers_kib": [512, 512, 512], "dram": "hbm2e", "clock_mhz": 250, "load_rows": 1,
    "vector_lanes": 16,
}  # fmt: skip
"""Ours, of int8-mac: HBM2E is 410 GB/s, 1,640 bytes a cycle."""
WIDE = {"load_rows": 16, "vector_lanes": 4096}
"""What the whole model also takes: 16 rows of weights a cycle, and a vector unit that is no bottleneck."""


@dataclass(frozen=True)
class Mode:
    """One way to ask one peer.

    Fields
        against   What of ours assumes the same: "array" (operands are there) or "machine" (with DRAM).
        dataflows   In which it runs.
        key   Of its answer, what is compared: with DRAM, from the first byte asked for to the last written.
    """

    peer: str
    name: str
    against: str
    dataflows: tuple[str, ...] = ("ws",)
    key: str = "cycles"

    @property
    def label(self) -> str:
        return f"{self.peer} {self.name}".strip()


MODES = (
    Mode("scalesim", "compute", "array", ("ws", "os", "is")),
    Mode("scalesim", "calc", "array", ("ws", "os", "is")),
    Mode("scalesim", "user", "machine", key="cycles_with_prefetch"),
    Mode("zigzag", "systolic", "machine"),
    Mode("zigzag", "broadcast", "machine"),
    Mode("maestro", "ideal", "array"),
    Mode("maestro", "offchip", "machine"),
    Mode("maestro", "edges", "machine"),
    Mode("genz", "", "machine"),
)


@dataclass(frozen=True)
class Case:
    """A product on an array."""

    m: int
    k: int
    n: int
    array: int
    dataflow: str

    @property
    def small(self) -> bool:
        """Whether it is one of the two that all take in every dataflow."""
        return (self.m, self.k, self.n) in SMALL

    def job(self, mode: str, bytes_per_cycle: float) -> dict[str, Any]:
        """What a driver takes."""
        return MACHINE | {
            "m": self.m, "k": self.k, "n": self.n, "rows": self.array, "cols": self.array, "dataflow": self.dataflow,
            "mode": mode, "bytes_per_cycle": bytes_per_cycle, "macs_per_cycle": self.array**2,
        }  # fmt: skip


def cases(short: bool) -> Iterator[Case]:
    """Every product in every dataflow and array that some peer runs it in; `short`: the small ones."""
    for array in ARRAYS:
        for dataflow in ("ws", "os", "is"):
            for sizes in SMALL:
                yield Case(*sizes, array, dataflow)
    if not short:
        for dataflow in ("ws", "os", "is"):
            for sizes in (*OTHERS, *LAYER):
                yield Case(*sizes, ARRAYS[0], dataflow)


def modes(case: Case) -> list[Mode]:
    """The modes that take `case`.

    SCALE-Sim's whole simulator takes the other dataflows, and its USER mode, only where it is quick: small products
    on the larger array. What it gives without stalls is what its array alone gives, which takes all.
    """
    quick = case.small and case.array == ARRAYS[0]
    return [
        mode
        for mode in MODES
        if case.dataflow in mode.dataflows
        and (quick or mode.name == "compute" or (case.dataflow == "ws" and mode.name != "user"))
    ]


Reader = Callable[[Path, str], dict[str, Any]]


def read_maestro(folder: Path, _: str) -> dict[str, Any]:
    """The table that MAESTRO wrote."""
    return maestro.report((folder / "gemm.csv").read_text())
