"""Lowered programs are valid in order: with all before it done, no instruction waits for a slot.

`bitwright prove MACHINE` shows that the accelerator does not deadlock on such programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accelerator_cases import lowered_case
from bitwright.arch.isa import assemble
from bitwright.arch.isa.extents import uses
from bitwright.arch.isa.instructions import Instruction
from bitwright.arch.isa.limits import Limits, limits
from bitwright.arch.isa.network import SLOTS
from bitwright.arch.machine import load


def first_that_waits(program: Sequence[Instruction], lim: Limits) -> int | None:
    """The first instruction that finds no slot in program order; None when every one does."""
    ready: Counter[tuple[object, bool]] = Counter()
    held: set[tuple[object, bool]] = set()
    for index, instruction in enumerate(program[:-1]):
        for use in uses(instruction, lim):
            side = use.channel, use.produces
            if side not in held:
                if ready[side] + (SLOTS if use.produces else 0) == 0:
                    return index
                ready[side] -= 1
                held.add(side)
            if use.last:
                held.remove(side)
                ready[use.channel, not use.produces] += 1
    return None


def test_lowered_programs_find_their_slots_in_order() -> None:
    cases = [case for case in map(lowered_case, range(300)) if case is not None]
    assert len(cases) > 250
    assert [first_that_waits(case.program, case.limits) for case in cases] == [None] * len(cases)


def test_a_consumer_before_its_producer_is_found() -> None:
    lim = limits(load("int8-4x4"))
    program = assemble("load wgt hand beats=1\nstore region=3 beats=1 free_out\nend")
    assert first_that_waits(program, lim) == 1
