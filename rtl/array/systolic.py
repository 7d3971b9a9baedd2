# amaranth: UnusedElaboratable=no
# (a cell is made here for its port list; the grid instantiates its Verilog module by name)
"""The systolic array: a grid of one PE module, its skew and deskew registers, and a tile sequencer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch import pe as specs
from bitwright.arch.array_timing import ONE_ROW, WeightLoad
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import Evidence, PESpec
from bitwright.rtl import pe as cells
from bitwright.rtl.array.sequencer import TILE_BITS, output_stationary, weight_stationary
from bitwright.rtl.array.skew import control_line, delay_control, delay_data
from bitwright.rtl.pe.cells import OutputStationaryCell, SingleWeightCell, WeightStationaryCell

MAX_SIDE = 256
"""Most rows or columns: a larger grid is no longer sensible as one flat module."""


class SystolicArray(wiring.Component):
    """rows x cols PEs that multiply streamed activations with weights, tile after tile, without a bubble.

    Weight stationary ("ws"): a tile is k <= rows weight rows (beat i holds W[i, 0..cols-1]) and m activation vectors
    (beat j, lane r holds X[j, r]); it gives m vectors X[j, :k] @ W. The next tile's weights load into shadow
    registers while this one streams; without double buffering, behind its last vector.
    Output stationary ("os"): a tile is k pairs of beats, activations X[0..m-1, e] (lane r holds row r) and weights
    W[e, 0..cols-1]; it gives the m <= rows vectors X @ W, row 0 first.

    Parameters
        pe : str | PESpec        Which PE, by name (with `params`, its fields) or as a spec.
        rows, cols : int, 1..256 Cells that multiply; a PE with `zero_point_column` gets one more physical column, of
                                 constant weight 1, whose result is the sum of the activations.
        dataflow : "ws" | "os"
        load : WeightLoad        ws: a beat of weights has `load.rows` rows, row i in the lanes i * cols ..; row r of a
                                 tile waits r - r // load.rows cycles in registers, so that it gets to its cells in the
                                 cycle in which it would if a row came a cycle: each column has
                                 (rows - w)(w - 1) + w(w - 1)/2 weights' registers for that, w = load.rows.
    Members (A, W, P: bits of the PE's operands and psum; lane 0 in the least significant bits)
        tile_valid, tile_ready, tile_m, tile_k : In, Out, In(16), In(16)   One command a tile. ws: 1 <= k <= rows and
            1 <= m; os: 1 <= m <= rows and 1 <= k. Accepted with the tile's last weight row (ws) or element (os).
        wgt_valid, wgt_ready, wgt_data : In, Out, In(w * cols * W)   ceil(k / w) beats a tile.
        act_valid, act_ready, act_data : In, Out, In(rows * A)   ws: m beats a tile; os: k beats a tile.
        psum_valid, psum_data, psum_last : Out, Out(cols * P), Out   Results; no back-pressure. `psum_last` marks the
            last vector of a tile.
        act_sum : Out(P)         Only with a zero-point column: the sum of this vector's activations.
        wgt_unsigned : In        Only for PEs with that mode: weights are unsigned codes. Constant while busy.
    Rules        valid holds, and data and command stay, until ready. ws, the weight rule: beat i of a tile is accepted
                 no later than i - 1 cycles after the tile's first activation (cells cannot wait). A source keeps
                 it by offering that activation only when the last beat was accepted in an earlier cycle, or when
                 `wgt_valid` stays high from now until the last beat (as `wgt_ready` then does). os: any stall is legal.
    Idle lanes   a lane without an operand (ws: lane >= k; os: lane >= m; any lane but 0 in a cycle in which no beat is
                 accepted) enters the grid as 0, whatever `act_data` carries. Lane 0 of an accepted beat always has an
                 operand, so it is not masked: its cell multiplies in the cycle of acceptance, and accepting stays off
                 that path.
    Timing       C' = physical columns; a cycle number is the cycle in which a beat is accepted.
                 ws: first weights at L, first activation at T;  L[t+1] >= max(L[t] + ceil(k[t] / w), F[t]),
                 F[t] = T[t], without double buffering T[t] + m[t] - 1;
                 T[t] >= max(L[t] + 1, T[t-1] + m[t-1]); the vector accepted in cycle x comes out in x + rows + C' - 1.
                 os: first element at S, last at E;  S[t+1] >= max(E[t] + 1, E[t] + 2 m[t] - k[t+1]);
                 result row i comes out in E + m + C' - 1 + i. All equalities when the streams never stall.
    Arithmetic   the PE's `accumulate`, from its zero, in the order k = 0, 1, ...; bit-exact.
    Reset        synchronous; everything in flight is lost, a beat in the reset cycle too; data registers keep
                 their values, which no output reports as valid.
    Model        arch.pe: spec.accumulate; cycles: the recurrences above.
    Source       weight- and output-stationary systolic arrays are common practice; deviation: none known.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every result and every accept and result cycle of 7,770 tiles equals the golden and the recurrences, with "
            "and without stalls, three PEs, both dataflows",
            116_694,
            "tests/rtl/array/test_systolic.py",
        ),
        Evidence(
            "27 combinations of pauses, 25 resets in mid tile; lanes without an operand are 0 in every cycle",
            52,
            "tests/rtl/array/test_array_protocol.py",
        ),
    )

    def __init__(
        self, pe: str | PESpec, rows: int, cols: int, dataflow: str, *, load: WeightLoad = ONE_ROW, **params: Any
    ) -> None:
        self.spec = pe if isinstance(pe, PESpec) else specs.get(pe, **params)
        if isinstance(pe, PESpec) and params:
            raise ConfigError(f"array parameters = {sorted(params)}: a PE spec has its own; give a PE name with them")
        for what, value in (("rows", rows), ("cols", cols)):
            if not 1 <= value <= MAX_SIDE:
                raise ConfigError(f"array.{what} = {value}: must be in 1..{MAX_SIDE}")
        cells.module_name(self.spec.name, dataflow, **self.spec.params)  # refuses a dataflow that the PE has not
        if dataflow != "ws" and load != ONE_ROW:
            raise ConfigError(f"array.load = {load}: only a weight-stationary array loads weights")
        if rows % load.rows:
            raise ConfigError(f"array.load.rows = {load.rows}: must divide rows = {rows}")
        self.load = load
        kind = WeightStationaryCell if load.double_buffered else SingleWeightCell
        self.cell = (OutputStationaryCell if dataflow == "os" else kind)(self.spec)
        self.cell_name = self.cell.module_name
        self.cell_ports = self.cell.signature.members
        self.rows = rows
        self.cols = cols
        self.dataflow = dataflow
        self.physical_cols = cols + self.spec.zero_point_column
        super().__init__(self._ports())

    def _ports(self) -> dict[str, Any]:
        act_bits, wgt_bits, psum_bits = self.spec.act.bits, self.spec.wgt.bits, self.spec.psum.bits
        ports = {
            "tile_valid": In(1),
            "tile_ready": Out(1),
            "tile_m": In(TILE_BITS),
            "tile_k": In(TILE_BITS),
            "wgt_valid": In(1),
            "wgt_ready": Out(1),
            "wgt_data": In(self.load.rows * self.cols * wgt_bits),
            "act_valid": In(1),
            "act_ready": Out(1),
            "act_data": In(self.rows * act_bits),
            "psum_valid": Out(1),
            "psum_data": Out(self.cols * psum_bits),
            "psum_last": Out(1),
        }
        if self.spec.zero_point_column:
            ports["act_sum"] = Out(psum_bits)
        if self.has_unsigned_mode:
            ports["wgt_unsigned"] = In(1)
        return ports

    @property
    def has_unsigned_mode(self) -> bool:
        """Whether the cell, and so the array, has the input `wgt_unsigned`."""
        return "wgt_unsigned" in self.cell_ports

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `int8_mac_ws_16x16`."""
        wide = f"_w{self.load.rows}" if self.load.rows > 1 else ""
        return f"{self.cell_name}_{self.rows}x{self.cols}{wide}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.dataflow == "ws":
            self._weight_stationary(m)
        else:
            self._output_stationary(m)
        return m

    def _weight_stationary(self, m: Module) -> None:
        marks = weight_stationary(m, self, self.rows, self.load)
        acts, weights, outputs = self._act_lanes(m, marks.row_valid), self._held_weights(m), self._cell_outputs()
        swaps = control_line(m, "act_swap_line", marks.first, self.rows - 1)
        valids = [delay_control(m, f"act_valid_r{row}_skew", valid, row) for row, valid in enumerate(marks.row_valid)]
        held = [row - row // self.load.rows for row in range(self.rows)]
        loads = [delay_control(m, f"wgt_load_r{row}_held", marks.row_load[row], held[row]) for row in range(self.rows)]
        for row, col in self._positions():
            left = outputs[row][col - 1] if col else None
            swap = {"act_swap": left["act_swap_out"] if left else swaps[row]} if self.load.double_buffered else {}
            self._place(
                m,
                row,
                col,
                outputs,
                act_valid=left["act_valid_out"] if left else valids[row],
                act=left["act_out"] if left else acts[row],
                wgt_load=left["wgt_load_out"] if left else loads[row],
                wgt=weights[row][col],
                **swap,
                psum_in=outputs[row - 1][col]["psum_out"] if row else Const(0, self.spec.psum.bits),
            )
        latency = self.rows + self.physical_cols - 1
        self._results(
            m,
            columns=[outputs[-1][col]["psum_out"] for col in range(self.physical_cols)],
            valid=delay_control(m, "psum_valid_line", marks.accept, latency),
            last=delay_control(m, "psum_last_line", marks.last, latency),
        )

    def _output_stationary(self, m: Module) -> None:
        marks = output_stationary(m, self, self.rows)
        acts, weights, outputs = self._act_lanes(m, marks.row_valid), self._wgt_lanes(m), self._cell_outputs()
        firsts = control_line(m, "act_first_line", marks.first, self.rows - 1)
        lasts = control_line(m, "act_last_line", marks.last, self.rows - 1)
        valids = [delay_control(m, f"act_valid_r{row}_skew", valid, row) for row, valid in enumerate(marks.row_valid)]
        for row, col in self._positions():
            left = outputs[row][col - 1] if col else None
            below = outputs[row + 1][col] if row + 1 < self.rows else None
            self._place(
                m,
                row,
                col,
                outputs,
                act_valid=left["act_valid_out"] if left else valids[row],
                act_first=left["act_first_out"] if left else firsts[row],
                act_last=left["act_last_out"] if left else lasts[row],
                act=left["act_out"] if left else acts[row],
                wgt=outputs[row - 1][col]["wgt_out"] if row else weights[col],
                drain_shift=left["drain_shift_out"] if left else marks.drain,
                drain_in=below["drain_out"] if below else Const(0, self.spec.psum.bits),
            )
        latency = self.physical_cols - 1
        self._results(
            m,
            columns=[outputs[0][col]["drain_out"] for col in range(self.physical_cols)],
            valid=delay_control(m, "psum_valid_line", marks.drain, latency),
            last=delay_control(m, "psum_last_line", marks.drain_last, latency),
        )

    def _positions(self) -> Iterator[tuple[int, int]]:
        return product(range(self.rows), range(self.physical_cols))

    def _act_lanes(self, m: Module, valids: list[Value]) -> list[Value]:
        """One activation lane a row, 0 where it has no operand, delayed by its row number; lane 0 as it comes."""
        bits = self.spec.act.bits
        lanes: list[Value] = [self.act_data[:bits]]
        for row in range(1, self.rows):
            lane = Signal(bits, name=f"act_lane_r{row}")
            m.d.comb += lane.eq(Mux(valids[row], self.act_data[row * bits : (row + 1) * bits], 0))
            lanes.append(lane)
        return [delay_data(m, f"act_r{row}", lane, row) for row, lane in enumerate(lanes)]

    def _held_weights(self, m: Module) -> list[list[Value]]:
        """One weight lane a cell [row][physical column]: rows of a beat that are not due yet are held back."""
        wide = self.load.rows
        found: list[list[Value]] = [self._wgt_lanes(m, row) for row in range(wide)]
        for row, lanes in enumerate(found[1:], 1):
            found[row] = [delay_data(m, f"wgt_r{row}_c{col}_held", lane, row) for col, lane in enumerate(lanes)]
        for row in range(wide, self.rows):  # of the same lane of the beat; w - 1 cycles more
            lanes = found[row - wide]
            found.append([delay_data(m, f"wgt_r{row}_c{col}_held", lane, wide - 1) for col, lane in enumerate(lanes)])
        return found

    def _wgt_lanes(self, m: Module, row: int = 0) -> list[Value]:
        """One weight lane a physical column, delayed by its column number; the zero-point column's is always 1."""
        bits, cols = self.spec.wgt.bits, self.cols
        lanes = [self.wgt_data[at * bits : (at + 1) * bits] for at in range(row * cols, (row + 1) * cols)]
        name = f"wgt_r{row}_c" if row else "wgt_c"
        skewed = [delay_data(m, f"{name}{col}", lane, col) for col, lane in enumerate(lanes)]
        return skewed + [Const(1, bits)] * self.spec.zero_point_column

    def _cell_outputs(self) -> list[list[dict[str, Signal]]]:
        """A wire for every output of every cell, [row][physical column][port]."""
        outs = {name: member for name, member in self.cell_ports.items() if member.flow == Out}
        return [
            [
                {name: Signal(member.shape, name=f"{name}_r{row}_c{col}") for name, member in outs.items()}
                for col in range(self.physical_cols)
            ]
            for row in range(self.rows)
        ]

    def _place(self, m: Module, row: int, col: int, outputs: list[list[dict[str, Signal]]], **inputs: Value) -> None:
        """Instantiate the cell at [row][col]; every port of it gets connected."""
        if self.has_unsigned_mode:
            inputs["wgt_unsigned"] = self.wgt_unsigned
        m.submodules[f"pe_r{row}_c{col}"] = Instance(
            self.cell_name,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            **{f"i_{name}": value for name, value in inputs.items()},
            **{f"o_{name}": wire for name, wire in outputs[row][col].items()},
        )

    def _results(self, m: Module, *, columns: list[Value], valid: Value, last: Value) -> None:
        """Straighten the columns' results and drive the output ports."""
        width = self.physical_cols
        straight = [delay_data(m, f"psum_c{col}", value, width - 1 - col) for col, value in enumerate(columns)]
        m.d.comb += [
            self.psum_data.eq(Cat(*straight[: self.cols])),
            self.psum_valid.eq(valid),
            self.psum_last.eq(last),
        ]
        if self.spec.zero_point_column:
            m.d.comb += self.act_sum.eq(straight[self.cols])
