"""cocotb testbenches of the array cells; run with plusargs pe, dataflow, params (a JSON object), cycles and seed.

Each test starts from a random power-up state, resets, and compares every output in every cycle with the cell's
cycle model (`cell_model`), so the rules of a directed test are stated once, by what it drives.
"""

from __future__ import annotations

import json
import random
from typing import Any

import cocotb
from bitwright.arch import pe as specs
from bitwright.rtl.bench.cell_bench import to_bits
from bitwright.rtl.bench.cell_model import CellModel, cell_model
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge


class Testbench:
    """A cell under test beside its model. Inputs change on the falling edge; outputs are read just before the
    rising edge that takes them."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.spec = specs.get(str(cocotb.plusargs["pe"]), **json.loads(str(cocotb.plusargs.get("params", "{}"))))
        dataflow = str(cocotb.plusargs["dataflow"])
        self.model: CellModel = cell_model(self.spec, dataflow)
        self.random = random.Random(int(cocotb.plusargs.get("seed", 1)))
        stationary = dataflow == "ws"
        self.controls = [
            "act_valid",
            *(["act_swap", "wgt_load"] if stationary else ["act_first", "act_last", "drain_shift"]),
        ]
        self.operands = {"act": self.spec.act.bits, "wgt": self.spec.wgt.bits}
        self.operands["psum_in" if stationary else "drain_in"] = self.spec.psum.bits
        if self.spec.wgt.kind == "code":
            self.operands["wgt_unsigned"] = 1
        self.cycle = 0

    async def start(self, reset_cycles: int = 2) -> None:
        """Start the clock with garbage on the inputs, then reset."""
        self.drive(self.garbage())
        Clock(self.dut.clk, 10, unit="ns").start()
        await FallingEdge(self.dut.clk)
        for _ in range(reset_cycles):
            await self.step({**self.garbage(), "rst": 1})

    def garbage(self) -> dict[str, int]:
        """Random values on every input but reset."""
        controls = {name: self.random.getrandbits(1) for name in self.controls}
        return {**controls, **self.payload(), "rst": 0}

    def payload(self) -> dict[str, int]:
        """Random operands; the running sum from one random product, so that floats meet floats of their size."""
        values = {name: self.random.getrandbits(bits) for name, bits in self.operands.items()}
        if self.spec.psum.kind == "float" and self.random.random() < 0.8:
            for name in ("act", "wgt"):  # exponents near 1: sums that round and cancel
                values[name] = (values[name] & 0x83FF) | self.random.randint(12, 18) << 10
            chain = next(name for name in ("psum_in", "drain_in") if name in values)
            values[chain] = (values[chain] & 0x807FFFFF) | self.random.randint(118, 134) << 23
        return values

    def drive(self, inputs: dict[str, int]) -> None:
        for name, value in inputs.items():
            getattr(self.dut, name).value = value

    async def step(self, inputs: dict[str, int]) -> None:
        """One cycle: apply inputs, compare all outputs that can be known, take the clock edge."""
        self.drive(inputs)
        for name, expected in self.model.outputs().items():
            got = int(getattr(self.dut, name).value)
            if expected is not None and got != expected:
                raise AssertionError(f"cycle {self.cycle}: {name} = {got:#x}: must be {expected:#x} ({inputs})")
        self.model.step(inputs)
        await RisingEdge(self.dut.clk)
        await FallingEdge(self.dut.clk)
        self.cycle += 1

    async def idle(self, cycles: int = 1, **controls: int) -> None:
        """Cycles with all controls low but those given, and random operands."""
        for _ in range(cycles):
            await self.step({**dict.fromkeys(self.controls, 0), **self.payload(), "rst": 0, **controls})


def _only(dataflow: str) -> bool:
    return bool(cocotb.plusargs.get("dataflow", "ws") != dataflow)


@cocotb.test()
async def reset_clears_control_and_keeps_working(dut: Any) -> None:
    """Reset in the middle of traffic, with every input active; then traffic again."""
    bench = Testbench(dut)
    await bench.start()
    for _ in range(5):
        for _ in range(10):
            await bench.step(bench.garbage())
        await bench.step({**bench.garbage(), **dict.fromkeys(bench.controls, 1), "rst": 1})


@cocotb.test(skip=_only("ws"))
async def load_during_swap_is_for_the_next_swap(dut: Any) -> None:
    """A load in the cycle of a swap: the swap takes the old shadow weight, the next swap the new one."""
    bench = Testbench(dut)
    await bench.start()
    await bench.idle(wgt_load=1)
    for gap in (0, 1, 3, 0, 0):
        await bench.idle(act_valid=1, act_swap=1, wgt_load=1)
        await bench.idle(2, act_valid=1)
        await bench.idle(gap)
    await bench.idle(2, act_valid=1, act_swap=1)


@cocotb.test(skip=_only("ws"))
async def idle_cycles_pass_the_sum_and_keep_the_weight(dut: Any) -> None:
    """Without act_valid the partial sum passes unchanged; loads and swaps still count."""
    bench = Testbench(dut)
    await bench.start()
    await bench.idle(wgt_load=1)
    await bench.idle(act_swap=1)  # a swap without a valid activation
    await bench.idle(3)
    await bench.idle(2, act_valid=1)
    await bench.idle(2, wgt_load=1)
    await bench.idle(2, act_valid=1)  # still the old weight
    await bench.idle(2)


@cocotb.test(skip=_only("os"))
async def first_and_last_bound_an_accumulation(dut: Any) -> None:
    """Depths 1 to 5, back to back and with gaps; first and last without act_valid count for nothing."""
    bench = Testbench(dut)
    await bench.start()
    for gap in (0, 1, 2):
        for depth in range(1, 6):
            for step in range(depth):
                await bench.idle(act_valid=1, act_first=int(step == 0), act_last=int(step == depth - 1))
                await bench.idle(gap, act_first=1, act_last=1)
    await bench.idle(2)


@cocotb.test(skip=_only("os"))
async def a_result_wins_over_a_drain_shift(dut: Any) -> None:
    """drain_shift together with a last activation keeps the cell's own sum; alone it takes the neighbour's."""
    bench = Testbench(dut)
    await bench.start()
    for shift in (0, 1):
        await bench.idle(act_valid=1, act_first=1, drain_shift=1)
        await bench.idle(act_valid=1, act_last=1, drain_shift=shift)
        await bench.idle(1)
        await bench.idle(3, drain_shift=1)
        await bench.idle(act_last=1, drain_shift=1)  # a last without valid: the shift counts
    await bench.idle(2)


@cocotb.test()
async def random_protocol(dut: Any) -> None:
    """Every control at random rates, a reset now and then, some back-to-back and some idle stretches."""
    bench = Testbench(dut)
    await bench.start()
    # A known start: load and swap a weight, or begin an accumulation; unknown values are not compared.
    rates = dict.fromkeys(bench.controls, 0.5)
    mode = {"wgt_unsigned": 0} if "wgt_unsigned" in bench.operands else {}
    for cycle in range(int(cocotb.plusargs.get("cycles", 1000))):
        if cycle % 50 == 0:
            rates = {name: bench.random.choice((0.05, 0.5, 0.95, 1.0)) for name in bench.controls}
            mode = {name: bench.random.getrandbits(1) for name in mode}
        controls = {name: int(bench.random.random() < rate) for name, rate in rates.items()}
        await bench.step({**bench.payload(), **mode, **controls, "rst": int(bench.random.random() < 0.01)})
    known = [name for name, value in bench.model.state.items() if value is not None]
    assert len(known) == len(bench.model.state), f"only {known} were ever known"
    assert to_bits(bench.spec.psum, bench.spec.zero()) == 0
