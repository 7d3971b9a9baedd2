"""bitwright beside scalesim 3.0.0, zigzag-dse 3.9.1, genz-llm 0.0.16 and MAESTRO, on the same products and machine.

    python tests/bench/bench_peers.py --folder build/peers --maestro PROGRAM [--short] [--cap-s 600] > table.md

The three on PyPI get an environment each under --folder, from the exact versions of tests/bench/peers/*.txt (2 GB,
once); MAESTRO is a program that you build from a checkout of maestro-project/maestro (commit 4eb08d1 when last run).
One process a run, one thread, one after the other: processor seconds are with its start and imports. A run ends at
--cap-s processor seconds or --memory-gib of address space and is then told as capped, with an estimate from the rate of
a smaller one. A peer that is missing or fails has rows that say so and why. With --kept a comparison that was stopped
goes on where it was.

Prints a table in Markdown on stdout, progress on stderr. Exit code 1 where two must agree and do not: SCALE-Sim's
cycles without stalls and its closed form here; our SimPy engine and our fast one. What each peer models, and why
the others' cycles differ: docs/peers.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bitwright.reports.papers import scale_sim
from peers import maestro, plan, table, whole_model
from peers.plan import Case, Mode
from peers.runs import HERE, Limits, Run, Runner, Status, environment
from peers.table import Row

PATIENCE = 2
"""A run whose estimate is more than this many caps is not started."""


@dataclass
class Bench:
    """All runs of one call."""

    pythons: dict[str, Path | Run]
    maestro: Path | Run
    measure: Runner
    rows: list[Row] = field(default_factory=list)
    rates: dict[tuple[str, int, str], tuple[float, Case]] = field(default_factory=dict)
    equal: list[tuple[str, float, int]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print("  ".join(table.cells(row)), file=sys.stderr, flush=True)

    def case(self, case: Case, bytes_per_cycle: float) -> None:
        """Ours, then every peer."""
        work = f"{case.m},{case.k},{case.n}"
        began = time.process_time()
        closed = scale_sim.answer(work, case.array, case.array, case.dataflow)
        instant = Run(Status.DONE, processor_s=time.process_time() - began)
        array_cycles: int = closed["ours"]["cycles"]

        fast = self.ours(case, "fast", bytes_per_cycle)
        slow = self.ours(case, "simpy", bytes_per_cycle)
        ours = {"array": array_cycles, "machine": fast.answer.get("cycles") if fast else None}
        took = fast.processor_s if fast else None
        row = partial(Row, work, case.array, case.dataflow)
        if fast and slow:
            self.add(row("bitwright fast", fast, ours["machine"], ours["machine"], took, "with HBM2E"))
            self.add(row("bitwright simpy", slow, slow.answer.get("cycles"), ours["machine"], took, "with HBM2E"))
            if fast.status is slow.status is Status.DONE:
                name = f"{work} {case.array} {case.dataflow}: simpy"
                self.equal.append((name, slow.answer["cycles"], fast.answer["cycles"]))
        self.add(row("bitwright array alone", instant, array_cycles, array_cycles, took, "function call"))
        self.add(row("SCALE-Sim's closed form", instant, closed["cycles"], array_cycles, took, "function call"))
        for mode in plan.modes(case):
            run, remark = self.peer(case, mode, bytes_per_cycle, closed["cycles"])
            cycles = run.answer.get(mode.key)
            if mode.peer == "scalesim" and cycles is not None:
                stalls = run.answer.get("stall_cycles", 0)
                remark = f"{stalls:,} stalls" if stalls else ""
                if mode.name != "user":
                    self.equal.append((f"{work} {case.array} {case.dataflow}: {mode.label}", cycles, closed["cycles"]))
            self.add(row(mode.label, run, cycles, ours[mode.against], took, remark))

    def ours(self, case: Case, engine: str, bytes_per_cycle: float) -> Run | None:
        """Our machine; None in a dataflow that it does not have, and where only SCALE-Sim's array runs."""
        if case.dataflow == "is" or not (case.small or case.dataflow == "ws"):
            return None
        return self.measure([sys.executable, str(HERE / "ours_driver.py")], case.job(engine, bytes_per_cycle))

    def peer(self, case: Case, mode: Mode, bytes_per_cycle: float, closed: int) -> tuple[Run, str]:
        """One run, and the estimate where it did not end."""
        job = case.job(mode.name, bytes_per_cycle)
        if mode.peer == "maestro":
            if isinstance(self.maestro, Run):
                return self.maestro, ""
            command = [str(self.maestro), *maestro.options(job)]
            return self.measure(command, job, plan.read_maestro, maestro.write_inputs), ""
        python = self.pythons[mode.peer]
        if isinstance(python, Run):
            return python, ""
        estimate, text = self.estimate(case, mode, closed)
        if estimate is not None and estimate > PATIENCE * self.measure.limits.processor_s:
            return Run(Status.NOT_STARTED), text
        run = self.measure([str(python), str(HERE / f"{mode.peer}_driver.py")], job)
        if mode.peer == "scalesim" and run.status is Status.DONE and run.processor_s is not None:
            key = mode.name, case.array, case.dataflow
            rate = closed / run.processor_s
            if key not in self.rates or closed > scale_sim_cycles(self.rates[key][1]):
                self.rates[key] = rate, case
        return run, text if run.status is Status.CAPPED else ""

    def estimate(self, case: Case, mode: Mode, closed: int) -> tuple[float | None, str]:
        """Processor seconds of SCALE-Sim, by the rate of its largest finished run of this mode, array and dataflow."""
        known = self.rates.get((mode.name, case.array, case.dataflow)) if mode.peer == "scalesim" else None
        if known is None:
            return None, ""
        rate, source = known
        seconds = closed / rate
        took = f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:,.1f} h"
        of = f"{source.m},{source.k},{source.n}"
        return seconds, f"estimate {took}: {closed:,} cycles at {rate:,.0f} a second, of {of}"


def scale_sim_cycles(case: Case) -> int:
    """SCALE-Sim's closed form of a case."""
    return scale_sim.cycles(scale_sim.product(f"{case.m},{case.k},{case.n}", case.array, case.array, case.dataflow))


def program(path: str | None) -> Path | Run:
    """MAESTRO's program; a Run that says why where there is none."""
    if path is None:
        return Run(Status.MISSING, why="no --maestro PROGRAM, built from a checkout of maestro-project/maestro")
    found = Path(path).resolve()
    if not (found.is_file() and os.access(found, os.X_OK)):
        return Run(Status.MISSING, why=f"--maestro {path}: no program there")
    return found


def main(arguments: argparse.Namespace) -> int:
    """Run all and print; 1 where two must agree and do not."""
    limits = Limits(arguments.cap_s, arguments.memory_gib)
    pythons = {peer: environment(peer, arguments.folder.resolve()) for peer in ("scalesim", "zigzag", "genz")}
    measure = Runner(limits, arguments.kept)
    bench = Bench(pythons, program(arguments.maestro), measure)
    bytes_per_cycle = whole_model.bytes_per_cycle()
    load, models, stopped = os.getloadavg(), [], False
    try:
        models = [] if arguments.short else whole_model.rows(pythons["genz"], measure, bytes_per_cycle)
        for case in plan.cases(arguments.short):
            bench.case(case, bytes_per_cycle)
    except KeyboardInterrupt:
        stopped = True
    after = os.getloadavg()
    print(
        f"{date.today()}, `python tests/bench/bench_peers.py {' '.join(sys.argv[1:])}`; {os.cpu_count()} cores, "
        f"load {load[0]:.1f} before and {after[0]:.1f} after; caps {limits.processor_s:g} s of processor time, "
        f"{limits.memory_gib:g} GiB{'; stopped: what follows is what was done' * stopped}\n"
    )
    print(table.markdown(table.HEADER, [table.cells(row) for row in bench.rows]))
    if models:
        print("\n" + table.markdown(whole_model.HEADER, models))
    wrong = table.same_cycles(bench.equal)
    agree = f"{len(bench.equal) - len(wrong)} of {len(bench.equal)} counts that must be equal are"
    print("\n" + "\n".join([agree, *wrong]))
    return 130 if stopped else 1 if wrong else 0


def options() -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the environments are, or are made")
    parser.add_argument("--maestro", metavar="PROGRAM", help="built from a checkout")
    parser.add_argument("--cap-s", type=float, default=600, help="processor seconds of one run")
    parser.add_argument("--memory-gib", type=float, default=8, help="address space of one run")
    parser.add_argument("--short", action="store_true", help="only the two small products")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="runs done are kept here; a later call goes on")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(options()))
