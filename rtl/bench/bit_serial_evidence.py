"""Mutants and netlist of the bit-serial PE: as of the streaming PEs, on traces of its own streams.

python -m bitwright.rtl.bench.bit_serial_evidence mutants [bit-serial:acc_bits=24] [--count 240] [--write]
python -m bitwright.rtl.bench.bit_serial_evidence netlist [bit-serial:acc_bits=24] [--write]
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.asic.liberty import library_path, read_library
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.bench import bit_serial_stimulus as stimulus
from bitwright.rtl.bench import bit_serial_trace as traces
from bitwright.rtl.bench.bit_serial_bench import Channels, random_channels, require_channels, sums_and_cycles
from bitwright.rtl.bench.stream import equivalence, evidence, mutants, netlists
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe import streaming

MODULE = "python -m bitwright.rtl.bench.bit_serial_evidence"
SHORT, LONG = ("short_bulk", "short_stalled"), ("long_bulk", "long_stalled")
_SHORT_CHANNELS, _SHORT_CYCLES = 16, 12_000
_LONG_CHANNELS, _LONG_CYCLES, _LONG_RUNS = 150, 40_000, 4


class Bench:
    """The stages that mutants go through; a stage's traces are made when it is first needed."""

    def __init__(self, spec: BitSerial, design: Compiled, seed: int) -> None:
        self.spec, self.design, self.seed = spec, design, seed

    def _bulk(self, parts: Sequence[Channels]) -> traces.Player:
        return traces.Player(self.design, traces.unstalled(self.spec, parts))

    def _stalled(self, cycles: int, seed: int) -> traces.Player:
        return traces.Player(self.design, traces.stalled(self.spec, cycles, seed))

    @cached_property
    def short_bulk(self) -> list[traces.Player]:
        return [self._bulk(list(stimulus.bulk_channels(self.spec, _SHORT_CHANNELS, self.seed)))]

    @cached_property
    def short_stalled(self) -> list[traces.Player]:
        return [self._stalled(_SHORT_CYCLES, self.seed)]

    @cached_property
    def long_bulk(self) -> list[traces.Player]:
        """Much more of the same, and every code times activations of every exponent and sign."""
        fractions = np.array([0, 1, 1023], np.uint16)
        acts = (np.arange(64, dtype=np.uint16)[:, None] << 10 | fractions).ravel().astype(np.uint16)
        products = [stimulus.product_channels(self.spec, name, acts, self.seed) for name in stimulus.FORMATS]
        more = list(stimulus.bulk_channels(self.spec, _LONG_CHANNELS, self.seed + 10))
        return [self._bulk(more), *(self._bulk([part]) for part in products)]

    @cached_property
    def long_stalled(self) -> list[traces.Player]:
        return [self._stalled(_LONG_CYCLES, self.seed + 20 + number) for number in range(_LONG_RUNS)]

    def killer(self, number: int, stages: Sequence[str]) -> str | None:
        """The kind of check that kills mutant `number` in the given stages, or None."""
        for stage in stages:
            for player in getattr(self, stage):
                found = player.difference(seed=self.seed, mutsel=number)
                if found is not None:
                    return "protocol" if player.expected.stalled else str(found.kind)
        return None

    def require_sound(self) -> None:
        """Raise MismatchError unless mutant 0, the PE itself, passes the short stages."""
        for player in (*self.short_bulk, *self.short_stalled):
            found = player.difference(seed=self.seed, mutsel=0)
            if found is not None:
                raise MismatchError(f"{self.spec.module_stem}: the PE without mutation fails: {found.text}")


def examine_mutants(
    spec: BitSerial, count: int, seed: int, *, prove_s: float = 60.0, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Mutate, run and prove, as `mutants.examine` does; the figures of the evidence's row.

    `prove_s`: seconds for a survivor's proof; 0: none is tried. The long runs come first; induction over all registers
    is not tried, it ends in no reasonable time on this PE.
    """
    began = time.monotonic()
    hardware: Any = spec  # no StreamSpec: what is used of it is its name and its Verilog
    mutated = mutants.build(hardware, count, seed)
    bench = Bench(spec, mutated.design, seed)
    bench.require_sound()
    tell(f"{len(mutated.mutations)} mutants built in {time.monotonic() - began:.0f} s")
    kinds = {number: bench.killer(number, SHORT) for number in range(1, len(mutated.mutations) + 1)}
    living = [number for number, kind in kinds.items() if kind is None]
    tell(f"{len(living)} live on after {time.monotonic() - began:.0f} s")
    kinds.update({number: bench.killer(number, LONG) for number in living})
    survivors = []
    for number in (number for number, kind in kinds.items() if kind is None):
        mutation, proof = mutated.mutations[number - 1], ""
        if prove_s:
            proof = equivalence.by_cut(mutated.tidy, spec.module_stem, mutation, prove_s)
        survivors.append({"number": number, "mutation": str(mutation), "proof": proof})
        tell(f"{number} {mutation}: {proof or 'UNEXPLAINED'}")
    total = Counter(kinds.values())
    sites = hashlib.sha256("\n".join(map(str, mutated.mutations)).encode()).hexdigest()
    proved = sum(bool(survivor["proof"]) for survivor in survivors)
    tell(f"{time.monotonic() - began:.0f} s")
    return {
        "mutants": len(mutated.mutations), "by_value": total["value"], "by_cycle": total["cycle"],
        "by_protocol": total["protocol"], "late": len(living) - len(survivors), "equivalent": proved,
        "unexplained": len(survivors) - proved, "survivors": survivors, "sites_sha256": sites, "seed": seed,
    }  # fmt: skip


@dataclass(frozen=True)
class Mapped:
    """A mapped PE and what was run on it without a difference."""

    figures: dict[str, Any]
    synthesis_s: float


def examine_netlist(spec: BitSerial, *, channels: int = 300, cycles: int = 20_000, seed: int = 1) -> Mapped:
    """Map the PE, compile the netlist, run it with and without stalls; raises MismatchError at a difference.

    channels : of each format in groups of 128, beside those of the mutants' long traces; cycles : of the stalled run.
    """
    library, began = read_library(library_path(netlists.NODE)), time.monotonic()
    text, top = streaming.verilog(spec), spec.module_stem
    found = synthesize_verilog(text, top, library_path(netlists.NODE), period_ps=netlists.PERIOD_PS)
    took = time.monotonic() - began
    design = Compiled(netlists.with_models(found, library), top, optimise="-O1")
    bulk = traces.unstalled(spec, list(stimulus.bulk_channels(spec, _LONG_CHANNELS, seed)))
    stalled = traces.stalled(spec, cycles, seed)
    for trace in (bulk, stalled):
        traces.Player(design, trace).require(seed=seed)
    steps, sums = bulk.slices + stalled.slices, bulk.sums + stalled.sums
    for name in stimulus.FORMATS:
        part = random_channels(spec, name, channels, 128, 128, seed, wild=True)
        got, at = sums_and_cycles(design, part, seed=seed)
        require_channels(part, spec, got, replay=f"{MODULE} netlist --seed {seed}")
        if set(np.diff(at)) - {spec.cycles(name, 128)}:
            raise MismatchError(
                f"{top}, {name}: sums {set(np.diff(at))} cycles apart: must be {spec.cycles(name, 128)}"
            )
        steps, sums = steps + channels * 128 // spec.lanes, sums + channels
    area = found.area
    figures = {
        "node": netlists.NODE, "period_ps": netlists.PERIOD_PS, "registers": area.sequential_cells,
        "cells": area.combinational_cells + area.sequential_cells, "area_um2": round(area.total_um2, 1),
        "steps": steps, "sums": sums, "stalled_cycles": stalled.cycles, "library_sha256": library.sha256, "seed": seed,
    }  # fmt: skip
    return Mapped(figures, took)


def row(spec: BitSerial, params: dict[str, Any], kind: str, figures: dict[str, Any], command: str) -> evidence.Row:
    """A row of the evidence file, of today."""
    hardware: Any = spec
    return evidence.row(hardware, params, kind, figures, command)


def _mutants(spec: BitSerial, params: dict[str, Any], options: argparse.Namespace) -> int:
    found = examine_mutants(spec, options.count, options.seed, prove_s=options.prove_seconds)
    killed = found["by_value"] + found["by_cycle"] + found["by_protocol"]
    print(
        f"{spec.module_stem}: {killed} of {found['mutants']} mutants killed ({found['by_value']} by value, "
        f"{found['by_cycle']} by cycle, {found['by_protocol']} by protocol; {found['late']} in the long stages), "
        f"{found['equivalent']} proved equivalent, {found['unexplained']} unexplained"
    )
    if options.write:
        which = evidence.shown(spec.name, params)
        command = f"{MODULE} mutants {which} --count {options.count} --seed {options.seed}"
        evidence.store(row(spec, params, "mutants", found, command))
    return 1 if found["unexplained"] else 0


def _netlist(spec: BitSerial, params: dict[str, Any], options: argparse.Namespace) -> int:
    found = examine_netlist(spec, seed=options.seed)
    figures = found.figures
    print(
        f"{spec.module_stem}: {figures['cells']} cells, {figures['registers']} of them registers, "
        f"{figures['area_um2']:,.1f} um2 ({figures['node']}, sized for {figures['period_ps']} ps; "
        f"{found.synthesis_s:.0f} s); {figures['steps']:,} slices and {figures['sums']:,} sums, "
        f"{figures['stalled_cycles']:,} cycles of them with stalls, clears and resets: 0 differ"
    )
    if options.write:
        command = f"{MODULE} netlist {evidence.shown(spec.name, params)} --seed {options.seed}"
        evidence.store(row(spec, params, "netlist", figures, command))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("mutants", "netlist"))
    parser.add_argument("pe", nargs="?", default=BitSerial.name, help="bit-serial, or bit-serial:acc_bits=N")
    parser.add_argument("--count", type=int, default=240, help="mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prove-seconds", type=float, default=60.0, help="for each survivor")
    parser.add_argument("--write", action="store_true", help="put the outcome into docs/evidence")
    options = parser.parse_args(arguments)
    name, params = pe.parse_name(options.pe)
    if name != BitSerial.name:
        raise ConfigError(f"pe = {name}: must be {BitSerial.name} (others: bitwright.rtl.bench.stream)")
    check = {"mutants": _mutants, "netlist": _netlist}[options.check]
    return check(BitSerial(**params), params, options)


if __name__ == "__main__":
    raise SystemExit(main())
