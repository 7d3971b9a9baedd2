"""`bitwright trace`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from bitwright.cli.output import print_json, print_table, progress


def trace(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="smollm2-135m, a .gguf file or Hugging Face folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace's folder; goes on with one begun there.")],
    weights: Annotated[str, typer.Option(help="Weight format.")] = "int8",
    group: Annotated[int | None, typer.Option(help="Weights that share a scale; default: a whole row.")] = None,
    acts: Annotated[str, typer.Option(help="Activation format, one scale a token; fp32: not quantised.")] = "int8",
    kv: Annotated[str, typer.Option(help="Format of keys and values.")] = "fp16",
    head: Annotated[str | None, typer.Option(help="Format of the LM head; default: as weights.")] = None,
    tokens: Annotated[int, typer.Option(help="Length of the prompt.")] = 128,
    samples: Annotated[int, typer.Option(help="Positions whose activations are kept.")] = 16,
    text: Annotated[str, typer.Option(help="'jargon', or a UTF-8 file; the prompt is its beginning.")] = "jargon",
    seed: Annotated[int, typer.Option(help="Chooses the positions.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the row as JSON.")] = False,
) -> None:
    """Record codes and activations of MODEL on a prompt: a folder that `bitwright simulate --trace` reads.

    Examples:

      bitwright trace smollm2-135m -o trace

      bitwright trace smollm2-135m --weights int4 --group 64 --tokens 64 -o trace-int4
    """
    from bitwright.cli.simulating import ONE_BLAS_THREAD

    os.environ.update(ONE_BLAS_THREAD)
    from bitwright.workloads.policy import FormatPolicy
    from bitwright.workloads.tracing import record

    policy = FormatPolicy(pe="float32", weights=weights, group=group, acts=acts, kv=kv, head=head)
    with progress() as show:
        made = record(
            model, output, policy, tokens=tokens, samples=samples, text=text, seed=seed,
            progress=lambda done, total: show("layers", done, total),
        )  # fmt: skip
    row = {
        "schema_version": made.header.schema_version,
        "trace": str(output),
        "model": made.header.model,
        "weights_sha256": made.header.weights_sha256,
        "text_sha256": made.header.text_sha256,
        "tokens": len(made.header.token_ids),
        "samples": len(made.header.sampled_positions),
        "operators": made.header.operators,
        "weights": policy.weights,
        "group": policy.group,
        "command": made.header.command,
    }
    if json:
        print_json(row)
    else:
        print_table(("figure", "value"), list(row.items()))


def simulate_trace(machine: str, model: str, folder: Path, json: bool, **sizes: int) -> None:
    """`bitwright simulate MACHINE MODEL --trace DIR`."""
    from bitwright.arch import trace as traces
    from bitwright.sim import traced

    array, found = traced.array(machine), traces.load(folder)
    with progress() as show:
        row = traced.simulate_trace(
            array, model, found, progress=lambda done, total: show("matrices", done, total), **sizes
        )
    if json:
        print_json(row)
        return
    head = [name for name in row if name not in ("layers", "notes", "schema_version")]
    print_table(("figure", "value"), [(name, row[name]) for name in head])
    print()
    shown = ("name", "count", "n", "k", "mean_cycles_per_weight", "gaussian_mean_cycles_per_weight",
             "max_cycles_per_weight", "array_cycles", "gaussian_error")  # fmt: skip
    print_table(shown, [tuple(layer[name] for name in shown) for layer in row["layers"]])
    print("\nnotes:")
    for note in row["notes"]:
        print(f"  - {note}")
