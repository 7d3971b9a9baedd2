"""Proofs that a mutant is the PE itself, for what no bench can tell apart; by Yosys' SAT solver.

All work on the tidied netlist and a copy with the one mutation.
`by_cut`        Every register is cut: from equal state and equal inputs follow equal next state and equal outputs, for
                any state, so from any power-up.
`by_held_sum`   The same, but registers that the PE declares as a `HeldSum` count as their sum, and only while their
                flags are high: states alike in that are alike in all that the ports show.
`by_induction`  All registers and outputs stay equal from all zero on, by induction over some cycles: states that
                cannot be reached no longer count.
And `witness` looks for the opposite: inputs within the stream's rules that tell the mutant from the PE.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitwright.arch.errors import ToolError
from bitwright.rtl.asic import yosys_driver
from bitwright.rtl.pe.stream import HeldSum

_DEPTH = 12
# Registers without an initial value would become x in `opt`, and x is anything: hence `zinit` where they stay in.
_TWO = ("read_rtlil tidy.il", "rename {top} gold", "copy gold gate", "{change}", "dffunmap gold gate")
_MITER = ("miter -equiv -flatten gold gate miter", "hierarchy -top miter", "opt -full", "opt_merge", "opt_clean")
_CUT = (
    "read_rtlil cut.il", "check -assert gold gate", *_MITER, "sat -verify -prove trigger 0 -timeout {seconds} miter",
)  # fmt: skip
_ALIKE = (
    "read_rtlil cut.il", "check -assert gold gate", "read_verilog alike.v", "hierarchy -top alike", "flatten",
    "opt -full", "opt_merge", "opt_clean",
)  # fmt: skip
_CLAIM = "sat -verify -prove alike[{at}] 1 -timeout {seconds} alike"
_INDUCTION = (
    "read_rtlil two.il", "zinit -all", "expose {registers}", *_MITER,
    "sat -verify -tempinduct -prove trigger 0 -set-init-zero -maxsteps {depth} -timeout {seconds} miter",
)  # fmt: skip
_WITNESS = (
    "read_verilog -icells source.v", "hierarchy -top source", "proc", "flatten", "zinit -all", "opt -full",
    "dffunmap", "opt_merge", "opt_clean",
    "sat -tempinduct -tempinduct-baseonly -prove bad 0 -set-init-zero -set-at 1 rst 1 {stalls} -maxsteps {cycles} "
    "-timeout {seconds} -show rst,valid,payload,sum__ready source",
)  # fmt: skip
# A source that obeys its rules (what is offered holds; the first step after a reset is marked `first`) before both.
_SOURCE = """\
module source(input clk, input rst, input offer, input [{high}:0] any, input sum__ready, output bad);
  reg waiting, begun, known;
  reg [{high}:0] held;
  wire valid = waiting | offer;
  wire [{high}:0] fresh = begun ? any : any | {first};
  wire [{high}:0] payload = waiting ? held : fresh;
  wire good_ready, good_valid, other_ready, other_valid;
  wire [{sum_high}:0] good_sum, other_sum;
  always @(posedge clk) begin
    held <= payload;
    waiting <= valid & ~good_ready & ~rst;
    begun <= (begun | valid & good_ready) & ~rst;
    known <= known | rst;
  end
  gold good(.clk(clk), .rst(rst), .step__valid(valid), .step__payload(payload), .step__ready(good_ready),
    .sum__valid(good_valid), .sum__ready(sum__ready), .sum__payload(good_sum));
  gate other(.clk(clk), .rst(rst), .step__valid(valid), .step__payload(payload), .step__ready(other_ready),
    .sum__valid(other_valid), .sum__ready(sum__ready), .sum__payload(other_sum));
  assign bad = known & (good_ready != other_ready | good_valid != other_valid | good_valid & good_sum != other_sum);
endmodule
"""
_NO_STALLS = "-set offer 1 -set sum__ready 1 -set rst 0"  # but at 1
_REGISTER = re.compile(r"^  cell \$dff (\S+)\n((?:    .*\n)*?)  end\n", re.MULTILINE)
_SHOWN = re.compile(r"^\s*(\d+) \\(rst|valid|payload|sum__ready) .*?([01x]+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One change, as Yosys' `mutate` has it: `mode` inv, const0, const1, cnot0, cnot1 on a bit of a cell's port."""

    mode: str
    cell: str
    port: str
    bit: int
    control_bit: int | None

    def command(self, top: str, control: str = "") -> str:
        """The Yosys command; `control` is its `-ctrl` option."""
        other = "" if self.control_bit is None else f" -ctrlbit {self.control_bit}"
        where = f"-module {top} -cell {self.cell} -port {self.port} -portbit {self.bit}{other}"
        return f"mutate {control} -mode {self.mode} {where}"

    def __str__(self) -> str:
        other = "" if self.control_bit is None else f" by bit {self.control_bit}"
        return f"{self.mode} {self.cell}.{self.port}[{self.bit}]{other}"


def run_yosys(folder: Path, lines: Sequence[str], timeout_s: float = 300.0) -> str:
    """Run a script in `folder` in a process of its own; returns what Yosys printed. Raises ToolError if it fails."""
    (folder / "run.ys").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-P", yosys_driver.__file__, "run.ys"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ToolError(f"yosys: script took longer than {timeout_s:g} s (raise timeout_s)") from None
    if done.returncode:
        text = (done.stdout + done.stderr).strip().splitlines()
        errors = [line for line in text if "ERROR" in line] or text[-1:]
        raise ToolError(f"yosys: status {done.returncode}: {' '.join(errors) or 'no message'}")
    return done.stdout


def by_cut(tidy: str, top: str, mutation: Mutation, seconds: float) -> str:
    """What was proved of the mutant of `top` in the RTLIL text `tidy`; "" if nothing was, in `seconds`."""
    return "equal next state and outputs in every state" if _holds(_CUT, tidy, top, mutation, seconds) else ""


def by_held_sum(tidy: str, top: str, mutation: Mutation, seconds: float, held: tuple[HeldSum, ...]) -> str:
    """As `by_cut`, two states being alike (~) if they are equal but for what `held` says does not count.

    An output that is such a register counts while its flags are high, every other output always. Proved, each for every
    state s and every input: PE(s) ~ PE(s with one of the sums all in its first register), for each sum in turn, once a
    PE; and PE(s) ~ mutant(s). By the first, PE(s) ~ PE(r) for any s ~ r, as both go, sum by sum, to the same state. So
    from one power-up on, states s of the PE and r of the mutant stay alike: PE(s) ~ PE(r) ~ mutant(r).
    """
    if not held or not sums_suffice(tidy, top, held, seconds) or not _alike(tidy, top, mutation, seconds, held, ()):
        return ""
    return "equal next state and outputs in every state; of registers that hold a sum, the sum while it counts"


@cache
def sums_suffice(tidy: str, top: str, held: tuple[HeldSum, ...], seconds: float) -> bool:
    """Whether it was proved of `top` itself that nothing but what `held` says counts; `seconds` for each sum."""
    return all(_alike(tidy, top, None, seconds, held, (one,)) for one in held)


def by_induction(tidy: str, top: str, mutation: Mutation, seconds: float) -> str:
    """As `by_cut`."""
    held = _holds(_INDUCTION, tidy, top, mutation, seconds)
    return f"equal registers and outputs from all zero, by induction over at most {_DEPTH} cycles" if held else ""


def without_registers(rtlil: str) -> str:
    """Modules whose registers ($dff) are taken out: each one's Q becomes an input, its D an output, named for it."""
    parts = re.split(r"(?m)^(module .*\n)", re.sub(r"(?m)^ *attribute .*\n", "", rtlil))
    for place in range(2, len(parts), 2):
        ports: list[str] = []

        def taken_out(found: re.Match[str], ports: list[str] = ports) -> str:
            pins = dict(re.findall(r"connect \\(\w+) (.*)", found.group(2)))
            width = re.search(r"parameter \\WIDTH (\d+)", found.group(2))
            assert width is not None, f"a register without width: {found.group()}"
            name = "\\" + found.group(1).lstrip("\\")
            for pin, direction in (("Q", "input"), ("D", "output")):
                ports.append(f"  wire width {width.group(1)} {direction} {1000 + len(ports)} {name}.{pin}\n")
            return f"  connect {pins['Q']} {name}.Q\n  connect {name}.D {pins['D']}\n"

        body = _REGISTER.sub(taken_out, parts[place])
        parts[place] = "".join(ports) + body
    return "".join(parts)


class _Comparison:
    """Verilog of the module `alike`, around `gold` and `gate` without registers, whose output of that name is proved.

    Parameters
        module : dict            `gold` with its registers, as Yosys' JSON has it.
        held : tuple             Which sums count.
    """

    def __init__(self, module: dict[str, Any], held: tuple[HeldSum, ...]) -> None:
        self._ports, self._nets, self._held = module["ports"], module["netnames"], held
        cells = {name: cell for name, cell in module["cells"].items() if "Q" in cell["connections"]}
        assert {cell["type"] for cell in cells.values()} <= {"$dff"}, "registers that `without_registers` leaves in"
        self._registers = {name: cell["connections"]["Q"] for name, cell in cells.items()}
        self._place = {
            bit: (number, at) for number, bits in enumerate(self._registers.values()) for at, bit in enumerate(bits)
        }
        self._require_own_registers()

    def _require_own_registers(self) -> None:
        """Raise ToolError unless every sum can be put into its first register without a change of anything else."""
        taken = [bit for one in self._held for name in one.when for bit in set(self._bits(name))]
        for one in self._held:
            first, *rest = (self._bits(name) for name in one.terms)
            own = [*first, *(bit for bits in rest for bit in bits if bit != "0")]
            if not set(own) <= set(self._place) or len(set(own)) < len(own) or set(own) & set(taken):
                raise ToolError(f"held sum of {', '.join(one.terms)}: must be of registers that nothing else names")
            assert all(len(bits) <= len(first) for bits in rest), f"{one}: the first must be the widest"
            taken += own

    def _bits(self, name: str) -> list[Any]:
        """The bits of a wire; "0" and "1" are constants."""
        if name not in self._nets:
            raise ToolError(f"held sum of {name}: no such wire in the netlist")
        return list(self._nets[name]["bits"])

    def _word(self, name: str, state: str) -> str:
        """What the register `name` holds in a state."""
        bits = (f"1'b{bit}" if isinstance(bit, str) else self._bit(bit, state) for bit in reversed(self._bits(name)))
        return f"{{{', '.join(bits)}}}"

    def _bit(self, bit: int, state: str) -> str:
        number, at = self._place[bit]
        return f"{state}{number}[{at}]"

    def _counts(self, one: HeldSum, state: str) -> str:
        return " & ".join(["1'b1", *(self._word(name, state) for name in one.when)])

    def _wires(self, *states: str) -> list[str]:
        """Wires of all registers of the states."""
        return [
            f"wire [{len(bits) - 1}:0] {state}{number};"
            for state in states for number, bits in enumerate(self._registers.values())
        ]  # fmt: skip

    def _totals(self, state: str, sums: Iterable[HeldSum]) -> list[str]:
        """Wires `{state}_total{number}` of the sums in a state, 0 of one that does not count there."""
        lines = []
        for number, one in enumerate(sums):
            width = len(self._bits(one.terms[0]))
            total = " + ".join(self._word(term, state) for term in one.terms)
            value = f"({self._counts(one, state)}) ? {total} : {width}'d0"
            lines.append(f"wire [{width - 1}:0] {state}_total{number} = {value};")
        return lines

    def _joined(self, state: str, result: str, sums: Sequence[HeldSum]) -> list[str]:
        """`result` is `state` with each of the sums in its first register, and 0 in the others."""
        lines, new = self._totals(state, sums), {bit: self._bit(bit, state) for bit in self._place}
        for number, one in enumerate(sums):
            first, *rest = (self._bits(name) for name in one.terms)
            new |= {bit: "1'b0" for bits in rest for bit in bits}
            new |= {bit: f"{state}_total{number}[{at}]" for at, bit in enumerate(first)}
        for number, bits in enumerate(self._registers.values()):
            lines.append(f"assign {result}{number} = {{{', '.join(new[bit] for bit in reversed(bits))}}};")
        return lines

    def _instance(self, module: str, state: str, after: str) -> list[str]:
        """`module` in a state, its next state `after`, its outputs named for both."""
        lines, pins = [], []
        for name, port in self._ports.items():
            pins.append(f".{name}({name if port['direction'] == 'input' else f'{module}_{name}'})")
            if port["direction"] == "output":
                lines.append(f"wire [{len(port['bits']) - 1}:0] {module}_{name};")
        for number, name in enumerate(self._registers):
            pins += [f".\\{name}.Q ({state}{number})", f".\\{name}.D ({after}{number})"]
        return [*lines, f"{module} {module}_({', '.join(pins)});"]

    def _claims(self) -> list[str]:
        """That outputs are alike, each sum of the next states, and their other registers."""
        seen = {one.terms[0]: self._counts(one, "any") for one in self._held if len(one.terms) == 1}
        shown = [
            f"(!({seen.get(name, '1')}) | gold_{name} == gate_{name})"
            for name, port in self._ports.items() if port["direction"] == "output"
        ]  # fmt: skip
        sums = [f"gold_next_total{number} == gate_next_total{number}" for number in range(len(self._held))]
        held = {bit for one in self._held for name in one.terms for bit in self._bits(name)}
        bits = ((self._bit(bit, "gold_next"), self._bit(bit, "gate_next")) for bit in self._place if bit not in held)
        others = [f"{gold} == {gate}" for gold, gate in bits]
        return [" & ".join(["1'b1", *shown]), *sums, " & ".join(["1'b1", *others])]

    @property
    def claims(self) -> int:
        """Bits of the output `alike`."""
        return len(self._held) + 2

    def verilog(self, joined: Sequence[HeldSum]) -> str:
        """`alike`: gold in any state, and gate in that state with some sums joined, show and become what is alike."""
        inputs = {name: port["bits"] for name, port in self._ports.items() if port["direction"] == "input"}
        inputs |= {f"any{number}": bits for number, bits in enumerate(self._registers.values())}
        ports = [f"input [{len(bits) - 1}:0] {name}" for name, bits in inputs.items()]
        lines = [
            f"module alike({', '.join(ports)}, output [{self.claims - 1}:0] alike);",
            *self._wires("some", "gold_next", "gate_next"), *self._joined("any", "some", joined),
            *self._instance("gold", "any", "gold_next"), *self._instance("gate", "some", "gate_next"),
            *self._totals("gold_next", self._held), *self._totals("gate_next", self._held),
            *(f"assign alike[{number}] = {claim};" for number, claim in enumerate(self._claims())), "endmodule", "",
        ]  # fmt: skip
        return "\n".join(lines)


def _alike(
    tidy: str, top: str, mutation: Mutation | None, seconds: float, held: tuple[HeldSum, ...],
    joined: tuple[HeldSum, ...],
) -> bool:  # fmt: skip
    """Whether `_Comparison` holds of the PE and its mutant, or of the PE and itself."""
    values = {
        "top": top, "change": "" if mutation is None else mutation.command("gate"),
        "seconds": str(max(1, round(seconds))),
    }  # fmt: skip
    with TemporaryDirectory(prefix="bitwright-equivalence-") as place:
        folder = Path(place)
        (folder / "tidy.il").write_text(tidy)
        run_yosys(folder, [line.format(**values) for line in (*_TWO, "write_rtlil two.il", "write_json two.json")])
        (folder / "cut.il").write_text(without_registers((folder / "two.il").read_text()))
        module = json.loads((folder / "two.json").read_text())["modules"]["gold"]
        comparison = _Comparison(module, held)
        (folder / "alike.v").write_text(comparison.verilog(joined))
        claims = [_CLAIM.format(at=at, **values) for at in range(comparison.claims)]
        return proved(folder, [*_ALIKE, *claims], seconds)


def proved(folder: Path, lines: Sequence[str], seconds: float) -> bool:
    """Whether the script's proof was done; raises ToolError if anything else went wrong."""
    try:
        run_yosys(folder, lines, timeout_s=4 * seconds + 60)
    except ToolError as error:
        if "proof did" in str(error) or "took longer" in str(error):  # refuted, or too slow: nothing is proved
            return False
        raise
    return True


def _holds(lines: Sequence[str], tidy: str, top: str, mutation: Mutation, seconds: float) -> bool:
    with TemporaryDirectory(prefix="bitwright-equivalence-") as place:
        folder = Path(place)
        (folder / "tidy.il").write_text(tidy)
        values = {
            "top": top, "change": mutation.command("gate"), "seconds": str(max(1, round(seconds))),
            "depth": str(_DEPTH),
            "registers": " ".join(f"gold/w:{name} gate/w:{name}" for name in _registers(folder, top)),
        }  # fmt: skip
        run_yosys(folder, [line.format(**values) for line in (*_TWO, "write_rtlil two.il")])
        (folder / "cut.il").write_text(without_registers((folder / "two.il").read_text()))
        return proved(folder, [line.format(**values) for line in lines], seconds)


def witness(
    tidy: str, top: str, mutation: Mutation, seconds: float, *, bits: tuple[int, int], cycles: int, stalls: bool
) -> list[dict[str, int]] | None:
    """Inputs of each cycle (rst, valid, payload, sum__ready) after which the ports of mutant and PE differ.

    [] if there are none within `cycles`; None if the solver did not finish.
    bits : of the step's payload, of the sum's; `first` is the last but one of the step's. stalls : whether source and
    sink may wait and resets come. Registers start at zero, so the caller must run what was found.
    """
    source = _SOURCE.format(high=bits[0] - 1, sum_high=bits[1] - 1, first=f"{bits[0]}'d{1 << (bits[0] - 2)}")
    values = {
        "top": top, "change": mutation.command("gate"), "seconds": str(max(1, round(seconds))),
        "stalls": "" if stalls else _NO_STALLS, "cycles": str(cycles),
    }  # fmt: skip
    with TemporaryDirectory(prefix="bitwright-equivalence-") as place:
        folder = Path(place)
        (folder / "tidy.il").write_text(tidy)
        (folder / "source.v").write_text(source)
        lines = [line.format(**values) for line in (*_TWO[:-1], *_WITNESS)]
        try:
            text = run_yosys(folder, lines, timeout_s=4 * seconds + 60)
        except ToolError as error:
            if "took longer" in str(error):
                return None
            raise
    found: dict[int, dict[str, int]] = {}
    for at, name, shown in _SHOWN.findall(text):
        found.setdefault(int(at), {})[name] = int(shown.replace("x", "0"), 2)
    return [found[at] for at in sorted(found)] if found or "proved base case" in text else None


def _registers(folder: Path, top: str) -> list[str]:
    """Names of the wires that registers drive, the ports left out."""
    run_yosys(folder, ["read_rtlil tidy.il", "write_json tidy.json"])
    module = json.loads((folder / "tidy.json").read_text())["modules"][top]
    cells = module["cells"].values()
    driven = {bit for cell in cells if "Q" in cell["connections"] for bit in cell["connections"]["Q"]}
    return sorted(
        name
        for name, net in module["netnames"].items()
        if name not in module["ports"] and not net["hide_name"] and set(net["bits"]) <= driven
    )
