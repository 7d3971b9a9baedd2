"""`bitwright generate`, `verify` and `synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.cli.output import print_json, print_table, refuse_options


def generate(
    name: Annotated[str, typer.Argument(metavar="PE|MACHINE", help="A PE (lut:m=1,n=8) or a machine (int8-8x8).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The Verilog file to write.")],
    dataflow: Annotated[
        str | None, typer.Option(help="Write the PE's systolic cell, ws or os.", show_default="its stream form")
    ] = None,
    fusesoc: Annotated[
        bool, typer.Option("--fusesoc", help="Of a machine also a CAPI2 core file with targets lint and sim.")
    ] = False,
) -> None:
    """Verilog of a PE, or of a machine's whole accelerator (AXI4, AXI4-Lite), and its ports as JSON.

    Of a machine also the C header of its registers: accelerator.v comes with accelerator.json and accelerator.h.

    Examples:

      bitwright generate int8-mac:lanes=4,pipeline=1 -o int8_mac.v

      bitwright generate fp16-mac --dataflow os -o fp16_mac_os.v

      bitwright generate shift-add-8x8-os -o accelerator.v --fusesoc
    """
    from bitwright import rtl

    print(rtl.generate(name, output, dataflow=dataflow, fusesoc=fusesoc))


def verify(
    name: Annotated[
        str, typer.Argument(metavar="PE|MACHINE", help="A PE (int8-mac, lut:m=1,n=8), or all; or a machine.")
    ],
    simulator: Annotated[str, typer.Option(help="Of the cocotb benches: verilator or icarus.")] = "verilator",
    verilog: Annotated[
        Path | None, typer.Option("--rtl", metavar="FILE.v", help="One file of Verilog of yours with the same ports.")
    ] = None,
    latency: Annotated[int | None, typer.Option(help="Cycles of latency of --rtl.", show_default="as our PE's")] = None,
    seed: Annotated[int, typer.Option(help="Of the stimulus and the power-up state.")] = 1,
    waves: Annotated[Path | None, typer.Option(metavar="FILE.vcd", help="Write the waves of the stream bench.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON, at the end.")] = False,
) -> None:
    """Run a PE's benches: cocotb on its streams, millions of steps against the golden model, cells and arrays.

    Of a machine: its whole accelerator on Verilator, random products in each of its formats; every byte of the results
    against the functional interpreter, cycles and counters against both simulators.

    --rtl puts your Verilog in the PE's place: the module of the PE's name (see `bitwright generate`), or the file's
    only one, with the same ports. Values, their order, the handshake, the cycles of a step and the latency are checked;
    how many steps may wait inside while a sum is held back is yours. It is one file; what it includes (`include) is
    looked for beside it. Verilator elaborates its ports first, with --simulator icarus too.

    A failed test is exit code 1, its first difference on a line of its own, and last the command that runs it again;
    with --json the same on stdout. So is a bench that crashes ("the bench itself failed"): the PE has not passed.

    A PE with parameters or a file of yours takes roughly 10 to 60 seconds, a PE with cells and arrays a minute
    (fp16-mac, whose arrays compile slowly, about three), all of them a quarter of an hour or more. Only the first
    run of a design compiles it.

    Examples:

      bitwright verify shift-add

      bitwright verify int8-mac:lanes=4 --rtl mine.v --latency 3 --waves mine.vcd

      bitwright verify all --simulator icarus

      bitwright verify int8-4x4
    """
    from bitwright import rtl
    from bitwright.rtl.generation import is_machine

    done: list[dict[str, Any]] = []
    found = {
        "schema_version": 1, "pe": name, "simulator": simulator, "seed": seed, "rtl": verilog and str(verilog),
        "latency": latency, "waves": waves and str(waves), "designs": done, "failures": [],
    }  # fmt: skip
    if is_machine(name):
        refuse_options("a machine", {"--rtl": verilog, "--latency": latency, "--waves": waves})
        _verify_machine(name, simulator, seed, json, done)
        return
    verdicts = rtl.verify(name, simulator=simulator, rtl=verilog, latency_cycles=latency, seed=seed, waves=waves)
    try:
        for verdict in verdicts:
            done.append({"design": verdict.design, "kind": verdict.kind, "tests": verdict.tests})
            if not json:
                print(f"{verdict.design}: {len(verdict.tests)} tests passed ({', '.join(verdict.tests)})", flush=True)
    except MismatchError as error:
        if json:
            print_json({**found, "passed": False, **rtl.failures(error)})
        raise
    if json:
        print_json({**found, "passed": True})


def _verify_machine(name: str, simulator: str, seed: int, json: bool, done: list[dict[str, Any]]) -> None:
    """`verify` of a machine; its rows are added to `done`."""
    from bitwright.arch import machine
    from bitwright.cli.gemm import verify_machine

    if simulator != "verilator":
        raise ConfigError(f"simulator = {simulator}: a machine's accelerator runs on verilator (leave it out)")
    found = {"schema_version": 1, "machine": name, "simulator": simulator, "seed": seed, "designs": done}
    try:
        for row in verify_machine(machine.load(name), seed):
            done.append(row)
            if not json:
                print(f"{name}: {row['kind']}: {', '.join(row['tests'])}: equal", flush=True)
    except MismatchError as error:
        if json:
            print_json({**found, "passed": False, "failures": [str(error)]})
        raise
    if json:
        print_json({**found, "passed": True, "failures": []})


def synthesize(
    name: Annotated[str, typer.Argument(metavar="PE|MACHINE", help="A PE (bitwright list pes) or a machine.")],
    dataflow: Annotated[
        str | None,
        typer.Option(help="Which systolic cell, ws or os; or stream.", show_default="ws, or the PE's streams"),
    ] = None,
    node: Annotated[str | None, typer.Option(help="Cell library.", show_default="nangate45")] = None,
    liberty: Annotated[
        Path | None, typer.Option(metavar="FILE.lib", help="Liberty file of yours instead, also packed (.gz, .xz).")
    ] = None,
    clock_mhz: Annotated[float, typer.Option("--clock", "--clock-mhz", help="Target of the mapping, MHz.")] = 250,
    fmax: Annotated[bool, typer.Option("--fmax", help="Size again for more until nothing is gained (PEs).")] = False,
    clock_gating: Annotated[bool, typer.Option("--clock-gating", help="With the library's clock gates (PEs).")] = False,
    effort: Annotated[str, typer.Option(help="high, as the tables; or low, without generic gates optimised.")] = "high",
    operand_isolation: Annotated[
        bool, typer.Option("--operand-isolation", help="Operands held at 0 while the PE has none (PEs).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Area, clock and energy on real standard cells: of a PE, or area and clock of each block of a machine.

    A PE that systolic arrays are made of is taken as its cell, with energies of its logic and clock pins alone; with
    --dataflow stream, or with parameters, behind streams with handshake, as docs/stream-costs.md has all PEs, with
    leakage and the clock tree. --effort low leaves out the optimisation of generic gates; what that moves is in
    docs/stream-costs.md. Glitches and layout are in neither. A machine's accelerator takes minutes (4x4) to a quarter
    of an hour (bitmod).

    Examples:

      bitwright synthesize int8-mac --clock 500

      bitwright synthesize int8-mac --dataflow stream --fmax

      bitwright synthesize int8-4x4 --json

      bitwright synthesize shift-add --liberty sg13g2_stdcell_typ_1p20V_25C.lib --clock 100
    """
    from bitwright import rtl

    if node and liberty:
        raise ConfigError(f"--node = {node}, --liberty = {liberty}: choose one; the command line")
    figures = rtl.synthesize(
        name,
        dataflow=dataflow,
        node=liberty or node or "nangate45",
        clock_mhz=clock_mhz,
        fmax=fmax,
        clock_gating=clock_gating,
        operand_isolation=operand_isolation,
        effort=effort,
    )
    if json:
        print_json(figures)
        return
    blocks = figures.pop("blocks", [])
    if blocks:
        columns = ("block", "count", "area_um2", "each_um2")
        print_table(
            columns,
            [
                [row["block"], row["count"], *("" if row[key] is None else f"{row[key]:.0f}" for key in columns[2:])]
                for row in blocks
            ],
        )
    print_table(("figure", "value"), list(figures.items()))
