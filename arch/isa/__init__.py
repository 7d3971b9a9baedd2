"""The accelerator's instruction set: instructions, their table of fields, binary encoding, assembler, validator.

Page: docs/isa.md.
"""

from bitwright.arch.isa.assembly import assemble, disassemble
from bitwright.arch.isa.encoding import IllegalInstruction, decode, encode, from_bytes, to_bytes
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

__all__ = [
    "Buffer",
    "End",
    "Execute",
    "Function",
    "IllegalInstruction",
    "Instruction",
    "Load",
    "NumberType",
    "Op",
    "Store",
    "Vector",
    "assemble",
    "decode",
    "disassemble",
    "encode",
    "from_bytes",
    "to_bytes",
]
