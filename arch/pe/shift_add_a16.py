"""shift-add-a16: fp16 activations, aligned to their group's exponent, times codes of 2 to 4 bits; no multiplier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges, wrap
from bitwright.arch.pe.elements import round_to_fp32
from bitwright.arch.pe.fp16_mac import FloatArray, canonical
from bitwright.arch.pe.shift_add_stream import (
    accept_codes,
    code_values,
    group_steps,
    growth_bits,
)
from bitwright.arch.pe.stream import FIRST, LAST, Cut, Field, State, Steps, StreamSpec, running

SIGNIFICAND_BITS = 11
_MAX_SIGNIFICAND = (1 << SIGNIFICAND_BITS) - 1
_SPECIAL = 31
# A significand is an integer times 2**(exponent - 25); a code and a shared exponent do not change that.
_UNIT_EXPONENT = 25


def effective_exponent(act: npt.ArrayLike) -> IntArray:
    """Exponent field of fp16 codes, 0 (zero and subnormals) read as 1."""
    return np.asarray(np.maximum(np.asarray(act, dtype=np.int64) >> 10 & _SPECIAL, 1))


def shared_exponent(act: npt.ArrayLike) -> IntArray:
    """The border unit: the greatest `effective_exponent` over the last axis, a group of fp16 codes.

    One comparator that sees a group's activations once, while they are written into the array's buffer; every column
    uses the result.
    """
    return np.asarray(effective_exponent(act).max(axis=-1))


@dataclass(frozen=True)
class ShiftAddA16(StreamSpec):
    """sum of act * value(code) over a group, act fp16: a fixed-point integer psum, its exponent, a flag.

    Parameters
        weight_bits : 2..4       Width of a code: W2A16, W3A16, W4A16.
        lanes : 1..64            Products a cycle.
        group : 1..65536         Longest group, in products; it sets guard bits and widths.
        pipeline : 0..2          1: a register between aligning and gating; 2: another between the total of the lanes
            and the sum.
        zero_points : bool       True: the sum carries act_sum, the sum of the same aligned activations.
    Operands     act fp16 (all of it); wgt a code, two's complement or, where the mode field `wgt_unsigned` is 1,
                 unsigned; `exponent` E, the same for all steps of a sum: the group's `shared_exponent` (0 counts as 1).
    Arithmetic   n is the group in products, filled up to whole steps; w = weight_bits.
                 1. An activation is s * 2**(e - 25), s its 11-bit significand with its sign, e its effective exponent.
                    aligned = s * 2**(guard - (E - e)), rounded to an integer, to nearest, ties away from zero:
                    guard = ceil(log2 n) + 1 places below the last place of exponent E stay, 11 + guard bits in all.
                    This is the only rounding; an activation of at least 2**-guard of the greatest one loses nothing.
                 2. psum = sum of aligned * value(code), exact, in 12 + guard + w + ceil(log2 n) bits; act_sum = sum of
                    aligned, exact, in 12 + guard + ceil(log2 n) bits. Beyond `longest_sum` steps both wrap.
                 3. The sum is psum * 2**(exponent - 25 - guard): `to_fp32` scales it exactly and rounds once. The
                    fixed-point-dequantiser does that (`fixed_point_unit.below`), far from both ends of fp32's range.
                 4. `nonfinite` is 1 if any activation of the sum is infinite or NaN, whatever its code, or has an
                    exponent above E; psum is then what the same rules make of its fields, and `to_fp32` gives NaN.
    Error        |error| <= (sum of |code|) * 2**(E - 26 - guard) <= n * (2**w - 1) * 2**(E - 26 - guard), half a place
                 for each activation, and with guard >= log2(n) + 1 at most (2**w - 1) * 2**(E - 27). The largest code
                 times the largest activation is at least (2**w - 1) * 2**(E - 15), so half its fp16 ulp is at least
                 2**w * 2**(E - 27): the error of a whole group stays below that half ulp. A zero point changes nothing,
                 |code - zero| being at most 2**w - 1 as well.
                 Measured on int4 groups of 64 and 128. Normal random activations and uniform codes: at most 2.0 % and
                 0.94 % of the bound, mean 0.14 % and 0.07 %; 61 % of the sums are exact; in fp16 ulps of the exact sum
                 mean 0.003 and 0.001, at most 6.5 and 3.5, where it cancels. SmolLM2: at most 2.5 % and 1.6 % of the
                 bound, mean 0.20 % and 0.12 %; 36 % and 26 % exact; mean 0.016 and 0.009 ulp, at most 16 and 4.6.
    Timing       latency 1 + pipeline cycles, one step a cycle.
    Structure    a significand is shifted right, its bits inverted for a negative number; the missing 1 of the inversion
                 and of the rounding is one bit more of weight 1, gated by the code like the value. All gated terms go
                 through one tree of carry-save adders into one carry-propagating adder, with pipeline < 2 together
                 with the sum so far.
    Source       W4A16 of MixPE (arXiv 2411.16158) by its algebra. Deviation: the paper's pipeline was not seen; ours
                 is aligned fixed point. Why E comes with the steps and is not a running maximum in the PE: it is
                 found once at the border for all columns; the loop from the accumulator to itself stays one integer
                 addition, where a running maximum puts a shifter of the whole accumulator into it; and no bits of a
                 sum are lost when a larger activation comes late, so the order of the steps does not matter.
    """

    weight_bits: int = 4
    lanes: int = 1
    group: int = 128
    pipeline: int = 0
    zero_points: bool = False

    name: ClassVar[str] = "shift-add-a16"
    act: ClassVar[OperandType] = OperandType("fp16", 16, "float")
    edge_unit: ClassVar[str] = "fixed-point-dequantiser"
    modes: ClassVar[tuple[str, ...]] = ("wgt_unsigned",)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"pipeline": 1, "zero_points": True},
        {"lanes": 4, "group": 64, "zero_points": True},
        {"lanes": 4, "pipeline": 2},
        {"weight_bits": 2, "lanes": 2, "pipeline": 2, "zero_points": True},
        {"weight_bits": 3, "lanes": 3, "group": 20, "pipeline": 1},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "module equals sums: every code x activation x mode in every lane, exponents from the activation's to 31, "
            "six parameter sets",
            25_165_824,
            "tests/rtl/pe/test_shift_add_a16.py",
        ),
        Evidence(
            "module equals sums: every activation x every exponent, its own and those below it too",
            2_097_152,
            "tests/rtl/pe/test_shift_add_a16.py",
        ),
        Evidence(
            "module equals sums, in value and cycles: random, corner and finite lane-steps, six parameter sets",
            4_867_740,
            "tests/rtl/pe/test_shift_add_a16.py",
        ),
        Evidence(
            "aligner equals exact float64 with its rounding written out: every activation x exponent, three groups",
            6_291_456,
            "tests/arch/pe/test_shift_add_a16.py",
        ),
        Evidence(
            "one step equals the exact product: every finite activation x code x mode, 2 to 4 bits",
            3_555_328,
            "tests/arch/pe/test_shift_add_a16.py",
        ),
        Evidence(
            "sums equal exact rationals with the rounding written out and stay below the bound: sums",
            258,
            "tests/arch/pe/test_shift_add_a16.py",
        ),
        Evidence(
            "error of groups of 64 and 128 against exact arithmetic, random and SmolLM2's: groups",
            64_576,
            "tests/arch/pe/test_shift_add_a16.py",
        ),
    )

    def __post_init__(self) -> None:
        require_ranges(self, weight_bits=(2, 4), lanes=(1, 64), group=(1, 1 << 16), pipeline=(0, 2))

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType(f"int{self.weight_bits}", self.weight_bits, "code")

    @property
    def growth_bits(self) -> int:
        """ceil(log2 n) of the n products of a group, filled up to whole steps."""
        return growth_bits(self.group, self.lanes)

    @property
    def guard_bits(self) -> int:
        """Places kept below the last place of an activation of the shared exponent."""
        return self.growth_bits + 1

    @property
    def kept_bits(self) -> int:
        """Width of an aligned magnitude."""
        return SIGNIFICAND_BITS + self.guard_bits

    @property
    def max_aligned(self) -> int:
        """The largest aligned magnitude: 2047 of the shared exponent."""
        return _MAX_SIGNIFICAND << self.guard_bits

    @property
    def psum(self) -> OperandType:
        bits = 1 + self.kept_bits + self.weight_bits + self.growth_bits
        return OperandType(f"fixed{bits}", bits, "int")

    @property
    def act_sum_bits(self) -> int:
        """Width of act_sum, whether the sum carries it or not."""
        return 1 + self.kept_bits + self.growth_bits

    @property
    def module_stem(self) -> str:
        suffix = "_z" if self.zero_points else ""
        return f"shift_add_a16_w{self.weight_bits}_l{self.lanes}_g{self.group}_s{self.pipeline}{suffix}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        return (
            Field("act", self.act.bits, self.lanes),
            Field("wgt", self.weight_bits, self.lanes),
            Field("wgt_unsigned", 1),
            Field("exponent", 5),
        )

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        numbers = [Field("psum", self.psum.bits, signed=True)]
        if self.zero_points:
            numbers.append(Field("act_sum", self.act_sum_bits, signed=True))
        return (*numbers, Field("exponent", 5), Field("nonfinite", 1))

    @property
    def max_dot(self) -> int:
        """The largest magnitude of a step's total."""
        return self.lanes * self.max_aligned * ((1 << self.weight_bits) - 1)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The step's totals where they are wires; else none: rtl.formal.trees adds up the carry-save tree."""
        if self.pipeline < 2:
            return ()
        dot, largest = Cut("dot", -self.max_dot, self.max_dot), self.lanes * self.max_aligned
        return (dot, Cut("act_dot", -largest, largest)) if self.zero_points else (dot,)

    @property
    def longest_sum(self) -> int:
        steps = ((1 << (self.psum.bits - 1)) - 1) // self.max_dot
        if self.zero_points:
            steps = min(steps, ((1 << (self.act_sum_bits - 1)) - 1) // (self.max_aligned * self.lanes))
        return steps

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        return accept_codes(self, format_name, group)

    def error_bound(self, exponent: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What |psum * 2**(exponent - 25 - guard) - exact sum| of `group` products never exceeds."""
        products = -(-self.group // self.lanes) * self.lanes
        unit = np.asarray(exponent, dtype=np.int64) - (_UNIT_EXPONENT + 1 + self.guard_bits)
        return np.asarray(np.ldexp(float(products * ((1 << self.weight_bits) - 1)), unit))

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        """Of `act` zeros, ends of the subnormal and normal ranges, halves of places, infinities, NaN; of both signs."""
        magnitudes = (0, 1, 0x3FF, 0x400, 0x7FF, 0x1400, 0x3BFF, 0x3C00, 0x7BFF, 0x7C00, 0x7E01)
        signed = tuple(sign | code for sign in (0, 0x8000) for code in magnitudes)
        return {**super().corners(), "act": signed, "exponent": (0, 1, 15, 30, 31)}

    def tame(self, steps: Steps) -> Steps:
        """The exponent of a sum's first step for all of it, raised to the sum's `shared_exponent`."""
        exponent = np.asarray(steps["exponent"], dtype=np.int64)
        act = np.asarray(steps["act"]).reshape(len(exponent), -1)
        first = np.flatnonzero(np.asarray(steps[FIRST]) != 0)
        needed = np.maximum.reduceat(shared_exponent(act), first)
        raised = np.maximum(exponent[first], needed)
        return {**steps, "exponent": np.repeat(raised, np.diff(np.append(first, len(exponent))))}

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Activations rounded to fp16; weights intN, or intN_asym with zero_points, in groups of `group`."""
        with np.errstate(over="ignore"):
            codes = act.astype(np.float16).view(np.uint16).astype(np.int64)
        steps = group_steps(self, codes, wgt)
        return self.tame({**steps, "exponent": np.zeros(len(steps[FIRST]), dtype=np.int64)})

    # Golden arithmetic

    def align(self, act: npt.ArrayLike, exponent: npt.ArrayLike) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """(aligned, whether nonfinite or above the exponent) of fp16 codes; arrays broadcast."""
        code = np.asarray(act, dtype=np.int64)
        places = np.maximum(np.asarray(exponent, dtype=np.int64), 1) - _EXPONENTS[code]
        twice = (_SIGNIFICANDS[code] << (self.guard_bits + 1)) >> (places & 31)
        magnitude = (twice + 1) >> 1
        return np.where(code >> 15, -magnitude, magnitude), (places < 0) | (_EXPONENTS[code] == _SPECIAL)

    def start(self, count: int) -> State:
        return tuple(np.zeros(count, dtype=np.int64) for _ in range(4))

    def step(self, state: State, fields: Steps) -> State:
        dot, act_total, nonfinite = self.totals(fields)
        return (
            wrap(state[0] + dot, self.psum.bits),
            wrap(state[1] + act_total, self.act_sum_bits),
            np.maximum(np.asarray(fields["exponent"], dtype=np.int64), 1),
            state[3] | nonfinite,
        )

    def result(self, state: State) -> dict[str, IntArray]:
        found = dict(zip(("psum", "act_sum", "exponent", "nonfinite"), state, strict=True))
        return {field.name: found[field.name] for field in self.sum_fields}

    def totals(self, fields: Steps) -> tuple[IntArray, IntArray, IntArray]:
        """(total of the products, total of the aligned activations, 1 if one is nonfinite) of each step."""
        act = np.asarray(fields["act"]).reshape(-1, self.lanes)
        code = np.asarray(fields["wgt"], dtype=np.int64).reshape(-1, self.lanes)
        aligned, nonfinite = self.align(act, np.asarray(fields["exponent"])[:, None])
        value = code_values(code, np.asarray(fields["wgt_unsigned"])[:, None], self.weight_bits)
        totals: IntArray = np.einsum("nl,nl->n", aligned, value)
        return totals, np.asarray(aligned.sum(axis=1)), np.asarray(nonfinite.any(axis=1), dtype=np.int64)

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        last = np.asarray(steps[LAST]) != 0
        dot, act_total, nonfinite = (running(total, steps[FIRST])[last] for total in self.totals(steps))
        exponent = np.maximum(np.asarray(steps["exponent"], dtype=np.int64), 1)[last]
        psum, act_sum = wrap(dot, self.psum.bits), wrap(act_total, self.act_sum_bits)
        return self.result((psum, act_sum, exponent, (nonfinite > 0).astype(np.int64)))

    def to_fp32(
        self,
        sums: Mapping[str, npt.ArrayLike],
        scale: npt.ArrayLike = 1.0,
        *,
        zero: npt.ArrayLike = 0,
    ) -> FloatArray:
        """scale * (psum - zero * act_sum) * 2**(exponent - 25 - guard), rounded once to fp32, ties to even.

        sums : the fields of sums. scale : float16. zero : 0..15. NaN (0x7fc00000) for `nonfinite` sums and a NaN
        scale; infinities and the sign of an exact zero as IEEE 754 multiplies.
        """
        if not self.zero_points and np.any(zero):
            raise ConfigError(f"{self.name} zero_points = False: must be True for zero points other than 0")
        factor = np.asarray(scale, dtype=np.float16)
        corrected = np.asarray(sums["psum"], dtype=np.int64)
        if self.zero_points:
            corrected = corrected - np.asarray(zero, dtype=np.int64) * np.asarray(sums["act_sum"], dtype=np.int64)
        code = factor.view(np.uint16).astype(np.int64)
        significand = np.where(code >> 15, -_SIGNIFICANDS[code], _SIGNIFICANDS[code])
        unit = np.asarray(sums["exponent"], dtype=np.int64) - (_UNIT_EXPONENT + self.guard_bits)
        finite = round_to_fp32(corrected * significand, unit + _EXPONENTS[code] - _UNIT_EXPONENT)
        with np.errstate(all="ignore"):
            special = (corrected.astype(np.float32) * factor.astype(np.float32)).astype(np.float32)
        plain = np.isfinite(factor) & (factor != 0) & (corrected != 0)
        value = np.where(np.asarray(sums["nonfinite"]) != 0, np.float32(np.nan), np.where(plain, finite, special))
        return canonical(np.asarray(value, dtype=np.float32))


_CODES = np.arange(1 << 16, dtype=np.int64)
_EXPONENTS = effective_exponent(_CODES)
_SIGNIFICANDS = (_CODES & 1023) | np.where(_CODES & 0x7C00, 1024, 0)
