"""The registers and cones of a PE's Verilog, as Yosys reads it: what can be shown from structure alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.rtl.formal import tools

Bit = int | str  # a net's number, or a constant "0", "1", "x"
# Cells whose output bit i hangs on bit i of their operands (and on all of S): anything else mixes all its input bits.
_BITWISE = {"$and", "$or", "$xor", "$xnor", "$not", "$mux"}
_READ = "read_verilog pe.v\nhierarchy -auto-top\nproc\nmemory -nomap\nmemory_map\nflatten\nopt_clean\n"


@dataclass(frozen=True)
class Register:
    """A register: the wire that shows it, its bits, the bits that it loads, and the cell that it is."""

    name: str
    bits: tuple[Bit, ...]
    loads: tuple[Bit, ...]
    clock: Bit
    cell: str


@dataclass(frozen=True)
class Design:
    """One flat module."""

    top: str
    module: Mapping[str, Any]

    def bits(self, wire: str) -> tuple[Bit, ...]:
        """The bits of a wire, lowest first; KeyError if the module has none of that name."""
        return tuple(self.module["netnames"][wire]["bits"])

    def has(self, wire: str) -> bool:
        return wire in self.module["netnames"]

    @cached_property
    def unused(self) -> int:
        """A net's number above all that there are."""
        wires = [wire["bits"] for wire in self.module["netnames"].values()]
        ends = [bits for cell in self.module["cells"].values() for bits in cell["connections"].values()]
        return 1 + max(bit for bits in (*wires, *ends) for bit in bits if isinstance(bit, int))

    @property
    def inputs(self) -> dict[str, int]:
        """Input ports and their widths."""
        return self._ports("input")

    @property
    def outputs(self) -> dict[str, int]:
        return self._ports("output")

    def _ports(self, direction: str) -> dict[str, int]:
        ports = self.module["ports"]
        return {name: len(port["bits"]) for name, port in ports.items() if port["direction"] == direction}

    @cached_property
    def registers(self) -> tuple[Register, ...]:
        """Every register and latch, by its shortest public name."""
        names: dict[tuple[Bit, ...], str] = {}
        for name, wire in sorted(self.module["netnames"].items(), key=lambda item: (-len(item[0]), item[0])):
            if not wire.get("hide_name"):
                names[tuple(wire["bits"])] = name
        found = []
        for cell in self._stateful:
            ends = cell["connections"]
            bits = tuple(ends["Q"])
            clock = ends.get("CLK", ["latch"])[0]
            falls = int(cell["parameters"].get("CLK_POLARITY", "1"), 2) == 0
            kind = f"{cell['type']} on falling edges" if falls else cell["type"]
            found.append(Register(names.get(bits, ""), bits, tuple(ends["D"]), clock, kind))
        return tuple(found)

    @property
    def _stateful(self) -> Iterator[Mapping[str, Any]]:
        return (cell for cell in self.module["cells"].values() if "Q" in cell["connections"])

    @cached_property
    def _drivers(self) -> dict[Bit, tuple[Bit, ...]]:
        """Each bit that logic drives, and the bits that it is made of."""
        found: dict[Bit, tuple[Bit, ...]] = {}
        for cell in self.module["cells"].values():
            ends, sides = cell["connections"], cell.get("port_directions", {})
            if "Q" in ends:
                continue
            ins = {name: bits for name, bits in ends.items() if sides.get(name) == "input"}
            every = tuple(dict.fromkeys(bit for bits in ins.values() for bit in bits))
            for name, bits in ends.items():
                if sides.get(name) != "output":
                    continue
                for index, bit in enumerate(bits):
                    found[bit] = _slice(ins, index) if cell["type"] in _BITWISE else every
        return found

    @cached_property
    def driver(self) -> dict[Bit, str]:
        """The cell of logic that drives a bit."""
        found: dict[Bit, str] = {}
        for name, cell in self.module["cells"].items():
            if "Q" not in cell["connections"]:
                for pin, bits in cell["connections"].items():
                    if cell["port_directions"][pin] == "output":
                        found.update((bit, name) for bit in bits)
        return found

    def sources(self, bits: Iterable[Bit]) -> set[Bit]:
        """The bits of registers and inputs that `bits` hang on within the same cycle."""
        return self.cone(bits) & self._starts

    @cached_property
    def _starts(self) -> set[Bit]:
        held = {bit for register in self.registers for bit in register.bits}
        return held | {bit for port in self.inputs for bit in self.bits(port)}

    def without(self, wires: Iterable[str]) -> Design:
        """The design with what drives these wires taken out."""
        cells = self.module["cells"]
        gone = {self.driver[bit] for wire in wires for bit in self.bits(wire) if bit in self.driver}
        return Design(self.top, {**self.module, "cells": {name: cells[name] for name in cells if name not in gone}})

    def cone(self, bits: Iterable[Bit]) -> set[Bit]:
        """Every bit that `bits` hang on within the same cycle, back to registers and inputs."""
        seen: set[Bit] = set()
        open_bits = [bit for bit in bits if isinstance(bit, int)]
        while open_bits:
            bit = open_bits.pop()
            if bit not in seen:
                seen.add(bit)
                open_bits += [source for source in self._drivers.get(bit, ()) if isinstance(source, int)]
        return seen

    def inputs_of(self, bits: Iterable[Bit]) -> list[str]:
        """The input ports that `bits` hang on within the same cycle."""
        cone = self.cone(bits)
        return [name for name in self.inputs if cone & set(self.module["ports"][name]["bits"])]

    def distance(self, source: str, wanted: Iterable[Bit]) -> int | None:
        """Registers on the shortest way from a wire to logic that makes `wanted`; None if there is no way."""
        wanted = tuple(wanted)
        cone, start = self.cone(wanted) | set(wanted), self.bits(source)
        if cone & set(start):
            return 0
        if source not in self._levels:
            self._levels[source] = self.levels(start)
        levels = self._levels[source]
        behind = {self._owners[bit] for bit in cone if bit in self._owners}
        return min((levels[at] + 1 for at in behind if at in levels), default=None)

    def levels(self, start: Iterable[Bit]) -> dict[int, int]:
        """Registers (their places in `registers`) that load something made of `start`, and how many lie between."""
        found: dict[int, int] = {}
        reached, level = {at for bit in start for at in self._readers.get(bit, ())}, 0
        while reached:
            found.update(dict.fromkeys(reached, level))
            bits = (bit for at in reached for bit in self.registers[at].bits)
            reached = {at for bit in bits for at in self._readers.get(bit, ())} - found.keys()
            level += 1
        return found

    def behind(self, bits: Iterable[Bit]) -> set[int]:
        """All registers, by their places in `registers`, that hang on some bits, now or in later cycles."""
        return set(self.levels(bits))

    def history(self, bits: Iterable[Bit], stops: AbstractSet[Bit] = frozenset()) -> set[Bit]:
        """Every bit that `bits` hang on, in this or any earlier cycle; not what registers of `stops` load."""
        seen = set[Bit]()
        left = set(bits)
        while left:
            fresh = (self.cone(left) | left) - seen
            seen |= fresh
            owners = {self._owners[bit] for bit in fresh - stops if bit in self._owners}
            left = set[Bit](bit for at in owners for bit in self.registers[at].loads if isinstance(bit, int)) - seen
        return seen

    @cached_property
    def _levels(self) -> dict[str, dict[int, int]]:
        return {}

    @cached_property
    def _owners(self) -> dict[Bit, int]:
        return {bit: at for at, register in enumerate(self.registers) for bit in register.bits}

    @cached_property
    def _readers(self) -> dict[Bit, list[int]]:
        """The registers that load something made of each bit."""
        found: dict[Bit, list[int]] = {}
        for at, register in enumerate(self.registers):
            for bit in self.cone(register.loads):
                found.setdefault(bit, []).append(at)
        return found


def _slice(ins: Mapping[str, list[Bit]], index: int) -> tuple[Bit, ...]:
    """Bit `index` of each operand (its highest bit where it is shorter), and a select whole."""
    return tuple(bits[min(index, len(bits) - 1)] for name, bits in ins.items() if name != "S") + tuple(ins.get("S", ()))


def read(verilog: str, work: Path) -> Design:
    """The flat top module of Verilog text, written to `work` as pe.v."""
    (work / "pe.v").write_text(verilog)
    tools.yosys(f"{_READ}write_json -noscopeinfo pe.json\n", work)
    modules = json.loads((work / "pe.json").read_text())["modules"]
    top = next(name for name, module in modules.items() if int(str(module["attributes"].get("top", "0")), 2))
    return Design(top, modules[top])
