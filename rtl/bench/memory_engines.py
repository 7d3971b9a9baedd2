"""MemoryPort, Load and Store as one design with queues in front, for their tests; the rest of the accelerator is left
out."""

from __future__ import annotations

from amaranth.back import verilog as backend
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.fields import WORD_BITS
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import ADDRESS_BITS
from bitwright.arch.isa.timing import IN_FLIGHT
from bitwright.rtl.accelerator.bursts import BURST
from bitwright.rtl.accelerator.load import BEAT_BITS, LoadEngine
from bitwright.rtl.accelerator.memory_port import MemoryPort, axi_ports
from bitwright.rtl.accelerator.store import StoreEngine

QUEUE = 256
TOP = "memory_engines"
_IDS: dict[str, wiring.Member] = {"arid": Out(1), "rid": In(1), "awid": Out(1), "bid": In(1)}


def stored_beat(slot: int, beat: int, port_bytes: int) -> bytes:
    """What the out slots of `MemoryEngines` hold."""
    return b"".join((beat | (2 * lane + slot) << 16).to_bytes(4, "little") for lane in range(port_bytes // 4))


class MemoryEngines(wiring.Component):
    """The port and its three users. Load and Store start their instructions as the accelerator's units do.

    Parameters
        port_bytes, outstanding_reads, outstanding_writes : as of MemoryPort
    Members (x: load, store, fetch)
        x_push : In(1)           Queues the x instruction (or fetch burst) in the inputs below: visible a cycle later.
        load_word, store_word : In(128); load_slots : In(4), store_slots : In(1); fetch_burst : In(BURST)
        bases : In(4 x 40)
        x_start, x_ready, x_done, x_error : Out(1)   Of Load and Store.
        load_write_en, load_write_slot, load_write_beat, load_write_data : of LoadEngine
        fetch_valid, fetch_data, fetch_last, fetch_error, fetch_taken : Out   Of the fetch requester.
        idle : Out(1)            Of the port.
        m_axi_... : the pins, and the ID signals, always 0, that models of a slave want
    Timing       as of the parts. A Load or Store starts in the first cycle in which it is visible, its engine is ready
                 and fewer than IN_FLIGHT are started and not done (in a register).
    """

    def __init__(self, port_bytes: int, *, outstanding_reads: int = 16, outstanding_writes: int = 16) -> None:
        self.port = MemoryPort(port_bytes, outstanding_reads=outstanding_reads, outstanding_writes=outstanding_writes)
        self.load = LoadEngine(port_bytes, outstanding_reads=outstanding_reads)
        self.store = StoreEngine(port_bytes, outstanding_writes=outstanding_writes)
        self.port_bytes = port_bytes
        flags = {f"{unit}_{name}": Out(1) for unit in ("load", "store") for name in ("start", "ready", "done", "error")}
        super().__init__(
            {
                **{f"{user}_push": In(1) for user in ("load", "store", "fetch")},
                "load_word": In(WORD_BITS),
                "store_word": In(WORD_BITS),
                "load_slots": In(4),
                "store_slots": In(1),
                "fetch_burst": In(BURST),
                "bases": In(ArrayLayout(ADDRESS_BITS, REGIONS)),
                **flags,
                "load_write_en": Out(4),
                "load_write_slot": Out(1),
                "load_write_beat": Out(BEAT_BITS),
                "load_write_data": Out(8 * port_bytes),
                **{f"fetch_{name}": Out(1) for name in ("valid", "last", "error", "taken")},
                "fetch_data": Out(8 * port_bytes),
                "idle": Out(1),
                **axi_ports(port_bytes),
                **{f"m_axi_{name}": member for name, member in _IDS.items()},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.port, m.submodules.load, m.submodules.store = port, load, store = self.port, self.load, self.store
        for name, member in axi_ports(self.port_bytes).items():
            pin, own = getattr(port, name), getattr(self, name)
            m.d.comb += own.eq(pin) if member.flow == Out else pin.eq(own)
        wiring.connect(m, load.request, port.load_request)
        wiring.connect(m, port.load_beats, load.beats)
        wiring.connect(m, store.request, port.store_request)
        wiring.connect(m, store.beats, port.store_beats)
        wiring.connect(m, port.store_response, store.response)
        for name in ("load", "store"):
            self._unit(m, name, getattr(self, name))
        for name in ("write_en", "write_slot", "write_beat", "write_data"):
            m.d.comb += getattr(self, f"load_{name}").eq(getattr(load, name))
        for name in ("valid", "data", "last", "error"):
            m.d.comb += getattr(self, f"fetch_{name}").eq(getattr(port.fetch_beats, name))
        m.submodules.fetch_queue = queue = SyncFIFO(width=BURST.size, depth=QUEUE)
        m.d.comb += [
            queue.w_en.eq(self.fetch_push),
            queue.w_data.eq(self.fetch_burst),
            port.fetch_request.valid.eq(queue.r_rdy),
            port.fetch_request.payload.eq(queue.r_data),
            queue.r_en.eq(port.fetch_request.ready),
            self.fetch_taken.eq(queue.r_rdy & queue.r_en),
            self.idle.eq(port.idle),
        ]
        with m.If(store.read_en):
            m.d.sync += store.read_data.eq(self._stored(store.read_slot, store.read_beat))
        return m

    def _unit(self, m: Module, name: str, engine: LoadEngine | StoreEngine) -> None:
        """A queue in front of an engine, and the rule by which it starts."""
        word, slots = getattr(self, f"{name}_word"), getattr(self, f"{name}_slots")
        queue = SyncFIFO(width=WORD_BITS + len(slots), depth=QUEUE)
        m.submodules[f"{name}_queue"] = queue
        in_flight = Signal(range(IN_FLIGHT + 1), name=f"{name}_in_flight")
        start = getattr(self, f"{name}_start")
        m.d.comb += [
            queue.w_en.eq(getattr(self, f"{name}_push")),
            queue.w_data.eq(Cat(word, slots)),
            start.eq(queue.r_rdy & engine.ready & (in_flight != IN_FLIGHT)),
            queue.r_en.eq(start),
            engine.start.eq(start),
            Cat(engine.word, engine.slots).eq(queue.r_data),
            engine.bases.eq(self.bases),
        ]
        for output in ("ready", "done", "error"):
            m.d.comb += getattr(self, f"{name}_{output}").eq(getattr(engine, output))
        m.d.sync += in_flight.eq(in_flight + start - engine.done)

    def _stored(self, slot: Value, beat: Value) -> Value:
        """`stored_beat` in gates."""
        return Cat(Cat(beat, slot, Const(lane, 15)) for lane in range(self.port_bytes // 4))


def memory_engines_verilog(port_bytes: int, *, outstanding_reads: int = 16, outstanding_writes: int = 16) -> str:
    """Verilog of `MemoryEngines`; its top module is TOP."""
    design = MemoryEngines(port_bytes, outstanding_reads=outstanding_reads, outstanding_writes=outstanding_writes)
    text: str = backend.convert(design, name=TOP, emit_src=False)
    return text
