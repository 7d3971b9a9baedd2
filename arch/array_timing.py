"""When an array accepts and delivers: the timing contract that RTL and simulator share.

A *pass* is one tile command of the array: `m` activation rows by `k` reduction steps. Times are integers, the
cycle in which an input is present at the array's edge or an output is valid. With R rows and P physical columns
(the constant-one column of zero-point PEs included):

weight-stationary (k <= R; w weight rows a beat, b = ceil(k / w) beats): beat i of pass t is accepted in cycle L(t)+i,
    activation row j in T(t)+j,
    L(t) = max(ready, F(t-1), L(t-1) + b(t-1)),  T(t) = max(L(t) + 1, T(t-1) + m(t-1)),
    with double-buffered weights F(t) = T(t), with single ones F(t) = T(t) + m(t) - 1,
    output row j valid in T(t) + j + R + P - 1.
output-stationary (m <= R): element j is accepted in S(t)+j, with E(t) = S(t) + k(t) - 1,
    S(t) = max(ready, E(t-1) + 1, E(t-1) + 2 m(t-1) - k(t)),
    output row i valid in E(t) + m(t) + P - 1 + i.
broadcast tile (m <= R; n = ceil(k / lanes) steps of c cycles): step j is offered in S(t) + j c and accepted c - 1
    cycles later, but the last one, accepted in E(t), is offered no earlier than E(t) - c + 1,
    S(t) = max(ready, E(t-1) + 1),  E(t) = max(S(t) + n c - 1, E(t-1) + max(m(t-1), b)),
    output row i valid in E(t) + latency + 1 + i; b: least cycles between two sums, 1 but of PEs that scale them.
asynchronous columns: as a broadcast tile of steps of c(j) cycles, which depend on the weights: with the cycles of a
    weight max(1, its nonzero digits), c(j) = max over columns of the total over the step's elements
    (`arch.pe.asynchronous`); n c stands for the total of c(j), and only the acceptance of the last step waits.

Exact against the RTL of `rtl/array` (tests/cross/test_array_cycles.py, tests/rtl/array/test_broadcast.py; asynchronous
columns: tests/rtl/array/test_asynchronous.py): difference 0 cycles. Not modelled: operand streams that stall in
mid-pass; a pass starts when all its operands are in the buffers and its outputs have a place.
Source: our own design; the published closed form it is compared with is SCALE-Sim's (no overlap between folds).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One tile command: `m` activation rows (tokens) by `k` reduction steps, elements of a broadcast tile."""

    m: int
    k: int


@dataclass(frozen=True)
class PassRun:
    """`count` equal passes in a row."""

    m: int
    k: int
    count: int


@dataclass(frozen=True)
class WeightLoad:
    """How weights enter a weight-stationary array.

    Members
        rows : weight rows a cycle
        double_buffered : a cell has a second weight, which loads while the first one multiplies
    """

    rows: int = 1
    double_buffered: bool = True

    def beats(self, k: int) -> int:
        """Cycles in which k rows enter."""
        return -(-k // self.rows)


ONE_ROW = WeightLoad()
"""A row a cycle, double-buffered."""


@dataclass(frozen=True)
class ArrayShape:
    """What the timing depends on; `load` of a weight-stationary array."""

    rows: int
    physical_cols: int
    weight_stationary: bool
    load: WeightLoad = ONE_ROW

    @property
    def drain_cycles(self) -> int:
        """About how long results are on their way out."""
        return self.rows + self.physical_cols

    def stream_cycles(self, m: int, k: int) -> int:
        """Cycles in which a pass of m tokens by k steps takes operands."""
        return m if self.weight_stationary else k


@dataclass(frozen=True)
class BroadcastShape:
    """What the timing of a broadcast tile depends on (`arch.pe.broadcast`).

    Members
        rows : of the tile
        lanes : elements of the reduction a step
        step_cycles : of a step, which the weights' format decides
        latency : of its PE, from a sum's last step accepted to the sum on offer
        sum_cycles : least cycles from a sum's last step to the next one's
    """

    rows: int
    lanes: int
    step_cycles: int
    latency: int
    sum_cycles: int = 1

    @property
    def weight_stationary(self) -> bool:
        """No."""
        return False

    @property
    def drain_cycles(self) -> int:
        """About how long results are on their way out."""
        return self.rows + self.latency

    def cycles(self, k: int) -> int:
        """Cycles of the steps of k elements."""
        return -(-k // self.lanes) * self.step_cycles

    def stream_cycles(self, m: int, k: int) -> int:
        """Cycles in which a pass of k elements takes operands, however many tokens there are."""
        return self.cycles(k)


Shape = ArrayShape | BroadcastShape


@dataclass(frozen=True, slots=True)
class ArrayState:
    """The array between two passes; all members are cycles.

    Weight-stationary: `weights_free` is the earliest next L, `stream_free` the earliest next T.
    Output-stationary, broadcast: `stream_free` is E+1, `drain_free` the earliest next E (drain registers free again).
    """

    weights_free: int = 0
    stream_free: int = 0
    drain_free: int = 0

    def moved(self, cycles: int) -> ArrayState:
        """The same state, `cycles` later."""
        return ArrayState(self.weights_free + cycles, self.stream_free + cycles, self.drain_free + cycles)


IDLE = ArrayState(0, 0, 0)


@dataclass(frozen=True)
class PassesTiming:
    """When a sequence of passes happened.

    `first` the first operand accepted (broadcast: on offer); `weights_done` and `stream_done` one past the last beat
    of weights and the last activation accepted; `finish` the cycle in which the last output row is valid; `next_start`
    the earliest cycle in which the following pass can take its first operand.
    """

    state: ArrayState
    first: int
    weights_done: int
    stream_done: int
    finish: int
    next_start: int


def step(shape: Shape, state: ArrayState, ready: int, m: int, k: int) -> tuple[ArrayState, int, int]:
    """One pass whose operands are there from cycle `ready`; gives the state after it, its start and its finish."""
    if isinstance(shape, BroadcastShape):
        return broadcast_step(shape, state, ready, m, shape.cycles(k))
    if shape.weight_stationary:
        load = max(ready, state.weights_free)
        stream = max(load + 1, state.stream_free)
        end = stream + m
        free = stream if shape.load.double_buffered else end - 1
        after = ArrayState(max(free, load + shape.load.beats(k)), end, end)
        return after, load, stream + m - 1 + shape.rows + shape.physical_cols - 1
    start = max(ready, state.stream_free, state.drain_free - k + 1)
    end = start + k - 1
    return ArrayState(end + 1, end + 1, end + 2 * m - 1), start, end + 2 * m - 1 + shape.physical_cols - 1


def broadcast_step(
    shape: BroadcastShape, state: ArrayState, ready: int, m: int, cycles: int
) -> tuple[ArrayState, int, int]:
    """As `step`, of a broadcast tile and steps of so many cycles in all."""
    start = max(ready, state.stream_free)
    end = max(start + cycles - 1, state.drain_free)
    return ArrayState(end + 1, end + 1, end + max(m, shape.sum_cycles)), start, end + shape.latency + m


def run_counted(
    shape: BroadcastShape, state: ArrayState, ready: int, m: int, cycles: Sequence[int]
) -> tuple[ArrayState, int]:
    """Passes of m tokens whose steps take `cycles` each, one number a pass; gives the state after them and the cycle in
    which the last output row is valid. `cycles` must not be empty."""
    finish = 0
    for each in cycles:
        state, _, finish = broadcast_step(shape, state, ready, m, each)
    return state, finish


def first_stream(shape: Shape, state: ArrayState, ready: int, k: int) -> int:
    """When the array would take the first activation of a pass of k steps, operands there from cycle `ready`."""
    if isinstance(shape, BroadcastShape):
        return max(ready, state.stream_free)
    if shape.weight_stationary:
        return max(max(ready, state.weights_free) + 1, state.stream_free)
    return max(ready, state.stream_free, state.drain_free - k + 1)


def _relative(shape: Shape, state: ArrayState) -> int:
    """What must repeat for the sequence to be periodic: the distance between the two clocks of the state."""
    if shape.weight_stationary:
        return state.stream_free - state.weights_free
    return state.drain_free - state.stream_free


def run_passes(shape: Shape, state: ArrayState, ready: int, pattern: Sequence[PassRun], times: int = 1) -> PassesTiming:
    """`pattern`, `times` over, all operands there from cycle `ready`.

    Cost grows with the length of the transient, not with the number of passes: once the state repeats relative to
    itself the rest is one multiplication. `pattern` must not be empty, `times` >= 1.
    """
    first: int | None = None
    finish = 0
    done = 0
    load_end = 0
    while done < times:
        before = state
        for item in pattern:
            state, start, finish, load_end = _run_equal(shape, state, ready, item)
            first = start if first is None else first
        done += 1
        delta = state.stream_free - before.stream_free
        settled = done > 1 and _relative(shape, state) == _relative(shape, before)
        if settled and done < times:
            shift = (times - done) * delta
            state, finish, load_end, done = state.moved(shift), finish + shift, load_end + shift, times
    assert first is not None, "a pattern of passes is never empty"
    stream_done = state.stream_free
    weights_done = load_end if shape.weight_stationary else stream_done
    next_start = state.weights_free if shape.weight_stationary else state.stream_free
    return PassesTiming(state, first, weights_done, stream_done, finish, next_start)


def _run_equal(shape: Shape, state: ArrayState, ready: int, item: PassRun) -> tuple[ArrayState, int, int, int]:
    """`count` equal passes; gives the state, the first start, the last finish and the end of the last weight load."""
    first: int | None = None
    finish = 0
    start = 0
    done = 0
    while done < item.count:
        before = state
        state, start, finish = step(shape, state, ready, item.m, item.k)
        first = start if first is None else first
        done += 1
        settled = done > 1 and _relative(shape, state) == _relative(shape, before)
        if settled and done < item.count:
            shift = (item.count - done) * (state.stream_free - before.stream_free)
            state, finish, start, done = state.moved(shift), finish + shift, start + shift, item.count
    assert first is not None, "a run of passes is never empty"
    loads = shape.load.beats(item.k) if isinstance(shape, ArrayShape) else 0
    return state, first, finish, start + loads


def cycles(shape: Shape, passes: Iterable[Pass]) -> int:
    """Cycles from the first accepted operand to the last valid output, operands always there; one pass at a time.

    Of a broadcast tile from the first operand on offer.
    """
    state, first, finish = IDLE, None, 0
    for item in passes:
        state, start, finish = step(shape, state, 0, item.m, item.k)
        first = start if first is None else first
    if first is None:
        return 0
    return finish - first + 1
