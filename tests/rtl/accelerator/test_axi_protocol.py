"""MemoryPort, Load and Store before the AXI4 slave of cocotbext-axi, which pauses at random."""

from __future__ import annotations

import pytest
from bitwright.arch.errors import MismatchError
from bitwright.rtl.bench.cocotb_runner import run_cocotb
from bitwright.rtl.bench.memory_engines import TOP, memory_engines_verilog

BENCH = "bitwright.rtl.bench.cocotb_axi"
SEED = 20261123


@pytest.mark.parametrize("port_bytes", [8, 64])
def test_protocol(port_bytes: int) -> None:
    plusargs = {"port_bytes": port_bytes, "seed": SEED + port_bytes}
    passed = run_cocotb(memory_engines_verilog(port_bytes), TOP, BENCH, plusargs=plusargs)
    assert sorted(passed) == ["no_pauses_and_pauses_of_one_channel", "pauses_of_all_channels"]


def test_a_burst_across_4_kib_is_noticed() -> None:
    text = memory_engines_verilog(64)
    connection = ".m_axi_awaddr(m_axi_awaddr)"
    assert text.count(connection) == 1
    text = text.replace(connection, ".m_axi_awaddr(right)")
    declaration = "  wire [39:0] m_axi_awaddr;\n"
    place = text.index(declaration) + len(declaration)
    text = f"{text[:place]}  wire [39:0] right;\n  assign m_axi_awaddr = right + 40'd64;\n{text[place:]}"
    with pytest.raises(MismatchError, match=rf"^{TOP}: 2 of 2 tests of {BENCH} failed: .* assert \(4096 - "):
        run_cocotb(text, TOP, BENCH, plusargs={"port_bytes": 64, "seed": SEED})
