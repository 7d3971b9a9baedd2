"""cocotb testbench of every streaming PE; plusargs pe, params (a JSON object), latency, strict, cycles and seed.

All is taken from the spec (`arch.pe.stream.StreamSpec`). Each test begins in whatever state the one before left, the
first of them in an unknown one, and resets. Sums are compared bit for bit with `spec.sums` in every cycle in which
they are on offer; a handshake monitor rides on both streams. With strict=1, `step.ready` and `sum.valid` are also
compared with `StreamModel` in every cycle, stalls and idle cycles included. With strict=0 (another's PE, which may
have elastic stages) they are compared in the test that never holds a sum back, where the latency and the cycles of a
step are binding. Tests stand in the order in which a failure is easiest to read. The second line of a failure's
message is the simulation time (`at 75 ns`).
"""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Any, NoReturn

import cocotb
import numpy as np
from bitwright.arch import pe as specs
from bitwright.arch.pe.stream import Steps
from bitwright.rtl.bench.stream.model import Offer, StreamModel
from bitwright.rtl.bench.stream.monitors import (
    Bits,
    HandshakeMonitor,
    Scoreboard,
    another_latency,
    bits_of,
    number_of,
    shown,
)
from bitwright.rtl.bench.stream.script import Script, cut_to, dropping_steps, mixed_steps, script, shuffled
from bitwright.rtl.bench.stream.stimulus import extreme_steps, random_steps, real_steps
from cocotb.simtime import get_sim_time
from cocotb.triggers import Timer

_SHARES = (0.0, 0.5, 0.9)  # of cycles in which the source pauses, or the sink does not take
_PATIENCE_CYCLES = 64  # beyond its contract, for a PE with elastic stages
_LONGEST_WAIT = 24


def _flag(value: int | None) -> str:
    return "x" if value is None else str(value)


class Testbench:
    """A PE, its model, its monitors and the steps that it is given.

    A cycle: inputs change while `clk` is low, outputs are read when they have settled, then `clk` rises.
    """

    def __init__(self, dut: Any, *, exact: bool = False) -> None:
        plus = cocotb.plusargs
        self.dut = dut
        self.spec = specs.stream(str(plus["pe"]), **json.loads(str(plus.get("params", "{}"))))
        self.latency = int(plus.get("latency", self.spec.timing.latency_cycles))
        self.strict = bool(int(plus.get("strict", 1)))
        self.exact = exact or self.strict
        self.seed, self.cycles = int(plus.get("seed", 1)), int(plus.get("cycles", 1800))
        self.random = random.Random(self.seed)
        self.model = StreamModel(self.latency)
        self.step_monitor, self.sum_monitor = HandshakeMonitor("step"), HandshakeMonitor("sum")
        self.scoreboard = Scoreboard(self.spec)
        self.cycle, self.known, self.offering, self.waited = 0, False, False, 0
        self.wrong_latency = False
        self.load(random_steps(self.spec, np.ones(8, dtype=np.int64), self.seed))

    @property
    def longest_wait(self) -> int:
        """Cycles that cover every phase and every stage."""
        return min(_LONGEST_WAIT, self.latency + max(self.script.cycles) + 2)

    def load(self, steps: Steps) -> None:
        """The steps to play from now on."""
        self.script: Script = script(self.spec, steps)
        self.at = self.taken = 0

    def fail(self, what: str) -> NoReturn:
        raise AssertionError(f"cycle {self.cycle}: {what}\nat {get_sim_time('ns'):.0f} ns")

    async def start(self) -> None:
        """Two cycles of anything, then two of reset; nothing is taken, so that only the reset clears a sum."""
        for rst in (False, False, True, True):
            await self.clock(offer=bool(self.random.getrandbits(1)), sum_ready=False, rst=rst)
            self.offering = False

    def drive(self, valid: bool, payload: int, sum_ready: bool) -> None:
        self.dut.step__valid.value, self.dut.step__payload.value = int(valid), payload
        self.dut.sum__ready.value = int(sum_ready)

    def read(self) -> tuple[int | None, int | None, Bits | None]:
        """`step.ready`, `sum.valid` and, if that is high, `sum.payload`."""
        ready, valid = number_of(self.dut.step__ready), number_of(self.dut.sum__valid)
        if not valid:
            return ready, valid, None
        return ready, valid, bits_of(self.dut.sum__payload)

    async def clock(self, *, offer: bool, sum_ready: bool, rst: bool = False, probe: bool = False) -> bool:
        """One cycle; a step is on offer if `offer`, or if one was and is not taken yet. Returns whether one was taken.

        Without a step on offer the payload is that of any other step.
        """
        self.offering = self.offering or offer
        shown_step = self.at if self.offering else self.random.randrange(len(self.script))
        payload = self.script.payloads[shown_step]
        self.dut.clk.value, self.dut.rst.value = 0, int(rst)
        if probe:
            await self.probe(payload)
        self.drive(self.offering, payload, sum_ready)
        await Timer(5, "ns")
        ready, valid, sum_bits = self.read()
        if self.known:
            self.compare(ready, valid, self.script.cycles[shown_step], sum_ready, rst)
            self.watch(ready, valid, sum_bits, payload, sum_ready, rst)
        taken = bool(self.offering and ready and not rst)
        current = Offer(self.script.cycles[self.at], self.script.last[self.at]) if self.offering else None
        self.model.step(current, sum_ready, rst)
        if rst:
            self.known, self.waited = True, 0
            self.scoreboard.reset()
        elif taken and self.known:
            self.take()
        self.dut.clk.value = 1
        await Timer(5, "ns")
        self.cycle += 1
        return taken

    def take(self) -> None:
        """The step on offer was taken: the next one is due."""
        steps, at = self.script, self.at
        self.scoreboard.took(at, steps.first[at], steps.last[at], steps.sums[at], steps.payloads[at])
        self.offering, self.waited, self.taken = False, 0, self.taken + 1
        self.at = (at + 1) % len(steps)

    def compare(self, ready: int | None, valid: int | None, cycles: int, sum_ready: bool, rst: bool) -> None:
        """The cycle model's view: of every cycle, or, of another's PE without stalls, of those that are binding."""
        if not self.exact or (rst and not self.strict):
            return
        expected = int(self.model.ready(cycles, sum_ready))
        if (self.strict or self.offering) and ready != expected:
            self.fail(
                f"step.ready = {_flag(ready)}: must be {expected} in cycle {self.model.phase + 1} of a step of "
                f"{cycles}, sum.valid = {int(self.model.offered)}, sum.ready = {int(sum_ready)}"
            )
        if valid != int(self.model.offered):
            self.wrong_latency = not self.strict
            self.fail(
                f"sum.valid = {_flag(valid)}: must be {int(self.model.offered)}, with a latency of {self.latency} from "
                f"the cycle in which a step marked last was taken"
            )

    def watch(
        self, ready: int | None, valid: int | None, sum_bits: Bits | None, payload: int, sum_ready: bool, rst: bool
    ) -> None:
        """The rules of the streams and the order and values of the sums."""
        if rst:
            self.step_monitor.reset()
            self.sum_monitor.reset()
            return
        wrong = self.step_monitor.sample(int(self.offering), ready, payload)
        wrong = wrong or self.sum_monitor.sample(valid, int(sum_ready), sum_bits)
        if valid and wrong is None:
            wrong = self.scoreboard.offered(sum_bits)
            if sum_ready and wrong is None:
                self.scoreboard.owed.popleft()
        if wrong is not None:
            self.fail(wrong)
        self.waited += self.offering and (sum_ready or not valid)
        if self.waited > max(self.script.cycles) + self.latency + _PATIENCE_CYCLES:
            self.fail(f"step.ready = 0: must be 1 at last, a step waits for {self.waited} cycles that hold no sum back")

    async def probe(self, payload: int) -> None:
        """Within one cycle: `step.ready` may not follow `step.valid`, nor the sum any input."""
        seen: dict[tuple[bool, bool], tuple[int | None, int | None, Bits | None]] = {}
        for valid in (False, True):
            for sum_ready in (False, True):
                self.drive(valid, payload, sum_ready)
                await Timer(1, "ns")
                seen[valid, sum_ready] = self.read()
        for sum_ready in (False, True):
            low, high = (seen[valid, sum_ready][0] for valid in (False, True))
            if low != high:
                self.fail(
                    f"step.ready = {_flag(low)} with step.valid low, {_flag(high)} with it high in the same cycle: "
                    f"must not depend on step.valid (sum.ready = {int(sum_ready)})"
                )
        self.drive(True, self.random.choice(self.script.payloads), True)
        await Timer(1, "ns")
        sums = {values[1:] for values in (*seen.values(), self.read())}
        if len(sums) > 1:
            texts = ", ".join(sorted(f"valid {_flag(valid)} payload {shown(bits)}" for valid, bits in sums))
            self.fail(f"sum = {texts} in the same cycle: must not depend on the step stream or on sum.ready")

    async def play(self, steps: Steps, *, idle: float = 0.0, slow: float = 0.0, probe: bool = False) -> None:
        """All steps once, then all sums, with the given shares of pauses."""
        self.load(steps)
        while self.taken < len(self.script):
            offer, ready = self.random.random() >= idle, self.random.random() >= slow
            await self.clock(offer=offer, sum_ready=ready, probe=probe)
        await self.drain()

    async def drain(self) -> None:
        """Take all sums that are owed, and see that no other comes."""
        cycles = 0
        while self.scoreboard.owed:
            await self.clock(offer=False, sum_ready=True)
            cycles += 1
            if cycles > self.latency + _PATIENCE_CYCLES:
                number = self.scoreboard.owed[0].number
                self.fail(f"sum.valid = 0: must be 1, the sum to step {number} is missing after {cycles} cycles")
        for _ in range(self.latency + 2):
            await self.clock(offer=False, sum_ready=True)

    async def measured_latency(self) -> int | None:
        """The latency in cycles, if it is the same for 20 sums that nothing holds back and their values are right."""
        self.exact, self.known = False, False  # nothing is checked until the reset
        found, taken_at = set[int](), deque[int]()
        try:
            await self.start()
            lengths = np.asarray([1, 1, 3, 1, 2] * 4)
            self.load(random_steps(self.spec, lengths, self.seed))
            before, at_most = self.sum_monitor.transfers, len(lengths) * (max(self.script.cycles) + _PATIENCE_CYCLES)
            while self.sum_monitor.transfers < before + len(lengths) and at_most:
                seen, cycle, last = self.sum_monitor.transfers, self.cycle, self.script.last[self.at]
                offer = self.taken < len(self.script) and self.random.random() < 0.7
                if await self.clock(offer=offer, sum_ready=True) and last:
                    taken_at.append(cycle)
                if self.sum_monitor.transfers > seen:
                    found.add(cycle - taken_at.popleft())
                at_most -= 1
        except AssertionError:
            return None
        return found.pop() if len(found) == 1 and at_most else None

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
        for idle in _SHARES:
            await bench.play(ones, idle=idle)
            await bench.play(cut_to(bench.spec, mixed_steps(bench.spec, 200, bench.seed + 1), 400), idle=idle)
    except AssertionError as error:
        measured = await bench.measured_latency() if bench.wrong_latency else None
        if measured is None or measured == bench.latency:
            raise
        text, _, time = str(error).partition("\n")
        raise AssertionError(f"{text}{another_latency(bench.latency, measured)}\n{time}") from error
    assert bench.sum_monitor.transfers >= 120, f"{bench.sum_monitor.transfers} sums"


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
    count = min(_LONGEST_WAIT, bench.latency + 4)
    for unfinished in range(1, count):
        for slow in (0.0, 0.7):
            steps = dropping_steps(bench.spec, unfinished, 1 + unfinished % 3, bench.seed + unfinished)
            await bench.play(steps, slow=slow)
    assert bench.sum_monitor.transfers == 2 * (count - 1), f"{bench.sum_monitor.transfers} sums"


@cocotb.test()
async def a_sum_on_offer_holds_until_it_is_taken(dut: Any) -> None:
    """A first sum waits for 0, 1, 2 ... cycles while further sums of one and of three steps press on."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(bench.longest_wait):
        for lengths in ((1, 1, 1, 1, 1, 1), (1, 3, 1, 3)):
            bench.load(random_steps(bench.spec, np.asarray(lengths), bench.seed + wait, corner_share=0.3))
            held = 0
            while bench.taken < len(bench.script):
                held += bench.sum_monitor.waiting is not None
                await bench.clock(offer=True, sum_ready=held > wait or len(bench.scoreboard.owed) == 0)
                held = held if bench.sum_monitor.waiting is not None else 0
            await bench.drain()
    assert bench.sum_monitor.held > bench.longest_wait, f"{bench.sum_monitor.held} cycles of waiting sums"


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
            before = bench.sum_monitor.transfers
            while bench.at:
                await bench.clock(offer=True, sum_ready=bool(bench.random.getrandbits(1)))
            await bench.drain()
            after = bench.sum_monitor.transfers - before
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
    for idle in _SHARES:
        for slow in _SHARES:
            for _ in range(cycles):
                rst = bench.random.random() < 0.005
                ready = bench.random.random() >= slow
                await bench.clock(offer=bench.random.random() >= idle, sum_ready=ready, rst=rst)
                if rst and bench.random.random() < 0.7:
                    bench.skip_to_first()
    await bench.drain()
    counts = f"{bench.taken} steps, {bench.sum_monitor.transfers} sums, {bench.sum_monitor.held} cycles of waiting sums"
    assert min(bench.taken, bench.sum_monitor.transfers, bench.sum_monitor.held) > 20, counts
