"""Shared by the synthesis tests: the cell library, and small designs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bitwright.arch.errors import ToolError
from bitwright.rtl.asic import netlist_verilog
from bitwright.rtl.asic.liberty import Library, library_path, read_library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.timing import Conditions

MAC = """
module mac(input clk, input rst, input en, input signed [7:0] a, input signed [7:0] w,
           input signed [31:0] p, output reg signed [31:0] q, output reg signed [7:0] a_out);
  reg signed [7:0] x, y;
  always @(posedge clk) begin
    x <= a; y <= w; a_out <= x;
    if (rst) q <= 0; else if (en) q <= p + x * y;
  end
endmodule
"""


@pytest.fixture(scope="session")
def liberty() -> Path:
    """Path of Nangate45's Liberty file."""
    try:
        return library_path("nangate45")
    except ToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def nangate45(liberty: Path) -> Library:
    """Nangate45."""
    return read_library(liberty)


@pytest.fixture(scope="session")
def mac_verilog() -> str:
    """A multiply-add of 8-bit operands with registered inputs."""
    return MAC


@pytest.fixture
def opensta(tmp_path: Path) -> Callable[[Netlist, Library, Conditions, float, str], str]:
    """What OpenSTA 2.0.17 prints for a netlist under conditions without an input cell, a clock period and commands.

    Instance i is u<i>. A wire load that the file lacks is written into the library's text. An error that OpenSTA goes
    on after fails.
    """

    def run(netlist: Netlist, library: Library, conditions: Conditions, period_ns: float, commands: str) -> str:
        text, wire, time_ns = library.text, library.wire_load, library.time_ns
        if not re.search(r"default_wire_load\s*:", text):
            lengths = " ".join(f"fanout_length ({fanout}, {length});" for fanout, length in wire.lengths)
            own = f"capacitance : {wire.ff_per_length / library.capacitance_ff}; resistance : 0; slope : {wire.slope};"
            given = f'wire_load ("given") {{ {own} {lengths} }} default_wire_load : "given";'
            text = re.sub(r"(\n *lu_table_template)", rf"\n{given}\1", text, count=1)  # after the units
        (tmp_path / "library.lib").write_text(text)
        (tmp_path / "netlist.v").write_text(netlist_verilog.cells(netlist))
        inputs = " ".join(name for name, port in netlist.ports.items() if not port.is_output and name != "clk")
        (tmp_path / "run.tcl").write_text(
            f"read_liberty library.lib\nread_verilog netlist.v\nlink_design {netlist.name}\n"
            f"create_clock -name clk -period {period_ns / time_ns} [get_ports clk]\n"
            f"set_clock_transition {conditions.clock_slew_ns / time_ns} [get_clocks clk]\n"
            f"foreach name {{{inputs}}} {{\n  set ports [get_ports [list $name $name\\[*\\]]]\n"
            "  set_input_delay 0 -clock clk $ports\n"
            f"  set_input_transition {conditions.input_slew_ns / time_ns} $ports\n}}\n"
            f"set_load -pin_load {conditions.output_load_ff / library.capacitance_ff} [all_outputs]\n{commands}\n"
        )
        command = ["sta", "-no_splash", "-exit", "run.tcl"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        output = done.stdout + done.stderr
        errors = [line for line in output.splitlines() if line.startswith("Error")]
        assert not errors, errors
        return output

    return run


@pytest.fixture
def opensta_period_ns(
    opensta: Callable[[Netlist, Library, Conditions, float, str], str],
) -> Callable[[Netlist, Library, Conditions], float]:
    """The smallest period that OpenSTA allows, ns."""

    def period(netlist: Netlist, library: Library, conditions: Conditions) -> float:
        long_ns = 1000.0
        output = opensta(netlist, library, conditions, long_ns, 'puts "SLACK [worst_slack -max]"')
        found = re.search(r"SLACK ([-\d.e+]+)", output)
        assert found is not None, output
        return long_ns - float(found.group(1)) * library.time_ns

    return period
