"""`bitwright fpga`: a machine on a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from bitwright.arch.errors import ConfigError
from bitwright.cli.output import print_json, print_table, progress

app = typer.Typer(no_args_is_help=True, help="A machine on an FPGA board.", rich_markup_mode=None)


@app.command()
def run(
    machine: Annotated[str, typer.Argument(help="The machine that is on the board (bitwright list machines).")],
    port: Annotated[str, typer.Option(help="/dev/ttyUSB0, COM3; simulated: no board, its top in Verilator.")],
    gemm: Annotated[str, typer.Option(metavar="M,K,N", help="Tokens, reduction, outputs of a product.")],
    weights: Annotated[str | None, typer.Option(help="Weight format.", show_default="the machine's first")] = None,
    group: Annotated[int | None, typer.Option(help="Weights that share a scale.", show_default="a row", min=1)] = None,
    baud: Annotated[int, typer.Option(help="Of the board's serial line.")] = 3_000_000,
    seed: Annotated[int, typer.Option(help="Of the random operands.", min=0)] = 0,
    array: Annotated[
        bool, typer.Option("--array", help="On the board is the array alone (fpga build --array).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Run a matrix product on a board, tile after tile, and compare every output with the golden model.

    A wrong output is exit code 1; a board that is absent, does not answer, was reset or holds another machine is 3.
    Lost or changed bytes on the line are sent again, and counted (`sent_again`).

    compute_ms and link_ms are computed: the cycles that the board counted at its clock, and the bytes that went over
    the line at its baud rate. The host's and the operating system's own time is in neither.

    --array: the product's tiles, of random codes over their whole range, on an array alone; every sum of every tile is
    compared. Its line has no CRC: a lost byte is exit code 3, a changed one a wrong sum, exit code 1.

    Examples:

      bitwright fpga run int8-8x8 --port /dev/ttyUSB0 --gemm 1,576,576 --weights int4_asym --group 32

      bitwright fpga run int8-4x4 --port simulated --gemm 2,64,24 --json

      bitwright fpga run int8-2x2 --array --port simulated --gemm 8,16,4
    """
    from bitwright import fpga
    from bitwright.arch import machine as machines
    from bitwright.cli.gemm import sizes_of

    loaded = machines.load(machine)
    m, k, n = sizes_of(gemm)
    if array and (weights is not None or group is not None):
        given = f"--weights = {weights}" if weights is not None else f"--group = {group}"
        raise ConfigError(f"{given}: not with --array, whose operands are random codes (leave it out)")
    form = {} if array else {"fmt": weights, "group": group}
    with progress() as show:
        row = fpga.run(loaded, port, m, k, n, array=array, baud=baud, seed=seed, progress=show, **form)
    print_json(row) if json else print_table(("figure", "value"), list(row.items()))


_BOARD = Annotated[str, typer.Option(help="bitwright list boards")]
_MACHINE = Annotated[str, typer.Option(help="A machine's name or file.")]
_FOLDER = Annotated[Path, typer.Option("-o", "--output", help="Where builds are kept.")]
_ARRAY = Annotated[bool, typer.Option("--array", help="The array alone, for boards too small for an accelerator.")]


@app.command()
def build(
    board: _BOARD,
    machine: _MACHINE,
    output: _FOLDER = Path("build/fpga"),
    array: _ARRAY = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Make a bitstream with open tools: Yosys, nextpnr, the family's packer. Kept by what it was made from.

    It fails (exit code 2) where the machine does not fit or does not reach the board's clock. An accelerator on an
    ECP5 takes from ten minutes to an hour, an array on a Tang Nano 20 seconds.

    For AMD boards (arty-a7-100t, zcu104) it writes Verilog, pins and scripts for Vivado, which were not run in it, and
    estimates the resources with Yosys.

    Examples:

      bitwright fpga build --board ulx3s-85f --machine examples/int8-12x8-board.yaml

      bitwright fpga build --board tang-nano-9k --machine int8-2x2 --array --json
    """
    row = _made(board, machine, output, array)
    if json:
        print_json(row)
    else:
        _print(row)


@app.command()
def report(
    board: _BOARD,
    machine: _MACHINE,
    output: _FOLDER = Path("build/fpga"),
    array: _ARRAY = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Used and available cells, what each block takes, clock, slack and peak GOPS; arrays that fit the board.

    Builds it first where it was not. Blocks are synthesised one by one, which takes as long again as the build's
    synthesis the first time; their sum is not the build's cells, where synthesis works across blocks. Arrays that fit
    are those of docs/fpga-sizing.md whose multiplications go where builds put them; none of a board not searched.

    Examples:

      bitwright fpga report --board tang-nano-9k --machine int8-2x2 --array

      bitwright fpga report --board icebreaker --machine shift-add-2x2 --array --json
    """
    row = _made(board, machine, output, array, report=True)
    if json:
        print_json(row)
        return
    _print(row)
    kinds = [kind for kind in row["blocks"][0] if kind != "block"]
    print("\nBlock by block, before anything works across them:")
    print_table(("block", *kinds), [(part["block"], *(f"{part[kind]:g}" for kind in kinds)) for part in row["blocks"]])
    if row["fits"]:
        print("\nArrays alone (--array) found to fit this board, multiplications where builds put them:")
        print_table(("array", "machine", "shown"), [tuple(item.values()) for item in row["fits"]])


@app.command()
def program(
    board: _BOARD, bitstream: Annotated[Path, typer.Argument(help="What `bitwright fpga build` made.")]
) -> None:
    """Load a bitstream into the board's SRAM with openFPGALoader. Not tried on a board.

    Examples:

      bitwright fpga program --board ulx3s-85f build/fpga/NAME/board.bit

      bitwright fpga program --board tang-nano-9k build/fpga/NAME/board.fs
    """
    from bitwright import fpga

    fpga.program(bitstream, board)


def _made(board: str, machine: str, output: Path, array: bool, *, report: bool = False) -> dict[str, Any]:
    from bitwright import fpga
    from bitwright.arch import machine as machines

    _check_folder(output)
    with progress() as show:
        made = fpga.report if report else fpga.build
        return made(machines.load(machine), board, output, array=array, progress=show)


def _check_folder(output: Path) -> None:
    """ConfigError where builds cannot be kept, before any work."""
    from bitwright.arch.errors import ConfigError

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output = {output}: no folder can be made there ({error.strerror}); name another; the command line"
        ) from error


def _print(row: dict[str, Any]) -> None:
    clock = ("clock_mhz", "fmax_mhz", "slack_ns", "peak_gops_at_fmax", "peak_gops_weights")
    keys = (
        *clock,
        "build_s",
        "peak_memory_mib",
        "bitstream_bytes",
        "netlist_simulated",
        "utilisation_of",
        "bitstream",
        "script",
        "next",
    )
    print_table(("figure", "value"), [(key, row[key]) for key in keys if row.get(key) is not None])
    cells = sorted(row["utilisation"].items())
    print()
    print_table(("cells", "used", "available"), [(kind, n["used"], n["available"]) for kind, n in cells])
