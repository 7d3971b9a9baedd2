"""Verilog to library cells with Yosys: one script, one effort, for every design.

The flow moves the answer more than the design does (one int8 MAC: 846 to 1728 um2 by options alone), so the
script, the tool's version, the delay target and the multiplier style (Booth) are the same for all and are written
down with every result. ABC buffers and sizes against a delay target with a stated driving cell and load; there is
no placement and no clock tree. FA/HA cells are never used (ABC maps single-output cells only).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import secrets
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitwright.arch.errors import ConfigError, ToolError
from bitwright.rtl.asic.choice import Boundary, chosen, surroundings, wired_library
from bitwright.rtl.asic.hierarchy import Hierarchy
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Area, Netlist, from_yosys

_GENERIC = ("abc -script generic.abc", "opt -fast")
SCRIPT = (
    "read_verilog rtl.v",
    "synth -noabc -flatten -booth -top {top}",
    *_GENERIC,
    "dfflibmap -liberty {liberty}",
    "abc -liberty {liberty} -D {delay_ps} -constr boundary.constr -script mapping.abc",
    "opt_clean -purge",
    "stat -liberty {liberty}",
    "write_json netlist.json",
    "write_verilog -noattr -noexpr netlist.v",
)
HIGH, LOW = "high", "low"
EFFORTS = (HIGH, LOW)
GENERIC = ("strash", "dc2", "dch -f", "map")
"""ABC's commands on generic gates, before flip-flops and cells are chosen. In place of the pass of Yosys' `synth`,
whose SAT sweeping (`&fraig -x`) took a quarter of an hour over the 32 multipliers of mxint8-dot and made them larger.
"""
MAPPING = (
    "strash",
    "scorr",
    "dc2",
    "dch -f",
    "map -B 0.5",
    "topo",
    "buffer -c",
    "upsize -D {delay_ps}",
    "dnsize -D {delay_ps}",
)
"""ABC's on cells: clean-up, choices, mapping for delay, buffers, sizing up for the target and down where it is met."""
LEAST_GATED = 4
"""Registers that share an enable, from which on a clock gate is put in."""
ABC_SHARE = 0.75
"""Part of the period that is ABC's delay target; the rest is for registers and wire loads, which ABC does not see."""


@dataclass(frozen=True)
class Provenance:
    """Everything needed to make a netlist again."""

    tool: str
    script: tuple[str, ...]
    library: str
    library_sha256: str
    rtl_sha256: str
    period_ps: int
    boundary: Boundary


@dataclass(frozen=True)
class Synthesis:
    """A mapped design. `verilog` is the netlist's own text (for other tools), `processor_s` what Yosys took."""

    netlist: Netlist
    verilog: str
    area: Area
    provenance: Provenance
    processor_s: float


def yosys_version() -> str:
    """`pyosys 0.70`. Raises ToolError when pyosys is not installed."""
    try:
        return f"pyosys {version('pyosys')}"
    except PackageNotFoundError:
        raise ToolError("yosys: pyosys is not installed (python -m pip install pyosys==0.70)") from None


def sha256_text(text: str) -> str:
    """Hash of a text in UTF-8; the identity of a Verilog module in cost tables."""
    return hashlib.sha256(text.encode()).hexdigest()


FLOW_SHA256 = sha256_text(json.dumps([SCRIPT, GENERIC, MAPPING, ABC_SHARE, LEAST_GATED]))
"""Of all that a flow is made of: rows of tables made with another are stale."""


def synthesize_verilog(
    verilog: str,
    top: str,
    liberty: Path,
    *,
    period_ps: int,
    boundary: Boundary | None = None,
    timeout_s: float = 900.0,
    cache: Path | None = None,
    booth: bool = True,
    effort: str = HIGH,
    clock_gating: bool = False,
) -> Synthesis:
    """Map one Verilog module onto the cells of a Liberty file.

    verilog     Text with the module `top`, one clock; no latches, no asynchronous resets.
    period_ps   Clock period; ABC sizes for ABC_SHARE of it. The result may still be slower: ask timing.analyse.
    boundary    As choice.surroundings says of the library when None.
    cache       Folder of netlists made before, found by everything that Provenance holds; None keeps none.
    booth       Off: multipliers as Yosys makes them without its option (to show what it moves; all tables have it on).
    effort      HIGH, as all tables have it, or LOW: without GENERIC. What it moves: docs/stream-costs.md.
    clock_gating   Registers with an enable, LEAST_GATED or more with the same one, get the library's clock gate.
    Raises ToolError when pyosys or the library is missing, or when Yosys fails or takes longer than timeout_s;
    ConfigError for a period that is not positive, and for clock gating with a library that has no clock gate.
    """
    script = SCRIPT if booth else tuple(line.replace(" -booth", "") for line in SCRIPT)
    script = of_effort(script, effort)
    if clock_gating:
        script = gated(script, wired_library(liberty))
    found = _mapped(
        verilog, top, liberty, script, period_ps=period_ps, boundary=boundary, timeout_s=timeout_s, cache=cache
    )
    netlist = from_yosys(found.document, top)
    _refuse_unmodelled(netlist, found.library)
    return Synthesis(netlist, found.verilog, netlist.area(found.library), found.provenance, found.processor_s)


def of_effort(script: tuple[str, ...], effort: str) -> tuple[str, ...]:
    """The script; without the pass on generic gates if `effort` is LOW."""
    assert effort in EFFORTS, f"effort {effort}"
    return script if effort == HIGH else tuple(line for line in script if line not in _GENERIC)


def with_abc(script: tuple[str, ...]) -> tuple[str, ...]:
    """The script and ABC's commands that it runs."""
    return (*script, *(GENERIC if _GENERIC[0] in script else ()), *MAPPING)


def gated(script: tuple[str, ...], library: Library) -> tuple[str, ...]:
    """The script with clock gating before flip-flops are mapped. Raises ConfigError for a library without the cell."""
    gate = chosen(library).clock_gate
    if not gate:
        raise ConfigError(f"clock gating: {library.where} has no clock gate for rising edges (leave the option out)")
    cell = library.cell(gate).gate
    assert cell is not None, "chosen names a clock gate"
    tied = f" -tie_lo {cell.test}" if cell.test else ""
    line = f"clockgate -pos {gate} {cell.enable}:{cell.clock}:{cell.output}{tied} -min_net_size {LEAST_GATED}"
    at = next(i for i, one in enumerate(script) if one.startswith("dfflibmap"))
    return (*script[:at], line, *script[at:])


def synthesize_hierarchy(
    verilog: str,
    top: str,
    liberty: Path,
    *,
    period_ps: int,
    kept: Collection[str],
    black_boxes: Collection[str],
    timeout_s: float,
    effort: str = HIGH,
) -> tuple[Hierarchy, Provenance]:
    """Map a design module by module, by the same script: modules in `kept` stay, each mapped once however often it is
    instantiated; those in `black_boxes` stay empty; the others are flattened into what holds them.

    ABC sees each module alone, with all of ABC_SHARE of the period for it: ask timing.analyse for the whole.
    Raises ToolError and ConfigError as `synthesize_verilog`.
    """
    marks = [f"blackbox {' '.join(sorted(black_boxes))}"] if black_boxes else []
    marks += [f"setattr -mod -set keep_hierarchy 1 {' '.join(sorted(kept))}"] if kept else []
    script = of_effort((SCRIPT[0], "hierarchy -top {top}", *marks, *SCRIPT[1:]), effort)
    found = _mapped(verilog, top, liberty, script, period_ps=period_ps, boundary=None, timeout_s=timeout_s)
    return Hierarchy(found.document, top, frozenset(black_boxes)), found.provenance


@dataclass(frozen=True)
class _Mapped:
    """Yosys' JSON document, the netlist's Verilog, the library, how it was made, and Yosys' processor seconds then."""

    document: dict[str, Any]
    verilog: str
    library: Library
    provenance: Provenance
    processor_s: float


def _mapped(
    verilog: str,
    top: str,
    liberty: Path,
    script: tuple[str, ...],
    *,
    period_ps: int,
    boundary: Boundary | None,
    timeout_s: float,
    cache: Path | None = None,
) -> _Mapped:
    if period_ps <= 0:
        raise ConfigError(f"period_ps = {period_ps}: must be positive")
    tool = yosys_version()
    if find_spec("pyosys") is None:
        raise ToolError("yosys: pyosys is not installed (python -m pip install pyosys==0.70)")
    library = wired_library(liberty)
    boundary = boundary or surroundings(library)[0]
    script = _with_ties(script, library)
    values = {"top": top, "liberty": "library.lib", "delay_ps": round(ABC_SHARE * period_ps)}
    shown = tuple(line.format(**{**values, "liberty": "LIBRARY"}) for line in with_abc(script))
    made_by = [tool, shown, library.sha256, sha256_text(verilog), period_ps, asdict(boundary)]
    kept = cache and cache / f"{top}-{sha256_text(json.dumps(made_by))[:24]}.netlist.gz"
    if kept and kept.is_file():
        document, text, processor_s = json.loads(gzip.decompress(kept.read_bytes()))
    else:
        with TemporaryDirectory(prefix="bitwright-synthesis-") as folder:
            work = Path(folder)
            (work / "library.lib").write_text(library.text)
            (work / "rtl.v").write_text(verilog)
            (work / "boundary.constr").write_text(
                f"set_driving_cell {boundary.driving_cell}\nset_load {boundary.load_ff} [all_outputs]\n"
            )
            (work / "generic.abc").write_text("\n".join(GENERIC) + "\n")
            (work / "mapping.abc").write_text("\n".join(line.format(**values) for line in MAPPING) + "\n")
            (work / "run.ys").write_text("\n".join(line.format(**values) for line in script) + "\n")
            processor_s = -_children_s()
            _run_yosys(work, top, timeout_s)
            processor_s += _children_s()
            document = json.loads((work / "netlist.json").read_text())
            text = (work / "netlist.v").read_text()
        if kept:
            _keep(kept, [document, text, processor_s])
    provenance = Provenance(
        f"{tool} ({document['creator'].split(',')[0].removeprefix('Yosys ')})",
        shown,
        library.name,
        library.sha256,
        sha256_text(verilog),
        period_ps,
        boundary,
    )
    return _Mapped(document, text, library, provenance, processor_s)


def _children_s() -> float:
    """Processor seconds of the programs that this one has run to their end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _with_ties(script: tuple[str, ...], library: Library) -> tuple[str, ...]:
    """The script; where every flip-flop has an asynchronous input, with one tie cell for all of them before `stat`."""
    choice = chosen(library)
    if not choice.ties_flip_flops:
        return script
    assert choice.tie_high is not None, "chosen refuses a library without"
    assert choice.tie_low is not None, "chosen refuses a library without"
    ties = f"hilomap -singleton -hicell {' '.join(choice.tie_high)} -locell {' '.join(choice.tie_low)}"
    at = next(i for i, line in enumerate(script) if line.startswith("stat "))
    return (*script[:at], ties, *script[at:])


def _keep(path: Path, data: Any) -> None:
    """Write beside the file and rename, so that a kill leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    partial.write_bytes(gzip.compress(json.dumps(data).encode(), 3))
    os.replace(partial, path)


def _run_yosys(work: Path, top: str, timeout_s: float) -> None:
    driver = Path(__file__).with_name("yosys_driver.py")
    command = [sys.executable, "-P", str(driver), "run.ys"]
    try:
        done = subprocess.run(
            command,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(f"yosys: module {top} took longer than {timeout_s:g} s (raise timeout_s)") from None
    if done.returncode != 0 or not (work / "netlist.json").is_file():
        lines = (done.stdout + done.stderr).strip().splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:]
        raise ToolError(f"yosys: module {top}: status {done.returncode}: {' '.join(errors) or 'no message'}")


def _refuse_unmodelled(netlist: Netlist, library: Library) -> None:
    constants = {0: False, 1: True}
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        if not cell.inputs:
            constants |= {
                instance.pins[pin.name]: pin.function.at()
                for pin in cell.outputs
                if pin.function and pin.name in instance.pins
            }
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        if cell.is_latch and cell.gate is None:
            raise ConfigError(f"cell {instance.name} = {cell.name}: latches are not modelled; module {netlist.name}")
        for expression in cell.ff.forced if cell.ff is not None else ():
            tied = {name: constants.get(instance.pins.get(name, 0)) for name in expression.inputs}
            if None in tied.values() or expression.at(**{name: bool(bit) for name, bit in tied.items()}):
                raise ConfigError(
                    f"cell {instance.name} = {cell.name}: asynchronous reset is not modelled; module {netlist.name}"
                )
