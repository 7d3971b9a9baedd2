"""Cycle-by-cycle traces of the bit-serial PE: inputs of every cycle and what the ports must show, known beforehand.

A trace binds `slice.ready` and `column.valid` in every cycle after the first reset, and the sum while it is on offer.
It is made from the spec's arithmetic and from `BitSerialModel`, never from a design, so it can be played to many
designs (mutants, a netlist) from any power-up state at the speed of the compiled model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import SPECIALS, format_specials, special_code
from bitwright.rtl.bench.bit_serial_bench import Channels, unpack_slices
from bitwright.rtl.bench.bit_serial_model import BitSerialModel, Slice
from bitwright.rtl.bench.bit_serial_stimulus import restless_slices, storable_specials
from bitwright.rtl.bench.stream.player import RESET_CYCLES, Bools, TracePlayer, Wrong
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.bench.words import Words

_WINDOW_CYCLES = 64  # idle sources, slow sinks and clears keep their rates for so long


@dataclass(frozen=True)
class Trace:
    """Inputs by port and the outputs that they must give, [cycles] each; it begins with a reset over garbage.

    `stalled`: source and sink wait, clears and resets fall in; else slices come back to back and sums are taken.
    """

    stalled: bool
    inputs: dict[str, npt.NDArray[np.generic]]
    ready: Bools
    valid: Bools
    column: npt.NDArray[np.uint32]
    slices: int
    sums: int

    @property
    def cycles(self) -> int:
        return len(self.ready)


@dataclass(frozen=True)
class _Cycle:
    """One row of a trace; `word` numbers the payload."""

    rst: bool
    valid: bool
    word: int
    column_ready: bool
    clear: bool
    special: tuple[int, int] | None
    ready: bool
    offered: int | None


class _Log:
    """Drives the model cycle by cycle and writes down what goes in and what must come out."""

    def __init__(self, model: BitSerialModel, words: Words) -> None:
        self.model, self.words = model, words
        self.items: list[Slice] = unpack_slices(words)
        self.rows: list[_Cycle] = []
        self.taken = self.sums = 0

    def reset(self) -> None:
        """Two cycles of reset with garbage on all other inputs, so that nothing of it may count."""
        for number in range(RESET_CYCLES):
            self.cycle(number, offered=True, column_ready=bool(number), clear=not number, rst=True)

    def program(self, specials: Sequence[float]) -> None:
        """Write all special values, one a cycle, with no slice on offer."""
        for index, value in enumerate(specials):
            self.cycle(0, offered=False, special=(index, value))

    def cycle(
        self, number: int, *, offered: bool, column_ready: bool = True, clear: bool = False, rst: bool = False,
        special: tuple[int, float] | None = None,
    ) -> bool:  # fmt: skip
        """One cycle with payload `number`, on offer or as garbage; returns whether it was taken."""
        model, item = self.model, self.items[number]
        ready = model.ready(item.encoding, column_ready, clear)
        code = None if special is None else (special[0], special_code(special[1]))
        self.rows.append(_Cycle(rst, offered, number, column_ready, clear, code, ready, model.offered))
        self.sums += int(model.offered is not None and column_ready)
        model.step(item if offered else None, column_ready=column_ready, clear=clear, rst=rst)
        if special is not None:
            model.channel.specials[special[0]] = special[1]
        taken = bool(offered and ready and not rst)
        self.taken += taken
        return taken

    def trace(self, *, stalled: bool) -> Trace:
        rows = self.rows
        specials = [row.special or (0, 0) for row in rows]
        inputs: dict[str, npt.NDArray[np.generic]] = {
            "rst": np.array([row.rst for row in rows]),
            "slice__valid": np.array([row.valid for row in rows]),
            "slice__payload": self.words[[row.word for row in rows]],
            "column__ready": np.array([row.column_ready for row in rows]),
            "clear": np.array([row.clear for row in rows]),
            "special_write": np.array([row.special is not None for row in rows]),
            "special_index": np.array([index for index, _ in specials]),
            "special_value": np.array([value for _, value in specials]),
        }
        offered = [row.offered for row in rows]
        return Trace(
            stalled, inputs, np.array([row.ready for row in rows]), np.array([bits is not None for bits in offered]),
            np.array([bits or 0 for bits in offered], np.uint32), self.taken, self.sums,
        )  # fmt: skip


class _KnownSums(BitSerialModel):
    """The model of channels whose sums were worked out before, all at once."""

    def __init__(self, spec: BitSerial, sums: Iterable[int]) -> None:
        self.left = iter(sums)
        super().__init__(spec)

    def _add(self, item: Slice) -> int:
        return next(self.left) if item.channel_end else 0


def unstalled(spec: BitSerial, parts: Sequence[Channels]) -> Trace:
    """Channels back to back, the sink always ready; before each part its format's special values are written."""
    words = [channels.slices() for channels in parts]
    log = _Log(_KnownSums(spec, np.concatenate([part.golden(spec) for part in parts]).tolist()), np.concatenate(words))
    log.reset()
    start = wanted = 0
    for channels, part in zip(parts, words, strict=True):
        # A slice not yet encoded reads the register file; all of the part before it are taken, so encoded.
        log.program(format_specials(channels.format))
        for number in range(start, start + len(part)):
            while not log.cycle(number, offered=True):
                pass
        start, wanted = start + len(part), wanted + len(channels.act)
    while log.sums < wanted:
        log.cycle(0, offered=False)
    log.cycle(0, offered=False)
    return log.trace(stalled=False)


def stalled(spec: BitSerial, cycles: int, seed: int) -> Trace:
    """Idle sources, back-pressure, clears, resets, new special values, garbage without `valid`, at changing rates."""
    rng = np.random.default_rng([seed, 3])
    words, garbage = restless_slices(max(64, cycles // 2), seed)
    log = _Log(BitSerialModel(spec), np.concatenate([words, garbage]))
    log.reset()
    values = storable_specials()
    log.program([values[at] for at in rng.integers(0, len(values), SPECIALS)])
    windows = zip(_rates(rng, cycles), range(0, cycles, _WINDOW_CYCLES), strict=True)
    following, pending = 0, False
    for (offer_rate, sink_rate, clear_rate, special_rate), start in windows:
        draws = rng.random((min(_WINDOW_CYCLES, cycles - start), 5))
        for offer, sink, clear, reset, write in draws:
            pending = pending or offer < offer_rate
            number = following if pending else int(rng.integers(0, len(log.items)))
            special = None
            if write < special_rate:
                special = _special(rng, values, log.items[number] if pending else None)
            taken = log.cycle(
                number, offered=pending, column_ready=sink < sink_rate, clear=clear < clear_rate, rst=reset < 0.002,
                special=special,
            )  # fmt: skip
            if taken:
                following, pending = (following + 1) % len(words), False
    return log.trace(stalled=True)


def _rates(rng: np.random.Generator, cycles: int) -> Iterator[tuple[float, float, float, float]]:
    """Of each window: shares of cycles with a new offer, a taken sum, a clear, a special value written."""
    for _ in range(0, cycles, _WINDOW_CYCLES):
        yield (
            float(rng.choice([1, 1, 0.9, 0.5, 0.15])), float(rng.choice([1, 1, 0.5, 0.1, 0])),
            float(rng.choice([0, 0, 0, 0.02, 0.1])), float(rng.choice([0, 0.1, 0.5])),
        )  # fmt: skip


def _special(rng: np.random.Generator, values: list[float], offered: Slice | None) -> tuple[int, float]:
    """A register to write and its value: not the one that the slice on offer reads, whose terms take several cycles."""
    index = int(rng.integers(0, SPECIALS))
    if offered is not None and index == offered.selector:
        index = (index + 1) % SPECIALS
    return index, values[int(rng.integers(0, len(values)))]


class Player(TracePlayer):
    """A design with a trace's inputs laid out for it."""

    def __init__(self, design: Compiled, trace: Trace) -> None:
        self.expected = trace
        super().__init__(design, design.input_words(trace.inputs, trace.cycles), trace.stalled)

    def wrong(self, outputs: dict[str, npt.NDArray[Any]], part: slice) -> Wrong:
        want = self.expected
        levels = {
            "slice.ready": ("slice__ready", want.ready[part]),
            "column.valid": ("column__valid", want.valid[part]),
        }
        handshakes = {name: ((outputs[port] != 0) != level, level) for name, (port, level) in levels.items()}
        return Wrong(handshakes, want.valid[part] & (outputs["column__payload"] != want.column[part]))

    def payloads(self, outputs: dict[str, npt.NDArray[Any]], at: int, cycle: int) -> tuple[str, int, int]:
        return "column", int(outputs["column__payload"][at]), int(self.expected.column[cycle])
