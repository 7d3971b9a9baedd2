"""The section of docs/stream-costs.md that sets our ratios beside the papers'; docs/stream_costs.py prints it.

Published figures are constants with their source; ours are computed from the table's rows.
"""

from __future__ import annotations

from typing import Any

from bitwright.arch import pe
from bitwright.arch.pe.block_dot import BlockDot
from bitwright.arch.pe.block_gates import gate_counts, gate_counts_of
from bitwright.rtl.asic import cells as pe_cells
from bitwright.rtl.asic.liberty import library_path, read_library

Row = dict[str, Any]
W4 = "int8-mac:weight_bits=4,lanes=4,pipeline=1,psum_bits=19"
PAPERS = """
## Beside the papers

Ratios at one clock ({clock:g} MHz) unless a row says fmax. "Ours" is what this flow gives, not fitted to the paper.

| what | ours | paper | our reading |
| --- | --- | --- | --- |"""

TABLE_2 = {
    "reinterpretation": (
        f"{17271.71 / 13116.60:.2f}, {23.39 / 17.98:.2f}",
        "an eighth of the paper's tile (1 x 16 x 4, same for all rows), tables from outside, then charged with a quarter of a "
        "table unit (64 columns share one). The table halves, but each lookup negates its address and its value",
    ),
    "no-negation": (
        f"{17271.71 / 12780.05:.2f}, {23.39 / 17.37:.2f}",
        "the address is complemented offline",
    ),
    "full": (
        f"{17271.71 / 11991.29:.2f}, {23.39 / 16.22:.2f}",
        "the paper's 1.44 in all; its circuits are not in its text and the stages here are our reading of their names. Our int8 "
        "tables are exact, in 10 bits, where the paper's may have 8, and our registers (the sums) are the same in every stage",
    ),
}
"""LUT Tensor Core (arXiv 2408.06003), Table 2: area and power of UNPU over each later row, and our reading of ours."""


def papers(made: dict[str, Any]) -> list[list[str]]:
    """What, ours, the paper's, our reading; `made` is the whole table."""
    rows, parts, gated, ablation = (made[section] for section in ("rows", "parts", "clock_gated", "ablation"))

    def area(name: str) -> float:
        return float((rows.get(name) or parts[name])["area_um2"])

    def fmax(name: str) -> float:
        return float((rows.get(name) or parts[name])["fmax_mhz"])

    def energy(name: str) -> float:
        return float(rows[name]["energy_pj_per_mac"])

    cell, encoder = area("bit-serial cell"), area("bit-serial column encoder")
    tile = 64 * cell + 8 * encoder + 8 * area("fp32 accumulator")
    olive = 1024 * area("outlier-victim")
    ratios = {name: cell / area(name) for name in ("fp16-mac", "fp16-mac:acc_format=fp16")}
    half, whole = area("half table of 8"), area("table of 16")
    tile_spec = pe.stream("lut")
    products = tile_spec.m * tile_spec.n * tile_spec.k
    lut, lut_fed = area("lut") / products, (area("lut") + tile_spec.m * half) / products
    stages = {name.rpartition("=")[2]: row for name, row in ablation.items()}
    first, share = stages["unpu"], pe_cells.stream_spec(next(iter(ablation))).n / tile_spec.n
    assert (share, tile_spec.n) == (1 / 4, 64), "the texts below say so"
    found = [
        [
            "BitMoD cell / `fp16-mac`, area of a PE; fp32 and fp16 sum",
            " and ".join(f"{ratio:.2f}" for ratio in ratios.values()),
            "0.76",
            "the cell (`BitSerialCell`: four lanes, group sum, serial scale) without encoder and column sum; the fp16 PE "
            "with its stream. The paper's widths of alignment and sum are not stated: ours keep three bits below a "
            "significand and sum in a float of 16 bits",
        ],
        [
            "the same per MAC a cycle at FP4 (two terms: 2 MACs a cycle)",
            " and ".join(f"{ratio / 2:.2f}" for ratio in ratios.values()),
            "0.38",
            "at equal throughput; 0.76 / 2 is ours",
        ],
        [
            "term encoders, of the tile of 8 x 8",
            f"{100 * 8 * encoder / tile:.1f} %",
            "2.5 %",
            "8 column encoders of 4 lanes beside 64 cells and 8 fp32 accumulators, "
            f"{encoder:.0f}, {cell:.0f} and {area('fp32 accumulator'):.0f} um2 each",
        ],
        [
            "OPT1 / single-cycle MAC, fmax",
            f"{fmax('opt1') / fmax('int8-mac'):.2f}",
            ">= 1.5",
            f"netlists sized for this clock; without its resolving adder {fmax('opt1:resolve_cycles=0') / fmax('int8-mac'):.2f}",
        ],
        [
            "OPT1 / our best pipelined MAC, fmax",
            f"{fmax('opt1') / fmax('int8-mac:pipeline=1'):.2f}",
            "",
            f"without resolving adder {fmax('opt1:resolve_cycles=0') / fmax('int8-mac:pipeline=1'):.2f}: most of OPT1's gain "
            "is what one pipeline register gives",
        ],
        [
            "OPT1 / `int8-mac`, area and energy a MAC",
            f"{area('opt1') / area('int8-mac'):.2f}, {energy('opt1') / energy('int8-mac'):.2f}",
            "",
            "the carry-save sum is two words of registers and pays for them each cycle at a clock that does not need it; "
            "both clock-gated, an energy of "
            f"{gated['opt1']['energy_pj_per_mac'] / gated['int8-mac']['energy_pj_per_mac']:.2f}",
        ],
        [
            "OliVe decoders, of a 64 x 64 array of 4-bit PEs (128 ovp4; 64 ovp8)",
            f"{100 * 128 * area('pair decoder, ovp4') / olive:.1f} %; {100 * 64 * area('pair decoder, ovp8') / olive:.1f} %",
            "2.2 %; 1.5 %",
            "the array as 1,024 of our streaming PEs of four 4-bit multipliers, each with handshake and 32-bit sum, more "
            "than the paper's bare PE, which makes the share smaller",
        ],
        [
            "`shift-add` / `int8-mac`, area with Booth",
            f"{area('shift-add') / area('int8-mac'):.2f}",
            "",
            "shift-add takes W4 and narrower, a narrower product and sum: its equal-width rival is the next row",
        ],
        [
            "`shift-add` / `int8-mac`, area without Booth",
            f"{area('shift-add without Booth') / area('int8-mac without Booth'):.2f}",
            "",
            "the flow alone moves the answer; int8-mac without Booth is "
            f"{area('int8-mac without Booth') / area('int8-mac'):.2f} of it with, at {fmax('int8-mac without Booth'):.0f} "
            f"instead of {fmax('int8-mac'):.0f} MHz",
        ],
        [
            "`shift-add` / `int8-mac` of 4-bit weights, four lanes, area and energy a MAC",
            f"{area('shift-add:lanes=4,pipeline=1') / area(W4):.2f}, {energy('shift-add:lanes=4,pipeline=1') / energy(W4):.2f}",
            "",
            "equal operand widths and throughput",
        ],
        [
            "LUT tile / `int8-mac` per MAC a cycle, area at W1, W2, W4",
            ", ".join(f"{bits * lut / area('int8-mac'):.2f}" for bits in (1, 2, 4))
            + "; with its table unit "
            + ", ".join(f"{bits * lut_fed / area('int8-mac'):.2f}" for bits in (1, 2, 4)),
            "",
            "the default tile of 512 bit-products a cycle, a table unit charged to its 64 columns; a MAC of b-bit weights "
            "takes b of them. Its area is that of a tile built for W4",
        ],
        *[
            [
                f"LUT Tensor Core's ablation, W2A8: UNPU / {name}, area and energy; area with table unit",
                f"{first['area_um2'] / row['area_um2']:.2f}, "
                f"{first['energy_pj_per_mac'] / row['energy_pj_per_mac']:.2f}; "
                f"{(first['area_um2'] + share * whole) / (row['area_um2'] + share * half):.2f}",
                published,
                reading,
            ]
            for name, (published, reading) in TABLE_2.items()
            for row in [stages[name]]
        ],
    ]
    return found + lut_against_mac(made) + block_dots(made)


def per_mac(row: Row) -> float:
    """um2 per MAC a cycle."""
    return float(row["area_um2"] / row["macs_per_cycle"])


def lut_against_mac(made: dict[str, Any]) -> list[list[str]]:
    """LUT tiles built for each width beside MACs, per MAC a cycle: area with the table unit's share, energy without."""
    rows, tiles, parts, lines = made["rows"], made["lut_tiles"], made["parts"], []
    macs = {"int8": ["int8-mac"], "fp16": ["fp16-mac", "fp16-mac:acc_format=fp16"]}
    tables = {"int8": "half table of 8", "fp16": "half table of 8, fp16"}
    by_activation = [
        [tiles[_tile(bits, activation)]["area_um2"] for bits in WEIGHT_BITS] for activation in ("fp16", "int8")
    ]
    over = [scaled / plain for scaled, plain in zip(*by_activation, strict=True)]
    bits_of_sum = pe.stream("lut", m=1, n=16, activation="fp16").psum.bits
    columns = pe.stream("lut").n  # of the paper's tile, which share a table; ours has 16 of them
    for activation, names in macs.items():
        for name in names:
            area, energy = [], []
            for bits in WEIGHT_BITS:
                tile = _tile(bits, activation)
                share = pe_cells.stream_spec(tile).n / columns
                fed = tiles[tile]["area_um2"] + share * parts[tables[activation]]["area_um2"]
                area.append(per_mac(rows[name]) * tiles[tile]["macs_per_cycle"] / fed)
                energy.append(rows[name]["energy_pj_per_mac"] / tiles[tile]["energy_pj_per_mac"])
            lines.append(
                [
                    f"`{name}` / LUT tile of {activation}, per MAC at W1, W2, W4: area; energy",
                    f"{', '.join(f'{ratio:.1f}' for ratio in area)}; {', '.join(f'{ratio:.1f}' for ratio in energy)}",
                    PUBLISHED_LUT[activation],
                    READ_LUT[activation].format(bits=bits_of_sum, over=over[0], over_w4=over[-1]),
                ]
            )
    return lines


WEIGHT_BITS = (1, 2, 4)


def _tile(bits: int, activation: str) -> str:
    return f"lut:m=1,n=16,weight_bits={bits},activation={activation}"


PUBLISHED_LUT = {
    "int8": "W1: 4 to 6 in area and power",
    "fp16": f"W1: 4 to 6 in area and power; DP4 at W1 {61.55 / 3.39:.1f} in density; wins up to W6",
}
"""LUT Tensor Core, section 5.2: tensor cores of equal throughput; densities of a 4-element dot product, Fig. 12."""
READ_LUT = {
    "int8": "a tile of 1 x 16 x 4 built for each width, with a quarter of a table unit (64 columns share one; its energy is left out); "
    "the MAC takes 8-bit weights whatever their width",
    "fp16": "as above. The tile sums exactly, in fixed point of {bits} bits, behind a shifter by the table's exponent, which makes it {over:.1f} "
    "times the int8 tile at W1 and {over_w4:.1f} at W4; what the paper's tiles and MACs sum in is not stated in what we read",
}

TABLE_5 = {"mxint8-dot": (0.79, 0.63), "nvfp4-dot": (0.54, 0.55), "nvint4-dot": (0.38, 0.34)}
"""INT v.s. FP (arXiv 2510.25602), Table 5: area and energy over MXFP8's at equal throughput."""


def block_dots(made: dict[str, Any]) -> list[list[str]]:
    """Block-scaled dot products over mxfp8-dot, per MAC a cycle; the paper's gate counts with this library's cells."""
    rows, lines = made["rows"], []
    base, (aligned,) = rows["mxfp8-dot"], made["aligned"].values()
    accumulator_um2 = made["parts"]["fp32 accumulator"]["area_um2"]
    low = made["low_effort"]
    weighed = {name: table_6_um2(name, accumulator_um2) for name in ("mxfp8-dot", *TABLE_5)}
    for name, (area, energy) in TABLE_5.items():
        row, title = rows[name], name.removesuffix("-dot").upper()
        random = row["energy_pj_per_mac_random"] / base["energy_pj_per_mac_random"]
        lines.append(
            [
                f"{title} / MXFP8, area and energy a MAC",
                f"{per_mac(row) / per_mac(base):.2f}, {row['energy_pj_per_mac'] / base['energy_pj_per_mac']:.2f}",
                f"{area:.2f}, {energy:.2f}",
                f"on random codes an energy of {random:.2f}; over MXFP8 with the paper's aligner of 24 bits instead of our exact sum "
                f"(in our hands {per_mac(aligned) / per_mac(base):.2f} times as large) "
                f"{per_mac(row) / per_mac(aligned):.2f}, {row['energy_pj_per_mac'] / aligned['energy_pj_per_mac']:.2f}. The paper's "
                "own counts (Table 6) with Nangate45's full adder, AND and multiplexer, and our fp32 accumulator a block, the scales' "
                f"adders or products counted as there: an area of {weighed[name] / weighed['mxfp8-dot']:.2f}. Both mapped with low effort (above): "
                f"{per_mac(low[name]) / per_mac(low['mxfp8-dot']):.2f}, "
                f"{low[name]['energy_pj_per_mac'] / low['mxfp8-dot']['energy_pj_per_mac']:.2f}. {READ_DOTS[name]}",
            ]
        )
    ratio = [f"{TABLE_5['nvint4-dot'][i] / TABLE_5['nvfp4-dot'][i]:.2f}" for i in (0, 1)]
    nvint, nvfp = rows["nvint4-dot"], rows["nvfp4-dot"]
    lines.append(
        [
            "NVINT4 / NVFP4, area and energy a MAC",
            f"{per_mac(nvint) / per_mac(nvfp):.2f}, {nvint['energy_pj_per_mac'] / nvfp['energy_pj_per_mac']:.2f}",
            ", ".join(ratio),
            f"Table 6 with Nangate45's cells: {weighed['nvint4-dot'] / weighed['nvfp4-dot']:.2f}. Both have the same scales' "
            f"product and fp32 accumulator, which by itself is {100 * accumulator_um2 / nvint['area_um2']:.0f} % of NVINT4's area in "
            "ours. Of the paper's mixed pairs (MXINT8 with NVINT4 over MXFP8 with NVFP4: 0.66, 0.75) we have no PE; none of the four meets the clock",
        ]
    )
    return lines


READ_DOTS = {
    "mxint8-dot": "So what the flow makes of 32 equal multipliers is as large as the distance in area. "
    "What is left of the distance in energy was not taken apart",
    "nvfp4-dot": "Accumulator and scales are shared by 16 lanes instead of 32: twice as much of them a MAC",
    "nvint4-dot": "As NVFP4; the paper's lanes shrink more than ours, whose accumulator does not",
}


def table_6_um2(name: str, accumulator_um2: float) -> float:
    """um2 a MAC of the paper's one-bit cells (`block_gates`), each as a cell of this library: an array cell as AND2_X1
    and FA_X1, adder, subtractor and comparator cells as FA_X1, multiplexers as MUX2_X1; and a block's accumulator and scales: two 8-bit additions for E8M0, for E4M3 two products
    counted as the table counts a minifloat's (the second one multiplies a sum, and is larger in hardware)."""
    library = read_library(library_path("nangate45"))
    adder, gate, choice = (library.cell(cell).area_um2 for cell in ("FA_X1", "AND2_X1", "MUX2_X1"))
    spec = pe.stream(name)
    assert isinstance(spec, BlockDot), f"{name} is no block dot product"
    cells = gate_counts_of(spec)
    adders = cells.adder + cells.exponent_adder + cells.exponent_subtractor + cells.exponent_comparator
    lanes = cells.multiplier * (adder + gate) + adders * adder + (cells.aligner + cells.normaliser) * choice
    if spec.scale_format == "e8m0":
        scales = 2 * 8 * adder
    else:
        product = gate_counts(exponent_bits=4, mantissa_bits=3, lanes=1)
        scales = 2 * (product.multiplier * (adder + gate) + product.exponent_adder * adder)
    return (lanes + scales + accumulator_um2) / spec.lanes
