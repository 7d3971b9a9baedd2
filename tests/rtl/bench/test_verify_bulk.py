"""The bulk runs of `verify` on Verilog with rare bugs, with delays, and that depends on its power-up state."""

from __future__ import annotations

import re

import pytest
from bitwright.arch import pe
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.bench.cocotb_runner import FailedTestsError
from bitwright.rtl.bench.verification import bit_serial_tests, bulk_tests
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe import streaming

REPLAY = "bitwright verify"
BIT_SERIAL, INT8 = BitSerial(), pe.stream("int8-mac")


def changed(value: str) -> str:
    """The bit-serial PE whose slices are `value`, an expression of slice__payload."""
    text = streaming.verilog(BIT_SERIAL)
    text, uses = re.subn(r"\bslice__payload(?=\s*\[)", "changed", text)
    port = re.search(r"  input (\[\d+:0\]) slice__payload;\n", text)
    assert uses > 4
    assert port is not None
    return text.replace(port.group(), f"{port.group()}  wire {port.group(1)} changed = {value};\n")


@pytest.mark.parametrize(
    ("value", "caught"),
    [
        ("slice__payload", False),
        ("slice__payload[15:0] == 16'h3c01 ? slice__payload ^ 1'd1 : slice__payload", True),  # one activation of a lane
        ("slice__payload[30:26] == 0 ? slice__payload & ~(118'd1023 << 16) : slice__payload", True),  # subnormals
    ],
    ids=["unchanged", "one_activation", "subnormals"],
)
def test_rare_bugs_of_a_bit_serial_pe(value: str, caught: bool) -> None:
    design = Compiled(changed(value), BIT_SERIAL.module_stem)
    if not caught:
        passed = bit_serial_tests(BIT_SERIAL, design, 1, REPLAY)
        assert [name.partition(":")[0] for name in passed] == [
            "every_finite_activation", "every_code", "channels_of_every_kind",
        ]  # fmt: skip
        return
    with pytest.raises(FailedTestsError, match=r"column\[\d+\] = 0x[0-9a-f]{8} .*: must be 0x[0-9a-f]{8} "):
        bit_serial_tests(BIT_SERIAL, design, 1, REPLAY)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bit_that_is_never_set_shows_in_one_of_the_power_up_states(seed: int) -> None:
    text, count = re.subn(r"sum__payload <= (\w+) ;", r"sum__payload <= \1 ^ odd;", streaming.verilog(INT8))
    assert count == 1
    text = text.replace("endmodule", "  reg odd = 1'h0;\n  always @(posedge clk) odd <= odd;\nendmodule")
    with pytest.raises(FailedTestsError):
        bulk_tests(INT8, Compiled(text, INT8.module_stem), INT8.timing.latency_cycles, seed, REPLAY)


def test_delays_are_nothing() -> None:
    text = streaming.verilog(INT8)
    delayed = text.replace(" <= ", " <= #1 ")
    assert delayed != text
    assert bulk_tests(INT8, Compiled(delayed, INT8.module_stem), INT8.timing.latency_cycles, 1, REPLAY)
