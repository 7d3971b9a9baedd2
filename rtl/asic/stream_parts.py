"""Parts of PEs that comparisons with papers need, and PEs mapped without Booth multipliers: area, clock, leakage.

The bit-serial cell and its column's term encoder are what a BitMoD tile holds; pair decoders stand at the border of
an array of outlier-victim PEs; the tables of a row of four activations feed all columns of a tile of lut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.arch import pe as pe_specs
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.lut_tables import TableUnit
from bitwright.rtl import pe as rtl_pe
from bitwright.rtl.asic.cells import TIMEOUT_S
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.jsonout import rounded
from bitwright.rtl.asic.liberty import library_path
from bitwright.rtl.asic.synthesis import FLOW_SHA256, sha256_text, synthesize_verilog
from bitwright.rtl.asic.timing import analyse
from bitwright.rtl.pe import bit_serial_cell, lut_tables, streaming
from bitwright.rtl.pe.emit import emit


@dataclass(frozen=True)
class Part:
    """A module: `make` gives (top, Verilog)."""

    make: Callable[[], tuple[str, str]]
    booth: bool = True


def _cell() -> tuple[str, str]:
    cell = bit_serial_cell.BitSerialCell(BitSerial())
    return cell.module_name, emit(cell, cell.module_name)


def _encoder() -> tuple[str, str]:
    name = bit_serial_cell.ColumnEncoder.module_name
    return name, emit(bit_serial_cell.ColumnEncoder(), name)


def _tables(*, whole: bool = False, activation: str = "int8") -> tuple[str, str]:
    unit = lut_tables.TableUnit(TableUnit(rows=1, whole=whole, activation=activation))
    return "lut_tables", emit(unit, "lut_tables")


def _unit(name: str, **params: str) -> tuple[str, str]:
    return rtl_pe.unit_module_name(name, **params), rtl_pe.unit_verilog(name, **params)


def _stream(name: str) -> tuple[str, str]:
    spec = pe_specs.stream(name)
    return spec.module_stem, streaming.verilog(spec)


PARTS = {
    "bit-serial cell": Part(_cell),
    "bit-serial column encoder": Part(_encoder),
    "fp32 accumulator": Part(lambda: _unit("fp32-accumulator")),
    "pair decoder, ovp4": Part(lambda: _unit("pair-decoder", reads="ovp4")),
    "pair decoder, ovp8": Part(lambda: _unit("pair-decoder", reads="ovp8")),
    "table of 16": Part(lambda: _tables(whole=True)),
    "half table of 8": Part(_tables),
    "half table of 8, fp16": Part(lambda: _tables(activation="fp16")),
    "int8-mac without Booth": Part(lambda: _stream("int8-mac"), booth=False),
    "shift-add without Booth": Part(lambda: _stream("shift-add"), booth=False),
    "opt1 without Booth": Part(lambda: _stream("opt1"), booth=False),
}


def rtl_sha256(name: str) -> str:
    """Hash of the Verilog that a row of this part must have."""
    return sha256_text(PARTS[name].make()[1])


def synthesize_part(name: str, node: str | Path, clock_mhz: float, cache: Path | None) -> dict[str, Any]:
    """The row of one part, sized for `clock_mhz`. Raises as `synthesis.synthesize_verilog`."""
    part, path = PARTS[name], library_path(node)
    library = wired_library(path)
    top, text = part.make()
    period_ps = round(1e6 / clock_mhz)
    made = synthesize_verilog(text, top, path, period_ps=period_ps, timeout_s=TIMEOUT_S, cache=cache, booth=part.booth)
    timing = analyse(made.netlist, library, surroundings(library)[1])
    found: dict[str, Any] = rounded(
        {
            "clock_mhz": clock_mhz,
            "area_um2": made.area.total_um2,
            "sequential_um2": made.area.sequential_um2,
            "min_period_ns": timing.min_period_ns,
            "fmax_mhz": timing.fmax_mhz,
            "leakage_uw": made.netlist.leakage_uw(library),
            "tool": made.provenance.tool,
            "library_sha256": library.sha256,
            "rtl_sha256": sha256_text(text),
            "flow_sha256": FLOW_SHA256,
        }
    )
    return found
