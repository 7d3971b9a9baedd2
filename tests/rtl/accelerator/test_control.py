# amaranth: UnusedElaboratable=no
"""Fetcher, queues, slots, controller with random engines and memory: every cycle the model's, outcomes `network`'s."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.encoding import encode
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import Instruction
from bitwright.arch.isa.limits import Limits
from bitwright.arch.isa.network import validate
from bitwright.rtl.accelerator.channels import ChannelLink
from bitwright.rtl.accelerator.controller import Controller
from bitwright.rtl.accelerator.fetcher import Fetcher
from bitwright.rtl.accelerator.unit_control import UnitControl
from bitwright.rtl.bench import control_model
from bitwright.rtl.bench.control_bench import ControlBench, first_difference, play
from bitwright.rtl.bench.control_model import Choices, ControlModel, Seen, Setup
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe.emit import plain
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

SEED = 20261123
MOST_CYCLES = 20_000
PROGRAMS, FLIPS, ERRORS = 90, 100, 120
FAST = Choices()
WIDTHS = {"int8-ws": 8, "int8-os": 16, "shift-add-ws": 64}  # a beat is a part of an instruction, one, four


@cache
def schedules() -> ModuleType:
    """tests/arch/isa/test_schedules.py, for its programs and its machines."""
    path = Path(__file__).parents[2] / "arch" / "isa" / "test_schedules.py"
    spec = importlib.util.spec_from_file_location("isa_schedules", path)
    assert spec is not None, "it is there"
    assert spec.loader is not None, "it is Python"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def limits_of(name: str) -> Limits:
    """A machine of 2 x 2 with slots of a few beats, with a port of its own."""
    found: Limits = schedules().MACHINES[name]
    return replace(found, port_bytes=WIDTHS[name])


@cache
def compiled(name: str) -> Compiled:
    from amaranth.back import verilog

    text: str = verilog.convert(ControlBench(limits_of(name)), name="control", emit_src=False)
    return Compiled(plain(text), "control", optimise="-O1")


def to_word(item: Instruction | int) -> int:
    return item if isinstance(item, int) else encode(item)


def setup_of(name: str, program: Sequence[Instruction | int], base: int = 0, **changes: Any) -> Setup:
    return Setup(tuple(map(to_word, program)), limits_of(name), (64, 64, 64, 64), base=base, **changes)


def random_choices(draw: Random) -> Callable[[], Choices]:
    """Every engine and the memory at a pace of their own, from always to one cycle in eight."""
    paces = [draw.choice([1.0, 0.9, 0.5, 0.125]) for _ in range(10)]

    def choose() -> Choices:
        bits = [draw.random() < pace for pace in paces]
        ready, done = (sum(bit << place for place, bit in enumerate(bits[at : at + 4])) for at in (0, 4))
        return Choices(request=bits[8], beat=bits[9], ready=ready, done=done)

    return choose


def model_run(setup: Setup, choose: Callable[[], Choices], more: int = 3) -> tuple[list[Choices], list[Seen]]:
    """The model from the start to its end, and a few cycles more."""
    model = ControlModel(setup)
    chosen, seen = [choose()], []
    seen.append(model.step(chosen[0], start=True))
    while model.state != "IDLE":
        assert len(seen) < MOST_CYCLES, f"no end; {setup.words}"
        chosen.append(choose())
        seen.append(model.step(chosen[-1]))
    for _ in range(more):
        chosen.append(choose())
        seen.append(model.step(chosen[-1]))
    return chosen, seen


def check(name: str, setup: Setup, choose: Callable[[], Choices]) -> list[Seen]:
    """A run of the hardware is the model's in every cycle; the model's run."""
    chosen, seen = model_run(setup, choose)
    out = play(compiled(name), setup, chosen, seed=1 + len(chosen))
    difference = first_difference(out, seen)
    assert not difference, f"{difference}; {name}, {setup}"
    ends = int((out["ends"] & 1).sum()), int((out["ends"] >> 1).sum())
    done, error, _, _ = seen[-1].status
    assert ends == (done, error)
    return seen


def outcome(seen: Sequence[Seen]) -> tuple[int, int]:
    done, error, code, index = seen[-1].status
    assert done != error
    assert error == bool(code)
    return code, index


def verdict(setup: Setup) -> tuple[int, int]:
    found = validate(list(setup.words), setup.limits, setup.region_beats)
    return int(found.fault or 0), found.index


# --- Any program, any pace ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WIDTHS)
def test_random_programs_in_every_cycle(name: str, record_property: Any) -> None:
    met: Counter[str] = Counter()

    @seed(SEED + list(WIDTHS).index(name))
    @given(program=schedules().programs(), pace=st.integers(0, 1 << 30), base=st.integers(0, 1 << 30))
    @settings(max_examples=PROGRAMS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def same(program: list[Instruction | int], pace: int, base: int) -> None:
        setup = setup_of(name, program, base=256 * base)
        wanted = verdict(setup)
        for number in range(2):
            seen = check(name, setup, random_choices(Random(2 * pace + number)))
            assert outcome(seen) == wanted
        met[Fault(wanted[0]).name.lower() if wanted[0] else "whole"] += 1

    same()
    record_property("figure", f"control of {name}, random programs by outcome: {dict(met)}")
    assert min(met[item] for item in ("whole", "unwritten", "deadlock")) > 0


@pytest.mark.parametrize("name", WIDTHS)
def test_flipped_bits_in_every_cycle(name: str, record_property: Any) -> None:
    draw = Random(f"{SEED} {name}")
    words = [encode(item) for item in assemble(schedules().INTEGER)]
    met: Counter[str] = Counter()
    for bit in draw.sample(range(128 * len(words)), FLIPS):
        index, place = divmod(bit, 128)
        setup = setup_of(name, [*words[:index], words[index] ^ 1 << place, *words[index + 1 :]], base=256 * bit)
        seen = check(name, setup, random_choices(draw))
        assert outcome(seen) == verdict(setup)
        met[Fault(outcome(seen)[0]).name.lower() if outcome(seen)[0] else "whole"] += 1
    record_property("figure", f"control of {name}, flipped bits by outcome: {dict(met)}")
    assert min(met[item] for item in ("whole", "illegal_instruction", "out_of_region")) > 5


# --- What only hardware finds ------------------------------------------------------------------------------------


def with_errors(choose: Callable[[], Choices], draw: Random, load: float, store: float) -> Callable[[], Choices]:
    def wrong() -> Choices:
        return replace(choose(), load_error=draw.random() < load, store_error=draw.random() < store)

    return wrong


def test_errors_and_the_watchdog_in_every_cycle(record_property: Any) -> None:
    name, draw, met = "int8-ws", Random(SEED), Counter[str]()
    words = [encode(item) for item in assemble(schedules().INTEGER)]
    for _ in range(ERRORS):
        broken = frozenset(draw.sample(range(40), 1) if draw.random() < 0.5 else ())
        watchdog = draw.choice([0, 0, draw.randint(1, 400)])
        setup = setup_of(name, [*words[:-1], *words[: draw.randint(0, 5)], words[-1]], watchdog=watchdog, broken=broken)
        rates = [draw.choice([0.0, 0.002, 0.1]) for _ in range(2)]
        seen = check(name, setup, with_errors(random_choices(draw), draw, *rates))
        met[Fault(outcome(seen)[0]).name.lower() if outcome(seen)[0] else "whole"] += 1
    record_property("figure", f"control with errors of the bus and a watchdog by outcome: {dict(met)}")
    assert min(met[item] for item in ("whole", "bus_error", "watchdog")) > 5


def test_a_broken_beat_of_the_program_is_found_in_its_turn() -> None:
    """Both beats of instruction 3 count, whatever the pace; a beat that is not needed does not."""
    words = [encode(item) for item in assemble(schedules().INTEGER)]
    for beat, wanted in ((6, (int(Fault.BUS_ERROR), 3)), (7, (int(Fault.BUS_ERROR), 3)), (22, (0, 10))):
        for number in range(3):
            setup = setup_of("int8-ws", [*words, 0], broken=frozenset({beat}))
            assert outcome(check("int8-ws", setup, random_choices(Random(number)))) == wanted


def test_the_watchdog_allows_as_many_cycles_as_it_says() -> None:
    words = [encode(item) for item in assemble(schedules().INTEGER)]
    seen = check("int8-ws", setup_of("int8-ws", words), lambda: FAST)
    cycles = seen[-1].counters[0]
    seen = check("int8-ws", setup_of("int8-ws", words, watchdog=cycles), lambda: FAST)
    assert (outcome(seen), seen[-1].counters[0]) == ((0, 10), cycles)
    seen = check("int8-ws", setup_of("int8-ws", words, watchdog=cycles - 1), lambda: FAST)
    assert (outcome(seen)[0], seen[-1].counters[0]) == (int(Fault.WATCHDOG), cycles - 1)


def test_evidence_is_what_is_compared() -> None:
    compared = len(WIDTHS) * (PROGRAMS + FLIPS) + ERRORS
    for part in (Fetcher, UnitControl, ChannelLink, Controller):
        assert [item.cases for item in part.evidence if item.test.endswith("/test_control.py")] == [compared]


# --- Cycles by hand ----------------------------------------------------------------------------------------------


def events(seen: Sequence[Seen], of: Callable[[Seen], Any]) -> list[int]:
    """The cycles of the run in which something is so; cycle 0 is the first in RUN."""
    first = next(cycle for cycle, item in enumerate(seen) if item.state == "RUN")
    return [cycle - first for cycle, item in enumerate(seen) if of(item)]


def test_cycles_of_a_short_program() -> None:
    """Beats of 8 bytes: asked for in 0, on the pins in 1 to 4, shown a cycle later; each instruction takes two.

    Taken in 4, checked in 4 cycles, queued in 8, started in 9 and done in 10, as the bench's engine allows. The End is
    taken in 9, the cycle after, and checked in 13, in which all is quiet. Then comes the judge.
    """
    seen = check("int8-ws", setup_of("int8-ws", assemble("load act beats=1\nend")), lambda: FAST)
    assert [item.state for item in seen[:3]] == ["IDLE", "CLEAR", "RUN"]
    assert events(seen, lambda item: item.request) == [0]
    assert events(seen, lambda item: item.taken) == [4, 9]
    assert events(seen, lambda item: item.pushed) == [8]
    assert events(seen, lambda item: item.started) == [9]
    assert events(seen, lambda item: item.done) == [10]
    assert events(seen, lambda item: item.state == "RUN") == list(range(14))
    assert seen[-1].counters == (14, 1, 4, 0, 1, 0, 0, 0)
    assert [item.state for item in seen[16:19]] == ["JUDGING", "STOPPING", "IDLE"]


def test_an_execute_is_checked_in_13_cycles() -> None:
    text = "execute first m=1 k=1 group=1\nend"
    seen = check("int8-ws", setup_of("int8-ws", assemble(text)), lambda: FAST)
    assert events(seen, lambda item: item.taken) == [4, 18]
    assert events(seen, lambda item: item.pushed) == [17]


def test_chunks_are_asked_for_two_ahead() -> None:
    """40 instructions in three chunks, the last one shorter and asked for when the first one was used up."""
    program = assemble("load act beats=1\n" * 39 + "end")
    seen = check("int8-ws", setup_of("int8-ws", program, base=0x300), lambda: FAST)
    taken = events(seen, lambda item: item.taken)
    assert len(taken) == 40
    first = next(cycle for cycle, item in enumerate(seen) if item.state == "RUN")
    asked = {cycle: seen[first + cycle].request for cycle in events(seen, lambda item: item.request)}
    assert asked == {0: (0x300, 32), 1: (0x400, 32), taken[15] + 1: (0x500, 16)}


def test_no_instructions_are_truncated_at_once() -> None:
    seen = check("int8-ws", setup_of("int8-ws", []), lambda: FAST)
    assert (outcome(seen), seen[-1].counters) == ((int(Fault.TRUNCATED), 0), (1, 0, 0, 0, 0, 0, 0, 0))


def test_a_run_after_a_run_begins_anew() -> None:
    """After a deadlock with slots taken, instructions queued and a fault; a start in the middle of it is ignored."""
    name, draw = "int8-ws", Random(SEED)
    text = "load act hand beats=1\n" * 3 + "vector m=1\nstore region=1 beats=1\nend"
    setup = setup_of(name, assemble(text))
    chosen, seen = model_run(setup, random_choices(draw), more=0)
    middle, begins = len(seen) // 2, len(seen)
    again, later = model_run(setup, random_choices(draw))
    assert outcome(later) == (int(Fault.DEADLOCK), 2)
    later[0].status = later[-1].status
    later[0].counters = later[1].counters = seen[-1].counters
    out = play(compiled(name), setup, [*chosen, *again], seed=1, starts=(0, middle, begins))
    assert first_difference(out, [*seen, *later]) == ""


def test_a_cycle_more_or_less_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_of("int8-ws", assemble("load act beats=1\nend"))
    monkeypatch.setattr(control_model, "check_cycles", lambda op: 5)
    with pytest.raises(AssertionError, match=r"^cycle 10: pushed = 0x1, must be 0x0; int8-ws, "):
        check("int8-ws", setup, lambda: FAST)
