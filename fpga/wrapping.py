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


_MMCM = """  wire clk, locked, made, feedback;
  {cell} #(.CLKIN1_PERIOD({period_ns:.3f}), .DIVCLK_DIVIDE(1), .CLKFBOUT_MULT_F({multiply}.0),
    .CLKOUT0_DIVIDE_F({divider}.0)
  ) pll (.CLKIN1({source}), .CLKFBIN(feedback), .CLKFBOUT(feedback), .CLKOUT0(made), .LOCKED(locked), .PWRDWN(1'b0),
    .RST(1'b0));
  BUFG clock_buffer (.I(made), .O(clk));
"""
_DIFFERENTIAL = """  wire crystal;
  IBUFDS clock_pads (.I(pad_clk_p), .IB(pad_clk_n), .O(crystal));
"""


def wrapper(board: Board, module: str) -> str:
    """Verilog of the module TOP: the design `module(clk, rst, rx, tx, leds)` behind the board's pads."""
    last = board.leds - 1
    instance = "inner" if board.amd else "design"  # a keyword of Verilog-2001's configurations, which Vivado knows
    inputs = ", ".join(f"input {port}" for port in pins(board) if not port.startswith(("pad_leds", "pad_tx")))
    lines = [f"module {TOP}({inputs}, output pad_tx, output [{last}:0] pad_leds);\n"]
    pll = board.pll
    if board.amd:
        differential = "pad_clk_p" in pins(board)
        lines += [_DIFFERENTIAL] if differential else []
        lines.append(
            _MMCM.format(
                cell=board.mmcm.cell,
                period_ns=1e9 / board.input_hz,
                multiply=board.mmcm.multiply,
                divider=board.mmcm.divider,
                source="crystal" if differential else "pad_clk",
            )
        )
    elif pll is None:
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
        f"  {module} {instance}(.clk(clk), .rst(rst), .rx(pad_rx), .tx(pad_tx), .leds(leds));\n",
        "endmodule\n",
    ]
    return "".join(lines)


def pins(board: Board) -> dict[str, str]:
    """Port of the wrapper -> pin."""
    clock = board.pads["clk"].split()
    single = dict(zip(("pad_clk",) if len(clock) == 1 else ("pad_clk_p", "pad_clk_n"), clock, strict=True))
    single |= {f"pad_{name}": board.pads[name] for name in ("reset", "rx", "tx")}
    return single | {f"pad_leds[{index}]": pin for index, pin in enumerate(board.pads["leds"].split())}


def constraints(board: Board) -> str:
    """The pins in the words of the family's place and route: LPF, PCF, CST or XDC."""
    lines = []
    for port, pin in pins(board).items():
        if board.family == "ecp5":
            lines.append(f'LOCATE COMP "{port}" SITE "{pin}";\nIOBUF PORT "{port}" {board.electrical};')
        elif board.family == "ice40":
            option = f" {board.electrical}" if port in ("pad_rx", "pad_reset") else ""
            lines.append(f"set_io{option} {port} {pin}")
        elif board.amd:
            standard = board.standards.get(port.split("_")[1], board.electrical)
            lines.append(f"set_property -dict {{PACKAGE_PIN {pin} IOSTANDARD {standard}}} [get_ports {{{port}}}]")
        else:
            pull = " PULL_MODE=UP" if port == "pad_rx" or (port == "pad_reset" and not board.reset_pressed) else ""
            lines.append(f'IO_LOC "{port}" {pin};\nIO_PORT "{port}" {board.electrical}{pull};')
    if board.family == "ecp5":
        lines.append(f'FREQUENCY PORT "pad_clk" {board.input_hz / 1e6:g} MHZ;')
    if board.amd:
        clock = "pad_clk_p" if "pad_clk_p" in pins(board) else "pad_clk"
        lines.append(f"create_clock -period {1e9 / board.input_hz:.3f} [get_ports {{{clock}}}]")
        lines.append("set_false_path -from [get_ports {pad_reset pad_rx}]")
        lines.append("set_false_path -to [get_ports {pad_tx pad_leds[*]}]")
    return "\n".join(lines) + "\n"
