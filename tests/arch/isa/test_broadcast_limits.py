"""What broadcast tiles tell the instruction set, and what of a program or a machine they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch import config, machine, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import TileFormat, limits
from bitwright.arch.machine import Machine
from bitwright.arch.pe import broadcast


def test_what_tiles_tell_the_instruction_set() -> None:
    found = limits(machine.load("outlier-victim-8x4"))
    assert (found.template, found.lanes, found.stationary, found.act_bits, found.slice_steps) == (
        "broadcast", 2, "os", 8, None,
    )  # fmt: skip
    assert found.formats == tuple(TileFormat(name, 8, True, False) for name in ("int8", "int4", "ovp4", "ovp8"))
    found = limits(machine.load("lut-4x4"))
    assert (found.template, found.lanes, found.stationary, found.act_bits) == ("broadcast", 4, "os", 8)
    assert found.formats == (TileFormat("int4", 4, True, False), TileFormat("int4_asym", 4, True, True))
    found = limits(machine.load("bit-serial-8x8"))
    assert (found.template, found.lanes, found.stationary, found.act_bits, found.scale_format) == (
        "broadcast", 4, "os", 16, "int8",
    )  # fmt: skip
    assert found.formats == (
        TileFormat("bitmod_fp4", 4, True, False, 8, 2),
        TileFormat("bitmod_fp3", 3, True, False, 8, 2),
        TileFormat("int8", 8, True, False, 8, 0),
        TileFormat("int6", 6, True, False, 8, 0),
    )
    assert [form.par_bits for form in found.formats] == [10, 10, 8, 8]
    found = limits(machine.load("int8-4x4"))
    assert (found.template, found.lanes, found.tile, found.scale_format) == ("systolic", 1, None, None)


def test_every_spec_of_the_template_has_a_family() -> None:
    named = [name for name in pe.stream_names() if broadcast.TEMPLATE in pe.stream(name).templates]
    assert sorted({*named, *pe.names(broadcast.TEMPLATE)}) == broadcast.names()


LEGAL = """
load act hand beats=64
load wgt hand beats=64
load par hand beats=8
execute first m={m} k={k} group={group} hand_acc
end
"""


@pytest.mark.parametrize(
    ("k", "group", "sentence"),
    [
        (13, 4, ""),
        (13, 13, ""),
        (13, 14, ""),
        (13, 6, "execute.group = 6: must be a multiple of 4, which the tile takes at once, or at least k = 13"),
        (6, 6, ""),
        (7, 6, "execute.group = 6: must be a multiple of 4, which the tile takes at once, or at least k = 7"),
    ],
)
def test_a_group_must_not_end_within_a_step(k: int, group: int, sentence: str) -> None:
    lim = limits(machine.load("lut-4x4"))
    memory = [np.zeros(1024, np.uint8)] * 3 + [np.zeros(256, np.uint8)]
    text = LEGAL.format(m=1, k=k, group=group)
    outcome = run(assemble(text), lim, memory)
    assert (outcome.fault, outcome.sentence) == (
        (Fault.ILLEGAL_INSTRUCTION, sentence) if sentence else (None, outcome.sentence)
    )


def made(pe_name: str) -> Machine:
    data = {"name": "mine", "pe": pe_name, "array": {"rows": 4, "cols": 4, "dataflow": "os"}}
    return config.validate(Machine, data, "test")


@pytest.mark.parametrize(
    ("pe_name", "options", "message"),
    [
        (
            "lut",
            {"formats": ["int8"]},
            "formats: int8: int8 has 8 bits, the PE takes 4; machine 'mine'",
        ),
        (
            "lut:variant=unpu",
            {"formats": ["bipolar_int2"]},
            "formats: bipolar_int2: its odd integers are half a step off unpu's two's complement; machine 'mine'",
        ),
        (
            "lut:k=2",
            {},
            "lut.depth: a sum holds 8738 elements, must hold those of the longest Execute, 16383 (make it larger); "
            "machine 'mine'",
        ),
        (
            "outlier-victim",
            {"formats": ["int4_asym"]},
            "formats: int4_asym: int4_asym codes are neither those of ovp4 nor of ovp8; machine 'mine'",
        ),
        (
            "outlier-victim",
            {"formats": ["ovp4_flint"]},
            "formats: ovp4_flint: ovp4_flint is neither ovp4 nor ovp8 with outliers E4M3; machine 'mine'",
        ),
    ],
)
def test_refused(pe_name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limits(made(pe_name), **options)
    assert str(caught.value) == message


def test_rows_beyond_the_tile_are_refused() -> None:
    lim = limits(machine.load("outlier-victim-2x2"))
    outcome = run(
        assemble(LEGAL.format(m=3, k=2, group=2)), lim, [np.zeros(1024, np.uint8)] * 3 + [np.zeros(256, np.uint8)]
    )
    assert outcome.sentence == "execute.m = 3: must be at most 2, the rows of an output-stationary array"
