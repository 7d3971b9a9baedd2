# amaranth: UnusedElaboratable=no
# (an array may be made only to ask for its name)
"""An array as Verilog text: the array's module and, once, the module of its PE."""

from __future__ import annotations

import re
from typing import Any

from amaranth.back import verilog as backend
from bitwright.arch.pe import PESpec
from bitwright.rtl.array.systolic import SystolicArray
from bitwright.rtl.pe.emit import emit


def array_verilog(array: SystolicArray) -> str:
    """Verilog of `array`: exactly two modules, the array's first; the same text in every run."""
    top: str = backend.convert(array, name=array.module_name, emit_src=False)
    modules = re.findall(r"^module (\S+?)\(", top, flags=re.MULTILINE)
    assert modules == [array.module_name], f"expected the one module {array.module_name}, got {modules}"
    return top + "\n" + emit(array.cell, array.cell_name)


def verilog(pe: str | PESpec, rows: int, cols: int, dataflow: str, **params: Any) -> str:
    """Verilog of the array of `rows` x `cols` PEs; arguments and errors as of `SystolicArray`."""
    return array_verilog(SystolicArray(pe, rows, cols, dataflow, **params))


def module_name(pe: str | PESpec, rows: int, cols: int, dataflow: str, **params: Any) -> str:
    """The name of the array's Verilog module, such as `int8_mac_ws_16x16`."""
    return SystolicArray(pe, rows, cols, dataflow, **params).module_name
