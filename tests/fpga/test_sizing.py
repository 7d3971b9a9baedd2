"""The search for the largest array, and whether the stored table is of today's Verilog."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from bitwright.fpga import array_top, boards, sizing
from bitwright.fpga.cell_counts import capacity
from bitwright.rtl.asic import stream_costs
from bitwright.rtl.asic.synthesis import sha256_text

TANG = boards.get("tang-nano-9k")


class KnownShares(sizing.Search):
    """A search whose netlists and routes are known; it counts what is asked."""

    def __init__(self, kind: str, share: Callable[[int, int], float], closes: Callable[[int, int], bool]) -> None:
        super().__init__(TANG, sizing.KINDS[kind], {}, 1, lambda: None)
        self.known, self.routes = share, closes
        self.synthesised: list[int] = []
        self.routed: list[tuple[int, int]] = []

    def _share(self, index: int) -> float:
        self.synthesised.append(index)
        return self.known(*self.sizes[index])

    def _entry(self, index: int) -> sizing.Row:
        self.index = index
        entry: sizing.Row = self.kept.setdefault(str(index), {})
        return entry

    def _synthesized(self, folder: Path) -> sizing.Row:
        self.synthesised.append(self.index)
        return {"lut": 1.0}

    def _routed(self, folder: Path, seed: int) -> sizing.Row:
        self.routed.append((self.index, seed))
        return {"closes": self.routes(self.index, seed)}


@pytest.mark.parametrize("kind", ["shift-add", "lut"])
def test_the_search_finds_the_largest_that_fits_in_few_steps(kind: str) -> None:
    for a_place, base, has in itertools.product((1, 40, 449, 1500), (0, 250, 3000), (10, 5280, 8640, 83640)):

        def share(rows: int, cols: int, a_place: int = a_place, base: int = base, has: int = has) -> float:
            return (base + a_place * rows * cols + 30 * cols) / has

        search = KnownShares(kind, share, lambda index, seed: True)
        fitting = [index for index, size in enumerate(search.sizes) if share(*size) <= 1]
        assert search.largest_by_synthesis() == (max(fitting) if fitting else -1)
        assert len(search.synthesised) == len(set(search.synthesised)) <= 8


def test_a_capped_synthesis_is_one_that_does_not_fit() -> None:
    search = KnownShares("lut", lambda rows, cols: 0.01 * cols if cols < 10 else float("inf"), lambda index, seed: True)
    assert search.sizes[search.largest_by_synthesis()] == (2, 9)
    search = KnownShares("lut", lambda rows, cols: float("inf"), lambda index, seed: True)
    assert search.largest_by_synthesis() == -1


def test_the_largest_that_closes_is_looked_for_downwards_and_has_three_seeds() -> None:
    search = KnownShares("shift-add", lambda rows, cols: 0, lambda index, seed: index <= 4 and seed < 3)
    assert search.largest_that_closes(6) == 4
    assert search.routed == [(6, 1), (5, 1), (4, 1), (4, 2), (4, 3)]
    assert search.synthesised == [6, 5, 4, 4]  # one netlist for the last two seeds
    assert search.largest_that_closes(6) == 4
    assert len(search.routed) == 5  # what is kept is not run again
    assert KnownShares("shift-add", lambda rows, cols: 0, lambda index, seed: False).largest_that_closes(2) == -1


def test_sizes_grow_one_side_at_a_time() -> None:
    assert sizing.KINDS["shift-add"].sizes(4) == [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4)]
    assert sizing.KINDS["lut"].sizes(3) == [(2, 1), (2, 2), (2, 3)]
    assert sizing.KINDS["lut"].sizes()[sizing.FIRST_SIZE] == (2, 6)
    assert sizing.KINDS["shift-add"].sizes()[sizing.FIRST_SIZE] == (3, 4)


@pytest.mark.parametrize("name", boards.names())
def test_a_part_has_each_resource(name: str) -> None:
    assert all(most > 0 for most in capacity(boards.get(name)).values())
    assert capacity(TANG)["dsp"] == 20  # its 40 MULT9X9, of which two take the place of an 18 x 18 one


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("bitwright.arch.costs").joinpath(sizing.TABLE).read_text())
    return found


def test_rows_of_pes_are_of_todays_rtl_and_scripts() -> None:
    # That these hashes are today's is what tests/rtl/asic/test_cost_tables_fresh.py shows.
    path = resources.files("bitwright.arch.costs").joinpath("streams_nangate45.json")
    today = {name: row["rtl_sha256"] for name, row in json.loads(path.read_text())["rows"].items()}
    rows = stored()["pes"]
    stale = [name for name, row in rows.items() if row["rtl_sha256"] != today[name]]
    assert not stale, f"stale rows {stale}: run python -m bitwright.fpga.sizing"
    assert all(row["scripts"] == sizing._scripts() for row in rows.values())
    assert rows.keys() <= set(stream_costs.PES)
    assert {"int8-mac", "shift-add"} <= rows.keys()


def searched(board: str) -> dict[str, Any]:
    """Kind -> entry of the kinds whose search by synthesis has ended."""
    found = stored()["arrays"][board]
    return {kind: entry for kind, entry in found.items() if entry.get("largest_by_synthesis")}


def test_the_search_has_ended_on_the_smallest_part() -> None:
    assert {"int8 in DSPs", "int8 in LUTs", "shift-add"} <= searched(TANG.name).keys() <= sizing.KINDS.keys()


@pytest.mark.parametrize("kind", searched(TANG.name))
def test_the_largest_arrays_are_of_todays_rtl(kind: str) -> None:
    found = searched(TANG.name)[kind]
    size = found["sizes"][found["largest_by_synthesis"]]
    rows, cols = map(int, found["largest_by_synthesis"].split("x"))
    _, text = array_top.verilog(sizing.KINDS[kind].machine(rows, cols), TANG)
    assert size["rtl_sha256"] == sha256_text(text), "run python -m bitwright.fpga.sizing"


@pytest.mark.parametrize("board", sizing.BOARDS)
def test_the_largest_needs_no_more_than_the_part_and_the_next_does(board: str) -> None:
    most = capacity(boards.get(board))
    for kind, entry in stored()["arrays"].get(board, {}).items():
        if entry.get("largest_by_synthesis"):
            sizes = ["{}x{}".format(*size) for size in sizing.KINDS[kind].sizes()]
            place = sizes.index(entry["largest_by_synthesis"])
            fits, next_up = (entry["sizes"][sizes[place + step]]["synthesis"] for step in (0, 1))
            assert all(fits[what] <= has for what, has in most.items()), kind
            assert "lut" not in next_up or any(next_up[what] > has for what, has in most.items()), kind


def test_the_page_and_its_picture_are_of_the_table(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    command = [sys.executable, str(docs / "fpga_sizing.py"), str(tmp_path / "picture.svg")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (docs / "fpga-sizing.md").read_text() == done.stdout, "run `make docs`"
    assert (docs / "fpga-sizing.svg").read_text() == (tmp_path / "picture.svg").read_text(), "run `make docs`"
