"""Writes docs/real-data.md and docs/real-data.svg: energy on real over that on random operands, and their distributions.

python docs/real_data.py docs/real-data.svg > docs/real-data.md

Energies are read from arch/costs/streams_nangate45.json and nangate45.json; the distributions are counted on the
stimuli, made again, whose hashes the rows carry. A row of another stimulus stops the script.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from bitwright.arch import pe
from bitwright.rtl.asic import cells, stream_costs
from bitwright.rtl.asic.characterise import stimuli_sha256
from bitwright.rtl.asic.entries import CONSTANT_ONE, cell_entry
from bitwright.rtl.asic.operand_bits import ENTROPY_LIMIT_BITS, OperandBits, cell_operands, stream_operands
from bitwright.rtl.asic.stimulus import ACTIVE
from bitwright.rtl.asic.stream_stimulus import stream_work

Operands = dict[str, OperandBits]
SAME_WORK = 0.01
"""MACs a cycle of the real and the random run may differ by this much to count as the same work."""
FAR = 0.1
"""Energy and toggle ratios further apart than this are listed."""
OUTLIERS = ("int2", "int2_asym")
"""Formats that lie far from all others: most of their real codes are one value. Correlations with and without them."""
FEWEST = 4
"""Fewer rows are not correlated."""
LABELLED = ("lut", "int8-int4-mac", "outlier-victim", "flint", "opt3", "fp16-mac", "int8-mac", "shift-add")
"""Points with a name in the picture."""

HEAD = """# Real data against random data

<!-- written by docs/real_data.py; do not edit -->
How much less (or more) a multiply-accumulate costs on SmolLM2's operands than on uniform random codes, and what the operands look like, on
nangate45: PEs [behind streams](stream-costs.md) in their own format, then [array cells](pes.md), output-stationary, in every weight
format that they take. Each distribution is counted on the very stimulus that the energy was measured on, over its active cycles:

- **toggles**: share of an operand's bits that differ from the cycle before (Hamming distance over width), real / random;
- **zeros**: share of codes that are all zero bits (minus zero is another code);
- **digits**: share of places where a code's bit differs from the one below, the non-zero digits of a radix-2 Booth recoding; of two's complement alone;
- **entropy**: bits of information a code, where codes are narrow enough to count (up to {limit} bits).

"Toggles a MAC" is the ratio real / random of the toggles of both operands together, per multiply-accumulate as the energy is. Energy is all of it,
with the clock and leakage, which do not depend on data; "moving" is the part that does (switching and internal energy of logic and data pins).
All formats of one array cell see the same activations: its rows are not independent points, and a correlation over them is one over its weights.

![Energy ratio against toggle ratio and against the share of products that are not zero](real-data.svg)
"""

READING = """\
Operand toggles alone do not explain the ratios across PEs. A real integer operand toggles as often as a random one, since a small number that
changes its sign flips every bit above it, and yet it costs less: what it lacks are digits, or it is zero. Our reading of the rows that are far off
(what the columns show, not proved by taking PEs apart):

- Integer PEs and `shift-add`: toggles within a few per cent of random, energy below; products that are zero and missing digits leave partial products at rest.
- `flint` and `nvint4-dot`: products that are not zero are {flint} of random's, energy {less}: what follows the products (shifts, the
  sum, its scale) moves on.
- `fp16-mac`: fewer toggles, yet with an fp32 sum {fp32} of the energy. The exponents of both operands together have a standard deviation of {real} on real
  data and {random} on random: random products are mostly shifted far away from the sum, real ones meet it, and alignment, addition and rounding work
  on more of their bits. That would hold of every form of this PE; yet the pipelined one (`pipeline=2`) has {pipelined}, and with an fp16 sum it is {fp16}.
  Why was not found: exponents are at most a part of it. None of the three measures sees them.
- `lut`, `int8-int4-mac`, `outlier-victim`, `opt3`, `opt4c`: a MAC is not the same work in both runs (modes drawn at random; steps that take as long as
  their data say), so that the clock and leakage of a MAC differ too. They are left out of the second line of the table.
- `int2` and `int2_asym` weights of an array cell: most real codes are one value, and two formats of a cell's twenty pull every correlation with them; hence
  the lines without one and both. Signs change between these lines: correlations of toggles over array cells say nothing that would hold for a new format.
"""


@dataclass(frozen=True)
class Point:
    """A PE on one format: ratios real over random, and both runs' operands.

    energy, moving   Of a MAC; moving is None where the table has no terms.
    macs             MACs a cycle: 1 where both runs do the same work.
    """

    name: str
    format: str
    energy: float
    moving: float | None
    macs: float
    real: Operands
    random: Operands

    @property
    def toggles(self) -> float:
        """Of both operands, per MAC."""
        real, random = (sum(one.toggles_per_cycle for one in each.values()) for each in (self.real, self.random))
        return real / random / self.macs

    @property
    def products(self) -> float:
        """Share of products that are not zero, from both operands' zeros as if they were independent."""
        real, random = (
            float(np.prod([1 - one.zero_share for one in each.values()])) for each in (self.real, self.random)
        )
        return real / random

    @property
    def digits(self) -> float:
        """Pairs of digits that are not zero, as if operands were independent: a multiplier's partial products. nan
        unless both operands are two's complement."""
        shares = [[one.digit_share for one in each.values()] for each in (self.real, self.random)]
        if any(share is None for each in shares for share in each):
            return math.nan
        real, random = (float(np.prod(each)) for each in shares)  # type: ignore[arg-type]
        return real / random


MEASURES: dict[str, Callable[[Point], float]] = {
    "toggles a MAC": lambda point: point.toggles,
    "products that are not zero": lambda point: point.products,
    "pairs of digits that are not zero": lambda point: point.digits,
}


def _table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("bitwright.arch.costs").joinpath(name).read_text())
    return found


def stream_points() -> list[Point]:
    """Every PE behind streams. Raises SystemExit when a row's stimulus is not today's."""
    found, rows = [], _table("streams_nangate45.json")["rows"]
    for name in sorted(stream_costs.PES):
        spec, row = cells.stream_spec(name), rows[name]
        works = cells.stream_works(spec)  # type: ignore[arg-type]
        if cells.stimuli_sha256(works) != row["stimuli_sha256"]:
            raise SystemExit(f"{name}: its row is of another stimulus; run: python -m bitwright.rtl.asic.stream_costs")
        operands = [stream_operands(spec, work.stimulus) for work in works]  # type: ignore[arg-type]
        moving = [
            sum(row[f"terms_pj_per_mac{suffix}"][term] for term in ("switching", "internal"))
            for suffix in ("", "_random")
        ]
        energy = row["energy_pj_per_mac"] / row["energy_pj_per_mac_random"]
        macs = row["macs_per_cycle"] / row["macs_per_cycle_random"]
        found.append(Point(name, "", energy, moving[0] / moving[1], macs, *operands))
    return found


def cell_points() -> list[Point]:
    """Output-stationary array cells by weight format. Raises SystemExit as `stream_points`."""
    found, entries = [], _table("nangate45.json")["entries"]
    for name in pe.names():
        spec, energies = pe.get(name), entries[f"pe/{name}/os"]["energies"]
        entry = cell_entry(spec, "os", [each for each in energies if each != CONSTANT_ONE])
        for format_name in sorted({*energies} - {CONSTANT_ONE}):
            row, runs = energies[format_name], entry.stimuli(format_name)
            if stimuli_sha256(runs) != row["stimuli_sha256"]:
                raise SystemExit(f"{name}, {format_name}: its row is of another stimulus; run: make costs")
            operands = [cell_operands(spec, runs[kind]) for kind in ("real", "random")]
            found.append(Point(name, format_name, row["energy_pj"] / row["random_energy_pj"], None, 1.0, *operands))
    return found


def both(point: Point, get: Callable[[OperandBits], float | None], form: str) -> list[str]:
    """`real / random` of each operand."""
    columns = []
    for name in point.real:
        values = [get(each[name]) for each in (point.real, point.random)]
        columns.append("" if None in values else " / ".join(f"{value:{form}}" for value in values))
    return columns


def table(points: Sequence[Point], *, formats: bool) -> str:
    """Ratios and distributions, a row a PE and format."""
    columns = ["PE", *(["weights"] if formats else []), "energy, real / random", *([] if formats else ["moving"])]
    columns += [
        "toggles a MAC",
        "toggles, act",
        "wgt",
        "zeros, act",
        "wgt",
        "digits, act",
        "wgt",
        "entropy, act",
        "wgt",
    ]
    lines = [columns, ["---"] * len(columns)]
    for point in points:
        line = [f"`{point.name}`", *([f"`{point.format}`"] if formats else []), f"{point.energy:.2f}"]
        line += [] if point.moving is None else [f"{point.moving:.2f}"]
        line += [f"{point.toggles:.2f}", *both(point, lambda one: one.toggle_rate, ".2f")]
        line += [*both(point, lambda one: one.zero_share, ".2f"), *both(point, lambda one: one.digit_share, ".2f")]
        lines.append([*line, *both(point, lambda one: one.entropy_bits, ".1f")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation; nan where one of them does not vary."""
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) > 0 and np.ptp(second) > 0 else float("nan")


def ranks(values: Sequence[float]) -> list[float]:
    """From 0, equal values sharing the mean of their places."""
    array = np.asarray(values)
    return [float((array < value).sum() + ((array == value).sum() - 1) / 2) for value in values]


def correlations(groups: dict[str, list[Point]]) -> str:
    """Pearson and Spearman of the energy ratio with each measure, in each group of points."""
    columns = ["rows", "number", *(f"with {name}: Pearson, Spearman" for name in MEASURES)]
    lines = [columns, ["---"] * len(columns)]
    for title, points in groups.items():
        line = [title, str(len(points))]
        for measure in MEASURES.values():
            known = [(point.energy, measure(point)) for point in points if not math.isnan(measure(point))]
            if len(known) < FEWEST:
                line.append("")
                continue
            energy, values = zip(*known, strict=True)
            fewer = f" (of {len(known)})" if len(known) < len(points) else ""
            line.append(f"{pearson(energy, values):+.2f}, {pearson(ranks(energy), ranks(values)):+.2f}{fewer}")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def groups_of(streams: list[Point], arrays: list[Point]) -> dict[str, list[Point]]:
    """What to correlate over."""
    same = [point for point in streams if abs(point.macs - 1) <= SAME_WORK]
    groups = {"PEs behind streams, all": streams, f"of them, same MACs a cycle to {100 * SAME_WORK:g} %": same}
    parts = {"array cells": arrays}
    parts |= {f"`{name}` cell": [one for one in arrays if one.name == name] for name in pe.names()}
    for title, points in parts.items():
        groups[f"{title}, all formats"] = points
        for left_out in (OUTLIERS[:1], OUTLIERS):
            rest = [one for one in points if one.format not in left_out]
            if any(one.format == left_out[-1] for one in points):
                groups[f"{title}, without {' and '.join(f'`{each}`' for each in left_out)}"] = rest
    return groups


def unexplained(streams: Sequence[Point], arrays: Sequence[Point]) -> str:
    """Rows whose energy and toggle ratios lie further apart than FAR: PEs behind streams one by one, the furthest first,
    array cells together."""

    def far(points: Sequence[Point]) -> list[Point]:
        found = [one for one in points if abs(one.energy - one.toggles) > FAR]
        return sorted(found, key=lambda one: -abs(one.energy - one.toggles))

    lines = [f"`{one.name}` {one.energy:.2f} where toggles have {one.toggles:.2f}" for one in far(streams)]
    for name in pe.names():
        all_of_them = [one for one in arrays if one.name == name]
        found = far(all_of_them)
        if found:
            energies, toggles = [one.energy for one in found], [one.toggles for one in found]
            lines.append(
                f"{len(found)} of the {len(all_of_them)} formats of the `{name}` cell, {min(energies):.2f} to {max(energies):.2f} "
                f"where toggles have {min(toggles):.2f} to {max(toggles):.2f}"
            )
    return f"{len(far([*streams, *arrays]))} of {len(streams) + len(arrays)} rows: {'; '.join(lines) or 'none'}."


def exponent_spread(random: bool) -> float:
    """Standard deviation of the sum of both exponents of `fp16-mac`, over the active cycles of its stimulus."""
    stimulus = stream_work(pe.stream("fp16-mac"), random=random).stimulus
    bits = stimulus.ports["step__payload"][np.array(stimulus.bins) == ACTIVE].astype(np.int64)
    weights = 1 << np.arange(5)
    return float((bits[..., 10:15] @ weights + bits[..., 26:31] @ weights).std())


def reading(streams: Sequence[Point]) -> str:
    """Our reading, with its figures."""
    by_name = {one.name: one for one in streams}
    flint, nvint4 = by_name["flint"], by_name["nvint4-dot"]
    return READING.format(
        flint=f"{flint.products:.2f} and {nvint4.products:.2f}",
        less=f"{flint.energy:.2f} and {nvint4.energy:.2f}",
        real=f"{exponent_spread(False):.1f}",
        random=f"{exponent_spread(True):.1f}",
        fp32=f"{by_name['fp16-mac'].energy:.2f}",
        pipelined=f"{by_name['fp16-mac:pipeline=2'].energy:.2f}",
        fp16=f"{by_name['fp16-mac:acc_format=fp16'].energy:.2f}",
    )


X_RANGE, Y_RANGE = (0.25, 1.15), (0.6, 1.6)
"""Of the picture's axes; a point outside would be lost, so `picture` refuses one."""
SIDE = 380


def picture(streams: list[Point], arrays: list[Point]) -> str:
    """Two scatter plots as SVG: energy ratio against toggle ratio, and against the share of products not zero."""
    kinds = [(streams, "#aa3377", "PEs behind streams"), (arrays, "#88aadd", "array cells, by weight format")]
    left, top, gap = 60, 46, 90
    width, height = left + 2 * SIDE + gap + 30, top + SIDE + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for k, (_, colour, title) in enumerate(kinds):
        out.append(f'<circle cx="{left + 8 + 200 * k}" cy="18" r="5" fill="{colour}"/>')
        out.append(f'<text x="{left + 18 + 200 * k}" y="22">{title}</text>')
    out.append(f'<text x="{left + 418}" y="22">dashed: energy moves as the operands do</text>')
    for p, measure in enumerate(list(MEASURES)[:2]):
        out += _panel(measure, kinds, left + p * (SIDE + gap), top)
    middle = top + SIDE / 2
    out.append(
        f'<text x="18" y="{middle}" transform="rotate(-90 18 {middle})" text-anchor="middle" font-weight="bold">'
        "energy of a MAC, real / random</text>"
    )
    return "\n".join([*out, "</svg>", ""])


def _panel(measure: str, kinds: Sequence[tuple[list[Point], str, str]], x: int, top: int) -> list[str]:
    """One plot whose left upper corner is at (x, top)."""
    y = top + SIDE

    def along(value: float) -> float:
        return x + SIDE * (value - X_RANGE[0]) / (X_RANGE[1] - X_RANGE[0])

    def up(value: float) -> float:
        return y - SIDE * (value - Y_RANGE[0]) / (Y_RANGE[1] - Y_RANGE[0])

    out = []
    for tick in np.arange(0.3, 1.6, 0.1):
        if X_RANGE[0] < tick < X_RANGE[1]:
            out.append(f'<line x1="{along(tick):.1f}" x2="{along(tick):.1f}" y1="{top}" y2="{y}" stroke="#e4e4e4"/>')
            out.append(f'<text x="{along(tick):.1f}" y="{y + 16}" text-anchor="middle">{tick:.1f}</text>')
        if Y_RANGE[0] < tick < Y_RANGE[1]:
            out.append(f'<line x1="{x}" x2="{x + SIDE}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="#e4e4e4"/>')
            out.append(f'<text x="{x - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    out.append(f'<rect x="{x}" y="{top}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#888888"/>')
    ends = max(X_RANGE[0], Y_RANGE[0]), min(X_RANGE[1], Y_RANGE[1])
    line = " ".join(f'x{i}="{along(end):.1f}" y{i}="{up(end):.1f}"' for i, end in enumerate(ends, 1))
    out.append(f'<line {line} stroke="#999999" stroke-dasharray="4 4"/>')
    out.append(
        f'<text x="{x + SIDE / 2}" y="{y + 36}" text-anchor="middle" font-weight="bold">{measure}, real / random</text>'
    )
    taken: list[tuple[float, float, float]] = []
    for points, colour, _ in reversed(kinds):
        for point in points:
            value = MEASURES[measure](point)
            assert X_RANGE[0] < value < X_RANGE[1], f"{point.name}: off the axis"
            assert Y_RANGE[0] < point.energy < Y_RANGE[1], f"{point.name}: off the axis"
            name = f"{point.name} {point.format}".strip()
            at = f'cx="{along(value):.1f}" cy="{up(point.energy):.1f}"'
            out.append(f'<circle {at} r="4" fill="{colour}" opacity="0.8"><title>{name}</title></circle>')
            if point.name in LABELLED and point.format in ("", OUTLIERS[0]):
                out.append(_label(name, along(value), up(point.energy), x, taken))
    return out


def _label(text: str, x: float, y: float, left: float, taken: list[tuple[float, float, float]]) -> str:
    """Text beside a point, at the first place that no label in `taken` (x from, x to, y) has; adds its own."""
    wide = 5.5 * len(text)
    places = [(start, y + 4 + down) for down in (0, 11, -11, 22, -22) for start in (x + 8, x - 8 - wide)]
    for start, base in places:
        free = all(start > end or start + wide < begin or abs(base - row) > 10 for begin, end, row in taken)
        if free and left < start < left + SIDE - wide:
            break
    taken.append((start, start + wide, base))
    return f'<text x="{start:.1f}" y="{base:.1f}" font-size="10">{text}</text>'


def main() -> None:
    """Print the page; write the picture to the file that is given."""
    streams, arrays = stream_points(), cell_points()
    print(HEAD.format(limit=ENTROPY_LIMIT_BITS))
    print("## What explains the ratio\n")
    print(correlations(groups_of(streams, arrays)))
    print(f"\nToggles and energy more than {FAR:g} apart, {unexplained(streams, arrays)}\n")
    print(reading(streams))
    print("## PEs behind streams\n")
    print(table(streams, formats=False))
    print("\n## Array cells, by weight format\n")
    print(table(arrays, formats=True))
    Path(sys.argv[1]).write_text(picture(streams, arrays))


if __name__ == "__main__":
    main()
