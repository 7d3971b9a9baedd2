"""Bit-weight engines that skip zero digits: opt3, with its own encoder, and opt4c, a column behind a shared one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import Acceptance, Evidence, IntArray, OperandType
from bitwright.arch.pe.digits import (
    DIGIT_BITS,
    PLACES,
    digit_value,
    digits,
    nonzero_digits,
    require_encoding,
    serial_cycles,
)
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.arch.pe.opt import CarrySave, compress
from bitwright.arch.pe.sparse_encoder import SparseEncoder
from bitwright.arch.pe.stream import FIRST, LAST, Field, State, Steps


@dataclass(frozen=True)
class _Serial(CarrySave):
    """The digit-serial arithmetic of opt3 and opt4c: a 3-2 compressor, one nonzero digit of a weight a cycle."""

    encoding: str = "en-t"

    templates: ClassVar[tuple[str, ...]] = ("stream", "broadcast")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_encoding(self.encoding, f"{self.name} encoding")

    @property
    def encodes(self) -> bool:
        """Whether the encoder is inside."""
        return True

    @property
    def step_fields(self) -> tuple[Field, ...]:
        wgt = Field("wgt", 8, signed=True) if self.encodes else Field("wgt", DIGIT_BITS)
        return (Field("act", 8, self.sum_lanes, signed=True), wgt)

    def step_cycles(self, steps: Steps) -> IntArray:
        if not self.encodes:
            return super().step_cycles(steps)
        return serial_cycles(self.encoding, steps["wgt"])

    @property
    def cycles_range(self) -> tuple[int, int]:
        if not self.encodes:
            return super().cycles_range
        cycles = serial_cycles(self.encoding, np.arange(-128, 128))
        return int(cycles.min()), int(cycles.max())

    def quantised(self, act: npt.NDArray[np.float32], wgt: npt.NDArray[np.float32]) -> Steps:
        """Rows scaled to int8 by their largest magnitude; `sum_lanes` rows of act share the first's row of wgt."""
        rows = self.sum_lanes
        columns, length = len(act) // rows, act.shape[1]
        steps = Int8Stream().quantised(act[: columns * rows], wgt[: columns * rows])
        acts, wgts = (np.asarray(steps[name]).reshape(columns, rows, length) for name in ("act", "wgt"))
        shared = acts.transpose(0, 2, 1).reshape(columns * length, rows)
        found = {"act": shared[:, 0] if rows == 1 else shared, "wgt": wgts[:, 0].ravel()}
        place = np.arange(columns * length) % length
        found |= {FIRST: (place == 0).astype(np.int64), LAST: (place == length - 1).astype(np.int64)}
        return found if self.encodes else self._digit_steps(found)

    def _digit_steps(self, steps: Steps) -> Steps:
        """Steps of int8 weights as steps of their digits."""
        encoder = SparseEncoder(self.encoding)
        sent = encoder.encode(steps)
        act = np.repeat(np.asarray(steps["act"]), encoder.cycles(steps), axis=0)
        return {"act": act, "wgt": sent["digit"], FIRST: sent[FIRST], LAST: sent[LAST]}

    def products(self, fields: Steps) -> IntArray:
        act, wgt = np.asarray(fields["act"], dtype=np.int64), np.asarray(fields["wgt"], dtype=np.int64)
        wgt = wgt if self.encodes else digit_value(wgt)
        return act * (wgt if act.ndim == 1 else wgt[:, None])

    def carry_save_step(self, state: State, fields: Steps) -> State:
        act, wgt = np.asarray(fields["act"], dtype=np.int64), np.asarray(fields["wgt"], dtype=np.int64)
        if not self.encodes:
            return self._add(state, act, digit_value(wgt))
        values = digits(self.encoding, wgt) << 2 * np.arange(PLACES)
        idle = nonzero_digits(self.encoding, wgt) == 0
        for place in range(PLACES):
            taken = (values[:, place] != 0) | (idle & (place == 0))
            after = self._add(state, act, values[:, place])
            taken = taken if act.ndim == 1 else taken[:, None]
            state = tuple(np.where(taken, new, old) for new, old in zip(after, state, strict=True))
        return state

    def _add(self, state: State, act: IntArray, value: IntArray) -> State:
        """One cycle: the multiple, inverted if the digit is negative, and the one that it then lacks."""
        value = value if act.ndim == 1 else value[:, None]
        negative, everything = value < 0, (1 << self.psum_bits) - 1
        total, carry = compress(state[0], state[1], (np.abs(value) * act ^ -negative.astype(np.int64)) & everything)
        return total, carry & everything | negative


@dataclass(frozen=True)
class Opt3(_Serial):
    """psum <- psum + act * wgt, one nonzero digit of the weight a cycle: encode, then skip.

    Parameters   those of `CarrySave`, and
        encoding : en-t, mbe     Digits of the weight (arch.pe.digits).
    Arithmetic   exact; wraps modulo 2**psum_bits; no wrap for `longest_sum` steps of any operands.
                 A cycle adds digit * act * 4**place with one layer of 3-2 compressors, lowest digit first: the multiple
                 is inverted in all bits if the digit is negative; the one that it lacks is the carry's lowest bit.
    Timing       a step takes max(1, nonzero digits of the weight) cycles; latency 1 + pipeline + resolve_cycles.
                 pipeline 1: a register after the encoder; 2: another after the shifted multiple.
    Source       OPT3 (HPCA 2025, arXiv 2503.06342); the paper's own PE is resolve_cycles = 0 (see `CarrySave`), the
                 one to compare areas with. Each PE stands alone: the array's columns may run apart. Ours: the adder
                 inside.
    """

    name: ClassVar[str] = "opt3"
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"resolve_cycles": 0},
        {"encoding": "mbe", "pipeline": 2, "resolve_cycles": 1, "psum_bits": 24},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence("every pair of operands, three sets of parameters", 3 << 16, "tests/rtl/pe/test_opt_sparse.py"),
        Evidence(
            "steps of random and corner codes, three sets of parameters", 98_085, "tests/rtl/pe/test_opt_sparse.py"
        ),
    )

    @property
    def module_stem(self) -> str:
        coding = self.encoding.replace("-", "")
        return f"opt3_{coding}_p{self.psum_bits}_r{self.resolve_cycles}_s{self.pipeline}"


@dataclass(frozen=True)
class Opt4c(_Serial):
    """psum[row] <- psum[row] + act[row] * wgt: a column of PEs, each a multiple and a compressor, behind one encoder.

    Parameters   those of `CarrySave`, and
        rows : 1..32             PEs of the column; each has an activation and a sum of its own, all share the weight.
        encoder : bool           Whether the encoder is in the column. False: it is the unit `sparse-encoder` at the
            array's border (arch.pe.sparse_encoder), and the stream brings its digit codes (arch.pe.digits.digit_codes),
            one a step, of any order and number.
        encoding : en-t, mbe     Digits of the weight (arch.pe.digits).
        resolve_cycles : 0..4    As in `CarrySave`; one adder a row.
    Arithmetic   a row's as opt3's.
    Timing       a step takes max(1, nonzero digits of the weight) cycles, all rows together, or one cycle if the
                 encoder is outside; latency 1 + pipeline + resolve_cycles. pipeline 1: a register after the encoder,
                 or after the digit code; 2: another after each row's shifted multiple.
    Source       OPT4C (HPCA 2025, arXiv 2503.06342). The paper's own column is encoder = False, resolve_cycles = 0:
                 encoders at the array's border, adders outside; a row of that is the PE to compare
                 areas with (see `CarrySave`). Ours: the digit code's bit for a zero, which lets a sum begin with a
                 weight 0, and the adders inside. OPT4E of the same paper, four PEs before one 6-2 compressor, is not
                 built.
    """

    rows: int = 4
    encoder: bool = True

    name: ClassVar[str] = "opt4c"
    ranges: ClassVar[Mapping[str, tuple[int, int]]] = {**CarrySave.ranges, "rows": (1, 32)}
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"rows": 16, "encoding": "mbe", "resolve_cycles": 0, "pipeline": 2},
        {"rows": 2, "encoder": False, "psum_bits": 24, "pipeline": 1, "resolve_cycles": 3},
        {"rows": 1, "encoder": False, "resolve_cycles": 0},
    )
    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every pair of operands in every row, two sets of parameters", 20 << 16, "tests/rtl/pe/test_opt_sparse.py"
        ),
        Evidence(
            "every activation and digit code in every row, two sets of parameters",
            3 << 13,
            "tests/rtl/pe/test_opt_sparse.py",
        ),
        Evidence(
            "steps of random and corner codes, four sets of parameters", 130_780, "tests/rtl/pe/test_opt_sparse.py"
        ),
    )

    @property
    def sum_lanes(self) -> int:
        return self.rows

    @property
    def encodes(self) -> bool:
        return self.encoder

    @property
    def wgt(self) -> OperandType:  # type: ignore[override]
        return OperandType("int8", 8, "int") if self.encodes else OperandType("digit", DIGIT_BITS, "code")

    @property
    def border_encoder(self) -> SparseEncoder:
        """The unit whose digits a column without an encoder takes."""
        return SparseEncoder(self.encoding)

    def accepts(self, format_name: str, group: int | None) -> Acceptance:
        found = super().accepts(format_name, group)
        if self.encodes or not found:
            return found
        before = f"behind a {found.unit}, " if found.unit else ""
        reason = f"{before}int8 weights become digits of {self.encoding}: {found.reason}"
        return Acceptance("decoder", SparseEncoder.name, reason)

    @property
    def module_stem(self) -> str:
        coding = self.encoding.replace("-", "") if self.encoder else "digits"
        return f"opt4c_r{self.rows}_{coding}_p{self.psum_bits}_r{self.resolve_cycles}_s{self.pipeline}"
