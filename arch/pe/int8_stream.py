"""int8-mac behind a stream: several products of signed 8-bit operands a cycle into one integer sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, Timing, wrap
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.stream import FIRST, Cut, Field, State, Steps, StreamSpec

_PRODUCT = 1 << 14  # the largest: -128 * -128; the least is -(2**14 - 2**7)


@dataclass(frozen=True)
class Int8Stream(StreamSpec):
    """sum <- sum + (total over the lanes of act * wgt), exact, modulo 2**psum_bits.

    Parameters
        lanes : 1..64            Products a cycle.
        psum_bits : 16..32       Width of the sum.
        pipeline : 0..1          1: a register between the products and the sum.
    Timing       latency 1 + pipeline cycles, one step a cycle.
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
    evidence: ClassVar[tuple[Evidence, ...]] = ()

    def __post_init__(self) -> None:
        for name, low, high in (("lanes", 1, 64), ("psum_bits", 16, 32), ("pipeline", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{self.name} {name} = {getattr(self, name)}: must be in {low}..{high}")

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
        return tuple(Cut(f"product_{lane}", 128 - _PRODUCT, _PRODUCT) for lane in range(self.lanes))

    @property
    def longest_sum(self) -> int:
        return ((1 << (self.psum_bits - 1)) - 1) // (_PRODUCT * self.lanes)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        return Int8Mac().accepts(format_name, group)

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows scaled to int8 by their largest magnitude."""
        codes = {name: _int8(values).reshape(-1, self.lanes) for name, values in (("act", act), ("wgt", wgt))}
        count = act.shape[1] // self.lanes
        first = (np.arange(len(codes["act"])) % count == 0).astype(np.int64)
        shaped = {name: part[:, 0] if self.lanes == 1 else part for name, part in codes.items()}
        return {**shaped, FIRST: first, "last": np.roll(first, -1)}

    def start(self, count: int) -> State:
        return (np.zeros(count, dtype=np.int64),)

    def step(self, state: State, fields: Steps) -> State:
        products = np.asarray(fields["act"]) * np.asarray(fields["wgt"])
        return (wrap(state[0] + products.reshape(len(products), -1).sum(axis=1), self.psum_bits),)

    def result(self, state: State) -> dict[str, IntArray]:
        return {"psum": state[0]}


def _int8(values: npt.NDArray[np.float32]) -> IntArray:
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    return np.asarray(np.rint(values / np.where(scale == 0, 1, scale)), dtype=np.int64)
