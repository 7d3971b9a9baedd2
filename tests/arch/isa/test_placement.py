"""Where a program and its regions stand: alignment, no overlap, the end of the memory."""

from __future__ import annotations

from typing import Any

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.placement import ADDRESS_BITS, Placement, check, place
from hypothesis import given
from hypothesis import strategies as st


def test_program_then_regions_from_page_to_page() -> None:
    assert place(256, (1, 0, 257, 5), 16) == Placement(0x1000, (0x2000, 0x3000, 0x3000, 0x5000))
    assert place(257, (1, 0, 257, 5), 16) == Placement(0x1000, (0x3000, 0x4000, 0x4000, 0x6000))


@given(
    words=st.integers(1, 5000),
    region_beats=st.tuples(*[st.one_of(st.integers(0, 5), st.integers(0, 1 << 20))] * 4),
    port_bytes=st.sampled_from([8, 16, 32, 64]),
)
def test_nothing_overlaps(words: int, region_beats: tuple[int, int, int, int], port_bytes: int) -> None:
    found = place(words, region_beats, port_bytes)
    check(found, words, region_beats, port_bytes)
    ends = [found.program + 16 * words]
    for base, beats in zip(found.regions, region_beats, strict=True):
        assert base % 4096 == 0
        assert base >= ends[-1]
        ends.append(base + beats * port_bytes)


REGIONS = (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (Placement(128, (512, 1024, 2048, 4096)), "placement.program = 0x80: must be a multiple of 256, 0 or more"),
        (
            Placement(0, (512, 1028, 2048, 4096)),
            "placement.regions[1] = 0x404: must be a multiple of 8, 0 or more",
        ),
        (Placement(0, (512, 1024, -8, 4096)), "placement.regions[2] = -0x8: must be a multiple of 8, 0 or more"),
        (
            Placement(0, (512, 1024, 2048, (1 << ADDRESS_BITS) - 24)),
            "placement.regions[3] = 0xffffffffe8: 32 bytes from there do not end within 2**40",
        ),
        (Placement(0, (24, 1024, 2048, 4096)), "placement.regions[0] = 0x18: must be 0x20 or more, where program ends"),
        (
            Placement(0, (512, 2064, 2048, 4096)),
            "placement.regions[1] = 0x810: must be 0x818 or more, where regions[2] ends",
        ),
    ],
)
def test_placements_that_cannot_be(placement: Placement, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(placement, 2, REGIONS, 8)
    assert str(caught.value) == message


def test_last_byte_of_memory_is_one() -> None:
    check(Placement(0, (512, 1024, 2048, (1 << ADDRESS_BITS) - 32)), 2, REGIONS, 8)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ((1, 2, 3), "region_beats = (1, 2, 3): must be 4 sizes in beats, 0 or more"),
        ((1, 2, 3, -1), "region_beats = (1, 2, 3, -1): must be 4 sizes in beats, 0 or more"),
        (
            (0, 0, 0, 1 << 37),
            "placement.regions[3] = 0x2000: 1099511627776 bytes from there do not end within 2**40",
        ),
    ],
)
def test_regions_that_cannot_be(regions: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place(2, regions, 8)
    assert str(caught.value) == message
