"""lut: tables of sums of activations, looked up by the bit planes of the weights (LUT Tensor Core)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.pe import lut_tables
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, wrap
from bitwright.arch.pe.integer_stream import row_codes
from bitwright.arch.pe.lut_tables import TableUnit, fold, odd_integers, step_totals, unfold
from bitwright.arch.pe.stream import FIRST, LAST, Cut, Field, State, Steps, StreamSpec, row_flags
from bitwright.arch.pe.weight_codes import decodable, weight_code

Variant = Literal["unpu", "reinterpretation", "no-negation", "full"]
VARIANTS: tuple[Variant, ...] = ("unpu", "reinterpretation", "no-negation", "full")
MAX_PSUM_BITS = 62
# Half of them in 1..2: four of those make every quantum of a table, its limits, ties, and what breaks ties.
_IN_1_TO_2 = (0x3C00, 0xBC00, 0x3C20, 0xBC10, 0x3FC0, 0x3FF8, 0xBFF8, 0x3FFF, 0xBFFF)
_FP16_CORNERS = (0, 0x0800, 0x2000, 0x7BFF, 0x7C00, 0xFE01, *_IN_1_TO_2)
_OUTPUTS_AT_ONCE = 1 << 19  # of the golden: keeps its arrays in the cache

# The rows of the published ablation (W2A8, 512 products a plane) in our reading of it, see Lut. All take tables made
# outside, so that areas differ by the variant alone. To count the table unit, add to a tile its share of the unit of
# the same row, `Lut(**row).tables`: area * n / (columns whose tiles look up in that unit's tables).
ABLATION: Mapping[str, Mapping[str, Any]] = {name: {"variant": name, "weight_bits": 2} for name in VARIANTS}


@dataclass(frozen=True)
class Lut(StreamSpec):
    """psum[m, n] <- psum[m, n] + sum over k of act[m, k] * w[n, k] by B lookups: an M x N x K tile, a plane a cycle.

    Parameters
        m, n : 1..16, 1..256     Tables (rows of activations) and columns of weights of a tile.
        k : 2..6                 Activations of a table, channels of a step.
        weight_bits : 1..8       Most bits of a weight; each sum may have fewer, see top_plane.
        activation : "int8" or "fp16"
        variant : which circuit; the stages of the published ablation (`ABLATION`):
            "unpu"               All 2**k subset sums; two's complement codes, the top plane's lookup negated.
            "reinterpretation"   Half table of signed sums; plain codes; complements address and value where the
                plane's top bit is 0.
            "no-negation"        The same with the address complemented offline (`lut_tables.fold`).
            "full"               The same, with the negation in the plane adder, as a subtraction.
        precompute : bool        The table unit is in the PE and a step brings activations; else a step brings tables.
        table_bits : 0, or 4..12 (fp16)   Width of an entry; 0: 8 + ceil(log2 k), exact (int8), or 8 (fp16).
        depth : 1..2**20         Steps that a sum must hold; psum_bits follows from it.
        pipeline : 0..3          Registers: 1 before the accumulator, 2 also after the lookup, 3 also after the tables
            (with precompute only).
    Operands     act (int8 or fp16 codes) [m, k], or the tables of `lut_tables.TableUnit`; wgt: codes of weight_bits
                 [n, k] in the variant's stored form, made from codes q in 0..2**B-1 by `stored`; top_plane = B - 1 (for
                 weight_bits > 1): a sum's weights have B bits, higher ones are ignored.
                 Illegal, and not modelled: top_plane >= weight_bits, where the hardware reads plane weight_bits - 1
                 again for each plane above, and the step's total is modulo its width (that of total_range);
                 exponent > tables.top_exponent, where the addend is modulo its width (that of addend_range).
    Arithmetic   Half tables: w = q' = 2 * q - (2**B - 1), an odd integer. "unpu": w = q - 2**(B-1), the code's two's
                 complement value. int8: exact, modulo 2**psum_bits. fp16: every rounding is that of the tables (see
                 `TableUnit`: INT8, a power-of-two scale a table); the planes' entries are shifted and summed exactly,
                 the step's total is shifted by the table's exponent and added exactly: psum counts multiples of
                 2**unit_exponent, modulo 2**psum_bits, whatever the order. `special`, sticky in a sum: a row had an
                 infinity or a NaN (which counts as 0), so its sums mean nothing.
                 act_sum[m], from the entry of all-positive signs, is the sum of activations for the zero point:
                 sum (q - zero) * x = (sum q' * x - z' * act_sum) / 2, see `corrected`. The fixed-point-dequantiser
                 takes both as they are: its z' is signed, its bias halves the scale (`fixed_point_unit.below`).
    Timing       A step occupies top_plane + 1 cycles, the top plane first; latency 1 + pipeline cycles.
    Error        int8: none. fp16: quantised tables against exact arithmetic, 128 normal activations times normal 4-bit
                 weights: |error| / sum |x * q'| is at most 0.0046 and 0.00076 on average ("unpu": 0.0067 and 0.0015;
                 half tables whose scale is the quotient sum |x| / 127: 0.0026 and 0.00048).
    Cost of fp16 The exact fixed-point sum takes psum_bits = 55 an output (default tile with precompute; 48 at depth 32,
                 128 products): accumulator and adder, and a shifter to an addend of 43 bits. shift-add-a16 takes 31
                 bits for 128 products and gets one shared exponent from outside. Read areas of the two with that.
    Source       LUT Tensor Core (ISCA 2025, arXiv 2408.06003), sections 3 and 4, M2N64K4. The text names the stages of
                 the ablation, not the circuits, which are ours; its last stage is taken to be the one with no negator.
                 Deviations: power-of-two table scales; no INT8 quantisation of int8 activations' tables (table_bits
                 is 0): their entries are exact in 10 bits (k = 4) and carry no scale; accumulation in fixed point,
                 which is exact; the mirrored half of the table (lut_tables).
    """

    m: int = 2
    n: int = 64
    k: int = 4
    weight_bits: int = 4
    activation: str = "int8"
    variant: str = "full"
    precompute: bool = False
    table_bits: int = 0
    depth: int = 4096
    pipeline: int = 0

    name: ClassVar[str] = "lut"
    edge_unit: ClassVar[str] = "fixed-point-dequantiser"
    templates: ClassVar[tuple[str, ...]] = ("stream", "broadcast")
    accumulator: ClassVar[str] = "acc_0_0"
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("hardware: code x int8, x fp16, x entry; patterns, by lane", 8_889_793, "tests/rtl/pe/test_lut.py"),
        Evidence("hardware: random, corner and real steps of 13 tiles", 594_984, "tests/rtl/pe/test_lut.py"),
        Evidence("golden: tiles of all variants against integer dot products", 768, "tests/arch/pe/test_lut.py"),
        Evidence("every code and zero point of 1..8 bits reinterpreted", 87_380, "tests/arch/pe/test_lut_tables.py"),
    )
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"m": 1, "n": 2, "variant": "unpu", "precompute": True},
        {"m": 1, "n": 2, "variant": "reinterpretation", "precompute": True},
        {"m": 1, "n": 2, "variant": "no-negation", "precompute": True, "pipeline": 1},
        {"m": 1, "n": 2, "variant": "full", "precompute": True, "pipeline": 3},
        {"m": 2, "n": 1, "k": 5, "weight_bits": 8, "pipeline": 2},
        {"m": 1, "n": 1, "k": 2, "weight_bits": 1, "depth": 3, "precompute": True},
        {"m": 1, "n": 2, "activation": "fp16", "precompute": True, "pipeline": 2},
        {"m": 2, "n": 2, "k": 3, "weight_bits": 3, "activation": "fp16", "variant": "unpu"},
    )

    def __post_init__(self) -> None:
        ranges = {"n": (1, 256), "weight_bits": (1, 8), "depth": (1, 1 << 20), "pipeline": (0, 2 + self.precompute)}
        hints = {"pipeline": "" if self.precompute else " (3 with precompute only)"}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ConfigError(f"{self.name} {name} = {value}: must be in {low}..{high}{hints.get(name, '')}")
        if self.variant not in VARIANTS:
            raise ConfigError(
                f"{self.name} variant = {self.variant!r}: no such variant ({suggest(self.variant, VARIANTS)})"
            )
        if self.psum_bits > MAX_PSUM_BITS:
            raise ConfigError(
                f"{self.name} depth = {self.depth}: needs sums of {self.psum_bits} bits, must be at most "
                f"{MAX_PSUM_BITS} (at most depth {((1 << (MAX_PSUM_BITS - 1)) - 1) // self._largest})"
            )

    # What follows from the parameters

    @cached_property
    def tables(self) -> TableUnit:
        """The unit that makes the tables; it checks m, k, activation and table_bits."""
        try:
            return TableUnit(self.m, self.k, self.activation, self.table_bits, self.variant == "unpu")
        except ConfigError as error:
            found = str(error).removeprefix(f"{TableUnit.name} ")
            raise ConfigError(f"{self.name} " + (f"m {found[5:]}" if found.startswith("rows ") else found)) from None

    @property
    def folded(self) -> bool:
        """Whether stored weights hold addresses, the complement already done."""
        return self.variant in ("no-negation", "full")

    @property
    def act(self) -> OperandType:  # type: ignore[override]
        return OperandType(self.activation, self.tables.act_field.bits, "float" if self.tables.scaled else "int")

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType(f"uint{self.weight_bits}", self.weight_bits, "code")

    @property
    def psum(self) -> OperandType:
        return OperandType(f"int{self.psum_bits}", self.psum_bits, "int")

    @property
    def unit_exponent(self) -> int:
        """Sums count multiples of 2**unit_exponent: 0 for int8."""
        return self.tables.unit_exponent

    @property
    def plane_bits(self) -> int:
        """Width of `top_plane` and of the phase; 0 for weights of one bit."""
        return (self.weight_bits - 1).bit_length()

    @property
    def entry_range(self) -> tuple[int, int]:
        """Least and greatest entry: of all that fit the field, or of those that the PE's own unit makes."""
        return self.tables.made_range if self.precompute else self.tables.field_range

    @property
    def total_range(self) -> tuple[int, int]:
        """Bounds of a step's total before the table's scale; int8 and tables from outside reach them."""
        low, high = self.entry_range
        top, planes = 1 << (self.weight_bits - 1), (1 << self.weight_bits) - 1
        if self.variant != "unpu":
            most = max(-low, high) * planes
            return -most, most
        if not self.precompute:
            return low * (top - 1) - high * top, high * (top - 1) - low * top
        if self.tables.scaled:
            # The negative and the positive activations' sums, rounded, come to 2**(table_bits - 1) at most.
            return 1 - (high + 1) * top, (high + 1) * top - 1
        return -max(high * top, -low * (top - 1)), -low * top

    @property
    def plane_ranges(self) -> tuple[tuple[int, int], ...]:
        """Bounds of a step's total after each of its planes, of any entries in their range, each by itself.

        Those after the last plane are `total_range`, or, of "unpu" with its own tables, more: these entries of a table
        are not independent of each other.
        """
        low, high = self.entry_range
        if self.variant != "unpu":
            low, high = -max(-low, high), max(-low, high)
        found = [(-high, -low)]
        for _ in range(self.weight_bits - 1):
            least, most = found[-1]
            found.append((2 * least + low, 2 * most + high))
        return tuple(found)

    @property
    def addend_range(self) -> tuple[int, int]:
        """Bounds of what a step adds to psum: the total times the table's scale."""
        if not self.tables.scaled:
            return self.total_range
        if not self.precompute:
            low, high = self.total_range
            return low << self.tables.top_exponent, high << self.tables.top_exponent
        most = 1 << (self.weight_bits - 1) if self.variant == "unpu" else (1 << self.weight_bits) - 1
        return -most * self.tables.largest_scaled, most * self.tables.largest_scaled

    @property
    def row_range(self) -> tuple[int, int]:
        """Bounds of what a step adds to act_sum: the entry of all-positive signs times the table's scale."""
        if self.precompute and self.tables.scaled:
            return -self.tables.largest_scaled, self.tables.largest_scaled
        low, high = self.entry_range
        if self.precompute:
            high = 127 * self.k
        return low << self.tables.top_exponent, high << self.tables.top_exponent

    @property
    def _largest(self) -> int:
        return max(-self.addend_range[0], self.addend_range[1])

    @property
    def psum_bits(self) -> int:
        """Width of psum and act_sum: `depth` steps of any operands fit."""
        return (self._largest * self.depth).bit_length() + 1

    @property
    def longest_sum(self) -> int:
        return ((1 << (self.psum_bits - 1)) - 1) // self._largest

    @property
    def module_stem(self) -> str:
        parts = ["lut", self.variant.replace("-", "_"), f"m{self.m}n{self.n}k{self.k}", f"w{self.weight_bits}"]
        parts += [self.activation + (f"_t{self.tables.entry_bits}" if self.tables.scaled else "")]
        parts += ["tables"] if not self.precompute else []
        return "_".join([*parts, f"p{self.psum_bits}", f"s{self.pipeline}"])

    @property
    def macs_per_step(self) -> int:
        return self.m * self.n * self.k

    @property
    def multiplied(self) -> tuple[str, str]:  # type: ignore[override]
        return ("act" if self.precompute else "table", "wgt")

    @property
    def modes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("top_plane",) if self.plane_bits else ()

    @property
    def step_fields(self) -> tuple[Field, ...]:
        inputs = (self.tables.act_field,) if self.precompute else self.tables.table_fields
        wgt = Field("wgt", self.weight_bits, self.n * self.k)
        return (*inputs, wgt, *([Field("top_plane", self.plane_bits)] if self.plane_bits else []))

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        psum = Field("psum", self.psum_bits, self.m * self.n, signed=True)
        act_sum = Field("act_sum", self.psum_bits, self.m, signed=True)
        return (psum, act_sum, *([Field("special", 1, self.m)] if self.tables.scaled else []))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        proof = "tests/rtl/pe/test_lut.py"
        products = [f"addend_{row}_{column}" for row in range(self.m) for column in range(self.n)]
        found = [Cut(wire, *self.addend_range, proof=proof) for wire in products]
        return (*found, *(Cut(f"row_addend_{row}", *self.row_range, proof=proof) for row in range(self.m)))

    def step_cycles(self, steps: Steps) -> IntArray:
        """One cycle a bit plane."""
        return np.asarray(self._top_planes(steps) + 1)

    @property
    def cycles_range(self) -> tuple[int, int]:
        return 1, self.weight_bits

    def _top_planes(self, steps: Steps) -> IntArray:
        if self.plane_bits:
            return np.asarray(steps["top_plane"], dtype=np.int64)
        return np.zeros(len(steps["wgt"]), dtype=np.int64)

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        """Ends of each field, and fp16's special codes."""
        found = dict(super().corners())
        if self.precompute and self.tables.scaled:
            found["act"] = _FP16_CORNERS
        return found

    def tame(self, steps: Steps) -> Steps:
        """Planes that there are, scales that there are."""
        found = dict(steps)
        if self.plane_bits:
            found["top_plane"] = np.minimum(found["top_plane"], self.weight_bits - 1)
        if "exponent" in found:
            found["exponent"] = np.minimum(found["exponent"], self.tables.top_exponent)
        return found

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        from bitwright.arch import formats

        form = formats.get(format_name)
        if form.family == "bipolar-integer":
            bits, read = form.bits, "the odd integers themselves, z' = 0"
        else:
            rule = weight_code(format_name) if decodable(format_name) else None
            if rule is None or rule.coding == "table":
                return Acceptance("refused", None, f"{format_name} codes are not integers")
            bits, read = rule.code_bits, "s' * (q' - z')"
        if bits > self.weight_bits:
            return Acceptance("refused", None, f"{format_name} has {bits} bits, the PE takes {self.weight_bits}")
        if group is not None and -(-group // self.k) > self.longest_sum:
            limit = self.longest_sum * self.k
            return Acceptance("refused", None, f"a group of {group} does not fit the sum of {limit} products")
        return Acceptance("native", None, f"{format_name} is reinterpreted: {read}")

    # Offline: the stored form of weights, and what sums stand for

    def stored(self, codes: npt.ArrayLike, bits: int) -> IntArray:
        """Codes q [..., k] in 0..2**bits-1 as this variant stores them."""
        plain = np.asarray(codes, dtype=np.int64)
        if self.variant == "unpu":
            return plain ^ (1 << (bits - 1))
        return fold(plain, bits) if self.folded else plain

    def weights(self, stored: npt.ArrayLike, bits: int) -> IntArray:
        """The integers w [..., k] that stored codes multiply activations by, see Arithmetic."""
        codes = np.asarray(stored, dtype=np.int64) & ((1 << bits) - 1)
        if self.variant == "unpu":
            return wrap(codes, bits)
        return odd_integers(unfold(codes, bits) if self.folded else codes, bits)

    def odd_sums(self, sums: Mapping[str, IntArray]) -> IntArray:
        """sum q' * x [..., m, n], the same for all variants: "unpu" gives sum (q - 2**(B-1)) * x, half of it less."""
        psum = np.asarray(sums["psum"]).reshape(-1, self.m, self.n)
        return 2 * psum + np.asarray(sums["act_sum"]).reshape(-1, self.m, 1) if self.variant == "unpu" else psum

    def corrected(self, sums: Mapping[str, IntArray], zero: npt.ArrayLike, bits: int) -> IntArray:
        """2 * sum (q - zero) * x [..., m, n], which scale / 2 times is the dot product; zero [n] or one for all."""
        z = 2 * np.asarray(zero, dtype=np.int64) + 1 - (1 << bits)
        return self.odd_sums(sums) - z * np.asarray(sums["act_sum"]).reshape(-1, self.m, 1)

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Tiles of m rows of act and n rows of wgt in turn, weights as codes from each row's least to its greatest."""
        channels = -act.shape[1] % self.k + act.shape[1]
        tiles, count = max(-(-len(act) // self.m), -(-len(wgt) // self.n)), channels // self.k
        plain = lut_tables.tiled(lut_tables.unsigned_rows(wgt, self.weight_bits), self.n, tiles, channels, self.k)
        codes = self.stored(plain, self.weight_bits)
        values = act.astype(np.float16).view(np.uint16) if self.tables.scaled else row_codes(act)
        rows = lut_tables.tiled(values.astype(np.int64), self.m, tiles, channels, self.k)
        acts = rows.reshape(-1, self.m * self.k)
        inputs = {"act": acts} if self.precompute else self.tables.fields_of(self.tables.make(acts))
        top = {"top_plane": np.full(tiles * count, self.weight_bits - 1)} if self.plane_bits else {}
        return {**inputs, "wgt": codes.reshape(-1, self.n * self.k), **top, **row_flags(tiles, count)}

    # Golden arithmetic

    def start(self, count: int) -> State:
        shapes = ((count, self.m * self.n), (count, self.m), (count, self.m))
        return tuple(np.zeros(shape, dtype=np.int64) for shape in shapes)

    def step(self, state: State, fields: Steps) -> State:
        addends = self._addends(fields)
        psum, act_sum = (wrap(old + new, self.psum_bits) for old, new in zip(state, addends[:2], strict=False))
        return psum, act_sum, state[2] | addends[2]

    def result(self, state: State) -> dict[str, IntArray]:
        found = {}
        for field, part in zip(self.sum_fields, state, strict=False):
            found[field.name] = part if field.lanes > 1 else part[:, 0]
        return found

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        """As StreamSpec.sums says, by running totals, which are exact modulo 2**64."""
        first, last = np.asarray(steps[FIRST]) != 0, np.flatnonzero(steps[LAST])
        assert first[:1].any(), "the first step of all must be marked first"
        starts = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
        at_once, parts = max(1, _OUTPUTS_AT_ONCE // (self.m * self.n)), []
        carry: State = self.start(1)
        for low in range(0, len(first), at_once):
            high = min(low + at_once, len(first))
            chunk = self._addends({field.name: steps[field.name][low:high] for field in self.step_fields})
            running = [
                np.concatenate([kept, kept + np.cumsum(new, axis=0)]) for kept, new in zip(carry, chunk, strict=True)
            ]
            ends = last[(last >= low) & (last < high)]
            begun = starts[ends]
            carried = [np.where((begun < low)[:, None], 0, total[np.maximum(begun - low, 0)]) for total in running]
            parts.append([total[ends - low + 1] - before for total, before in zip(running, carried, strict=True)])
            newest = int(starts[high - 1])
            carry = tuple(total[-1:] - (total[newest - low] if newest >= low else 0) for total in running)
        psum, act_sum, special = (np.concatenate(part) for part in zip(*parts, strict=True))
        return self.result((wrap(psum, self.psum_bits), wrap(act_sum, self.psum_bits), (special > 0).astype(np.int64)))

    def _addends(self, fields: Steps) -> State:
        """What each step adds to psum [c, m * n], act_sum [c, m] and special [c, m]."""
        wgt = np.asarray(fields["wgt"], dtype=np.int64).reshape(-1, self.n, self.k)
        count = len(wgt)
        made = self.tables.make(fields["act"]) if self.precompute else fields
        table = np.asarray(made["table"], dtype=np.int64).reshape(count, self.m, -1)
        whole = self.variant == "unpu"
        totals = step_totals(table, wgt, self._top_planes(fields), whole=whole, folded=self.folded)
        if not self.tables.scaled:
            return totals.reshape(count, -1), table[..., -1], np.zeros((count, self.m), dtype=np.int64)
        exponent = np.asarray(made["exponent"], dtype=np.int64).reshape(count, self.m)
        special = np.asarray(made["special"], dtype=np.int64).reshape(count, self.m)
        return (totals << exponent[..., None]).reshape(count, -1), table[..., -1] << exponent, special
