"""Plays a trace, whose outputs are known beforehand, to a compiled design: a PE, its mutants, its netlist."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import MismatchError
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.bench.words import Words, from_integers

Bools = npt.NDArray[np.bool_]
RESET_CYCLES = 2  # at the start of every trace; before its end the state is unknown
_PIECES = (256, 2048, 1 << 15)  # cycles run before the outputs are compared; the last size goes on


@dataclass(frozen=True)
class Difference:
    """The first cycle in which a design leaves a trace, and how: `value`, or `cycle` for a handshake."""

    kind: str
    cycle: int
    text: str


@dataclass(frozen=True)
class Wrong:
    """Where the outputs of a piece differ from the trace: in which cycles which handshake, and the payload.

    handshakes : port as people call it -> (wrong [cycles], wanted level [cycles]). payload : wrong [cycles].
    """

    handshakes: dict[str, tuple[Bools, Bools]]
    payload: Bools


class TracePlayer(abc.ABC):
    """A design with a trace's inputs laid out for it, to be run many times.

    Parameters
        words : the trace's inputs [cycles, in_words], the first RESET_CYCLES a reset.
        stalled : whether source and sink wait in the trace.
    """

    def __init__(self, design: Compiled, words: Words, stalled: bool) -> None:
        self.design, self.words, self.stalled = design, words, stalled

    @abc.abstractmethod
    def wrong(self, outputs: dict[str, npt.NDArray[Any]], part: slice) -> Wrong:
        """What differs in the outputs of the trace's cycles `part`, the reset's cycles included."""

    @abc.abstractmethod
    def payloads(self, outputs: dict[str, npt.NDArray[Any]], at: int, cycle: int) -> tuple[str, int, int]:
        """(name, found, wanted) of the payload in place `at` of the outputs, the trace's `cycle`."""

    def difference(self, *, seed: int = 1, **constant: int) -> Difference | None:
        """Where the design, from random power-up state, first leaves the trace; `constant` sets other inputs."""
        for name, value in constant.items():
            port = self.design.inputs[name]
            self.words[:, port.word : port.word + port.words] = from_integers([value], port.bits)
        with self.design.open(random_state=True, seed=seed) as running:
            start, sizes = 0, iter(_PIECES)
            size = next(sizes)
            while start < len(self.words):
                part = slice(start, min(start + size, len(self.words)))
                found = self._first(self.design.output_values(running.run_words(self.words[part])), part)
                if found is not None:
                    return found
                start, size = part.stop, next(sizes, size)
        return None

    def _first(self, outputs: dict[str, npt.NDArray[Any]], part: slice) -> Difference | None:
        wrong, known = self.wrong(outputs, part), np.arange(part.start, part.stop) >= RESET_CYCLES
        handshakes = {name: (where & known, level) for name, (where, level) in wrong.handshakes.items()}
        cycles = np.flatnonzero(np.any([*(where for where, _ in handshakes.values()), wrong.payload & known], axis=0))
        if not len(cycles):
            return None
        at = int(cycles[0])
        where = f"cycle {part.start + at}"
        for name, (differs, level) in handshakes.items():
            if differs[at]:
                must = int(level[at])
                return Difference("cycle", part.start + at, f"{where}: {name} = {1 - must}: must be {must}")
        name, got, wanted = self.payloads(outputs, at, part.start + at)
        return Difference("value", part.start + at, f"{where}: {name} = {got:#x}: must be {wanted:#x}")

    def require(self, *, seed: int = 1, **constant: int) -> None:
        """Raise MismatchError unless the design follows the trace."""
        found = self.difference(seed=seed, **constant)
        if found is not None:
            raise MismatchError(f"{self.design.top}, seed {seed}: {found.text}")
