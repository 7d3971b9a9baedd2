"""Synthesises one PE on demand, a systolic cell or behind its streams: what `bitwright synthesize PE` prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitwright.arch import pe as pe_specs
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.base import PESpec
from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.characterise import Builder
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.entries import cell_entry
from bitwright.rtl.asic.jsonout import rounded
from bitwright.rtl.asic.liberty import Library, library_path, node_name
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS
from bitwright.rtl.asic.stream_stimulus import stream_work
from bitwright.rtl.asic.synthesis import sha256_text, synthesize_verilog
from bitwright.rtl.asic.timing import analyse
from bitwright.rtl.pe import streaming

TIMEOUT_S = 7200.0
_STREAM_BINS = {"active_energy_pj": ACTIVE, "stalled_energy_pj": PASS, "idle_energy_pj": IDLE}


LEAST_GAIN = 1.01
SEARCH_STEP = 1.1


def fastest(once: Callable[[float], dict[str, Any]], clock_mhz: float) -> dict[str, Any]:
    """The figures with the highest fmax_mhz: sized for `clock_mhz`, then for SEARCH_STEP of the best so far while that
    gains LEAST_GAIN. `once` gives the figures of a clock."""
    best = once(clock_mhz)
    while True:
        found = once(round(SEARCH_STEP * best["fmax_mhz"], 1))
        if found["fmax_mhz"] < LEAST_GAIN * best["fmax_mhz"]:
            return best if best["fmax_mhz"] >= found["fmax_mhz"] else found
        best = found


def synthesize(name: str, dataflow: str, node: str | Path, clock_mhz: float) -> dict[str, Any]:
    """Area, timing and energy of a PE cell sized for `clock_mhz`, made now (the cost table is not read).

    The energy is that of one active cycle, without weight loads, with weights in the PE's native format, on a real
    model's operands and on uniform random ones, without glitches. `meets_clock` says whether the result reaches
    `clock_mhz`. `node` is a named one, or the path of a Liberty file.
    Raises ConfigError for an unknown PE, dataflow or node, a library that lacks cells or units or a clock that is not
    positive, ToolError when Yosys or the cell library is missing.
    """
    if clock_mhz <= 0:
        raise ConfigError(f"clock_mhz = {clock_mhz:g}: must be positive")
    spec = pe_specs.get(name)
    chosen = spec.wgt.name
    builder = Builder(node, clock_mhz, None)
    entry = cell_entry(spec, dataflow, [chosen])
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
        "weight_format": chosen,
        "energy_pj_per_mac": energy["energy_pj"],
        "energy_pj_per_mac_random": energy["random_energy_pj"],
        "idle_energy_pj": energy["idle_energy_pj"],
        "tool": builder.base["tool"],
        "library_sha256": builder.library.sha256,
        "rtl_sha256": found["provenance"]["rtl_sha256"],
    }


def synthesize_stream(name: str, node: str | Path, clock_mhz: float, cache: Path | None = None) -> dict[str, Any]:
    """Area, timing and energy of a streaming PE with its parameters, as `synthesize` of a cell.

    energy_pj_per_mac    Of a cycle with a step on offer, over that cycle's multiply-accumulates; the PE's own format.
    active_energy_pj     Of such a cycle; stalled_energy_pj of one in which a sum is not taken; idle_energy_pj of one
                         without a step. All with the clock, none with leakage.
    Raises as `synthesize`; for bit-serial, whose streams are its own, the energies are None.
    """
    if clock_mhz <= 0:
        raise ConfigError(f"clock_mhz = {clock_mhz:g}: must be positive")
    spec = stream_spec(name)
    liberty = library_path(node)
    library = wired_library(liberty)
    text, (_, conditions) = streaming.verilog(spec), surroundings(library)
    made = synthesize_verilog(
        text, spec.module_stem, liberty, period_ps=round(1e6 / clock_mhz), timeout_s=TIMEOUT_S, cache=cache
    )
    timing = analyse(made.netlist, library, conditions)
    figures = {
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
    energies = dict.fromkeys(("energy_pj_per_mac", "energy_pj_per_mac_random", *_STREAM_BINS))
    if isinstance(spec, StreamSpec):
        energies = _stream_energies(spec, made.netlist, PowerModel(made.netlist, library, timing, conditions), library)
    origin = {"tool": made.provenance.tool, "library_sha256": library.sha256, "rtl_sha256": sha256_text(text)}
    return rounded({**figures, **energies, **origin})


def stream_spec(name: str) -> PESpec:
    """The spec of a PE behind streams; raises ConfigError for an unknown name or parameter."""
    base, params = pe_specs.parse_name(name)
    return pe_specs.stream(base, **params) if base in pe_specs.stream_names() else pe_specs.get(base, **params)


def _stream_energies(spec: StreamSpec, netlist: Netlist, model: PowerModel, library: Library) -> dict[str, Any]:
    works = [stream_work(spec, random=random) for random in (False, True)]
    ran = NetlistSimulator(netlist, library).run_many(
        [work.stimulus.ports for work in works], bins=works[0].stimulus.bins
    )
    real, by_chance = (model.energy(activity, ACTIVE).total_pj for activity in ran)
    still = {name: model.energy(ran[0], chosen).total_pj for name, chosen in _STREAM_BINS.items()}
    return {
        "macs_per_cycle": works[0].macs_per_cycle,
        "energy_pj_per_mac": real / works[0].macs_per_cycle,
        "energy_pj_per_mac_random": by_chance / works[1].macs_per_cycle,
        **still,
    }
