"""Finds circuits that are the same but for their own wires, so that what is proved of one is proved of all.

A circuit is what some bits hang on, registers included, back to inputs. Its own are the wires that a proof leaves free
(cuts, or operands at the input) and the registers that hang on them; everything else is shared. Two circuits are the
same if they are equal term by term: every cell's type, parameters and operands, each of its own wires and registers in
the place of the other's, and what is shared by the very same nets. Names play no part. A proof about one is then, own
wires renamed, a proof about the other, if nothing that is shared, and no wire that says when steps are taken, hangs on
what either renames: this is looked at through all registers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from bitwright.rtl.formal.netlist import Bit, Design

Item = TypeVar("Item")


@dataclass(frozen=True)
class Form:
    """A circuit without the names of its own wires.

    Fields
        key : hashable           Equal for circuits that are the same.
        own : set                The bits that were left out of the key.
        shared : set             Bits of registers and inputs that are in the key as they are.
    """

    key: Hashable
    own: frozenset[Bit] = field(compare=False)
    shared: frozenset[Bit] = field(compare=False)


class Forms:
    """The forms of circuits of one design; only those that the same object made may be compared."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self._numbers: dict[Hashable, int] = {}
        self._owner = {bit: (at, place) for at, item in enumerate(design.registers)
                       for place, bit in enumerate(item.bits)}  # fmt: skip

    def of(
        self, roots: Iterable[Bit], cuts: Sequence[Sequence[Bit]] = (), operands: AbstractSet[Bit] = frozenset()
    ) -> Form:
        """The circuit that `roots` hang on.

        cuts : its own wires, in order: bit i of wire n stands for bit i of wire n of another circuit.
        operands : bits of which each that it meets is its own, in the order in which it meets them.
        """
        walk = _Walk(self, cuts, operands)
        words = [tuple(walk.number(bit) for bit in roots)]
        for at in walk.met:  # grows on the way
            register = self.design.registers[at]
            kind = self.known(register.cell if register.cell == "$dff" else object())  # others have more pins
            words.append((kind, walk.number(register.clock), *(walk.number(bit) for bit in register.loads)))
        wires = tuple(tuple(walk.number(bit) for bit in wire) for wire in cuts)
        registers = (bit for at in walk.met for bit in self.design.registers[at].bits)
        own = frozenset(walk.own) | frozenset(registers)
        return Form((wires, *words), own, frozenset(walk.shared))

    def known(self, term: Hashable) -> int:
        return self._numbers.setdefault(term, len(self._numbers))

    def owner(self, bit: Bit) -> tuple[int, int] | None:
        """The register that a bit is of, and its place there."""
        return self._owner.get(bit)


class _Walk:
    """A number for each bit of one circuit: equal numbers for equal terms."""

    def __init__(self, forms: Forms, cuts: Sequence[Sequence[Bit]], operands: AbstractSet[Bit]) -> None:
        self.forms, self.operands = forms, operands
        self.fixed: dict[Bit, tuple[int, int]] = {}
        for wire, bits in enumerate(cuts):
            for place, bit in enumerate(bits):
                if isinstance(bit, int):
                    self.fixed.setdefault(bit, (wire, place))
        self.own: set[Bit] = set(self.fixed)
        self.shared: set[Bit] = set()
        self.met: list[int] = []
        self._behind = forms.design.behind([*self.fixed, *operands])
        self._places: dict[Bit, int] = {}
        self._ids: dict[Bit, int] = {}

    def number(self, bit: Bit) -> int:
        design, ids = self.forms.design, self._ids
        waiting = [bit]
        while waiting:
            at = waiting[-1]
            name = None if at in self.fixed or at in self.operands else design.driver.get(at)
            if at in ids:
                waiting.pop()
            elif name is None:
                ids[at] = self.forms.known(self._end(at))
            else:
                cell = design.module["cells"][name]
                sides = cell["port_directions"]
                pins = sorted(pin for pin in cell["connections"] if sides[pin] == "input")
                ends = {pin: cell["connections"][pin] for pin in pins}
                missing = [item for bits in ends.values() for item in bits if item not in ids]
                if missing:
                    waiting += reversed(missing)
                    continue
                operands = tuple((pin, *(ids[item] for item in bits)) for pin, bits in ends.items())
                term = self.forms.known((cell["type"], tuple(sorted(cell["parameters"].items())), operands))
                for pin in sorted(cell["connections"].keys() - ends.keys()):
                    for place, item in enumerate(cell["connections"][pin]):
                        if item not in self.fixed and item not in self.operands:
                            ids[item] = self.forms.known((term, pin, place))
        return ids[bit]

    def _end(self, bit: Bit) -> Hashable:
        """What stands for a bit that no cell of logic drives."""
        if not isinstance(bit, int):
            return "constant", bit
        if bit in self.fixed:
            return "cut", *self.fixed[bit]
        if bit in self.operands:
            self.own.add(bit)
            return "operand", self._places.setdefault(bit, len(self._places))
        owner = self.forms.owner(bit)
        if owner is not None and owner[0] in self._behind:
            if owner[0] not in self.met:
                self.met.append(owner[0])
            return "register", self.met.index(owner[0]), owner[1]
        self.shared.add(bit)
        return "shared", bit


def classes(
    items: Iterable[Item], form: Callable[[Item], Form], facts: Callable[[Item], Hashable], design: Design,
    control: Iterable[Bit],
) -> list[list[Item]]:  # fmt: skip
    """The items whose circuits and facts are the same, together; those of which that is no proof stay alone.

    design : the whole one, nothing cut.
    control : bits of the wires that a proof looks at beside the circuit's.
    """
    control = tuple(control)
    found: dict[Hashable, list[tuple[Item, Form]]] = {}
    for item in items:
        made = form(item)
        found.setdefault((made, facts(item)), []).append((item, made))
    out: list[list[Item]] = []
    for members in found.values():
        common = design.history([*members[0][1].shared, *control])
        together = [item for item, made in members if not made.own & common]
        out += [together] if together else []
        out += [[item] for item, made in members if made.own & common]
    return out


def told(count: int) -> str:
    """The method of results that say that `count` more circuits are the same."""
    return f"structure, {count} more"
