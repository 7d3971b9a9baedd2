"""The machine description: one PE array, its buffers, vector unit and memory, as a frozen config.

A machine is named (`arch/machines/*.yaml`), or written `<pe>-<rows>x<cols>[-ws|-os]` (weight- or
output-stationary; by default the first that the PE has), or the path of a YAML file of the user's own.
"""

from __future__ import annotations

import re
from enum import StrEnum
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from bitwright.arch import config, pe
from bitwright.arch.array_timing import ONE_ROW, WeightLoad
from bitwright.arch.config import Config
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.pe import broadcast
from bitwright.arch.pe.base import PESpec
from bitwright.arch.pe.tile_family import Family
from pydantic import Field, field_validator, model_validator

PositiveKib = Annotated[float, Field(gt=0, le=65536)]

PE_ALIASES = {"fp16": "fp16-mac", "int8": "int8-mac"}


def pe_by_name(value: str) -> str:
    """The full name of an array's PE given by name or alias (fp16, int8), with its parameters if it has some.

    Only PEs of broadcast tiles take parameters here ("lut:weight_bits=8"). Raises ValueError naming the closest.
    """
    name, colon, rest = value.partition(":")
    name = PE_ALIASES.get(name, name)
    known = _pe_names()
    if name not in known and name in pe.all_names():
        raise ValueError(f"no array takes this PE yet; those with one: {', '.join(known)}")
    if name not in known:
        raise ValueError(f"unknown PE; {suggest(value, known)}")
    if colon and name not in broadcast.names():
        raise ValueError(f"{name} takes no parameters in an array; write '{name}'")
    if colon:
        try:
            pe.parse_name(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return name + colon + rest


def costed_pe_by_name(value: str) -> str:
    """As `pe_by_name`, of the PEs that have cost tables: those of systolic arrays."""
    name = pe_by_name(value)
    if name not in pe.names():
        raise ValueError(f"no cost table has this PE yet; those with one: {', '.join(pe.names())}")
    return name


def _pe_names() -> list[str]:
    """Of all PEs that some array takes."""
    return sorted({*pe.names(), *broadcast.names()})


class Dataflow(StrEnum):
    """Which operand stays in the PE."""

    WEIGHT_STATIONARY = "ws"
    OUTPUT_STATIONARY = "os"


class DramTiming(StrEnum):
    """How long the tile engine's transfers take."""

    BANDWIDTH = "bandwidth"  # peak bandwidth and one latency, of `arch/costs/dram.json`
    BANKS = "banks"  # rows, banks, refresh, turnaround, of `arch.dram`


class Array(Config):
    """Array of rows x cols PEs: systolic, or a broadcast tile (`arch.pe.broadcast`), which is output-stationary.

    Weight-stationary: a row is one element of the reduction dimension, a column one output channel.
    Output-stationary: a row is one token, a column one output channel.

    How weights enter a weight-stationary array: `load_rows` rows a cycle (a divisor of `rows`; more than one take
    registers that hold them back to the diagonal, see `rtl.array.systolic`), `double_buffered` into a second register
    of each cell. In the others weights stream past the cells: they take neither.
    """

    rows: Annotated[int, Field(ge=1, le=256)]
    cols: Annotated[int, Field(ge=1, le=256)]
    dataflow: Dataflow = Dataflow.WEIGHT_STATIONARY
    load_rows: Annotated[int, Field(ge=1, le=256)] = 1
    double_buffered: bool = True

    @model_validator(mode="after")
    def _loads_weights(self) -> Array:
        if self.rows % self.load_rows:
            raise ValueError(f"load_rows = {self.load_rows}: must divide rows = {self.rows}")
        if self.dataflow is not Dataflow.WEIGHT_STATIONARY and self.load != ONE_ROW:
            raise ValueError("load_rows, double_buffered: only weights that stay are loaded (dataflow: ws)")
        return self

    @property
    def load(self) -> WeightLoad:
        """How weights enter it."""
        return WeightLoad(self.load_rows, self.double_buffered)


class Buffers(Config):
    """On-chip SRAM, total capacity of each buffer in KiB; half of each is one of two double-buffer slots."""

    act_kib: PositiveKib = 32
    wgt_kib: PositiveKib = 32
    out_kib: PositiveKib = 32

    def capacity_bytes(self, tensor: str) -> int:
        """Total bytes of the buffer of `tensor`: 'act', 'wgt' or 'out'."""
        return int(getattr(self, f"{tensor}_kib") * 1024)

    def slot_bytes(self, tensor: str) -> int:
        """Bytes of one double-buffer slot of `tensor`."""
        return self.capacity_bytes(tensor) // 2


class Vector(Config):
    """Vector unit: `lanes` fp16 multiply-add lanes, one element operation a lane a cycle."""

    lanes: Annotated[int, Field(ge=1, le=4096)] = 16


MOST_OPEN = 64
"""Bursts of a direction that the memory port can keep track of."""


class Port(Config):
    """The accelerator's AXI4 memory port: bytes of a beat, and bursts of each direction that it keeps open."""

    bytes: Literal[8, 16, 32, 64] = 16
    outstanding_reads: Annotated[int, Field(ge=1, le=MOST_OPEN)] = 16
    outstanding_writes: Annotated[int, Field(ge=1, le=MOST_OPEN)] = 16


class Machine(Config):
    """A whole accelerator.

    Members
        pe : name of a PE spec (`bitwright list pes`); of a broadcast tile also with parameters, "lut:weight_bits=8"
        array : rows, cols, dataflow
        buffers : act_kib, wgt_kib, out_kib, each split into two slots
        dram : name of a DRAM preset (`bitwright list drams`)
        dram_timing : how long the tile engine's transfers take: bandwidth, peak bandwidth and one latency over one
            channel; or banks, the device with all its channels, rows, banks, refresh and turnaround (docs/dram.md).
            One transfer is granted at a time, the one asked for first, a load before a store of the same cycle.
        clock_mhz : one clock for all; refused above the PE's own fmax at the node, where a table knows that
        node : cost table to use
        vector : lanes
        port : bytes, outstanding_reads, outstanding_writes of the accelerator's memory port
        formats : weight formats that the accelerator is generated with, in the order of an Execute's field `format`;
            None: those of `arch.isa.limits.USUAL_FORMATS` that its PE takes. Activations have the PE's own.
        memory : the fixed times of the memory behind the port (`arch.fixed_memory`); `dram` is that of the tile engine
    """

    name: str
    pe: str
    array: Array
    buffers: Buffers = Buffers()
    dram: str = "ddr4-3200-x16"
    dram_timing: DramTiming = DramTiming.BANDWIDTH
    clock_mhz: Annotated[float, Field(ge=0.001, le=10000)] = 250
    node: str = "nangate45"
    vector: Vector = Vector()
    port: Port = Port()
    formats: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    memory: FixedMemory = FixedMemory()

    @field_validator("pe")
    @classmethod
    def _known_pe(cls, value: str) -> str:
        return pe_by_name(value)

    @field_validator("formats")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("must name each format once")
        return value

    @model_validator(mode="after")
    def _fits_pe(self) -> Machine:
        flows, own = dataflows(self.pe), self.array.dataflow.value
        if own not in flows:
            raise ValueError(f"array.dataflow = '{own}': PE {self.pe} supports {', '.join(flows)}")
        try:
            _ = self.spec
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def spec(self) -> PESpec:
        """The PE; of a broadcast tile with the parameters that follow from its rows and columns."""
        name, params = pe.parse_name(self.pe)
        if name in broadcast.names():
            return broadcast.tile_spec(name, self.array.rows, self.array.cols, params)
        return pe.get(name)

    @property
    def tile(self) -> Family | None:
        """What a broadcast tile's PE tells of itself; None for a systolic array."""
        return broadcast.tile_of(self.spec)

    def macs_a_cycle(self, weight_format: str) -> Fraction:
        """Products that the array makes with every lane at work."""
        places, tile = self.array.rows * self.array.cols, self.tile
        if tile is None:
            return Fraction(places)
        return Fraction(places * tile.lanes * tile.values(weight_format), tile.step_cycles(weight_format))

    @property
    def physical_cols(self) -> int:
        """Columns of cells, with the constant-one column of PEs that correct zero points after the group."""
        return self.array.cols + (1 if self.spec.zero_point_column else 0)

    @property
    def cells(self) -> int:
        """Number of PE cells in the array."""
        return self.array.rows * self.physical_cols


def dataflows(pe_name: str) -> tuple[str, ...]:
    """Which dataflows an array of a PE (as `pe_by_name` gives it) has; a broadcast tile is output-stationary."""
    name = pe_name.partition(":")[0]
    return ("os",) if name in broadcast.names() else pe.get(name).dataflows


def has_costs(machine: Machine) -> bool:
    """Whether cost tables have its PE and its way to load weights: else its area and energy are not known."""
    return machine.pe in pe.names() and machine.array.load == ONE_ROW


_GENERIC = re.compile(r"^(?P<pe>[a-z0-9-]+?(?::[a-z0-9_=,-]+)?)-(?P<rows>\d+)x(?P<cols>\d+)(?:-(?P<dataflow>ws|os))?$")


def names() -> list[str]:
    """Names of the machines that ship with bitwright; `<pe>-<rows>x<cols>[-ws|-os]` works beside them."""
    folder = resources.files("bitwright.arch.machines")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(name_or_path: str) -> Machine:
    """A machine by name, by the pattern `<pe>-<rows>x<cols>[-ws|-os]`, or from a YAML file.

    Raises ConfigError for an unknown name, an unreadable file, an unknown key or a value out of range.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        return config.load(Machine, Path(name_or_path))
    if name_or_path in names():
        path = resources.files("bitwright.arch.machines").joinpath(f"{name_or_path}.yaml")
        return config.load(Machine, Path(str(path)))
    match = _GENERIC.match(name_or_path)
    if match is None and name_or_path.partition(":")[0] in pe.all_names():
        raise ConfigError(
            f"machine '{name_or_path}': is a PE; a machine has rows and columns too (such as int8-16x16, or with `pe:` "
            "and `array:` in a YAML file)"
        )
    if match is None and Path(name_or_path).is_file():
        raise ConfigError(f"machine '{name_or_path}': is a file whose name does not end in .yaml or .yml (rename it)")
    if match is None:
        raise ConfigError(
            f"machine '{name_or_path}': unknown; {suggest(name_or_path, names())}, "
            "a pattern such as int8-16x16 or int8-16x16-os, or the path of a YAML file"
        )
    data: dict[str, Any] = {
        "name": name_or_path,
        "pe": match["pe"],
        "array": {
            "rows": int(match["rows"]),
            "cols": int(match["cols"]),
            "dataflow": match["dataflow"] or ("os" if match["pe"].partition(":")[0] in broadcast.names() else "ws"),
        },
    }
    return config.validate(Machine, data, f"machine '{name_or_path}'")


def with_changes(
    machine: Machine,
    *,
    buffers_kib: str | None = None,
    dram: str | None = None,
    dram_timing: str | None = None,
    clock_mhz: float | None = None,
    vector_lanes: int | None = None,
    node: str | None = None,
    memory_latency: int | None = None,
    memory_beat_cycles: int | None = None,
) -> Machine:
    """`machine` with some members replaced (None: left as it is).

    `buffers_kib` is "act,wgt,out". Raises ConfigError for a value out of range.
    """
    data = machine.model_dump(mode="json")
    if buffers_kib is not None:
        parts = buffers_kib.split(",")
        try:
            act, wgt, out = (float(part) for part in parts)
        except ValueError:
            raise ConfigError(
                f"buffers-kib = {buffers_kib}: must be three numbers act,wgt,out such as 32,32,32; the command line"
            ) from None
        data["buffers"] = {"act_kib": act, "wgt_kib": wgt, "out_kib": out}
    for name, value in (
        ("dram", dram), ("dram_timing", dram_timing), ("clock_mhz", clock_mhz), ("node", node)
    ):  # fmt: skip
        if value is not None:
            data[name] = value
    for name, value in (("latency_cycles", memory_latency), ("beat_cycles", memory_beat_cycles)):
        if value is not None:
            data["memory"][name] = value
    if vector_lanes is not None:
        data["vector"] = {"lanes": vector_lanes}
    return config.validate(Machine, data, "the command line")
