"""A mapped netlist: ports, cell instances and nets, read from Yosys' JSON.

Net numbers are Yosys' own: 0 and 1 are the constants, wires start at 2; an undefined bit (`x`) counts as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.liberty import Library

CONSTANT_NETS = 2


@dataclass(frozen=True)
class Port:
    """A module port; `nets` are its bits, least significant first."""

    name: str
    is_output: bool
    nets: tuple[int, ...]


@dataclass(frozen=True)
class Instance:
    """One cell; `pins` maps pin name to net number (an unconnected output has a net of its own)."""

    name: str
    cell: str
    pins: dict[str, int]


@dataclass(frozen=True)
class Area:
    """Cell area in um2 (no routing, no placement utilisation) and cell counts."""

    combinational_um2: float
    sequential_um2: float
    combinational_cells: int
    sequential_cells: int

    @property
    def total_um2(self) -> float:
        """All cells."""
        return self.combinational_um2 + self.sequential_um2


@dataclass(frozen=True)
class Netlist:
    """A flat netlist of library cells.

    nets : int   One more than the highest net number.
    """

    name: str
    ports: dict[str, Port]
    instances: tuple[Instance, ...]
    nets: int

    @cached_property
    def input_nets(self) -> frozenset[int]:
        """Nets driven by an input port."""
        return frozenset(net for port in self.ports.values() if not port.is_output for net in port.nets)

    @cached_property
    def output_nets(self) -> frozenset[int]:
        """Nets that leave by an output port."""
        return frozenset(net for port in self.ports.values() if port.is_output for net in port.nets)

    def sinks(self, library: Library) -> dict[int, list[tuple[int, str]]]:
        """For each net the input pins on it, as (instance index, pin name)."""
        found: dict[int, list[tuple[int, str]]] = {}
        for index, instance in enumerate(self.instances):
            for pin in library.cell(instance.cell).inputs:
                if pin.name in instance.pins:
                    found.setdefault(instance.pins[pin.name], []).append((index, pin.name))
        return found

    def area(self, library: Library) -> Area:
        """Sum of the cells' areas, split at the flip-flops."""
        totals = {False: [0.0, 0], True: [0.0, 0]}
        for instance in self.instances:
            cell = library.cell(instance.cell)
            totals[cell.ff is not None][0] += cell.area_um2
            totals[cell.ff is not None][1] += 1
        return Area(totals[False][0], totals[True][0], int(totals[False][1]), int(totals[True][1]))

    def leakage_uw(self, library: Library) -> float:
        """Sum of the cells' state-averaged leakage, uW."""
        return sum(library.cell(instance.cell).leakage_nw for instance in self.instances) / 1e3


def require_mapped(name: str, kind: str, module: str) -> bool:
    """Whether a cell of a Yosys document is hardware. Raises ConfigError for one that no library has (`$...`)."""
    if kind == "$scopeinfo":
        return False
    if kind.startswith("$"):
        raise ConfigError(f"cell {name} = {kind}: not mapped to a library cell; module {module}")
    return True


def from_yosys(document: Mapping[str, Any], top: str) -> Netlist:
    """Read the module `top` of a Yosys `write_json` document.

    Raises ConfigError when the module is missing or still holds a cell that is not from a library (`$...`).
    """
    modules = document["modules"]
    if top not in modules:
        raise ConfigError(f"module = {top}: not in the netlist (modules: {', '.join(sorted(modules))})")
    module = modules[top]
    highest = CONSTANT_NETS - 1

    def number(bit: int | str) -> int:
        nonlocal highest
        if isinstance(bit, str):
            return 1 if bit == "1" else 0
        highest = max(highest, bit)
        return bit

    ports = {
        name: Port(name, port["direction"] == "output", tuple(number(bit) for bit in port["bits"]))
        for name, port in module["ports"].items()
    }
    instances = []
    open_pins: list[tuple[dict[str, int], list[str]]] = []
    for name, cell in module["cells"].items():
        if not require_mapped(name, cell["type"], top):
            continue
        pins = {pin: number(bits[0]) for pin, bits in cell["connections"].items() if bits}
        open_pins.append((pins, [pin for pin, bits in cell["connections"].items() if not bits]))
        instances.append(Instance(name, cell["type"], pins))
    for pins, missing in open_pins:
        for pin in missing:
            highest += 1
            pins[pin] = highest
    return Netlist(top, ports, tuple(instances), highest + 1)
