"""The same function after synthesis: a streaming PE mapped to library cells, under the bench that its Verilog passes.

The netlist's own text is compiled together with a Verilog module for each cell it uses, made from the Liberty file: an
`assign` for each output's `function`, a clocked register for a flip-flop, no delays. Registers power up random.

    python -m bitwright.rtl.bench.stream.netlists int8-mac:pipeline=1
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import PESpec
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.asic.boolean import Expression
from bitwright.rtl.asic.liberty import Cell, Library, library_path, read_library
from bitwright.rtl.asic.synthesis import Synthesis, synthesize_verilog
from bitwright.rtl.bench.stream import bulk, evidence, traces
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe import streaming

NODE, PERIOD_PS = "nangate45", 1000
# Modules with `run_netlist` of PEs that are no StreamSpec; imported when asked for.
_OWN_RUNS = {"bit-serial": "bitwright.rtl.bench.bit_serial_evidence"}


def expression(found: Expression) -> str:
    """A Liberty function in Verilog. Raises ConfigError for one whose operators do not carry over one to one."""
    text = found.text.replace("!", "~").replace("+", "|").replace("*", "&")
    names = found.inputs
    try:
        # Verilog and Python bind ~ & ^ | alike, so Python can check the text on every input.
        code = compile(text, f"<{found.text}>", "eval")
        for bits in itertools.product((0, 1), repeat=len(names)):
            values = dict(zip(names, map(bool, bits), strict=True))
            if eval(code, {"__builtins__": {}}, values) & 1 != found.at(**values):
                raise SyntaxError
    except SyntaxError:
        raise ConfigError(
            f"liberty expression = {found.text!r}: must use ! & | ^ and brackets only, so that it can be Verilog"
        ) from None
    return text


def cell_model(cell: Cell) -> str:
    """Verilog of one library cell. Raises ConfigError for latches and asynchronous resets."""
    if cell.is_latch or (cell.ff is not None and cell.ff.asynchronous):
        raise ConfigError(f"cell {cell.name}: must be combinational or a flip-flop without asynchronous reset")
    pins = [*(f"  input {pin.name};" for pin in cell.inputs), *(f"  output {pin.name};" for pin in cell.outputs)]
    body = []
    if cell.ff is not None:
        state, inverted = cell.ff.state, cell.ff.inverted
        body += [
            f"  reg {state};", f"  wire {inverted} = ~{state};",
            f"  always @(posedge {cell.ff.clocked_on}) {state} <= {expression(cell.ff.next_state)};",
        ]  # fmt: skip
    body += [f"  assign {pin.name} = {expression(pin.function)};" for pin in cell.outputs if pin.function is not None]
    return "\n".join([f"module {cell.name}({', '.join(cell.pins)});", *pins, *body, "endmodule", ""])


def with_models(found: Synthesis, library: Library) -> str:
    """The netlist's text followed by the models of its cells."""
    cells = sorted({instance.cell for instance in found.netlist.instances})
    return "\n".join([found.verilog, *(cell_model(library.cell(name)) for name in cells)])


@dataclass(frozen=True)
class Outcome:
    """A mapped PE and what was run on it without a difference."""

    cells: int
    registers: int
    area_um2: float
    steps: int
    sums: int
    stalled_cycles: int
    library_sha256: str
    synthesis_s: float


def examine(spec: PESpec, *, steps: int = 20_000, cycles: int = 10_000, seed: int = 1, real: bool = True,
            timeout_s: float = 900.0) -> Outcome:  # fmt: skip
    """Map the PE, compile the netlist, run it with and without stalls; raises MismatchError at a difference.

    steps : about as many in each part of the run without stalls; cycles : of the stalled run.
    """
    library = read_library(library_path(NODE))
    began = time.monotonic()
    found = synthesize_verilog(
        streaming.verilog(spec), spec.module_stem, library_path(NODE), period_ps=PERIOD_PS, timeout_s=timeout_s
    )
    took = time.monotonic() - began
    text = with_models(found, library)
    design = Compiled(text, spec.module_stem, optimise="-O1" if len(text) > 1 << 20 else "-O2")
    run: Any = _run if isinstance(spec, StreamSpec) else import_module(_OWN_RUNS[spec.name]).run_netlist
    taken, sums, stalled_cycles = run(spec, design, steps=steps, cycles=cycles, seed=seed, real=real)
    area = found.area
    return Outcome(
        area.combinational_cells + area.sequential_cells, area.sequential_cells, round(area.total_um2, 1),
        taken, sums, stalled_cycles, library.sha256, took,
    )  # fmt: skip


def _run(spec: StreamSpec, design: Compiled, *, steps: int, cycles: int, seed: int, real: bool) -> tuple[int, int, int]:
    """(steps, sums, cycles with stalls) of a streaming PE that were compared."""
    counts = bulk.NONE
    for part in traces.bulk_steps(spec, steps, seed, real=real):
        counts += bulk.check(spec, part, design=design, seed=seed)
    trace = traces.stalled(spec, cycles, seed)
    traces.Player(spec, design, trace).require(seed=seed)
    return counts.steps + trace.steps, counts.sums + trace.sums, trace.cycles


def row(spec: PESpec, params: dict[str, Any], outcome: Outcome, seed: int) -> dict[str, Any]:
    """The outcome as a row of the evidence file."""
    figures = {
        "node": NODE, "period_ps": PERIOD_PS, "cells": outcome.cells, "registers": outcome.registers,
        "area_um2": outcome.area_um2, "steps": outcome.steps, "sums": outcome.sums,
        "stalled_cycles": outcome.stalled_cycles, "library_sha256": outcome.library_sha256, "seed": seed,
    }  # fmt: skip
    command = f"python -m bitwright.rtl.bench.stream.netlists {evidence.shown(spec.name, params)} --seed {seed}"
    return evidence.row(spec, params, "netlist", figures, command)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A streaming PE's netlist of library cells under its bench.")
    parser.add_argument("pe", help="name, or name:parameter=value,...")
    parser.add_argument("--seed", type=int, default=1)
    # mxint8-dot took 1628 s on two busy cores
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for the synthesis")
    parser.add_argument("--write", action="store_true", help="put the outcome into docs/evidence")
    options = parser.parse_args(arguments)
    name, params = pe.parse_name(options.pe)
    spec = evidence.spec_of(name, params)
    outcome = examine(spec, seed=options.seed, timeout_s=options.timeout)
    print(
        f"{spec.module_stem}: {outcome.cells} cells, {outcome.registers} of them registers, "
        f"{outcome.area_um2:,.1f} um2 ({NODE}, sized for {PERIOD_PS} ps; {outcome.synthesis_s:.0f} s); "
        f"{outcome.steps:,} steps and "
        f"{outcome.sums:,} sums, {outcome.stalled_cycles:,} cycles of them with stalls and resets: 0 differ"
    )
    if options.write:
        evidence.store(row(spec, params, outcome, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
