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
from bitwright.rtl.bench.stream.equivalence import Mutation, proved, run_yosys, without_registers

_ALL = 1 << 20
SMALL = ((1, 0, False), (2, 1, False), (4, 3, False), (8, 6, False))
WINDOWS = (*SMALL, (_ALL, _ALL, True), (_ALL, 12, False), (_ALL, _ALL, False))
"""(levels behind the mutated cell, levels before those, whether wires that facts tell of are edges), tried in turn."""
OF_CASES = ((4, 3, False), (8, 6, False), (_ALL, _ALL, True), (_ALL, _ALL, False))
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

    free : wires whose values need not be known for that. register : the wire is a register; its fact is proved from
        one cycle to the next, and of what a sum's first step loads, whatever the register held before.
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

    def drivers(self, bits: Iterable[int]) -> set[str]:
        """The cells, registers left out, that drive some bits."""
        return {self.driver[bit] for bit in bits if bit in self.driver}

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


def has_unknown(rtlil: str) -> bool:
    """Whether there are constants x in it, for which a solver would take anything: no netlist for windows."""
    return re.search(r"\d'[01]*[xz]", rtlil) is not None


def by_window(
    tidy: str, top: str, mutation: Mutation, seconds: float, facts: Sequence[Fact] = (),
    windows: Sequence[tuple[int, int, bool]] = WINDOWS,
) -> str:  # fmt: skip
    """What was proved of the mutant of `top` in the RTLIL text `tidy`; "" if nothing was, in `seconds` a window.

    facts : must hold; `prove_facts` proves them. windows : to try, in turn.
    """
    if has_unknown(tidy):
        return ""
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
        for forward, backward, at_facts in windows:
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
                given = f", and what is proved of {', '.join(told)} from a sum's first step on" if told else ""
                return f"equal for any values at the edge of the {len(kept)} cells around it{given}"
    return ""


def first_step(payload_bits: int) -> tuple[Fact, ...]:
    """What holds while a streaming PE takes the first step of a sum; `first` is the payload's last bit but one."""
    return (
        Fact("rst", 1, "!x"), Fact("step__valid", 1, "x"), Fact("step__ready", 1, "x"),
        Fact("step__payload", payload_bits, f"x[{payload_bits - 2}]"),
    )  # fmt: skip


def prove_facts(
    tidy: str, top: str, facts: Sequence[Fact], seconds: float, *, assumed: Sequence[Fact] = (),
    begins: Sequence[Fact] = (),
) -> bool:  # fmt: skip
    """Whether each fact follows from those before it in the list.

    A register's follows a cycle later, from itself too; and without itself where `begins` holds, the first step of a
    sum. So it holds from the first such step on: what the register held before does not count.
    assumed : facts that hold in the case that is looked at; a case is of one cycle and tells nothing of registers.
    Raises ToolError for a fact that cannot be one.
    """
    with TemporaryDirectory(prefix="bitwright-window-") as place:
        folder = Path(place)
        module, cut = _two(folder, tidy, top, "")
        netlist, gold = _Netlist(module), _gold(cut)
        for number, fact in enumerate(facts):
            before, bits = list(facts[:number]), netlist.bits(fact.wire)
            if len(bits) != fact.width:
                raise ToolError(f"fact of {fact.wire}: width = {fact.width}: must be {len(bits)}")
            if not fact.register:
                stop = {bit for name in fact.free for bit in netlist.bits(name)}
                text = _only(gold, netlist.before(netlist.drivers(bits), _ALL, stop), set())
                if not _follows(folder, text, [*assumed, *before], fact, f"\\{fact.wire}", seconds):
                    return False
                continue
            places = [netlist.registers.get(bit) for bit in bits]
            if assumed or not begins or None in places:
                raise ToolError(f"fact of {fact.wire}: must be of a register, with what begins it, and of no case")
            known = [place for place in places if place is not None]
            target = "{ " + " ".join(f"\\{name}.D [{place}]" for name, place in reversed(known)) + " }"
            loaded = {bit for name, _ in known for bit in module["cells"][name]["connections"]["D"]}
            stop = {bit for other in before for bit in netlist.bits(other.wire)}
            text = _only(gold, netlist.before(netlist.drivers(loaded), _ALL, stop), set())
            whole = _only(gold, netlist.before(set(netlist.outputs), 0, set()), set())
            if not _follows(folder, text, [*before, fact], fact, target, seconds):
                return False
            if not _follows(folder, whole, [*before, *begins], fact, target, seconds):
                return False
    return True


def _follows(folder: Path, text: str, given: Sequence[Fact], fact: Fact, target: str, seconds: float) -> bool:
    """Whether the fact holds of `target` in the module `text` where those given do."""
    (folder / "facts.v").write_text(_module([*given, fact]))
    proved = f"  wire output 9000 \\proved\n  cell \\fact{len(given)} \\proved_cell\n    connect \\x {target}\n"
    text = _inside(_assumed(text, given), "gold", proved + "    connect \\ok \\proved\n  end\n")
    (folder / "window.il").write_text(text)
    return _run(folder, _FACTS, seconds)


def _two(folder: Path, tidy: str, top: str, change: str) -> tuple[dict[str, Any], str]:
    """(the PE's module in Yosys' JSON, both modules without registers): gold is the PE, gate the mutant."""
    (folder / "tidy.il").write_text(tidy)
    run_yosys(folder, [line.format(top=top, change=change) for line in _TWO])
    text = without_registers((folder / "two.il").read_text())
    if has_unknown(text):
        raise ToolError(f"{top}: the netlist has constants x, and they would be anything")
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


def _run(folder: Path, lines: Sequence[str], seconds: float) -> bool:
    return proved(folder, [line.format(seconds=max(1, round(seconds))) for line in lines], seconds)
