"""`bitwright reproduce`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from bitwright.cli.output import print_json, print_table, refuse_options

_DIFFERENCES = ("name", "cycles", "cycles_percent", "energy_uj", "energy_percent", "speedup_over_fp16", "change_cycles")


def reproduce(
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="A name (bitwright list papers).")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Of bitmod, mixpe and lut-tensor-core: a name (bitwright list models). Default: all they publish."
        ),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(
            help="With --model. bitmod: fp16, ant, olive, bitmod-lossless, bitmod-lossy; "
            "mixpe: fp16, int8, bitfusion, ant, mixpe-w4a8, mixpe-w4a16."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="With --model: prefill or decode.")] = None,
    gemm: Annotated[str | None, typer.Option(metavar="M,K,N", help="Of scale-sim: the product.")] = None,
    rows: Annotated[int | None, typer.Option(help="Of scale-sim: rows of the array.")] = None,
    cols: Annotated[int | None, typer.Option(help="Of scale-sim: columns.")] = None,
    dataflow: Annotated[str | None, typer.Option(help="Of scale-sim: ws, os or is (input-stationary).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """A published simulator's figures, the same from its model computed here, and ours, difference by difference.

    With --model any known shape works, published or not: `differences` takes the authors' simplifications away, each
    alone and then all. Without it, of bitmod and mixpe: every figure the paper publishes beside ours.

    JSON: `cycles` (the authors' count), and of bitmod and mixpe `compute_cycles`, `dram_cycles`, `energy_uj`;
    `published_*` where the paper has this case, `ours`, `differences`, `notes`. Of lut-tensor-core, accllm and
    flightllm: `rows`, each a published figure, its bound and the error.

    Examples:

      bitwright reproduce bitmod --model llama-2-7b --accelerator bitmod-lossy --task decode

      bitwright reproduce scale-sim --gemm 128,4096,4096 --rows 128 --cols 128 --dataflow ws --json
    """
    from bitwright.reports import papers

    papers.check(paper)
    arrays = {"--gemm": gemm, "--rows": rows, "--cols": cols, "--dataflow": dataflow}
    cases = {"--model": model, "--accelerator": accelerator, "--task": task}
    if paper in _BOUNDS:
        row = _bounds(paper, cases, arrays)
    else:
        row = _scale_sim(arrays, cases) if paper == "scale-sim" else _simulator(paper, cases, arrays)
    if json:
        print_json(row)
    else:
        _print(row)


_BOUNDS = ("lut-tensor-core", "accllm", "flightllm")


def _bounds(paper: str, cases: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """Papers of which a published figure stands beside a bandwidth or roofline bound."""
    from bitwright.reports.papers import fpga_decode, lut_tensor_core

    if paper == "lut-tensor-core":
        model = cases["--model"]
        refuse_options(paper, {name: value for name, value in cases.items() if name != "--model"} | arrays)
        return lut_tensor_core.answer(model)
    refuse_options(paper, cases | arrays)
    return fpga_decode.answer(paper)


def _scale_sim(arrays: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    from bitwright.arch.errors import ConfigError
    from bitwright.reports.papers import scale_sim

    refuse_options("scale-sim", others)
    for name, value in arrays.items():
        if value is None:
            raise ConfigError(
                f"{name}: missing; scale-sim takes --gemm M,K,N --rows R --cols C --dataflow ws|os|is; the command line"
            )
    return scale_sim.answer(arrays["--gemm"], arrays["--rows"], arrays["--cols"], arrays["--dataflow"])


def _simulator(paper: str, cases: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    from importlib import import_module

    from bitwright.arch.errors import ConfigError

    refuse_options(paper, others)
    answers = import_module(f"bitwright.reports.papers.{paper}_answer")
    if all(value is None for value in cases.values()):
        overview: dict[str, Any] = answers.overview()
        return overview
    for name, value in cases.items():
        # MixPE's layers are the same in both tasks.
        if value is None and (paper, name) != ("mixpe", "--task"):
            raise ConfigError(
                f"{name}: missing; {paper} takes --model NAME --accelerator NAME --task prefill|decode, or none of "
                "them for all that is published; the command line"
            )
    row: dict[str, Any] = answers.answer(*cases.values())
    return row


def _print(row: dict[str, Any]) -> None:
    """Flat figures, then each table, then the notes."""
    flat = {name: value for name, value in row.items() if not isinstance(value, dict | list)}
    flat.pop("schema_version")
    for name, part in row.items():
        if isinstance(part, dict):
            flat |= {f"{name}.{key}": value for key, value in part.items()}
    print_table(("figure", "value"), [(name, value) for name, value in flat.items() if value is not None])
    for name in ("rows", "differences"):
        table = row.get(name)
        if isinstance(table, list):
            columns = [key for key in table[0] if key in _DIFFERENCES or name == "rows"]
            print(f"\n{name}:")
            print_table(columns, [[item[key] for key in columns] for item in table])
    texts = [f"{item['name']}: {item['text']}" for item in row.get("differences", [])] + row.get("notes", [])
    if texts:
        print("\nnotes:")
        for text in texts:
            print(f"  - {text}")
