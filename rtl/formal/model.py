"""From a PE's Verilog and a harness to the SMT problem, and from the solver's answers to results."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bitwright.rtl.formal import tools
from bitwright.rtl.formal.harness import Harness, label

# Registers power up free: initial values go, and what has none is kept as such by every later pass ($anyinit).
_PE = "read_json {source}\nhierarchy -auto-top\nsetattr -unset init w:*\n"
_REST = """formalff -clk2ff -ff2anyinit
rename -top dut
read_verilog -formal {name}.v
hierarchy -top harness
proc
flatten
opt_clean
formalff -clk2ff -ff2anyinit
chformal -lower
opt -full
dffunmap
opt_clean
write_smt2 -wires {name}.smt2
"""

MISSING = "not proved"


@dataclass(frozen=True)
class Result:
    """One property of one PE.

    Fields
        method : str             "structure", "algebra", "arithmetic", "induction" (with a bounded check from reset),
            "bounded"; of "not proved" the reason.
        depth : int              Cycles of the induction's hypothesis or of the bounded check; 0 without either.
        result : str
            "proved"
            "refuted"            By a run from reset, by the circuit's structure, by numbers that differ.
            "not inductive"      There is none from reset within the bound, but the induction's step fails.
            "timed out"          The solver had no answer in time, "unknown": it gave none, or algebra gave up.
            "open"               Another property of the same run was refuted, or not inductive, first.
            "not proved"         No proof was tried: there is none of this PE with these parameters.
        trace : str              A counterexample's VCD, if there is one.
    """

    pe: str
    variant: str
    property: str
    method: str
    depth: int
    result: str
    seconds: float
    trace: str = ""

    @builtins.property  # `property` is a field here
    def proved(self) -> bool:
        return self.result == "proved"

    @builtins.property
    def failed(self) -> bool:
        """Whether a proof was tried and is none; what has no proof at all has not failed one."""
        return self.result not in ("proved", MISSING)


@dataclass(frozen=True)
class Setting:
    """Where and how a PE is proved."""

    pe: str
    variant: str
    work: Path
    solver: str = "yices"
    timeout_s: float = 120

    def result(self, name: str, method: str, depth: int, result: str, seconds: float, trace: str = "") -> Result:
        return Result(self.pe, self.variant, name, method, depth, result, seconds, trace)


def write(
    setting: Setting, name: str, harness: Harness, *, free: Iterable[str] = (), source: str = "pe.json"
) -> Path:  # fmt: skip
    """The SMT problem of a harness. `free` wires of the PE are cut: anything may stand on them."""
    (setting.work / f"{name}.v").write_text(harness.text())
    cuts = "".join(f"cutpoint -noscopeinfo w:{wire}\n" for wire in free)
    exposed = "".join(f"expose w:{wire}\n" for wire in harness.exposed)
    tools.yosys(_PE.format(source=source) + cuts + exposed + _REST.format(name=name), setting.work)
    return setting.work / f"{name}.smt2"


class Claims(Protocol):
    """A harness, whatever it is around."""

    properties: list[str]


def decide(setting: Setting, name: str, harness: Claims, path: Path, *, depth: int, bounded: int) -> Iterator[Result]:
    """Check `bounded` cycles from reset, then induction over up to `depth` cycles; a result for each property."""
    trace = setting.work / f"{name}.vcd"
    base = tools.smtbmc(path, setting.solver, bounded, trace=trace, timeout_s=setting.timeout_s)
    seconds, verdict, failed, steps = base.seconds, base.result, base.failed, bounded
    method = "bounded"
    if base.result == "passed" and depth:
        answer = tools.smtbmc(
            path, setting.solver, depth, induction=True, trace=trace, timeout_s=setting.timeout_s
        )  # fmt: skip
        seconds, verdict, failed = seconds + answer.seconds, answer.result, answer.failed
        verdict = "not inductive" if verdict == "failed" else verdict
        method, steps = "induction", depth
    words = {"passed": "proved", "failed": "refuted", "timeout": "timed out"}
    broken = {item.rpartition("__")[0] for item in failed}
    for item in harness.properties:
        result = words.get(verdict, verdict)
        if verdict in ("failed", "not inductive") and label(item) not in broken:
            result = "open"
        shown = str(trace) if result in ("refuted", "not inductive") else ""
        yield setting.result(item, method, steps, result, seconds, shown)
