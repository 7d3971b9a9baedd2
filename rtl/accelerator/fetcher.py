"""The fetcher: the program from memory, instruction after instruction, checked, to the units' queues."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import WORD_BITS, WORD_BYTES
from bitwright.arch.isa.instructions import UNITS
from bitwright.arch.isa.limits import Limits
from bitwright.arch.isa.placement import ADDRESS_BITS, INDEX_BITS
from bitwright.arch.isa.timing import FETCH_BYTES
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.bursts import BURST
from bitwright.rtl.accelerator.checker import FAULT_BITS, Checker, region_layout
from bitwright.rtl.accelerator.interfaces import entry_layout
from bitwright.rtl.accelerator.memory_port import read_beats

CHUNKS = 2
CHUNK_WORDS = FETCH_BYTES // WORD_BYTES

FETCH_STATE = wiring.Signature(
    {
        "stands": Out(1),
        "pushes": Out(1),
        "ended": Out(1),
        "index": Out(INDEX_BITS),
        "faulted": Out(1),
        "fault": Out(FAULT_BITS),
    }
)
"""What the controller looks at.

Members
    stands : nothing moves here any more, unless a queue gets room: the program's End or a fault was found in this or an
        earlier cycle, or the checked instruction has no room in this one
    pushes : an instruction goes into a queue in this cycle
    ended : the End was found in an earlier cycle
    index : of the instruction that is checked or waits for room, or would be taken next; of the End, of the fault
    faulted, fault : a fault was found in an earlier cycle, at `index`; its code
"""


class WordBuffer(wiring.Component):
    """Two chunks of a program: beats in, instructions out.

    Parameters
        port_bytes : 8, 16, 32 or 64   A beat.
    Members
        beats : In(read_beats)   Of a chunk after the other, all whole but the last one.
        level : Out              Instructions that can be taken; after the last chunk also what its last beat has more.
        take : In(1)             Takes one; only while `level` is not 0.
        place : In(5)            Of the one taken, modulo the buffer's 32.
        word, broken : Out(128), Out(1)   The one last taken, from the cycle after `take` to the next `take`; whether a
            beat of it came with an error.
    Timing       an instruction can be taken from the cycle after that of the beat with its last byte.
    Reset        empty, the next beat starts an instruction.
    """

    def __init__(self, port_bytes: int) -> None:
        self.port_bytes = port_bytes
        self.words = CHUNKS * CHUNK_WORDS
        super().__init__(
            {
                "beats": In(read_beats(port_bytes)),
                "level": Out(range(self.words + 1)),
                "take": In(1),
                "place": In(range(self.words)),
                "word": Out(WORD_BITS),
                "broken": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = max(1, WORD_BYTES // self.port_bytes)  # beats of an instruction
        banks = max(1, self.port_bytes // WORD_BYTES)  # instructions of a beat
        part_bits = 8 * WORD_BYTES // parts
        at = Signal(range(parts * self.words // banks))  # the next beat's place
        bank_bits = exact_log2(banks)
        taken_bank = Signal(range(max(2, banks)), reset_less=True)
        words, broken = [], []
        for bank in range(banks):
            read = []
            for part in range(parts):
                memory = Memory(shape=part_bits + 1, depth=self.words // banks, init=[])
                m.submodules[f"bank_{bank}_part_{part}"] = memory
                write_port, read_port = memory.write_port(), memory.read_port()
                low = bank * part_bits
                m.d.comb += [
                    write_port.en.eq(self.beats.valid & (at[: exact_log2(parts)] == part)),
                    write_port.addr.eq(at[exact_log2(parts) :]),
                    write_port.data.eq(Cat(self.beats.data[low : low + part_bits], self.beats.error)),
                    read_port.en.eq(self.take),
                    read_port.addr.eq(self.place[bank_bits:]),
                ]
                read.append(read_port.data)
            words.append(Cat(data[:part_bits] for data in read))
            broken.append(Cat(data[part_bits] for data in read).any())
        m.d.comb += [self.word.eq(Array(words)[taken_bank]), self.broken.eq(Array(broken)[taken_bank])]
        with m.If(self.take):
            m.d.sync += taken_bank.eq(self.place[:bank_bits])
        with m.If(self.beats.valid):
            m.d.sync += at.eq(at + 1)
        whole = self.beats.valid & (at[: exact_log2(parts)] == parts - 1)
        m.d.sync += self.level.eq(self.level + Mux(whole, banks, 0) - self.take)
        return m


class Fetcher(wiring.Component):
    """Fetches a program, checks each instruction and puts it into the queue of its unit, in order.

    Parameters
        limits : arch.isa.limits.Limits
    Members
        running : In(1)          The run goes on; the first cycle in which it is high is the run's cycle 0.
        program_base, program_words : In(40), In(24)   First byte, a multiple of 256, and instructions; stand during a
            run.
        region_beats : In(4 x 32)   Likewise.
        request : Out(stream of BURST), beats : In(read_beats)   Of the memory port. When the run ends, a request that
            was not taken is taken back.
        entry_load, entry_execute, entry_vector, entry_store : Out(stream of entry_layout)   To the queues.
        state : Out(FETCH_STATE)
        taken : Out(1)           An instruction, `state.index`, is taken out of the buffer in this cycle.
    Timing       a chunk is 256 bytes, the last one as many beats as the program has. The first is offered to the port
                 from cycle 0; chunk c from the cycle after chunk c-1 was taken by the port and after the last
                 instruction of chunk c-2 was taken out of the buffer. No chunk is offered after the end or a fault.
                 An instruction is taken in the first cycle f in which there is one (`WordBuffer`), the one before was
                 put into its queue in an earlier cycle, and there are as many in the program: else it is TRUNCATED in
                 that cycle. It is put into its queue in the first cycle from f + check_cycles(op) on in which the queue
                 has room; a fault or an End takes effect in f + check_cycles(op). A beat that came with an error is a
                 fault, BUS_ERROR, of its instructions: found in their turn, so that it does not depend on timing.
    Reset        at the program's first instruction; only while no beats are due.
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

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        super().__init__(
            {
                "running": In(1),
                "program_base": In(ADDRESS_BITS),
                "program_words": In(INDEX_BITS),
                "region_beats": In(region_layout(32)),
                "request": Out(stream.Signature(BURST)),
                "beats": In(read_beats(limits.port_bytes)),
                **{f"entry_{op.name.lower()}": Out(stream.Signature(entry_layout(op))) for op in UNITS},
                "state": Out(FETCH_STATE),
                "taken": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.buffer = buffer = WordBuffer(self.limits.port_bytes)
        m.submodules.checker = checker = Checker(self.limits)
        wiring.connect(m, wiring.flipped(self.beats), buffer.beats)

        state = self.state
        holds = Signal()  # an instruction is checked or waits for room
        stopped = state.ended | state.faulted
        wants, checked = Signal(), Signal()
        entries = [getattr(self, f"entry_{op.name.lower()}") for op in UNITS]
        m.d.comb += [
            wants.eq(self.running & ~holds & ~stopped),
            self.taken.eq(wants & (state.index != self.program_words) & buffer.level.any()),
            buffer.take.eq(self.taken),
            buffer.place.eq(state.index),
            checker.start.eq(self.taken),
            checker.word.eq(buffer.word),
            checker.broken.eq(buffer.broken),
            checker.index.eq(state.index),
            checker.region_beats.eq(self.region_beats),
            checked.eq(self.running & holds & checker.valid),
            state.pushes.eq(Cat(entry.valid & entry.ready for entry in entries).any()),
        ]
        for op, unit, entry in zip(UNITS, checker.unit, entries, strict=True):
            made = getattr(checker, f"entry_{op.name.lower()}")
            m.d.comb += [entry.payload.eq(made), entry.valid.eq(checked & ~checker.fault.any() & unit)]
        with m.If(self.taken):
            m.d.sync += holds.eq(1)
        with m.If(state.pushes):
            m.d.sync += [holds.eq(0), state.index.eq(state.index + 1)]

        truncated, faults, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            truncated.eq(wants & (state.index == self.program_words)),
            faults.eq(checked & checker.fault.any()),
            ends.eq(checked & ~checker.fault.any() & checker.ends),
            state.stands.eq(stopped | truncated | (checked & ~state.pushes)),
        ]
        with m.If(truncated):
            m.d.sync += [state.faulted.eq(1), state.fault.eq(Fault.TRUNCATED)]
        with m.If(faults):
            m.d.sync += [state.faulted.eq(1), state.fault.eq(checker.fault), holds.eq(0)]
        with m.If(ends):
            m.d.sync += [state.ended.eq(1), holds.eq(0)]
        self._request(m, stopped)
        return m

    def _request(self, m: Module, stopped: Value) -> None:
        """Chunks from memory: at most two that are asked for and not used up."""
        chunk_bits = exact_log2(CHUNK_WORDS)
        chunk = Signal(INDEX_BITS - chunk_bits + 1)  # the next one
        ahead = Signal(range(CHUNKS + 1))
        requested, used = Signal(), Signal()
        left = Signal(INDEX_BITS + 1)  # instructions that are not asked for; the top bit says: less than none
        beats = Signal(range(FETCH_BYTES // self.limits.port_bytes + 1))
        of_rest = (left[:chunk_bits] * WORD_BYTES + (self.limits.port_bytes - 1)) >> exact_log2(self.limits.port_bytes)
        m.d.comb += [
            left.eq(self.program_words - Cat(Const(0, chunk_bits), chunk)),
            beats.eq(Mux(left[chunk_bits:].any(), FETCH_BYTES // self.limits.port_bytes, of_rest)),
            self.request.valid.eq(self.running & ~stopped & (ahead != CHUNKS) & ~left[-1] & left.any()),
            self.request.payload.address.eq(self.program_base + Cat(Const(0, exact_log2(FETCH_BYTES)), chunk)),
            self.request.payload.beats.eq(beats),
            requested.eq(self.request.valid & self.request.ready),
            used.eq(self.taken & self.state.index[:chunk_bits].all()),
        ]
        with m.If(requested):
            m.d.sync += chunk.eq(chunk + 1)
        m.d.sync += ahead.eq(ahead + requested - used)
