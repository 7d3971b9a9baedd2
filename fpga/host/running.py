"""One matrix product on a board, compared with the golden model: what `bitwright fpga run` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.arch.isa.limits import limits
from bitwright.arch.machine import Machine
from bitwright.fpga.host.decoding import Prediction
from bitwright.fpga.host.driver import BAUD, Accelerator
from bitwright.fpga.host.products import Progress, multiply
from bitwright.workloads.operands import operand

SCHEMA_VERSION = 1
SIMULATED = "simulated"
"""In the place of a port: the board top in Verilator behind a pseudo-terminal."""
_SIMULATED_BAUD, _SIMULATED_TIMEOUT_S = 115_200, 5  # simulated time is slow, and nothing is lost


@dataclass(frozen=True)
class SimulationBoard:
    """The board of `--port simulated`: as few clocks a bit as the receiver takes."""

    name: str = "simulated"
    clock_hz: int = 12_000_000
    baud: int = 3_000_000
    memory_bytes: int = 65536
    single_port_memory: bool = False
    link_bytes: int = 4096
    leds: int = 8


def run(
    machine: Machine, port: str, m: int, k: int, n: int, *, fmt: str | None = None, group: int | None = None,
    baud: int = BAUD, seed: int = 0, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """act[m, k] . wgt[n, k] of random numbers on the board at `port`; every output compared with the interpreter's.

    Parameters
        port : of the board; "simulated": none, see `SimulatedBoard`
        fmt, group : of the weights; None: the machine's first format, a scale a row
        baud : of the board's line
    Returns a flat row: what ran, cycles, bytes over the line, and the time that both take by the board's clock and baud
    rate. ConfigError for sizes, a format or a group that cannot be, BoardError as of the driver, MismatchError for a
    wrong output, ToolError where the simulation lacks a tool.
    """
    if min(m, n, k) < 1:
        raise ConfigError(f"gemm = {m},{k},{n}: must be M,K,N of 1 or more")
    lim = limits(machine)
    draw = np.random.default_rng(seed)
    fmt = lim.formats[0].name if fmt is None else fmt
    form = formats.get(fmt)
    if group is not None and form.default_scale_format is None:
        raise ConfigError(f"group = {group}: {fmt} has no scales (leave the group out)")
    weights = form.encode(
        draw.normal(size=(n, k)).astype(np.float32), group=group, scale_format=lim.scale_format
    )  # fmt: skip
    acts = operand(lim, fmt, draw.normal(size=(m, k)).astype(np.float32))
    with _opened(machine, port, baud, progress) as board:
        product = multiply(board, weights, acts, lim, golden=True, name=f"{fmt} {m},{k},{n}", progress=progress)
        info, statistics = board.info, board.statistics
    line_baud = SimulationBoard.baud if port == SIMULATED else baud
    found = Prediction(product.cycles, info.clock_hz, statistics.bytes_sent, statistics.bytes_received, line_baud)
    return {
        "schema_version": SCHEMA_VERSION, "machine": machine.name, "port": port, "m": m, "k": k, "n": n, "weights": fmt,
        "group": group, "seed": seed, "outputs_equal": m * n, "tiles": len(product.counters), "cycles": product.cycles,
        "clock_hz": info.clock_hz, "baud": line_baud, "memory_bytes": info.memory_bytes,
        "bytes_sent": statistics.bytes_sent, "bytes_received": statistics.bytes_received,
        "requests": statistics.requests, "sent_again": statistics.sent_again,
        "frames_lost": statistics.frames_lost, "compute_ms": 1e3 * found.compute_s, "link_ms": 1e3 * found.link_s,
        "link_share": found.link_share,
    }  # fmt: skip


@contextmanager
def _opened(machine: Machine, port: str, baud: int, progress: Progress | None) -> Iterator[Accelerator]:
    if port != SIMULATED:
        with Accelerator.open(port, machine, baud=baud) as board:
            yield board
        return
    if find_spec("amaranth") is None:
        raise ToolError("amaranth: not installed; run: pip install -e '.[hdl]'")
    from bitwright.fpga.simulated import SimulatedBoard

    show = progress or (lambda stage, done, total: None)
    show("compiling the simulated board", 0, 1)
    made = SimulatedBoard(machine, SimulationBoard())
    show("compiling the simulated board", 1, 1)
    with (
        made as simulated,
        Accelerator.open(simulated.port, machine, baud=_SIMULATED_BAUD, timeout_s=_SIMULATED_TIMEOUT_S) as board,
    ):
        yield board
