"""The accelerator's buffers: beats in banks, so that a reader gets several in a row at once, and accumulator rows."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2
from bitwright.arch.errors import ConfigError

ADDRESS_BITS = 16
"""Of a beat or a row in a slot."""

SLOTS = 2


def banks_needed(row_bits: Iterable[int], port_bits: int, *, padded: bool = False) -> int:
    """How many banks a reader of rows of these widths needs: a power of two.

    Dense rows of R bits begin at multiples of g = gcd(R, port_bits) bits from the start of a beat, and at every one of
    them sooner or later, since R / g is odd: the worst is port_bits - g, and the row ends R bits later. Padded rows
    begin with a beat. A width of 0 is a row that nobody reads.
    """
    beats = 1
    for bits in row_bits:
        worst = 0 if padded else port_bits - gcd(bits, port_bits)
        beats = max(beats, -(-(worst + bits) // port_bits))
    return 1 << ceil_log2(beats)


class BeatBanks(wiring.Component):
    """Two slots of beats; a read gives `banks` beats in a row, from any beat on.

    Beat i of a slot is in bank i mod banks. Each slot, bank and read port has a memory of its own with one read and one
    write port, so one slot can be written while another is read.

    Parameters
        depth_beats : int, 1..65536     Size of a slot.
        port_bits : int                 Bits of a beat.
        banks : int, a power of two     Beats that a read gives.
        read_ports : int, 1 or more     Each costs a copy of the memories.
    Members
        w_en, w_slot, w_beat, w_data : In(1), In(1), In(16), In(port_bits)    Write.
        r_en, r_slot, r_beat : In(1), In(1), In(16)   Read; of further read ports r1_en, ..., r2_en, ...
        r_data : Out(banks * port_bits)   Beat r_beat lowest, then r_beat + 1, ...
    Timing       a write takes effect at the end of its cycle. A read in cycle t shows in t + 1, and stays until the
                 cycle after the port's next read.
    Rules        w_beat and r_beat are below depth_beats. A beat that is written in the cycle in which it is read comes
                 out old. Beats of r_data from depth_beats on are undefined.
    Reset        none: the contents stay.
    """

    def __init__(self, depth_beats: int, port_bits: int, banks: int, read_ports: int = 1) -> None:
        if not 1 <= depth_beats <= 1 << ADDRESS_BITS:
            raise ConfigError(f"banks depth_beats = {depth_beats}: must be in 1..{1 << ADDRESS_BITS}")
        if banks < 1 or banks & (banks - 1):
            raise ConfigError(f"banks banks = {banks}: must be a power of two")
        self.depth_beats = depth_beats
        self.port_bits = port_bits
        self.banks = banks
        self.read_ports = read_ports
        ports: dict[str, Any] = {
            "w_en": In(1),
            "w_slot": In(1),
            "w_beat": In(ADDRESS_BITS),
            "w_data": In(port_bits),
        }
        for prefix in self._prefixes():
            ports[f"{prefix}_en"] = In(1)
            ports[f"{prefix}_slot"] = In(1)
            ports[f"{prefix}_beat"] = In(ADDRESS_BITS)
            ports[f"{prefix}_data"] = Out(banks * port_bits)
        super().__init__(ports)

    def _prefixes(self) -> list[str]:
        return ["r" if port == 0 else f"r{port}" for port in range(self.read_ports)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for prefix in self._prefixes():
            self._read_port(m, prefix)
        return m

    def _read_port(self, m: Module, prefix: str) -> None:
        """A copy of the memories, and the beats of a read in their order."""
        place_bits = ceil_log2(self.banks)
        enable, slot, beat = (getattr(self, f"{prefix}_{name}") for name in ("en", "slot", "beat"))
        first_bank, first_row = beat[:place_bits], beat[place_bits:]
        taken_slot = Signal(name=f"{prefix}_slot_taken", reset_less=True)
        taken_bank = Signal(place_bits, name=f"{prefix}_bank_taken", reset_less=True) if place_bits else first_bank
        with m.If(enable):
            m.d.sync += taken_slot.eq(slot)
            m.d.sync += [taken_bank.eq(first_bank)] if place_bits else []
        shown: list[Value] = []
        for bank in range(self.banks):
            # A bank before the first one has a beat of the next row.
            row = first_row + (first_bank > bank) if bank + 1 < self.banks else first_row
            words = [self._memory(m, prefix, index, bank, enable & (slot == index), row) for index in range(SLOTS)]
            shown.append(Mux(taken_slot, words[1], words[0]))
        for bank, beat_bits in enumerate(self._rotated(shown, taken_bank)):
            data = getattr(self, f"{prefix}_data")
            m.d.comb += data[bank * self.port_bits : (bank + 1) * self.port_bits].eq(beat_bits)

    def _rotated(self, shown: list[Value], first: Value) -> list[Value]:
        """The beats from bank `first` on, around to the one before it."""
        for bit in range(len(first)):
            step = 1 << bit
            turned = [shown[(place + step) % self.banks] for place in range(self.banks)]
            shown = [Mux(first[bit], there, here) for there, here in zip(turned, shown, strict=True)]
        return shown

    def _memory(self, m: Module, prefix: str, slot: int, bank: int, enable: Value, row: Value) -> Value:
        """The memory of a slot, bank and read port, written and read; what it shows."""
        place_bits = ceil_log2(self.banks)
        read, write = _memory(m, f"{prefix}_slot{slot}_bank{bank}", -(-self.depth_beats // self.banks), self.port_bits)
        place = self.w_beat[:place_bits]
        m.d.comb += [
            write.en.eq(self.w_en & (self.w_slot == slot) & (place == bank if bank else ~place.any())),
            write.addr.eq(self.w_beat[place_bits:]),
            write.data.eq(self.w_data),
            read.en.eq(enable),
            read.addr.eq(row),
        ]
        return read.data


class AccMemory(wiring.Component):
    """Two slots of accumulator rows, for the collector (x: reads and writes) and the vector unit (v: reads).

    Parameters
        rows : int, 1..65536     Size of a slot.
        width_bits : int         Bits of a row.
    Members
        x_r_en, x_r_slot, x_r_row, x_r_data : In(1), In(1), In(16), Out(width_bits)
        x_w_en, x_w_slot, x_w_row, x_w_data : In(1), In(1), In(16), In(width_bits)
        v_r_en, v_r_slot, v_r_row, v_r_data : In(1), In(1), In(16), Out(width_bits)
    Timing       a write takes effect at the end of its cycle. A read in cycle t shows in t + 1, and stays until the
                 cycle after the port's next read, or until the other port reads that slot.
    Rules        rows are below `rows`; x and v never use one slot in one cycle. A row that is written in the cycle in
                 which it is read comes out old.
    Reset        none: the contents stay.
    """

    def __init__(self, rows: int, width_bits: int) -> None:
        if not 1 <= rows <= 1 << ADDRESS_BITS:
            raise ConfigError(f"accumulators rows = {rows}: must be in 1..{1 << ADDRESS_BITS}")
        self.rows = rows
        self.width_bits = width_bits
        ports: dict[str, Any] = {}
        for port, flow in (("x_r", Out), ("x_w", In), ("v_r", Out)):
            ports[f"{port}_en"] = In(1)
            ports[f"{port}_slot"] = In(1)
            ports[f"{port}_row"] = In(ADDRESS_BITS)
            ports[f"{port}_data"] = flow(width_bits)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shown: list[Value] = []
        for slot in range(SLOTS):
            read, write = _memory(m, f"slot{slot}", self.rows, self.width_bits)
            mine = self.x_r_en & (self.x_r_slot == slot)
            m.d.comb += [
                write.en.eq(self.x_w_en & (self.x_w_slot == slot)),
                write.addr.eq(self.x_w_row),
                write.data.eq(self.x_w_data),
                read.en.eq(mine | (self.v_r_en & (self.v_r_slot == slot))),
                read.addr.eq(Mux(mine, self.x_r_row, self.v_r_row)),
            ]
            shown.append(read.data)
        for enable, slot_now, data, name in (
            (self.x_r_en, self.x_r_slot, self.x_r_data, "x_slot_taken"),
            (self.v_r_en, self.v_r_slot, self.v_r_data, "v_slot_taken"),
        ):
            taken = Signal(name=name, reset_less=True)
            with m.If(enable):
                m.d.sync += taken.eq(slot_now)
            m.d.comb += data.eq(Mux(taken, shown[1], shown[0]))
        return m


def _memory(m: Module, name: str, rows: int, bits: int) -> tuple[ReadPort, WritePort]:
    """A memory with a read port that keeps what it shows, and a write port; one row would have no address."""
    memory = m.submodules[name] = Memory(shape=bits, depth=max(2, rows), init=[])
    return memory.read_port(transparent_for=()), memory.write_port()
