# amaranth: UnusedElaboratable=no
# (an accelerator may be made only to ask for its name or its parts)
"""The accelerator: registers, controller, fetcher, units and datapath in one module, and its Verilog."""

from __future__ import annotations

import re
from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetInserter, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.instructions import UNITS
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.machine import Machine
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.channels import ChannelLink
from bitwright.rtl.accelerator.controller import Controller
from bitwright.rtl.accelerator.datapath import CORE, Datapath
from bitwright.rtl.accelerator.execute import execute_verilog
from bitwright.rtl.accelerator.fetcher import Fetcher
from bitwright.rtl.accelerator.interfaces import PRODUCED, UNIT_CHANNELS
from bitwright.rtl.accelerator.lanes import lane_verilog
from bitwright.rtl.accelerator.memory_port import axi_ports
from bitwright.rtl.accelerator.register_file import RegisterFile, axil_ports
from bitwright.rtl.accelerator.unit_control import UnitControl
from bitwright.rtl.pe.emit import plain

_NOT = re.compile(r"= ! (\w+ ?(?:\[[\d:]+\])?);")
"""As Yosys writes that a word is 0; the same, and lint-clean, is the NOR of its bits."""


class Accelerator(wiring.Component):
    """Runs programs of arch.isa: fetches them and their operands from memory, and writes the results there.

    Parameters
        limits : Limits          The machine as its programs see it.
        outstanding_reads, outstanding_writes : int, 1..64   Bursts that the memory port keeps open.
    Members
        s_axil_... : AXI4-Lite   The registers of arch.registers (docs/registers.md).
        m_axi_... : AXI4         Master, one ID, in order (`memory_port.axi_ports`).
        irq : Out(1)             As INTERRUPT and INTERRUPT_ENABLE say.
        running : Out(1)         High in the cycles of a run; CYCLES counts them.
        trace_starts, trace_dones : Out(4)   A unit starts an instruction, is done with one; bit i of the i-th of UNITS.
    Timing       cycle by cycle that of the simulator (sim.accelerator) for the same program and memory.
    Arithmetic   every byte in memory that of arch.isa.interpreter.
    Reset        synchronous, active high: all control state. Before each run the controller clears all but itself, the
                 registers and the memory port, in the domain "core", whose clock is the same wire. A 1 written to RESET
                 clears all but the registers that a host writes: for a memory that never answers, whose transactions
                 keep `busy` high after a watchdog's error. The memory behind the port must be reset with it.
    Model        arch.isa, sim.accelerator.
    Source       our own design; decoupled access and execute: J. E. Smith, ISCA 1982; dependency tokens as in VTA,
                 T. Moreau et al., IEEE Micro 2019.
    """

    def __init__(self, limits: Limits, *, outstanding_reads: int = 16, outstanding_writes: int = 16) -> None:
        self.limits = limits
        self.opened = {"outstanding_reads": outstanding_reads, "outstanding_writes": outstanding_writes}
        self.datapath = Datapath(limits, **self.opened)
        ports: dict[str, Any] = {
            **axil_ports(),
            **axi_ports(limits.port_bytes),
            "irq": Out(1),
            "running": Out(1),
            "trace_starts": Out(len(UNITS)),
            "trace_dones": Out(len(UNITS)),
        }
        super().__init__(ports)

    @property
    def module_name(self) -> str:
        """The Verilog module's name, such as `accelerator_int8_mac_ws_16x16_p16_int8_int4`."""
        limits = self.limits
        formats = "_".join(form.name for form in limits.formats)
        array = self.datapath.execute.array.module_name
        return re.sub(r"\W", "_", f"accelerator_{array}_p{limits.port_bytes}_{formats}")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = RegisterFile(self.limits.port_bytes)
        m.submodules.controller = ResetInserter(registers.reset)(controller := Controller())
        m.domains.core = core = ClockDomain(CORE)
        m.d.comb += [core.clk.eq(ClockSignal()), core.rst.eq(ResetSignal() | controller.clear | registers.reset)]
        self.datapath.place(m, registers.reset)
        self._pins(m, registers, "s_axil_")
        self._pins(m, self.datapath.port, "m_axi_")
        self._control(m, registers, controller)
        return m

    def _pins(self, m: Module, part: Any, prefix: str) -> None:
        """The part's pins are the accelerator's."""
        for name, member in self.signature.members.items():
            if name.startswith(prefix):
                own, its = getattr(self, name), getattr(part, name)
                m.d.comb += its.eq(own) if member.flow is In else own.eq(its)

    def _control(self, m: Module, registers: RegisterFile, controller: Controller) -> None:
        """Fetcher, units and the slots between them."""
        path = self.datapath
        m.submodules.fetcher = DomainRenamer(CORE)(fetcher := Fetcher(self.limits))
        links = {channel: ChannelLink() for channel in Channel}
        for channel, link in links.items():
            m.submodules[f"{channel.value}_link"] = DomainRenamer(CORE)(link)
        wiring.connect(m, fetcher.request, path.port.fetch_request)
        wiring.connect(m, path.port.fetch_beats, fetcher.beats)
        wiring.connect(m, fetcher.state, controller.fetch)
        units = {op: UnitControl(op) for op in UNITS}
        for op, unit in units.items():
            name, engine = op.name.lower(), path.engines[op]
            m.submodules[f"{name}_control"] = DomainRenamer(CORE)(unit)
            wiring.connect(m, getattr(fetcher, f"entry_{name}"), unit.entry)
            wiring.connect(m, unit.state, getattr(controller, name))
            for channel in UNIT_CHANNELS[op]:
                link = links[channel]
                side = link.producer if channel in PRODUCED[op] else link.consumer
                wiring.connect(m, getattr(unit, f"link_{channel}"), side)
            m.d.comb += [
                unit.running.eq(controller.running),
                unit.ready.eq(engine.ready),
                unit.done.eq(engine.done),
                engine.start.eq(unit.start),
                engine.word.eq(unit.word),
                engine.slots.eq(unit.slots),
            ]
        m.d.comb += [
            fetcher.running.eq(controller.running),
            fetcher.program_base.eq(registers.program_base),
            fetcher.program_words.eq(registers.program_words),
            fetcher.region_beats.eq(registers.region_beats),
            path.load.bases.eq(registers.region_bases),
            path.store.bases.eq(registers.region_bases),
            controller.start.eq(registers.start),
            controller.watchdog.eq(registers.watchdog),
            controller.load_error.eq(path.load.error),
            controller.store_error.eq(path.store.error),
            controller.port_idle.eq(path.port.idle),
            controller.beat_read.eq(self.m_axi_rvalid & self.m_axi_rready),
            controller.beat_written.eq(self.m_axi_wvalid & self.m_axi_wready),
            self.irq.eq(registers.irq),
            self.running.eq(controller.running),
            self.trace_starts.eq(Cat(unit.start for unit in units.values())),
            self.trace_dones.eq(Cat(path.engines[op].done for op in UNITS)),
        ]
        for name in ("busy", "done", "error", "code", "index", "has_ended", "has_failed", "counters"):
            m.d.comb += getattr(registers, name).eq(getattr(controller, name))


def opened(machine: Machine) -> dict[str, int]:
    """The bursts that a machine's memory port keeps open, as `Accelerator` is told."""
    return {name: getattr(machine.port, name) for name in ("outstanding_reads", "outstanding_writes")}


def verilog(limits: Limits, **opened: int) -> tuple[str, str]:
    """Name and Verilog-2001 of a machine's accelerator: each distinct PE, decoder, result unit and lane once."""
    made = Accelerator(limits, **opened)
    return made.module_name, verilog_of(made, made.module_name, made)


def verilog_of(part: wiring.Component, name: str, accelerator: Accelerator, *modules: str) -> str:
    """Verilog-2001 of `part` as the module `name`, with all of the accelerator that is in it, and these modules."""
    parts = [memories.verilog(part, name), *modules, execute_verilog(accelerator.datapath.execute), lane_verilog()]
    return _NOT.sub(r"= ~| \1;", plain("\n".join(parts)))
