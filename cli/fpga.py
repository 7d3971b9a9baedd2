"""`bitwright fpga`: a machine on a board."""

from __future__ import annotations

from typing import Annotated

import typer
from bitwright.cli.output import print_json, print_table, progress

app = typer.Typer(no_args_is_help=True, help="A machine on an FPGA board.", rich_markup_mode=None)


@app.command()
def run(
    machine: Annotated[str, typer.Argument(help="The machine that is on the board (bitwright list machines).")],
    port: Annotated[str, typer.Option(help="/dev/ttyUSB0, COM3; simulated: no board, its top in Verilator.")],
    gemm: Annotated[str, typer.Option(metavar="M,K,N", help="Tokens, reduction, outputs of a product.")],
    weights: Annotated[str | None, typer.Option(help="Weight format.", show_default="the machine's first")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale.", show_default="a row")] = None,
    baud: Annotated[int, typer.Option(help="Of the board's serial line.")] = 3_000_000,
    seed: Annotated[int, typer.Option(help="Of the random operands.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Run a matrix product on a board, tile after tile, and compare every output with the golden model.

    A wrong output is exit code 1; a board that is absent, does not answer, was reset or holds another machine is 3.
    Lost or changed bytes on the line are sent again, and counted (`sent_again`).

    compute_ms and link_ms are computed: the cycles that the board counted at its clock, and the bytes that went over
    the line at its baud rate. The host's and the operating system's own time is in neither.

    Examples:

      bitwright fpga run int8-8x8 --port /dev/ttyUSB0 --gemm 1,576,576 --weights int4_asym --group 32

      bitwright fpga run int8-4x4 --port simulated --gemm 2,64,24 --json
    """
    from bitwright import fpga
    from bitwright.arch import machine as machines
    from bitwright.cli.gemm import sizes_of

    loaded = machines.load(machine)
    m, k, n = sizes_of(gemm)
    with progress() as show:
        row = fpga.run(loaded, port, m, k, n, fmt=weights, group=group, baud=baud, seed=seed, progress=show)
    print_json(row) if json else print_table(("figure", "value"), list(row.items()))
