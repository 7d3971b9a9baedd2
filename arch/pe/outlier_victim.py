"""outlier-victim: products of outlier-victim pairs by exponent and integer, into one saturating sum (OliVe)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.formats.olive import OutlierVictim as Codec
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges, wrap
from bitwright.arch.pe.pair_codes import (
    NORMALS,
    NUMBER_BITS,
    Numbers,
    PairDecoder,
    narrow_pairs,
    require_choice,
    unpacked,
    wide_pairs,
    wide_values,
)
from bitwright.arch.pe.stream import FIRST, LAST, Cut, Field, State, Steps, StreamSpec, row_flags, running

PSUM_BITS = 32
_GREATEST, _LEAST = (1 << (PSUM_BITS - 1)) - 1, -(1 << (PSUM_BITS - 1))
_IDENTIFIER = 0x80  # of 8 bits
# Pairs worth trying often: the ends of the normal values, outliers beside their victims on either side, two
# identifiers, outlier codes of 0; as bytes of an 8-bit pair the identifier and the greatest outliers.
_BYTES = (0x00, 0x01, 0x77, 0x99, 0x87, 0x8F, 0x78, 0xF8, 0x88, 0x80, 0x81, 0x3F, 0x7F, 0xFF)


@dataclass(frozen=True)
class OutlierVictim(StreamSpec):
    """sum <- sum + (total over the pairs of both products of act and wgt), saturated to int32, with a sticky flag.

    Parameters
        lanes : 2..32, even      Bytes of each operand a step: each an ovp4 pair, or each two an ovp8 pair. The PE has
            2 * lanes multipliers of signed integers, 5 x 5 bits.
        normal : int4, flint4    Type of the 4-bit normal values, of both operands: ovp4 or ovp4_flint.
        decoders : bool          False: the decoders stand at the border of the array (`decoder`, pair-decoder) and
            the stream takes their numbers <exponent, integer> of 9 bits, four for each two bytes.
        pipeline : 0..3          Registers: 1 after the shifters, 2 also after the multipliers, 3 also before them.
    Operands     act and wgt alike: bytes of pairs, the first value in the low bits. `wide` 0: ovp4. `wide` 1: ovp8,
                 bytes 2k and 2k + 1 are one pair. Plain symmetric int4 (-7..7) and int8 (-127..127) are pairs without
                 identifier: they need no mode of their own, and either operand may be so.
    Arithmetic   <a, b> * <c, d> = <a + c, b * d>, the product then shifted left by its exponent: exact, 32 bits. An
                 8-bit value is <e + 4, h> + <e, l>: four multipliers give its four cross products. 8-bit outliers
                 beyond 2**15 are clipped to it. The total of a cycle's products is exact; it is added to the sum, and a
                 result beyond int32 becomes the nearest int32 and sets `overflow`, which stays until `first`. So a
                 narrow step saturates once; a wide one twice: after its even values' products, and after its odd ones'.
                 Without decoders the numbers may be any: a shifted product then counts modulo 2**32.
    Timing       a narrow step 1 cycle with 2 * lanes products, a wide one 2 cycles with `lanes` products; latency
                 1 + pipeline cycles.
    Source       OliVe (ISCA 2023, arXiv 2304.07493), section 4: pair decoders, exponent-integer PE, 8-bit operation
                 from four 4-bit PEs, int32; bias 3 with flint4 as BitMoD quotes it. Ours, where the text does not
                 tell: saturation and the flag; 8-bit outliers split as 8-bit integers are. Deviations: a dot product
                 (adder tree) in place of one PE a product, and so the two cycles of a wide step.
    """

    lanes: int = 2
    normal: str = "int4"
    decoders: bool = True
    pipeline: int = 0

    name: ClassVar[str] = "outlier-victim"
    act: ClassVar[OperandType] = OperandType("ovp", 8, "code")
    wgt: ClassVar[OperandType] = OperandType("ovp", 8, "code")
    edge_unit: ClassVar[str] = "group-dequantiser"
    templates: ClassVar[tuple[str, ...]] = ("stream", "broadcast")
    modes: ClassVar[tuple[str, ...]] = ("wide",)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"lanes": 4, "normal": "flint4", "pipeline": 1},
        {"lanes": 6, "pipeline": 3},
        {"lanes": 2, "decoders": False, "pipeline": 2},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every byte of both normal types and every 16-bit pair decode as written out, and as the codec (clipped)",
            2 * 256 + (1 << 16),
            "tests/arch/pe/test_outlier_victim.py",
        ),
        Evidence(
            "every byte x every byte is the exact dot product of the values written out, both normal types",
            2 << 16,
            "tests/arch/pe/test_outlier_victim.py",
        ),
        Evidence(
            "every byte x every byte in every lane, narrow and wide, three sets of parameters",
            3 * 2 << 16,
            "tests/rtl/pe/test_outlier_victim.py",
        ),
        Evidence(
            "every number x every number in every lane, both modes", 2 << 18, "tests/rtl/pe/test_outlier_victim.py"
        ),
        Evidence(
            "random, corner and extreme steps, values and cycles, four sets of parameters",
            4 * 80_667 + 3 * 3920 + 11_520,
            "tests/rtl/pe/test_outlier_victim.py",
        ),
        Evidence(
            "steps of sums that saturate at both ends and come back, modes changing within a sum",
            4 * 48_179,
            "tests/rtl/pe/test_outlier_victim.py",
        ),
        Evidence("sums of SmolLM2's tensors, ovp4 and ovp8", 400, "tests/rtl/pe/test_outlier_victim.py"),
    )

    def __post_init__(self) -> None:
        if self.lanes not in range(2, 33, 2):
            raise ConfigError(f"{self.name} lanes = {self.lanes}: must be an even number in 2..32 (default 2)")
        require_choice(f"{self.name} normal", self.normal, NORMALS)
        require_ranges(self, pipeline=(0, 3))

    @property
    def psum(self) -> OperandType:
        return OperandType(f"int{PSUM_BITS}", PSUM_BITS, "int")

    @property
    def module_stem(self) -> str:
        inside = "" if self.decoders else "_decoded"
        return f"outlier_victim_l{self.lanes}_{self.normal}{inside}_s{self.pipeline}"

    @property
    def decoder(self) -> PairDecoder:
        """What stands before each two bytes of an operand."""
        return PairDecoder("both", self.normal)

    @property
    def step_fields(self) -> tuple[Field, ...]:
        bits, count = (8, self.lanes) if self.decoders else (NUMBER_BITS, 2 * self.lanes)
        return (Field("act", bits, count), Field("wgt", bits, count), Field("wide", 1))

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        return (Field("psum", PSUM_BITS, signed=True), Field("overflow", 1))

    def step_cycles(self, steps: Steps) -> IntArray:
        return 1 + np.asarray(steps["wide"], dtype=np.int64)

    @property
    def cycles_range(self) -> tuple[int, int]:
        return 1, 2

    @property
    def macs_per_step(self) -> int:
        """Of a narrow step; a wide one has half of them."""
        return 2 * self.lanes

    def macs(self, steps: Steps) -> IntArray:
        return np.where(np.asarray(steps["wide"]) != 0, self.lanes, self.macs_per_step)

    def exact_steps(self, *, wide: bool) -> int:
        """How many steps from pairs, of any codes, surely neither saturate nor set the flag; it may be 0."""
        pairs = self.lanes // 2 if wide else self.lanes
        return _GREATEST // (pairs * _greatest_pair(self.normal, wide))

    @property
    def longest_sum(self) -> int | None:
        """The steps of either mode that surely do not saturate; None where one may, or where any numbers may come."""
        least = min(self.exact_steps(wide=wide) for wide in (False, True))
        return least if self.decoders and least else None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cycle's total of all shifted products: free products are too much for a solver, their sum is not."""
        count = 2 * self.lanes
        if not self.decoders:  # a shifted product is any 32-bit number
            return (Cut("total", count * _LEAST, count * _GREATEST, proof="32-bit wires, added"),)
        values = np.concatenate([np.ravel(found.value) for found in (narrow_pairs(self.normal), wide_pairs())])
        low, high = int(values.min()), int(values.max())
        ends = [left * right for left in (low, high) for right in (low, high)]
        return (Cut("total", count * min(ends), count * max(ends)),)

    def corners(self) -> Mapping[str, tuple[int, ...]]:
        codes: tuple[int, ...] = _BYTES
        if not self.decoders:
            narrow = narrow_pairs(self.normal).packed[list(_BYTES)].ravel()
            wide = wide_pairs().packed[[0x803F, 0xBF80, 0x807F, 0xFF80, 0x7F81, 0x8181, 0x8080]].ravel()
            odd = Numbers(np.array([15, 15, 0, 15]), np.array([15, -16, -16, 0])).packed  # no decoder gives these
            codes = tuple(np.unique(np.concatenate([narrow, wide, odd])).tolist())
        return {"act": codes, "wgt": codes, "wide": (0, 1)}

    def tame(self, steps: Steps) -> Steps:
        """An ovp8 pair of two equal bytes becomes that byte beside its victim.

        All pairs are legal, but an outlier takes two different bytes: so one corner in all lanes is one as well, and
        sums of corners saturate.
        """
        if not self.decoders:
            return steps
        found, wide = dict(steps), np.asarray(steps["wide"])[:, None] != 0
        for name in self.multiplied:
            codes = np.array(steps[name])
            even, odd = codes[:, 0::2], codes[:, 1::2]
            codes[:, 1::2] = np.where(wide & (even == odd), _IDENTIFIER, odd)
            found[name] = codes
        return found

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        form = formats.get(format_name)
        own = "ovp4" if self.normal == "int4" else "ovp4_flint"
        if isinstance(form, Codec):
            if formats.base_name(format_name) not in (own, "ovp8") or form.outlier not in ("e2m1", "e4m3"):
                return Acceptance("refused", None, f"{format_name} is neither {own} nor ovp8 with outliers E4M3")
        elif form.family == "integer":
            if form.bits <= 4 and self.normal != "int4":
                return Acceptance("refused", None, f"{format_name} codes are not normal codes of {own}")
        elif format_name != "flint4" or self.normal != "flint4":
            return Acceptance("refused", None, f"{format_name} codes are neither those of {own} nor of ovp8")
        if group is not None and group % 2:
            return Acceptance("refused", None, f"group = {group} is odd, and two values share a byte")
        pairs, width = f"{format_name} pairs", 4 if form.bits <= 4 else 8
        if form.bits != width:
            pairs = f"{format_name} codes, sign-extended to {width} bits at the border,"
        if self.decoders:
            return Acceptance("native", None, f"{pairs} are read as they are")
        return Acceptance("decoder", PairDecoder.name, f"{pairs} become numbers <exponent, integer>")

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """The first half of the rows as 4-bit pairs, the rest as ovp8, a scale a row; rows are filled up with zeros."""
        half, own = (len(act) + 1) // 2, "ovp4" if self.normal == "int4" else "ovp4_flint"
        parts = [self._rows(act[:half], wgt[:half], own)]
        if half < len(act):
            parts.append(self._rows(act[half:], wgt[half:], "ovp8"))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.decoders:
            return found
        for name in ("act", "wgt"):
            words = found[name][:, 0::2] | found[name][:, 1::2] << 8
            found[name] = self.decoder.decode(words, wide=found["wide"][:, None]).reshape(len(words), -1)
        return found

    def _rows(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32], name: str) -> dict[str, IntArray]:
        form = formats.get(name)
        a_step = 8 * self.lanes // form.bits
        fill = ((0, 0), (0, -act.shape[1] % a_step))
        found: dict[str, IntArray] = {}
        for field, rows in (("act", act), ("wgt", wgt)):
            codes = form.encode(np.pad(rows, fill)).codes.astype(np.int64)
            if form.bits == 4:
                codes = codes[:, 0::2] | codes[:, 1::2] << 4
            found[field] = codes.reshape(-1, self.lanes)
        count = len(found["act"])
        wide = np.full(count, int(form.bits == 8))
        return {**found, "wide": wide, **row_flags(len(act), count // len(act))}

    # Golden arithmetic: a state is the sum and the flag.

    def start(self, count: int) -> State:
        return np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)

    def step(self, state: State, fields: Steps) -> State:
        acc, overflow = state
        for total in self._totals(fields).T:
            exact = acc + total
            acc = np.clip(exact, _LEAST, _GREATEST)
            overflow = overflow | (exact != acc)
        return acc, overflow

    def result(self, state: State) -> dict[str, IntArray]:
        return {"psum": state[0], "overflow": state[1]}

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        """As StreamSpec.sums: from running sums, and only those that leave int32 a cycle at a time."""
        first, last = np.asarray(steps[FIRST]) != 0, np.asarray(steps[LAST]) != 0
        totals = self._totals(steps)
        # The two cycles of a step one after the other; only the first of them begins a sum.
        reached = running(totals.ravel(), np.stack([first, np.zeros_like(first)], axis=1).ravel()).reshape(-1, 2)
        outside = ((reached < _LEAST) | (reached > _GREATEST)).any(axis=1)
        found = {"psum": reached[last, 1], "overflow": np.zeros(int(last.sum()), dtype=np.int64)}
        number = np.cumsum(first) - 1
        again = np.zeros(number[-1] + 1, dtype=np.bool_)
        again[number[outside]] = True
        chosen = again[number]
        if chosen.any():
            exact = _saturated(totals[chosen], first[chosen], last[chosen])
            found["psum"][chosen[last]], found["overflow"][chosen[last]] = exact.T
        return found

    def _totals(self, fields: Steps) -> IntArray:
        """Total of the products of each step's cycles, [n, 2]; a narrow step has 0 in the second."""
        wide = np.asarray(fields["wide"]) != 0
        act, wgt = (np.asarray(fields[name], dtype=np.int64) for name in ("act", "wgt"))
        found = np.zeros((len(wide), 2), dtype=np.int64)
        totals = (self._narrow, self._wide) if self.decoders else (_narrow_numbers, _wide_numbers)
        if not wide.all():
            found[~wide, 0] = totals[0](act[~wide], wgt[~wide])
        if wide.any():
            found[wide] = totals[1](act[wide], wgt[wide])
        return found

    def _narrow(self, act: IntArray, wgt: IntArray) -> IntArray:
        return np.asarray(_dots(self.normal)[act << 8 | wgt].sum(axis=1, dtype=np.int64))

    def _wide(self, act: IntArray, wgt: IntArray) -> IntArray:
        left, right = (wide_values()[codes[:, 0::2] | codes[:, 1::2] << 8] for codes in (act, wgt))
        return np.asarray((left * right).sum(axis=1))


def _saturated(totals: IntArray, first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_]) -> IntArray:
    """(psum, overflow) at each step marked last, [sums, 2]; plain numbers, as one sum may be very long."""
    acc, flag, found = 0, 0, []
    for cycles, starts, ends in zip(totals.tolist(), first.tolist(), last.tolist(), strict=True):
        if starts:
            acc, flag = 0, 0
        for total in cycles:
            acc += total
            if not _LEAST <= acc <= _GREATEST:
                acc, flag = _GREATEST if acc > 0 else _LEAST, 1
        if ends:
            found.append((acc, flag))
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)


@cache
def _dots(normal: str) -> npt.NDArray[np.int32]:
    """Both products of every byte against every byte, [65536]; the act's byte is the high one."""
    values = narrow_pairs(normal).value
    return np.asarray((values[:, None, :] * values[None, :, :]).sum(axis=-1).reshape(-1), dtype=np.int32)


@cache
def _greatest_pair(normal: str, wide: bool) -> int:
    """Greatest magnitude of what a pair against a pair adds, after either of its products.

    That of the longest pair against itself, since |x . y| <= |x| |y|.
    """
    values = wide_values() if wide else narrow_pairs(normal).value
    return int(np.square(values).sum(axis=1).max())


_VALUES = unpacked(np.arange(1 << NUMBER_BITS)).value


def _narrow_numbers(act: IntArray, wgt: IntArray) -> IntArray:
    return np.asarray(wrap(_VALUES[act] * _VALUES[wgt], PSUM_BITS).sum(axis=1))


def _wide_numbers(act: IntArray, wgt: IntArray) -> IntArray:
    # Of each value h and l: [n, pairs, value, part]
    left, right = (_VALUES[words].reshape(len(words), -1, 2, 2) for words in (act, wgt))
    found = np.zeros((len(act), 2), dtype=np.int64)
    for one in range(2):
        for other in range(2):
            found += wrap(left[..., one] * right[..., other], PSUM_BITS).sum(axis=1)
    return found
