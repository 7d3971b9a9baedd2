"""Matrix products with a PE's own arithmetic: what stands behind every perplexity.

Integer PEs (int8-mac, shift-add). A reduction is cut into segments at group boundaries (and, when a pass depth is
given, every `pass_depth` inputs inside a group, as a weight-stationary array with that many rows does):

    out <- 0
    for each segment in order:  out <- fp32(out + fp32(scale * sum(act_int * (wgt_int - zero))))
    y = fp32(out * act_scale)

The integer sum is exact, so its order does not matter: float32 BLAS computes it wherever no partial sum can reach
2**24, longer reductions are cut and added in float64. The rest is elementwise float32 in the order above. The result
therefore has the PE's bits: y equals the `arch.pe` golden on every output.

fp16-mac. Weights are value * scale rounded once to fp16, activations are rounded to fp16, every product is exact in
float32 and the sum is rounded in float32, but in the order of the BLAS library, while the PE adds one product a
cycle. A test measures the distance between the two orders on a real layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol, TypeVar

import numpy as np
from bitwright.workloads.rounding import round_fp16
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_Number = TypeVar("_Number", np.float32, np.int16)
_EXACT = 1 << 24  # float32 holds every integer up to here
_TOKENS, _CHANNELS = 256, 512  # block of outputs kept in cache while groups are added


@dataclasses.dataclass(frozen=True)
class SquaredError:
    """Sums of squares over a matrix: of the error, and of the weights themselves."""

    error: float
    total: float

    @property
    def relative(self) -> float:
        """Mean squared error relative to the weights' mean square."""
        return self.error / self.total if self.total else 0.0

    def __add__(self, other: SquaredError) -> SquaredError:
        return SquaredError(self.error + other.error, self.total + other.total)


@dataclasses.dataclass(frozen=True)
class Operand:
    """One side of a product, ready for the multiplier.

    values : float32 [rows, K]   fp16 values, or integers (weights: code minus zero point).
    scales : float32 [rows, G] | None   One a group; None for fp16 values.
    group : int   Inputs that share a scale.
    largest : int   No integer in `values` is larger in magnitude; 0 for fp16 values.
    """

    values: F32
    scales: F32 | None
    group: int
    largest: int


class LinearRule(Protocol):
    """How a machine multiplies: encodes both operands, then forms y[T, N] = x[T, K] @ w[N, K].T."""

    def encode_weights(self, weight: F32, what: str) -> tuple[Operand, SquaredError]:
        """The weight operand [N, K] and how far the format is from the given weights."""
        ...

    def encode_acts(self, acts: F32, windows: int, what: str) -> Operand:
        """The activation operand [T, K]; the rows are `windows` equal runs, one tensor each."""
        ...

    def multiply(self, acts: Operand, weights: Operand) -> F32:
        """y [T, N] in float32."""
        ...


class Fp16Rule:
    """fp16-mac: fp16 activations, weights of `format_name` dequantised and rounded once to fp16, float32 sums."""

    def __init__(self, format_name: str, group: int | None) -> None:
        from bitwright.arch import formats

        self._format, self._group = formats.get(format_name), group

    def encode_weights(self, weight: F32, what: str) -> tuple[Operand, SquaredError]:
        """Operand of fp16 values. Raises FormatError for values that the format or fp16 cannot hold."""
        if self._format.name == "fp16":
            values = round_fp16(weight, what)
            return Operand(values, None, weight.shape[1], 0), squared_error(weight, values)
        decoded = self._format.decode(self._format.encode(weight, group=self._group))
        error = squared_error(weight, decoded)
        return Operand(round_fp16(decoded, what), None, weight.shape[1], 0), error

    def encode_acts(self, acts: F32, windows: int, what: str) -> Operand:
        """Operand of fp16 values; `windows` does not matter."""
        return Operand(round_fp16(acts, what), None, acts.shape[1], 0)

    def multiply(self, acts: Operand, weights: Operand) -> F32:
        """float32 BLAS on fp16 values."""
        product: F32 = acts.values @ weights.values.T
        return product


class IntegerRule:
    """int8-mac and shift-add: int8 activations (one float32 scale a token, or one a tensor), integer weights.

    Parameters
        format_name, group   Weight format and its group.
        per_tensor : bool    One activation scale for a window's whole tensor.
        pass_depth : int | None   Longest reduction before a float32 addition; None: only groups cut it.
    """

    def __init__(
        self, format_name: str, group: int | None, *, per_tensor: bool = False, pass_depth: int | None = None
    ) -> None:
        from bitwright.arch import formats

        self._format, self._group = formats.get(format_name), group
        self._per_tensor, self._pass_depth = per_tensor, pass_depth

    def encode_weights(self, weight: F32, what: str) -> tuple[Operand, SquaredError]:
        """Operand of integers (code minus zero point) with one scale a group."""
        operand = encode_integers(weight, self._format.name, self._group)
        assert operand.scales is not None, "integers have scales"
        decoded = operand.values * spread(operand.scales, operand.group, weight.shape[1])
        return operand, squared_error(weight, decoded)

    def encode_acts(self, acts: F32, windows: int, what: str) -> Operand:
        """Operand of int8 codes with one scale a row."""
        return encode_int8_acts(acts, windows if self._per_tensor else None)

    def multiply(self, acts: Operand, weights: Operand) -> F32:
        """The product with the PE's bits, see the module's text."""
        return multiply_integers(acts, weights, self._pass_depth)


def squared_error(weight: F32, decoded: F32) -> SquaredError:
    """Sums of squares of `decoded - weight` and of `weight`, both [N, K]."""
    difference = (decoded - weight).reshape(-1)
    flat = np.ascontiguousarray(weight).reshape(-1)
    return SquaredError(float(np.dot(difference, difference)), float(np.dot(flat, flat)))


def spread(per_group: NDArray[_Number], group: int, width: int) -> NDArray[_Number]:
    """[N, G] repeated to [N, width]: every input gets its group's value; the last group may be short."""
    if per_group.shape[1] == 1:
        return per_group
    return np.repeat(per_group, group, axis=1)[:, :width]


def encode_integers(weight: F32, format_name: str, group: int | None) -> Operand:
    """Weights [N, K] as integers with one scale a group, in the format's own scale format.

    Raises FormatError for a format whose values are not integers times a scale.
    """
    from bitwright.arch import formats

    codec = formats.get(format_name)
    codes = codec.integers(codec.encode(weight, group=group))
    width = weight.shape[1]
    group = width if group is None else group
    ints = codes.ints
    if codes.zeros.any():
        ints = ints - spread(codes.zeros, group, width)
    largest = max(int(ints.max()), -int(ints.min()))
    return Operand(ints.astype(np.float32), codes.scales, group, largest)


def encode_int8_acts(acts: F32, tensors: int | None) -> Operand:
    """Activations [T, K] as int8 codes: one float32 scale a row, or a `tensors`-th of the rows shares one.

    int8's codes are two's complement, so they are read as they are: `integers` would go through a table.
    """
    from bitwright.arch import formats

    rows, width = acts.shape
    shared = np.ascontiguousarray(acts if tensors is None else acts.reshape(tensors, -1))
    encoded = formats.get("int8").encode(shared, group=None, scale_format="fp32")
    assert encoded.scales is not None, "int8 has scales"
    scales = np.repeat(encoded.scales.astype(np.float32, copy=False), rows // len(encoded.scales), axis=0)
    return Operand(encoded.codes.view(np.int8).astype(np.float32).reshape(rows, width), scales, width, 127)


def multiply_integers(acts: Operand, weights: Operand, pass_depth: int | None) -> F32:
    """y [T, N] with the bits of the integer PEs, for acts [T, K] and weights [N, K]."""
    assert acts.scales is not None, "integer activations have scales"
    assert weights.scales is not None, "integer weights have scales"
    tokens, channels = len(acts.values), len(weights.values)
    scales = np.ascontiguousarray(weights.scales.T)
    segments = list(cut(weights.values.shape[1], weights.group, pass_depth))
    result = np.empty((tokens, channels), np.float32)
    for first in range(0, tokens, _TOKENS):
        rows = slice(first, min(first + _TOKENS, tokens))
        for left in range(0, channels, _CHANNELS):
            columns = slice(left, min(left + _CHANNELS, channels))
            out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
            scratch = np.empty_like(out)
            for inputs, group in segments:
                sums = exact_product(acts, weights, rows, columns, inputs, scratch)
                np.multiply(sums, scales[group, columns], out=scratch, dtype=sums.dtype, casting="same_kind")
                out += scratch
            np.multiply(out, acts.scales[rows], out=result[rows, columns])
    return result


def cut(width: int, group: int, pass_depth: int | None) -> Iterator[tuple[slice, int]]:
    """The segments of a reduction of `width` inputs, each with the index of its group, in order."""
    depth = group if pass_depth is None else min(group, pass_depth)
    for index, start in enumerate(range(0, width, group)):
        stop = min(start + group, width)
        for left in range(start, stop, depth):
            yield slice(left, min(left + depth, stop)), index


def exact_product(
    acts: Operand, weights: Operand, rows: slice, columns: slice, inputs: slice, out: F32
) -> NDArray[np.float32] | NDArray[np.float64]:
    """Exact integer sums [rows, columns] over `inputs`: in `out` when float32 holds them, else a float64 array."""
    longest = _EXACT // max(1, acts.largest * weights.largest)
    if inputs.stop - inputs.start <= longest:
        return np.matmul(acts.values[rows, inputs], weights.values[columns, inputs].T, out=out)
    total = np.zeros(out.shape, np.float64)
    for start in range(inputs.start, inputs.stop, longest):
        part = slice(start, min(start + longest, inputs.stop))
        total += acts.values[rows, part] @ weights.values[columns, part].T
    return total
