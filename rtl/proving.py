"""Which proofs a PE has: those of every stream of steps, or bit-serial's own; and their rows of evidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl import formal
from bitwright.rtl.bench import bit_serial_proofs
from bitwright.rtl.bench.stream import evidence


def prove_pe(
    name: str, params: dict[str, Any], solver: str, timeout_s: float, *, write: bool = False
) -> Iterator[formal.Result]:
    """Every proof of one PE, as it ends; with `write` each becomes a row of docs/evidence, at last its only rows."""
    shown = evidence.shown(name, params)
    spec: Any = evidence.spec_of(name, params)
    if isinstance(spec, BitSerial):
        results = bit_serial_proofs.prove(spec, shown, solver=solver, timeout_s=timeout_s)
    else:
        results = formal.prove(spec, solver, timeout_s=timeout_s, variant=shown)
    row = evidence.row(spec, params, "proof", {}, f"bitwright prove {shown}") if write else {}
    told = []
    for result in results:
        told.append(result.property)
        if write:
            figures = {key: getattr(result, key) for key in ("property", "method", "depth", "result")}
            evidence.store({**row, "figures": figures})
        yield result
    if write:
        evidence.keep(spec, params, told)


def prove_machine(name: str, solver: str, timeout_s: float) -> Iterator[formal.Result]:
    """Every proof of the control of a machine's accelerator, as it ends; see `formal.control_flow`."""
    from bitwright.arch import machine
    from bitwright.arch.isa.limits import limits
    from bitwright.rtl.accelerator import memories
    from bitwright.rtl.accelerator.top import Accelerator
    from bitwright.rtl.bench.environment import cache_folder
    from bitwright.rtl.formal import control_flow
    from bitwright.rtl.formal.model import Setting

    allowed = limits(machine.load(name))
    made = Accelerator(allowed)
    work = cache_folder().parent / "formal" / made.module_name
    work.mkdir(parents=True, exist_ok=True)
    setting = Setting(name, name, work, solver, timeout_s)
    yield from control_flow.prove(
        memories.verilog(made, made.module_name), made.module_name, allowed.port_bytes, setting
    )
