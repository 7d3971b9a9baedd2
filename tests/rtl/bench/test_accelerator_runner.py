# amaranth: UnusedElaboratable=no
"""The runner of the compiled accelerator on a stand-in with its pins: it fetches its program in one burst, stores the
last beat of it in region 1, and stops."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bitwright.arch import machine
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import Op
from bitwright.arch.isa.limits import limits
from bitwright.arch.isa.placement import Placement
from bitwright.arch.registers import BY_NAME, OFFSETS, Access
from bitwright.rtl.accelerator.memory_port import MemoryPort, axi_ports
from bitwright.rtl.bench.accelerator_driver import BusErrors
from bitwright.rtl.bench.accelerator_runner import AcceleratorRun, CompiledAccelerator

PORT_BYTES = 16
LIMITS = limits(machine.load("int8-4x4"), port_bytes=PORT_BYTES)
MEMORY = FixedMemory(latency_cycles=9, beat_cycles=2, response_cycles=3)
PROGRAM = bytes(range(48))  # three words
LITE = {
    "awvalid": In(1), "awready": Out(1), "awaddr": In(12), "wvalid": In(1), "wready": Out(1), "wdata": In(32),
    "wstrb": In(4), "bvalid": Out(1), "bready": In(1), "bresp": Out(2), "arvalid": In(1), "arready": Out(1),
    "araddr": In(12), "rvalid": Out(1), "rready": In(1), "rdata": Out(32), "rresp": Out(2),
}  # fmt: skip


class StandIn(wiring.Component):
    """Registers and pins of the accelerator; `stuck` keeps it running, `deaf` answers a read with SLVERR."""

    def __init__(self, *, stuck: bool = False, deaf: bool = False) -> None:
        self.stuck, self.deaf = stuck, deaf
        super().__init__(
            {
                **{f"s_axil_{name}": member for name, member in LITE.items()},
                **axi_ports(PORT_BYTES),
                "irq": Out(1),
                "running": Out(1),
                "trace_starts": Out(4),
                "trace_dones": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.port = port = MemoryPort(PORT_BYTES)
        for name, member in axi_ports(PORT_BYTES).items():
            pin, own = getattr(port, name), getattr(self, name)
            m.d.comb += own.eq(pin) if member.flow == Out else pin.eq(own)
        registers = {name: Signal(32, name=name.lower()) for name in OFFSETS}
        start = self._lite(m, registers)
        self._work(m, port, registers, start)
        interrupt, enable = registers["INTERRUPT"], registers["INTERRUPT_ENABLE"]
        m.d.comb += self.irq.eq((interrupt & enable).any())
        return m

    def _lite(self, m: Module, registers: dict[str, Signal]) -> Value:
        """The registers to the host; returns whether a run is started in this cycle."""
        address, data = Signal(12), Signal(32)
        have_address, have_data, start = Signal(), Signal(), Signal()
        m.d.comb += [
            self.s_axil_awready.eq(~have_address),
            self.s_axil_wready.eq(~have_data),
            self.s_axil_arready.eq(~self.s_axil_rvalid),
        ]
        with m.If(self.s_axil_awvalid & self.s_axil_awready):
            m.d.sync += [have_address.eq(1), address.eq(self.s_axil_awaddr)]
        with m.If(self.s_axil_wvalid & self.s_axil_wready):
            m.d.sync += [have_data.eq(1), data.eq(self.s_axil_wdata)]
        with m.If(have_address & have_data & ~self.s_axil_bvalid):
            m.d.sync += [have_address.eq(0), have_data.eq(0), self.s_axil_bvalid.eq(1)]
            for name, register in registers.items():
                with m.If(address == OFFSETS[name]):
                    if BY_NAME[name].access is Access.CLEAR:
                        m.d.sync += register.eq(register & ~data)
                    elif BY_NAME[name].access is Access.START:
                        m.d.comb += start.eq(data[0])
                    elif BY_NAME[name].access is not Access.RO:
                        m.d.sync += register.eq(data & BY_NAME[name].mask)
        with m.If(self.s_axil_bvalid & self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [self.s_axil_rvalid.eq(1), self.s_axil_rresp.eq(2 * self.deaf)]
            with m.Switch(self.s_axil_araddr):
                for name, register in registers.items():
                    with m.Case(OFFSETS[name]):
                        m.d.sync += self.s_axil_rdata.eq(register)
        with m.If(self.s_axil_rvalid & self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        return start

    def _work(self, m: Module, port: MemoryPort, registers: dict[str, Signal], start: Value) -> None:
        fetch, store = port.fetch_request, port.store_request
        status, error = registers["STATUS"], registers["ERROR"]
        last = Signal(8 * PORT_BYTES)
        fetch_starts, fetch_ends, store_starts, store_ends = (
            Signal(name=name) for name in ("fetch_starts", "fetch_ends", "store_starts", "store_ends")
        )
        # Whole words: Yosys writes the bits of a word that nothing drives into an `always @*` that never runs.
        m.d.comb += [
            self.trace_starts.eq(Cat(fetch_starts, 0, 0, store_starts)),
            self.trace_dones.eq(Cat(fetch_ends, 0, 0, store_ends)),
            fetch.payload.address.eq(Cat(registers["PROGRAM_BASE_LO"], registers["PROGRAM_BASE_HI"])),
            fetch.payload.beats.eq(registers["PROGRAM_WORDS"]),
            store.payload.address.eq(Cat(registers["REGION1_BASE_LO"], registers["REGION1_BASE_HI"])),
            store.payload.beats.eq(1),
            port.store_beats.payload.data.eq(last),
            port.store_beats.payload.strobe.eq(0x0FFF),
            port.store_beats.payload.last.eq(1),
        ]
        with m.If(self.running):
            m.d.sync += registers["CYCLES_LO"].eq(registers["CYCLES_LO"] + 1)
        with m.If(port.fetch_beats.valid):
            m.d.sync += [last.eq(port.fetch_beats.data), registers["BEATS_READ_LO"].eq(registers["BEATS_READ_LO"] + 1)]
            with m.If(port.fetch_beats.error):
                m.d.sync += error.eq(int(Fault.BUS_ERROR))
        with m.FSM():
            with m.State("IDLE"), m.If(start):
                m.d.sync += [status.eq(1), error.eq(0), registers["CYCLES_LO"].eq(0), registers["BEATS_READ_LO"].eq(0)]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [self.running.eq(1), fetch.valid.eq(1), fetch_starts.eq(fetch.ready)]
                with m.If(fetch.ready):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += self.running.eq(1)
                with m.If(port.fetch_beats.valid & port.fetch_beats.last):
                    m.d.comb += fetch_ends.eq(1)
                    m.next = "WAIT" if self.stuck else "STORE"
            with m.State("STORE"):
                m.d.comb += [self.running.eq(1), store.valid.eq(1), store_starts.eq(store.ready)]
                with m.If(store.ready):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.running.eq(1), port.store_beats.valid.eq(1)]
                with m.If(port.store_beats.ready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.running.eq(1)
                with m.If(port.store_response.valid):
                    failed = error.any()
                    m.d.comb += store_ends.eq(1)
                    m.d.sync += [
                        status.eq(Cat(0, ~failed, failed)),
                        registers["INTERRUPT"].eq(registers["INTERRUPT"] | Cat(~failed, failed)),
                        registers["ERROR_INDEX"].eq(registers["PROGRAM_WORDS"] - 1),
                    ]
                    m.next = "IDLE"


@lru_cache(maxsize=4)
def accelerator(*, stuck: bool = False, deaf: bool = False) -> CompiledAccelerator:
    text = backend.convert(StandIn(stuck=stuck, deaf=deaf), name="stand_in", emit_src=False)
    return CompiledAccelerator(text, "stand_in", LIMITS)


def regions() -> list[npt.NDArray[np.uint8]]:
    return [np.zeros(beats * PORT_BYTES, dtype=np.uint8) for beats in (0, 2, 1, 0)]


def check(run: AcceleratorRun, memory: list[npt.NDArray[np.uint8]]) -> None:
    assert (run.fault, run.index) == (None, 2)
    assert memory[1].tobytes() == PROGRAM[32:44] + bytes(20)
    assert (run.counters.beats_read, run.counters.load_busy) == (3, 0)


def test_a_run_gives_registers_memory_and_cycles_from_its_first_one() -> None:
    memory = regions()
    run = accelerator().run(PROGRAM, memory, MEMORY, trace=True)
    check(run, memory)
    # Asked for in 0, ARVALID in 1, beats 9 cycles later in 10, 12, 14, shown a cycle later; the store in 16, AWVALID
    # in 17, its beat in 26, answered in 29, shown in 30.
    assert run.trace is not None
    assert run.trace.starts == {Op.LOAD: [0], Op.EXECUTE: [], Op.VECTOR: [], Op.STORE: [16]}
    assert run.trace.dones == {Op.LOAD: [15], Op.EXECUTE: [], Op.VECTOR: [], Op.STORE: [30]}
    assert run.counters.cycles == 31
    spans = [
        (burst.write, burst.beats, burst.accepted, burst.first, burst.last, burst.response) for burst in run.bursts
    ]
    assert spans == [(False, 3, 1, 10, 14, None), (True, 1, 17, 26, 26, 29)]


def test_a_run_without_a_trace_has_the_same_registers() -> None:
    run = accelerator().run(PROGRAM, regions(), MEMORY)
    assert run == replace(accelerator().run(PROGRAM, regions(), MEMORY, trace=True, power_up_seed=77), trace=None)


@pytest.mark.parametrize("seed", range(5))
def test_stalls_of_memory_and_host_change_no_result(seed: int) -> None:
    memory = regions()
    check(accelerator().run(PROGRAM, memory, MEMORY, stalls_seed=seed, power_up_seed=seed + 1), memory)


def test_parts_stand_where_they_are_placed() -> None:
    memory = regions()
    placement = Placement(0x77_0000_0100, (0x10, 0x12_3456_7890, 0x40, 0x50))
    run = accelerator().run(PROGRAM, memory, MEMORY, placement=placement)
    check(run, memory)
    assert [burst.address for burst in run.bursts] == [placement.program, placement.regions[1]]


def test_an_error_of_the_bus_is_a_fault() -> None:
    run = accelerator().run(PROGRAM, regions(), MEMORY, errors=BusErrors(read_beat=1))
    assert run.fault is Fault.BUS_ERROR


def test_a_run_that_does_not_end_is_stopped() -> None:
    with pytest.raises(MismatchError, match=r"^stand_in\.irq = 0: still after 5000 cycles$"):
        accelerator(stuck=True).run(PROGRAM, regions(), MEMORY, max_cycles=5000)


def test_a_register_that_answers_with_an_error_is_told() -> None:
    with pytest.raises(MismatchError, match=r"^stand_in: PROGRAM_WORDS answers with 2: must be 0 \(OKAY\)$"):
        accelerator(deaf=True).run(PROGRAM, regions(), MEMORY)


@pytest.mark.parametrize(
    ("program", "memory", "message"),
    [
        (b"", regions(), "program: 0 bytes: must be instructions of 16 bytes, 1 or more"),
        (bytes(17), regions(), "program: 17 bytes: must be instructions of 16 bytes, 1 or more"),
        (PROGRAM, regions()[:3], "memory: 3 regions: must be 4"),
        (PROGRAM, [*regions()[:3], np.zeros(8, np.uint8)], "memory[3]: 8 bytes: must be beats of 16 bytes"),
    ],
)
def test_work_that_is_not_whole_is_refused(program: bytes, memory: list[npt.NDArray[np.uint8]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        accelerator().run(program, memory, MEMORY)
    assert str(caught.value) == message


def test_a_design_of_another_width_is_refused() -> None:
    text = backend.convert(StandIn(), name="stand_in", emit_src=False)
    with pytest.raises(ConfigError, match=r"^stand_in: its memory port has 16 bytes: must be 8, as limits say$"):
        CompiledAccelerator(text, "stand_in", limits(machine.load("int8-4x4"), port_bytes=8))
