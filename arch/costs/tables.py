"""Reads the cost tables: PE cells and units of a node, SRAM, DRAM.

The JSON files beside this module are written by programs (`bitwright.rtl.asic.costs`, `bitwright.rtl.asic.sram_table`)
or, for DRAM, hold published currents from which this module computes energies. Nothing here imports a tool.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from typing import Any

from bitwright.arch import dram as timed
from bitwright.arch.costs.records import DramCost, PECost, RegisterCost, SramCost, TreeCost, UnitCost
from bitwright.arch.costs.wires import Wires
from bitwright.arch.errors import ConfigError, suggest

DEFAULT_CELL_TYPE = "itrs-lstp"
DRAM_FILE = "dram.json"
SRAM_FILE = "sram.json"
SRAM_1R1W_FILE = "sram_1r1w.json"
SRAM_22NM_FILE = "sram_22nm.json"
FPGA_FILE = "fpga.json"  # of `fpga.sizing`: no node
STREAMS_PREFIX = "streams_"
REGENERATE = "python -m bitwright.rtl.asic.costs"
_NOT_NODES = {DRAM_FILE, SRAM_FILE, SRAM_1R1W_FILE, SRAM_22NM_FILE, FPGA_FILE}


@lru_cache(maxsize=16)
def read(file: str) -> tuple[dict[str, Any], str]:
    """A JSON file beside this module, and the sha256 of its text."""
    path = resources.files("bitwright.arch.costs").joinpath(file)
    text = path.read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data, hashlib.sha256(text.encode()).hexdigest()


def nodes() -> tuple[str, ...]:
    """Nodes that have a cost table."""
    folder = resources.files("bitwright.arch.costs")
    files = sorted(item.name for item in folder.iterdir() if item.name.endswith(".json"))
    found = (name for name in files if name not in _NOT_NODES and not name.startswith(STREAMS_PREFIX))
    return tuple(name.removesuffix(".json") for name in found)


class CostTable:
    """Costs of one node. Made by `load`.

    node : str             `nangate45`, ...
    clock_mhz : float      Clock that the netlists were sized for.
    content_hash : str     sha256 over the node's table and the memory tables.
    """

    def __init__(self, node: str, data: Mapping[str, Any], content_hash: str) -> None:
        self.node = node
        self.content_hash = content_hash
        self.clock_mhz = float(data["clock_mhz"])
        self.provenance: Mapping[str, Any] = data["provenance"]
        self._entries: Mapping[str, Any] = data["entries"]

    def entries(self) -> tuple[str, ...]:
        """Keys of all entries: `pe/int8-mac/ws`, `unit/fp32-accumulator`, `register`, ..."""
        return tuple(sorted(self._entries))

    def entry(self, key: str) -> Mapping[str, Any]:
        """One entry as plain data, with its provenance. Raises ConfigError for an unknown key."""
        if key not in self._entries:
            raise ConfigError(f"cost table {self.node}: no entry {key}: {suggest(key, self._entries)}")
        found: Mapping[str, Any] = self._entries[key]
        return found

    def pe(self, pe: str, dataflow: str, weight_format: str | None = None, *, psum_bits: int | None = None) -> PECost:
        """Cost of a PE cell.

        weight_format   None: the PE's native one. `constant-one`: the cell of a zero-point column.
        psum_bits       Accumulator width; None: the PE's own. Others than its own are for comparisons at equal width.
        Raises ConfigError when the table has no such cell, or no energy for weights of that format.
        """
        key = f"pe/{pe}/{dataflow}"
        entry = self.entry(key)
        if psum_bits is not None and psum_bits != entry["psum_bits"]:
            entry = self.entry(f"{key}/p{psum_bits}")
        name, energy = self._energy(entry, f"PE {pe} ({dataflow})", weight_format)
        return PECost(
            pe=pe,
            dataflow=dataflow,
            weight_format=name,
            energy_pj_per_mac=energy["energy_pj"],
            random_pj_per_mac=energy["random_energy_pj"],
            pass_energy_pj=energy["pass_energy_pj"],
            idle_energy_pj=energy["idle_energy_pj"],
            weight_load_pj=energy.get("weight_load_pj", 0.0),
            bus_beat_pj=energy.get("bus_beat_pj", 0.0),
            hops=energy["hops"],
            pass_hops=energy["pass_hops"],
            weight_load_hops=energy.get("weight_load_hops", 0.0),
            bus_beat_hops=energy.get("bus_beat_hops", 0.0),
            **_physical(entry),
        )

    def unit(self, unit: str, variant: str | None = None, weight_format: str | None = None) -> UnitCost:
        """Cost of an edge unit.

        variant         The PE that a per-PE unit belongs to (`group-dequantiser`) or the weight format that a decoding
                        unit reads; None or a name the unit does not depend on: the only one.
        weight_format   Whose results the unit works on; where a PE has a second unit for formats with two-level
                        scales, this chooses it. None: the PE's own format.
        Raises ConfigError for an unknown unit, variant or format.
        """
        keys = [key for key in (f"unit/{unit}/{variant}", f"unit/{unit}") if key in self._entries]
        if not keys and any(key.startswith(f"unit/{unit}/") for key in self._entries):
            raise ConfigError(
                f"cost table {self.node}, unit {unit}: no entry for {variant}; "
                f"measure it with {REGENERATE} --format {variant}"
            )
        entry = self.entry(keys[0] if keys else f"unit/{unit}/{variant}" if variant else f"unit/{unit}")
        two_level = self._entries.get(f"unit/{unit}/{variant}/two-level")
        if two_level is not None and weight_format in two_level["energies"]:
            entry = two_level
        wanted = weight_format if len(entry["energies"]) > 1 else None
        _, energy = self._energy(entry, f"unit {unit} {variant or ''}".strip(), wanted)
        return UnitCost(
            name=unit,
            variant=variant or "",
            energy_pj_per_op=energy["energy_pj"],
            idle_energy_pj=energy["idle_energy_pj"],
            **_physical(entry),
        )

    def _energy(self, entry: Mapping[str, Any], what: str, wanted: str | None) -> tuple[str, Mapping[str, Any]]:
        name = wanted or entry["default"]
        if name not in entry["energies"]:
            raise ConfigError(
                f"cost table {self.node}, {what}: no energy for weights in {name}; "
                f"measure it with {REGENERATE} --format {name}; {suggest(name, entry['energies'])}"
            )
        return name, entry["energies"][name]

    def register(self) -> RegisterCost:
        """Cost of one bit of a plain register."""
        entry = self.entry("register")
        figures = {name: entry[name] for name in ("area_um2", "clock_pj", "toggle_pj", "leakage_uw", "block_bits")}
        return RegisterCost(**figures, clock_tree=_tree(entry))

    def wires(self) -> Wires:
        """What wires and the clock tree above blocks are made of."""
        return Wires.of(self.provenance)

    def sram(self, capacity_bytes: float, width_bits: float, cell_type: str = DEFAULT_CELL_TYPE) -> SramCost:
        """One SRAM, interpolated linearly in the logarithms of capacity, width and value between table entries.

        Raises ConfigError outside the table's range and for an unknown cell type.
        """
        return sram(capacity_bytes, width_bits, cell_type)

    def dram(self, name: str) -> DramCost:
        """One DRAM preset. Raises ConfigError for an unknown name."""
        return dram(name)


def _physical(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("area_um2", "sequential_um2", "min_period_ns", "leakage_uw")
    return {"clock_tree": _tree(entry)} | {name: float(entry[name]) for name in names}


def _tree(entry: Mapping[str, Any]) -> TreeCost:
    return TreeCost(entry["clock_tree_pj"], entry["clock_tree_um2"], entry["clock_tree_leakage_uw"])


@lru_cache(maxsize=8)
def load(node: str) -> CostTable:
    """The cost table of a node. Raises ConfigError for a node without one."""
    if node not in nodes():
        raise ConfigError(f"node = {node}: no cost table: {suggest(node, nodes())}")
    data, content_hash = read(f"{node}.json")
    parts = [content_hash, read(SRAM_FILE)[1], read(DRAM_FILE)[1]]
    return CostTable(node, data, hashlib.sha256(" ".join(parts).encode()).hexdigest())


_SRAM_VALUES = ("read_pj", "write_pj", "leakage_mw", "area_mm2", "access_ns", "cycle_ns")


@lru_cache(maxsize=4096)
def sram(capacity_bytes: float, width_bits: float, cell_type: str = DEFAULT_CELL_TYPE) -> SramCost:
    """See CostTable.sram."""
    return _interpolated(SRAM_FILE, capacity_bytes, width_bits, cell_type)


@lru_cache(maxsize=4096)
def sram_22nm(capacity_bytes: float, width_bits: float, cell_type: str = DEFAULT_CELL_TYPE) -> SramCost:
    """As `sram` at CACTI's smallest node, to scale from (scaling.scaled_sram); machines do not use it."""
    return _interpolated(SRAM_22NM_FILE, capacity_bytes, width_bits, cell_type)


@lru_cache(maxsize=4096)
def sram_1r1w(rows: int, bits: int, cell_type: str = DEFAULT_CELL_TYPE) -> SramCost:
    """A memory of `rows` words of `bits` with one read and one write port, of any width and up to the table's banks.

    It is made of equal banks side by side, none wider than the table goes. A bank below the table's smallest capacity
    or width costs what the smallest does. Raises ConfigError for one that is too large.
    """
    known = read(SRAM_1R1W_FILE)[0]["rows"]
    widths = [row["width_bits"] for row in known]
    banks = -(-bits // max(widths))
    width = max(-(-bits // banks), min(widths))
    capacity = max(rows * width / 8, min(row["capacity_bytes"] for row in known))
    bank = _interpolated(SRAM_1R1W_FILE, capacity, width, cell_type)
    summed = {name: banks * getattr(bank, name) for name in ("read_pj", "write_pj", "leakage_mw", "area_mm2")}
    return replace(bank, capacity_bytes=rows * bits / 8, width_bits=bits, **summed)


def _interpolated(file: str, capacity_bytes: float, width_bits: float, cell_type: str) -> SramCost:
    rows = [row for row in read(file)[0]["rows"] if row["cell_type"] == cell_type]
    if not rows:
        known = {row["cell_type"] for row in read(file)[0]["rows"]}
        raise ConfigError(f"sram cell_type = {cell_type}: not in the table: {suggest(cell_type, known)}")
    capacities = sorted({row["capacity_bytes"] for row in rows})
    widths = sorted({row["width_bits"] for row in rows})
    i, a = _log_segment(capacities, capacity_bytes, "sram capacity_bytes")
    j, b = _log_segment(widths, width_bits, "sram width_bits")
    grid = {(row["capacity_bytes"], row["width_bits"]): row for row in rows}
    corners = [
        (grid[capacities[i + di], widths[j + dj]], (a if di else 1 - a) * (b if dj else 1 - b))
        for di in (0, 1)
        for dj in (0, 1)
    ]
    values = {name: math.exp(sum(weight * math.log(row[name]) for row, weight in corners)) for name in _SRAM_VALUES}
    return SramCost(capacity_bytes, width_bits, cell_type, **values)


def _log_segment(axis: list[int], value: float, what: str) -> tuple[int, float]:
    if not axis[0] <= value <= axis[-1]:
        raise ConfigError(f"{what} = {value:g}: the table covers {axis[0]} to {axis[-1]}")
    i = min(bisect_right(axis, value) - 1, len(axis) - 2)
    return i, math.log(value / axis[i]) / math.log(axis[i + 1] / axis[i])


def dram_names() -> tuple[str, ...]:
    """Names of the DRAM presets, those without energy too."""
    return tuple(sorted({*read(DRAM_FILE)[0]["presets"], *timed.names()}))


def dram(name: str) -> DramCost:
    """See CostTable.dram. Formulas of `_from_currents` for presets with data-sheet currents."""
    data = read(DRAM_FILE)[0]
    if name not in data["presets"] and name in timed.names():
        return _timed_alone(name)
    if name not in data["presets"]:
        raise ConfigError(f"dram = {name}: no such preset: {suggest(name, dram_names())}")
    preset = data["presets"][name]
    scope, source = preset["scope"], preset["source"]
    if "device" in preset:
        return DramCost(name, scope, data["scopes"][scope], source, **_from_currents(preset))
    return DramCost(
        name,
        scope,
        data["scopes"][scope],
        source,
        bandwidth_gbytes_per_s=preset["bandwidth_gbytes_per_s"],
        pj_per_bit=preset["pj_per_bit"],
        write_pj_per_bit=preset["pj_per_bit"],
        latency_ns=preset["first_access_ns"],
        activate_pj=0.0,
        background_mw=0.0,
    )


def _timed_alone(name: str) -> DramCost:
    """A preset of `arch.dram` of which nothing that can be cited tells the energy."""
    memory = timed.load(name)
    timing = memory.device.timing
    return DramCost(
        name,
        scope="none",
        scope_text="no energy: no source that can be cited was found",
        source="timings of arch/dram/presets.json",
        bandwidth_gbytes_per_s=memory.peak_bytes_per_s / 1e9,
        pj_per_bit=math.nan,
        write_pj_per_bit=math.nan,
        latency_ns=(timing.rcd_read + timing.read_latency) * memory.clock_ps / 1e3,
        activate_pj=math.nan,
        background_mw=math.nan,
    )


def _from_currents(preset: Mapping[str, Any]) -> dict[str, float]:
    """Core energy from data-sheet currents (mA x V x ns = pJ).

    read (or write) bit at full rate   VDD * IDD4 / (device rate in bits/ns): background included
    activation and precharge of a row  VDD * (IDD0 * tRC - IDD3N * tRAS - IDD2N * tRP), tRC = tRAS + tRP
    a bit's share of it                over columns * device width bits: one activation a row streamed in full
    The clock period is that of the nominal data rate. Source: Micron TN-40-07 method, as in DRAMsim3.
    """
    device = preset["device"]
    rate_per_ns = preset["data_rate_mtps"] / 1e3
    period_ns = device["data_per_cycle"] / rate_per_ns
    bits_per_ns = rate_per_ns * device["width_bits"]
    active = device["tras_cycles"] * period_ns
    precharge = device["trp_cycles"] * period_ns
    activate_pj = device["vdd_v"] * (
        device["idd0_ma"] * (active + precharge) - device["idd3n_ma"] * active - device["idd2n_ma"] * precharge
    )
    share = activate_pj / (device["columns"] * device["width_bits"])
    devices = preset["bus_width_bits"] // device["width_bits"]
    return {
        "bandwidth_gbytes_per_s": rate_per_ns * preset["bus_width_bits"] * preset["channels"] / 8,
        "pj_per_bit": device["vdd_v"] * device["idd4r_ma"] / bits_per_ns + share,
        "write_pj_per_bit": device["vdd_v"] * device["idd4w_ma"] / bits_per_ns + share,
        "latency_ns": (device["trcd_cycles"] + device["cl_cycles"]) * period_ns,
        "activate_pj": activate_pj * devices,
        "background_mw": device["vdd_v"] * device["idd3n_ma"] * devices * preset["channels"],
    }
