"""Bit-weight engines without a carry-propagate adder in the accumulation loop: opt1 and opt2, and what all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, Timing, require_ranges, wrap
from bitwright.arch.pe.digits import PLACES, digits, require_encoding
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.arch.pe.stream import FIRST, LAST, Field, State, Steps, StreamSpec, running

MULTIPLE_BITS = 9  # a digit times an operand, before its negation: signed, of magnitude 256 at most
LARGEST_PRODUCT = 1 << 14  # -128 * -128; the least is -(2**14 - 2**7)


def compress(first: IntArray, second: IntArray, third: IntArray) -> tuple[IntArray, IntArray]:
    """The 3-2 compressor: two vectors, sum and carry, that add up to the three."""
    either = first ^ second
    return either ^ third, ((first & second) | (either & third)) << 1


def compress_all(rows: Sequence[IntArray], ones: Sequence[IntArray] = ()) -> tuple[IntArray, IntArray]:
    """Two vectors that add up to all rows (two or more): layers of 3-2 compressors, each row used in order.

    A layer takes the rows in threes; what is left of them moves behind its results. The hardware has the same layers.
    Each compressor adds one of `ones` in the carry's free lowest place; the last of them find none if there are more
    than len(rows) - 2, and are left out.
    """
    left, spare = list(rows), list(ones)
    while len(left) > 2:
        whole = len(left) // 3 * 3
        found: list[IntArray] = []
        for at in range(0, whole, 3):
            total, carry = compress(*left[at : at + 3])
            found += [total, carry | spare.pop(0) if spare else carry]
        left = [*found, *left[whole:]]
    return left[0], left[1]


def accumulate(
    state: State, vectors: tuple[IntArray, IntArray], offset_bits: int, bits: int, ones: Sequence[IntArray] = ()
) -> State:
    """state + vectors + ones - 2**offset_bits as two vectors of `bits` bits: the accumulator's 4-2 compressor.

    The vectors' total is below 2 * 2**offset_bits, so at most one of them has the top bit. Minus one at that place is
    one minus two of it: ones in the places above. At most two ones, one for each of the two layers.
    """
    everything, low, one = (1 << bits) - 1, (1 << offset_bits) - 1, 1 << offset_bits
    zero = np.zeros_like(vectors[0])
    added = [*ones, zero, zero]
    top = (vectors[0] | vectors[1]) & one
    first, second = vectors[0] & low | top | (everything ^ low ^ one), vectors[1] & low | one
    once = compress(state[0], state[1], first)
    twice = compress(once[0], (once[1] | added[0]) & everything, second)
    return twice[0], (twice[1] | added[1]) & everything


@dataclass(frozen=True)
class CarrySave(StreamSpec):
    """What opt1 to opt4c share: int8 operands, exact sums modulo 2**psum_bits, accumulators of two vectors.

    Parameters
        psum_bits : 24..48       Width of a sum.
        resolve_cycles : 0..4    Cycles of the carry-propagate add after the last step, psum_bits / resolve_cycles bits
            each, lowest first. 0: there is none; the sum goes out as the two vectors, `psum_sum` and `psum_carry`, for
            an adder that several PEs share; they add up to the sum modulo 2**psum_bits.
        pipeline : 0..2          Registers before the accumulator.
    Source       the paper's own PEs are resolve_cycles = 0: its carry-propagate adders are in a SIMD unit outside the
                 array. The default has an adder in each PE, so that a sum is one number, as of every other PE. It costs
                 `resolve_register_bits` flip-flops beside the accumulator's 2 * psum_bits (psum_bits of them at one
                 cycle, 5/2 psum_bits + 1 at two), the adder, and three bits of control a cycle. Areas compare with the
                 paper's at resolve_cycles = 0 only.
                 Not built: OPT4E, four PEs before one 6-2 compressor.
    """

    psum_bits: int = 32
    resolve_cycles: int = 2
    pipeline: int = 0

    act: ClassVar[OperandType] = OperandType("int8", 8, "int")
    wgt: ClassVar[OperandType] = OperandType("int8", 8, "int")
    edge_unit: ClassVar[str] = "group-dequantiser"
    ranges: ClassVar[Mapping[str, tuple[int, int]]] = {
        "psum_bits": (24, 48),
        "resolve_cycles": (0, 4),
        "pipeline": (0, 2),
    }

    def __post_init__(self) -> None:
        require_ranges(self, **self.ranges)

    @property
    def psum(self) -> OperandType:
        return OperandType(f"int{self.psum_bits}", self.psum_bits, "int")

    @property
    def timing(self) -> Timing:  # type: ignore[override]
        return Timing(latency_cycles=1 + self.pipeline + self.resolve_cycles)

    @property
    def resolve_register_bits(self) -> int:
        """Flip-flops of the adders inside, control left out: what is added so far, what is not yet, and a carry."""
        if not self.resolve_cycles:
            return 0
        segment, total = -(-self.psum_bits // self.resolve_cycles), 0
        for done in range(segment, self.psum_bits, segment):
            total += done + 2 * (self.psum_bits - done) + 1
        return self.sum_lanes * (total + self.psum_bits)

    @property
    def sum_lanes(self) -> int:
        """Sums that a PE makes at once."""
        return 1

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        if self.resolve_cycles:
            return (Field("psum", self.psum_bits, self.sum_lanes, signed=True),)
        return tuple(Field(name, self.psum_bits, self.sum_lanes) for name in ("psum_sum", "psum_carry"))

    @property
    def longest_sum(self) -> int:
        return ((1 << (self.psum_bits - 1)) - 1) // (LARGEST_PRODUCT * self.macs_per_step // self.sum_lanes)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        return Int8Mac().accepts(format_name, group)

    def start(self, count: int) -> State:
        shape = (count,) if self.sum_lanes == 1 else (count, self.sum_lanes)
        return tuple(np.zeros(shape, dtype=np.int64) for _ in range(1 if self.resolve_cycles else 2))

    def step(self, state: State, fields: Steps) -> State:
        if self.resolve_cycles:
            return (wrap(state[0] + self.products(fields), self.psum_bits),)
        return self.carry_save_step(state, fields)

    def result(self, state: State) -> dict[str, IntArray]:
        return {field.name: part for field, part in zip(self.sum_fields, state, strict=True)}

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        if not self.resolve_cycles:
            return super().sums(steps)
        reached = running(self.products(steps), steps[FIRST])[np.asarray(steps[LAST]) != 0]
        return {"psum": wrap(reached, self.psum_bits)}

    def products(self, fields: Steps) -> IntArray:
        """What each step adds to its sums: int64 [n] or [n, sum_lanes]."""
        act = np.asarray(fields["act"], dtype=np.int64)
        product = act * np.asarray(fields["wgt"], dtype=np.int64)
        return product if product.ndim == 1 else np.asarray(product.sum(axis=1))

    def carry_save_step(self, state: State, fields: Steps) -> State:
        """`step` of a PE that offers both vectors: exactly the bits of its two registers."""
        raise AssertionError(f"{self.name} resolves its sums")


@dataclass(frozen=True)
class _Dots(CarrySave):
    """The streams of opt1 and opt2: `lanes` pairs of operands a step."""

    lanes: int = 4
    encoding: str = "mbe"

    ranges: ClassVar[Mapping[str, tuple[int, int]]] = {**CarrySave.ranges, "lanes": (1, 64)}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_encoding(self.encoding, f"{self.name} encoding")

    @property
    def module_stem(self) -> str:
        coding = self.encoding.replace("-", "")
        return f"{self.name}_l{self.lanes}_{coding}_p{self.psum_bits}_r{self.resolve_cycles}_s{self.pipeline}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        return (Field("act", 8, self.lanes, signed=True), Field("wgt", 8, self.lanes, signed=True))

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows scaled to int8 by their largest magnitude."""
        return Int8Stream(lanes=self.lanes).quantised(act, wgt)


@dataclass(frozen=True)
class Opt1(_Dots):
    """psum <- psum + (total over the lanes of act * wgt), accumulated as two vectors: compressed accumulation.

    Parameters   those of `CarrySave`, and
        lanes : 1..64            Products a cycle.
        encoding : mbe, en-t     Digits of the weights (arch.pe.digits). en-t has a longer path before the compressors.
    Arithmetic   exact; wraps modulo 2**psum_bits; no wrap for `longest_sum` steps of any operands.
                 Each weight has four digits, each digit gives one multiple of its activation: 9 bits, inverted if the
                 digit is negative, its sign bit inverted, with a one to add in a free place of another row. So rows are
                 unsigned, and a constant makes their total v + 2**offset_bits for the signed value v of the step. 3-2
                 compressors leave two vectors of it; two more layers add those to the accumulator's two. No carry
                 runs further than one place in a cycle.
    Timing       a step a cycle; latency 1 + pipeline + resolve_cycles. pipeline 1: a register after the step's own
                 compressors; 2: another between the multiples and the compressors.
    Source       OPT1 (HPCA 2025, arXiv 2503.06342); the paper's own PE is lanes = 1, resolve_cycles = 0 (see
                 `CarrySave`), the one to compare areas with. Ours: the tree of compressors, the offset instead of sign
                 extension, lanes > 1, an adder inside.
    """

    lanes: int = 1

    name: ClassVar[str] = "opt1"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"resolve_cycles": 0},
        {"lanes": 4, "resolve_cycles": 1, "pipeline": 1},
        {"lanes": 4, "encoding": "en-t", "resolve_cycles": 0, "pipeline": 2, "psum_bits": 24},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("every pair of operands in every lane, four sets of parameters", 10 << 16, "tests/rtl/pe/test_opt.py"),
        Evidence("steps of random and corner codes, four sets of parameters", 194_400, "tests/rtl/pe/test_opt.py"),
    )

    @property
    def offset_bits(self) -> int:
        """The total of a step's rows is v + 2**offset_bits, in offset_bits + 1 bits."""
        return (_ROWS_OFFSET * self.lanes - 1).bit_length()

    @property
    def row_constant(self) -> int:
        """What completes the rows' own offset to 2**offset_bits; a multiple of 2**8."""
        return (1 << self.offset_bits) - _ROWS_OFFSET * self.lanes

    def step_vectors(self, fields: Steps) -> tuple[IntArray, IntArray]:
        """The two vectors of a step's total, offset included."""
        act, wgt = (np.asarray(fields[name], dtype=np.int64).reshape(-1, self.lanes) for name in ("act", "wgt"))
        planes = [multiples(self.encoding)[place][(wgt << 8) + act + _CENTRE] for place in range(PLACES)]
        last = (digits(self.encoding, wgt)[..., PLACES - 1] < 0).astype(np.int64) << 2 * (PLACES - 1)
        rows = [last[:, lane] for lane in range(1, self.lanes)]
        rows += [plane[:, lane] for plane in planes for lane in range(self.lanes)]
        return compress_all([*rows, self.row_constant | last[:, 0]])

    def carry_save_step(self, state: State, fields: Steps) -> State:
        return accumulate(state, self.step_vectors(fields), self.offset_bits, self.psum_bits)


_CENTRE = (128 << 8) + 128  # index of wgt = act = 0 in a table of all pairs
_ROWS_OFFSET = sum(1 << MULTIPLE_BITS - 1 + 2 * place for place in range(PLACES))


@cache
def multiples(encoding: str) -> tuple[IntArray, ...]:
    """The row of each place for every pair of operands, int64 [2**16], index 256 * wgt + act, both from -128.

    A row is the unsigned multiple at its place; below it, where it is free, the one that the row before lacks if
    its digit is negative.
    """
    wgt, act = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
    digit = digits(encoding, wgt.ravel())
    negative = (digit < 0).astype(np.int64)
    rows = []
    for place in range(PLACES):
        row = unsigned_multiple(np.abs(digit[:, place]), negative[:, place], act.ravel()) << 2 * place
        rows.append(row | (negative[:, place - 1] << 2 * (place - 1) if place else 0))
    return tuple(rows)


def unsigned_multiple(magnitude: IntArray, negative: IntArray, act: IntArray) -> IntArray:
    """magnitude * act, inverted if negative, plus 2**8: 9 bits, never negative, one too little if negative."""
    return np.asarray((magnitude * act ^ -negative) + (1 << (MULTIPLE_BITS - 1)), dtype=np.int64)


@dataclass(frozen=True)
class Opt2(_Dots):
    """psum <- psum + (total over the lanes of act * wgt); multiples of equal weight are added before any shift.

    Parameters   those of `CarrySave`, and
        lanes : 1..64            Products a cycle, the spatial slice of K that is reduced at once.
        encoding : mbe, en-t     Digits of the weights (arch.pe.digits).
    Arithmetic   exact; wraps modulo 2**psum_bits; no wrap for `longest_sum` steps of any operands.
                 Digit plane p (place p of all lanes) has compressors for rows of 9 bits and an accumulator of two
                 vectors of psum_bits - 2 p bits, all that a modular sum needs of it. The ones that negative multiples
                 lack go into the free lowest places of the compressors' carries. At the end of a sum, and only then,
                 the planes are shifted (wires) and compressed to two vectors, which are added, or go out as they
                 are if resolve_cycles = 0.
    Timing       all four planes take a step each cycle; latency 2 + pipeline + resolve_cycles: one cycle for the end of
                 the planes. pipeline 1: a register after the multiples' compressors; 2: another before them.
    Source       OPT2 (HPCA 2025, arXiv 2503.06342); resolve_cycles = 0 is the one to compare areas with (see
                 `CarrySave`); the end of the planes stays inside. Deviation: the paper runs the bit weights one after
                 the other, over the same operands read again; here they run side by side, on operands read once, at
                 four times the accumulators.
    """

    name: ClassVar[str] = "opt2"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"lanes": 4, "encoding": "en-t", "pipeline": 1, "resolve_cycles": 1},
        {"lanes": 3, "psum_bits": 24, "pipeline": 2, "resolve_cycles": 3},
        {"resolve_cycles": 0},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("every pair of operands in every lane, four sets of parameters", 15 << 16, "tests/rtl/pe/test_opt.py"),
        Evidence("steps of random and corner codes, four sets of parameters", 194_400, "tests/rtl/pe/test_opt.py"),
    )

    @property
    def timing(self) -> Timing:  # type: ignore[override]
        return Timing(latency_cycles=2 + self.pipeline + self.resolve_cycles)

    @property
    def offset_bits(self) -> int:
        """The total of a plane's rows is v + 2**offset_bits, in offset_bits + 1 bits; v is at most 256 * lanes."""
        return ((1 << (MULTIPLE_BITS - 1)) * self.lanes).bit_length()

    @property
    def row_constant(self) -> int:
        """What completes the rows' own offset, 256 a lane, to 2**offset_bits."""
        return (1 << self.offset_bits) - (self.lanes << (MULTIPLE_BITS - 1))

    def start(self, count: int) -> State:
        if self.resolve_cycles:
            return super().start(count)
        return tuple(np.zeros(count, dtype=np.int64) for _ in range(2 * PLACES))

    def carry_save_step(self, state: State, fields: Steps) -> State:
        act, wgt = (np.asarray(fields[name], dtype=np.int64).reshape(-1, self.lanes) for name in ("act", "wgt"))
        pair, negative = (wgt << 8) + act + _CENTRE, (digits(self.encoding, wgt) < 0).astype(np.int64)
        found: list[npt.NDArray[Any]] = []
        for place in range(PLACES):
            multiple = plane_multiples(self.encoding)[place][pair]
            rows = [multiple[:, lane] for lane in range(self.lanes)]
            if self.row_constant % (1 << MULTIPLE_BITS):
                rows.append(np.full_like(rows[0], self.row_constant))
            else:  # it fits above a multiple
                rows[0] = rows[0] | self.row_constant
            ones = [negative[:, lane, place] for lane in range(self.lanes)]
            vectors, left = compress_all(rows, ones), ones[len(rows) - 2 :]
            plane = state[2 * place : 2 * place + 2]
            found += accumulate(plane, vectors, self.offset_bits, self.psum_bits - 2 * place, left)
        return tuple(found)

    def result(self, state: State) -> dict[str, IntArray]:
        if not self.resolve_cycles:
            ends = compress_all([part << number // 2 * 2 for number, part in enumerate(state)])
            state = tuple(part & ((1 << self.psum_bits) - 1) for part in ends)
        return super().result(state)


@cache
def plane_multiples(encoding: str) -> tuple[IntArray, ...]:
    """The unsigned multiple of each place, unshifted, without any ones, for every pair of operands as `multiples`."""
    wgt, act = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
    digit = digits(encoding, wgt.ravel())
    return tuple(
        unsigned_multiple(np.abs(digit[:, place]), (digit[:, place] < 0).astype(np.int64), act.ravel())
        for place in range(PLACES)
    )
