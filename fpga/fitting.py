"""What fits a board, by the stored sizing (`fpga.sizing`, docs/fpga-sizing.md), and the refusal of what does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Machine
from bitwright.fpga.boards import Board


def sizes(board: Board) -> list[dict[str, Any]]:
    """The largest arrays alone behind a serial line (`--array`) that were found for a board, one a kind of array.

    `largest` is placed, routed and meets the board's clock where `shown` is "closes"; where it is "by synthesis" no
    larger one fits, and it was not placed. Empty for a board that was not searched.
    """
    stored = json.loads(resources.files("bitwright.arch.costs").joinpath("fpga.json").read_text("utf-8"))
    rows = []
    for kind, found in stored["arrays"].get(board.name, {}).items():
        for key, shown in (("largest", "closes"), ("largest_by_synthesis", "by synthesis")):
            if found.get(key):
                rows.append({"array": kind, "largest": found[key], "shown": shown})
                break
    return rows


def too_large(machine: Machine, board: Board, needed: Mapping[str, int]) -> ConfigError | None:
    """The refusal of a design that needs more cells of some kind than the board has, or None where it does not."""
    over = [f"{needed[kind]} {kind} of {most}" for kind, most in board.capacity.items() if needed.get(kind, 0) > most]
    if not over:
        return None
    known = ", ".join(f"{row['array']} {row['largest']} ({row['shown']})" for row in sizes(board))
    fits = f"; arrays alone that fit (--array): {known}" if known else ""
    return ConfigError(
        f"machine {machine.name} on {board.name}: needs {', '.join(over)}; take a larger board, a smaller array, "
        f"port.bytes: 8 and smaller buffers, or the array alone (--array){fits}"
    )
