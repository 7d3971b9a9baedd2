"""What fits a board, by the stored sizing (`fpga.sizing`, docs/fpga-sizing.md), and the refusal of what does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Machine
from bitwright.fpga.boards import Board
from bitwright.fpga.cell_counts import board_script
from bitwright.fpga.wrapping import TOP


def sizes(board: Board) -> list[dict[str, Any]]:
    """Arrays that `bitwright fpga build --array` was found to fit on a board: the largest of each kind of array.

    Only kinds whose multiplications go where builds put them. Sizes are of one sequence a kind (n x n, n x (n + 1);
    lut: two rows): another shape may hold more. `machine` is its name; `shown` is "closes" where it was placed, routed
    and met the board's clock, and "by synthesis" where none was placed; a kind of which none closes is left out. Empty
    for a board that was not searched.
    """
    stored = json.loads(resources.files("bitwright.arch.costs").joinpath("fpga.json").read_text("utf-8"))
    built = board_script(board, TOP)
    rows = []
    for kind, found in stored["arrays"].get(board.name, {}).items():
        key, shown = ("largest", "closes") if "largest" in found else ("largest_by_synthesis", "by synthesis")
        if found[key] and found["sizes"][found[key]]["script"] == built:  # None: no size closes, or fits
            rows.append({"array": kind, "machine": f"{kind.partition(' in ')[0]}-{found[key]}", "shown": shown})
    return rows


def too_large(machine: Machine, board: Board, needed: Mapping[str, float], *, array: bool) -> ConfigError | None:
    """The refusal of a design that needs more cells of some kind than the board has, or None where it does not.

    array : whether it is the array alone already.
    """
    over = [f"{needed[kind]:g} {kind} of {most}" for kind, most in board.capacity.items() if needed.get(kind, 0) > most]
    if not over:
        return None
    known = ", ".join(f"{row['machine']} ({row['shown']})" for row in sizes(board))
    fits = f"; arrays alone that fit (--array): {known}" if known else ""
    alone = "" if array else ", port.bytes: 8 and smaller buffers, or the array alone (--array)"
    return ConfigError(
        f"machine {machine.name} on {board.name}: needs {', '.join(over)}; take a larger board, a smaller array"
        f"{alone}{fits}"
    )
