# amaranth: UnusedElaboratable=no
"""The AXI4-Lite registers against a model of every pin in every cycle, with random transfers and back-pressure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.lib.wiring import In
from bitwright.arch.registers import COUNTERS, OFFSETS, REGISTERS, Access, Register
from bitwright.rtl.accelerator.controller import COUNTER_LAYOUT
from bitwright.rtl.accelerator.register_file import RegisterFile, axil_ports
from bitwright.rtl.bench.verilator import LINT_WAIVERS, Compiled, lint
from bitwright.rtl.pe.emit import emit, plain

SEED = 20261123
PORT_BYTES = 32
PAUSES = (0.0, 0.3, 0.8)
CYCLES = 15_000
OKAY, SLVERR = 0, 2
AT: dict[int, Register] = {register.offset: register for register in REGISTERS}
READY = ("awready", "wready", "arready")


@cache
def text() -> str:
    return plain(emit(RegisterFile(PORT_BYTES), "registers"))


@cache
def compiled() -> Compiled:
    return Compiled(text(), "registers", optimise="-O1")


# --- The model ---------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The registers and the transfers that are held, cycle by cycle; nothing of it comes from the hardware's text."""

    values: dict[str, int] = field(default_factory=lambda: {register.name: 0 for register in REGISTERS})
    address: int | None = None
    data: tuple[int, int] | None = None
    response: int | None = None
    read: int | None = None
    answer: tuple[int, int] | None = None
    kept: tuple[str, int] | None = None

    def outputs(self, inputs: dict[str, int]) -> dict[str, int]:
        """The pins and the other outputs of this cycle, None of a payload without its valid left out."""
        values = self.values
        flags = values["INTERRUPT"] & values["INTERRUPT_ENABLE"]
        out = {"awready": self.address is None, "wready": self.data is None, "arready": self.read is None}
        out |= {"bvalid": self.response is not None, "rvalid": self.answer is not None, "irq": flags != 0}
        if self.response is not None:
            out["bresp"] = self.response
        if self.answer is not None:
            out["rdata"], out["rresp"] = self.answer
        register = AT.get(self.address or 0)
        one = self._goes() and register is not None and self._written()[0] & 1
        out["start"] = one and register.name == "CONTROL" and not inputs["busy"]
        out["reset"] = one and register.name == "RESET"
        out["program_base"] = values["PROGRAM_BASE_HI"] << 32 | values["PROGRAM_BASE_LO"]
        out["program_words"] = values["PROGRAM_WORDS"]
        out["watchdog"] = values["WATCHDOG_HI"] << 32 | values["WATCHDOG_LO"]
        for region in range(4):
            base = values[f"REGION{region}_BASE_HI"] << 32 | values[f"REGION{region}_BASE_LO"]
            out["region_bases"] = out.get("region_bases", 0) | base << (40 * region)
            out["region_beats"] = out.get("region_beats", 0) | values[f"REGION{region}_BEATS"] << (32 * region)
        return {name: int(value) for name, value in out.items()}

    def _goes(self) -> bool:
        return self.address is not None and self.data is not None and self.response is None

    def _written(self) -> tuple[int, int]:
        """(bits that are written, which of the word are chosen)"""
        assert self.data is not None, "there is data"
        data, strobes = self.data
        chosen = sum(0xFF << (8 * byte) for byte in range(4) if strobes >> byte & 1)
        return data & chosen, chosen

    def step(self, pins: dict[str, int], inputs: dict[str, int]) -> None:
        """The end of a cycle."""
        was_address, was_data, was_read, goes = self.address, self.data, self.read, self._goes()
        self._answer(pins, inputs)  # from the registers as they are before a write of this cycle
        cleared = 0
        if self.response is not None and pins["bready"]:
            self.response = None
        elif goes:
            self.response, cleared = self._write(inputs)
            self.address = self.data = None
        flags = self.values["INTERRUPT"] & ~cleared
        self.values["INTERRUPT"] = flags | inputs["has_ended"] | inputs["has_failed"] << 1
        if was_address is None and pins["awvalid"]:
            self.address = pins["awaddr"] & ~3
        if was_data is None and pins["wvalid"]:
            self.data = pins["wdata"], pins["wstrb"]
        if was_read is None and pins["arvalid"]:
            self.read = pins["araddr"] & ~3

    def _answer(self, pins: dict[str, int], inputs: dict[str, int]) -> None:
        if self.answer is not None:
            if pins["rready"]:
                self.answer = None
        elif self.read is not None:
            self.answer, self.read = self._look_up(self.read, inputs), None

    def _write(self, inputs: dict[str, int]) -> tuple[int, int]:
        """(response, interrupts that are cleared)"""
        register = AT.get(self.address or 0)
        written, chosen = self._written()
        if register is None or register.access is Access.RO:
            return SLVERR, 0
        if register.access is Access.CLEAR:
            return OKAY, written
        if register.access in (Access.RW, Access.START) and inputs["busy"]:
            return SLVERR, 0
        if register.access not in (Access.START, Access.RESET):
            value = self.values[register.name] & ~chosen | written
            within_beat = PORT_BYTES - 1 if register.name.endswith("BASE_LO") else 0
            self.values[register.name] = value & register.mask & ~within_beat
        return OKAY, 0

    def _look_up(self, address: int, inputs: dict[str, int]) -> tuple[int, int]:
        register = AT.get(address)
        if register is None:
            return 0, SLVERR
        name = register.name
        counter, _, half = name.lower().rpartition("_")
        if counter in COUNTERS:
            value = inputs[f"counter_{counter}"]
            if half == "lo":
                self.kept = f"{counter.upper()}_HI", value >> 32
                return value & 0xFFFF_FFFF, OKAY
            if self.kept is not None and self.kept[0] == name:
                high, self.kept = self.kept[1], None
                return high, OKAY
            return value >> 32, OKAY
        status = inputs["busy"] | inputs["done"] << 1 | inputs["error"] << 2
        said = {"ID": 0xB17E_0101, "STATUS": status, "ERROR": inputs["code"], "ERROR_INDEX": inputs["index"]}
        return said.get(name, self.values[name]), OKAY


# --- Running -----------------------------------------------------------------------------------------------------

BITS = {name: member.shape for name, member in axil_ports().items()}


def to_words(values: list[int], bits: int) -> npt.NDArray[Any]:
    if bits <= 64:
        return np.array(values, np.uint64)
    data = b"".join(value.to_bytes(4 * -(-bits // 32), "little") for value in values)
    return np.frombuffer(data, np.uint32).reshape(len(values), -1)


def run(cycles: list[dict[str, int]]) -> dict[str, npt.NDArray[Any]]:
    """Pins and inputs by cycle, to outputs; two cycles of reset come before."""
    design = compiled()
    inputs: dict[str, npt.NDArray[Any]] = {}
    counters = [sum(cycle[f"counter_{name}"] << (64 * n) for n, name in enumerate(COUNTERS)) for cycle in cycles]
    for name, port in design.inputs.items():
        if name == "rst":
            inputs[name] = np.array([1, 1] + [0] * len(cycles))
        else:
            values = counters if name == "counters" else [cycle[name.removeprefix("s_axil_")] for cycle in cycles]
            inputs[name] = to_words([0, 0, *values], port.bits)
    with design.open(random_state=True, seed=SEED) as running:
        out = running.run(inputs)
    return {name.removeprefix("s_axil_"): values[2:] for name, values in out.items()}


QUIET = {"busy": 0, "done": 0, "error": 0, "code": 0, "index": 0, "has_ended": 0, "has_failed": 0}
QUIET |= {f"counter_{name}": 0 for name in COUNTERS}
IDLE = {name.removeprefix("s_axil_"): 0 for name, member in axil_ports().items() if member.flow == In}


def random_pins(draw: Random, idle: float) -> Callable[[dict[str, int], dict[str, int]], dict[str, int]]:
    """Masters that hold what they offer until it is taken, with `idle` pauses; any `ready` of theirs."""

    def following(pins: dict[str, int], out: dict[str, int]) -> dict[str, int]:
        new = dict(pins)
        for channel, payload in (("aw", ("addr",)), ("w", ("data", "strb")), ("ar", ("addr",))):
            if pins[f"{channel}valid"] and not out[f"{channel}ready"]:
                continue
            new[f"{channel}valid"] = int(draw.random() >= idle)
            for name in payload:
                bits = 32 if name == "data" else 4 if name == "strb" else 12
                value = draw.choice([0, (1 << bits) - 1, 1, 2, 3, draw.getrandbits(bits)])
                if name == "addr" and draw.random() < 0.93:
                    value = draw.choice(list(AT)) | draw.choice([0, 0, 0, draw.randrange(4)])
                new[f"{channel}{name}"] = value
        new["bready"], new["rready"] = (int(draw.random() >= idle) for _ in range(2))
        return new

    return following


def random_inputs(draw: Random, inputs: dict[str, int]) -> dict[str, int]:
    new = dict(inputs)
    for name in ("busy", "done", "error"):
        new[name] ^= draw.random() < 0.03
    new["has_ended"], new["has_failed"] = (int(draw.random() < 0.02) for _ in range(2))
    new["code"], new["index"] = draw.getrandbits(4), draw.getrandbits(24)
    for name in COUNTERS:
        value = inputs[f"counter_{name}"] + draw.choice([0, 1, 1 << 31, 0xFFFF_FFFF])
        new[f"counter_{name}"] = value & ((1 << 64) - 1)
    return new


@pytest.mark.parametrize("idle", PAUSES)
def test_every_pin_in_every_cycle_is_the_models(idle: float, record_property: Any) -> None:
    draw, model = Random(f"{SEED} {idle}"), Model()
    following = random_pins(draw, idle)
    pins, inputs, cycles, expected = dict(IDLE), dict(QUIET), [], []
    transfers = {"writes": 0, "reads": 0, "refused": 0, "starts": 0}
    for _ in range(CYCLES):
        out = model.outputs(inputs)
        cycles.append({**pins, **inputs})
        expected.append(out)
        transfers["writes"] += out["bvalid"] and pins["bready"]
        transfers["reads"] += out["rvalid"] and pins["rready"]
        transfers["refused"] += bool(out["bvalid"] and pins["bready"] and out["bresp"])
        transfers["starts"] += out["start"]
        model.step(pins, inputs)
        pins, inputs = following(pins, out), random_inputs(draw, inputs)
    found = run(cycles)
    for name in sorted({name for out in expected for name in out}):
        looked_at = [cycle for cycle, out in enumerate(expected) if name in out]
        wanted = to_words([expected[cycle][name] for cycle in looked_at], compiled_bits(name))
        wrong = np.flatnonzero((found[name][looked_at] != wanted).reshape(len(looked_at), -1).any(axis=1))
        assert not len(wrong), f"{name} differs first in cycle {looked_at[wrong[0]]}, seed {SEED}, idle {idle}"
    hold(found, cycles)
    record_property("figure", f"registers, {idle:.0%} idle: {transfers}")
    assert min(transfers.values()) > 5


def compiled_bits(name: str) -> int:
    outputs = compiled().outputs
    return (outputs.get(name) or outputs[f"s_axil_{name}"]).bits


def hold(found: dict[str, npt.NDArray[Any]], cycles: list[dict[str, int]]) -> None:
    """A response on offer stays, unchanged, until it is taken."""
    for channel, payload in (("b", ("bresp",)), ("r", ("rdata", "rresp"))):
        ready = np.array([cycle[f"{channel}ready"] for cycle in cycles], bool)
        waits = (found[f"{channel}valid"] == 1)[:-1] & ~ready[:-1]
        assert (found[f"{channel}valid"][1:][waits] == 1).all()
        for name in payload:
            assert (found[name][1:][waits] == found[name][:-1][waits]).all()


def test_evidence_is_what_is_compared() -> None:
    assert [item.cases for item in RegisterFile.evidence] == [len(PAUSES) * CYCLES]


# --- By hand -----------------------------------------------------------------------------------------------------


def transfers(*wanted: tuple[str, str | int, int], **inputs: int) -> list[tuple[int, int]]:
    """Writes and reads one after the other, each when the one before is over; (data, response) of each."""
    answers = []
    cycles: list[dict[str, int]] = []
    for kind, where, value in wanted:
        address = OFFSETS[where] if isinstance(where, str) else where
        for cycle in range(5):
            pins = dict(IDLE)
            first = int(cycle == 0)
            if kind == "write":
                pins |= {"awvalid": first, "awaddr": address, "wvalid": first, "wdata": value, "wstrb": 15}
            else:
                pins |= {"arvalid": first, "araddr": address}
            cycles.append({**pins, **QUIET, **inputs, "bready": 1, "rready": 1})
    found = run(cycles)
    for number, (kind, _, _) in enumerate(wanted):
        at = 5 * number + 2  # held in the next cycle, answered in the one after
        channel = "b" if kind == "write" else "r"
        assert [int(found[f"{channel}valid"][at + late]) for late in (-1, 0, 1)] == [0, 1, 0]
        answers.append((int(found["rdata"][at]) if kind == "read" else 0, int(found[f"{channel}resp"][at])))
    return answers


def test_a_transfer_takes_two_cycles_to_its_answer() -> None:
    assert transfers(("write", "PROGRAM_WORDS", 77), ("read", "PROGRAM_WORDS", 0)) == [(0, OKAY), (77, OKAY)]


def test_identity() -> None:
    assert transfers(("read", "ID", 0)) == [(0xB17E0101, OKAY)]


@pytest.mark.parametrize("offset", [0x02C, 0x038, 0x070, 0x0C0, 0x800, 0xFFC])
def test_unknown_offsets_are_refused(offset: int) -> None:
    assert transfers(("write", offset, 1), ("read", offset, 0)) == [(0, SLVERR), (0, SLVERR)]


def test_bits_without_a_field_stay_zero() -> None:
    """Of a base also those within the beat of 32 bytes."""
    for name, mask in (
        ("PROGRAM_BASE_LO", 0xFFFF_FF00),
        ("PROGRAM_BASE_HI", 0xFF),
        ("PROGRAM_WORDS", 0xFF_FFFF),
        ("REGION2_BASE_LO", 0xFFFF_FFE0),
        ("REGION2_BEATS", 0xFFFF_FFFF),
        ("INTERRUPT_ENABLE", 3),
        ("INTERRUPT", 0),
        ("CONTROL", 0),
    ):
        assert transfers(("write", name, 0xFFFF_FFFF), ("read", name, 0)) == [(0, OKAY), (mask, OKAY)], name


def test_what_a_run_needs_is_locked_while_busy() -> None:
    for register in REGISTERS:
        refused = register.access in (Access.RO, Access.RW, Access.START)
        ((_, response),) = transfers(("write", register.name, 1), busy=1)
        assert response == (SLVERR if refused else OKAY), register.name


def test_counters_are_those_of_the_accelerator() -> None:
    assert tuple(COUNTER_LAYOUT.members) == tuple(COUNTERS)


def test_no_pin_follows_a_pin_in_the_same_cycle() -> None:
    """AXI allows no path from an input to an output: each output is that of the cycle before the inputs moved."""
    draw = Random(SEED)
    following = random_pins(draw, 0.3)
    pins, cycles = dict(IDLE), []
    for _ in range(400):
        pins = following(pins, dict.fromkeys(READY, 0))
        cycles.append({**pins, **QUIET})
    names = [name.removeprefix("s_axil_") for name, member in axil_ports().items() if member.flow != In]
    for at in draw.sample(range(1, len(cycles)), 60):
        other = {**cycles[at], **{name: draw.getrandbits(4 if name == "wstrb" else 1) for name in IDLE}}
        same, changed = run(cycles[: at + 1]), run([*cycles[:at], other])
        assert all(same[name][at] == changed[name][at] for name in names), at


def test_verilog_is_clean() -> None:
    """But for Amaranth's switches, whose values stand before them."""
    assert lint(text(), "registers", (*LINT_WAIVERS, "-Wno-CASEINCOMPLETE")) == []
