"""The flip-flops around the array that the cost model charges are those of the array's Verilog."""

from __future__ import annotations

import re

import pytest
from bitwright.arch import machine as machines
from bitwright.rtl import array
from bitwright.sim.costs import skew_register_bits

SEQUENCER_BITS = 96  # counters and queue of the tile sequencer, not part of the skew


@pytest.mark.parametrize(
    "name", ["int8-16x16-ws", "int8-16x16-os", "shift-add-8x24-ws", "shift-add-8x8-os", "fp16-4x8-ws"]
)
def test_skew_registers_are_those_of_the_verilog(name: str) -> None:
    machine = machines.load(name)
    shape = machine.array
    text = array.verilog(machine.pe, shape.rows, shape.cols, shape.dataflow.value)
    top = array.module_name(machine.pe, shape.rows, shape.cols, shape.dataflow.value)
    body = text.split(f"module {top}(", 1)[1].split("endmodule", 1)[0]
    clocked = set(re.findall(r"@\(posedge clk\)\s*(?:if [^;]*?\)\s*)?(?:begin\s*)?(\\?\S+)\s*<=", body))
    bits = 0
    for width, register in re.findall(r"^\s*(?:output )?reg (?:\[(\d+):0\] )?(\\?\S+)", body, re.MULTILINE):
        if register.rstrip(";") in clocked:
            bits += int(width) + 1 if width else 1
    assert 0 <= bits - skew_register_bits(machine) <= SEQUENCER_BITS, bits
