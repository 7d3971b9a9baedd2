"""The board in Python, byte for byte as docs/fpga-link.md says: what the host's tests talk to; the gates' oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from bitwright.arch import machine as machines
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.encoding import from_bytes
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.arch.isa.limits import REGIONS, limits
from bitwright.arch.isa.placement import Placement
from bitwright.arch.machine import Machine
from bitwright.arch.registers import BY_NAME, COUNTERS, IDENTITY, MAJOR, MINOR, OFFSETS, Access
from bitwright.fpga.link.protocol import END, HEADER_BYTES, FrameError, Info, Op, Status, body_of, design_id, frame
from bitwright.fpga.memory import timing
from bitwright.fpga.top import Board
from bitwright.sim.accelerator import fast

Outcome = tuple[Fault | None, int, Counters]
Runner = Callable[[bytes, Sequence[np.ndarray], Placement, int], Outcome]


@dataclass(frozen=True)
class TestBoard:
    """A board top's facts, by default those of the simulations: 4 clocks a bit."""

    __test__ = False

    name: str = "test"
    clock_hz: int = 12_000_000
    baud: int = 3_000_000
    memory_bytes: int = 65536
    single_port_memory: bool = False
    link_bytes: int = 2048
    leds: int = 8


def small_machine(name: str = "int8-4x4", formats: tuple[str, ...] = ("int4_asym",), kib: float = 2) -> Machine:
    loaded = machines.with_changes(machines.load(name), buffers_kib=f"{kib},{kib},{kib}")
    return loaded.model_copy(update={"formats": formats})


@dataclass
class BoardModel:
    """A serial port with a board behind it; the host's `SerialPort`.

    to_board, to_host : what the line makes of each byte that goes over it
    held_reads, held_writes : what comes from the board, what goes to it, is held back for so many more reads
    """

    machine: Machine
    board: Board = field(default_factory=TestBoard)
    runner: Runner | None = None
    to_board: Callable[[int], Iterable[int]] = lambda byte: (byte,)
    to_host: Callable[[int], Iterable[int]] = lambda byte: (byte,)

    def __post_init__(self) -> None:
        self.limits = limits(self.machine)
        self.memory = np.random.default_rng(1).integers(0, 256, self.board.memory_bytes, dtype=np.uint8)
        self.values = dict.fromkeys(OFFSETS, 0)
        self.values["ID"] = IDENTITY << 16 | MAJOR << 8 | MINOR
        self.session = self.last_run = self.runs = 0
        self.answers, self.under_way, self.part = bytearray(), bytearray(), bytearray()
        self.held_reads = self.held_writes = 0
        self.is_gone = False

    # --- serial.Serial ---

    @property
    def in_waiting(self) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return len(self.answers)

    def read(self, size: int) -> bytes:
        self.held_writes = max(0, self.held_writes - 1)
        self._deliver()
        if self.held_reads:
            self.held_reads -= 1
            return b""
        data = bytes(self.answers[:size])
        del self.answers[:size]
        return data

    def write(self, data: bytes) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        for byte in data:
            self.under_way += bytes(self.to_board(byte))
        self._deliver()
        return len(data)

    def _deliver(self) -> None:
        """What has arrived at the board."""
        if self.held_writes:
            return
        *lines, self.part = (self.part + self.under_way).split(bytes([END]))
        self.under_way = bytearray()
        for line in filter(None, lines):
            try:
                body = body_of(bytes(line))
            except FrameError:
                continue
            if len(body) >= HEADER_BYTES:
                for byte in frame(self.answer(body)):
                    self.answers += bytes(self.to_host(byte))

    def reset_input_buffer(self) -> None:
        self.answers.clear()

    def close(self) -> None:
        pass

    def reset(self) -> None:
        """The button: memory stays."""
        self.session = self.last_run = 0
        self.values |= {name: 0 for name in OFFSETS if name != "ID"}

    def lose_power(self) -> None:
        """And come up again with the same bitstream."""
        self.reset()
        self.memory[:] = np.random.default_rng(self.runs).integers(0, 256, self.memory.size, dtype=np.uint8)

    # --- The board ---

    def answer(self, body: bytes) -> bytes:
        session, number, op = body[:3]
        address, rest = int.from_bytes(body[3:7], "little"), body[7:]
        data = b""
        if op == Op.HELLO:
            self.session, self.last_run, status = session, 0, Status.OK
            board = self.board
            data = Info(
                1, self.machine.port.bytes, board.link_bytes, board.memory_bytes, board.clock_hz,
                design_id(self.machine),
            ).encode()  # fmt: skip
        elif not self.session or session != self.session:
            status = Status.NO_SESSION
        else:
            status, data = self._do(op, address, rest)
        return bytes([session, number, op | 0x80, status]) + data

    def _do(self, op: int, address: int, rest: bytes) -> tuple[Status, bytes]:
        size = int.from_bytes(rest[:2], "little")
        of_registers = op in (Op.READ_REGISTERS, Op.WRITE_REGISTERS)
        end = 4096 if of_registers else self.board.memory_bytes
        if of_registers and (address % 4 or address >= end):
            return Status.BAD_REQUEST, b""
        if op == Op.RUN:
            if address & 0xFF != self.last_run:
                self._run()
                self.last_run = address & 0xFF
            return Status.OK, b""
        if op in (Op.READ_MEMORY, Op.READ_REGISTERS):
            if len(rest) < 2 or not size or address + size > end or (of_registers and size % 4):
                return Status.BAD_REQUEST, b""
            if of_registers:
                return Status.OK, b"".join(self._register(at) for at in range(address, address + size, 4))
            return Status.OK, self.memory[address : address + size].tobytes()
        if op == Op.WRITE_MEMORY and rest:
            fits = max(0, min(len(rest), end - address))
            self.memory[address : address + fits] = np.frombuffer(rest[:fits], np.uint8)
            return (Status.OK if fits == len(rest) else Status.BAD_REQUEST), b""
        if op == Op.WRITE_REGISTERS and rest:
            return self._write_registers(address, rest), b""
        return Status.BAD_REQUEST, b""

    def _register(self, offset: int) -> bytes:
        names = {at: name for name, at in OFFSETS.items()}
        return self.values.get(names.get(offset, ""), 0).to_bytes(4, "little")

    def _write_registers(self, address: int, data: bytes) -> Status:
        names = {at: name for name, at in OFFSETS.items()}
        for at in range(0, len(data), 4):
            name = names.get(address + at, "")
            if name == "CONTROL" or len(data[at : at + 4]) < 4 or address + at >= 4096:
                return Status.BAD_REQUEST
            if not name or BY_NAME[name].access is Access.RO:
                return Status.REFUSED
            value = int.from_bytes(data[at : at + 4], "little")
            mask = BY_NAME[name].mask & ~(self.machine.port.bytes - 1 if name.endswith("_BASE_LO") else 0)
            if BY_NAME[name].access is Access.CLEAR:
                self.values[name] &= ~value
            elif name != "RESET":
                self.values[name] = value & mask
        return Status.OK

    def _pair(self, name: str) -> int:
        return self.values[f"{name}_LO"] | self.values[f"{name}_HI"] << 32

    def _run(self) -> None:
        self.runs += 1
        beat = self.machine.port.bytes
        bases = tuple(self._pair(f"REGION{region}_BASE") for region in range(REGIONS))
        sizes = [self.values[f"REGION{region}_BEATS"] * beat for region in range(REGIONS)]
        first = self._pair("PROGRAM_BASE")
        words = self.memory[first : first + 16 * self.values["PROGRAM_WORDS"]].tobytes()
        regions = [self.memory[base : base + size].copy() for base, size in zip(bases, sizes, strict=True)]
        runner = self.runner or self._interpreted
        fault, index, counters = runner(words, regions, Placement(first, bases), self._pair("WATCHDOG"))
        for base, region in zip(bases, regions, strict=True):
            self.memory[base : base + region.size] = region
        self.values |= {"STATUS": 4 if fault else 2, "ERROR": int(fault or 0), "ERROR_INDEX": index}
        for name in COUNTERS:
            value = getattr(counters, name)
            self.values |= {f"{name.upper()}_LO": value & 0xFFFFFFFF, f"{name.upper()}_HI": value >> 32}

    def _interpreted(
        self, words: bytes, regions: Sequence[np.ndarray], placement: Placement, watchdog: int
    ) -> Outcome:  # fmt: skip
        program = from_bytes(words)
        outcome = interpret(program, self.limits, regions)
        if not outcome.legal:
            return outcome.fault, outcome.index, Counters(**dict.fromkeys(COUNTERS, 0))
        port = self.machine.port
        sizes = [region.size // port.bytes for region in regions]
        opened = {"outstanding_reads": port.outstanding_reads, "outstanding_writes": port.outstanding_writes}
        memory = timing(self.board.single_port_memory)
        done = fast.run(program, self.limits, sizes, memory, placement=placement, **opened)
        return None, outcome.index, done.counters


def with_a_wrong_output(machine: Machine) -> BoardModel:
    """A board whose machine gets the fifth output byte of a run wrong by a bit."""
    model = BoardModel(machine)

    def wrong(words: bytes, regions: list[npt.NDArray[np.uint8]], *rest: object) -> object:
        outcome = model._interpreted(words, regions, *rest)  # type: ignore[arg-type]
        regions[3][4] ^= 1
        return outcome

    model.runner = wrong  # type: ignore[assignment]
    return model
