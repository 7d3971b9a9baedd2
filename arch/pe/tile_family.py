"""What a broadcast tile's instructions, its timing and its hardware need to know of its PE: `arch.pe.broadcast`."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from bitwright.arch.array_timing import BroadcastShape
from bitwright.arch.pe.base import IntArray, PESpec
from bitwright.arch.pe.fp16_mac import FloatArray
from bitwright.arch.pe.stream import Field, StreamSpec


class Operands(Protocol):
    """`isa.arithmetic.Tile`, whose docstring says what its members are."""

    @property
    def acts(self) -> npt.NDArray[Any]: ...
    @property
    def codes(self) -> npt.NDArray[np.uint16]: ...
    @property
    def scales(self) -> npt.NDArray[Any] | None: ...
    @property
    def zeros(self) -> npt.NDArray[np.uint16] | None: ...


class SliceOrder(Protocol):
    """`isa.arithmetic.Cut`."""

    @property
    def of(self) -> IntArray: ...
    @property
    def lane(self) -> IntArray: ...
    @property
    def slice_group(self) -> IntArray: ...


@dataclass(frozen=True)
class Sums:
    """The sums of a slice of a tile: `psum` [m, n], and `act_sum` [m] for zero points where the family has them."""

    psum: IntArray
    act_sum: IntArray | None = None


@dataclass(frozen=True)
class Family(abc.ABC):
    """A tile's PE, whatever its family.

    Fields
        spec : PESpec            One PE of the tile.
    Class data
        whole : bool             The spec is the whole tile, of m x n places; else it is one place.
        fixed : parameters of the spec that follow from the tile: for people, what each follows from.
        usual : formats that a machine has unless told; None: those of `limits.USUAL_FORMATS` that the PE takes.
        scales_inside : bool     The PE takes its group's 8-bit scale and selector with the weights and gives fp32 sums;
            a column's fp16 scale is the vector unit's. Else the result unit below a column scales.
        skips : bool             The cycles of a step follow from its codes: `code_cycles`.
        sum_parameter : the spec's parameter that decides `longest_elements`.
    A format is always the weights'; `mode` is a step's mode for it.
    """

    spec: PESpec

    whole: ClassVar[bool] = False
    fixed: ClassVar[Mapping[str, str]] = {}
    usual: ClassVar[tuple[str, ...] | None] = None
    scales_inside: ClassVar[bool] = False
    skips: ClassVar[bool] = False
    sum_parameter: ClassVar[str] = "depth"

    @classmethod
    @abc.abstractmethod
    def made(cls, rows: int, cols: int, params: Mapping[str, Any]) -> PESpec:
        """The spec for a tile of rows x cols; ConfigError for parameters that no tile has."""

    @property
    @abc.abstractmethod
    def lanes(self) -> int:
        """Elements of the reduction a step."""

    @property
    def code_bits(self) -> int:
        """Width of an element of weights where the tile takes it; one of a format may be shorter, zeros above."""
        return self.spec.wgt.bits

    @property
    @abc.abstractmethod
    def mode_field(self) -> Field | None:
        """The field of a step that tells the mode; None where there is one mode only."""

    @property
    def psum_bits(self) -> int:
        """Width of a sum at the tile's edge."""
        return self.spec.psum.bits

    @property
    def latency_cycles(self) -> int:
        """From a sum's last step accepted to the sum on offer."""
        return self.spec.timing.latency_cycles

    @property
    def sum_cycles(self) -> int:
        """Least cycles from a sum's last step to the next one's."""
        return 1

    @property
    def longest_elements(self) -> int | None:
        """Elements of the longest sum that surely does not wrap; None where none wraps."""
        return None

    @property
    def has_act_sum(self) -> bool:
        """Whether the sum of a row's activations comes with its sums."""
        return False

    def sign_extended(self, format_name: str) -> bool:
        """Whether the PE reads more bits than an element of this format has: copies of its top bit."""
        return False

    @abc.abstractmethod
    def refusal(self, format_name: str) -> str:
        """What keeps a format that the PE accepts out of the tile's programs; empty when nothing does."""

    @abc.abstractmethod
    def element_bits(self, format_name: str) -> int:
        """Bits of an element of weights in memory."""

    @abc.abstractmethod
    def mode(self, format_name: str) -> int:
        """The mode of each step."""

    def values(self, format_name: str) -> int:
        """Values that an element stands for."""
        return 1

    @abc.abstractmethod
    def parts(self, operands: Operands, slices: SliceOrder, format_name: str) -> Iterator[FloatArray]:
        """What slice after slice adds to the accumulators, bit-exact: fp32 [some slices, m, cols]."""

    @abc.abstractmethod
    def step_cycles(self, format_name: str) -> int:
        """Cycles of a step; the least of a whole one where it `skips`."""

    def shape(self, rows: int, format_name: str) -> BroadcastShape:
        """The timing of a tile of so many rows while its weights are of this format; k counts elements."""
        cycles = self.step_cycles(format_name)
        return BroadcastShape(rows, self.lanes, cycles, self.latency_cycles, self.sum_cycles)

    def code_cycles(self, codes: npt.ArrayLike, format_name: str) -> IntArray:
        """Cycles of each step of a slice whose weights are codes [k, cols], as in memory; of families that skip."""
        raise AssertionError(f"{self.spec.name}: every step takes step_cycles")

    def whole_steps(self, elements: IntArray) -> IntArray:
        """Elements [n, ...] with code 0 up to whole steps."""
        return np.pad(elements, [(0, -len(elements) % self.lanes), *[(0, 0)] * (elements.ndim - 1)])


@dataclass(frozen=True)
class StreamFamily(Family):
    """A tile whose PE stands behind a stream of steps, of mode + 1 cycles each."""

    spec: StreamSpec

    @property
    def mode_field(self) -> Field | None:
        fields = {item.name: item for item in self.spec.step_fields}
        return fields[self.spec.modes[0]] if self.spec.modes else None

    @property
    def has_act_sum(self) -> bool:
        return any(item.name == "act_sum" for item in self.spec.sum_fields)

    @property
    def zero_shift(self) -> int:
        """By how many places `zero_points` shifts a zero point code, before it adds what the format decides."""
        return 0

    def zero_points(self, zeros: IntArray | None, format_name: str) -> IntArray:
        """What the result unit takes as `zero`, of zero point codes; one number where the format has none."""
        return np.zeros(1, dtype=np.int64) if zeros is None else zeros

    @abc.abstractmethod
    def sums(self, acts: IntArray, codes: IntArray, format_name: str) -> Sums:
        """The PE's sums of a slice, bit-exact: acts [n, m] as they enter the PE, codes [n, cols] as in memory."""

    @abc.abstractmethod
    def scaled(
        self, sums: Sums, scales: npt.NDArray[np.float16], zeros: IntArray | None, format_name: str
    ) -> FloatArray:
        """What the result unit adds to the accumulators: fp32 [m, cols]; scales and zero point codes [cols]."""

    def parts(self, operands: Operands, slices: SliceOrder, format_name: str) -> Iterator[FloatArray]:
        assert operands.scales is not None, "a broadcast tile has formats with scales"
        acts = operands.acts.view(np.uint8) if self.spec.act.kind == "code" else operands.acts
        for number, group in enumerate(slices.slice_group):
            mine = slices.of == number
            sums = self.sums(acts[mine].astype(np.int64), operands.codes[mine].astype(np.int64), format_name)
            zeros = None if operands.zeros is None else operands.zeros[group].astype(np.int64)
            yield self.scaled(sums, operands.scales[group], zeros, format_name)[np.newaxis]

    def step_cycles(self, format_name: str) -> int:
        return self.mode(format_name) + 1
