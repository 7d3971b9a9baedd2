# amaranth: UnusedElaboratable=no
# (a tile may be made only to ask for its name or ports)
"""The tile of asynchronous columns: PEs that skip zero digits, each column at its own pace within a step."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from bitwright.arch.array_timing import BroadcastShape
from bitwright.arch.pe import Evidence
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.rtl.array.broadcast import BroadcastTile, Step
from bitwright.rtl.array.skew import delay_control


class AsynchronousTile(BroadcastTile):
    """rows x cols places of opt3, or cols columns of opt4c: tiles as of `BroadcastTile`, cycles by their digits.

    A step's beats bring L = `arch.pe.asynchronous.ELEMENTS` elements and hold still until it is accepted: they are the
    buffer of activations. Each column takes its elements one after the other, when its PEs are ready for the next, and
    then waits for the others; elements beyond k are not taken.

    Parameters
        spec : Opt3 or Opt4c     As `arch.pe.broadcast.tile_spec` makes it: adders inside; of opt4c rows of the tile and
            an encoder in each column.
        rows, cols : int, 1..256; rows of opt4c 1..32
    Members      those of BroadcastTile.
    Rules        as of BroadcastTile, but a step takes as many cycles as its slowest column.
    Timing       c(j): of step j the most, over the columns, of the total over its elements of max(1, nonzero digits);
                 S: the first step on offer, E: the last one accepted. S[t+1] >= E[t] + 1;
                 E[t] >= S[t] + (total of c(j)) - 1, E[t+1] >= E[t] + m[t]; vector i comes out in E + latency + 1 + i.
                 All equalities when no stream stalls. A last step whose columns are done waits for the drain registers.
    Arithmetic   the PE's; bit-exact.
    Reset        as of BroadcastTile.
    Model        arch.pe.asynchronous: sums, code_cycles; cycles: arch.array_timing.
    Source       OPT3 and OPT4C (HPCA 2025, arXiv 2503.06342): columns apart; ours: where they meet, see
                 arch.pe.asynchronous; a register a sum in which a fast column's sum waits for the slowest.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every result of 1,722 tiles equals the integer product and, without stalls, every accept and result cycle "
            "columns stepped one by one; every weight, both PEs, both encodings",
            13_625,
            "tests/rtl/array/test_asynchronous.py",
        ),
    )

    def shape(self, mode: int) -> BroadcastShape:
        lanes = self.family.lanes
        return BroadcastShape(self.rows, lanes, lanes, self.family.latency_cycles)

    def _begins(self, m: Module, last: Value, wait: Value) -> Value:
        """Any step begins at once."""
        return Const(1, 1)

    def _sums(
        self, m: Module, step: Step, acts: list[list[Value]], wgts: list[list[Value]]
    ) -> tuple[Value, list[Value]]:
        """The columns: when the last of them has its sums, and of each row its sums."""
        done: list[Value] = []
        columns: list[list[Value]] = []
        for col in range(self.cols):
            finished, sums = self._column(m, step, acts, wgts[col], col)
            done.append(finished)
            columns.append(sums)
        m.d.comb += step.ready.eq(Cat(done).all() & ~(step.last & step.wait.any()))
        taken = delay_control(m, "ended", step.accept & step.last, self.family.latency_cycles)
        return taken, [Cat(columns[col][row] for col in range(self.cols)) for row in range(self.rows)]

    def _column(
        self, m: Module, step: Step, acts: list[list[Value]], wgts: list[Value], col: int
    ) -> tuple[Value, list[Value]]:
        """Whether the column is done with the step, in this cycle or before; its sums, from the one on offer on."""
        lanes = self.family.lanes
        element = Signal(range(lanes), name=f"element_{col}")
        waits, ready, final, finished, valid = (
            Signal(name=f"{what}_{col}") for what in ("waits", "ready", "final", "finished", "sum_valid")
        )
        m.d.comb += [
            final.eq((element == lanes - 1) | (element + 1 == step.rest)),
            finished.eq(waits | (ready & final)),
        ]
        with m.If(step.accept):
            m.d.sync += [element.eq(0), waits.eq(0)]
        with m.Elif(step.offered & ~waits & ready):
            m.d.sync += [waits.eq(final), element.eq(Mux(final, element, element + 1))]
        places = [acts] if isinstance(self.spec, Opt4c) else [[row] for row in acts]
        payload = Signal(self.rows * self.family.psum_bits, name=f"sums_{col}")
        bits = len(payload) // len(places)
        for index, place in enumerate(places):
            # All places of a column do the same in every cycle: the first one speaks for them.
            said = [ready, valid]
            if index:
                said = [Signal(name=f"{what}_{col}_{index}") for what in ("ready", "sum_valid")]
            operands = [Array(row)[element] for row in place]
            m.submodules[f"pe_{col}_{index}"] = Instance(
                self.spec.module_stem,
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                i_step__valid=step.offered & ~waits,
                i_step__payload=Cat(*operands, Array(wgts)[element], step.first & ~element.any(), step.last & final),
                i_sum__ready=Const(1, 1),
                o_step__ready=said[0],
                o_sum__valid=said[1],
                o_sum__payload=payload[index * bits : (index + 1) * bits],
            )
        held = Signal(len(payload), name=f"held_{col}", reset_less=True)
        shown = Signal(len(payload), name=f"shown_{col}")
        with m.If(valid):
            m.d.sync += held.eq(payload)
        m.d.comb += shown.eq(Mux(valid, payload, held))
        return finished, [shown.word_select(row, self.family.psum_bits) for row in range(self.rows)]
