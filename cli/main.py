"""`bitwright`: the command line. Results on stdout, talk and progress on stderr.

Exit codes: 0 done; 1 a check ran and failed; 2 wrong usage, config or input file; 3 an external tool is missing;
130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import Annotated

import typer
from bitwright.arch.errors import BitwrightError
from bitwright.cli import catalogue, fpga, hardware, proving, quantizing, reproducing, simulating, sweeping, tracing

# New objects before the collector looks for cycles among them. A program is hundreds of thousands of small objects that
# stay and form none: at Python's 700 a sixteenth to a quarter of a run of `simulate` goes into looking.
_COLLECT_EVERY = 50_000
_KEEPING = ("sweep", "trace")
"""Commands that go on where they stopped."""

app = typer.Typer(
    name="bitwright",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("doctor")(catalogue.doctor)
app.command("list")(catalogue.list_)
app.command("quantize")(quantizing.quantize)
app.command("trace")(tracing.trace)
app.command("simulate")(simulating.simulate)
app.add_typer(sweeping.app, name="sweep")
app.command("report")(sweeping.report)
app.command("generate")(hardware.generate)
app.command("verify")(hardware.verify)
app.command("prove")(proving.prove)
app.command("synthesize")(hardware.synthesize)
app.add_typer(fpga.app, name="fpga")
app.command("reproduce")(reproducing.reproduce)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(metadata.version("bitwright"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Co-design low-bit number formats and the accelerators that run quantised LLMs on them."""


def run() -> None:
    """Entry point: turns the exception tree into one message and an exit code."""
    gc.set_threshold(_COLLECT_EVERY)
    try:
        app()
    except BitwrightError as error:
        print(f"bitwright: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == 130:  # how typer answers Ctrl-C
            kept = "; what was finished is kept" if sys.argv[1:2] and sys.argv[1] in _KEEPING else ""
            print(f"bitwright: interrupted{kept}", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(
            f"bitwright: the output cannot be written ({error.strerror}); make room and run it again", file=sys.stderr
        )
        sys.exit(2)
