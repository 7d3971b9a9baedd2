"""cocotb testbench of every streaming PE; plusargs pe, params (a JSON object), latency, strict, cycles and seed.

All is taken from the spec (`arch.pe.stream.StreamSpec`). Sums are compared bit for bit with `spec.sums` in every cycle
in which they are on offer; a handshake monitor rides on both streams (`stream.testbench`, shared with bit-serial). With
strict=1, `step.ready` and `sum.valid` are also compared with `StreamModel` in every cycle, stalls and idle cycles
included. With strict=0 (another's PE, which may have elastic stages) they are compared in the test that never holds a
sum back, where the latency and the cycles of a step are binding. Tests stand in the order in which a failure is easiest
to read.
"""

from __future__ import annotations

import json
from typing import Any

import cocotb
import numpy as np
from bitwright.arch import pe as specs
from bitwright.arch.pe.stream import Steps
from bitwright.rtl.bench.stream import testbench
from bitwright.rtl.bench.stream.model import Offer, StreamModel
from bitwright.rtl.bench.stream.monitors import Scoreboard
from bitwright.rtl.bench.stream.script import cut_to, dropping_steps, mixed_steps, script, shuffled
from bitwright.rtl.bench.stream.stimulus import extreme_steps, random_steps, real_steps
from bitwright.rtl.bench.stream.testbench import SHARES


class Testbench(testbench.Testbench):
    """A streaming PE and the steps that it is given."""

    def __init__(self, dut: Any, *, exact: bool = False) -> None:
        plus = cocotb.plusargs
        self.spec = specs.stream(str(plus["pe"]), **json.loads(str(plus.get("params", "{}"))))
        board = Scoreboard(self.spec.step_fields, self.spec.sum_fields)
        super().__init__(dut, "step", "sum", board, latency=self.spec.timing.latency_cycles, exact=exact)
        self.model = StreamModel(self.latency)
        self.load(random_steps(self.spec, np.ones(8, dtype=np.int64), self.seed))

    def load(self, steps: Steps) -> None:
        """The steps to play from now on."""
        self.play_from(script(self.spec, steps))

    def load_short_sums(self) -> int:
        lengths = np.asarray([1, 1, 3, 1, 2] * 4)
        self.load(random_steps(self.spec, lengths, self.seed))
        return len(lengths)

    def sum_of(self, number: int) -> tuple[bool, int | None]:
        return self.script.first[number], self.script.sums[number]

    def advance(self, sum_ready: bool, rst: bool) -> None:
        steps, at = self.script, self.at
        self.model.step(Offer(steps.cycles[at], steps.last[at]) if self.offering else None, sum_ready, rst)

    def compare(self, ready: int | None, valid: int | None, shown_step: int, sum_ready: bool, rst: bool) -> None:
        """The cycle model's view: of every cycle, or, of another's PE without stalls, of those that are binding."""
        if not self.exact or (rst and not self.strict):
            return
        cycles = self.script.cycles[shown_step]
        expected = int(self.model.ready(cycles, sum_ready))
        if (self.strict or self.offering) and ready != expected:
            self.fail(
                f"step.ready = {testbench.flag(ready)}: must be {expected} in cycle {self.model.phase + 1} of a step "
                f"of {cycles}, sum.valid = {int(self.model.offered)}, sum.ready = {int(sum_ready)}"
            )
        if valid != int(self.model.offered):
            self.late(valid, self.model.offered)

    async def play(self, steps: Steps, *, idle: float = 0.0, slow: float = 0.0, probe: bool = False) -> None:
        """All steps once, then all sums, with the given shares of pauses."""
        self.load(steps)
        await self.play_all(idle=idle, slow=slow, probe=probe)

    def skip_to_first(self) -> None:
        """Go on with the next step marked `first`."""
        self.offering = False
        while not self.script.first[self.at]:
            self.at = (self.at + 1) % len(self.script)


@cocotb.test()
async def without_back_pressure_every_cycle_is_the_contracts(dut: Any) -> None:
    """Sums of one step back to back, then sums of any length, with a source that never, often or mostly pauses."""
    bench = Testbench(dut, exact=True)
    await bench.start()
    ones = random_steps(bench.spec, np.ones(40, dtype=np.int64), bench.seed, corner_share=0.3)
    try:
        for idle in SHARES:
            await bench.play(ones, idle=idle)
            await bench.play(cut_to(bench.spec, mixed_steps(bench.spec, 200, bench.seed + 1), 400), idle=idle)
    except AssertionError as error:
        raise (await bench.explained(error)) from None
    assert bench.sums.transfers >= 120, f"{bench.sums.transfers} sums"


@cocotb.test()
async def extreme_codes(dut: Any) -> None:
    """Sums of two steps of the corners of both operands, the same in all lanes."""
    bench = Testbench(dut)
    await bench.start()
    steps = shuffled(extreme_steps(bench.spec, 2), bench.seed)
    await bench.play(cut_to(bench.spec, steps, bench.cycles), idle=0.1, slow=0.1)


@cocotb.test()
async def real_tensors_of_smollm2(dut: Any) -> None:
    """Dot products of a real model's activations and weights, as the spec quantises them."""
    bench = Testbench(dut)
    await bench.start()
    steps = cut_to(bench.spec, real_steps(bench.spec, 16, bench.seed), bench.cycles)
    await bench.play(steps, idle=0.1, slow=0.2)


@cocotb.test()
async def a_first_in_mid_sum_drops_it(dut: Any) -> None:
    """Sums of 1, 2, 3 ... steps without a last, each followed by a whole sum, which alone comes out."""
    bench = Testbench(dut)
    await bench.start()
    count = min(testbench.LONGEST_WAIT, bench.latency + 4)
    for unfinished in range(1, count):
        for slow in (0.0, 0.7):
            steps = dropping_steps(bench.spec, unfinished, 1 + unfinished % 3, bench.seed + unfinished)
            await bench.play(steps, slow=slow)
    assert bench.sums.transfers == 2 * (count - 1), f"{bench.sums.transfers} sums"


@cocotb.test()
async def a_sum_on_offer_holds_until_it_is_taken(dut: Any) -> None:
    """A first sum waits for 0, 1, 2 ... cycles while further sums of one and of three steps press on."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(bench.longest_wait):
        for lengths in ((1, 1, 1, 1, 1, 1), (1, 3, 1, 3)):
            bench.load(random_steps(bench.spec, np.asarray(lengths), bench.seed + wait, corner_share=0.3))
            await bench.play_held(wait)
    assert bench.sums.held > bench.longest_wait, f"{bench.sums.held} cycles of waiting sums"


@cocotb.test()
async def a_reset_in_any_cycle_drops_steps_and_sums(dut: Any) -> None:
    """0, 1, 2 ... cycles after a sum's step: in mid-step, in mid-sum, over a sum on offer; then a whole sum comes."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(bench.longest_wait):
        for sum_ready in (False, True):
            lengths = np.asarray([1, 2, 40, 2])  # a sum that may be on offer, one behind it, one cut, one whole
            bench.load(random_steps(bench.spec, lengths, bench.seed + wait, corner_share=0.3))
            while not await bench.clock(offer=True, sum_ready=sum_ready):
                pass
            for _ in range(wait):
                await bench.clock(offer=True, sum_ready=sum_ready)
            await bench.clock(offer=True, sum_ready=sum_ready, rst=True)
            bench.at = len(bench.script) - 2
            bench.offering = False
            before = bench.sums.transfers
            while bench.at:
                await bench.clock(offer=True, sum_ready=bool(bench.random.getrandbits(1)))
            await bench.drain()
            after = bench.sums.transfers - before
            assert after == 1, f"{after} sums after a reset {wait} cycles into the second sum: must be 1"


@cocotb.test()
async def ready_does_not_depend_on_valid_nor_the_sum_on_inputs(dut: Any) -> None:
    """`step.valid`, the payload and `sum.ready` change within each cycle, with sums on offer and without."""
    bench = Testbench(dut)
    await bench.start()
    steps = cut_to(bench.spec, mixed_steps(bench.spec, 80, bench.seed + 2), 300)
    for idle, slow in ((0.0, 0.0), (0.5, 0.5), (0.1, 0.8)):
        await bench.play(steps, idle=idle, slow=slow, probe=True)


@cocotb.test()
async def every_mix_of_idle_and_back_pressure_with_drops_and_resets(dut: Any) -> None:
    """Nine mixes of a pausing source and a slow sink; sums of 1 to 8 steps, dropped ones, long ones, some resets."""
    bench = Testbench(dut)
    await bench.start()
    bench.load(mixed_steps(bench.spec, bench.cycles, bench.seed))
    cycles = int(bench.cycles // 9 * min(8.0, sum(bench.script.cycles) / len(bench.script)))
    for idle in SHARES:
        for slow in SHARES:
            for _ in range(cycles):
                rst = bench.random.random() < 0.005
                ready = bench.random.random() >= slow
                await bench.clock(offer=bench.random.random() >= idle, sum_ready=ready, rst=rst)
                if rst and bench.random.random() < 0.7:
                    bench.skip_to_first()
    await bench.drain()
    counts = f"{bench.taken} steps, {bench.sums.transfers} sums, {bench.sums.held} cycles of waiting sums"
    assert min(bench.taken, bench.sums.transfers, bench.sums.held) > 20, counts
