"""What the cocotb benches of all PEs stand on: a stream of operands, a stream of sums, and what rides on them.

A cycle: inputs change while `clk` is low, outputs are read when they have settled, then `clk` rises. Each test begins
in whatever state the one before left, the first of them in an unknown one, and resets. The second line of a failure's
message is the simulation time (`at 75 ns`).
"""

from __future__ import annotations

import abc
import random
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import cocotb
from bitwright.rtl.bench.stream.monitors import (
    Bits,
    HandshakeMonitor,
    Scoreboard,
    another_latency,
    bits_of,
    number_of,
    shown,
)
from bitwright.rtl.bench.stream.script import Script
from cocotb.simtime import get_sim_time
from cocotb.triggers import Timer

SHARES = (0.0, 0.5, 0.9)  # of cycles in which the source pauses, or the sink does not take
_PATIENCE_CYCLES = 64  # beyond its contract, for a PE with elastic stages
LONGEST_WAIT = 24


def flag(value: int | None) -> str:
    """A signal of one bit for a message."""
    return "x" if value is None else str(value)


class Testbench(abc.ABC):
    """A PE, its monitors and the script that it is given; of the plusargs latency, strict, seed and cycles.

    Parameters
        source, sink : names of the two streams.
        scoreboard : of the sums.
        latency : the spec's, in cycles, from a last operand taken to its sum on offer.
        exact : the handshakes are compared with the contract in every cycle; always so with strict=1.
        others : inputs besides the streams, `clk` and `rst`; 0 where a cycle does not say.
    """

    def __init__(
        self, dut: Any, source: str, sink: str, scoreboard: Scoreboard, *, latency: int, exact: bool,
        others: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        plus = cocotb.plusargs
        self.dut, self.source, self.sink, self.others = dut, source, sink, others
        self.latency = int(plus.get("latency", latency))
        self.strict = bool(int(plus.get("strict", 1)))
        self.exact = exact or self.strict
        self.seed, self.cycles = int(plus.get("seed", 1)), int(plus.get("cycles", 1800))
        self.random = random.Random(self.seed)
        self.operands, self.sums = HandshakeMonitor(source), HandshakeMonitor(sink)
        self.scoreboard = scoreboard
        self.cycle, self.known, self.offering, self.waited = 0, False, False, 0
        self.wrong_latency = False

    @abc.abstractmethod
    def compare(self, ready: int | None, valid: int | None, shown_step: int, sum_ready: bool, rst: bool) -> None:
        """Fail unless both handshakes are the contract's, with the step of that number on the payload."""

    @abc.abstractmethod
    def advance(self, sum_ready: bool, rst: bool) -> None:
        """The rising edge, for the model of the handshakes."""

    @abc.abstractmethod
    def sum_of(self, number: int) -> tuple[bool, int | None]:
        """(whether the step of that number, taken now, begins a sum, the bits of the sum that it ends)."""

    @abc.abstractmethod
    def load_short_sums(self) -> int:
        """Load a few short sums; how many."""

    @property
    def longest_wait(self) -> int:
        """Cycles that cover every phase and every stage."""
        return min(LONGEST_WAIT, self.latency + max(self.script.cycles) + 2)

    def play_from(self, script: Script, noise: Sequence[int] = ()) -> None:
        """What to play from now on; `noise`: more payloads to show while no step is on offer."""
        self.script, self.shown = script, [*script.payloads, *noise]
        self.at = self.taken = 0

    def fail(self, what: str) -> NoReturn:
        raise AssertionError(f"cycle {self.cycle}: {what}\nat {get_sim_time('ns'):.0f} ns")

    async def start(self) -> None:
        """Two cycles of anything, then two of reset; nothing is taken, so that only the reset clears a sum."""
        for rst in (False, False, True, True):
            await self.clock(offer=bool(self.random.getrandbits(1)), sum_ready=False, rst=rst)
            self.offering = False

    def drive(self, valid: bool, payload: int, sum_ready: bool) -> None:
        getattr(self.dut, f"{self.source}__valid").value = int(valid)
        getattr(self.dut, f"{self.source}__payload").value = payload
        getattr(self.dut, f"{self.sink}__ready").value = int(sum_ready)

    def read(self) -> tuple[int | None, int | None, Bits | None]:
        """The operands' `ready`, the sum's `valid` and, if that is high, its payload."""
        ready = number_of(getattr(self.dut, f"{self.source}__ready"))
        valid = number_of(getattr(self.dut, f"{self.sink}__valid"))
        return ready, valid, bits_of(getattr(self.dut, f"{self.sink}__payload")) if valid else None

    async def clock(
        self, *, offer: bool, sum_ready: bool, rst: bool = False, probe: bool = False,
        others: Mapping[str, int] = MappingProxyType({}),
    ) -> bool:  # fmt: skip
        """One cycle; a step is on offer if `offer`, or if one was and is not taken yet. Returns whether one was taken.

        Without a step on offer the payload is that of any other step, or noise.
        """
        self.offering = self.offering or offer
        shown_step = self.at if self.offering else self.random.randrange(len(self.shown))
        payload = self.shown[shown_step]
        self.dut.clk.value, self.dut.rst.value = 0, int(rst)
        for name in self.others:
            getattr(self.dut, name).value = others.get(name, 0)
        if probe:
            await self.probe(payload)
        self.drive(self.offering, payload, sum_ready)
        await Timer(5, "ns")
        ready, valid, sum_bits = self.read()
        if self.known:
            self.compare(ready, valid, shown_step, sum_ready, rst)
            self.watch(ready, valid, sum_bits, payload, sum_ready, rst)
        taken = bool(self.offering and ready and not rst)
        self.advance(sum_ready, rst)
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
        at, script = self.at, self.script
        first, sum_bits = self.sum_of(at)
        self.scoreboard.took(at, first, script.last[at], sum_bits, script.payloads[at])
        self.offering, self.waited, self.taken = False, 0, self.taken + 1
        self.at = (at + 1) % len(script)

    def late(self, valid: int | None, expected: bool) -> NoReturn:
        """Fail for a sum that is on offer in another cycle than it must."""
        self.wrong_latency = not self.strict
        self.fail(
            f"{self.sink}.valid = {flag(valid)}: must be {int(expected)}, with a latency of {self.latency} from the "
            f"cycle in which a {self.source} marked last was taken"
        )

    def watch(
        self, ready: int | None, valid: int | None, sum_bits: Bits | None, payload: int, sum_ready: bool, rst: bool
    ) -> None:
        """The rules of the streams and the order and values of the sums."""
        if rst:
            self.operands.reset()
            self.sums.reset()
            return
        wrong = self.operands.sample(int(self.offering), ready, payload)
        wrong = wrong or self.sums.sample(valid, int(sum_ready), sum_bits)
        if valid and wrong is None:
            wrong = self.scoreboard.offered(sum_bits)
            if sum_ready and wrong is None:
                self.scoreboard.owed.popleft()
        if wrong is not None:
            self.fail(wrong)
        self.waited += self.offering and (sum_ready or not valid)
        if self.waited > max(self.script.cycles) + self.latency + _PATIENCE_CYCLES:
            self.fail(
                f"{self.source}.ready = 0: must be 1 at last, a {self.source} waits for {self.waited} cycles that hold "
                f"no sum back"
            )

    async def probe(self, payload: int) -> None:
        """Within one cycle: `ready` may not follow `valid` of the operands, nor the sum any input."""
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
                    f"{self.source}.ready = {flag(low)} with {self.source}.valid low, {flag(high)} with it high in the "
                    f"same cycle: must not depend on {self.source}.valid ({self.sink}.ready = {int(sum_ready)})"
                )
        self.drive(True, self.random.choice(self.shown), True)
        given = {name: getattr(self.dut, name).value for name in self.others}
        for name in self.others:
            getattr(self.dut, name).value = 1
        await Timer(1, "ns")
        sums = {values[1:] for values in (*seen.values(), self.read())}
        for name, value in given.items():
            getattr(self.dut, name).value = value
        if len(sums) > 1:
            texts = ", ".join(sorted(f"valid {flag(valid)} payload {shown(bits)}" for valid, bits in sums))
            self.fail(
                f"{self.sink} = {texts} in the same cycle: must not depend on {self._inputs()} or on {self.sink}.ready"
            )

    def _inputs(self) -> str:
        return ", ".join([f"the {self.source} stream", *self.others])

    async def play_all(self, *, idle: float = 0.0, slow: float = 0.0, probe: bool = False) -> None:
        """All steps once, then all sums, with the given shares of pauses."""
        while self.taken < len(self.script):
            offer, ready = self.random.random() >= idle, self.random.random() >= slow
            await self.clock(offer=offer, sum_ready=ready, probe=probe)
        await self.drain()

    async def play_held(self, wait: int) -> None:
        """All steps as fast as they are taken, each sum held back for `wait` cycles once it is on offer."""
        held = 0
        while self.taken < len(self.script):
            held += self.sums.waiting is not None
            await self.clock(offer=True, sum_ready=held > wait or len(self.scoreboard.owed) == 0)
            held = held if self.sums.waiting is not None else 0
        await self.drain()

    async def drain(self) -> None:
        """Take all sums that are owed, and see that no other comes."""
        cycles = 0
        while self.scoreboard.owed:
            await self.clock(offer=False, sum_ready=True)
            cycles += 1
            if cycles > self.latency + _PATIENCE_CYCLES:
                number = self.scoreboard.owed[0].number
                self.fail(
                    f"{self.sink}.valid = 0: must be 1, the sum to {self.source} {number} is missing after {cycles} "
                    f"cycles"
                )
        for _ in range(self.latency + 2):
            await self.clock(offer=False, sum_ready=True)

    async def measured_latency(self) -> int | None:
        """The latency in cycles, if it is the same for all of some sums that nothing holds back, of right values."""
        self.exact, self.known = False, False  # nothing is checked until the reset
        found, taken_at = set[int](), deque[int]()
        try:
            await self.start()
            count = self.load_short_sums()
            before, at_most = self.sums.transfers, count * (max(self.script.cycles) + _PATIENCE_CYCLES)
            while self.sums.transfers < before + count and at_most:
                seen, cycle, last = self.sums.transfers, self.cycle, self.script.last[self.at]
                offer = self.taken < len(self.script) and self.random.random() < 0.7
                if await self.clock(offer=offer, sum_ready=True) and last:
                    taken_at.append(cycle)
                if self.sums.transfers > seen:
                    found.add(cycle - taken_at.popleft())
                at_most -= 1
        except AssertionError:
            return None
        return found.pop() if len(found) == 1 and at_most else None

    async def explained(self, error: AssertionError) -> AssertionError:
        """The error, with the latency that explains it if one does."""
        measured = await self.measured_latency() if self.wrong_latency else None
        if measured is None or measured == self.latency:
            return error
        text, _, time = str(error).partition("\n")
        return AssertionError(f"{text}{another_latency(self.latency, measured)}\n{time}")
