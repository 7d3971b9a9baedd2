"""What a processing element is: operand types, golden arithmetic, timing, and the formats it takes."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError

IntArray = npt.NDArray[np.int64]
Dataflow = Literal["ws", "os"]


@dataclass(frozen=True)
class OperandType:
    """One port of a PE.

    `kind` is "int" (two's complement), "code" (an integer whose signedness is a mode input) or "float" (IEEE 754).
    """

    name: str
    bits: int
    kind: Literal["int", "code", "float"]

    @property
    def low(self) -> int:
        """The smallest value of an "int" operand."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """The largest value of an "int" operand."""
        return (1 << (self.bits - 1)) - 1


@dataclass(frozen=True)
class Timing:
    """A block's timing contract, in clock cycles; tests measure it and docs print it.

    `latency_cycles`: from operands to the registered result. `initiation_interval_cycles`: between operands.
    """

    latency_cycles: int = 1
    initiation_interval_cycles: int = 1


@dataclass(frozen=True)
class Evidence:
    """One claim that a test checks: what is compared, on how many cases, and in which test file."""

    claim: str
    cases: int
    test: str


@dataclass(frozen=True)
class Acceptance:
    """Whether a PE takes weights of a format: as they are, through a decoder at the array border, or not.

    `unit` names the border unit when `kind` is "decoder"; `reason` is one sentence for people.
    """

    kind: Literal["native", "decoder", "refused"]
    unit: str | None
    reason: str

    def __bool__(self) -> bool:
        return self.kind != "refused"


def require_ranges(spec: Any, **ranges: tuple[int, int]) -> None:
    """ConfigError for the first parameter of a spec that is outside its range (least, greatest)."""
    for name, (low, high) in ranges.items():
        value = getattr(spec, name)
        if not low <= value <= high:
            raise ConfigError(f"{spec.name} {name} = {value}: must be in {low}..{high}")


def wrap(values: IntArray, bits: int) -> IntArray:
    """Reduce int64 `values` modulo 2**bits into two's complement -2**(bits-1) .. 2**(bits-1)-1 (bits <= 62)."""
    half = np.int64(1 << (bits - 1))
    mask = np.int64((1 << bits) - 1)
    return ((np.asarray(values, dtype=np.int64) + half) & mask) - half


@dataclass(frozen=True)
class PESpec(abc.ABC):
    """One processing element: the object from which `rtl.pe` builds hardware and tests take expected values.

    Class data
        name : the PE's name on the command line, such as "int8-mac".
        act, wgt : OperandType   Operands. A weight wider than its format is sign-extended at the array border.
        dataflows : ("ws", "os")   Weight stationary and output stationary cells exist.
        templates : the array templates it fits.
        timing : Timing          One accumulation, registered.
        shortest_group : int     Shortest group (in accumulations) that the column-edge unit keeps up with.
        zero_point_column : bool One more physical column, of weight 1, gives the sum of activations of a group.
        edge_unit : the unit below each column, see `arch.pe.units`.
        evidence : what has been checked, and where.
    Properties
        psum : OperandType       The accumulator and partial-sum type.
        params : the parameters that tell this PE from others of the same name.
    """

    name: ClassVar[str]
    act: ClassVar[OperandType]
    wgt: ClassVar[OperandType]
    dataflows: ClassVar[tuple[Dataflow, ...]] = ("ws", "os")
    templates: ClassVar[tuple[str, ...]] = ("systolic",)
    timing: ClassVar[Timing] = Timing()
    shortest_group: ClassVar[int] = 1
    zero_point_column: ClassVar[bool] = False
    edge_unit: ClassVar[str]
    evidence: ClassVar[tuple[Evidence, ...]] = ()

    @property
    @abc.abstractmethod
    def psum(self) -> OperandType:
        """The accumulator and partial-sum type."""

    @property
    @abc.abstractmethod
    def module_stem(self) -> str:
        """The Verilog module's name without the dataflow: `int8_mac`, `shift_add_g128`; unique per params."""

    @abc.abstractmethod
    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        """Whether weights of this format, in groups of `group` (None: one group a row), can be multiplied."""

    @abc.abstractmethod
    def accumulate(self, acc: Any, act: Any, wgt: Any, **mode: Any) -> Any:
        """acc + act * wgt, bit-exact as the hardware does it; arrays broadcast. The golden of the cells."""

    @property
    def params(self) -> Mapping[str, int]:
        """The dataclass fields of this spec, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def zero(self) -> Any:
        """The value an accumulation starts from."""
        return np.int64(0)
