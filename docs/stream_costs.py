"""Writes docs/stream-costs.md from arch/costs/streams_nangate45.json."""

from __future__ import annotations

import json
from importlib import resources

HEAD = """# What PEs behind streams cost

<!-- written by docs/stream_costs.py; do not edit -->
Every PE of [the library](pe-library.md) with its streams and handshake, on nangate45, sized for {clock:g} MHz, one script and effort for all;
`make costs` writes the table and goes on where it was stopped. Zero-delay activity (no glitches), pre-layout, no clock tree. `fmax` is of the
netlist sized for {clock:g} MHz: `bitwright synthesize PE --fmax` searches for more. Real operands are SmolLM2's, in the PE's own format; random
ones are uniform legal codes. A MAC's energy holds its share of the clock; leakage is apart.

A row without energy (`bit-serial`) has streams of its own, which the measurement does not drive yet; PEs without a row have not been
mapped yet. Random steps of `lut` and `int8-int4-mac` also choose their modes at random (fewer bit planes, both weight widths), so that a MAC
of theirs is not the real run's. `bit-serial` holds what a tile shares: its term encoders, group scaling and column accumulator.

The systolic cells and edge units, from which machines are priced, are on [another page](pes.md).

| PE | MACs a cycle | area, um2 | um2 per MAC a cycle | of it registers | fmax, MHz | pJ a MAC, real | pJ a MAC, random | pJ a stalled cycle | pJ an idle cycle | leakage, uW |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    """Print the page."""
    table = json.loads(resources.files("bitwright.arch.costs").joinpath("streams_nangate45.json").read_text())
    rows = sorted(table["rows"].items())
    print(HEAD.format(clock=rows[0][1]["clock_mhz"]))
    for name, row in rows:
        macs, missed = row.get("macs_per_cycle"), "" if row["meets_clock"] else " (not met)"
        figures = [
            f"{macs:.3g}" if macs else "",
            f"{row['area_um2']:.0f}",
            f"{row['area_um2'] / macs:.0f}" if macs else "",
            f"{100 * row['sequential_um2'] / row['area_um2']:.0f} %",
            f"{row['fmax_mhz']:.0f}{missed}",
            *(
                "" if row[key] is None else f"{row[key]:.3f}"
                for key in ("energy_pj_per_mac", "energy_pj_per_mac_random", "stalled_energy_pj", "idle_energy_pj")
            ),
            f"{row['leakage_uw']:.1f}",
        ]
        print(f"| `{name}` | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
