"""The registers of `arch.registers` behind an AXI4-Lite slave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import ADDRESS_BITS, INDEX_BITS
from bitwright.arch.pe import Evidence
from bitwright.arch.registers import (
    BY_NAME,
    COUNTERS,
    IDENTITY,
    MAJOR,
    MINOR,
    OFFSET_BITS,
    REGISTERS,
    Access,
    Register,
)
from bitwright.rtl.accelerator.checker import FAULT_BITS, region_layout
from bitwright.rtl.accelerator.controller import COUNTER_LAYOUT

WORD = 32
OKAY, SLVERR = 0b00, 0b10


def axil_ports() -> dict[str, wiring.Member]:
    """The AXI4-Lite pins: name -> member, as seen from the slave."""
    channels: dict[str, dict[str, wiring.Member]] = {
        "aw": {"valid": In(1), "ready": Out(1), "addr": In(OFFSET_BITS)},
        "w": {"valid": In(1), "ready": Out(1), "data": In(WORD), "strb": In(WORD // 8)},
        "b": {"valid": Out(1), "ready": In(1), "resp": Out(2)},
        "ar": {"valid": In(1), "ready": Out(1), "addr": In(OFFSET_BITS)},
        "r": {"valid": Out(1), "ready": In(1), "data": Out(WORD), "resp": Out(2)},
    }
    return {f"s_axil_{channel}{name}": port for channel, ports in channels.items() for name, port in ports.items()}


@dataclass(frozen=True)
class _Write:
    """A write that goes in this cycle: to which register, and whether it is refused."""

    goes: Signal
    register: Signal
    data: Signal
    strobes: Signal
    refused: Signal


class RegisterFile(wiring.Component):
    """What a host writes stands at the outputs; what the accelerator says can be read.

    Parameters
        port_bytes : 8, 16, 32 or 64   A beat: bases of regions are multiples of it.
    Members
        s_axil_... : the pins (`axil_ports`)
        irq : Out(1)             An enabled interrupt has happened and was not cleared.
        start, reset : Out(1)    One cycle: 1 was written to CONTROL, to RESET.
        busy, done, error, code, index, counters : In   As of the Controller.
        has_ended, has_failed : In(1)   Raise the interrupts `done`, `error`; go before a clear in the same cycle.
        program_base, program_words, watchdog : Out(40), Out(24), Out(64)
        region_bases, region_beats : Out(4 x 40), Out(4 x 32)
    Timing       address and data of a write are taken in any order, each when none is held. With both held and no
                 response pending the write takes effect: its response comes a cycle later. A read is taken when none is
                 held, and looked up in the first cycle after that without pending data, which come a cycle later. No
                 output pin follows an input pin in the same cycle.
    Rules        of each register: arch.registers.Access. SLVERR for an offset without register, a write to one that is
                 only read, a write while `busy` to one that is only written without. Write strobes choose bytes.
    Counters     reading a LO register keeps its HI; the next read of that HI gives it, unless another LO was read.
    Reset        all registers 0, no transfer pending.
    Model        arch.registers
    Source       AMBA AXI and ACE protocol specification, ARM IHI 0022, part B; deviation: no AxPROT pins.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "every pin in every cycle of random transfers equals the model, with and without back-pressure",
            45_000,
            "tests/rtl/accelerator/test_registers.py",
        ),
    )

    def __init__(self, port_bytes: int) -> None:
        self.port_bytes = port_bytes
        super().__init__(
            {
                **axil_ports(),
                "irq": Out(1),
                "start": Out(1),
                "reset": Out(1),
                "busy": In(1),
                "done": In(1),
                "error": In(1),
                "code": In(FAULT_BITS),
                "index": In(INDEX_BITS),
                "has_ended": In(1),
                "has_failed": In(1),
                "counters": In(COUNTER_LAYOUT),
                "program_base": Out(ADDRESS_BITS),
                "program_words": Out(INDEX_BITS),
                "watchdog": Out(2 * WORD),
                "region_bases": Out(region_layout(ADDRESS_BITS)),
                "region_beats": Out(region_layout(WORD)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stored = {
            register.name: Signal(WORD, name=register.name.lower())
            for register in REGISTERS
            if register.access in (Access.RW, Access.ALWAYS, Access.CLEAR)
        }
        self._write(m, stored, self._write_channel(m))
        self._read_channel(m, stored)
        flags, enables = stored["INTERRUPT"], stored["INTERRUPT_ENABLE"]
        pairs = {name: Cat(stored[f"{name}_LO"], stored[f"{name}_HI"]) for name in ("PROGRAM_BASE", "WATCHDOG")}
        m.d.comb += [
            self.irq.eq((flags & enables).any()),
            self.program_base.eq(pairs["PROGRAM_BASE"]),
            self.program_words.eq(stored["PROGRAM_WORDS"]),
            self.watchdog.eq(pairs["WATCHDOG"]),
        ]
        for region in range(REGIONS):
            m.d.comb += [
                self.region_bases[region].eq(Cat(stored[f"REGION{region}_BASE_LO"], stored[f"REGION{region}_BASE_HI"])),
                self.region_beats[region].eq(stored[f"REGION{region}_BEATS"]),
            ]
        return m

    # --- Writes ---

    def _write_channel(self, m: Module) -> _Write:
        """Takes address and data, answers; `refused` is for the caller to drive."""
        address_held, data_held = Signal(), Signal()
        write = _Write(
            goes=Signal(name="write_goes"),
            register=Signal(OFFSET_BITS - 2, name="write_register", reset_less=True),
            data=Signal(WORD, name="write_data", reset_less=True),
            strobes=Signal(WORD // 8, name="write_strobes", reset_less=True),
            refused=Signal(name="write_refused"),
        )
        m.d.comb += [
            self.s_axil_awready.eq(~address_held),
            self.s_axil_wready.eq(~data_held),
            write.goes.eq(address_held & data_held & ~self.s_axil_bvalid),
        ]
        with m.If(self.s_axil_awvalid & ~address_held):
            m.d.sync += [address_held.eq(1), write.register.eq(self.s_axil_awaddr[2:])]
        with m.If(self.s_axil_wvalid & ~data_held):
            m.d.sync += [data_held.eq(1), write.data.eq(self.s_axil_wdata), write.strobes.eq(self.s_axil_wstrb)]
        with m.If(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(write.goes):
            m.d.sync += [
                address_held.eq(0),
                data_held.eq(0),
                self.s_axil_bvalid.eq(1),
                self.s_axil_bresp.eq(Mux(write.refused, SLVERR, OKAY)),
            ]
        return write

    def _write(self, m: Module, stored: dict[str, Signal], write: _Write) -> None:
        chosen = Cat(strobe.replicate(8) for strobe in write.strobes)
        written, cleared = Signal(WORD), Signal(WORD)
        m.d.comb += [write.refused.eq(1), written.eq(write.data & chosen)]
        with m.Switch(write.register):
            for register in REGISTERS:
                if register.access is Access.RO:
                    continue
                locked = self.busy if register.access in (Access.RW, Access.START) else Const(0, 1)
                with m.Case(register.offset >> 2):
                    m.d.comb += write.refused.eq(locked)
                    if register.access is Access.START:
                        m.d.comb += self.start.eq(write.goes & ~locked & written[0])
                    elif register.access is Access.RESET:
                        m.d.comb += self.reset.eq(write.goes & written[0])
                    elif register.access is Access.CLEAR:
                        m.d.comb += cleared.eq(Mux(write.goes, written, 0))
                    else:
                        held = stored[register.name]
                        with m.If(write.goes & ~locked):
                            m.d.sync += held.eq((written | (held & ~chosen)) & self._mask(register))
        self._interrupts(m, stored["INTERRUPT"], cleared)

    def _mask(self, register: Register) -> int:
        """Bits that can be written; not those within a beat, of a region's base."""
        return register.mask & ~(self.port_bytes - 1) if register.name.endswith("_BASE_LO") else register.mask

    def _interrupts(self, m: Module, flags: Signal, cleared: Value) -> None:
        happened = {"done": self.has_ended, "error": self.has_failed}
        for field in BY_NAME["INTERRUPT"].fields:
            with m.If(happened[field.name]):
                m.d.sync += flags[field.lowest].eq(1)
            with m.Elif(cleared[field.lowest]):
                m.d.sync += flags[field.lowest].eq(0)

    # --- Reads ---

    def _read_channel(self, m: Module, stored: dict[str, Signal]) -> None:
        held = Signal(name="read_held")
        address = Signal(OFFSET_BITS - 2, name="read_register", reset_less=True)
        goes, refused = Signal(name="read_goes"), Signal(name="read_refused")
        found = Signal(WORD)
        m.d.comb += [self.s_axil_arready.eq(~held), goes.eq(held & ~self.s_axil_rvalid)]
        with m.If(self.s_axil_arvalid & ~held):
            m.d.sync += [held.eq(1), address.eq(self.s_axil_araddr[2:])]
        with m.If(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        with m.If(goes):
            m.d.sync += [
                held.eq(0),
                self.s_axil_rvalid.eq(1),
                self.s_axil_rdata.eq(found),
                self.s_axil_rresp.eq(Mux(refused, SLVERR, OKAY)),
            ]
        values = self._values(m, stored, goes, address)
        m.d.comb += refused.eq(1)
        with m.Switch(address):
            for register in REGISTERS:
                with m.Case(register.offset >> 2):
                    m.d.comb += [found.eq(values[register.name]), refused.eq(0)]

    def _values(self, m: Module, stored: dict[str, Signal], goes: Value, address: Value) -> dict[str, Value]:
        """What a read of each register gives."""
        values: dict[str, Value] = {
            **stored,
            "ID": Const(IDENTITY << 16 | MAJOR << 8 | MINOR, WORD),
            "CONTROL": Const(0, WORD),
            "RESET": Const(0, WORD),
            "STATUS": self._fields("STATUS", busy=self.busy, done=self.done, error=self.error),
            "ERROR": self.code,
            "ERROR_INDEX": self.index,
        }
        kept = Signal(WORD, reset_less=True)
        keeps = Signal()
        whose = Signal(OFFSET_BITS - 2, reset_less=True)  # the HI register that it belongs to
        for name in COUNTERS:
            counter = getattr(self.counters, name)
            low, high = BY_NAME[f"{name.upper()}_LO"], BY_NAME[f"{name.upper()}_HI"]
            here = keeps & (whose == high.offset >> 2)
            values |= {low.name: counter[:WORD], high.name: Mux(here, kept, counter[WORD:])}
            with m.If(goes & (address == low.offset >> 2)):
                m.d.sync += [kept.eq(counter[WORD:]), keeps.eq(1), whose.eq(high.offset >> 2)]
            with m.If(goes & (address == high.offset >> 2) & here):
                m.d.sync += keeps.eq(0)
        return values

    def _fields(self, name: str, **values: Any) -> Value:
        register = BY_NAME[name]
        return Cat(values[field.name] for field in sorted(register.fields, key=lambda field: field.lowest))
