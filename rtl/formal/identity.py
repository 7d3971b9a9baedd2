"""What a tree of adders adds, by algebra: its output as a polynomial of the wires that go in.

A number made of bits is the polynomial sum 2**i * bit_i. From the outputs back, the highest logic first, the polynomial
of its gate takes the place of each bit: `a ^ b` is a + b - 2ab, `a & b` is ab, and x * x is x. Of a full adder, whose
sum and carry weigh 1 and 2, only a + b + c is left before the next one is opened, so carry-save trees of any size stay
small; a solver, which has to reorder additions bit by bit, is lost in them. A function of bits modulo 2**n has exactly
one such polynomial without squares: equal polynomials are a proof of equal numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from bitwright.rtl.formal.netlist import Bit, Design

Polynomial = dict[frozenset[Bit], int]
Number = tuple[Sequence[Bit], int, bool]  # bits, weight, whether the highest counts negative
_MOST_TERMS = 50_000
GUARD_BITS = 24  # more than all dropped carries of a tree take
_ONE: frozenset[Bit] = frozenset()


class TooLarge(Exception):
    """A polynomial has more terms than are looked at: nothing is known."""


def of_numbers(numbers: Iterable[Number], modulus_bits: int) -> Polynomial:
    """The weighted total of numbers."""
    found: Polynomial = {}
    for bits, weight, is_signed in numbers:
        for place, bit in enumerate(bits):
            value = weight << place
            _add(found, _bit(bit), -value if is_signed and place == len(bits) - 1 else value, modulus_bits)
    return found


def opened(
    design: Design, total: Polynomial, stops: Iterable[Bit], modulus_bits: int,
    never: Iterable[frozenset[Bit]] = (), pipeline: Mapping[Bit, Bit] | None = None, dropped_at: int | None = None,
) -> Polynomial:  # fmt: skip
    """`total` in terms of `stops`, registers, inputs and what no bitwise gate makes, modulo 2**modulus_bits.

    never : sets of bits that are known never to be 1 all together.
    pipeline : bits of registers to pass, and what they load.
    dropped_at : place of a tree's highest bits, whose carries it drops: an `a ^ b` of weight 2**dropped_at becomes
        a + b - 2d with a new bit d, numbered from `design.unused` on, in the place of `a & b`.
    Raises TooLarge where the polynomial does not stay small.
    """
    gates, impossible = _Gates(design, frozenset(stops), pipeline or {}), tuple(never)
    left, holders = dict(total), dict[Bit, set[frozenset[Bit]]]()
    heap: list[tuple[int, Bit]] = []
    made = design.unused

    def note(term: frozenset[Bit]) -> None:
        for bit in term:
            if bit not in holders:
                holders[bit] = set()
                if level := gates.level(bit):
                    heappush(heap, (-level, bit))
            holders[bit].add(term)

    for term in left:
        note(term)
    while heap:
        highest = heappop(heap)[1]
        terms = [term for term in holders.pop(highest) if term in left]
        inside = gates.polynomial(highest)
        if dropped_at is not None and terms == [frozenset([highest])] and left[terms[0]] == 1 << dropped_at:
            linear = {term: value for term, value in inside.items() if len(term) == 1}
            if {len(term): value for term, value in inside.items() if term not in linear} == {2: -2}:
                inside, made = {**linear, frozenset([made]): -2}, made + 1
        for term in terms:
            factor = left.pop(term)
            for other, value in inside.items():
                product = (term - {highest}) | other
                if not any(item <= product for item in impossible):
                    _add(left, {product: 1}, factor * value, modulus_bits)
                    note(product)
        if len(left) > _MOST_TERMS:
            raise TooLarge
    return left


def exactly(design: Design, pair: Polynomial, goal: Polynomial, stops: Iterable[Bit], place: int) -> bool:
    """Whether a carry-save pair, each below 2**(place + 1), is `goal` as a number, not only modulo 2**(place + 1).

    `goal` is known to be in 0..2**(place + 1) - 1. The tree that makes the pair drops the carries out of its highest
    place: if goal = pair + 2**(place + 1) * (total of such bits), then none of them is ever 1.
    """
    wide = place + 1 + GUARD_BITS
    found = opened(design, pair, stops, wide, dropped_at=place)
    lost = sum_of([goal, {term: -value for term, value in found.items()}], 0, wide)
    new = all(len(term) == 1 and min(map(int, term)) >= design.unused for term in lost)
    whole = all(value % (2 << place) == 0 for value in lost.values())
    return new and whole and sum(lost.values()) < 1 << wide - 1


def unless(total: Polynomial, bit: Bit) -> Polynomial:
    """`total` where the bit is 0, else 0."""
    return _times(total, _plus((1, {_ONE: 1}), (-1, _bit(bit))))


def sum_of(parts: Iterable[Polynomial], constant: int, modulus_bits: int) -> Polynomial:
    found: Polynomial = {}
    for part in (*parts, {_ONE: constant}):
        _add(found, part, 1, modulus_bits)
    return found


def adder_inputs(design: Design, bits: Sequence[Bit]) -> list[Sequence[Bit]]:
    """The two operands of the word-level adder whose lowest output bits these are; the bits themselves if none is."""
    names = {design.driver.get(bit) for bit in bits}
    cell = design.module["cells"].get(names.pop()) if len(names) == 1 else None
    if cell is None or cell["type"] != "$add" or tuple(cell["connections"]["Y"][: len(bits)]) != tuple(bits):
        return [bits]
    return [[_at(cell, pin, place) for place in range(len(bits))] for pin in "AB"]


def _add(into: Polynomial, terms: Mapping[frozenset[Bit], int], factor: int, modulus_bits: int) -> None:
    for term, value in terms.items():
        total = (into.get(term, 0) + factor * value) % (1 << modulus_bits)
        if total:
            into[term] = total
        else:
            into.pop(term, None)


def _bit(bit: Bit) -> Polynomial:
    if isinstance(bit, int):
        return {frozenset([bit]): 1}
    assert bit in ("0", "1"), f"a constant {bit} in an adder"
    return {_ONE: 1} if bit == "1" else {}


def _times(first: Polynomial, second: Polynomial) -> Polynomial:
    found: Polynomial = {}
    for one, value in first.items():
        for other, factor in second.items():
            found[one | other] = found.get(one | other, 0) + value * factor
    return found


def _plus(*parts: tuple[int, Polynomial]) -> Polynomial:
    found: Polynomial = {}
    for factor, part in parts:
        for term, value in part.items():
            found[term] = found.get(term, 0) + factor * value
    return found


def _at(cell: Mapping[str, object], pin: str, place: int) -> Bit:
    """Bit `place` of an operand, extended as the cell extends it."""
    connections, parameters = cell["connections"], cell["parameters"]
    assert isinstance(connections, Mapping)
    assert isinstance(parameters, Mapping)
    bits: Sequence[Bit] = connections[pin]
    if place < len(bits):
        return bits[place]
    is_signed = int(str(parameters.get("A_SIGNED", "0")), 2) and int(str(parameters.get("B_SIGNED", "1")), 2)
    return bits[-1] if is_signed else "0"


class _Gates:
    """The bitwise gates of a design, between `stops`, registers and inputs and whatever is wanted."""

    def __init__(self, design: Design, stops: frozenset[Bit], pipeline: Mapping[Bit, Bit]) -> None:
        self.cells, self.stops, self.pipeline = design.module["cells"], stops, pipeline
        self.places: dict[Bit, tuple[str, int]] = {}
        for name, cell in self.cells.items():
            if cell["type"] in ("$and", "$or", "$xor", "$not", "$mux"):
                self.places.update((bit, (name, place)) for place, bit in enumerate(cell["connections"]["Y"]))
        self.levels: dict[Bit, int] = {}
        self.same: dict[Bit, Bit] = {}  # one bit for all that the same gate makes of the same operands
        self.known: dict[tuple[object, ...], Bit] = {}

    def level(self, bit: Bit) -> int:
        """Gates on the longest way back to where polynomials end; 0 there."""
        waiting = [bit]
        while waiting:
            at = waiting[-1]
            operands = self._operands(at)
            unknown = [item for item in operands if item not in self.levels]
            if unknown:
                waiting += unknown
            else:
                self.levels[at] = 1 + max((self.levels[item] for item in operands), default=-1)
                if operands and at not in self.pipeline:
                    kind = self._kind(at)
                    order = operands if kind == "$mux" else sorted(operands, key=str)
                    self.same[at] = self.known.setdefault((kind, *order), at)
                waiting.pop()
        return self.levels[bit]

    def _operands(self, bit: Bit) -> list[Bit]:
        if bit in self.pipeline:
            found = [self.pipeline[bit]]
        elif not self._kind(bit):
            return []
        else:
            name, place = self.places[bit]
            cell = self.cells[name]
            select = cell["connections"].get("S", ())
            found = [*(_at(cell, pin, place) for pin in "AB" if pin in cell["connections"]), *select]
        return [self.same.get(item, item) for item in found]

    def polynomial(self, bit: Bit) -> Polynomial:
        """Of the gate that makes the bit."""
        parts = [_bit(operand) for operand in self._operands(bit)]
        if bit in self.pipeline:
            return parts[0]
        kind = self._kind(bit)
        if kind == "$not":
            return _plus((1, {_ONE: 1}), (-1, parts[0]))
        if kind == "$mux":
            low, high, select = parts
            return _plus((1, low), (-1, _times(select, low)), (1, _times(select, high)))
        both = _times(*parts)
        if kind == "$and":
            return both
        if kind in ("$or", "$xor") and self._never_both(*self._operands(bit)):
            return _plus((1, parts[0]), (1, parts[1]))
        return _plus((1, parts[0]), (1, parts[1]), (-2 if kind == "$xor" else -1, both))

    def _never_both(self, one: Bit, other: Bit) -> bool:
        """Whether two bits are `a & b` and `(a ^ b) & c`: then their product is 0, which only all of a and b shows."""
        for both, either in ((one, other), (other, one)):
            pair = self._operands(both) if self._kind(both) == "$and" else []
            for bit in self._operands(either) if pair and self._kind(either) == "$and" else []:
                if self._kind(bit) == "$xor" and set(self._operands(bit)) == set(pair):
                    return True
        return False

    def _kind(self, bit: Bit) -> str:
        inside = bit in self.places and bit not in self.stops and bit not in self.pipeline
        return str(self.cells[self.places[bit][0]]["type"]) if inside else ""
