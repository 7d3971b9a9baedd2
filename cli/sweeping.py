"""`bitwright sweep` and `bitwright report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from bitwright.cli.output import print_json, print_table, progress
from typer.core import TyperGroup


class _RunByDefault(TyperGroup):
    """`sweep SPACE.yaml` is `sweep run SPACE.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help",):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Run every point of a design space that its store lacks.

    Examples:

      bitwright sweep examples/first-sweep.yaml --store results/first-sweep

      bitwright sweep export results/first-sweep -o first-sweep.csv
    """,
)

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a result store.")]


@app.command("run")
def run(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="The design space.")],
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder for the results; a sweep goes on where it stopped.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the space and list its points only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Run the points of SPACE.yaml that STORE lacks (`bitwright sweep SPACE.yaml --store DIR`)."""
    from bitwright.arch import space as spaces
    from bitwright.sim import sweeping as sweeps
    from bitwright.sim.store import Store
    from bitwright.workloads import models

    loaded = spaces.load(space)
    if dry_run:
        _print_points(sweeps.plan(loaded), json)
        return
    if store is None:
        raise typer.BadParameter("name a folder for the results", param_hint="--store")
    keys = [item.key for item in sweeps.plan(loaded)]
    if models.weights_sha256(loaded.model) is None:
        print(f"no weights of {loaded.model} are here: perplexity is not measured", file=sys.stderr)
    results = Store(store)
    with progress() as show:
        sweeps.sweep(loaded, results, workers=workers, progress=show)
    state = sweeps.status(results, keys)
    if json:
        print_json({"schema_version": 1, "points": state.points, "done": state.done, "failed": state.failed})
    else:
        hint = f"; report: bitwright report {store} -o report.html" if state.done else ""
        print(f"{state.done} of {state.points} points in {store}{hint}")
    if state.failed:
        for line in sweeps.failures(results):
            print(f"failed: {line}", file=sys.stderr)
        raise typer.Exit(1)


def _print_points(planned: list[Any], as_json: bool) -> None:
    columns = ("machine", "formats", "buffers KiB", "dram", "MHz")
    rows = []
    for item in planned:
        machine, policy = item.point.machine, item.point.policy
        group = f" g{policy['group']}" if policy.get("group") else ""
        text = f"{policy.get('weights', 'fp16')}{group} / {policy.get('acts', 'fp16')} / {policy.get('kv', 'fp16')}"
        rows.append((machine.name, text, machine.buffers.act_kib, machine.dram, machine.clock_mhz))
    if as_json:
        print_json([{"key": item.key, **item.point.model_dump(mode="json")} for item in planned])
    else:
        print_table(columns, rows)


@app.command("status")
def status(store: StoreArgument, json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """How many points of the store's last space are done, failed and missing.

    Examples: `bitwright sweep status results/first-sweep`, `bitwright sweep status results/first-sweep --json`
    """
    from bitwright.sim import sweeping as sweeps
    from bitwright.sim.store import Store

    results = Store(store, create=False)
    state = sweeps.status(results)
    if json:
        counts = {"points": state.points, "done": state.done, "failed": state.failed, "missing": state.missing}
        print_json({"schema_version": 1, **counts})
        return
    print(f"{state.points} points: {state.done} done, {state.failed} failed, {state.missing} missing")
    for line in sweeps.failures(results):
        print(f"failed: {line}")


@app.command("retry")
def retry(store: StoreArgument) -> None:
    """Forget failed points, so that the next sweep runs them again.

    Examples: `bitwright sweep retry results/first-sweep`
    """
    from bitwright.sim import sweeping as sweeps
    from bitwright.sim.store import Store

    print(f"{sweeps.retry(Store(store, create=False))} failed points forgotten; run the sweep again")


@app.command("export")
def export(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.csv or FILE.parquet")],
) -> None:
    """All rows of the store's last space as one table.

    Examples: `bitwright sweep export results/first-sweep -o rows.csv`, `... -o rows.parquet`
    """
    from bitwright.sim import sweeping as sweeps
    from bitwright.sim.store import Store

    results = Store(store, create=False)
    count = sweeps.export(results, output)
    print(f"{count} rows in {output}")


def report(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """One self-contained HTML page of a store's results: Pareto fronts, cycles, energy, roofline, every design.

    Examples:

      bitwright report results/first-sweep -o report.html

      bitwright report results/mine -o mine.html
    """
    from bitwright import reports
    from bitwright.sim import sweeping as sweeps
    from bitwright.sim.store import Store

    results = Store(store, create=False)
    state = sweeps.status(results)
    title = f"bitwright: {results.plan()['space']['name']}"
    if state.done < state.points:
        title += f" ({state.done} of {state.points} designs; {state.missing} missing, {state.failed} failed)"
        print(
            f"only {state.done} of {state.points} designs are done; see bitwright sweep status {store}", file=sys.stderr
        )
    print(reports.report(sweeps.stored_rows(results), output, title=title))
