"""Synthesises one PE on demand, a systolic cell or behind its streams: what `bitwright synthesize PE` prints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bitwright.arch import pe as pe_specs
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import PESpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.asic import bit_serial_work, stream_stimulus
from bitwright.rtl.asic.activity import BINS, Activity, NetlistSimulator
from bitwright.rtl.asic.characterise import Builder
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.clock_tree import ClockTree, gated_trees
from bitwright.rtl.asic.entries import cell_entry
from bitwright.rtl.asic.isolation import isolated
from bitwright.rtl.asic.jsonout import rounded
from bitwright.rtl.asic.liberty import library_path, node_name
from bitwright.rtl.asic.operands import GROUP
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS, Stimulus
from bitwright.rtl.asic.stream_stimulus import Work
from bitwright.rtl.asic.synthesis import FLOW_SHA256, HIGH, sha256_text, synthesize_verilog
from bitwright.rtl.asic.timing import analyse
from bitwright.rtl.pe import streaming

TIMEOUT_S = 7200.0
_BATCHES = range(BINS, BINS + 8)
"""Bins of the parts in which active cycles are counted."""
_STREAM_BINS = tuple(f"{cycle}_energy_pj" for cycle in ("active", "stalled", "idle", "stalled_moving", "idle_moving"))


STREAM_METHOD = 3
"""Of the rows of streaming PEs: raise it when the arithmetic of timing, activity or power changes, or what a row
holds."""
LEAST_GAIN = 1.01
SEARCH_STEP = 1.1


def fastest(once: Callable[[float], dict[str, Any]], clock_mhz: float) -> dict[str, Any]:
    """The figures at the highest clock that is met: sized for `clock_mhz`, then for SEARCH_STEP of the best fmax_mhz so
    far while that gains LEAST_GAIN, then for what the best one reached, since its energies are of a clock that it
    misses. Where the last misses its clock too, the best is given. `once` gives the figures of a clock."""
    best = once(clock_mhz)
    while True:
        found = once(round(SEARCH_STEP * best["fmax_mhz"], 1))
        gained = found["fmax_mhz"] >= LEAST_GAIN * best["fmax_mhz"]
        best = max(best, found, key=lambda one: float(one["fmax_mhz"]))
        if not gained:
            break
    if best["fmax_mhz"] >= best["clock_mhz"]:
        return best
    reached = once(math.floor(10 * best["fmax_mhz"]) / 10)
    return reached if reached["fmax_mhz"] >= reached["clock_mhz"] else best


def synthesize(
    name: str,
    dataflow: str,
    node: str | Path,
    clock_mhz: float,
    *,
    clock_gating: bool = False,
    operand_isolation: bool = False,
    effort: str = HIGH,
) -> dict[str, Any]:
    """Area, timing and energy of a PE cell sized for `clock_mhz`, made now (the cost table is not read).

    The energy is that of one active cycle, without weight loads, leakage and clock tree, with weights in the PE's
    native format, on a real model's operands and on uniform random ones, without glitches; pass_energy_pj is of a cycle
    without an operand while the array streams, idle_energy_pj of one in which all inputs stand still. `meets_clock`
    says whether the result reaches `clock_mhz`. `node` is a named one, or the path of a Liberty file. With
    `clock_gating` as synthesis.synthesize_verilog, with `operand_isolation` as rtl.pe.cells says.
    Raises ConfigError for an unknown PE, dataflow or node, a library that lacks cells or units or a clock that is not
    positive, ToolError when Yosys or the cell library is missing.
    """
    if clock_mhz <= 0:
        raise ConfigError(f"clock_mhz = {clock_mhz:g}: must be positive")
    spec = pe_specs.get(name)
    chosen = spec.wgt.name
    builder = Builder(node, clock_mhz, None, clock_gating=clock_gating, effort=effort)
    entry = cell_entry(spec, dataflow, [chosen], operand_isolation=operand_isolation)
    found = builder.build(entry)
    energy = found["energies"][chosen]
    physical = ("area_um2", "combinational_um2", "sequential_um2", "min_period_ns", "fmax_mhz", "leakage_uw")
    return {
        "pe": spec.name,
        "dataflow": dataflow,
        "node": node_name(node),
        "clock_mhz": clock_mhz,
        "meets_clock": found["fmax_mhz"] >= clock_mhz,
        **{key: found[key] for key in physical},
        "clock_gating": clock_gating,
        "operand_isolation": operand_isolation,
        "weight_format": chosen,
        "energy_pj_per_mac": energy["energy_pj"],
        "energy_pj_per_mac_random": energy["random_energy_pj"],
        "pass_energy_pj": energy["pass_energy_pj"],
        "idle_energy_pj": energy["idle_energy_pj"],
        "tool": builder.base["tool"],
        "library_sha256": builder.library.sha256,
        "rtl_sha256": found["provenance"]["rtl_sha256"],
    }


def synthesize_stream(
    name: str,
    node: str | Path,
    clock_mhz: float,
    cache: Path | None = None,
    *,
    clock_gating: bool = False,
    operand_isolation: bool = False,
    effort: str = HIGH,
) -> dict[str, Any]:
    """Area, timing and energy of a streaming PE with its parameters, as `synthesize` of a cell.

    energy_pj_per_mac    Of a cycle with a step on offer, over that cycle's multiply-accumulates; the PE's own format.
    active_energy_pj     Of such a cycle; stalled_energy_pj of one in which a sum is not taken; idle_energy_pj of one
                         without a step.
    energy_pj_per_group  Of GROUP multiply-accumulates.
    terms_pj_per_mac     What the energy of a MAC adds up from: switching (data nets), internal (cells, when data move),
                         clock_pins (flip-flops' clock pins, outside and inside), clock_tree (clock_tree.py: an
                         estimate, whose area stands apart) and leakage at clock_mhz.
    energy_error_pj_per_mac   Standard error of energy_pj_per_mac from its finite stimulus (`_sampling_error_pj`), and
                         energy_error_pj_per_mac_random: what other operands of the same kind may give. What the method
                         leaves out (glitches, placement) is not in it.
    processor_s          Of mapping, when the netlist was made, and of all the rest.
    stalled_moving_energy_pj, idle_moving_energy_pj   Of cycles without a step while a neighbour's operands pass on the
                         PE's wires (`moving_stimulus`); in stalled_energy_pj and idle_energy_pj all inputs are held.
    With `clock_gating` as synthesis.synthesize_verilog says; the clock gates are in the area. With `operand_isolation`
    as isolation.py says; its gates are in the area, and rtl_sha256 is of the wrapped text.
    Raises as `synthesize`.
    """
    if clock_mhz <= 0:
        raise ConfigError(f"clock_mhz = {clock_mhz:g}: must be positive")
    started = time.process_time()
    spec = stream_spec(name)
    liberty = library_path(node)
    library = wired_library(liberty)
    assert isinstance(spec, StreamSpec | BitSerial), "every PE has streams"
    text, (_, conditions) = stream_verilog(spec, operand_isolation=operand_isolation), surroundings(library)
    made = synthesize_verilog(
        text,
        spec.module_stem,
        liberty,
        period_ps=round(1e6 / clock_mhz),
        timeout_s=TIMEOUT_S,
        cache=cache,
        clock_gating=clock_gating,
        effort=effort,
    )
    timing = analyse(made.netlist, library, conditions)
    figures: dict[str, Any] = {
        "pe": name,
        "form": "stream",
        "node": node_name(node),
        "clock_mhz": clock_mhz,
        "meets_clock": timing.fmax_mhz >= clock_mhz,
        "area_um2": made.area.total_um2,
        "combinational_um2": made.area.combinational_um2,
        "sequential_um2": made.area.sequential_um2,
        "min_period_ns": timing.min_period_ns,
        "fmax_mhz": timing.fmax_mhz,
        "leakage_uw": made.netlist.leakage_uw(library),
    }
    tree, subtrees = gated_trees(made.netlist, library, conditions)
    trees = [tree, *subtrees]
    figures |= {"clock_gating": clock_gating, "clock_gates": len(subtrees), "operand_isolation": operand_isolation}
    figures |= {"clock_tree_um2": sum(one.area_um2 for one in trees)}
    figures |= {"clock_tree_leakage_uw": sum(one.leakage_uw for one in trees)}
    leakage_pj = (figures["leakage_uw"] + figures["clock_tree_leakage_uw"]) / clock_mhz
    model = PowerModel(made.netlist, library, timing, conditions)
    energies = _stream_energies(spec, NetlistSimulator(made.netlist, library), model, trees, leakage_pj)
    figures["processor_s"] = {"mapping": made.processor_s, "timing_and_energy": time.process_time() - started}
    origin = {"tool": made.provenance.tool, "library_sha256": library.sha256, "rtl_sha256": sha256_text(text)}
    return rounded({**figures, **energies, **origin, "method": STREAM_METHOD, "flow_sha256": FLOW_SHA256})


def stream_spec(name: str) -> PESpec:
    """The spec of a PE behind streams; raises ConfigError for an unknown name or parameter."""
    base, params = pe_specs.parse_name(name)
    return pe_specs.stream(base, **params) if base in pe_specs.stream_names() else pe_specs.get(base, **params)


def _stream_energies(
    spec: StreamSpec | BitSerial,
    simulator: NetlistSimulator,
    model: PowerModel,
    trees: Sequence[ClockTree],
    leakage_pj: float,
) -> dict[str, Any]:
    works = stream_works(spec)
    ran = simulator.run_many([work.stimulus.ports for work in works], bins=_in_batches(works[0].stimulus.bins))
    real, random = (run.pooled(_BATCHES) for run in ran)
    shared = moving_stimulus(spec)
    moving = simulator.run(shared.ports, bins=shared.bins)
    cycles = {"active": (real, 0), "stalled": (ran[0], PASS), "idle": (ran[0], IDLE), "random": (random, 0)}
    cycles |= {"stalled_moving": (moving, PASS), "idle_moving": (moving, IDLE)}
    terms = {name: _terms_pj(model, *what, trees) | {"leakage": leakage_pj} for name, what in cycles.items()}
    totals = {name: sum(parts.values()) for name, parts in terms.items()}
    rates = [work.macs_per_cycle for work in works]
    return {
        "stimuli_sha256": stimuli_sha256(works),
        "moving_stimulus_sha256": shared.sha256,
        "macs_per_cycle": rates[0],
        "macs_per_cycle_random": rates[1],
        "energy_pj_per_mac": totals["active"] / rates[0],
        "energy_pj_per_mac_random": totals["random"] / rates[1],
        "energy_error_pj_per_mac": _sampling_error_pj(model, ran[0], trees) / rates[0],
        "energy_error_pj_per_mac_random": _sampling_error_pj(model, ran[1], trees) / rates[1],
        "energy_pj_per_group": totals["active"] / rates[0] * GROUP,
        "terms_pj_per_mac": {name: value / rates[0] for name, value in terms["active"].items()},
        "terms_pj_per_mac_random": {name: value / rates[1] for name, value in terms["random"].items()},
        **{name: totals[name.removesuffix("_energy_pj")] for name in _STREAM_BINS},
    }


def _in_batches(bins: Sequence[int]) -> list[int]:
    """The bins with the ACTIVE cycles, in their order, in _BATCHES of (nearly) equal length instead."""
    active, seen, found = sum(one == ACTIVE for one in bins), 0, list(bins)
    for cycle, one in enumerate(bins):
        if one == ACTIVE:
            found[cycle] = _BATCHES[seen * len(_BATCHES) // active]
            seen += 1
    return found


def _sampling_error_pj(model: PowerModel, activity: Activity, trees: Sequence[ClockTree]) -> float:
    """Standard error of the mean energy of an active cycle: the scatter of its batches' means."""
    means = [sum(_terms_pj(model, activity, batch, trees).values()) for batch in _BATCHES]
    return float(np.std(means, ddof=1)) / len(means) ** 0.5


def stream_works(spec: StreamSpec | BitSerial) -> list[Work]:
    """On a real model's operands and on random ones."""
    if isinstance(spec, BitSerial):
        return [bit_serial_work.bit_serial_work(spec, random=random) for random in (False, True)]
    return [stream_stimulus.stream_work(spec, random=random) for random in (False, True)]


def moving_stimulus(spec: StreamSpec | BitSerial) -> Stimulus:
    """A neighbour's operands on the PE's wires: while it is stalled (PASS) and idle (IDLE), with nothing on offer."""
    if isinstance(spec, BitSerial):
        return bit_serial_work.moving_stimulus(spec)
    return stream_stimulus.moving_stimulus(spec)


def stream_verilog(spec: StreamSpec | BitSerial, *, operand_isolation: bool = False) -> str:
    """What is mapped: a PE behind its streams, with `operand_isolation` inside isolation.isolated's wrapper."""
    text = streaming.verilog(spec)
    if not operand_isolation:
        return text
    return isolated(text, spec.module_stem, "slice" if isinstance(spec, BitSerial) else "step")


def stimuli_sha256(works: Sequence[Work]) -> str:
    """Identity of the stimuli that a row's energies come from."""
    return sha256_text(" ".join(work.stimulus.sha256 for work in works))


def _terms_pj(model: PowerModel, activity: Activity, chosen: int, trees: Sequence[ClockTree]) -> dict[str, float]:
    """What a cycle's energy is made of, but leakage; a gated tree moves as often as its gate is open."""
    energy = model.energy(activity, chosen)
    passed = [1.0, *(activity.enabled[chosen] / activity.lane_cycles[chosen])]
    tree_pj = sum(float(share) * tree.energy_pj for share, tree in zip(passed, trees, strict=True))
    moving = {"switching": energy.switching_pj, "internal": energy.internal_pj, "clock_pins": energy.clock_pj}
    return {**moving, "clock_tree": tree_pj}
