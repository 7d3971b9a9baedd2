"""A mapped design that kept some of its modules: area of each, counted as often as it stands there, and one flat
netlist for timing.

Black boxes are instances of modules that hold nothing here; their name is the cell's, and bit i of their pin `p` is
called `p[i]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import CONSTANT_NETS, Instance, Netlist, Port, require_mapped


@dataclass(frozen=True)
class Place:
    """All instances of one module below one other.

    path     Instance names from the top, joined by dots, the last one the module's if it stands there more than once;
             the top itself is "".
    cells    Library cells directly in one of them; `boxes` the black boxes, by module name.
    """

    path: str
    module: str
    count: int
    cells: Counter[str]
    boxes: Counter[str]


class Hierarchy:
    """A Yosys `write_json` document whose module `top` still has sub-modules.

    Raises ConfigError when a module still holds a cell that is not from a library (`$...`).
    """

    def __init__(self, document: Mapping[str, Any], top: str, black_boxes: frozenset[str]) -> None:
        self.top, self.black_boxes = top, black_boxes
        self._modules: dict[str, Any] = document["modules"]
        if top not in self._modules:
            raise ConfigError(f"module = {top}: not in the netlist (modules: {', '.join(sorted(self._modules))})")

    def _cells(self, module: str) -> Iterator[tuple[str, str, Mapping[str, list[int | str]]]]:
        """(name, type, connections) of what stands in a module."""
        for name, cell in self._modules[module]["cells"].items():
            if require_mapped(name, cell["type"], module):
                yield name, cell["type"], cell["connections"]

    def _is_module(self, kind: str) -> bool:
        return kind in self._modules and kind not in self.black_boxes

    def places(self) -> list[Place]:
        """Every place of the hierarchy, parents before children; each library cell and black box is in just one."""
        found: list[Place] = []

        def visit(path: str, module: str, count: int) -> None:
            kinds = Counter(kind for _, kind, _ in self._cells(module))
            boxes = Counter({kind: n for kind, n in kinds.items() if kind in self.black_boxes})
            inner = {kind: n for kind, n in kinds.items() if self._is_module(kind)}
            cells = Counter({kind: n for kind, n in kinds.items() if kind not in boxes and kind not in self._modules})
            found.append(Place(path, module, count, cells, boxes))
            names = {kind: name for name, kind, _ in self._cells(module)}
            for kind, n in inner.items():
                last = names[kind] if n == 1 else kind
                visit(f"{path}.{last}" if path else last, kind, count * n)

        visit("", self.top, 1)
        return found

    def flat(self, library: Library) -> Netlist:
        """All of it as one netlist; a black box is an instance with a pin a bit. `library` has their cells too."""
        builder = _Flattener(self, library)
        top = self._modules[self.top]
        nets: dict[int, int] = {}
        builder.place("", self.top, nets)
        ports = {
            name: Port(name, port["direction"] == "output", tuple(builder.net(nets, bit) for bit in port["bits"]))
            for name, port in top["ports"].items()
        }
        find = builder.find
        renumbered: dict[int, int] = {0: 0, 1: 1}

        def number(net: int) -> int:
            return renumbered.setdefault(find(net), len(renumbered))

        instances = tuple(
            Instance(name, kind, {pin: number(net) for pin, net in pins.items()})
            for name, kind, pins in builder.instances
        )
        ports = {
            name: Port(name, port.is_output, tuple(number(net) for net in port.nets)) for name, port in ports.items()
        }
        return Netlist(self.top, ports, instances, len(renumbered))


class _Flattener:
    """Gives each bit of each instance a net, and joins those that a module's wires make one."""

    def __init__(self, hierarchy: Hierarchy, library: Library) -> None:
        self.hierarchy, self.library = hierarchy, library
        self.instances: list[tuple[str, str, dict[str, int]]] = []
        self._parent = list(range(CONSTANT_NETS))

    def find(self, net: int) -> int:
        """The net that stands for all that are joined to it; a constant for those joined to one."""
        root = net
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[net] != root:
            self._parent[net], net = root, self._parent[net]
        return root

    def _join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def new(self) -> int:
        """A net of its own."""
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def net(self, nets: dict[int, int], bit: int | str) -> int:
        """The net of a module's bit in one instance."""
        if isinstance(bit, str):
            return 1 if bit == "1" else 0
        if bit not in nets:
            nets[bit] = self.new()
        return nets[bit]

    def place(self, path: str, module: str, nets: dict[int, int]) -> None:
        """One instance of a module, whose port bits are in `nets` already."""
        for name, kind, connections in self.hierarchy._cells(module):
            own = f"{path}.{name}" if path else name
            if self.hierarchy._is_module(kind):
                self.place(own, kind, self._bound(kind, connections, nets))
            elif kind in self.hierarchy.black_boxes:
                pins = {
                    f"{pin}[{i}]": self.net(nets, bit)
                    for pin, bits in connections.items()
                    for i, bit in enumerate(bits)
                }
                self.instances.append((own, kind, pins))
            elif kind not in self.hierarchy._modules:
                pins = {pin: self.net(nets, bits[0]) if bits else self.new() for pin, bits in connections.items()}
                self.instances.append((own, kind, pins))

    def _bound(self, kind: str, connections: Mapping[str, list[int | str]], nets: dict[int, int]) -> dict[int, int]:
        """The nets of a sub-module's port bits. A bit that is on two ports, or constant inside, joins nets outside."""
        inner: dict[int, int] = {}
        for name, port in self.hierarchy._modules[kind]["ports"].items():
            for inside, outside in zip(port["bits"], connections.get(name, ()), strict=False):
                given = self.net(nets, outside)
                if isinstance(inside, str):
                    if port["direction"] == "output":
                        self._join(given, self.net(inner, inside))
                elif inside in inner:
                    self._join(inner[inside], given)
                else:
                    inner[inside] = given
        return inner
