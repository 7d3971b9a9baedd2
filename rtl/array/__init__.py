"""Systolic arrays as hardware: one PE module in a grid, with skew, deskew and tile sequencer."""

from bitwright.rtl.array.emit import array_verilog, module_name, verilog
from bitwright.rtl.array.systolic import MAX_SIDE, SystolicArray

__all__ = ["MAX_SIDE", "SystolicArray", "array_verilog", "module_name", "verilog"]
