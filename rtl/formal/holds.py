"""Adds to a PE's netlist, for each register, whether it keeps what it holds in this cycle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitwright.rtl.formal.netlist import Bit, Design


def write_holds(design: Design, path: Path, *, exact: bool) -> dict[str, int]:
    """The module as JSON for Yosys. Returns its added outputs, one bit each: `held_<number>` of each register.

    High: the register loads what it holds. With `exact` always then; else only if the multiplexers on the way into the
    register choose its own output, which leaves all data out of the proof.
    """
    cells = _Cells(design)
    held: dict[str, list[Bit]] = {}
    for number, register in enumerate(design.registers):
        if exact:
            widths = {"A_WIDTH": len(register.bits), "B_WIDTH": len(register.bits)}
            held[f"held_{number}"] = [cells.add("$eq", widths, A=register.bits, B=register.loads)]
        else:
            held[f"held_{number}"] = [cells.keeps(register.loads, register.bits)]
    module = dict(design.module)
    module["cells"] = {**module["cells"], **cells.made}
    add_ports(module, held, "output")
    path.write_text(json.dumps({"creator": "bitwright", "modules": {design.top: module}}))
    return dict.fromkeys(held, 1)


def add_ports(module: dict[str, Any], added: Mapping[str, list[Bit]], direction: str) -> None:
    """More ports of a module that is being put together."""
    ports = {name: {"direction": direction, "bits": bits} for name, bits in added.items()}
    wires = {name: {"hide_name": 0, "bits": bits, "attributes": {}} for name, bits in added.items()}
    module["ports"], module["netnames"] = {**module["ports"], **ports}, {**module["netnames"], **wires}


def cell(kind: str, ends: Mapping[str, Sequence[Bit]], parameters: Mapping[str, int], output: str = "Y") -> Any:
    """A cell in Yosys' JSON; every end but `output` is an input."""
    return {
        "hide_name": 1, "type": kind, "attributes": {},
        "parameters": {name: f"{value:032b}" for name, value in parameters.items()},
        "port_directions": {name: "output" if name == output else "input" for name in ends},
        "connections": {name: list(bits) for name, bits in ends.items()},
    }  # fmt: skip


class _Cells:
    """New cells of a design."""

    def __init__(self, design: Design) -> None:
        self.design, self.made = design, dict[str, Any]()

    def add(self, kind: str, widths: Mapping[str, int], **ends: Sequence[Bit]) -> Bit:
        """A cell with one bit of result, which is returned."""
        out = self.design.unused + len(self.made)
        signs = {name.replace("WIDTH", "SIGNED"): 0 for name in widths if name != "WIDTH"}
        parameters = {**widths, **signs, **({} if kind == "$mux" else {"Y_WIDTH": 1})}
        self.made[f"$held${out}"] = cell(kind, {**ends, "Y": [out]}, parameters)
        return out

    def keeps(self, bits: Sequence[Bit], held: Sequence[Bit]) -> Bit:
        """Whether multiplexers make `bits` the same as `held`."""
        if tuple(bits) == tuple(held):
            return "1"
        names = {self.design.driver.get(bit) for bit in bits}
        name = names.pop()
        found = None if name is None or names else self.design.module["cells"][name]
        if found is None or found["type"] != "$mux" or tuple(found["connections"]["Y"]) != tuple(bits):
            return "0"
        ends = found["connections"]
        low, high = self.keeps(ends["A"], held), self.keeps(ends["B"], held)
        return low if low == high else self.add("$mux", {"WIDTH": 1}, A=[low], B=[high], S=ends["S"])
