"""The accelerator without its control: engines, buffers and memory port, wired together."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import DomainRenamer, Module, ResetInserter, Value
from amaranth.lib import wiring
from bitwright.arch.isa.extents import FP32_BITS
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.rtl.accelerator.banks import AccMemory, BeatBanks
from bitwright.rtl.accelerator.execute import ExecuteEngine, array_of
from bitwright.rtl.accelerator.feeders import banks
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS
from bitwright.rtl.accelerator.load import LoadEngine
from bitwright.rtl.accelerator.memory_port import MemoryPort
from bitwright.rtl.accelerator.store import StoreEngine
from bitwright.rtl.accelerator.vector import VectorEngine

CORE = "core"
"""The clock domain of what the controller clears before a run: the clock of `sync`, and a reset of its own."""


class Datapath:
    """Engines, buffers and memory port of a machine; `place` puts them into a module that has the domain CORE.

    Members
        port : MemoryPort        Its m_axi_ pins and fetch streams are the caller's to connect, as are the engines'
        engines : by Op          control ports (ready, start, word, slots, done, error, bases).
    """

    def __init__(self, limits: Limits, *, outstanding_reads: int, outstanding_writes: int) -> None:
        self.limits = limits
        opened = {"outstanding_reads": outstanding_reads, "outstanding_writes": outstanding_writes}
        self.port = MemoryPort(limits.port_bytes, **opened)
        self.load = LoadEngine(limits.port_bytes, outstanding_reads=outstanding_reads)
        self.execute = ExecuteEngine(limits, array_of(limits))
        self.vector = VectorEngine(limits)
        self.store = StoreEngine(limits.port_bytes, outstanding_writes=outstanding_writes)
        self.engines: dict[Op, Any] = {
            Op.LOAD: self.load,
            Op.EXECUTE: self.execute,
            Op.VECTOR: self.vector,
            Op.STORE: self.store,
        }

    def place(self, m: Module, port_reset: Value) -> None:
        """Adds the parts to `m` as sub-modules and wires what is between them; `port_reset` resets the memory port."""
        m.submodules.port = ResetInserter(port_reset)(self.port)
        for op, engine in self.engines.items():
            m.submodules[op.name.lower()] = DomainRenamer(CORE)(engine)
        wiring.connect(m, self.load.request, self.port.load_request)
        wiring.connect(m, self.port.load_beats, self.load.beats)
        wiring.connect(m, self.store.request, self.port.store_request)
        wiring.connect(m, self.store.beats, self.port.store_beats)
        wiring.connect(m, self.port.store_response, self.store.response)
        self._place_inputs(m)
        self._place_outputs(m)

    def _place_inputs(self, m: Module) -> None:
        """The slots that Load fills."""
        limits, load, execute, vector = self.limits, self.load, self.execute, self.vector
        count = {**banks(limits), Channel.VEC: 1}
        readers = {
            Channel.ACT: ["act"],
            Channel.WGT: ["wgt"],
            Channel.PAR: list(execute.par_ports),
            Channel.VEC: ["vec"],
        }
        for index, channel in enumerate(UNIT_CHANNELS[Op.LOAD]):
            names = readers[channel]
            slots = BeatBanks(limits.capacity(channel), 8 * limits.port_bytes, count[channel], max(1, len(names)))
            m.submodules[f"{channel.value}_slots"] = DomainRenamer(CORE)(slots)
            m.d.comb += [
                slots.w_en.eq(load.write_en[index]),
                slots.w_slot.eq(load.write_slot),
                slots.w_beat.eq(load.write_beat),
                slots.w_data.eq(load.write_data),
            ]
            for place, name in enumerate(names):
                prefix = "r" if place == 0 else f"r{place}"
                if channel is Channel.VEC:
                    reader = {part: getattr(vector, f"vec_r_{part}") for part in ("en", "slot", "beat", "data")}
                else:
                    port = getattr(execute, name)
                    reader = {part: getattr(port, part) for part in ("en", "slot", "beat", "data")}
                m.d.comb += [
                    getattr(slots, f"{prefix}_en").eq(reader["en"]),
                    getattr(slots, f"{prefix}_slot").eq(reader["slot"]),
                    getattr(slots, f"{prefix}_beat").eq(reader["beat"]),
                    reader["data"].eq(getattr(slots, f"{prefix}_data")),
                ]

    def _place_outputs(self, m: Module) -> None:
        """The accumulators and the slots of results."""
        limits, acc, vector, store = self.limits, self.execute.acc, self.vector, self.store
        rows = AccMemory(limits.acc_rows, limits.cols * FP32_BITS)
        out = BeatBanks(limits.capacity(Channel.OUT), 8 * limits.port_bytes, 1)
        m.submodules.accumulators, m.submodules.out_slots = DomainRenamer(CORE)(rows), DomainRenamer(CORE)(out)
        m.d.comb += [
            rows.x_r_en.eq(acc.r_en),
            rows.x_r_slot.eq(acc.r_slot),
            rows.x_r_row.eq(acc.r_row),
            acc.r_data.eq(rows.x_r_data),
            rows.x_w_en.eq(acc.w_en),
            rows.x_w_slot.eq(acc.w_slot),
            rows.x_w_row.eq(acc.w_row),
            rows.x_w_data.eq(acc.w_data),
            rows.v_r_en.eq(vector.v_r_en),
            rows.v_r_slot.eq(vector.v_r_slot),
            rows.v_r_row.eq(vector.v_r_row),
            vector.v_r_data.eq(rows.v_r_data),
            out.w_en.eq(vector.out_w_en),
            out.w_slot.eq(vector.out_w_slot),
            out.w_beat.eq(vector.out_w_beat),
            out.w_data.eq(vector.out_w_data),
            out.r_en.eq(store.read_en),
            out.r_slot.eq(store.read_slot),
            out.r_beat.eq(store.read_beat),
            store.read_data.eq(out.r_data),
        ]
