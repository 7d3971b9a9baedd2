"""Both engines against cycles worked out by hand, against the stepped model, and against one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import stepped
from accelerator_cases import Case, lowered_case, made_case
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError, ProgramError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa import timing
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.counters import Counters, InstructionTimes, first_difference
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.instructions import End, Op
from bitwright.arch.isa.limits import limits
from bitwright.arch.isa.network import Program, validate
from bitwright.arch.isa.placement import Placement
from bitwright.sim.accelerator import engine, fast
from bitwright.sim.accelerator.runs import Run

ENGINES = {"simpy": engine.run, "fast": fast.run}
both = pytest.mark.parametrize("run", ENGINES.values(), ids=ENGINES)
Engine = Callable[..., Run]

# --- By hand -----------------------------------------------------------------------------------------------------

INT8_4X4 = limits(machines.load("int8-4x4"), port_bytes=8)
MEMORY = FixedMemory(latency_cycles=5, beat_cycles=1, reads=16, writes=16, response_cycles=2)
REGIONS = (40, 40, 40, 40)
WORKED = """
load par hand region=1 offset=2 beats=3
load wgt hand region=1 beats=2
load act hand beats=6
load vec hand region=2 beats=2
execute format=2 first m=3 k=8 group=4 hand_acc free_act free_wgt free_par
vector fp16 scale m=3 hand free_acc free_vec
store region=3 rows=3 beats=1 stride=1 free_out
end
"""


@both
def test_end_alone(run: Engine) -> None:
    """Asked for in cycle 0, accepted in 1; two beats on the pins in 6 and 7, the second shown in 8; taken in 9, checked
    in 13: quiet in that cycle."""
    found = run([End()], INT8_4X4, REGIONS, MEMORY)
    assert found.times == (InstructionTimes(9),)
    assert found.counters == Counters(14, 0, 2, 0, 0, 0, 0, 0)


@both
def test_worked_program_of_the_instruction_set(run: Engine) -> None:
    """16 beats of program in cycles 6..21, instruction i whole in 7 + 2 i and there two cycles later.

    Load 0 starts in 14 and asks in 15; accepted in 16, its beats would come in 21, but the program's last does: they
    come in 22..24, shown in 25. Those of Load 1 (asked for in 20, accepted in 21) come in 26 and 27, of Load 2 (26) in
    31..36, of Load 3 (31) when these are done, in 37 and 38.
    Execute has its rows of weights from `first` on, slice 0 in +0..+3 and its vectors in +1..+3, slice 1 in +4..+7 and
    +5..+7; the last result is 4 + 4 - 1 cycles later. Vector has 3 rows of a scale and two chunks, 9 cycles. Store asks
    in 3, 4 and 5 after its start; a cycle later each is accepted, 5 after that written, the last answered 2 after that
    and shown 1 later.
    """
    assert timing.check_cycles(Op.LOAD) == 4, "the cycles below"
    pushed = 29 + timing.check_cycles(Op.EXECUTE)
    first = pushed + 1 + timing.EXECUTE_FILL
    executed = first + 7 + 4 + 4 - 1 + timing.execute_drain(INT8_4X4)
    vector_done = executed + 1 + 9 + timing.VECTOR_DRAIN
    stored = vector_done + 1 + 5 + 1 + 5 + 2 + 1
    found = run(assemble(WORKED), INT8_4X4, REGIONS, MEMORY)
    assert found.times == (
        InstructionTimes(9, 13, 14, 25),
        InstructionTimes(14, 18, 19, 28),
        InstructionTimes(19, 23, 24, 37),
        InstructionTimes(24, 28, 29, 39),
        InstructionTimes(29, pushed, pushed + 1, executed),
        InstructionTimes(pushed + 1, pushed + 5, executed + 1, vector_done),
        InstructionTimes(pushed + 6, pushed + 10, vector_done + 1, stored),
        InstructionTimes(pushed + 11),
    )
    busy = 39 - 14, executed - pushed - 1, 9 + timing.VECTOR_DRAIN, stored - vector_done - 1
    assert found.counters == Counters(stored + 2, 7, 16 + 13, 3, *busy)


@both
def test_burst_ends_at_4_kib_of_the_address(run: Engine) -> None:
    """Three beats, the second of which begins a page: two bursts, the second taken when the first is accepted."""
    program = assemble("load act hand beats=3\nend")
    whole = run(program, INT8_4X4, REGIONS, MEMORY, placement=Placement(0, (0x1000, 0x2000, 0x3000, 0x4000)))
    split = run(program, INT8_4X4, REGIONS, MEMORY, placement=Placement(0, (0xFF8, 0x2000, 0x3000, 0x4000)))
    assert (whole.times[0].done, split.times[0].done) == (14 + 2 + 5 + 2 + 1, 14 + 2 + 5 + 2 + 1)
    one = {"outstanding_reads": 1}
    split = run(program, INT8_4X4, REGIONS, MEMORY, placement=Placement(0, (0xFF8, 0x2000, 0x3000, 0x4000)), **one)
    # a burst in 21; the register takes the next in 22, accepted in 23, its beats in 28 and 29
    assert split.times[0] == InstructionTimes(9, 13, 14, 30)


@both
def test_words_are_instructions_and_none_follows_the_end(run: Engine) -> None:
    program = assemble(WORKED)
    found = run(program, INT8_4X4, REGIONS, MEMORY)
    assert run([encode(each) for each in program], INT8_4X4, REGIONS, MEMORY) == found
    with pytest.raises(ConfigError) as caught:
        run([*program, *program, 0], INT8_4X4, REGIONS, MEMORY)
    assert str(caught.value) == (
        f"program = {2 * len(program) + 1} words: must end with its first End, instruction {len(program) - 1}; the "
        "hardware would fetch words after it, which the simulators do not time"
    )


# --- The stepped model -------------------------------------------------------------------------------------------

MAKERS = {"lowered": lowered_case, "made": made_case}


def require_equal(case: Case, found: Run, counters: Counters, times: tuple[InstructionTimes, ...]) -> None:
    assert found.times == times, f"{first_difference(found.times, times)}; {case}"
    assert found.counters == counters, str(case)


@pytest.mark.parametrize("maker", MAKERS)
def test_engines_equal_the_stepped_model(maker: str, record_property: Any) -> None:
    """Every cycle of every instruction, every counter; all ways to wait are met."""
    met: Counter[str] = Counter()
    runs = instructions = cycles = 0
    for seed in range(140):
        case = MAKERS[maker](seed)
        if case is None:
            continue
        port = case.outstanding_reads, case.outstanding_writes
        counters, times = stepped.step_through(case.program, case.limits, case.memory, case.placement, *port, met)
        for run in ENGINES.values():
            found = run(case.program, case.limits, case.region_beats, case.memory, **case.options())
            require_equal(case, found, counters, times)
        runs, instructions, cycles = runs + 1, instructions + len(case.program), cycles + counters.cycles
    record_property(
        "figure",
        f"accelerator, {maker} programs stepped: {runs} programs, {instructions} instructions, {cycles} cycles, "
        f"difference 0; {dict(met)}",
    )
    assert runs > 120
    never = {name for name, count in met.items() if not count}
    rare = {"store has all in flight", "vector has all in flight"}  # they take one at a time
    assert never <= rare | ({"execute has all in flight"} if maker == "lowered" else set())


@pytest.mark.parametrize("maker", MAKERS)
def test_engines_are_equal(maker: str) -> None:
    """Longer programs, more of them."""
    for seed in range(1000, 1070):
        case = lowered_case(seed, 30) if maker == "lowered" else made_case(seed, 12)
        if case is None:
            continue
        runs = [
            run(case.program, case.limits, case.region_beats, case.memory, **case.options()) for run in ENGINES.values()
        ]
        require_equal(case, runs[1], runs[0].counters, runs[0].times)


# --- Illegal programs --------------------------------------------------------------------------------------------


def accident(draw: Random, program: list[Any]) -> None:
    """An instruction dropped, doubled, moved, changed in a bit or in who gets a slot."""
    at = draw.randrange(len(program))
    item = program.pop(at)
    what = draw.choice(["drop", "double", "move", "flip", "flip", "hand", "hand"])
    if what == "double":
        program[at:at] = [item, item]
    elif what == "move":
        program.insert(draw.randint(0, len(program)), item)
    elif what == "flip":
        word = item if isinstance(item, int) else encode(item)
        program.insert(at, word ^ 1 << draw.randint(0, 115))
    elif what == "hand":
        names = [] if isinstance(item, int) else [name for name in vars(item) if name.startswith(("hand", "free"))]
        name = draw.choice(names) if names else ""
        program.insert(at, replace(item, **{name: not getattr(item, name)}) if name else item)


def verdict(run: Engine, case: Case, program: Program) -> Run | str:
    options = {"outstanding_reads": case.outstanding_reads, "outstanding_writes": case.outstanding_writes}
    try:
        return run(program, case.limits, case.region_beats, case.memory, **options)
    except ProgramError as error:
        return str(error)


def test_refusal_is_the_validators_verdict(record_property: Any) -> None:
    met: Counter[str] = Counter()
    for seed in range(3000, 3300):
        draw = Random(seed)
        case = made_case(seed, 3)
        program: list[Any] = list(case.program)
        for _ in range(draw.randint(1, 2)):
            if program:
                accident(draw, program)
        program = program[: 1 + next((at for at, item in enumerate(program) if isinstance(item, End)), len(program))]
        outcome = validate(program, case.limits, case.region_beats)
        met["whole" if outcome.fault is None else outcome.fault.name.lower()] += 1
        results = [verdict(run, case, program) for run in ENGINES.values()]
        if outcome.legal:
            assert isinstance(results[0], Run), f"{results[0]}; {case}"
            assert results[0] == results[1], str(case)
        else:
            assert results == [str(outcome)] * 2, str(case)
    record_property("figure", f"accelerator, damaged programs by verdict: {dict(met)}")
    wanted = ("illegal_instruction", "out_of_region", "out_of_buffer", "unwritten", "deadlock", "truncated")
    assert min(met[name] for name in (*wanted, "whole")) > 0, met


@both
def test_message_of_a_deadlock(run: Engine) -> None:
    with pytest.raises(ProgramError) as caught:
        run(assemble("load act beats=1\nexecute m=1 k=1 group=1 first\nend"), INT8_4X4, REGIONS, MEMORY)
    assert str(caught.value) == (
        "instruction 1: deadlock: execute waits for a ready act slot and a ready wgt slot and a ready par slot, and "
        "nothing moves any more"
    )


@both
def test_region_loaded_and_stored(run: Engine) -> None:
    with pytest.raises(ProgramError) as caught:
        run(assemble(WORKED.replace("region=3", "region=2")), INT8_4X4, REGIONS, MEMORY)
    assert str(caught.value) == (
        "instruction 6: region conflict: store.region = 2: was loaded from before; a program does one of both"
    )


@both
def test_program_without_an_end(run: Engine) -> None:
    with pytest.raises(ProgramError) as caught:
        run(assemble("load act hand beats=1"), INT8_4X4, REGIONS, MEMORY)
    assert str(caught.value) == (
        "instruction 1: truncated: the program has 1 instructions and no end among those that are reached"
    )


@both
@pytest.mark.parametrize(
    ("regions", "options", "message"),
    [
        ((1, 2), {}, "region_beats = (1, 2): must be 4 sizes in beats, 0 or more"),
        (REGIONS, {"outstanding_reads": 0}, "outstanding_reads = 0: must be 1..64"),
        (REGIONS, {"outstanding_writes": 65}, "outstanding_writes = 65: must be 1..64"),
        (
            REGIONS,
            {"placement": Placement(0, (0x1000, 0x1000, 0x3000, 0x4000))},
            "placement.regions[1] = 0x1000: must be 0x1140 or more, where regions[0] ends",
        ),
    ],
)
def test_settings_that_cannot_be(run: Engine, regions: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run([End()], INT8_4X4, regions, MEMORY, **options)
    assert str(caught.value) == message
