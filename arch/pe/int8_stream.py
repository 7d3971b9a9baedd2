"""int8-mac behind a stream: several products of int8 and int8, or narrower weights, a cycle into one integer sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.integer_stream import IntegerStream, row_codes
from bitwright.arch.pe.stream import Cut, Field, Steps, row_flags
from bitwright.arch.pe.weight_codes import weight_code

LARGEST_PRODUCT = 1 << 14  # -128 * -128
LEAST_PRODUCT = -128 * 127


@dataclass(frozen=True)
class Int8Stream(IntegerStream):
    """sum <- sum + (total over the lanes of act * wgt), exact, modulo 2**psum_bits.

    Parameters
        lanes : 1..64            Products a cycle.
        psum_bits : 16..32       Width of the sum.
        pipeline : 0..2          Registers: 1 between the lanes' total and the sum; 2 between the products and their
            total too (lanes 2 and more).
        weight_bits : 2..8       Width of a weight. Below 8 it is a code as shift-add's, with the same mode: the two
            take the same steps, W4A8 and narrower, and give the same sums.
    Operands     act int8; wgt int8 or, with weight_bits below 8, a code: two's complement or, where the mode field
                 `wgt_unsigned` is 1, unsigned. A zero point is taken off elsewhere: no sum of activations is made.
    Arithmetic   exact; wraps modulo 2**psum_bits; no wrap for `longest_sum` steps of any operands and modes.
    Timing       latency 1 + pipeline cycles, one step a cycle. The loop adds as many bits as the lanes' total has;
                 those above are chosen among themselves, 1 more and 1 less.
    Depth        the loop, the sum added into itself, stays one cycle: the least of any depth. In front of it the
                 multiplier is a stage; a register inside the multiplier is not offered.
    Source       the usual dot-product unit; the baseline of every integer comparison.
    """

    lanes: int = 1
    psum_bits: int = 32
    pipeline: int = 0
    weight_bits: int = 8

    name: ClassVar[str] = "int8-mac"
    act: ClassVar[OperandType] = OperandType("int8", 8, "int")
    edge_unit: ClassVar[str] = "group-dequantiser"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"pipeline": 1, "psum_bits": 24},
        {"lanes": 4, "pipeline": 1},
        {"lanes": 4, "pipeline": 2, "psum_bits": 20},
        {"weight_bits": 4, "lanes": 4, "pipeline": 1, "psum_bits": 19},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "hardware equals golden, every pair of operands in every lane, codes in both modes, eight parameter sets",
            (6 << 16) + (2 << 15) + (2 << 12) + (2 << 10),
            "tests/rtl/pe/test_int8_stream.py",
        ),
        Evidence(
            "hardware equals golden, values and cycles: random, corner, extreme, real sums, first and last anywhere; "
            "eight sets of parameters, steps of random sums alone",
            8 * 146_210,
            "tests/rtl/pe/test_int8_stream.py",
        ),
        Evidence("golden equals Python integers, steps", 10 * 2 * 420 + 500, "tests/arch/pe/test_int8_stream.py"),
    )

    def __post_init__(self) -> None:
        require_ranges(self, lanes=(1, 64), psum_bits=(16, 32), pipeline=(0, 2), weight_bits=(2, 8))
        if self.pipeline == 2 and self.lanes == 1:
            raise ConfigError(
                f"{self.name} pipeline = 2: must be in 0..1 with lanes = 1 (one product needs no adder tree to cut)"
            )

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType(f"int{self.weight_bits}", self.weight_bits, "int" if self.weight_bits == 8 else "code")

    @property
    def modes(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.weight_bits == 8 else ("wgt_unsigned",)

    @property
    def module_stem(self) -> str:
        width = "" if self.weight_bits == 8 else f"_w{self.weight_bits}"
        return f"int8_mac{width}_l{self.lanes}_p{self.psum_bits}_s{self.pipeline}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        act, int8 = Field("act", 8, self.lanes, signed=True), self.weight_bits == 8
        wgt = Field("wgt", self.weight_bits, self.lanes, signed=int8)
        return (act, wgt) if int8 else (act, wgt, Field("wgt_unsigned", 1))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return tuple(Cut(f"product_{lane}", *self.products) for lane in range(self.lanes))

    @property
    def products(self) -> tuple[int, int]:
        """The least and the greatest product, over both modes."""
        if self.weight_bits == 8:
            return LEAST_PRODUCT, LARGEST_PRODUCT
        weight = (1 << self.weight_bits) - 1  # unsigned: no signed code is as large
        return -128 * weight, 127 * weight

    @property
    def longest_sum(self) -> int:
        (least, greatest), reach = self.products, 1 << (self.psum_bits - 1)
        return min((reach - 1) // (greatest * self.lanes), reach // (-least * self.lanes))

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        found = Int8Mac().accepts(format_name, group)
        if self.weight_bits == 8 or found.kind == "refused":
            return found
        rule, width = weight_code(format_name), f"int{self.weight_bits}"
        if rule.integer_bits > self.weight_bits:
            span = f"integers {rule.least}..{rule.greatest}"
            return Acceptance("refused", None, f"{format_name} decodes to {span}, which do not fit {width}")
        return Acceptance(found.kind, found.unit, found.reason.replace("to int8", f"to {width}"))

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        """Of a code, those at the sign's bit too."""
        found = dict(super().corners())
        if self.weight_bits < 8:
            sign = 1 << (self.weight_bits - 1)
            found["wgt"] = tuple(sorted({*found["wgt"], sign - 1, sign}))
        return found

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows scaled to int8 and `weight_bits` by their largest magnitude, padded with zeros to whole steps."""
        count = -(-act.shape[1] // self.lanes)
        padding = ((0, 0), (0, count * self.lanes - act.shape[1]))
        found = {}
        for name, values, bits in (("act", act, 8), ("wgt", wgt, self.weight_bits)):
            codes = np.pad(row_codes(values, (1 << (bits - 1)) - 1), padding).reshape(-1, self.lanes)
            found[name] = codes[:, 0] if self.lanes == 1 else codes
        if self.weight_bits < 8:
            found["wgt"] = found["wgt"] & ((1 << self.weight_bits) - 1)
            found["wgt_unsigned"] = np.zeros(len(act) * count, dtype=np.int64)
        return {**found, **row_flags(len(act), count)}

    def dots(self, fields: Steps) -> IntArray:
        """The lanes' total of each step."""
        act, wgt = (np.asarray(fields[name], dtype=np.int64).reshape(-1, self.lanes) for name in ("act", "wgt"))
        if self.weight_bits < 8:
            signed = 1 - np.asarray(fields["wgt_unsigned"], dtype=np.int64)[:, None]
            wgt = wgt - ((wgt >> (self.weight_bits - 1) & signed) << self.weight_bits)
        return np.asarray(np.einsum("nl,nl->n", act, wgt))
