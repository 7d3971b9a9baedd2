"""The SimPy machine: load, execute and store units that run a program, one DRAM channel, double buffers.

The reference: `sim.fast` counts the same without events. An event is a transfer, a block or a token, never a PE cycle.
State: three in-order queues; token counters (arch.program.Token, two credits a buffer); the array's two clocks
    (arch.array_timing.ArrayState); the DRAM channel (one transfer at a time; of a load and a store that both wait
    the one asked for first goes first, of the same cycle the load).
Latency rules:
    transfer       by `sim.memory`: of a fixed bandwidth, busy ceil(bytes / bandwidth), a load's bytes there
                   `latency_cycles` after that; of a device with banks, as its controller serves the address run.
                   The channel takes the next transfer before the last byte is there;
    execute        array_timing; outputs reach the output buffer `edge_latency_cycles` after they leave the array.
Who waits: an execute starts when all its tokens are there, at the earliest when the array takes its next operand;
    the load queue runs ahead by one slot a tensor; a store waits for its last output.
Not modelled: of a fixed bandwidth, rows, banks, refresh and turnaround (of banks, see `sim.dram`); buffer bank
    conflicts; instruction fetch; overlap between operators (each program starts on an idle machine, its memory's rows
    closed, and ends when its last store has left).
Fidelity: with operands and output slots always there, cycles equal our array's RTL exactly
    (tests/cross/test_array_cycles.py and the campaign); waiting for a slot or for DRAM is by definition of the machine
    and becomes checkable with the accelerator in RTL.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy
from bitwright.arch.array_timing import IDLE, Shape, first_stream, run_passes
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.program import INITIAL_TOKENS, Execute, Load, Program, Store, Token
from bitwright.sim.counters import Counters
from bitwright.sim.memory import Banks, Memory
from simpy.events import NORMAL, EventPriority

Process = Generator[simpy.Event, Any, None]


class _Tokens:
    """A counter a token; each token has one taker, which sleeps while the counter is 0."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._count = {token: INITIAL_TOKENS.get(token, 0) for token in Token}
        self._sleeping: dict[Token, simpy.Event] = {}

    def take(self, token: Token) -> Process:
        while self._count[token] == 0:
            self._sleeping[token] = self._env.event()
            yield self._sleeping[token]
        self._count[token] -= 1

    def give(self, token: Token) -> None:
        self._count[token] += 1
        sleeper = self._sleeping.pop(token, None)
        if sleeper is not None:
            sleeper.succeed()


class _EndOfCycle(simpy.Event):
    """Happens after all other events of this cycle: whoever can ask for the channel has asked."""

    def __init__(self, env: simpy.Environment, callback: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        assert self.callbacks is not None, "a fresh event has callbacks"
        self.callbacks.append(callback)
        env.schedule(self, EventPriority(NORMAL + 1))


class _Channel:
    """The DRAM channel: one transfer at a time, granted at the end of a cycle to whoever has waited longest.

    Loads always first would starve stores while loads keep the channel busy, until the array has no output slot left.
    """

    def __init__(self, env: simpy.Environment, memory: DramPort | Banks) -> None:
        self._env, self.memory = env, Memory(memory)
        self._busy = False
        self._waiting: dict[str, tuple[int, simpy.Event]] = {}  # since when

    def transfer(self, queue: str, address: int, size_bytes: int) -> Generator[simpy.Event, Any, int]:
        """Ends when the channel takes the next transfer; how many cycles later this one's last byte is there."""
        granted = self._env.event()
        self._waiting[queue] = int(self._env.now), granted
        self._arbitrate()
        yield granted
        now = int(self._env.now)
        accepts_next, finish = self.memory.transfer(address, size_bytes, queue == "store", now)
        yield self._env.timeout(accepts_next - now)
        self._busy = False
        self._arbitrate()
        return finish - accepts_next

    def _arbitrate(self) -> None:
        _EndOfCycle(self._env, self._grant)

    def _grant(self, _: simpy.Event) -> None:
        if not self._busy and self._waiting:
            self._busy = True
            first = min(self._waiting, key=lambda queue: (self._waiting[queue][0], queue != "load"))
            self._waiting.pop(first)[1].succeed()


class _Machine:
    """One run of one program."""

    def __init__(self, program: Program, shape: Shape, memory: DramPort | Banks, edge_latency_cycles: int) -> None:
        self.env = simpy.Environment()
        self.program, self.shape = program, shape
        self.edge_latency_cycles = edge_latency_cycles
        self.tokens = _Tokens(self.env)
        self.channel = _Channel(self.env, memory)
        self.end = 0
        self.last_output = 0
        self.stream_end = 0
        self.streamed = 0
        self.waited: list[tuple[int, int]] = []
        self.running = [
            self.env.process(self._load()),
            self.env.process(self._execute()),
            self.env.process(self._store()),
        ]

    def _later(self, delay: int, token: Token) -> None:
        def signal(_: simpy.Event) -> None:
            self.tokens.give(token)

        event = self.env.timeout(delay)
        assert event.callbacks is not None, "a fresh timeout has callbacks"
        event.callbacks.append(signal)

    def _load(self) -> Process:
        for load in self.program.loads:
            yield from self._take(load)
            later = yield from self.channel.transfer("load", load.address, load.size_bytes)
            for token in load.signals:
                self._later(later, token)

    def _execute(self) -> Process:
        state = IDLE
        next_start = 0
        for execute in self.program.executes:
            if next_start > self.env.now:
                yield self.env.timeout(next_start - self.env.now)
            yield from self._take(execute)
            ready = int(self.env.now)
            first_k = next(execute.segments())[0][0].k
            at_once = first_stream(self.shape, state, 0, first_k)
            stream = first_stream(self.shape, state, ready, first_k)
            if stream > at_once:
                self.waited.append((at_once, stream))
            weights_done, finish = 0, 0
            for pattern, times in execute.segments():
                timing = run_passes(self.shape, state, ready, pattern, times)
                state, weights_done, finish = timing.state, timing.weights_done, timing.finish
                next_start = timing.next_start
            self.streamed += execute.stream_cycles(self.shape)
            self.stream_end = state.stream_free
            self.last_output = finish + 1 + self.edge_latency_cycles
            moments = {
                Token.WGT_FREE: weights_done,
                Token.ACT_FREE: state.stream_free,
                Token.OUT_READY: self.last_output,
            }
            for token in execute.signals:
                self._later(max(0, moments[token] - ready), token)

    def _store(self) -> Process:
        for store in self.program.stores:
            yield from self._take(store)
            later = yield from self.channel.transfer("store", store.address, store.size_bytes)
            for token in store.signals:
                self._later(later, token)
            self.end = int(self.env.now) + later

    def _take(self, instruction: Load | Execute | Store) -> Process:
        for token in instruction.waits:
            yield from self.tokens.take(token)

    def run(self) -> Counters:
        self.env.run()
        if any(process.is_alive for process in self.running):
            self.program.check()
            raise ConfigError("program ended with a queue still waiting; its tokens do not match its order")
        return Counters.of(
            self.program, self.channel.memory, end=self.end, last_output=self.last_output, stream_end=self.stream_end,
            streamed=self.streamed, waited=self.waited,
        )  # fmt: skip


def run(program: Program, shape: Shape, memory: DramPort | Banks, edge_latency_cycles: int) -> Counters:
    """Run `program` from an idle machine to its last store.

    Raises ConfigError when the program deadlocks (it names what each queue waits for).
    """
    return _Machine(program, shape, memory, edge_latency_cycles).run()
