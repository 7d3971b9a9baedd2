"""shift-add: int8 activations times 4-bit codes by four gated shifts and additions, summed exactly over a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, PESpec, wrap
from bitwright.arch.pe.weight_codes import decodable, weight_code


@dataclass(frozen=True)
class ShiftAdd(PESpec):
    """acc <- acc + sum over i of (act << i) * code bit i, with bit 3 subtracted when codes are signed.

    Parameters
        group : 1..2**16        Longest group accumulated before the column's group-dequantiser takes the sum.
    Arithmetic   exact within a group. psum.bits = 8 + 4 + ceil(log2 group): a product lies in -1920..1905 (unsigned
                 codes, -128 * 15 and 127 * 15) or -1016..1024 (signed), so `group` of them stay within
                 +-1920 * group < 2**11 * 2**ceil(log2 group): one sign bit more than that is psum.bits, no spare
                 bit is needed. Beyond `group` products the sum wraps modulo 2**psum.bits.
    Operands     act int8; wgt a 4-bit code, two's complement or unsigned by the mode input `wgt_unsigned`. With a
                 zero point z, sum (q - z) * x = sum q * x - z * sum x: a column of weight 1 gives sum x, and the
                 group-dequantiser subtracts z times it.
    Source       the W4A8 element of MixPE (arXiv 2411.16158), by its algebra; the paper's schematic was not seen.
    """

    group: int = 128

    name: ClassVar[str] = "shift-add"
    act: ClassVar[OperandType] = OperandType("int8", 8, "int")
    wgt: ClassVar[OperandType] = OperandType("int4", 4, "code")
    zero_point_column: ClassVar[bool] = True
    edge_unit: ClassVar[str] = "group-dequantiser"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "ws and os cells equal accumulate on every code, activation and mode, at extreme and random sums",
            16 * 256 * 2 * 8,
            "tests/rtl/pe/test_shift_add.py",
        ),
        Evidence(
            "a group of extreme products fits psum.bits: group lengths up to 65,536",
            135,
            "tests/arch/pe/test_pe_specs.py",
        ),
    )

    def __post_init__(self) -> None:
        if not 1 <= self.group <= 1 << 16:
            raise ConfigError(f"shift-add group = {self.group}: must be in 1..65536 (default 128)")

    @property
    def psum(self) -> OperandType:
        bits = self.act.bits + self.wgt.bits + (self.group - 1).bit_length()
        return OperandType(f"int{bits}", bits, "int")

    @property
    def module_stem(self) -> str:
        return f"shift_add_g{self.group}"

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        rule = weight_code(format_name) if decodable(format_name) else None
        if rule is None or rule.coding == "table" or rule.code_bits > self.wgt.bits:
            return Acceptance("refused", None, f"{format_name} codes are not integers of at most 4 bits")
        if group is None or group > self.group:
            length = "a whole row" if group is None else str(group)
            return Acceptance(
                "refused",
                None,
                f"a group of {length} does not fit the {self.psum.bits}-bit sum of {self.group} products",
            )
        return Acceptance("native", None, f"{format_name} is a 4-bit code, extended at the array border")

    def accumulate(  # type: ignore[override]
        self, acc: npt.ArrayLike, act: npt.ArrayLike, wgt: npt.ArrayLike, *, wgt_unsigned: npt.ArrayLike = False
    ) -> IntArray:
        """acc + act * value(code) modulo 2**psum.bits, as int64.

        act : int8 values. wgt : codes 0..15, or signed values -8..7, in any integer type. wgt_unsigned : bool,
        one a product or one for all: the value of code 15 is 15 instead of -1.
        """
        code = np.asarray(wgt, dtype=np.int64) & 15
        value = np.where(wgt_unsigned, code, wrap(code, 4))
        return wrap(np.asarray(acc, dtype=np.int64) + np.asarray(act, dtype=np.int64) * value, self.psum.bits)
