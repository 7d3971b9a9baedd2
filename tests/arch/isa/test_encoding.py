"""Words, bytes and instructions are the same thing; a word that is none of them is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from bitwright.arch.isa import fields as table
from bitwright.arch.isa.encoding import IllegalInstruction, build, decode, encode, from_bytes, to_bytes
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
from hypothesis import given
from hypothesis import strategies as st

# The contract of the encoding, written here a second time and by hand: (name, bits) from bit 3 upwards.
WIDTHS: dict[type[Any], tuple[int, str]] = {
    Load: (1, "buffer:2 hand:1 region:2 rows:16 beats:16 stride:24 offset:32 at:16"),
    Execute: (
        2,
        "format:4 first:1 m:12 k:14 group:14 act_at:16 wgt_at:16 par_at:16 acc_at:14 hand_acc:1 free_act:1 free_wgt:1 "
        "free_par:1",
    ),
    Vector: (
        3,
        "m:12 acc_at:14 to:2 function:3 scale:1 bias:1 residual:1 scale_at:16 bias_at:16 residual_at:16 out_at:16 "
        "hand:1 free_acc:1 free_vec:1 by_column:1",
    ),
    Store: (4, "region:2 rows:16 beats:16 tail_bytes:6 stride:24 offset:32 at:16 free_out:1"),
    End: (5, ""),
}
AT_LEAST_ONE = {"rows", "beats", "m", "k", "group"}
NEEDS_FLAG = {"by_column": "scale", "scale_at": "scale", "bias_at": "bias", "residual_at": "residual"}
CHOICES = {"buffer": 4, "to": 3, "function": 4}


def widths(kind: type[Any]) -> list[tuple[str, int]]:
    return [(name, int(bits)) for name, bits in (item.split(":") for item in WIDTHS[kind][1].split())]


def slow_word(kind: type[Any], values: dict[str, int]) -> int:
    """The word by a string of binary digits, from the widths above."""
    digits = format(WIDTHS[kind][0], "03b")
    for name, bits in widths(kind):
        digits = format(values[name], f"0{bits}b") + digits
    return int(digits, 2)


@st.composite
def values_of(draw: st.DrawFn, kind: type[Any]) -> dict[str, int]:
    values: dict[str, int] = {}
    for name, bits in widths(kind):
        most = CHOICES.get(name, 1 << bits) - 1
        least = 1 if name in AT_LEAST_ONE else 0
        # The ends often: a plain range of 2**32 hardly ever gives them.
        values[name] = draw(st.sampled_from([least, most]) | st.integers(least, most))
    for name, flag in NEEDS_FLAG.items():
        if name in values and not values[flag]:
            values[name] = 0
    return values


KINDS = st.sampled_from(list(WIDTHS))


def instructions() -> st.SearchStrategy[Instruction]:
    return KINDS.flatmap(lambda kind: values_of(kind).map(lambda values: build(table.BY_KIND[kind], values)))


SAMPLES: tuple[Instruction, ...] = (
    Load(buffer=Buffer.ACT, beats=1),
    Load(buffer=Buffer.VEC, hand=True, region=3, rows=65535, beats=65535, stride=2**24 - 1, offset=2**32 - 1, at=65535),
    Execute(m=1, k=1, group=1),
    Execute(
        format=15, first=True, m=4095, k=16383, group=16383, act_at=65535, wgt_at=65535, par_at=65535, acc_at=16383,
        hand_acc=True, free_act=True, free_wgt=True, free_par=True,
    ),
    Vector(m=1),
    Vector(m=4, to=NumberType.INT8, function=Function.RELU, scale=True, scale_at=7, out_at=3, hand=True, free_acc=True),
    Vector(
        m=4095, acc_at=16383, to=NumberType.FP16, function=Function.GELU, scale=True, bias=True, residual=True,
        scale_at=65535, bias_at=65535, residual_at=65535, out_at=65535, hand=True, free_acc=True, free_vec=True,
        by_column=True,
    ),
    Store(beats=2),
    Store(region=2, rows=9, beats=2, tail_bytes=5, stride=4, offset=1000, at=8, free_out=True),
    End(),
)  # fmt: skip


# Interface


@pytest.mark.parametrize("kind", list(WIDTHS))
def test_table_is_the_contract(kind: type[Any]) -> None:
    layout = table.BY_KIND[kind]
    assert (int(layout.op), [(field.name, field.bits) for field in layout.fields]) == (WIDTHS[kind][0], widths(kind))
    assert [item.name for item in dataclass_fields(kind)] == [field.name for field in layout.fields]
    assert {field.name for field in layout.fields if field.least == 1} == AT_LEAST_ONE & {n for n, _ in widths(kind)}
    assert {field.name: field.only_with for field in layout.fields if field.only_with} == {
        name: flag for name, flag in NEEDS_FLAG.items() if kind is Vector
    }
    assert {field.name for field in layout.fields if field.unit == table.CHOICE} == CHOICES.keys() & {
        name for name, _ in widths(kind)
    }
    for field in layout.fields:
        assert (field.unit == table.CHOICE) == (field.choices is not None)
        assert (field.unit == table.FLAG) == field.flag <= (field.bits == 1)
    assert layout.used_bits <= 128


def test_every_default_is_legal_and_smallest() -> None:
    for layout in table.LAYOUTS:
        for name, value in layout.defaults().items():
            assert value == next(field.least for field in layout.fields if field.name == name)


def test_some_words_by_hand() -> None:
    assert encode(End()) == 5
    # op 1, buffer 1 at bit 3, hand at bit 5, rows 1 at bit 8, beats 16 at bit 24, offset 2 at bit 64.
    load = Load(buffer=Buffer.WGT, hand=True, beats=16, offset=2)
    assert encode(load) == 1 | 1 << 3 | 1 << 5 | 1 << 8 | 16 << 24 | 2 << 64
    assert to_bytes([load, End()]).hex() == "29010010000000000200000000000000" + "05" + "00" * 15


# Property


@given(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), values_of(kind))))
def test_encode_puts_every_field_where_the_contract_says(drawn: tuple[type[Any], dict[str, int]]) -> None:
    kind, values = drawn
    assert encode(build(table.BY_KIND[kind], values)) == slow_word(kind, values)


@given(instructions())
def test_decode_gives_what_was_encoded(instruction: Instruction) -> None:
    assert decode(encode(instruction)) == instruction


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_decoded_flags_and_choices_have_their_types(sample: Instruction) -> None:
    decoded = decode(encode(sample))
    assert repr(decoded) == repr(sample)


@given(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), st.integers(0, 2**125 - 1))))
def test_every_word_encodes_back_or_is_illegal(drawn: tuple[type[Any], int]) -> None:
    kind, payload = drawn
    word = payload % (1 << table.BY_KIND[kind].used_bits - 3) << 3 | WIDTHS[kind][0]
    try:
        instruction = decode(word)
    except IllegalInstruction:
        return
    assert encode(instruction) == word


@given(st.lists(instructions(), max_size=5))
def test_programs_survive_bytes(program: list[Instruction]) -> None:
    data = to_bytes(program)
    assert (len(data), from_bytes(data)) == (16 * len(program), tuple(program))


def legal_by_the_contract(word: int) -> bool:
    """Legality from the widths at the top of this file, by binary digits."""
    digits = format(word, "0128b")[::-1]
    kinds = [kind for kind, (op, _) in WIDTHS.items() if int(digits[:3][::-1], 2) == op]
    if not kinds:
        return False
    values, at = {}, 3
    for name, bits in widths(kinds[0]):
        values[name] = int(digits[at : at + bits][::-1], 2)
        at += bits
    return (
        "1" not in digits[at:]
        and all(value < CHOICES.get(name, value + 1) for name, value in values.items())
        and all(value > 0 for name, value in values.items() if name in AT_LEAST_ONE)
        and all(values[flag] or not values[name] for name, flag in NEEDS_FLAG.items() if name in values)
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_every_flipped_bit_is_another_instruction_or_illegal(sample: Instruction) -> None:
    word = encode(sample)
    for bit in range(128):
        flipped = word ^ 1 << bit
        if legal_by_the_contract(flipped):
            assert encode(decode(flipped)) == flipped
            assert decode(flipped) != sample
        else:
            with pytest.raises(IllegalInstruction, match=r"^(op|load|execute|vector|store|end)\b.* must be "):
                decode(flipped)


def test_random_words_are_legal_exactly_where_the_contract_says() -> None:
    seed = 5
    random = Random(seed)
    for _ in range(2000):
        word = encode(random.choice(SAMPLES))
        for _ in range(random.randrange(1, 4)):
            word ^= 1 << random.randrange(128)
        try:
            decode(word)
            legal = True
        except IllegalInstruction:
            legal = False
        assert legal == legal_by_the_contract(word), f"seed {seed}, word {word:#x}"


# Errors


LOAD = encode(Load(buffer=Buffer.ACT, beats=1))
VECTOR = encode(Vector(m=1))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (0, "op = 0: must be 1 (load), 2 (execute), 3 (vector), 4 (store) or 5 (end); bits 2..0"),
        (6, "op = 6: must be 1 (load), 2 (execute), 3 (vector), 4 (store) or 5 (end); bits 2..0"),
        (2**128 - 1, "op = 7: must be 1 (load), 2 (execute), 3 (vector), 4 (store) or 5 (end); bits 2..0"),
        (LOAD | 1 << 112, "load: reserved = 0x1: must be 0; bits 127..112"),
        (LOAD | 3 << 126, "load: reserved = 0xc000: must be 0; bits 127..112"),
        (encode(End()) | 1 << 3, "end: reserved = 0x1: must be 0; bits 127..3"),
        (LOAD ^ 1 << 8, "load.rows = 0: must be 1..65535"),
        (LOAD ^ 1 << 24, "load.beats = 0: must be 1..65535"),
        (int(Op.EXECUTE), "execute.m = 0: must be 1..4095"),
        (VECTOR | 3 << 29, "vector.to = 3: must be 0 (fp32), 1 (fp16) or 2 (int8)"),
        (VECTOR | 4 << 31, "vector.function = 4: must be 0 (none), 1 (relu), 2 (silu) or 3 (gelu)"),
        (
            VECTOR | 9 << 53,
            "vector.bias_at = 9: must be 0 without the flag bias (set the flag, or leave the field out)",
        ),
        (-1, "word = -1: must be 0..2**128 - 1"),
        (5 + 2**128, "word = 340282366920938463463374607431768211461: must be 0..2**128 - 1"),
    ],
)
def test_illegal_word_is_named(word: int, message: str) -> None:
    with pytest.raises(IllegalInstruction) as caught:
        decode(word)
    assert str(caught.value) == message


def test_first_broken_rule_is_the_one_named() -> None:
    """Reserved bits before fields, fields in the table's order, missing flags last."""
    word = VECTOR ^ 1 << 3 | 3 << 29 | 9 << 53
    for flip, start in (
        (1 << 105, "vector: reserved"),
        (0, "vector.m = 0"),
        (1 << 3, "vector.to = 3"),
        (1 << 3 | 1 << 29, "vector.bias_at = 9"),
    ):
        with pytest.raises(IllegalInstruction) as caught:
            decode(word ^ flip)
        assert str(caught.value).startswith(start)


LEGAL = Load(buffer=Buffer.ACT, beats=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(LEGAL, rows=0), "load.rows = 0: must be 1..65535"),
        (lambda: replace(LEGAL, at=65536), "load.at = 65536: must be 0..65535"),
        (lambda: replace(LEGAL, at=-1), "load.at = -1: must be 0..65535"),
        (lambda: replace(LEGAL, at=1.0), "load.at = 1.0: must be 0..65535"),
        (lambda: replace(LEGAL, buffer="act"), "load.buffer = 'act': must be 0 (act), 1 (wgt), 2 (par) or 3 (vec)"),
        (lambda: replace(LEGAL, hand=2), "load.hand = 2: must be 0..1"),
        (
            lambda: Vector(m=1, residual_at=4),
            "vector.residual_at = 4: must be 0 without the flag residual (set the flag, or leave the field out)",
        ),
    ],
)
def test_instruction_that_no_word_holds_is_named(make: Callable[[], Instruction], message: str) -> None:
    with pytest.raises(IllegalInstruction) as caught:
        encode(make())
    assert str(caught.value) == message


def test_numpy_integers_encode_as_integers() -> None:
    assert encode(Load(buffer=Buffer.ACT, beats=np.uint16(65535), offset=np.int64(2**31))) == encode(  # type: ignore[arg-type]
        Load(buffer=Buffer.ACT, beats=65535, offset=2**31)
    )


def test_programs_say_which_instruction_is_wrong() -> None:
    with pytest.raises(IllegalInstruction) as caught:
        to_bytes([LEGAL, replace(LEGAL, rows=0)])
    assert str(caught.value) == "load.rows = 0: must be 1..65535; instruction 1"
    with pytest.raises(IllegalInstruction) as caught:
        from_bytes(to_bytes([LEGAL, End()]) + bytes(16))
    assert str(caught.value) == (
        "op = 0: must be 1 (load), 2 (execute), 3 (vector), 4 (store) or 5 (end); bits 2..0; instruction 2, byte 32"
    )
    with pytest.raises(IllegalInstruction) as caught:
        from_bytes(bytes(40))
    assert str(caught.value) == "program = 40 bytes: must be a multiple of 16 (nearest 32, 48)"
