"""Writes docs/reproductions.md: published simulators' figures beside ours, difference by difference.

python docs/reproductions.py > docs/reproductions.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitwright.reports.papers import bitmod_answer, mixpe_answer, published, scale_sim
from bitwright.reports.papers.bitmod import MODELS

GEMMS = (("128,4096,4096", 128), ("1,4096,4096", 128), ("2048,4096,11008", 128), ("512,512,512", 32))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def differences(row: dict[str, Any]) -> str:
    return table(
        ["", "cycles", "%", "energy, mJ", "%", "speed-up over fp16"],
        [
            [
                item["name"],
                item["cycles"],
                f"{item['cycles_percent']:+.2f}",
                f"{item['energy_uj'] / 1e3:,.1f}",
                f"{item['energy_percent']:+.2f}",
                f"{item['speedup_over_fp16']:.3f}",
            ]
            for item in row["differences"]
        ],
    )


def texts(row: dict[str, Any]) -> str:
    return "\n".join(f"- **{item['name']}**: {item['text']}." for item in row["differences"][1:-1])


def bitmod() -> str:
    found = bitmod_answer.overview()
    exact = sum(item["difference_cycles"] == 0 for item in found["rows"])
    worst = max(abs(item["energy_percent"]) for item in found["rows"])
    headline = table(
        ["ratio of means over six models", "claimed", "their model, here", "without the traps"],
        [
            [key, value, found["headline"][key], found["headline_corrected"][key]]
            for key, value in found["claimed"].items()
        ],
    )
    cycles = table(
        ["accelerator", "task", *MODELS],
        [
            [name, task, *known]
            for name, tasks in published("bitmod")["cycles"].items()
            for task, known in tasks.items()
        ],
    )
    cases = [
        ("bitmod-lossy", "prefill"),
        ("bitmod-lossy", "decode"),
        ("bitmod-lossless", "prefill"),
        ("fp16", "prefill"),
        ("fp16", "decode"),
    ]
    parts = []
    for name, task in cases:
        row = bitmod_answer.answer("llama-2-7b", name, task)
        parts.append(
            f"    bitwright reproduce bitmod --model llama-2-7b --accelerator {name} --task {task}\n\n{differences(row)}"
        )
        if row["simulated_cycles"] is not None:
            closed = row["simulated_beside_cycles"]
            parts.append(
                f"Our SimPy engine on this machine: {row['simulated_cycles']:,} cycles, the LM head for one token only; the closed form of the "
                f"same array, all else of the above taken away: {closed:,} "
                f"({100 * (row['simulated_cycles'] / closed - 1):+.1f} % from it to ours)."
            )
    return f"""\
## BitMoD

    bitwright reproduce bitmod

Their model computed here gives {exact} of the {len(found["rows"])} published cycle counts to the cycle, and energies within {worst:.4f} %. The counts:

{cycles}

"prefill" is 256 tokens, "decode" one token at context 256, "generative" 20 of those and the prompt; the means are arithmetic.

{headline}

One trap taken away at a time, and all of them (Llama-2-7B):

{texts(row)}

{chr(10).join(f"{part}{chr(10)}" for part in parts)}
Not taken away, as nothing published says by what: a bit-parallel PE of ANT or OliVe makes one product a cycle however few the bits; idle PEs and
leakage cost nothing; ANT's and OliVe's bits a weight are profiled by hand for six models (any other takes their median). FP16 and BitMoD have
a second answer, from our simulator on the same PEs; ANT and OliVe as the authors have them (16-bit activations) are PEs of no array of ours: "all of
them" is our answer there, a closed form."""


def mixpe() -> str:
    found = mixpe_answer.overview()
    rows = [
        [
            item["model"],
            item["accelerator"],
            item["compute_cycles"],
            item["cycles"],
            item["time_over_fp16"],
            f"{item['published_time_over_fp16']:.2f}",
            item["energy_over_fp16"],
            f"{item['published_energy_over_fp16']:.2f}",
        ]
        for item in found["rows"]
    ]
    columns = ["net", "design", "compute cycles", "cycles", "time", "published", "energy", "published (sum of four)"]
    headline = table(
        ["W4A8 against", "time, their model", "without the traps", "energy, their model", "without the traps"],
        [
            [
                name,
                *(
                    found[kind][f"w4a8_over_{name}_{what}"]
                    for what in ("time", "energy")
                    for kind in ("headline", "headline_corrected")
                ),
            ]
            for name in ("fp16", "int8", "bitfusion", "ant", "mixpe-w4a16")
        ],
    )
    parts = []
    for name in ("mixpe-w4a8", "int8", "ant"):
        row = mixpe_answer.answer("llama-2-13b", name)
        parts.append(f"    bitwright reproduce mixpe --model llama-2-13b --accelerator {name}\n\n{differences(row)}")
        if row["simulated_cycles"] is not None:
            parts.append(
                f"Our SimPy engine on this array and these buffers, the model's own matrices: {row['simulated_cycles']:,} cycles."
            )
    return f"""\
## MixPE

    bitwright reproduce mixpe

Time and each of the four parts of the energy agree with the result file in both digits it prints (the file's own means of energy use a wrong
stride and are left out). Relative to FP16:

{table(columns, rows)}

The abstract claims {found["claimed"]["over_state_of_the_art_time"]} and {found["claimed"]["over_state_of_the_art_energy"]} over the state of the art, without saying over what.

{headline}

One trap taken away at a time, and all of them (Llama-2-13B); energies keep their PEs:

{texts(row)}

{chr(10).join(f"{part}{chr(10)}" for part in parts)}"""


def scale_sim_part() -> str:
    rows = []
    for gemm, side in GEMMS:
        for dataflow in ("ws", "os", "is"):
            row = scale_sim.answer(gemm, side, side, dataflow)
            steps = [item["cycles"] for item in row["differences"]]
            rows.append([gemm.replace(",", " x "), f"{side} x {side}", dataflow, *steps, row["ideal_cycles"]])
    columns = [
        "M x K x N",
        "array",
        "dataflow",
        "SCALE-Sim",
        "+ last cycle",
        "our array, fold by fold",
        "folds overlap: ours",
        "ideal",
    ]
    return f"""\
## SCALE-Sim

    bitwright reproduce scale-sim --gemm 128,4096,4096 --rows 128 --cols 128 --dataflow ws

The stall-free count is one line; it agreed with all of 300 random products on scalesim 3.0.0. Ours is exact against the RTL of our array.

{table(columns, rows)}

- It reports the number of the last cycle, counted from 0: one less than the cycles.
- A fold of its weight-stationary array takes 2R + C + M - 2 cycles, of ours M + R + C: the first activation follows the first weight row at once.
- A fold of its output-stationary array takes K + R + C - 2 cycles, of ours K + 2m + C - 2 with m rows: results leave row by row.
- It never overlaps two folds; ours takes the next fold's operands while the results of the one before leave.
- Input-stationary is, for ours, weight-stationary on the transposed product."""


def main() -> None:
    print(f"""\
# Published simulators, reproduced

<!-- written by docs/reproductions.py; do not edit -->
Each paper's own model is written anew in `reports/papers` and checked against the figures its authors publish; then its simplifications are
taken away one by one. Everything here is computed but the columns that say published or claimed; those are in `reports/papers/published.json`
with their source. `--json` gives the same as data. `--model` takes any known shape (`bitwright list models`).

{bitmod()}

{mixpe()}

{scale_sim_part()}""")


if __name__ == "__main__":
    main()
