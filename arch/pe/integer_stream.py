"""What streaming PEs with one wrapping integer sum share: everything but what a step adds to it."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import IntArray, OperandType, wrap
from bitwright.arch.pe.stream import FIRST, LAST, Field, State, Steps, StreamSpec, running


@dataclass(frozen=True)
class IntegerStream(StreamSpec):
    """sum <- sum + total of a step, modulo 2**psum_bits; wrapping once is wrapping at every step."""

    @property
    @abc.abstractmethod
    def psum_bits(self) -> int:
        """Width of the sum; a parameter or derived from others."""

    @abc.abstractmethod
    def dots(self, fields: Steps) -> IntArray:
        """What each step adds, int64 [n]."""

    @property
    def psum(self) -> OperandType:
        return OperandType(f"int{self.psum_bits}", self.psum_bits, "int")

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        return (Field("psum", self.psum_bits, signed=True),)

    def start(self, count: int) -> State:
        return (np.zeros(count, dtype=np.int64),)

    def step(self, state: State, fields: Steps) -> State:
        return (wrap(state[0] + self.dots(fields), self.psum_bits),)

    def result(self, state: State) -> dict[str, IntArray]:
        return {"psum": state[0]}

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        reached = running(self.dots(steps), steps[FIRST])[np.asarray(steps[LAST]) != 0]
        return {"psum": wrap(reached, self.psum_bits)}


def row_codes(values: npt.NDArray[np.float32], largest: int = 127) -> IntArray:
    """Rows scaled so that their largest magnitude is `largest`, and rounded."""
    scale = np.abs(values).max(axis=1, keepdims=True) / largest
    return np.asarray(np.rint(values / np.where(scale == 0, 1, scale)), dtype=np.int64)
