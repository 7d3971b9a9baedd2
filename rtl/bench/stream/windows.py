"""Proofs that a mutant is the PE itself from a part of it: what is far from the mutation is cut, its values are free.

A window holds some levels of cells behind the mutated cell and some before all of those. Every other cell is taken out
of the PE and of the mutant: its output becomes an input of both, any value of it is considered. If whatever leaves the
window is equal for all of them, PE and mutant are. Small windows prove in a moment what a solver does not find in a PE
of 32 multipliers.

Facts are what is known of wires that a window leaves free, with their own proofs: `Fact` below.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitwright.arch.errors import ToolError
from bitwright.rtl.bench.stream.equivalence import Mutation, run_yosys, without_registers

_ALL = 1 << 20
WINDOWS = (
    (1, 0, False), (2, 1, False), (4, 3, False), (8, 6, False), (_ALL, _ALL, True), (8, _ALL, False), (_ALL, 2, False),
    (_ALL, 12, False), (_ALL, _ALL, False),
)  # fmt: skip
"""(levels behind the mutated cell, levels before those, whether wires that facts tell of are edges), tried in turn."""
# Registers become plain ones before the copy, so that the cells made for that have the same names in both.
_TWO = ("read_rtlil tidy.il", "rename {top} gold", "dffunmap gold", "copy gold gate", "{change}",
        "write_rtlil two.il", "write_json two.json")  # fmt: skip
_MITER = (
    "read_rtlil window.il", "read_verilog -sv facts.v", "proc facts", "hierarchy -check", "check -assert gold gate",
    "miter -equiv -flatten gold gate miter", "hierarchy -top miter", "opt -full", "opt_merge", "opt_clean",
    "sat -verify -set-assumes -prove trigger 0 -timeout {seconds} miter",
)  # fmt: skip
_FACTS = (
    "read_rtlil window.il", "read_verilog -sv facts.v", "proc facts", "hierarchy -check", "hierarchy -top gold",
    "flatten", "opt -full", "opt_merge", "opt_clean",
    "sat -verify -set-assumes -prove proved 1 -timeout {seconds} gold",
)  # fmt: skip
_CELL = re.compile(r"^  cell \S+ (\S+)\n((?:    .*\n)*?)  end\n", re.MULTILINE)
_OUTPUTS = ("Y", "Q")
EDGE = "1'd1"  # the rule of a fact that says nothing, but lets windows end at its wire


@dataclass(frozen=True)
class Fact:
    """What holds of a wire: `rule` is a SystemVerilog expression of `x`, its value.

    free : wires whose values need not be known for that; for a register nothing: it is proved from one cycle to the
        next, from all zero on, with the facts of other wires.
    """

    wire: str
    width: int
    rule: str
    free: tuple[str, ...] = ()
    register: bool = False


class _Netlist:
    """The cells of a module in Yosys' JSON, and who reads whom."""

    def __init__(self, module: dict[str, Any]) -> None:
        self.ports, self.nets = module["ports"], module["netnames"]
        self.inputs: dict[str, set[int]] = {}
        self.outputs: dict[str, set[int]] = {}
        for name, cell in module["cells"].items():
            if cell["type"] == "$dff":
                continue
            pins = cell["connections"].items()
            self.outputs[name] = {bit for pin, bits in pins if pin in _OUTPUTS for bit in bits}
            self.inputs[name] = {
                bit for pin, bits in pins if pin not in _OUTPUTS for bit in bits if bit not in ("0", "1")
            }
        self.registers = {
            bit: (name, place)
            for name, cell in module["cells"].items() if cell["type"] == "$dff"
            for place, bit in enumerate(cell["connections"]["Q"])
        }  # fmt: skip

    @cached_property
    def driver(self) -> dict[int, str]:
        return {bit: name for name, bits in self.outputs.items() for bit in bits}

    @cached_property
    def readers(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = defaultdict(list)
        for name, bits in self.inputs.items():
            for bit in bits:
                found[bit].append(name)
        return found

    def behind(self, cells: set[str], levels: int, stop: set[int]) -> set[str]:
        """The cells and those that depend on them, but by nothing that is one of the bits `stop`."""
        return self._grown(
            cells, levels,
            lambda name: (each for bit in self.outputs[name] - stop for each in self.readers[bit]),
        )  # fmt: skip

    def before(self, cells: set[str], levels: int, stop: set[int]) -> set[str]:
        """The cells and those that they depend on, but nothing that drives the bits `stop`."""
        return self._grown(
            cells, levels,
            lambda name: (self.driver[bit] for bit in self.inputs[name] - stop if bit in self.driver),
        )  # fmt: skip

    @staticmethod
    def _grown(cells: set[str], levels: int, following: Any) -> set[str]:
        found, edge = set(cells), set(cells)
        while edge and levels:
            edge = {each for name in edge for each in following(name)} - found
            found, levels = found | edge, levels - 1
        return found

    def bits(self, wire: str) -> list[int]:
        """The bits of a wire. Raises ToolError if there is none of that name."""
        if wire not in self.nets:
            raise ToolError(f"fact of {wire}: no such wire in the netlist")
        return list(self.nets[wire]["bits"])


def by_window(tidy: str, top: str, mutation: Mutation, seconds: float, facts: Sequence[Fact] = ()) -> str:
    """What was proved of the mutant of `top` in the RTLIL text `tidy`; "" if nothing was, in `seconds` a window.

    facts : must hold; `prove_facts` proves them.
    """
    with TemporaryDirectory(prefix="bitwright-window-") as place:
        folder = Path(place)
        cell = mutation.cell.lstrip("\\")
        if re.search(rf"^  cell \$\w*dff\w* \\?{re.escape(cell)}$", tidy, re.MULTILINE):
            return ""  # a register: no cell of a window
        module, cut = _two(folder, tidy, top, mutation.command("gate"))
        netlist = _Netlist(module)
        changed = netlist.behind({cell}, _ALL, set())
        known_bits = {bit for fact in facts for bit in netlist.bits(fact.wire)}
        tried: set[frozenset[str]] = set()
        for forward, backward, at_facts in WINDOWS:
            stop = known_bits if at_facts else set()
            kept = netlist.before(netlist.behind({cell}, forward, stop), backward, stop)
            leaving = {
                name
                for name in kept & changed
                if any(set(netlist.readers[bit]) - kept for bit in netlist.outputs[name])
            }
            window = frozenset(kept)
            if window in tried:
                continue
            tried.add(window)
            seen = {bit for name in kept for bit in netlist.inputs[name] | netlist.outputs[name]}
            known = [fact for fact in facts if seen & set(netlist.bits(fact.wire))]
            (folder / "window.il").write_text(_assumed(_only(cut, kept, leaving), known))
            (folder / "facts.v").write_text(_module(known))
            if _run(folder, _MITER, seconds):
                told = [fact.wire for fact in known if fact.rule != EDGE]
                given = f", and what is proved of {', '.join(told)}" if told else ""
                return f"equal for any values at the edge of the {len(kept)} cells around it{given}"
    return ""


def prove_facts(tidy: str, top: str, facts: Sequence[Fact], seconds: float, assumed: Sequence[Fact] = ()) -> bool:
    """Whether each fact follows from those before it in the list (and a register's, a cycle later, from itself).

    A register's must also hold of 0. assumed : facts that hold in the case that is looked at.
    """
    with TemporaryDirectory(prefix="bitwright-window-") as place:
        folder = Path(place)
        module, cut = _two(folder, tidy, top, "")
        netlist, gold, every = _Netlist(module), _gold(cut), [*assumed, *facts]
        (folder / "facts.v").write_text(_module(every))
        for number, fact in enumerate(facts):
            here, bits = len(assumed) + number, netlist.bits(fact.wire)
            given = every[:here]
            if fact.register:
                places = [netlist.registers[bit] for bit in bits]
                target = "{ " + " ".join(f"\\{name}.D [{place}]" for name, place in reversed(places)) + " }"
                given = every[: here + 1]
                stop = {bit for other in facts[:number] for bit in netlist.bits(other.wire)}
                starts = {
                    bit for name in {name for name, _ in places} for bit in module["cells"][name]["connections"]["D"]
                }
            else:
                target, starts = f"\\{fact.wire}", set(bits)
                stop = {bit for name in fact.free for bit in netlist.bits(name)}
            last = {netlist.driver[bit] for bit in starts if bit in netlist.driver}
            text = _assumed(_only(gold, netlist.before(last, _ALL, stop), set()), given)
            (folder / "window.il").write_text(_inside(text, "gold", _claimed(f"fact{here}", target, fact)))
            if not _run(folder, _FACTS, seconds):
                return False
    return True


def _two(folder: Path, tidy: str, top: str, change: str) -> tuple[dict[str, Any], str]:
    """(the PE's module in Yosys' JSON, both modules without registers): gold is the PE, gate the mutant."""
    (folder / "tidy.il").write_text(tidy)
    run_yosys(folder, [line.format(top=top, change=change) for line in _TWO])
    text = without_registers((folder / "two.il").read_text())
    assert not re.search(r"\d'[01]*[xz]", text), f"{top}: a constant x would be anything"
    return json.loads((folder / "two.json").read_text())["modules"]["gold"], text


def _gold(text: str) -> str:
    return next(text[start:end] for name, start, end in _modules(text) if name == "gold")


def _modules(text: str) -> Iterator[tuple[str, int, int]]:
    for found in re.finditer(r"^module \\(\S+)\n.*?^end\n", text, re.MULTILINE | re.DOTALL):
        yield found.group(1), found.start(), found.end()


def _inside(text: str, name: str, added: str) -> str:
    """The text with something added to a module."""
    end = next(end for module, _, end in _modules(text) if module == name) - len("end\n")
    return text[:end] + added + text[end:]


def _only(text: str, kept: Iterable[str], leaving: Iterable[str]) -> str:
    """The modules with the cells `kept`, and those that not all modules have; what leaves `leaving` is an output."""
    parts = [text[start:end] for _, start, end in _modules(text)]
    cells = [{found.group(1).lstrip("\\"): found for found in _CELL.finditer(part)} for part in parts]
    shared = set.intersection(*(set(each) for each in cells))
    gone, shown = shared - set(kept), set(leaving)
    driven = {name: _output(found.group(2)) for name, found in cells[0].items()}
    result = []
    for part in parts:

        def replaced(found: re.Match[str]) -> str:
            name = found.group(1).lstrip("\\")
            free = f"  connect {driven[name]} \\{name}.Y\n" if name in gone else found.group()
            return free + (f"  connect \\{name}.out {driven[name]}\n" if name in shown else "")

        widths = {name: _width(cells[0][name].group(2)) for name in gone | shown}
        wires = [f"  wire width {widths[name]} input {2000 + at} \\{name}.Y\n" for at, name in enumerate(sorted(gone))]
        wires += [
            f"  wire width {widths[name]} output {7000 + at} \\{name}.out\n" for at, name in enumerate(sorted(shown))
        ]
        head, _, body = part.partition("\n")
        result.append(head + "\n" + "".join(wires) + _CELL.sub(replaced, body))
    return "\n".join(result)


def _output(body: str) -> str:
    found = re.search(r"connect \\Y (.*)", body)
    assert found is not None, f"a cell without Y: {body}"
    return found.group(1)


def _width(body: str) -> int:
    found = re.search(r"parameter \\Y_WIDTH (\d+)", body) or re.search(r"parameter \\WIDTH (\d+)", body)
    return int(found.group(1)) if found else 1


def _module(facts: Sequence[Fact]) -> str:
    """A module for each fact."""
    texts = [
        f"module fact{number}(input [{fact.width - 1}:0] x, output ok);\n  assign ok = {fact.rule};\nendmodule\n"
        for number, fact in enumerate(facts)
    ]
    return "".join(texts) or "module facts;\nendmodule\n"


def _assumed(text: str, facts: Sequence[Fact]) -> str:
    """The modules with the facts assumed in gold; the same wires of gate are its inputs too, or follow from them."""
    added = "".join(
        f"  wire \\fact_ok{number}\n  cell \\fact{number} \\fact_cell{number}\n    connect \\x \\{fact.wire}\n"
        f"    connect \\ok \\fact_ok{number}\n  end\n"
        f"  cell $assume \\fact_assume{number}\n    connect \\A \\fact_ok{number}\n    connect \\EN 1'1\n  end\n"
        for number, fact in enumerate(facts)
    )
    return _inside(text, "gold", added)


def _claimed(module: str, target: str, fact: Fact) -> str:
    """An output `proved`: the fact of `target`, and of a register's 0, with which it is said to begin."""
    start = f"{fact.width}'{'0' * fact.width}" if fact.register else target
    one = "    parameter \\{pin}_WIDTH 1\n    parameter \\{pin}_SIGNED 0\n"
    return (
        f"  wire output 9000 \\proved\n  wire \\proved_start\n  wire \\proved_next\n"
        f"  cell \\{module} \\proved_cell\n    connect \\x {target}\n    connect \\ok \\proved_next\n  end\n"
        f"  cell \\{module} \\start_cell\n    connect \\x {start}\n    connect \\ok \\proved_start\n  end\n"
        f"  cell $and \\proved_both\n{one.format(pin='A')}{one.format(pin='B')}    parameter \\Y_WIDTH 1\n"
        f"    connect \\A \\proved_next\n    connect \\B \\proved_start\n    connect \\Y \\proved\n  end\n"
    )


def _run(folder: Path, lines: Sequence[str], seconds: float) -> bool:
    try:
        run_yosys(folder, [line.format(seconds=max(1, round(seconds))) for line in lines], timeout_s=4 * seconds + 60)
    except ToolError as error:
        if "proof did" in str(error) or "took longer" in str(error):
            return False
        raise
    return True
