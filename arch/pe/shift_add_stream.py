"""shift-add behind a stream: int8 activations times codes of 2 to 4 bits, exact sums of a group, no multiplier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch import formats
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges, wrap
from bitwright.arch.pe.stream import FIRST, LAST, Cut, Field, State, Steps, StreamSpec, running
from bitwright.arch.pe.weight_codes import decodable, weight_code

_LEAST_ACT = -128


@dataclass(frozen=True)
class ShiftAddStream(StreamSpec):
    """psum <- psum + (total over the lanes of act * value(code)); act_sum <- act_sum + (total of act).

    Parameters
        weight_bits : 2..4       Width of a code: W2A8, W3A8, W4A8.
        lanes : 1..64            Products a cycle.
        group : 1..65536         Longest group, in products; it sets the widths of the sums.
        pipeline : 0..1          1: a register between the total of the lanes and the sum.
        zero_points : bool       True: the sum carries act_sum as well.
    Operands     act int8; wgt a code, two's complement or, where the mode field `wgt_unsigned` is 1, unsigned. Lanes
                 that a group does not fill take activations of 0.
    Arithmetic   exact. product = sum over i of (act << i) * code bit i, the highest bit's term negated for signed
                 codes. Let n be the group in products, filled up to whole steps. A product lies in
                 -128 * (2**w - 1) .. 127 * (2**w - 1) for unsigned codes of w bits, or in
                 -127 * 2**(w-1) .. 128 * 2**(w-1) for signed ones, so n of them stay within
                 +-2**7 * 2**w * 2**ceil(log2 n), and with the sign psum has 8 + w + ceil(log2 n) bits; act_sum,
                 n numbers of -128..127, has 8 + ceil(log2 n). Beyond `longest_sum` steps both wrap.
    After a group  out = scale * (psum - zero * act_sum) is what the group-dequantiser computes: the sum of
                 scale * (code - zero) * act, with one multiplication by the scale a group.
    Timing       latency 1 + pipeline cycles, one step a cycle.
    Structure    each code bit gates its shifted activation; the terms of all lanes, and with pipeline = 0 the sum so
                 far, go through one tree of carry-save adders into one carry-propagating adder.
    Source       the W4A8 element of MixPE (arXiv 2411.16158), by its algebra; the paper's schematic was not seen. Codes
                 of 2 and 3 bits, lanes, the pipeline and the sum of activations inside the PE are ours.
    """

    weight_bits: int = 4
    lanes: int = 1
    group: int = 128
    pipeline: int = 0
    zero_points: bool = False

    name: ClassVar[str] = "shift-add"
    act: ClassVar[OperandType] = OperandType("int8", 8, "int")
    edge_unit: ClassVar[str] = "group-dequantiser"
    modes: ClassVar[tuple[str, ...]] = ("wgt_unsigned",)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"pipeline": 1, "zero_points": True},
        {"lanes": 4, "zero_points": True},
        {"lanes": 4, "pipeline": 1},
        {"weight_bits": 2, "lanes": 4, "pipeline": 1, "zero_points": True},
        {"weight_bits": 3, "lanes": 3, "group": 20, "zero_points": True},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "module equals sums: every code x activation x mode in every lane, six parameter sets",
            102_400,
            "tests/rtl/pe/test_shift_add_stream.py",
        ),
        Evidence(
            "module equals sums, in value and cycles: random and corner lane-steps, six parameter sets",
            2_758_386,
            "tests/rtl/pe/test_shift_add_stream.py",
        ),
        Evidence(
            "module, then group-dequantiser, equal integers and float64 with two roundings: groups with zero points",
            120,
            "tests/rtl/pe/test_shift_add_stream.py",
        ),
        Evidence(
            "one step equals the sum of the terms in Python integers: every code x activation x mode, 2 to 4 bits",
            14_336,
            "tests/arch/pe/test_shift_add_stream.py",
        ),
        Evidence(
            "scale * (psum - zero * act_sum) equals exact rationals before and after its roundings: groups",
            144,
            "tests/arch/pe/test_shift_add_stream.py",
        ),
    )

    def __post_init__(self) -> None:
        require_ranges(self, weight_bits=(2, 4), lanes=(1, 64), group=(1, 1 << 16), pipeline=(0, 1))

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType(f"int{self.weight_bits}", self.weight_bits, "code")

    @property
    def growth_bits(self) -> int:
        """ceil(log2 n) of the n products of a group, filled up to whole steps."""
        return growth_bits(self.group, self.lanes)

    @property
    def psum(self) -> OperandType:
        bits = self.act.bits + self.weight_bits + self.growth_bits
        return OperandType(f"int{bits}", bits, "int")

    @property
    def act_sum_bits(self) -> int:
        """Width of act_sum, whether the sum carries it or not."""
        return self.act.bits + self.growth_bits

    @property
    def module_stem(self) -> str:
        suffix = "_z" if self.zero_points else ""
        return f"shift_add_w{self.weight_bits}_l{self.lanes}_g{self.group}_s{self.pipeline}{suffix}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        return (
            Field("act", self.act.bits, self.lanes, signed=True),
            Field("wgt", self.weight_bits, self.lanes),
            Field("wgt_unsigned", 1),
        )

    @property
    def sum_fields(self) -> tuple[Field, ...]:
        psum = Field("psum", self.psum.bits, signed=True)
        return (psum, Field("act_sum", self.act_sum_bits, signed=True)) if self.zero_points else (psum,)

    @property
    def dot_low(self) -> int:
        """The least total of a step; the greatest is nearer to 0."""
        return self.lanes * _LEAST_ACT * ((1 << self.weight_bits) - 1)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The step's totals where they are wires; of one lane without such, its terms (act << position), gated.

        The term of the highest code bit is ~(act << position) for signed codes; `negate` is the 1 that this lacks.
        More lanes without a register between have none: rtl.formal.trees adds up their carry-save tree.
        """
        if self.pipeline:
            dot = Cut("dot", self.dot_low, -self.dot_low - 1)
            act_dot = Cut("act_dot", _LEAST_ACT * self.lanes, (-_LEAST_ACT - 1) * self.lanes)
            return (dot, act_dot) if self.zero_points else (dot,)
        if self.lanes > 1:
            return ()
        terms = [
            Cut(f"term_0_{position}", _LEAST_ACT << position, 127 << position) for position in range(self.weight_bits)
        ]
        return (*terms, Cut("negate", 0, 1, signed=False, weight=1 << (self.weight_bits - 1)))

    @property
    def longest_sum(self) -> int:
        steps = (1 << (self.psum.bits - 1)) // -self.dot_low
        if self.zero_points:
            steps = min(steps, (1 << (self.act_sum_bits - 1)) // (-_LEAST_ACT * self.lanes))
        return steps

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        return accept_codes(self, format_name, group)

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Activations int8, one scale a row; weights intN, or intN_asym with zero_points, in groups of `group`."""
        codec = formats.get("int8")
        acts = codec.integers(codec.encode(act, group=None, scale_format="fp32")).ints.astype(np.int64)
        return group_steps(self, acts, wgt)

    # Golden arithmetic

    def start(self, count: int) -> State:
        return (np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64))

    def step(self, state: State, fields: Steps) -> State:
        dot, act_total = self.totals(fields)
        return (wrap(state[0] + dot, self.psum.bits), wrap(state[1] + act_total, self.act_sum_bits))

    def result(self, state: State) -> dict[str, IntArray]:
        return dict(zip((field.name for field in self.sum_fields), state, strict=False))

    def totals(self, fields: Steps) -> tuple[IntArray, IntArray]:
        """(total of the products, total of the activations) of each step."""
        act = np.asarray(fields["act"], dtype=np.int64).reshape(-1, self.lanes)
        code = np.asarray(fields["wgt"], dtype=np.int64).reshape(-1, self.lanes)
        value = code_values(code, np.asarray(fields["wgt_unsigned"])[:, None], self.weight_bits)
        return np.einsum("nl,nl->n", act, value), act.sum(axis=1)

    def sums(self, steps: Steps) -> dict[str, IntArray]:
        last = np.asarray(steps[LAST]) != 0
        dot, act_total = (running(total, steps[FIRST])[last] for total in self.totals(steps))
        return self.result((wrap(dot, self.psum.bits), wrap(act_total, self.act_sum_bits)))


def growth_bits(group: int, lanes: int) -> int:
    """ceil(log2 n) of the n products of a group, filled up to whole steps of `lanes`."""
    return (-(-group // lanes) * lanes - 1).bit_length()


def code_values(codes: IntArray, unsigned: npt.ArrayLike, bits: int) -> IntArray:
    """Values of codes 0..2**bits-1: themselves where `unsigned`, else two's complement."""
    negative = (codes >> (bits - 1)) & (np.asarray(unsigned, dtype=np.int64) ^ 1)
    return np.asarray(codes - (negative << bits))


def accept_codes(spec: Any, format_name: str, group: int | None) -> Acceptance:
    """The rule of both shift-add streams: plain integer codes, narrow enough, in groups that fit the sum."""
    rule = weight_code(format_name) if decodable(format_name) else None
    if rule is None or rule.coding == "table" or rule.code_bits > spec.weight_bits:
        return Acceptance("refused", None, f"{format_name} codes are not integers of at most {spec.weight_bits} bits")
    if rule.zero_bits and not spec.zero_points:
        return Acceptance("refused", None, f"{format_name} has zero points, and this PE no sum of activations")
    if group is None or group > spec.group:
        length = "a whole row" if group is None else str(group)
        reason = f"a group of {length} does not fit the {spec.psum.bits}-bit sum of {spec.group} products"
        return Acceptance("refused", None, reason)
    extended = "" if rule.code_bits == spec.weight_bits else ", extended at the array border"
    return Acceptance("native", None, f"{format_name} is a {rule.code_bits}-bit code{extended}")


def group_steps(spec: Any, acts: IntArray, wgt: npt.NDArray[np.float32]) -> Steps:
    """Steps of activations [n, K] against weights [n, K] encoded in the PE's format, one sum for each group of a row.

    A group that is no multiple of `lanes` is filled up with activations 0.
    """
    name = f"int{spec.weight_bits}_asym" if spec.zero_points else f"int{spec.weight_bits}"
    codes = formats.get(name).encode(wgt, group=spec.group).codes.astype(np.int64) & ((1 << spec.weight_bits) - 1)
    parts: dict[str, list[IntArray]] = {"act": [], "wgt": []}
    lengths = []
    for start in range(0, acts.shape[1], spec.group):
        for part, values in (("act", acts), ("wgt", codes)):
            chunk = values[:, start : start + spec.group]
            filled = np.pad(chunk, ((0, 0), (0, -chunk.shape[1] % spec.lanes)))
            parts[part].append(filled.reshape(-1, spec.lanes))
        lengths.append(np.full(len(acts), filled.shape[1] // spec.lanes))
    found = {part: np.concatenate(values) for part, values in parts.items()}
    if spec.lanes == 1:
        found = {part: values[:, 0] for part, values in found.items()}
    count = len(found["act"])
    ends = np.cumsum(np.concatenate(lengths))
    first, last = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    first[np.append(0, ends[:-1])], last[ends - 1] = 1, 1
    return {**found, "wgt_unsigned": np.full(count, int(spec.zero_points)), FIRST: first, LAST: last}
