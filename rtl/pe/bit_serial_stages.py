"""Combinational parts of the bit-serial PE: alignment, summing, the accumulator's addition, the scale's bit step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.bit_serial import EXTRA_BITS
from bitwright.rtl.pe.floats import (
    Unpacked,
    add_or_subtract,
    effective_exponent,
    normalise,
    shift_right_sticky,
)
from bitwright.rtl.pe.term_encoder import Term

SIGNIFICAND_BITS = 11  # fp16
ALIGNED_BITS = SIGNIFICAND_BITS + EXTRA_BITS
SUM_BITS = ALIGNED_BITS + 3  # the signed sum of four
MAGNITUDE_BITS = SUM_BITS - 1
TOP_BITS = 6  # a step's exponent: at most 30 + 3
PLACE_BITS = 4  # a lane shifted by more places than these tell adds nothing
FP32_BITS = 24  # significant
# Between exponents of two sums, which are in 99..213: 2**-28 is the least step, and sums stop growing below 2**86. From
# a zero it may be more, and means nothing.
DISTANCE_BITS = 7
# fp32's exponent of the top bit of a step's magnitude is step exponent + bsig - 29 + 15 + 127.
STEP_BIAS = 113


@dataclass(frozen=True)
class Float:
    """A normalised number with fp32's exponent, (-1)**sign * 1.f * 2**(exponent - 127); zero: both fields 0."""

    sign: Value
    exponent: Value
    significand: Value


def lane_exponent(m: Module, act: Unpacked, term: Term, name: str) -> Signal:
    """The exponent of act * term; below 4 where the term is none.

    That may be the largest only where the others' are 1 or 2: they are shifted by 2 places at most, and lose nothing.
    """
    exponent = Signal(TOP_BITS, name=f"{name}_exponent")
    whole = (effective_exponent(act) + term.exp)[:TOP_BITS]
    m.d.comb += exponent.eq(Cat(whole[:2], whole[2:] & term.man.replicate(TOP_BITS - 2)))
    return exponent


def places(top: Value, lane: Value) -> Value:
    """How far a lane's exponent is below the largest: PLACE_BITS bits, and one more for anything beyond."""
    away = (top - lane)[:TOP_BITS]
    return Cat(away[:PLACE_BITS], away[PLACE_BITS:].any())


def largest(m: Module, first: Value, second: Value, name: str) -> Signal:
    """The larger of two unsigned numbers."""
    result = Signal(len(first), name=name)
    m.d.comb += result.eq(Mux(first > second, first, second))
    return result


def aligned_lanes(m: Module, lanes: list[tuple[Value, Value, Value]]) -> list[Signal]:
    """(negative, significand, places) as signed numbers: each shifted right with EXTRA_BITS below, lost bits ORed."""
    parts = []
    for index, (negative, significand, places) in enumerate(lanes):
        wide = Cat(Const(0, EXTRA_BITS), significand)
        aligned = shift_right_sticky(m, wide, places, f"lane_{index}")
        part = Signal(signed(ALIGNED_BITS + 1), name=f"lane_{index}_part")
        m.d.comb += part.eq(Mux(negative, -aligned, aligned))
        parts.append(part)
    return parts


def lanes_sum(m: Module, parts: Sequence[Value]) -> Signal:
    """The signed sum of the aligned lanes."""
    total = Signal(signed(SUM_BITS), name="lanes_sum")
    m.d.comb += total.eq((parts[0] + parts[1]) + (parts[2] + parts[3]))
    return total


def normalised_step(m: Module, total: Value, top: Value, bsig: Value) -> Float:
    """The step's sum as a float of MAGNITUDE_BITS significant bits."""
    magnitude, exponent = Signal(MAGNITUDE_BITS, name="step_magnitude"), Signal(8, name="step_exponent")
    m.d.comb += magnitude.eq(abs(total))
    shifted, count = normalise(m, magnitude, "step")
    m.d.comb += exponent.eq((top + bsig + STEP_BIAS - count)[:8] & shifted[-1].replicate(8))
    return Float(total[-1], exponent, shifted)


def add_floats(m: Module, acc: Float, step: Float, name: str) -> Float:
    """acc + step, rounded once to the width of acc's significand, to nearest, ties to even.

    The exponent neither overflows nor falls to 0 but for a sum of zero. The sign of a zero is left open: no further
    addition shows it.
    """
    bits = len(acc.significand)
    widened = Cat(Const(0, bits - len(step.significand)), step.significand)
    subtract, acc_larger = Signal(name=f"{name}_subtract"), Signal(name=f"{name}_acc_larger")
    big, small = Signal(bits, name=f"{name}_big"), Signal(bits, name=f"{name}_small")
    big_exponent, distance = Signal(8, name=f"{name}_big_exponent"), Signal(DISTANCE_BITS, name=f"{name}_distance")
    m.d.comb += [
        subtract.eq(acc.sign ^ step.sign),
        acc_larger.eq(Cat(acc.significand, acc.exponent) >= Cat(widened, step.exponent)),
        big.eq(Mux(acc_larger, acc.significand, widened)),
        small.eq(Mux(acc_larger, widened, acc.significand)),
        big_exponent.eq(Mux(acc_larger, acc.exponent, step.exponent)),
        distance.eq(Mux(acc_larger, acc.exponent - step.exponent, step.exponent - acc.exponent)[:DISTANCE_BITS]),
    ]
    aligned = shift_right_sticky(m, Cat(Const(0, EXTRA_BITS), small), distance, f"{name}_small")
    total = add_or_subtract(m, Cat(Const(0, EXTRA_BITS), big), aligned, subtract, f"{name}_total")
    shifted, count = normalise(m, total, f"{name}_sum")
    # The top bit stands one place above the units place of the larger operand.
    rounded = round_float(m, shifted, big_exponent + 1 - count, bits, name)
    sign = Signal(name=f"{name}_sign")
    m.d.comb += sign.eq(Mux(acc_larger, acc.sign, step.sign))
    return Float(sign, rounded.exponent, rounded.significand)


def round_float(m: Module, shifted: Value, exponent: Value, bits: int, name: str) -> Float:
    """To `bits` significant bits, to nearest, ties to even; the top bit of `shifted` is 1 but for zero. No sign yet."""
    kept, rest = shifted[-bits:], shifted[:-bits]
    rounded, raised = Signal(bits + 1, name=f"{name}_rounded"), Signal(8, name=f"{name}_exponent")
    significand = Signal(bits, name=f"{name}_significand")
    m.d.comb += [
        rounded.eq(kept + (rest[-1] & (kept[0] | rest[:-1].any()))),
        raised.eq((exponent + rounded[-1])[:8] & shifted[-1].replicate(8)),
        significand.eq(Cat(rounded[: bits - 1], rounded[bits - 1] | rounded[-1])),
    ]
    return Float(Const(0, 1), raised, significand)


def scale_step(product: Value, significand: Value) -> Value:
    """One cycle of a product's making: its lowest bit, a scale bit, gates the significand into its top, then all shift.

    After as many steps as the scale has bits the product is whole and the scale is gone.
    """
    low = len(product) - len(significand)
    added = (product[low:] + (significand & product[0].replicate(len(significand))))[: len(significand) + 1]
    return Cat(product[1:low], added)


def rounded_product(m: Module, value: Float, scale_bits: int) -> Float:
    """A significand times its scale, rounded to fp32's significand to nearest, ties to even.

    A product that is not 0 has at most `scale_bits` leading zeros: those of its scale, and one more.
    """
    product = value.significand
    places, current = Signal(scale_bits.bit_length(), name="scaled_places"), product
    for step in reversed(range(len(places))):
        shifted = Signal(len(product), name=f"scaled_by_{1 << step}")
        m.d.comb += places[step].eq(~current[-(1 << step) :].any())
        m.d.comb += shifted.eq(Mux(places[step], Cat(Const(0, 1 << step), current[: -(1 << step)]), current))
        current = shifted
    exponent = value.exponent + scale_bits - places
    if len(current) > FP32_BITS:
        rounded = round_float(m, current, exponent, FP32_BITS, "scaled")
        return Float(value.sign, rounded.exponent, rounded.significand)
    known = Signal(8, name="scaled_exponent_known")
    m.d.comb += known.eq(exponent[:8] & current[-1].replicate(8))
    return Float(value.sign, known, current)


def fp32(value: Float) -> Value:
    """A normalised number of 24 significant bits as fp32; zero is +0."""
    return Cat(value.significand[:-1], value.exponent, value.sign & value.significand[-1])
