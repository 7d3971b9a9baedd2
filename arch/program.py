"""The program of one operator: three in-order queues that meet through tokens.

Decoupled access-execute. A queue runs its instructions in order; an instruction starts when every token it waits for
is there (it takes one of each) and signals tokens at stated moments:

    Load      signals when its bytes have arrived in the buffer
    Execute   signals `wgt_free` after its last weight was taken, `act_free` after its last activation was taken,
              `out_ready` when its last dequantised output is in the output buffer
    Store     signals when its bytes have left for DRAM

Double buffering is the initial credit of two tokens on each `*_free`. The mapper emits programs; both the simulator
and the RTL runner execute the same object. Plain data: `str(program)` prints it line by line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from bitwright.arch.array_timing import Pass, PassRun, Shape
from bitwright.arch.errors import ConfigError


class Token(StrEnum):
    """What one unit tells another."""

    ACT_FREE = "act_free"
    ACT_READY = "act_ready"
    WGT_FREE = "wgt_free"
    WGT_READY = "wgt_ready"
    OUT_FREE = "out_free"
    OUT_READY = "out_ready"


INITIAL_TOKENS: dict[Token, int] = {Token.ACT_FREE: 2, Token.WGT_FREE: 2, Token.OUT_FREE: 2}

# Which queue gives a token and which takes it.
ENDS: dict[Token, tuple[str, str]] = {
    Token.ACT_FREE: ("execute", "load"),
    Token.ACT_READY: ("load", "execute"),
    Token.WGT_FREE: ("execute", "load"),
    Token.WGT_READY: ("load", "execute"),
    Token.OUT_FREE: ("store", "execute"),
    Token.OUT_READY: ("execute", "store"),
}


@dataclass(frozen=True, slots=True)
class Load:
    """DRAM, from byte `address` on, to one slot of the activation or weight buffer."""

    tensor: str  # "act" or "wgt"
    size_bytes: int
    waits: tuple[Token, ...]
    signals: tuple[Token, ...]
    address: int = 0


@dataclass(frozen=True)
class Tile:
    """One pass: activations [m0:m0+m, k0:k0+k] by weights [n0:n0+n, k0:k0+k]."""

    m0: int
    k0: int
    n0: int
    m: int
    k: int
    n: int


@dataclass(frozen=True, slots=True)
class Execute:
    """One block on the array: out[m, n] (+)= act[m, k] . wgt[n, k], as `pattern` repeated `times`.

    Weight-stationary: `times` column tiles, the pattern walks the reduction; output-stationary: the pattern walks the
    groups of the reduction and is repeated for every (row tile, column tile). The pattern of a ragged row tile stands
    in `tail` with `tail_times`. `m0, k0, n0` is where the block lies in the operator.
    """

    m0: int
    k0: int
    n0: int
    m: int
    k: int
    n: int
    pattern: tuple[PassRun, ...]
    times: int
    tail: tuple[PassRun, ...]
    tail_times: int
    waits: tuple[Token, ...]
    signals: tuple[Token, ...]

    def stream_cycles(self, shape: Shape) -> int:
        """Cycles in which the array takes activations."""
        return sum(
            times * sum(shape.stream_cycles(run.m, run.k) * run.count for run in pattern)
            for pattern, times in self.segments()
        )

    def segments(self) -> Iterator[tuple[tuple[PassRun, ...], int]]:
        """(pattern, times) in execution order."""
        if self.times:
            yield self.pattern, self.times
        if self.tail_times:
            yield self.tail, self.tail_times

    def tiles(self, cols: int) -> Iterator[Tile]:
        """Every pass on an array of `cols` columns with the piece of the operator that it multiplies, in order."""
        column_tiles = -(-self.n // cols)
        m_at = self.m0
        for pattern, times in self.segments():
            for index in range(times):
                n_at = index % column_tiles * cols
                k_at = self.k0
                for run in pattern:
                    for _ in range(run.count):
                        yield Tile(m_at, k_at, self.n0 + n_at, run.m, run.k, min(cols, self.n - n_at))
                        k_at += run.k
                if n_at + cols >= self.n:
                    m_at += pattern[0].m

    def passes(self) -> Iterator[Pass]:
        """Every tile command of the array, one by one."""
        for pattern, times in self.segments():
            for _ in range(times):
                for run in pattern:
                    for _ in range(run.count):
                        yield Pass(run.m, run.k)


@dataclass(frozen=True, slots=True)
class Store:
    """One slot of the output buffer to DRAM, from byte `address` on."""

    size_bytes: int
    waits: tuple[Token, ...]
    signals: tuple[Token, ...]
    address: int = 0


@dataclass(frozen=True)
class Program:
    """The three queues of one operator M, K, N.

    Raises ConfigError for an instruction that waits for or signals a token of another queue (`ENDS`), or waits for one
    twice.
    """

    m: int
    k: int
    n: int
    loads: tuple[Load, ...]
    executes: tuple[Execute, ...]
    stores: tuple[Store, ...]

    def __post_init__(self) -> None:
        for queue, instructions in self._queues().items():
            given, taken = ({token for token, ends in ENDS.items() if ends[side] == queue} for side in (0, 1))
            checked: set[tuple[tuple[Token, ...], tuple[Token, ...]]] = set()
            for index, instruction in enumerate(instructions):
                tokens = instruction.waits, instruction.signals
                if tokens in checked:
                    continue
                checked.add(tokens)
                waits, signals = tokens
                if len(set(waits)) < len(waits):
                    raise ConfigError(
                        f"{queue} {index}{_tokens(waits, ())}: an instruction takes one of each token; the program"
                    )
                if not (taken.issuperset(waits) and given.issuperset(signals)):
                    raise ConfigError(
                        f"{queue} {index}{_tokens(waits, signals)}: a {queue} waits only for {_names(taken)} and "
                        f"signals only {_names(given)}; the program"
                    )

    def _queues(self) -> dict[str, tuple[Load | Execute | Store, ...]]:
        return {"load": self.loads, "execute": self.executes, "store": self.stores}

    @property
    def dram_bytes(self) -> int:
        """All bytes that cross the DRAM port."""
        return sum(load.size_bytes for load in self.loads) + sum(store.size_bytes for store in self.stores)

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return self.m * self.k * self.n

    def __str__(self) -> str:
        lines = [f"program {self.m} x {self.k} x {self.n} (M x K x N)"]
        for load in self.loads:
            moved = f"{load.tensor} {load.size_bytes} B at {load.address}"
            lines.append(f"  load    {moved}{_tokens(load.waits, load.signals)}")
        for execute in self.executes:
            shape = " + ".join(
                f"{times} x [" + ", ".join(f"{run.count} of (m {run.m}, k {run.k})" for run in pattern) + "]"
                for pattern, times in execute.segments()
            )
            where = f"m {execute.m0}+{execute.m} k {execute.k0}+{execute.k} n {execute.n0}+{execute.n}"
            lines.append(f"  execute {where}: {shape}{_tokens(execute.waits, execute.signals)}")
        for store in self.stores:
            lines.append(f"  store   out {store.size_bytes} B at {store.address}{_tokens(store.waits, store.signals)}")
        return "\n".join(lines)

    def check(self) -> None:
        """Run the tokens alone, without time.

        Raises ConfigError naming what each stuck queue waits for when the program cannot end, and the cycle of tokens
        if there is one (without one, a token's giver has come to its end).
        """
        tokens: Counter[Token] = Counter(INITIAL_TOKENS)
        queues = self._queues()
        heads = dict.fromkeys(queues, 0)
        moved = True
        while moved:
            moved = False
            for name, queue in queues.items():
                while heads[name] < len(queue):
                    instruction = queue[heads[name]]
                    needed = Counter(instruction.waits)
                    if any(tokens[token] < count for token, count in needed.items()):
                        break
                    tokens.subtract(needed)
                    tokens.update(instruction.signals)
                    heads[name] += 1
                    moved = True
        stuck = [
            f"{name} {heads[name]} waits for {', '.join(token.value for token in queue[heads[name]].waits)}"
            for name, queue in queues.items()
            if heads[name] < len(queue)
        ]
        if stuck:
            missing = {
                name: [token for token, count in Counter(queue[heads[name]].waits).items() if tokens[token] < count]
                for name, queue in queues.items()
                if heads[name] < len(queue)
            }
            cycle = _cycle(missing)
            told = f"; cycle: {cycle}" if cycle else ""
            raise ConfigError(f"program deadlocks: {'; '.join(stuck)}{told}; every wait needs an earlier signal")


def _cycle(missing: dict[str, list[Token]]) -> str:
    """A cycle among stuck queues as "load needs act_free of execute, execute needs act_ready of load"; or nothing."""

    def follow(path: list[tuple[str, Token]], queue: str) -> list[tuple[str, Token]]:
        seen = [name for name, _ in path]
        if queue in seen:
            return path[seen.index(queue) :]
        for token in missing.get(queue, []):
            found = follow([*path, (queue, token)], ENDS[token][0])
            if found:
                return found
        return []

    for queue in missing:
        found = follow([], queue)
        if found:
            return ", ".join(f"{name} needs {token} of {ENDS[token][0]}" for name, token in found)
    return ""


def _names(tokens: Iterable[Token]) -> str:
    return ", ".join(sorted(token.value for token in tokens))


def _tokens(waits: tuple[Token, ...], signals: tuple[Token, ...]) -> str:
    text = ""
    if waits:
        text += "  waits " + ", ".join(token.value for token in waits)
    if signals:
        text += "  signals " + ", ".join(token.value for token in signals)
    return text
