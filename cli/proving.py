"""`bitwright prove`."""

from __future__ import annotations

from typing import Annotated

import typer
from bitwright.cli.output import print_json


def prove(
    name: Annotated[str, typer.Argument(metavar="PE|MACHINE", help="A PE with parameters, or all; or a machine.")],
    solver: Annotated[str, typer.Option(help="yices or z3.")] = "yices",
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds a proof; later is a failure.")] = 120,
    write: Annotated[bool, typer.Option("--write", help="Put the results into docs/evidence.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Formal proofs of a PE's generated Verilog (handshake, order, clear, reset, accumulator range) or of a machine's
    control (queues, slots, verdicts, no deadlock).

    A property that is refuted or not proved in time has failed (exit code 1); a counterexample is left as a VCD file.
    One of which there is no proof for this PE is listed as "not proved", with the reason, and fails nothing.

    Examples:

      bitwright prove shift-add

      bitwright prove int8-mac:lanes=4,pipeline=1 --solver z3 --json
    """
    from bitwright import rtl

    rows, proved, failed = [], 0, 0
    for result in rtl.prove(name, solver=solver, timeout_s=timeout_s, write=write):
        proved += result.proved
        failed += result.failed
        rows.append({**vars(result), "seconds": round(result.seconds, 2)})
        if not json:
            trace = f"; counterexample: {result.trace}" if result.trace else ""
            how = f"{result.method}, depth {result.depth}" if result.depth else result.method
            told = f"{result.variant}: {result.property}: {result.result} ({how}, {result.seconds:.1f} s){trace}"
            missing = f"{result.variant}: not proved: {result.property} ({how})"
            print(told if result.proved or result.failed else missing, flush=True)
    if json:
        print_json({"schema_version": 1, "proved": proved == len(rows), "results": rows})
    else:
        print(f"{proved} of {len(rows)} properties proved")
    if failed:
        raise typer.Exit(1)
