"""The slots of a channel: who owns which, and how far each is written."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.network import SLOTS
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.interfaces import EXTENT_BITS

SIDE = wiring.Signature(
    {
        "can_take": In(1),
        "slot": In(1),
        "fill": In(EXTENT_BITS),
        "take": Out(1),
        "last": Out(1),
        "end": Out(EXTENT_BITS),
        "give": Out(1),
    }
)
"""A channel as a unit sees it.

Members
    can_take : the unit holds a slot, or one is free for it (of the consumer: ready)
    slot : the one that it holds or would take
    fill : beats (of acc rows) written in that slot since its producer took it
    take, last : an instruction that uses the slot starts, only while `can_take`; it is the last that does, so that the
        next one takes the other slot
    end : of the producer with `take`: one past the last beat (row) that the instruction writes; of the consumer unused
    give : an instruction that was started with `last` is done: its slot goes to the other side
"""


class ChannelLink(wiring.Component):
    """The two slots of one channel, between its producer and its consumer.

    A slot is free (a token for the producer), held by the producer, ready (a token for the consumer), held by the
    consumer, or on its way: its last instruction was started and is not done. Both sides take slots 0, 1, 0, 1, ...

    Members
        producer, consumer : In(SIDE)
    Timing       what happens in cycle t is seen from t + 1 on: `fill`, `slot` and the hold after a `take`, tokens after
                 a `give`. All outputs follow from registers.
    Reset        both slots free, nobody holds one, slot 0 next.
    Model        arch.isa.network
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "two slots in all, of one owner each, in turn: induction for every order of takes and gives",
            1,
            "tests/rtl/accelerator/test_channels.py",
        ),
        Evidence(
            "every cycle of legal and broken programs with random engines equals the model",
            690,
            "tests/rtl/accelerator/test_control.py",
        ),
    )

    def __init__(self) -> None:
        super().__init__({"producer": In(SIDE), "consumer": In(SIDE)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fills = [Signal(EXTENT_BITS, name=f"fill_{slot}", reset_less=True) for slot in range(SLOTS)]
        for name, side, other, tokens_at_first in (
            ("producer", self.producer, self.consumer, SLOTS),
            ("consumer", self.consumer, self.producer, 0),
        ):
            tokens = Signal(range(SLOTS + 1), init=tokens_at_first, name=f"{name}_tokens")
            holds = Signal(name=f"{name}_holds")
            slot = Signal(name=f"{name}_slot")
            taken = Signal(name=f"{name}_takes_token")
            written = Mux(slot, fills[1], fills[0])
            m.d.comb += [
                side.can_take.eq(holds | tokens.any()),
                side.slot.eq(slot),
                side.fill.eq(Mux(holds, written, 0) if name == "producer" else written),
                taken.eq(side.take & ~holds),
            ]
            with m.If(side.take):
                m.d.sync += [holds.eq(~side.last), slot.eq(slot ^ side.last)]
            with m.If(other.give & ~taken):
                m.d.sync += tokens.eq(tokens + 1)
            with m.If(taken & ~other.give):
                m.d.sync += tokens.eq(tokens - 1)
        self._fill(m, fills)
        return m

    def _fill(self, m: Module, fills: list[Signal]) -> None:
        side = self.producer
        end: Value = Mux(side.end > side.fill, side.end, side.fill)
        for slot, fill in enumerate(fills):
            with m.If(side.take & (side.slot == slot)):
                m.d.sync += fill.eq(end)
