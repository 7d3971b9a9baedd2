"""Whether a word is an instruction of this machine, as logic made from the table of fields and from `extents`.

Rules that a narrow field breaks by its value alone (choices, formats, the bytes of a tail) are not written here: each
value is tried on `extents.fault_of` when the logic is made. What several fields break together is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_

from amaranth.hdl import Const, Value
from amaranth.utils import bits_for
from bitwright.arch.isa.encoding import build
from bitwright.arch.isa.extents import fault_of
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import BY_OP, OP_BITS, Field, Layout
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import REGIONS, Limits
from bitwright.rtl.accelerator.interfaces import field

_NARROW_BITS = 6
"""A field of at most so many bits has few enough values to try."""


def illegal(word: Value, op: Op, limits: Limits) -> Value:
    """Whether a word of this op is illegal on the machine: its reserved bits, a field, or several together."""
    layout = BY_OP[int(op)]
    found = [word[layout.used_bits :].any(), *_fields(word, layout, limits)]
    if op is Op.EXECUTE:
        found += _execute(word, limits)
    if op is Op.VECTOR:
        read = field(word, op, "scale") | field(word, op, "bias") | field(word, op, "residual")
        found.append(field(word, op, "free_vec") & ~read)
    return reduce(or_, found)


def unknown(word: Value) -> Value:
    """Whether the op is none."""
    op = word[:OP_BITS]
    return reduce(or_, (op == code for code in range(1 << OP_BITS) if code not in BY_OP))


def _fields(word: Value, layout: Layout, limits: Limits) -> Iterator[Value]:
    for item in layout.fields:
        value = field(word, layout.op, item.name)
        if item.bits <= _NARROW_BITS and not item.flag:
            refused = refused_values(layout, item, limits)
            yield from (value == code for code in refused)
        elif item.least:
            assert (item.least, item.choices) == (1, None), f"{layout.name}.{item.name}: a rule without logic"
            yield ~value.any()
        if item.only_with:
            yield value.any() & ~field(word, layout.op, item.only_with)


def refused_values(layout: Layout, item: Field, limits: Limits) -> list[int]:
    """The values of a narrow field that make the smallest instruction illegal."""
    smallest = {other.name: other.least for other in layout.fields}
    refused = []
    for code in range(1 << item.bits):
        if item.choices is not None and code not in [*item.choices]:
            refused.append(code)
            continue
        found = fault_of(build(layout, {**smallest, item.name: code}), limits, [1 << 32] * REGIONS)
        if found is not None and found[0] is Fault.ILLEGAL_INSTRUCTION:
            refused.append(code)
    return refused


def _execute(word: Value, limits: Limits) -> Iterator[Value]:
    number = field(word, Op.EXECUTE, "format")
    par = field(word, Op.EXECUTE, "par_at").any() | field(word, Op.EXECUTE, "free_par")
    yield from (par & (number == code) for code, form in enumerate(limits.formats) if not form.scale)
    if limits.stationary == "os":
        yield field(word, Op.EXECUTE, "m") > limits.rows
    if limits.weight_rows > 1:
        k, group = field(word, Op.EXECUTE, "k"), field(word, Op.EXECUTE, "group")
        yield (group < k) & (remainder(group, limits.weight_rows) != 0)


def quotient(value: Value, divisor: int) -> Value:
    """value // divisor, exact for every value of its width: by a shift, or by a product with a rounded reciprocal.

    With n bits of value and e = factor * divisor - 2**shift < divisor <= 2**(shift - n), the product is at most
    value / divisor + value * e / (divisor * 2**shift) < value / divisor + 1 / divisor: not the next whole number.
    """
    if divisor & (divisor - 1) == 0:
        places = bits_for(divisor) - 1
        return value[places:] if places < len(value) else Const(0, 1)
    shift = len(value) + bits_for(divisor - 1)
    factor = -(-(1 << shift) // divisor)
    most = ((1 << len(value)) - 1) // divisor
    return ((value * factor) >> shift)[: bits_for(most)]


def remainder(value: Value, divisor: int) -> Value:
    """value % divisor."""
    if divisor & (divisor - 1) == 0:
        return value[: bits_for(divisor) - 1]
    return (value - quotient(value, divisor) * divisor)[: bits_for(divisor - 1)]
