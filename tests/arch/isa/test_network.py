"""Verdicts: each fault by its whole sentence, and the same for every order of steps, of any program."""

from __future__ import annotations

from typing import Any

import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.faults import Fault, Outcome
from bitwright.arch.isa.instructions import Buffer, End, Function, Instruction, Load
from bitwright.arch.isa.limits import Limits, tile_format
from bitwright.arch.isa.network import validate

REGIONS = (40, 40, 40, 40)


def tiny(pe_name: str = "int8-mac", stationary: Any = "ws", formats: tuple[str, ...] = ("int8", "int4_asym")) -> Limits:
    """2 x 2 with beats of 8 bytes and slots of a few beats."""
    spec = pe.get(pe_name)
    names = tuple(tile_format(spec, name, "test") for name in formats)
    return Limits(2, 2, stationary, spec, 8, names, 16, 8, 8, 16, 8, 16)


INT8 = tiny()
OPERANDS = "load act hand beats=2\nload wgt hand beats=1\nload par hand beats=1\n"
EXECUTE = "execute first m=2 k=2 group=2 hand_acc free_act free_wgt free_par\n"
VECTOR = "vector m=2 fp32 hand free_acc\n"
STORE = "store region=1 rows=2 beats=1 stride=1 free_out\n"
WHOLE = OPERANDS + EXECUTE + VECTOR + STORE + "end\n"


def test_whole_program() -> None:
    assert validate(assemble(WHOLE), INT8, REGIONS) == Outcome(None, 6, "the program runs to its end")


@pytest.mark.parametrize("function", [function.name.lower() for function in Function])
def test_every_function_is_legal(function: str) -> None:
    program = WHOLE.replace("vector m=2 fp32", f"vector m=2 fp32 {function}")
    assert validate(assemble(program), INT8, REGIONS).legal


def test_words_and_instructions_have_one_verdict() -> None:
    words = [encode(instruction) for instruction in assemble(WHOLE)]
    assert validate(words, INT8, REGIONS) == validate(assemble(WHOLE), INT8, REGIONS)


def test_nothing_after_the_end_is_looked_at() -> None:
    words: list[Instruction | int] = [*assemble(WHOLE), 0]
    assert validate(words, INT8, REGIONS).legal


def test_slots_may_be_held_at_the_end() -> None:
    assert validate(assemble("load act beats=1\nend"), INT8, REGIONS).legal


def test_writing_lower_again_keeps_what_is_above() -> None:
    again = WHOLE.replace("load act hand beats=2", "load act beats=2\nload act hand beats=1")
    assert validate(assemble(again), INT8, REGIONS).legal


# --- Each fault --------------------------------------------------------------------------------------------------

ILLEGAL, UNWRITTEN, DEADLOCK = Fault.ILLEGAL_INSTRUCTION, Fault.UNWRITTEN, Fault.DEADLOCK
STATIC = [
    (
        "execute format=2 m=1 k=1 group=1",
        ILLEGAL,
        "execute.format = 2: must be below 2 (this machine has 0 int8, 1 int4_asym)",
    ),
    (
        "vector m=1 free_vec",
        ILLEGAL,
        "vector.free_vec = 1: must be 0 in an instruction without scale, bias and residual",
    ),
    (
        "store beats=1 tail_bytes=8",
        ILLEGAL,
        "store.tail_bytes = 8: must be 0..7 with beats of 8 bytes (0 is a whole beat)",
    ),
    (
        "load act rows=2 beats=3 stride=36 offset=2",
        Fault.OUT_OF_REGION,
        "load reaches beat 40 of region 0, which has 40 beats",
    ),
    (
        "store region=3 beats=1 offset=40",
        Fault.OUT_OF_REGION,
        "store reaches beat 40 of region 3, which has 40 beats",
    ),
    (
        "load wgt rows=3 beats=3",
        Fault.OUT_OF_BUFFER,
        "load reaches beat 8 of the wgt slot with its beats, which has 8 beats",
    ),
    (
        "execute m=3 k=11 group=11",
        Fault.OUT_OF_BUFFER,
        "execute reaches beat 17 of the act slot with its activations, which has 16 beats",
    ),
    (
        "execute m=3 k=1 group=1 acc_at=6",
        Fault.OUT_OF_BUFFER,
        "execute reaches row 8 of the acc slot with its accumulators, which has 8 rows",
    ),
    (
        "vector m=2 residual residual_at=15",
        Fault.OUT_OF_BUFFER,
        "vector reaches beat 16 of the vec slot with its residuals, which has 16 beats",
    ),
    (
        "vector m=3 scale scale_at=15",
        Fault.OUT_OF_BUFFER,
        "vector reaches beat 16 of the vec slot with its scales, which has 16 beats",
    ),
    (
        "execute m=1 k=6 group=1 par_at=6",
        Fault.OUT_OF_BUFFER,
        "execute reaches beat 8 of the par slot with its scales, which has 8 beats",
    ),
    (
        "vector m=2 int8 out_at=15",
        Fault.OUT_OF_BUFFER,
        "vector reaches beat 16 of the out slot with its results, which has 16 beats",
    ),
    (
        "store rows=4 beats=4 at=1",
        Fault.OUT_OF_BUFFER,
        "store reaches beat 16 of the out slot with its beats, which has 16 beats",
    ),
]


@pytest.mark.parametrize(("line", "fault", "sentence"), STATIC, ids=[line for line, _, _ in STATIC])
def test_found_at_fetch(line: str, fault: Fault, sentence: str) -> None:
    program = assemble(f"load act beats=1\n{line}\nend")
    assert validate(program, INT8, REGIONS) == Outcome(fault, 1, sentence)


def test_found_at_fetch_on_other_machines() -> None:
    plain = tiny("fp16-mac", "os", ("fp16",))
    for line, sentence in (
        ("execute m=1 k=1 group=1 par_at=3", "execute.par_at = 3: must be 0 for fp16, which has no scales"),
        ("execute m=1 k=1 group=1 free_par", "execute.free_par = 1: must be 0 for fp16, which has no scales"),
        ("execute m=3 k=1 group=1", "execute.m = 3: must be at most 2, the rows of an output-stationary array"),
    ):
        assert validate(assemble(line), plain, REGIONS) == Outcome(ILLEGAL, 0, sentence)


def test_a_word_that_does_not_decode() -> None:
    sentence = "op = 7: must be 1 (load), 2 (execute), 3 (vector), 4 (store) or 5 (end); bits 2..0"
    assert validate([7], INT8, REGIONS) == Outcome(ILLEGAL, 0, sentence)


def test_an_instruction_that_no_word_holds() -> None:
    sentence = "load.rows = 0: must be 1..65535"
    assert validate([Load(buffer=Buffer.ACT, rows=0, beats=1)], INT8, REGIONS) == Outcome(ILLEGAL, 0, sentence)


def test_program_without_end() -> None:
    sentence = "the program has 6 instructions and no end among those that are reached"
    assert validate(assemble(WHOLE)[:-1], INT8, REGIONS) == Outcome(Fault.TRUNCATED, 6, sentence)


@pytest.mark.parametrize(
    ("text", "index", "sentence"),
    [
        (
            WHOLE.replace("end", "load act region=1 beats=1\nend"),
            6,
            "load.region = 1: was stored to before; a program does one of both",
        ),
        (
            WHOLE.replace("region=1", "region=0"),
            5,
            "store.region = 0: was loaded from before; a program does one of both",
        ),
    ],
)
def test_a_region_is_loaded_from_or_stored_to(text: str, index: int, sentence: str) -> None:
    assert validate(assemble(text), INT8, REGIONS) == Outcome(Fault.REGION_CONFLICT, index, sentence)


@pytest.mark.parametrize(
    ("text", "index", "sentence"),
    [
        (
            "load act beats=2\nload act at=3 beats=1\nend",
            1,
            "load writes beat 3 of the act slot, where 2 beats are written: a gap would stay",
        ),
        (
            WHOLE.replace("m=2 k=2 group=2", "m=2 k=3 group=2"),
            3,
            "execute reads beat 2 of the act slot for its activations, where 2 beats are written",
        ),
        (
            WHOLE.replace("first m=2", "m=2"),
            3,
            "execute reads row 0 of the acc slot for its accumulators, where 0 rows are written",
        ),
        (
            WHOLE.replace("first m=2", "first m=2 acc_at=1"),
            3,
            "execute writes row 1 of the acc slot, where 0 rows are written: a gap would stay",
        ),
        (
            WHOLE.replace("vector m=2", "vector m=1 acc_at=2"),
            4,
            "vector reads row 2 of the acc slot for its accumulators, where 2 rows are written",
        ),
        (
            WHOLE.replace("rows=2", "rows=3"),
            5,
            "store reads beat 2 of the out slot for its beats, where 2 beats are written",
        ),
        (  # what an earlier owner of the slot wrote is gone
            "load wgt hand beats=1\nload par hand beats=1\n"
            + "load act hand beats=2\n" * 2
            + "load act hand beats=1\n"
            + "execute first m=2 k=2 group=2 free_act\n" * 2
            + "execute first m=2 k=2 group=2\nend",
            7,
            "execute reads beat 1 of the act slot for its activations, where 1 beats are written",
        ),
    ],
)
def test_nothing_is_read_that_was_not_written(text: str, index: int, sentence: str) -> None:
    assert validate(assemble(text), INT8, REGIONS) == Outcome(UNWRITTEN, index, sentence)


@pytest.mark.parametrize(
    ("text", "index", "sentence"),
    [
        (
            WHOLE.replace("load act hand", "load act"),
            3,
            "execute waits for a ready act slot, and nothing moves any more",
        ),
        (STORE + "end", 0, "store waits for a ready out slot, and nothing moves any more"),
        (
            "load act hand beats=1\n" * 3 + "end",
            2,
            "load waits for a free act slot, and nothing moves any more",
        ),
        (
            "vector m=1 bias\nend",
            0,
            "vector waits for a ready acc slot and a ready vec slot, and nothing moves any more",
        ),
    ],
)
def test_deadlock_names_the_first_that_waits(text: str, index: int, sentence: str) -> None:
    assert validate(assemble(text), INT8, REGIONS) == Outcome(DEADLOCK, index, sentence)


def test_a_waiting_instruction_counts_in_its_queue() -> None:
    """Four executes may wait before their operands are fetched; one more holds the fetcher up for ever."""
    for count, legal in ((4, True), (5, False)):
        text = "execute first m=2 k=2 group=2\n" * count + OPERANDS + "end\n"
        verdict = validate(assemble(text), INT8, REGIONS)
        assert verdict.legal == legal
        assert legal or (verdict.fault, verdict.index) == (DEADLOCK, 0)


def test_the_first_fault_of_the_program_is_reported() -> None:
    """A unit's fault at 3 counts before the fetcher's at 6, and the fetcher's at 2 before a deadlock at 0."""
    both: list[Instruction | int] = [*assemble(WHOLE.replace("k=2", "k=4"))[:-1], 7]
    verdict = validate(both, INT8, REGIONS)
    assert (verdict.fault, verdict.index) == (UNWRITTEN, 3)
    waits: list[Instruction | int] = [*assemble(STORE + "load act beats=1\n"), 7]
    verdict = validate(waits, INT8, REGIONS)
    assert (verdict.fault, verdict.index) == (ILLEGAL, 2)


def test_outcome_prints_as_one_line() -> None:
    assert str(validate([7], INT8, REGIONS)).startswith("instruction 0: illegal instruction: op = 7: ")


def test_every_fault_has_a_code_and_a_meaning() -> None:
    assert [int(fault) for fault in Fault] == list(range(1, 10))
    assert all(fault.meaning.endswith(".") for fault in Fault)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 1, 1, -1)])
def test_refused_region_sizes(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate([End()], INT8, sizes)
    assert str(caught.value) == f"region_beats = {sizes}: must be 4 sizes in beats, 0 or more"
