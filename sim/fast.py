"""The fast engine: the machine of `sim.engine` as recurrences over its instructions, without events.

Each instruction's times follow from those of the instructions that it waits for, so one walk gives them all: a queue's
head is computed as soon as all its tokens have a time. Only the DRAM channel needs an order: of the transfers that can
be asked for, the one asked for first is next, a load before a store of the same cycle; a transfer that is not known yet
hangs on one of those and comes later. Blocks of the array that begin in the same state, seen from their first cycle,
are computed once.

State, latency rules, what is not modelled: those of `sim.engine`; every counter is equal to its
(tests/sim/test_fast.py). About a microsecond or two an instruction; tests/bench/bench_engine.py prints the ratio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from bitwright.arch.array_timing import IDLE, ArrayState, Shape, first_stream, run_passes
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.arch.program import INITIAL_TOKENS, Execute, Program, Token
from bitwright.sim.counters import Counters
from bitwright.sim.intervals import Interval
from bitwright.sim.memory import Banks, Memory


class _Tokens:
    """When each credit of a token that is not taken yet is there, in the order in which credits are taken."""

    def __init__(self) -> None:
        self.given = {token: deque([0] * INITIAL_TOKENS.get(token, 0)) for token in Token}

    def known(self, waits: Iterable[Token], earliest: int) -> int | None:
        """The cycle in which all of `waits` are there, `earliest` or later; None while one has no time yet."""
        for token in waits:
            given = self.given[token]
            if not given:
                return None
            if given[0] > earliest:
                earliest = given[0]
        return earliest

    def take(self, waits: Iterable[Token]) -> None:
        for token in waits:
            self.given[token].popleft()


_Walk = tuple[int, int, int, int]  # a pattern and how often, a tail and how often


class _Block(NamedTuple):
    """What an execute does, in times that count from the cycle in which all its tokens are there."""

    state: ArrayState
    weights_done: int
    finish: int
    next_start: int
    stream: int
    streamed: int


@dataclass
class _Array:
    """The array and the queue of executes."""

    program: Program
    shape: Shape
    edge_latency_cycles: int
    tokens: _Tokens
    record: list[Interval] | None = None
    state: ArrayState = IDLE
    next_start: int = 0
    done: int = 0
    last_output: int = 0
    streamed: int = 0

    def __post_init__(self) -> None:
        self.waited: list[tuple[int, int]] = []
        self._blocks: dict[tuple[_Walk, int, int, int], _Block] = {}
        self._streamed: dict[_Walk, int] = {}

    def advance(self) -> None:
        """Every execute whose tokens have a time."""
        executes, tokens = self.program.executes, self.tokens
        while self.done < len(executes):
            execute = executes[self.done]
            ready = tokens.known(execute.waits, self.next_start)
            if ready is None:
                return
            tokens.take(execute.waits)
            self._run(execute, ready)
            self.done += 1

    def _run(self, execute: Execute, ready: int) -> None:
        at_once = first_stream(self.shape, self.state, 0, _first_k(execute))
        block = self._block(execute, ready)
        stream = ready + block.stream
        self.state = block.state.moved(ready)
        self.next_start = ready + block.next_start
        self.last_output = ready + block.finish + 1 + self.edge_latency_cycles
        self.streamed += block.streamed
        if stream > at_once:
            self.waited.append((at_once, stream))
        if self.record is not None:
            place = f"m {execute.m0}+{execute.m} k {execute.k0}+{execute.k} n {execute.n0}+{execute.n}"
            self.record.append(Interval("array", place, stream, self.last_output))
            if stream > at_once:
                self.record.append(Interval("array waits", "operands or room", at_once, stream))
        for token in execute.signals:
            if token is Token.WGT_FREE:
                moment = ready + block.weights_done
            elif token is Token.ACT_FREE:
                moment = self.state.stream_free
            else:
                moment = self.last_output
            self.tokens.given[token].append(moment if moment > ready else ready)

    def _block(self, execute: Execute, ready: int) -> _Block:
        # A clock that has run out holds nothing up, however long ago it did.
        weights_free, stream_free = max(0, self.state.weights_free - ready), max(0, self.state.stream_free - ready)
        drain_free = max(0, self.state.drain_free - ready)
        # The program holds the patterns, so that their places do not change while it runs.
        walk = id(execute.pattern), execute.times, id(execute.tail), execute.tail_times
        key = walk, weights_free, stream_free, drain_free
        block = self._blocks.get(key)
        if block is None:
            if walk not in self._streamed:
                self._streamed[walk] = execute.stream_cycles(self.shape)
            state = ArrayState(weights_free, stream_free, drain_free)
            block = self._blocks[key] = self._counted(execute, state, self._streamed[walk])
        return block

    def _counted(self, execute: Execute, state: ArrayState, streamed: int) -> _Block:
        stream = first_stream(self.shape, state, 0, _first_k(execute))
        weights_done, finish, next_start = 0, 0, 0
        for pattern, times in execute.segments():
            timing = run_passes(self.shape, state, 0, pattern, times)
            state, weights_done, finish = timing.state, timing.weights_done, timing.finish
            next_start = timing.next_start
        return _Block(state, weights_done, finish, next_start, stream, streamed)


def _first_k(execute: Execute) -> int:
    """Steps of its first pass."""
    return (execute.pattern if execute.times else execute.tail)[0].k


def run(
    program: Program, shape: Shape, memory: DramPort | Banks, edge_latency_cycles: int,
    record: list[Interval] | None = None,
) -> Counters:  # fmt: skip
    """As `engine.run`; what each unit did when is appended to `record`."""
    tokens, opened = _Tokens(), Memory(memory)
    array = _Array(program, shape, edge_latency_cycles, tokens, record)
    loads, stores = program.loads, program.stores
    load, store = 0, 0
    load_free, store_free, channel_free, end = 0, 0, 0, 0
    while True:
        array.advance()
        load_at = tokens.known(loads[load].waits, load_free) if load < len(loads) else None
        store_at = tokens.known(stores[store].waits, store_free) if store < len(stores) else None
        if load_at is not None and (store_at is None or load_at <= store_at):
            head = loads[load]
            tokens.take(head.waits)
            begin = max(channel_free, load_at)
            channel_free, finish = opened.transfer(head.address, head.size_bytes, False, begin)
            if record is not None:
                record.append(Interval("dram", f"load {head.tensor}", begin, channel_free, head.size_bytes))
            for token in head.signals:
                tokens.given[token].append(finish)
            load_free = channel_free
            load += 1
        elif store_at is not None:
            item = stores[store]
            tokens.take(item.waits)
            begin = max(channel_free, store_at)
            channel_free, end = opened.transfer(item.address, item.size_bytes, True, begin)
            if record is not None:
                record.append(Interval("dram", "store", begin, channel_free, item.size_bytes))
            for token in item.signals:
                tokens.given[token].append(end)
            store_free = channel_free
            store += 1
        else:
            break
    if (load, array.done, store) != (len(loads), len(program.executes), len(stores)):
        program.check()
        raise ConfigError("program ended with a queue still waiting; its tokens do not match its order")
    return Counters.of(
        program, opened, end=end, last_output=array.last_output, stream_end=array.state.stream_free,
        streamed=array.streamed, waited=array.waited,
    )  # fmt: skip
