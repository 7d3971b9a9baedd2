"""What stands around a design on a board: pads, polarity and PLL as Verilog, and the pins as constraints."""

from __future__ import annotations

from bitwright.fpga.boards import Board

TOP = "board"

_PLL = """  wire clk, locked;
  (* FREQUENCY_PIN_CLKI="{input_mhz:g}", FREQUENCY_PIN_CLKOP="{clock_mhz:g}" *)
  EHXPLLL #(.CLKI_DIV({reference}), .CLKFB_DIV({feedback}), .CLKOP_DIV({divider}), .CLKOP_CPHASE({phase}),
    .CLKOP_ENABLE("ENABLED"), .FEEDBK_PATH("CLKOP"), .OUTDIVIDER_MUXA("DIVA"), .PLLRST_ENA("DISABLED"),
    .INTFB_WAKE("DISABLED"), .STDBY_ENABLE("DISABLED"), .DPHASE_SOURCE("DISABLED")
  ) pll (.CLKI(pad_clk), .CLKFB(clk), .CLKOP(clk), .LOCK(locked), .RST(1'b0), .STDBY(1'b0), .PHASESEL0(1'b0),
    .PHASESEL1(1'b0), .PHASEDIR(1'b1), .PHASESTEP(1'b1), .PHASELOADREG(1'b1), .PLLWAKESYNC(1'b0), .ENCLKOP(1'b0));
"""


def wrapper(board: Board, module: str) -> str:
    """Verilog of the module TOP: the design `module(clk, rst, rx, tx, leds)` behind the board's pads."""
    last = board.leds - 1
    lines = [
        f"module {TOP}(input pad_clk, input pad_reset, input pad_rx, output pad_tx, output [{last}:0] pad_leds);\n"
    ]
    pll = board.pll
    if pll is None:
        lines.append("  wire clk = pad_clk, locked = 1'b1;\n")
    else:
        lines.append(
            _PLL.format(
                input_mhz=board.input_hz / 1e6,
                clock_mhz=board.clock_hz / 1e6,
                reference=pll.reference,
                feedback=pll.feedback,
                divider=pll.divider,
                phase=pll.divider - 1,
            )
        )
    lines += [
        f"  wire rst = !locked || pad_reset == 1'b{board.reset_pressed};\n",
        f"  wire [{last}:0] leds;\n",
        f"  assign pad_leds = {'leds' if board.led_lit else '~leds'};\n",
        f"  {module} design(.clk(clk), .rst(rst), .rx(pad_rx), .tx(pad_tx), .leds(leds));\n",
        "endmodule\n",
    ]
    return "".join(lines)


def pins(board: Board) -> dict[str, str]:
    """Port of the wrapper -> pin."""
    single = {f"pad_{name}": board.pads[name] for name in ("clk", "reset", "rx", "tx")}
    return single | {f"pad_leds[{index}]": pin for index, pin in enumerate(board.pads["leds"].split())}


def constraints(board: Board) -> str:
    """The pins in the words of the family's place and route: LPF, PCF or CST."""
    lines = []
    for port, pin in pins(board).items():
        if board.family == "ecp5":
            lines.append(f'LOCATE COMP "{port}" SITE "{pin}";\nIOBUF PORT "{port}" {board.electrical};')
        elif board.family == "ice40":
            option = f" {board.electrical}" if port in ("pad_rx", "pad_reset") else ""
            lines.append(f"set_io{option} {port} {pin}")
        else:
            pull = " PULL_MODE=UP" if port == "pad_rx" or (port == "pad_reset" and not board.reset_pressed) else ""
            lines.append(f'IO_LOC "{port}" {pin};\nIO_PORT "{port}" {board.electrical}{pull};')
    if board.family == "ecp5":
        lines.append(f'FREQUENCY PORT "pad_clk" {board.input_hz / 1e6:g} MHZ;')
    return "\n".join(lines) + "\n"
