"""The accelerator's one way to memory: an AXI4 master for the fetcher, Load and Store."""

from __future__ import annotations

from typing import ClassVar

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.limits import PORT_BYTES
from bitwright.arch.isa.placement import ADDRESS_BITS
from bitwright.arch.machine import MOST_OPEN
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.bursts import BURST

_INCREMENTING = 0b01
_MODIFIABLE = 0b0010
_UNPRIVILEGED_SECURE_DATA = 0b000


def axi_ports(port_bytes: int) -> dict[str, wiring.Member]:
    """The AXI4 pins of the port, and of the accelerator: name -> member, as seen from the master."""
    address = {"valid": Out(1), "ready": In(1), "addr": Out(ADDRESS_BITS), "len": Out(8), "size": Out(3)}
    address |= {"burst": Out(2), "cache": Out(4), "prot": Out(3)}
    channels: dict[str, dict[str, wiring.Member]] = {
        "ar": address,
        "r": {"valid": In(1), "ready": Out(1), "data": In(8 * port_bytes), "resp": In(2), "last": In(1)},
        "aw": address,
        "w": {
            "valid": Out(1),
            "ready": In(1),
            "data": Out(8 * port_bytes),
            "strb": Out(port_bytes),
            "last": Out(1),
        },
        "b": {"valid": In(1), "ready": Out(1), "resp": In(2)},
    }
    return {f"m_axi_{channel}{name}": port for channel, ports in channels.items() for name, port in ports.items()}


def read_beats(port_bytes: int) -> wiring.Signature:
    """Beats of a requester: nothing holds them back."""
    return wiring.Signature({"valid": Out(1), "data": Out(8 * port_bytes), "last": Out(1), "error": Out(1)})


def write_beat(port_bytes: int) -> StructLayout:
    """A beat to write; `last` of its burst."""
    return StructLayout({"data": 8 * port_bytes, "strobe": port_bytes, "last": 1})


RESPONSE = wiring.Signature({"valid": Out(1), "error": Out(1)})
"""The end of a write burst."""


class MemoryPort(wiring.Component):
    """Two readers and one writer on one AXI4 master with one ID: everything is answered in order.

    Parameters
        port_bytes : 8, 16, 32 or 64   A beat.
        outstanding_reads, outstanding_writes : int, 1..64   Bursts that may be open: taken, and the last beat (the
            response) not yet seen on the pins.
    Members
        fetch_request, load_request, store_request : In(stream of BURST)
        fetch_beats, load_beats : Out(read_beats)      `error` of a beat, `last` of a burst.
        store_beats : In(stream of write_beat)         In the order of the requests.
        store_response : Out(RESPONSE)
        idle : Out(1)            Nothing is open and nothing is shown in this cycle.
        m_axi_... : the pins (`axi_ports`)
    Timing       reads: a request is taken in cycle t if ARVALID is low or ARREADY high, and fewer than
                 `outstanding_reads` are open (counted in registers: a request counts from t + 1, to the cycle of its
                 last R beat); the fetcher's before Load's. ARVALID from t + 1. RREADY is always high; a beat on the
                 pins in cycle r is shown to its requester in r + 1.
                 writes: likewise, to the cycle of the B on the pins. A beat is on the W pins as long as it is offered
                 and its burst's address was taken in an earlier cycle: so WVALID never comes before AWVALID. BREADY is
                 always high; a response on the pins in cycle b is shown in b + 1.
                 No output pin follows an input pin in the same cycle.
    Reset        all streams idle, nothing open; only while no burst is open.
    Model        arch.fixed_memory, of the memory behind it.
    Source       AMBA AXI and ACE protocol specification, ARM IHI 0022; deviation: none known.
    Errors       ConfigError for a width or a count out of its range.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "Loads, Stores and fetches at once, in the cycles of the model, four widths; bytes with random stalls",
            2_736,
            "tests/rtl/accelerator/test_memory_port.py",
        ),
        Evidence(
            "AXI4 rules and bytes against cocotbext-axi with random pauses on all five channels",
            240,
            "tests/rtl/accelerator/test_axi_protocol.py",
        ),
    )

    def __init__(self, port_bytes: int, *, outstanding_reads: int = 16, outstanding_writes: int = 16) -> None:
        if port_bytes not in PORT_BYTES:
            raise ConfigError(f"port_bytes = {port_bytes!r}: must be 8, 16, 32 or 64")
        for name, count in (("reads", outstanding_reads), ("writes", outstanding_writes)):
            if not 1 <= count <= MOST_OPEN:
                raise ConfigError(f"outstanding_{name} = {count!r}: must be in 1..{MOST_OPEN}")
        self.port_bytes = port_bytes
        self.outstanding_reads, self.outstanding_writes = outstanding_reads, outstanding_writes
        super().__init__(
            {
                "fetch_request": In(stream.Signature(BURST)),
                "fetch_beats": Out(read_beats(port_bytes)),
                "load_request": In(stream.Signature(BURST)),
                "load_beats": Out(read_beats(port_bytes)),
                "store_request": In(stream.Signature(BURST)),
                "store_beats": In(stream.Signature(write_beat(port_bytes))),
                "store_response": Out(RESPONSE),
                "idle": Out(1),
                **axi_ports(port_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for channel in ("ar", "aw"):
            m.d.comb += [
                getattr(self, f"m_axi_{channel}size").eq(exact_log2(self.port_bytes)),
                getattr(self, f"m_axi_{channel}burst").eq(_INCREMENTING),
                getattr(self, f"m_axi_{channel}cache").eq(_MODIFIABLE),
                getattr(self, f"m_axi_{channel}prot").eq(_UNPRIVILEGED_SECURE_DATA),
            ]
        reads_open = self._read(m)
        writes_open = self._write(m)
        shown = self.fetch_beats.valid | self.load_beats.valid | self.store_response.valid
        m.d.comb += self.idle.eq(~shown & ~reads_open.any() & ~writes_open.any())
        return m

    def _read(self, m: Module) -> Value:
        """Address register, the order of requesters, beats to them; returns how many bursts are open."""
        fetch, load = self.fetch_request, self.load_request
        can_take, taken, ended = Signal(name="read_can"), Signal(name="read_taken"), Signal(name="read_ended")
        is_open = open_count(m, "reads_open", self.outstanding_reads, taken, ended)
        m.d.comb += [
            can_take.eq((~self.m_axi_arvalid | self.m_axi_arready) & (is_open != self.outstanding_reads)),
            fetch.ready.eq(can_take),
            load.ready.eq(can_take & ~fetch.valid),
            taken.eq(can_take & (fetch.valid | load.valid)),
            self.m_axi_rready.eq(1),
            ended.eq(self.m_axi_rvalid & self.m_axi_rlast),
        ]
        _address(m, self, "ar", taken, Mux(fetch.valid, fetch.payload.as_value(), load.payload.as_value()))

        # Whose each open burst is, 1 for Load: a ring with one-hot places of the next and of the oldest one.
        owners = Signal(self.outstanding_reads, reset_less=True)
        newest, oldest = (Signal(self.outstanding_reads, init=1, name=name) for name in ("newest", "oldest"))
        with m.If(taken):
            m.d.sync += [
                owners.eq(Mux(fetch.valid, owners & ~newest, owners | newest)),
                newest.eq(newest.rotate_left(1)),
            ]
        with m.If(ended):
            m.d.sync += oldest.eq(oldest.rotate_left(1))
        is_load = (owners & oldest).any()
        m.d.sync += [
            self.fetch_beats.valid.eq(self.m_axi_rvalid & ~is_load),
            self.load_beats.valid.eq(self.m_axi_rvalid & is_load),
        ]
        data, last, error = (
            Signal(bits, name=f"read_{name}", reset_less=True)
            for name, bits in (("data", 8 * self.port_bytes), ("last", 1), ("error", 1))
        )
        m.d.sync += [data.eq(self.m_axi_rdata), last.eq(self.m_axi_rlast), error.eq(self.m_axi_rresp.any())]
        for beats in (self.fetch_beats, self.load_beats):
            m.d.comb += [beats.data.eq(data), beats.last.eq(last), beats.error.eq(error)]
        return is_open

    def _write(self, m: Module) -> Value:
        """Address register, beats behind it, responses; returns how many bursts are open."""
        request, beats = self.store_request, self.store_beats
        can_take, taken, ended = Signal(name="write_can"), Signal(name="write_taken"), Signal(name="write_ended")
        is_open = open_count(m, "writes_open", self.outstanding_writes, taken, ended)
        all_sent = Signal()
        owed = open_count(m, "data_owed", self.outstanding_writes, taken, all_sent)
        m.d.comb += [
            can_take.eq((~self.m_axi_awvalid | self.m_axi_awready) & (is_open != self.outstanding_writes)),
            request.ready.eq(can_take),
            taken.eq(can_take & request.valid),
            self.m_axi_wvalid.eq(beats.valid & owed.any()),
            beats.ready.eq(self.m_axi_wready & owed.any()),
            self.m_axi_wdata.eq(beats.payload.data),
            self.m_axi_wstrb.eq(beats.payload.strobe),
            self.m_axi_wlast.eq(beats.payload.last),
            all_sent.eq(self.m_axi_wvalid & self.m_axi_wready & self.m_axi_wlast),
            self.m_axi_bready.eq(1),
            ended.eq(self.m_axi_bvalid),
        ]
        _address(m, self, "aw", taken, request.payload.as_value())
        error = Signal(name="response_error", reset_less=True)
        m.d.sync += [self.store_response.valid.eq(self.m_axi_bvalid), error.eq(self.m_axi_bresp.any())]
        m.d.comb += self.store_response.error.eq(error)
        return is_open


def open_count(m: Module, name: str, most: int, begins: Value, ends: Value) -> Signal:
    """How many of at most `most` have begun and not ended, in a register."""
    count = Signal(range(most + 1), name=name)
    with m.If(begins & ~ends):
        m.d.sync += count.eq(count + 1)
    with m.If(ends & ~begins):
        m.d.sync += count.eq(count - 1)
    return count


def _address(m: Module, port: MemoryPort, channel: str, taken: Value, bits: Value) -> None:
    """The register of an address channel: holds a burst until the memory takes it."""
    valid, ready = getattr(port, f"m_axi_{channel}valid"), getattr(port, f"m_axi_{channel}ready")
    burst = BURST(bits)
    held = Signal(BURST, name=f"{channel}_burst", reset_less=True)
    with m.If(taken):
        m.d.sync += [valid.eq(1), held.eq(burst)]
    with m.Elif(ready):
        m.d.sync += valid.eq(0)
    m.d.comb += [
        getattr(port, f"m_axi_{channel}addr").eq(held.address),
        getattr(port, f"m_axi_{channel}len").eq(held.beats - 1),
    ]
