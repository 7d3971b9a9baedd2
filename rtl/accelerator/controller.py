"""The controller: a run from its start to its outcome, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, ClassVar

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import UNITS, Op
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.arch.pe import Evidence
from bitwright.arch.registers import COUNTERS
from bitwright.rtl.accelerator.checker import FAULT_BITS
from bitwright.rtl.accelerator.fetcher import FETCH_STATE
from bitwright.rtl.accelerator.unit_control import UNIT_STATE

COUNTER_BITS = 64
COUNTER_LAYOUT = StructLayout(dict.fromkeys(COUNTERS, COUNTER_BITS))
"""The counters of arch.registers."""


@dataclass(frozen=True)
class _Candidate:
    """An instruction that may be the one to name."""

    valid: Value
    index: Value
    code: Value


class Controller(wiring.Component):
    """Starts a run, sees when nothing moves any more, and says how it ended.

    Members
        start : In(1)            Begins a run; ignored while `busy`.
        clear : Out(1)           Everything but this, the registers and the memory port is reset in this cycle.
        running : Out(1)         The run goes on: the fetcher fetches, units start instructions.
        fetch : In(FETCH_STATE); load, execute, vector, store : In(UNIT_STATE)
        load_error, store_error : In(1)   The engine is shown an error of the bus.
        port_idle : In(1)        The memory port has nothing open and shows nothing.
        beat_read, beat_written : In(1)   A beat is transferred on the R, on the W pins.
        watchdog : In(64)        Most cycles of a run; 0: any number. Stands during a run.
        busy, done, error, code, index : Out   STATUS, ERROR and ERROR_INDEX of arch.registers.
        has_ended, has_failed : Out(1)   One cycle each: a run came to its End, was stopped.
        counters : Out(COUNTER_LAYOUT)
    Timing       `start` in cycle t: `clear` in t + 1, and t + 2 is the run's cycle 0. Cycle q is quiet when no unit
                 starts an instruction in it or has one in flight, and the fetcher stands. It is the run's last one:
                 CYCLES = q + 1. What the last instruction of a run did shows first in the cycle after its last one,
                 so q is at least that. After q come two cycles or more: the outcome is found, and what the fetcher has
                 asked for too much comes in. Then `busy` falls, and `done` or `error` is set.
                 An error that Load or Store is shown, or the last cycle that the watchdog allows when it is not quiet,
                 is the run's last cycle; `error` is set at once, `busy` falls when Load and Store have ended what they
                 have started. The error of the bus goes before the watchdog. Where what is asked for too much takes as
                 many cycles as the watchdog allows a run, `error` is set, with the fault found, else WATCHDOG.
    Outcome      that of arch.isa.network: the fault of the lowest index; without one, the lowest instruction that waits
                 in a queue is a deadlock's; else done, at the End's index. Of an error of the bus the oldest
                 instruction in flight in the engine that was shown it, of both the lower; of the watchdog the lowest
                 that is not done.
    Counters     `cycles`, `instructions` (put into a queue) and `..._busy` (cycles with instructions in flight) of the
                 cycles of the run; beats also of those to the fall of `busy`.
    Reset        idle, neither done nor error, counters 0. By the register RESET too: only that ends a run whose
                 memory never answers, before or after the watchdog did.
    Model        arch.isa.network, arch.isa.counters
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "outcome, index and counters of legal and broken programs with random engines equal the model",
            690,
            "tests/rtl/accelerator/test_control.py",
        ),
    )

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "clear": Out(1),
                "running": Out(1),
                "fetch": In(FETCH_STATE),
                **{op.name.lower(): In(UNIT_STATE) for op in UNITS},
                "load_error": In(1),
                "store_error": In(1),
                "port_idle": In(1),
                "beat_read": In(1),
                "beat_written": In(1),
                "watchdog": In(COUNTER_BITS),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(1),
                "code": Out(FAULT_BITS),
                "index": Out(INDEX_BITS),
                "has_ended": Out(1),
                "has_failed": Out(1),
                "counters": Out(COUNTER_LAYOUT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        units = {op: getattr(self, op.name.lower()) for op in UNITS}
        bus_error, quiet, too_long = Signal(), Signal(), Signal()
        stopping, too_late = Signal(COUNTER_BITS, reset_less=True), Signal()  # cycles of STOPPING
        last_allowed = Signal(COUNTER_BITS, reset_less=True)
        moving = reduce(or_, (unit.starts | unit.in_flight for unit in units.values()))
        m.d.comb += [
            bus_error.eq(self.load_error | self.store_error),
            quiet.eq(self.fetch.stands & ~moving),
            too_long.eq((self.counters.cycles == last_allowed) & self.watchdog.any()),
            too_late.eq((stopping == last_allowed) & self.watchdog.any() & ~self.error),
        ]
        m.d.sync += last_allowed.eq(self.watchdog - 1)

        faults, waits = Signal(), Signal()
        m.d.comb += [
            faults.eq(self.fetch.faulted | reduce(or_, (unit.faulted for unit in units.values()))),
            waits.eq(reduce(or_, (unit.waits for unit in units.values()))),
        ]
        named = self._named(units, faults & ~self.running)
        fails_now, fails_at_end = Signal(), Signal()
        with m.FSM(name="run") as run:
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.done.eq(0), self.error.eq(0), self.code.eq(0), self.index.eq(0)]
                m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(bus_error):
                    m.d.comb += fails_now.eq(1)
                    m.d.sync += [self.code.eq(Fault.BUS_ERROR), self.index.eq(self._bus_index(units))]
                    m.next = "STOPPING"
                with m.Elif(quiet):
                    m.next = "JUDGING"
                with m.Elif(too_long):
                    m.d.comb += fails_now.eq(1)
                    m.d.sync += [self.code.eq(Fault.WATCHDOG), self.index.eq(named.index)]
                    m.next = "STOPPING"
            with m.State("JUDGING"):
                m.d.sync += [
                    self.code.eq(Mux(faults, named.code, Mux(waits, Fault.DEADLOCK, 0))),
                    self.index.eq(named.index),
                ]
                m.next = "STOPPING"
            with m.State("STOPPING"):
                with m.If(self.port_idle & ~units[Op.LOAD].in_flight & ~units[Op.STORE].in_flight):
                    m.d.comb += [self.has_ended.eq(~self.code.any()), fails_at_end.eq(self.code.any() & ~self.error)]
                    m.next = "IDLE"
                with m.Elif(too_late):
                    m.d.comb += fails_now.eq(1)
                    m.d.sync += self.code.eq(Mux(self.code.any(), self.code, Fault.WATCHDOG))
        m.d.comb += [self.busy.eq(~run.ongoing("IDLE")), self.has_failed.eq(fails_now | fails_at_end)]
        m.d.sync += stopping.eq(Mux(run.ongoing("STOPPING"), stopping + 1, 0))
        with m.If(self.has_failed):
            m.d.sync += self.error.eq(1)
        with m.If(self.has_ended):
            m.d.sync += self.done.eq(1)
        self._count(m, units)
        return m

    def _bus_index(self, units: dict[Op, Any]) -> Value:
        """The oldest instruction in flight of the engine that was shown an error, of both the lower one."""
        load, store = units[Op.LOAD].oldest, units[Op.STORE].oldest
        of_load = self.load_error & (~self.store_error | (load < store))
        return Mux(of_load, load, store)

    def _named(self, units: dict[Op, Any], by_fault: Value) -> _Candidate:
        """The lowest instruction with a fault, or the lowest one that is not done."""
        candidates = [_Candidate(self.fetch.faulted | ~by_fault, self.fetch.index, self.fetch.fault)]
        for unit in units.values():
            valid = Mux(by_fault, unit.faulted, unit.in_flight | unit.waits)
            index = Mux(by_fault, unit.fault_index, unit.oldest)
            candidates.append(_Candidate(valid, index, Const(Fault.UNWRITTEN, FAULT_BITS)))
        return reduce(_lower, candidates)

    def _count(self, m: Module, units: dict[Op, Any]) -> None:
        counts = {
            "cycles": self.running,
            "instructions": self.running & self.fetch.pushes,
            "beats_read": self.busy & self.beat_read,
            "beats_written": self.busy & self.beat_written,
            **{f"{op.name.lower()}_busy": self.running & unit.in_flight for op, unit in units.items()},
        }
        for name in COUNTERS:
            counter = getattr(self.counters, name)
            with m.If(self.clear):
                m.d.sync += counter.eq(0)
            with m.Elif(counts[name]):
                m.d.sync += counter.eq(counter + 1)


def _lower(one: _Candidate, other: _Candidate) -> _Candidate:
    """The valid one of the lower index."""
    takes_one = one.valid & (~other.valid | (one.index < other.index))
    return _Candidate(
        one.valid | other.valid, Mux(takes_one, one.index, other.index), Mux(takes_one, one.code, other.code)
    )
