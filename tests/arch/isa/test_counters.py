"""The sentence that says where two traces part."""

from __future__ import annotations

from dataclasses import fields

from bitwright.arch.isa.counters import Counters, InstructionTimes, first_difference
from bitwright.arch.registers import COUNTERS


def test_names_are_those_of_the_registers() -> None:
    assert [member.name for member in fields(Counters)] == list(COUNTERS)


WANTED = (InstructionTimes(4, 8, 9, 30), InstructionTimes(9, 13, 14, 20), InstructionTimes(14))


def test_equal_traces_differ_in_nothing() -> None:
    assert first_difference(list(WANTED), WANTED) == ""


def test_earliest_cycle_is_named() -> None:
    found = (InstructionTimes(4, 8, 9, 31), InstructionTimes(9, 13, 15, 21), InstructionTimes(14))
    assert first_difference(found, WANTED) == "instruction 1: started in cycle 15, must be 14 (3 cycles differ in all)"


def test_a_cycle_that_must_not_be() -> None:
    found = (*WANTED[:2], InstructionTimes(14, 18))
    assert first_difference(found, WANTED) == "instruction 2: pushed in cycle 18, must be None (1 cycles differ in all)"


def test_another_number_of_instructions() -> None:
    assert first_difference(WANTED[:2], WANTED) == "2 instructions, must be 3"
