"""int8-mac behind a stream: several products of signed 8-bit operands a cycle into one integer sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, Timing, wrap
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.stream import FIRST, LAST, Cut, Field, State, Steps, StreamSpec

LARGEST_PRODUCT = 1 << 14  # -128 * -128
LEAST_PRODUCT = -128 * 127


@dataclass(frozen=True)
class Int8Stream(StreamSpec):
    """sum <- sum + (total over the lanes of act * wgt), exact, modulo 2**psum_bits.

    Parameters
        lanes : 1..64            Products a cycle.
        psum_bits : 16..32       Width of the sum.
        pipeline : 0..2          Registers: 1 between the lanes' total and the sum; 2 between the products and their
            total too (lanes 2 and more).
    Timing       latency 1 + pipeline cycles, one step a cycle. The loop adds as many bits as the lanes' total has;
                 those above are chosen among themselves, 1 more and 1 less.
    Arithmetic   exact; wraps modulo 2**psum_bits; no wrap for `longest_sum` steps of any operands.
    Source       the usual dot-product unit; the baseline of every integer comparison.
    """

    lanes: int = 1
    psum_bits: int = 32
    pipeline: int = 0

    name: ClassVar[str] = "int8-mac"
    act: ClassVar[OperandType] = OperandType("int8", 8, "int")
    wgt: ClassVar[OperandType] = OperandType("int8", 8, "int")
    edge_unit: ClassVar[str] = "group-dequantiser"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"pipeline": 1, "psum_bits": 24},
        {"lanes": 4, "pipeline": 1},
        {"lanes": 4, "pipeline": 2, "psum_bits": 20},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "hardware equals golden, every pair of operands in every lane, six sets of parameters",
            6 << 16,
            "tests/rtl/pe/test_int8_stream.py",
        ),
        Evidence(
            "hardware equals golden, values and cycles: random, corner, extreme, real sums, first and last anywhere; "
            "six sets of parameters, steps of random sums alone",
            6 * 146_210,
            "tests/rtl/pe/test_int8_stream.py",
        ),
        Evidence("golden equals Python integers, steps", 5 * 2 * 420 + 500, "tests/arch/pe/test_int8_stream.py"),
    )

    def __post_init__(self) -> None:
        for name, low, high in (("lanes", 1, 64), ("psum_bits", 16, 32), ("pipeline", 0, 2)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{self.name} {name} = {getattr(self, name)}: must be in {low}..{high}")
        if self.pipeline == 2 and self.lanes == 1:
            raise ConfigError(
                f"{self.name} pipeline = 2: must be in 0..1 with lanes = 1 (one product needs no adder tree to cut)"
            )

    @property
    def psum(self) -> OperandType:
        return OperandType(f"int{self.psum_bits}", self.psum_bits, "int")

    @property
    def timing(self) -> Timing:  # type: ignore[override]
        return Timing(latency_cycles=1 + self.pipeline)

    @property
    def module_stem(self) -> str:
        return f"int8_mac_l{self.lanes}_p{self.psum_bits}_s{self.pipeline}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        return (Field("act", 8, self.lanes, signed=True), Field("wgt", 8, self.lanes, signed=True))

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        return (Field("psum", self.psum_bits, signed=True),)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return tuple(Cut(f"product_{lane}", LEAST_PRODUCT, LARGEST_PRODUCT) for lane in range(self.lanes))

    @property
    def longest_sum(self) -> int:
        return ((1 << (self.psum_bits - 1)) - 1) // (LARGEST_PRODUCT * self.lanes)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        return Int8Mac().accepts(format_name, group)

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows scaled to int8 by their largest magnitude, padded with zeros to whole steps."""
        count = -(-act.shape[1] // self.lanes)
        padding = ((0, 0), (0, count * self.lanes - act.shape[1]))
        found = {}
        for name, values in (("act", act), ("wgt", wgt)):
            codes = np.pad(int8_codes(values), padding).reshape(-1, self.lanes)
            found[name] = codes[:, 0] if self.lanes == 1 else codes
        return {**found, **row_flags(len(act), count)}

    def dots(self, fields: Steps) -> IntArray:
        """The lanes' total of each step."""
        act, wgt = (np.asarray(fields[name], dtype=np.int64).reshape(-1, self.lanes) for name in ("act", "wgt"))
        return np.asarray(np.einsum("nl,nl->n", act, wgt))

    def start(self, count: int) -> State:
        return (np.zeros(count, dtype=np.int64),)

    def step(self, state: State, fields: Steps) -> State:
        return (wrap(state[0] + self.dots(fields), self.psum_bits),)

    def result(self, state: State) -> dict[str, IntArray]:
        return {"psum": state[0]}

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        return {"psum": sums_of_dots(self.dots(steps), steps, self.psum_bits)}


def sums_of_dots(dots: IntArray, steps: Steps, psum_bits: int) -> IntArray:
    """The sum at each step marked `last`: what all steps since the latest `first` add up to, modulo 2**psum_bits.

    Totals from the very first step on stay exact in int64; a sum is the difference of two.
    """
    first, last = np.asarray(steps[FIRST]) != 0, np.asarray(steps[LAST]) != 0
    assert first[0], "the first step of all must be marked first"
    totals = np.cumsum(dots)
    begins = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))[last]
    return wrap(totals[last] - totals[begins] + dots[begins], psum_bits)


def int8_codes(values: npt.NDArray[np.float32], largest: int = 127) -> IntArray:
    """Rows scaled so that their largest magnitude is `largest`, and rounded."""
    scale = np.abs(values).max(axis=1, keepdims=True) / largest
    return np.asarray(np.rint(values / np.where(scale == 0, 1, scale)), dtype=np.int64)


def row_flags(rows: int, length: int) -> dict[str, IntArray]:
    """`first` and `last` of `rows` sums of `length` steps."""
    first = (np.arange(rows * length) % length == 0).astype(np.int64)
    return {FIRST: first, LAST: np.roll(first, -1)}
