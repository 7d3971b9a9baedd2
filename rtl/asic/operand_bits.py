"""How the operands of a stimulus are distributed: what explains that real ones cost another energy than random ones.

Counted over the ACTIVE cycles of the very stimuli that energies are measured on, every lane and cycle alike; a code
that a PE holds for several cycles counts in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from bitwright.arch.pe import PESpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import Field, StreamSpec
from bitwright.rtl.asic.stimulus import ACTIVE, Stimulus
from bitwright.rtl.bench.bit_serial_bench import SLICE_FIELDS
from bitwright.rtl.bench.stream.packing import step_fields
from numpy.typing import NDArray

ENTROPY_LIMIT_BITS = 10
"""Wider codes have too many values for the entropy of some ten thousand of them to mean anything."""

INTEGERS = ("int", "mxint", "nvint")
"""How the names of operands in two's complement begin."""


@dataclass(frozen=True)
class OperandBits:
    """One operand, over cycles and lanes.

    bits_per_cycle   Width of what is on offer: code width times codes.
    toggle_rate      Share of a code's bits that differ from the cycle before: mean Hamming distance over width.
    ones_share       Mean popcount over width.
    zero_share       Codes whose bits are all 0. A minifloat's minus zero and a zero point's code are others.
    digit_share      Digits that are not 0 when a code is recoded as Booth does, one bit a digit: places where a bit
                     differs from the one below (below the lowest: 0). What a multiplier adds up; of two's complement
                     small in small numbers of either sign, whose bits toggle as much as large ones'. None of codes
                     that are not two's complement.
    entropy_bits     Of a code: -sum p log2 p of how often each occurs, which for n codes seen is too low by about
                     (values - 1) / (2 n ln 2); None above ENTROPY_LIMIT_BITS.
    """

    bits_per_cycle: int
    toggle_rate: float
    ones_share: float
    zero_share: float
    digit_share: float | None
    entropy_bits: float | None

    @property
    def toggles_per_cycle(self) -> float:
        """Mean Hamming distance of all codes on offer from those of the cycle before."""
        return self.toggle_rate * self.bits_per_cycle


def stream_operands(spec: StreamSpec | BitSerial, stimulus: Stimulus) -> dict[str, OperandBits]:
    """The two multiplied operands of a PE behind streams, by field: `act` (or `table`) and `wgt` (or `code`)."""
    if isinstance(spec, BitSerial):
        fields, names, port = SLICE_FIELDS, ("act", "code"), "slice__payload"
    else:
        fields, names, port = step_fields(spec), spec.multiplied, "step__payload"
    payload, found, start = stimulus.ports[port], {}, 0
    for field in fields:
        width = field.bits * field.lanes
        if field.name in names:
            operand = spec.wgt if field.name in ("wgt", "code") else spec.act
            signed = field.signed or operand.name.startswith(INTEGERS)  # of its own format: none is unsigned
            found[field.name] = _counted(payload[..., start : start + width], replace(field, signed=signed), stimulus)
        start += width
    return found


def cell_operands(spec: PESpec, stimulus: Stimulus) -> dict[str, OperandBits]:
    """`act` and `wgt` of an output-stationary array cell, both of which move in every cycle."""
    found, unsigned = {}, stimulus.ports.get("wgt_unsigned", np.zeros(1)).any()
    for name, operand in (("act", spec.act), ("wgt", spec.wgt)):
        bits = (stimulus.ports[name][..., None] >> np.arange(operand.bits)) & 1
        signed = operand.name.startswith(INTEGERS) and not (name == "wgt" and unsigned)
        found[name] = _counted(bits, Field(name, operand.bits, signed=signed), stimulus)
    return found


def _counted(bits: NDArray[np.int64] | NDArray[np.uint8], field: Field, stimulus: Stimulus) -> OperandBits:
    """`bits` [cycles, lanes, width], least significant first, of one field."""
    active = np.array(stimulus.bins) == ACTIVE
    assert not active[0], "cycle 0 is the reset: no cycle is before it"
    codes = bits.reshape(len(bits), -1, field.bits).astype(np.uint8)
    now, before = codes[active], codes[np.flatnonzero(active) - 1]
    return OperandBits(
        bits_per_cycle=field.bits * field.lanes,
        toggle_rate=float((now != before).mean()),
        ones_share=float(now.mean()),
        zero_share=float((~now.any(axis=-1)).mean()),
        digit_share=float((np.diff(now.astype(np.int8), axis=-1, prepend=np.int8(0)) != 0).mean())
        if field.signed
        else None,
        entropy_bits=_entropy_bits(now) if field.bits <= ENTROPY_LIMIT_BITS else None,
    )


def _entropy_bits(codes: NDArray[np.uint8]) -> float:
    """Of codes given as bits [..., width]."""
    width = codes.shape[-1]
    values = codes.astype(np.int64) @ (1 << np.arange(width))
    share = np.bincount(values.reshape(-1)) / values.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())
