"""PEs that stand behind one valid/ready stream of steps: the fields of a step, golden sums, and the timing contract."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Dataflow, IntArray, PESpec, Timing

Steps = Mapping[str, IntArray]
State = tuple[npt.NDArray[Any], ...]
FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class Field:
    """One field of a stream's payload: `lanes` codes of `bits` bits; lane 0 and the first field lowest.

    In numpy a field is int64 [n] (lanes = 1) or [n, lanes], in -2**(bits-1) .. 2**(bits-1)-1 if `signed`, else in
    0 .. 2**bits-1; bits <= 63.
    """

    name: str
    bits: int
    lanes: int = 1
    signed: bool = False

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - int(self.signed))) - 1


@dataclass(frozen=True)
class Cut:
    """A wire that a formal proof leaves free within a proven range: `wire` is its name in the Verilog.

    Fields
        low, high : int          The range, two's complement if `signed`; shown by enumeration or by the test named.
        proof : str              How the range is known: "enumeration" of all operands, or a test file.
        weight : int             What the wire counts in the accumulator's step.
    """

    wire: str
    low: int
    high: int
    signed: bool = True
    proof: str = "enumeration"
    weight: int = 1


@dataclass(frozen=True)
class StreamSpec(PESpec):
    """What every streaming PE shares. Steps come in, each taken by valid and ready; sums go out.

    Rules        acc <- (first ? start : acc) + step; a step marked `last` puts the sum so far on offer; both for a sum
                 of one step. A `first` before a `last` drops the unfinished sum: that is the way to clear. A step
                 after a `last` without `first` goes on with the same sum.
    Timing       A step occupies `step_cycles` cycles and is taken in the last of them; until then its payload must
                 hold still, as any stream's. Its sum is on offer `timing.latency_cycles` after the cycle in which the
                 last step was taken. While a sum on offer is not taken, the whole PE stands still. `step.ready`
                 depends on the payload, the phase and on `sum.ready` in the same cycle, never on `step.valid`;
                 `sum.valid` is a register. Without `sum.valid` the sum's payload is any unfinished value.
    Reset        `rst`, synchronous, active high: clears phase and valid bits; steps in flight, one offered in the
                 reset's cycles and a sum on offer are lost. Data registers power up unknown.
    Class data
        multiplied : (act, wgt)  The two fields whose codes are enumerated by exhaustive tests, lane by lane.
        modes : fields that hold one mode for a whole test, enumerated as well.
        cuts : see `Cut`; empty for floating-point accumulators.
        variants : parameter sets that benches, campaigns, proofs and mutants cover; the first is the default.
        accumulator : str        Name of the accumulator's register in the Verilog, for proofs of its range.
    """

    dataflows: ClassVar[tuple[Dataflow, ...]] = ()
    templates: ClassVar[tuple[str, ...]] = ("stream",)
    multiplied: ClassVar[tuple[str, str]] = ("act", "wgt")
    modes: ClassVar[tuple[str, ...]] = ()
    accumulator: ClassVar[str] = "acc"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @property
    @abc.abstractmethod
    def step_fields(self) -> tuple[Field, ...]:
        """The payload of a step without `first` and `last`, which follow in this order, one bit each."""

    @property
    @abc.abstractmethod
    def sum_fields(self) -> tuple[Field, ...]:
        """The payload of a sum."""

    @property
    def timing(self) -> Timing:  # type: ignore[override]
        """One cycle, and one for each of the parameter `pipeline`'s."""
        return Timing(latency_cycles=1 + self.params.get("pipeline", 0))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """What proofs of the accumulator's range leave free."""
        return ()

    @property
    def longest_sum(self) -> int | None:
        """Steps of the longest sum that cannot leave the accumulator's range; None: no bound is promised."""
        return None

    @property
    def macs_per_step(self) -> int:
        """Multiply-accumulates of one step."""
        return next(field.lanes for field in self.step_fields if field.name == self.multiplied[0])

    def macs(self, steps: Steps) -> IntArray:
        """Multiply-accumulates that each step does, int64 [n]: `macs_per_step` unless a mode decides."""
        return np.full(len(steps[FIRST]), self.macs_per_step, dtype=np.int64)

    def step_cycles(self, steps: Steps) -> IntArray:
        """Cycles that each step occupies, int64 [n]: one unless told otherwise."""
        return np.ones(len(steps[FIRST]), dtype=np.int64)

    @property
    def cycles_range(self) -> tuple[int, int]:
        """The fewest and the most cycles that a legal step occupies."""
        return 1, 1

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        """Codes of each field worth trying often: the ends of its range, 0, 1 and -1."""
        found = {}
        for field in self.step_fields:
            codes = {field.low, field.high, 0, min(1, field.high), max(-1, field.low), field.low + 1}
            found[field.name] = tuple(sorted(codes))
        return found

    def tame(self, steps: Steps) -> Steps:
        """Steps of random codes made legal ones; by default every code is legal."""
        return steps

    @abc.abstractmethod
    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Steps of real operands: act, wgt float32 [n, K], one dot product a row pair (more where a PE shares them)."""

    # Golden arithmetic: a state a sum, vectorised over sums.

    @abc.abstractmethod
    def start(self, count: int) -> State:
        """The state of `count` sums before their first step."""

    @abc.abstractmethod
    def step(self, state: State, fields: Steps) -> State:
        """The state after one step of each sum, bit-exact; fields [count, ...]."""

    @abc.abstractmethod
    def result(self, state: State) -> dict[str, IntArray]:
        """The sum's fields, [count, ...]."""

    def accumulate(self, acc: Any, act: Any, wgt: Any, **mode: Any) -> Any:
        """One step of `count` sums from state `acc`; `act` and `wgt` [count, lanes] and other fields by name."""
        first, second = self.multiplied
        return self.step(acc, {first: act, second: wgt, **mode})

    def golden(self, **steps: npt.ArrayLike) -> dict[str, IntArray]:
        """`sums` of steps that are checked first: every step field by name, and `first` and `last`.

        Raises ConfigError for a missing or unknown field, a wrong shape, codes that are no integers or out of range.
        """
        fields = {field.name: field for field in (*self.step_fields, Field(FIRST, 1), Field(LAST, 1))}
        if set(steps) != set(fields):
            raise ConfigError(f"{self.name} steps = {', '.join(sorted(steps))}: must be exactly {', '.join(fields)}")
        found = {name: np.asarray(codes) for name, codes in steps.items()}
        count = len(np.atleast_1d(found[FIRST]))
        for name, codes in found.items():
            field = fields[name]
            shape = (count,) if field.lanes == 1 else (count, field.lanes)
            if codes.shape != shape or not np.issubdtype(codes.dtype, np.integer):
                raise ConfigError(
                    f"{self.name} {name} = {codes.dtype} {codes.shape}: must be integers of shape {shape}"
                )
            if codes.size and not field.low <= int(codes.min()) <= int(codes.max()) <= field.high:
                raise ConfigError(
                    f"{self.name} {name} = {int(codes.min())}..{int(codes.max())}: must be in {field.low}..{field.high}"
                )
        if not count or not found[FIRST][0]:
            raise ConfigError(f"{self.name} first: the first step of all must be marked first")
        return self.sums({name: codes.astype(np.int64) for name, codes in found.items()})

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        """The golden sum at each step marked `last`, in order; steps [n] whose first one is marked `first`.

        Steps are taken as they are, int64 within each field's range (`golden` checks them). Integer PEs may override
        this with something faster that gives the same.
        """
        first, last = np.asarray(steps[FIRST]) != 0, np.asarray(steps[LAST]) != 0
        starts = np.flatnonzero(first)
        assert first[:1].all(), "the first step of all must be marked first"
        lengths = np.diff(np.append(starts, len(first)))
        order = np.argsort(-lengths, kind="stable")  # the longest in front: sums still running are a prefix
        starts, lengths = starts[order], lengths[order]
        state = self.start(len(starts))
        places = np.cumsum(last) - 1
        out: dict[str, IntArray] = {}
        for field in self.sum_fields:
            shape = (int(last.sum()),) if field.lanes == 1 else (int(last.sum()), field.lanes)
            out[field.name] = np.zeros(shape, dtype=np.int64)
        for depth in range(int(lengths[0])):
            running = int(np.searchsorted(-lengths, -depth, side="left"))  # lengths > depth
            at = starts[:running] + depth
            state = tuple(part[:running] for part in state)
            state = self.step(state, {field.name: steps[field.name][at] for field in self.step_fields})
            ends = last[at]
            if ends.any():
                found = self.result(tuple(part[ends] for part in state))
                for name, values in found.items():
                    out[name][places[at[ends]]] = values
        return out


def row_flags(rows: int, length: int) -> dict[str, IntArray]:
    """`first` and `last` of `rows` sums of `length` steps each."""
    first = (np.arange(rows * length) % length == 0).astype(np.int64)
    return {FIRST: first, LAST: np.roll(first, -1)}


def running(totals: IntArray, first: npt.ArrayLike) -> IntArray:
    """What each sum has come to after each step: totals [n] or [n, sums at once], modulo 2**64, `first` [n].

    Totals from the very first step on wrap like all of int64; a sum is the difference of two.
    """
    begins = np.asarray(first) != 0
    assert begins[:1].all(), "the first step of all must be marked first"
    start = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
    so_far = np.cumsum(totals, axis=0)
    return np.asarray(so_far - so_far[start] + totals[start])
