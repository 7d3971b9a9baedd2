"""Programs on the compiled accelerator: registers written, memory served, counters and cycles read back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import UNITS, Op
from bitwright.arch.isa.limits import REGIONS, Limits
from bitwright.arch.isa.placement import Placement, check, place
from bitwright.arch.isa.timing import FETCH_BYTES
from bitwright.arch.registers import COUNTERS, OFFSETS, halves
from bitwright.rtl.bench.accelerator_driver import (
    BurstRecord,
    BusErrors,
    BusSimulation,
    CompiledWithMemory,
    Event,
    Region,
)
from bitwright.rtl.bench.words import Words

_TRACES = ("trace_starts", "trace_dones")
_LITE = ("awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata", "rresp")
_OKAY = 0
_PATIENCE_CYCLES = 1000  # of an AXI4-Lite transfer; of a stopped run's open transactions the run's own `max_cycles`


@dataclass
class Trace:
    """When each unit started its instructions and was done with them, in its order; cycle 0 is the first of the run."""

    starts: dict[Op, list[int]] = field(default_factory=lambda: {op: [] for op in UNITS})
    dones: dict[Op, list[int]] = field(default_factory=lambda: {op: [] for op in UNITS})


@dataclass(frozen=True)
class AcceleratorRun:
    """What a run did.

    Members
        fault : of the register ERROR; None: the program ran to its End
        index : of ERROR_INDEX
        counters : the registers
        bursts : on the memory's side, cycle 0 as in `trace`
        trace : None unless asked for
    """

    fault: Fault | None
    index: int
    counters: Counters
    bursts: list[BurstRecord]
    trace: Trace | None


class CompiledAccelerator:
    """The accelerator's Verilog as a library, with a memory behind it.

    Parameters
        verilog, top : its pins: `clk`, `rst`, `m_axi_...` (`rtl.accelerator.memory_port`), `s_axil_...` (AXI4-Lite),
            `irq`, `running` (high in the cycles of a run); for traces `trace_starts` and `trace_dones`
        limits : of the machine
    ConfigError for a missing pin or a port of another width; ToolError as of `Compiled`.
    """

    def __init__(self, verilog: str, top: str, limits: Limits, *, optimise: str = "-O1") -> None:
        self.limits = limits
        self.design = CompiledWithMemory(verilog, top, optimise=optimise)
        if self.design.port_bytes != limits.port_bytes:
            raise ConfigError(
                f"{top}: its memory port has {self.design.port_bytes} bytes: must be {limits.port_bytes}, as limits say"
            )
        for name in ("irq", "running", *(f"s_axil_{pin}" for pin in _LITE)):
            if name not in self.design.outputs:
                raise ConfigError(f"{top}.{name}: no such output; an accelerator has it")

    def run(
        self, program: bytes, memory: Sequence[npt.NDArray[np.uint8]], timing: FixedMemory, *,
        placement: Placement | None = None, stalls_seed: int | None = None, errors: BusErrors | None = None,
        watchdog: int = 0, max_cycles: int = 10_000_000, trace: bool = False, power_up_seed: int = 1,
    ) -> AcceleratorRun:  # fmt: skip
        """Run a program of 16-byte words.

        Parameters
            memory : four regions of whole beats; they change in place
            timing, stalls_seed, errors, power_up_seed : as of `BusSimulation`; with `stalls_seed` the host is slow, too
            placement : where program and regions stand; None: where `arch.isa.placement.place` puts them
            watchdog : of the register; 0: none
            max_cycles : MismatchError when the run is not over after so many
        ConfigError for a program or a region that is not whole, MismatchError too for a broken rule of AXI, registers
        that do not read as written, or a memory with open transactions after the end.
        """
        return _Session(
            self, program, memory, timing, placement, stalls_seed, errors, power_up_seed
        ).run(watchdog, max_cycles, trace)  # fmt: skip


class _Session:
    """One run: the simulation, and the host on its AXI4-Lite pins."""

    def __init__(
        self, accelerator: CompiledAccelerator, program: bytes, memory: Sequence[npt.NDArray[np.uint8]],
        timing: FixedMemory, placement: Placement | None, stalls_seed: int | None, errors: BusErrors | None,
        power_up_seed: int,
    ) -> None:  # fmt: skip
        self.design, port_bytes = accelerator.design, accelerator.limits.port_bytes
        if not program or len(program) % WORD_BYTES:
            raise ConfigError(f"program: {len(program)} bytes: must be instructions of {WORD_BYTES} bytes, 1 or more")
        if len(memory) != REGIONS:
            raise ConfigError(f"memory: {len(memory)} regions: must be {REGIONS}")
        for number, region in enumerate(memory):
            if region.size % port_bytes:
                raise ConfigError(f"memory[{number}]: {region.size} bytes: must be beats of {port_bytes} bytes")
        self.words = len(program) // WORD_BYTES
        self.region_beats = [region.size // port_bytes for region in memory]
        if placement is None:
            placement = place(self.words, self.region_beats, port_bytes)
        else:
            check(placement, self.words, self.region_beats, port_bytes)
        self.placement = placement
        # What follows the program in its last beats is no instruction and nobody may look at it.
        padded = program + b"\xff" * (-len(program) % FETCH_BYTES)
        regions = [
            Region(base, data) for base, data in zip(placement.regions, memory, strict=True) if data.size
        ] + [Region(placement.program, np.frombuffer(bytearray(padded), dtype=np.uint8), writable=False)]  # fmt: skip
        self.random = random.Random(stalls_seed) if stalls_seed is not None else None
        self.simulation = BusSimulation(
            self.design, regions, timing, stalls_seed=stalls_seed, errors=errors, power_up_seed=power_up_seed
        )
        self.idle = self.design.input_words({}, 1)
        self.first_cycle: int | None = None
        self.events: list[Event] = []
        self.watch: tuple[str, ...] = ()

    def run(self, watchdog: int, max_cycles: int, trace: bool) -> AcceleratorRun:
        with self.simulation:
            self.simulation.reset()
            self._write_all(watchdog)
            self.watch = _TRACES if trace else ()
            for name in self.watch:
                if name not in self.design.outputs:
                    raise ConfigError(f"{self.design.top}.{name}: no such output; a trace needs it")
            self.write("CONTROL", 1)
            self._to_the_end(max_cycles)
            deadline = self.simulation.cycle + max_cycles
            while self.read("STATUS") & 1:
                if self.simulation.cycle > deadline:
                    raise MismatchError(f"{self.design.top}: STATUS.busy = 1: still {max_cycles} cycles after irq")
            return self._result(trace)

    def _write_all(self, watchdog: int) -> None:
        """All that a run needs but its start; pairs and the rest are read back."""
        values = {"PROGRAM_WORDS": self.words, "INTERRUPT_ENABLE": 3}
        values |= halves("PROGRAM_BASE", self.placement.program) | halves("WATCHDOG", watchdog)
        for region, (base, beats) in enumerate(zip(self.placement.regions, self.region_beats, strict=True)):
            values |= halves(f"REGION{region}_BASE", base) | {f"REGION{region}_BEATS": beats}
        for name, value in values.items():
            self.write(name, value)
        for name, value in values.items():
            found = self.read(name)
            if found != value:
                raise MismatchError(f"{self.design.top}: {name} = {found:#x}: must be {value:#x}, as written")

    def _to_the_end(self, max_cycles: int) -> None:
        for _ in range(_PATIENCE_CYCLES):
            if self.first_cycle is not None:
                break
            self.step(self.idle)
        else:
            raise MismatchError(f"{self.design.top}.running = 0: still {_PATIENCE_CYCLES} cycles after CONTROL.start")
        _, _, events = self.simulation.run_until("irq", {}, max_cycles, watch=self.watch)
        self.events += events

    def _result(self, trace: bool) -> AcceleratorRun:
        code, index = self.read("ERROR"), self.read("ERROR_INDEX")
        status = self.read("STATUS")
        wanted = 4 if code else 2
        if status != wanted:
            raise MismatchError(f"{self.design.top}: STATUS = {status:#x}: must be {wanted:#x} with ERROR = {code}")
        counters = Counters(**{name: self._pair(name.upper()) for name in COUNTERS})
        self.write("INTERRUPT", 3)
        if int(self._value(self.step(self.idle), "irq")):
            raise MismatchError(f"{self.design.top}.irq = 1: must be 0 after INTERRUPT was cleared")
        first = self.first_cycle
        assert first is not None, "a run that ended has begun"
        bursts = [burst.moved(-first) for burst in self.simulation.bursts()]
        for burst in bursts:
            if burst.ended is None:
                raise MismatchError(f"{self.design.top}: {burst} is still open with STATUS.busy = 0")
        found = Trace()
        for event in self.events:
            cycles = found.starts if event.name == _TRACES[0] else found.dones
            for bit, op in enumerate(UNITS):
                if event.value >> bit & 1:
                    cycles[op].append(event.cycle - first)
        return AcceleratorRun(Fault(code) if code else None, index, counters, bursts, found if trace else None)

    def _pair(self, name: str) -> int:
        return self.read(f"{name}_LO") | self.read(f"{name}_HI") << 32

    def write(self, name: str, value: int) -> None:
        """One register, by AXI4-Lite; address and data at once, or with a slow host in any order."""
        late_address, late_data, late_response = self._delays()
        sent = {"aw": False, "w": False}
        for cycle in range(_PATIENCE_CYCLES):
            offers = {
                "aw": not sent["aw"] and cycle >= late_address,
                "w": not sent["w"] and cycle >= late_data,
            }
            ready = cycle >= late_response
            out = self.step(
                self._inputs(awvalid=offers["aw"], awaddr=OFFSETS[name], wvalid=offers["w"], wdata=value, wstrb=15,
                             bready=ready)
            )  # fmt: skip
            for channel in sent:
                sent[channel] |= offers[channel] and bool(self._lite(out, f"{channel}ready"))
            if ready and self._lite(out, "bvalid"):
                self._answered(name, self._lite(out, "bresp"))
                return
        raise MismatchError(f"{self.design.top}: a write of {name} is not answered in {_PATIENCE_CYCLES} cycles")

    def read(self, name: str) -> int:
        """One register, by AXI4-Lite."""
        late_address, _, late_response = self._delays()
        sent = False
        for cycle in range(_PATIENCE_CYCLES):
            offer, ready = not sent and cycle >= late_address, cycle >= late_response
            out = self.step(self._inputs(arvalid=offer, araddr=OFFSETS[name], rready=ready))
            sent |= offer and bool(self._lite(out, "arready"))
            if ready and self._lite(out, "rvalid"):
                self._answered(name, self._lite(out, "rresp"))
                return self._lite(out, "rdata")
        raise MismatchError(f"{self.design.top}: a read of {name} is not answered in {_PATIENCE_CYCLES} cycles")

    def _answered(self, name: str, response: int) -> None:
        if response != _OKAY:
            raise MismatchError(f"{self.design.top}: {name} answers with {response}: must be 0 (OKAY)")

    def _delays(self) -> tuple[int, int, int]:
        """Cycles before address, data and the readiness for the response."""
        if self.random is None:
            return 0, 0, 0
        late = (self.random.choice((0, 0, 1, 5)) for _ in range(3))
        return next(late), next(late), next(late)

    def _inputs(self, **pins: int) -> Words:
        row = self.idle.copy()
        for name, value in pins.items():
            row[0, self.design.inputs[f"s_axil_{name}"].word] = value
        return row

    def _lite(self, out: npt.NDArray[np.uint32], pin: str) -> int:
        return self._value(out, f"s_axil_{pin}")

    def _value(self, out: npt.NDArray[np.uint32], name: str) -> int:
        return int(out[self.design.outputs[name].word])

    def step(self, words: Words) -> npt.NDArray[np.uint32]:
        """One cycle; keeps what it shows of a run."""
        cycle = self.simulation.cycle
        out: npt.NDArray[np.uint32] = self.simulation.run_words(words)[0]
        if self.first_cycle is None and self._value(out, "running"):
            self.first_cycle = cycle
        self.events += [Event(cycle, name, value) for name in self.watch if (value := self._value(out, name))]
        return out
