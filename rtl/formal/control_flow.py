"""Proofs of an accelerator's control: queues, slots and the ends of a run, on the machine's own Verilog.

The datapath is cut: engines, memory port, memories, registers and the checker's arithmetic may do anything that their
contracts allow. An engine is ready when it has nothing in flight, and is done only with what is in flight; memory gives
no more beats than were asked for; a program's length stands during a run. When an engine is done and when a beat comes
is free, so nothing here depends on a pace. Instructions are free too, but for what the checker's logic makes of them:
its operation stands between two starts, a word of unknown operation is found illegal, and no word is found a DEADLOCK.
Assumed, not proved here: that engines keep these contracts, that those and the memory end what they began, and that
an accelerator's cut logic drives what is left of it as it does whole.

Properties
    queue-counts             Each of the eight queues holds 0..4 entries, and its pointers are as far apart.
    queue-order              What is queued, what is in flight behind it, is what went in, whole and in its order.
    last-is-used             Only who uses a slot gives it on.
    slots-kept, slots-in-turn   Of every channel's two slots each is in one place: free, held, on its way, ready; so
                             tokens never exceed slots. Producer and consumer take them in turn.
    can-start-stays          An instruction that has its slots has them, with the same verdict on what it reads,
                             until it starts: units do not disturb each other, so the order of their steps does not
                             matter (`arch.isa.network`).
    each-once-in-order       There is one push of an instruction, in program order, to one queue.
    fetch-counts             The buffer has the instructions whose beats came and that were not taken.
    check-ends               A check takes check_cycles(op) at most.
    something-moves          In each cycle of a run something moves that can move only so often (an instruction is
                             taken, checked, queued, started), an engine or the memory owes the next step, or the
                             run ends. They can happen only so often since a program has so many instructions. So with
                             engines and a memory that end what they began, every run ends.
    judged-when-stuck        A run is judged only when no step of `arch.isa.network` is left to make.
    done-means-all-done, deadlock-means-waiting   What a verdict says: done, that the End was reached, all queues
                             are empty, nothing is in flight; DEADLOCK, that all who are left wait for slots.
    waits-for-older, oldest-can-start   Of a program in which each instruction finds its slots once those before it are
                             done: the oldest instruction that is not done never waits for a slot. So it ends. The
                             lowering's programs are such (tests/sim/accelerator/test_in_order.py); the validator
                             admits others, for which `judged-when-stuck` holds.
That runs reach what these speak of, and that a broken control is not proved, is shown by `make campaign-proofs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import UNITS, Op
from bitwright.arch.isa.limits import Channel
from bitwright.arch.isa.network import QUEUE_DEPTH, SLOTS
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.arch.isa.timing import FETCH_BYTES, check_cycles
from bitwright.rtl.accelerator.interfaces import PRODUCED, UNIT_CHANNELS, entry_layout
from bitwright.rtl.formal import tools
from bitwright.rtl.formal.control_parts import AGES, CLAIM, DEADLOCK, LEMMA, Parts, unit_name, users
from bitwright.rtl.formal.model import Result, Setting, decide

CONTROL = (
    "controller",
    "fetcher",
    *(f"{op.name.lower()}_control" for op in UNITS),
    *(f"{item}_link" for item in Channel),
)

_BASE = """read_verilog top.v
select -set kept {keep} {unions}
select -set datapath {top}/c:* {top}/t:$* %d @kept %d
delete @datapath
hierarchy -top {top}
proc
flatten
setattr -set keep 1 {looked}
{cuts}
setundef -undriven -anyseq
opt_clean
memory_map
opt_clean
rename -top dut
write_rtlil control.il
"""
_HARNESS = """read_rtlil control.il
{exposed}
read_verilog -formal {name}.v
hierarchy -top harness
proc
flatten
opt_clean
chformal -lower
opt -full
dffunmap
opt_clean
write_smt2 -wires {name}.smt2
"""

# Of the fetcher: what stands in the program's buffer, and the checker's arithmetic.
_CUTS = """delete t:$memrd t:$memrd_v2 %u c:*fetcher*buffer* %i
cutpoint -noscopeinfo w:fetcher.checker.*_end w:fetcher.checker.alone w:fetcher.checker.word"""
_RUN, _STOPPING, _JUDGING = 2, 3, 4
_BOUNDED = 6  # cycles from reset


class Control(Parts):
    """The claims, each about one part of the control."""

    def order(self, op: Op) -> None:
        """An instruction that is marked when it comes is in its place until it leaves, in both queues."""
        unit = unit_name(op)
        clear, start, done = self.look("core_rst"), self.unit(op, "start"), self.unit(op, "done")
        count = len(UNIT_CHANNELS[op])
        payload = self.fetch(f"entry_{unit}__payload", entry_layout(op).size)
        started = f"{{{unit}_q0_last, {unit}_q0_index}}"
        for letter, queue, comes, leaves, what, bits in (
            ("q", "queue", self.pushed(op), start, payload, entry_layout(op).size),
            ("f", "flying", start, done, started, INDEX_BITS + count),
        ):
            level = self.unit(op, f"{queue}.level", 3)
            self.lines.append(
                f"(* anyseq *) wire {letter}_mark; reg {letter}_marked = 0; reg [{bits - 1}:0] {letter}_it;"
            )
            self.lines.append(f"reg [2:0] {letter}_ahead; always @(posedge clk)")
            self.lines.append(f"  if ({clear}) {letter}_marked <= 0;")
            self.lines.append(f"  else if (!{letter}_marked && {letter}_mark && {comes}) begin")
            self.lines.append(f"    {letter}_marked <= 1; {letter}_it <= {what}; {letter}_ahead <= {level} - {leaves};")
            self.lines.append(f"  end else if ({letter}_marked && {leaves}) begin")
            self.lines.append(f"    {letter}_marked <= {letter}_ahead != 0; {letter}_ahead <= {letter}_ahead - 1; end")
            for age in AGES:
                there = f"{unit}_{letter}{age}_v && {unit}_{letter}{age} == {letter}_it"
                self.state(CLAIM, "queue-order", f"!({letter}_marked && {letter}_ahead == {age}) || ({there})")
            self.state(CLAIM, "queue-order", f"!{letter}_marked || {letter}_ahead < {level}")

    def stays(self, op: Op) -> None:
        """Who has its slots has them until it starts."""
        unit, clear, start = unit_name(op), self.look("core_rst"), self.unit(op, "start")
        has = [f"{unit}_q0_v"]
        for channel in UNIT_CHANNELS[op]:
            side = "producer" if channel in PRODUCED[op] else "consumer"
            used = self.bit(op, channel, f"{unit}_q0", "used")
            has.append(f"(!{used} | {self.link(channel, f'{side}__can_take')})")
        there, wrong = self.wire(f"{unit}_has", 1, " & ".join(has)), self.unit(op, "unwritten")
        self.lines.append(f"reg {unit}_had = 0, {unit}_wrong = 0; always @(posedge clk) begin")
        self.lines.append(f"  {unit}_had <= {there} & !{start} & !{clear}; {unit}_wrong <= {wrong}; end")
        self.state(CLAIM, "can-start-stays", f"!{unit}_had || ({there} && {wrong} == {unit}_wrong)")

    # --- The harnesses ---

    def fetching(self) -> None:
        """One push an instruction, in order; the buffer's count; a check ends; something moves."""
        following, words = self.fetch("state__index", INDEX_BITS), self.fetch("program_words", INDEX_BITS)
        holds, running, taken = self.fetch("holds"), self.look("controller.running"), self.fetch("taken")
        pushes, stands = self.fetch("state__pushes"), self.fetch("state__stands")
        stopped = f"({self.fetch('state__ended')} | {self.fetch('state__faulted')})"
        total = " + ".join(f"{{2'b0, {self.pushed(op)}}}" for op in UNITS)
        self.state(CLAIM, "each-once-in-order", f"{total} == {{2'b0, {pushes}}}")
        self.state(CLAIM, "each-once-in-order", f"!{running} || {{1'b0, {following}}} + {holds} <= {words}")
        for op in UNITS:
            index = self.fetch(f"entry_{unit_name(op)}__payload.index", INDEX_BITS)
            self.state(CLAIM, "each-once-in-order", f"!{self.pushed(op)} || {index} == {following}")
        clear = self.look("core_rst")
        self.lines.append(f"reg [{INDEX_BITS - 1}:0] at_before = 0; reg pushed_before = 0, cleared_before = 1;")
        self.lines.append(
            f"always @(posedge clk) begin at_before <= {following}; pushed_before <= {pushes}; "
            f"cleared_before <= {clear}; end"
        )
        self.state(CLAIM, "each-once-in-order", f"{following} == (cleared_before ? 0 : at_before + pushed_before)")

        phase, checked = self.fetch("checker.phase", 4), self.fetch("checker.valid")
        longest = max(check_cycles(op) for op in Op)
        self.ghost("checks", 5, f"{holds} & !{checked} ? checks + 1 : 0")
        counting = f"{holds} & !{checked}"
        op_bits, is_long = self.fetch("checker.word", 128), int(Op.EXECUTE)
        most = f"({op_bits}[2:0] == {is_long} ? {longest - 1} : {check_cycles(None) - 1})"
        self.state(
            CLAIM, "check-ends", f"!({counting}) || ({phase} >= 1 && {phase} <= {most} && checks + 1 == {phase})"
        )
        self.state(CLAIM, "check-ends", f"!({checked} & {phase} != 0) && !({holds} & {stopped})")
        self.state(CLAIM, "check-ends", f"checks <= {longest} && ({holds} || {stopped} || {phase} == 0)")

        starts = [self.unit(op, "start") for op in UNITS]
        flying = [self.unit(op, "state__in_flight") for op in UNITS]
        moving = " | ".join(starts + flying)
        asks, owed = self.fetch("request__valid"), "(asked != given)"
        starved = f"{running} & !{holds} & !{stopped} & !{taken} & {following} != {words} & ({asks} | {owed})"
        self.wire("quiet", 1, f"{stands} & !({moving})")
        self.state(
            CLAIM,
            "something-moves",
            f"!{running} || quiet || {moving} || {taken} || {pushes} || {counting} || ({starved})",
        )

    def beats(self, port_bytes: int) -> None:
        """What the fetcher asked for, what came, and what is in the buffer."""
        following, words = self.fetch("state__index", INDEX_BITS), self.fetch("program_words", INDEX_BITS)
        holds, level = self.fetch("holds"), self.fetch("level", 6)
        chunk, ahead = self.fetch("chunk", 21), self.fetch("ahead", 2)
        came, running = self.fetch("beats__valid"), self.look("controller.running")
        stopped = f"({self.fetch('state__ended')} | {self.fetch('state__faulted')})"
        request = f"({self.fetch('request__valid')} & {self.fetch('request__ready')})"
        beats = self.fetch("request__payload.beats", 9)
        self.ghost("asked", 32, f"asked + {beats}", enable=request)
        self.ghost("given", 32, "given + 1", enable=came)
        self.assume(f"!{came} || (asked != given && !{self.look('core_rst')})")
        chunk_beats, chunk_words = FETCH_BYTES // port_bytes, FETCH_BYTES // WORD_BYTES
        self.wire("all_beats", 32, f"({{8'b0, {words}}} * {WORD_BYTES} + {port_bytes - 1}) / {port_bytes}")
        self.wire("chunk_words", 32, f"{{11'b0, {chunk}}} * {chunk_words}")
        due = f"(chunk_words >= {words} ? all_beats : {{11'b0, {chunk}}} * {chunk_beats})"
        self.wire("took", 32, f"{{8'b0, {following}}} + {holds}")
        run = f"!{running} || {stopped} ||"
        for condition in (
            f"asked == {due}",
            f"chunk_words < {{8'b0, {words}}} + {chunk_words}",
            "given <= asked",
            f"given * {port_bytes} / {WORD_BYTES} == took + {level}",
            f"{{11'b0, {chunk}}} == took / {chunk_words} + {ahead}",
            f"{ahead} <= 2",
        ):
            self.state(CLAIM, "fetch-counts", f"{run} ({condition})")

    def oldest(self, op: Op) -> None:
        """A program valid in order: the oldest instruction that is not done, if this unit's, can start or did."""
        unit, clear = unit_name(op), self.look("core_rst")
        self.lines.append("(* anyseq *) wire mark; reg marked = 0;")
        self.wire("marks", 1, f"mark & !marked & {self.pushed(op)}")
        for other in UNITS:
            name = unit_name(other)
            done = self.unit(other, "done")
            pending = f"{{1'b0, {self.unit(other, 'queue.level', 3)}}} + {self.unit(other, 'flying.level', 3)} - {done}"
            self.lines.append(f"reg [3:0] older_{name} = 0; always @(posedge clk) if ({clear}) older_{name} <= 0; else")
            self.lines.append(
                f"  if (marks) older_{name} <= {pending}; "
                f"else older_{name} <= older_{name} - ({done} && older_{name} != 0);"
            )
        self.wire("ahead", 4, f"older_{unit} - {self.unit(op, 'flying.level', 3)}")
        start = self.unit(op, "start")
        self.lines.append(f"always @(posedge clk) if ({clear} || (marked && {start} && ahead == 0)) marked <= 0;")
        self.lines.append("  else if (marks) marked <= 1;")
        for other in UNITS:
            levels = [f"{{1'b0, {self.unit(other, f'{queue}.level', 3)}}}" for queue in ("queue", "flying")]
            self.state(CLAIM, "waits-for-older", f"older_{unit_name(other)} <= {' + '.join(levels)}")
        flying, level = self.unit(op, "flying.level", 3), self.unit(op, "queue.level", 3)
        self.state(CLAIM, "waits-for-older", f"!marked || (older_{unit} >= {flying} && ahead < {level})")
        waits = []
        for channel in UNIT_CHANNELS[op]:
            waits.append(self._credit(op, channel))
        none = " && ".join(f"older_{unit_name(other)} == 0" for other in UNITS)
        self.state(CLAIM, "oldest-can-start", f"!marked || !({none}) || (ahead == 0 && !({' || '.join(waits)}))")

    def _credit(self, op: Op, channel: Channel) -> str:
        """What the unit still gets of the channel is enough for the marked instruction; whether its head waits."""
        unit = unit_name(op)
        other = next(item for item in users(channel) if item is not op)
        produces = channel in PRODUCED[op]
        tokens = self.link(channel, f"{'producer' if produces else 'consumer'}_tokens", 2)
        takes, after = self.new_takes(op, channel)
        used, last = (
            f"{self.fetch(f'entry_{unit}__payload.{mask}', len(UNIT_CHANNELS[op]))}[{UNIT_CHANNELS[op].index(channel)}]"
            for mask in ("used", "last")
        )
        given = f"{self.fetch(f'entry_{unit_name(other)}__payload.last', len(UNIT_CHANNELS[other]))}"
        given = f"({self.pushed(other)} & {given}[{UNIT_CHANNELS[other].index(channel)}])"
        # The slots if every instruction that was fetched were done: this is a program in order.
        takes_now = f"({self.pushed(op)} & {used} & !{channel}_held)"
        first = SLOTS if produces else 0
        self.lines.append(f"reg {channel}_held = 0; reg [3:0] {channel}_there = {first}; always @(posedge clk) begin")
        self.lines.append(
            f"  if ({self.look('core_rst')}) begin {channel}_held <= 0; {channel}_there <= {first}; end else begin"
        )
        self.lines.append(f"    if ({self.pushed(op)} & {used}) {channel}_held <= !{last};")
        self.lines.append(f"    {channel}_there <= {channel}_there + {given} - {takes_now}; end end")
        self.assume(f"!{takes_now} || {channel}_there != 0")
        name = unit_name(other)
        in_flight = self.unit(other, "flying.level", 3)
        gives = [(f"{age}", self.bit(other, channel, f"{name}_f{age}", "last")) for age in AGES]
        gives += [(f"{in_flight} + {age}", self.bit(other, channel, f"{name}_q{age}", "last")) for age in AGES]
        all_gives = " + ".join(f"{{3'b0, {bit}}}" for _, bit in gives)
        older = " + ".join(f"{{3'b0, {bit} & (older_{name} > {place})}}" for place, bit in gives)
        all_takes = " + ".join(f"{{3'b0, {bit}}}" for bit in takes)
        its_takes = " + ".join(f"{{3'b0, {bit} & (ahead >= {age})}}" for age, bit in enumerate(takes))
        self.state(
            CLAIM,
            "waits-for-older",
            f"{channel}_held == {after} && {channel}_there <= 10 && "
            f"{channel}_there + {all_takes} == {tokens} + {all_gives}",
        )
        self.state(CLAIM, "waits-for-older", f"!marked || {tokens} + {older} >= {its_takes}")
        return f"({takes[0]} && {tokens} == 0)"

    def ends(self) -> None:
        """What a verdict means."""
        state = self.look("controller.run_state", 3)
        running = self.look("controller.running")
        self.state(CLAIM, "judged-when-stuck", f"{running} == ({state} == {_RUN})")
        stopped = f"({self.fetch('state__ended')} | {self.fetch('state__faulted')})"
        checked, phase = self.fetch("checker.valid"), self.fetch("checker.phase", 4)
        self.state(CLAIM, "judged-when-stuck", f"!({self.fetch('holds')} & {stopped}) && !({checked} & {phase} != 0)")
        fault, goes = self.fetch("checker.fault", 4), self.fetch("checker.unit", 4)
        found = f"{fault} != 0 || {self.fetch('checker.ends')} || {goes} != 0"
        self.state(CLAIM, "judged-when-stuck", f"!({self.fetch('holds')} & {self.fetch('checker.valid')}) || {found}")
        stuck, empty, unfaulted = [], [], [f"!{self.fetch('state__faulted')}"]
        held = []
        for op in UNITS:
            level, faulted = self.unit(op, "queue.level", 3), self.unit(op, "state__faulted")
            waits = [
                f"({self.bit(op, channel, f'{unit_name(op)}_q0', 'used')} & !{self.link(channel, side + '__can_take')})"
                for channel in UNIT_CHANNELS[op]
                for side in ("producer" if channel in PRODUCED[op] else "consumer",)
            ]
            stuck.append(
                f"{self.unit(op, 'flying.level', 3)} == 0 && ({level} == 0 || {faulted} || {' || '.join(waits)})"
            )
            empty.append(f"{level} == 0")
            unfaulted.append(f"!{faulted}")
            held.append(f"({self.fetch('checker.unit', 4)}[{UNITS.index(op)}] && {level} == {QUEUE_DEPTH})")
        ended, faulted = self.fetch("state__ended"), self.fetch("state__faulted")
        no_room = f"({self.fetch('holds')} && ({' || '.join(held)}))"
        network = " && ".join(stuck)
        code = self.look("controller.code", 4)
        told = self.fetch("state__fault", 4)
        self.state(CLAIM, "done-means-all-done", f"!{faulted} || {told} != 0")
        found_now = self.fetch("checker.fault", 4)
        self.state(CLAIM, "deadlock-means-waiting", f"{told} != {DEADLOCK} && {found_now} != {DEADLOCK}")
        self.state(
            CLAIM, "judged-when-stuck", f"{state} != {_JUDGING} || ({network} && ({ended} || {faulted} || {no_room}))"
        )
        all_done = f"{' && '.join(empty + unfaulted)} && {ended}"
        self.state(CLAIM, "done-means-all-done", f"{state} != {_STOPPING} || {code} != 0 || ({all_done} && {network})")
        waiting = f"!({' && '.join(empty)}) && {' && '.join(unfaulted)} && {network}"
        self.state(CLAIM, "deadlock-means-waiting", f"{state} != {_STOPPING} || {code} != {DEADLOCK} || ({waiting})")


def prove(
    verilog: str, top: str, port_bytes: int, setting: Setting, *, only: Sequence[str] | None = None
) -> Iterator[Result]:
    """Every proof of an accelerator's control, as it ends, of the Verilog without the cells that it names.

    `only` these groups (`GROUPS`). Counterexamples stay as VCD files in the setting's folder. ToolError as of `tools`.
    """
    tools.require(setting.solver)
    (setting.work / "top.v").write_text(verilog)
    keep = " ".join(f"{top}/c:{part}" for part in CONTROL)
    unions = " ".join(["%u"] * (len(CONTROL) - 1))
    harnesses = {name: _harness(name, port_bytes) for name in (GROUPS if only is None else only)}
    wires = {wire for harness in harnesses.values() for wire in harness.exposed}
    looked = " ".join(sorted(f"w:{wire}" for wire in wires if "[" not in wire))
    tools.yosys(_BASE.format(top=top, keep=keep, unions=unions, cuts=_CUTS, looked=looked), setting.work)
    for name, harness in harnesses.items():
        (setting.work / f"{name}.v").write_text(harness.text())
        exposed = "\n".join(f"expose w:{wire.replace('[', '?').replace(']', '?')}" for wire in harness.exposed)
        tools.yosys(_HARNESS.format(name=name, exposed=exposed), setting.work)
        yield from decide(setting, name, harness, setting.work / f"{name}.smt2", depth=1, bounded=_BOUNDED)


GROUPS = (
    "slots", "fetch", "ends", *(f"order-{unit_name(op)}" for op in UNITS), *(f"stays-{unit_name(op)}" for op in UNITS),
    *(f"oldest-{unit_name(op)}" for op in UNITS),
)  # fmt: skip
"""What is proved together; each with the claims of `slots` as lemmas."""


def _harness(name: str, port_bytes: int) -> Control:
    made = Control()
    group, _, unit = name.partition("-")
    if group == "fetch":
        made.beats(port_bytes)
        made.fetching()
        return made
    for op in UNITS:
        made.entries(op)
    kind = CLAIM if group == "slots" else LEMMA
    made.queues(kind)
    made.uses(kind)
    if group in ("slots", "stays", "oldest"):
        made.slots(kind)
    if group == "ends":
        made.ends()
    elif unit:
        {"order": made.order, "stays": made.stays, "oldest": made.oldest}[group](Op[unit.upper()])
    return made
