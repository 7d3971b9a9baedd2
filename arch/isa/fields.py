"""The fields of every instruction: the one table.

From it come the encoder, the decoder, the assembler, the disassembler and `docs/isa.md`. An instruction is one word of
128 bits: the op in bits 2..0, the fields from bit 3 upwards in the order of the table, zeros above. In memory the word
is 16 bytes, lowest first.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from dataclasses import fields as dataclass_fields
from enum import IntEnum

from bitwright.arch.isa.instructions import (
    Buffer,
    End,
    Execute,
    Function,
    Instruction,
    Load,
    NumberType,
    Op,
    Store,
    Vector,
)

WORD_BITS = 128
WORD_BYTES = WORD_BITS // 8
OP_BITS = 3


@dataclass(frozen=True)
class Field:
    """One field.

    Members
        bits : width
        unit : what it counts; "flag" for a yes or no, "choice" for a name out of `choices`
        meaning : one sentence
        least : smallest legal value
        choices : the legal values and their names; None for a number
        only_with : name of a flag; the field must be 0 where that flag is 0
    """

    name: str
    bits: int
    unit: str
    meaning: str
    least: int = 0
    choices: type[IntEnum] | None = None
    only_with: str = ""

    @property
    def flag(self) -> bool:
        """A yes or no."""
        return self.unit == FLAG

    @property
    def most(self) -> int:
        """Largest value that the field's bits hold."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Layout:
    """One instruction: its op, its class, what it does, and its fields from bit 3 upwards."""

    op: Op
    kind: type[Instruction]
    meaning: str
    fields: tuple[Field, ...]

    @property
    def name(self) -> str:
        """The word of the assembler."""
        return self.op.name.lower()

    @property
    def used_bits(self) -> int:
        """Bits of op and fields; those above are reserved and 0."""
        return OP_BITS + sum(field.bits for field in self.fields)

    def field(self, name: str) -> Field:
        """The field of that name; KeyError without."""
        return {field.name: field for field in self.fields}[name]

    def lowest_bits(self) -> dict[str, int]:
        """Where each field starts in the word."""
        places: dict[str, int] = {}
        place = OP_BITS
        for field in self.fields:
            places[field.name] = place
            place += field.bits
        return places

    def defaults(self) -> dict[str, int]:
        """The value of each field that may be left out."""
        return {item.name: int(item.default) for item in dataclass_fields(self.kind) if item.default is not MISSING}


FLAG = "flag"
CHOICE = "choice"


def _flag(name: str, meaning: str) -> Field:
    return Field(name, 1, FLAG, meaning)


_LOAD = (
    Field("buffer", 2, CHOICE, "the channel to fill", choices=Buffer),
    _flag("hand", "the slot goes to its consumer when this instruction is done; the next one fills the other slot"),
    Field("region", 2, "number", "region of memory to read"),
    Field("rows", 16, "rows", "how many rows to read", least=1),
    Field("beats", 16, "beats", "length of a row", least=1),
    Field("stride", 24, "beats", "from the start of a row to the start of the next, in memory"),
    Field("offset", 32, "beats", "first beat of the first row, from the start of the region"),
    Field("at", 16, "beats", "where the first beat goes in the slot; the others follow densely"),
)

_EXECUTE = (
    Field("format", 4, "number", "weight format, out of the machine's list"),
    _flag("first", "the accumulators start from +0; otherwise they go on"),
    Field("m", 12, "tokens", "rows of the result", least=1),
    Field("k", 14, "elements", "length of the reduction", least=1),
    Field("group", 14, "elements", "length of a group, counted from this instruction's first element", least=1),
    Field("act_at", 16, "vectors", "first activation vector in the act slot"),
    Field("wgt_at", 16, "beats", "first weight in the wgt slot"),
    Field("par_at", 16, "beats", "first group's scales and zero points in the par slot; 0 for a format without scale"),
    Field("acc_at", 14, "rows", "first accumulator row in the acc slot"),
    _flag("hand_acc", "the acc slot goes to Vector when this instruction is done"),
    _flag("free_act", "the act slot goes back to Load when this instruction is done"),
    _flag("free_wgt", "the wgt slot goes back to Load when this instruction is done"),
    _flag("free_par", "the par slot goes back to Load when this instruction is done; 0 for a format without scale"),
)

_VECTOR = (
    Field("m", 12, "rows", "how many accumulator rows to take", least=1),
    Field("acc_at", 14, "rows", "first accumulator row in the acc slot"),
    Field("to", 2, CHOICE, "number type of the results", choices=NumberType),
    Field("function", 3, CHOICE, "activation function", choices=Function),
    _flag("scale", "multiply row j by the j-th fp32 scale; with by_column, column c by the c-th"),
    _flag("bias", "add to column c the c-th fp32 bias"),
    _flag("residual", "add a row of fp32 values to each row"),
    Field("scale_at", 16, "beats", "first scale in the vec slot", only_with="scale"),
    Field("bias_at", 16, "beats", "first bias in the vec slot", only_with="bias"),
    Field("residual_at", 16, "beats", "first residual row in the vec slot", only_with="residual"),
    Field("out_at", 16, "beats", "first result row in the out slot"),
    _flag("hand", "the out slot goes to Store when this instruction is done"),
    _flag("free_acc", "the acc slot goes back to Execute when this instruction is done"),
    _flag("free_vec", "the vec slot goes back to Load when this instruction is done; 0 if nothing of it is read"),
    Field("by_column", 1, FLAG, "the scales are one a column, not one a row", only_with="scale"),
)

_STORE = (
    Field("region", 2, "number", "region of memory to write"),
    Field("rows", 16, "rows", "how many rows to write", least=1),
    Field("beats", 16, "beats", "length of a row", least=1),
    Field("tail_bytes", 6, "bytes", "bytes to write of each row's last beat; 0: all of it"),
    Field("stride", 24, "beats", "from the start of a row to the start of the next, in memory"),
    Field("offset", 32, "beats", "first beat of the first row, from the start of the region"),
    Field("at", 16, "beats", "first beat in the out slot; the others follow densely"),
    _flag("free_out", "the out slot goes back to Vector when this instruction is done"),
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(Op.LOAD, Load, "memory to a slot of act, wgt, par or vec", _LOAD),
    Layout(Op.EXECUTE, Execute, "activations times one column tile of weights, into accumulators", _EXECUTE),
    Layout(Op.VECTOR, Vector, "accumulators to results: scale, bias, function, residual, rounding", _VECTOR),
    Layout(Op.STORE, Store, "a slot of results to memory", _STORE),
    Layout(Op.END, End, "the last instruction: nothing more is fetched", ()),
)

BY_OP: dict[int, Layout] = {int(layout.op): layout for layout in LAYOUTS}
BY_NAME: dict[str, Layout] = {layout.name: layout for layout in LAYOUTS}
BY_KIND: dict[type[Instruction], Layout] = {layout.kind: layout for layout in LAYOUTS}
