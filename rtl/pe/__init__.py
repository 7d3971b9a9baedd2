"""Processing elements as hardware: array cells and column-edge units, and their Verilog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitwright.arch import pe as specs
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.pe import units as unit_specs

if TYPE_CHECKING:
    from bitwright.rtl.pe.cells import OutputStationaryCell, WeightStationaryCell

__all__ = ["cell", "module_name", "unit", "unit_module_name", "unit_verilog", "verilog"]


def _spec(pe: str, dataflow: str, params: dict[str, Any]) -> specs.PESpec:
    spec = specs.get(pe, **params)
    if dataflow not in spec.dataflows:
        raise ConfigError(f"{pe} dataflow = {dataflow!r}: no such cell ({suggest(dataflow, spec.dataflows)})")
    return spec


def cell(
    pe: str, dataflow: str, *, operand_isolation: bool = False, **params: Any
) -> WeightStationaryCell | OutputStationaryCell:
    """The Amaranth component of PE `pe` for `dataflow` ("ws" or "os"); `params` are the spec's fields, and
    `operand_isolation` is as in `rtl.pe.cells`.

    Raises ConfigError for an unknown PE, parameter or dataflow.
    """
    from bitwright.rtl.pe.cells import OutputStationaryCell, WeightStationaryCell

    spec = _spec(pe, dataflow, params)
    made = WeightStationaryCell if dataflow == "ws" else OutputStationaryCell
    return made(spec, operand_isolation=operand_isolation)


def module_name(pe: str, dataflow: str, **params: Any) -> str:
    """The name of the cell's Verilog module, such as `int8_mac_ws`; different for different parameters."""
    return f"{_spec(pe, dataflow, params).module_stem}_{dataflow}"


def verilog(pe: str, dataflow: str, *, operand_isolation: bool = False, **params: Any) -> str:
    """Verilog of the cell: exactly one module, the same text in every run. Ports as the cell's docstring says,
    plus `clk` and a synchronous, active-high `rst`."""
    from bitwright.rtl.pe.emit import emit

    component = cell(pe, dataflow, operand_isolation=operand_isolation, **params)
    return emit(component, component.module_name)


def unit(name: str, **params: Any) -> Any:
    """The Amaranth component of edge unit `name`; `params` are the fields of its spec in `arch.pe.units`.

    Raises ConfigError for an unknown unit or parameter, FormatError for a format that it cannot decode.
    """
    from bitwright.rtl.pe.units import build

    return build(unit_specs.get(name, **params))


def unit_module_name(name: str, **params: Any) -> str:
    """The name of the unit's Verilog module, such as `group_dequantiser_p19_s15_z4`."""
    return unit_specs.get(name, **params).module_name


def unit_verilog(name: str, **params: Any) -> str:
    """Verilog of an edge unit: exactly one module, the same text in every run."""
    from bitwright.rtl.pe.emit import emit

    component = unit(name, **params)
    return emit(component, component.spec.module_name)
