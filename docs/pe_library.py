"""Writes docs/pe-library.md: every streaming PE, what it is, its cycles, its cells, and what has been checked.

python docs/pe_library.py > docs/pe-library.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from bitwright.arch import formats, pe
from bitwright.arch.pe.stream import LAST, StreamSpec
from bitwright.rtl.asic.operands import sample
from bitwright.rtl.bench.stream import evidence
from bitwright.rtl.bench.stream.stimulus import real_steps

HEAD = r"""# The PE library

<!-- written by docs/pe_library.py; do not edit -->
Every PE here has one spec in `arch/pe/` (golden arithmetic, fields, timing contract) and hardware in `rtl/pe/` made from it. All but
[`bit-serial`](#bit-serial) stand behind the same two streams, [steps in and sums out](../arch/pe/stream.py), so that one bench serves them all
and a Verilog file of yours can take a PE's place:

    bitwright generate outlier-victim -o x.v                       Verilog-2001, and x.json: ports, fields, latency, reset
    bitwright verify outlier-victim                                one cocotb bench for all, on Verilator or with --simulator icarus
    bitwright verify int8-mac --rtl mine.v --latency 3             your own Verilog under the same bench
    bitwright prove outlier-victim                                 formal proofs of handshake, order, clear and accumulator range

Every file lints clean under `verilator -Wall` but for four warnings that it waives at its head: WIDTHEXPAND (Amaranth's sums have their carry),
UNUSEDSIGNAL (bits that arithmetic drops), PROCASSINIT (registers have initial values) and DECLFILENAME (the file's name is yours).
Parameters go behind a colon: `lut:m=1,n=8,weight_bits=2`. The cells of systolic arrays, with their costs, are on [another page](pes.md).

## The contract of all

A step is taken in a cycle with `step.valid` and `step.ready`; the sum of the steps from `first` to `last` is on offer `latency` cycles after the cycle in which
the last one was taken, and stays until `sum.ready`. While it waits, the whole PE stands still. A `first` before a `last` drops the unfinished sum. `rst` is
synchronous and clears control state only. Two steps, then a sum held for one cycle, latency 2:

    clk          _/~\_/~\_/~\_/~\_/~\_/~\_
    step.valid   _/~~~~~~~\______________
    first        _/~~~\__________________
    last         _____/~~~\______________
    sum.valid    _____________/~~~~~~~\__
    sum.ready    _________________/~~~\__

The same from Python, golden and exact; `type(spec).__doc__` tells what a PE computes:

```python
from bitwright.arch import pe

spec = pe.stream("int8-mac", lanes=2)
act, wgt = [[1, -2], [3, 4]], [[100, 100], [-128, 127]]
spec.golden(act=act, wgt=wgt, first=[1, 0], last=[0, 1])  # {'psum': array([24])}
```"""


ADD = """\
## Add a PE

1. `arch/pe/<name>.py`: a `StreamSpec`: fields of a step and of a sum, `start`, `step` and `result` in numpy, exact to the bit, `timing`, `step_cycles` where codes
   decide, `quantised`, `variants`; every parameter that changes the hardware is in `module_stem`. Name it in `_STREAMS` of `arch/pe/__init__.py`.
2. `rtl/pe/<name>.py`: a `StreamPE` whose `elaborate` uses `Flow` for handshake, phases and pipeline registers. Name it in `_COMPONENTS` of `rtl/pe/streaming.py`.
3. `tests/arch/pe` and `tests/rtl/pe`: an oracle that shares no code with the spec; every pair of codes, random, corner and real operands through `bulk.check`.
4. `bitwright verify`, `bitwright prove`, the campaigns above, `make docs`, `make test`."""


def table(columns: list[str], rows: list[list[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows])


def variants() -> list[tuple[str, Mapping[str, Any], StreamSpec]]:
    """Every PE in every parameter set that is checked."""
    found = []
    for name in pe.stream_names():
        for params in type(pe.stream(name)).variants:
            found.append((name, params, pe.stream(name, **params)))
    return found


def cycles_of(spec: StreamSpec) -> str:
    """Cycles a step: a number, or its mean over real operands where codes decide."""
    if type(spec).step_cycles is StreamSpec.step_cycles:
        return "1"
    cycles = spec.step_cycles(real_steps(spec, 64, seed=1))
    if (cycles == cycles[0]).all():
        return str(int(cycles[0]))
    return f"{cycles.min()} to {cycles.max()}, mean {cycles.mean():.2f}"


def group_cycles(spec: StreamSpec) -> str:
    """Cycles of 128 multiply-accumulates of one sum, whatever a step holds of them, on real operands."""
    steps = real_steps(spec, 64, seed=1)
    cycles = float(np.sum(spec.step_cycles(steps))) / float(np.sum(np.asarray(steps[LAST])))
    return f"{cycles * 128 / (sample().acts.shape[-1] - 1):.4g}"


def what_they_are() -> str:
    rows: list[list[object]] = []
    for name, params, spec in variants():
        fields = ", ".join(
            f"{f.name} {f.lanes} x {f.bits}" if f.lanes > 1 else f"{f.name} {f.bits}" for f in spec.step_fields
        )
        sums = ", ".join(
            f"{f.name} {f.lanes} x {f.bits}" if f.lanes > 1 else f"{f.name} {f.bits}" for f in spec.sum_fields
        )
        rows.append(
            [
                f"`{evidence.shown(name, params)}`",
                fields,
                sums,
                spec.timing.latency_cycles,
                cycles_of(spec),
                spec.macs_per_step,
                group_cycles(spec),
            ]
        )
    head = [
        "PE",
        "a step's fields, bits",
        "a sum's fields, bits",
        "latency, cycles",
        "cycles a step",
        "MACs a step",
        "cycles of a sum's 128 MACs",
    ]
    return "## What stands side by side\n\nData-dependent cycles are measured on SmolLM2's operands.\n\n" + table(
        head, rows
    )


def what_they_take() -> str:
    rows: list[list[object]] = []
    for name in [*pe.stream_names(), "bit-serial"]:
        spec = pe.get(name) if name == "bit-serial" else pe.stream(name)
        taken = [item for item in formats.names() if spec.accepts(item, 64) or spec.accepts(item, None)]
        rows.append([f"`{name}`", ", ".join(f"`{item}`" for item in taken)])
    return "## Which weight formats they take\n\n" + table(
        ["PE", "formats, as they are or through a decoder at the border"], rows
    )


def bit_serial() -> str:
    spec = pe.get("bit-serial")
    assert isinstance(spec, pe.BitSerial), "the spec of this name"
    names = ("int8", "int6", "int5", "bitmod_fp4", "bitmod_fp3")
    cycles = [[f"`{name}`", *(spec.cycles(name, group) for group in (8, 16, 32, 64, 128))] for name in names]
    return f"""\
## `bit-serial`

BitMoD's PE has group scales inside and streams of its own (`slice` in, `column` out, a `clear`, registers of special values), so it has its own
cycle model; latency {spec.timing.latency_cycles} cycles, one more with `pipeline=1`. Cycles a group (at least 8, the bit-serial scale):

{table(["weights", *(f"group {group}" for group in (8, 16, 32, 64, 128))], cycles)}"""


def rows_of(kind: str) -> list[dict[str, Any]]:
    """The evidence rows of a kind, in the order of the tables above."""
    order = {name: place for place, name in enumerate([*pe.stream_names(), "bit-serial"])}
    found = [row for row in evidence.load() if row["kind"] == kind]
    return sorted(
        found, key=lambda row: (order[row["pe"]], len(row["params"]), evidence.shown(row["pe"], row["params"]))
    )


def campaigns() -> str:
    rows: list[list[object]] = []
    for row in rows_of("campaign"):
        found = row["figures"]
        pairs = f"{found['pairs']:,}" if found.get("pairs") else ""
        rows.append(
            [
                f"`{evidence.shown(row['pe'], row['params'])}`",
                f"{found['lane_steps']:,}",
                f"{found['groups']:,}",
                pairs,
                found["mismatches"],
                row["date"],
            ]
        )
    head = ["PE", "lane-steps", "whole groups", "every pair of codes", "sums or cycles that differ", "when"]
    return f"""\
## Campaigns: RTL against golden

Every sum and every cycle, from random power-up state: random and corner codes, SmolLM2's operands, every pair of codes where there are at most
2^24. `make campaign-pe`; each row's own command is in `docs/evidence/`.

{table(head, rows)}"""


def mutants() -> str:
    rows: list[list[object]] = []
    survivors: list[list[object]] = []
    for row in rows_of("mutants"):
        found, name = row["figures"], f"`{evidence.shown(row['pe'], row['params'])}`"
        killed = [found[f"by_{how}"] for how in ("value", "cycle", "protocol")]
        rows.append(
            [name, found["mutants"], sum(killed), *killed, found["equivalent"], found["unexplained"], row["date"]]
        )
        survivors += [[name, f"`{each['mutation']}`", each["proof"] or "UNEXPLAINED"] for each in found["survivors"]]
    head = [
        "PE",
        "mutants",
        "killed",
        "by value",
        "by cycle",
        "only under stalls",
        "proved equivalent",
        "unexplained",
        "when",
    ]
    return f"""\
## Mutants

One bit of one cell of the PE's own Verilog changed; clock pins are left out. Killed by the bench's stimulus, or proved equivalent by the method named
in the list of survivors. An unexplained one is open: not killed within the bench's length, nor proved within seconds a proof. Proofs that rest on
what an accumulator can hold say so: they are of what happens from the first step of a sum on. `make campaign-mutants`.

{table(head, rows)}

<details><summary>{len(survivors)} survivors</summary>

{table(["PE", "mutant", "why"], survivors)}

</details>"""


def netlists() -> str:
    rows: list[list[object]] = []
    for row in rows_of("netlist"):
        found = row["figures"]
        rows.append(
            [
                f"`{evidence.shown(row['pe'], row['params'])}`", f"{found['cells']:,}", f"{found['registers']:,}", f"{found['area_um2']:,.0f}",
                f"{found['steps']:,}", f"{found['sums']:,}", f"{found['stalled_cycles']:,}", row["date"],
            ]
        )  # fmt: skip
    head = ["PE", "cells", "of them registers", "area, um2", "steps", "sums", "cycles with stalls and resets", "when"]
    return f"""\
## The same function after synthesis

Mapped to Nangate45 for 1 ns (met or not; costs at a met clock are another matter), each cell modelled from its Liberty function, under the same bench from
random power-up state: nothing differs. `make campaign-netlists`.

{table(head, rows)}"""


def proofs() -> str:
    rows: list[list[object]] = []
    for row in rows_of("proof"):
        found = row["figures"]
        depth = f", depth {found['depth']}" if found.get("depth") else ""
        rows.append(
            [
                f"`{evidence.shown(row['pe'], row['params'])}`",
                found["property"],
                found["method"] + depth,
                found["result"],
                row["date"],
            ]
        )
    return f"""\
## Proofs

On the generated Verilog, multipliers and aligners cut out and left free within their ranges (`cut-range` proves these of the whole logic), carry-save
trees replaced by the totals that they are shown to add, polynomial by polynomial (algebra), for any number of lanes. `alike`: so many more accumulators, lanes
or cuts are the same circuit as the one that the solver was asked about, compared term by term on their own wires. Each property is proved, refuted, not inductive
or timed out; all but the first fail the run. A sum's total or range, or a cut's range, of which there is no proof has the result "not proved" and why: of `lut`,
what tables that it makes itself add, whole ones (`unpu`) or fp16's. Floating-point sums, those of `bit-serial` too, have no range to prove. The
rows are of the variants named; the others have none. `bitwright prove PE`, all of them: `make campaign-proofs`.

{table(["PE", "property", "method", "result", "when"], rows)}"""


def what_was_checked() -> str:
    rows: list[list[object]] = []
    for name in [*pe.stream_names(), "bit-serial"]:
        spec = pe.get(name) if name == "bit-serial" else pe.stream(name)
        rows += [[f"`{name}`", item.claim, f"{item.cases:,}", f"`{item.test}`"] for item in spec.evidence]
    return "## What `make test` checks\n\n" + table(["PE", "claim", "cases", "test"], rows)


if __name__ == "__main__":
    parts = [
        HEAD,
        what_they_are(),
        what_they_take(),
        bit_serial(),
        campaigns(),
        mutants(),
        netlists(),
        proofs(),
        what_was_checked(),
        ADD,
    ]
    print("\n\n".join(parts))
