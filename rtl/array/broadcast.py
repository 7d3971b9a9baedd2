# amaranth: UnusedElaboratable=no
# (a tile may be made only to ask for its name or ports)
"""The broadcast tile: PEs that share a step's activations along rows and its weights along columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from amaranth.back import verilog as backend
from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for
from bitwright.arch.array_timing import BroadcastShape
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import Evidence, PESpec, StreamSpec, broadcast
from bitwright.rtl.array.sequencer import TILE_BITS
from bitwright.rtl.array.skew import delay_data
from bitwright.rtl.array.systolic import MAX_SIDE
from bitwright.rtl.pe import streaming

Place = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Step:
    """A step of the tile.

    Members
        offered : its operands are there, and it may go on in this cycle
        accept : it does, for the last time: its beats are taken
        first, last : the first and the last one of a tile
        rest : elements of the tile from this step on
        ready : Signal for the places to drive: this cycle is the step's last
        wait : cycles from this one on in which no tile may end
    """

    offered: Value
    accept: Value
    first: Value
    last: Value
    rest: Value
    ready: Signal
    wait: Value


class BroadcastTile(wiring.Component):
    """rows x cols places that sum rows of activations by columns of weights, tile after tile, without a bubble.

    A tile command is m <= rows tokens by k elements of the reduction: ceil(k / L) pairs of beats of L = lanes elements
    (`arch.pe.broadcast`), activations X[0..m-1, e..e+L-1] and weights W[e..e+L-1, 0..cols-1]. It gives the m vectors
    X @ W, row 0 first. The places take a step all at once; when a tile's sums are on offer they move to drain
    registers, from which they leave row by row beside the next tile's steps.

    Parameters
        spec : PESpec            PE of a place, or of the whole tile (lut: its m and n are rows and cols).
        rows, cols : int, 1..256
    Members (A, W, P: bits of an activation, of a weight element's widest code, and of psum; lowest bits first)
        tile_valid, tile_ready, tile_m, tile_k : In, Out, In(16), In(16)   One command a tile: 1 <= m <= rows, 1 <= k.
            Accepted with the tile's last beats.
        `wide` or `top_plane` : In   The mode of the tile's weight format, part of the command; not of a PE of one mode.
        wgt_valid, wgt_ready, wgt_data : In, Out, In(lanes * cols * W)   Element after element, of each cols codes.
        act_valid, act_ready, act_data : In, Out, In(lanes * rows * A)   Element after element, of each rows values.
        psum_valid, psum_data, psum_last : Out, Out(cols * P), Out   Results; no back-pressure. `psum_last` marks the
            last vector of a tile.
        act_sum : Out(P)         Only of a PE that has it: the sum of this vector's activations.
    Rules        valid holds, and data and command stay, until ready; any stall is legal. A step takes mode + 1 cycles
                 and its beats are accepted in the last of them.
    Idle lanes   elements of the last beats beyond k, and rows >= m, enter the PEs as code 0, whatever the data carries.
    Timing       n = ceil(k / lanes) steps of c = mode + 1 cycles; S: the first step on offer, E: the last one accepted.
                 S[t+1] >= E[t] + 1;  E[t] >= S[t] + n c - 1,  E[t+1] >= E[t] + m[t]: only the last step waits for the
                 drain registers; vector i comes out in E + latency + 1 + i. All equalities when no stream stalls.
    Arithmetic   the PE's; bit-exact. outlier-victim's flag `overflow` is not brought out.
    Reset        synchronous; everything in flight is lost, a beat in the reset cycle too; data registers keep
                 their values, which no output reports as valid.
    Model        arch.pe: spec.sums; arch.pe.broadcast: sums; cycles: arch.array_timing.
    Source       lut: LUT Tensor Core's M x N x K tile (ISCA 2025, section 4). outlier-victim: OliVe's dot-product units
                 share operands along rows and columns as tensor cores do; drain registers and sequencer are ours.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every result and every accept and result cycle of 1,968 tiles equals the golden and the recurrences, with "
            "and without stalls, two families, modes changing from tile to tile",
            15_707,
            "tests/rtl/array/test_broadcast.py",
        ),
    )

    def __init__(self, spec: PESpec, rows: int, cols: int) -> None:
        for what, value in (("rows", rows), ("cols", cols)):
            if not 1 <= value <= MAX_SIDE:
                raise ConfigError(f"array.{what} = {value}: must be in 1..{MAX_SIDE}")
        self.spec, self.rows, self.cols = spec, rows, cols
        self.family = broadcast.family(spec)
        if self.family.whole and (spec.params["m"], spec.params["n"]) != (rows, cols):
            raise ConfigError(
                f"{spec.name} m, n = {spec.params['m']}, {spec.params['n']}: must be the tile's {rows}, {cols}"
            )
        super().__init__(self._ports())

    def _ports(self) -> dict[str, Any]:
        lanes, mode = self.family.lanes, self.family.mode_field
        ports: dict[str, Any] = {
            "tile_valid": In(1),
            "tile_ready": Out(1),
            "tile_m": In(TILE_BITS),
            "tile_k": In(TILE_BITS),
            "wgt_valid": In(1),
            "wgt_ready": Out(1),
            "wgt_data": In(lanes * self.cols * self.family.code_bits),
            "act_valid": In(1),
            "act_ready": Out(1),
            "act_data": In(lanes * self.rows * self.spec.act.bits),
            "psum_valid": Out(1),
            "psum_data": Out(self.cols * self.family.psum_bits),
            "psum_last": Out(1),
        }
        if mode is not None:
            ports[mode.name] = In(mode.bits)
        if self.family.has_act_sum:
            ports["act_sum"] = Out(self.family.psum_bits)
        return ports

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `outlier_victim_l2_int4_s0_tile_8x8`."""
        return f"{self.spec.module_stem}_tile_{self.rows}x{self.cols}"

    def shape(self, mode: int) -> BroadcastShape:
        """The timing of tiles of one mode."""
        return BroadcastShape(self.rows, self.family.lanes, mode + 1, self.family.latency_cycles)

    def places_verilog(self) -> str:
        """Verilog of the modules that the tile instantiates."""
        assert isinstance(self.spec, StreamSpec), "other tiles have places of their own"
        return streaming.verilog(self.spec)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = self._sequence(m)
        acts, wgts = self._operands(m, step.rest)
        taken, rows = self._sums(m, step, acts, wgts)
        tokens = delay_data(m, "tile_m", self.tile_m[: bits_for(self.rows)], self.family.latency_cycles)
        self._drain(m, taken, tokens, rows)
        return m

    def _sequence(self, m: Module) -> Step:
        """Takes commands and beats; the places drive the step's `ready`."""
        lanes, apart = self.family.lanes, self.family.sum_cycles
        element, rest = Signal(TILE_BITS), Signal(TILE_BITS)
        wait = Signal(bits_for(max(self.rows, apart)))
        ready, go, accept = Signal(name="places_ready"), Signal(), Signal()
        first, last = Signal(), Signal()
        both = self.wgt_valid & self.act_valid
        m.d.comb += [
            rest.eq(self.tile_k - element),
            first.eq(~element.any()),
            last.eq(rest <= lanes),
            go.eq(self.tile_valid & self._begins(m, last, wait)),
            self.act_ready.eq(go & self.wgt_valid & ready),
            self.wgt_ready.eq(go & self.act_valid & ready),
            accept.eq(go & both & ready),
            self.tile_ready.eq(accept & last),
        ]
        with m.If(accept):
            m.d.sync += element.eq(Mux(last, 0, element + lanes))
        # E[t] + max(m[t], b) less this cycle: a step on offer now is accepted c - 1 cycles later.
        with m.If(accept & last):
            m.d.sync += wait.eq((self.tile_m if apart == 1 else Mux(self.tile_m > apart, self.tile_m, apart)) - 1)
        with m.Elif(wait.any()):
            m.d.sync += wait.eq(wait - 1)
        return Step(go & both, accept, first, last, rest, ready, wait)

    def _begins(self, m: Module, last: Value, wait: Value) -> Value:
        """Whether a step may be on offer: the last one when it ends no earlier than the drain registers are free."""
        return ~last | (wait <= self._last_cycle(m))

    def _last_cycle(self, m: Module) -> Value:
        """Cycles of a step, less 1."""
        return self._mode

    @property
    def _mode(self) -> Value:
        return Const(0, 1) if self.family.mode_field is None else getattr(self, self.family.mode_field.name)

    def _sums(
        self, m: Module, step: Step, acts: list[list[Value]], wgts: list[list[Value]]
    ) -> tuple[Value, list[Value]]:
        """The places: when their sums are on offer, and of each row its sums."""
        assert isinstance(self.spec, StreamSpec), "other tiles have places of their own"
        lanes, sums = self.family.lanes, []
        taken = Signal(name="sums_valid")
        for index, (rows, cols) in enumerate(self._places()):
            operands = [acts[row][lane] for row in rows for lane in range(lanes)]
            operands += [wgts[col][lane] for col in cols for lane in range(lanes)]
            operands += [] if self.family.mode_field is None else [self._mode]
            payload = Signal(sum(field.bits * field.lanes for field in self.spec.sum_fields), name=f"sum_{index}")
            # All places do the same in every cycle: the first one speaks for them.
            said = [Signal(name=f"{what}_{index}") for what in ("ready", "sum_valid")] if index else [step.ready, taken]
            m.submodules[f"pe_{index}"] = Instance(
                self.spec.module_stem,
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                i_step__valid=step.offered,
                i_step__payload=Cat(*operands, step.first, step.last),
                i_sum__ready=Const(1, 1),
                o_step__ready=said[0],
                o_sum__valid=said[1],
                o_sum__payload=payload,
            )
            sums.append(payload)
        return taken, self._rows_of(sums)

    def _places(self) -> Iterator[Place]:
        """The PEs: rows and columns of each."""
        if self.family.whole:
            yield range(self.rows), range(self.cols)
            return
        for row in range(self.rows):
            for col in range(self.cols):
                yield (row,), (col,)

    def _operands(self, m: Module, rest: Value) -> tuple[list[list[Value]], list[list[Value]]]:
        """Activations [row][lane] and weights [column][lane], 0 where the tile has none."""
        lanes, act_bits, wgt_bits = self.family.lanes, self.spec.act.bits, self.family.code_bits
        here: list[Value] = [Const(1, 1)]
        for lane in range(1, lanes):
            signal = Signal(name=f"lane_here_{lane}")
            m.d.comb += signal.eq(rest > lane)
            here.append(signal)

        def masked(name: str, data: Value, width: int, bits: int, wanted: Iterable[Value]) -> list[list[Value]]:
            found: list[list[Value]] = []
            for place, keep in enumerate(wanted):
                found.append([])
                for lane in range(lanes):
                    value = Signal(bits, name=f"{name}_{place}_{lane}")
                    m.d.comb += value.eq(Mux(keep & here[lane], data.word_select(lane * width + place, bits), 0))
                    found[-1].append(value)
            return found

        rows = [self.tile_m > row if row else Const(1, 1) for row in range(self.rows)]
        acts = masked("act", self.act_data, self.rows, act_bits, rows)
        return acts, masked("wgt", self.wgt_data, self.cols, wgt_bits, [Const(1, 1)] * self.cols)

    def _rows_of(self, sums: list[Value]) -> list[Value]:
        """Of each row its sums, column 0 lowest, and above them the sum of activations where there is one."""
        bits, rows, cols = self.family.psum_bits, self.rows, self.cols
        if not self.family.whole:
            return [Cat(*(sums[row * cols + col][:bits] for col in range(cols))) for row in range(rows)]
        (payload,) = sums
        found: list[Value] = []
        for row in range(rows):
            own = payload[row * cols * bits : (row + 1) * cols * bits]
            found.append(Cat(own, payload[(rows * cols + row) * bits :][:bits]) if self.family.has_act_sum else own)
        return found

    def _drain(self, m: Module, taken: Value, tokens: Value, rows: list[Value]) -> None:
        """Rows of sums into the drain registers when they are on offer, then upwards and out, a row a cycle."""
        left = Signal(len(tokens), name="rows_left")
        registers = [Signal(len(row), name=f"drain_{index}", reset_less=True) for index, row in enumerate(rows)]
        with m.If(taken):
            m.d.sync += [left.eq(tokens), *(register.eq(row) for register, row in zip(registers, rows, strict=True))]
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
            m.d.sync += [upper.eq(lower) for upper, lower in pairwise(registers)]
        width = self.cols * self.family.psum_bits
        m.d.comb += [
            self.psum_valid.eq(left.any()),
            self.psum_last.eq(left == 1),
            self.psum_data.eq(registers[0][:width]),
        ]
        if self.family.has_act_sum:
            m.d.comb += self.act_sum.eq(registers[0][width:])


def tile_verilog(tile: BroadcastTile) -> str:
    """Verilog of `tile`: its own module first, then its places', each once; the same text in every run."""
    top: str = backend.convert(tile, name=tile.module_name, emit_src=False)
    modules = re.findall(r"^module (\S+?)\(", top, flags=re.MULTILINE)
    assert modules == [tile.module_name], f"expected the one module {tile.module_name}, got {modules}"
    return top + "\n" + tile.places_verilog()
