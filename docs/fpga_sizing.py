"""Writes docs/fpga-sizing.md and its picture from arch/costs/fpga.json: python docs/fpga_sizing.py PICTURE.svg > PAGE."""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from bitwright.fpga import boards

FAMILIES = {"ecp5": "ECP5", "ice40": "iCE40 UltraPlus", "gowin": "Gowin GW1N", "xc7": "AMD 7-series"}
COLOURS = {
    "int8 in DSPs": "#4477aa", "int8 in LUTs": "#66ccee", "shift-add": "#228833", "bit-serial": "#ccbb44", "lut": "#aa3377",
}  # fmt: skip
OPERANDS = {
    "int8 in DSPs": "W8A8", "int8 in LUTs": "W8A8", "shift-add": "W4A8", "bit-serial": "W4A16 (bitmod_fp4)", "lut": "W4A8",
}  # fmt: skip
Row = dict[str, Any]

HEAD = """# PEs and arrays on FPGAs

<!-- written by docs/fpga_sizing.py; do not edit -->
`python -m bitwright.fpga.sizing` writes the table behind this page, arch/costs/fpga.json, and goes on where it was stopped. Synthesis by Yosys: cells
counted as 4-input LUTs (7-series: 6-input), flip-flops, multipliers and block RAMs, without placement, and no clock is claimed where none is shown.

## The largest array, in one picture

![MACs a cycle of the largest arrays, by synthesis and routed](fpga-sizing.svg)

An array alone behind a serial line (fpga/array_top.py). Sizes are n x n and n x (n + 1), one side at a time (`lut`: two rows, a column at a time): "largest" is
of that sequence, and another shape may hold more (2 x 4 of `int8 in DSPs` would use all eight of an iCEBreaker). "By synthesis" is the largest whose netlist
needs no more than the part has: the next of the sequence needs more, or its synthesis was stopped at the cap and says nothing (the bisection takes it for too
large); and placement may refuse this one too (it also puts carries and distributed memory into LUTs). "Closes" is the largest, from there down, that is placed,
routed and meets the board's clock with the first of three seeds; the other two are shown, and one that misses the clock or was stopped does not undo it. `int8 in
DSPs` multiplies in DSPs, everything else in LUTs; MACs of the weights that the column says, so that a MAC of one row is not one of another's. `bitwright fpga
build --array` tells the tools neither: it puts multiplications into DSPs on ECP5 and Gowin, into LUTs on the iCE40.

| board | array | weights and activations | by synthesis | MACs a cycle | LUT, FF, DSP of it, % | closes | MACs a cycle | fmax of seeds, MHz | GMAC/s at the worst | s and MiB a run |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
WINNERS = """
## Who wins where, among these sizes
"""
PES = """
## PEs, per MAC

Every PE of [the library](pe-library.md) alone, with its streams and handshake. Per MAC that it does in a cycle on SmolLM2's operands (as in
[its costs](stream-costs.md)). DSP: multiplications go where the family's tool puts them by default (iCE40: `-dsp`); LUT: none in DSPs. Per MAC of
Gowin in 18 x 18 multipliers, of which two of 9 x 9 take the place.
"""


def share(used: Row, board: boards.Board) -> str:
    """Percent of the part that a netlist needs."""
    from bitwright.fpga.cell_counts import capacity

    return ", ".join(f"{100 * used[what] / capacity(board)[what]:.0f}" for what in ("lut", "ff", "dsp"))


def routed(size: Row) -> list[str]:
    """Closing size's clocks, GMAC/s, and what a run took."""
    runs = [run for _, run in sorted(size["routed"].items())]
    clocks = [run["fmax_mhz"] for run in runs if "fmax_mhz" in run]
    shown = ", ".join(f"{run['fmax_mhz']:.1f}" if "fmax_mhz" in run else outcome(run) for run in runs)
    gmacs = size["macs_per_cycle"] * min(clocks) / 1e3
    took = ", ".join(f"{run['seconds']:.0f}" for run in runs)
    return [shown, f"{gmacs:.2f}", f"{took}; {max(run['memory_mib'] for run in runs)}"]


def outcome(run: Row) -> str:
    """Why a run gave no clock, or that its clock was too low."""
    if run.get("capped"):
        return f"capped at {run['cap_s']:.0f} s"
    if "failed" in run:
        return re.sub(r"cell '[^']*', ", "a cell: ", str(run["failed"]))  # names of hundreds of letters
    return f"{run['fmax_mhz']:.1f} MHz"


def array_line(board: boards.Board, kind: str, found: Row) -> str:
    """One line of the table of arrays."""
    sizes, bound = found["sizes"], found["largest_by_synthesis"]
    columns = [board.name, f"`{kind}`", OPERANDS[kind]]
    if bound is None:
        columns += ["none", "", "", "none", "", "", "", ""]
    else:
        columns += [bound, f"{sizes[bound]['macs_per_cycle']:g}", share(sizes[bound]["synthesis"], board)]
        if "largest" not in found:
            columns += ["not run", "", "", "", ""]
        elif found["largest"] is None:
            columns += ["none", "", "", "", ""]
        else:
            columns += [
                found["largest"],
                f"{sizes[found['largest']]['macs_per_cycle']:g}",
                *routed(sizes[found["largest"]]),
            ]
    return f"| {' | '.join(columns)} |"


def refused(board: str, kind: str, found: Row) -> list[str]:
    """Sizes between the bound and the one that closes: why each did not."""
    lines = []
    for name, size in sorted(found["sizes"].items(), key=lambda item: [int(side) for side in item[0].split("x")]):
        first = size.get("routed", {}).get("1")
        if first is not None and not first.get("closes"):
            lines.append(f"- {board}, `{kind}` {name}: {outcome(first)}")
        if "capped_s" in size.get("synthesis", {}):
            lines.append(f"- {board}, `{kind}` {name}: synthesis capped at {size['synthesis']['capped_s']:.0f} s")
        if "out_of_memory_mib" in size.get("synthesis", {}):
            lines.append(f"- {board}, `{kind}` {name}: synthesis out of 4 GiB")
    return lines


def winners(arrays: Row) -> list[str]:
    """For each board the order of kinds by MACs a cycle."""
    lines = []
    for board, kinds in arrays.items():
        made = {kind: macs(found, "largest_by_synthesis") for kind, found in kinds.items()}
        order = sorted(made, key=lambda kind: -made[kind])
        lines.append(f"- {board}, MACs a cycle by synthesis: {', '.join(f'`{kind}` {made[kind]:g}' for kind in order)}")
        closed = {kind: macs(found, "largest") for kind, found in kinds.items() if found.get("largest")}
        if closed:
            order = sorted(closed, key=lambda kind: -closed[kind])
            lines.append(f"- {board}, closes: {', '.join(f'`{kind}` {closed[kind]:g}' for kind in order)}")
    return lines


def macs(found: Row, which: str) -> float:
    """MACs a cycle of the size that an entry names; 0 for none."""
    name = found.get(which)
    return float(found["sizes"][name]["macs_per_cycle"]) if name else 0.0


def pe_table(rows: Row, family: str, rates: dict[str, float]) -> list[str]:
    """LUT, FF, DSP and BRAM per MAC of a family."""
    lines = [
        f"\n### {FAMILIES[family]}\n",
        "| PE | MACs a cycle | LUT | FF | DSP | BRAM | without DSP: LUT | FF | BRAM |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in sorted(rows.items()):
        rate, columns = rates[name], [f"`{name}`", f"{rates[name]:.3g}"]
        for arithmetic, kinds in (("dsp", ("lut", "ff", "dsp", "bram")), ("lut", ("lut", "ff", "bram"))):
            found = row[family][arithmetic]
            if "lut" in found:
                columns += [f"{found[kind] / rate:.3g}" for kind in kinds]
            else:
                why = f"capped at {found['capped_s']:.0f} s" if "capped_s" in found else "out of 4 GiB"
                columns += [why, *[""] * (len(kinds) - 1)]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def picture(arrays: Row) -> str:
    """A panel a board: bars of MACs a cycle, light by synthesis, dark where routed and closed."""
    left, wide, bar, gap, top = 110, 270, 26, 60, 56
    height = top + bar * len(COLOURS) + 50
    width = len(arrays) * (left + wide + gap)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for place, (board, kinds) in enumerate(arrays.items()):
        x = place * (left + wide + gap) + left
        most = max((macs(found, "largest_by_synthesis") for found in kinds.values()), default=0) or 1
        out.append(f'<text x="{x}" y="20" font-weight="bold" font-size="14">{board}</text>')
        out.append(
            f'<text x="{x}" y="38" fill="#555555">MACs a cycle: light by synthesis, dark routed at the clock</text>'
        )
        for line, (kind, colour) in enumerate(COLOURS.items()):
            y = top + bar * line
            out.append(f'<text x="{x - 8}" y="{y + 15}" text-anchor="end">{kind}</text>')
            if kind not in kinds:
                out.append(f'<text x="{x + 4}" y="{y + 15}" fill="#888888">not run</text>')
                continue
            bound, closed = macs(kinds[kind], "largest_by_synthesis"), macs(kinds[kind], "largest")
            for value, opacity in ((bound, 0.35), (closed, 1)):
                out.append(
                    f'<rect x="{x}" y="{y}" width="{wide * value / most:.1f}" height="{bar - 6}" fill="{colour}" '
                    f'fill-opacity="{opacity}"/>'
                )
            said = f"{closed:g} of {bound:g}" if "largest" in kinds[kind] else f"{bound:g}"
            out.append(f'<text x="{x + wide * bound / most + 5:.1f}" y="{y + 15}">{said}</text>')
    out.append(
        f'<text x="{left}" y="{height - 14}" fill="#555555">W8A8: int8; W4A8: shift-add, lut; W4A16: bit-serial. '
        "The scale is each board's own.</text>"
    )
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    """Print the page; write the picture to the file that is given."""
    costs = resources.files("bitwright.arch.costs")
    table: Row = json.loads(costs.joinpath("fpga.json").read_text())
    streams = json.loads(costs.joinpath("streams_nangate45.json").read_text())["rows"]
    rates = {name: row["macs_per_cycle"] for name, row in streams.items()}
    from bitwright.fpga.sizing import BOARDS, KINDS

    stored = table["arrays"]
    arrays = {
        board: {kind: stored[board][kind] for kind in KINDS if "largest_by_synthesis" in stored[board].get(kind, {})}
        for board in BOARDS if board in stored
    }  # fmt: skip
    print(HEAD)
    for board, kinds in arrays.items():
        for kind, found in kinds.items():
            print(array_line(boards.get(board), kind, found))
    lines = [
        line for board, kinds in arrays.items() for kind, found in kinds.items() for line in refused(board, kind, found)
    ]
    if lines:
        print("\nTried and did not close:\n")
        print("\n".join(lines))
    print(WINNERS)
    print("\n".join(winners(arrays)))
    print(PES)
    missing = sorted(rates.keys() - table["pes"].keys())
    if missing:
        print(f"Not run: {', '.join(f'`{name}`' for name in missing)}.")
    for family in FAMILIES:
        print("\n".join(pe_table(table["pes"], family, rates)))
    Path(sys.argv[1]).write_text(picture(arrays))


if __name__ == "__main__":
    main()
