"""cocotb testbench of systolic arrays; run with plusargs pe, rows, cols, dataflow, params (a JSON object) and seed.

Three sources (tile, wgt, act) with pluggable pauses, a handshake monitor on each, and a result monitor that
knows, from the beats it saw accepted, in which cycle which bits are due: a result too early, too late, too many or
wrong fails.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from bitwright.arch import pe as specs
from bitwright.arch.pe import PESpec
from bitwright.rtl.bench.array_golden import (
    bits_of,
    expected,
    expected_act_sum,
    random_operands,
    random_passes,
)
from bitwright.rtl.bench.array_stalls import WeightRule
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

Pauses = Callable[[np.random.Generator], Iterator[bool]]


def never(rng: np.random.Generator) -> Iterator[bool]:
    """No pause at all."""
    return itertools.repeat(False)


def often(rng: np.random.Generator) -> Iterator[bool]:
    """A pause in two of three cycles, at random."""
    while True:
        yield bool(rng.random() < 2 / 3)


def bursts(rng: np.random.Generator) -> Iterator[bool]:
    """Busy for a while, then idle for a while."""
    for busy in itertools.cycle((True, False)):
        yield from [not busy] * int(rng.integers(1, 12))


def pack(lanes: Any, bits: int) -> int:
    """Integers, lane 0 in the least significant bits, each modulo 2**bits."""
    return sum((int(lane) & (1 << bits) - 1) << bits * index for index, lane in enumerate(lanes))


@dataclass
class Beat:
    """One beat: port values, how many lanes of an act beat are real, and the results that its acceptance makes due,
    as (cycles later, port values)."""

    payload: dict[str, int]
    lanes: int = 0
    results: list[tuple[int, dict[str, int]]] = field(default_factory=list)


class Source:
    """Offers the beats of one stream and holds each until it is taken; in pauses its payload is garbage."""

    def __init__(
        self, dut: Any, stream: str, beats: list[Beat], pauses: Iterator[bool], rng: np.random.Generator
    ) -> None:
        self.valid, self.ready = getattr(dut, f"{stream}_valid"), getattr(dut, f"{stream}_ready")
        self.dut, self.stream, self.beats, self.pauses, self.rng = dut, stream, beats, pauses, rng
        self.taken: list[int] = []
        self.pending = False
        self.held: dict[str, int] | None = None

    def wants(self) -> bool:
        """Whether the source is free to begin a beat in this cycle; advances the pause generator."""
        paused = next(self.pauses)
        return not self.pending and len(self.taken) < len(self.beats) and not paused

    def drive(self) -> None:
        if self.pending:
            payload = self.beats[len(self.taken)].payload
        else:
            garbage = {name: len(getattr(self.dut, name)) for name in self.beats[0].payload}
            payload = {
                name: int.from_bytes(self.rng.bytes(bits // 8 + 1)) % (1 << bits) for name, bits in garbage.items()
            }
        self.valid.value = int(self.pending)
        for name, value in payload.items():
            getattr(self.dut, name).value = value

    def garbage(self, bits: int) -> int:
        return int.from_bytes(self.rng.bytes(bits // 8 + 1)) % (1 << bits)

    def settle(self, cycle: int) -> Beat | None:
        """Monitor the handshake as the array sees it; returns the beat when it is taken in this cycle."""
        seen = {name: int(getattr(self.dut, name).value) for name in self.beats[0].payload}
        valid, ready = int(self.valid.value), int(self.ready.value)
        if self.held is not None:
            assert valid, f"cycle {cycle}: {self.stream}_valid dropped before it was taken"
            assert seen == self.held, f"cycle {cycle}: {self.stream} payload changed before it was taken"
        self.held = seen if valid and not ready else None
        if not (valid and ready):
            return None
        self.taken.append(cycle)
        self.pending = False
        return self.beats[len(self.taken) - 1]


class Testbench:
    """An array under test. Inputs change on the falling edge; everything is read once the inputs have settled."""

    def __init__(self, dut: Any) -> None:
        options = {name: str(value) for name, value in cocotb.plusargs.items()}
        self.dut = dut
        self.spec: PESpec = specs.get(options["pe"], **json.loads(options.get("params", "{}")))
        self.rows, self.cols, self.dataflow = int(options["rows"]), int(options["cols"]), options["dataflow"]
        self.width = self.cols + self.spec.zero_point_column
        self.rng = np.random.default_rng(int(options.get("seed", 1)))
        self.cycle = 0
        self.due: dict[int, dict[str, int]] = {}  # cycle -> result ports
        self.passing: dict[int, dict[str, int]] = {}  # cycle -> cells and the activation each must see

    async def start(self) -> None:
        """Start the clock and reset."""
        for name in ("tile", "wgt", "act"):
            getattr(self.dut, f"{name}_valid").value = 0
        self.dut.rst.value = 1
        Clock(self.dut.clk, 10, unit="ns").start()
        await FallingEdge(self.dut.clk)
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0

    async def reset(self, sources: list[Source]) -> None:
        """One reset cycle while the sources go on offering; what is in flight is lost."""
        self.dut.rst.value = 1
        for source in sources:
            source.drive()
        await FallingEdge(self.dut.clk)
        self.cycle += 1
        self.dut.rst.value = 0
        self.due.clear()
        self.passing.clear()
        for source in sources:
            source.valid.value = 0

    async def idle(self, cycles: int) -> None:
        """Cycles in which nothing is offered; results that are due must come, others must not."""
        for _ in range(cycles):
            await ReadOnly()
            self.check_results()
            await FallingEdge(self.dut.clk)
            self.cycle += 1

    def check_results(self) -> None:
        due = self.due.pop(self.cycle, None)
        valid = int(self.dut.psum_valid.value)
        assert valid == (due is not None), f"cycle {self.cycle}: psum_valid = {valid}, next due {sorted(self.due)[:3]}"
        assert valid or not int(self.dut.psum_last.value), f"cycle {self.cycle}: psum_last without psum_valid"
        for name, want in (due or {}).items():
            got = int(getattr(self.dut, name).value)
            assert got == want, f"cycle {self.cycle}: {name} = {got:#x}: must be {want:#x}"

    def check_lanes(self, taken: Beat | None) -> None:
        """Exactly the real lanes of an accepted act beat enter the grid as valid; a lane without an operand is 0.

        Seen at the act inputs of each row's first and last cell, when the diagonal gets there. Lane 0 of a cycle
        without a beat carries anything.
        """
        valid = [int(getattr(self.dut, f"act_valid_r{row}").value) for row in range(self.rows)]
        want = [int(taken is not None and row < taken.lanes) for row in range(self.rows)]
        assert valid == want, f"cycle {self.cycle}: act lanes valid = {valid}: must be {want}"
        bits = self.spec.act.bits
        for row in range(self.rows) if taken else range(1, self.rows):
            lane = taken.payload["act_data"] >> bits * row & (1 << bits) - 1 if taken and want[row] else 0
            for col in {0, self.width - 1}:
                self.passing.setdefault(self.cycle + row + col, {})[f"pe_r{row}_c{col}"] = lane
        for cell, lane in self.passing.pop(self.cycle, {}).items():
            got = int(getattr(self.dut, cell).act.value)
            assert got == lane, f"cycle {self.cycle}: {cell}.act = {got:#x}: must be {lane:#x}"

    def program(self, passes: list[tuple[int, int]], pauses: tuple[Pauses, ...]) -> list[Source]:
        """The tile, wgt and act sources of a program of random operands. Sets the mode pin."""
        spec, mode = self.spec, {}
        if spec.wgt.kind == "code":
            mode = {"wgt_unsigned": bool(self.rng.integers(2))}
            self.dut.wgt_unsigned.value = int(mode["wgt_unsigned"])
        beats: tuple[list[Beat], list[Beat], list[Beat]] = ([], [], [])
        for m, k in passes:
            wgt, act = random_operands(spec, self.rng, m, k, self.cols)
            results = self.results(wgt, act, mode)
            beats[0].append(Beat({"tile_m": m, "tile_k": k}))
            wgt, act = (codes.view(np.uint16) if codes.dtype == np.float16 else codes for codes in (wgt, act))
            beats[1].extend(Beat({"wgt_data": pack(row, spec.wgt.bits)}) for row in wgt)
            vectors = act if self.dataflow == "ws" else act.T
            padded = [[*vector, *[-1] * (self.rows - len(vector))] for vector in vectors]
            taken = [Beat({"act_data": pack(lanes, spec.act.bits)}, vectors.shape[1]) for lanes in padded]
            if self.dataflow == "ws":
                for beat, result in zip(taken, results, strict=True):
                    beat.results = [(self.rows + self.width - 1, result)]
            else:
                taken[-1].results = [(m + self.width - 1 + row, result) for row, result in enumerate(results)]
            beats[2].extend(taken)
        return [
            Source(self.dut, name, offered, pause(self.rng), self.rng)
            for name, offered, pause in zip(("tile", "wgt", "act"), beats, pauses, strict=True)
        ]

    def results(self, wgt: Any, act: Any, mode: dict[str, bool]) -> list[dict[str, int]]:
        """The values of the result ports for each vector of one tile."""
        values = bits_of(expected(self.spec, wgt, act, **mode))
        ports = [{"psum_data": pack(row, self.spec.psum.bits), "psum_last": 0} for row in values]
        ports[-1]["psum_last"] = 1
        if self.spec.zero_point_column:
            for port, total in zip(ports, expected_act_sum(self.spec, act, **mode), strict=True):
                port["act_sum"] = pack([total], self.spec.psum.bits)
        return ports

    async def run(
        self,
        passes: list[tuple[int, int]],
        sources: list[Source],
        cycles: int | None = None,
        promise_chance: float = 0.5,
    ) -> None:
        """Feed the sources until all is taken and delivered, or for `cycles`; `promise_chance` as of `WeightRule`."""
        rule = WeightRule(passes, self.rng, promise_chance) if self.dataflow == "ws" else None
        tile, wgt, act = sources
        end = self.cycle + (cycles or 200 + 40 * sum(m + k + 2 * self.rows for m, k in passes))
        while self.cycle < end and (self.due or any(len(s.taken) < len(s.beats) for s in sources)):
            if act.wants():
                act.pending = rule is None or rule.may_offer_act(len(act.taken), len(wgt.taken))
            if wgt.wants() or (rule is not None and len(wgt.taken) < rule.owed):
                wgt.pending = True
            tile.pending |= tile.wants()
            for source in sources:
                source.drive()
            await ReadOnly()
            beats = [source.settle(self.cycle) for source in sources]
            self.check_lanes(beats[2])
            for delay, result in beats[2].results if beats[2] else ():
                assert self.cycle + delay not in self.due, "two results are due in one cycle"
                self.due[self.cycle + delay] = result
            self.check_results()
            await FallingEdge(self.dut.clk)
            self.cycle += 1
        for source in sources:
            source.valid.value = int(source.pending)
        assert cycles or not self.due, f"cycle {self.cycle}: the program has not finished"


@cocotb.test()
async def tiles_back_to_back_leave_no_bubble(dut: Any) -> None:
    """Streams that never pause: every first beat is taken in the cycle that the recurrences give."""
    bench = Testbench(dut)
    await bench.start()
    for _ in range(4):
        passes = random_passes(bench.rng, bench.rows, bench.dataflow, 12)
        sources = bench.program(passes, (never, never, never))
        begin = bench.cycle
        await bench.run(passes, sources, promise_chance=1.0)
        _, wgt, act = sources
        load, stream, end = begin, begin + 1, begin - 1
        wgt_beat = act_beat = 0
        drained = begin
        for m, k in passes:
            if bench.dataflow == "ws":
                stream = max(load + 1, stream)
                assert (wgt.taken[wgt_beat], act.taken[act_beat]) == (load, stream), f"{passes} {wgt_beat} {act_beat}"
                load, stream, act_beat = max(load + k, stream), stream + m, act_beat + m
            else:
                start = max(end + 1, drained - k + 1)
                assert wgt.taken[wgt_beat] == act.taken[act_beat] == start, f"{passes} {act_beat}"
                end, act_beat = start + k - 1, act_beat + k
                drained = end + 2 * m - 1
            wgt_beat += k


@cocotb.test()
async def every_cross_of_pauses(dut: Any) -> None:
    """Each stream without pauses, with random ones and in bursts, in all 27 combinations."""
    bench = Testbench(dut)
    await bench.start()
    for pauses in itertools.product((never, often, bursts), repeat=3):
        passes = random_passes(bench.rng, bench.rows, bench.dataflow, 6)
        await bench.run(passes, bench.program(passes, pauses))


@cocotb.test()
async def reset_in_mid_tile(dut: Any) -> None:
    """Reset anywhere in a program: nothing of it comes out, and the next program is right, at once or later."""
    bench = Testbench(dut)
    await bench.start()
    for trial in range(25):
        passes = random_passes(bench.rng, bench.rows, bench.dataflow, 5)
        pauses = (never, never, never) if trial % 2 else (often, never, bursts)
        sources = bench.program(passes, pauses)
        await bench.run(passes, sources, cycles=1 + int(bench.rng.integers(0, 6 * bench.rows)))
        await bench.reset(sources)
        if trial % 3 == 0:
            await bench.idle(4 * bench.rows + bench.width)
        passes = random_passes(bench.rng, bench.rows, bench.dataflow, 3)
        await bench.run(passes, bench.program(passes, (never, often, never)))
