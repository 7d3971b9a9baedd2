"""Synthesises one PE cell on demand: what `bitwright synthesize` prints."""

from __future__ import annotations

from typing import Any

from bitwright.arch import pe as pe_specs
from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.characterise import Builder
from bitwright.rtl.asic.entries import cell_entry


def synthesize(name: str, dataflow: str, node: str, clock_mhz: float) -> dict[str, Any]:
    """Area, timing and energy of a PE cell sized for `clock_mhz`, made now (the cost table is not read).

    The energy is that of one active cycle, without weight loads, with weights in the PE's native format, on a real
    model's operands and on uniform random ones, without glitches. `meets_clock` says whether the result reaches
    `clock_mhz`.
    Raises ConfigError for an unknown PE, dataflow or node or a clock that is not positive, ToolError when Yosys or the
    cell library is missing.
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
        "node": node,
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
