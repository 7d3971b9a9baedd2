"""Boards: their part, pins, clock and reset, and what of them the board top gets. `bitwright list boards`."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitwright.arch.errors import ConfigError, suggest
from bitwright.fpga.pll import Mmcm, Pll, amd_mmcm, ecp5_pll

AMD = ("xc7", "xcup")


@dataclass(frozen=True)
class Board:
    """A board.

    Members
        name : of `bitwright list boards`
        family : ecp5, ice40 or gowin; AMD's xc7 (7 series) or xcup (UltraScale+), whose bitstreams Vivado makes
        part : as place and route is told of it, option by option
        pack : options of the packer
        loader : its name in openFPGALoader
        pads : clock, reset, rx, tx, leds -> pins; a clock of two pins is differential
        electrical : of all pads, in the words of the family's constraints; `standards` of those that differ
        reset_pressed, led_lit : the level of the button when pressed, of a LED when lit
        input_hz : the crystal; clock_hz : of the design, through the PLL where it differs
        capacity : what the part has, in the names of place and route
        pin_source : where the pins are from
        baud, memory_bytes, single_port_memory, link_bytes : as of fpga.top.Board
    """

    name: str
    family: str
    part: tuple[str, ...]
    loader: str
    pads: dict[str, str] = field(hash=False)
    electrical: str
    reset_pressed: int
    led_lit: int
    input_hz: int
    clock_hz: int
    capacity: dict[str, int] = field(hash=False)
    pin_source: str
    memory_bytes: int
    pack: tuple[str, ...] = ()
    baud: int = 3_000_000
    single_port_memory: bool = False
    link_bytes: int = 2048
    standards: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def leds(self) -> int:
        """How many it has."""
        return len(self.pads["leds"].split())

    @property
    def amd(self) -> bool:
        """Whether its bitstreams are Vivado's."""
        return self.family in AMD

    @property
    def pll(self) -> Pll | None:
        """Settings of the ECP5's PLL; None where the crystal is the clock, and of AMD's parts (`mmcm`)."""
        return None if self.amd or self.clock_hz == self.input_hz else ecp5_pll(self.input_hz, self.clock_hz)

    @property
    def mmcm(self) -> Mmcm:
        """Settings of the clock manager of an AMD part."""
        return amd_mmcm(self.family, self.input_hz, self.clock_hz)


def _ulx3s(size: str, luts: int, dsps: int, rams: int) -> Board:
    return Board(
        name=f"ulx3s-{size}f",
        family="ecp5",
        part=(f"--{size}k", "--package", "CABGA381", "--speed", "6"),
        loader="ulx3s",
        pads={"clk": "G2", "reset": "R1", "rx": "M1", "tx": "L4", "leds": "B2 C2 C1 D2 D1 E2 E1 H3"},
        electrical="IO_TYPE=LVCMOS33",
        reset_pressed=1,
        led_lit=1,
        input_hz=25_000_000,
        clock_hz=20_000_000,
        capacity={"TRELLIS_COMB": luts, "TRELLIS_FF": luts, "MULT18X18D": dsps, "DP16KD": rams},
        pin_source="amaranth_boards.ulx3s",
        memory_bytes=65536 if size == "85" else 32768,
        pack=("--compress",),
    )


def _tang_nano(size: str, **its: object) -> Board:
    common = {
        "name": f"tang-nano-{size}",
        "family": "gowin",
        "loader": f"tangnano{size}",
        "electrical": "IO_TYPE=LVCMOS33",
        "led_lit": 0,
        "input_hz": 27_000_000,
        "clock_hz": 27_000_000,
        "memory_bytes": 16384,
        "pack": ("--sspi_as_gpio", "--mspi_as_gpio"),
    }
    return Board(**{**common, **its})  # type: ignore[arg-type]


_BOARDS = (
    _ulx3s("85", 83640, 156, 208),
    _ulx3s("25", 24288, 28, 56),
    Board(
        name="icebreaker",
        family="ice40",
        part=("--up5k", "--package", "sg48"),
        loader="ice40_generic",
        pads={"clk": "35", "reset": "10", "rx": "6", "tx": "9", "leds": "11 37"},
        electrical="-pullup yes",
        reset_pressed=0,
        led_lit=0,
        input_hz=12_000_000,
        clock_hz=12_000_000,
        capacity={"ICESTORM_LC": 5280, "ICESTORM_DSP": 8, "ICESTORM_RAM": 30, "ICESTORM_SPRAM": 4},
        pin_source="amaranth_boards.icebreaker",
        memory_bytes=131072,
        single_port_memory=True,
    ),
    _tang_nano(
        "9k",
        part=("--device", "GW1NR-LV9QN88PC6/I5", "GW1N-9C"),
        pads={"clk": "52", "reset": "4", "rx": "18", "tx": "17", "leds": "10 11 13 14 15 16"},
        reset_pressed=0,
        capacity={"LUT4": 8640, "DFF": 6480, "MULT18X18": 20, "BSRAM": 26},
        pin_source="amaranth_boards.tang_nano_9k",
    ),
    _tang_nano(
        "20k",
        part=("--device", "GW2AR-LV18QN88C8/I7", "GW2A-18C"),
        pads={"clk": "4", "reset": "88", "rx": "70", "tx": "69", "leds": "15 16 17 18 19 20"},
        reset_pressed=1,
        capacity={"LUT4": 20736, "DFF": 15552, "MULT18X18": 48, "BSRAM": 46},
        pin_source="LiteX's litex_boards/platforms/sipeed_tang_nano_20k.py",
    ),
    Board(
        name="arty-a7-100t",
        family="xc7",
        part=("xc7a100ticsg324-1L",),
        loader="arty_a7_100t",
        pads={"clk": "E3", "reset": "C2", "rx": "A9", "tx": "D10", "leds": "H5 J5 T9 T10"},
        electrical="LVCMOS33",
        reset_pressed=0,
        led_lit=1,
        input_hz=100_000_000,
        clock_hz=50_000_000,
        capacity={"LUT": 63400, "FF": 126800, "DSP": 240, "RAMB36": 135},
        pin_source="amaranth_boards.arty_a7",
        memory_bytes=131072,
    ),
    Board(
        name="zcu104",
        family="xcup",
        part=("xczu7ev-ffvc1156-2-e",),
        loader="zcu104",
        pads={"clk": "F23 E23", "reset": "B4", "rx": "A20", "tx": "C19", "leds": "D5 D6 A5 B5"},
        electrical="LVCMOS33",
        standards={"clk": "LVDS", "rx": "LVCMOS18", "tx": "LVCMOS18"},
        reset_pressed=1,
        led_lit=1,
        input_hz=125_000_000,
        clock_hz=50_000_000,
        capacity={"LUT": 230400, "FF": 460800, "DSP": 1728, "RAMB36": 312},
        pin_source="LiteX's litex_boards/platforms/xilinx_zcu104.py; active high as we suppose (not in it)",
        memory_bytes=262144,
    ),
)


def names() -> list[str]:
    """Of all boards."""
    return [board.name for board in _BOARDS]


def get(name: str) -> Board:
    """The board of a name; ConfigError with the closest one for an unknown name."""
    for board in _BOARDS:
        if board.name == name:
            return board
    raise ConfigError(f"board = '{name}': unknown; {suggest(name, names())}; the command line")
