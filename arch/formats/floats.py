"""Float formats: fp16 and bf16 without a scale; fp4_e2m1 and fp3_e2m0 with one scale a group.

fp16, bf16: the IEEE binary16 and the upper half of binary32. Codes are the bit patterns, rounding is to
nearest even; a value that would round to infinity is a FormatError, never an infinity.

fp4_e2m1: sign, two exponent bits (bias 1), one mantissa bit: +-{0, .5, 1, 1.5, 2, 3, 4, 6} as in OCP MX v1.0,
but under a real-valued scale a group: scale = max|w| / 6. fp3_e2m0: sign and two exponent bits: +-{0, 1, 2,
4}, scale = max|w| / 4. Ties go to the even code (0.25 -> 0, 0.75 -> 1, 2.5 -> 2, 5 -> 4), and a negative
value that rounds to zero keeps its sign (code 1000 or 100), both as ml_dtypes does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bitwright.arch.errors import FormatError
from bitwright.arch.formats.base import Encoded, FloatArray, IntegerCodes, StorageBits
from bitwright.arch.formats.blocks import Layout, index_text, layout_of, peaks, prepare
from bitwright.arch.formats.scaled import Fit, GroupBytes, ScaledFormat
from bitwright.arch.formats.scales import fit_scales
from numpy.typing import NDArray

# e2m1 magnitudes by code; the name says the layout: two exponent bits, bias 1, one mantissa bit.
E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M0_MAGNITUDES = (0.0, 1.0, 2.0, 4.0)


class ElementFloat:
    """fp16 or bf16: one 16-bit float a value, no scale.

    `group` is accepted by all methods and changes nothing (there is nothing to share), so that one call fits
    every format; `Encoded.group` is None. A scale_format is refused.

    Parameters
        name : "fp16" or "bf16"
        source : str
        limit : float     Least magnitude that would round to infinity.
    """

    bits = 16
    family = "float"
    block = 1
    default_group = None
    default_scale_format = None
    zero_bits = 0
    selector_bits = 0
    integer_step = None
    scale_rule = "no scale; nearest, ties to even"

    def __init__(self, name: str, source: str, limit: float) -> None:
        self.name = name
        self.source = source
        self.limit = limit

    def __repr__(self) -> str:
        return f"<format {self.name}>"

    def code_values(self, selector: int = 0, zero: int = 0) -> FloatArray:
        """Value of each of the 65,536 codes, float32; infinities and NaNs included."""
        if selector or zero:
            raise FormatError(
                f"selector, zero = {selector}, {zero}: must be 0, 0 (it has neither); {self.name}.code_values"
            )
        return self._widen(np.arange(1 << 16, dtype=np.uint16))

    def values(self) -> FloatArray:
        """Distinct finite values, ascending."""
        table = self.code_values()
        return np.unique(table[np.isfinite(table)])

    @property
    def min_value(self) -> float:
        """Least finite value."""
        return -self.max_value

    @property
    def max_value(self) -> float:
        """Greatest finite value."""
        return float(self.values()[-1])

    def encode(self, values: NDArray[Any], *, group: int | None = None, scale_format: str | None = None) -> Encoded:
        """Bit patterns uint16 [..., K] of the nearest floats.

        FormatError: NaN, infinity, a value that would round to infinity, a scale_format, group < 1, empty
        last axis.
        """
        where = f"{self.name}.encode"
        self._refuse_scale(scale_format, where)
        matrix, layout = prepare(values, group, where)
        shape = np.shape(values)
        whole = Layout(layout.rows, layout.width, 1)
        per_row = Layout(layout.rows, layout.width, layout.width)
        largest = peaks(matrix, per_row, shape, where)
        if largest.size and float(largest.max()) >= self.limit:
            first = int(np.argmax(np.abs(matrix.reshape(-1)) >= self.limit))
            raise FormatError(
                f"values[{index_text(first, shape)}] = {matrix.reshape(-1)[first]:.9g}: {self.name} reaches "
                f"{self.max_value:.9g} (scale the array down); {where}"
            )
        codes = np.empty(matrix.shape, np.uint16)
        for block in whole.blocks():
            block.paste(codes, self._narrow(block.cut(matrix)))
        return Encoded(self.name, codes.reshape(shape), None, None, None, None)

    def decode(self, encoded: Encoded) -> FloatArray:
        """Values of the bit patterns, float32, exact; FormatError for another format's codes."""
        if encoded.format != self.name:
            raise FormatError(
                f"encoded.format = {encoded.format}: must be {self.name} "
                f"(use formats.get({encoded.format!r})); {self.name}.decode"
            )
        return self._widen(np.asarray(encoded.codes, np.uint16))

    def integers(self, encoded: Encoded) -> IntegerCodes:
        """Always a FormatError: its values share no integer step of 16 bits."""
        raise FormatError(f"format = {self.name}: has no integer values (use decode); {self.name}.integers")

    def storage_bits(self, shape: tuple[int, ...], group: int | None, scale_format: str | None = None) -> StorageBits:
        """16 bits a value; FormatError for a scale_format, group < 1, empty last axis."""
        where = f"{self.name}.storage_bits"
        self._refuse_scale(scale_format, where)
        layout = layout_of(shape, group, where)
        values = layout.rows * layout.width
        return StorageBits(codes=16 * values, scales=0, zeros=0, selectors=0, values=values)

    def _refuse_scale(self, scale_format: str | None, where: str) -> None:
        if scale_format is not None:
            raise FormatError(f"scale_format = {scale_format}: must be None ({self.name} has no scale); {where}")

    def _narrow(self, part: FloatArray) -> NDArray[np.uint16]:
        if self.name == "fp16":
            return part.astype(np.float16).view(np.uint16)
        bits = part.view(np.uint32)  # add just under half a unit, or exactly half when the kept part is odd
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return ((bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)

    def _widen(self, codes: NDArray[np.uint16]) -> FloatArray:
        if self.name == "fp16":
            return codes.view(np.float16).astype(np.float32)
        return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


class ScaledMinifloat(ScaledFormat):
    """A sign-magnitude float of 3 or 4 bits under a scale; see the module docstring.

    Parameters
        name, source : str
        magnitudes : tuple of float   Ascending, by code without sign; every midpoint a multiple of 1/4.
        integer_step : float
    """

    def __init__(self, name: str, source: str, magnitudes: tuple[float, ...], integer_step: float) -> None:
        self.magnitudes = magnitudes
        bits = len(magnitudes).bit_length()
        super().__init__(
            name=name,
            bits=bits,
            family="float",
            source=source,
            scale_rule=f"scale = max|w| / {magnitudes[-1]:g}; nearest, ties to the even code",
            integer_step=integer_step,
        )
        self._code_of = self._rounding_table()

    def _tables(self) -> FloatArray:
        positive = np.array(self.magnitudes, np.float32)
        return np.concatenate([positive, -positive])[None]

    def _rounding_table(self) -> NDArray[np.uint8]:
        """Code by u = floor(4a) + ceil(4a) of a magnitude a: even u is 8a exactly; odd u lies between."""
        quarters = np.array(self.magnitudes) * 4
        ties = quarters[:-1] + quarters[1:]  # midpoints in units of u
        assert not (ties % 2).any(), "every midpoint must be a multiple of 1/4"
        u = np.arange(int(2 * quarters[-1]) + 3)
        above = np.searchsorted(ties, u, side="left")  # ties below u; a tie itself still counts as below
        exact = np.isin(u, ties)
        return np.where(exact & (above % 2 == 1), above + 1, above).astype(np.uint8)

    def _fit(self, matrix: FloatArray, layout: Layout, scale_format: str, shape: tuple[int, ...]) -> Fit:
        where = f"{self.name}.encode"
        steps = peaks(matrix, layout, shape, where).astype(np.float64) / self.magnitudes[-1]
        return Fit(fit_scales(steps, scale_format, layout, shape, where))

    def _round(self, x: FloatArray, zeros: GroupBytes | None, selectors: GroupBytes | None) -> GroupBytes:
        signs = (x.view(np.uint32) >> np.uint32(31)).astype(np.uint8)
        np.abs(x, out=x)
        x *= np.float32(4)
        np.minimum(x, np.float32(4 * self.magnitudes[-1] + 1), out=x)
        u = np.floor(x)
        u += np.ceil(x, out=x)
        codes = np.take(self._code_of, u.astype(np.uint8), mode="clip")
        codes |= signs << np.uint8(self.bits - 1)
        return codes


FP16 = ElementFloat("fp16", "IEEE 754-2019 binary16, section 3.4", 65520.0)
BF16 = ElementFloat("bf16", "bfloat16, as ml_dtypes; upper half of IEEE 754-2019 binary32", float.fromhex("0x1.ffp127"))
FP4_E2M1 = ScaledMinifloat("fp4_e2m1", "OCP Microscaling Formats v1.0, section 5.3.3 (element)", E2M1_MAGNITUDES, 0.5)
FP3_E2M0 = ScaledMinifloat("fp3_e2m0", "BitMoD, HPCA 2025, Table IV (basic FP3)", E2M0_MAGNITUDES, 1.0)
