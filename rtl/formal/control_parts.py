"""What a harness for an accelerator's control is made of: text, environment, names for queues, links and slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import UNITS, Op
from bitwright.arch.isa.limits import Channel
from bitwright.arch.isa.network import QUEUE_DEPTH, SLOTS
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.arch.isa.timing import IN_FLIGHT
from bitwright.rtl.accelerator.interfaces import PRODUCED, UNIT_CHANNELS, entry_layout
from bitwright.rtl.formal.harness import label, shown

DEADLOCK = int(Fault.DEADLOCK)
AGES = range(QUEUE_DEPTH)
assert QUEUE_DEPTH == IN_FLIGHT == 4, "the queues' pointers have two bits"
CLAIM, LEMMA = "claim", "lemma"


def unit_name(op: Op) -> str:
    return op.name.lower()


def users(channel: Channel) -> tuple[Op, Op]:
    """The channel's producer and its consumer."""
    mine = [op for op in UNITS if channel in UNIT_CHANNELS[op]]
    first, second = sorted(mine, key=lambda op: channel not in PRODUCED[op])
    return first, second


@dataclass
class Text:
    """The harness being written: wires that it looks at, ghosts, environment, claims.

    A claim of an earlier harness may stand as a lemma: it holds in every state that a run reaches.
    """

    exposed: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    properties: list[str] = field(default_factory=list)

    def look(self, wire: str, bits: int = 1) -> str:
        """An expression for a wire of the accelerator."""
        self.exposed[wire] = bits
        return shown(wire)

    def wire(self, name: str, bits: int, value: str) -> str:
        self.lines.append(f"wire [{bits - 1}:0] {name} = {value};")
        return name

    def ghost(self, name: str, bits: int, following: str, *, enable: str = "1") -> str:
        """A register of the harness, 0 after the core's reset."""
        clear = self.look("core_rst")
        self.lines.append(f"reg [{bits - 1}:0] {name} = 0; always @(posedge clk)")
        self.lines.append(f"  if ({clear}) {name} <= 0; else if ({enable}) {name} <= {following};")
        return name

    def assume(self, condition: str) -> None:
        self.lines.append(f"always @* assume ({condition});")

    def state(self, kind: str, name: str, condition: str) -> None:
        """A claim, or a lemma, for every cycle after the first."""
        if kind == LEMMA:
            self.assume(f"!started || ({condition})")
            return
        if name not in self.properties:
            self.properties.append(name)
        count = sum(line.count(f" {label(name)}__") for line in self.lines)
        self.lines.append(f"always @* if (started) begin {label(name)}__{count}: assert ({condition}); end")

    def text(self) -> str:
        head = [
            "module harness(input clk, input rst);",
            *(f"wire [{bits - 1}:0] {shown(name)};" for name, bits in self.exposed.items()),
            "reg started = 0; always @(posedge clk) started <= 1;",
            "always @* assume (rst == !started);",
        ]
        ties = [".clk(clk), .rst(rst)", *(f".\\{name} ({shown(name)})" for name in self.exposed)]
        return "\n".join([*head, *self.lines, f"dut it ({', '.join(ties)});", "endmodule", ""])


class Parts(Text):
    """The parts of every harness: names of what is in the queues and links, and the environment."""

    def __init__(self) -> None:
        super().__init__()
        self._environment()

    def _environment(self) -> None:
        words, running = self.look("fetcher.program_words", INDEX_BITS), self.look("controller.running")
        self.lines.append(f"reg [{INDEX_BITS - 1}:0] words_before = 0; always @(posedge clk) words_before <= {words};")
        self.assume(f"!{running} || {words} == words_before")
        for op in UNITS:
            unit = f"{unit_name(op)}_control"
            flying = self.look(f"{unit}.state__in_flight")
            self.assume(f"!{self.look(f'{unit}.done')} || {flying}")
            self.assume(f"{self.look(f'{unit}.ready')} || {flying}")
        word, begins = self.look("fetcher.checker.word", 128), self.look("fetcher.checker.start")
        self.lines.append("reg begun = 0; reg [2:0] op_before = 0; always @(posedge clk) begin")
        self.lines.append(f"  begun <= {begins} | {self.look('core_rst')}; op_before <= {word}[2:0]; end")
        self.assume(f"begun || {word}[2:0] == op_before")
        self.assume(f"{self.look('fetcher.checker.ends')} == ({word}[2:0] == {int(Op.END)})")
        known = " || ".join(f"{self.look('fetcher.checker.word', 128)}[2:0] == {int(op)}" for op in Op)
        self.assume(f"{self.look('fetcher.checker.alone', 4)} != {DEADLOCK}")
        self.assume(f"{known} || {self.look('fetcher.checker.alone', 4)} != 0")

    def unit(self, op: Op, name: str, bits: int = 1) -> str:
        return self.look(f"{unit_name(op)}_control.{name}", bits)

    def fetch(self, name: str, bits: int = 1) -> str:
        return self.look(f"fetcher.{name}", bits)

    def link(self, channel: Channel, name: str, bits: int = 1) -> str:
        return self.look(f"{channel.value}_link.{name}", bits)

    def entries(self, op: Op) -> None:
        """Wires <unit>_q<age>, _f<age>: what is queued and in flight, the oldest first; _v: whether there is one."""
        layout, unit = entry_layout(op), unit_name(op)
        count = len(UNIT_CHANNELS[op])
        fields = {name: layout[name].offset for name in ("index", "used", "last")}
        flying = {"index": 0, "last": INDEX_BITS}
        for queue, letter, of, width in (
            ("queue", "q", fields, layout.size),
            ("flying", "f", flying, INDEX_BITS + count),
        ):
            level = self.unit(op, f"{queue}.level", 3)
            at = self.unit(op, f"{queue}.r_port__addr", 2)
            rows = [self.unit(op, f"{queue}.storage[{row}]", width) for row in AGES]
            for age in AGES:
                name = f"{unit}_{letter}{age}"
                place = self.wire(f"{name}_at", 2, f"{at} + {age}")
                chosen = f"{place} == 0 ? {rows[0]} : {place} == 1 ? {rows[1]} : {place} == 2 ? {rows[2]} : {rows[3]}"
                self.wire(name, width, chosen)
                self.wire(f"{name}_v", 1, f"{level} > {age}")
                for item, low in of.items():
                    bits = INDEX_BITS if item == "index" else count
                    self.wire(f"{name}_{item}", bits, f"{name}[{low + bits - 1}:{low}]")

    def bit(self, op: Op, channel: Channel, entry: str, mask: str) -> str:
        """The channel's bit of an entry that is there."""
        return f"({entry}_v & {entry}_{mask}[{UNIT_CHANNELS[op].index(channel)}])"

    def going(self, op: Op, channel: Channel) -> str:
        """Slots on their way to the other side of the channel."""
        return (
            "(" + " + ".join(f"{{2'b0, {self.bit(op, channel, f'{unit_name(op)}_f{k}', 'last')}}}" for k in AGES) + ")"
        )

    # --- What is claimed once, and used later ---

    def queues(self, kind: str, ops: Sequence[Op] = UNITS) -> None:
        for op, queue in product(ops, ("queue", "flying")):
            level, read, write = (
                self.unit(op, f"{queue}.{name}", bits)
                for name, bits in (("level", 3), ("r_port__addr", 2), ("w_port__addr", 2))
            )
            self.state(kind, "queue-counts", f"{level} <= {QUEUE_DEPTH} && {write} == (({read} + {level}) & 3)")

    def uses(self, kind: str, ops: Sequence[Op] = UNITS) -> None:
        """The last instruction that uses a slot uses it."""
        for op in ops:
            unit = unit_name(op)
            count = len(UNIT_CHANNELS[op])
            used, last = (self.fetch(f"entry_{unit}__payload.{name}", count) for name in ("used", "last"))
            there = [f"(!{unit}_q{age}_v || !({unit}_q{age}_last & ~{unit}_q{age}_used))" for age in AGES]
            self.state(kind, "last-is-used", f"!({last} & ~{used}) && {' && '.join(there)}")

    def slots(self, kind: str, channels: Sequence[Channel] = tuple(Channel)) -> None:
        for channel in channels:
            sides = []
            for op, side in zip(users(channel), ("producer", "consumer"), strict=True):
                tokens = self.link(channel, f"{side}_tokens", 2)
                sides.append((tokens, self.link(channel, f"{side}_holds"), self.going(op, channel)))
            (free, fills, going), (ready, reads, coming) = sides
            total = f"{{3'b0, {free}}} + {fills} + {going} + {ready} + {reads} + {coming} == {SLOTS}"
            self.state(kind, "slots-kept", f"{free} <= {SLOTS} && {ready} <= {SLOTS} && {total}")
            parity = f"{self.link(channel, 'producer__slot')} ^ {self.link(channel, 'consumer__slot')}"
            ahead = self.wire(f"{channel}_ahead", 3, f"{going} + {ready} + {reads}")
            self.state(kind, "slots-in-turn", f"({parity}) == {ahead}[0]")

    def pushed(self, op: Op) -> str:
        """An instruction goes into the unit's queue in this cycle."""
        return f"({self.fetch(f'entry_{unit_name(op)}__valid')} & {self.unit(op, 'entry__ready')})"

    def new_takes(self, op: Op, channel: Channel) -> tuple[list[str], str]:
        """For each age in the unit's queue whether it takes a slot anew; whether the unit holds one after all."""
        side = "producer" if channel in PRODUCED[op] else "consumer"
        holds, takes = self.link(channel, f"{side}_holds"), []
        for age in AGES:
            name = f"{unit_name(op)}_q{age}"
            used, last = (self.bit(op, channel, name, mask) for mask in ("used", "last"))
            takes.append(self.wire(f"{name}_{channel}_new", 1, f"{used} & !{holds}"))
            holds = self.wire(f"{name}_{channel}_holds", 1, f"{used} ? !{last} : {holds}")
        return takes, holds
