# amaranth: UnusedElaboratable=no
"""A memory that never answers: the watchdog's error, `busy` for ever, and the register RESET that recovers."""

from __future__ import annotations

from collections import deque
from functools import cache

import pytest
from bitwright.arch import machine
from bitwright.arch.isa import assemble, to_bytes
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.limits import Limits, limits
from bitwright.arch.registers import OFFSETS
from bitwright.rtl.accelerator.top import verilog
from bitwright.rtl.bench.verilator import Compiled, Simulation

BUSY, DONE, ERROR = 1, 2, 4
PROGRAM = to_bytes(assemble("load act hand beats=2\nload wgt hand region=1 beats=3\nstore region=3 beats=1\nend"))
WHOLE = to_bytes(assemble("load act hand beats=2\nload wgt hand region=1 beats=3\nend"))
PORT_BYTES = 8
WATCHDOG = 90


@cache
def compiled() -> Compiled:
    small = machine.with_changes(machine.load("int8-2x2"), buffers_kib="1,1,1")
    lim: Limits = limits(small, port_bytes=PORT_BYTES, formats=["int8"])
    module, text = verilog(lim)
    return Compiled(text, module, optimise="-O0")


class Board:
    """The accelerator, a host on its registers, and a memory that reads the program at 0 and zeros elsewhere.

    `accepts`, `answers`: whether it takes addresses and gives beats; `reach`: those of lower addresses only.
    """

    def __init__(self, simulation: Simulation, program: bytes) -> None:
        self.simulation, self.program = simulation, program
        self.accepts = self.answers = True
        self.reach = 1 << 40
        self.owed: deque[tuple[int, bool]] = deque()  # (address, last)
        simulation.reset()

    def step(self, **pins: int) -> dict[str, int]:
        """One cycle."""
        beat = self.owed[0] if self.answers and self.owed and self.owed[0][0] < self.reach else None
        pins |= {"m_axi_arready": self.accepts, "m_axi_awready": self.accepts}
        if beat is not None:
            data = int.from_bytes(self.program[beat[0] : beat[0] + PORT_BYTES].ljust(PORT_BYTES, b"\0"), "little")
            pins |= {"m_axi_rvalid": 1, "m_axi_rdata": data, "m_axi_rlast": beat[1]}
        out = {name: int(value[0]) for name, value in self.simulation.run(pins, 1).items()}
        if beat is not None and out["m_axi_rready"]:
            self.owed.popleft()
        if self.accepts and out["m_axi_arvalid"]:
            last = out["m_axi_arlen"]
            self.owed += [(out["m_axi_araddr"] + PORT_BYTES * n, n == last) for n in range(last + 1)]
        return out

    def write(self, name: str, value: int) -> None:
        self.step(s_axil_awvalid=1, s_axil_awaddr=OFFSETS[name], s_axil_wvalid=1, s_axil_wdata=value, s_axil_wstrb=15)
        while not (out := self.step(s_axil_bready=1))["s_axil_bvalid"]:
            pass
        assert out["s_axil_bresp"] == 0, name

    def read(self, name: str) -> int:
        self.step(s_axil_arvalid=1, s_axil_araddr=OFFSETS[name])
        while not (out := self.step(s_axil_rready=1))["s_axil_rvalid"]:
            pass
        return out["s_axil_rdata"]

    def run(self, cycles: int) -> int:
        """A run's status after so many cycles."""
        self.write("CONTROL", 1)
        for _ in range(cycles):
            self.step()
        return self.read("STATUS")

    def set_up(self, watchdog: int) -> None:
        words = {"PROGRAM_WORDS": len(self.program) // 16, "WATCHDOG_LO": watchdog, "INTERRUPT_ENABLE": 3}
        words |= {f"REGION{region}_BASE_LO": 0x1000 * (region + 1) for region in range(4)}
        for name, value in (words | {f"REGION{region}_BEATS": 64 for region in range(4)}).items():
            self.write(name, value)


@pytest.mark.parametrize(
    ("accepts", "answers", "after", "watchdog"),
    [
        (False, True, 0, WATCHDOG),  # not even an address
        (True, False, 0, WATCHDOG),  # an open read of the program
        (True, False, 20, WATCHDOG),  # open reads of a Load
        (True, True, 0, WATCHDOG),  # a Store that waits for its slot: the memory answers, and nothing is to recover
        (True, False, 0, 0),  # no watchdog: a run without end
        (True, False, 20, 0),
    ],
)
def test_reset_recovers_from_a_memory_that_never_answers(
    accepts: bool, answers: bool, after: int, watchdog: int
) -> None:
    with compiled().open(random_state=True, seed=3) as simulation:
        board = Board(simulation, PROGRAM)
        board.set_up(watchdog)
        board.write("CONTROL", 1)
        for _ in range(after):
            board.step()
        board.accepts, board.answers = accepts, answers
        for _ in range(3 * WATCHDOG):
            board.step()
        dead = not (accepts and answers)
        error = ERROR if watchdog or not dead else 0
        for _ in range(3):  # and nothing changes any more
            assert board.read("STATUS") == (BUSY if dead else 0) | error
            for _ in range(300):
                board.step()
        assert board.read("ERROR") == (int(Fault.WATCHDOG if dead else Fault.DEADLOCK) if error else 0)
        board.write("RESET", 0)
        assert board.read("STATUS") == (BUSY if dead else 0) | error

        board.write("RESET", 1)
        board.owed.clear()  # the memory is reset with it
        board.accepts = board.answers = True
        assert [board.read(name) for name in ("STATUS", "ERROR", "CYCLES_LO", "BEATS_READ_LO")] == [0] * 4
        assert board.read("PROGRAM_WORDS") == len(PROGRAM) // 16
        board.write("INTERRUPT", 3)
        board.program = WHOLE
        board.write("PROGRAM_WORDS", len(WHOLE) // 16)
        assert board.run(200) == DONE
        found = [board.read(name) for name in ("ERROR", "ERROR_INDEX", "INSTRUCTIONS_LO", "BEATS_READ_LO")]
        assert found == [0, 2, 2, 6 + 2 + 3]


def test_words_after_the_end_that_never_come_are_an_error() -> None:
    """The run is over when its End is met; what was fetched beyond keeps it busy, and the watchdog tells."""
    with compiled().open(random_state=True, seed=7) as simulation:
        board = Board(simulation, to_bytes(assemble("end")) * 40)
        board.set_up(WATCHDOG)
        board.reach = 256
        status = board.run(WATCHDOG // 2)
        assert status == BUSY
        for _ in range(2 * WATCHDOG):
            out = board.step()
        assert out["irq"]
        assert (board.read("STATUS"), board.read("ERROR")) == (BUSY | ERROR, int(Fault.WATCHDOG))
        board.reach = 1 << 40
        for _ in range(200):
            board.step()
        assert (board.read("STATUS"), board.read("ERROR")) == (ERROR, int(Fault.WATCHDOG))


def test_a_run_after_a_reset_has_the_cycles_of_a_first_one() -> None:
    counted = []
    for broken in (False, True):
        with compiled().open(random_state=True, seed=5) as simulation:
            board = Board(simulation, WHOLE)
            board.set_up(WATCHDOG)
            if broken:
                board.answers = False
                assert board.run(300) == BUSY | ERROR
                board.write("RESET", 1)
                board.owed.clear()
                board.answers = True
            assert board.run(200) == DONE
            counted.append(board.read("CYCLES_LO"))
    assert counted[0] == counted[1]
