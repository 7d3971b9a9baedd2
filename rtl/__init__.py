"""How a design is built: Amaranth hardware, Verilog, testbenches, synthesis.

`generate`, `verify` and `synthesize` are the commands of the same name. Importing this module imports no tool.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.arch.errors import ConfigError, MismatchError

if TYPE_CHECKING:
    import numpy as np
    from bitwright.arch.isa.limits import Limits
    from bitwright.arch.machine import Machine
    from bitwright.rtl.bench.accelerator_runner import AcceleratorRun, CompiledAccelerator
    from bitwright.rtl.bench.verification import Verdict
    from numpy.typing import NDArray


STREAM = "stream"
LEAST_CLOCK_MHZ, MOST_CLOCK_MHZ = 1, 10_000
"""That a mapping can be asked for."""


def generate(name: str, output: Path, *, dataflow: str | None = None, fusesoc: bool = False) -> Path:
    """Write the Verilog of a PE or of a machine's accelerator, and beside it a JSON file of the same facts.

    name : a PE with parameters (`int8-mac`, `lut:m=1,n=8`) in its stream form, or with `dataflow` ("ws" or "os") its
    systolic cell; or a machine. The JSON file has the output's name with the suffix .json; of a machine there is also
    the C header of its registers, suffix .h. With `fusesoc` (machines only) also a CAPI2 core file with targets lint
    and sim, suffix .core, and the testbench of sim, <output>_tb.v. Files of an earlier run are written over.
    Raises ConfigError for an unknown name, parameter or dataflow, for a path that cannot be written, and for a file
    beside the output that is not of an earlier run; ToolError without Amaranth.
    """
    import json
    from importlib.metadata import version

    _require_amaranth()
    from bitwright.arch.registers import c_header
    from bitwright.rtl.generation import design_of

    sidecar, header = output.with_suffix(".json"), output.with_suffix(".h")
    for taken, what in ((sidecar, "the ports"), (header, "the registers")):
        if taken == output:
            raise ConfigError(f"output = {output}: {taken.suffix} is for {what} beside it; choose another suffix (.v)")
    _check_writable(output)
    given = Path(name)
    if given.exists() and given.resolve() in (output.resolve(), sidecar.resolve()):
        raise ConfigError(f"output = {output}: would be written over the machine's file {name}; choose another name")
    design = design_of(name, dataflow=dataflow)
    if fusesoc and design.kind != "accelerator":
        raise ConfigError(f"fusesoc: {name} is a {design.kind}; only a machine's accelerator has a core file")
    texts = {output: design.text(), sidecar: json.dumps(design.sidecar(), indent=1) + "\n"}
    if design.kind == "accelerator":
        texts[header] = c_header()
    if fusesoc:
        from bitwright.rtl.fusesoc import files

        texts |= files(design, output, version("bitwright"))
    for path in texts.keys() - {output}:
        if path.exists() and b"bitwright" not in path.read_bytes():
            raise ConfigError(f"output = {output}: {path} beside it is not bitwright's; move it or choose another name")
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"output = {path}: cannot be written ({error.strerror}); choose another path") from error
    return output


def _check_writable(output: Path) -> None:
    """Before minutes of work: raises ConfigError where `output` can be no file."""
    if output.is_dir():
        reason = "Is a directory"
    elif not output.parent.is_dir():
        reason = "No such directory"
    elif not os.access(output if output.exists() else output.parent, os.W_OK):
        reason = "Permission denied"
    else:
        return
    raise ConfigError(f"output = {output}: cannot be written ({reason}); choose another path")


def run_program(
    machine: Machine, limits: Limits, program: bytes, memory: Sequence[NDArray[np.uint8]], **options: Any
) -> AcceleratorRun:
    """Run a program on the compiled Verilog of a machine's accelerator; `memory` changes in place.

    `limits` are the machine's, as its program sees it; port and memory are the machine's. Other arguments and errors
    as of `bitwright.rtl.bench.accelerator_runner.CompiledAccelerator.run`. The first run of a machine compiles it,
    which takes from half a minute (4x4) to several minutes (32x32).
    """
    _require_amaranth()
    from bitwright.rtl.accelerator.top import opened

    return _compiled(limits, **opened(machine)).run(program, memory, machine.memory, **options)


@lru_cache
def _compiled(limits: Limits, **opened: int) -> CompiledAccelerator:
    from bitwright.rtl.accelerator.top import verilog
    from bitwright.rtl.bench.accelerator_runner import CompiledAccelerator

    module, text = verilog(limits, **opened)
    return CompiledAccelerator(text, module, limits)


def _require_amaranth() -> None:
    from importlib.util import find_spec

    from bitwright.arch.errors import ToolError

    if find_spec("amaranth") is None:
        raise ToolError("amaranth: not installed; run: pip install -e '.[hdl]'")


def verify(
    name: str, *, simulator: str = "verilator", rtl: Path | None = None, latency_cycles: int | None = None,
    seed: int = 1, waves: Path | None = None,
) -> Iterator[Verdict]:  # fmt: skip
    """Run the benches of a PE ("all": of every PE): (design, tests that passed) as they end, each with its `kind`.

    name : a PE with parameters (`int8-mac`, `lut:m=1,n=8`). The other arguments as in
    `bitwright.rtl.bench.verification.Options`.
    Raises ConfigError for an unknown PE, a wrong option or a Verilog file that is no such PE, FailedTestsError (a
    MismatchError with its `failures`) when a test fails or its bench does, ToolError when a tool is missing.
    """
    from bitwright.arch import pe

    names = pe.all_names() if name == "all" else [name]
    if name != "all":
        pe.parse_name(name)
    _require_amaranth()
    from bitwright.rtl.bench.verification import Options, verify_pe

    options = Options(simulator, rtl, latency_cycles, seed, waves)
    options.require_legal(name)
    for item in names:
        yield from verify_pe(item, options)


def failures(error: MismatchError) -> dict[str, Any]:
    """What `verify` found wrong, for a JSON document: "failures", a row a failed test, and "replay", the command."""
    from bitwright.rtl.bench.cocotb_runner import FailedTestsError

    if isinstance(error, FailedTestsError):
        return error.as_json()
    return {"failures": [{"message": str(error)}], "replay": ""}


def prove(name: str, *, solver: str = "yices", timeout_s: float = 120, write: bool = False) -> Iterator[Any]:
    """Formal proofs of PE `name` ("all": of every PE by default) or of a machine's control, as `rtl.formal.Result`s.

    `write` puts each of a PE into docs/evidence. Raises ConfigError for an unknown PE, machine, parameter or
    solver, and for `write` of a machine; ToolError when a tool is missing.
    """
    from bitwright.arch import pe

    _require_amaranth()
    from bitwright.rtl.generation import is_machine
    from bitwright.rtl.proving import prove_machine, prove_pe

    if is_machine(name):
        if write:
            raise ConfigError(f"write: {name} is a machine; docs/evidence has rows of PEs (leave it out)")

        yield from prove_machine(name, solver, timeout_s)
        return

    names = pe.all_names() if name == "all" else [name]
    chosen = [pe.parse_name(item) for item in names]
    for item, params in chosen:
        yield from prove_pe(item, params, solver, timeout_s, write=write)


def synthesize(
    name: str,
    *,
    dataflow: str | None = None,
    node: str | Path = "nangate45",
    clock_mhz: float = 250,
    fmax: bool = False,
    clock_gating: bool = False,
    operand_isolation: bool = False,
    effort: str = "high",
) -> dict[str, Any]:
    """Area, clock and energy of PE `name`, or area and clock of each block of machine `name`, sized for `clock_mhz`.

    With `fmax` (PEs only) sized again for more than it reached until that gains nothing, and then for what it reached,
    as cells.fastest says. A PE in its systolic cell of `dataflow` ("ws" if it has one) or, where it has none,
    parameters are given or `dataflow` is "stream", its stream form. A cell's energies are of its logic and clock pins
    alone; a stream form's have leakage and the clock tree too (`terms_pj_per_mac`).
    With `clock_gating` (PEs only) registers that share an enable get the library's clock gates; with
    `operand_isolation` (PEs only) operands are held at 0 while the PE has none of its own.
    `effort` is "high", as in all tables, or "low": less optimisation, in a tenth of the time where that is long.
    `node` is a named one, or the path of a Liberty file (a machine's memories then have no figures).
    Raises ConfigError for an unknown PE, machine, dataflow or node and for a library that lacks cells or units,
    ToolError when the library or Yosys is missing.
    """
    from bitwright.arch import pe

    _require_amaranth()
    if not LEAST_CLOCK_MHZ <= clock_mhz <= MOST_CLOCK_MHZ:
        raise ConfigError(f"clock_mhz = {clock_mhz:g}: must be {LEAST_CLOCK_MHZ}..{MOST_CLOCK_MHZ}; the command line")
    from bitwright.rtl.asic.synthesis import EFFORTS
    from bitwright.rtl.generation import is_machine, require_known

    if effort not in EFFORTS:
        raise ConfigError(f"effort = {effort}: must be {' or '.join(EFFORTS)}; the command line")

    base = name.partition(":")[0]
    if base not in pe.all_names() or is_machine(name):
        from bitwright.rtl.asic import accelerators

        require_known(name)
        if dataflow is not None:
            raise ConfigError(f"{name} dataflow = {dataflow!r}: a machine has its own (leave the option out)")
        if fmax:
            raise ConfigError(f"{name} fmax: the search is for PEs (choose a clock)")
        if clock_gating:
            raise ConfigError(f"{name} clock gating: is for PEs (leave the option out)")
        if operand_isolation:
            raise ConfigError(f"{name} operand isolation: is for PEs (leave the option out)")
        return accelerators.synthesize(name, node, clock_mhz, effort) | {"effort": effort}
    from bitwright.rtl.asic import cells

    systolic = ":" not in name and base in pe.names()
    if dataflow == STREAM:
        systolic, dataflow = False, None
    if dataflow is not None and not systolic:
        raise ConfigError(f"{name} dataflow = {dataflow!r}: this PE takes streams (leave the option out)")

    def once(clock_mhz: float) -> dict[str, Any]:
        if systolic:
            return cells.synthesize(
                name,
                dataflow or "ws",
                node,
                clock_mhz,
                clock_gating=clock_gating,
                operand_isolation=operand_isolation,
                effort=effort,
            )
        return cells.synthesize_stream(
            name, node, clock_mhz, clock_gating=clock_gating, operand_isolation=operand_isolation, effort=effort
        )

    return (cells.fastest(once, clock_mhz) if fmax else once(clock_mhz)) | {"effort": effort}
