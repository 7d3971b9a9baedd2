"""The accelerator's memory on a board: block RAM behind AXI4, with fixed times, and the host's way in."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from bitwright.arch.errors import ConfigError
from bitwright.arch.fixed_memory import BURST_BYTES, FixedMemory
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.memory_port import axi_ports, open_count

OKAY, DECERR = 0b00, 0b11
MOST_MEMORY_BYTES = 1 << 24
_OPEN = 4
_BURST = StructLayout({"beat": 24, "beats": 9, "error": 1})

_TWO_PORTS = """
module {name}(clk, r_en, r_addr, r_data, w_en, w_addr, w_data);
  input clk, r_en;
  input [{place}:0] r_addr, w_addr;
  output reg [{top}:0] r_data;
  input [{lanes}:0] w_en;
  input [{top}:0] w_data;
  (* no_rw_check *) reg [{top}:0] rows [{last}:0];
  always @(posedge clk) begin
    if (r_en) r_data <= rows[r_addr];
{writes}
  end
endmodule
"""
# A read behind `else`: written as two `if`s, Yosys takes a block of SPRAM for each byte, twice as many.
_ONE_PORT = """
module {name}(clk, r_en, w_en, addr, r_data, w_data);
  input clk, r_en;
  input [{lanes}:0] w_en;
  input [{place}:0] addr;
  output reg [{top}:0] r_data;
  input [{top}:0] w_data;
  (* no_rw_check *) reg [{top}:0] rows [{last}:0];
  always @(posedge clk)
    if (|w_en) begin
{writes}
    end else if (r_en) r_data <= rows[addr];
endmodule
"""


def timing(single_port: bool) -> FixedMemory:
    """The contract that the memory keeps for a master that is never late."""
    return FixedMemory(
        latency_cycles=2, beat_cycles=2 if single_port else 1, reads=_OPEN, writes=_OPEN, response_cycles=1
    )


class BoardMemory(wiring.Component):
    """Block RAM as an AXI4 slave; a second master has it byte by byte while no burst is open.

    Parameters
        port_bytes : 8, 16, 32 or 64    A beat.
        memory_bytes : int              From address 0; a multiple of 4096. A burst beyond: DECERR.
        single_port : bool              RAM that reads or writes in a cycle, never both.
    Members
        m_axi_... : as of `axi_ports`, seen from the slave. Bursts of whole beats, INCR, none across a multiple of 4096.
        idle : Out(1)            No burst is open.
        host_read, host_write : In(1)   Of byte `host_address` (32); only while idle. `host_got` (8) shows a cycle later
            what was read, and stays until the next read of anyone.
        host_put : In(8)
    Timing       `timing(single_port)`, for a master that is never late; to one that is, everything waits.
    Order        bursts are served as they are accepted, of two in one cycle the read first. What a read sees of a write
                 whose response it did not wait for is not defined.
    Reset        no burst is open; the RAM keeps what it has.
    Model        arch.fixed_memory.FixedMemoryTiming
    Source       AMBA AXI and ACE protocol specification, ARM IHI 0022; deviation: no IDs, WLAST is not looked at.
    Errors       ConfigError for a size that it cannot have.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "READY, VALID and bytes of random bursts in the contract's cycles, both kinds of RAM; a slow master",
            4800,
            "tests/fpga/test_memory.py",
        ),
        Evidence(
            "counters of SmolLM2's tiles on the board top as the simulator's before the contract",
            2,
            "tests/fpga/test_end_to_end.py",
        ),
    )

    def __init__(self, port_bytes: int, memory_bytes: int, *, single_port: bool) -> None:
        if memory_bytes % BURST_BYTES or not BURST_BYTES <= memory_bytes <= MOST_MEMORY_BYTES:
            raise ConfigError(
                f"memory_bytes = {memory_bytes}: must be a multiple of {BURST_BYTES} in {BURST_BYTES}.."
                f"{MOST_MEMORY_BYTES}"
            )
        self.port_bytes, self.memory_bytes, self.single_port = port_bytes, memory_bytes, single_port
        self.rows = memory_bytes // port_bytes
        super().__init__(
            {
                **{name: member.flip() for name, member in axi_ports(port_bytes).items()},
                "idle": Out(1),
                "host_read": In(1),
                "host_write": In(1),
                "host_address": In(32),
                "host_put": In(8),
                "host_got": Out(8),
            }
        )

    @property
    def ram_name(self) -> str:
        """Of its RAM's Verilog module."""
        return f"board_ram{'_single_port' if self.single_port else ''}_{self.rows}x{8 * self.port_bytes}"

    def ram_verilog(self) -> str:
        """Its RAM as a module of its own, for a tool to infer."""
        lanes = [
            f"    if (w_en[{lane}]) rows[{'' if self.single_port else 'w_'}addr][{8 * lane + 7}:{8 * lane}] <= "
            f"w_data[{8 * lane + 7}:{8 * lane}];"
            for lane in range(self.port_bytes)
        ]
        return (_ONE_PORT if self.single_port else _TWO_PORTS).format(
            name=self.ram_name, place=self._place_bits - 1, top=8 * self.port_bytes - 1, lanes=self.port_bytes - 1,
            last=self.rows - 1, writes="\n".join(lanes),
        )  # fmt: skip

    @property
    def _place_bits(self) -> int:
        return (self.rows - 1).bit_length()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reads, writes = (self._queue(m, channel) for channel in ("ar", "aw"))
        is_write = self._order(m)
        head = Signal(_BURST)
        m.d.comb += head.eq(Mux(is_write, writes.r_data, reads.r_data))
        waits = Signal()
        m.d.comb += waits.eq(Mux(is_write, writes.r_rdy, reads.r_rdy))

        # A beat is issued in one cycle (a read goes to the RAM) and on the pins in the next (a write goes there).
        shown = Signal()  # there is one on the pins
        write, last, error, beat = Signal(), Signal(), Signal(), Signal(24)
        moves, issue, ends = Signal(), Signal(), Signal()
        count = Signal(9)
        can_end = ~last | ~self.m_axi_bvalid | self.m_axi_bready
        takes = Signal()
        m.d.comb += [
            self.m_axi_rvalid.eq(shown & ~write),
            self.m_axi_rlast.eq(last),
            self.m_axi_rresp.eq(Mux(error, DECERR, OKAY)),
            self.m_axi_wready.eq(shown & write & can_end),
            takes.eq(self.m_axi_wready & self.m_axi_wvalid),
            moves.eq(takes | (self.m_axi_rvalid & self.m_axi_rready)),
            issue.eq(waits & (~shown if self.single_port else ~shown | moves)),
            ends.eq(count + 1 == head.beats),
            reads.r_en.eq(issue & ends & ~is_write),
            writes.r_en.eq(issue & ends & is_write),
        ]
        with m.If(moves):
            m.d.sync += shown.eq(0)
        with m.If(issue):
            m.d.sync += [
                shown.eq(1), write.eq(is_write), last.eq(ends), error.eq(head.error), beat.eq(head.beat + count),
                count.eq(Mux(ends, 0, count + 1)),
            ]  # fmt: skip
        with m.If(self.m_axi_bready):
            m.d.sync += self.m_axi_bvalid.eq(0)
        with m.If(takes & last):
            m.d.sync += [self.m_axi_bvalid.eq(1), self.m_axi_bresp.eq(Mux(error, DECERR, OKAY))]
        m.d.comb += self.popped.eq(issue & ends)
        self._ram(m, issue & ~is_write, head.beat + count, takes & ~error, beat)
        return m

    def _queue(self, m: Module, channel: str) -> SyncFIFO:
        """Accepted bursts of a direction; it counts them until their last beat or response."""
        valid, ready, address, length = (
            getattr(self, f"m_axi_{channel}{pin}") for pin in ("valid", "ready", "addr", "len")
        )
        m.submodules[f"{channel}_queue"] = queue = SyncFIFO(width=_BURST.size, depth=_OPEN)
        accepted, ended = Signal(name=f"{channel}_accepted"), Signal(name=f"{channel}_ended")
        is_open = open_count(m, f"{channel}_open", _OPEN, accepted, ended)
        burst = Signal(_BURST, name=f"{channel}_burst")
        row = exact_log2(self.port_bytes)
        m.d.comb += [
            ready.eq(is_open != _OPEN),
            accepted.eq(valid & ready),
            burst.beat.eq(address[row:]),
            burst.beats.eq(length + 1),
            burst.error.eq(address >= self.memory_bytes),
            queue.w_en.eq(accepted),
            queue.w_data.eq(burst),
        ]
        if channel == "ar":
            m.d.comb += ended.eq(self.m_axi_rvalid & self.m_axi_rready & self.m_axi_rlast)
            self.reads_open, self.read_accepted = is_open, accepted
        else:
            m.d.comb += ended.eq(self.m_axi_bvalid & self.m_axi_bready)
            self.writes_open, self.write_accepted = is_open, accepted
            m.d.comb += self.idle.eq(~self.reads_open.any() & ~is_open.any())
        return queue

    def _order(self, m: Module) -> Value:
        """Whether the oldest burst is a write: a bit a burst, the oldest lowest; two may come and one go in a cycle."""
        self.popped = Signal()
        bits, count = Signal(2 * _OPEN), Signal(range(2 * _OPEN + 1))
        rest, left = Signal.like(bits), Signal.like(count)
        come = Cat(self.read_accepted, self.write_accepted)
        m.d.comb += [rest.eq(bits), left.eq(count)]
        with m.If(self.popped):
            m.d.comb += [rest.eq(bits[1:]), left.eq(count - 1)]
        m.d.sync += [bits.eq(rest), count.eq(left + self.read_accepted + self.write_accepted)]
        with m.Switch(come):
            with m.Case(0b10):
                m.d.sync += bits.eq(rest | (Const(1, 1) << left))
            with m.Case(0b11):
                m.d.sync += bits.eq(rest | (Const(2, 2) << left))
        return bits[0]

    def _ram(self, m: Module, reads: Value, read_row: Value, writes: Value, write_row: Value) -> None:
        """The RAM: the host's when it asks, else the bus's."""
        row, place = exact_log2(self.port_bytes), self._place_bits
        lane = self.host_address[:row]
        host_row = self.host_address[row : row + place]
        hosts = self.host_read | self.host_write
        read_en, write_en, data = Signal(), Signal(self.port_bytes), Signal(8 * self.port_bytes)
        read_at, write_at = Signal(place), Signal(place)
        m.d.comb += [
            read_en.eq(self.host_read | reads),
            read_at.eq(Mux(hosts, host_row, read_row)),
            write_at.eq(Mux(hosts, host_row, write_row)),
            data.eq(Mux(hosts, self.host_put.replicate(self.port_bytes), self.m_axi_wdata)),
        ]
        with m.If(self.host_write):
            m.d.comb += write_en.eq(Const(1, 1) << lane)
        with m.Elif(writes):
            m.d.comb += write_en.eq(self.m_axi_wstrb)
        common = {"i_clk": ClockSignal(), "i_r_en": read_en, "o_r_data": self.m_axi_rdata, "i_w_en": write_en}
        if self.single_port:
            at = Signal(place)
            m.d.comb += at.eq(Mux(read_en, read_at, write_at))
            m.submodules.ram = Instance(self.ram_name, i_addr=at, i_w_data=data, **common)
        else:
            m.submodules.ram = Instance(self.ram_name, i_r_addr=read_at, i_w_addr=write_at, i_w_data=data, **common)
        shown = Signal(row)
        with m.If(self.host_read):
            m.d.sync += shown.eq(lane)
        lanes = Array(self.m_axi_rdata[8 * number : 8 * number + 8] for number in range(self.port_bytes))
        m.d.comb += self.host_got.eq(lanes[shown])
