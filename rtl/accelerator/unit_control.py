"""A unit's queue, and when it starts what is in it."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import ClassVar

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Channel
from bitwright.arch.isa.network import QUEUE_DEPTH
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.arch.isa.timing import IN_FLIGHT
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.channels import SIDE
from bitwright.rtl.accelerator.interfaces import PRODUCED, UNIT_CHANNELS, entry_layout

UNIT_STATE = wiring.Signature(
    {
        "starts": Out(1),
        "in_flight": Out(1),
        "waits": Out(1),
        "oldest": Out(INDEX_BITS),
        "faulted": Out(1),
        "fault_index": Out(INDEX_BITS),
    }
)
"""What the controller looks at.

Members
    starts : an instruction starts in this cycle
    in_flight : some were started in an earlier cycle and are not done in an earlier one
    waits : some are in the queue
    oldest : the first that is not done: of those in flight, without any of those in the queue; without any 0
    faulted, fault_index : the head of the queue was found UNWRITTEN in an earlier cycle, which one; stays
"""


class UnitControl(wiring.Component):
    """Takes checked instructions in order and starts each when its engine and its slots are there.

    Parameters
        op : Op                  The unit: its channels are UNIT_CHANNELS[op], of those in PRODUCED[op] it is producer.
    Members
        running : In(1)          Instructions may start.
        entry : In(stream of entry_layout(op))   The queue. `ready`: it has room.
        ready, start, word, slots, done : the engine interface, seen from the other side
        link_<channel> : Out(SIDE)   For each of its channels: to be connected to that side of the ChannelLink.
        state : Out(UNIT_STATE)
    Timing       an entry taken in cycle t can start from t + 1. It starts in the first cycle in which `running` is 1,
                 the engine is ready, its channels can be taken, and fewer than IN_FLIGHT are started and not done; it
                 leaves the queue in that cycle, which has room from the next one. In flight from the cycle after its
                 start to that of `done`. If it is UNWRITTEN in that cycle, it does not start: the unit is faulted from
                 the next cycle on and starts nothing more.
    Reset        nothing queued, in flight or faulted; only together with the engine and the links.
    Model        arch.isa.network
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every cycle of legal and broken programs with random engines equals the model",
            690,
            "tests/rtl/accelerator/test_control.py",
        ),
    )

    def __init__(self, op: Op) -> None:
        self.op = op
        self.channels = UNIT_CHANNELS[op]
        super().__init__(
            {
                "running": In(1),
                "entry": In(stream.Signature(entry_layout(op))),
                "ready": In(1),
                "start": Out(1),
                "word": Out(WORD_BITS),
                "slots": Out(len(self.channels)),
                "done": In(1),
                **{f"link_{channel}": Out(SIDE) for channel in self.channels},
                "state": Out(UNIT_STATE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = entry_layout(self.op)
        m.submodules.queue = queue = SyncFIFO(width=layout.size, depth=QUEUE_DEPTH)
        flying_layout = StructLayout({"index": INDEX_BITS, "last": len(self.channels)})
        m.submodules.flying = flying = SyncFIFO(width=flying_layout.size, depth=IN_FLIGHT)
        links = [getattr(self, f"link_{channel}") for channel in self.channels]

        head = layout(queue.r_data)
        oldest = flying_layout(flying.r_data)
        can_start, unwritten = Signal(), Signal()
        slots_there = reduce(and_, (~used | link.can_take for used, link in zip(head.used, links, strict=True)))
        bad = [self._unwritten(channel, link, head) for channel, link in zip(self.channels, links, strict=True)]
        m.d.comb += [
            queue.w_data.eq(self.entry.payload),
            queue.w_en.eq(self.entry.valid),
            self.entry.ready.eq(queue.w_rdy),
            can_start.eq(self.running & queue.r_rdy & self.ready & flying.w_rdy & slots_there & ~self.state.faulted),
            unwritten.eq(reduce(or_, bad)),
            self.start.eq(can_start & ~unwritten),
            self.word.eq(head.word),
            self.slots.eq(Cat(link.slot for link in links)),
            queue.r_en.eq(self.start),
            flying.w_en.eq(self.start),
            flying.w_data.eq(Cat(head.index, head.last)),
            flying.r_en.eq(self.done),
        ]
        with m.If(can_start & unwritten):
            m.d.sync += self.state.faulted.eq(1)
        m.d.comb += [
            self.state.starts.eq(self.start),
            self.state.in_flight.eq(flying.r_rdy),
            self.state.waits.eq(queue.r_rdy),
            self.state.oldest.eq(Mux(flying.r_rdy, oldest.index, Mux(queue.r_rdy, head.index, 0))),
            self.state.fault_index.eq(head.index),
        ]
        for place, (channel, link) in enumerate(zip(self.channels, links, strict=True)):
            m.d.comb += [
                link.take.eq(self.start & head.used[place]),
                link.last.eq(head.last[place]),
                link.end.eq(getattr(head, f"end_{channel}") if channel in PRODUCED[self.op] else 0),
                link.give.eq(self.done & oldest.last[place]),
            ]
        return m

    def _unwritten(self, channel: Channel, link: Value, head: Value) -> Value:
        """Whether the instruction reads past what is written in its slot, or its write would leave a gap."""
        used = head.used[self.channels.index(channel)]
        reads_past = getattr(head, f"end_{channel}") > link.fill
        if channel not in PRODUCED[self.op]:
            return used & reads_past
        return used & Mux(head.reads_own, reads_past, head.at > link.fill)
