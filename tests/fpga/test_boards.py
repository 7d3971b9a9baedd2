"""Boards: their pins against amaranth-boards, their PLL against the data sheet's equations, their constraints."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
from amaranth.build import Pins, Resource, Subsignal
from bitwright.arch.errors import ConfigError
from bitwright.fpga import boards
from bitwright.fpga.pll import ecp5_pll
from bitwright.fpga.wrapping import constraints, pins, wrapper

PLATFORMS = {
    "ulx3s-85f": "ULX3S_85F_Platform",
    "ulx3s-25f": "ULX3S_25F_Platform",
    "icebreaker": "ICEBreakerPlatform",
    "tang-nano-9k": "TangNano9kPlatform",
    "arty-a7-100t": "ArtyA7_100Platform",
}


def found(platform: type, name: str, part: str | None = None) -> tuple[list[str], bool]:
    """Pins of a resource, or of all of its number, and whether they are inverted."""
    names, inverted = [], False
    for resource in platform.resources:  # type: ignore[attr-defined]
        assert isinstance(resource, Resource)
        if resource.name != name:
            continue
        ios = resource.ios
        if part is not None:
            ios = next(item.ios for item in ios if isinstance(item, Subsignal) and item.name == part)
        for io in ios:
            if isinstance(io, Pins):
                names += io.names
                inverted = io.invert
    return names, inverted


@pytest.mark.parametrize("name", PLATFORMS)
def test_pins_and_polarity_are_those_of_amaranth_boards(name: str) -> None:
    board = boards.get(name)
    platform = getattr(importlib.import_module(board.pin_source), PLATFORMS[name])
    clock = next(item for item in platform.resources if item.name == platform.default_clk)
    assert found(platform, clock.name)[0] == [board.pads["clk"]]
    assert clock.clock.frequency == board.input_hz
    for part in ("rx", "tx"):
        assert found(platform, "uart", part)[0] == [board.pads[part]]
    leds, inverted = found(platform, "led")
    assert (leds, inverted) == (board.pads["leds"].split(), not board.led_lit)
    named = {"ulx3s-85f": "button_fire", "ulx3s-25f": "button_fire", "arty-a7-100t": "rst"}
    buttons, inverted = found(platform, named.get(name, "button"))
    assert board.pads["reset"] in buttons
    assert inverted is not bool(board.reset_pressed)


@pytest.mark.parametrize("name", boards.names())
def test_each_pad_has_a_pin_of_its_own_and_a_constraint(name: str) -> None:
    board = boards.get(name)
    used = pins(board)
    assert max(Counter(used.values()).values()) == 1
    text, verilog = constraints(board), wrapper(board, "design_top")
    for port, pin in used.items():
        assert any(
            port in line and pin in line.replace(";", " ").replace('"', " ").split() for line in text.splitlines()
        )
        assert port.partition("[")[0] in verilog
    assert ("EHXPLLL" in verilog) is (board.input_hz != board.clock_hz and not board.amd)
    assert (board.amd and board.mmcm.cell in verilog) is board.amd
    assert board.clock_hz >= 4 * board.baud  # what the receiver needs


@pytest.mark.parametrize("mhz", [5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 200, 400])
def test_the_pll_gives_the_clock_within_the_data_sheets_ranges(mhz: int) -> None:
    pll = ecp5_pll(25_000_000, mhz * 1_000_000)
    assert 25_000_000 * pll.feedback == mhz * 1_000_000 * pll.reference
    assert pll.vco_hz == mhz * 1_000_000 * pll.divider
    assert 400_000_000 <= pll.vco_hz <= 800_000_000
    assert 3_125_000 <= 25_000_000 / pll.reference <= 400_000_000
    assert all(1 <= n <= 128 for n in (pll.reference, pll.feedback, pll.divider))


@pytest.mark.parametrize("hz", [3_000_000, 12_000_000, 801_000_000])
def test_a_clock_that_the_pll_cannot_make_is_refused(hz: int) -> None:
    with pytest.raises(ConfigError) as raised:
        ecp5_pll(25_000_000, hz)
    assert str(raised.value) == f"clock_hz = {hz}: the PLL cannot make it exactly of 25000000 Hz"


def test_an_unknown_board_is_refused_with_the_closest() -> None:
    with pytest.raises(ConfigError) as raised:
        boards.get("ulx3s-84f")
    assert str(raised.value) == (
        "board = 'ulx3s-84f': unknown; did you mean 'ulx3s-85f'? (known: arty-a7-100t, icebreaker, tang-nano-20k, "
        "tang-nano-9k, ulx3s-25f, ulx3s-85f, zcu104); the command line"
    )
