"""Drives one compiled array cell with operands, and compares every output bit with the PE's golden arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe import OperandType, PESpec
from bitwright.rtl import pe
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.bench.words import from_integers, to_integers

Bits = npt.NDArray[np.uint64]

_FLOAT = {16: (np.float16, np.uint16), 32: (np.float32, np.uint32)}


def to_bits(kind: OperandType, values: npt.ArrayLike) -> Bits:
    """Values of an operand (integers, float16 or float32 by its type) as bit patterns, uint64."""
    if kind.kind == "float":
        real, raw = _FLOAT[kind.bits]
        return np.asarray(values, dtype=real).view(raw).astype(np.uint64)
    return np.asarray(to_integers(from_integers(values, kind.bits), kind.bits), dtype=np.uint64)


def from_bits(kind: OperandType, bits: npt.ArrayLike) -> npt.NDArray[Any]:
    """The inverse of `to_bits`: float16, float32 or int64."""
    if kind.kind == "float":
        real, raw = _FLOAT[kind.bits]
        return np.asarray(bits).astype(raw).view(real)
    return np.asarray(to_integers(from_integers(bits, kind.bits), kind.bits, signed=True))


def compile_cell(spec: PESpec, dataflow: str) -> Compiled:
    """The spec's cell as a compiled design."""
    params: dict[str, Any] = dict(spec.params)
    return Compiled(pe.verilog(spec.name, dataflow, **params), pe.module_name(spec.name, dataflow, **params))


def sums_ws(cell: Compiled, spec: PESpec, acc: Bits, act: Bits, wgt: Bits, **mode: npt.ArrayLike) -> Bits:
    """psum_out of a weight-stationary cell for operands [n], one a cycle: a swap in every cycle takes the weight
    that was loaded in the cycle before. All operands are bit patterns."""
    count = len(act)
    streams = {"act_valid": [0, *[1] * count, 0], "act": act, "psum_in": acc, **mode}
    inputs: dict[str, npt.ArrayLike] = {
        name: values if name == "act_valid" else np.pad(np.broadcast_to(np.asarray(values), (count,)), 1)
        for name, values in streams.items()
    }
    inputs |= {"wgt_load": 1, "wgt": np.pad(wgt, (0, 2)), "act_swap": 1}
    with cell.open(random_state=True) as running:
        running.reset()
        return np.asarray(running.run(inputs)["psum_out"][2:], dtype=np.uint64)


def sums_os(cell: Compiled, spec: PESpec, act: Bits, wgt: Bits, **mode: npt.ArrayLike) -> Bits:
    """Every partial sum [s, d] of s accumulations of depth d in an output-stationary cell, by marking each
    activation as a last one. act and wgt are bit patterns [s, d]; a mode input is one value or [s, d]."""
    sequences, depth = act.shape
    first = np.zeros((sequences, depth), dtype=np.int64)
    first[:, 0] = 1
    inputs: dict[str, npt.ArrayLike] = {
        name: np.pad(np.broadcast_to(np.asarray(values), act.shape).ravel(), (0, 1))
        for name, values in {"act": act, "wgt": wgt, "act_first": first, "act_valid": 1, "act_last": 1, **mode}.items()
    }
    with cell.open(random_state=True) as running:
        running.reset()
        return np.asarray(running.run(inputs)["drain_out"][1:], dtype=np.uint64).reshape(sequences, depth)


def golden_os(spec: PESpec, act: Bits, wgt: Bits, **mode: npt.ArrayLike) -> Bits:
    """What `sums_os` must return, by the spec's golden arithmetic."""
    modes = {name: np.broadcast_to(np.asarray(values), act.shape) for name, values in mode.items()}
    sums = np.empty(act.shape, dtype=np.uint64)
    acc = np.broadcast_to(np.asarray(spec.zero()), act.shape[:1])
    for step in range(act.shape[1]):
        column = from_bits(spec.act, act[:, step]), from_bits(spec.wgt, wgt[:, step])
        acc = spec.accumulate(acc, *column, **{name: values[:, step] for name, values in modes.items()})
        sums[:, step] = to_bits(spec.psum, acc)
    return sums


def golden_ws(spec: PESpec, acc: Bits, act: Bits, wgt: Bits, **mode: npt.ArrayLike) -> Bits:
    """What `sums_ws` must return, by the spec's golden arithmetic."""
    operands = from_bits(spec.psum, acc), from_bits(spec.act, act), from_bits(spec.wgt, wgt)
    return to_bits(spec.psum, spec.accumulate(*operands, **mode))


def require_equal(what: str, kind: OperandType, expected: Bits, got: Bits, *, replay: str, **operands: Bits) -> None:
    """Raise MismatchError at the first difference of two arrays of bit patterns of one shape.

    The message has the index, both values in bits and as numbers, the operands at that index, and `replay`, what to
    run to see it again.
    """
    wrong = np.flatnonzero(expected.ravel() != got.ravel())
    if not len(wrong):
        return
    at = np.unravel_index(wrong[0], expected.shape)
    place = ", ".join(str(int(part)) for part in at)

    def show(bits: Bits) -> str:
        return f"{int(bits[at]):#0{kind.bits // 4 + 2}x} ({from_bits(kind, bits[at])})"

    given = ", ".join(
        f"{name} = {int(np.broadcast_to(bits, expected.shape)[at]):#x}" for name, bits in operands.items()
    )
    raise MismatchError(
        f"{what}[{place}] = {show(got)}: must be {show(expected)}, {kind.name}"
        f"{'; ' + given if given else ''}; {len(wrong)} of {expected.size} differ; replay: {replay}"
    )
