"""Where the trees of adders of each PE are in its Verilog, for `trees`: what goes in, and what it is added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.arch.pe.opt import LARGEST_PRODUCT, MULTIPLE_BITS, CarrySave, Opt1, Opt2
from bitwright.arch.pe.opt_sparse import Opt3, Opt4c
from bitwright.arch.pe.shift_add_a16 import ShiftAddA16
from bitwright.arch.pe.shift_add_stream import ShiftAddStream
from bitwright.arch.pe.stream import StreamSpec

_LEAST_PRODUCT = (1 << 7) - LARGEST_PRODUCT
_PLACES = range(4)


@dataclass(frozen=True)
class Term:
    """A wire and what it counts; two's complement if `signed`."""

    wire: str
    weight: int = 1
    signed: bool = False


@dataclass(frozen=True)
class Group:
    """Wires whose weighted total, plus a constant, lies in low..high in every step (its cycles together)."""

    terms: tuple[Term, ...]
    low: int
    high: int
    constant: int = 0


@dataclass(frozen=True)
class Vectors:
    """Two unsigned wires that compressors make: exactly the weighted total of `terms` plus a constant.

    Fields
        place : int              That total is in 0..2**(place + 1) - 1.
        weight : int             What it counts in the tree.
    """

    pair: tuple[str, str]
    place: int
    terms: tuple[Term, ...]
    constant: int
    weight: int = 1


@dataclass(frozen=True)
class Tree:
    """Registers `held`, whose weighted total modulo 2**bits is a sum: a cycle of a step adds all groups to it.

    Fields
        held : mapping           Wires and their weights, unsigned.
        first : str              Wire that is high for the first cycle of a sum, which begins with 0.
        groups : tuple           All in the same stage, `through` registers before that of `held`.
        through : tuple          Pipeline registers that the way from the groups leads through, each once.
        vectors : tuple          Where terms of the groups come as vectors: each term in one of them at most.
    """

    name: str
    bits: int
    held: Mapping[str, int]
    first: str
    groups: tuple[Group, ...]
    through: tuple[str, ...] = ()
    vectors: tuple[Vectors, ...] = ()

    @property
    def low(self) -> int:
        return sum(group.low for group in self.groups)

    @property
    def high(self) -> int:
        return sum(group.high for group in self.groups)


def trees(spec: StreamSpec) -> tuple[Tree, ...]:
    """The trees of a PE whose accumulator has no `cuts` of its own."""
    if isinstance(spec, ShiftAddStream | ShiftAddA16):
        sums = () if spec.cuts else (_shift_add(spec),)
        dots = any(cut.wire == "act_dot" for cut in spec.cuts)
        return (*sums, _act_sum(spec)) if spec.zero_points and not dots else sums
    if isinstance(spec, Opt1):
        return (_opt1(spec),)
    if isinstance(spec, Opt2):
        return (_opt2(spec),)
    if isinstance(spec, Opt3 | Opt4c):
        return tuple(_serial(spec, row) for row in range(spec.sum_lanes))
    return ()


def _first(spec: ShiftAddStream | ShiftAddA16 | CarrySave) -> str:
    """The flow's `first` at the accumulator."""
    return f"first_{spec.pipeline}" if spec.pipeline else "step__payload_first"


def _shift_add(spec: ShiftAddStream | ShiftAddA16) -> Tree:
    top = spec.weight_bits - 1
    groups = []
    for lane in range(spec.lanes):
        terms = [Term(f"term_{lane}_{position}", signed=True) for position in range(spec.weight_bits)]
        if isinstance(spec, ShiftAddA16):
            more, high = Term(f"carries_{lane}"), spec.max_dot // spec.lanes
            low = -high
        else:
            more, low = Term("negate", 1 << top), spec.dot_low // spec.lanes
            high = -low - 1
        groups.append(Group((*terms, more), low, high))
    return Tree("acc", spec.psum.bits, {"acc": 1}, _first(spec), tuple(groups))


def _act_sum(spec: ShiftAddStream | ShiftAddA16) -> Tree:
    groups = []
    for lane in range(spec.lanes):
        if isinstance(spec, ShiftAddA16):
            stage = "_1" if spec.pipeline else ""
            terms = Term(f"value_{lane}{stage}", signed=True), Term(f"carry_{lane}{stage}")
            groups.append(Group(terms, -spec.max_aligned, spec.max_aligned))
        else:
            wire = "step__payload_act" if spec.lanes == 1 else f"step__payload_act_{lane}"
            groups.append(Group((Term(wire, signed=True),), -128, 127))
    return Tree("act_acc", spec.act_sum_bits, {"act_acc": 1}, _first(spec), tuple(groups))


def _multiple(spec: Opt1 | Opt2, lane: int, place: int, weight: int) -> tuple[Term, Term, int]:
    """The multiple of a digit, the one that it lacks, and a constant."""
    if spec.pipeline < 2:
        terms = Term(f"multiple_{lane}_{place}", weight, signed=True), Term(f"digit_{lane}_{place}_negative", weight)
        return *terms, 0
    # Registers, of which the sign bit is inverted: more by 2**8, and unsigned.
    constant = -weight << MULTIPLE_BITS - 1
    return Term(f"multiple_{lane}_{place}_1", weight), Term(f"negative_{lane}_{place}_1", weight), constant


def _multiples(spec: Opt1 | Opt2) -> tuple[Group, ...]:
    """A group a lane: the multiples of its digits and the ones that they lack."""
    groups = []
    for lane in range(spec.lanes):
        found = [_multiple(spec, lane, place, 1 << 2 * place) for place in _PLACES]
        terms = tuple(term for item in found for term in item[:2])
        groups.append(Group(terms, _LEAST_PRODUCT, LARGEST_PRODUCT, sum(constant for *_, constant in found)))
    return tuple(groups)


def _opt1(spec: Opt1) -> Tree:
    last = len(_PLACES) * spec.lanes + spec.lanes - 3  # the multiples, the last ones of all lanes but one, a constant
    groups = _multiples(spec)
    pair = Vectors(
        (f"step_{last}_sum", f"step_{last}_carry"), spec.offset_bits, tuple(t for group in groups for t in group.terms),
        (1 << spec.offset_bits) + sum(group.constant for group in groups),
    )  # fmt: skip
    through = [f"product_{part}_{spec.pipeline}" for part in ("sum", "carry")] if spec.pipeline else []
    held = {f"acc_{part}": 1 for part in ("sum", "carry")}
    return Tree("acc", spec.psum_bits, held, _first(spec), groups, tuple(through), (pair,))


def _opt2(spec: Opt2) -> Tree:
    held = {f"acc_{part}_{place}": 1 << 2 * place for place in _PLACES for part in ("sum", "carry")}
    rows = spec.lanes + (spec.row_constant % (1 << MULTIPLE_BITS) != 0)
    planes = tuple(_plane(spec, place, rows) for place in _PLACES) if rows > 2 else ()
    through = [f"plane_{p}_{part}_{spec.pipeline}" for p in _PLACES for part in ("sum", "carry")]
    through += [f"plane_{p}_one_{n}_{spec.pipeline}" for p in _PLACES for n in range(max(0, spec.lanes - rows + 2))]
    return Tree(
        "acc", spec.psum_bits, held, _first(spec), _multiples(spec), tuple(through if spec.pipeline else ()), planes
    )


def _plane(spec: Opt2, place: int, rows: int) -> Vectors:
    """Rows of a place, its multiples and a constant; compressors have room for two ones less than there are rows."""
    terms, constant = [], 1 << spec.offset_bits
    for lane in range(spec.lanes):
        multiple, one, more = _multiple(spec, lane, place, 1)
        terms += [multiple, one] if lane < rows - 2 else [multiple]
        constant += more
    names = f"plane_{place}_{rows - 3}_sum", f"plane_{place}_{rows - 3}_carry"
    return Vectors(names, spec.offset_bits, tuple(terms), constant, 1 << 2 * place)


def _serial(spec: Opt3 | Opt4c, row: int) -> Tree:
    held = {f"acc_{part}_{row}": 1 for part in ("sum", "carry")}
    first = "first_digit" if spec.encodes and not spec.pipeline else _first(spec)
    negative = f"negative_{spec.pipeline}" if spec.pipeline else "digit_negative"
    shifted = f"shifted_{row}_2" if spec.pipeline == 2 else f"shifted_{row}"
    least = _LEAST_PRODUCT if spec.encodes else -LARGEST_PRODUCT  # a digit code by itself may be 2 * 4**3
    terms = (Term(shifted, signed=True), Term(negative))
    return Tree(f"acc_{row}", spec.psum_bits, held, first, (Group(terms, least, LARGEST_PRODUCT),))
