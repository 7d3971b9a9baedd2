"""Cycles that follow from codes: opt3 and opt4c, what a program's Loads bring, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch import machine, pe
from bitwright.arch.errors import ConfigError, ProgramError
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.limits import limits
from bitwright.arch.isa.tile_cycles import tile_cycles
from bitwright.arch.pe import broadcast
from bitwright.arch.pe.asynchronous import AsynchronousFamily
from bitwright.arch.pe.stream import row_flags

# Nonzero digits by hand. en-t: 3 = 4 - 1, 127 = 2 * 64 - 1, 85 = 1 + 4 + 16 + 64; at least a cycle.
BY_HAND = {0: 1, 1: 1, 2: 1, 3: 2, -3: 2, 5: 2, 127: 2, -128: 1, 85: 4, -85: 4, 64: 1, 63: 2}


def family(name: str, **params: Any) -> AsynchronousFamily:
    found = broadcast.family(broadcast.tile_spec(name, 3, 2, params))
    assert isinstance(found, AsynchronousFamily)
    return found


@pytest.mark.parametrize("name", ["opt3", "opt4c"])
def test_a_step_takes_as_long_as_its_slowest_column(name: str) -> None:
    tile = family(name)
    for code, cycles in BY_HAND.items():
        assert tile.code_cycles([[code & 255]], "int8").tolist() == [cycles], code
    codes = np.zeros((11, 2), np.int64)
    codes[:, 0] = [85] * 8 + [1, 1, 3]
    codes[:, 1] = [0] * 8 + [85, 3, 0]
    assert tile.code_cycles(codes, "int8").tolist() == [32, 7]
    assert tile.code_cycles([[0b1111, 0b0011]], "int4").tolist() == [2]  # -1 and 3
    assert tile.code_cycles([[0b1111, 0b1000]], "int4").tolist() == [1]  # -1 and -8


@pytest.mark.parametrize("name", ["opt3", "opt4c"])
def test_sums_are_the_goldens_of_the_pe(name: str) -> None:
    tile, draw = family(name), np.random.default_rng(1)
    acts, codes = draw.integers(-128, 128, (37, 3)), draw.integers(0, 256, (37, 2))
    found = tile.sums(acts, codes, "int8").psum
    weights = codes - 256 * (codes > 127)
    for col in range(2):
        if name == "opt4c":
            steps = {"act": acts, "wgt": weights[:, col], **row_flags(1, 37)}
            assert tile.spec.golden(**steps)["psum"].reshape(-1).tolist() == found[:, col].tolist()
        else:
            for row in range(3):
                steps = {"act": acts[:, row], "wgt": weights[:, col], **row_flags(1, 37)}
                assert tile.spec.golden(**steps)["psum"].tolist() == [found[row, col]]


PROGRAM = """
load act hand beats=64
load par hand beats=8 region=2
load wgt beats=2 region=1
load wgt hand at=2 beats=4 region=1 offset={offset}
execute first m=1 k=12 group=8 hand_acc
end
"""
LIM = limits(machine.load("opt3-2x4"), port_bytes=8, formats=["int8"])


def memory(weights: np.ndarray) -> list[np.ndarray]:
    """12 rows of 4 weights: the first 4 rows at the start of region 1, the others from beat 5 on."""
    beats = weights.astype(np.int8).view(np.uint8).ravel()
    wgt = np.zeros(400, np.uint8)
    wgt[:16], wgt[40:72] = beats[:16], beats[16:48]
    return [np.zeros(1024, np.uint8), wgt, np.zeros(256, np.uint8), np.zeros(0, np.uint8)]


def test_cycles_are_those_of_what_the_loads_bring() -> None:
    weights = np.zeros((12, 4), np.int64)
    weights[:4, 1], weights[4:8, 2], weights[8:, 3] = 85, 3, 127
    regions = memory(weights)
    sizes = [region.size // 8 for region in regions]
    before = [region.copy() for region in regions]
    found = tile_cycles(assemble(PROGRAM.format(offset=5)), LIM, sizes, regions)
    assert found == [[4 * 4 + 4, 4 * 2]], "column 1 is the slowest of the first group, column 3 of the second"
    assert all((one == other).all() for one, other in zip(before, regions, strict=True))
    assert tile_cycles(assemble(PROGRAM.format(offset=20)), LIM, sizes, regions) == [[4 * 4 + 4, 4]], "zeros"


def test_refused() -> None:
    regions = memory(np.zeros((12, 4), np.int64))
    sizes, program = [region.size // 8 for region in regions], assemble(PROGRAM.format(offset=5))
    with pytest.raises(ConfigError, match=r"^contents: a tile of opt3 skips digits that are zero, so cycles need"):
        tile_cycles(program, LIM, sizes, None)
    with pytest.raises(
        ConfigError, match=r"^contents: regions of \(128, 50, 32, 0\) beats, must be \(128, 51, 32, 0\)"
    ):
        tile_cycles(program, LIM, [128, 51, 32, 0], regions)
    with pytest.raises(ProgramError, match="reads"):
        tile_cycles([program[0], program[1], program[2], *assemble(
            "load wgt hand at=2 beats=1 region=1\nexecute first m=1 k=12 group=8 hand_acc\nend"
        )], LIM, sizes, regions)  # fmt: skip
    signed = "a tile of opt3 takes signed integers without zero points, it has no decoders; machine 'opt3-2x4'"
    with pytest.raises(ConfigError) as caught:
        limits(machine.load("opt3-2x4"), formats=["int4_asym"])
    assert str(caught.value) == f"formats: int4_asym: {signed}"
    narrow = pe.parse_name("opt3:psum_bits=24")[1]
    assert broadcast.family(broadcast.tile_spec("opt3", 2, 2, narrow)).longest_elements == 511
