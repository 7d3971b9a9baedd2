"""cocotb testbench of the edge units' pipelines; run with plusargs unit, params (a JSON object) and seed.

The data path is checked in bulk through ctypes; here it is `valid`: its latency, bubbles, and resets that lose what is
in flight.
"""

from __future__ import annotations

import json
import random
from typing import Any

import cocotb
from bitwright.arch.pe import units
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

_INPUTS = (
    "psum",
    "scale",
    "acc",
    "act_sum",
    "zero",
    "scale_code",
    "halve",
    "code",
    "selector",
    "exponent",
    "nonfinite",
)


@cocotb.test()
async def valid_comes_out_after_the_latency_and_reset_loses_it(dut: Any) -> None:
    """Random bubbles and resets: valid_out (and acc_take, a cycle before) equal a shift register of `valid`."""
    spec = units.get(str(cocotb.plusargs["unit"]), **json.loads(str(cocotb.plusargs.get("params", "{}"))))
    rng = random.Random(int(cocotb.plusargs.get("seed", 1)))
    latency = spec.timing.latency_cycles
    inputs = [getattr(dut, name) for name in _INPUTS if hasattr(dut, name)]
    history = [0] * latency
    dut.rst.value = 1
    dut.valid.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    await RisingEdge(dut.clk)
    for cycle in range(500):
        await FallingEdge(dut.clk)
        valid, rst = int(rng.random() < (0.1, 0.5, 1.0)[cycle // 100 % 3]), int(rng.random() < 0.02)
        dut.valid.value, dut.rst.value = valid, rst
        for port in inputs:
            port.value = rng.getrandbits(len(port))
        assert int(dut.valid_out.value) == history[-1], f"cycle {cycle}: valid_out"
        if hasattr(dut, "acc_take"):
            assert int(dut.acc_take.value) == history[-2], f"cycle {cycle}: acc_take"
        history = [0] * latency if rst else [valid, *history[:-1]]
        await RisingEdge(dut.clk)
