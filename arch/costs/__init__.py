"""Cost tables as data: PE cells, edge units, SRAM and DRAM, with their provenance."""

from bitwright.arch.costs.records import DramCost, PECost, RegisterCost, SramCost, TreeCost, UnitCost
from bitwright.arch.costs.streams import StreamCost, stream, stream_nodes
from bitwright.arch.costs.tables import (
    CostTable,
    dram,
    dram_names,
    load,
    nodes,
    sram,
    sram_1r1w,
    sram_22nm,
)

__all__ = [
    "CostTable",
    "DramCost",
    "PECost",
    "RegisterCost",
    "SramCost",
    "StreamCost",
    "TreeCost",
    "UnitCost",
    "dram",
    "dram_names",
    "load",
    "nodes",
    "sram",
    "sram_1r1w",
    "sram_22nm",
    "stream",
    "stream_nodes",
]
