# amaranth: UnusedElaboratable=no
# (tops that are refused)
"""The board top's module: its pins, what crosses into its clock, lint, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.fpga.top import LEDS, board_top, verilog
from bitwright.rtl.bench.driver import ports_of
from bitwright.rtl.bench.verilator import LINT_WAIVERS, lint
from board_model import TestBoard, small_machine

MACHINE = small_machine("int8-2x2")
WAIVED = (*LINT_WAIVERS, "-Wno-CASEINCOMPLETE", "-Wno-VARHIDDEN")
"""As of every accelerator; the other is amaranth.lib.crc's, whose module and signal share a name."""


@lru_cache
def made() -> tuple[str, str]:
    return verilog(MACHINE, TestBoard())


def module(name: str) -> str:
    """The text of a module; `name` is the end of its name."""
    found = re.findall(rf"^module \S*{re.escape(name)}\s?\(.*?^endmodule", made()[1], re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} modules {name}"
    return str(found[0])


def uses(text: str, name: str) -> list[str]:
    """Lines that use a signal, its declarations left out."""
    lines = [line.strip().rstrip(",") for line in text.splitlines() if re.search(rf"\b{name}\b(?! *\()", line)]
    return [line for line in lines if not re.match(r"(input|output|wire|reg|module)\b", line)]


def test_the_pins() -> None:
    top, text = made()
    assert {(port.name, port.bits, port.output) for port in ports_of(text, top)} == {
        ("rst", 1, False), ("rx", 1, False), ("tx", 1, True), ("leds", 8, True)
    }  # fmt: skip


def test_crossings_are_rst_and_rx_each_through_its_synchroniser_and_no_others() -> None:
    """Every clocked block of every module has the one clock; the two pins that do not, go to a synchroniser alone."""
    top, text = made()
    body = module(top)
    assert uses(body, "rx") == [".rx(rx)"]
    assert uses(body, "rst") == [".async_ff_rst(rst)"]
    for name, pin in (("rx_crossing", ".rx(rx)"), ("reset_crossing", ".async_ff_rst(rst)")):
        (instance,) = re.findall(rf"^  \S*_{name} .*?\);", body, re.MULTILINE | re.DOTALL)
        assert pin in instance
    assert uses(module("_rx_crossing"), "rx") == ["stage0 <= rx;"]
    edges = set(re.findall(r"@\((.*?)\)", text))
    assert edges == {"posedge clk", "posedge core_clk", "posedge async_ff_clk, posedge async_ff_rst"}
    assert set(re.findall(r"\.(?:core_|async_ff_)?clk\((\w+) ?\)", text)) <= {"clk", "core_clk"}
    assert text.count("posedge async_ff_rst") == module("_reset_crossing").count("posedge async_ff_rst")


def test_lint() -> None:
    top, text = made()
    assert lint(text, top, WAIVED) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leds": 9}, f"test.leds = 9: must be 1..{len(LEDS)}"),
        ({"link_bytes": 600}, "link_bytes = 600: must be a power of two in 512..32768"),
        (
            {"baud": 6_000_000},
            "baud = 6000000: must be in 2930..3000000 at a clock of 12000000 Hz (4 to 4096 clocks a bit)",
        ),
        ({"memory_bytes": 0}, "memory_bytes = 0: must be a multiple of 4096 in 4096..16777216"),
    ],
)
def test_boards_that_cannot_be(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        board_top(MACHINE, replace(TestBoard(), **change))
    assert str(error.value) == message
