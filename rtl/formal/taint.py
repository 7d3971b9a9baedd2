"""Adds to a PE's netlist a bit beside each value: may it depend on register contents or operands of the past?

Registers may at power-up, operands while the input `taint_in` is high. Taint is tracked by cell, not by bit: the result
of a cell is tainted if an operand is, save where a select or a gate that is itself untainted keeps that operand out. So
it errs only towards "may depend", and it leaves the arithmetic out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bitwright.rtl.formal.holds import add_ports, cell
from bitwright.rtl.formal.netlist import Bit, Design

_GATES = ("$and", "$logic_and", "$or", "$logic_or")
_NARROW_BITS = 4  # a register of more is data
TAINT_IN = "taint_in"
_MOST_SOURCES = 12  # bits behind a select that is looked at; a wider one is data, and then both of its sides count


class Tainted:
    """A design with a taint bit for every register, written as JSON for Yosys.

    Parameters
        operands : bits          Inputs that are tainted while `taint_in` is.
        control : bits           Never tainted: the question is what values depend on, given the same control.
        payload : bits           The sum's.
    Members
        registers : dict         The taint bit of each register, named `taint_<number>` in the design's order.
        outputs : dict           Added outputs: these, and `taint_sum` of the sum's payload.
    """

    def __init__(
        self, design: Design, operands: Iterable[Bit], control: Iterable[Bit], payload: Iterable[Bit]
    ) -> None:  # fmt: skip
        self.design = design
        self._control = set(control)
        self._wide = {bit for item in design.registers if len(item.bits) > _NARROW_BITS for bit in item.bits}
        self.cells: dict[str, Any] = {}
        self._next = design.unused
        self._known: dict[Bit, tuple[Bit, Bit]] = {}
        self._owner: dict[Bit, Bit] = {}  # the taint bit of what drives a bit
        self._input = self._new()
        self._owner.update((bit, self._input) for bit in operands)
        self.registers: dict[str, Bit] = {f"taint_{index}": self._new() for index in range(len(design.registers))}
        for register, taint in zip(design.registers, self.registers.values(), strict=True):
            self._taint(register.bits, taint)
        self._combine()
        self.outputs = {**self.registers, "taint_sum": self._of(payload)}
        for register, taint in zip(design.registers, self.registers.values(), strict=True):
            self._add(
                "$dff", taint, pin="Q", CLK=[register.clock], D=[self._of(register.loads)], CLK_POLARITY=1, WIDTH=1
            )

    def write(self, path: Path) -> None:
        """The whole module with its taints as JSON."""
        module = dict(self.design.module)
        module["cells"] = {**module["cells"], **self.cells}
        add_ports(module, {name: [bit] for name, bit in self.outputs.items()}, "output")
        add_ports(module, {TAINT_IN: [self._input]}, "input")
        path.write_text(json.dumps({"creator": "bitwright", "modules": {self.design.top: module}}))

    def _combine(self) -> None:
        """A taint bit for every cell of logic, each after the cells that drive it."""
        driver = self.design.driver
        cells = {name: cell for name, cell in self.design.module["cells"].items() if "Q" not in cell["connections"]}
        done: set[str] = set()
        for start in cells:
            stack = [start]
            while stack:
                name = stack[-1]
                ins = [bit for pin, bits in cells[name]["connections"].items() for bit in bits
                       if cells[name]["port_directions"][pin] == "input"]  # fmt: skip
                missing = {driver[bit] for bit in ins if bit in driver} - done
                if name not in done and missing:
                    stack += sorted(missing)
                    continue
                stack.pop()
                if name not in done:
                    done.add(name)
                    self._cell(cells[name])

    def _cell(self, given: dict[str, Any]) -> None:
        ends, sides, kind = given["connections"], given["port_directions"], given["type"]
        outputs = [bit for pin, bits in ends.items() if sides[pin] == "output" for bit in bits]
        inputs = [bits for pin, bits in ends.items() if sides[pin] == "input"]
        if kind == "$mux":
            surely_low, surely_high = self._sure(ends["S"][0])
            low, high = self._of(ends["A"]), self._of(ends["B"])
            chosen = [self._and(low, self._not(surely_high)), self._and(high, self._not(surely_low))]
            taint = self._any([self._of(ends["S"]), *chosen])
        elif kind == "$pmux" and self._is_control(ends["S"]):
            taint = self._select(ends["S"], ends["A"], ends["B"])
        elif kind in _GATES:
            taint = self._gate(kind.endswith("and"), ends["A"], ends["B"])
        else:
            taint = self._of(bit for bits in inputs for bit in bits)
        if taint != "0":
            self._taint(outputs, taint)

    def _taint(self, bits: Iterable[Bit], taint: Bit) -> None:
        self._owner.update((bit, taint) for bit in bits if bit not in self._control)

    def _is_control(self, bits: Iterable[Bit]) -> bool:
        sources = self.design.sources(bits)
        return len(sources) <= _MOST_SOURCES and not sources & self._wide

    def _select(self, select: Sequence[Bit], none: Sequence[Bit], sides: Sequence[Bit]) -> Bit:
        """Of the side chosen, and of the select; `sides` has one word of `none`'s width for each bit of the select."""
        width = len(none)
        parts: list[Bit] = [self._of(select)]
        for index, bit in enumerate(select):
            parts.append(self._and(bit, self._of(sides[index * width : (index + 1) * width])))
        chosen = self._reduce("$reduce_or", select)
        parts.append(self._and(self._not(chosen), self._of(none)))
        return self._any(parts)

    def _gate(self, is_and: bool, left: Sequence[Bit], right: Sequence[Bit]) -> Bit:
        """An operand counts unless the other one, by its control, surely settles all bits of the result."""
        taints = self._of(left), self._of(right)
        if taints == ("0", "0"):
            return "0"
        parts: list[Bit] = [self._and(*taints)]
        for taint, own, other in ((taints[0], left, right), (taints[1], right, left)):
            if taint != "0":
                # An AND is settled by zeros, an OR by ones; a shorter operand is extended with zeros.
                other = other if is_and or len(other) >= len(own) else [*other, "0"]
                settled = [self._sure(bit)[0 if is_and else 1] for bit in dict.fromkeys(other)]
                parts.append(self._and(taint, self._not(self._all(settled))))
        return self._any(parts)

    def _sure(self, bit: Bit) -> tuple[Bit, Bit]:
        """(surely 0, surely 1): what a bit is, as far as control alone decides it."""
        if bit in ("0", "1"):
            return ("1", "0") if bit == "0" else ("0", "1")
        if bit not in self._known:
            self._known[bit] = self._find_sure(bit)
        return self._known[bit]

    def _find_sure(self, bit: Bit) -> tuple[Bit, Bit]:
        if self._is_control([bit]):
            return self._not(bit), bit
        driving = self.design.module["cells"].get(self.design.driver.get(bit, ""), {"type": ""})
        kind, ends = driving["type"], driving.get("connections", {})
        single = all(len(bits) == 1 for bits in ends.values())
        if kind in ("$not", "$logic_not") and single:
            low, high = self._sure(ends["A"][0])
            return high, low
        if kind not in _GATES or not single:
            return "0", "0"
        (low, high), (other_low, other_high) = self._sure(ends["A"][0]), self._sure(ends["B"][0])
        if kind.endswith("and"):
            return self._any([low, other_low]), self._and(high, other_high)
        return self._and(low, other_low), self._any([high, other_high])

    def _all(self, bits: Sequence[Bit]) -> Bit:
        if "0" in bits:
            return "0"
        wanted = [bit for bit in dict.fromkeys(bits) if bit != "1"]
        return self._reduce("$reduce_and", wanted) if wanted else "1"

    def _of(self, bits: Iterable[Bit]) -> Bit:
        """The taint of some bits together: constants and inputs have none."""
        return self._any(self._owner[bit] for bit in bits if bit in self._owner)

    def _any(self, bits: Iterable[Bit]) -> Bit:
        wanted = sorted({bit for bit in bits if bit != "0"}, key=str)
        return "1" if "1" in wanted else self._reduce("$reduce_or", wanted) if wanted else "0"

    def _and(self, left: Bit, right: Bit) -> Bit:
        return self._all([left, right])

    def _not(self, bit: Bit) -> Bit:
        if bit in ("0", "1"):
            return "1" if bit == "0" else "0"
        out = self._new()
        self._add("$not", out, A=[bit], A_SIGNED=0, A_WIDTH=1, Y_WIDTH=1)
        return out

    def _reduce(self, kind: str, bits: Sequence[Bit]) -> Bit:
        if len(bits) == 1:
            return bits[0]
        out = self._new()
        self._add(kind, out, A=list(bits), A_SIGNED=0, A_WIDTH=len(bits), Y_WIDTH=1)
        return out

    def _new(self) -> int:
        self._next += 1
        return self._next - 1

    def _add(self, kind: str, out: Bit, *, pin: str = "Y", **given: list[Bit] | int) -> None:
        """One cell: lists are its connections, numbers its parameters."""
        ends = {name: value for name, value in given.items() if isinstance(value, list)}
        values = {name: value for name, value in given.items() if isinstance(value, int)}
        self.cells[f"$taint${len(self.cells)}"] = cell(kind, {**ends, pin: [out]}, values, pin)
