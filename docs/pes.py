"""Writes docs/pes.md: every PE, what it takes, what it costs, what has been checked.

python docs/pes.py > docs/pes.md
"""

from __future__ import annotations

from bitwright.arch import costs, formats, pe

NODE = "nangate45"
HEAD = """\
# Processing elements

<!-- written by docs/pes.py; do not edit -->
A PE is one spec object in `arch/pe/`: operand types, accumulator width, golden arithmetic, the formats it takes, and its timing contract.
`rtl/pe/` builds two array cells from it: `ws` (the weight stays, partial sums move down) and `os` (the sum stays, operands move). Below each
column of an array stands the edge unit that takes finished groups; at the top, where a format needs it, a decoder.

These are the PEs of systolic arrays, the ones that machines use. The same three behind streams, with pipelines and other parameters, and all the
others (BitMoD, OliVe, LUT tensor core, OPT1-4C, block-scaled dot products, ...) are on the page of [the PE library](pe-library.md).
"""
TAIL = """\
## Add a PE

1. `arch/pe/<name>.py`: a `PESpec` with operand types, `psum`, `accepts` and a numpy `accumulate` that is exact to the bit; add it to `_SPECS`.
2. `rtl/pe/<name>.py`: one function `mac(m, spec, acc, act, wgt)` returning the next accumulator value; register it in `rtl/pe/datapaths.py`. Both
   cells, the arrays, `generate` and `verify` follow from it.
3. `tests/rtl/pe/test_<name>.py`: compare the compiled cell with arithmetic that does not come from the spec, exhaustively where 2^24 cases
   allow, and show that a changed operator is caught.
4. `make costs`, then `make test`.
"""


def table(columns: list[str], rows: list[list[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def what_they_are() -> str:
    rows: list[list[object]] = []
    for name in pe.names():
        spec = pe.get(name)
        rows.append(
            [
                f"`{name}`",
                f"{spec.act.name}, {spec.act.bits} bit",
                f"{spec.wgt.name}, {spec.wgt.bits} bit",
                f"{spec.psum.name}, {spec.psum.bits} bit",
                spec.timing.latency_cycles,
                f"`{spec.edge_unit}`",
            ]
        )
    return "## What they are\n\n" + table(["PE", "activation", "weight", "sum", "latency, cycles", "edge unit"], rows)


def what_they_take() -> str:
    rows: list[list[object]] = []
    for name in formats.names():
        answers = [pe.get(pe_name).accepts(name, 64) for pe_name in pe.names()]
        if not any(answers):
            continue
        row: list[object] = [f"`{name}`"]
        for answer in answers:
            row.append({"native": "native", "refused": "refused"}.get(answer.kind) or f"through `{answer.unit}`")
        rows.append(row)
    text = f"{len(rows)} of the {len(formats.names())} [formats](format-list.md); the others are for accuracy (pe `float32`) only."
    columns = ["format", *(f"`{name}`" for name in pe.names())]
    return f"## Which formats they take (groups of 64)\n\n{text}\n\n" + table(columns, rows)


def what_they_cost() -> str:
    tables = costs.load(NODE)
    rows: list[list[object]] = []
    for pe_name in pe.names():
        spec = pe.get(pe_name)
        for dataflow in spec.dataflows:
            cost = tables.pe(pe_name, dataflow)
            rows.append(
                [
                    f"`{pe_name}` {dataflow}",
                    cost.weight_format,
                    f"{cost.area_um2:.0f}",
                    f"{100 * cost.sequential_um2 / cost.area_um2:.0f} %",
                    f"{cost.fmax_mhz:.0f}",
                    f"{cost.energy_pj_per_mac:.3f}",
                    f"{cost.random_pj_per_mac:.3f}",
                    f"{cost.pass_energy_pj:.3f}",
                    f"{cost.idle_energy_pj:.3f}",
                    f"{cost.weight_load_pj:.3f}" if dataflow == "ws" else "",
                    f"{cost.leakage_uw:.1f}",
                ]
            )
    head = [
        "cell", "weights", "area, um2", "of it registers", "fmax, MHz", "pJ a MAC, real operands", "pJ a MAC, random codes",
        "pJ a cycle without operand", "pJ an idle cycle", "pJ a weight load", "leakage, uW",
    ]  # fmt: skip
    return f"""\
## What they cost

{NODE}, cells sized for {tables.clock_mhz:g} MHz, one script and effort for all, zero-delay activity (no glitches), pre-layout. Real operands
are SmolLM2's; every accepted format has its own energy in `arch/costs/{NODE}.json`, written by `make costs`.

{table(head, rows)}"""


def at_equal_width() -> str:
    tables = costs.load(NODE)
    rows: list[list[object]] = []
    for dataflow in ("ws", "os"):
        for bits in (32, 23, 19):
            cost = tables.pe("int8-mac", dataflow, "int4", psum_bits=bits)
            rows.append([f"`int8-mac` {dataflow}", bits, f"{cost.area_um2:.0f}", f"{cost.energy_pj_per_mac:.3f}"])
        cost = tables.pe("shift-add", dataflow, "int4")
        rows.append([f"`shift-add` {dataflow}", 19, f"{cost.area_um2:.0f}", f"{cost.energy_pj_per_mac:.3f}"])
    head = ["cell, int4 weights", "bits of the sum", "area, um2", "pJ a MAC, real operands"]
    return f"""\
## What the width of the sum costs

Machines give `int8-mac` a 32-bit sum, which any row of int8 weights fits, and `shift-add` the 19 bits of its longest group. Part of what
separates the two cells is that width, not the multiplier:

{table(head, rows)}"""


def what_was_checked() -> str:
    rows: list[list[object]] = [
        [f"`{name}`", item.claim, f"{item.cases:,}", f"`{item.test}`"]
        for name in pe.names()
        for item in pe.get(name).evidence
    ]
    return "## What was checked\n\n" + table(["PE", "claim", "cases", "test"], rows)


if __name__ == "__main__":
    parts = [
        HEAD,
        what_they_are(),
        "",
        what_they_take(),
        "",
        what_they_cost(),
        "",
        at_equal_width(),
        "",
        what_was_checked(),
        "",
        TAIL,
    ]
    print("\n".join(parts), end="")
