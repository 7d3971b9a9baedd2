"""The sparse encoder as a unit of its own, shared by the PEs of a column: int8 weights to digits that are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from bitwright.arch.pe.base import Evidence, IntArray, Timing
from bitwright.arch.pe.digits import digit_codes, require_encoding, serial_cycles
from bitwright.arch.pe.stream import FIRST, LAST, Steps
from bitwright.arch.pe.units import UnitSpec

FINAL = "final"


@dataclass(frozen=True)
class SparseEncoder(UnitSpec):
    """At the border of an array of opt4c:encoder=false, one a column: int8 weights to digit codes, one a cycle.

    Parameters
        encoding : en-t, mbe     Digits of the weights (arch.pe.digits).
    Streams      wgt in: the weight, 8 bits signed, then first and last of its sum. digit out: the digit code, 5 bits
                 (arch.pe.digits.digit_codes), then final, first, last: the last digit of its weight, the first digit of
                 a sum's first weight, the last digit of a sum's last weight. The column's rows hold their activations
                 until final; the code with first and last is a step of the column.
    Arithmetic   exact: the digits of a weight, lowest first, add up to it; zeros are left out, but the weight 0 is one.
    Timing       a weight takes max(1, nonzero digits) cycles and is taken in the last of them; until then it must hold
                 still. A digit is on offer in the cycle after the one that it took. While a digit on offer is not
                 taken, the unit stands still. `wgt.ready` depends on the weight, the phase and `digit.ready` in the
                 same cycle, never on `wgt.valid`; `digit.valid` is a register.
    Reset        `rst`, synchronous: a digit on offer and the place in a weight are lost. Data power up unknown.
    Source       OPT4C (HPCA 2025, arXiv 2503.06342): encoders at the border, shared by a column. Ours: the stream, the
                 bit for a zero, the bit that ends a weight.
    """

    encoding: str = "en-t"

    name: ClassVar[str] = "sparse-encoder"
    timing: ClassVar[Timing] = Timing(latency_cycles=1)
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every weight and random ones, both encodings, without and with stalls of either stream",
            2 * 4 * (256 + 2000),
            "tests/rtl/pe/test_sparse_encoder.py",
        ),
        Evidence(
            "encoder and opt4c:encoder=false give the sums of opt4c: every weight and random ones, as above",
            2 * 2 * 2 * (256 + 1500),
            "tests/rtl/pe/test_sparse_encoder.py",
        ),
    )

    def __post_init__(self) -> None:
        require_encoding(self.encoding, f"{self.name} encoding")

    @property
    def module_name(self) -> str:
        return f"sparse_encoder_{self.encoding.replace('-', '')}"

    def cycles(self, weights: Steps) -> IntArray:
        """Cycles that each weight takes."""
        return serial_cycles(self.encoding, weights["wgt"])

    def encode(self, weights: Steps) -> dict[str, IntArray]:
        """Digits of weights: `wgt`, first, last [n] to `digit`, final, first, last, one entry a digit; bit-exact."""
        codes, count = digit_codes(self.encoding, weights["wgt"])
        ends = np.cumsum(count) - 1
        begin, final = np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes), dtype=np.int64)
        begin[ends - count + 1], final[ends] = 1, 1
        first, last = (np.repeat(np.asarray(weights[name], dtype=np.int64), count) for name in (FIRST, LAST))
        return {"digit": codes, FINAL: final, FIRST: first & begin, LAST: last & final}
