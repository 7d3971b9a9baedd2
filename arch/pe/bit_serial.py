"""bit-serial: four fp16 activations times one term of four weights a cycle, scaled a group at a time (BitMoD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import Acceptance, Dataflow, Evidence, IntArray, OperandType, PESpec, Timing
from bitwright.arch.pe.fp16_mac import FloatArray, canonical
from bitwright.arch.pe.terms import SPECIALS, Encoding, Terms, encode, encoding_of

Wide = npt.NDArray[np.float64]
EXTRA_BITS = 3  # kept below an aligned significand: guard, round and sticky
_FAR = 16  # a lane shifted by this much or more adds nothing
# A significand is an integer times 2**(exponent - 25); three extra bits and terms in halves make 29.
UNIT_EXPONENT = 29


@dataclass(frozen=True)
class BitSerial(PESpec):
    """out = sum over groups of scale * (sum of act * weight), fp32: BitMoD's PE with encoder and column accumulator.

    Parameters
        acc_bits : 16..24        Significant bits of the accumulator of a group. 16: times an 8-bit scale it fits fp32.
        pipeline : 0, 1          1: a register between the alignment of the lanes and their sum, one cycle of latency.
    Operands     act fp16; wgt a code of at most 8 bits, read as `arch.pe.terms.Encoding` says; each group has an 8-bit
                 unsigned scale and a selector of its special value.
    Arithmetic   A step takes one term of each of 4 lanes.
                 1. Lane exponent p = e + exp, e an activation's exponent field (a subnormal's is 1), for lanes with
                    man = 1; the step's exponent is the largest p.
                 2. Each 11-bit significand, 3 zeros below it, goes right by the step's exponent less p; the last of its
                    bits is the OR of itself and of all that were lost; 16 places or more give 0. The signed sum of the
                    four is exact.
                 3. acc <- acc + sum * 2**(step exponent + bsig - 29), rounded once to acc_bits significant bits, to
                    nearest, ties to even. The accumulator is a normalised float: sign, significand, exponent; it
                    starts from +0, an exact cancellation gives +0, and it neither overflows nor becomes subnormal.
                 4. At a group's end acc * scale, exactly, one scale bit a cycle, then rounded to fp32, to nearest, ties
                    to even (a rounding that changes nothing for acc_bits = 16).
                 5. The column's sum is an fp32 addition, to nearest, ties to even.
                 Subnormal activations count with their value. An infinite or NaN activation anywhere, even against a
                 weight 0, makes the sum of its channel the quiet NaN 0x7fc00000.
    Error        a group of 128 against exact arithmetic, normal activations, acc_bits = 16: median 424 to 579 ulps of
                 the fp32-rounded exact sum (about 2**-14 of it), mean 1763 to 3136, most where the sum cancels (2.4e6);
                 at most 5e-5 of the sum of |act * weight|. With 24 bits the median halves: alignment is the rest.
    Timing       a slice of 4 weights takes as many cycles as its encoding has terms; a group the sum of those, at least
                 the 8 of its scale, which run beside the next group's slices: `cycles`, `channel_cycles`.
    Source       BitMoD (HPCA 2025, arXiv 2411.11745), section IV, Fig. 5. Ours, where the text does not tell: the
                 accumulator's width, that lost bits are ORed, what non-finite activations do, fp32 for the column.
    """

    acc_bits: int = 16
    pipeline: int = 0

    name: ClassVar[str] = "bit-serial"
    act: ClassVar[OperandType] = OperandType("fp16", 16, "float")
    wgt: ClassVar[OperandType] = OperandType("code", 8, "code")
    dataflows: ClassVar[tuple[Dataflow, ...]] = ()
    templates: ClassVar[tuple[str, ...]] = ("bit-serial", "broadcast")
    edge_unit: ClassVar[str] = "fp32-accumulator"
    lanes: ClassVar[int] = 4
    scale_bits: ClassVar[int] = 8
    shortest_group: ClassVar[int] = 1
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "encoder's terms sum to the format's value: every code and selector, every storable special value",
            5416,
            "tests/rtl/pe/test_bit_serial.py",
        ),
        Evidence(
            "column's sums and cycles, K = 576 in groups of 8 to 128 and short groups, five encodings, channels",
            2610,
            "tests/rtl/pe/test_bit_serial.py",
        ),
        Evidence(
            "every code x 512 activations of every exponent, one product, five encodings",
            192_512,
            "tests/rtl/pe/test_bit_serial.py",
        ),
        Evidence(
            "golden equals exact rationals with the roundings written out, groups",
            450,
            "tests/arch/pe/test_bit_serial.py",
        ),
        Evidence(
            "error of a group of 128 against exact arithmetic: median 424 to 579 fp32 ulps, at most 5e-5 of the "
            "sum of |act * weight|, groups",
            12_000,
            "tests/arch/pe/test_bit_serial.py",
        ),
    )

    def __post_init__(self) -> None:
        if not 16 <= self.acc_bits <= 24:
            raise ConfigError(f"bit-serial acc_bits = {self.acc_bits}: must be in 16..24 (default 16)")
        if self.pipeline not in (0, 1):
            raise ConfigError(f"bit-serial pipeline = {self.pipeline}: must be 0 or 1 (default 0)")

    @property
    def timing(self) -> Timing:  # type: ignore[override]
        """Latency: from a channel's last slice taken to its sum on offer, when no group before it holds it up."""
        return Timing(latency_cycles=15 + self.pipeline, initiation_interval_cycles=2)

    @property
    def cell_latency_cycles(self) -> int:
        """In a broadcast tile: from a group's last slice taken to its scaled fp32 sum on offer."""
        return 13 + self.pipeline

    @property
    def psum(self) -> OperandType:
        """Accumulator of a group: sign, 8 bits of exponent, acc_bits - 1 of fraction."""
        return OperandType(f"fp{self.acc_bits + 8}", self.acc_bits + 8, "float")

    @property
    def module_stem(self) -> str:
        stages = f"_s{self.pipeline}" if self.pipeline else ""
        return f"bit_serial_l{self.lanes}_fp16_a{self.acc_bits}{stages}"

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        encoding = encoding_of(format_name)
        if encoding is None:
            return Acceptance("refused", None, f"{format_name} codes are neither int2..int8 nor fp4, fp3 of BitMoD")
        return Acceptance("native", None, f"{format_name} is read as {encoding.name}, {encoding.terms} terms")

    # Timing contract

    def dot_cycles(self, format_name: str, group: int) -> int:
        """Cycles of a group's slices: ceil(group / 4) * terms."""
        return -(-group // self.lanes) * self.encoding(format_name).terms

    def cycles(self, format_name: str, group: int) -> int:
        """Cycles from one group of `group` weights to the next when nothing waits: max(dot cycles, 8)."""
        return max(self.dot_cycles(format_name, group), self.scale_bits)

    def channel_cycles(self, format_name: str, depth: int, group: int) -> int:
        """Cycles from the first offer of a channel of `depth` weights to its sum on offer, from an idle PE.

        Of the first group its slices, of every other one its `cycles`, then the pipeline's latency.
        """
        lengths = [min(group, depth - start) for start in range(0, depth, group)]
        rest = sum(self.cycles(format_name, length) for length in lengths[1:])
        return self.dot_cycles(format_name, lengths[0]) + rest - 1 + self.timing.latency_cycles

    def encoding(self, format_name: str) -> Encoding:
        """How the PE reads a format's codes; ConfigError if it cannot."""
        encoding = encoding_of(format_name)
        if encoding is None:
            raise ConfigError(f"bit-serial format = {format_name}: {self.accepts(format_name, None).reason}")
        return encoding

    # Golden arithmetic

    def zero(self) -> np.float64:
        return np.float64(0)

    def accumulate(  # type: ignore[override]
        self,
        acc: npt.ArrayLike,
        act: npt.ArrayLike,
        wgt: npt.ArrayLike,
        *,
        encoding: Encoding,
        selector: npt.ArrayLike = 0,
        specials: tuple[float, ...] = (0.0,) * SPECIALS,
    ) -> Wide:
        """The group's accumulator (in float64, exactly) after one slice.

        acc : float64 [...]. act : float16 [..., 4]. wgt : codes [..., 4]. selector : 0..3 [...] or one for all.
        """
        terms = encode(encoding, wgt, np.asarray(selector)[..., None], specials)
        fields = _fields(act)
        total = np.asarray(acc, np.float64)
        for index, bsig in enumerate(terms.bsig):
            total = self._step(total, fields, terms, index, bsig)
        finite = np.isfinite(np.asarray(act, np.float16)).all(axis=-1)
        return np.where(finite, total, np.nan)

    def group_sum(
        self,
        act: npt.ArrayLike,
        wgt: npt.ArrayLike,
        *,
        encoding: Encoding,
        selector: npt.ArrayLike = 0,
        specials: tuple[float, ...] = (0.0,) * SPECIALS,
    ) -> Wide:
        """The accumulator at a group's end, float64 [...], of act float16 and codes [..., n], filled up with zeros."""
        acts, codes = np.asarray(act, np.float16), np.asarray(wgt, np.int64)
        fill = [(0, 0)] * (acts.ndim - 1) + [(0, -acts.shape[-1] % self.lanes)]
        acts, codes = np.pad(acts, fill), np.pad(codes, fill)
        acc: Wide = np.zeros(acts.shape[:-1])
        for at in range(0, acts.shape[-1], self.lanes):
            part = acts[..., at : at + self.lanes], codes[..., at : at + self.lanes]
            acc = self.accumulate(acc, *part, encoding=encoding, selector=selector, specials=specials)
        return acc

    def scaled(self, acc: npt.ArrayLike, scale: npt.ArrayLike) -> FloatArray:
        """What a group adds to the column's sum, float32: acc float64 as of `group_sum`, scale 0..255."""
        product = np.asarray(acc, np.float64) * np.asarray(scale, np.float64)
        return np.asarray(product.astype(np.float32))

    def dequantise(self, column: npt.ArrayLike, acc: npt.ArrayLike, scale: npt.ArrayLike) -> FloatArray:
        """The column's fp32 sum after a group: column float32, acc float64 as of `group_sum`, scale 0..255."""
        return canonical(np.asarray(np.asarray(column, np.float32) + self.scaled(acc, scale)))

    def channel_sum(
        self,
        act: npt.ArrayLike,
        wgt: npt.ArrayLike,
        scale: npt.ArrayLike,
        *,
        group: int,
        encoding: Encoding,
        selector: npt.ArrayLike = 0,
        specials: tuple[float, ...] = (0.0,) * SPECIALS,
    ) -> FloatArray:
        """One channel's sum, float32 [...], of act and codes [..., K]; scale and selector [..., ceil(K / group)]."""
        acts, codes = np.asarray(act, np.float16), np.asarray(wgt, np.int64)
        scales = np.asarray(scale, np.int64)
        selectors = np.broadcast_to(np.asarray(selector, np.int64), scales.shape)
        column: FloatArray = np.zeros(acts.shape[:-1], np.float32)
        for index, start in enumerate(range(0, acts.shape[-1], group)):
            part = acts[..., start : start + group], codes[..., start : start + group]
            acc = self.group_sum(*part, encoding=encoding, selector=selectors[..., index], specials=specials)
            column = self.dequantise(column, acc, scales[..., index])
        return column

    def _step(self, acc: Wide, act: tuple[IntArray, IntArray, IntArray], terms: Terms, index: int, bsig: int) -> Wide:
        act_sign, exponent, significand = act
        live = terms.man[..., index] == 1
        lane = np.where(live, exponent + terms.exp[..., index], 0)
        top = lane.max(axis=-1)
        away = top[..., None] - lane
        wide = np.where(live & (away < _FAR), significand << EXTRA_BITS, 0)
        places = np.minimum(away, _FAR)
        aligned = (wide >> places) | ((wide & ((1 << places) - 1)) != 0)
        total = np.where(act_sign ^ terms.sign[..., index], -aligned, aligned).sum(axis=-1)
        # Both addends have at most acc_bits <= 24 significant bits: rounding their float64 sum again rounds it once.
        return _round(acc + np.ldexp(total.astype(np.float64), top + bsig - UNIT_EXPONENT), self.acc_bits)


def _fields(act: npt.ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    """Sign, effective exponent and 11-bit significand of fp16 numbers."""
    bits = np.asarray(act, np.float16).view(np.uint16).astype(np.int64)
    exponent, fraction = bits >> 10 & 31, bits & 1023
    return bits >> 15, np.maximum(exponent, 1), np.where(exponent > 0, 1024, 0) + fraction


def _round(values: Wide, bits: int) -> Wide:
    """To `bits` significant bits, to nearest, ties to even."""
    fraction, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits))
