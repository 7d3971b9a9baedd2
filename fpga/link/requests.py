"""The board's side of the protocol: takes a request, does it, answers; one at a time."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out
from bitwright.arch.pe import Evidence
from bitwright.arch.registers import OFFSET_BITS, OFFSETS
from bitwright.fpga.link.framing import BODY
from bitwright.fpga.link.protocol import HEADER_BYTES, INFO_BYTES, NO_SESSION, REPLY, Info, Op, Status

ADDRESS_BITS = 32
_WORD_BYTES = 4
_HEADER = StructLayout({"session": 8, "number": 8, "op": 8, "address": ADDRESS_BITS})
_LITE = {
    "awvalid": Out(1), "awready": In(1), "awaddr": Out(OFFSET_BITS),
    "wvalid": Out(1), "wready": In(1), "wdata": Out(32), "wstrb": Out(4),
    "bvalid": In(1), "bready": Out(1), "bresp": In(2),
    "arvalid": Out(1), "arready": In(1), "araddr": Out(OFFSET_BITS),
    "rvalid": In(1), "rready": Out(1), "rdata": In(32), "rresp": In(2),
}  # fmt: skip


class Requests(wiring.Component):
    """Reads and writes memory and registers, starts runs; one request at a time, each with one reply.

    Parameters
        info : Info              What HELLO answers.
    Members
        bodies : In(stream of BODY), replies : Out(stream of BODY)   Of the Deframer, to the Framer.
        lite_... : AXI4-Lite     Master, to the accelerator's registers; one access at a time.
        memory_read, memory_write : Out(1)   Of the byte `memory_address`; what is read is in `memory_got` a cycle later
            and stays; `memory_put` is written. Only while `busy` is low.
        memory_reset : Out(1)    High during an access to RESET: the memory owes nothing after it.
        busy : In(1)             The accelerator may use its memory.
        greeted : Out(1)         There is a session.
    Timing       none promised: every request of b bytes ends, after at most a few cycles a byte and what the registers
                 and the line take.
    Rules        a body that ends inside its header is dropped without a reply. After that, in this order: HELLO begins
                 a session; another session than the board's: NO_SESSION; then as of `Op` and `Status`. What a request
                 has beyond what its op needs is dropped. A write that is refused may have been done in part. A read of
                 an offset without register gives 0.
    Reset        no session, no run numbered.
    Model        docs/fpga-link.md
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "random requests, good and bad: replies byte for byte those of a model in Python",
            300,
            "tests/fpga/test_end_to_end.py",
        ),
    )

    def __init__(self, info: Info) -> None:
        self.info = info
        super().__init__(
            {
                "bodies": In(stream.Signature(BODY)),
                "replies": Out(stream.Signature(BODY)),
                **{f"lite_{name}": member for name, member in _LITE.items()},
                "memory_read": Out(1),
                "memory_write": Out(1),
                "memory_address": Out(ADDRESS_BITS),
                "memory_put": Out(8),
                "memory_got": In(8),
                "memory_reset": Out(1),
                "busy": In(1),
                "greeted": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self.header = Signal(_HEADER, reset_less=True)
        self.at = self.header.address  # of the next byte
        self.session, self.last_run = Signal(8), Signal(8)
        self.status = Signal(Status, reset_less=True)
        self.length, self.count = Signal(16, reset_less=True), Signal(range(max(INFO_BYTES, HEADER_BYTES) + 1))
        self.ended = Signal(reset_less=True)  # the request's last byte was taken
        self.word = Signal(32, reset_less=True)
        self.address_sent, self.data_sent = Signal(), Signal()
        m.d.comb += [
            self.greeted.eq(self.session != NO_SESSION),
            self.memory_address.eq(self.at),
            self.memory_put.eq(self.bodies.payload.data),
        ]
        self._lite_pins(m)
        with m.FSM(name="requests") as fsm:
            self._take_header(m)
            self._take_writes(m)
            self._run(m)
            self._answer(m)
            m.d.comb += self.memory_reset.eq(fsm.ongoing("WRITE_WORD") & (self.at == OFFSETS["RESET"]))
        return m

    # --- What comes -----------------------------------------------------------------------------------------------

    def _taken(self, m: Module, ready: Value | int = 1) -> Value:
        """Take a byte of the request if `ready`; whether one is taken in this cycle."""
        m.d.comb += self.bodies.ready.eq(ready)
        taken = Signal(name="taken_here")
        m.d.comb += taken.eq(self.bodies.valid & self.bodies.ready)
        with m.If(taken):
            m.d.sync += self.ended.eq(self.bodies.payload.last)
        return taken

    def _reply(self, m: Module, status: Status) -> None:
        """To the reply, past what is left of the request."""
        m.d.sync += self.status.eq(status)
        m.next = "DRAIN"

    def _take_header(self, m: Module) -> None:
        byte = self.bodies.payload
        with m.State("HEADER"), m.If(self._taken(m)):
            m.d.sync += [
                self.header.eq(Cat(self.header.as_value()[8:], byte.data)),
                self.count.eq(self.count + 1),
            ]
            with m.If(self.count == HEADER_BYTES - 1):
                m.d.sync += self.count.eq(0)
                m.next = "DISPATCH"
            with m.Elif(byte.last):
                m.d.sync += self.count.eq(0)
        with m.State("DISPATCH"):
            header = self.header
            with m.If(header.op == Op.HELLO):
                m.d.sync += [self.session.eq(header.session), self.last_run.eq(0), self.length.eq(INFO_BYTES)]
                self._reply(m, Status.OK)
            with m.Elif(~self.greeted | (header.session != self.session)):
                self._reply(m, Status.NO_SESSION)
            with m.Elif(self.busy & ((header.op == Op.READ_MEMORY) | (header.op == Op.WRITE_MEMORY))):
                self._reply(m, Status.BUSY)
            with m.Else():
                self._by_op(m)
        with m.State("DRAIN"):
            with m.If(self.ended):
                m.next = "REPLY"
            with m.Else():
                self._taken(m)

    def _by_op(self, m: Module) -> None:
        needs_more = {
            Op.READ_MEMORY: "LENGTH", Op.READ_REGISTERS: "LENGTH", Op.WRITE_MEMORY: "STORE", Op.WRITE_REGISTERS: "WORD"
        }  # fmt: skip
        with m.Switch(self.header.op):
            for op, state in needs_more.items():
                with m.Case(op):
                    with m.If(self.ended):
                        self._reply(m, Status.BAD_REQUEST)
                    with m.Else():
                        m.d.sync += self.status.eq(Status.OK)
                        m.next = state
            with m.Case(Op.RUN):
                m.d.sync += self.status.eq(Status.OK)
                m.next = "RUN"
            with m.Default():
                self._reply(m, Status.BAD_REQUEST)
        with m.If(self.is_registers & ((self.at >= 1 << OFFSET_BITS) | self.at[:2].any())):
            self._reply(m, Status.BAD_REQUEST)

    @property
    def is_registers(self) -> Value:
        """Of an op with an address: whose."""
        return (self.header.op == Op.READ_REGISTERS) | (self.header.op == Op.WRITE_REGISTERS)

    def _take_writes(self, m: Module) -> None:
        byte = self.bodies.payload
        outside = self.at >= self.info.memory_bytes
        with m.State("STORE"), m.If(self._taken(m)):
            m.d.comb += self.memory_write.eq(~outside)
            m.d.sync += self.at.eq(self.at + 1)
            with m.If(outside):
                self._reply(m, Status.BAD_REQUEST)
            with m.Elif(byte.last):
                m.next = "DRAIN"
        with m.State("WORD"), m.If(self._taken(m)):
            m.d.sync += [self.word.eq(Cat(self.word[8:], byte.data)), self.count.eq(self.count + 1)]
            with m.If(self.count == _WORD_BYTES - 1):
                m.d.sync += self.count.eq(0)
                m.next = "WRITE_WORD"
                with m.If((self.at == OFFSETS["CONTROL"]) | (self.at >= 1 << OFFSET_BITS)):
                    self._reply(m, Status.BAD_REQUEST)
            with m.Elif(byte.last):
                m.d.sync += self.count.eq(0)
                self._reply(m, Status.BAD_REQUEST)
        with m.State("WRITE_WORD"), m.If(self._written(m, self.at, self.word)):
            m.d.sync += self.at.eq(self.at + _WORD_BYTES)
            with m.If(self.lite_bresp.any()):
                self._reply(m, Status.REFUSED)
            with m.Elif(self.ended):
                m.next = "DRAIN"
            with m.Else():
                m.next = "WORD"

    # --- The accelerator's registers ------------------------------------------------------------------------------

    def _lite_pins(self, m: Module) -> None:
        m.d.comb += [self.lite_wstrb.eq(0b1111), self.lite_araddr.eq(self.at)]

    def _written(self, m: Module, offset: Value | int, data: Value | int) -> Value:
        """Write a register; high in the cycle of its response."""
        m.d.comb += [
            self.lite_awaddr.eq(offset),
            self.lite_wdata.eq(data),
            self.lite_awvalid.eq(~self.address_sent),
            self.lite_wvalid.eq(~self.data_sent),
            self.lite_bready.eq(1),
        ]
        with m.If(self.lite_awready):
            m.d.sync += self.address_sent.eq(1)
        with m.If(self.lite_wready):
            m.d.sync += self.data_sent.eq(1)
        with m.If(self.lite_bvalid):
            m.d.sync += [self.address_sent.eq(0), self.data_sent.eq(0)]
        return self.lite_bvalid

    def _run(self, m: Module) -> None:
        number = self.at[:8]
        with m.State("RUN"):
            m.next = "DRAIN"
            with m.If(number != self.last_run):
                m.next = "START"
        with m.State("START"), m.If(self._written(m, OFFSETS["CONTROL"], 1)):
            with m.If(self.lite_bresp.any()):
                self._reply(m, Status.BUSY)
            with m.Else():
                m.d.sync += self.last_run.eq(number)
                m.next = "DRAIN"

    # --- What goes ------------------------------------------------------------------------------------------------

    def _sent(self, m: Module, data: Any, last: Value | int = 0) -> Value:
        """Offer a byte of the reply; whether it is taken in this cycle."""
        m.d.comb += [
            self.replies.valid.eq(1),
            self.replies.payload.data.eq(data),
            self.replies.payload.last.eq(last),
        ]
        return self.replies.ready

    def _answer(self, m: Module) -> None:
        header, reads = self.header, Signal()
        m.d.comb += reads.eq(
            (self.status == Status.OK) & ((header.op == Op.HELLO) | (header.op == Op.READ_MEMORY)
            | (header.op == Op.READ_REGISTERS))
        )  # fmt: skip
        with m.State("LENGTH"), m.If(self._taken(m)):
            byte = self.bodies.payload
            m.d.sync += [self.length.eq(Cat(self.length[8:], byte.data)), self.count.eq(self.count + 1)]
            with m.If(self.count == 1):
                m.d.sync += self.count.eq(0)
                m.next = "CHECK"
            with m.Elif(byte.last):
                m.d.sync += self.count.eq(0)
                self._reply(m, Status.BAD_REQUEST)
        with m.State("CHECK"):
            end = self.at + self.length
            beyond = end > Mux(self.is_registers, 1 << OFFSET_BITS, self.info.memory_bytes)
            self._reply(m, Status.OK)
            with m.If((self.length == 0) | beyond | (self.is_registers & self.length[:2].any())):
                self._reply(m, Status.BAD_REQUEST)
        with m.State("REPLY"):
            start = Array([header.session, header.number, header.op | REPLY, self.status])
            with m.If(self._sent(m, start[self.count[:2]], (self.count == 3) & ~reads)):
                m.d.sync += self.count.eq(self.count + 1)
                with m.If(self.count == 3):
                    m.d.sync += self.count.eq(0)
                    m.next = "HEADER"
                    with m.If(reads):
                        m.next = "FETCH"
        self._answer_data(m)

    def _answer_data(self, m: Module) -> None:
        """`length` bytes; registers four at a time, in `word`."""
        info = Array(Const(byte, 8) for byte in self.info.encode())
        with m.State("FETCH"):
            m.next = "SEND"
            with m.If(self.header.op == Op.READ_MEMORY):
                m.d.comb += self.memory_read.eq(1)
            with m.Elif((self.header.op == Op.READ_REGISTERS) & (self.at[:2] == 0)):
                m.d.comb += self.lite_arvalid.eq(1)
                m.next = "FETCH"
                with m.If(self.lite_arready):
                    m.next = "AWAIT"
        with m.State("AWAIT"):
            m.d.comb += self.lite_rready.eq(1)
            with m.If(self.lite_rvalid):
                m.d.sync += self.word.eq(self.lite_rdata)
                with m.If(self.lite_rresp.any()):
                    m.d.sync += self.word.eq(0)
                m.next = "SEND"
        with m.State("SEND"):
            data = Signal(8, name="data_here")
            m.d.comb += data.eq(info[self.count])
            with m.If(self.header.op == Op.READ_MEMORY):
                m.d.comb += data.eq(self.memory_got)
            with m.Elif(self.header.op == Op.READ_REGISTERS):
                m.d.comb += data.eq(self.word[:8])
            with m.If(self._sent(m, data, self.length == 1)):
                m.d.sync += [
                    self.at.eq(self.at + 1),
                    self.length.eq(self.length - 1),
                    self.count.eq(self.count + 1),
                    self.word.eq(self.word >> 8),
                ]
                m.next = "FETCH"
                with m.If(self.length == 1):
                    m.d.sync += self.count.eq(0)
                    m.next = "HEADER"
