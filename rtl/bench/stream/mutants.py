"""Mutants of a streaming PE: one changed bit of one cell each; all must be killed by the bench or proved harmless.

The PE's own Verilog is read by Yosys, flattened and tidied to word-level cells ($mul, $add, $mux, $dff ...); `mutate`
picks sites evenly over cells and wires; all mutants go into one netlist, a port selects one, and that netlist is
compiled once. Rule of exclusion: no mutation of a clock pin (one clock is an assumption of every check); resets,
enables, control and data are all mutated.

Stages, each from random power-up state, each stopped at the first difference: a short run without stalls, a short one
with stalls, clears, resets and garbage without `valid`, then both again much longer. A mutant counts as killed by
`value` (a sum's payload, no stalls), `cycle` (a handshake, no stalls) or `protocol` (seen with stalls only). What
survives all runs and has no proof (`cases`, `equivalence`) is unexplained. The long stages of carry-save PEs hold sums
that climb to the top bits of the accumulators' vectors.

    python -m bitwright.rtl.bench.stream.mutants int8-mac:pipeline=1 --count 240
"""

from __future__ import annotations

import argparse
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.pe import PESpec
from bitwright.arch.pe.stream import Steps, StreamSpec
from bitwright.rtl.bench.stream import cases, equivalence, evidence, hard, stimulus, traces, windows
from bitwright.rtl.bench.stream.equivalence import Mutation, run_yosys
from bitwright.rtl.bench.stream.player import TracePlayer
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.stream import HeldSum

SELECT = "mutsel"
# pmuxtree: a mutant may select two ways of a $pmux at once, which its Verilog forbids and its SAT model leaves open.
TIDY = (
    "read_verilog rtl.v", "hierarchy -top {top}", "proc -norom", "flatten", "setattr -unset init w:*", "opt -full",
    "wreduce", "opt -full", "pmuxtree", "opt_clean -purge", "rename -wire",
)  # fmt: skip
_CLOCK_PORTS = ("CLK", "C")
# Benches of PEs that are no StreamSpec, as module:class; imported when asked for.
_OWN_BENCHES = {"bit-serial": "bitwright.rtl.bench.bit_serial_evidence:Bench"}
_WITNESS_CYCLES = 3
_LONG_CYCLES, _LONG_PAIRS = 200_000, 1 << 16


@dataclass(frozen=True)
class MutatedDesign:
    """All mutants of a PE in one compiled design: `mutsel` 0 is the PE itself, k the k-th mutation."""

    spec: PESpec
    mutations: tuple[Mutation, ...]
    tidy: str
    """The unchanged netlist, RTLIL."""
    design: Compiled
    held: tuple[HeldSum, ...]

    def proof(self, number: int, seconds: float) -> str:
        """How mutant `number` is the PE itself, `seconds` for each proof; "" if that is not proved.

        In every state, or if that is not so from the first step of a sum on; the text says which.
        """
        asked = self.tidy, self.spec.module_stem, self.mutations[number - 1], seconds
        return (
            windows.by_window(*asked, (), windows.SMALL)
            or equivalence.by_cut(*asked)
            or equivalence.by_held_sum(*asked, self.held)
            or cases.by_known(*asked, cases.known(self.spec))
        )


def build(spec: PESpec, count: int, seed: int) -> MutatedDesign:
    """Choose `count` mutations (fewer if the PE has fewer sites) and compile the PE with all of them."""
    if count < 1:
        raise ConfigError(f"count = {count}: must be at least 1")
    top = spec.module_stem
    with TemporaryDirectory(prefix="bitwright-mutants-") as name:
        folder = Path(name)
        (folder / "rtl.v").write_text(streaming.verilog(spec))
        wanted = count + count // 4 + 20  # some will be on clocks
        listing = f"mutate -list {wanted} -seed {seed} -o list.ys"
        run_yosys(folder, [*(line.format(top=top) for line in TIDY), "write_rtlil tidy.il", listing])
        mutations = tuple(_parsed((folder / "list.ys").read_text()))[:count]
        width = len(mutations).bit_length()
        changes = [
            mutation.command(top, f"-ctrl {SELECT} {width} {number}") for number, mutation in enumerate(mutations, 1)
        ]
        run_yosys(folder, ["read_rtlil tidy.il", *changes, "opt_clean", "write_verilog -noattr mutants.v"])
        verilog, tidy = (folder / "mutants.v").read_text(), (folder / "tidy.il").read_text()
    return MutatedDesign(spec, mutations, tidy, Compiled(verilog, top), streaming.held_sums(spec))


def _parsed(listing: str) -> Iterator[Mutation]:
    """The mutations of a `mutate -list`, but those on clocks."""
    for line in listing.splitlines():
        options = dict(re.findall(r" -(\w+) (\S+)", line))
        if options.get("port") in _CLOCK_PORTS or options.get("wire") == "clk" or options.get("mode") in (None, "none"):
            continue
        control = options.get("ctrlbit")
        site = options["mode"], options["cell"], options["port"], int(options["portbit"])
        yield Mutation(*site, None if control is None else int(control))


class Bench:
    """The stages that mutants go through; a stage's traces are made when it is first needed.

    Class data
        short, long : names of the stages, of the properties that make their players.
        inductive : bool         Whether induction over all registers ends in reasonable time on such a PE.
    """

    short: ClassVar[tuple[str, ...]] = ("short_bulk", "short_stalled", "medium_bulk")
    long: ClassVar[tuple[str, ...]] = ("long_bulk", "long_stalled")
    inductive: ClassVar[bool] = True

    def __init__(self, mutated: MutatedDesign, seed: int, *, real: bool = True) -> None:
        self.mutated, self.seed, self.real = mutated, seed, real
        self.spec: Any = mutated.spec

    def _players(self, made: Iterator[traces.Trace]) -> list[TracePlayer]:
        return [traces.Player(self.spec, self.mutated.design, trace) for trace in made]

    def _bulk(self, parts: Iterator[Steps]) -> list[TracePlayer]:
        return self._players(traces.unstalled(self.spec, steps) for steps in parts)

    @cached_property
    def short_bulk(self) -> list[TracePlayer]:
        return self._bulk(traces.bulk_steps(self.spec, 1500, self.seed, real=self.real))

    @cached_property
    def short_stalled(self) -> list[TracePlayer]:
        return self._players(iter([traces.stalled(self.spec, 4000, self.seed)]))

    @cached_property
    def medium_bulk(self) -> list[TracePlayer]:
        return self._bulk(traces.bulk_steps(self.spec, 12_000, self.seed + 5, real=self.real))

    @cached_property
    def long_bulk(self) -> list[TracePlayer]:
        return self._bulk(long_steps(self.spec, self.seed + 10))

    @cached_property
    def long_stalled(self) -> list[TracePlayer]:
        return self._players(traces.stalled(self.spec, 50_000, self.seed + number) for number in (20, 21))

    def killer(self, number: int, stages: Sequence[str]) -> str | None:
        """The kind of check that kills mutant `number` in the given stages, or None."""
        for stage in stages:
            for player in getattr(self, stage):
                found = player.difference(seed=self.seed, mutsel=number)
                if found is not None:
                    return "protocol" if player.stalled else found.kind
        return None

    def directed(self, number: int, seconds: float) -> str:
        """Have the solver look for inputs that kill mutant `number`, and run them.

        Returns "found" if they kill it, "none" if there are none within `_WITNESS_CYCLES`, "" if nothing is known.
        """
        spec, mutated, bits = self.spec, self.mutated, self.mutated.design
        sizes = bits.inputs["step__payload"].bits, bits.outputs["sum__payload"].bits
        found = equivalence.witness(
            mutated.tidy, spec.module_stem, mutated.mutations[number - 1], seconds, bits=sizes,
            cycles=spec.timing.latency_cycles + _WITNESS_CYCLES, stalls=False,
        )  # fmt: skip
        if not found:
            return "none" if found == [] else ""
        player = traces.Player(spec, mutated.design, traces.from_rows(spec, found[1:], sizes[0]))  # 0: the reset
        if player.difference(seed=self.seed, mutsel=0) is not None:
            return ""  # not steps that the spec has a sum for
        return "found" if player.difference(seed=self.seed, mutsel=number) is not None else ""

    def require_sound(self) -> None:
        """Raise MismatchError unless mutant 0, the PE itself, passes the short stages."""
        for player in (player for stage in self.short for player in getattr(self, stage)):
            found = player.difference(seed=self.seed, mutsel=0)
            if found is not None:
                raise MismatchError(f"{self.spec.module_stem}: the PE without mutation fails: {found.text}")


def long_steps(spec: StreamSpec, seed: int) -> Iterator[Steps]:
    """Much more of everything: long random sums, every pair of codes if few, and sums up to the accumulator's ends."""
    yield from traces.bulk_steps(spec, _LONG_CYCLES // 4, seed)
    yield from hard.climbing_sums(spec, 10 * _LONG_CYCLES, seed)
    if stimulus.pair_count(spec) <= _LONG_PAIRS:
        yield from stimulus.every_pair(spec, seed)
    longest = spec.longest_sum
    if longest is not None and longest <= 2 * _LONG_CYCLES:
        corners = spec.corners()
        pairs = len(corners[spec.multiplied[0]]) * len(corners[spec.multiplied[1]])
        yield stimulus.extreme_steps(spec, min(longest + 2, 20 * _LONG_CYCLES // pairs))


@dataclass(frozen=True)
class Survivor:
    """A mutant that no stage killed: `proof` says how it was shown to be the same PE, or is empty."""

    number: int
    mutation: str
    proof: str
    bounded: bool
    """Whether no inputs of a few steps from reset, without stalls, tell it from the PE; that alone explains nothing."""


@dataclass(frozen=True)
class Outcome:
    """What became of the mutants of one PE."""

    mutants: int
    by_value: int
    by_cycle: int
    by_protocol: int
    late: int
    """Of those killed, how many needed the long stages."""
    directed: int
    """Of those killed (by value), how many needed inputs that the solver found."""
    survivors: tuple[Survivor, ...]
    sites_sha256: str
    seconds: float

    @property
    def equivalent(self) -> int:
        return sum(bool(survivor.proof) for survivor in self.survivors)

    @property
    def unexplained(self) -> tuple[Survivor, ...]:
        return tuple(survivor for survivor in self.survivors if not survivor.proof)


def bench_of(mutated: MutatedDesign, seed: int, *, real: bool = True) -> Bench:
    """The bench of a PE's mutants."""
    module, _, name = _OWN_BENCHES.get(mutated.spec.name, f"{__name__}:Bench").partition(":")
    made: Bench = getattr(import_module(module), name)(mutated, seed, real=real)
    return made


def examine(
    spec: PESpec, count: int, seed: int, *, real: bool = True, prove_s: float = 60.0, witness_s: float = 0.0,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:  # fmt: skip
    """Mutate, run and prove. `prove_s`: seconds for each of a survivor's proofs; 0: none is tried.

    witness_s : seconds for the search of inputs that kill a survivor; 0: none.
    """
    began = time.monotonic()
    mutated = build(spec, count, seed)
    bench = bench_of(mutated, seed, real=real)
    bench.require_sound()
    tell(f"{len(mutated.mutations)} mutants built in {time.monotonic() - began:.0f} s")
    numbers = range(1, len(mutated.mutations) + 1)
    kinds = {number: bench.killer(number, bench.short) for number in numbers}
    tell(f"{sum(kind is None for kind in kinds.values())} live on after {time.monotonic() - began:.0f} s")
    late, directed, survivors = 0, 0, []
    for number in (number for number, kind in kinds.items() if kind is None):
        mutation = mutated.mutations[number - 1]
        kinds[number] = bench.killer(number, bench.long)
        late += kinds[number] is not None
        proof = mutated.proof(number, prove_s) if prove_s and kinds[number] is None else ""
        if not proof and kinds[number] is None and prove_s and bench.inductive:
            proof = equivalence.by_induction(mutated.tidy, spec.module_stem, mutation, prove_s)
        note = ""
        if not proof and kinds[number] is None and witness_s:
            note = bench.directed(number, witness_s)
            if note == "found":
                kinds[number], directed = "value", directed + 1
        if kinds[number] is None:
            survivors.append(Survivor(number, str(mutation), proof, note == "none"))
        tell(f"{mutation}: {proof or kinds[number] or 'UNEXPLAINED'} {note}".rstrip())
    total = Counter(kinds.values())
    sites = hashlib.sha256("\n".join(map(str, mutated.mutations)).encode()).hexdigest()
    return Outcome(
        len(mutated.mutations), total["value"], total["cycle"], total["protocol"], late, directed, tuple(survivors),
        sites, time.monotonic() - began,
    )  # fmt: skip


def row(spec: PESpec, params: dict[str, Any], outcome: Outcome, options: argparse.Namespace) -> dict[str, Any]:
    """The outcome as a row of the evidence file; `options` of the command."""
    figures = {
        "mutants": outcome.mutants, "by_value": outcome.by_value, "by_cycle": outcome.by_cycle,
        "by_protocol": outcome.by_protocol, "late": outcome.late, "directed": outcome.directed,
        "equivalent": outcome.equivalent, "unexplained": len(outcome.unexplained),
        "survivors": [asdict(survivor) for survivor in outcome.survivors],
        "sites_sha256": outcome.sites_sha256, "seed": options.seed,
    }  # fmt: skip
    which = evidence.shown(spec.name, params)
    command = f"python -m bitwright.rtl.bench.stream.mutants {which} --count {options.count} --seed {options.seed}"
    command += f" --prove-seconds {options.prove_seconds:g} --witness-seconds {options.witness_seconds:g}"
    return evidence.row(spec, params, "mutants", figures, command)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mutants of a streaming PE, and which of them the bench kills.")
    parser.add_argument("pe", help="name, or name:parameter=value,...")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prove-seconds", type=float, default=60.0, help="for each survivor")
    parser.add_argument("--witness-seconds", type=float, default=0.0, help="for each survivor; 0: do not search")
    parser.add_argument("--write", action="store_true", help="put the outcome into docs/evidence")
    options = parser.parse_args(arguments)
    name, params = pe.parse_name(options.pe)
    spec = evidence.spec_of(name, params)
    outcome = examine(
        spec, options.count, options.seed, prove_s=options.prove_seconds, witness_s=options.witness_seconds, tell=print
    )
    killed = outcome.by_value + outcome.by_cycle + outcome.by_protocol
    print(
        f"{spec.module_stem}: {killed} of {outcome.mutants} mutants killed ({outcome.by_value} by value, "
        f"{outcome.by_cycle} by cycle, {outcome.by_protocol} by protocol; {outcome.late} in the long stages, "
        f"{outcome.directed} by directed inputs), "
        f"{outcome.equivalent} proved equivalent, {len(outcome.unexplained)} unexplained; {outcome.seconds:.0f} s"
    )
    if options.write:
        evidence.store(row(spec, params, outcome, options))
    return 1 if outcome.unexplained else 0


if __name__ == "__main__":
    raise SystemExit(main())
