"""How a reduction is cut: the slices of an Execute one after the other, by counting."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.fields import BY_OP
from bitwright.arch.isa.instructions import Op
from bitwright.arch.pe import Evidence

K_BITS = BY_OP[Op.EXECUTE].field("k").bits


class Slices(wiring.Component):
    """The slices of a reduction of k: cut at multiples of `group` and, inside a group, after `steps`.

    Parameters
        steps : int | None       None: a slice is a group.
    Members
        load, k, group : In(1), In(14), In(14)   Begin with the first slice of this reduction; wins over `next`.
        next : In(1)             Go on to the slice after this one; only while `valid`.
        valid : Out(1)           There is a slice.
        length : Out(14)         Its elements.
        group_end, last : Out(1) x 2   It is the last slice of its group, of the reduction.
    Timing       all outputs follow from registers; a slice a cycle. No division: a subtraction a group.
    Reset        valid = 0.
    Model        arch.isa.arithmetic.cut
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every slice of random reductions equals the model, five limits",
            1_679,
            "tests/rtl/accelerator/test_execute_parts.py",
        ),
    )

    def __init__(self, steps: int | None) -> None:
        self.steps = None if steps is None or steps >= (1 << K_BITS) - 1 else steps
        super().__init__(
            {
                "load": In(1),
                "k": In(K_BITS),
                "group": In(K_BITS),
                "next": In(1),
                "valid": Out(1),
                "length": Out(K_BITS),
                "group_end": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(K_BITS, reset_less=True)  # of this group, from this slice on
        rest = Signal(K_BITS, reset_less=True)  # of the groups after it
        whole_group = Signal(K_BITS, reset_less=True)
        m.d.comb += [self.length.eq(left), self.group_end.eq(1), self.last.eq(self.group_end & ~rest.any())]
        if self.steps is not None:
            with m.If(left > self.steps):
                m.d.comb += [self.length.eq(self.steps), self.group_end.eq(0)]

        elements, group, after = Signal(K_BITS), Signal(K_BITS), Signal(K_BITS + 1)
        m.d.comb += [
            elements.eq(Mux(self.load, self.k, rest)),
            group.eq(Mux(self.load, self.group, whole_group)),
            after.eq(elements - group),  # the top bit is the borrow
        ]
        with m.If(self.load | (self.next & self.group_end)):
            m.d.sync += [
                left.eq(Mux(after[-1], elements, group)),
                rest.eq(Mux(after[-1], 0, after)),
                whole_group.eq(group),
                self.valid.eq(self.load | ~self.last),
            ]
        if self.steps is not None:
            with m.Elif(self.next):
                m.d.sync += left.eq(left - self.steps)
        return m
