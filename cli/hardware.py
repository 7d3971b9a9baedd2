"""`bitwright generate`, `verify` and `synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from bitwright.cli.output import print_json, print_table


def generate(
    name: Annotated[str, typer.Argument(metavar="PE|MACHINE", help="A PE (lut:m=1,n=8) or a machine (int8-8x8).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The Verilog file to write.")],
    dataflow: Annotated[
        str | None, typer.Option(help="Write the PE's systolic cell, ws or os.", show_default="its stream form")
    ] = None,
) -> None:
    """Verilog of a PE, or of a machine's systolic array with its tile sequencer, and its ports as JSON.

    Examples:

      bitwright generate int8-mac:lanes=4,pipeline=1 -o int8_mac.v

      bitwright generate fp16-mac --dataflow os -o fp16_mac_os.v

      bitwright generate shift-add-8x8-os -o array.v
    """
    from bitwright import rtl

    print(rtl.generate(name, output, dataflow=dataflow))


def verify(
    name: Annotated[str, typer.Argument(metavar="PE", help="A PE (bitwright list pes), or all.")],
) -> None:
    """Run a PE's cocotb testbenches on Verilator: of its cells and an array, or of its streams.

    Examples:

      bitwright verify shift-add

      bitwright verify all
    """
    from bitwright import rtl

    for design, tests in rtl.verify(name):
        print(f"{design}: {len(tests)} tests passed ({', '.join(tests)})", flush=True)


def synthesize(
    name: Annotated[str, typer.Argument(metavar="PE", help="A PE (bitwright list pes).")],
    dataflow: Annotated[str, typer.Option(help="Which cell: ws or os.")] = "ws",
    node: Annotated[str, typer.Option(help="Cell library.")] = "nangate45",
    clock_mhz: Annotated[float, typer.Option(help="Target of the mapping.")] = 250,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Area and delay of a PE cell on real standard cells.

    Examples:

      bitwright synthesize int8-mac

      bitwright synthesize fp16-mac --dataflow os --json
    """
    from bitwright import rtl

    figures = rtl.synthesize(name, dataflow=dataflow, node=node, clock_mhz=clock_mhz)
    if json:
        print_json(figures)
    else:
        print_table(("figure", "value"), list(figures.items()))
