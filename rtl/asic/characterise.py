"""Area, timing and energy of one entry of a cost table, with a cache of finished pieces."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitwright.rtl.asic import unit_stimulus
from bitwright.rtl.asic.activity import Activity, NetlistSimulator
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.clock_tree import gated_trees
from bitwright.rtl.asic.entries import RANDOM, REAL, REGISTER_BITS, REGISTER_STAGES, Entry
from bitwright.rtl.asic.jsonout import rounded, write_json
from bitwright.rtl.asic.liberty import library_path, node_name
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.stimulus import ACTIVE, ARRAY_ROWS, IDLE, PASS, PERIOD, UNCOUNTED, Loading, Stimulus
from bitwright.rtl.asic.synthesis import (
    ABC_SHARE,
    HIGH,
    SCRIPT,
    Synthesis,
    gated,
    of_effort,
    sha256_text,
    synthesize_verilog,
    with_abc,
    yosys_version,
)
from bitwright.rtl.asic.timing import Timing, analyse

FORMATS_AT_ONCE = 6
METHOD_VERSION = 3
"""Part of every cache key: raise it when the arithmetic of timing, activity or power changes."""


class Builder:
    """Characterises entries of one node. `cache` is the folder of finished pieces; None keeps nothing.

    base   Everything that all results depend on, as plain data: part of every cache key and of the table's provenance.
    """

    def __init__(
        self,
        node: str | Path,
        clock_mhz: float,
        cache: Path | None,
        *,
        clock_gating: bool = False,
        effort: str = HIGH,
    ) -> None:
        self.liberty = library_path(node)
        self.library = wired_library(self.liberty)
        self.node, self.clock_mhz, self.cache = node_name(node), clock_mhz, cache
        self.boundary, self.conditions = surroundings(self.library)
        self.clock_gating, self.effort = clock_gating, effort
        script = of_effort(SCRIPT, effort)
        self.base: dict[str, Any] = {
            "method": METHOD_VERSION,
            "library_sha256": self.library.sha256,
            "tool": yosys_version(),
            "script": with_abc(gated(script, self.library) if clock_gating else script),
            "abc_share_of_period": ABC_SHARE,
            "synthesis_boundary": asdict(self.boundary),
            "timing_and_power_conditions": asdict(self.conditions),
            "clock_mhz": clock_mhz,
        }

    def _path(self, entry: Entry, piece: str, more: dict[str, Any]) -> Path | None:
        if self.cache is None:
            return None
        identity = {**self.base, "rtl": sha256_text(entry.verilog), "piece": piece, **more}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
        return self.cache / self.node / f"{entry.top}-{piece}-{digest}.json"

    def build(self, entry: Entry) -> dict[str, Any]:
        """The entry as JSON data."""
        model = _Lazy(self, entry)
        physical_path = self._path(entry, "physical", {})
        physical = _read(physical_path) or _write(physical_path, model.physical())
        result: dict[str, Any] = {**physical, **entry.extra, "default": entry.default, "energies": {}}
        missing: dict[str, dict[str, Stimulus]] = {}
        paths: dict[str, Path | None] = {}
        for name in sorted(entry.measures):
            runs = entry.stimuli(name)
            paths[name] = self._path(entry, name, {"stimuli": stimuli_sha256(runs)})
            kept = _read(paths[name])
            if kept is None:
                missing[name] = runs
            else:
                result["energies"][name] = kept
        for names in _batches(sorted(missing), FORMATS_AT_ONCE):
            for name, made in model.energies({name: missing[name] for name in names}).items():
                result["energies"][name] = _write(paths[name], made)
        return _register_result(result) if entry.key == "register" else result


def stimuli_sha256(runs: Mapping[str, Stimulus]) -> str:
    """Hash of all runs that one energy comes from."""
    return sha256_text(" ".join(f"{kind}={runs[kind].sha256}" for kind in sorted(runs)))


def _read(path: Path | None) -> dict[str, Any] | None:
    """A finished piece, if it is there."""
    if path is None or not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def _write(path: Path | None, made: dict[str, Any]) -> dict[str, Any]:
    """Round a new piece as the table is rounded, and keep it."""
    result: dict[str, Any] = rounded(made)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    return result


def _batches(names: list[str], size: int) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


class _Lazy:
    """Synthesis, timing and simulator of one entry, made when first needed."""

    def __init__(self, builder: Builder, entry: Entry) -> None:
        self.builder, self.entry = builder, entry
        self._made: tuple[Synthesis, Timing, NetlistSimulator, PowerModel] | None = None

    def parts(self) -> tuple[Synthesis, Timing, NetlistSimulator, PowerModel]:
        """Everything that the measurements share."""
        if self._made is None:
            library, conditions = self.builder.library, self.builder.conditions
            period_ps = round(1e6 / self.builder.clock_mhz)
            made = synthesize_verilog(
                self.entry.verilog,
                self.entry.top,
                self.builder.liberty,
                period_ps=period_ps,
                boundary=self.builder.boundary,
                clock_gating=self.builder.clock_gating,
                effort=self.builder.effort,
            )
            timing = analyse(made.netlist, library, conditions)
            model = PowerModel(made.netlist, library, timing, conditions)
            self._made = made, timing, NetlistSimulator(made.netlist, library), model
        return self._made

    def physical(self) -> dict[str, Any]:
        """Area, timing, leakage, clock tree and provenance."""
        made, timing, _, _ = self.parts()
        tree, below = gated_trees(made.netlist, self.builder.library, self.builder.conditions)
        trees = [tree, *below]  # below clock gates, where there are any, as if they were open
        return {
            "clock_tree_pj": sum(one.energy_pj for one in trees),
            "clock_tree_um2": sum(one.area_um2 for one in trees),
            "clock_tree_leakage_uw": sum(one.leakage_uw for one in trees),
            "area_um2": made.area.total_um2,
            "combinational_um2": made.area.combinational_um2,
            "sequential_um2": made.area.sequential_um2,
            "min_period_ns": timing.min_period_ns,
            "fmax_mhz": timing.fmax_mhz,
            "leakage_uw": made.netlist.leakage_uw(self.builder.library),
            "provenance": {"top": self.entry.top, "rtl_sha256": made.provenance.rtl_sha256},
        }

    def energies(self, stimuli: dict[str, dict[str, Stimulus]]) -> dict[str, dict[str, Any]]:
        """Energies by name, from the runs of each."""
        made, _, simulator, model = self.parts()
        measured: dict[str, Bins] = {name: {} for name in stimuli}
        hops: dict[str, Bins] = {name: {} for name in stimuli}
        runs = [(name, kind, stimulus) for name, kinds in stimuli.items() for kind, stimulus in kinds.items()]
        for same in {stimulus.bins for _, _, stimulus in runs}:
            chosen = [run for run in runs if run[2].bins == same]
            activities = simulator.run_many([stimulus.ports for _, _, stimulus in chosen], bins=same)
            for (name, kind, _), activity in zip(chosen, activities, strict=True):
                for which in sorted(set(same) - {UNCOUNTED}):
                    measured[name][kind, which] = model.energy(activity, which).total_pj
                    hops[name][kind, which] = input_toggles(made.netlist, activity, which)
        found: dict[str, dict[str, Any]] = {
            name: {**summary(bins), "stimuli_sha256": stimuli_sha256(stimuli[name])} for name, bins in measured.items()
        }
        if self.entry.key.startswith("pe/"):
            for name, bins in hops.items():
                found[name] |= hop_summary(bins)
        for name, energy in found.items():
            print(f"{self.entry.key} {name}: {energy['energy_pj']:.3f} pJ", file=sys.stderr, flush=True)
        return found


Bins = dict[tuple[str, int], float]
"""Mean of a cycle, by run and bin of cycles: energy in pJ, or transitions."""


def input_toggles(netlist: Netlist, activity: Activity, chosen: int) -> float:
    """Transitions of all input ports in a cycle of one bin: what arrives on wires from neighbours. The clock, which the
    simulation leaves still, is not among them."""
    nets = [net for port in netlist.ports.values() if not port.is_output for net in port.nets]
    return float((activity.rises[chosen, nets] + activity.falls[chosen, nets]).sum() / activity.lane_cycles[chosen])


def summary(bins: Bins) -> dict[str, float]:
    """The table's energies from the measured ones."""
    found = {
        "energy_pj": bins[REAL, ACTIVE],
        "random_energy_pj": bins[RANDOM, ACTIVE],
        "idle_energy_pj": bins[REAL, IDLE],
    }
    if (REAL, PASS) in bins:
        found["pass_energy_pj"] = bins[REAL, PASS]
    if (Loading.OWN.value, ACTIVE) in bins:
        found["bus_beat_pj"], found["weight_load_pj"] = _of_loads(bins)
    return found


def hop_summary(bins: Bins) -> dict[str, float]:
    """The same of a cell's `input_toggles`; in idle cycles there are none."""
    assert bins[REAL, IDLE] == 0, "idle cycles hold all inputs"
    found = {"hops": bins[REAL, ACTIVE], "pass_hops": bins[REAL, PASS]}
    if (Loading.OWN.value, ACTIVE) in bins:
        found["bus_beat_hops"], found["weight_load_hops"] = _of_loads(bins)
    return found


def _of_loads(bins: Bins) -> tuple[float, float]:
    """What a beat for another row adds, and a load of the cell's own weight.

    A tile's ARRAY_ROWS beats and its one load and swap fall into PERIOD active cycles, so the difference of two means
    times PERIOD is what they add; the cell's own beat is one of the tile's.
    """
    beat = PERIOD * (bins[Loading.BEATS.value, ACTIVE] - bins[REAL, ACTIVE]) / ARRAY_ROWS
    return beat, PERIOD * (bins[Loading.OWN.value, ACTIVE] - bins[Loading.BEATS.value, ACTIVE]) + beat


def _register_result(result: dict[str, Any]) -> dict[str, Any]:
    """One bit's share of the delay line. Random words toggle half of the bits in a cycle."""
    bits = REGISTER_BITS * REGISTER_STAGES
    measured = result["energies"]["words"]
    clock_pj = measured["energy_pj"] / bits
    toggle_pj = (measured["random_energy_pj"] / bits - clock_pj) / unit_stimulus.RANDOM_TOGGLES_PER_CYCLE
    shares: dict[str, Any] = rounded(
        {
            "area_um2": result["area_um2"] / bits,
            "clock_pj": clock_pj,
            "toggle_pj": toggle_pj,
            "leakage_uw": result["leakage_uw"] / bits,
            "clock_tree_pj": result["clock_tree_pj"] / bits,
            "clock_tree_um2": result["clock_tree_um2"] / bits,
            "clock_tree_leakage_uw": result["clock_tree_leakage_uw"] / bits,
            "block_bits": bits,
            "measured_on": f"{REGISTER_BITS} bits x {REGISTER_STAGES} stages",
            "provenance": result["provenance"],
        }
    )
    return shares
