"""Writes docs/stream-costs.md and docs/stream-costs.svg from arch/costs/streams_<node>.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from paper_ratios import PAPERS, papers

Row = dict[str, Any]
TERMS = ("switching", "internal", "clock_pins", "clock_tree", "leakage")

HEAD = """# What PEs behind streams cost

<!-- written by docs/stream_costs.py; do not edit -->
Every PE of [the library](pe-library.md) with its streams and handshake, on nangate45, sized for {clock:g} MHz, one script and effort for all;
`make costs` writes the table and goes on where it was stopped. Zero-delay activity (no glitches), pre-layout. `fmax` is of the netlist sized
for {clock:g} MHz: `bitwright synthesize PE --dataflow stream --fmax` searches for more. Real operands are SmolLM2's, in the PE's own format;
random ones are uniform legal codes. An energy is all of it at {clock:g} MHz: data nets (switching), cells when data move (internal), flip-flops' clock pins,
the clock tree (estimated by the number of flip-flops: buffers of a fan-out of 16, not in the area) and leakage. A group is 64 MACs.

Random steps of `lut` and `int8-int4-mac` also choose their modes at random (fewer bit planes, both weight widths), so that a MAC of theirs is
not the real run's. `bit-serial` is measured on bitmod_fp4 and holds what a tile shares: its term encoders, group scaling and column
accumulator. In the stalled and idle cycles of this table operands are held, as a stream's rules ask of a step that waits, and no logic moves
(a test shows it); [with operand isolation](#with-operand-isolation) has those in which a neighbour's operands pass.

Why real operands cost another energy than random ones, PE by PE and format by format, is on [its page](real-data.md).
The systolic cells and edge units, from which machines are priced, are on [another page](pes.md); other nodes and clocks, clock gating
there, uncertainty and processor time on [one more](stream-nodes.md).

![Area, energy on real and random operands, and fmax](stream-costs.svg)
"""
GATED = """
## With clock gating

`bitwright synthesize PE --dataflow stream --clock-gating`, alike for every PE: four registers or more with one enable get the library's clock
gate. Against the rows above.

| PE | gates | area, um2 | pJ a MAC, real | against ungated | pJ a stalled cycle | against ungated | pJ an idle cycle |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
ISOLATED = """
## With operand isolation

`bitwright synthesize PE --dataflow stream --operand-isolation`, alike for every PE: each bit of a step's payload is ANDed with the stream's valid
bit, so that logic stands still while the PE has no step (a systolic cell: the operands of its datapath with act_valid). It pays where operands go on moving
then: here no step is on offer, but a neighbour's steps, on a real model's operands, pass on the same wires, as on a bus that PEs share; idle,
and stalled with a sum that nobody takes. (A step that is on offer and waits is held and moves nothing.) A PE whose operands first meet a
register with an enable, or an encoder in front of one, has little to save. Whole energy of a cycle, clock, its tree and leakage included;
area, delay (the smallest period) and the energy of a MAC on real operands against the rows without. Mapping sees the AND gates, one a bit of
payload, and the PE as one design, so that its own scatter is in these ratios: an area far from 1 (`flint`, `nvint4-dot`) is that, not the gates.

| PE | area | delay | pJ a MAC | stalled, moving: pJ a cycle | isolated | clock-gated | both | saved by isolation | of gated | idle, moving: pJ a cycle | isolated | clock-gated | both |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
FLOW = """
## What the flow moves

The same Verilog and cells, mapped without Yosys' Booth multipliers, and without ABC's pass on generic gates before ours on cells
(`synthesize --effort low`): over the rows above, which have both. The pass is ours (`rtl/asic/synthesis.py`), not the one of Yosys' `synth`,
whose SAT sweeping over equal multipliers takes minutes.

| PE | left out | area | fmax | pJ a MAC, real | s of a core to map, with and without |
| --- | --- | --- | --- | --- | --- |"""
GLITCHES = """
## Glitches

Left out of every energy above, and measured here: the same netlists and vectors (8 lanes) in Icarus with each cell's rise and fall delay from the
library's tables at its slew and load, inertial. Registers move equally often in both. Times the zero-delay figure:

| PE | operands | toggles of logic | switching and internal energy | with the clock pins | pJ a MAC with glitches |
| --- | --- | --- | --- | --- | --- |"""


def load(node: str) -> dict[str, Any]:
    """One node's table; without rows if it is not there."""
    path = resources.files("bitwright.arch.costs").joinpath(f"streams_{node}.json")
    table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    return table


def area_per_mac(row: Row) -> float | None:
    """um2 per MAC a cycle."""
    return row["area_um2"] / row["macs_per_cycle"] if row.get("macs_per_cycle") else None


def number(value: float | None, form: str = ".3g") -> str:
    """The figure, or nothing."""
    return "" if value is None else f"{value:{form}}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def costs_table(rows: dict[str, Row]) -> str:
    """Area, clock and energy."""
    columns = [
        "PE",
        "MACs a cycle",
        "area, um2",
        "um2 per MAC a cycle",
        "of it registers",
        "fmax, MHz",
        "pJ a MAC, real",
    ]
    columns += ["pJ a MAC, random", "real / random", "pJ a group", "pJ a stalled cycle", "pJ an idle cycle"]
    columns += ["leakage, uW", "at its fmax: TOPS/mm2", "TOPS/W"]
    lines = []
    for name, row in rows.items():
        real, random = row["energy_pj_per_mac"], row["energy_pj_per_mac_random"]
        tops_mm2 = own_tops_w = None
        if real:
            tops_mm2 = 2 * row["macs_per_cycle"] * row["fmax_mhz"] / row["area_um2"]
            leakage = row["terms_pj_per_mac"]["leakage"] * row["clock_mhz"] / row["fmax_mhz"]
            own_tops_w = 2 / (real - row["terms_pj_per_mac"]["leakage"] + leakage)
        lines.append(
            [
                f"`{name}`",
                number(row.get("macs_per_cycle")),
                f"{row['area_um2']:.0f}",
                number(area_per_mac(row), ".0f"),
                f"{100 * row['sequential_um2'] / row['area_um2']:.0f} %",
                f"{row['fmax_mhz']:.0f}" + ("" if row["meets_clock"] else " (not met)"),
                number(real, ".3f"),
                number(random, ".3f"),
                number(real / random if real else None, ".2f"),
                number(row.get("energy_pj_per_group"), ".1f"),
                number(row["stalled_energy_pj"], ".3f"),
                number(row["idle_energy_pj"], ".3f"),
                f"{row['leakage_uw']:.1f}",
                number(tops_mm2, ".2f"),
                number(own_tops_w, ".2f"),
            ]
        )
    return table(columns, lines)


def terms_table(rows: dict[str, Row]) -> str:
    """Shares of the energy of a MAC on real operands."""
    lines = []
    for name, row in rows.items():
        if row["energy_pj_per_mac"]:
            whole = row["energy_pj_per_mac"]
            shares = [f"{100 * row['terms_pj_per_mac'][term] / whole:.0f} %" for term in TERMS]
            lines.append([f"`{name}`", number(whole, ".3f"), *shares])
    return table(["PE", "pJ a MAC, real", *(term.replace("_", " ") for term in TERMS)], lines)


def gated_table(rows: dict[str, Row], gated: dict[str, Row]) -> list[str]:
    """What clock gates save."""
    lines = []
    for name, row in sorted(gated.items()):
        real, stalled = row["energy_pj_per_mac"], row["stalled_energy_pj"]
        figures = [str(row["clock_gates"]), f"{row['area_um2']:.0f}", number(real, ".3f")]
        figures.append(number(real / rows[name]["energy_pj_per_mac"] if real else None, ".2f"))
        figures.append(number(stalled, ".3f"))
        figures.append(number(stalled / rows[name]["stalled_energy_pj"] if stalled else None, ".2f"))
        lines.append(f"| `{name}` | {' | '.join(figures)} | {number(row['idle_energy_pj'], '.3f')} |")
    return lines


def isolated_table(made: dict[str, Any]) -> list[str]:
    """What isolation costs and saves, without and with clock gates."""
    lines = []
    for name, row in sorted(made["isolated"].items()):
        if name not in made["isolated_clock_gated"]:
            continue
        plain, gated, both = (made[section][name] for section in ("rows", "clock_gated", "isolated_clock_gated"))
        figures = [f"{row[key] / plain[key]:.2f}" for key in ("area_um2", "min_period_ns", "energy_pj_per_mac")]
        for kind in ("stalled", "idle"):
            found = [one[f"{kind}_moving_energy_pj"] for one in (plain, row, gated, both)]
            figures += [f"{value:.3f}" for value in found]
            if kind == "stalled":
                figures += [f"{100 * (1 - less / more):.0f} %" for more, less in (found[:2], found[2:])]
        lines.append(f"| `{name}` | {' | '.join(figures)} |")
    return lines


def flow_table(made: dict[str, Any]) -> list[str]:
    """PEs mapped in other ways, over their rows."""
    others = [(name, "generic pass", row) for name, row in made["low_effort"].items()]
    others += [(*title.split(" without "), part) for title, part in made["parts"].items() if " without " in title]  # type: ignore[misc]
    lines = []
    for name, left_out, other in others:
        ratios = [
            f"{other[key] / made['rows'][name][key]:.2f}" if key in other else ""
            for key in ("area_um2", "fmax_mhz", "energy_pj_per_mac")
        ]
        took = [f"{one['processor_s']['mapping']:.1f}" for one in (made["rows"][name], other) if "processor_s" in one]
        lines.append(f"| `{name}` | {left_out} | {' | '.join(ratios)} | {', '.join(took) if len(took) == 2 else ''} |")
    return sorted(lines)


def not_made(rows: dict[str, Row], section: dict[str, Row]) -> str:
    """Which of `rows` a section has not."""
    return f"\nRows not made: {', '.join(f'`{name}`' for name in sorted(rows.keys() - section.keys())) or 'none'}."


def glitches_table(rows: dict[str, Row], measured: dict[str, Any]) -> list[str]:
    """What delays add."""
    lines = []
    for name, found in measured.items():
        for kind, suffix in (("real", ""), ("random", "_random")):
            terms, ratio = rows[name][f"terms_pj_per_mac{suffix}"], found[kind]["energy_ratio"]
            moving = terms["switching"] + terms["internal"]
            whole = rows[name][f"energy_pj_per_mac{suffix}"] + (ratio - 1) * moving
            ratios = [f"{found[kind][key]:.2f}" for key in ("toggle_ratio", "energy_ratio", "total_ratio")]
            lines.append(f"| `{name}` | {kind} | {' | '.join(ratios)} | {whole:.3f} |")
    return lines


def picture(rows: dict[str, Row]) -> str:
    """Three panels of dots as SVG, rows by area per MAC, on logarithmic axes: they span two orders of magnitude."""
    import math

    named = sorted((n for n in rows if rows[n]["energy_pj_per_mac"]), key=lambda n: area_per_mac(rows[n]) or 0)
    panels: list[tuple[str, list[tuple[str, Callable[[Row], float]]]]] = [
        ("um2 per MAC a cycle (log)", [("#4477aa", lambda row: area_per_mac(row) or 0)]),
        (
            "pJ a MAC (log): real dark, random light",
            [
                ("#aa3377", lambda row: row["energy_pj_per_mac"]),
                ("#ddaacc", lambda row: row["energy_pj_per_mac_random"]),
            ],
        ),
        ("fmax, MHz (log)", [("#228833", lambda row: row["fmax_mhz"])]),
    ]
    line, left, wide, gap, top = 22, 390, 200, 90, 50
    bottom = top + line * len(named)
    height, width = bottom + 10, left + 3 * (wide + gap)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, name in enumerate(named):
        y = top + line * i + 14
        out.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{name}</text>')
        out.append(f'<line x1="{left}" x2="{width - gap}" y1="{y - 4}" y2="{y - 4}" stroke="#eeeeee"/>')
    for p, (title, series) in enumerate(panels):
        x = left + p * (wide + gap)
        values = [get(rows[name]) for name in named for _, get in series]
        low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
        out.append(f'<text x="{x}" y="18" font-weight="bold">{title}</text>')
        ticks = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
        for tick in (tick for tick in ticks if low <= math.log10(tick) <= high):
            at = x + wide * (math.log10(tick) - low) / (high - low)
            out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}" stroke="#dddddd"/>')
            out.append(f'<text x="{at:.1f}" y="{top - 8}" font-size="10" text-anchor="middle">{tick:,g}</text>')
        for i, name in enumerate(named):
            y = top + line * i + 10
            for colour, get in reversed(series):
                at = x + wide * (math.log10(get(rows[name])) - low) / (high - low)
                out.append(f'<circle cx="{at:.1f}" cy="{y}" r="5" fill="{colour}"/>')
            value = series[0][1](rows[name])
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            out.append(f'<text x="{x + wide + 6}" y="{y + 4}" font-size="10">{shown}</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    """Print the page; write the picture to the file that is given."""
    made = load("nangate45")
    rows = dict(sorted(made["rows"].items()))
    clock = next(iter(rows.values()))["clock_mhz"]
    print(HEAD.format(clock=clock))
    print(costs_table(rows))
    print("\n## What the energy is made of\n")
    print(terms_table(rows))
    print("\n".join([GATED, *gated_table(rows, made["clock_gated"]), not_made(rows, made["clock_gated"])]))
    print("\n".join([ISOLATED, *isolated_table(made), not_made(rows, made["isolated_clock_gated"])]))
    print("\n".join([FLOW, *flow_table(made)]))
    print(PAPERS.format(clock=clock))
    for line in papers(made):
        print(f"| {' | '.join(line)} |")
    print("\n".join([GLITCHES, *glitches_table(rows, made["glitches"])]))
    Path(sys.argv[1]).write_text(picture(rows))


if __name__ == "__main__":
    main()
