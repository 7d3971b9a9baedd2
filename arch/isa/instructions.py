"""The five instructions of the accelerator, as plain data.

One instruction goes to one unit: Load, Execute, Vector or Store; End stops the fetch. What each field means, its width
and its legal values stand in `arch.isa.fields`; `arch.isa.encoding` makes 16 bytes of an instruction and
`arch.isa.assembly` a line of text. A field without a default must always be given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Op(IntEnum):
    """The three lowest bits of an instruction; 0, 6 and 7 are illegal."""

    LOAD = 1
    EXECUTE = 2
    VECTOR = 3
    STORE = 4
    END = 5


UNITS = (Op.LOAD, Op.EXECUTE, Op.VECTOR, Op.STORE)
"""The ops that have a unit, in the order of every mask of units."""


class Buffer(IntEnum):
    """The channel that a Load fills."""

    ACT = 0
    WGT = 1
    PAR = 2
    VEC = 3


class NumberType(IntEnum):
    """What Vector rounds its results to; 3 is illegal."""

    FP32 = 0
    FP16 = 1
    INT8 = 2


class Function(IntEnum):
    """Vector's activation function; 4 to 7 are illegal."""

    NONE = 0
    RELU = 1
    SILU = 2
    GELU = 3


@dataclass(frozen=True, kw_only=True)
class Load:
    """Memory to a slot: rows of beats, written one after the other."""

    buffer: Buffer
    hand: bool = False
    region: int = 0
    rows: int = 1
    beats: int
    stride: int = 0
    offset: int = 0
    at: int = 0


@dataclass(frozen=True, kw_only=True)
class Execute:
    """m tokens by one column tile of weights, k deep, into fp32 accumulators."""

    format: int = 0
    first: bool = False
    m: int
    k: int
    group: int
    act_at: int = 0
    wgt_at: int = 0
    par_at: int = 0
    acc_at: int = 0
    hand_acc: bool = False
    free_act: bool = False
    free_wgt: bool = False
    free_par: bool = False


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Rows of accumulators to rows of results: scale, bias, function, residual, rounding, in this order."""

    m: int
    acc_at: int = 0
    to: NumberType = NumberType.FP32
    function: Function = Function.NONE
    scale: bool = False
    bias: bool = False
    residual: bool = False
    scale_at: int = 0
    bias_at: int = 0
    residual_at: int = 0
    out_at: int = 0
    hand: bool = False
    free_acc: bool = False
    free_vec: bool = False
    by_column: bool = False


@dataclass(frozen=True, kw_only=True)
class Store:
    """A slot of results to memory: rows of beats, read one after the other."""

    region: int = 0
    rows: int = 1
    beats: int
    tail_bytes: int = 0
    stride: int = 0
    offset: int = 0
    at: int = 0
    free_out: bool = False


@dataclass(frozen=True, kw_only=True)
class End:
    """Nothing more is fetched; the units finish what they have."""


Instruction = Load | Execute | Vector | Store | End
