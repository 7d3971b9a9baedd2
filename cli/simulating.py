"""`bitwright simulate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from bitwright.cli.output import check_outputs, print_json, print_table, progress, refuse_options
from bitwright.cli.workload import is_products, products_row, workload_row

if TYPE_CHECKING:
    from bitwright.arch.space import Accuracy

ONE_BLAS_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_OWN = "the machine's"


# Options that each way to simulate takes; the machine's buffers, weights and the form of the answer are everyone's.
_EVERY = frozenset({"machine", "model", "gemm", "buffers_kib", "weights", "group", "json"})
_PROGRAMS = _EVERY | {"engine", "memory_latency", "memory_beat_cycles"}
_WORKLOAD = frozenset({"prompt_tokens", "output_tokens", "batch"})
_OF_A_TRACE = frozenset({"machine", "model", "trace", "json"})
_NOT_OF_THE_TILE_ENGINE = frozenset({"memory_latency", "memory_beat_cycles", "onnx_sizes"})
_FORMATS = frozenset({"acts", "kv", "head", "dram", "dram_timing", "clock_mhz", "vector_lanes", "node"})


def _on_the_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_unused(context: typer.Context, engine: str | None, gemm: str | None, trace: Path | None) -> None:
    """ConfigError for an option on the command line that this way to simulate would drop."""
    model = context.params["model"]
    if trace is not None:
        way, used = "--trace", _OF_A_TRACE | _WORKLOAD
    elif is_products(model):
        graph = model.lower().endswith(".onnx")
        way = "an ONNX MODEL" if graph else "a CSV MODEL"
        used = _EVERY | _FORMATS - {"kv", "head"} | ({"onnx_sizes"} if graph else set())
    elif context.params["workload"] is not None:
        way, used = "--workload", _EVERY | _FORMATS | {"workload"}
    elif gemm is not None:
        way, used = "--gemm", _PROGRAMS
    elif engine is not None:
        way, used = "--engine", _PROGRAMS | _WORKLOAD
    else:
        way, used = "MODEL without --engine", frozenset(context.params) - _NOT_OF_THE_TILE_ENGINE - {"trace"}
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in context.params.items()
        if name not in used and _on_the_command_line(context, name)
    }
    refuse_options(way, given)


def simulate(
    context: typer.Context,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="Name, pattern (int8-16x16-os) or YAML file.")],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A name (bitwright list models), a Hugging Face folder or config.json, a .gguf file, "
            "or matrix products: an .onnx graph or a .csv of m,k,n[,name,count].",
        ),
    ] = None,
    gemm: Annotated[
        str | None, typer.Option(metavar="M,K,N", help="In MODEL's place: one product, on the whole accelerator.")
    ] = None,
    workload: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="What runs, in --prompt-tokens' place: chunked prefill, speculative verification, requests that come "
            "and go, forms of latent attention, experts' routing, sparsity (docs/workloads.md).",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Programs on the accelerator: simpy, fast or rtl (the compiled Verilog); --gemm: simpy."),
    ] = None,
    memory_latency: Annotated[
        int | None, typer.Option(help="Of --engine: cycles from an address to its first beat.", show_default=_OWN)
    ] = None,
    memory_beat_cycles: Annotated[
        int | None, typer.Option(help="Of --engine: cycles a beat of the memory.", show_default=_OWN)
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Prefill length.")] = 128,
    output_tokens: Annotated[int, typer.Option(help="Decode steps, the first at context prompt-tokens.")] = 32,
    batch: Annotated[int, typer.Option(help="Sequences run together.")] = 1,
    weights: Annotated[str | None, typer.Option(help="Weight format; default: the PE's own.")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale; default: a whole row.")] = None,
    acts: Annotated[str | None, typer.Option(help="Activation format.")] = None,
    kv: Annotated[str | None, typer.Option(help="KV cache format.")] = None,
    head: Annotated[str | None, typer.Option(help="Format of the LM head; default: as weights.")] = None,
    buffers_kib: Annotated[str | None, typer.Option(help="act,wgt,out capacity in KiB, such as 32,32,32.")] = None,
    dram: Annotated[str | None, typer.Option(help="DRAM preset.")] = None,
    dram_timing: Annotated[
        str | None, typer.Option(help="bandwidth (peak), or banks: rows, refresh, turnaround.", show_default=_OWN)
    ] = None,
    clock_mhz: Annotated[float | None, typer.Option(help="Clock.")] = None,
    vector_lanes: Annotated[int | None, typer.Option(help="Lanes of the vector unit.")] = None,
    node: Annotated[str | None, typer.Option(help="Cost table.")] = None,
    perplexity_tokens: Annotated[int, typer.Option(help="Measure perplexity on this many tokens; 0: do not.")] = 0,
    perplexity_window: Annotated[int, typer.Option(help="Tokens a window.")] = 512,
    onnx_sizes: Annotated[
        str | None, typer.Option(metavar="NAME=SIZE,...", help="Of an ONNX MODEL: its symbolic dimensions.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(help="Also write what each unit does when, for Perfetto (.json); not with --engine.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of opt3-RxC, opt4c-RxC: cycles from a trace's codes (bitwright trace)."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a page: where the cycles go, operator by operator; not with --engine."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result row as JSON.")] = False,
) -> None:
    """Prefill and decode of MODEL on MACHINE: cycles and where they go, energy, area.

    --gemm M,K,N: one product of random operands as a program of the accelerator, with --weights and --group. The
    cycles and counters are those of its Verilog, whatever --engine counts them; rtl also compares every result.

    MODEL --engine E: its linear layers, each distinct product a program of the accelerator, with counters as of --gemm;
    attention with the KV cache and element-wise work are left to the host. Without --engine the tile engine estimates
    the whole model, energy and area included.

    --trace DIR: the array's cycles for MODEL's weight matrices and head on PEs whose cycles depend on the codes, from
    the real codes, beside the guess from Gaussian weights. A model without weights takes the trace's statistics.

    Examples:

      bitwright simulate int8-16x16 smollm2-135m --prompt-tokens 128 --output-tokens 32

      bitwright simulate int8-4x4 --gemm 16,64,64 --weights int4 --group 32 --engine rtl

      bitwright simulate shift-add-16x16-os llama-2-7b --weights int4 --group 64 --acts int8 --kv int4 --json

      bitwright simulate int8-16x16 smollm2-135m --output-tokens 1 --timeline run.json

      bitwright simulate opt3-32x32 smollm2-135m --trace trace

      bitwright simulate int8-16x16 smollm2-135m --workload examples/workloads/requests.yaml

      bitwright simulate int8-16x16 examples/workloads/gemms.csv --weights int4 --group 64
    """
    os.environ.update(ONE_BLAS_THREAD)  # before numpy loads: results do not depend on the machine's threads
    from bitwright.arch import machine as machines
    from bitwright.arch.errors import ConfigError
    from bitwright.cli.gemm import gemm_row, model_row
    from bitwright.sim import inference as simulator
    from bitwright.sim.layers import layer_rows
    from bitwright.sim.row import result_row

    if (gemm is None) == (model is None):
        raise ConfigError("MODEL, --gemm: exactly one of them must be given; the command line")
    _refuse_unused(context, engine, gemm, trace)
    check_outputs(timeline=timeline, html=html)
    if trace is not None:
        from bitwright.cli.tracing import simulate_trace

        sizes = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, "batch": batch}
        simulate_trace(machine, str(model), trace, json, **sizes)
        return
    loaded = machines.with_changes(
        machines.load(machine),
        buffers_kib=buffers_kib,
        dram=dram,
        dram_timing=dram_timing,
        clock_mhz=clock_mhz,
        vector_lanes=vector_lanes,
        node=node,
        memory_latency=memory_latency,
        memory_beat_cycles=memory_beat_cycles,
    )
    if model is None:
        row = gemm_row(loaded, str(gemm), engine=engine or "simpy", weights=weights, group=group)
        print_json(row) if json else print_table(("figure", "value"), list(row.items()))
        return
    if engine is not None:
        sizes = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, "batch": batch}
        row = model_row(loaded, model, engine=engine, weights=weights, group=group, **sizes)
        print_json(row) if json else _print_layers(row)
        return
    policy = simulator.policy_for(loaded.pe, weights=weights, group=group, acts=acts, kv=kv, head=head)
    if is_products(model):
        row = products_row(loaded, model, policy, onnx_sizes)
        print_json(row) if json else _print_products(row)
        return
    if workload is not None:
        row = workload_row(loaded, model, policy, workload)
        print_json(row) if json else _print_row(row)
        return
    accuracy = _accuracy(model, perplexity_tokens, perplexity_window) if perplexity_tokens else None
    with progress(after_s=1) as show:
        result = simulator.simulate(
            loaded, model, policy=policy, prompt_tokens=prompt_tokens, output_tokens=output_tokens, batch=batch,
            progress=show,
        )  # fmt: skip
    row = result_row(result, accuracy, machine) | {"layers": layer_rows(result)}
    if timeline is not None or html is not None:
        from bitwright.reports.run import write_run
        from bitwright.reports.timeline import write_timeline
        from bitwright.sim.timeline import timeline as operators_of

        sizes = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, "batch": batch}
        operators = operators_of(loaded, result.shape, policy, **sizes)
        if timeline is not None:
            write_timeline(operators, loaded.clock_mhz, timeline)
        if html is not None:
            write_run(row, operators, html)
    if accuracy is not None:
        from bitwright.sim.accuracy import measure_accuracy

        measured = measure_accuracy(model, policy, accuracy)
        row |= measured | {"notes": [*row["notes"], *measured["notes"]]}
    if json:
        print_json(row)
    else:
        _print_row(row)


def _accuracy(model: str, tokens: int, window: int) -> Accuracy:
    """What --perplexity-tokens and --perplexity-window ask for. ConfigError for what cannot be measured on `model`."""
    from bitwright.arch import config
    from bitwright.arch.errors import ConfigError
    from bitwright.arch.space import Accuracy
    from bitwright.workloads import models
    from bitwright.workloads.perplexity import check_size

    try:
        accuracy = config.validate(Accuracy, {"tokens": tokens, "window": window}, "the command line")
    except ConfigError as error:
        raise ConfigError("\n".join(f"perplexity_{line}" for line in str(error).splitlines())) from None
    if models.weights_sha256(model) is not None:
        check_size(model, accuracy.tokens, accuracy.window)
    return accuracy


def _print_layers(row: dict[str, Any]) -> None:
    head = [name for name in row if name not in ("layers", "notes", "schema_version")]
    print_table(("figure", "value"), [(name, row[name]) for name in head])
    shown = ("phase", "layer", "count", "m", "k", "n", "cycles", "instructions", "beats_read", "beats_written")
    print()
    print_table(shown, [tuple(layer[name] for name in shown) for layer in row["layers"]])
    _print_notes(row)


def _print_products(row: dict[str, Any]) -> None:
    _print_figures(row)
    shown = [name for name in row["layers"][0] if name != "energy_uj"]
    print()
    print_table(shown, [tuple(layer[name] for name in shown) for layer in row["layers"]])
    _print_notes(row)


def _short(value: object) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value


def _print_row(row: dict[str, Any]) -> None:
    _print_figures(row)
    if "layers" in row:
        columns = ("phase", "layer", "count", "cycles", "critical", "macs_per_byte", "roof", "of_roof")
        print()
        print_table(columns, [tuple(_short(layer[name]) for name in columns) for layer in row["layers"]])
    shown = [name for name in row["gpus"][0] if name != "source"]
    print("\nGPUs, the least that their peaks and bandwidth allow (bounds, not measurements):")
    print_table(shown, [[gpu[name] for name in shown] for gpu in row["gpus"]])
    _print_notes(row)


def _print_figures(row: dict[str, Any]) -> None:
    hidden = ("notes", "gpus", "layers", "versions", "hashes", "command", "schema_version")
    print_table(("figure", "value"), [(name, value) for name, value in row.items() if name not in hidden])


def _print_notes(row: dict[str, Any]) -> None:
    print("\nnotes:")
    for note in row["notes"]:
        print(f"  - {note}")
