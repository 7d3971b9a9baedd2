"""Instructions as words of 128 bits, and programs as bytes.

A word is legal when it decodes. Reserved bits and fields without their flag are zero, so every legal word encodes back
to itself. What a machine refuses besides (regions, buffers, formats) is the matter of its limits, not of the encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import index
from typing import Any

from bitwright.arch.errors import ProgramError, shown
from bitwright.arch.isa.fields import BY_KIND, BY_OP, LAYOUTS, OP_BITS, WORD_BITS, WORD_BYTES, Field, Layout
from bitwright.arch.isa.instructions import Instruction


class IllegalInstruction(ProgramError):
    """A word that is no instruction, or an instruction that no word can hold."""


def encode(instruction: Instruction) -> int:
    """The instruction's word, 0 .. 2**128 - 1. IllegalInstruction names the field, its value and the rule."""
    layout = BY_KIND[type(instruction)]
    values = {field.name: getattr(instruction, field.name) for field in layout.fields}
    check(layout, values)
    word = int(layout.op)
    for name, lowest in layout.lowest_bits().items():
        word |= index(values[name]) << lowest
    return word


def decode(word: int) -> Instruction:
    """The instruction of a word.

    IllegalInstruction names the first of: a wrong op, reserved bits, a field that breaks its own rule, a field that is
    set without its flag; its value; and the rule. Fields in the order of the table.
    """
    if not 0 <= word < 1 << WORD_BITS:
        raise IllegalInstruction(f"word = {shown(word)}: must be 0..2**{WORD_BITS} - 1")
    op = word & ((1 << OP_BITS) - 1)
    if op not in BY_OP:
        known = listed([f"{int(layout.op)} ({layout.name})" for layout in LAYOUTS])
        raise IllegalInstruction(f"op = {op}: must be {known}; bits {OP_BITS - 1}..0")
    layout = BY_OP[op]
    reserved = word >> layout.used_bits
    if reserved:
        raise IllegalInstruction(
            f"{layout.name}: reserved = {reserved:#x}: must be 0; bits {WORD_BITS - 1}..{layout.used_bits}"
        )
    places = layout.lowest_bits()
    values = {field.name: word >> places[field.name] & field.most for field in layout.fields}
    check(layout, values)
    return build(layout, values)


def to_bytes(instructions: Iterable[Instruction]) -> bytes:
    """The program as memory holds it: 16 bytes an instruction, lowest byte first.

    IllegalInstruction says which instruction, counted from 0.
    """
    words = []
    for number, instruction in enumerate(instructions):
        try:
            words.append(encode(instruction).to_bytes(WORD_BYTES, "little"))
        except IllegalInstruction as error:
            raise IllegalInstruction(f"{error}; instruction {number}") from None
    return b"".join(words)


def from_bytes(program: bytes) -> tuple[Instruction, ...]:
    """The instructions of a program's bytes, all of them, also those after an End.

    IllegalInstruction for a length that is no multiple of 16, or saying which instruction, counted from 0.
    """
    size = len(program)
    if size % WORD_BYTES:
        near = size - size % WORD_BYTES
        raise IllegalInstruction(
            f"program = {size} bytes: must be a multiple of {WORD_BYTES} (nearest {near}, {near + WORD_BYTES})"
        )
    instructions = []
    for number in range(size // WORD_BYTES):
        word = program[number * WORD_BYTES : (number + 1) * WORD_BYTES]
        try:
            instructions.append(decode(int.from_bytes(word, "little")))
        except IllegalInstruction as error:
            raise IllegalInstruction(f"{error}; instruction {number}, byte {number * WORD_BYTES}") from None
    return tuple(instructions)


def build(layout: Layout, values: Mapping[str, int]) -> Instruction:
    """The instruction of checked values: flags as bool, choices as their Enum; fields left out have their defaults."""
    typed: dict[str, Any] = {}
    for field in layout.fields:
        if field.name in values:
            value = values[field.name]
            typed[field.name] = bool(value) if field.flag else field.choices(value) if field.choices else value
    return layout.kind(**typed)


def check(layout: Layout, values: Mapping[str, Any]) -> None:
    """IllegalInstruction for the first value that breaks its field's rule, then for the first without its flag."""
    for field in layout.fields:
        check_value(layout, field, values[field.name])
    for field in layout.fields:
        check_used(layout, field, values)


def check_value(layout: Layout, field: Field, value: Any) -> None:
    """IllegalInstruction when the value breaks the field's own rule."""
    try:
        legal = field.least <= index(value) <= field.most and (field.choices is None or value in [*field.choices])
    except TypeError:  # no integer
        legal = False
    if not legal:
        raise IllegalInstruction(f"{layout.name}.{field.name} = {shown(value)}: must be {rule(field)}")


def check_used(layout: Layout, field: Field, values: Mapping[str, int]) -> None:
    """IllegalInstruction when the field is set though its flag is not."""
    if field.only_with and values[field.name] and not values[field.only_with]:
        raise IllegalInstruction(
            f"{layout.name}.{field.name} = {values[field.name]}: must be 0 without the flag {field.only_with} "
            "(set the flag, or leave the field out)"
        )


def rule(field: Field) -> str:
    """What a message says after `must be`."""
    if field.choices is not None:
        return listed([f"{int(item)} ({item.name.lower()})" for item in field.choices])
    return f"{field.least}..{field.most}"


def listed(items: list[str]) -> str:
    """a, b or c."""
    return f"{', '.join(items[:-1])} or {items[-1]}"
