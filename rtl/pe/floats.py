"""Floating-point building blocks that several processing elements share. Each adds logic to a given module."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value


@dataclass(frozen=True)
class Unpacked:
    """Fields of an IEEE 754 number. `significand` has its hidden bit; `exponent` is the raw field, 0 if subnormal."""

    sign: Value
    exponent: Value
    significand: Value
    normal: Value
    zero: Value
    special: Value
    nan: Value
    inf: Value


def unpack(m: Module, bits: Value, exponent_bits: int, name: str) -> Unpacked:
    """Split the IEEE 754 number `bits`; new signals are called `<name>_...`."""
    fraction_bits = len(bits) - 1 - exponent_bits
    fraction, exponent = bits[:fraction_bits], bits[fraction_bits:-1]
    flags = {
        flag: Signal(name=f"{name}_{flag}") for flag in ("normal", "special", "fraction_zero", "zero", "nan", "inf")
    }
    significand = Signal(fraction_bits + 1, name=f"{name}_significand")
    m.d.comb += [
        flags["normal"].eq(exponent.any()),
        flags["special"].eq(exponent.all()),
        flags["fraction_zero"].eq(~fraction.any()),
        flags["zero"].eq(~flags["normal"] & flags["fraction_zero"]),
        flags["nan"].eq(flags["special"] & ~flags["fraction_zero"]),
        flags["inf"].eq(flags["special"] & flags["fraction_zero"]),
        significand.eq(Cat(fraction, flags["normal"])),
    ]
    return Unpacked(
        bits[-1], exponent, significand, flags["normal"], flags["zero"], flags["special"], flags["nan"], flags["inf"]
    )


def effective_exponent(number: Unpacked) -> Value:
    """The exponent field with a subnormal's 0 read as 1."""
    return Cat(number.exponent[0] | ~number.normal, number.exponent[1:])


def normalise(
    m: Module, value: Value, name: str, enable: Value | None = None, otherwise: int = 0
) -> tuple[Signal, Signal]:
    """Shift `value` left until its top bit is 1; returns (shifted, count of places).

    Steps of 2**k places, largest first, each deciding by its own leading bits: count and shift in one chain, which is
    smaller than a separate leading-zero counter and shifter. Where `enable` is given and low, the shift is by
    `otherwise` places. A value of 0 stays 0, with the count at 2**steps - 1.
    """
    width, current = len(value), value
    steps = (width - 1).bit_length()
    count = Signal(steps, name=f"{name}_count")
    for step in reversed(range(steps)):
        places = 1 << step
        shifted = Signal(width, name=f"{name}_by_{places}")
        select = ~current[-places:].any()
        if enable is not None:
            select = select | ~enable if otherwise >> step & 1 else select & enable
        m.d.comb += [
            count[step].eq(select),
            shifted.eq(Mux(count[step], Cat(Const(0, places), current[:-places]), current)),
        ]
        current = shifted
    return current, count


def shift_right_sticky(m: Module, value: Value, places: Value, name: str) -> Signal:
    """`value` shifted right by `places`, with the OR of all lost bits in bit 0 (which must be free to hold it).

    A shift that no stage covers (2**steps places or more, beyond the width) gives 0 without a sticky bit: so far below
    a normalised operand, nothing changes a sum rounded to nearest.
    """
    width, current = len(value), value
    steps = (width - 1).bit_length()
    lost: list[Value] = []
    for step in range(steps):
        distance = 1 << step
        shifted = Signal(width, name=f"{name}_by_{distance}")
        m.d.comb += shifted.eq(Mux(places[step], current[distance:], current))
        lost.append(places[step] & current[:distance].any())
        current = shifted
    near, sticky = Signal(name=f"{name}_near"), Signal(name=f"{name}_sticky")
    result = Signal(width, name=f"{name}_aligned")
    m.d.comb += [
        near.eq(~places[steps:].any()),
        sticky.eq(Cat(lost).any() | current[0]),
        result.eq(Cat(sticky, current[1:]) & near.replicate(width)),
    ]
    return result


def add_or_subtract(
    m: Module, big: Value, small: Value, subtract: Value, name: str, reverse: Value | None = None
) -> Signal:
    """big + small, or big - small, or with `reverse` (which asks for `subtract` too) small - big; one bit wider.

    The difference must not be negative. One adder, with its carry-in.
    """
    width = len(big)
    both = Signal(width + 2, name=f"{name}_with_carry_in")
    total = Signal(width + 1, name=name)
    invert_big: Value = Const(0, 1) if reverse is None else reverse
    invert_small = subtract if reverse is None else subtract & ~reverse
    first, second = big ^ invert_big.replicate(width), small ^ invert_small.replicate(width)
    m.d.comb += [
        both.eq(Cat(Const(1, 1), first) + Cat(subtract, second)),
        total.eq(Cat(both[1:-1], both[-1] & ~subtract)),
    ]
    return total


def leading_zeros(m: Module, value: Value, name: str) -> Signal:
    """How many zeros stand above the highest 1 of `value`; all ones if it is 0. A tree, of logarithmic depth."""
    steps = max((len(value) - 1).bit_length(), 1)

    def halve(part: Value, level: int) -> tuple[Value, Value]:
        """(any bit set, leading zeros) of a part of 2**level bits, level at least 1."""
        if level == 1:
            return part.any(), ~part[1]
        high_any, high = halve(part[1 << (level - 1) :], level - 1)
        low_any, low = halve(part[: 1 << (level - 1)], level - 1)
        return high_any | low_any, Cat(Mux(high_any, high, low)[: level - 1], ~high_any)

    count = Signal(steps, name=name)
    m.d.comb += count.eq(halve(Cat(Const(0, (1 << steps) - len(value)), value), steps)[1])
    return count


def round_fields(m: Module, value: Value, exponent: Value, exponent_bits: int, fraction_bits: int, name: str) -> Signal:
    """Round to nearest, ties to even, and pack: returns exponent and fraction fields, infinity on overflow.

    value : the significand, its top bit the units place; 0 there with `exponent` 1 means a subnormal (or zero).
    exponent : biased, at least 1, may exceed the field.
    """
    limit = (1 << exponent_bits) - 1
    kept, guard, below = value[-1 - fraction_bits : -1], value[-2 - fraction_bits], value[: -2 - fraction_bits]
    up, overflow = Signal(name=f"{name}_round_up"), Signal(name=f"{name}_overflow")
    rounded = Signal(exponent_bits + fraction_bits, name=f"{name}_rounded")
    field = exponent[:exponent_bits] & value[-1].replicate(exponent_bits)
    m.d.comb += [
        overflow.eq((exponent >= limit) & value[-1]),
        up.eq(guard & (kept[0] | below.any())),
        rounded.eq(Mux(overflow, Const(limit << fraction_bits), Cat(kept, field) + up)),
    ]
    return rounded


def fp32_add(m: Module, first: Value, second: Value, name: str) -> Signal:
    """The fp32 sum of two fp32 numbers, to nearest, ties to even, all of IEEE 754; NaN is 0x7fc00000."""
    a, b = unpack(m, first, 8, f"{name}_a"), unpack(m, second, 8, f"{name}_b")
    subtract, a_larger = Signal(name=f"{name}_subtract"), Signal(name=f"{name}_a_larger")
    exponents = [Signal(8, name=f"{name}_{which}_exponent") for which in ("big", "small")]
    big, small = Signal(24, name=f"{name}_big"), Signal(24, name=f"{name}_small")
    m.d.comb += [
        subtract.eq(a.sign ^ b.sign),
        a_larger.eq(first[:31] >= second[:31]),
        exponents[0].eq(Mux(a_larger, effective_exponent(a), effective_exponent(b))),
        exponents[1].eq(Mux(a_larger, effective_exponent(b), effective_exponent(a))),
        big.eq(Mux(a_larger, a.significand, b.significand)),
        small.eq(Mux(a_larger, b.significand, a.significand)),
    ]
    distance = Signal(8, name=f"{name}_distance")
    m.d.comb += distance.eq(exponents[0] - exponents[1])
    aligned = shift_right_sticky(m, Cat(Const(0, 3), small), distance, f"{name}_small")
    total = add_or_subtract(m, Cat(Const(0, 3), big), aligned, subtract, f"{name}_total")
    shifted, exponent = shift_to_exponent(m, total, exponents[0] + 1, f"{name}_sum")
    rounded = round_fields(m, shifted, exponent, 8, 23, name)
    sign, nan = Signal(name=f"{name}_sign"), Signal(name=f"{name}_nan")
    result = Signal(32, name=f"{name}_result")
    m.d.comb += [
        sign.eq(Mux(a_larger, a.sign, b.sign) & ~(subtract & ~total.any())),
        nan.eq(a.nan | b.nan | (a.inf & b.inf & subtract)),
        result.eq(Cat(rounded, sign)),
    ]
    with m.If(a.special | b.special):
        # The larger magnitude is the infinity, if there is one, so `sign` is already its sign.
        m.d.comb += result.eq(Cat(Const(0, 22), nan, Const(0xFF, 8), sign & ~nan))
    return result


def shift_to_exponent(m: Module, value: Value, exponent: Value, name: str) -> tuple[Value, Value]:
    """Shift `value` left until its top bit is 1 or the exponent has come down to 1; returns (shifted, exponent).

    exponent : biased exponent of the top bit before the shift; at least 1.
    """
    zeros = leading_zeros(m, value, f"{name}_zeros")
    room, places = Signal(len(exponent), name=f"{name}_room"), Signal(len(zeros), name=f"{name}_places")
    left, lowered = Signal(len(value), name=f"{name}_shifted"), Signal(len(exponent), name=f"{name}_exponent")
    m.d.comb += [
        room.eq(exponent - 1),
        places.eq(Mux(zeros > room, room[: len(zeros)], zeros)),
        left.eq((value << places)[: len(value)]),
        lowered.eq(exponent - places),
    ]
    return left, lowered
