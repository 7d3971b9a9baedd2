"""Formal proofs on the generated Verilog of streaming PEs: handshake, order, clearing, accumulator range.

Properties
    one-clock, ready-ignores-valid, valid-is-register, payload-from-registers   From structure.
    valid-holds, payload-holds, registers-hold   A sum on offer that waits, and with it every register, stays.
    reset-clears             After a reset no sum is on offer and the phase is 0.
    latency                  A sum is on offer exactly `latency_cycles` (without stalls) after each last step taken.
    none-lost-none-twice     Sums taken and in flight are as many as last steps taken since the reset.
    ready-not-in-stall, step-ends-in-time, step-cycles, phase-counts   When steps are taken.
    first-forgets            A sum hangs on nothing from before its first step, operands or registers.
    exact-ACC, no-wrap-ACC, overflow-is-told   The accumulator is the exact total of the spec's `cuts`, left free within
                             their ranges; it does not wrap for `longest_sum` steps; it tells when it did not fit.
    cut-range                These ranges, from the whole logic; of `lut` see `planes`.
    tree-adds-ACC, group-range   Instead of cuts, where terms go through a carry-save tree: see `trees`.
    alike-ACC, alike-groups, alike-cuts   So many more accumulators, groups or cuts are the same circuit (`alike`) as
                             one of which alone the solver was asked.
Method       "structure", "algebra" (`identity`), "induction" (k = depth cycles, after a bounded check from reset that
             is at least as deep) and "bounded" (it failed there). Registers power up with any value; cycle 0 is a
             reset; the source keeps a step on offer until it is taken. A proof without an answer in time has failed.
Gaps         An integer sum without a proof of its total or its range, and cuts without one of theirs, have a result
             "not proved" (`coverage`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bitwright.arch.pe.lut import Lut
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.bench.environment import cache_folder
from bitwright.rtl.formal import clearing, control, coverage, netlist, planes, ranges, tools, trees
from bitwright.rtl.formal.model import Result, Setting
from bitwright.rtl.formal.netlist import Design

__all__ = ["Result", "prove"]


def prove(
    spec: StreamSpec, solver: str = "yices", *, verilog: str | None = None, timeout_s: float = 120, variant: str = ""
) -> Iterator[Result]:  # fmt: skip
    """Every proof of one PE, on its own Verilog or on `verilog` with the same ports; results as they come.

    Counterexamples stay as VCD files in `build/formal/MODULE`. Raises ConfigError for an unknown solver, ToolError when
    a tool is missing or fails.
    """
    from bitwright.rtl.pe import streaming

    tools.require(solver)
    work = cache_folder().parent / "formal" / spec.module_stem
    work.mkdir(parents=True, exist_ok=True)
    yield from prove_in(work, spec, solver, verilog or streaming.verilog(spec), timeout_s, variant)


def prove_in(
    work: Path, spec: StreamSpec, solver: str, verilog: str, timeout_s: float, variant: str
) -> Iterator[Result]:  # fmt: skip
    """The same in a folder of the caller's."""
    design = netlist.read(verilog, work)
    setting = Setting(spec.name, variant or spec.module_stem, work, solver, timeout_s)
    handshake = (control.structure, control.stalls, control.order, clearing.clear)
    told = set()
    for proof in (*handshake, _cut_ranges, ranges.exact, trees.totals):
        for result in proof(setting, spec, design):
            told.add(result.property)
            yield result
    yield from coverage.missing(setting, spec, design, told)


def _cut_ranges(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """What a step of lut adds takes several cycles, which only their own proof follows."""
    if isinstance(spec, Lut):
        return planes.cut_ranges(setting, spec, design)
    return ranges.cut_ranges(setting, spec, design)
