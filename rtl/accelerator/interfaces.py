"""What the parts of the accelerator say to one another: fields of words, queue entries, channels of units."""

from __future__ import annotations

from amaranth.hdl import Value
from amaranth.lib.data import StructLayout
from bitwright.arch.isa.fields import BY_OP, WORD_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Channel
from bitwright.arch.isa.placement import INDEX_BITS

EXTENT_BITS = 17
"""Of one past the last beat or row of a slot, which has at most 2**16."""

UNIT_CHANNELS: dict[Op, tuple[Channel, ...]] = {
    Op.LOAD: (Channel.ACT, Channel.WGT, Channel.PAR, Channel.VEC),
    Op.EXECUTE: (Channel.ACT, Channel.WGT, Channel.PAR, Channel.ACC),
    Op.VECTOR: (Channel.ACC, Channel.VEC, Channel.OUT),
    Op.STORE: (Channel.OUT,),
}
"""Which channels a unit uses; bit i of an entry's masks and of an engine's `slots` is the i-th."""

PRODUCED: dict[Op, frozenset[Channel]] = {
    Op.LOAD: frozenset(UNIT_CHANNELS[Op.LOAD]),
    Op.EXECUTE: frozenset({Channel.ACC}),
    Op.VECTOR: frozenset({Channel.OUT}),
    Op.STORE: frozenset(),
}
"""Of these channels the unit is the producer; of its others the consumer."""


def field(word: Value, op: Op, name: str) -> Value:
    """The bits of an instruction's field, unsigned."""
    layout = BY_OP[int(op)]
    lowest = layout.lowest_bits()[name]
    return word[lowest : lowest + layout.field(name).bits]


def entry_layout(op: Op) -> StructLayout:
    """A checked instruction in the queue of its unit.

    Members
        word, index : the instruction and its place in the program
        used, last : a bit a channel: it uses its slot of it; it gives the slot to the other side when it is done
        ends : of each channel one past the last beat (acc: row) that it touches, the largest where it touches several
        at : first beat (acc: row) that it writes, of the one channel that it produces
        reads_own : what it writes must have been written before (an Execute that goes on)
    """
    count = len(UNIT_CHANNELS[op])
    members = {f"end_{channel.value}": EXTENT_BITS for channel in UNIT_CHANNELS[op]}
    return StructLayout(
        {
            "word": WORD_BITS,
            "index": INDEX_BITS,
            "used": count,
            "last": count,
            "at": EXTENT_BITS,
            "reads_own": 1,
            **members,
        }
    )
