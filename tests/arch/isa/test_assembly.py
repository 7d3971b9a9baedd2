"""Text and instructions are the same thing; a wrong text is refused with its line and column."""

from __future__ import annotations

import re
from random import Random

import pytest
from bitwright.arch.errors import ProgramError
from bitwright.arch.isa.assembly import assemble, disassemble, line_of
from bitwright.arch.isa.encoding import build, check
from bitwright.arch.isa.fields import LAYOUTS
from bitwright.arch.isa.instructions import (
    Buffer,
    End,
    Execute,
    Function,
    Instruction,
    Load,
    NumberType,
    Store,
    Vector,
)
from hypothesis import given
from hypothesis import strategies as st

TEXT = """\
# A comment, and an empty line.

load act hand beats=4          # another
  load  rows=3 wgt   beats=0x10 hand stride=9
execute format=2 first m=4 k=16 group=8 hand_acc free_act free_wgt
vector m=4 fp16 relu scale scale_at=3 hand free_acc
store beats=4 tail_bytes=2 free_out
end"""
PROGRAM: tuple[Instruction, ...] = (
    Load(buffer=Buffer.ACT, hand=True, beats=4),
    Load(buffer=Buffer.WGT, hand=True, rows=3, beats=16, stride=9),
    Execute(format=2, first=True, m=4, k=16, group=8, hand_acc=True, free_act=True, free_wgt=True),
    Vector(m=4, to=NumberType.FP16, function=Function.RELU, scale=True, scale_at=3, hand=True, free_acc=True),
    Store(beats=4, tail_bytes=2, free_out=True),
    End(),
)


def random_instruction(random: Random) -> Instruction:
    layout = random.choice(LAYOUTS)
    values: dict[str, int] = {}
    for field in layout.fields:
        some = [field.least, field.most, random.randint(field.least, field.most)]
        values[field.name] = random.choice(some if field.choices is None else list(field.choices))
        if field.only_with and not values[field.only_with]:
            values[field.name] = 0
    check(layout, values)
    return build(layout, values)


# Interface


def test_text_becomes_instructions() -> None:
    assert assemble(TEXT) == PROGRAM


def test_instructions_become_text_without_defaults() -> None:
    assert disassemble(PROGRAM).splitlines() == [
        "load act hand beats=4",
        "load wgt hand rows=3 beats=16 stride=9",
        "execute first hand_acc free_act free_wgt format=2 m=4 k=16 group=8",
        "vector fp16 relu scale hand free_acc m=4 scale_at=3",
        "store free_out beats=4 tail_bytes=2",
        "end",
    ]


def test_no_text_is_no_program() -> None:
    assert assemble("") == assemble("\n # nothing\n\t\n") == ()
    assert disassemble(()) == ""


def test_every_word_of_an_instruction_means_one_thing() -> None:
    for layout in LAYOUTS:
        words = [field.name for field in layout.fields]
        words += [item.name.lower() for field in layout.fields for item in field.choices or ()]
        assert len(words) == len(set(words)), layout.name


def test_windows_line_ends_and_tabs_are_space() -> None:
    assert assemble(TEXT.replace("\n", "\r\n").replace(" ", "\t")) == PROGRAM


def test_choices_may_be_written_though_they_are_the_default() -> None:
    assert assemble("vector m=1 fp32 none") == assemble("vector m=1") == (Vector(m=1),)


# Property


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_survive_text(seed: int) -> None:
    random = Random(seed)
    program = tuple(random_instruction(random) for _ in range(50))
    text = disassemble(program)
    assert assemble(text) == program
    assert disassemble(assemble(text)) == text


@pytest.mark.parametrize("seed", range(5))
def test_order_of_words_and_base_of_numbers_mean_nothing(seed: int) -> None:
    random = Random(seed)
    for _ in range(50):
        instruction = random_instruction(random)
        name, *words = line_of(instruction).split()
        random.shuffle(words)
        hexadecimal = [re.sub("=([0-9]+)", lambda found: f"={int(found[1]):#x}", word) for word in words]
        assert assemble(" ".join([name, *words])) == (instruction,)
        assert assemble(" ".join([name, *hexadecimal])) == (instruction,)


PIECES = [
    "load",
    "vector",
    "end",
    "act",
    "hand",
    "hnd",
    "beats",
    "=",
    "0x",
    "1",
    "-",
    "#",
    " ",
    "\n",
    "\x00",
    "٣",
    "\ufeff",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_any_text_is_a_program_or_an_error_with_its_place(text: str) -> None:
    try:
        program = assemble(text)
    except ProgramError as error:
        message = str(error)
    else:
        assert assemble(disassemble(program)) == program
        return
    assert re.fullmatch("[^\n]+; program, line [0-9]+, column [0-9]+", message)


# Errors

WORDS_OF_LOAD = "act, at, beats, buffer, hand, offset, par, region, rows, stride, vec, wgt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n  laod act beats=1",
            "instruction 'laod': unknown; did you mean 'load'? (known: end, execute, load, store, vector); "
            "gemm.txt, line 2, column 3",
        ),
        (
            "load act hnd beats=1",
            f"load: 'hnd': unknown; did you mean 'hand'? (known: {WORDS_OF_LOAD}); gemm.txt, line 1, column 10",
        ),
        (
            "load act roows=1 beats=1",
            f"load: 'roows': unknown; did you mean 'rows'? (known: {WORDS_OF_LOAD}); gemm.txt, line 1, column 10",
        ),
        ("end now", "end: 'now': must stand alone (remove it); gemm.txt, line 1, column 5"),
        ("load beats=1", "load.buffer is missing: write act, wgt, par or vec; gemm.txt, line 1, column 1"),
        (" load act", "load.beats is missing: write beats= and a number, 1..65535; gemm.txt, line 1, column 2"),
        ("load act beats", "load: 'beats': write beats= and a number, 1..65535; gemm.txt, line 1, column 10"),
        ("load buffer=act", "load: 'buffer=act': write act, wgt, par or vec; gemm.txt, line 1, column 6"),
        ("load buffer", "load: 'buffer': write act, wgt, par or vec; gemm.txt, line 1, column 6"),
        ("load hand=1", "load: 'hand=1': write hand, or leave it out; gemm.txt, line 1, column 6"),
        ("load beats=", "load.beats = '': must be 1..65535, decimal or after 0x; gemm.txt, line 1, column 6"),
        ("load beats=-1", "load.beats = '-1': must be 1..65535, decimal or after 0x; gemm.txt, line 1, column 6"),
        ("load beats=1e3", "load.beats = '1e3': must be 1..65535, decimal or after 0x; gemm.txt, line 1, column 6"),
        (
            "load beats=" + "9" * 5000,
            f"load.beats = '{'9' * 76}...: must be 1..65535, decimal or after 0x; gemm.txt, line 1, column 6",
        ),
        ("load act beats=0", "load.beats = 0: must be 1..65535; gemm.txt, line 1, column 10"),
        ("load act beats=0x10000", "load.beats = 65536: must be 1..65535; gemm.txt, line 1, column 10"),
        (
            "load act beats=1 beats=1",
            "load.beats stands twice (first in column 10): keep one; gemm.txt, line 1, column 18",
        ),
        ("load act wgt", "load.buffer stands twice (first in column 6): keep one; gemm.txt, line 1, column 10"),
        ("load act hand hand", "load.hand stands twice (first in column 10): keep one; gemm.txt, line 1, column 15"),
        (
            "vector m=1 scale_at=3",
            "vector.scale_at = 3: must be 0 without the flag scale (set the flag, or leave the field out); "
            "gemm.txt, line 1, column 12",
        ),
    ],
)
def test_wrong_text_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        assemble(text, "gemm.txt")
    assert str(caught.value) == message
