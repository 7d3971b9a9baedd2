"""Cost tables as data: PE cells, edge units, SRAM and DRAM, with their provenance."""

from bitwright.arch.costs.streams import StreamCost, stream, stream_nodes
from bitwright.arch.costs.tables import (
    CostTable,
    DramCost,
    PECost,
    RegisterCost,
    SramCost,
    UnitCost,
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
