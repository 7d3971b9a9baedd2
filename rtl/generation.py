"""What `bitwright generate` writes: Verilog-2001 under a header that says what it is, and the same facts as JSON."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from bitwright.arch import machine, pe
from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.isa.limits import Channel, limits
from bitwright.arch.pe.stream import FIRST, LAST, Field, StreamSpec
from bitwright.rtl.bench.driver import ports_of

SCHEMA_VERSION = 1
_RESET = "synchronous, active high; clears control state only, nothing relies on what data registers hold before"
# Amaranth's widths are exact-plus-carry, unused bits are left to the tools, and registers have initial values.
_WAIVED = ("WIDTHEXPAND", "UNUSEDSIGNAL", "PROCASSINIT", "DECLFILENAME")
_WAIVED_OF_ACCELERATORS = ("CASEINCOMPLETE",)  # Amaranth gives the value of all other cases before the case
_FLAGS = (Field(FIRST, 1), Field(LAST, 1))


@dataclass(frozen=True)
class Design:
    """A design as `generate` writes it.

    Fields
        name : str               As asked for, with parameters.
        module : str             The top module.
        kind : "stream", "cell", "accelerator" or "unit-stream"   The last: streams of its own (bit-serial).
        params : dict            All parameters, defaults included.
        verilog : str            Without the header; its hash names the RTL.
        timing, payloads : what the sidecar says of them.
        description : str        What it computes and by which rules: the docstring of its spec or component.
    """

    name: str
    module: str
    kind: str
    params: dict[str, Any]
    verilog: str
    timing: dict[str, Any]
    payloads: dict[str, list[Field]]
    description: str

    @property
    def sha256(self) -> str:
        """Hash of the Verilog without its header."""
        return hashlib.sha256(self.verilog.encode()).hexdigest()

    def sidecar(self) -> dict[str, Any]:
        """Ports, widths, field packing, latency and reset as plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "module": self.module,
            "kind": self.kind,
            "params": self.params,
            "bitwright": version("bitwright"),
            "verilog_sha256": self.sha256,
            "clock": "clk",
            "reset": {"port": "rst", "kind": _RESET},
            "timing": self.timing,
            "ports": self._ports(),
            "description": self.description,
        }

    def _ports(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"name": "clk", "direction": "input", "bits": 1}]
        for port in ports_of(self.verilog, self.module):
            row: dict[str, Any] = {
                "name": port.name,
                "direction": "output" if port.output else "input",
                "bits": port.bits,
            }
            if port.name in self.payloads:
                row["fields"] = packing(self.payloads[port.name])
            rows.append(row)
        return rows

    def text(self) -> str:
        """The Verilog file: header, then the modules."""
        facts = self.sidecar()
        lines = [f"{self.name}: module {self.module}, by bitwright {facts['bitwright']}"]
        lines += [f"parameters: {', '.join(f'{key}={value}' for key, value in self.params.items()) or 'none'}"]
        lines += [f"timing: {', '.join(f'{key} = {value}' for key, value in self.timing.items())}"]
        lines += [f"clock clk, rising edge; reset rst: {_RESET}"]
        for row in facts["ports"]:
            lines.append(f"{row['direction']} [{row['bits'] - 1}:0] {row['name']}")
            lines += [f"    {_shown(part)}" for part in row.get("fields", [])]
        lines += ["", *self.description.splitlines()]
        head = "".join(f"// {line}".rstrip() + "\n" for line in lines)
        return head + "".join(f"// verilator lint_off {rule}\n" for rule in self.waived) + self.verilog

    @property
    def waived(self) -> tuple[str, ...]:
        """Rules of Verilator's lint that its Verilog does not keep."""
        return _WAIVED + (_WAIVED_OF_ACCELERATORS if self.kind == "accelerator" else ())


def packing(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Where each field lies in a payload, the first one lowest; lane i is at lsb + i * bits."""
    rows, lsb = [], 0
    for field in fields:
        rows.append(
            {"name": field.name, "lsb": lsb, "bits": field.bits, "lanes": field.lanes, "signed": field.signed}
        )  # fmt: skip
        lsb += field.bits * field.lanes
    return rows


def _shown(part: dict[str, Any]) -> str:
    sign = "signed" if part["signed"] else "unsigned"
    lanes = f", {part['lanes']} lanes, lane 0 lowest" if part["lanes"] > 1 else ""
    top = part["lsb"] + part["bits"] * part["lanes"] - 1
    return f"[{top}:{part['lsb']}] {part['name']}: {sign}, {part['bits']} bits{lanes}"


def is_machine(name: str) -> bool:
    """Whether the name is of the form of a machine's, or a file's."""
    return name in machine.names() or name.endswith((".yaml", ".yml")) or re.search(r"-\d+x\d+", name) is not None


def design_of(name: str, *, dataflow: str | None = None) -> Design:
    """The design called `name`: a PE with parameters (its stream form, or with `dataflow` its systolic cell), or a
    machine's whole accelerator.

    Raises ConfigError for an unknown name, parameter or dataflow.
    """
    base = name.partition(":")[0]
    require_known(name)
    if base in pe.all_names() and not is_machine(name):
        _, params = pe.parse_name(name)
        if dataflow is not None:
            return _cell(name, base, dataflow, params)
        if base in pe.stream_names():
            return _stream(name, pe.stream(base, **params))
        return _own_streams(name, pe.get(base, **params))
    if dataflow is not None:
        raise ConfigError(f"{name} dataflow = {dataflow!r}: a machine has its own (leave the option out)")
    loaded = machine.load(name)
    return _accelerator(name, loaded)


def require_known(name: str) -> None:
    """Raise ConfigError for a name that is neither a PE's nor looks like a machine's."""
    base = name.partition(":")[0]
    if base not in pe.all_names() and not is_machine(name):
        known = [*pe.all_names(), *machine.names()]
        raise ConfigError(
            f"design = {name!r}: no such PE or machine ({suggest(base, known)}; an array is "
            f"<pe>-<rows>x<cols>[-ws|-os])"
        )


def _accelerator(name: str, loaded: machine.Machine) -> Design:
    from bitwright.rtl.accelerator import top

    sizes = limits(loaded)
    facts = {
        "pe": loaded.pe,
        "rows": sizes.rows,
        "cols": sizes.cols,
        "dataflow": sizes.stationary,
        "port_bytes": sizes.port_bytes,
        **top.opened(loaded),
        "formats": [form.name for form in sizes.formats],
        **{f"{channel}_slot_{_unit(channel)}": sizes.capacity(channel) for channel in Channel},
    }
    module, text = top.verilog(sizes, **top.opened(loaded))
    timing = {"cycles": "those of `bitwright simulate --gemm` for the same program and memory (arch.isa.timing)"}
    return Design(name, module, "accelerator", facts, text, timing, {}, _doc(top.Accelerator))


def _unit(channel: Channel) -> str:
    """What the channel's slots are counted in."""
    return "rows" if channel is Channel.ACC else "beats"


def _cell(name: str, base: str, dataflow: str, params: dict[str, Any]) -> Design:
    from bitwright.rtl import pe as cells
    from bitwright.rtl.pe.cells import OutputStationaryCell, WeightStationaryCell
    from bitwright.rtl.pe.emit import plain

    if base not in pe.names():
        raise ConfigError(f"{base} dataflow = {dataflow!r}: this PE has none, it takes streams (leave the option out)")
    spec = pe.get(base, **params)
    if dataflow not in spec.dataflows:
        raise ConfigError(f"{base} dataflow = {dataflow!r}: no such cell ({suggest(dataflow, spec.dataflows)})")
    text = plain(cells.verilog(base, dataflow, **params))
    timing = {"latency_cycles": spec.timing.latency_cycles, **_cycles(1, 1)}
    facts = {"dataflow": dataflow, **spec.params}
    what = _doc(WeightStationaryCell if dataflow == "ws" else OutputStationaryCell)
    return Design(name, cells.module_name(base, dataflow, **params), "cell", facts, text, timing, {}, what)


def _stream(name: str, spec: StreamSpec) -> Design:
    from bitwright.rtl.pe import streaming

    timing = {
        "latency_cycles": spec.timing.latency_cycles,
        **_cycles(*spec.cycles_range),
        "macs_a_step": spec.macs_per_step,
    }
    payloads = {"step__payload": [*spec.step_fields, *_FLAGS], "sum__payload": list(spec.sum_fields)}
    text = streaming.verilog(spec)
    what = f"{_doc(type(spec))}\n\nEvery streaming PE:\n{_doc(StreamSpec)}"
    return Design(name, spec.module_stem, "stream", dict(spec.params), text, timing, payloads, what)


def _own_streams(name: str, spec: pe.PESpec) -> Design:
    from bitwright.arch.pe.terms import Encoding
    from bitwright.rtl.pe import streaming
    from bitwright.rtl.pe.bit_serial import SLICE, BitSerial

    fields = []
    for member, place in SLICE:
        lanes = getattr(place.shape, "length", 1)
        fields.append(Field(member, place.width // lanes, lanes))
    terms = [encoding.terms for encoding in Encoding]
    cycles = _cycles(min(terms), max(terms), "terms of the slice's encoding")
    timing = {"latency_cycles": spec.timing.latency_cycles, **cycles}
    payloads = {"slice__payload": fields, "column__payload": [Field("fp32", 32)]}
    text = streaming.verilog(spec)
    what = f"{_doc(BitSerial)}\n\n{_doc(type(spec))}"
    return Design(name, spec.module_stem, "unit-stream", dict(spec.params), text, timing, payloads, what)


def _cycles(least: int, most: int, rule: str = "decided by the step's codes, see the description") -> dict[str, Any]:
    """How many cycles a step occupies: the number if it is always the same, else what decides; and the bounds."""
    always = least if least == most else rule
    return {"cycles_a_step": always, "min_cycles_a_step": least, "max_cycles_a_step": most}


def _doc(cls: type) -> str:
    """The docstring, without the class data that only Python's readers need."""
    text = inspect.getdoc(cls) or ""
    return re.sub(r"\nClass data\n(?: .*\n?)+", "\n", text).rstrip()
