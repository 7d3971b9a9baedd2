"""bit-serial in a broadcast tile: BitMoD's 8 x 8, its term encoders shared by columns, its accumulators by rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from bitwright.arch import formats
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.fp16_mac import FloatArray
from bitwright.arch.pe.stream import Field
from bitwright.arch.pe.terms import Encoding, format_specials
from bitwright.arch.pe.tile_family import Family, Operands, SliceOrder

_AT_ONCE = 1 << 18  # products in flight


@dataclass(frozen=True)
class BitSerialFamily(Family):
    """bit-serial: an element is a value, a step's mode its encoding, a step takes as many cycles as that has terms.

    A sum is scaled in its place, one scale bit a cycle, while the next one is made: sums are 8 cycles apart or more.
    An entry of the par channel is the group's 8-bit scale and above it the selector of its special value. A k block
    that cuts a group makes a sum of its own, scaled and rounded to fp32 like that of a whole group.
    """

    spec: BitSerial

    usual: ClassVar[tuple[str, ...] | None] = ("bitmod_fp4", "bitmod_fp3", "int8", "int6")
    scales_inside: ClassVar[bool] = True

    @classmethod
    def made(cls, rows: int, cols: int, params: Mapping[str, Any]) -> BitSerial:
        return BitSerial(**params)

    @property
    def lanes(self) -> int:
        return self.spec.lanes

    @property
    def mode_field(self) -> Field:
        return Field("encoding", 3)

    @property
    def psum_bits(self) -> int:
        return 32

    @property
    def latency_cycles(self) -> int:
        return self.spec.cell_latency_cycles

    @property
    def sum_cycles(self) -> int:
        return self.spec.scale_bits

    def refusal(self, format_name: str) -> str:
        own = formats.get(format_name).default_scale_format
        return "" if own in ("fp16", "int8") else f"its scales are {own}, a group of bit-serial has 8-bit ones"

    def element_bits(self, format_name: str) -> int:
        return formats.get(format_name).bits

    def mode(self, format_name: str) -> int:
        return int(self._encoding(format_name))

    def sign_extended(self, format_name: str) -> bool:
        return self.element_bits(format_name) < self._encoding(format_name).code_bits

    def step_cycles(self, format_name: str) -> int:
        return self._encoding(format_name).terms

    def parts(self, operands: Operands, slices: SliceOrder, format_name: str) -> Iterator[FloatArray]:
        assert operands.scales is not None, "its formats have scales"
        acts, codes = operands.acts, self._read(operands.codes.astype(np.int64), format_name)
        groups = slices.slice_group
        selectors = np.zeros_like(operands.scales) if operands.zeros is None else operands.zeros
        longest = int(slices.lane.max()) + 1
        at_once = max(1, _AT_ONCE // (acts.shape[1] * codes.shape[1] * self.lanes))
        for first in range(0, len(groups), at_once):
            last = min(first + at_once, len(groups))
            mine = (slices.of >= first) & (slices.of < last)
            place = slices.of[mine] - first, slices.lane[mine]
            act = np.zeros((last - first, longest, acts.shape[1]), np.float16)
            code = np.zeros((last - first, longest, codes.shape[1]), np.int64)
            act[place], code[place] = acts[mine], codes[mine]
            sums = self.spec.group_sum(
                act.transpose(0, 2, 1)[:, :, np.newaxis],
                code.transpose(0, 2, 1)[:, np.newaxis],
                encoding=self._encoding(format_name),
                selector=selectors[groups[first:last], np.newaxis],
                specials=format_specials(format_name),
            )
            yield self.spec.scaled(sums, operands.scales[groups[first:last], np.newaxis])

    def _encoding(self, format_name: str) -> Encoding:
        return self.spec.encoding(format_name)

    def _read(self, codes: np.ndarray[Any, np.dtype[np.int64]], format_name: str) -> Any:
        """Codes as the encoder reads them."""
        half = 1 << (self.element_bits(format_name) - 1)
        return (codes ^ half) - half if self.sign_extended(format_name) else codes
