"""Arrays as hardware: systolic ones (one PE module in a grid, with skew, deskew and sequencer) and broadcast tiles."""

from bitwright.rtl.array.asynchronous import AsynchronousTile
from bitwright.rtl.array.bit_serial_tile import BitSerialTile
from bitwright.rtl.array.broadcast import BroadcastTile, tile_verilog
from bitwright.rtl.array.emit import array_verilog, module_name, verilog
from bitwright.rtl.array.systolic import MAX_SIDE, SystolicArray

__all__ = [
    "MAX_SIDE",
    "AsynchronousTile",
    "BitSerialTile",
    "BroadcastTile",
    "SystolicArray",
    "array_verilog",
    "module_name",
    "tile_verilog",
    "verilog",
]
