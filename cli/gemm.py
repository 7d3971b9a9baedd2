"""`bitwright simulate MACHINE --gemm M,K,N`: one matrix product on the accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError, suggest

if TYPE_CHECKING:
    from bitwright.arch.machine import Machine

ENGINES = ("simpy", "fast", "rtl")


def gemm_row(machine: Machine, sizes: str, *, engine: str, weights: str | None, group: int | None) -> dict[str, Any]:
    """The row of one product: counters, bounds, utilisation; the same from every engine.

    "rtl" also compares the results in memory with the functional interpreter's. Raises ConfigError for wrong sizes, an
    unknown engine or a format that the machine does not take, MismatchError where the RTL's results are others.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r}: no such engine; {suggest(engine, ENGINES)}")
    m, k, n = _sizes(sizes)
    from bitwright.sim.accelerator.gemm import Gemm, GemmResult, simulate_gemm, usual_weights
    from bitwright.sim.inference import default_policy

    if weights is not None:
        chosen = weights
    elif machine.pe in pe.names():
        policy = default_policy(machine.pe)
        chosen = policy.weights
        group = policy.group if group is None and isinstance(policy.group, int) else group
    else:
        chosen, usual = usual_weights(machine)
        group = usual if group is None else group
    if engine != "rtl":
        return simulate_gemm(machine, m, k, n, fmt=chosen, group=group, engine=engine).row()
    gemm = Gemm(machine, m, k, n, chosen, group)
    return GemmResult(gemm, engine, machine.memory, _on_rtl(gemm)).row()


def _on_rtl(gemm: Any) -> Any:
    """Counters of the compiled Verilog."""
    from bitwright import rtl
    from bitwright.arch.isa import to_bytes
    from bitwright.arch.isa.interpreter import run

    lowered = gemm.lowered()
    expected = [region.copy() for region in lowered.memory]
    run(lowered.program, gemm.limits, expected)
    done = rtl.run_program(gemm.machine, gemm.limits, to_bytes(lowered.program), lowered.memory)
    if done.fault is not None:
        raise MismatchError(f"{gemm.machine.name}: the RTL stops at instruction {done.index}: {done.fault.name}")
    for region, (found, wanted) in enumerate(zip(lowered.memory, expected, strict=True)):
        if (found != wanted).any():
            at = int((found != wanted).argmax())
            raise MismatchError(
                f"{gemm.machine.name}: byte {at} of region {region} is {int(found[at])} from the RTL, "
                f"{int(wanted[at])} from the interpreter"
            )
    return done.counters


def _sizes(text: str) -> tuple[int, int, int]:
    try:
        m, k, n = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"gemm = {text}: must be three whole numbers M,K,N such as 16,576,576") from None
    return m, k, n
