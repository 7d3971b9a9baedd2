"""The two array cells, weight stationary and output stationary, around any PE's multiply-accumulate."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe.base import Evidence, PESpec, Timing
from bitwright.rtl.pe.datapaths import datapath, has_unsigned_mode


class _Cell(wiring.Component):
    """What the cells share: the spec, the datapath, and the mode input of PEs that have one.

    With `operand_isolation` every operand of the datapath (activation, weight, sum) is ANDed with act_valid, so that
    its logic stands still while the cell has no activation; what goes on to the neighbours is as without.
    """

    dataflow: ClassVar[str]
    ports: ClassVar[dict[str, tuple[Any, str]]]  # direction, and whose width it has: act, wgt, psum, or one bit
    data_outputs: ClassVar[tuple[str, ...]]
    timing: ClassVar[Timing] = Timing(latency_cycles=1, initiation_interval_cycles=1)
    evidence: ClassVar[tuple[Evidence, ...]]

    def __init__(self, spec: PESpec, *, operand_isolation: bool = False) -> None:
        self.spec, self.operand_isolation = spec, operand_isolation
        widths = {"act": spec.act.bits, "wgt": spec.wgt.bits, "psum": spec.psum.bits}
        ports: dict[str, Any] = {name: flow(widths.get(width, 1)) for name, (flow, width) in self.ports.items()}
        if has_unsigned_mode(spec):
            ports["wgt_unsigned"] = In(1)
        super().__init__(ports)
        for name in self.data_outputs:  # their registers need no reset: a control bit says when they count
            setattr(self, name, Signal(getattr(self, name).shape(), name=name, reset_less=True))

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `int8_mac_ws`."""
        return f"{self.spec.module_stem}_{self.dataflow}"

    def _sum(self, m: Module, acc: Value, act: Value, wgt: Value) -> Value:
        mode = {"wgt_unsigned": self.wgt_unsigned} if has_unsigned_mode(self.spec) else {}
        operands = [acc, act, wgt]
        if self.operand_isolation:
            operands = [value & self.act_valid.replicate(len(value)) for value in operands]
        return datapath(self.spec)(m, self.spec, *operands, **mode)


class WeightStationaryCell(_Cell):
    """One PE of a weight-stationary systolic array: activations go right, partial sums and weights come from above.

    Parameters
        spec : PESpec            A = act.bits, W = wgt.bits, P = psum.bits below.
    Members
        act_valid, act_swap, act : In(1), In(1), In(A)   One activation from the left; `act_swap` marks the first
            activation of a tile: from this one on, the shadow weight is the active one. Obeyed without `act_valid` too.
        wgt_load, wgt : In(1), In(W)   The column's weight bus; loaded into the shadow register when `wgt_load`.
        psum_in : In(P)          From the cell above, in the same cycle as the activation.
        wgt_unsigned : In(1)     shift-add only: codes are 0..15. Constant while any activation is in flight.
        act_valid_out, act_swap_out, act_out, wgt_load_out, psum_out : Out   Registered.
    Rules        w = act_swap ? shadow : active; active <- w; shadow <- wgt when wgt_load. A load in the cycle of a
                 swap fills the shadow register after the swap took its old value.
                 psum_out <- act_valid ? psum_in + act * w : psum_in.
    Timing       latency 1 cycle; one activation a cycle; never stalls.
    Arithmetic   the spec's `accumulate`, bit-exact.
    Reset        synchronous; clears act_valid_out, act_swap_out and wgt_load_out only; data registers power up
                 unknown and a weight is used only after it was loaded and swapped in.
    Model        arch.pe: spec.accumulate.
    Source       double-buffered weight-stationary arrays are common practice; written from the contract above.
    """

    dataflow = "ws"
    data_outputs = ("act_out", "psum_out")
    evidence = (
        Evidence("swap, load, idle and reset protocol equals a cycle model", 20_000, "tests/rtl/pe/test_cells.py"),
    )

    ports: ClassVar[dict[str, tuple[Any, str]]] = {
        "act_valid": (In, "bit"),
        "act_swap": (In, "bit"),
        "act": (In, "act"),
        "wgt_load": (In, "bit"),
        "wgt": (In, "wgt"),
        "psum_in": (In, "psum"),
        "act_valid_out": (Out, "bit"),
        "act_swap_out": (Out, "bit"),
        "act_out": (Out, "act"),
        "wgt_load_out": (Out, "bit"),
        "psum_out": (Out, "psum"),
    }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.spec.wgt.bits
        shadow = Signal(bits, name="shadow", reset_less=True)
        active = Signal(bits, name="active", reset_less=True)
        weight = Signal(bits, name="weight")
        m.d.comb += weight.eq(Mux(self.act_swap, shadow, active))
        total = self._sum(m, self.psum_in, self.act, weight)
        with m.If(self.wgt_load):
            m.d.sync += shadow.eq(self.wgt)
        m.d.sync += [
            active.eq(weight),
            self.act_out.eq(self.act),
            self.psum_out.eq(Mux(self.act_valid, total.as_unsigned(), self.psum_in)),
            self.act_valid_out.eq(self.act_valid),
            self.act_swap_out.eq(self.act_swap),
            self.wgt_load_out.eq(self.wgt_load),
        ]
        return m


class SingleWeightCell(_Cell):
    """As WeightStationaryCell, with one weight register: the array loads it behind the last activation that uses it.

    Parameters, Members   as of WeightStationaryCell, without act_swap and act_swap_out.
    Rules        wgt_load: weight <- wgt, used from the next cycle on; an activation in the cycle of a load meets the
                 old weight. psum_out <- act_valid ? psum_in + act * weight : psum_in.
    Timing       latency 1 cycle; one activation a cycle; never stalls.
    Arithmetic   the spec's `accumulate`, bit-exact.
    Reset        synchronous; clears act_valid_out and wgt_load_out only.
    Model        arch.pe: spec.accumulate.
    Source       single-buffered weight-stationary arrays are common practice; written from the contract above.
    """

    dataflow = "ws_single"
    data_outputs = ("act_out", "psum_out")
    evidence = (Evidence("in arrays: values and cycles", 17_113, "tests/rtl/array/test_systolic.py"),)

    ports: ClassVar[dict[str, tuple[Any, str]]] = {
        name: port for name, port in WeightStationaryCell.ports.items() if not name.startswith("act_swap")
    }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        weight = Signal(self.spec.wgt.bits, name="weight", reset_less=True)
        total = self._sum(m, self.psum_in, self.act, weight)
        with m.If(self.wgt_load):
            m.d.sync += weight.eq(self.wgt)
        m.d.sync += [
            self.act_out.eq(self.act),
            self.psum_out.eq(Mux(self.act_valid, total.as_unsigned(), self.psum_in)),
            self.act_valid_out.eq(self.act_valid),
            self.wgt_load_out.eq(self.wgt_load),
        ]
        return m


class OutputStationaryCell(_Cell):
    """One PE of an output-stationary systolic array: the sum stays, activations go right, weights go down.

    Parameters
        spec : PESpec            A = act.bits, W = wgt.bits, P = psum.bits below.
    Members
        act_valid, act_first, act_last, act : In(1) x 3, In(A)   One activation; `act_first` and `act_last` mark the
            ends of an accumulation (both for a depth of 1) and count only with `act_valid`.
        wgt : In(W)              The weight that meets this activation.
        drain_shift, drain_in : In(1), In(P)   Move the drain chain one cell: take the neighbour's sum.
        wgt_unsigned : In(1)     shift-add only: codes are 0..15. Constant while any activation is in flight.
        act_valid_out, act_first_out, act_last_out, act_out, wgt_out, drain_shift_out, drain_out : Out   Registered.
    Rules        sum = act * wgt + (act_first ? 0 : acc); with act_valid: acc <- sum, and with act_last: drain <- sum,
                 which wins over drain_shift in the same cycle; else drain <- drain_in when drain_shift.
    Timing       latency 1 cycle; one activation a cycle; never stalls.
    Arithmetic   the spec's `accumulate`, bit-exact; an accumulation starts from `spec.zero()`.
    Reset        synchronous; clears the control outputs only; `acc` and `drain` power up unknown: the first
                 activation of an accumulation replaces `acc`.
    Model        arch.pe: spec.accumulate.
    Source       output-stationary arrays are common practice; written from the contract above.
    """

    dataflow = "os"
    data_outputs = ("act_out", "wgt_out", "drain_out")
    evidence = (
        Evidence(
            "first, last, idle, drain and reset protocol equals a cycle model",
            20_000,
            "tests/rtl/pe/test_cells.py",
        ),
    )

    ports: ClassVar[dict[str, tuple[Any, str]]] = {
        "act_valid": (In, "bit"),
        "act_first": (In, "bit"),
        "act_last": (In, "bit"),
        "act": (In, "act"),
        "wgt": (In, "wgt"),
        "drain_shift": (In, "bit"),
        "drain_in": (In, "psum"),
        "act_valid_out": (Out, "bit"),
        "act_first_out": (Out, "bit"),
        "act_last_out": (Out, "bit"),
        "act_out": (Out, "act"),
        "wgt_out": (Out, "wgt"),
        "drain_shift_out": (Out, "bit"),
        "drain_out": (Out, "psum"),
    }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        psum_bits = self.spec.psum.bits
        acc = Signal(psum_bits, name="acc", reset_less=True)
        start = Signal(psum_bits, name="start")
        m.d.comb += start.eq(Mux(self.act_first, 0, acc))
        total = self._sum(m, start, self.act, self.wgt)
        with m.If(self.act_valid):
            m.d.sync += acc.eq(total)
        with m.If(self.act_valid & self.act_last):
            m.d.sync += self.drain_out.eq(total)
        with m.Elif(self.drain_shift):
            m.d.sync += self.drain_out.eq(self.drain_in)
        m.d.sync += [
            self.act_out.eq(self.act),
            self.wgt_out.eq(self.wgt),
            self.act_valid_out.eq(self.act_valid),
            self.act_first_out.eq(self.act_first),
            self.act_last_out.eq(self.act_last),
            self.drain_shift_out.eq(self.drain_shift),
        ]
        return m
