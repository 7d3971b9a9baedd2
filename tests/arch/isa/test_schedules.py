"""Outcome and memory do not depend on the order of steps: random programs, and every flipped bit of small ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.faults import Outcome
from bitwright.arch.isa.instructions import Buffer, End, Execute, Function, Instruction, Load, NumberType, Store, Vector
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import Limits, tile_format
from bitwright.arch.isa.network import Program, validate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

REGION_BEATS = 64
WORD_BITS = 128


def tiny(pe_name: str, stationary: Any, formats: tuple[str, ...]) -> Limits:
    """2 x 2 with beats of 8 bytes and slots of a few beats."""
    spec = pe.get(pe_name)
    names = tuple(tile_format(spec, name, "test") for name in formats)
    return Limits(2, 2, stationary, spec, 8, names, 24, 24, 12, 24, 12, 24)


MACHINES = {
    "int8-ws": tiny("int8-mac", "ws", ("int8", "int4_asym")),
    "int8-os": tiny("int8-mac", "os", ("int8", "int4_asym")),
    "shift-add-ws": tiny("shift-add", "ws", ("int4", "int4_asym")),
    "fp16-ws": tiny("fp16-mac", "ws", ("fp16", "int4_asym")),
    "fp16-os": tiny("fp16-mac", "os", ("fp16", "int4_asym")),
}


def memory_of(seed: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Random bytes, so that numbers of every kind are met."""
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, REGION_BEATS * 8, np.uint8) for _ in range(4)]


def one_outcome(program: Program, limits: Limits, seed: int, schedules: int) -> tuple[Outcome, bytes]:
    """Outcome and memory after a run, equal for `schedules` random orders and for the validator."""
    memory = memory_of(seed)
    outcome = run(program, limits, memory)
    after = b"".join(region.tobytes() for region in memory)
    assert validate(program, limits, (REGION_BEATS,) * 4) == outcome
    for number in range(schedules):
        other = memory_of(seed)
        assert run(program, limits, other, schedule=Random(1000 * seed + number)) == outcome, f"schedule {number}"
        assert b"".join(region.tobytes() for region in other) == after, f"schedule {number}"
    return outcome, after


# --- Random programs ---------------------------------------------------------------------------------------------

Draw = Callable[[st.SearchStrategy[Any]], Any]


def loads(draw: Draw, buffer: Buffer, beats: int, hand: bool) -> list[Instruction]:
    """The beats of a slot, in one or two instructions."""
    first = draw(st.integers(1, beats))
    offsets = st.integers(0, REGION_BEATS - 25)
    region = draw(st.sampled_from([0] * 60 + [1, 2, 3]))
    parts: list[Instruction] = [Load(buffer=buffer, region=region, beats=first, offset=draw(offsets))]
    if first < beats:
        parts.append(
            Load(buffer=buffer, region=region, rows=beats - first, beats=1, stride=draw(st.integers(0, 1)), at=first)
        )
    last = parts[-1]
    assert isinstance(last, Load)
    return [*parts[:-1], replace(last, hand=hand)]


def block(draw: Draw) -> list[Instruction]:
    """Operands, executes that share slots or not, one vector, one store; legal on most of the machines."""
    number, group = draw(st.integers(0, 1)), draw(st.integers(1, 4))
    m, count = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    k = draw(st.integers(1, 4))
    hands = [draw(st.booleans()) for _ in range(count - 1)] + [True]  # new operands after this execute
    program: list[Instruction] = []
    for index, hand in enumerate(hands):
        if index == 0 or hands[index - 1]:
            program += loads(draw, Buffer.ACT, draw(st.integers(2 * k, 9)), True)
            program += loads(draw, Buffer.WGT, 2 * k, True)
            program += loads(draw, Buffer.PAR, 4, True)
        first = index == 0 or draw(st.booleans())
        below = draw(st.integers(0, 1)) if first and index else 0  # after the first, a row lower is written already
        shape = {"format": number, "first": first, "m": m, "k": k, "group": group, "acc_at": below}
        frees = {"free_act": hand, "free_wgt": hand, "free_par": hand}
        program.append(Execute(**shape, **frees, hand_acc=index == count - 1))
    scale, bias, residual = (draw(st.booleans()) for _ in range(3))
    extras = scale or bias or residual
    if extras:
        program += loads(draw, Buffer.VEC, draw(st.integers(4, 8)), True)
    to = draw(st.sampled_from(NumberType))
    function = draw(st.sampled_from([Function.NONE, Function.RELU]))
    wanted = {"scale": scale, "bias": bias, "residual": residual, "residual_at": 2 * residual}
    program.append(Vector(m=m, to=to, function=function, **wanted, hand=True, free_acc=True, free_vec=extras))
    rows = {"rows": m, "beats": 1, "tail_bytes": draw(st.integers(0, 7)), "stride": draw(st.integers(0, 2))}
    program.append(Store(region=3, **rows, offset=draw(st.integers(0, REGION_BEATS - 8)), free_out=True))
    return program


@st.composite
def programs(draw: Draw) -> list[Instruction | int]:
    """Up to four blocks with up to three accidents: instructions dropped, doubled, moved, changed; no end."""
    program: list[Instruction | int] = []
    for _ in range(draw(st.integers(1, 4))):
        program += block(draw)
    program.append(End())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(program) - 1))
        accident = draw(st.sampled_from(["drop", "double", "move", "flip", "hand", "endless"]))
        at = len(program) - 1 if accident == "endless" else at
        item = program.pop(at)
        if accident == "double":
            program[at:at] = [item, item]
        elif accident == "move":
            program.insert(draw(st.integers(0, len(program))), item)
        elif accident == "hand" and not isinstance(item, int):
            names = [name for name in vars(item) if name.startswith(("hand", "free"))]
            name = draw(st.sampled_from(names)) if names else ""
            program.insert(at, replace(item, **{name: not getattr(item, name)}) if name else item)
        elif accident == "flip":
            word = item if isinstance(item, int) else encode(item)
            program.insert(at, word ^ 1 << draw(st.integers(0, 110)))
        if not program:
            break
    return program


def test_random_programs_have_one_outcome(record_property: Callable[[str, object], None]) -> None:
    met: Counter[str] = Counter()

    @given(program=programs(), name=st.sampled_from(sorted(MACHINES)), seed=st.integers(0, 99))
    @settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def equal(program: list[Instruction | int], name: str, seed: int) -> None:
        outcome, _ = one_outcome(program, MACHINES[name], seed, schedules=4)
        met["whole" if outcome.fault is None else outcome.fault.name.lower()] += 1

    equal()
    record_property("figure", f"isa, random programs by outcome: {dict(met)}")
    assert min(met[name] for name in ("whole", "unwritten", "deadlock", "illegal_instruction")) > 0


# --- Every flipped bit -------------------------------------------------------------------------------------------

INTEGER = """
load act hand rows=2 beats=3 stride=3 at=0
load wgt hand beats=2 offset=8
load par hand beats=2 offset=11
execute format=1 first m=2 k=3 group=2 acc_at=0 free_wgt free_par
load wgt hand beats=1 offset=14
load par hand beats=1 offset=16
execute format=0 m=2 k=1 group=1 act_at=4 hand_acc free_act free_wgt free_par
load vec hand beats=4 offset=20
vector m=2 fp16 relu scale bias residual bias_at=1 residual_at=2 hand free_acc free_vec
store region=2 rows=2 beats=1 tail_bytes=4 stride=2 offset=3 free_out
end
"""
FLOAT = """
load act hand rows=4 beats=1 stride=1
load wgt hand beats=2 offset=8
load par hand beats=2 offset=11
execute format=1 first m=2 k=3 group=2 free_wgt free_par
load wgt hand beats=1 offset=14
execute format=0 m=2 k=2 group=2 act_at=2 hand_acc free_act free_wgt
load vec hand beats=2 offset=20
vector m=2 int8 scale hand free_acc free_vec scale_at=1
store region=1 rows=2 beats=1 stride=1 free_out
end
"""


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_every_flipped_bit_has_one_verdict(name: str, record_property: Callable[[str, object], None]) -> None:
    """No exception; the validator's verdict is the run's, for two orders of steps; a legal flip runs to its end."""
    limits = MACHINES[name]
    words = [encode(instruction) for instruction in assemble(FLOAT if name.startswith("fp16") else INTEGER)]
    unchanged, memory = one_outcome(words, limits, 7, schedules=2)
    assert unchanged.legal, unchanged
    met: Counter[str] = Counter()
    other_memory = 0
    for index in range(len(words)):
        for bit in range(WORD_BITS):
            flipped = [*words[:index], words[index] ^ 1 << bit, *words[index + 1 :]]
            outcome, after = one_outcome(flipped, limits, 7, schedules=1)
            met["whole" if outcome.fault is None else outcome.fault.name.lower()] += 1
            other_memory += outcome.legal and after != memory
    assert sum(met.values()) == WORD_BITS * len(words)
    figure = f"isa, flipped bits on {name}: {dict(met.most_common())}, {other_memory} whole with other results"
    record_property("figure", figure)
    assert met["whole"] > 10
    assert other_memory
