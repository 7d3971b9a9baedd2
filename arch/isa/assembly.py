"""Programs as text: one instruction a line.

    load wgt hand beats=16 offset=0x40   # everything after # is a comment

First the instruction's name; then, in any order, the value of a choice by its name (`wgt`, `fp16`, `relu`), a flag by
its name (`hand`), a number as `field=value`, decimal or after 0x. What is left out has the default of
`arch.isa.instructions`. The disassembler writes choices, then flags, then numbers, each in the order of the table, and
leaves out what has its default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bitwright.arch.errors import ProgramError, shown, suggest
from bitwright.arch.isa.encoding import IllegalInstruction, build, check_used, check_value, rule
from bitwright.arch.isa.fields import BY_KIND, BY_NAME, Field, Layout
from bitwright.arch.isa.instructions import Instruction

_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"[0-9]{1,40}|0x[0-9a-fA-F]{1,40}")


def assemble(text: str, source: str = "program") -> tuple[Instruction, ...]:
    """The instructions of a text. ProgramError says what is wrong, the rule, and where: `source`, line and column."""
    instructions = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = [(found.group(), found.start() + 1) for found in _WORD.finditer(line.partition("#")[0])]
        if words:
            instructions.append(_Line(words, f"{source}, line {number}").instruction())
    return tuple(instructions)


def disassemble(instructions: Iterable[Instruction]) -> str:
    """The text of instructions, a line each; `assemble` makes the same instructions of it."""
    return "".join(f"{line_of(instruction)}\n" for instruction in instructions)


def line_of(instruction: Instruction) -> str:
    """One instruction as text."""
    layout = BY_KIND[type(instruction)]
    defaults = layout.defaults()
    choices, flags, numbers = [], [], []
    for field in layout.fields:
        value = getattr(instruction, field.name)
        if defaults.get(field.name) == value:
            continue
        if field.choices is not None:
            choices.append(field.choices(value).name.lower())
        elif field.flag:
            flags.append(field.name)
        else:
            numbers.append(f"{field.name}={value}")
    return " ".join([layout.name, *choices, *flags, *numbers])


class _Line:
    """One line of the text: its words with their columns, and what has been read of them."""

    def __init__(self, words: list[tuple[str, int]], where: str) -> None:
        (name, self.column), *self.rest = words
        self.where = where
        if name not in BY_NAME:
            raise self.error(f"instruction {shown(name)}: unknown; {suggest(name, BY_NAME)}", self.column)
        self.layout: Layout = BY_NAME[name]
        self.fields = {field.name: field for field in self.layout.fields}
        self.names = {
            item.name.lower(): (field, int(item)) for field in self.layout.fields for item in field.choices or ()
        }
        self.values: dict[str, int] = {}
        self.columns: dict[str, int] = {}

    def instruction(self) -> Instruction:
        """All words, then what no word can know alone: missing fields, and fields without their flag."""
        for word, column in self.rest:
            self.take(word, column)
        defaults = self.layout.defaults()
        for field in self.layout.fields:
            if field.name not in self.values and field.name not in defaults:
                raise self.error(f"{self.full(field)} is missing: {_how_to_write(field)}", self.column)
        for field in self.layout.fields:
            try:
                check_used(self.layout, field, {**defaults, **self.values})
            except IllegalInstruction as error:
                raise self.error(str(error), self.columns[field.name]) from None
        return build(self.layout, self.values)

    def take(self, word: str, column: int) -> None:
        """One word: a choice's name, a flag, or field=value."""
        name, equals, value = word.partition("=")
        if not equals and name in self.names:
            self.put(*self.names[name], column)
            return
        if not self.fields:
            raise self.error(f"{self.layout.name}: {shown(word)}: must stand alone (remove it)", column)
        if name not in self.fields:
            known = [*self.names, *self.fields]
            raise self.error(f"{self.layout.name}: {shown(name)}: unknown; {suggest(name, known)}", column)
        field = self.fields[name]
        if field.flag and not equals:
            self.put(field, 1, column)
        elif field.flag or field.choices is not None or not equals:
            raise self.error(f"{self.layout.name}: {shown(word)}: {_how_to_write(field)}", column)
        elif not _NUMBER.fullmatch(value):
            raise self.error(f"{self.full(field)} = {shown(value)}: must be {rule(field)}, decimal or after 0x", column)
        else:
            self.put(field, int(value, 0) if value.startswith("0x") else int(value), column)

    def put(self, field: Field, value: int, column: int) -> None:
        """Keep a value that keeps its field's rule and is the first."""
        if field.name in self.values:
            raise self.error(
                f"{self.full(field)} stands twice (first in column {self.columns[field.name]}): keep one", column
            )
        try:
            check_value(self.layout, field, value)
        except IllegalInstruction as error:
            raise self.error(str(error), column) from None
        self.values[field.name] = value
        self.columns[field.name] = column

    def full(self, field: Field) -> str:
        """load.rows."""
        return f"{self.layout.name}.{field.name}"

    def error(self, what: str, column: int) -> ProgramError:
        """The message with its place."""
        return ProgramError(f"{what}; {self.where}, column {column}")


def _how_to_write(field: Field) -> str:
    if field.choices is not None:
        names = [item.name.lower() for item in field.choices]
        return f"write {', '.join(names[:-1])} or {names[-1]}"
    if field.flag:
        return f"write {field.name}, or leave it out"
    return f"write {field.name}= and a number, {rule(field)}"
