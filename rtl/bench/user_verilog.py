"""A user's own Verilog in place of a PE: its module and ports are checked, then a shell gives it the PE's name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError
from bitwright.rtl.bench.driver import CLOCK, ports_of
from bitwright.rtl.bench.environment import verilator_root

_QUIET = ("-Wno-fatal", "-Wno-lint", "-Wno-style")
_SHOWN_LINES = 3
_MODULE = re.compile(r"^\s*(?:\(\*.*?\*\)\s*)?(?:module|macromodule)\s+(?:static\s+|automatic\s+)?([A-Za-z_]\w*)", re.M)


@dataclass(frozen=True)
class UserPort:
    """A port as Verilator sees it: "input", "output" or "inout", and its width; bits is 0 if it is no vector."""

    direction: str
    bits: int

    def __str__(self) -> str:
        return f"{self.direction} of {self.bits} bit{'s' if self.bits != 1 else ''}" if self.bits else "an array"


def wanted_ports(verilog: str, top: str) -> dict[str, UserPort]:
    """The ports of our own PE, the clock included."""
    ports = {port.name: UserPort("output" if port.output else "input", port.bits) for port in ports_of(verilog, top)}
    return {CLOCK: UserPort("input", 1), **ports}


def load(path: Path, stem: str, wanted: Mapping[str, UserPort]) -> tuple[str, str]:
    """(Verilog, name of its top module) of the user's PE in `path`, ready for the benches.

    The PE is the module called `stem` if the file has one, else the file's only module; its parameters keep their
    defaults. Files that it includes are looked for beside it. Raises ConfigError for a file that cannot be read or
    that Verilator refuses, for a wire with several drivers, and for modules or ports that are not those of `wanted`.
    """
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"rtl = {path}: cannot be read ({error.strerror}); name a Verilog file") from error
    text = _verilator(path, "-E", "-P")
    module = _module(path, text, stem)
    _require_ports(path, module, ports(path, module), wanted)
    # Two assignments of one wire: simulators do not agree on its value.
    _verilator(path, "--lint-only", "-Werror-MULTIDRIVEN", "--top-module", module)
    top = f"{module}_bench"
    return _shell(top, module, wanted) + "\n" + text, top


def _verilator(path: Path, *arguments: str) -> str:
    """Standard output of Verilator on the user's file; ConfigError with the head of what it says against it."""
    source = path.resolve()
    binary = str(verilator_root() / "bin" / "verilator_bin")
    done = subprocess.run(
        [binary, *arguments, *_QUIET, f"-I{source.parent}", source.name],
        cwd=source.parent, env={**os.environ, "VERILATOR_ROOT": str(verilator_root())}, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        lines = [line.replace(f"{source.parent}/", "") for line in done.stderr.splitlines()]
        said = [line.strip() for line in lines if line.startswith("%Error") and "Exiting due to" not in line]
        raise ConfigError(f"rtl = {path}: Verilator refuses it: {' | '.join(said[:_SHOWN_LINES]) or 'no message'}")
    return done.stdout


def require_icarus(path: Path, text: str) -> None:
    """Raises ConfigError when Icarus refuses the text that `load` made of the file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path.name).write_text(text)
        command = ["iverilog", "-g2012", "-t", "null", path.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines()]
        raise ConfigError(f"rtl = {path}: Icarus refuses it: {' | '.join(said[:_SHOWN_LINES]) or 'no message'}")


def _module(path: Path, text: str, stem: str) -> str:
    """The module that is the PE."""
    found = list(dict.fromkeys(_MODULE.findall(text)))
    if stem in found:
        return stem
    if len(found) != 1:
        raise ConfigError(
            f"rtl = {path}: has {'modules ' + ', '.join(found) if found else 'no module'}: must have one module, or "
            f"one called {stem} (give the PE that name)"
        )
    return found[0]


def ports(path: Path, module: str) -> dict[str, UserPort]:
    """The ports of `module` in the user's file, parameters at their defaults, as Verilator elaborates them."""
    with tempfile.TemporaryDirectory() as folder:
        tree, meta = Path(folder) / "tree.json", Path(folder) / "meta.json"
        _verilator(
            path, "--json-only", "--json-only-output", str(tree), "--json-only-meta-output", str(meta), "--Mdir",
            folder, "--top-module", module,
        )  # fmt: skip
        netlist = json.loads(tree.read_text())
    types = {kind["addr"]: kind for kind in netlist["miscsp"][0]["typesp"]}
    top = next(item for item in netlist["modulesp"] if item["verilogName"] == module)
    found = {}
    for item in top["stmtsp"]:
        if item["type"] == "VAR" and item["direction"] in ("INPUT", "OUTPUT", "INOUT"):
            found[item["verilogName"]] = UserPort(item["direction"].lower(), _bits(types, item["dtypep"]))
    return found


def _bits(types: Mapping[str, Any], address: str) -> int:
    """Width of a vector's type; 0 for any other."""
    kind = types.get(address, {})
    if kind.get("type") == "PACKARRAYDTYPE":
        return _span(kind["declRange"]) * _bits(types, kind["refDTypep"])
    if kind.get("type") != "BASICDTYPE":
        return 0
    return _span(kind["range"]) if "range" in kind else 1


def _span(text: str) -> int:
    ends = [int(part) for part in text.strip("[]").split(":")]
    return abs(ends[0] - ends[-1]) + 1


def _require_ports(path: Path, module: str, got: Mapping[str, UserPort], wanted: Mapping[str, UserPort]) -> None:
    wrong = [f"no port {name} (must be {port})" for name, port in wanted.items() if name not in got]
    wrong += [f"{name} is {got[name]}: must be {port}" for name, port in wanted.items() if got.get(name, port) != port]
    wrong += [f"{name}: no such port in this PE" for name in got if name not in wanted]
    if wrong:
        raise ConfigError(f"rtl = {path}, module {module}: {'; '.join(wrong)}")


def _shell(top: str, module: str, wanted: Mapping[str, UserPort]) -> str:
    """A module with the ports, written as the drivers read it, around the user's."""
    names: Sequence[str] = list(wanted)
    lines = [f"module {top}({', '.join(names)});"]
    for name, port in wanted.items():
        lines.append(f"  {port.direction} {f'[{port.bits - 1}:0] ' if port.bits > 1 else ''}{name};")
    lines.append(f"  {module} dut({', '.join(f'.{name}({name})' for name in names)});")
    return "\n".join([*lines, "endmodule", ""])
