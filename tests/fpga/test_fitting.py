"""What fits a board, and the refusal of what does not, in the figures of the stored sizing."""

from __future__ import annotations

import json
from pathlib import Path

from bitwright import fpga
from bitwright.arch import machine as machines
from bitwright.fpga import boards
from bitwright.fpga.fitting import too_large

STORED = json.loads((Path(__file__).parents[2] / "arch" / "costs" / "fpga.json").read_text())["arrays"]


def test_sizes_are_those_of_the_sizing() -> None:
    for board in boards.names():
        for row in fpga.sizes(board):
            found = STORED[board][row["array"]]
            key = "largest" if row["shown"] == "closes" else "largest_by_synthesis"
            assert row["largest"] == found[key]
            assert row["shown"] == "closes" or not found.get("largest")
    assert {row["array"] for row in fpga.sizes("tang-nano-9k")} >= {"int8 in DSPs", "shift-add"}


def test_a_refusal_says_what_exceeds_and_what_fits() -> None:
    board, machine = boards.get("tang-nano-9k"), machines.load("int8-8x8")
    (least, *_) = fpga.sizes("tang-nano-9k")
    assert str(too_large(machine, board, {"LUT4": 9000, "DFF": 100, "BSRAM": 27})).startswith(
        "machine int8-8x8 on tang-nano-9k: needs 9000 LUT4 of 8640, 27 BSRAM of 26; take a larger board, a smaller "
        "array, port.bytes: 8 and smaller buffers, or the array alone (--array); arrays alone that fit (--array): "
        f"{least['array']} {least['largest']} ({least['shown']})"
    )
    assert too_large(machine, board, {"LUT4": 8640}) is None


def test_a_board_that_was_not_searched_has_no_sizes() -> None:
    assert fpga.sizes("zcu104") == []
    message = str(too_large(machines.load("int8-8x8"), boards.get("zcu104"), {"DSP": 1729}))
    assert message.endswith("or the array alone (--array)")
