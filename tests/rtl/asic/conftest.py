"""Shared by the synthesis tests: the cell library, and small designs."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.arch.errors import ToolError
from bitwright.rtl.asic.liberty import Library, library_path, read_library

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
