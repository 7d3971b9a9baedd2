"""Proofs that a mutant is the PE itself, for what no bench can tell apart; by Yosys' SAT solver.

Both work on the tidied netlist and a copy with the one mutation.
`by_cut`        Every register is cut: from equal state and equal inputs follow equal next state and equal outputs, for
                any state, so from any power-up.
`by_induction`  All registers and outputs stay equal from all zero on, by induction over some cycles: states that
                cannot be reached no longer count.
And `witness` looks for the opposite: inputs within the stream's rules that tell the mutant from the PE.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bitwright.arch.errors import ToolError
from bitwright.rtl.asic import yosys_driver

_DEPTH = 12
# Registers without an initial value would become x in `opt`, and x is anything: hence `zinit` where they stay in.
_TWO = ("read_rtlil tidy.il", "rename {top} gold", "copy gold gate", "{change}", "dffunmap gold gate")
_MITER = ("miter -equiv -flatten gold gate miter", "hierarchy -top miter", "opt -full", "opt_merge", "opt_clean")
_CUT = (
    "read_rtlil cut.il", "check -assert gold gate", *_MITER, "sat -verify -prove trigger 0 -timeout {seconds} miter",
)  # fmt: skip
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
        try:
            run_yosys(folder, [line.format(**values) for line in lines], timeout_s=4 * seconds + 60)
        except ToolError as error:
            if "proof did" in str(error) or "took longer" in str(error):  # refuted, or too slow: nothing is proved
                return False
            raise
        return True


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
