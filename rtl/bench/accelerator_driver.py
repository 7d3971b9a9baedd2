"""A design with an AXI4 master, compiled together with the memory of `axi_memory.cpp`."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.rtl.bench import verilator
from bitwright.rtl.bench.driver import RESET, Port, driver_source, ports_of
from bitwright.rtl.bench.environment import verilator_version
from bitwright.rtl.bench.verilator import Compiled, Simulation, build_once, digest, without_zero_init
from bitwright.rtl.bench.words import Words

AXI_PREFIX = "m_axi_"
_MEMORY_SOURCE = Path(__file__).with_name("axi_memory.cpp")
_MASTER = (
    "arvalid", "araddr", "arlen", "arsize", "arburst", "rready", "awvalid", "awaddr", "awlen", "awsize", "awburst",
    "wvalid", "wdata", "wstrb", "wlast", "bready",
)  # fmt: skip
_SLAVE = ("arready", "rvalid", "rresp", "rlast", "rdata", "awready", "wready", "bvalid", "bresp")
_WIDE = ("wdata", "wstrb", "rdata")

_GLUE = """
using Memory = axi::Memory<@BYTES@>;

// A word of the outputs that is recorded, with its cycle, whenever one of its bits is set.
struct Event {
    int64_t cycle, watch, value;
};

static void one_cycle(Design& d, Memory& memory, uint32_t* in, uint32_t* out) {
    if (in[@RESET@] & 1) {
        memory.reset();
    } else {
        memory.drive();
    }
    const auto& slave = memory.out;
@SLAVE@
    settle(d, in);
    take(*d.top, out);
    if (!(in[@RESET@] & 1)) {
        axi::Master<@BYTES@> master{};
@MASTER@
        memory.sample(master);
    }
    edge(d);
}

API void* bm_open(const axi::Settings* settings, const axi::Region* regions, int64_t count) {
    return new Memory(*settings, regions, count);
}
API void bm_close(void* memory) {
    delete static_cast<Memory*>(memory);
}
// As bw_run, with the memory on the master's pins; returns the cycles that ran, fewer after a violation of AXI.
API int64_t bm_run(void* handle, void* memory_handle, int64_t cycles, const uint32_t* in, uint32_t* out) {
    auto& memory = *static_cast<Memory*>(memory_handle);
    uint32_t words[IN_WORDS + 1];
    int64_t t = 0;
    for (; t < cycles && !memory.violation[0]; ++t) {
        std::memcpy(words, in + t * IN_WORDS, sizeof(uint32_t) * IN_WORDS);
        one_cycle(*static_cast<Design*>(handle), memory, words, out + t * OUT_WORDS);
    }
    return t;
}
// Runs with constant inputs to the first cycle in which bit 0 of output word `stop` is set, that one included, at most
// `cycles`; records events of the watched words. Returns the cycles that ran; `out` has the last one's outputs.
API int64_t bm_until(void* handle, void* memory_handle, int64_t cycles, const uint32_t* in, uint32_t* out, int32_t stop,
                     int32_t watches, const int32_t* watched, Event* events, int64_t room, int64_t* found) {
    auto& memory = *static_cast<Memory*>(memory_handle);
    uint32_t words[IN_WORDS + 1];
    std::memcpy(words, in, sizeof(uint32_t) * IN_WORDS);
    int64_t t = 0;
    for (bool stopped = false; t < cycles && !stopped && !memory.violation[0]; ++t) {
        const int64_t cycle = memory.cycle;
        one_cycle(*static_cast<Design*>(handle), memory, words, out);
        stopped = out[stop] & 1;
        for (int32_t k = 0; k < watches; ++k)
            if (out[watched[k]] != 0) {
                if (*found < room) events[*found] = {cycle, k, out[watched[k]]};
                ++*found;
            }
    }
    return t;
}
API int64_t bm_cycle(void* memory) {
    return static_cast<Memory*>(memory)->cycle;
}
API const char* bm_violation(void* memory) {
    return static_cast<Memory*>(memory)->violation;
}
API int64_t bm_records(void* memory, const axi::Record** records) {
    *records = static_cast<Memory*>(memory)->records.data();
    return static_cast<int64_t>(static_cast<Memory*>(memory)->records.size());
}
"""


@dataclass(frozen=True)
class Region:
    """Bytes of the host that the memory serves from `base`; whole beats. A write to one that is not `writable` is an
    error of the bus."""

    base: int
    data: npt.NDArray[np.uint8]
    writable: bool = True


@dataclass(frozen=True)
class BusErrors:
    """Where the memory answers with SLVERR: the how-manieth beat read and written since the start, from 0."""

    read_beat: int | None = None
    write_beat: int | None = None


@dataclass(frozen=True)
class BurstRecord:
    """A burst that the memory accepted, and its cycles; None for what has not been (a read has no response)."""

    write: bool
    address: int
    beats: int
    accepted: int
    first: int | None
    last: int | None
    response: int | None

    @property
    def ended(self) -> int | None:
        """The cycle of its last beat, of a write that of its response; None: it is open."""
        return self.response if self.write else self.last

    def moved(self, cycles: int) -> BurstRecord:
        """The same, so many cycles later."""
        first, last, response = (
            None if cycle is None else cycle + cycles for cycle in (self.first, self.last, self.response)
        )
        return replace(self, accepted=self.accepted + cycles, first=first, last=last, response=response)


@dataclass(frozen=True)
class Event:
    """A watched output in a cycle in which it was not 0."""

    cycle: int
    name: str
    value: int


class _CSettings(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "latency_cycles", "beat_cycles", "reads", "writes", "response_cycles", "stalls_seed", "error_read_beat",
            "error_write_beat",
        )
    )  # fmt: skip


class _CRegion(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("writable", ctypes.c_int64),
    )


class CompiledWithMemory(Compiled):
    """A design compiled as `Compiled` does, with a memory on its pins `m_axi_...` (`rtl.accelerator.memory_port`).

    Parameters and errors as of `Compiled`; ConfigError too where a pin is missing.
    """

    def __init__(self, verilog: str, top: str, *, optimise: str = "-O1") -> None:
        self.top = top
        ports = ports_of(verilog, top)
        self.inputs = {port.name: port for port in ports if not port.output}
        self.outputs = {port.name: port for port in ports if port.output}
        self.in_words = sum(port.words for port in self.inputs.values())
        self.out_words = sum(port.words for port in self.outputs.values())
        self.port_bytes = _pin(self.outputs, "wdata", top).bits // 8
        driver = driver_source(verilog, top) + _MEMORY_SOURCE.read_text() + self._glue()
        stripped = without_zero_init(verilog)
        options = (*verilator._VERILATE, *verilator._CXX, *verilator._LIBRARY, optimise)
        key = digest(verilator_version(), *options, top, stripped, driver)
        folder = build_once(f"{top[:40]}-{key}", lambda scratch: self._build(scratch, stripped, driver, optimise))
        self._library = library = ctypes.CDLL(str(folder / "design.so"))
        library.bw_open.restype = library.bm_open.restype = ctypes.c_void_p
        for name in ("bw_stream", "bm_run", "bm_until", "bm_cycle", "bm_records"):
            getattr(library, name).restype = ctypes.c_int64
        library.bm_violation.restype = ctypes.c_char_p

    def _glue(self) -> str:
        master, slave = [], []
        for name in _MASTER:
            port = _pin(self.outputs, name, self.top)
            if name in _WIDE:
                master.append(f"std::memcpy(master.{name}, out + {port.word}, sizeof master.{name});")
            elif port.bits > 32:
                master.append(f"master.{name} = static_cast<uint64_t>(out[{port.word + 1}]) << 32 | out[{port.word}];")
            else:
                master.append(f"master.{name} = out[{port.word}];")
        for name in _SLAVE:
            port = _pin(self.inputs, name, self.top)
            copy = f"std::memcpy(in + {port.word}, slave.{name}, sizeof slave.{name});"
            slave.append(copy if name in _WIDE else f"in[{port.word}] = slave.{name};")
        fields = {
            "BYTES": str(self.port_bytes),
            "RESET": str(self.inputs[RESET].word),
            "MASTER": "\n".join(f"        {line}" for line in master),
            "SLAVE": "\n".join(f"    {line}" for line in slave),
        }
        return re.sub(r"@([A-Z]+)@", lambda match: fields[match.group(1)], _GLUE)


def _pin(ports: Mapping[str, Port], name: str, top: str) -> Port:
    if AXI_PREFIX + name not in ports:
        raise ConfigError(f"{top}.{AXI_PREFIX}{name}: no such port; the memory needs every AXI4 pin of MemoryPort")
    return ports[AXI_PREFIX + name]


class BusSimulation:
    """One running instance of a design and its memory. Use it in a `with`, or `close()` it.

    Parameters
        regions : what the memory holds; their bytes change in place
        memory : its timing. With `stalls_seed` (0..2**63-1) only its counts of open bursts hold: every READY, beat and
            response comes at random, and data can be taken before its address.
        errors : where it answers with an error; addresses outside the regions are DECERR in any case
        power_up_seed : registers start random from this seed (1..2**31-1)
    Every run raises MismatchError when the master breaks a rule of AXI, or, without stalls, is not ready for a beat.
    """

    def __init__(
        self, design: CompiledWithMemory, regions: Sequence[Region], memory: FixedMemory, *,
        stalls_seed: int | None = None, errors: BusErrors | None = None, power_up_seed: int = 1,
    ) -> None:  # fmt: skip
        self.design, self.regions = design, regions
        self._library = design._library
        table = (_CRegion * max(1, len(regions)))()
        for entry, region in zip(table, regions, strict=False):
            _check_region(region, design.port_bytes)
            entry.base, entry.bytes, entry.data = region.base, region.data.size, region.data.ctypes.data
            entry.writable = int(region.writable)
        chosen = errors or BusErrors()
        settings = _CSettings(**memory.model_dump(), stalls_seed=-1 if stalls_seed is None else stalls_seed)
        settings.error_read_beat = -1 if chosen.read_beat is None else chosen.read_beat
        settings.error_write_beat = -1 if chosen.write_beat is None else chosen.write_beat
        self._memory: int | None = self._library.bm_open(ctypes.byref(settings), table, ctypes.c_int64(len(regions)))
        self._simulation: Simulation = design.open(random_state=True, seed=power_up_seed)

    def __enter__(self) -> BusSimulation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free design and memory."""
        if self._memory is not None:
            self._library.bm_close(ctypes.c_void_p(self._memory))
            self._memory = None
            self._simulation.close()

    @property
    def cycle(self) -> int:
        """The number of the next cycle; the first one that ran was 0."""
        return int(self._library.bm_cycle(ctypes.c_void_p(self._memory)))

    def reset(self, cycles: int = 2) -> None:
        """Hold `rst` high, all else zero, for some cycles."""
        self.run({RESET: 1}, cycles)

    def run(self, inputs: Mapping[str, npt.ArrayLike], cycles: int = 1) -> dict[str, npt.NDArray[Any]]:
        """Apply inputs (name -> integers [cycles], or one for all) and return outputs (name -> uint64 [cycles])."""
        return self.design.output_values(self.run_words(self.design.input_words(inputs, cycles)))

    def run_words(self, words: Words) -> Words:
        """As `run`, on packed words [cycles, in_words] -> [cycles, out_words]; the pins of the memory are its own."""
        words = np.ascontiguousarray(words, dtype=np.uint32)
        out = np.empty((len(words), self.design.out_words), dtype=np.uint32)
        self._library.bm_run(*self._handles(), ctypes.c_int64(len(words)), _pointer(words), _pointer(out))
        self._raise_violation()
        return out

    def run_until(
        self, stop: str, inputs: Mapping[str, npt.ArrayLike], max_cycles: int, *, watch: Sequence[str] = (),
        room: int = 1 << 20,
    ) -> tuple[int, dict[str, npt.NDArray[Any]], list[Event]]:  # fmt: skip
        """Constant inputs up to and with the first cycle in which output `stop` is high.

        Returns the cycles that ran, the last one's outputs [1], and the events of the `watch` outputs (of at most 32
        bits), at most `room`. MismatchError when `stop` stays low for `max_cycles`.
        """
        words = self.design.input_words(inputs, 1)
        out = np.zeros((1, self.design.out_words), dtype=np.uint32)
        table = np.zeros((room if watch else 1, 3), dtype=np.int64)
        watched = np.asarray([self.design.outputs[name].word for name in watch], dtype=np.int32)
        found = ctypes.c_int64(0)
        stop_word = self.design.outputs[stop].word
        ran = self._library.bm_until(
            *self._handles(), ctypes.c_int64(max_cycles), _pointer(words), _pointer(out), ctypes.c_int32(stop_word),
            ctypes.c_int32(len(watch)), _pointer(watched), _pointer(table), ctypes.c_int64(len(table)),
            ctypes.byref(found),
        )  # fmt: skip
        self._raise_violation()
        if not out[0, stop_word] & 1:
            raise MismatchError(f"{self.design.top}.{stop} = 0: still after {ran} cycles")
        rows = table[: min(found.value, len(table))].tolist()
        return int(ran), self.design.output_values(out), [Event(cycle, watch[k], value) for cycle, k, value in rows]

    def bursts(self) -> list[BurstRecord]:
        """Every burst accepted so far, in order."""
        pointer = ctypes.c_void_p()
        count = self._library.bm_records(ctypes.c_void_p(self._memory), ctypes.byref(pointer))
        if not count:
            return []
        numbers = (ctypes.c_int64 * (7 * count)).from_address(pointer.value or 0)
        rows = np.frombuffer(numbers, dtype=np.int64).reshape(count, 7).tolist()
        return [
            BurstRecord(bool(write), address, beats, accepted, *(None if cycle < 0 else cycle for cycle in cycles))
            for write, address, beats, accepted, *cycles in rows
        ]

    def _handles(self) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        return ctypes.c_void_p(self._simulation._handle), ctypes.c_void_p(self._memory)

    def _raise_violation(self) -> None:
        text = self._library.bm_violation(ctypes.c_void_p(self._memory)).decode()
        if text:
            raise MismatchError(f"{self.design.top}: its AXI master breaks a rule in {text}")


def _check_region(region: Region, port_bytes: int) -> None:
    data = region.data
    if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous or not data.flags.writeable:
        raise ConfigError(f"region at {region.base:#x}: must be a contiguous, writeable array of bytes")
    if data.size % port_bytes or region.base % port_bytes:
        raise ConfigError(
            f"region at {region.base:#x} of {data.size} bytes: both must be multiples of a beat of {port_bytes} bytes"
        )


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
