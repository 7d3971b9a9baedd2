"""flint: products of ANT's 4- to 6-bit types by exponent and integer, into one exact integer sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges, wrap
from bitwright.arch.pe.integer_stream import IntegerStream
from bitwright.arch.pe.pair_codes import (
    Numbers,
    flint,
    integers,
    powers_of_two,
    require_choice,
)
from bitwright.arch.pe.stream import Cut, Field, Steps, row_flags

WGT_CODES = ("flint4", "flint5", "flint6", "ant4")
ACT_CODES = (*WGT_CODES, "int4", "int8")
TYPE_BITS = 2  # of the type of ant4: the format's own selector
POT = 2


@dataclass(frozen=True)
class Reading:
    """How a decoder reads the codes of a format: for each type a table of numbers <exponent, integer>.

    Fields
        format : str
        bits : int               Of a code.
        types : tuple of Numbers One for each type, by selector; each [2**bits].
    """

    format: str
    bits: int
    types: tuple[Numbers, ...]

    @property
    def has_type(self) -> bool:
        """Whether a type comes with each code."""
        return len(self.types) > 1

    @property
    def exponent_bits(self) -> int:
        return max(int(found.exponent.max()) for found in self.types).bit_length()

    @property
    def integer_bits(self) -> int:
        """Two's complement width of the integers."""
        return signed_bits(
            min(int(found.integer.min()) for found in self.types), max(int(found.integer.max()) for found in self.types)
        )

    @cached_property
    def values(self) -> IntArray:
        """Value of each code at unit scale, [types, codes]."""
        return np.stack([found.value for found in self.types])

    @property
    def is_integer(self) -> bool:
        return self.format.startswith("int")


@cache
def reading(name: str) -> Reading:
    """The decoder of flint4, flint5, flint6, ant4, int4 or int8."""
    bits = int(name[-1])
    if name == "ant4":  # the fourth type, float E3M0, has the values of the third
        power = powers_of_two(bits)
        return Reading(name, bits, (integers(bits), flint(bits), power, power))
    return Reading(name, bits, (integers(bits) if name.startswith("int") else flint(bits),))


def signed_bits(low: int, high: int) -> int:
    """Two's complement width of low..high."""
    return max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + 1


@dataclass(frozen=True)
class FlintMac(IntegerStream):
    """sum <- sum + (total over the lanes of act * wgt), exact, modulo 2**psum_bits.

    Parameters
        act, wgt formats : str   `act_format` flint4, flint5, flint6, ant4, int4 or int8; `wgt_format` the first four.
        lanes : 1..64            Products a cycle.
        depth : lanes..2**20     Products of any values that a sum must hold; the width `psum_bits` follows from it.
        pipeline : 0..3          Registers: 1 after the shifters, 2 also after the multipliers, 3 also before them.
    Operands     codes of the formats; flint's code of -0 is 0. With ant4 each step has the operand's type, `act_type`
                 or `wgt_type`, in ANT one a tensor: 0 int4, 1 flint4, 2 powers of two (+-2**0..2**6), 3 float E3M0,
                 which at 4 bits has the values of 2.
    Arithmetic   a leading-one detector and a shifter make each flint code <exponent, integer>: the integer has two bits
                 less than the code besides its sign. <a, b> * <c, d> = <a + c, b * d>, the product then shifted left by
                 its exponent: exact. The sum wraps modulo 2**psum_bits; not in `longest_sum` steps of any operands.
    Timing       latency 1 + pipeline cycles, one step a cycle.
    Source       ANT (MICRO 2022), section IV: first-one code, int-based PE (its other decoder, of a float, is not
                 built). Deviations: a dot product (adder tree) in place of one PE a product; no 8-bit mode of four
                 4-bit PEs, int8 activations have a wider multiplier; a sum of derived width; ANT's unsigned flint4 of
                 activations without a sign is not built, all types are signed.
    """

    act_format: str = "flint4"
    wgt_format: str = "flint4"
    lanes: int = 4
    depth: int = 4096
    pipeline: int = 0

    name: ClassVar[str] = "flint"
    edge_unit: ClassVar[str] = "group-dequantiser"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"act_format": "ant4", "wgt_format": "ant4", "pipeline": 1},
        {"act_format": "int8", "wgt_format": "flint4", "lanes": 2, "pipeline": 2},
        {"act_format": "flint5", "wgt_format": "flint5", "pipeline": 3},
        {"act_format": "int8", "wgt_format": "flint6", "lanes": 3},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every product of two codes written out, of every pair of formats and types, one lane",
            (16 + 32 + 64 + 4 * 16 + 16 + 256) * (16 + 32 + 64 + 4 * 16),
            "tests/arch/pe/test_flint_mac.py",
        ),
        Evidence(
            "every code x every code of every type in every lane, six sets of parameters",
            256 + 16 * 256 + 4096 + 1024 + 16_384 + 4096,
            "tests/rtl/pe/test_flint_mac.py",
        ),
        Evidence(
            "random and corner steps, values and cycles, five sets of parameters, types changing within a sum too",
            2 * 5 * 162_258,
            "tests/rtl/pe/test_flint_mac.py",
        ),
        Evidence(
            "steps of extreme sums of longest_sum steps, five sets of parameters",
            100_303 + 165_807 + 171_990 + 100_303 + 114_660,
            "tests/rtl/pe/test_flint_mac.py",
        ),
        Evidence("sums of SmolLM2's tensors", 5 * 200, "tests/rtl/pe/test_flint_mac.py"),
    )

    def __post_init__(self) -> None:
        require_choice(f"{self.name} act_format", self.act_format, ACT_CODES)
        require_choice(f"{self.name} wgt_format", self.wgt_format, WGT_CODES)
        require_ranges(self, lanes=(1, 64))
        if not self.lanes <= self.depth <= 1 << 20:
            raise ConfigError(
                f"{self.name} depth = {self.depth}: must be in {self.lanes}..{1 << 20}, lanes or more (default 4096)"
            )
        require_ranges(self, pipeline=(0, 3))

    @property
    def act(self) -> OperandType:  # type: ignore[override]
        return OperandType(self.act_format, self.readings[0].bits, "int" if self.readings[0].is_integer else "code")

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType(self.wgt_format, self.readings[1].bits, "code")

    @property
    def readings(self) -> tuple[Reading, Reading]:
        """How act and wgt are decoded."""
        return reading(self.act_format), reading(self.wgt_format)

    @property
    def product_range(self) -> tuple[int, int]:
        """Least and greatest product."""
        products = np.multiply.outer(self.readings[0].values, self.readings[1].values)
        return int(products.min()), int(products.max())

    @property
    def psum_bits(self) -> int:
        low, high = self.product_range
        return signed_bits(low * self.depth, high * self.depth)

    @property
    def module_stem(self) -> str:
        return f"flint_mac_{self.act_format}_{self.wgt_format}_l{self.lanes}_p{self.psum_bits}_s{self.pipeline}"

    @property
    def modes(self) -> tuple[str, ...]:  # type: ignore[override]
        named = zip(("act_type", "wgt_type"), self.readings, strict=True)
        return tuple(name for name, read in named if read.has_type)

    @property
    def step_fields(self) -> tuple[Field, ...]:
        operands = (
            Field(name, read.bits, self.lanes, signed=read.is_integer)
            for name, read in zip(("act", "wgt"), self.readings, strict=True)
        )
        return (*operands, *(Field(name, TYPE_BITS) for name in self.modes))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return tuple(Cut(f"aligned_{lane}", *self.product_range) for lane in range(self.lanes))

    @property
    def longest_sum(self) -> int:
        low, high = self.product_range
        half = 1 << (self.psum_bits - 1)
        return min((half - 1) // (self.lanes * high), half // (self.lanes * -low))

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        """Of each type the codes of the least and the greatest value, of the greatest integer, of 0, -0 and +-1."""
        found = dict(super().corners())
        for name, read in zip(("act", "wgt"), self.readings, strict=True):
            if read.is_integer:
                continue
            codes = {0, 1, 1 << (read.bits - 1), (1 << (read.bits - 1)) + 1}
            for kind in read.types:
                codes |= {int(kind.value.argmin()), int(kind.value.argmax()), int(kind.integer.argmax())}
            found[name] = tuple(sorted(codes))
        return found

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        form, read = formats.get(format_name), self.readings[1]
        learnt = "kmeans" in format_name  # its codes have no value of their own
        if form.bits != read.bits or form.block != 1 or form.zero_bits or learnt:
            return Acceptance("refused", None, f"{format_name} has not the codes of {self.wgt_format}")
        for selector in range(1 << form.selector_bits):
            values = np.asarray(form.code_values(selector), dtype=np.float64)
            kinds = read.values if form.selector_bits == 0 else read.values[selector : selector + 1]
            if not (kinds == values).all(axis=1).any():
                return Acceptance("refused", None, f"{format_name} has values that {self.wgt_format} has not")
        return Acceptance("native", None, f"{format_name} codes are decoded inside the PE")

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows as their formats quantise them, a scale (of ant4 also a type) a row, filled up with zeros."""
        steps = -(-act.shape[1] // self.lanes)
        fill = ((0, 0), (0, steps * self.lanes - act.shape[1]))
        found: dict[str, IntArray] = {}
        for name, rows, read in (("act", act, self.readings[0]), ("wgt", wgt, self.readings[1])):
            form = formats.get("ant4:choice=group" if read.has_type else read.format)
            encoded = form.encode(np.pad(rows, fill))
            codes = encoded.codes.astype(np.int64)
            if read.is_integer:
                codes = wrap(codes, read.bits)
            found[name] = codes.reshape(-1) if self.lanes == 1 else codes.reshape(-1, self.lanes)
            if read.has_type:
                assert encoded.selectors is not None, "ant4 has selectors"
                found[f"{name}_type"] = np.repeat(encoded.selectors[:, 0].astype(np.int64), steps)
        return {**{name: values.astype(np.int64) for name, values in found.items()}, **row_flags(len(act), steps)}

    def dots(self, fields: Steps) -> IntArray:
        """The total of each step's products, [n]."""
        values = []
        for name, read in zip(("act", "wgt"), self.readings, strict=True):
            codes = np.asarray(fields[name], dtype=np.int64)
            codes = codes.reshape(len(codes), -1) & ((1 << read.bits) - 1)
            kind = np.asarray(fields[f"{name}_type"], dtype=np.int64)[:, None] << read.bits if read.has_type else 0
            values.append(read.values.reshape(-1)[kind + codes])
        return np.asarray((values[0] * values[1]).sum(axis=1))
