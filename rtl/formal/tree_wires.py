"""Where the trees of adders of each PE are in its Verilog, for `trees`: what goes in, and what it is added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.arch.pe.opt import LARGEST_PRODUCT, MULTIPLE_BITS, Opt1, Opt2
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16
from bitwright.arch.pe.shift_add_stream import ShiftAddStream
from bitwright.arch.pe.stream import Cut, StreamSpec

_LEAST_PRODUCT = (1 << 7) - LARGEST_PRODUCT
_PLACES = range(4)


@dataclass(frozen=True)
class Group:
    """Wires whose weighted total, plus a constant, lies in low..high in every step (its cycles together)."""

    cuts: tuple[Cut, ...]
    low: int
    high: int
    constant: int = 0


@dataclass(frozen=True)
class Tree:
    """Registers `held`, whose weighted total modulo 2**bits is a sum: each cycle of a step loads `kept` + all groups.

    Fields
        held, kept : mapping     Wires and their weights, unsigned.
        groups : tuple           All in the same stage, `through` registers before that of `held`.
        through : tuple          Pipeline registers that the way from the groups leads through, each once.
        apart : tuple            Pairs of wires whose bits of the place given are never both 1.
    """

    name: str
    bits: int
    held: Mapping[str, int]
    kept: Mapping[str, int]
    groups: tuple[Group, ...]
    through: tuple[str, ...] = ()
    apart: tuple[tuple[str, str, int], ...] = ()

    @property
    def low(self) -> int:
        return sum(group.low for group in self.groups)

    @property
    def high(self) -> int:
        return sum(group.high for group in self.groups)


def trees(spec: StreamSpec) -> tuple[Tree, ...]:
    """The trees of a PE whose accumulator has no `cuts` of its own."""
    if spec.cuts:
        return ()
    if isinstance(spec, ShiftAddStream | ShiftAddA16):
        return (_shift_add(spec),)
    if isinstance(spec, Opt1):
        return (_opt1(spec),)
    if isinstance(spec, Opt2):
        return (_opt2(spec),)
    if isinstance(spec, Opt3 | Opt4c):
        return tuple(_serial(spec, row) for row in range(spec.sum_lanes))
    return ()


def _shift_add(spec: ShiftAddStream | ShiftAddA16) -> Tree:
    top = spec.weight_bits - 1
    groups = []
    for lane in range(spec.lanes):
        terms = [(f"term_{lane}_{position}", position) for position in range(spec.weight_bits)]
        if isinstance(spec, ShiftAddA16):
            width, largest = spec.kept_bits, spec.max_aligned << top + 1
            more = Cut(f"carries_{lane}", 0, (1 << spec.weight_bits) - 1, signed=False)
            # Of the highest place the carry is inverted for signed codes, with the 1 that the inverted term lacks.
            low, high = -(largest - spec.max_aligned), largest - spec.max_aligned
        else:
            width, more = spec.act.bits - 1, Cut("negate", 0, 1, signed=False, weight=1 << top)
            low, high = spec.dot_low // spec.lanes, -spec.dot_low // spec.lanes - 1
        cuts = tuple(Cut(name, -1 << width + place, ((1 << width) - 1) << place) for name, place in terms)
        groups.append(Group((*cuts, more), low, high))
    return Tree("acc", spec.psum.bits, {"acc": 1}, {"acc_start": 1}, tuple(groups))


def _multiples(spec: Opt1 | Opt2) -> tuple[Group, ...]:
    """A group a lane: the multiples of its digits and the ones that they lack."""
    groups = []
    for lane in range(spec.lanes):
        cuts, constant = [], 0
        for place in _PLACES:
            weight = 1 << 2 * place
            if spec.pipeline == 2:  # registers, of which the sign bit is inverted: more by 2**8, and unsigned
                cuts.append(Cut(f"multiple_{lane}_{place}_1", 0, 511, signed=False, weight=weight))
                constant -= weight << MULTIPLE_BITS - 1
            else:
                cuts.append(Cut(f"multiple_{lane}_{place}", -256, 255, weight=weight))
            negative = f"negative_{lane}_{place}_1" if spec.pipeline == 2 else f"digit_{lane}_{place}_negative"
            cuts.append(Cut(negative, 0, 1, signed=False, weight=weight))
        groups.append(Group(tuple(cuts), _LEAST_PRODUCT, LARGEST_PRODUCT, constant))
    return tuple(groups)


def _opt1(spec: Opt1) -> Tree:
    last = len(_PLACES) * spec.lanes + spec.lanes - 3  # the multiples, the last ones of all lanes but one, a constant
    pair = (f"step_{last}_sum", f"step_{last}_carry", spec.offset_bits)
    through = [f"product_{part}_{spec.pipeline}" for part in ("sum", "carry")] if spec.pipeline else []
    held, kept = ({f"{name}_{part}": 1 for part in ("sum", "carry")} for name in ("acc", "kept"))
    return Tree("acc", spec.psum_bits, held, kept, _multiples(spec), tuple(through), (pair,))


def _opt2(spec: Opt2) -> Tree:
    held, kept = (
        {f"{name}_{part}_{place}": 1 << 2 * place for place in _PLACES for part in ("sum", "carry")}
        for name in ("acc", "kept")
    )
    rows = spec.lanes + (spec.row_constant % (1 << MULTIPLE_BITS) != 0)
    pairs = [(f"plane_{p}_{rows - 3}_sum", f"plane_{p}_{rows - 3}_carry", spec.offset_bits) for p in _PLACES]
    through = [f"plane_{p}_{part}_{spec.pipeline}" for p in _PLACES for part in ("sum", "carry")]
    through += [f"plane_{p}_one_{n}_{spec.pipeline}" for p in _PLACES for n in range(max(0, spec.lanes - rows + 2))]
    return Tree(
        "acc", spec.psum_bits, held, kept, _multiples(spec), tuple(through if spec.pipeline else ()),
        tuple(pairs if rows > 2 else ()),
    )  # fmt: skip


def _serial(spec: Opt3 | Opt4c, row: int) -> Tree:
    held, kept = ({f"{name}_{part}_{row}": 1 for part in ("sum", "carry")} for name in ("acc", "kept"))
    negative = f"negative_{spec.pipeline}" if spec.pipeline else "digit_negative"
    shifted = f"shifted_{row}_2" if spec.pipeline == 2 else f"shifted_{row}"
    least = _LEAST_PRODUCT if spec.encodes else -LARGEST_PRODUCT  # a digit code by itself may be 2 * 4**3
    cuts = (Cut(shifted, -1 << 14, (1 << 14) - 1), Cut(negative, 0, 1, signed=False))
    return Tree(f"acc_{row}", spec.psum_bits, held, kept, (Group(cuts, least, LARGEST_PRODUCT),))

