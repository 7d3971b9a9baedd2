"""int8-int4-mac: a lane's 8 x 8 bit multiplier makes one int8 product a cycle, or two of int8 and int4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType, require_ranges, wrap
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.int8_stream import LARGEST_PRODUCT, LEAST_PRODUCT
from bitwright.arch.pe.integer_stream import IntegerStream, row_codes
from bitwright.arch.pe.stream import Cut, Field, Steps, row_flags

LANES_A_DOT = 8  # more, and no solver bounds their sum in a minute


@dataclass(frozen=True)
class Int8Int4Mac(IntegerStream):
    """sum <- sum + (total over the lanes of one int8 or two int4 products), exact, modulo 2**psum_bits.

    Parameters
        lanes : 1..32            Multipliers; each takes two activations and a byte of weights a step.
        psum_bits : 16..32       Width of the sum.
        pipeline : 0..2          Registers: 1 between the lanes' total and the sum; 2 between the totals of the low and
            of the high nibbles and that total too.
    Operands     act int8, two a lane: lane i has act[2 * i] and act[2 * i + 1]. wgt a byte a lane. Mode `int4`, one for
                 all lanes of a step: 0: the byte is one int8 weight, for the lane's first activation; the second is
                 not read. 1: its low nibble is the int4 weight of the first activation, its high nibble of the second.
    Arithmetic   exact; wraps modulo 2**psum_bits; no wrap for `longest_sum` steps of any operands and modes, as many as
                 of int8 alone: two int4 products are together at most 2**11, an eighth of the largest int8 one.
    Timing       latency 1 + pipeline cycles, one step a cycle: `lanes` products, in mode int4 twice as many.
    Structure    a lane is one radix-4 Booth multiplier of 4 digits, 2 a nibble; the upper two take either activation.
                 The upper digits of all lanes, of every 8 where there are more, are added before one shift by 4 places,
                 which mode int4 leaves out.
    Source       the usual split of a multiplier by its weight operand, as in decomposable (8 b / 4 b) tensor units.
    """

    lanes: int = 1
    psum_bits: int = 32
    pipeline: int = 0

    name: ClassVar[str] = "int8-int4-mac"
    act: ClassVar[OperandType] = OperandType("int8", 8, "int")
    wgt: ClassVar[OperandType] = OperandType("int8", 8, "int")
    edge_unit: ClassVar[str] = "group-dequantiser"
    modes: ClassVar[tuple[str, ...]] = ("int4",)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"lanes": 4, "pipeline": 1},
        {"lanes": 4, "pipeline": 2, "psum_bits": 24},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "hardware equals golden, both activations and the byte of a lane in mode int4",
            1 << 24,
            "tests/rtl/pe/test_int8_int4_mac.py",
        ),
        Evidence(
            "hardware equals golden, every activation with every byte in both modes, four sets of parameters",
            4 * (2 << 16),
            "tests/rtl/pe/test_int8_int4_mac.py",
        ),
        Evidence(
            "hardware equals golden, values and cycles: random, corner, extreme and real sums, modes mixed in a sum; "
            "four sets of parameters, steps of random sums alone",
            4 * 144_393,
            "tests/rtl/pe/test_int8_int4_mac.py",
        ),
        Evidence("golden equals Python integers, steps", 5 * 2 * 360, "tests/arch/pe/test_int8_int4_mac.py"),
    )

    def __post_init__(self) -> None:
        require_ranges(self, lanes=(1, 32), psum_bits=(16, 32), pipeline=(0, 2))

    @property
    def module_stem(self) -> str:
        return f"int8_int4_mac_l{self.lanes}_p{self.psum_bits}_s{self.pipeline}"

    @property
    def step_fields(self) -> tuple[Field, ...]:
        return (
            Field("act", 8, 2 * self.lanes, signed=True),
            Field("wgt", 8, self.lanes, signed=True),
            Field("int4", 1),
        )

    @property
    def macs_per_step(self) -> int:
        """Products of one step in mode int8; twice as many in mode int4."""
        return self.lanes

    def macs(self, steps: Steps) -> IntArray:
        return np.where(np.asarray(steps["int4"]) != 0, 2 * self.lanes, self.lanes)

    @property
    def dots_of(self) -> dict[str, range]:
        """The sums of lanes that the step's total is made of: one, or one of every `LANES_A_DOT` lanes."""
        if self.lanes <= LANES_A_DOT:
            return {"dot": range(self.lanes)}
        firsts = range(0, self.lanes, LANES_A_DOT)
        return {f"dot_{at}": range(first, min(first + LANES_A_DOT, self.lanes)) for at, first in enumerate(firsts)}

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return tuple(
            Cut(name, LEAST_PRODUCT * len(lanes), LARGEST_PRODUCT * len(lanes),
                proof="tests/rtl/pe/test_int8_int4_mac.py")
            for name, lanes in self.dots_of.items()
        )  # fmt: skip

    @property
    def longest_sum(self) -> int:
        return ((1 << (self.psum_bits - 1)) - 1) // (LARGEST_PRODUCT * self.lanes)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        """As int8-mac; of those formats, the ones whose integers fit int4 take half the steps."""
        found = Int8Mac().accepts(format_name, group)
        if found.kind == "native" and format_name in ("int2", "int3", "int4"):
            return Acceptance("native", None, f"{format_name} sign-extends to int4, two weights a byte")
        return found

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows scaled to int8 by their largest magnitude, weights of every other row to int4; padded with zeros.

        Rows of int4 take half the steps: 2 * lanes products each, against lanes.
        """
        acts, parts = row_codes(act), []
        for row in range(len(act)):
            int4 = row % 2
            per_step = self.lanes * (1 + int4)
            count = -(-act.shape[1] // per_step)
            parts.append(self._row(_padded(acts[row], count * per_step), wgt[row], count, int4))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _row(self, acts: IntArray, wgt: npt.NDArray[np.float32], count: int, int4: int) -> Steps:
        codes = _padded(row_codes(wgt[None], 7 if int4 else 127)[0], len(acts))
        if int4:
            pairs = codes.reshape(count, self.lanes, 2)
            act, byte = acts.reshape(count, 2 * self.lanes), wrap((pairs[..., 1] << 4) | (pairs[..., 0] & 15), 8)
        else:
            act = np.stack([acts, np.zeros_like(acts)], axis=1).reshape(count, 2 * self.lanes)
            byte = codes.reshape(count, self.lanes)
        bytes_ = byte[:, 0] if self.lanes == 1 else byte
        return {"act": act, "wgt": bytes_, "int4": np.full(count, int4), **row_flags(1, count)}

    def dots(self, fields: Steps) -> IntArray:
        """The lanes' total of each step."""
        act = np.asarray(fields["act"], dtype=np.int64).reshape(-1, self.lanes, 2)
        byte = np.asarray(fields["wgt"], dtype=np.int64).reshape(-1, self.lanes)
        high = byte >> 4
        low = byte - (high << 4)
        signed_low = low - ((low & 8) << 1)
        pairs = np.einsum("nl,nl->n", act[..., 0], signed_low) + np.einsum("nl,nl->n", act[..., 1], high)
        return np.asarray(np.where(np.asarray(fields["int4"]) != 0, pairs, np.einsum("nl,nl->n", act[..., 0], byte)))


def _padded(codes: IntArray, length: int) -> IntArray:
    return np.pad(codes, (0, length - len(codes)))
