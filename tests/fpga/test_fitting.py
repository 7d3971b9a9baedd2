"""What fits a board, and the refusal of what does not, by the stored sizing."""

from __future__ import annotations

import pytest
from bitwright.arch import machine as machines
from bitwright.fpga import boards, fitting

STORED = """{"arrays": {"tang-nano-9k": {
 "int8 in DSPs": {"largest_by_synthesis": "6x6", "sizes": {"6x6": {"script": "as built"}}},
 "bit-serial": {"largest_by_synthesis": "1x2", "largest": null, "sizes": {"1x2": {"script": "as built"}}},
 "int8 in LUTs": {"largest_by_synthesis": "4x4", "sizes": {"4x4": {"script": "-nodsp"}}},
 "shift-add": {"largest_by_synthesis": "7x7", "largest": "6x7",
               "sizes": {"7x7": {"script": "as built"}, "6x7": {"script": "as built"}}},
 "lut": {"largest_by_synthesis": null, "sizes": {}}}}}"""


class Text:
    """Stands for `importlib.resources` and the one file that is read."""

    def files(self, package: str) -> Text:
        return self

    def joinpath(self, name: str) -> Text:
        assert name == "fpga.json"
        return self

    def read_text(self, encoding: str) -> str:
        return STORED


@pytest.fixture
def _stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "resources", Text())
    monkeypatch.setattr(fitting, "board_script", lambda board, top: "as built")


@pytest.mark.usefixtures("_stored")
def test_what_fits_is_what_builds_make() -> None:
    """Not the kind whose multiplications go where builds do not put them, nor those of which no size fits or closes."""
    assert fitting.sizes(boards.get("tang-nano-9k")) == [
        {"array": "int8 in DSPs", "machine": "int8-6x6", "shown": "by synthesis"},
        {"array": "shift-add", "machine": "shift-add-6x7", "shown": "closes"},
    ]
    assert fitting.sizes(boards.get("zcu104")) == []


def test_what_fits_are_machines() -> None:
    for board in map(boards.get, boards.names()):
        for row in fitting.sizes(board):
            assert machines.load(row["machine"]).name == row["machine"]


def told(name: str, board: str, needed: dict[str, float], *, array: bool) -> str:
    return str(fitting.too_large(machines.load(name), boards.get(board), needed, array=array))


@pytest.mark.usefixtures("_stored")
def test_a_refusal_says_what_exceeds_and_what_fits() -> None:
    needed = {"LUT4": 9000.0, "DFF": 100.0, "BSRAM": 27}
    known = "; arrays alone that fit (--array): int8-6x6 (by synthesis), shift-add-6x7 (closes)"
    exceeds = (
        "machine int8-8x8 on tang-nano-9k: needs 9000 LUT4 of 8640, 27 BSRAM of 26; take a larger board, a "
        "smaller array"
    )
    assert told("int8-8x8", "tang-nano-9k", needed, array=True) == exceeds + known
    assert told("int8-8x8", "tang-nano-9k", needed, array=False) == (
        f"{exceeds}, port.bytes: 8 and smaller buffers, or the array alone (--array){known}"
    )
    assert told("int8-8x8", "tang-nano-9k", {"LUT4": 8640}, array=False) == "None"


def test_of_a_board_that_was_not_searched_nothing_is_told() -> None:
    assert told("int8-8x8", "zcu104", {"DSP": 1729, "RAMB36": 312.5}, array=False) == (
        "machine int8-8x8 on zcu104: needs 1729 DSP of 1728, 312.5 RAMB36 of 312; take a larger board, a smaller "
        "array, port.bytes: 8 and smaller buffers, or the array alone (--array)"
    )


def test_the_stored_sizing_has_arrays_that_builds_make() -> None:
    assert {row["array"] for row in fitting.sizes(boards.get("tang-nano-9k"))} >= {"int8 in DSPs"}
    assert {row["array"] for row in fitting.sizes(boards.get("icebreaker"))} >= {"int8 in LUTs", "shift-add"}
