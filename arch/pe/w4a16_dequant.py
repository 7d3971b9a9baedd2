"""w4a16-dequant: integer weight codes made fp16 by a scale and a zero point, then multiplied by fp16 activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges
from bitwright.arch.pe.fp16_mac import Fp16Mac
from bitwright.arch.pe.fp16_stream import (
    CORNERS,
    Fp16Stream,
    as_fp16,
    bits_of,
    fp16_bits,
    fused,
    start,
    without_specials,
)
from bitwright.arch.pe.stream import Field, State, Steps, StreamSpec, row_flags
from bitwright.arch.pe.units import WeightDequantiser
from bitwright.arch.pe.weight_codes import decodable, weight_code

_GROUP = 128  # of the real operands that `quantised` makes


@dataclass(frozen=True)
class W4A16Dequant(StreamSpec):
    """sum <- sum + act * fp16(scale * integer), in fp32: dequantise, then multiply.

    Parameters
        weight_bits : 2..8       Width of a code and of a zero point.
        pipeline : 0..4          Registers: 1 after the dequantised weight; 2 after the product too; 3 inside the
            dequantiser too, after its multiplier; 4 after the fp16 multiplier too, as fp16-mac's 2.
    Operands     act fp16; wgt a code; with every step its group's scale, fp16, and zero point, and the mode `asym`: 0:
                 integer = the code in two's complement, `zero` not read; 1: integer = code - zero, both unsigned.
    Arithmetic   weight = integer * scale rounded once to fp16 (arch.pe.units.WeightDequantiser: subnormals, overflow to
                 infinity, NaN 0x7e00); sum + act * weight rounded once to fp32 (arch.pe.fp16_mac).
    Error        of a sum: as fp16-mac with an fp32 sum, after each weight's own rounding (half an ulp of fp16).
    Timing       latency 1 + pipeline cycles, one step a cycle: one product. The loop is fp16-mac's and stays one cycle;
                 with pipeline 4 it holds the longest path (rtl.asic.timing, nangate45).
    Lanes        one, as fp16-mac: a dot product of several lanes is not built. This PE has a dequantiser of its own;
                 the shared form is weight-dequantiser at the border of an array of fp16-mac, the same weights made once
                 for a column.
    Source       W4A16 inference on fp16 multipliers, as GPU kernels do it; the baseline of weight-only quantisation.
    """

    weight_bits: int = 4
    pipeline: int = 0

    name: ClassVar[str] = "w4a16-dequant"
    act: ClassVar[OperandType] = Fp16Mac.act
    edge_unit: ClassVar[str] = Fp16Mac.edge_unit
    modes: ClassVar[tuple[str, ...]] = ("asym",)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"pipeline": 2},
        {"pipeline": 4},
        {"weight_bits": 2, "pipeline": 1},
        {"weight_bits": 8, "pipeline": 3},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "hardware equals golden: every code of 2 and 4 bits with every activation, every code of 8 bits with one "
            "in eight of all exponents (the campaign's every pair: all 2**24), in both modes, one product",
            (2 << 18) + (2 << 20) + (2 << 21),
            "tests/rtl/pe/test_w4a16_dequant.py",
        ),
        Evidence(
            "hardware equals golden: every integer -15..15 and -8..7 with every fp16 scale",
            47 << 16,
            "tests/rtl/pe/test_w4a16_dequant.py",
        ),
        Evidence(
            "hardware equals golden at every cut, values and cycles: random, corner and real sums; steps",
            5 * 150_084,
            "tests/rtl/pe/test_w4a16_dequant.py",
        ),
        Evidence(
            "golden equals exact rationals with both roundings written out, weights of 2, 3, 4 and 8 bits and sums",
            8 * 4000 + 300 * 12,
            "tests/arch/pe/test_w4a16_dequant.py",
        ),
    )

    def __post_init__(self) -> None:
        require_ranges(self, weight_bits=(2, 8), pipeline=(0, 4))

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType(f"code{self.weight_bits}", self.weight_bits, "code")

    @property
    def psum(self) -> OperandType:
        return Fp16Mac().psum

    @property
    def module_stem(self) -> str:
        return f"w{self.weight_bits}a16_dequant_fp32_s{self.pipeline}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        bits = self.weight_bits
        return (Field("act", 16), Field("wgt", bits), Field("scale", 16), Field("zero", bits), Field("asym", 1))

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        return (Field("psum", 32),)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        rule = weight_code(format_name) if decodable(format_name) else None
        if rule is None or rule.coding == "table" or rule.fraction_bits:
            return Acceptance("refused", None, f"{format_name} has no plain integer codes")
        if max(rule.code_bits, rule.zero_bits) > self.weight_bits:
            return Acceptance("refused", None, f"{format_name} has {rule.code_bits} bits, more than {self.weight_bits}")
        how = "minus their zero point" if rule.zero_bits else "as they are"
        return Acceptance("native", None, f"{format_name} codes {how} times their scale are rounded once to fp16")

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        return {**super().corners(), "act": CORNERS, "scale": CORNERS}

    def tame(self, steps: Steps) -> Steps:
        return without_specials(steps, ("act", "scale"))

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Activations rounded to fp16, weights to codes with zero points in groups of 128 or what is left."""
        form = formats.get(f"int{self.weight_bits}_asym")
        encoded, length = form.encode(wgt, group=min(_GROUP, wgt.shape[1])), wgt.shape[1]
        assert encoded.scales is not None, "integer formats have scales"
        assert encoded.zeros is not None, "asymmetric formats have zero points"
        each = np.arange(length) // min(_GROUP, length)
        return {
            "act": fp16_bits(act).ravel(),
            "wgt": encoded.codes.astype(np.int64).ravel(),
            "scale": fp16_bits(encoded.scales.astype(np.float32))[:, each].ravel(),
            "zero": encoded.zeros.astype(np.int64)[:, each].ravel(),
            "asym": np.ones(act.size, dtype=np.int64),
            **row_flags(*act.shape),
        }

    def start(self, count: int) -> State:
        return start(count, "fp32")

    def weights(self, fields: Steps) -> npt.NDArray[np.float16]:
        """The dequantised weights of some steps."""
        codes, scale, asym = np.asarray(fields["wgt"]), as_fp16(fields["scale"]), np.asarray(fields["asym"]) != 0
        plain = WeightDequantiser(f"int{self.weight_bits}")
        if not asym.any():
            return plain.dequantise(codes, scale)
        shifted = WeightDequantiser(f"int{self.weight_bits}_asym").dequantise(codes, scale, zero=fields["zero"])
        return shifted if asym.all() else np.where(asym, shifted, plain.dequantise(codes, scale))

    def step(self, state: State, fields: Steps) -> State:
        return (fused(state[0], as_fp16(fields["act"]), self.weights(fields)),)

    def result(self, state: State) -> dict[str, IntArray]:
        return {"psum": bits_of(state[0])}

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        """As StreamSpec.sums, with all weights dequantised at once."""
        return Fp16Stream().sums({**steps, "wgt": bits_of(self.weights(steps))})
