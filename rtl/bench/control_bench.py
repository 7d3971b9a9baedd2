"""The accelerator's control with engines and a memory that the bench plays: to be compared with `control_model`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from bitwright.arch.isa.fields import WORD_BITS, WORD_BYTES
from bitwright.arch.isa.instructions import UNITS
from bitwright.arch.isa.limits import Channel, Limits
from bitwright.arch.isa.placement import ADDRESS_BITS, INDEX_BITS
from bitwright.arch.isa.timing import IN_FLIGHT
from bitwright.rtl.accelerator.channels import ChannelLink
from bitwright.rtl.accelerator.checker import FAULT_BITS, region_layout
from bitwright.rtl.accelerator.controller import COUNTER_LAYOUT, Controller
from bitwright.rtl.accelerator.fetcher import Fetcher
from bitwright.rtl.accelerator.interfaces import PRODUCED, UNIT_CHANNELS
from bitwright.rtl.accelerator.unit_control import UnitControl
from bitwright.rtl.bench.control_model import REQUESTS, Choices, Seen, Setup
from bitwright.rtl.bench.verilator import Compiled

MEMORY_BYTES = 2048
"""Of the program's memory; addresses are taken modulo it."""


class ControlBench(wiring.Component):
    """Controller, fetcher, four UnitControls and six links; inputs as of `control_model.Choices` and `Setup`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        beats = MEMORY_BYTES // limits.port_bytes
        super().__init__(
            {
                "store_en": In(1),
                "store_beat": In(range(beats)),
                "store_data": In(8 * limits.port_bytes),
                "store_broken": In(1),
                "start": In(1),
                "program_base": In(ADDRESS_BITS),
                "program_words": In(INDEX_BITS),
                "region_beats": In(region_layout(32)),
                "watchdog": In(64),
                "request": In(1),
                "beat": In(1),
                "ready": In(4),
                "done": In(4),
                "load_error": In(1),
                "store_error": In(1),
                "clear": Out(1),
                "running": Out(1),
                "status": Out(3 + FAULT_BITS + INDEX_BITS),
                "ends": Out(2),
                "request_valid": Out(1),
                "request_address": Out(ADDRESS_BITS),
                "request_beats": Out(9),
                "taken": Out(1),
                "pushed": Out(4),
                "started": Out(4),
                "finished": Out(4),
                **{f"slots_{op.name.lower()}": Out(len(UNIT_CHANNELS[op])) for op in UNITS},
                **{f"word_{op.name.lower()}": Out(WORD_BITS) for op in UNITS},
                "counters": Out(COUNTER_LAYOUT.size),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = control = Controller()

        def cleared(part: Any) -> Any:
            return ResetInserter(control.clear)(part)

        m.submodules.fetcher = cleared(fetcher := Fetcher(self.limits))
        links = {channel: ChannelLink() for channel in Channel}
        for channel, link in links.items():
            m.submodules[f"link_{channel}"] = cleared(link)
        units = {op: UnitControl(op) for op in UNITS}
        pushed, engines = [], {}
        for place, (op, unit) in enumerate(units.items()):
            name = op.name.lower()
            m.submodules[name] = cleared(unit)
            for channel in UNIT_CHANNELS[op]:
                side = links[channel].producer if channel in PRODUCED[op] else links[channel].consumer
                wiring.connect(m, getattr(unit, f"link_{channel}"), side)
            entry = getattr(fetcher, f"entry_{name}")
            wiring.connect(m, entry, unit.entry)
            wiring.connect(m, unit.state, getattr(control, name))
            pushed.append(entry.valid & entry.ready)
            in_flight = Signal(range(IN_FLIGHT + 1), name=f"{name}_in_flight")
            m.d.sync += in_flight.eq(in_flight + unit.start - unit.done)
            with m.If(control.clear):
                m.d.sync += in_flight.eq(0)
            m.d.comb += [
                unit.running.eq(control.running),
                unit.ready.eq(~in_flight.any() | self.ready[place]),
                unit.done.eq(in_flight.any() & self.done[place]),
                getattr(self, f"slots_{name}").eq(unit.slots),
                getattr(self, f"word_{name}").eq(unit.word),
            ]
            engines[op] = in_flight.any()
        load, _, _, store = UNITS
        m.d.comb += [
            control.start.eq(self.start),
            control.watchdog.eq(self.watchdog),
            control.load_error.eq(self.load_error & engines[load]),
            control.store_error.eq(self.store_error & engines[store]),
            fetcher.running.eq(control.running),
            fetcher.program_base.eq(self.program_base),
            fetcher.program_words.eq(self.program_words),
            fetcher.region_beats.eq(self.region_beats),
            self.clear.eq(control.clear),
            self.running.eq(control.running),
            self.status.eq(Cat(control.busy, control.done, control.error, control.code, control.index)),
            self.ends.eq(Cat(control.has_ended, control.has_failed)),
            self.taken.eq(fetcher.taken),
            self.pushed.eq(Cat(pushed)),
            self.started.eq(Cat(unit.start for unit in units.values())),
            self.finished.eq(Cat(unit.done for unit in units.values())),
            self.counters.eq(control.counters),
        ]
        wiring.connect(m, fetcher.state, control.fetch)
        self._memory(m, fetcher, control)
        return m

    def _memory(self, m: Module, fetcher: Fetcher, control: Controller) -> None:
        """Takes requests and gives beats in the cycles that the inputs choose."""
        beat_bits = exact_log2(self.limits.port_bytes)
        m.submodules.memory = memory = Memory(
            shape=8 * self.limits.port_bytes + 1, depth=MEMORY_BYTES // self.limits.port_bytes, init=[]
        )
        write, read = memory.write_port(), memory.read_port()
        m.submodules.requests = requests = SyncFIFO(width=ADDRESS_BITS + 9, depth=REQUESTS)
        request = fetcher.request
        sent, shown = Signal(9), Signal()
        address, beats = requests.r_data[:ADDRESS_BITS], requests.r_data[ADDRESS_BITS:]
        gives, last = Signal(), Signal()
        m.d.comb += [
            write.en.eq(self.store_en),
            write.addr.eq(self.store_beat),
            write.data.eq(Cat(self.store_data, self.store_broken)),
            request.ready.eq(self.request & requests.w_rdy),
            requests.w_en.eq(request.valid & self.request),
            requests.w_data.eq(Cat(request.payload.address, request.payload.beats)),
            gives.eq(self.beat & requests.r_rdy),
            last.eq(sent + 1 == beats),
            requests.r_en.eq(gives & last),
            read.en.eq(gives),
            read.addr.eq((address >> beat_bits) + sent),
            fetcher.beats.valid.eq(shown),
            fetcher.beats.data.eq(read.data[:-1]),
            fetcher.beats.error.eq(read.data[-1]),
            control.port_idle.eq(~requests.r_rdy & ~shown),
            control.beat_read.eq(gives),
            self.request_valid.eq(request.valid),
            self.request_address.eq(request.payload.address),
            self.request_beats.eq(request.payload.beats),
        ]
        m.d.sync += shown.eq(gives)
        with m.If(gives):
            m.d.sync += sent.eq(Mux(last, 0, sent + 1))


def wide(values: Sequence[int], bits: int) -> npt.NDArray[Any]:
    """Integers to what a port of that width takes and gives."""
    if bits <= 64:
        return np.array(values, np.uint64)
    data = b"".join(value.to_bytes(4 * -(-bits // 32), "little") for value in values)
    return np.frombuffer(data, np.uint32).reshape(len(values), -1)


def play(
    design: Compiled, setup: Setup, choices: Sequence[Choices], *, seed: int, starts: Sequence[int] = (0,)
) -> dict[str, npt.NDArray[Any]]:
    """The bench's outputs by cycle, the memory filled before; `starts` are the cycles in which a start is given."""
    port_bytes = setup.limits.port_bytes
    data = b"".join(word.to_bytes(WORD_BYTES, "little") for word in setup.words)
    data += bytes(-len(data) % port_bytes)
    beats = [int.from_bytes(data[at : at + port_bytes], "little") for at in range(0, len(data), port_bytes)]
    assert len(data) <= MEMORY_BYTES, "the program fits into the memory"
    first = setup.base // port_bytes
    depth = MEMORY_BYTES // port_bytes
    before = 2 + len(beats)
    total = before + len(choices)

    def late(values: Sequence[int], bits: int = 1) -> npt.NDArray[Any]:
        return wide([*[0] * before, *values], bits)

    sizes = sum(size << (32 * region) for region, size in enumerate(setup.region_beats))
    inputs: dict[str, npt.ArrayLike] = {
        "rst": [1, 1] + [0] * (total - 2),
        "store_en": [0, 0] + [1] * len(beats) + [0] * len(choices),
        "store_beat": [0, 0] + [(first + at) % depth for at in range(len(beats))] + [0] * len(choices),
        "store_data": wide([0, 0, *beats, *[0] * len(choices)], 8 * port_bytes),
        "store_broken": [0, 0] + [at in setup.broken for at in range(len(beats))] + [0] * len(choices),
        "start": late([cycle in starts for cycle in range(len(choices))]),
        "program_base": setup.base,
        "program_words": len(setup.words),
        "region_beats": wide([sizes], 128),
        "watchdog": setup.watchdog,
        "request": late([item.request for item in choices]),
        "beat": late([item.beat for item in choices]),
        "ready": late([item.ready for item in choices]),
        "done": late([item.done for item in choices]),
        "load_error": late([item.load_error for item in choices]),
        "store_error": late([item.store_error for item in choices]),
    }
    with design.open(random_state=True, seed=seed) as running:
        return {name: values[before:] for name, values in running.run(inputs, total).items()}


def first_difference(out: dict[str, npt.NDArray[Any]], seen: Sequence[Seen]) -> str:
    """Where the outputs leave the model, as a sentence; empty for none."""
    wanted: dict[str, list[Any]] = {
        "running": [item.state == "RUN" for item in seen],
        "clear": [item.state == "CLEAR" for item in seen],
        "status": [_status(item) for item in seen],
        "request_valid": [item.request is not None for item in seen],
        "taken": [item.taken for item in seen],
        "pushed": [item.pushed for item in seen],
        "started": [item.started for item in seen],
        "finished": [item.done for item in seen],
    }
    found = [
        (int(cycle), name, int(out[name][cycle]), int(values[cycle]))
        for name, values in wanted.items()
        for cycle in np.flatnonzero(out[name] != np.array(values, np.uint64))[:1]
    ]
    counters = wide([sum(count << (64 * n) for n, count in enumerate(item.counters)) for item in seen], 512)
    wrong: list[list[int]] = np.argwhere(out["counters"] != counters)[:1].tolist()
    found += [
        (cycle, f"counters word {place}", int(out["counters"][cycle, place]), int(counters[cycle, place]))
        for cycle, place in wrong
    ]
    for cycle, item in enumerate(seen):
        pairs = [(f"word_{op.name.lower()}", word) for op, word in item.words.items()]
        if item.request is not None:
            pairs += [("request_address", item.request[0]), ("request_beats", item.request[1])]
        for name, value in pairs:
            row = out[name][cycle]
            got = int(row) if np.ndim(row) == 0 else int.from_bytes(row.tobytes(), "little")
            if got != value:
                found.append((cycle, name, got, value))
        for op, slots in item.slots.items():
            bits = int(out[f"slots_{op.name.lower()}"][cycle])
            places = UNIT_CHANNELS[op]
            found += [
                (cycle, f"slot of {channel} in {op.name.lower()}", bits >> places.index(channel) & 1, slot)
                for channel, slot in slots.items()
                if bits >> places.index(channel) & 1 != slot
            ]
    if not found:
        return ""
    cycle, name, got, value = min(found)
    return f"cycle {cycle}: {name} = {got:#x}, must be {value:#x}"


def _status(item: Seen) -> int:
    done, error, code, index = item.status
    return (item.state != "IDLE") | done << 1 | error << 2 | code << 3 | index << (3 + FAULT_BITS)
