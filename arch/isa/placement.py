"""Where a program and its four regions stand in the accelerator's 40-bit memory.

Bursts end at multiples of 4 KiB of the address, so cycles depend on it: everyone who runs a program places it here,
unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bitwright.arch.errors import ConfigError
from bitwright.arch.fixed_memory import BURST_BYTES
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.timing import FETCH_BYTES

ADDRESS_BITS = 40
"""Of a byte in memory."""

INDEX_BITS = 24
"""Of an instruction's place in its program."""


@dataclass(frozen=True)
class Placement:
    """First bytes.

    Members
        program : of the program, a multiple of FETCH_BYTES
        regions : of each region, multiples of a beat
    """

    program: int
    regions: tuple[int, int, int, int]


def place(words: int, region_beats: Sequence[int], port_bytes: int) -> Placement:
    """A program of so many instructions, then region after region, each from the next multiple of 4 KiB on.

    Nothing stands at address 0. ConfigError when that is more than the memory has, or not the sizes of 4 regions.
    """
    if len(region_beats) != REGIONS or min(region_beats) < 0:
        raise ConfigError(f"region_beats = {tuple(region_beats)}: must be {REGIONS} sizes in beats, 0 or more")
    program = BURST_BYTES
    at = program + words * WORD_BYTES
    regions: list[int] = []
    for beats in region_beats:
        at += -at % BURST_BYTES
        regions.append(at)
        at += beats * port_bytes
    placement = Placement(program, (regions[0], regions[1], regions[2], regions[3]))
    check(placement, words, region_beats, port_bytes)
    return placement


def check(placement: Placement, words: int, region_beats: Sequence[int], port_bytes: int) -> None:
    """ConfigError for an address that its register cannot hold, or two parts that overlap."""
    parts = [("program", placement.program, FETCH_BYTES, words * WORD_BYTES)]
    parts += [
        (f"regions[{number}]", base, port_bytes, beats * port_bytes)
        for number, (base, beats) in enumerate(zip(placement.regions, region_beats, strict=True))
    ]
    for name, base, unit, size in parts:
        if base < 0 or base % unit:
            raise ConfigError(f"placement.{name} = {base:#x}: must be a multiple of {unit}, 0 or more")
        if base + size > 1 << ADDRESS_BITS:
            raise ConfigError(
                f"placement.{name} = {base:#x}: {size} bytes from there do not end within 2**{ADDRESS_BITS}"
            )
    taken = sorted((base, base + size, name) for name, base, _, size in parts if size)
    for (_, end, before), (base, _, name) in pairwise(taken):
        if base < end:
            raise ConfigError(f"placement.{name} = {base:#x}: must be {end:#x} or more, where {before} ends")
