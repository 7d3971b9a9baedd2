"""How many cycles the slices of each Execute take where that depends on the codes of its weights.

The golden of both simulators: what a program's Loads bring into the slots of weights, slice by slice to
`tile_family.Family.code_cycles`. It needs no numbers but the codes: no region is both loaded from and stored to, so
what a Load brings was in memory before the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitwright.arch.errors import ConfigError, ProgramError
from bitwright.arch.isa.arithmetic import cut
from bitwright.arch.isa.instructions import Execute, Instruction, Load
from bitwright.arch.isa.interpreter import Bytes, Machine, region_beats
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.network import Program, walk

Cycles = list[list[int]]
"""Of each Execute, in the program's order, the cycles of the steps of each of its slices."""


def tile_cycles(program: Program, limits: Limits, beats: Sequence[int], contents: Sequence[Bytes] | None) -> Cycles:
    """The cycles of a program on a machine that `skips`.

    Parameters
        beats : size of each of the 4 regions of memory
        contents : the regions before the run, as of `interpreter.run`; they stay as they are

    ConfigError without contents, or for contents of other sizes; ProgramError, with the validator's verdict, for a
    program that does not run to its End.
    """
    if contents is None:
        raise ConfigError(
            f"contents: a tile of {limits.pe.name} skips digits that are zero, so cycles need what is in memory (give "
            "the 4 regions' bytes)"
        )
    if region_beats(limits, contents) != tuple(beats):
        raise ConfigError(f"contents: regions of {region_beats(limits, contents)} beats, must be {tuple(beats)}")
    found = _Codes(limits, contents)
    outcome = walk(program, limits, beats, numbers=found)
    if not outcome.legal:
        raise ProgramError(str(outcome))
    return found.cycles


class _Codes(Machine):
    """The slots of weights, and what Executes find there: `network.Numbers`."""

    def __init__(self, limits: Limits, memory: Sequence[Bytes]) -> None:
        super().__init__(limits, memory)
        self.cycles: Cycles = []

    def move(self, instruction: Instruction, slots: Mapping[Channel, int]) -> None:
        if isinstance(instruction, Load) and Channel.WGT in slots:
            self.load(instruction, slots)
        elif isinstance(instruction, Execute):
            limits, codes = self._limits, self.codes(instruction, slots)
            assert limits.tile is not None, "a systolic array skips nothing"
            name = limits.formats[instruction.format].name
            slices = cut(instruction.k, instruction.group, limits.slice_steps)
            pieces = (codes[slices.of == number] for number in range(slices.count))
            self.cycles.append([int(limits.tile.code_cycles(piece, name).sum()) for piece in pieces])
