"""Lookup tables of activations: reinterpreted and folded weights, half tables, tables quantised to a few bits.

Reinterpretation. A weight of B bits, scale * (q - zero) with q in 0..2**B-1, is also s' * (q' - z') with

    q' = 2 * q - (2**B - 1)      s' = scale / 2      z' = 2 * zero + 1 - 2**B

and q' = sum over the bit planes i of 2**i * (2 * q_i - 1): every plane is a row of signs. q' is an odd integer, as the
values of the formats bipolar_intN are.

Half tables. A plane of K weights is a pattern w of K signs; the K activations make its value

    T[w] = sum over i of (w_i ? x_i : -x_i)      T[~w] = -T[w]

so that half of the 2**K values are enough. We keep the half with w_(K-1) = 1, at the address of the K - 1 low signs:
its range with int8 activations is -128 * K .. 128 * K - 1, which is 8 + ceil(log2 K) bits in two's complement; the
other half reaches 128 * K, one bit more where K is a power of two. A pattern whose top sign is 0 is the negated value
at the address of its complement.

Folding. That complement is known offline, so the stored weights hold the address itself and a bit that says
"negate": per plane, top' = not w_(K-1) and low'_i = w_i xor not w_(K-1). In whole codes it is one exclusive or with the
complement of the top code, `fold`.

Source: LUT Tensor Core (ISCA 2025, arXiv 2408.06003), section 3; the mirrored half is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.pe.base import Evidence, IntArray, Timing, require_ranges
from bitwright.arch.pe.stream import Field, Steps
from bitwright.arch.pe.units import UnitSpec

ACTIVATIONS = ("int8", "fp16")
K_RANGE, ROWS_RANGE, TABLE_BITS_RANGE = (2, 6), (1, 16), (4, 12)
GUARD_BITS = 3  # kept below the significand of the largest activation when a row's are aligned to it
SIGNIFICAND_BITS = 11  # fp16
ALIGNED_BITS = SIGNIFICAND_BITS + GUARD_BITS
TOP_EXPONENT = 30  # largest exponent field of a finite fp16 number
DEFAULT_TABLE_BITS = 8


def reinterpreted(
    scale: npt.NDArray[np.float64] | float, zero: IntArray | int, bits: int
) -> tuple[npt.NDArray[np.float64] | float, IntArray | int]:
    """(s', z') of weights scale * (q - zero) with codes q of `bits` bits: they are s' * (q' - z')."""
    return scale / 2, 2 * zero + 1 - (1 << bits)


def odd_integers(codes: npt.ArrayLike, bits: int) -> IntArray:
    """q' = 2 * q - (2**bits - 1) of codes q in 0..2**bits-1."""
    return np.asarray(2 * np.asarray(codes, dtype=np.int64) - ((1 << bits) - 1))


def fold(codes: npt.ArrayLike, bits: int) -> IntArray:
    """Stored form of codes q [..., K]: in each plane the address in the half table, and on top whether to negate."""
    plain = np.asarray(codes, dtype=np.int64)
    flip = ~plain[..., -1:] & ((1 << bits) - 1)
    return np.concatenate([plain[..., :-1] ^ flip, flip], axis=-1)


def unfold(stored: npt.ArrayLike, bits: int) -> IntArray:
    """The codes q [..., K] of which `fold` made the stored ones."""
    folded = np.asarray(stored, dtype=np.int64)
    flip = folded[..., -1:]
    return np.concatenate([folded[..., :-1] ^ flip, ~flip & ((1 << bits) - 1)], axis=-1)


@dataclass(frozen=True)
class TableUnit(UnitSpec):
    """Makes the table of each row of K activations: the separate operator, or a part of the PE (`lut.Lut.precompute`).

    Parameters
        rows : 1..16             Rows of K activations at a time.
        k : 2..6                 Activations of a table.
        activation : "int8" or "fp16"
        table_bits : 0, or 4..12 (fp16)   Width of an entry; 0: 8 + ceil(log2 k) exactly (int8), 8 (fp16).
        whole : bool             All 2**k sums of subsets (w_i ? x_i : 0) instead of the half table.
    Operands     act: k values a row, row after row; lane i of a row is x_i.
    Results      table: 2**(k-1) entries a row (2**k if whole). fp16 also `exponent`, the table's scale
                 2**(exponent - 12 - table_bits), and `special`, whether an activation was infinite or NaN.
    Arithmetic   int8: exact. fp16, for each row:
                 1. Top exponent p: the largest exponent field (a subnormal's counts as 1). A non-finite activation
                    counts as 0 and sets `special`.
                 2. Magnitudes are aligned to p, GUARD_BITS = 3 bits kept below the significand, the rest cut off: a_i
                    is a multiple of 2**(p - 28), at most 2**14 - 8 of them.
                 3. Entries are exact sums of +-a_i (w_i ? a_i : 0).
                 4. The quantum 2**e is the smallest, but at least 2**(15 - table_bits) multiples, with which
                    A = sum of a_i rounds to at most 2**(table_bits - 1) - 1; no entry is larger than A. Each entry
                    goes to the nearest multiple of the quantum, ties to even. exponent = p - 1 + e - (15 - table_bits).
                 A power of two instead of the quotient (largest / 127) is our deviation: the scale costs a shift,
                 and sums of tables stay integers. So is that int8's tables are not quantised: exact, they are two bits
                 wider for k = 4 and need no scale. The quantum's lower bound binds only where all activations are
                 subnormal.
    Error        of an entry, against the exact sum: at most quantum / 2 + (k - 1) * 2**(p - 28).
    Timing       latency 1 cycle, one set of rows a cycle.
    """

    rows: int = 2
    k: int = 4
    activation: str = "int8"
    table_bits: int = 0
    whole: bool = False

    name: ClassVar[str] = "table-precompute"
    timing: ClassVar[Timing] = Timing(latency_cycles=1)
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "unit equals make: every pair of int8 values, random and corner rows",
            396_608,
            "tests/rtl/pe/test_lut_tables.py",
        ),
        Evidence("fp16 tables equal exact rationals with the roundings", 3_000, "tests/arch/pe/test_lut_tables.py"),
    )

    def __post_init__(self) -> None:
        require_ranges(self, rows=ROWS_RANGE, k=K_RANGE)
        if self.activation not in ACTIVATIONS:
            hint = suggest(self.activation, ACTIVATIONS)
            raise ConfigError(f"{self.name} activation = {self.activation!r}: no such activation ({hint})")
        if not self.table_bits:
            return
        if not self.scaled:
            raise ConfigError(f"{self.name} table_bits = {self.table_bits}: must be 0 (int8 tables are exact)")
        low, high = TABLE_BITS_RANGE
        if not low <= self.table_bits <= high:
            raise ConfigError(f"{self.name} table_bits = {self.table_bits}: must be 0 (for 8) or in {low}..{high}")

    @property
    def module_name(self) -> str:
        """Name of the unit's Verilog module."""
        return f"lut_tables_m{self.rows}k{self.k}_{self.activation}_t{self.entry_bits}" + "_whole" * self.whole

    @property
    def scaled(self) -> bool:
        """Whether tables are quantised and carry a scale."""
        return self.activation == "fp16"

    @property
    def entries(self) -> int:
        """Entries of a table."""
        return 1 << (self.k if self.whole else self.k - 1)

    @property
    def entry_bits(self) -> int:
        """Two's complement width of an entry."""
        return (self.table_bits or DEFAULT_TABLE_BITS) if self.scaled else 8 + (self.k - 1).bit_length()

    @property
    def field_range(self) -> tuple[int, int]:
        """Least and greatest entry that fit the table's field."""
        top = 1 << (self.entry_bits - 1)
        return -top, top - 1

    @property
    def made_range(self) -> tuple[int, int]:
        """Least and greatest entry that the unit makes."""
        if self.scaled:
            return -self.field_range[1], self.field_range[1]
        return -128 * self.k, 127 * self.k if self.whole else 128 * self.k - 1

    @cached_property
    def largest_scaled(self) -> int:
        """The largest entry that the unit makes times its scale, in units of 2**unit_exponent: of k times 65504."""
        made = self.make(np.full((1, self.rows * self.k), 0x7BFF))
        return int(made["table"][0, 0, -1]) << int(made["exponent"][0, 0])

    @property
    def least_quantum_bits(self) -> int:
        """log2 of the smallest quantum, in the aligned magnitudes' unit (fp16)."""
        return ALIGNED_BITS + 1 - self.entry_bits

    @property
    def quanta(self) -> int:
        """How many quanta there are for one top exponent (fp16)."""
        most, count = self.k * ((1 << ALIGNED_BITS) - (1 << GUARD_BITS)), 1
        while self.too_large(most, count - 1):
            count += 1
        return count

    def too_large(self, total: int, step: int) -> bool:
        """Whether A = total rounds to more than fits with the quantum 2**(least_quantum_bits + step)."""
        return 2 * total >= self.limit(step)

    def limit(self, step: int) -> int:
        """Twice the least A that is too large for a quantum, see `too_large`."""
        return ((1 << self.entry_bits) - 1) << (self.least_quantum_bits + step)

    @property
    def top_exponent(self) -> int:
        """The largest `exponent` that the unit makes; 0 for exact tables."""
        return TOP_EXPONENT - 1 + self.quanta - 1 if self.scaled else 0

    @property
    def unit_exponent(self) -> int:
        """Entries times 2**exponent count multiples of 2**unit_exponent."""
        return GUARD_BITS - ALIGNED_BITS - 1 - self.entry_bits if self.scaled else 0

    @property
    def act_field(self) -> Field:
        """Activations as a stream's field: int8 values, or fp16 codes."""
        return Field("act", 16 if self.scaled else 8, self.rows * self.k, signed=not self.scaled)

    @property
    def table_fields(self) -> tuple[Field, ...]:
        """Tables as fields of a stream."""
        table = Field("table", self.entry_bits, self.rows * self.entries, signed=True)
        if not self.scaled:
            return (table,)
        exponent = Field("exponent", self.top_exponent.bit_length(), self.rows)
        return (table, exponent, Field("special", 1, self.rows))

    @cached_property
    def patterns(self) -> IntArray:
        """Factor of each activation in each entry, [entries, k]: -1, 1; or 0, 1 if whole."""
        bits = (np.arange(self.entries)[:, None] >> np.arange(self.k)) & 1
        if self.whole:
            return bits
        signs = 2 * bits - 1
        signs[:, -1] = 1
        return signs

    def make(self, act: npt.ArrayLike) -> dict[str, IntArray]:
        """Tables [n, rows, entries], exponents and special flags [n, rows] (0 for int8) of act [n, rows * k]."""
        rows = np.asarray(act, dtype=np.int64).reshape(-1, self.rows, self.k)
        if self.scaled:
            return self._quantised(rows)
        none = np.zeros(rows.shape[:2], dtype=np.int64)
        return {"table": self._sums(rows), "exponent": none, "special": none}

    def fields_of(self, tables: Steps) -> dict[str, IntArray]:
        """What `make` gives, as the fields of a stream."""
        found = {}
        for field in self.table_fields:
            values = np.asarray(tables[field.name])
            found[field.name] = values.reshape(len(values), -1) if field.lanes > 1 else values.reshape(-1)
        return found

    def _sums(self, rows: IntArray) -> IntArray:
        exact = rows.astype(np.float64) @ self.patterns.T.astype(np.float64)  # far below 2**53
        return np.asarray(exact, dtype=np.int64)

    def _quantised(self, codes: IntArray) -> dict[str, IntArray]:
        special = (codes >> 10) & 31 == 31
        codes = np.where(special, 0, codes)
        field = (codes >> 10) & 31
        exponent = np.maximum(field, 1)
        significand = (codes & 1023) | np.where(field > 0, 1024, 0)
        top = exponent.max(axis=-1)
        magnitude = (significand << GUARD_BITS) >> (top[..., None] - exponent)
        total = 2 * magnitude.sum(axis=-1)
        larger = np.stack([total >= self.limit(step) for step in range(self.quanta - 1)], axis=-1)
        step: IntArray = larger.sum(axis=-1, dtype=np.int64)
        entries = self._sums(np.where(codes >> 15 == 1, -magnitude, magnitude))
        places = np.expand_dims(self.least_quantum_bits + step, -1)
        floor, half = entries >> places, (np.int64(1) << places) >> 1
        rest = entries - (floor << places)
        rounded = floor + ((rest > half) | ((rest == half) & (floor & 1 == 1)))
        return {"table": rounded, "exponent": top - 1 + step, "special": special.any(axis=-1).astype(np.int64)}


def step_totals(tables: IntArray, stored: IntArray, top_plane: IntArray, *, whole: bool, folded: bool) -> IntArray:
    """Sum over the planes of 2**plane * lookup, int64 [c, rows, n].

    tables : [c, rows, entries]. stored : codes [c, n, k], planes above top_plane [c] ignored. whole : all subset sums,
    codes in two's complement. folded : the codes hold addresses.
    """
    count, columns, k = stored.shape
    rows = tables.shape[1]
    top = top_plane[:, None]
    offsets = (np.arange(count * rows) * tables.shape[2]).reshape(count, rows, 1)
    total = np.zeros((count, rows, columns), dtype=np.int64)
    for plane in range(int(top_plane.max(initial=0)) + 1):
        bits = (stored >> plane) & 1
        if whole:
            address, negative = _number(bits), top == plane
        elif folded:
            address, negative = _number(bits[..., :-1]), bits[..., -1] == 1
        else:
            negative = bits[..., -1] == 0
            address = _number(bits[..., :-1]) ^ np.where(negative, (1 << (k - 1)) - 1, 0)
        entry = tables.reshape(-1)[offsets + address[:, None, :]]
        factor = np.where(negative, -1, 1) * (top >= plane)
        total += (entry * factor[:, None, :]) << plane
    return total


def unsigned_rows(values: npt.NDArray[np.float32], bits: int) -> IntArray:
    """Rows as codes 0..2**bits-1, from their least value to their greatest."""
    low = values.min(axis=1, keepdims=True)
    step = (values.max(axis=1, keepdims=True) - low) / ((1 << bits) - 1)
    return np.asarray(np.rint((values - low) / np.where(step == 0, 1, step)), dtype=np.int64)


def tiled(rows: IntArray, many: int, tiles: int, channels: int, k: int) -> IntArray:
    """Rows [r, K] as steps [tiles * channels / k, many, k]: `many` rows a tile, round and round; filled with 0."""
    chosen = rows[np.arange(tiles * many) % len(rows)]
    filled = np.pad(chosen, [(0, 0), (0, channels - chosen.shape[1])])
    return filled.reshape(tiles, many, -1, k).swapaxes(1, 2).reshape(-1, many, k)


def _number(bits: IntArray) -> IntArray:
    """Bits [..., width], lowest first, as numbers."""
    return np.asarray(sum(bits[..., place] << place for place in range(bits.shape[-1])), dtype=np.int64)
