"""Writes docs/stream-nodes.md: PEs behind streams at other nodes and clocks, scaled figures beside synthesised ones,
uncertainties and processor time; from arch/costs/streams_<node>.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from importlib import resources
from typing import Any

from bitwright.arch import costs
from bitwright.arch.costs import scaling
from bitwright.arch.costs.streams import StreamCost

NODES = ("nangate45", "sg13g2", "asap7")
Row = dict[str, Any]

HEAD = """# PEs behind streams: nodes, clocks, uncertainty

<!-- written by docs/stream_nodes.py; do not edit -->
The figures of [what PEs behind streams cost](stream-costs.md) at other nodes and clocks. `make costs` makes those of nangate45,
`make campaign-nodes SG13G2=file ASAP7=file` the others from the user's own Liberty files; both go on where they were stopped.
"""
NODE_HEAD = """## Rank order over nodes

SG13G2 (130 nm) at {sg:g} MHz and ASAP7 (7 nm, predictive) at {as_:g} MHz, which are as many fan-out-of-four delays as {clock:g} MHz is on
Nangate45. Area per MAC a cycle and energy per MAC relative to `int8-mac` of the same node; "place" is the rank by it among
the rows that all three nodes have. ASAP7 declares no wire load: it gets Nangate45's, scaled by its cells' size.
"""
GATED = """## Clock gating at the nodes

Energy of a MAC and of a stalled cycle with clock gates, over that without, at 45 / 130 / 7 nm; area likewise.
"""
CLOCKS = """## Three clocks on nangate45

Sized for each clock; "(not met)" where the netlist does not reach it. Energy is all of it at that clock, with its leakage.
"""
SCALED = """## Scaled figures against synthesised ones

Nangate45's rows at 130 and 7 nm by the scaling equations of Stillmaker and Baas (Integration 58, 2017; `arch/costs/scaling.py` says
where the coefficients come from), high-performance transistors, each library's supply. Every figure "scaled" is the equations',
over what synthesis with the node's own library gives: 1.00 would be right. Energy is dynamic, fmax of netlists sized for clocks
of equal fan-out-of-four delays.
"""
SRAM = """### SRAM at 7 nm: scaled from 22 nm

CACTI ends at 22 nm; its memories there (`arch/costs/sram_22nm.json`, low-standby-power cells, 64-bit port) times the same equations,
labelled as scaled, with nothing of 7 nm to check them on. The equations are of logic: SRAM cells have shrunk less, so that the areas
are too small. Leakage is not scaled. 22 nm lies between two nodes of the paper: geometric mean. Machines do not use these figures.
"""
UNCERTAINTY = """## Uncertainty of each figure

| figure | what moves it | how much |
| --- | --- | --- |"""
OPENSTA = """
## Energy terms against OpenSTA

`make campaign-nodes` compares `int8-mac` with OpenSTA 2.0.17 instance by instance, one activity on every net, wires alike. OpenSTA over
ours at 45 / 130 / 7 nm (2026-11-24):

| term | ratio | why |
| --- | --- | --- |
| switching | 1.000 / 0.984 / 0.999 | SG13G2 states rise and fall capacitances of a pin beside its `capacitance`: OpenSTA takes their mean, we take that |
| leakage | 1.000 / 1.000 / 2.6 | ASAP7 has no `cell_leakage_power`: OpenSTA adds the stateless figure to those of the states, we take the states' mean |
| clock, inside flip-flops | 0.975 / 1.77 / 1.10 | OpenSTA weighs each condition by a duty; we count the states in which it holds |
| internal, logic | 2.61 / 3.71 / 2.13 | OpenSTA's rule, below |

A transition of an output is a rise or a fall and has one cause, so that it takes one entry of the library's tables: ours, checked by hand
on single cells. OpenSTA 2.0.17 counts rise and fall for each transition and adds up the groups of all related pins and conditions, at 1
each for a cell of one input and at 1/2 for one of two. That rule on the same tables gives its figure for those cells to 1.4 % on Nangate45
(each kind of cell to 5 %) and to 5 % on SG13G2: twice ours for inverters, buffers and two-input gates, 4 times for a XOR with two
conditions an input, more on SG13G2, which states each group with and without its condition. So the residue is the tool's, where its rule is
known: 59 % of its internal power of logic on Nangate45. Of cells with three and four inputs the rule was not found (0.12 to 0.40 of the
sum of all groups), nor that on ASAP7, whose groups come once a supply rail (0.74 of the rule).
"""
TIME = """## Processor time

Seconds of one core that a row took (mapping; timing, simulation and energy), recorded in the row when it was made.
"""


def load(node: str) -> dict[str, Any]:
    """One node's table."""
    text = resources.files("bitwright.arch.costs").joinpath(f"streams_{node}.json").read_text()
    table: dict[str, Any] = json.loads(text)
    return table


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *rows])


def places(values: dict[str, float]) -> dict[str, int]:
    """Rank of each name, 1 the least."""
    return {name: place for place, name in enumerate(sorted(values, key=lambda name: values[name]), 1)}


MEASURES: dict[str, Callable[[Row], float]] = {
    "area": lambda row: row["area_um2"] / row["macs_per_cycle"],
    "energy": lambda row: row["energy_pj_per_mac"],
}


def ranks(tables: list[dict[str, Any]]) -> str:
    """The rank order over nodes."""
    shared = [name for name in sorted(tables[0]["rows"]) if all(name in one["rows"] for one in tables)]
    columns: dict[str, list[str]] = {name: [] for name in shared}
    moved = []
    for what, measure in MEASURES.items():
        values = [{name: measure(one["rows"][name]) for name in shared} for one in tables]
        placed = [places(one) for one in values]
        for name in shared:
            columns[name].append(" / ".join(f"{one[name] / one['int8-mac']:.2f}" for one in values))
            columns[name].append(" / ".join(str(rank[name]) for rank in placed))
        n = len(shared)
        rho = [1 - 6 * sum((placed[0][name] - rank[name]) ** 2 for name in shared) / (n**3 - n) for rank in placed[1:]]
        far = {name: [rank[name] for rank in placed] for name in shared}
        far = {name: each for name, each in far.items() if max(each) - min(each) >= 3}
        named = ", ".join(f"`{name}` ({' / '.join(map(str, each))})" for name, each in far.items()) or "none"
        moved.append(
            f"{what} {rho[0]:.3f} (130 nm) and {rho[1]:.3f} (7 nm), rows that move by three places or more: {named}"
        )
    for name in shared:
        rows = [one["rows"][name] for one in tables]
        columns[name].append(
            " / ".join(f"{row['fmax_mhz']:.0f}{'' if row['meets_clock'] else ' (not met)'}" for row in rows)
        )
    missing = [
        f"{label}: {', '.join(f'`{name}`' for name in sorted(tables[0]['rows']) if name not in one['rows']) or 'none'}"
        for label, one in zip(("130 nm", "7 nm"), tables[1:], strict=True)
    ]
    head = ["PE", "area 45 / 130 / 7 nm", "place", "energy 45 / 130 / 7 nm", "place", "fmax, MHz"]
    lines = table(head, [[f"`{name}`", *columns[name]] for name in shared])
    return f"{lines}\n\nRank correlation (Spearman) with 45 nm: {'; '.join(moved)}.\nRows not made: {'; '.join(missing)}.\n"


def gated(tables: list[dict[str, Any]]) -> str:
    """What clock gates save, over nodes."""
    shared = [name for name in sorted(tables[0]["clock_gated"]) if all(name in one["clock_gated"] for one in tables)]
    lines = []
    for name in shared:
        cells = []
        for key in ("energy_pj_per_mac", "stalled_energy_pj", "area_um2"):
            cells.append(" / ".join(f"{one['clock_gated'][name][key] / one['rows'][name][key]:.2f}" for one in tables))
        lines.append([f"`{name}`", *cells])
    every = {name for one in tables for name in one["rows"]} - set(shared)
    rest = f"\nNot at every node: {', '.join(f'`{name}`' for name in sorted(every))}.\n" if every else ""
    return table(["PE", "energy of a MAC", "of a stalled cycle", "area"], lines) + "\n" + rest


def clocks(base: dict[str, Any]) -> str:
    """Area and energy sized for each clock."""
    by_clock = {float(clock): rows for clock, rows in base["clocks"].items()} | {float(base["clock_mhz"]): base["rows"]}
    names = [name for name in sorted(base["rows"]) if all(name in rows for rows in by_clock.values())]
    columns = ["PE", *(f"area, um2, {clock:g} MHz" for clock in sorted(by_clock))]
    columns += [f"pJ a MAC, {clock:g} MHz" for clock in sorted(by_clock)]
    lines = []
    for name in names:
        rows = [by_clock[clock][name] for clock in sorted(by_clock)]
        areas = [f"{row['area_um2']:.0f}{'' if row['meets_clock'] else ' (not met)'}" for row in rows]
        lines.append([f"`{name}`", *areas, *(f"{row['energy_pj_per_mac']:.3f}" for row in rows)])
    short = [name for name in sorted(base["rows"]) if name not in names]
    rest = f"\nNot yet at every clock: {', '.join(f'`{name}`' for name in short)}." if short else ""
    return table(columns, lines) + "\n" + rest


SCALES: dict[str, Callable[[StreamCost], float]] = {
    "area": lambda cost: cost.area_um2,
    "dynamic energy a MAC": lambda cost: cost.active_pj_per_mac,
    "fmax": lambda cost: cost.fmax_mhz,
}


def scaled() -> str:
    """Predicted over synthesised of every PE, and what is left of the error in ratios to int8-mac."""
    nodes = {node: scaling.NODES[node] for node in ("sg13g2", "asap7")}
    ratios: dict[str, dict[str, list[float]]] = {}
    for node, to in nodes.items():
        for name in load("nangate45")["rows"]:
            own, there = costs.stream(name), costs.stream(name, node=node)
            if own is not None and there is not None:
                guess = scaling.scaled_stream(own, to)
                ratios.setdefault(name, {})[node] = [measure(guess) / measure(there) for measure in SCALES.values()]
    columns = ["PE", *(f"{what}, {to.node_nm:g} nm" for to in nodes.values() for what in SCALES)]
    lines = []
    for name in sorted(ratios):
        lines.append([f"`{name}`"])
        for node in nodes:
            lines[-1] += [f"{value:.2f}" for value in ratios[name].get(node, [])] or [""] * len(SCALES)
    texts = []
    for node, to in nodes.items():
        for i, what in enumerate(SCALES):
            found = [each[node][i] for each in ratios.values() if node in each]
            middle = statistics.median(found)
            spread = max(max(found) / middle, middle / min(found))
            texts.append(f"{what} at {to.node_nm:g} nm {middle:.2f} ({min(found):.2f} to {max(found):.2f}; a ratio of two PEs is "
                         f"off by at most {100 * (spread - 1):.0f} % from the median's)")  # fmt: skip
    own_mhz = load("nangate45")["clock_mhz"]
    inverters = " and ".join(
        f"{own_mhz / load(node)['rows']['int8-mac']['clock_mhz']:.2f} times Nangate45's at {to.node_nm:g} nm, by the equations "
        f"{to.delay_factor / scaling.NANGATE45.delay_factor:.2f}"
        for node, to in nodes.items()
    )
    why = (
        f"Much of the error of fmax is in the libraries, not in the PEs: the delay of their smallest inverters at a fan-out of four is {inverters}. "
        f"`lut` on SG13G2 is an outlier of mapping (its netlist reaches {load('sg13g2')['rows']['lut']['fmax_mhz']:.0f} MHz)."
    )
    return table(columns, lines) + f"\n\nMedian, least and most: {'; '.join(texts)}. {why}\n"


def sram() -> str:
    """SRAM at 7 nm."""
    lines = []
    for kib in (4, 16, 64, 256, 1024):
        own = costs.sram_22nm(1024 * kib, 64)
        there = scaling.scaled_sram(own, scaling.ASAP7)
        pairs = ((own.read_pj, there.read_pj), (own.write_pj, there.write_pj), (own.area_mm2, there.area_mm2))
        pairs = (*pairs, (own.access_ns, there.access_ns))
        lines.append([f"{kib}", *(f"{a:.3g} -> {b:.3g}" for a, b in pairs)])
    columns = ["KiB", "read, pJ, 22 -> 7 nm (scaled)", "write, pJ", "area, mm2", "access, ns"]
    return table(columns, lines) + "\n"


def uncertainty(tables: dict[str, dict[str, Any]]) -> str:
    """What is known of each figure's error."""
    rows = [row for one in tables.values() for row in one["rows"].values()]
    errors = [
        100 * row["energy_error_pj_per_mac"] / row["energy_pj_per_mac"]
        for row in rows
        if "energy_error_pj_per_mac" in row
    ]
    glitches = []
    for node, one in tables.items():
        found = [each[kind]["total_ratio"] for each in one.get("glitches", {}).values() for kind in ("real", "random")]
        glitches += [f"{min(found):.2f} to {max(found):.2f} ({node})"] if found else []
    lines = [
        ["energy, other operands of the same kind", "`energy_error_pj_per_mac` in each row: scatter of eight parts of the run",
         f"{min(errors):.2f} to {max(errors):.2f} %, median {statistics.median(errors):.2f} %"],
        ["energy, glitches", "measured with cell delays on some PEs, left out of all", f"times {', '.join(glitches)}"],
        ["fmax", "our timing against OpenSTA on the same netlist", "within 2.8 % ([campaigns](campaigns.md)); no placement"],
        ["area", "exact for the netlist; what mapping makes of the same RTL at another target is the table of three clocks", "no placement, cells packed"],
        ["leakage", "mean over a cell's states; one corner", "see below for OpenSTA's"],
        ["figures labelled scaled", "the section above", "far larger than all of these"],
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def seconds(tables: dict[str, dict[str, Any]]) -> str:
    """Sums and the dearest rows."""
    lines, slow, whole_s, untimed = [], [], 0.0, []
    for node, found in tables.items():
        sections = {"rows": found["rows"], "clock-gated": found["clock_gated"]}
        switched = {"isolated": "isolated", "isolated, clock-gated": "isolated_clock_gated"}
        sections |= {what: found[key] for what, key in switched.items() if key in found}
        sections |= {f"{clock} MHz": rows for clock, rows in found.get("clocks", {}).items()}
        for what, rows in sections.items():
            timed = {name: sum(row["processor_s"].values()) for name, row in rows.items() if "processor_s" in row}
            if not timed:
                continue
            if node == "nangate45":
                whole_s += sum(timed.values())
                untimed += [name for name in tables[node]["rows"] if name not in timed]
            dearest = max(timed, key=lambda name: timed[name])
            lines.append(
                [
                    node,
                    what,
                    f"{len(timed)} of {len(rows)}",
                    f"{sum(timed.values()):.0f}",
                    f"`{dearest}`, {timed[dearest]:.0f}",
                ]
            )
            slow += [f"`{name}` ({node}, {what}) {each:.0f} s" for name, each in timed.items() if each > limit(name)]
    columns = ["node", "rows", "timed of those made", "s in all", "the dearest, s"]
    over = f"Over 60 s (scalar and 4-lane PEs) or 10 minutes (tiles): {', '.join(slow) or 'none of these'}."
    names = ", ".join(f"`{name}`" for name in sorted({*untimed}))
    rest = f"; {len(untimed)} rows ({names}) were not timed or not made" if untimed else ""
    budget = (
        f"nangate45 at all clocks, as the sum of rows made on different occasions (no run in one go): {whole_s / 60:.0f} minutes of "
        f"one core, where 3 hours of two are 360{rest}."
    )
    return table(columns, lines) + f"\n\n{over} {budget}\n"


def limit(name: str) -> float:
    """Seconds that a row may take: a tile's 600, any other's 60."""
    base = name.partition(":")[0]
    return 600 if base in ("lut", "bit-serial") or base.endswith("-dot") else 60


def main() -> None:
    """Print the page."""
    tables = {node: load(node) for node in NODES}
    all_nodes = list(tables.values())
    clocks_mhz = [next(iter(one["rows"].values()))["clock_mhz"] for one in all_nodes]
    print(HEAD)
    print(NODE_HEAD.format(clock=clocks_mhz[0], sg=clocks_mhz[1], as_=clocks_mhz[2]))
    print(ranks(all_nodes))
    print(GATED)
    print(gated(all_nodes))
    print(CLOCKS)
    print(clocks(tables["nangate45"]))
    print(SCALED)
    print(scaled())
    print(SRAM)
    print(sram())
    print(UNCERTAINTY)
    print(uncertainty(tables))
    print(OPENSTA)
    print(TIME)
    print(seconds(tables).rstrip())


if __name__ == "__main__":
    main()
