"""Reads the tables of PEs behind their streams: area, clock and energy of one PE with its handshake and sums.

`streams_<node>.json` is written by `bitwright.rtl.asic.stream_costs`; `make test` recomputes the hash of each row's
Verilog. Systolic cells and edge units are in the tables of `CostTable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from bitwright.arch.costs.records import NetlistCost
from bitwright.arch.costs.tables import STREAMS_PREFIX, read
from bitwright.arch.errors import ConfigError, suggest

if TYPE_CHECKING:
    from bitwright.arch.pe import PESpec


@dataclass(frozen=True)
class StreamCost(NetlistCost):
    """One PE with its streams. Energies are dynamic: leakage_uw stands apart, and has the clock tree's in it.

    clock_mhz                   That the netlist was sized for.
    macs_per_cycle              While steps are on offer, on the operands that were measured: a real model's, in the
                                formats that the PE is made for (bit-serial: bitmod_fp4).
    active_pj, stalled_pj, idle_pj   A cycle with a step on offer; with a sum that nobody takes; with neither. The
                                clock and its tree (estimated) run in all of them.
    active_error_pj             Standard error of active_pj from the finite stimulus; nan in a row without it.
    rtl_sha256                  Of the Verilog that was mapped.
    """

    name: str
    node: str
    clock_mhz: float
    macs_per_cycle: float
    active_pj: float
    active_error_pj: float
    stalled_pj: float
    idle_pj: float
    rtl_sha256: str

    @property
    def active_pj_per_mac(self) -> float:
        """Dynamic energy of a multiply-accumulate while steps are on offer."""
        return self.active_pj / self.macs_per_cycle


def stream_nodes() -> tuple[str, ...]:
    """Nodes that have a table of PEs behind streams."""
    names = sorted(item.name for item in resources.files("bitwright.arch.costs").iterdir())
    return tuple(name.removeprefix(STREAMS_PREFIX).removesuffix(".json") for name in names if _is_table(name))


def _is_table(name: str) -> bool:
    return name.startswith(STREAMS_PREFIX) and name.endswith(".json")


def stream(name: str, params: Mapping[str, Any] | None = None, *, node: str = "nangate45") -> StreamCost | None:
    """The row of PE `name` with these parameters (those left out at their defaults); None where the table has none.

    `name` may carry parameters itself ("int8-mac:lanes=4,pipeline=1"). Raises ConfigError for an unknown PE, parameter
    or node.
    """
    if node not in stream_nodes():
        raise ConfigError(f"node = {node}: no table of PEs behind streams: {suggest(node, stream_nodes())}")
    found = _rows(node).get(_spec(name, params or {}))
    return None if found is None else _cost(*found, node)


def _spec(name: str, more: Mapping[str, Any]) -> PESpec:
    from bitwright.arch import pe  # loads numpy, which who reads the other tables does without

    base, given = pe.parse_name(name)
    params = {**given, **more}
    return pe.stream(base, **params) if base in pe.stream_names() else pe.get(base, **params)


@lru_cache(maxsize=8)
def _rows(node: str) -> dict[PESpec, tuple[str, Mapping[str, Any]]]:
    """Name and figures of each row, by its PE."""
    rows: Mapping[str, Mapping[str, Any]] = read(f"{STREAMS_PREFIX}{node}.json")[0]["rows"]
    return {_spec(name, {}): (name, row) for name, row in rows.items()}


def _cost(name: str, row: Mapping[str, Any], node: str) -> StreamCost:
    leakage_uw = row["leakage_uw"] + row["clock_tree_leakage_uw"]
    leakage_pj = leakage_uw / row["clock_mhz"]
    bins = {f"{kind}_pj": row[f"{kind}_energy_pj"] - leakage_pj for kind in ("active", "stalled", "idle")}
    return StreamCost(
        name=name,
        node=node,
        macs_per_cycle=row["macs_per_cycle"],
        active_error_pj=row.get("energy_error_pj_per_mac", math.nan) * row["macs_per_cycle"],
        leakage_uw=leakage_uw,
        **{key: row[key] for key in ("clock_mhz", "area_um2", "sequential_um2", "min_period_ns", "rtl_sha256")},
        **bins,
    )
