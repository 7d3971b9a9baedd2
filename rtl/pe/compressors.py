"""Carry-save arithmetic: 3-2 compressors, trees of them, accumulators of two vectors, and the adder after the last."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Signal, Value
from bitwright.rtl.pe.stream import Flow, HeldSum

Vectors = tuple[Value, Value]


def compress_3_2(
    m: Module, rows: Sequence[Value], width: int, name: str, one: Value | None = None
) -> tuple[Signal, Signal]:
    """Three unsigned rows to `{name}_sum` and `{name}_carry`, which add up to the same modulo 2**width.

    `one`, a bit, is added in the carry's free lowest place. No signal is longer than its bits can be nonzero.
    """
    first, second, third = (row[:width] for row in rows)
    lengths = sorted(len(row) for row in (first, second, third))
    total = Signal(lengths[2], name=f"{name}_sum")
    carry = Signal(min(lengths[1] + 1, width), name=f"{name}_carry")
    both = (first & second) | ((first ^ second) & third)
    m.d.comb += [
        total.eq(first ^ second ^ third),
        carry.eq(Cat(Const(0, 1) if one is None else one, both[: len(carry) - 1])),
    ]
    return total, carry


def compress_4_2(
    m: Module, rows: Sequence[Value], width: int, name: str, ones: Sequence[Value] = ()
) -> tuple[Signal, Signal]:
    """Four rows to two, as two 3-2 compressors: the fourth row enters the second. At most two ones are added."""
    spare: list[Value | None] = [*ones, None, None]
    total, carry = compress_3_2(m, rows[:3], width, f"{name}_0", spare[0])
    return compress_3_2(m, (total, carry, rows[3]), width, f"{name}_1", spare[1])


def compress_all(
    m: Module, rows: Sequence[Value], width: int, name: str, ones: Sequence[Value] = ()
) -> tuple[Vectors, list[Value]]:
    """(two vectors that add up to two or more rows and the ones that found a place, the ones that did not).

    The layers of arch.pe.opt.compress_all: rows in threes, in order; the rest moves behind the results.
    """
    left, spare, number = list(rows), list(ones), 0
    while len(left) > 2:
        whole = len(left) // 3 * 3
        found: list[Value] = []
        for at in range(0, whole, 3):
            one = spare.pop(0) if spare else None
            found += compress_3_2(m, left[at : at + 3], width, f"{name}_{number}", one)
            number += 1
        left = [*found, *left[whole:]]
    return (left[0], left[1]), spare


def joined_top(vectors: Vectors, offset_bits: int) -> Vectors:
    """Two vectors whose total is below 2**(offset_bits + 1), the top bit of either moved into the first."""
    padded = [Cat(vector, Const(0, offset_bits + 1))[: offset_bits + 1] for vector in vectors]
    top = padded[0][offset_bits] | padded[1][offset_bits]
    return Cat(padded[0][:offset_bits], top), padded[1][:offset_bits]


def accumulator(flow: Flow, width: int, suffix: str = "") -> tuple[Signal, Signal]:
    """The registers `acc_sum` and `acc_carry`."""
    return flow.register(width, f"acc_sum{suffix}"), flow.register(width, f"acc_carry{suffix}")


def kept(m: Module, flow: Flow, acc: tuple[Signal, Signal], suffix: str = "") -> Vectors:
    """What the accumulator holds of the running sum: nothing at its first step."""
    keep = Signal(name=f"keep{suffix}")
    parts = [Signal(len(part), name=f"kept_{name}{suffix}") for name, part in zip(("sum", "carry"), acc, strict=True)]
    m.d.comb += keep.eq(~flow.first)
    m.d.comb += [held.eq(part & keep.replicate(len(part))) for held, part in zip(parts, acc, strict=True)]
    return parts[0], parts[1]


def accumulate(
    m: Module, flow: Flow, acc: tuple[Signal, Signal], vectors: Vectors, offset_bits: int,
    ones: Sequence[Value] = (), suffix: str = "",
) -> None:  # fmt: skip
    """acc <- (first ? 0 : acc) + vectors + ones - 2**offset_bits, modulo 2**width: a 4-2 compressor and nothing else.

    `vectors` come from `joined_top`. Minus one at the offset's place is one there and ones in all places above.
    """
    width = len(acc[0])
    first = Cat(vectors[0], Const(-1, width))[:width]
    second = Cat(vectors[1], Const(1, 1))[:width]
    rows = (*kept(m, flow, acc, suffix), first, second)
    total, carry = compress_4_2(m, rows, width, f"loop{suffix}", ones)
    with m.If(flow.advance & flow.valid):
        m.d.sync += [acc[0].eq(total), acc[1].eq(carry)]


def resolve(m: Module, flow: Flow, vectors: Vectors, cycles: int, suffix: str = "") -> Value:
    """The vectors' sum modulo 2**width, added in `cycles` segments, a cycle each, lowest first.

    The vectors are the registers that the flow's current stage loads. The adder's own registers load for the last step
    of a sum only.
    """
    return resolve_all(m, flow, [vectors], cycles, [suffix])[0]


def resolve_all(m: Module, flow: Flow, pairs: Sequence[Vectors], cycles: int, suffixes: Sequence[str]) -> list[Value]:
    """`resolve` of several pairs of vectors under one control. What it returns is to be the sum's payload."""
    width = len(pairs[0][0])
    segment = -(-width // cycles)
    left, done = list(pairs), [Const(0, 0) for _ in pairs]
    carries: list[Value | None] = [None for _ in pairs]
    for at in range(cycles):
        flow.cut()
        load = flow.advance & flow.valid & flow.last
        for place, suffix in enumerate(suffixes):
            first, second = left[place]
            name = f"resolved_{at}{suffix}"
            bits = min(segment, len(first))
            total = Signal(bits + 1, name=f"{name}_next")
            both, carry = first[:bits] + second[:bits], carries[place]
            m.d.comb += total.eq(both if carry is None else both + carry)
            value = Cat(done[place], total[:bits])
            kept = Signal(len(value), name=name, reset_less=True)
            with m.If(load):
                m.d.sync += kept.eq(value)
            done[place] = kept
            if at + 1 < cycles:
                flow.holds(kept, ended=True)
                over = [Signal(len(first) - bits, name=f"{name}_{part}", reset_less=True) for part in ("sum", "carry")]
                out = Signal(name=f"{name}_out", reset_less=True)
                with m.If(load):
                    m.d.sync += [over[0].eq(first[bits:]), over[1].eq(second[bits:]), out.eq(total[bits])]
                flow.holds(*over, out, ended=True)
                left[place], carries[place] = (over[0], over[1]), out
    flow.pe.held_sums.append(HeldSum(("sum__payload",), ("sum__valid",)))
    return list(done)
