"""A bitwright accelerator on a board, driven from Python.

with Accelerator.open("/dev/ttyUSB0", machine) as board:
    run = board.run(program, memory)
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from bitwright.arch.errors import BoardError, ConfigError
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.encoding import to_bytes
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import Instruction, Store
from bitwright.arch.isa.limits import REGIONS
from bitwright.arch.isa.placement import Placement
from bitwright.arch.isa.timing import FETCH_BYTES
from bitwright.arch.machine import Machine
from bitwright.arch.registers import BY_NAME, COUNTERS, IDENTITY, MAJOR, OFFSETS, halves
from bitwright.fpga.host.link import Link, Progress, Request, SerialPort, Statistics, read
from bitwright.fpga.link.protocol import HEADER_BYTES, Info, Op, design_id
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
BAUD = 3_000_000
MOST_BAUD = 100_000_000
PAYLOAD_BYTES = 512
"""Of memory in a frame, at most: a quarter of the board's room where that is less."""
MOST_CYCLES = 1 << 32
_READ_TIMEOUT_S, _WRITE_TIMEOUT_S = 0.01, 10
_BUSY, _DONE = (BY_NAME["STATUS"].field(name).mask for name in ("busy", "done"))


@dataclass(frozen=True)
class BoardRun:
    """What a run did.

    Members
        fault : of the register ERROR; None: the program ran to its End
        index : of ERROR_INDEX
        counters : the board's registers
    """

    fault: Fault | None
    index: int
    counters: Counters


class Accelerator:
    """An accelerator behind a serial port; use it in a `with`, or `close()` it.

    Members
        info : what the board says of itself
        statistics : bytes and requests of the link since it was opened
    Every method raises BoardError when the board does not answer, was reset, or is unplugged; nothing that a broken
    line has changed is ever given as a result.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._runs = 0

    @classmethod
    def open(
        cls, port: str, machine: Machine | None = None, *, baud: int = BAUD, timeout_s: float = 0.25, retries: int = 8
    ) -> Accelerator:
        """Greet the board at `port` (/dev/ttyUSB0, COM3).

        Parameters
            machine : what must be on it; None: any
            baud : of the board's line
            timeout_s, retries : as of `Link`
        BoardError for a port that does not exist or is in use, a board that does not answer, or another machine's;
        ConfigError for a baud rate that none has.
        """
        line = serial_port(port, baud)
        try:
            found = cls(Link(line, port, baud, timeout_s, retries))
            found._check(machine)
        except BaseException:
            line.close()
            raise
        return found

    def _check(self, machine: Machine | None) -> None:
        """That it is an accelerator, and that machine's."""
        name = self._link.name
        identity = self.read_register("ID")
        if identity >> 16 != IDENTITY or identity >> 8 & 0xFF != MAJOR:
            raise BoardError(
                f"{name}: ID = {identity:#010x}: must be {IDENTITY:#06x} and version {MAJOR} of the registers; program "
                "the board again (bitwright fpga build, program)"
            )
        if machine is not None and self.info.design != design_id(machine):
            raise BoardError(
                f"{name}: the board holds machine {self.info.design.hex()}, not {machine.name} "
                f"({design_id(machine).hex()}); program that one (bitwright fpga build, program)"
            )

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the port back; what is in the board's memory stays."""
        self._link.close()

    @property
    def info(self) -> Info:
        return self._link.info

    @property
    def statistics(self) -> Statistics:
        return self._link.statistics

    # --- Memory and registers -------------------------------------------------------------------------------------

    def write_memory(self, address: int, data: bytes | Bytes, progress: Progress | None = None) -> None:
        """Bytes from `address` on. ConfigError for some beyond the board's memory."""
        self._link.exchange(self._writes(address, bytes(data)), progress)

    def read_memory(self, address: int, size: int, progress: Progress | None = None) -> bytes:
        """So many bytes from `address` on. ConfigError for some beyond the board's memory."""
        self._check_range(address, size)
        step = self._payload_bytes
        requests = [
            read(Op.READ_MEMORY, at, min(step, address + size - at)) for at in range(address, address + size, step)
        ]
        return b"".join(self._link.exchange(requests, progress))

    def read_register(self, name: str) -> int:
        """A register of `arch.registers`, such as STATUS; KeyError for another name."""
        return self.read_registers([name])[name]

    def read_registers(self, names: Sequence[str]) -> dict[str, int]:
        """Several, each by itself: one that changes may have changed in between."""
        answers = self._link.exchange([read(Op.READ_REGISTERS, OFFSETS[name], 4) for name in names])
        return {name: int.from_bytes(answer, "little") for name, answer in zip(names, answers, strict=True)}

    def write_registers(self, values: dict[str, int]) -> None:
        """Registers that may be written in any order, and twice; CONTROL is `start`'s."""
        self._link.exchange(_register_writes(values))

    def _writes(self, address: int, data: bytes) -> list[Request]:
        self._check_range(address, len(data))
        step = self._payload_bytes
        return [
            Request(Op.WRITE_MEMORY, address + at, data[at : at + step]) for at in range(0, len(data), step)
        ]  # fmt: skip

    @property
    def _payload_bytes(self) -> int:
        return min(PAYLOAD_BYTES, self.info.link_bytes // 4 - HEADER_BYTES - 1)

    def _check_range(self, address: int, size: int) -> None:
        if address < 0 or size < 0 or address + size > self.info.memory_bytes:
            raise ConfigError(
                f"memory = {address:#x}..{address + size:#x}: the board has {self.info.memory_bytes} bytes "
                "(split the work into smaller tiles)"
            )

    # --- Runs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a run of what the registers say."""
        self._runs = self._runs % 255 + 1
        self._link.exchange([Request(Op.RUN, self._runs)])

    def wait(self) -> int:
        """STATUS, once no run goes on; the watchdog's cycles are the only limit."""
        while (status := self.read_register("STATUS")) & _BUSY:
            pass
        return status

    def run(
        self, program: Sequence[Instruction] | bytes, memory: Sequence[Bytes], *, max_cycles: int = 1 << 30,
        outputs: Sequence[int] | None = None, progress: Progress | None = None,
    ) -> BoardRun:  # fmt: skip
        """Run a program; the regions that it stores to change in place.

        Parameters
            program : ends with End
            memory : four regions of whole beats
            max_cycles : of the watchdog, 1..2**32
            outputs : the regions that are read back, and that are not loaded before; None: those that a Store names are
                loaded before and read back
            progress : of all that is loaded
        ConfigError for a program or memory that is none, or that the board has no room for. A program's fault is no
        error, but the result's.
        """
        if outputs is None:
            if isinstance(program, bytes):
                raise ConfigError("outputs: must be given for a program of bytes (or give its instructions)")
            backs = sorted({item.region for item in program if isinstance(item, Store)})
        else:
            backs = list(outputs)
        skipped = () if outputs is None else backs
        placement = self.load(program, memory, max_cycles=max_cycles, skipped=skipped, progress=progress)
        self.start()
        status = self.wait()
        run = self.result(status)
        for region in backs:
            got = self.read_memory(placement.regions[region], memory[region].size)
            memory[region][:] = np.frombuffer(got, np.uint8)
        return run

    def load(
        self, program: Sequence[Instruction] | bytes, memory: Sequence[Bytes], *, max_cycles: int = 1 << 30,
        skipped: Sequence[int] = (), progress: Progress | None = None,
    ) -> Placement:  # fmt: skip
        """All that a run needs but its start; where program and regions stand then.

        skipped : regions that get their room but are not loaded. Others and errors as of `run`.
        """
        words = bytes(program) if isinstance(program, bytes) else to_bytes(program)
        _check_run(words, memory, self.info.port_bytes, max_cycles)
        placement = place(len(words), [region.size for region in memory])
        beat = self.info.port_bytes
        values = {"PROGRAM_WORDS": len(words) // WORD_BYTES, "INTERRUPT_ENABLE": 0, "INTERRUPT": 3}
        values |= halves("PROGRAM_BASE", placement.program) | halves("WATCHDOG", max_cycles)
        for region, base in enumerate(placement.regions):
            values |= halves(f"REGION{region}_BASE", base)
            values[f"REGION{region}_BEATS"] = memory[region].size // beat
        # What follows the program in its last beats is fetched: it must be some bytes, any.
        requests = self._writes(placement.program, words + bytes(-len(words) % FETCH_BYTES))
        for region, base in enumerate(placement.regions):
            if region not in skipped and memory[region].size:
                requests += self._writes(base, memory[region].tobytes())
        for region, base in enumerate(placement.regions):
            self._check_range(base, memory[region].size)
        self._link.exchange([*requests, *_register_writes(values)], progress)
        return placement

    def result(self, status: int) -> BoardRun:
        """How the run ended that left this STATUS, and its counters."""
        names = ["ERROR", "ERROR_INDEX", *(f"{name.upper()}_{half}" for name in COUNTERS for half in ("LO", "HI"))]
        got = self.read_registers(names)
        code = got["ERROR"]
        if bool(status & _DONE) != (code == 0):
            raise BoardError(f"{self._link.name}: STATUS = {status:#x} with ERROR = {code}: the board is not well")
        counters = Counters(**{name: got[f"{name.upper()}_LO"] | got[f"{name.upper()}_HI"] << 32 for name in COUNTERS})
        return BoardRun(Fault(code) if code else None, got["ERROR_INDEX"], counters)


def place(program_bytes: int, region_bytes: Sequence[int]) -> Placement:
    """The program at 0, then region after region, each from the next multiple of FETCH_BYTES on: memory is scarce."""
    at = program_bytes
    bases: list[int] = []
    for size in region_bytes:
        at += -at % FETCH_BYTES
        bases.append(at)
        at += size
    return Placement(0, (bases[0], bases[1], bases[2], bases[3]))


def placed_bytes(program_bytes: int, region_bytes: Sequence[int]) -> int:
    """Of memory that a run takes."""
    last = place(program_bytes, region_bytes).regions[-1] + region_bytes[-1]
    return max(last, program_bytes + -program_bytes % FETCH_BYTES)


def _register_writes(values: dict[str, int]) -> list[Request]:
    return [
        Request(Op.WRITE_REGISTERS, OFFSETS[name], value.to_bytes(4, "little")) for name, value in values.items()
    ]  # fmt: skip


def _check_run(words: bytes, memory: Sequence[Bytes], beat: int, max_cycles: int) -> None:
    if not words or len(words) % WORD_BYTES:
        raise ConfigError(f"program: {len(words)} bytes: must be instructions of {WORD_BYTES} bytes, 1 or more")
    if len(memory) != REGIONS:
        raise ConfigError(f"memory: {len(memory)} regions: must be {REGIONS}")
    for number, region in enumerate(memory):
        if region.size % beat:
            raise ConfigError(f"memory[{number}]: {region.size} bytes: must be beats of {beat} bytes")
    if not 1 <= max_cycles <= MOST_CYCLES:
        raise ConfigError(f"max_cycles = {max_cycles}: must be 1..{MOST_CYCLES}")


def serial_port(port: str, baud: int) -> SerialPort:
    """The port, this process's alone; ConfigError for a baud rate that none has, BoardError when it cannot be had."""
    if not 1 <= baud <= MOST_BAUD:
        raise ConfigError(f"baud = {baud}: must be 1..{MOST_BAUD}, as the board was built for (here: {BAUD})")
    import serial
    from serial.tools.list_ports import comports

    try:
        found: Any = serial.Serial(
            port, baud, timeout=_READ_TIMEOUT_S, write_timeout=_WRITE_TIMEOUT_S, exclusive=True
        )  # fmt: skip
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(item.device for item in comports())) or "none"
        raise BoardError(
            f"port = {port}: cannot be opened ({error}); is the board plugged in, and may you use the port? "
            f"Ports of this machine: {known}"
        ) from error
    # The bridge's timer for short answers, 16 ms on many: 1 ms where the system lets us.
    with contextlib.suppress(OSError, ValueError, AttributeError, NotImplementedError):
        found.set_low_latency_mode(True)
    return found
